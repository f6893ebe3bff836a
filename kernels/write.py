"""Write of new keys and values to their slots of the paged cache.

Shapes: N new tokens, K key/value heads, C head width, S slots of the cache (pages x positions of a page)."""

from kernels import jit, tl, triton, use_triton


def write_pages(k_NKC, v_NKC, keys_KSC, values_KSC, slot_N):
    """Writes each token's key and value to its slot. keys_KSC, values_KSC: the cache of one layer, changed in place.
    slot_N: int64; of tokens with the same slot one stays."""
    write = write_pages_triton if use_triton(k_NKC) else write_pages_plain
    write(k_NKC, v_NKC, keys_KSC, values_KSC, slot_N)


def write_pages_plain(k_NKC, v_NKC, keys_KSC, values_KSC, slot_N):
    """The plain twin of `write_pages`: the specification."""
    keys_KSC[:, slot_N] = k_NKC.transpose(0, 1)
    values_KSC[:, slot_N] = v_NKC.transpose(0, 1)


@jit
def write_kernel(k, v, keys, values, slots, k_stride, v_stride, head_stride, C, K: tl.constexpr,
                 K_PADDED: tl.constexpr, C_PADDED: tl.constexpr):
    """One program for each token."""
    token = tl.program_id(0).to(tl.int64)
    h_K1 = tl.arange(0, K_PADDED)[:, None].to(tl.int64)
    c_1C = tl.arange(0, C_PADDED)[None, :]
    used_KC = (h_K1 < K) & (c_1C < C)
    source_KC = h_K1 * C + c_1C
    target_KC = h_K1 * head_stride + tl.load(slots + token) * C + c_1C
    tl.store(keys + target_KC, tl.load(k + token * k_stride + source_KC, mask=used_KC), mask=used_KC)
    tl.store(values + target_KC, tl.load(v + token * v_stride + source_KC, mask=used_KC), mask=used_KC)


def write_pages_triton(k_NKC, v_NKC, keys_KSC, values_KSC, slot_N):
    """The Triton version of `write_pages`. A token's heads must be dense; the tokens may have any stride."""
    N, K, C = k_NKC.shape
    write_kernel[(N,)](k_NKC, v_NKC, keys_KSC, values_KSC, slot_N, k_NKC.stride(0), v_NKC.stride(0), keys_KSC.stride(0),
                       C, K=K, K_PADDED=triton.next_power_of_2(K), C_PADDED=triton.next_power_of_2(C))
