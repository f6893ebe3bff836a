"""Draw of the next token: softmax over the vocabulary, top-k and top-p, an inverse-CDF draw and the token's logprobs.

Every draw is a function of (seed, key, position) by Philox 4x32-10 (Salmon et al., SC 2011), a counter-based generator.
It keeps no state, so a row draws the same tokens whatever else is in the batch.

Shapes: R rows, V vocabulary, S draws of a row."""

from typing import NamedTuple

import numpy as np
import torch

from kernels import jit, load_scaled, tl, triton, use_triton

MASK32 = 0xFFFFFFFF
UNIFORM_STEP = 2.0**-24  # the upper 24 of 32 random bits: exact in fp32, and never 1.0


class Draw(NamedTuple):
    """What `draw` returns for each row. With top-k or top-p, the kept tokens share the probability of those left out,
    so `logprob` is above `full_logprob`. A trainer that scores with a plain softmax compares with `full_logprob`."""

    token: torch.Tensor  # [R] int64
    logprob: torch.Tensor  # [R] fp32, nats: after temperature, top-k and top-p, the distribution drawn from
    full_logprob: torch.Tensor  # [R] fp32, nats: after temperature alone


def draw(logits_RV, seed, key_R, position_R, temperature=1.0, top_k=0, top_p=1.0):
    """Draws one token for each row -> `Draw`. logits_RV: any float type. seed: int below 2^63. key_R: int64, the row's
    key. position_R: int64, how many tokens the row drew before. top_k: keep the k likeliest (0: all). top_p: of these
    keep the fewest whose probabilities reach top_p. Tokens tied with the last one kept stay. temperature 0 takes the
    likeliest token; its logprobs are then those of temperature 1 without truncation. A row with a NaN, a +inf or only
    -inf gets the logprob NaN."""
    if use_triton(logits_RV):
        return draw_triton(logits_RV, seed, key_R, position_R, temperature, top_k, top_p)
    packed = not logits_RV.is_cuda and top_p < 1
    return draw_plain(logits_RV, seed, key_R, position_R, temperature, top_k, top_p, packed)


def draw_plain(logits_RV, seed, key_R, position_R, temperature=1.0, top_k=0, top_p=1.0, packed=False):
    """The plain twin of `draw`; unpacked, the specification. packed: the same draws, by `nucleus`. It takes rows on a
    CPU and top_p below 1. (Sorting the vocabulary on a CPU would take as long as the model.)"""
    if temperature == 0:
        logprob_RV = logits_RV.log_softmax(-1, dtype=torch.float64)  # in fp32 the CPU's is off by 1e-4 for large V
        token_R = logits_RV.argmax(-1)
        logprob_R = logprob_RV.gather(-1, token_R[:, None])[:, 0].float()
        return Draw(token_R, logprob_R, logprob_R)
    scaled_RV = logits_RV.float() * (1 / temperature)
    kept_RC = truncate(scaled_RV, top_k, 1.0 if packed else top_p)
    if packed:
        kept_RC, token_RC = nucleus(kept_RC, top_p)
    weight_RC = (kept_RC - kept_RC.amax(-1, keepdim=True)).exp()
    # A parallel scan in fp32 may not be monotone: it could rise at a token of weight 0, which would then be drawn.
    cdf_RC = weight_RC.cumsum(-1, dtype=torch.float64 if weight_RC.is_cuda else torch.float32)
    index_R = invert(cdf_RC, philox_uniform(seed, key_R, position_R)[:, None])[:, 0]
    token_R = token_RC.gather(-1, index_R[:, None])[:, 0] if packed else index_R
    logprob_R = full_logprob_R = (weight_RC.gather(-1, index_R[:, None])[:, 0] / cdf_RC[:, -1]).log().float()
    if top_k or top_p < 1:
        full_logprob_R = scaled_RV.gather(-1, token_R[:, None])[:, 0] - scaled_RV.logsumexp(-1)
    return Draw(token_R, logprob_R, full_logprob_R)


def invert(cdf_RV, uniform_RS):
    """The tokens [R, S] that S uniforms of [0, 1) fall on in each row's cumulative weights, which need not reach 1."""
    token_RS = torch.searchsorted(cdf_RV, uniform_RS * cdf_RV[:, -1:], right=True)
    return token_RS.clamp(max=cdf_RV.shape[1] - 1)  # a row of NaN would be past the end


def truncate(scaled_RV, top_k, top_p):
    """Sets the logits that top-k, then top-p, leave out to -inf. A token stays when fewer than k tokens are strictly
    above it, and among those kept, less than top_p of the probability."""
    if top_k:
        kth_R1 = scaled_RV.topk(min(top_k, scaled_RV.shape[1])).values[:, -1:]
        scaled_RV = scaled_RV.masked_fill(scaled_RV < kth_R1, -torch.inf)
    if top_p < 1:
        prob_RV = scaled_RV.softmax(-1, dtype=torch.float64)
        descending_RV = prob_RV.sort(descending=True).values
        before_RV = descending_RV.cumsum(-1) - descending_RV
        least_R1 = descending_RV.masked_fill(before_RV >= top_p, torch.inf).amin(-1, keepdim=True)
        scaled_RV = scaled_RV.masked_fill(prob_RV < least_R1, -torch.inf)
    return scaled_RV


def nucleus(scaled_RV, top_p):
    """What `truncate` keeps by top-p, packed: logits [R, C] in the order of their tokens, -inf behind them, and tokens
    [R, C]; C is as many as the largest row keeps. NaN rows keep nothing.

    Among n tokens that weigh s together, those below (s - top_p) / n weigh less than s - top_p. The others therefore
    reach top_p, and hold all that stays. The bound is taken over the vocabulary, and twice more over what is left: then
    about twice the nucleus is left to be sorted. (NumPy sorts and finds ten times as fast as PyTorch.)"""
    (R, V), scaled_RV = scaled_RV.shape, scaled_RV.contiguous()
    max_R1 = scaled_RV.amax(-1, keepdim=True)
    weight_RV = (scaled_RV - max_R1).exp_()
    sum_R1 = weight_RV.sum(-1, keepdim=True)
    at_N = np.flatnonzero((weight_RV >= sum_R1 * ((1 - top_p) / 2 / V)).numpy())
    logits, weights = scaled_RV.numpy().reshape(-1), weight_RV.numpy().reshape(-1)
    for _ in range(2):
        row_N, weight_N = at_N // V, weights[at_N]
        spare_R = np.bincount(row_N, weight_N, R) - (top_p + 1e-6) * sum_R1.numpy()[:, 0]  # fp32 is off by less
        at_N = at_N[weight_N >= (spare_R / np.bincount(row_N, minlength=R).clip(1))[row_N]]
    row_N, logit_N = at_N // V, logits[at_N]
    weights[at_N] = 0
    prob_N = np.exp(logit_N.astype(np.float64) - max_R1.numpy()[row_N, 0])
    prob_N /= (np.bincount(row_N, prob_N, R) + weight_RV.sum(-1).numpy())[row_N]
    descending_RC = np.sort(pack(prob_N, row_N, R, 0))[:, ::-1]
    before_RC = descending_RC.cumsum(-1) - descending_RC
    least_R = descending_RC[np.arange(R), np.count_nonzero(before_RC < top_p, axis=1) - 1]
    stays_N = prob_N >= least_R[row_N]
    at_N, row_N, logit_N = at_N[stays_N], row_N[stays_N], logit_N[stays_N]
    return (torch.from_numpy(pack(x_N, row_N, R, fill)) for x_N, fill in ((logit_N, -np.inf), (at_N % V, 0)))


def pack(x_N, row_N, R, fill):
    """Values in the order of their rows -> [R, C], `fill` behind each row's; C is 1 or the most that a row has."""
    count_R1 = np.bincount(row_N, minlength=R)[:, None]
    x_RC = np.full((R, max(1, count_R1.max())), fill, x_N.dtype)
    x_RC[np.arange(x_RC.shape[1]) < count_R1] = x_N
    return x_RC


def philox_uniform(seed, key_R, position_R):
    """Uniform fp32 [R] in [0, 1): Philox 4x32-10's first word at counter (position, key, key >> 32, 0) and key seed."""
    c0, c1 = position_R & MASK32, key_R & MASK32
    c2, c3 = (key_R >> 32) & MASK32, torch.zeros_like(key_R)
    k0, k1 = seed & MASK32, (seed >> 32) & MASK32
    for _ in range(10):
        # The int64 products wrap around, but after the masks both 32-bit halves are right.
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = ((p1 >> 32) & MASK32) ^ c1 ^ k0, p1 & MASK32, ((p0 >> 32) & MASK32) ^ c3 ^ k1, p0 & MASK32
        k0, k1 = (k0 + 0x9E3779B9) & MASK32, (k1 + 0xBB67AE85) & MASK32
    return (c0 >> 8).float() * UNIFORM_STEP


@jit
def block_sums(logits, V, scale, floor, BLOCK: tl.constexpr, BLOCKS: tl.constexpr):
    """Two numbers for each block of a row, in one read: over the logits x >= floor, the maximum, and the sum of
    exp(x - maximum)."""
    offset = tl.arange(0, BLOCK)
    block = tl.arange(0, BLOCKS)
    block_max = tl.full([BLOCKS], float("-inf"), tl.float32)
    block_sum = tl.zeros([BLOCKS], tl.float32)
    for b in tl.range(0, tl.cdiv(V, BLOCK), num_stages=4):
        x = load_scaled(logits, b * BLOCK + offset, V, scale)
        x = tl.where(x < floor, float("-inf"), x)  # a NaN stays
        x_max = tl.max(x, 0)
        weight = tl.exp(x - tl.where(x_max == float("-inf"), 0.0, x_max))
        block_max = tl.where(block == b, x_max, block_max)
        block_sum = tl.where(block == b, tl.sum(weight, 0), block_sum)
    return block_max, block_sum


@jit
def threshold(logits, V, scale, row_max, floor, goal, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """The least logit >= floor such that the weight strictly above it is below `goal`. A token weighs 1 (COUNT) or
    exp(x - row_max). Bisection, with one read of the row each time, until no logit is left between the bounds. Logits
    104 below the maximum or further have weight 0 in fp32 and are left out."""
    offset = tl.arange(0, BLOCK)
    low = tl.maximum(floor, row_max - 104.0)  # logits below low are out
    high = row_max  # logits from high on stay
    while low < high:
        middle = low + (high - low) * 0.5
        middle = tl.where(middle < high, middle, low)
        above = tl.zeros([BLOCK], tl.float32)
        under = tl.full([BLOCK], float("-inf"), tl.float32)
        over = tl.full([BLOCK], float("inf"), tl.float32)
        for b in tl.range(0, tl.cdiv(V, BLOCK), num_stages=4):
            x = load_scaled(logits, b * BLOCK + offset, V, scale)
            is_above = x > middle
            above += tl.where(is_above, 1.0 if COUNT else tl.exp(x - row_max), 0.0)
            under = tl.maximum(under, tl.where(is_above | (x < floor), float("-inf"), x))
            over = tl.minimum(over, tl.where(is_above, x, float("inf")))
        stay = tl.sum(above, 0) < goal  # then the largest logit at or under the middle stays too
        none_between = tl.min(over, 0) >= high
        next_low = tl.where(stay, low, tl.where(none_between, high, middle))
        high = tl.where(stay, tl.maximum(tl.max(under, 0), low), high)
        low = next_low
    return high


@jit
def draw_kernel(logits, tokens, logprobs, full_logprobs, row_keys, positions, seed, scale, top_k, top_p, V, stride,
                GREEDY: tl.constexpr, TOP_K: tl.constexpr, TOP_P: tl.constexpr, BLOCK: tl.constexpr,
                BLOCKS: tl.constexpr):
    """One program for each row. The CDF over the blocks' sums says which block the draw falls in, and that block alone
    is read again. Without truncation the row is read once."""
    r = tl.program_id(0).to(tl.int64)
    logits += r * stride
    offset = tl.arange(0, BLOCK)
    block = tl.arange(0, BLOCKS)
    floor = float("-inf")
    block_max, block_sum = block_sums(logits, V, scale, floor, BLOCK, BLOCKS)
    row_max = tl.max(block_max, 0)
    weight = block_sum * tl.exp(block_max - row_max)
    full_sum = tl.sum(weight, 0)
    if TOP_K:
        floor = threshold(logits, V, scale, row_max, floor, top_k, True, BLOCK)
        block_max, block_sum = block_sums(logits, V, scale, floor, BLOCK, BLOCKS)
        weight = block_sum * tl.exp(block_max - row_max)
    if TOP_P:
        floor = threshold(logits, V, scale, row_max, floor, top_p * tl.sum(weight, 0), False, BLOCK)
        block_max, block_sum = block_sums(logits, V, scale, floor, BLOCK, BLOCKS)
        weight = block_sum * tl.exp(block_max - row_max)
    row_sum = tl.sum(weight, 0)

    if GREEDY:
        target, before = 0.0, 0.0
        chosen = tl.min(tl.where(block_max == row_max, block, BLOCKS - 1), 0)
    else:
        key = tl.load(row_keys + r)
        word, _, _, _ = tl.philox(seed, tl.load(positions + r).to(tl.uint32), key.to(tl.uint32),
                                  (key >> 32).to(tl.uint32), 0)
        target = (word >> 8).to(tl.float32) * 5.9604644775390625e-08 * row_sum  # UNIFORM_STEP
        # Rounding may put the target past the last sum. Then the last block, or token, that has any weight is meant.
        chosen = tl.sum((tl.cumsum(weight, 0) <= target).to(tl.int32), 0)
        chosen = tl.minimum(chosen, tl.max(tl.where(weight > 0, block, 0), 0))
        before = tl.sum(tl.where(block < chosen, weight, 0.0), 0)
    x = load_scaled(logits, chosen * BLOCK + offset, V, scale)
    x = tl.where(x < floor, float("-inf"), x)
    if GREEDY:
        pick = tl.min(tl.where(x == row_max, offset, BLOCK - 1), 0)
    else:
        w = tl.exp(x - row_max)
        pick = tl.sum((before + tl.cumsum(w, 0) <= target).to(tl.int32), 0)
        pick = tl.minimum(pick, tl.max(tl.where(w > 0, offset, 0), 0))
    picked = tl.sum(tl.where(offset == pick, x, 0.0), 0)
    tl.store(tokens + r, tl.minimum(chosen * BLOCK + pick, V - 1).to(tl.int64))
    tl.store(logprobs + r, picked - row_max - tl.log(row_sum))
    tl.store(full_logprobs + r, picked - row_max - tl.log(full_sum))


def draw_triton(logits_RV, seed, key_R, position_R, temperature=1.0, top_k=0, top_p=1.0):
    """The Triton version of `draw`. Without truncation it reads the logits once, and one block of each row again. Top-k
    and top-p find their threshold in ten to twenty further reads, without sorting."""
    R, V = logits_RV.shape
    logits_RV = logits_RV if logits_RV.stride(1) == 1 else logits_RV.contiguous()
    greedy = temperature == 0
    token_R = torch.empty(R, dtype=torch.int64, device=logits_RV.device)
    logprob_R, full_logprob_R = torch.empty(2, R, dtype=torch.float32, device=logits_RV.device)
    BLOCK = min(4096, triton.next_power_of_2(V))
    BLOCKS = triton.next_power_of_2(triton.cdiv(V, BLOCK))
    draw_kernel[(R,)](logits_RV, token_R, logprob_R, full_logprob_R, key_R, position_R, seed,
                      1.0 if greedy else 1 / temperature, top_k, float(top_p), V, logits_RV.stride(0),
                      GREEDY=greedy, TOP_K=0 < top_k < V and not greedy, TOP_P=top_p < 1 and not greedy,
                      BLOCK=BLOCK, BLOCKS=BLOCKS, num_warps=8)
    return Draw(token_R, logprob_R, full_logprob_R)
