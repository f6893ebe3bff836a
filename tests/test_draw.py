"""The draw of a token: the plain twin follows the distribution, and the Triton kernel equals the twin."""

import numpy as np
import pytest
import torch
from conftest import needs_triton

from kernels import draw as module
from kernels.draw import draw, draw_plain, invert, nucleus, philox_uniform, truncate

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LARGE = 151_936 if DEVICE == "cuda" else 50_257  # the interpreter takes as long as the tokens are many


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


PARAMS = [{}, {"temperature": 0.6}, {"top_k": 5}, {"top_p": 0.7}, {"temperature": 1.3, "top_k": 8, "top_p": 0.8}]


def some_logits(V):
    """A peaked row with ties, and with tokens that are out."""
    logits = torch.randn(V, generator=torch.Generator().manual_seed(V)) * 3
    logits[torch.arange(V) % 5 == 1] = -torch.inf
    logits[2] = logits[0] = logits.max()
    return logits


def reference(logits, temperature=1.0, top_k=0, top_p=1.0):
    """The distribution in float64, by sorting; whatever ties with the last token kept stays."""
    p = (logits.double() / temperature).softmax(-1).numpy()
    if top_k:
        p = np.where(p >= np.sort(p)[::-1][min(top_k, len(p)) - 1], p, 0)
        p /= p.sum()
    if top_p < 1:
        descending = np.sort(p)[::-1]
        p = np.where(p >= descending[np.searchsorted(np.cumsum(descending), top_p)], p, 0)
        p /= p.sum()
    return p


@pytest.mark.parametrize("params", PARAMS)
@pytest.mark.parametrize("V", [7, 512, 50_257, 151_936])
def test_draws_follow_the_distribution(V, params):
    """Chi-square of 1e5 draws, and the logprob is that distribution's. Over 512 tokens `draw` draws, whose top-p does
    not sort. Over the large vocabularies 4 rows are drawn from 25,000 times each, in the way that `draw_plain` does
    once; tokens expected less than 10 times count together."""
    logits, R = some_logits(V), 100_000
    row_R, zero_R = torch.arange(R), torch.zeros(R, dtype=torch.int64)
    p = reference(logits, **params)
    if V <= 512:
        function = draw_plain if V == 7 else draw
        token_R, logprob_R, *_ = function(logits.expand(R, -1), 11, row_R, zero_R, **params)
    else:
        token_R, logprob_R, *_ = draw_plain(logits.expand(4, -1), 11, row_R[:4], zero_R[:4], **params)
        kept = truncate(logits[None] / params.get("temperature", 1), params.get("top_k", 0), params.get("top_p", 1.0))
        all_R = invert(kept.softmax(-1).cumsum(-1).repeat(4, 1),
                       philox_uniform(11, row_R, zero_R).view(-1, 4).T.contiguous()).T.flatten()
        assert token_R.equal(all_R[:4])
        assert np.abs(kept.softmax(-1)[0].numpy() - p).max() < 1e-5
        token_R = all_R
    counts = np.bincount(token_R.numpy(), minlength=V)
    assert counts[p == 0].sum() == 0
    np.testing.assert_allclose(logprob_R.numpy(), np.log(p[token_R[:len(logprob_R)].numpy()]), atol=1e-4)
    often = R * p >= 10
    counts, expected = (np.append(x[often], x[~often].sum()) for x in (counts, R * p))
    counts, expected = counts[expected > 0], expected[expected > 0]
    freedom = max(1, len(expected) - 1)
    quantile = freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3  # Wilson-Hilferty, p = 0.001
    assert ((counts - expected) ** 2 / expected).sum() < quantile


def test_ties_at_the_threshold_all_stay():
    kept = truncate(torch.tensor([[1.0, 1.0, 1.0, 0.0]]), top_k=2, top_p=1.0) > -torch.inf
    assert kept.tolist() == [[True, True, True, False]]


def rows_of_all_kinds(R, V, seed):
    """From flat to peaked, rounded to bf16 so that many tie, a third of the tokens out; then rows without an end: a
    NaN, a +inf, nothing but -inf; all tokens alike; one token alone."""
    logits = torch.randn(R, V, generator=torch.Generator().manual_seed(seed)) * torch.logspace(-2, 1, R)[:, None]
    logits[::3] = logits[::3].bfloat16().float()
    logits[1::4, ::3] = -torch.inf
    logits[0, V // 2], logits[1, 0], logits[2], logits[3] = torch.nan, torch.inf, -torch.inf, 1.5
    logits[4, :-1] = -torch.inf
    return logits


@pytest.mark.parametrize("V, R, seeds", [(7, 500, 4), (573, 400, 4), (49_152, 16, 1)])
def test_the_packed_nucleus_is_what_truncate_keeps(V, R, seeds):
    """The same tokens stay, and a draw from them gives the same token and logprobs as from the sorted whole."""
    for seed in range(seeds):
        logits, row = rows_of_all_kinds(R, V, seed), keys(R)
        for top_p in (1e-9, 0.3, 0.7, 0.9, 0.99, 0.99999):
            kept_RC, token_RC = nucleus(logits, top_p)
            packed_RV = torch.full_like(logits, -torch.inf)
            r, c = (kept_RC > -torch.inf).nonzero().T
            packed_RV[r, token_RC[r, c]] = kept_RC[r, c]
            whole_RV = truncate(logits, 0, top_p)
            assert packed_RV[3:].equal(whole_RV[3:]) and packed_RV[0].isinf().all()
            for params in ({}, {"temperature": 0.7}, {"top_k": 20}):
                params = {"temperature": 1.0, "top_k": 0, "top_p": top_p} | params
                expected, got = (draw_plain(logits, seed, *row, **params, packed=packed) for packed in (False, True))
                assert got.token[3:].equal(expected.token[3:])
                assert all(torch.allclose(x[3:], y[3:], atol=1e-6) for x, y in zip(got[1:], expected[1:]))


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
@pytest.mark.parametrize("V, dtype", [
    (1, torch.float32), (7, torch.float32), (512, torch.bfloat16), (572, torch.float32), (4096, torch.float16),
    (4097, torch.float32), pytest.param(LARGE, torch.bfloat16, marks=pytest.mark.slow)])
def test_kernel_equals_twin(V, dtype):
    """Every drawn token's share of the CDF is within 1e-5 of the draw's uniform. That is the twin's token, except for
    draws at a boundary, which are counted. Logprobs agree. (All that depends on the dtype is the load.)"""
    R = 4 if V < 10_000 else 3  # the interpreter takes its time for each row
    logits = (torch.randn(R, V, generator=torch.Generator().manual_seed(V)) * 3).to(dtype).to(DEVICE)
    logits[0, V // 2:] = logits[0, 0]  # many ties
    if V > 8:
        logits[1, ::3] = -torch.inf
        logits[2, :] = -torch.inf
        logits[2, V - 2] = 0.5
    draws = at_boundary = 0
    for seed, params in ((1, {}), (2**62 + 3, {"temperature": 0.7}), (2, {"top_k": 3}), (3, {"top_k": V + 1}),
                         (4, {"top_p": 0.4}), (5, {"top_p": 0.99}),
                         (6, {"top_k": 40, "top_p": 0.9, "temperature": 1.5}), (7, {"temperature": 0})):
        expected = draw_plain(logits, seed, *keys(R, DEVICE), **params)
        got = module.draw_triton(logits, seed, *keys(R, DEVICE), **params)
        if params.get("temperature") == 0:
            assert got.token.equal(expected.token)
        else:
            p = torch.tensor(np.array([reference(row, **params) for row in logits.float().cpu()]), device=DEVICE)
            end, share = (x.gather(1, got.token[:, None])[:, 0] for x in (p.cumsum(-1), p))
            u = philox_uniform(seed, *keys(R, DEVICE)).double()
            assert ((u > end - share - 1e-5) & (u < end + 1e-5)).all()
        same = got.token == expected.token
        draws, at_boundary = draws + R, at_boundary + int((~same).sum())
        assert torch.allclose(got.full_logprob[same], expected.full_logprob[same], atol=1e-4)
        atol = 2e-3 if "top_p" in params else 1e-4  # by rounding, a token at the threshold may fall on either side
        assert torch.allclose(got.logprob[same], expected.logprob[same], atol=atol)
        assert (logits.gather(1, got.token[:, None]) > -torch.inf).all()
    assert at_boundary <= 0.05 * draws


@pytest.mark.parametrize("name", ["draw", "draw_plain", pytest.param("draw_triton", marks=needs_triton)])
@pytest.mark.parametrize("params", [{}, {"top_k": 3}, {"top_p": 0.5}, {"top_k": 40, "top_p": 0.9}, {"temperature": 0}])
def test_bad_rows_give_nan_and_leave_the_others_alone(name, params):
    """A NaN, a +inf, and nothing but -inf."""
    logits = torch.randn(5, 300, device=DEVICE)
    good = getattr(module, name)(logits, 3, *keys(5, DEVICE), **params)
    logits[0, 7], logits[1, 7], logits[2] = torch.nan, torch.inf, -torch.inf
    token, logprob, *_ = getattr(module, name)(logits, 3, *keys(5, DEVICE), **params)
    assert logprob[:3].isnan().all() and (token >= 0).all() and (token < 300).all()
    assert token[3:].equal(good.token[3:]) and logprob[3:].equal(good.logprob[3:])


@pytest.mark.parametrize("name", ["draw_plain", pytest.param("draw_triton", marks=needs_triton)])
@pytest.mark.parametrize("params", [{"temperature": 1e-4}, {"top_k": 1}, {"top_p": 1e-9},
                                    {"temperature": 1e4, "top_k": 1}])
def test_extreme_settings_are_greedy(name, params):
    logits = torch.randn(6, 900, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    token, logprob, *_ = getattr(module, name)(logits, 3, *keys(6, DEVICE), **params)
    assert token.equal(logits.argmax(-1)) and torch.allclose(logprob, torch.zeros_like(logprob), atol=1e-3)


def test_full_logprob():
    """It is the softmax's at the temperature, without truncation."""
    logits, params = torch.randn(20, 300) * 2, {"temperature": 0.8, "top_k": 20, "top_p": 0.8}
    token, logprob, full_logprob = draw_plain(logits, 3, *keys(20), **params)
    assert torch.allclose(full_logprob, (logits / 0.8).log_softmax(-1).gather(1, token[:, None])[:, 0], atol=1e-5)
    assert (logprob > full_logprob).all()


@needs_triton
def test_kernel_reads_strided_rows():
    """The logits of every second row, without a copy: the row's stride is used."""
    logits = torch.randn(8, 600, device=DEVICE)
    every_second = logits[::2]
    expected = draw_plain(every_second, 3, *keys(4, DEVICE))
    assert module.draw_triton(every_second, 3, *keys(4, DEVICE))[0].equal(expected[0])
