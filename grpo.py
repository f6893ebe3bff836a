"""Group Relative Policy Optimization (Shao et al., arXiv 2402.03300), for any role. `python grpo.py` shows a step.

For completions o_1..o_N of one prompt with rewards r_1..r_N

    A_i = (r_i - mean(r)) / (std(r) + eps)                                           `group_advantages`
    J   = mean over i, t of  min(rho_it A_i, clip(rho_it, 1 - low, 1 + high) A_i) - beta kl_it        `grpo_loss`

where rho_it is the policy's probability of token t of o_i over its probability at the time of sampling, and kl_it is
the k3 estimate of the KL divergence to the reference. The prompt is not trained on; the stop token is.

A row is prompt + completion (batches.py). The loss is divided once, by the count over the whole mini-batch and all
processes, so the number of micro-batches and of processes changes nothing but speed and memory. FSDP2 shards the fp32
weights, gradients and AdamW's moments, and computes in bf16 on CUDA. One process on a CPU needs no process group.

Shapes: G prompts (groups), N completions per prompt, B rows, T tokens of prompt and completion."""

import math
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from batches import Policy, common_prefix, example, micro_batches, pad
from checkpoint import newest_checkpoint, read_shards, save_shards
from common import compiled, compute_dtype, rank_and_world, require_least, require_one_of
from model import Block, Transformer


@dataclass
class GRPOConfig:
    """How a role is trained. What is not here, such as the learning rate, each role has of its own: see `Trainer`."""

    kl_coef: float = 0.01  # weight of the KL divergence to the phase's starting weights (beta)
    clip_low: float = 0.2  # the ratio is clipped below 1 - clip_low
    clip_high: float = 0.2  # the ratio is clipped above 1 + clip_high
    clip_dual: float = 0.0  # the surrogate is at least clip_dual * A where A < 0 (arXiv 1912.09729); 0: no bound
    kl_max: float = 0.0  # a token's KL estimate counts as at most this; 0: no bound
    ratio: str = "token"  # one for each `token`, or one for the whole `sequence` (GSPO, arXiv 2507.18071)
    average: str = "token"  # the loss is a mean over all `token`s, over each `sequence`'s mean, or each few `rows`'
    normalise_std: bool = True  # divide advantages by their group's std; false is Dr. GRPO (arXiv 2503.20783)
    warmup_steps: int = 0  # steps of a phase in which the learning rate rises linearly, from 0 in the first
    old_logprobs: str = "recomputed"  # the ratio's denominator: by the policy as the step began, or the `sampler`'s
    importance_cap: float = 0.0  # cap of a token's weight, trainer's over sampler's probability (2.0 is usual); 0: none
    temperature: float = 1.0  # of every draw in training
    weight_decay: float = 0.01  # of AdamW
    max_grad_norm: float = 1.0  # gradients are scaled down to this norm
    token_budget: int = 2048  # tokens of a micro-batch, padding included; changes speed and memory only
    activation_checkpointing: bool = False  # keep only each block's input for backward; changes speed and memory only
    compile_blocks: bool = False  # run the trained blocks through torch.compile; changes speed and memory only
    offload: str = "false"  # the training state is on the host: `true`, or while `sampling`; speed and memory only
    reshard: bool = False  # free gathered weights after each use, for large models; changes speed and memory only

    def check(self):
        """Raises ValueError, naming the setting, for a value that no training can have."""
        require_least(self, 0, "kl_coef", "kl_max", "clip_low", "clip_high", "clip_dual", "importance_cap",
                      "weight_decay", "warmup_steps")
        require_least(self, 1e-9, "temperature", "max_grad_norm")
        require_least(self, 1, "token_budget")
        require_one_of(self, ("token", "sequence"), "ratio")
        require_one_of(self, ("token", "sequence", "rows"), "average")
        require_one_of(self, ("recomputed", "sampler"), "old_logprobs")
        require_one_of(self, ("false", "sampling", "true"), "offload")
        if self.old_logprobs == "sampler" and self.importance_cap:
            raise ValueError("--importance_cap needs --old_logprobs recomputed: the sampler's has that weight already")


def group_advantages(rewards_GN, normalise_std=True, eps=1e-6):
    """A_i = (r_i - mean(r)) / (std(r) + eps) within each group -> [G, N]; without the division if not normalise_std.
    std is the unbiased one. A group of equal rewards, or of one completion, has advantages 0."""
    rewards_GN = torch.as_tensor(rewards_GN)
    rewards_GN = rewards_GN.to(torch.promote_types(rewards_GN.dtype, torch.float32))
    equal_G1 = rewards_GN.amin(1, keepdim=True) == rewards_GN.amax(1, keepdim=True)
    advantages_GN = rewards_GN - rewards_GN.mean(1, keepdim=True)
    if normalise_std and rewards_GN.shape[1] > 1:
        advantages_GN = advantages_GN / (rewards_GN.std(1, keepdim=True) + eps)
    # The mean of equal numbers may differ from them by rounding, which the tiny std would blow up to 0.1.
    return advantages_GN.masked_fill(equal_G1, 0)


def token_weights(mask, average, denominator=None, averaged_B=None):
    """The weight of each token in the loss -> [B, T]. mask: [B, T], 1 where a token is trained. average: what weighs
    the same, "token"s, "sequence"s, or each of a few "rows" that are averaged together. denominator: the number of
    these in the whole mini-batch that the rows are a part of; their own when not given. averaged_B: for "rows", the
    tokens of the rows that each is averaged with, itself included."""
    weight = mask.to(torch.promote_types(mask.dtype, torch.float32))
    if average != "token":
        tokens_B = weight.sum(1) if average == "sequence" else averaged_B
        weight = weight / tokens_B[:, None].clamp(min=1)
    return weight / (weight.sum().clamp(min=1) if denominator is None else denominator)


def k3(log_ratio):
    """exp(d) - d - 1 of d = ln(q/p) at tokens drawn from p: an estimate of KL(p, q), not negative (Schulman, 2020)."""
    return log_ratio.expm1() - log_ratio


def grpo_loss(logprobs, old_logprobs, ref_logprobs, advantages, mask, cfg, denominator=None, importance=None,
              averaged_B=None):
    """-J of the module's docstring -> (scalar loss, metrics).

    logprobs, old_logprobs, ref_logprobs: [B, T], under the policy, the policy that sampled, and the reference.
    advantages: [B]. mask, denominator, averaged_B: as in `token_weights`. importance: [B, T], a factor of each token's
    surrogate.
    metrics: kl; clip_low, clip_high, clip_dual, the shares of clipped tokens; weighted as the loss."""
    A_B1 = advantages[:, None]
    weight = token_weights(mask, cfg.average, denominator, averaged_B)
    log_ratio = logprobs - old_logprobs
    if cfg.ratio == "sequence":  # the geometric mean of the row's ratios (GSPO)
        means_B1 = (log_ratio * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        log_ratio = means_B1.expand_as(log_ratio)
    ratio = log_ratio.exp()
    surrogate = torch.minimum(ratio * A_B1, ratio.clamp(1 - cfg.clip_low, 1 + cfg.clip_high) * A_B1)
    if cfg.clip_dual:
        surrogate = torch.where(A_B1 < 0, torch.maximum(surrogate, cfg.clip_dual * A_B1), surrogate)
    if importance is not None:
        surrogate = importance * surrogate
    kl = k3(ref_logprobs - logprobs)
    if cfg.kl_max:
        kl = kl.clamp(max=cfg.kl_max)
    loss = -((surrogate - cfg.kl_coef * kl) * weight).sum()

    with torch.no_grad():
        per_token = {"kl": kl, "clip_low": (A_B1 < 0) & (ratio < 1 - cfg.clip_low),
                  "clip_high": (A_B1 > 0) & (ratio > 1 + cfg.clip_high),
                  "clip_dual": (A_B1 < 0) & (ratio > (cfg.clip_dual or math.inf))}
        metrics = {name: (x * weight).sum() for name, x in per_token.items()}
    return loss, metrics


def whole(x):
    """A tensor that may be sharded, gathered; all processes call it then."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def own_rows(x):
    """This process's rows of a tensor that may be sharded."""
    return x.to_local() if isinstance(x, DTensor) else x


@torch.no_grad()
def copy_weights(source, target):
    """Copies one `Transformer`'s weights into another, in the target's dtype and on its device. A source that a
    `Trainer` has sharded is copied whole; all processes call it then."""
    for p, q in zip(source.parameters(), target.parameters(), strict=True):
        q.copy_(whole(p.to(q.dtype) if isinstance(p, DTensor) else p))


@cache  # torch.compile would compile the class of each phase anew
def trained_block(compile_blocks, activation_checkpointing):
    """The class of the blocks that a `Trainer` trains. It is a class because a block that kept its own compiled method
    would be a reference cycle, whose memory waits for Python's collector."""
    forward = compiled(Block.forward) if compile_blocks else Block.forward

    class TrainedBlock(Block):
        def forward(self, *inputs):
            if activation_checkpointing:  # there is no dropout whose random state would have to be kept
                return checkpoint(forward, self, *inputs, use_reentrant=False, preserve_rng_state=False)
            return forward(self, *inputs)

    return TrainedBlock


class Trainer:
    """Trains one role for one phase: fp32 master weights and AdamW. Every process passes the same rollouts and computes
    its share of them."""

    def __init__(self, model, cfg, lr, device=None, mini_batches=1, average_rows=1):
        """model: the `Transformer` to start from. It is copied, tensor by tensor, and each process keeps its shard.
        cfg: `GRPOConfig`. lr: the learning rate. device: the model's own when not given. mini_batches: optimizer
        updates a step. average_rows: how many rows are averaged together where cfg.average is "rows". Raises ValueError
        on CUDA without a process group: FSDP is what computes in bf16 over fp32 weights."""
        self.cfg, self.device = cfg, torch.device(device or model.embed_tokens.weight.device)
        self.lr, self.mini_batches, self.average_rows, self.steps = lr, mini_batches, average_rows, 0  # steps: made
        self.rank, self.world = rank_and_world()
        if self.device.type == "cuda" and not dist.is_initialized():
            raise ValueError("on CUDA a Trainer needs torch.distributed.init_process_group first, even if alone")
        self.reshard = cfg.reshard or cfg.offload == "true" or not dist.is_initialized()
        self.policy, self.parked = self._shard(model), []
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=lr, weight_decay=cfg.weight_decay,
                                           betas=(0.9, 0.999), fused=True)

    def _shard(self, source):
        """The `Policy`, with an fp32 copy of the source's weights, sharded over the processes when there are any. It is
        built on meta, so no process ever holds more than its shard and one whole tensor."""
        block = trained_block(self.cfg.compile_blocks, self.cfg.activation_checkpointing)
        with torch.device("meta"):
            policy = Policy(Transformer(source.config, block))
        on_host = self.cfg.offload == "true"
        if dist.is_initialized():
            mesh = init_device_mesh(self.device.type, (self.world,))
            precision = MixedPrecisionPolicy(param_dtype=compute_dtype(self.device), reduce_dtype=torch.float32)
            offload = CPUOffloadPolicy(pin_memory=self.device.type == "cuda") if on_host else OffloadPolicy()
            for module in (*policy.model.layers, policy):
                fully_shard(module, mesh=mesh, mp_policy=precision, offload_policy=offload,
                            reshard_after_forward=self.reshard)
        state = {}
        for (name, p), q in zip(policy.model.named_parameters(), source.parameters(), strict=True):
            weight = q.detach().to(self.device, torch.float32, copy=True)
            if isinstance(p, DTensor):
                weight = distribute_tensor(weight, p.device_mesh, p.placements, src_data_rank=None)
            state[name] = weight.cpu() if on_host else weight
        policy.model.load_state_dict(state, assign=True)
        return policy

    def _state(self):
        """This process's shards of the weights and of AdamW's state -> {kind: {parameter: tensor}}."""
        kinds = defaultdict(dict)
        for name, p in self.policy.named_parameters():
            for kind, x in ({"weight": p.detach()} | self.optimizer.state[p]).items():
                kinds[kind][name] = own_rows(x)
        return kinds

    def _storages(self):
        """The memory of all of it."""
        return [x.untyped_storage() for tensors in self._state().values() for x in tensors.values()]

    def park(self):
        """Moves weights and moments to host memory, where they wait while the device samples."""
        for storage in [] if self.parked else self._storages():
            host = torch.empty(storage.nbytes(), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
            self.parked.append((storage, host.untyped_storage().copy_(storage)))
            storage.resize_(0)

    def unpark(self):
        """Moves them back, if they are parked."""
        for storage, host in self.parked:
            storage.resize_(host.nbytes())
            storage.copy_(host)
        self.parked = []

    def close(self):
        """Gives the memory back at once; the trainer is of no use then. FSDP's modules refer to one another in cycles,
        so that without this it would wait for Python's collector."""
        for storage in self._storages():
            storage.resize_(0)
        self.policy = self.optimizer = self.parked = None

    def logprobs(self, policy, batch):
        """(logprobs, entropies), each [B, T], of a micro-batch under a `Policy`."""
        return policy(batch.tokens_BT, batch.mask_BT, self.cfg.temperature, batch.prefix)

    def step(self, rollouts, reference=None):
        """One GRPO step on a list of `Rollout`s, mini_batches optimizer updates -> metrics: means over the updates of
        loss, those of `grpo_loss`, entropy and, where rollouts have logprobs, sampler_kl; grad_norm, the largest.
        reference: the `Transformer` of the KL term, whole in each process; not needed where kl_coef is 0.

        Raises ValueError for a row without completion tokens, without the sampler's logprobs where they are needed, and
        for a missing reference. Raises FloatingPointError when a loss or gradient is not finite, naming the rollouts by
        their index in the list; the weights are then as they were before that update."""
        start, cfg = time.perf_counter(), self.cfg
        if any(len(r.completion) == 0 for r in rollouts):
            raise ValueError("a rollout has no completion tokens")
        if (cfg.old_logprobs == "sampler" or cfg.importance_cap) and any(r.logprobs is None for r in rollouts):
            raise ValueError("a rollout lacks the sampler's logprobs")
        if cfg.kl_coef and reference is None:
            raise ValueError("the KL term (kl_coef) needs a reference")
        self.unpark()
        if cfg.warmup_steps:
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * min(1, self.steps / cfg.warmup_steps)
        size = -(-len(rollouts) // self.mini_batches)
        minis = [rollouts[i:i + size] for i in range(0, len(rollouts), size)]
        for mini in minis:
            for i in range(0, len(mini), self.average_rows):
                together = mini[i:i + self.average_rows]
                tokens = sum(len(row.completion) for row in together)
                for row in together:
                    row.averaged = tokens
        batches = [micro_batches(mini, cfg.token_budget, self.device, self.rank, self.world) for mini in minis]
        # With one update a step, old_logprobs are the policy's own: the ratio is 1, and no token is clipped.
        recompute = len(minis) > 1 and cfg.old_logprobs == "recomputed"
        for batch in (batch for own in batches for batch in own):
            self._score(batch, reference, recompute)
        updates = [self._update(mini, own, i * size, reference) for i, (mini, own) in enumerate(zip(minis, batches))]
        metrics = {name: sum(update[name] for update in updates) / len(updates) for name in updates[0]}
        metrics["grad_norm"] = max(update["grad_norm"] for update in updates)
        self.steps += 1
        seconds = time.perf_counter() - start
        config, P = self.policy.model.config, common_prefix(rollouts)  # what is computed once does not count
        forward = sum(config.forward_flops(len(r) - P, (len(r) * (len(r) + 1) - P * (P + 1)) // 2, len(r.completion))
                      for r in rollouts)
        flops = (3 + recompute + (reference is not None)) * forward  # forward, backward (two), the reference's forward
        return metrics | {"update_seconds": seconds, "update_tflops": flops / seconds / 1e12}

    @torch.no_grad()
    def _score(self, batch, reference, recompute=False):
        """Fills in a micro-batch's logprobs under the reference and, to recompute them, under the policy as it is."""
        if reference is not None:
            batch.ref_logprobs_BT, _ = self.logprobs(Policy(reference), batch)
        if recompute:
            batch.old_logprobs_BT, _ = self.logprobs(self.policy, batch)

    def _update(self, rollouts, batches, first, reference):
        """One optimizer update on a mini-batch, of which this process has `batches` -> metrics. first: the index of its
        first rollout in the step, for the error message."""
        sums = {}
        for i, batch in enumerate(batches):
            if not self.reshard:
                self.policy.set_requires_gradient_sync(i == len(batches) - 1)
                self.policy.set_reshard_after_backward(i == len(batches) - 1)
            loss, metrics = self._loss(batch, rollouts)
            (loss * self.world).backward()  # FSDP averages gradients over processes; the denominator is global already
            for name, value in {"loss": loss.detach(), **metrics}.items():
                sums[name] = sums.get(name, 0.0) + value
        values = torch.stack(list(sums.values())).double()
        if self.world > 1:
            dist.all_reduce(values)
        metrics = dict(zip(sums, values.tolist()), grad_norm=self._clip_gradient())
        if not (math.isfinite(metrics["loss"]) and math.isfinite(metrics["grad_norm"])):
            self.optimizer.zero_grad()
            raise FloatingPointError(f"the loss is {metrics['loss']} and the gradient norm {metrics['grad_norm']}, "
                                     f"because of {self._not_finite(rollouts, first, reference)}")
        self.optimizer.step()
        self.optimizer.zero_grad()
        return metrics

    def _loss(self, batch, rollouts):
        """The loss of a micro-batch, as its part of the mini-batch `rollouts`, and its metrics."""
        cfg = self.cfg
        averaged_alike = {"token": sum(len(r.completion) for r in rollouts), "sequence": len(rollouts),
                          "rows": -(-len(rollouts) // self.average_rows)}
        denominator = averaged_alike[cfg.average]
        logprobs, entropy = self.logprobs(self.policy, batch)
        start_logprobs = logprobs.detach() if batch.old_logprobs_BT is None else batch.old_logprobs_BT
        ref_logprobs = logprobs.detach() if batch.ref_logprobs_BT is None else batch.ref_logprobs_BT
        sampler_logprobs = batch.sampler_logprobs_BT
        old_logprobs = sampler_logprobs if cfg.old_logprobs == "sampler" else start_logprobs
        importance = None
        if cfg.importance_cap:  # truncated importance sampling: the sampler's probabilities differ by rounding
            importance = (start_logprobs - sampler_logprobs).exp().clamp(max=cfg.importance_cap)
        loss, metrics = grpo_loss(logprobs, old_logprobs, ref_logprobs, batch.advantage_B, batch.mask_BT, cfg,
                                  denominator, importance, batch.averaged_B)
        weight = token_weights(batch.mask_BT, cfg.average, denominator, batch.averaged_B)
        metrics["entropy"] = (entropy * weight).sum()
        if all(r.logprobs is not None for r in rollouts):
            metrics["sampler_kl"] = (k3(start_logprobs - sampler_logprobs) * weight).sum()
        return loss, metrics

    def _clip_gradient(self):
        """Scales the gradient down to max_grad_norm -> its norm before, over all processes."""
        return whole(nn.utils.clip_grad_norm_(self.policy.parameters(), self.cfg.max_grad_norm)).item()

    def _not_finite(self, rollouts, first, reference):
        """Says which rollouts, each taken alone by all processes, have a loss or a gradient that is not finite."""
        found = []
        for i, rollout in enumerate(rollouts, first):
            batch = pad([rollout], self.device)
            self._score(batch, reference)
            loss, _ = self._loss(batch, [rollout])
            loss.backward()
            if not (math.isfinite(loss.item()) and math.isfinite(self._clip_gradient())):
                found.append(str(i))
            self.optimizer.zero_grad()
        numbers = ", ".join([*found[:10], *["..."] * (len(found) > 10)])
        return f"{len(found)} of {len(rollouts)} rollouts: number {numbers}" if found else "no rollout alone"

    def gather(self):
        """The trained `Transformer`, fp32 and on the CPU, for rank 0; None for the others. All processes call it. On a
        CPU it may share the trainer's memory: save it before `close`."""
        self.unpark()
        parameters = ((name, whole(p.detach())) for name, p in self.policy.model.named_parameters())
        state = {name: p.cpu() for name, p in parameters if self.rank == 0}
        if self.rank:
            return None
        with torch.device("meta"):
            model = Transformer(self.policy.model.config)
        model.load_state_dict(state, assign=True)
        return model

    def save_checkpoint(self, folder, keep=2):
        """Writes weights and moments to folder/step<steps made>, and removes all but the newest `keep`. It appears
        whole, or not at all with an OSError. All processes call it, and share the folder's disk."""
        self.unpark()
        save_shards(self._state(), Path(folder) / f"step{self.steps:06d}", keep)

    def load_checkpoint(self, folder):
        """Reads the newest checkpoint in a folder, of any number of processes -> its step, 0 when there is none. One
        that is damaged is named and set aside, and the one before it is read."""
        if found := newest_checkpoint(folder):
            for p in self.policy.parameters():
                self.optimizer.state[p] = {"step": torch.zeros((), device=p.device),
                                           "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            read_shards(found, self._state())
            self.steps = int(found.name.removeprefix("step"))
        return self.steps


def lesson():
    """Prints one GRPO step of `batches.example`, number by number."""
    def line(*cells):
        print("".join(f"{x:10.4f}" if isinstance(x, float) else f"{x!s:>10}" for x in cells))

    policy, reference, rows = example()
    rewards_GN, cfg = torch.tensor([[1.0, 0.0, 0.0]]), GRPOConfig(kl_coef=0.1, old_logprobs="sampler")
    print(f"1. group_advantages: mean {rewards_GN.mean():.4f}, std {rewards_GN.std():.4f}, A = (reward - mean) / std")
    line("row", "tokens", "reward", "A")
    for b, (row, A) in enumerate(zip(rows, group_advantages(rewards_GN)[0].tolist())):
        row.advantage = A
        line(b, row.completion, rewards_GN[0, b].item(), A)

    batch = pad(rows, "cpu")
    mask, old_BT = batch.mask_BT, batch.sampler_logprobs_BT
    now_BT, ref_BT = (Policy(m)(batch.tokens_BT, mask, cfg.temperature)[0].detach() for m in (policy, reference))
    loss, _ = grpo_loss(now_BT.requires_grad_(), old_BT, ref_BT, batch.advantage_B, mask, cfg)
    loss.backward()
    print("""
2. grpo_loss: ratio = exp(logprob - old), clipped = ratio held within 0.8 .. 1.2, surrogate = min(ratio A, clipped A),
   k3 = exp(d) - d - 1 of d = ref - logprob. token_weights: one denominator for all rows, their 8 tokens. An update
   moves a logprob against its gradient. Row 0's token 3 is clipped: only KL moves it. Row 2's 6 is not, as A < 0.""")
    line("row", "token", "logprob", "old", "ratio", "clipped", "surrogate", "ref", "k3", "weight", "gradient", "goes")
    table = batch.tokens_BT, now_BT, old_BT, ref_BT, k3(ref_BT - now_BT), token_weights(mask, cfg.average), now_BT.grad
    by_hand, columns = 0.0, (x_BT[mask].tolist() for x_BT in table)
    for (b, _), token, logprob, old, ref, kl, weight, grad in zip(mask.nonzero().tolist(), *columns):
        ratio, A = math.exp(logprob - old), rows[b].advantage
        clipped = min(max(ratio, 1 - cfg.clip_low), 1 + cfg.clip_high)
        surrogate = min(ratio * A, clipped * A)
        by_hand -= weight * (surrogate - cfg.kl_coef * kl)
        line(b, token, logprob, old, ratio, clipped, surrogate, ref, kl, weight, grad, "up" if grad < 0 else "down")
    print(f"   by hand, minus the sum of weight (surrogate - {cfg.kl_coef} k3): {by_hand:.4f}; grpo_loss: {loss:.4f}")

    trainer = Trainer(policy, cfg, lr=0.01)
    metrics = trainer.step(rows, reference)
    after_BT, _ = trainer.logprobs(trainer.policy, batch)
    print(f"\n3. Trainer.step: loss {metrics['loss']:.4f}; what its update does to the logprob of each row")
    line("row", "before", "after", "goes")
    for b, (before, after) in enumerate(zip(now_BT.sum(1).tolist(), after_BT.sum(1).tolist())):
        line(b, before, after, "up" if after > before else "down")


if __name__ == "__main__":
    lesson()
