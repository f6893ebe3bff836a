"""The whole path on a CUDA device in bf16, with the compiled kernel; run on a machine that has one."""

from pathlib import Path

import pytest
import torch

from evaluate import SOLVER_SYSTEM
from grpo import Rollout, Trainer
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
