"""What the README says can be done is done: each of its diffs is applied to a copy of the repository and run."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from rzero import PRESETS, Config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DIFFS = dict(re.findall(r"```diff\n--- [^\n]*\n\+\+\+ b/([^\n]*)\n(.*?)```", README, re.DOTALL))
SMALL = ["--iterations", "1", "--challenger_steps", "1", "--challenger_prompts", "4", "--solver_steps", "1",
         "--solver_prompts", "4", "--answers", "4", "--pool", "24", "--heldout_samples", "1"]


def patched(folder, *files):
    """A copy of the repository in `folder`, with the README's diffs of these files applied."""
    for name in [*(p.name for p in ROOT.glob("*.py")), "answers", "kernels", "tasks", "tiny", "page.html"]:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    for file in files:
        source = "/dev/null" if "@@ -0,0" in DIFFS[file] else f"a/{file}"
        subprocess.run(["git", "apply", "-"], cwd=folder, check=True, text=True,
                       input=f"--- {source}\n+++ b/{file}\n{DIFFS[file]}")
    return folder


def python(folder, *arguments):
    """What a Python program in that folder prints."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=folder, env=environment, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def small_run(folder, *settings):
    held_out = (ROOT / "tiny" / "heldout.jsonl").read_text().splitlines()[::60]
    (folder / "heldout.jsonl").write_text("\n".join(held_out))
    python(folder, "rzero.py", "--out", "runs/x", "--heldout", "heldout.jsonl", *SMALL, *settings)
    return (folder / "runs" / "x" / "metrics.jsonl").read_text().splitlines()


def test_there_are_five_short_diffs():
    assert list(DIFFS) == ["rzero.py", "physics.py", "grpo.py", "folder.py", "model.py"]
    assert all(diff.count("\n") < 20 for diff in DIFFS.values())


@pytest.mark.slow
def test_another_reward(tmp_path):
    says = python(patched(tmp_path, "rzero.py"), "-c", "from rzero import *; from tasks import Math\n"
                  "print(challenger_rewards(['a b c', 'd e f'], [0.5, 0.8], Math(), Config(penalty_weight=0))[0])")
    assert says == "[1.   0.64]\n"


@pytest.mark.slow
def test_another_domain(tmp_path):
    rows = [json.loads(line) for line in small_run(patched(tmp_path, "physics.py"), "--task", "physics.py:Physics")]
    assert [row["phase"] for row in rows] == ["held-out", "challenger", "questions", "solver", "held-out"]


@pytest.mark.slow
def test_another_loss(tmp_path):
    """CISPO's gradient at ratio 1 is that of the plain surrogate."""
    says = python(patched(tmp_path, "grpo.py"), "-c", "import torch; from grpo import *\n"
                  "x = torch.full((1, 2), -1.0, requires_grad=True)\n"
                  "loss, _ = grpo_loss(x, x.detach(), x.detach(), torch.tensor([3.0]), torch.ones(1, 2), GRPOConfig())\n"
                  "loss.backward(); print(loss.item(), x.grad.tolist())")
    assert says == "3.0 [[-1.5, -1.5]]\n"


@pytest.mark.slow
def test_another_logger_and_the_losses_by_flag(tmp_path):
    patched(tmp_path, "folder.py")
    (tmp_path / "mlflow.py").write_text("import json\ndef log_metrics(metrics, step=None):\n"
                                        "    print(json.dumps([step, metrics]), file=open('logged', 'a'))\n")
    rows = small_run(tmp_path, "--normalise_std", "false", "--ratio", "sequence", "--average", "sequence")
    logged = [json.loads(line) for line in (tmp_path / "logged").read_text().splitlines()]
    assert [(step, next(iter(row)).split("/")[0]) for step, row in logged] == [
        (1, "held-out"), (0, "eval"), (1, "challenger"), (1, "questions"), (1, "solver"), (2, "held-out"), (1, "eval")]
    assert 0 <= logged[1][1]["eval/mean"] <= 1
    metrics = [json.loads(line) for line in rows]
    assert len(metrics) == 5 and metrics[3]["phase"] == "solver"
    assert logged[4][1]["solver/reward"] == metrics[3]["reward"] and logged[4][1]["solver/loss"] == metrics[3]["loss"]


@pytest.mark.slow
def test_another_model_family(tmp_path):
    patched(tmp_path, "model.py")
    says = python(tmp_path, "-c", """
import torch, transformers, model
torch.manual_seed(0)
theirs = transformers.MistralForCausalLM(transformers.MistralConfig(
    vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
    intermediate_size=48, sliding_window=None))
theirs.save_pretrained("m")
ours, tokens = model.load("m"), torch.randint(60, (2, 30))
print((ours.logits(ours(tokens)) - theirs(tokens).logits).abs().max().item() < 1e-4)
""")
    assert says == "True\n"


def test_the_table_of_presets_names_settings_and_its_sizes_are_the_presets():
    table = README[README.index("| setting |"):].split("\n\n")[0].splitlines()
    names = {name for row in table[2:] for name in re.findall(r"`(\w+)`", row)}
    assert names - {"paper", "answer", "rows"} <= {f.name for f in fields(Config)}
    for column, name in enumerate(("paper", "official", "small", "tiny"), 2):
        cfg = PRESETS[name]
        cells = [row.split("|")[column].strip() for row in table[4:6]]
        sizes = [(cfg.challenger_steps, cfg.challenger_prompts * cfg.challenger_rollouts, cfg.challenger_mini_batches),
                 (cfg.solver_steps, cfg.solver_prompts * cfg.solver_rollouts, cfg.solver_mini_batches)]
        for cell, (steps, rows, mini_batches) in zip(cells, sizes):
            assert cell.startswith(f"{steps} x {rows:,}; {steps * mini_batches}")


def test_the_readme_is_short():
    assert README.count("\n") <= 285


def test_the_files_are_short_and_there_are_not_too_many_lines():
    """The house stays readable in an evening."""
    lines = {p: p.read_text().count("\n") for p in ROOT.glob("**/*.py")
             if not {"tests", "tiny", "runs"} & {*p.relative_to(ROOT).parts} and not p.relative_to(ROOT).parts[0].startswith(".")}
    assert max(lines.values()) <= 450 and lines[ROOT / "rzero.py"] <= 420 and sum(lines.values()) <= 7150
