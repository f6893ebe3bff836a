"""Group Relative Policy Optimization (Shao et al., arXiv 2402.03300), for any role: advantages, the loss, the trainer.

For completions o_1..o_N of one prompt with rewards r_1..r_N

    A_i = (r_i - mean(r)) / (std(r) + eps)                                           `group_advantages`
    J   = sum_{i,t} min(rho_it A_i, clip(rho_it, 1 - low, 1 + high) A_i) - beta kl_it,  over their number   `grpo_loss`

where rho_it is the policy's probability of token t of o_i over that at the time of sampling, and kl_it the k3 estimate
of the KL divergence to the reference. The prompt is not trained on; the stop token is.

Rows are prompt + completion, right-padded, sorted by length and cut into micro-batches by a token budget. The loss is
divided once, by the count over the whole mini-batch and all processes, so micro-batches and processes change nothing.

Shapes: G prompts (groups), N completions of each, B rows, T tokens, M trained tokens of a micro-batch, V vocabulary, D width.
"""

import copy
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from model import Transformer, compute_dtype

HEAD_CHUNK = 4096  # tokens whose logits stand in memory at once


def group_advantages(rewards_GN, eps=1e-6):
    """A_i = (r_i - mean(r)) / (std(r) + eps) within each group -> [G, N]. std is the unbiased one; a group of equal
    rewards, or of one completion, has advantages 0."""
    rewards_GN = torch.as_tensor(rewards_GN, dtype=torch.float32)
    centred_GN = rewards_GN - rewards_GN.mean(1, keepdim=True)
    if rewards_GN.shape[1] == 1:
        return centred_GN
    return centred_GN / (rewards_GN.std(1, keepdim=True) + eps)


def grpo_loss(logprobs, old_logprobs, ref_logprobs, advantages, mask, *, kl_coef=0.01, clip_low=0.2, clip_high=0.2,
              clip_dual=None, average="token", denominator=None):
    """-J of the module's docstring -> (scalar loss, metrics).

    logprobs, old_logprobs, ref_logprobs: [B, T], under the policy, the policy that sampled, and the reference; advantages:
    [B]; mask: [B, T], 1 where a token is trained. clip_dual: for A < 0 the surrogate is at least clip_dual * A (Ye et al.,
    arXiv 1912.09729), None for no such bound. KL is k3 (Schulman): exp(d) - d - 1 with d = ref_logprob - logprob.
    average "token": every token weighs the same; "sequence": every row does, its tokens sharing its weight.
    denominator: the tokens (rows) of the whole batch that this one is a part of, this one's own when not given.
    metrics: means with the same weights: kl, clip_low, clip_high, clip_dual (shares of tokens); parts add up to the whole.
    """
    A_B1 = advantages[:, None]
    ratio = (logprobs - old_logprobs).exp()
    surrogate = torch.minimum(ratio * A_B1, ratio.clamp(1 - clip_low, 1 + clip_high) * A_B1)
    if clip_dual is not None:
        surrogate = torch.where(A_B1 < 0, torch.maximum(surrogate, clip_dual * A_B1), surrogate)
    d = ref_logprobs - logprobs
    kl = d.exp() - d - 1

    weight = mask.to(logprobs.dtype)
    if average == "sequence":
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1)
    if denominator is None:
        denominator = weight.sum().clamp(min=1)
    weight = weight / denominator
    loss = -((surrogate - kl_coef * kl) * weight).sum()

    with torch.no_grad():
        dual = (A_B1 < 0) & (ratio > clip_dual) if clip_dual is not None else torch.zeros_like(ratio, dtype=torch.bool)
        shares = {"kl": kl, "clip_low": (A_B1 < 0) & (ratio < 1 - clip_low), "clip_high": (A_B1 > 0) & (ratio > 1 + clip_high),
                  "clip_dual": dual}
        metrics = {name: (x * weight).sum() for name, x in shares.items()}
    return loss, metrics


class Policy(nn.Module):
    """The model as the loss sees it. The head is part of this one forward, so that FSDP gathers it once."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens_BT, mask_BT, temperature):
        """The logprob of each token where mask_BT, at the temperature it was drawn at -> fp32 [B, T], 0 elsewhere."""
        hidden_BTD = self.model(tokens_BT[:, :-1])
        trained_BT = mask_BT[:, 1:]
        hidden_MD, target_M = hidden_BTD[trained_BT], tokens_BT[:, 1:][trained_BT]
        parts = [checkpoint(head_logprobs, hidden, self.model.head_weight, target, temperature, use_reentrant=False)
                 for hidden, target in zip(hidden_MD.split(HEAD_CHUNK), target_M.split(HEAD_CHUNK))]
        return torch.zeros(tokens_BT.shape, device=tokens_BT.device).masked_scatter(mask_BT, torch.cat(parts))


def head_logprobs(hidden_MD, weight_VD, target_M, temperature):
    """Log softmax of the logits over temperature, at the targets -> fp32 [M]."""
    logits_MV = F.linear(hidden_MD, weight_VD).float() / temperature
    return -F.cross_entropy(logits_MV, target_M, reduction="none")


@dataclass
class Rollout:
    """One row to learn from: token ids of the prompt and of the completion, and the completion's advantage."""

    prompt: list
    completion: list
    advantage: float

    def __len__(self):
        return len(self.prompt) + len(self.completion)


@dataclass
class MicroBatch:
    tokens_BT: torch.Tensor
    mask_BT: torch.Tensor
    advantage_B: torch.Tensor
    old_logprobs_BT: torch.Tensor = None


def micro_batches(rollouts, token_budget, device):
    """Cuts rollouts, longest first, into right-padded batches of at most token_budget tokens, padding included, or one row."""
    batches, rows = [], []
    for rollout in [*sorted(rollouts, key=len, reverse=True), None]:
        if rows and (rollout is None or (len(rows) + 1) * len(rows[0]) > token_budget):
            tokens = torch.zeros(len(rows), len(rows[0]), dtype=torch.int64)
            mask = torch.zeros(tokens.shape, dtype=torch.bool)
            for b, row in enumerate(rows):
                tokens[b, :len(row)] = torch.tensor(row.prompt + row.completion)
                mask[b, len(row.prompt):len(row)] = True
            advantage = torch.tensor([row.advantage for row in rows], dtype=torch.float32)
            batches.append(MicroBatch(tokens.to(device), mask.to(device), advantage.to(device)))
            rows = []
        rows.append(rollout)
    return batches


@torch.no_grad()
def copy_weights(source, target):
    """Copies one `Transformer`'s weights into another, in the target's dtype and device. A source that a `Trainer` has sharded
    is copied whole; all processes call it then."""
    for p, q in zip(source.parameters(), target.parameters(), strict=True):
        q.copy_(p.full_tensor() if isinstance(p, DTensor) else p)


class Trainer:
    """Trains one role for one phase: fp32 master weights, AdamW, and a frozen copy of the starting weights as reference.

    With torch.distributed initialised, parameters are sharded over the processes by FSDP2; every process passes the same
    rollouts and computes its share of the micro-batches.
    """

    def __init__(self, model, *, lr, weight_decay=0.01, kl_coef=0.01, clip_low=0.2, clip_high=0.2, clip_dual=None,
                 average="token", mini_batches=1, token_budget=16384, max_grad_norm=1.0, temperature=1.0):
        """model: the fp32 `Transformer` to train, on its device. mini_batches: optimizer updates a step. token_budget: the
        most tokens, padding included, of a micro-batch. temperature: that of the sampling. The rest as in `grpo_loss`."""
        self.loss_settings = dict(kl_coef=kl_coef, clip_low=clip_low, clip_high=clip_high, clip_dual=clip_dual, average=average)
        self.mini_batches, self.token_budget = mini_batches, token_budget
        self.max_grad_norm, self.temperature = max_grad_norm, temperature
        self.device = model.embed_tokens.weight.device
        self.compute_dtype = compute_dtype(self.device)
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        reference = copy.deepcopy(model).to(self.compute_dtype).requires_grad_(False)
        self.policy, self.reference = Policy(model), Policy(reference)
        if self.world > 1:
            for policy in (self.policy, self.reference):
                precision = MixedPrecisionPolicy(param_dtype=self.compute_dtype, reduce_dtype=torch.float32)
                for block in policy.model.layers:
                    fully_shard(block, mp_policy=precision)
                fully_shard(policy, mp_policy=precision)
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=lr, weight_decay=weight_decay, betas=(0.9, 0.999),
                                           fused=self.device.type == "cuda")

    def logprobs(self, policy, batch):
        with torch.autocast(self.device.type, self.compute_dtype, enabled=self.compute_dtype != torch.float32):
            return policy(batch.tokens_BT, batch.mask_BT, self.temperature)

    def step(self, rollouts):
        """One GRPO step on a list of `Rollout`s, `mini_batches` optimizer updates -> metrics: the loss and those of
        `grpo_loss`, averaged over the updates, and grad_norm.

        Raises ValueError for a row without completion tokens and FloatingPointError when the gradient is not finite; the
        weights are then as they were before that update.
        """
        if any(not r.completion for r in rollouts):
            raise ValueError("a rollout has no completion tokens")
        size = -(-len(rollouts) // self.mini_batches)
        minis = [self._share(rollouts[i:i + size]) for i in range(0, len(rollouts), size)]
        if len(minis) > 1:  # with a single update the policy that sampled is the policy itself
            with torch.no_grad():
                for batch in (batch for batches, _ in minis for batch in batches):
                    batch.old_logprobs_BT = self.logprobs(self.policy, batch)
        totals = {}
        for batches, denominator in minis:
            for name, value in self._update(batches, denominator).items():
                totals[name] = totals.get(name, 0.0) + value / len(minis)
        return totals

    def _share(self, rollouts):
        """This process's micro-batches of one mini-batch, as many as every other's, and the denominator over all."""
        batches = micro_batches(rollouts, self.token_budget, self.device)
        for i in range(-len(batches) % self.world):  # FSDP's collectives need equal numbers: repeat one, trained nowhere
            batches.append(MicroBatch(batches[i].tokens_BT, torch.zeros_like(batches[i].mask_BT), batches[i].advantage_B))
        tokens = sum(len(r.completion) for r in rollouts)
        return batches[self.rank::self.world], tokens if self.loss_settings["average"] == "token" else len(rollouts)

    def _update(self, batches, denominator):
        sums = {}
        for batch in batches:
            with torch.no_grad():
                ref_logprobs = self.logprobs(self.reference, batch)
            logprobs = self.logprobs(self.policy, batch)
            old_logprobs = logprobs.detach() if batch.old_logprobs_BT is None else batch.old_logprobs_BT
            loss, metrics = grpo_loss(logprobs, old_logprobs, ref_logprobs, batch.advantage_B, batch.mask_BT,
                                      denominator=denominator, **self.loss_settings)
            (loss * self.world).backward()  # FSDP averages gradients over processes; the denominator is global already
            for name, value in {"loss": loss.detach(), **metrics}.items():
                sums[name] = sums.get(name, 0.0) + value
        grad_norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        grad_norm = (grad_norm.full_tensor() if isinstance(grad_norm, DTensor) else grad_norm).item()
        if not grad_norm < float("inf"):
            raise FloatingPointError(f"the gradient norm is {grad_norm}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        values = torch.stack(list(sums.values())).double()
        if self.world > 1:
            dist.all_reduce(values)
        return dict(zip(sums, values.tolist()), grad_norm=grad_norm)

    def gather(self):
        """The trained `Transformer`, whole and fp32, on the CPU when it was sharded. All processes call it."""
        if self.world == 1:
            return self.policy.model
        with torch.device("meta"):
            model = Transformer(self.policy.model.config)
        state = {name: p.full_tensor().cpu() for name, p in self.policy.model.state_dict().items()}
        model.load_state_dict(state, assign=True)
        return model
