"""The benchmark of training runs: our side of it, at a small size."""

from pathlib import Path

import bench_train as bench

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


def test_updates_are_timed():
    assert len(bench._updates(0, 1, 1)) == 1
