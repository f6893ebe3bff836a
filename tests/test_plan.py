"""The plan: its memory against what torch's allocator says, its arithmetic by hand, and what it says when a run cannot fit."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import bench_sample
import numpy as np
import pytest
import torch
from processes import run_processes
from torch.profiler import ProfilerActivity, profile

from batches import Rollout
from common import write_lines
from grpo import GRPOConfig, Trainer
from model import ModelConfig, Transformer, read_config
from plan import (
    Machine,
    fits,
    fitting,
    host_memory,
    iteration_hours,
    main,
    memory,
    reached,
    sampling_memory,
    state_memory,
    update_memory,
)
from rzero import PRESETS
from sample import Sampler

ROOT = Path(__file__).parents[1]
QWEN3_4B = ModelConfig.from_dict(bench_sample.QWEN3_4B)
QWEN3_8B = replace(QWEN3_4B, width=4096, ffn=12_288, tied=False)
H200 = Machine(1, 141.0, torch.bfloat16, 790.0, 4.3)


def test_parameters_are_counted():
    for tied, family in ((True, "qwen3"), (False, "qwen2"), (False, "llama")):
        config = ModelConfig.from_dict(dict(model_type=family, vocab_size=50, hidden_size=24, num_hidden_layers=3,
                                            num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=40,
                                            tie_word_embeddings=tied))
        assert config.parameters() == sum(p.numel() for p in Transformer(config).parameters())
    assert round(QWEN3_4B.parameters() / 1e9, 2) == 4.02


SHAPE = dict(model_type="qwen3", vocab_size=4000, hidden_size=256, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, head_dim=64, intermediate_size=768, tie_word_embeddings=True)


def peak(held, call, *arguments, **more):
    """Bytes that torch's allocator held at most during a call, with `held` before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call(*arguments, **more)
    events = [(e.start_ns(), e.nbytes()) for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    return held + max(itertools.accumulate(change for _, change in sorted(events)))


def update_peaks(rank, world, settings):
    """For each (activation_checkpointing, reshard): the peak of a step after the first, and what the plan says. It is the
    least of two steps where processes wait for one another, and keep gathered weights longer now and then."""
    config, result = ModelConfig.from_dict(SHAPE), []
    for checkpointing, reshard in settings:
        cfg = GRPOConfig(token_budget=528, kl_coef=0.0, activation_checkpointing=checkpointing, reshard=reshard)
        trainer = Trainer(Transformer(config), cfg, lr=1e-6)
        rollouts = [Rollout([1] * 17, [2] * 127, 1.0)] * 8 * world  # two micro-batches of 16 + 4 x 128 for every process
        trainer.step(rollouts)
        held = sum(storage.nbytes() for storage in trainer._storages())
        peaks = [peak(held, trainer.step, rollouts) for _ in range(world)]
        parts = state_memory(config, world) | update_memory(config, cfg, 528, world, torch.float32, world > 1)
        result.append((min(peaks), sum(parts.values())))
    return result


@pytest.mark.slow
def test_the_memory_of_an_update_is_within_a_tenth_of_the_allocators_peak():
    one, two = [(False, True), (True, True)], [(False, True), (True, True), (True, False)]
    for measured, planned in sum(run_processes(2, update_peaks, two), update_peaks(0, 1, one)):
        assert abs(planned / measured - 1) < 0.1, (measured, planned)


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary, prompts, n, prompt, drawn", [(4000, 24, 1, 170, 40), (16_000, 1, 256, 100, 6)])
def test_the_memory_of_sampling_is_within_a_tenth_of_the_allocators_peak(vocabulary, prompts, n, prompt, drawn):
    """24 prompts in one prefill, which then is the most beside weights and pages; and one of 256 rows, where logits are."""
    shape = dict(SHAPE, vocab_size=vocabulary)
    model = bench_sample.random_model(shape, torch.device("cpu"), torch.float32)
    sampler = Sampler(model, bench_sample.no_stops(shape), prompts * n)
    held = sum(p.nbytes for p in model.parameters())
    measured = peak(held, sampler.generate, [[i] * prompt for i in range(prompts)], n, max_tokens=drawn)
    measured += sampler.cache.keys.nbytes + sampler.cache.values.nbytes  # on a CPU NumPy's, which PyTorch does not count
    parts = sampling_memory(model.config, prompts * n, prompt + drawn, 1e12, 0, torch.float32, plain=True)
    planned = held + sum(parts.values())
    assert abs(planned / measured - 1) < 0.1, (measured, planned)


def test_the_paper_on_one_card():
    """4.02 billion weights: 16 bytes each for the training and 2 for the sampler; 147,456 bytes of cache a token."""
    paper = PRESETS["paper"]
    phases = memory(paper, QWEN3_4B, H200)
    sampling, update, pool = (phases[name] for name in ("sampling", "update", "pool"))
    assert 3 * update["fp32 gradients"] == sampling["AdamW moments"] + sampling["fp32 weights"] == 12 * QWEN3_4B.parameters()
    assert "fp32 weights" not in pool and "fp32 gradients" not in sampling and "key/value pages" not in update
    assert 1.5 * sampling["key/value pages"] < pool["key/value pages"] > 400 * 1000 * 147_456
    assert all(sum(parts.values()) < 141e9 for parts in phases.values())
    assert memory(replace(paper, kv_gb=32.0), QWEN3_4B, H200)["pool"]["key/value pages"] == 32e9  # a bound, when given
    twice = memory(replace(paper, sampler_dtype="fp32"), QWEN3_4B, H200)["pool"]
    assert twice["sampler's weights"] == 2 * pool["sampler's weights"]
    assert fitting(paper, QWEN3_4B, H200) == {}
    tokens, steps, alone, updates = iteration_hours(paper, QWEN3_4B, H200)
    assert 140e6 < tokens < 160e6 and 0.3 < steps < alone < 2 and 0.1 < updates < 1


def test_the_training_state_waits_on_the_host():
    """With `sampling` it is not there while the sampler draws, with `true` never; the host then has all of it."""
    paper = PRESETS["paper"]
    sampling, always = (memory(replace(paper, offload=offload), QWEN3_4B, H200) for offload in ("sampling", "true"))
    assert sampling["sampling"] == sampling["pool"] == always["sampling"] == always["pool"]
    assert sampling["update"]["fp32 weights"] == 4 * QWEN3_4B.parameters()
    assert not {"fp32 weights", "AdamW moments"} & {*always["update"], *always["reference"]}
    weights = QWEN3_4B.parameters()
    assert host_memory(paper, QWEN3_4B, 1) == 0
    assert 12 * weights < host_memory(replace(paper, offload="sampling"), QWEN3_4B, 1) < 24 * weights
    assert 16 * weights < host_memory(replace(paper, offload="true"), QWEN3_4B, 1) < 24 * weights


def test_what_does_not_fit_is_told_what_would():
    """What costs least comes first; all phases fit then, and pages for four of the longest rows beside the Trainer."""
    paper = PRESETS["paper"]
    on_host = {"offload": "true"}
    for gb, expected in ((84.0, {"token_budget": 8192}), (48.0, on_host), (24.0, on_host), (8.0, None)):
        machine = replace(H200, gb=gb)
        assert not fits(paper, QWEN3_4B, machine) and fitting(paper, QWEN3_4B, machine) == expected
        if expected:
            phases = memory(replace(paper, **expected), QWEN3_4B, machine)
            assert all(sum(parts.values()) <= 1e9 * gb for parts in phases.values())
            assert phases["sampling"]["key/value pages"] >= 4 * 4296 * 147_456
    assert fitting(replace(paper, reshard=False), QWEN3_4B, replace(H200, gb=84.0)) == {"reshard": True, "token_budget": 8192}
    assert fitting(replace(paper, max_rows=64), QWEN3_8B, replace(H200, gb=48.0)) == on_host


def test_a_run_says_what_it_reached(tmp_path):
    """Two steps of the Challenger, one of the Solver: lengths are means, rates are sums over sums, all else is as planned."""
    paper = replace(PRESETS["paper"], out=str(tmp_path))
    assert reached(paper) == (None,) * 4
    steps = [{"phase": "challenger", "completion_tokens": 400, "tokens": 9e6, "asking_seconds": 100, "answering_seconds": 800,
              "update_seconds": 10, "update_tflops": 100}] * 2
    (tmp_path / "config.json").write_text(json.dumps({"model": paper.model}))
    write_lines(tmp_path / "metrics.jsonl", steps)
    assert reached(paper) == (400, None, 1e4, 1e14)
    write_lines(tmp_path / "metrics.jsonl", [*steps, {"phase": "solver", "completion_tokens": 1000, "tokens": 2e6,
                                                      "answering_seconds": 200, "update_seconds": 20, "update_tflops": 400}])
    assert reached(paper) == (400, 1000, 1e4, 2.5e14)
    tokens, sampling, pool, updates = iteration_hours(paper, QWEN3_4B, replace(H200, tflops=None, tb_s=None))
    assert tokens == 2560 * 10_400 + 9600 * 1000 + 8000 * 10_400
    assert np.allclose([sampling, pool], [(2560 * 10_400 + 9600 * 1000) / 1e4 / 3600, 8000 * 10_400 / 1e4 / 3600])
    forward = 2560 * QWEN3_4B.forward_flops(400, 400 * 400, 400) + 9600 * QWEN3_4B.forward_flops(1200, 1200**2 / 2, 1000)
    assert np.isclose(updates, 4 * forward / 2.5e14 / 3600)
    assert reached(replace(paper, model="Qwen/Qwen3-8B-Base")) == (None,) * 4  # another model's run says nothing


def test_command_line(monkeypatch, capsys):
    """As a program of its own once; the other command lines in this process, where only SystemExit may end it."""
    def run(*argv):
        monkeypatch.setattr(sys, "argv", ["plan.py", *argv])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return out, err + (str(end.value) + "\n" if isinstance(end.value.code, str) else "")  # which Python prints

    here = subprocess.run([sys.executable, ROOT / "plan.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert here.returncode == 0 and "left" in here.stdout and "hours" in here.stdout and not here.stderr
    monkeypatch.chdir(ROOT)
    out, err = run("--device_gb", "0.001")
    assert err.startswith("plan.py: the run needs ") and err.count("\n") == 1 and "give --tflops" in out
    assert run("--devices", "0")[1] == "plan.py: --devices, --device_gb, --tflops and --tb_s must be above 0\n"
    assert "did you mean --token_budget?" in run("--token_budgets", "1")[1]
    assert read_config(ROOT / "tiny").parameters() == 387_648
