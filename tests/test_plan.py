"""The plan: its memory against what torch's allocator says, its arithmetic by hand, and what it says when a run cannot fit."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import bench_sample
import numpy as np
import plan_table
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
    parse_machine,
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


def update_peak(config, cfg, rollouts, world=1):
    """The peak of a step after the first, and what the plan says. It is the least of two steps where processes wait for
    one another, and keep gathered weights longer now and then."""
    trainer = Trainer(Transformer(config), cfg, lr=1e-6)
    trainer.step(rollouts)
    held = sum(storage.nbytes() for storage in trainer._storages())
    peaks = [peak(held, trainer.step, rollouts) for _ in range(world)]
    update = update_memory(config, cfg, cfg.token_budget, world, torch.float32, world > 1)
    return min(peaks), sum((state_memory(config, world) | update).values())


def update_peaks(rank, world, settings):
    """`update_peak` for each (activation_checkpointing, reshard), in two micro-batches of 16 + 4 x 128 a process."""
    config, rollouts = ModelConfig.from_dict(SHAPE), [Rollout([1] * 17, [2] * 127, 1.0)] * 8 * world
    cfg = GRPOConfig(token_budget=528, kl_coef=0.0)
    return [update_peak(config, replace(cfg, activation_checkpointing=checkpointing, reshard=reshard), rollouts, world)
            for checkpointing, reshard in settings]


@pytest.mark.slow
def test_the_memory_of_an_update_is_within_a_tenth_of_the_allocators_peak():
    one, two = [(False, True), (True, True)], [(False, True), (True, True), (True, False)]
    for measured, planned in sum(run_processes(2, update_peaks, two), update_peaks(0, 1, one)):
        assert abs(planned / measured - 1) < 0.1, (measured, planned)


@pytest.mark.slow
def test_the_memory_of_keys_and_values_of_a_long_common_prefix():
    """As many key/value heads as heads, and little else: whole rows' keys and values are a sixth of what a block keeps.
    Both bounds of a micro-batch give 8 rows: 129 + 8 x 95 tokens, of 896, and 8 x 224 in whole rows, of twice 896."""
    config = ModelConfig.from_dict(SHAPE | dict(num_key_value_heads=4, intermediate_size=256, num_hidden_layers=6,
                                                vocab_size=1000))
    cfg = GRPOConfig(token_budget=896, kl_coef=0.0)
    measured, planned = update_peak(config, cfg, [Rollout([1] * 129, [2] * 95, 1.0)] * 16)
    assert abs(planned / measured - 1) < 0.04, (measured, planned)


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


def test_the_hours_of_the_paper_by_hand():
    """10,240 proposals and 38,400 answers in steps, 8,000 proposals in the pool, 10 votes on each proposal; all of
    1,228.8 tokens."""
    paper, weights = PRESETS["paper"], 4_022_468_096
    tokens, steps, pool, updates = iteration_hours(paper, QWEN3_4B, H200)
    assert np.isclose(tokens, (10_240 * 11 + 38_400 + 8000 * 11) * 1228.8)
    # A step of sampling reads the weights, and the pages of 512 rows at half of their length.
    rate = 512 * 4.3e12 / (2 * weights + 512 * 814.4 * 147_456)
    assert np.allclose([steps, pool], [151_040 * 1228.8 / rate / 3600, 88_000 * 1228.8 / rate / 3600])
    # Multiply-adds: 3.633 billion a token in the blocks, 389 million in the head, 294,912 a pair of query and key.
    question = (3_633_315_840 + 388_956_160) * 1228.8 + 294_912 * 1228.8 * 814.4
    answer = 3_633_315_840 * 1428.8 + 388_956_160 * 1228.8 + 294_912 * 1428.8**2 / 2
    # Forward, backward (two), the reference, the policy as the step began, and all blocks again.
    assert np.isclose(updates, 6 * 2 * (10_240 * question + 38_400 * answer) / 790e12 / 3600)
    one_update = replace(paper, challenger_mini_batches=1, activation_checkpointing=False)  # 4 and 5 passes
    assert np.isclose(iteration_hours(one_update, QWEN3_4B, H200)[3],
                      2 * (4 * 10_240 * question + 5 * 38_400 * answer) / 790e12 / 3600)
    labelled = replace(paper, train_file="labelled.jsonl")
    tokens, _, pool, alone = iteration_hours(labelled, QWEN3_4B, H200)
    assert np.isclose(tokens, 38_400 * 1228.8) and pool == 0
    assert np.isclose(alone, 6 * 2 * 38_400 * answer / 790e12 / 3600)
    # To the host and back: 12 bytes a weight each way a step, or 16 a micro-batch of 16,384 tokens.
    for offload, cfg, hours, moved in (
            ("sampling", paper, updates, 24 * 20), ("true", paper, updates, 16 * (768 + 3348.75)),
            ("sampling", labelled, alone, 24 * 15), ("true", labelled, alone, 16 * 3348.75)):
        more = iteration_hours(replace(cfg, offload=offload), QWEN3_4B, H200)[3] - hours
        assert np.isclose(more, moved * weights / 0.025e12 / 3600)


@pytest.mark.parametrize("name, offload, hours", [("0.6B", "false", 5.4), ("1.7B", "true", 8.7)])
def test_the_preset_small_is_a_night_on_a_card_of_24_gb(name, offload, hours):
    """An RTX 4090: 0.6 billion weights as it is, 1.7 with the training state on the host; three iterations at a third
    of the card's peaks."""
    shape, (_, gb, tflops, tb_s) = plan_table.config(*plan_table.SHAPES[name]), plan_table.CARDS[24]
    card = Machine(1, gb, torch.bfloat16, tflops / 3, tb_s / 3)
    small = PRESETS["small"]
    assert fits(small, shape, card) == (offload == "false")
    small = replace(small, offload=offload)
    assert fits(small, shape, card)
    assert abs(3 * sum(iteration_hours(small, shape, card)[1:]) - hours) < 0.05


def qwen3(name):
    return plan_table.config(*plan_table.SHAPES[name]).raw | dict(max_position_embeddings=32_768, rms_norm_eps=1e-6)


def llama3(width, layers, heads, ffn, tied, factor):
    """The config.json of a Llama 3.1 or 3.2, from which OctoThinker was trained."""
    return dict(model_type="llama", vocab_size=128_256, hidden_size=width, num_hidden_layers=layers,
                num_attention_heads=heads, num_key_value_heads=8, head_dim=128, intermediate_size=ffn,
                tie_word_embeddings=tied, max_position_embeddings=131_072, rms_norm_eps=1e-5, rope_theta=5e5,
                rope_scaling=dict(rope_type="llama3", factor=factor, low_freq_factor=1.0, high_freq_factor=4.0,
                                  original_max_position_embeddings=8192))


@pytest.mark.parametrize("config_json, weights", [
    pytest.param(qwen3("0.6B"), 596_049_920, id="Qwen3-0.6B"),
    pytest.param(qwen3("1.7B"), 1_720_574_976, id="Qwen3-1.7B"),
    pytest.param(qwen3("4B"), 4_022_468_096, id="Qwen3-4B"),
    pytest.param(qwen3("8B"), 8_190_735_360, id="Qwen3-8B"),
    pytest.param(llama3(3072, 28, 24, 8192, True, 32.0), 3_212_749_824, id="OctoThinker-3B"),
    pytest.param(llama3(4096, 32, 32, 14_336, False, 8.0), 8_030_261_248, id="OctoThinker-8B")])
def test_the_models_of_the_paper_are_planned_from_config_json(tmp_path, monkeypatch, capsys, config_json, weights):
    (tmp_path / "config.json").write_text(json.dumps(config_json))
    assert read_config(tmp_path).parameters() == weights
    for preset in ("paper", "official"):
        monkeypatch.setattr(sys, "argv", [
            "plan.py", "--preset", preset, "--model", str(tmp_path), "--out", str(tmp_path / "run"),
            *"--devices 8 --device_gb 141 --tflops 790 --tb_s 4.3".split()])
        main()
        assert "An iteration draws" in capsys.readouterr().out


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
    here = replace(H200, tflops=None, tb_s=None, here=True)
    tokens, sampling, pool, updates = iteration_hours(paper, QWEN3_4B, here)
    in_steps = 10_240 * 10_400 + 38_400 * 1000
    assert tokens == in_steps + 8000 * 10_400
    assert np.allclose([sampling, pool], [in_steps / 1e4 / 3600, 8000 * 10_400 / 1e4 / 3600])
    forward = (10_240 * QWEN3_4B.forward_flops(400, 400 * 400, 400)
               + 38_400 * QWEN3_4B.forward_flops(1200, 1200**2 / 2, 1000))
    assert np.isclose(updates, 5 * forward / 2.5e14 / 3600)
    # On another machine its lengths hold, not its rates; of twice as many devices each has its own.
    one, two = (iteration_hours(paper, QWEN3_4B, replace(H200, devices=devices)) for devices in (1, 2))
    assert one[0] == two[0] == tokens and np.isclose(one[3], 6 * forward / 790e12 / 3600)
    assert np.isclose(two[3], one[3] / 2) and two[1] < one[1] < sampling / 2
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
    out, err = run("--devices", "2", "--device_gb", "0.001")
    assert err.startswith("plan.py: the run needs ") and err.count("\n") == 1 and "give --tflops" in out
    assert err.endswith("no number of such devices up to 256 makes room for the sampler's weights\n")  # 128 x --devices
    assert run("--devices", "0")[1] == "plan.py: --devices, --device_gb, --tflops and --tb_s must be above 0\n"
    assert "did you mean --token_budget?" in run("--token_budgets", "1")[1]
    assert read_config(ROOT / "tiny").parameters() == 387_648
    rates = "--tflops", "1", "--tb_s", "1"
    assert parse_machine(rates)[0].here
    assert not any(parse_machine((*rates, *more))[0].here for more in (("--devices", "1"), ("--device_gb", "24")))
