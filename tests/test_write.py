"""Norm, rotary embedding and the write to pages: the plain twin equals float64, and the Triton kernel equals the twin."""

import pytest
import torch

from kernels import write as module
from kernels.write import write_pages_plain

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_triton = pytest.mark.skipif(module.triton is None, reason="Triton is not installed (it exists for Linux only)")
CASES = [(7, 8, 2, 64, True), (3, 32, 8, 128, True), (5, 12, 3, 32, False), (1, 1, 1, 16, True), (9, 4, 4, 96, False)]


def make(N, H, K, C, norm, dtype, device=DEVICE):
    """Inputs of `write_pages`; v is a strided view, as of a fused projection; slots are scattered."""
    g = torch.Generator().manual_seed(N * C)
    q, k, v = torch.randn(N, H, C, generator=g), torch.randn(N, K, C, generator=g), torch.randn(N, 2 * K, C, generator=g)
    angle = torch.randn(N, C // 2, generator=g)
    weights = [torch.rand(C, generator=g).to(dtype).to(device) for _ in "qk"] if norm else [None, None]
    stores = [torch.full((K, 40, C), 7.0, dtype=dtype, device=device) for _ in "kv"]
    q, k, v, cos, sin = (x.to(dtype).to(device) for x in (q, k, v, angle.cos(), angle.sin()))
    return [q, k, v[:, :K], *weights, 1e-6, cos, sin, *stores, torch.randperm(40, generator=g)[:N].to(device)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_twin_equals_float64(case):
    q, k, v, q_weight, k_weight, eps, cos, sin, keys, values, slot = make(*case, torch.float32, "cpu")
    got = write_pages_plain(q, k, v, q_weight, k_weight, eps, cos, sin, keys, values, slot)
    for x, weight, out in ((q, q_weight, got[0]), (k, k_weight, got[1])):
        x = x.double()
        if weight is not None:
            x = x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight
        pairs = torch.complex(*x.chunk(2, -1)) * torch.complex(cos.double(), sin.double())[:, None]
        assert (out - torch.cat((pairs.real, pairs.imag), -1)).abs().max() < 1e-5
    assert keys[:, slot].equal(got[1].transpose(0, 1)) and values[:, slot].equal(v.transpose(0, 1))
    untouched = torch.ones(40, dtype=torch.bool)
    untouched[slot] = False
    assert (keys[:, untouched] == 7).all() and (values[:, untouched] == 7).all()


@needs_triton
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 5e-2), (torch.float16, 1e-2)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernel_equals_twin(case, dtype, tolerance):
    """In half precision the twin rounds after the norm and after each product, the kernel once."""
    expected, got = make(*case, dtype), make(*case, dtype)
    for x, y in zip(write_pages_plain(*expected), module.write_pages_triton(*got)):
        assert x.dtype == y.dtype and (x - y).abs().max() < tolerance
    for x, y in zip(expected[8:10], got[8:10]):
        assert (x - y).abs().max() < tolerance
    assert expected[9].equal(got[9])
