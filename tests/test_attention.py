"""Paged decode attention: the plain twin equals a dense softmax in float64, and the Triton kernel equals the twin."""

import numpy as np
import pytest
import torch
from conftest import needs_triton

import kernels
from kernels import attention as module
from kernels.attention import paged_attention_plain

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = [  # page size, heads, key/value heads, head width, contexts
    (16, 4, 4, 64, [1, 15, 16, 17, 300]),
    (16, 8, 1, 128, [4097, 2, 64]),
    (24, 6, 2, 32, [1, 23, 24, 25, 100]),
    (64, 8, 2, 64, [63, 64, 65, 1, 128]),
    (128, 4, 2, 128, [1000, 127, 129]),
    (256, 8, 4, 64, [4096, 1, 257]),
    (1, 2, 1, 16, [5, 1, 70]),
]


@pytest.fixture(autouse=True)
def dot_of_bf16(monkeypatch):
    """Triton's interpreter multiplies bf16 as if its bits were integers; here it multiplies what they stand for."""
    if kernels.triton is None or DEVICE == "cuda":
        return
    from triton.runtime import interpreter

    def values(x):
        return (x.data.astype(np.uint32) << 16).view(np.float32) if x.dtype.scalar.is_bf16() else x.data

    def create_dot(self, a, b, d, input_precision, max_num_imprecise_acc):
        return interpreter.TensorHandle(np.matmul(values(a), values(b), dtype=d.data.dtype) + d.data, d.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


def make(page_size, H, K, C, lengths, dtype, device=DEVICE):
    """Random queries and pages; the rows' pages are shuffled, and rows share their first page where both fill it."""
    g = torch.Generator().manual_seed(page_size * C + H)
    n = [(length - 1) // page_size + 1 for length in lengths]
    N, A = sum(n) + 3, len(lengths)
    q, keys, values = (torch.randn(shape, generator=g).to(dtype) for shape in (
        (A, H, C), (K, N, page_size, C), (K, N, page_size, C)))
    pages = (torch.randperm(N - 1, generator=g) + 1).tolist()
    table = torch.zeros(A, max(n) + 2, dtype=torch.int32)
    for a, count in enumerate(n):
        table[a, :count] = torch.tensor([pages.pop() for _ in range(count)])
    full = [a for a, length in enumerate(lengths) if length > page_size]
    table[full, 0] = table[full[:1], 0]
    return [x.to(device) for x in (q, keys, values, table, torch.tensor(lengths))]


def dense(q, keys, values, table, lengths):
    """Row by row, head by head, in float64."""
    out = torch.empty(q.shape, dtype=torch.float64)
    for a, length in enumerate(lengths.tolist()):
        for h in range(q.shape[1]):
            k, v = (x[h * len(x) // q.shape[1]][table[a].long()].flatten(0, 1)[:length].double()
                    for x in (keys, values))
            out[a, h] = (k @ q[a, h].double() * q.shape[2]**-0.5).softmax(0) @ v
    return out


@pytest.mark.parametrize("case", CASES, ids=str)
def test_twin_equals_a_dense_softmax(case):
    given = make(*case, torch.float32, "cpu")
    assert (paged_attention_plain(*given) - dense(*given)).abs().max() < 1e-5


def test_twin_gathers_many_rows_in_parts(monkeypatch):
    given = make(16, 4, 2, 32, list(range(1, 60)), torch.float32, "cpu")
    together = paged_attention_plain(*given)
    monkeypatch.setattr(module, "GATHER", 1)
    assert (paged_attention_plain(*given) - together).abs().max() < 1e-6


@needs_triton
@pytest.mark.parametrize("case, splits", [(case, splits) for case in CASES for splits in (None, 3)] +
                         [(case, splits) for case in CASES[1::3] for splits in (1, 8)], ids=str)
def test_kernel_equals_twin(case, splits):
    if len(case[4]) * case[2] > 8 and splits == 8 and DEVICE == "cpu":
        case = (*case[:4], case[4][:2])  # the interpreter takes a tenth of a second for each program
    given = make(*case, torch.float32)
    got = module.paged_attention_triton(*given, splits=splits)
    assert (got - paged_attention_plain(*given)).abs().max() < 2e-5


@needs_triton
@pytest.mark.parametrize("least", [1, 2, 3, 7])
def test_parts_of_few_and_of_many_tiles(least):
    """Rows of one tile, of one part, of fewer parts than splits, of all, and a last part of one position."""
    given = make(16, 4, 2, 64, [1, 64, 65, 64 * least, 64 * least + 1, 64 * 3 * least, 64 * 3 * least + 129],
                 torch.float32)
    got = module.paged_attention_triton(*given, splits=3, least=least)
    assert (got - paged_attention_plain(*given)).abs().max() < 2e-5


@pytest.mark.parametrize("rows", [1, 8, 64, 256, 4096])
@pytest.mark.parametrize("positions", [16, 700, 4224, 33_000])
def test_the_grid_fits_rows_and_lengths(rows, positions):
    """With 8 key/value heads: few rows fill the device as far as they have tiles; no part has more than 32 tiles up to
    64 splits; and where rows fill the device by themselves, those of up to 1,024 positions stay whole."""
    tiles, programs = -(-positions // 64), 8 * rows
    splits, least = module.grid_of_parts(programs, positions)
    assert 1 <= splits <= min(tiles, 64) and 1 <= least <= 16
    assert programs * splits > 512 or splits == min(tiles, 64)
    assert max(-(-tiles // splits), least) <= max(32, -(-tiles // 64))
    assert programs < 1024 or least == 16


@needs_triton
@pytest.mark.parametrize("case, dtype", list(zip(CASES[::2], (torch.bfloat16, torch.float16) * 2)), ids=str)
def test_kernel_equals_twin_in_half_precision(case, dtype):
    given = make(*case, dtype)
    got = module.paged_attention_triton(*given)
    assert got.dtype == dtype and (got - paged_attention_plain(*given)).abs().max() < 2e-2


@needs_triton
def test_kernel_reads_nothing_past_a_rows_length():
    """NaNs after the end of each row, as a page's last owner may have left, and in the pages past it."""
    q, keys, values, table, lengths = make(16, 4, 2, 64, [1, 17, 40], torch.float32)
    expected = module.paged_attention_triton(q, keys, values, table, lengths)
    for a, length in enumerate(lengths.tolist()):
        last, at = table[a, (length - 1) // 16], (length - 1) % 16 + 1
        keys[:, last, at:], values[:, last, at:] = torch.nan, torch.nan
    keys[:, 0], values[:, 0] = torch.nan, torch.nan
    assert module.paged_attention_triton(q, keys, values, table, lengths).equal(expected)
