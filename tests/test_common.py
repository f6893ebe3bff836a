"""The number of threads that a run takes, those that are fastest on a clock that says which, and the sampler's dtype."""

from types import SimpleNamespace

import pytest
import torch

import common
from model import load
from run import Run
from rzero import Config


@pytest.mark.parametrize("seconds, best, says", [({4: 1, 2: 2, 1: 4}, 4, ""), ({4: 9, 2: 2, 1: 3}, 2, "2 of 4 threads"),
                                                ({4: 9, 2: 5, 1: 1}, 1, "1 of 4 threads")])
def test_threads_are_as_many_as_are_fastest(monkeypatch, capsys, seconds, best, says):
    """seconds: of a product, in hundredths, by the number of threads. What is not news is not said again."""
    state = SimpleNamespace(threads=4, now=0.0)

    def clock():
        state.now += seconds[state.threads] / 100
        return state.now

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(common.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(common.torch, "get_num_threads", lambda: state.threads)
    monkeypatch.setattr(common.torch, "set_num_threads", lambda n: setattr(state, "threads", n))
    monkeypatch.setattr(common, "THREADS", 4)
    monkeypatch.setattr(common.time, "perf_counter", clock)
    for text in (says, ""):
        common.choose_threads(8)
        assert state.threads == best and capsys.readouterr().out.startswith(text)
    state.threads = 3
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    common.choose_threads(8)
    assert state.threads == 3


def test_the_samplers_dtype(tiny, tmp_path):
    """A run in bf16 draws from the rounded model; its logprobs are near those of fp32."""
    sampler = Run(Config(model=str(tiny), out=str(tmp_path), heldout="", sampler_dtype="bf16")).sampler
    prompt, full = sampler.tokenizer.chat("", "What is 3 + 4?"), load(tiny)
    (c,), = sampler.generate([prompt], max_tokens=12)
    assert sampler.cache.keys.dtype == torch.bfloat16
    tokens = torch.tensor([[*prompt, *c.tokens]])
    with torch.inference_mode():
        expected = full.logits(full(tokens))[0, len(prompt) - 1:-1].log_softmax(-1)
    expected = expected.gather(-1, tokens[0, len(prompt):, None])[:, 0]
    assert torch.allclose(torch.tensor(c.logprobs), expected, atol=0.1)
    with pytest.raises(ValueError, match="--sampler_dtype is 'half', but must be auto or fp32 or bf16"):
        Config(sampler_dtype="half").check()
