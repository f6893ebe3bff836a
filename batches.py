"""Rows to learn from, the micro-batches that a trainer computes at once, and the policy's forward over one.

A row is prompt + completion, right-padded. The prompt is not trained on; the stop token is. What the rows of a
micro-batch have in common is computed once: the whole prompt of the Challenger, the system message of the Solver.

Shapes: B rows, T tokens, P tokens that all rows begin with, L = P + B (T - P) tokens of a micro-batch, M trained ones,
S positions that a row attends to, D width, H query and K key/value heads, C head width."""

import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from kernels.logprob import linear_logprob
from model import ModelConfig, Transformer, causal_attention


@dataclass
class Rollout:
    """One row to learn from. logprobs: the sampler's, of the completion's tokens, before top-k and top-p, if known."""

    prompt: list  # token ids
    completion: list | np.ndarray  # token ids
    advantage: float
    logprobs: list | np.ndarray | None = None
    averaged: int = 0  # completion tokens of the rows that it is averaged with, itself included; set by a `Trainer`

    def __len__(self):
        return len(self.prompt) + len(self.completion)


@dataclass
class MicroBatch:
    tokens_BT: torch.Tensor
    mask_BT: torch.Tensor  # whether a token is of a completion
    advantage_B: torch.Tensor
    averaged_B: torch.Tensor  # of the rollouts
    prefix: int  # P
    sampler_logprobs_BT: torch.Tensor | None
    old_logprobs_BT: torch.Tensor | None = None
    ref_logprobs_BT: torch.Tensor | None = None


def common_prefix(rows):
    """P of these rollouts. Each prompt's last token is left out: it predicts the completion's first."""
    prompts = [row.prompt for row in rows]
    return min(len(os.path.commonprefix(prompts)), min(map(len, prompts)) - 1)  # commonprefix takes any lists


def micro_batches(rollouts, token_budget, device, rank=0, world=1):
    """This process's micro-batches, right-padded: at most token_budget tokens, padding included and the common prefix
    counted once, and at most twice as many if each row had it, as its keys and values have; or one row. Rollouts are
    taken longest first, in rounds of as many as fit the budgets of all processes, and the rows of a round go to the
    processes in turn. So all processes have the same number of micro-batches, as FSDP's collectives need, and about the
    same work. A process without a row in the last round gets one in which no token is trained."""
    rows, batches, prefix = sorted(rollouts, key=len, reverse=True), [], common_prefix(rollouts)
    while rows:
        longest = len(rows[0])
        count = max(1, min((token_budget - prefix) // (longest - prefix), 2 * token_budget // longest)) * world
        mine = rows[:count][rank::world]
        batch = pad(mine or rows[:1], device)
        if not mine:
            batch.mask_BT.zero_()
        batches.append(batch)
        rows = rows[count:]
    return batches


def pad(rows, device):
    """One `MicroBatch` of these rollouts."""
    def padded(values_of, dtype):
        values_BT = np.zeros((len(rows), max(map(len, rows))), dtype)
        for line_T, row in zip(values_BT, rows):
            values = values_of(row)
            line_T[len(row) - len(values):len(row)] = values  # they end where the row ends
        return torch.from_numpy(values_BT).to(device)

    def per_row(values):
        return torch.tensor(values, dtype=torch.float32, device=device)

    known = all(row.logprobs is not None for row in rows)
    return MicroBatch(padded(lambda row: [*row.prompt, *row.completion], np.int64),
                      padded(lambda row: [True] * len(row.completion), np.bool_),
                      per_row([row.advantage for row in rows]), per_row([row.averaged for row in rows]),
                      common_prefix(rows), padded(lambda row: row.logprobs, np.float32) if known else None)


class SharedPrefix:
    """Attention where a line of P + B T tokens holds the P that all rows begin with, once, then the rest of each row.
    It stands in a cache's place in `Transformer.forward`. (Prefix Grouper, arXiv 2506.05433, by one prefix a batch.)"""

    def __init__(self, prefix, rows):
        self.prefix, self.rows = prefix, rows

    def attend(self, _, *qkv_1LHC):
        """q, k and v of the line -> [1, L, H, C]. The rest of a row attends to the prefix and to itself."""
        shared, own = zip(*(x.split([self.prefix, x.shape[1] - self.prefix], 1) for x in qkv_1LHC))
        q_BTHC, *kv_BTKC = (x.unflatten(1, (self.rows, -1))[0] for x in own)
        k_BSKC, v_BSKC = (torch.cat((x_1PKC.expand(self.rows, -1, -1, -1), x_BTKC), 1)
                          for x_1PKC, x_BTKC in zip(shared[1:], kv_BTKC))
        out_BTHC = causal_attention(q_BTHC, k_BSKC, v_BSKC)
        return torch.cat((causal_attention(*shared), out_BTHC.flatten(0, 1)[None]), 1)


class Policy(nn.Module):
    """The model as the loss sees it. The head is part of this one forward, so that FSDP gathers it once."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens_BT, mask_BT, temperature, prefix=0):
        """(logprobs of the tokens, entropies) of the softmax at `temperature`, without top-k and top-p: fp32 [B, T],
        0 where mask_BT is 0. The entropies carry no gradient. prefix: P, the tokens to compute once. With 0 each row is
        computed whole: the plain twin, and the specification."""
        B, T = tokens_BT.shape
        mask_Bt, target_Bt = mask_BT[:, prefix + 1:], tokens_BT[:, prefix + 1:]
        if prefix:
            position_T = torch.arange(T - 1, device=tokens_BT.device)
            position_L = torch.cat((position_T[:prefix], position_T[prefix:].repeat(B)))
            line_L = torch.cat((tokens_BT[0, :prefix], tokens_BT[:, prefix:-1].flatten()))
            hidden_LD = self.model(line_L[None], position_L[None], SharedPrefix(prefix, B))[0]
            hidden_BtD = hidden_LD[prefix:].unflatten(0, (B, -1))
        else:
            hidden_BtD = self.model(tokens_BT[:, :-1])
        trained_M = linear_logprob(hidden_BtD[mask_Bt], self.model.head_weight, target_Bt[mask_Bt], temperature)
        logprob_BT, entropy_BT = (x_M.new_zeros(B, T).masked_scatter(mask_BT, x_M) for x_M in trained_M)
        return logprob_BT, entropy_BT.detach()


def example():
    """The rows of `python grpo.py` -> (policy, reference, rows): two `Transformer`s of 648 random weights, the same at
    each call, and three `Rollout`s of one prompt whose advantages are not yet known. Token 9 is the stop token. The
    rows' logprobs are near the policy's, as if it had been updated since it sampled them."""
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=10, width=8, layers=1, heads=1, kv_heads=1, head_dim=8, ffn=8, norm_eps=1e-6,
                         rope_theta=1e4, rope_scaling=None, qk_norm=True, qkv_bias=False, tied=False, raw={})
    rows = [Rollout([1, 2], completion, 0.0, logprobs) for completion, logprobs in (
        ([3, 5, 9], [-3.2, -2.9, -3.0]), ([4, 9], [-2.4, -1.5]), ([6, 7, 9], [-1.5, -2.7, -1.9]))]
    return Transformer(config), Transformer(config), rows
