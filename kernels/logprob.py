"""Fused linear log-softmax: from hidden states and the head to the logprob of each target token and the entropy.

Logits [M, V] are the largest tensor of a language model's training: for 32k tokens of Qwen3 they are 10 GB in bf16, and
a softmax with autograd keeps several such tensors. `linear_logprob` holds the logits of one chunk of tokens at a time.
Forward reduces each chunk to three numbers for each token. Backward computes the chunk's logits again and overwrites
them with their gradient. In both directions the softmax is in fp32, whatever the dtype of the logits.

With x = logits / temperature and p = softmax(x), the gradients are

    d logprob / d x_v = [v = target] - p_v          d entropy / d x_v = -p_v (ln p_v + entropy)

Shapes: M tokens, V vocabulary, D width."""

import torch
import torch.nn.functional as F

from kernels import jit, load_scaled, tl, triton, use_triton

CHUNK_BYTES = 3 * 2**28  # size of a chunk's logits; with less, re-reading the head's gradient for each chunk would show


def linear_logprob(hidden_MD, weight_VD, target_M, temperature=1.0):
    """The log softmax of hidden @ weight^T / temperature at the targets, and its entropy -> each fp32 [M], in nats.
    hidden_MD, weight_VD: of one float dtype, which the logits have too. target_M: int64 in [0, V). Differentiable in
    hidden and weight. The weight's gradient is summed over the chunks in the weight's dtype."""
    return LinearLogprob.apply(hidden_MD, weight_VD, target_M, temperature, use_triton(hidden_MD))


def linear_logprob_plain(hidden_MD, weight_VD, target_M, temperature=1.0):
    """The plain twin of `linear_logprob`, all logits at once: the specification."""
    logits_MV = F.linear(hidden_MD, weight_VD)
    scaled_MV = logits_MV.to(torch.promote_types(logits_MV.dtype, torch.float32)) / temperature
    logprob_MV = scaled_MV.log_softmax(-1)
    return logprob_MV.gather(1, target_M[:, None])[:, 0], -(logprob_MV.exp() * logprob_MV).sum(1)


def chunk_tokens(vocab_size, itemsize):
    """Number of tokens in a chunk, for this vocabulary and dtype."""
    return max(128, CHUNK_BYTES // (vocab_size * itemsize) // 128 * 128)


class LinearLogprob(torch.autograd.Function):
    """`linear_logprob` in chunks. fused: whether Triton kernels or their plain twins reduce a chunk."""

    @staticmethod
    def forward(ctx, hidden_MD, weight_VD, target_M, temperature, fused):
        reduce = reduce_triton if fused else reduce_plain
        step = chunk_tokens(len(weight_VD), weight_VD.itemsize)
        parts = [reduce(hidden @ weight_VD.T, target, 1 / temperature)
                 for hidden, target in zip(hidden_MD.split(step), target_M.split(step))]
        logprob_M, log_sum_M, entropy_M = (torch.cat(part) for part in zip(*parts))
        ctx.save_for_backward(hidden_MD, weight_VD, target_M, log_sum_M, entropy_M)
        ctx.temperature, ctx.fused = temperature, fused
        return logprob_M, entropy_M

    @staticmethod
    def backward(ctx, grad_logprob_M, grad_entropy_M):
        hidden_MD, weight_VD, *of_tokens = ctx.saved_tensors
        to_gradient = to_gradient_triton if ctx.fused else to_gradient_plain
        step = chunk_tokens(len(weight_VD), weight_VD.itemsize)
        grad_hidden_MD, grad_weight_VD = torch.empty_like(hidden_MD), torch.zeros_like(weight_VD)
        of_tokens += [grad_logprob_M, grad_entropy_M]
        for hidden, grad_hidden, *chunk in zip(*(x.split(step) for x in (hidden_MD, grad_hidden_MD, *of_tokens))):
            logits_mV = hidden @ weight_VD.T
            to_gradient(logits_mV, *chunk, 1 / ctx.temperature)
            torch.mm(logits_mV, weight_VD, out=grad_hidden)
            grad_weight_VD.addmm_(logits_mV.T, hidden)
            del logits_mV  # frees them before the next chunk's are made
        return grad_hidden_MD, grad_weight_VD, None, None, None


def reduce_plain(logits_MV, target_M, scale):
    """Logprob of the target, log of the sum of exp, and entropy, each fp32 [M], of logits times scale."""
    x_MV = logits_MV.float() * scale
    max_M1 = x_MV.amax(1, keepdim=True)
    picked_M = x_MV.gather(1, target_M[:, None])[:, 0]
    weight_MV = x_MV.sub_(max_M1).exp()
    sum_M = weight_MV.sum(1)
    log_sum_M = sum_M.log() + max_M1[:, 0]
    entropy_M = sum_M.log() - torch.linalg.vecdot(weight_MV, x_MV) / sum_M
    return picked_M - log_sum_M, log_sum_M, entropy_M


def to_gradient_plain(logits_MV, target_M, log_sum_M, entropy_M, grad_logprob_M, grad_entropy_M, scale):
    """Overwrites logits with their gradient: the two formulas above, times the gradients of logprob and entropy."""
    ln_p_MV = logits_MV.float().mul_(scale).sub_(log_sum_M[:, None])
    slope_MV = -grad_logprob_M[:, None]
    if grad_entropy_M.any():
        slope_MV = slope_MV - grad_entropy_M[:, None] * (ln_p_MV + entropy_M[:, None])
    grad_MV = ln_p_MV.exp_().mul_(slope_MV)
    grad_MV.scatter_add_(1, target_M[:, None], grad_logprob_M[:, None])
    torch.mul(grad_MV, scale, out=logits_MV)


@jit
def reduce_kernel(logits, targets, logprobs, log_sums, entropies, V, stride, scale, BLOCK: tl.constexpr):
    """One program a token, one read of its logits. The softmax is online: a larger maximum scales down the sums."""
    m = tl.program_id(0).to(tl.int64)
    logits += m * stride
    offset = tl.arange(0, BLOCK)
    x_max = tl.full([], float("-inf"), tl.float32)
    x_sum = tl.zeros([], tl.float32)  # of exp(x - x_max)
    x_dot = tl.zeros([], tl.float32)  # of exp(x - x_max) x
    for b in tl.range(0, tl.cdiv(V, BLOCK), num_stages=4):
        x = load_scaled(logits, b * BLOCK + offset, V, scale)
        new_max = tl.maximum(x_max, tl.max(x, 0))
        shrink = tl.exp(x_max - new_max)
        weight = tl.exp(x - new_max)
        x_sum = x_sum * shrink + tl.sum(weight, 0)
        x_dot = x_dot * shrink + tl.sum(tl.where(weight == 0, 0.0, weight * x), 0)
        x_max = new_max
    log_sum = x_max + tl.log(x_sum)
    target = tl.load(targets + m)
    tl.store(logprobs + m, tl.load(logits + target).to(tl.float32) * scale - log_sum)
    tl.store(log_sums + m, log_sum)
    tl.store(entropies + m, log_sum - x_dot / x_sum)


@jit
def gradient_kernel(logits, targets, log_sums, entropies, grad_logprobs, grad_entropies, V, stride, scale,
                    BLOCK: tl.constexpr):
    """One program for a token and a block of the vocabulary, which it reads once and writes once."""
    m = tl.program_id(0).to(tl.int64)
    logits += m * stride
    v = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    grad_logprob = tl.load(grad_logprobs + m)
    ln_p = load_scaled(logits, v, V, scale) - tl.load(log_sums + m)
    p = tl.exp(ln_p)
    grad = tl.where(v == tl.load(targets + m), grad_logprob, 0.0) - grad_logprob * p
    grad -= tl.load(grad_entropies + m) * tl.where(p == 0, 0.0, p * (ln_p + tl.load(entropies + m)))
    tl.store(logits + v, grad * scale, mask=v < V)


def reduce_triton(logits_MV, target_M, scale):
    """The Triton version of `reduce_plain`."""
    M, V = logits_MV.shape
    logprob_M, log_sum_M, entropy_M = torch.empty(3, M, dtype=torch.float32, device=logits_MV.device)
    reduce_kernel[(M,)](logits_MV, target_M, logprob_M, log_sum_M, entropy_M, V, logits_MV.stride(0), scale,
                        BLOCK=min(4096, triton.next_power_of_2(V)), num_warps=8)
    return logprob_M, log_sum_M, entropy_M


def to_gradient_triton(logits_MV, target_M, log_sum_M, entropy_M, grad_logprob_M, grad_entropy_M, scale):
    """The Triton version of `to_gradient_plain`."""
    M, V = logits_MV.shape
    BLOCK = min(4096, triton.next_power_of_2(V))
    gradient_kernel[(M, triton.cdiv(V, BLOCK))](logits_MV, target_M, log_sum_M, entropy_M, grad_logprob_M.contiguous(),
                                                grad_entropy_M.contiguous(), V, logits_MV.stride(0), scale, BLOCK=BLOCK,
                                                num_warps=8)
