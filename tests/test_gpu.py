"""The whole path on a CUDA device, with compiled kernels and graphs; run on a machine that has one."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from bench_sample import QWEN3_4B
from bench_train import head

from batches import Rollout
from grpo import GRPOConfig, Trainer, copy_weights
from model import ModelConfig, Tokenizer, Transformer, load
from plan import training_memory
from sample import Sampler
from tasks.mathematics import SOLVER_SYSTEM

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


@pytest.fixture
def one_process():
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("how", [{}, {"activation_checkpointing": True, "compile_blocks": True},
                                 {"reference_on_host": True}, {"reshard": False}])
def test_training_step_in_bf16(one_process, how):
    """Sampler and trainer, both in bf16, agree to a KL of 1e-3; every option gives the plain step's metrics about."""
    tokenizer = Tokenizer(TINY)
    prompts = [tokenizer.chat(SOLVER_SYSTEM, f"What is {i} + 25 - 8?") for i in range(40)]
    groups = Sampler(load(TINY, "cuda", torch.bfloat16), tokenizer, 64).generate(prompts, n=4, max_tokens=64, seed=1)
    rows = [(p, c) for p, group in zip(prompts, groups) for c in group]
    rollouts = [Rollout(p, c.tokens, 1.0 if i % 2 else -1.0, c.full_logprobs) for i, (p, c) in enumerate(rows)]
    plain, trainer = (Trainer(load(TINY), GRPOConfig(**{"reshard": True, **settings}), 1e-4, "cuda") for settings in ({}, how))
    before = trainer.policy.model.norm.weight.full_tensor().clone()
    metrics, expected = trainer.step(rollouts), plain.step(rollouts)
    assert metrics["sampler_kl"] < 1e-3 and metrics["entropy"] == pytest.approx(expected["entropy"], rel=0.02)
    assert metrics["grad_norm"] == pytest.approx(expected["grad_norm"], rel=0.05)
    assert not before.equal(trainer.policy.model.norm.weight.full_tensor())


def test_head_of_qwen3_in_less_than_2_gb():
    """Forward and backward of 32k tokens x 151,936 words, whose logits alone would be 10 GB."""
    assert head(ModelConfig.from_dict(QWEN3_4B), torch.device("cuda"), 32_768)[0] < 2e9


def test_memory_is_within_a_tenth_of_the_plan(one_process):
    """Half a billion weights, the peak of two steps by torch.cuda.max_memory_allocated."""
    config = ModelConfig.from_dict(QWEN3_4B | dict(hidden_size=1024, num_hidden_layers=16, num_attention_heads=16,
                                                   intermediate_size=3072))
    for checkpointing in (False, True):
        with torch.device("cuda"):
            model = Transformer(config).to(torch.bfloat16)
        cfg = GRPOConfig(token_budget=8192, activation_checkpointing=checkpointing, reshard=True)
        trainer = Trainer(model, cfg, lr=1e-5)
        del model
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            trainer.step([Rollout([1] * 56, [2] * 2000, 1.0)] * 16)
        planned = sum(training_memory(config, cfg, 8192, 1, torch.bfloat16, True).values())
        assert planned == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.1)
        del trainer


def sample(sampler, prompts, **how):
    return [[c.tokens for c in group] for group in sampler.generate(prompts, n=4, max_tokens=64, seed=1, **how)]


@pytest.mark.parametrize("how", [{}, {"top_p": 0.9}, {"temperature": 0}])
def test_graphs_draw_what_single_steps_do(how):
    """In fp32: graphs in bursts, compiled blocks and page pressure against the plain step; a few draws may be at a
    boundary."""
    tokenizer = Tokenizer(TINY)
    prompts = [tokenizer.chat(SOLVER_SYSTEM, f"What is {i} + 25 - 8?") for i in range(40)]
    plain = Sampler(load(TINY, "cuda"), tokenizer, 64)
    plain.use_graphs, plain.burst = False, 1
    expected = sample(plain, prompts, **how)
    model = load(TINY, "cuda")
    for sampler in (Sampler(model, tokenizer, 64), Sampler(model, tokenizer, 64, kv_gb=0.002, page_size=32)):
        got = sample(sampler, prompts, **how)
        assert sum(a != b for x, y in zip(got, expected) for a, b in zip(x, y)) <= 2
    assert sampler.preemptions


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
