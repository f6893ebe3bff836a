"""What stands between the projections of an attention layer and its products: the norms of query and key (Qwen3), the
rotary embedding, and the write of new keys and values to their pages.

`write_pages` picks the Triton kernel on CUDA and else the plain PyTorch twin `write_pages_plain`, which is the
specification and the CPU path.

Shapes: N new tokens, H query heads, K key/value heads, C head width, S slots of the cache (pages x positions of a page).
"""

import torch
import torch.nn.functional as F

try:
    import triton
    import triton.language as tl
except ImportError:  # Triton exists for Linux only; elsewhere the plain twin is the only path
    triton = None


def norm_rotate(x, weight, eps, cos, sin):
    """RMSNorm over the head width, unless weight is None, and the rotary embedding: channel c is paired with c + C/2.

    x: [..., heads, C]. weight: [C]. cos, sin: [..., 1, C/2].
    """
    if weight is not None:
        x = F.rms_norm(x, weight.shape, weight, eps)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def write_pages(q_NHC, k_NKC, v_NKC, q_weight, k_weight, eps, cos_NC, sin_NC, keys_KSC, values_KSC, slot_N):
    """Norms and rotates queries and keys, and writes keys and values to their slots -> (queries, keys).

    q_weight, k_weight: [C] of the two norms, or None. cos_NC, sin_NC: [N, C/2]. keys_KSC, values_KSC: written in place.
    slot_N: int64, each token's slot; of tokens with the same slot one remains. The inputs may be overwritten.
    """
    implementation = write_pages_triton if q_NHC.is_cuda and triton is not None else write_pages_plain
    return implementation(q_NHC, k_NKC, v_NKC, q_weight, k_weight, eps, cos_NC, sin_NC, keys_KSC, values_KSC, slot_N)


def write_pages_plain(q_NHC, k_NKC, v_NKC, q_weight, k_weight, eps, cos_NC, sin_NC, keys_KSC, values_KSC, slot_N):
    """The plain twin of `write_pages`: the specification."""
    q_NHC = norm_rotate(q_NHC, q_weight, eps, cos_NC[:, None], sin_NC[:, None])
    k_NKC = norm_rotate(k_NKC, k_weight, eps, cos_NC[:, None], sin_NC[:, None])
    keys_KSC[:, slot_N] = k_NKC.transpose(0, 1)
    values_KSC[:, slot_N] = v_NKC.transpose(0, 1)
    return q_NHC, k_NKC


if triton is not None:

    @triton.jit
    def norm_rotate_heads(x, weight, eps, cos, sin, C, HEADS: tl.constexpr, NORM: tl.constexpr,
                          HEADS_PADDED: tl.constexpr, HALF_PADDED: tl.constexpr):
        """Norms and rotates a token's heads in place, in fp32 -> their two halves [heads, C/2], and where the first stands."""
        h = tl.arange(0, HEADS_PADDED)
        c = tl.arange(0, HALF_PADDED)
        half = C // 2
        used = (h[:, None] < HEADS) & (c[None, :] < half)
        at = h[:, None] * C + c[None, :]
        a = tl.load(x + at, mask=used, other=0.0).to(tl.float32)
        b = tl.load(x + at + half, mask=used, other=0.0).to(tl.float32)
        if NORM:
            scale = 1.0 / tl.sqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / C + eps)
            a *= scale[:, None] * tl.load(weight + c, mask=c < half, other=0.0).to(tl.float32)[None, :]
            b *= scale[:, None] * tl.load(weight + half + c, mask=c < half, other=0.0).to(tl.float32)[None, :]
        cosine = tl.load(cos + c, mask=c < half, other=0.0).to(tl.float32)[None, :]
        sine = tl.load(sin + c, mask=c < half, other=0.0).to(tl.float32)[None, :]
        first, second = a * cosine - b * sine, b * cosine + a * sine
        tl.store(x + at, first, mask=used)
        tl.store(x + at + half, second, mask=used)
        return first, second, at, used

    @triton.jit
    def write_kernel(q, k, v, q_weight, k_weight, eps, cos, sin, keys, values, slots, q_stride, k_stride, v_stride,
                     head_stride, C, H: tl.constexpr, K: tl.constexpr, NORM: tl.constexpr, H_PADDED: tl.constexpr,
                     K_PADDED: tl.constexpr, HALF_PADDED: tl.constexpr):
        """Two programs a token: one for its queries, in place, one for its keys, in place and to their slot, and values."""
        token = tl.program_id(0).to(tl.int64)
        half = C // 2
        cos += token * half
        sin += token * half
        if tl.program_id(1) == 0:
            norm_rotate_heads(q + token * q_stride, q_weight, eps, cos, sin, C, H, NORM, H_PADDED, HALF_PADDED)
        else:
            a, b, at, used = norm_rotate_heads(k + token * k_stride, k_weight, eps, cos, sin, C, K, NORM, K_PADDED, HALF_PADDED)
            v += token * v_stride
            h = tl.arange(0, K_PADDED).to(tl.int64)
            place = h[:, None] * head_stride + tl.load(slots + token) * C + tl.arange(0, HALF_PADDED)[None, :]
            tl.store(keys + place, a, mask=used)
            tl.store(keys + place + half, b, mask=used)
            tl.store(values + place, tl.load(v + at, mask=used), mask=used)
            tl.store(values + place + half, tl.load(v + at + half, mask=used), mask=used)


def write_pages_triton(q_NHC, k_NKC, v_NKC, q_weight, k_weight, eps, cos_NC, sin_NC, keys_KSC, values_KSC, slot_N):
    """The Triton version of `write_pages`; queries and keys are changed in place."""
    (N, H, C), K = q_NHC.shape, k_NKC.shape[1]
    norm = q_weight is not None
    write_kernel[(N, 2)](
        q_NHC, k_NKC, v_NKC, q_weight if norm else q_NHC, k_weight if norm else k_NKC, eps, cos_NC, sin_NC, keys_KSC,
        values_KSC, slot_N, q_NHC.stride(0), k_NKC.stride(0), v_NKC.stride(0), keys_KSC.stride(0), C, H=H, K=K, NORM=norm,
        H_PADDED=triton.next_power_of_2(H), K_PADDED=triton.next_power_of_2(K), HALF_PADDED=triton.next_power_of_2(C // 2))
    return q_NHC, k_NKC
