"""The benchmark of training runs: our side of it, at a small size."""

from pathlib import Path

import bench_train as bench
import pytest
import torch
import torch.distributed as dist
from processes import run_processes

from model import Tokenizer
from tasks.mathematics import SOLVER_SYSTEM

ROOT = Path(__file__).parents[1]


def test_our_step_draws_and_learns():
    tokenizer = Tokenizer(ROOT / "tiny")
    prompts = [tokenizer.chat(SOLVER_SYSTEM, f"What is {i} + 25 - 8?") for i in range(3)]
    step = bench.our_steps(prompts, tokenizer)
    assert 3 * bench.N <= step(0) <= 3 * bench.N * bench.LONGEST
    assert len(bench.some_rollouts(prompts, 7)) == 7
    assert bench.reward("a1b2") == 0.5


def _ours(rank, world):
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    shape = bench.QWEN3_4B | dict(vocab_size=600, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                  num_key_value_heads=2, head_dim=16, intermediate_size=48)
    result = bench.ours(shape, torch.device("cpu"), 64, 4, head_tokens=100, pages_gb=0.01, longest=20)
    dist.destroy_process_group()
    return result


@pytest.mark.slow
def test_gpu_part_at_a_small_size():
    """All of it but Liger's side, on the CPU: in fp32 and bf16 mixed as there, one process with FSDP."""
    result, = run_processes(1, _ours)
    assert 0 < result["update_share"] < 1 and result["challenger_step_seconds"] > 0 and result["head_seconds"] > 0


def test_updates_are_timed():
    assert len(bench._updates(0, 1, 1)) == 1
