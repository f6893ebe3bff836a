"""What `python model.py` and `python grpo.py` print is true: of real tensors, and of what `grpo_loss` makes of the numbers."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import bench_sample
import pytest
import torch

from batches import example, pad
from grpo import GRPOConfig, Trainer, grpo_loss
from model import ModelConfig, Transformer, describe, main

ROOT = Path(__file__).parents[1]
SHAPE = dict(vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             intermediate_size=48, head_dim=24)
LLAMA3 = dict(rope_type="llama3", rope_theta=500_000.0, factor=32.0, high_freq_factor=4.0, low_freq_factor=1.0,
              original_max_position_embeddings=64)
CONFIGS = {
    "qwen3, tied": dict(model_type="qwen3", tie_word_embeddings=True),
    "qwen3, untied": dict(model_type="qwen3", num_key_value_heads=4),
    "qwen3, one key head": dict(model_type="qwen3", num_key_value_heads=1, num_hidden_layers=1),
    "qwen2": dict(model_type="qwen2"),
    "qwen2, tied": dict(model_type="qwen2", tie_word_embeddings=True, num_hidden_layers=12),
    "llama 3.2": dict(model_type="llama", tie_word_embeddings=True, rope_parameters=LLAMA3),
    "llama": dict(model_type="llama"),
}
ROW = re.compile(r"^( *).*?(\S+\.(?:weight|bias)) +\[([^]]*)\]( +L x)? +([\d,]+)$", re.MULTILINE)


def number(text):
    return int(text.replace(",", ""))


def run(*arguments):
    """(exit code, stdout, stderr) of a command of the repository."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True,
                          text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def shown(text):
    """({tensor: (shape, weights)} of a description, a block's tensors being those of block 0; {letter: size})."""
    sizes = {letter: number(n) for letter, n in re.findall(r"\b([A-Z]) = ([\d,]+)", text)}
    rows = {}
    for indent, name, letters, times_L, weights in re.findall(ROW, text):
        assert bool(indent) == bool(times_L) and name not in rows
        rows["layers.0." * bool(indent) + name] = (
            [math.prod(sizes[letter] for letter in part) for part in letters.split(", ")], number(weights))
    return rows, sizes


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_tensor_is_described_once_in_its_shape_and_the_totals_add_up(kind):
    config = ModelConfig.from_dict(SHAPE | CONFIGS[kind])
    text, real = describe(config), dict(Transformer(config).named_parameters())
    rows, sizes = shown(text)
    assert {name: (list(p.shape), p.numel()) for name, p in real.items() if not re.match(r"layers\.[1-9]", name)} == rows
    total, blocks = map(number, re.search(r"([\d,]+) weights, ([\d,]+) of them in the blocks", text).groups())
    assert total == config.parameters() == sum(p.numel() for p in real.values())
    assert blocks == sum(p.numel() for name, p in real.items() if name.startswith("layers"))
    assert total == sum(n * (sizes["L"] if name.startswith("layers") else 1) for name, (_, n) in rows.items())
    assert sizes == dict(L=config.layers, D=32, F=48, V=61, H=4, K=config.kv_heads, C=24)
    assert ("tied to the embedding" in text) == config.tied


def test_the_description_is_in_the_order_of_the_forward_pass():
    """Hooks say in which order the modules of a block and of the model are used."""
    config, order = ModelConfig.from_dict(SHAPE | CONFIGS["qwen3, untied"]), []
    model = Transformer(config)
    for name, module in model.named_modules():
        if list(module.parameters(recurse=False)):
            module.register_forward_hook(lambda *_, name=name: order.append(f"{name}.weight"))
    model.logits(model(torch.zeros(1, 3, dtype=torch.long)))
    described = [name for name in shown(describe(config))[0] if name != "lm_head.weight"]
    assert described == [name for name in order if not name.startswith("layers.1")]


def test_a_folder_with_only_a_config_of_4b_is_described(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(bench_sample.QWEN3_4B))
    code, text, error = run("model.py", tmp_path)
    rows, sizes = shown(text)
    assert (code, error) == (0, "") and sizes == dict(L=36, D=2560, F=9728, V=151_936, H=32, K=8, C=128)
    assert round(number(re.search(r"([\d,]+) weights,", text)[1]) / 1e9, 2) == 4.02
    assert "16,089.9 MB in fp32, 8,044.9 in bf16" in text and text.endswith(" in bf16 147,456 bytes\n")


def test_wrong_use_of_model_py_is_said_in_one_line(tmp_path, monkeypatch):
    """sys.exit prints a text and exits with 1."""
    (tmp_path / "config.json").write_text(json.dumps(SHAPE | {"model_type": "gpt2"}))
    for arguments, says in (([], "usage: python model.py MODEL "), (["tiny", "tiny"], "usage: python model.py MODEL "),
                            (["nowhere"], "model.py: no model folder 'nowhere'"),
                            ([str(ROOT / "tests")], f"model.py: {ROOT / 'tests'} has no config.json"),
                            ([str(tmp_path)], "model.py: model_type 'gpt2' is not supported")):
        monkeypatch.setattr(sys, "argv", ["model.py", *arguments])
        with pytest.raises(SystemExit) as exit:
            main()
        assert exit.value.code.startswith(says) and "\n" not in exit.value.code


@pytest.fixture(scope="module")
def lesson():
    """What `python grpo.py` prints -> (its text, then of each of its three tables the rows, as lists of cells)."""
    code, text, error = run("grpo.py")
    assert (code, error) == (0, "") and text.count("\n") <= 45 and max(map(len, text.splitlines())) <= 120
    tables, rows = [], None
    for line in text.splitlines():
        if line.split()[:1] == ["row"]:
            tables.append(rows := [])
        elif rows is not None and re.match(r" +\d+ ", line):
            rows.append(re.findall(r"\[.*?\]|\S+", line))
    return text, *tables


def test_the_lessons_advantages_are_those_by_hand(lesson):
    text, group, tokens, _ = lesson
    rewards = [float(reward) for _, _, reward, _ in group]
    mean = sum(rewards) / 3
    std = math.sqrt(sum((r - mean)**2 for r in rewards) / 2)
    assert f"mean {mean:.4f}, std {std:.4f}" in text
    assert [float(A) for *_, A in group] == pytest.approx([(r - mean) / std for r in rewards], abs=1e-4)
    completions = [json.loads(completion) for _, completion, *_ in group]
    assert [token for row in completions for token in row] == [int(token) for _, token, *_ in tokens]


def test_the_lessons_loss_and_gradient_are_those_of_grpo_loss_for_the_printed_numbers(lesson):
    """All rows of the table as one of the loss's rows each: with one denominator that is the same."""
    text, group, tokens, _ = lesson
    logprob, old, ratio, cut, surrogate, ref, kl, weight, gradient = torch.tensor(
        [[float(x) for x in row[2:11]] for row in tokens], dtype=torch.float64).T[:, :, None]
    advantages = torch.tensor([float(group[int(row[0])][3]) for row in tokens], dtype=torch.float64)
    cfg = GRPOConfig(kl_coef=float(re.search(r"surrogate - (\S+) k3", text)[1]))
    loss, metrics = grpo_loss(logprob.requires_grad_(), old, ref, advantages, torch.ones_like(logprob), cfg)
    loss.backward()
    by_hand, by_function = map(float, re.search(r"k3\): (\S+); grpo_loss: (\S+)$", text, re.MULTILINE).groups())
    assert by_hand == by_function == float(re.search(r"Trainer.step: loss (\S+);", text)[1])
    assert loss.item() == pytest.approx(by_function, abs=2e-4) and abs(by_function) > 0.01
    assert -((surrogate - cfg.kl_coef * kl) * weight).sum().item() == pytest.approx(by_function, abs=2e-4)
    assert weight.unique().tolist() == [1 / 8] and torch.allclose(logprob.grad, gradient, atol=2e-4)
    assert [row[11] for row in tokens] == ["up" if g < 0 else "down" for g in logprob.grad]
    # One token is clipped, and another has a ratio as large without being clipped.
    assert metrics["clip_high"].item() == 1 / 8 and metrics["clip_low"].item() == 0
    outside = [(row[:2], (s < r * A - 1e-3).item())
               for row, c, r, s, A in zip(tokens, cut, ratio, surrogate, advantages) if c != r]
    assert outside == [(["0", "3"], True), (["2", "6"], False)]
    assert "Row 0's token 3 is clipped" in text and "Row 2's 6 is not" in text


def test_the_lessons_update_raises_the_rewarded_row_and_lowers_the_others(lesson):
    _, group, _, updates = lesson
    policy, reference, rows = example()
    for row, (*_, A) in zip(rows, group):
        row.advantage = float(A)
    trainer = Trainer(policy, GRPOConfig(kl_coef=0.1, old_logprobs="sampler"), lr=0.01)
    batch = pad(rows, "cpu")
    before = trainer.logprobs(trainer.policy, batch)[0].sum(1).tolist()
    trainer.step(rows, reference)
    after = trainer.logprobs(trainer.policy, batch)[0].sum(1).tolist()
    for (_, x, y, goes), rewarded, b, a in zip(updates, (True, False, False), before, after, strict=True):
        assert (float(x), float(y)) == (pytest.approx(b, abs=1e-3), pytest.approx(a, abs=1e-3))
        assert (float(y) > float(x)) == rewarded and goes == ("up" if rewarded else "down")
