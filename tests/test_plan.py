"""The plan: its memory against what torch's allocator says, its arithmetic by hand, and what it says when a run cannot fit."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import bench_sample
import pytest
import torch
from processes import run_processes
from torch.distributed.tensor import DTensor
from torch.profiler import ProfilerActivity, profile

from batches import Rollout
from grpo import GRPOConfig, Trainer
from model import ModelConfig, Transformer, read_config
from plan import Machine, fitting, iteration_hours, main, memory, training_memory
from rzero import PRESETS

ROOT = Path(__file__).parents[1]
QWEN3_4B = ModelConfig.from_dict(bench_sample.QWEN3_4B)
H200 = Machine(1, 141.0, torch.bfloat16, 790.0, 4.3)


def test_parameters_are_counted():
    for tied, family in ((True, "qwen3"), (False, "qwen2"), (False, "llama")):
        config = ModelConfig.from_dict(dict(model_type=family, vocab_size=50, hidden_size=24, num_hidden_layers=3,
                                            num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=40,
                                            tie_word_embeddings=tied))
        assert config.parameters() == sum(p.numel() for p in Transformer(config).parameters())
    assert round(QWEN3_4B.parameters() / 1e9, 2) == 4.02


def peak_and_plan(rank, world, checkpointing, reshard=True):
    """(what torch's allocator held at most during a step, what the plan says), in bytes. It is the least of the steps after the
    first: on a busy machine a process that waits for another keeps gathered weights longer now and then."""
    config = ModelConfig.from_dict(dict(model_type="qwen3", vocab_size=8000, hidden_size=256, num_hidden_layers=6,
                                        num_attention_heads=4, num_key_value_heads=2, head_dim=64, intermediate_size=768,
                                        tie_word_embeddings=True))
    cfg = GRPOConfig(token_budget=1536, kl_coef=0.0, activation_checkpointing=checkpointing, reshard=reshard)
    trainer = Trainer(Transformer(config), cfg, lr=1e-5)
    rollouts = [Rollout([1] * 42, [2] * 150, 1.0)] * 16 * world  # two micro-batches for every process
    weights = list(trainer.policy.parameters())
    current, peaks = sum((p.to_local() if isinstance(p, DTensor) else p).nbytes for p in weights), []
    for _ in range(2 + (world > 1)):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            trainer.step(rollouts)
        events = [(e.start_ns(), e.nbytes()) for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
        peaks.append(current)
        for _, change in sorted(events):
            current += change
            peaks[-1] = max(peaks[-1], current)
    return min(peaks[1:]), sum(training_memory(config, cfg, 1536, world, torch.float32, world > 1).values())


@pytest.mark.slow
@pytest.mark.parametrize("world, checkpointing, reshard", [(1, False, True), (1, True, True), (2, False, True), (2, True, True),
                                                           (2, True, False)])
def test_memory_is_within_a_tenth_of_the_allocators_peak(world, checkpointing, reshard):
    for peak, planned in run_processes(world, peak_and_plan, checkpointing, reshard):
        assert abs(planned / peak - 1) < 0.1, (peak, planned)


def test_the_paper_on_one_card():
    """4.02 billion weights: 16 bytes each for the training and 2 for the sampler; 147,456 bytes of cache a token."""
    parts = memory(PRESETS["paper"], QWEN3_4B, H200)
    assert parts["AdamW moments"] == 2 * parts["fp32 weights"] == 8 * QWEN3_4B.parameters()
    assert parts["key/value pages"] == 32e9 > 200 * 1000 * 147_456
    assert sum(parts.values()) < 141e9
    tokens, sampling, updates = iteration_hours(PRESETS["paper"], QWEN3_4B, H200, 32e9)
    assert 140e6 < tokens < 160e6 and 1 < sampling < 3 and 0.1 < updates < 1


def test_what_does_not_fit_is_told_what_would():
    """80 GB (a card of 84 x 10^9 bytes): with the reference on the host it fits; in 24 GB never, and 8 of 48 GB do."""
    paper = PRESETS["paper"]
    for gb, devices in ((84.0, 1), (48.0, 8)):
        machine = replace(H200, gb=gb)
        change = fitting(paper, QWEN3_4B, machine)
        assert change.get("devices", 1) <= devices
        settings = {k: v for k, v in change.items() if k != "devices"}
        parts = memory(replace(paper, **settings), QWEN3_4B, replace(machine, devices=change.get("devices", 1)))
        assert sum(parts.values()) <= gb * 1e9
    assert fitting(paper, QWEN3_4B, replace(H200, gb=8.0)) is None


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
