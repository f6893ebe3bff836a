"""Decode attention over pages: each running row's one new query against the keys and values of its block table's pages.

Shapes: A running rows, H query heads, K key/value heads, C head width, N pages, P positions of a page, n pages of a
row's block table, S positions, G query heads that share a key/value head."""

import torch

from kernels import jit, tl, triton, use_triton

GATHER = 2**19  # numbers that the plain twin gathers at once: few enough to stay in a CPU's cache until they are used
TILE = 64  # positions that a program of the kernel takes at once


def paged_attention(q_AHC, keys_KNPC, values_KNPC, table_An, length_A):
    """Attention, scaled by C**-0.5, of each row's query to the first length_A positions of its pages -> [A, H, C].
    table_An: int, the row's pages in order; entries past its length must name some page. length_A: int64, at least 1.
    Query head h reads key/value head h // (H // K). Sums are in fp32."""
    attend = paged_attention_triton if use_triton(q_AHC) else paged_attention_plain
    return attend(q_AHC, keys_KNPC, values_KNPC, table_An, length_A)


def paged_attention_plain(q_AHC, keys_KNPC, values_KNPC, table_An, length_A):
    """The plain twin of `paged_attention`: the specification. It gathers the pages of a few rows at a time, each as
    many as the longest of them has: rows should be sorted by length."""
    K, N, P, C = keys_KNPC.shape
    first_page_K11 = torch.arange(K, device=q_AHC.device)[:, None, None] * N
    q_KAGC = q_AHC.unflatten(1, (K, -1)).transpose(0, 1)
    out_KAGC = torch.empty_like(q_KAGC)
    at_once = max(1, GATHER // (K * C * int(length_A.max())))
    for start in range(0, len(length_A), at_once):
        rows = slice(start, start + at_once)
        n = (int(length_A[rows].max()) - 1) // P + 1
        page = (table_An[rows, :n] + first_page_K11).flatten()
        k_KASC, v_KASC = (x.view(K * N, P * C).index_select(0, page).view(K, -1, n * P, C)
                          for x in (keys_KNPC, values_KNPC))
        score_KAGS = (q_KAGC[:, rows] @ k_KASC.transpose(-1, -2)).float() * C**-0.5
        unused_AS = torch.arange(n * P, device=q_AHC.device) >= length_A[rows, None]
        weight_KAGS = score_KAGS.masked_fill_(unused_AS[:, None], -torch.inf).softmax(-1)
        out_KAGC[:, rows] = weight_KAGS.to(v_KASC.dtype) @ v_KASC
    return out_KAGC.transpose(0, 1).flatten(1, 2)


@jit
def part_positions(length, SPLITS: tl.constexpr, LEAST: tl.constexpr, TILE: tl.constexpr):
    """Positions of a part: a SPLITS-th of the row's tiles, but at least LEAST tiles. So a short row has fewer parts."""
    return tl.maximum(tl.cdiv(tl.cdiv(length, TILE), SPLITS), LEAST) * TILE


@jit
def attention_kernel(q, keys, values, table, lengths, out, parts, log_sums, q_stride, page_stride, head_stride,
                     table_stride, P, C, scale, HEADS: tl.constexpr, GROUP: tl.constexpr, SPLITS: tl.constexpr,
                     LEAST: tl.constexpr, TILE: tl.constexpr, GROUP_PADDED: tl.constexpr, C_PADDED: tl.constexpr):
    """One program for a row, a key/value head with its GROUP query heads, and one part of the context. It keeps a
    running maximum, sum of weights, and weighted sum of values over tiles of positions. A row of one part is written to
    out [A, H, C]. Of more, parts [A, H, SPLITS, C] fp32 hold each one's average of the values, and log_sums
    [A, H, SPLITS] the logarithm of its sum of weights. The last rows, which are the longest, are begun first."""
    a = (tl.num_programs(1) - 1 - tl.program_id(1)).to(tl.int64)
    head = (tl.program_id(0) // SPLITS).to(tl.int64)
    split = tl.program_id(0) % SPLITS
    length = tl.load(lengths + a).to(tl.int32)
    positions = part_positions(length, SPLITS, LEAST, TILE)
    begin = split * positions
    end = tl.minimum(begin + positions, length)
    if begin >= length:
        return
    g = tl.arange(0, GROUP_PADDED)
    c = tl.arange(0, C_PADDED)
    used_GC = (g[:, None] < GROUP) & (c[None, :] < C)
    h = head * GROUP + g
    q_GC = tl.load(q + a * q_stride + h[:, None] * C + c[None, :], mask=used_GC, other=0.0)
    max_G = tl.full([GROUP_PADDED], float("-inf"), tl.float32)
    sum_G = tl.zeros([GROUP_PADDED], tl.float32)
    out_GC = tl.zeros([GROUP_PADDED, C_PADDED], tl.float32)
    for first in range(begin, end, TILE):
        s = first + tl.arange(0, TILE)
        page = tl.load(table + a * table_stride + s // P, mask=s < end, other=0).to(tl.int64)
        offset = head * head_stride + page * page_stride + (s % P) * C
        used_SC = (s[:, None] < end) & (c[None, :] < C)
        k_SC = tl.load(keys + offset[:, None] + c[None, :], mask=used_SC, other=0.0)
        score_GS = tl.dot(q_GC, tl.trans(k_SC), input_precision="ieee") * scale
        score_GS = tl.where(s[None, :] < end, score_GS, float("-inf"))
        new_max_G = tl.maximum(max_G, tl.max(score_GS, 1))
        weight_GS = tl.exp(score_GS - new_max_G[:, None])
        shrink_G = tl.exp(max_G - new_max_G)
        v_SC = tl.load(values + offset[:, None] + c[None, :], mask=used_SC, other=0.0)
        sum_G = sum_G * shrink_G + tl.sum(weight_GS, 1)
        out_GC = out_GC * shrink_G[:, None] + tl.dot(weight_GS.to(v_SC.dtype), v_SC, input_precision="ieee")
        max_G = new_max_G
    out_GC = out_GC / sum_G[:, None]
    if positions >= length:
        tl.store(out + (a * HEADS + h[:, None]) * C + c[None, :], out_GC, mask=used_GC)
    else:
        part = (a * HEADS + h) * SPLITS + split
        tl.store(parts + part[:, None] * C + c[None, :], out_GC, mask=used_GC)
        tl.store(log_sums + part, max_G + tl.log(sum_G), mask=g < GROUP)


@jit
def merge_kernel(parts, log_sums, lengths, out, C, HEADS: tl.constexpr, SPLITS: tl.constexpr, LEAST: tl.constexpr,
                 TILE: tl.constexpr, SPLITS_PADDED: tl.constexpr, C_PADDED: tl.constexpr):
    """One program for a row and a query head: the average of the row's parts, weighted by their sums of weights."""
    i = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + i // HEADS).to(tl.int32)
    positions = part_positions(length, SPLITS, LEAST, TILE)
    if positions >= length:
        return
    split = tl.arange(0, SPLITS_PADDED)
    c = tl.arange(0, C_PADDED)
    used_S = split * positions < length
    log_sum = tl.load(log_sums + i * SPLITS + split, mask=used_S, other=float("-inf"))
    weight = tl.exp(log_sum - tl.max(log_sum, 0))
    part_SC = tl.load(parts + (i * SPLITS + split[:, None]) * C + c[None, :],
                      mask=used_S[:, None] & (c[None, :] < C), other=0.0)
    merged = tl.sum(part_SC * weight[:, None], 0) / tl.sum(weight, 0)
    tl.store(out + i * C + c, merged, mask=c < C)


def grid_of_parts(programs, positions):
    """(splits, least): the most parts of a row, and the fewest tiles of a part. programs: rows times key/value heads.
    positions: as many as a row may have, from the width of the block table.

    A CUDA graph fixes the grid, so a row's own length can only choose how many of the splits it uses: programs past its
    end return at once. Few rows need many parts, or most of the device would idle: splits give it about 1,024 programs,
    8 for each multiprocessor. Many rows fill it as they are, and there a part pays for its merging: so it has 16 tiles
    or more, and only long rows are cut, into parts of about 32 tiles, lest one of them outlasts the others."""
    tiles = -(-positions // TILE)
    splits = max(1024 // programs, -(-tiles // 32))
    return max(1, min(splits, tiles, 64)), max(1, min(programs // 64, 16))


def paged_attention_triton(q_AHC, keys_KNPC, values_KNPC, table_An, length_A, splits=None, least=1):
    """The Triton version of `paged_attention`. splits, least: those of `grid_of_parts`, when not given."""
    A, H, C = q_AHC.shape
    K, N, P, _ = keys_KNPC.shape
    if splits is None:
        splits, least = grid_of_parts(A * K, table_An.shape[1] * P)
    out_AHC = torch.empty_like(q_AHC)
    parts = torch.empty(A, H, splits, C, dtype=torch.float32, device=q_AHC.device)
    log_sums = torch.empty(A, H, splits, dtype=torch.float32, device=q_AHC.device)
    cut = dict(SPLITS=splits, LEAST=least, TILE=TILE, C_PADDED=max(16, triton.next_power_of_2(C)))
    attention_kernel[(K * splits, A)](
        q_AHC, keys_KNPC, values_KNPC, table_An, length_A, out_AHC, parts, log_sums, q_AHC.stride(0),
        keys_KNPC.stride(1), keys_KNPC.stride(0), table_An.stride(0), P, C, C**-0.5, HEADS=H, GROUP=H // K,
        GROUP_PADDED=max(16, triton.next_power_of_2(H // K)), num_warps=4, num_stages=3, **cut)
    if splits > 1:
        merge_kernel[(A * H,)](parts, log_sums, length_A, out_AHC, C, HEADS=H,
                               SPLITS_PADDED=triton.next_power_of_2(splits), **cut)
    return out_AHC
