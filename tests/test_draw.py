"""The draw of a token: the plain twin follows the distribution, and the Triton kernel equals the twin."""

import numpy as np
import pytest
import torch

from kernels import draw as module
from kernels.draw import draw, draw_plain, philox_uniform, truncate

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_triton = pytest.mark.skipif(module.triton is None, reason="Triton is not installed (it exists for Linux only)")


def keys(R, device="cpu"):
    row_R = torch.arange(R, device=device) * 7919 + 5
    return row_R, torch.arange(R, device=device) % 13


def test_philox_known_answers():
    """The published test vector of Philox 4x32-10 at counter 0, key 0 (Random123): its first word's upper 24 bits."""
    zero = torch.tensor([0])
    assert philox_uniform(0, zero, zero).item() == (0x6627E8D5 >> 8) * 2.0**-24


def test_uniforms_are_uniform_and_keyed_by_everything():
    row, position = (x.flatten() for x in torch.meshgrid(torch.arange(1000), torch.arange(100), indexing="ij"))
    u = philox_uniform(1, row, position).numpy()
    counts = np.histogram(u, bins=100, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 149  # chi-square, 99 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.01
    for other in (philox_uniform(2, row, position), philox_uniform(1, row + 2**32, position)):
        assert abs(np.corrcoef(u, other.numpy())[0, 1]) < 0.02


@pytest.mark.parametrize("how", [
    {}, {"temperature": 0.6}, {"top_k": 5}, {"top_p": 0.7}, {"temperature": 1.3, "top_k": 8, "top_p": 0.8}])
def test_draws_follow_the_distribution(how):
    """Chi-square of 1e5 draws against the softmax computed here by sorting, and the logprob is that distribution's."""
    logits = torch.randn(17, generator=torch.Generator().manual_seed(3)) * 2
    logits[4] = -torch.inf
    p = (logits.double() / how.get("temperature", 1)).softmax(-1).numpy()
    order = np.argsort(-p)
    p[order[how.get("top_k", 17):]] = 0
    p /= p.sum()
    cut = np.searchsorted(np.cumsum(p[order]), how.get("top_p", 1.0)) + 1
    p[order[cut:]] = 0
    p /= p.sum()
    R = 100_000
    token, logprob, *_ = draw_plain(logits.expand(R, -1), 11, torch.arange(R), torch.zeros(R, dtype=torch.int64), **how)
    counts = np.bincount(token.numpy(), minlength=17)
    kept = p > 0
    assert counts[~kept].sum() == 0
    assert ((counts[kept] - R * p[kept]) ** 2 / (R * p[kept])).sum() < 40  # 16 degrees of freedom at most, p < 0.001
    np.testing.assert_allclose(logprob.numpy(), np.log(p[token.numpy()]), atol=1e-5)


def test_ties_at_the_threshold_all_stay():
    kept = truncate(torch.tensor([[1.0, 1.0, 1.0, 0.0]]), top_k=2, top_p=1.0) > -torch.inf
    assert kept.tolist() == [[True, True, True, False]]


def test_greedy_and_its_logprob():
    logits = torch.randn(5, 50)
    token, logprob, *_ = draw(logits, 0, *keys(5), temperature=0)
    assert token.equal(logits.argmax(-1))
    assert torch.allclose(logprob, logits.log_softmax(-1).amax(-1))


def test_a_row_draws_the_same_in_any_batch():
    logits, (row, position) = torch.randn(64, 300), keys(64)
    together = draw(logits, 5, row, position)[0]
    shuffled = torch.randperm(64)
    assert draw(logits[shuffled], 5, row[shuffled], position[shuffled])[0].equal(together[shuffled])
    assert draw(logits[9:10], 5, row[9:10], position[9:10])[0].equal(together[9:10])


@needs_triton
@pytest.mark.parametrize("V", [1, 7, 512, 572, 4096, 4097, 50_257, 151_936])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_kernel_equals_twin(V, dtype):
    """Tokens are equal unless the draw is within 1e-5 of a boundary of the CDF; logprobs are within 1e-4."""
    R = 16 if V < 10_000 else 4
    logits = (torch.randn(R, V, generator=torch.Generator().manual_seed(V)) * 3).to(dtype).to(DEVICE)
    logits[0, V // 2:] = logits[0, 0]  # many ties
    if V > 8:
        logits[1, ::3] = -torch.inf
        logits[2, :] = -torch.inf
        logits[2, V - 2] = 0.5
    for seed, temperature in ((1, 1.0), (2**62 + 3, 0.7)):
        expected = draw_plain(logits, seed, *keys(R, DEVICE), temperature)
        got = module.draw_triton(logits, seed, *keys(R, DEVICE), temperature)
        cdf = (logits.double() / temperature).softmax(-1).cumsum(-1)
        u = philox_uniform(seed, *keys(R, DEVICE)).double()
        near = (cdf - u[:, None]).abs().amin(-1) < 1e-5
        assert (near | (got[0] == expected[0])).all()
        same = got[0] == expected[0]
        assert torch.allclose(got[1][same], expected[1][same], atol=1e-4)
        assert (logits.gather(1, got[0][:, None]) > -torch.inf).all()


@needs_triton
def test_kernel_reads_strided_rows():
    """The logits of every second row, without a copy: the row's stride is used."""
    logits = torch.randn(8, 600, device=DEVICE)
    every_second = logits[::2]
    expected = draw_plain(every_second, 3, *keys(4, DEVICE))
    assert module.draw_triton(every_second, 3, *keys(4, DEVICE))[0].equal(expected[0])
