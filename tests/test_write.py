"""The write of keys and values to their slots: the plain twin by hand, and the Triton kernel equals the twin."""

import pytest
import torch
from conftest import needs_triton

from kernels.write import write_pages_plain, write_pages_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = [(7, 2, 64), (3, 8, 128), (5, 3, 32), (1, 1, 16), (9, 4, 96), (4, 2, 15)]


def make(N, K, C, dtype, device=DEVICE):
    """Inputs of `write_pages`; v is a strided view, as of a fused projection; slots are scattered."""
    g = torch.Generator().manual_seed(N * C)
    k, v = torch.randn(N, K, C, generator=g), torch.randn(N, 2 * K, C, generator=g)
    caches = [torch.full((K, 40, C), 7.0, dtype=dtype, device=device) for _ in "kv"]
    k, v = (x.to(dtype).to(device) for x in (k, v))
    return [k, v[:, :K], *caches, torch.randperm(40, generator=g)[:N].to(device)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_twin_writes_the_slots_and_nothing_else(case):
    k, v, keys, values, slot = make(*case, torch.float32, "cpu")
    write_pages_plain(k, v, keys, values, slot)
    for n, s in enumerate(slot.tolist()):
        assert keys[:, s].equal(k[n]) and values[:, s].equal(v[n])
    untouched = torch.ones(40, dtype=torch.bool)
    untouched[slot] = False
    assert (keys[:, untouched] == 7).all() and (values[:, untouched] == 7).all()


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernel_equals_twin(case, dtype):
    expected, got = make(*case, dtype), make(*case, dtype)
    write_pages_plain(*expected)
    write_pages_triton(*got)
    assert all(x.equal(y) for x, y in zip(expected, got))
