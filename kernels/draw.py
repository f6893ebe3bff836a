"""Draw of the next token: softmax over the vocabulary, an inverse-CDF draw and the drawn token's logprob.

`draw` picks the Triton kernel on CUDA, for draws without truncation, and else the plain PyTorch twin `draw_plain`, which is
the specification.
Every draw is a function of (seed, row, position) by Philox 4x32-10 (Salmon et al., SC 2011), a counter-based generator:
there is no state, so a row draws the same tokens whatever stands beside it in the batch.

Shapes: R rows, V vocabulary.
"""

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # Triton exists for Linux only; elsewhere the plain twin is the only path
    triton = None

MASK32 = 0xFFFFFFFF
UNIFORM_STEP = 2.0**-24  # the upper 24 of 32 random bits: exact in fp32, and never 1.0


def draw(logits_RV, seed, row_R, position_R, temperature=1.0, top_k=0, top_p=1.0):
    """Draws one token a row -> (token_R int64, logprob_R fp32).

    logits_RV: any float type. seed: int below 2^63. row_R, position_R: int64, what the draw is keyed by. top_k: keep the
    k likeliest (0: all). top_p: then keep the fewest whose share reaches top_p; tokens tied with the last one kept stay.
    temperature 0 takes the likeliest token, and its logprob is that of temperature 1; otherwise the logprob is that of
    the distribution drawn from, after temperature and truncation. A row with a NaN has the logprob NaN.
    """
    if logits_RV.is_cuda and triton is not None and temperature > 0 and not top_k and top_p >= 1:
        return draw_triton(logits_RV, seed, row_R, position_R, temperature)
    return draw_plain(logits_RV, seed, row_R, position_R, temperature, top_k, top_p)


def draw_plain(logits_RV, seed, row_R, position_R, temperature=1.0, top_k=0, top_p=1.0):
    """The plain twin of `draw`: the specification."""
    if temperature == 0:
        token_R = logits_RV.argmax(-1)
        logprob_RV = logits_RV.float().log_softmax(-1)
        return token_R, logprob_RV.gather(-1, token_R[:, None])[:, 0]
    scaled_RV = truncate(logits_RV.float() / temperature, top_k, top_p)
    weight_RV = (scaled_RV - scaled_RV.amax(-1, keepdim=True)).exp()
    # A parallel scan in fp32 is not monotone, and a step of it at a token of weight 0 could be drawn.
    cdf_RV = weight_RV.cumsum(-1, dtype=torch.float64 if weight_RV.is_cuda else torch.float32)
    target_R = philox_uniform(seed, row_R, position_R) * cdf_RV[:, -1]
    token_R = torch.searchsorted(cdf_RV, target_R[:, None], right=True)[:, 0]
    token_R = token_R.clamp(max=logits_RV.shape[1] - 1)
    logprob_R = (weight_RV.gather(-1, token_R[:, None])[:, 0] / cdf_RV[:, -1]).log().float()
    return token_R, logprob_R


def truncate(scaled_RV, top_k, top_p):
    """Sets the logits that top-k, then top-p, leave out to -inf."""
    if top_k:
        kth_R1 = scaled_RV.topk(min(top_k, scaled_RV.shape[1])).values[:, -1:]
        scaled_RV = scaled_RV.masked_fill(scaled_RV < kth_R1, -torch.inf)
    if top_p < 1:
        prob_RV = scaled_RV.softmax(-1)
        descending_RV = prob_RV.sort(descending=True).values
        before_RV = descending_RV.cumsum(-1) - descending_RV
        least_R1 = descending_RV.masked_fill(before_RV >= top_p, torch.inf).amin(-1, keepdim=True)
        scaled_RV = scaled_RV.masked_fill(prob_RV < least_R1, -torch.inf)
    return scaled_RV


def philox_uniform(seed, row_R, position_R):
    """Uniform fp32 [R] in [0, 1): the first word of Philox 4x32-10 at counter (position, row, row >> 32, 0), key `seed`."""
    c0, c1 = position_R & MASK32, row_R & MASK32
    c2, c3 = (row_R >> 32) & MASK32, torch.zeros_like(row_R)
    k0, k1 = seed & MASK32, (seed >> 32) & MASK32
    for _ in range(10):
        # int64 products wrap around, yet both 32-bit halves come out right after the masks
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = ((p1 >> 32) & MASK32) ^ c1 ^ k0, p1 & MASK32, ((p0 >> 32) & MASK32) ^ c3 ^ k1, p0 & MASK32
        k0, k1 = (k0 + 0x9E3779B9) & MASK32, (k1 + 0xBB67AE85) & MASK32
    return (c0 >> 8).float() * UNIFORM_STEP


if triton is not None:

    @triton.jit
    def draw_kernel(logits, tokens, logprobs, rows, positions, seed, temperature, V, stride,
                    BLOCK: tl.constexpr, BLOCKS: tl.constexpr):
        """One program a row. The row is read once, keeping each block's maximum and sum; the CDF over blocks says in
        which one the draw falls, and only that block is read again."""
        r = tl.program_id(0).to(tl.int64)
        row_logits = logits + r * stride
        lane = tl.arange(0, BLOCK)
        block = tl.arange(0, BLOCKS)
        block_max = tl.full([BLOCKS], float("-inf"), tl.float32)
        block_sum = tl.zeros([BLOCKS], tl.float32)
        for b in range(0, tl.cdiv(V, BLOCK)):
            at = b * BLOCK + lane
            x = tl.load(row_logits + at, mask=at < V, other=float("-inf")).to(tl.float32) / temperature
            top = tl.max(x, 0)
            total = tl.sum(tl.exp(x - tl.where(top == float("-inf"), 0.0, top)), 0)
            block_max = tl.where(block == b, top, block_max)
            block_sum = tl.where(block == b, total, block_sum)

        row_max = tl.max(block_max, 0)
        weight = block_sum * tl.exp(block_max - row_max)
        row_sum = tl.sum(weight, 0)
        row = tl.load(rows + r)
        word, _, _, _ = tl.philox(seed, tl.load(positions + r).to(tl.uint32), row.to(tl.uint32),
                                  (row >> 32).to(tl.uint32), 0)
        target = (word >> 8).to(tl.float32) * 5.9604644775390625e-08 * row_sum  # UNIFORM_STEP
        # Rounding may leave the target past the last sum: then the last block, or token, of any weight is meant.
        below = tl.sum((tl.cumsum(weight, 0) <= target).to(tl.int32), 0)
        chosen = tl.minimum(below, tl.max(tl.where(weight > 0, block, 0), 0))
        before = tl.sum(tl.where(block < chosen, weight, 0.0), 0)

        at = chosen * BLOCK + lane
        x = tl.load(row_logits + at, mask=at < V, other=float("-inf")).to(tl.float32) / temperature
        w = tl.exp(x - row_max)
        below = tl.sum((before + tl.cumsum(w, 0) <= target).to(tl.int32), 0)
        pick = tl.minimum(below, tl.max(tl.where(w > 0, lane, 0), 0))
        picked = tl.sum(tl.where(lane == pick, x, 0.0), 0)
        tl.store(tokens + r, (chosen * BLOCK + pick).to(tl.int64))
        tl.store(logprobs + r, picked - row_max - tl.log(row_sum))


def draw_triton(logits_RV, seed, row_R, position_R, temperature=1.0):
    """The Triton version of `draw` without truncation; one read of the logits and one block of them more."""
    R, V = logits_RV.shape
    logits_RV = logits_RV if logits_RV.stride(1) == 1 else logits_RV.contiguous()
    token_R = torch.empty(R, dtype=torch.int64, device=logits_RV.device)
    logprob_R = torch.empty(R, dtype=torch.float32, device=logits_RV.device)
    BLOCK = min(4096, triton.next_power_of_2(V))
    BLOCKS = triton.next_power_of_2(triton.cdiv(V, BLOCK))
    draw_kernel[(R,)](logits_RV, token_R, logprob_R, row_R, position_R, seed, temperature, V, logits_RV.stride(0),
                      BLOCK=BLOCK, BLOCKS=BLOCKS)
    return token_R, logprob_R
