"""The whole path on a CUDA device, with compiled kernels and graphs; run on a machine that has one."""

from pathlib import Path

import pytest
import torch

from evaluate import SOLVER_SYSTEM
from grpo import Rollout, Trainer, copy_weights
from model import Tokenizer, load
from sample import Sampler

TINY = Path(__file__).parents[1] / "tiny"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_sampler_and_trainer_agree_in_bf16():
    tokenizer = Tokenizer(TINY)
    model = load(TINY, "cuda", torch.bfloat16)
    prompts = [tokenizer.chat(SOLVER_SYSTEM, f"What is {i} + 25 - 8?") for i in range(40)]
    groups = Sampler(model, tokenizer, 64).generate(prompts, n=4, max_tokens=64, seed=1)
    rows = [(p, c) for p, group in zip(prompts, groups) for c in group]
    for prompt, c in rows[::16]:
        ids = torch.tensor([prompt + c.tokens], device="cuda")
        logprobs = model.logits(model(ids)).float().log_softmax(-1)[0, len(prompt) - 1:-1]
        expected = logprobs.gather(1, ids[0, len(prompt):, None])[:, 0].cpu()
        assert torch.allclose(torch.tensor(c.logprobs), expected, atol=0.1)  # bf16 logits of size 10 step by 0.06
        assert (torch.tensor(c.logprobs) - expected).abs().mean() < 2e-2
    trainer = Trainer(load(TINY, "cuda"), lr=1e-4)
    before = trainer.policy.model.norm.weight.clone()
    metrics = trainer.step([Rollout(p, c.tokens, 1.0 if i % 2 else -1.0) for i, (p, c) in enumerate(rows)])
    assert metrics["grad_norm"] > 0 and not before.equal(trainer.policy.model.norm.weight)


def sample(sampler, prompts, **how):
    return [[c.tokens for c in group] for group in sampler.generate(prompts, n=4, max_tokens=64, seed=1, **how)]


@pytest.mark.parametrize("how", [{}, {"top_p": 0.9}, {"temperature": 0}])
def test_graphs_draw_what_single_steps_do(how):
    """In fp32: graphs in bursts, compiled blocks and page pressure against the plain step; a few draws may be at a boundary."""
    tokenizer = Tokenizer(TINY)
    prompts = [tokenizer.chat(SOLVER_SYSTEM, f"What is {i} + 25 - 8?") for i in range(40)]
    plain = Sampler(load(TINY, "cuda"), tokenizer, 64)
    plain.use_graphs, plain.burst = False, 1
    expected = sample(plain, prompts, **how)
    model = load(TINY, "cuda")
    for sampler in (Sampler(model, tokenizer, 64), Sampler(model, tokenizer, 64, kv_gb=0.002, page_size=32)):
        got = sample(sampler, prompts, **how)
        assert sum(a != b for x, y in zip(got, expected) for a, b in zip(x, y)) <= 2
    assert sampler.put_back


def test_graphs_are_reused_by_another_roles_weights():
    tokenizer, other = Tokenizer(TINY), load(TINY, "cuda")
    with torch.no_grad():
        other.norm.weight.mul_(0.5)
    prompts = [tokenizer.chat(SOLVER_SYSTEM, f"What is {i} + 25 - 8?") for i in range(40)]
    sampler = Sampler(load(TINY, "cuda"), tokenizer, 64)
    first, graphs = sample(sampler, prompts), dict(sampler.graphs)
    copy_weights(other, sampler.model)
    second = sample(sampler, prompts)
    assert second != first and all(sampler.graphs[size] is graph for size, graph in graphs.items())
    expected = sample(Sampler(other, tokenizer, 64), prompts)
    assert sum(a != b for x, y in zip(second, expected) for a, b in zip(x, y)) <= 2
