"""Fused linear log-softmax: the plain twin by gradcheck, the chunked function and its Triton kernels against the
twin."""

import pytest
import torch
from conftest import needs_triton
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kernels import logprob as module
from kernels.logprob import LinearLogprob, linear_logprob, linear_logprob_plain

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FUSED = [False, pytest.param(True, marks=needs_triton)]
SHAPES = [(1, 1, 3), (300, 7, 16), (129, 513, 8), (5, 4097, 8), (3, 50257, 4), (2, 151936, 4)]
CASES = [(torch.float32, *s) for s in SHAPES] + [(d, *s) for d in (torch.bfloat16, torch.float16) for s in SHAPES[2:]]


def inputs(M, V, D, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    hidden, weight = torch.randn(M, D, generator=g), 2 * torch.randn(V, D, generator=g)
    target = torch.randint(V, (M,), generator=g)
    target[-1] = V - 1
    return hidden.to(DEVICE, dtype).requires_grad_(), weight.to(DEVICE, dtype).requires_grad_(), target.to(DEVICE)


def values_and_gradients(function, hidden, weight, target, *settings):
    """Outputs of `function` and the gradients of an uneven weighting of both."""
    logprob, entropy = function(hidden, weight, target, *settings)
    at = torch.arange(len(target), device=DEVICE)
    weighted = (logprob * at.cos() + 0.3 * entropy * at.sin()).sum()
    return logprob, entropy, *torch.autograd.grad(weighted, (hidden, weight))


def test_gradcheck_of_the_twin():
    for V in (1, 2, 5, 13):
        hidden, weight, target = inputs(4, V, 3, torch.float64)
        assert torch.autograd.gradcheck(linear_logprob_plain, (hidden, weight, target, 0.7))


def test_twin_by_hand():
    """Logits ln 1, ln 3 at temperature 1/2 are in the ratio 1 : 9."""
    weight = torch.tensor([[1.0], [3.0]]).log()
    logprob, entropy = linear_logprob_plain(torch.ones(1, 1), weight, torch.tensor([1]), 0.5)
    p = torch.tensor([0.1, 0.9])
    assert torch.allclose(logprob, p[1].log()) and torch.allclose(entropy, -(p * p.log()).sum())


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("dtype, M, V, D", CASES)
def test_equals_the_twin(monkeypatch, fused, dtype, M, V, D):
    """In chunks of 128 tokens. Both see the same logits, rounded to dtype; so are their gradients, before the products.
    Next to fp32 the twin is in float64, since PyTorch's fp32 log_softmax on the CPU is off by 1e-4 for a large V."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    for temperature in (1.0, 0.7):
        args = *inputs(M, V, D, dtype), temperature
        got = values_and_gradients(LinearLogprob.apply, *args, fused)
        if dtype == torch.float32:
            args = args[0].detach().double().requires_grad_(), args[1].detach().double().requires_grad_(), *args[2:]
        expected = values_and_gradients(linear_logprob_plain, *args)
        for x, y in zip(got[:2], expected[:2]):
            atol = 1e-4 if V > 50_000 and dtype != torch.float32 else 1e-5
            assert x.dtype == torch.float32 and torch.allclose(x, y.float(), atol=atol, rtol=1e-5)
        for x, y in zip(got[2:], expected[2:]):
            step = max(torch.finfo(dtype).eps, 5e-5 if V > 50_000 else 1e-6)  # the CPU sums a product over V one by one
            assert x.dtype == dtype and (x - y).abs().max() <= 4 * step * max(1, y.abs().max())


@pytest.mark.parametrize("fused", FUSED)
def test_huge_logits(fused):
    """Logits of +-1e4, where exp would overflow: a certain token has logprob 0, entropy 0 and no gradient."""
    hidden, weight, target = torch.full((2, 1), 1e4), torch.tensor([[1.0], [-1.0], [0.5]]), torch.tensor([0, 2])
    hidden, weight = hidden.to(DEVICE).requires_grad_(), weight.to(DEVICE).requires_grad_()
    logprob, entropy, grad_hidden, _ = values_and_gradients(LinearLogprob.apply, hidden, weight, target.to(DEVICE), 1.0,
                                                            fused)
    assert logprob.tolist() == [0.0, -5000.0] and entropy.tolist() == [0.0, 0.0]
    assert grad_hidden[0].item() == 0 and grad_hidden.isfinite().all()


class LargestTensor(TorchDispatchMode):
    """Notes the most numbers of any tensor that an operation returns."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor))])
        return out


def test_no_tensor_is_larger_than_a_chunk(monkeypatch):
    """1,024 tokens x 999 words in chunks of 128, forward and backward; the twin needs all at once."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 128 * 999 * 4)
    for function, numbers in ((linear_logprob, 128 * 999), (linear_logprob_plain, 1024 * 999)):
        args = inputs(1024, 999, 8, torch.float32)
        with LargestTensor() as largest:
            values_and_gradients(function, *args)
        assert largest.numbers == numbers


def test_gradient_of_bf16_weights_survives_many_chunks(monkeypatch):
    """4,096 tokens in 32 chunks, whose sum is kept in bf16: within 1 % of float64 in the mean."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    hidden, weight, target = inputs(4096, 50, 16, torch.bfloat16)
    got = values_and_gradients(linear_logprob, hidden, weight, target)[3].double()
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    expected = values_and_gradients(linear_logprob_plain, *exact, target)[3]
    assert (got - expected).norm() < 0.01 * expected.norm()
