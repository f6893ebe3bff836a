"""Group Relative Policy Optimization (Shao et al., arXiv 2402.03300), for any role: advantages, the loss, the trainer.

For completions o_1..o_N of one prompt with rewards r_1..r_N

    A_i = (r_i - mean(r)) / (std(r) + eps)                                           `group_advantages`
    J   = sum_{i,t} min(rho_it A_i, clip(rho_it, 1 - low, 1 + high) A_i) - beta kl_it,  over their number   `grpo_loss`

where rho_it is the policy's probability of token t of o_i over that at the time of sampling, and kl_it the k3 estimate
of the KL divergence to the reference. The prompt is not trained on; the stop token is.

Rows are prompt + completion, right-padded, sorted by length and cut into micro-batches by a token budget. The loss is
divided once, by the count over the whole mini-batch and all processes, so micro-batches and processes change nothing.

With torch.distributed initialised, FSDP2 shards the fp32 weights, their gradients and AdamW's moments over the processes,
and computes in bf16 on CUDA; without it (one process on a CPU) the same code runs on whole tensors.

Shapes: G prompts (groups), N completions of each, B rows, T tokens, M trained tokens of a micro-batch, D width.
"""

import math
import os
import shutil
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from common import barrier, compute_dtype, wait
from kernels.logprob import chunk_tokens, linear_logprob
from model import Transformer


def group_advantages(rewards_GN, eps=1e-6):
    """A_i = (r_i - mean(r)) / (std(r) + eps) within each group -> [G, N]. std is the unbiased one; a group of equal
    rewards, or of one completion, has advantages 0."""
    rewards_GN = torch.as_tensor(rewards_GN, dtype=torch.float32)
    centred_GN = rewards_GN - rewards_GN.mean(1, keepdim=True)
    if rewards_GN.shape[1] == 1:
        return centred_GN
    return centred_GN / (rewards_GN.std(1, keepdim=True) + eps)


def token_weights(mask, average="token", denominator=None):
    """What each token weighs in the loss -> [B, T]. mask: [B, T], 1 where a token is trained. average "token": every token
    weighs the same; "sequence": every row does, its tokens sharing its weight. denominator: the tokens (rows) of the whole
    batch that this one is a part of, this one's own when not given."""
    weight = mask.to(torch.promote_types(mask.dtype, torch.float32))
    if average == "sequence":
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1)
    return weight / (weight.sum().clamp(min=1) if denominator is None else denominator)


def k3(log_ratio):
    """exp(d) - d - 1 of d = ln(q/p) at tokens drawn from p: an estimate of KL(p, q) that is never negative (Schulman, 2020)."""
    return log_ratio.expm1() - log_ratio


def grpo_loss(logprobs, old_logprobs, ref_logprobs, advantages, mask, *, kl_coef=0.01, clip_low=0.2, clip_high=0.2,
              clip_dual=None, average="token", denominator=None, importance=None):
    """-J of the module's docstring -> (scalar loss, metrics).

    logprobs, old_logprobs, ref_logprobs: [B, T], under the policy, the policy that sampled, and the reference; advantages:
    [B]; mask, average, denominator: as in `token_weights`. clip_dual: for A < 0 the surrogate is at least clip_dual * A (Ye
    et al., arXiv 1912.09729), None for no such bound. importance: [B, T], what the surrogate of each token is multiplied by.
    metrics: means with the same weights: kl, clip_low, clip_high, clip_dual (shares of tokens); parts add up to the whole.
    """
    A_B1 = advantages[:, None]
    ratio = (logprobs - old_logprobs).exp()
    surrogate = torch.minimum(ratio * A_B1, ratio.clamp(1 - clip_low, 1 + clip_high) * A_B1)
    if clip_dual is not None:
        surrogate = torch.where(A_B1 < 0, torch.maximum(surrogate, clip_dual * A_B1), surrogate)
    if importance is not None:
        surrogate = importance * surrogate
    kl = k3(ref_logprobs - logprobs)
    weight = token_weights(mask, average, denominator)
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
        """The logprob of each token where mask_BT, at the temperature it was drawn at, and the entropy of the distribution
        there -> two fp32 [B, T], 0 elsewhere. The entropy carries no gradient."""
        hidden_BTD = self.model(tokens_BT[:, :-1])
        trained_BT = mask_BT[:, 1:]
        of_tokens_M = linear_logprob(hidden_BTD[trained_BT], self.model.head_weight, tokens_BT[:, 1:][trained_BT], temperature)
        zeros_BT = torch.zeros(tokens_BT.shape, device=tokens_BT.device)
        logprob_BT, entropy_BT = (zeros_BT.masked_scatter(mask_BT, x_M) for x_M in of_tokens_M)
        return logprob_BT, entropy_BT.detach()


@dataclass
class Rollout:
    """One row to learn from: token ids of the prompt and of the completion, the completion's advantage, and the logprobs of
    its tokens under the sampler, at the temperature alone, where they are known."""

    prompt: list
    completion: list
    advantage: float
    logprobs: list | None = None

    def __len__(self):
        return len(self.prompt) + len(self.completion)


@dataclass
class MicroBatch:
    tokens_BT: torch.Tensor
    mask_BT: torch.Tensor
    advantage_B: torch.Tensor
    sampler_logprobs_BT: torch.Tensor | None
    old_logprobs_BT: torch.Tensor | None = None


def micro_batches(rollouts, token_budget, device, rank=0, world=1):
    """This process's micro-batches, right-padded, each of at most token_budget tokens, padding included, or one row.

    Rollouts are taken longest first, in rounds of as many as fit the budget of every process, and dealt out in turn: all
    processes have the same number of micro-batches, as FSDP's collectives need, and about the same work. A process that the
    last round has no row for gets one of which no token is trained.
    """
    rows, batches = sorted(rollouts, key=len, reverse=True), []
    while rows:
        count = max(1, token_budget // len(rows[0])) * world
        mine = rows[:count][rank::world]
        batch = pad(mine or rows[:1], device)
        if not mine:
            batch.mask_BT.zero_()
        batches.append(batch)
        rows = rows[count:]
    return batches


def pad(rows, device):
    """One `MicroBatch` of these rollouts."""
    length = max(map(len, rows))

    def padded(values_of, dtype):
        values = [values_of(row) for row in rows]
        return torch.tensor([v + [0] * (length - len(v)) for v in values], dtype=dtype, device=device)

    tokens_BT = padded(lambda r: r.prompt + r.completion, torch.int64)
    mask_BT = padded(lambda r: [0] * len(r.prompt) + [1] * len(r.completion), torch.bool)
    known = all(r.logprobs is not None for r in rows)
    sampler_BT = padded(lambda r: [0] * len(r.prompt) + r.logprobs, torch.float32) if known else None
    advantage_B = torch.tensor([r.advantage for r in rows], dtype=torch.float32, device=device)
    return MicroBatch(tokens_BT, mask_BT, advantage_B, sampler_BT)


@torch.no_grad()
def copy_weights(source, target):
    """Copies one `Transformer`'s weights into another, in the target's dtype and device. A source that a `Trainer` has sharded
    is copied whole; all processes call it then."""
    for p, q in zip(source.parameters(), target.parameters(), strict=True):
        q.copy_(p.to(q.dtype).full_tensor() if isinstance(p, DTensor) else p)


def matmul_rate(device, dtype, size=1024, rounds=9):
    """FLOP/s of the product of two square matrices, the quickest of `rounds`: what the device can do at most."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in "ab")
    return 2 * size**3 / quickest(lambda: a @ b, device, rounds, repeat=4)


def copy_rate(device, numbers=2**26):
    """Bytes read and written a second by a copy within the device's memory, the quickest of 5."""
    source = torch.zeros(numbers, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / quickest(lambda: target.copy_(source), device, rounds=5)


def quickest(call, device, rounds, repeat=1):
    """Seconds of a call in the quickest of `rounds`, each of `repeat` calls."""
    seconds = []
    for _ in range(rounds):
        wait(device)
        start = time.perf_counter()
        for _ in range(repeat):
            call()
        wait(device)
        seconds.append((time.perf_counter() - start) / repeat)
    return min(seconds)


def training_memory(config, tokens, devices, dtype, sharded, activation_checkpointing=False, reference_on_host=False,
                    reshard=True):
    """What a `Trainer` takes at its peak on each device, in bytes -> {what: bytes}. tokens: of a micro-batch, at least its
    token_budget or the longest row; dtype: of the computation; sharded: by FSDP, over `devices`, if only one."""
    D, F, attended = config.width, config.ffn, (config.heads + config.kv_heads) * config.head_dim
    weights, size = config.parameters(), dtype.itemsize
    outer = weights - config.layers * config.block_parameters()  # the embedding, the head, the last norm
    # What autograd keeps of a block, each once a token: its input, both norms' outputs and the sum between (4 D); queries and
    # keys before and after norm and rotation, values, the attention's output (3 HC + 3 KC); four of SwiGLU's (4 F).
    block = 4 * D + 3 * attended + 4 * F
    if dtype == torch.float32:  # without bf16, or a GPU, PyTorch's rms_norm is not one kernel, and keeps the normalised values
        block += 2 * D + attended
    if reshard:  # whole in the computation's dtype while they are used: the outer ones and two blocks', with their gradients
        gathered = size * (2 * outer + 4 * config.block_parameters())
    else:  # all of the policy and the reference, and fp32 gradients
        gathered = (2 * size + 4) * weights
    kept, again = (D, tokens * size * block) if activation_checkpointing else (block, 0)
    chunk = min(tokens, chunk_tokens(config.vocab_size, size)) * config.vocab_size * size
    return {
        "fp32 weights": 4 * weights / devices,
        "AdamW moments": 8 * weights / devices,
        "fp32 gradients": 4 * weights / devices,
        "reference": 0 if reference_on_host else size * weights / devices,
        "gathered weights": gathered if sharded else 0,
        "activations": tokens * size * kept * config.layers,
        # at the head a chunk, of which the plain twin makes two copies, and the hidden states; later a block, recomputed
        "logits, or a block": max(chunk * (3 if dtype == torch.float32 else 1) + 2 * tokens * size * D, again),
    }


class Trainer:
    """Trains one role for one phase: fp32 master weights, AdamW, and a frozen copy of the starting weights as reference.

    Every process passes the same rollouts and computes its share of them.
    """

    def __init__(self, model, device=None, *, lr, weight_decay=0.01, kl_coef=0.01, clip_low=0.2, clip_high=0.2, clip_dual=None,
                 average="token", mini_batches=1, old_logprobs="recomputed", importance_cap=0.0, token_budget=16384,
                 max_grad_norm=1.0, temperature=1.0, activation_checkpointing=False, compile_blocks=False,
                 reference_on_host=False, reshard=True):
        """model: the `Transformer` to start from, which is copied to device (its own when not given), tensor by tensor, each
        process keeping its shard. mini_batches: optimizer updates a step. old_logprobs: "recomputed" by this model before
        the first update, or those of the "sampler". importance_cap: each token's surrogate is weighted by its probability
        here over that in the sampler, at most this (truncated importance sampling), 0 for no weight. token_budget: the most
        tokens, padding included, of a micro-batch. temperature: that of the sampling. activation_checkpointing: keep only
        the input of each block for backward. reference_on_host: keep the reference in host memory, a block at a time on the
        device (needs CUDA). reshard: free gathered weights after each use, and reduce gradients after each micro-batch; if not,
        once an update, which is faster where there is memory for both whole. The rest as in `grpo_loss`.

        Raises ValueError on CUDA without a process group: bf16 compute over fp32 weights is FSDP's.
        """
        self.loss_settings = dict(kl_coef=kl_coef, clip_low=clip_low, clip_high=clip_high, clip_dual=clip_dual, average=average)
        self.mini_batches, self.token_budget = mini_batches, token_budget
        self.old_logprobs, self.importance_cap = old_logprobs, importance_cap
        self.max_grad_norm, self.temperature = max_grad_norm, temperature
        self.device = torch.device(device or model.embed_tokens.weight.device)
        self.compute_dtype = compute_dtype(self.device)
        if self.device.type == "cuda" and not dist.is_initialized():
            raise ValueError("on CUDA a Trainer needs torch.distributed.init_process_group first, if only of one process")
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.reshard = reshard or not dist.is_initialized()
        self.policy = self._place(model, torch.float32)
        self.reference = self._place(model, self.compute_dtype, reference_on_host)
        self.reference.requires_grad_(False)
        for block in (*self.policy.model.layers, *self.reference.model.layers):
            if compile_blocks:
                block.forward = torch.compile(block.forward, dynamic=True)
            if activation_checkpointing:  # there is no dropout whose random state would have to be kept
                block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=lr, weight_decay=weight_decay, betas=(0.9, 0.999),
                                           fused=True)
        self.peak_flops = self.world * matmul_rate(self.device, self.compute_dtype, 8192 if self.device.type == "cuda" else 512)

    def _place(self, source, dtype, on_host=False):
        """A `Policy` with a copy of the source's weights in dtype, sharded over the processes when there are any. It is built
        without memory, so that no process ever holds more than its shard and one whole tensor."""
        with torch.device("meta"):
            policy = Policy(Transformer(source.config))
        if dist.is_initialized():
            precision = MixedPrecisionPolicy(param_dtype=self.compute_dtype, reduce_dtype=torch.float32)
            offload = CPUOffloadPolicy() if on_host else OffloadPolicy()
            for module in (*policy.model.layers, policy):
                fully_shard(module, mp_policy=precision, offload_policy=offload, reshard_after_forward=self.reshard)
        state = {}
        for (name, p), q in zip(policy.model.named_parameters(), source.parameters(), strict=True):
            weight = q.detach().to(self.device, dtype, copy=True)
            if isinstance(p, DTensor):
                weight = distribute_tensor(weight, p.device_mesh, p.placements, src_data_rank=None)
            state[name] = weight.cpu() if on_host else weight
        policy.model.load_state_dict(state, assign=True)
        return policy

    def logprobs(self, policy, batch):
        """(logprobs, entropies), each [B, T], of a micro-batch under the policy or the reference."""
        return policy(batch.tokens_BT, batch.mask_BT, self.temperature)

    def step(self, rollouts):
        """One GRPO step on a list of `Rollout`s, `mini_batches` optimizer updates -> metrics: loss, those of `grpo_loss`,
        entropy and, where the rollouts have logprobs, sampler_kl, averaged over the updates; grad_norm, its largest;
        update_seconds; flops_share, of the measured rate of large products, recomputed activations not counted.

        Raises ValueError for a row without completion tokens, or without the sampler's logprobs where they are needed;
        FloatingPointError when a loss or gradient is not finite, naming the rollouts by their place in the list. The weights
        are then as they were before that update.
        """
        start = time.perf_counter()
        if any(not r.completion for r in rollouts):
            raise ValueError("a rollout has no completion tokens")
        if (self.old_logprobs == "sampler" or self.importance_cap) and any(r.logprobs is None for r in rollouts):
            raise ValueError("a rollout lacks the sampler's logprobs")
        size = -(-len(rollouts) // self.mini_batches)
        minis = [rollouts[i:i + size] for i in range(0, len(rollouts), size)]
        batches = [micro_batches(mini, self.token_budget, self.device, self.rank, self.world) for mini in minis]
        recompute = len(minis) > 1 and self.old_logprobs == "recomputed"  # a single update's policy is the one that sampled
        if recompute:
            with torch.no_grad():
                for batch in (batch for mini in batches for batch in mini):
                    batch.old_logprobs_BT, _ = self.logprobs(self.policy, batch)
        updates = [self._update(mini, own, first) for mini, own, first in zip(minis, batches, range(0, len(rollouts), size))]
        metrics = {name: sum(update[name] for update in updates) / len(updates) for name in updates[0]}
        metrics["grad_norm"] = max(update["grad_norm"] for update in updates)
        seconds = time.perf_counter() - start
        config, passes = self.policy.model.config, 3 + 1 + recompute  # backward is two forwards' work; the reference
        flops = passes * sum(config.forward_flops(len(r), len(r) * (len(r) + 1) // 2, len(r.completion)) for r in rollouts)
        return metrics | {"update_seconds": seconds, "flops_share": flops / seconds / self.peak_flops}

    def _update(self, rollouts, batches, first):
        """One optimizer update on a mini-batch, of which this process has `batches`; its rollouts are those from `first` on."""
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
            raise FloatingPointError(f"the loss is {metrics['loss']} and the gradient norm {metrics['grad_norm']}, because of "
                                     + self._culprits(rollouts, first))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return metrics

    def _loss(self, batch, rollouts):
        """The loss of a micro-batch, as its part of the mini-batch `rollouts`, and its metrics."""
        average = self.loss_settings["average"]
        denominator = sum(len(r.completion) for r in rollouts) if average == "token" else len(rollouts)
        with torch.no_grad():
            ref_logprobs, _ = self.logprobs(self.reference, batch)
        logprobs, entropy = self.logprobs(self.policy, batch)
        own_logprobs = logprobs.detach() if batch.old_logprobs_BT is None else batch.old_logprobs_BT
        sampler_logprobs = batch.sampler_logprobs_BT
        old_logprobs = sampler_logprobs if self.old_logprobs == "sampler" else own_logprobs
        importance = (own_logprobs - sampler_logprobs).exp().clamp(max=self.importance_cap) if self.importance_cap else None
        loss, metrics = grpo_loss(logprobs, old_logprobs, ref_logprobs, batch.advantage_B, batch.mask_BT, importance=importance,
                                  denominator=denominator, **self.loss_settings)
        weight = token_weights(batch.mask_BT, average, denominator)
        metrics["entropy"] = (entropy * weight).sum()
        if all(r.logprobs is not None for r in rollouts):
            metrics["sampler_kl"] = (k3(own_logprobs - sampler_logprobs) * weight).sum()
        return loss, metrics

    def _clip_gradient(self):
        """Scales the gradient down to max_grad_norm -> its norm before, over all processes."""
        grad_norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        return (grad_norm.full_tensor() if isinstance(grad_norm, DTensor) else grad_norm).item()

    def _culprits(self, rollouts, first):
        """Which rollouts, each taken alone by all processes, have a loss or a gradient that is not finite."""
        found = []
        for i, rollout in enumerate(rollouts, first):
            loss, _ = self._loss(pad([rollout], self.device), [rollout])
            loss.backward()
            if not (math.isfinite(loss.item()) and math.isfinite(self._clip_gradient())):
                found.append(str(i))
            self.optimizer.zero_grad()
        if not found:
            return "no rollout alone"
        return f"{len(found)} of {len(rollouts)} rollouts: number {', '.join(found[:10])}{', ...' if found[10:] else ''}"

    def gather(self):
        """The trained `Transformer`, whole, fp32 and on the CPU, for rank 0; None for the others. All processes call it."""
        state = {}
        for name, p in self.policy.model.named_parameters():
            weight = p.detach().full_tensor() if isinstance(p, DTensor) else p.detach()
            if self.rank == 0:
                state[name] = weight.cpu()
        if self.rank:
            return None
        with torch.device("meta"):
            model = Transformer(self.policy.model.config)
        model.load_state_dict(state, assign=True)
        return model

    # -- checkpoints within a phase --

    def save_checkpoint(self, folder, step, keep=2):
        """Writes weights and moments to folder/step<step>, each process its shard, under a temporary name that is renamed at
        the end, and removes all but the newest `keep`. With several machines the folder must be on a file system they share."""
        path = Path(folder) / f"step{step:06d}"
        partial = path.with_name(path.name + ".partial")
        if self.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
        barrier()
        model, optimizer = get_state_dict(self.policy, self.optimizer)
        with warnings.catch_warnings(action="ignore"):  # such as that there is one process only
            dcp.save({"model": model, "optimizer": optimizer}, checkpoint_id=partial)
        barrier()
        if self.rank == 0:
            os.replace(partial, path)
            for old in checkpoints(folder)[:-keep]:
                shutil.rmtree(old)

    def load_checkpoint(self, folder):
        """Reads the newest checkpoint in a folder -> its step, 0 when there is none. The number of processes may be another."""
        found = checkpoints(folder)
        if not found:
            return 0
        model, optimizer = get_state_dict(self.policy, self.optimizer)
        with warnings.catch_warnings(action="ignore"):  # such as that there is one process only
            dcp.load({"model": model, "optimizer": optimizer}, checkpoint_id=found[-1])
        set_state_dict(self.policy, self.optimizer, model_state_dict=model, optim_state_dict=optimizer)
        return int(found[-1].name.removeprefix("step"))


def checkpoints(folder):
    """The finished checkpoints in a folder, oldest first."""
    return sorted(p for p in Path(folder).glob("step*") if p.name.removeprefix("step").isdigit())
