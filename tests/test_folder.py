"""The run folder: what it claims, what it appends, and what it forgets of an interrupted try."""

import importlib.util
import json
import os
import shutil
import sys
from collections import namedtuple
from dataclasses import replace
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_runs import flip
from test_rzero import small

import folder as folder_module
from common import comments_of, read_json, read_lines
from folder import RunFolder, checkpoints_kept, claim, columns, disk_needed
from run import MAY_CHANGE, Run
from rzero import PRESETS, Config, evolve


def rows(*steps):
    return [{"iteration": i, "phase": phase, "step": step} for i, phase, step in steps]


def test_metrics_are_appended_and_an_interrupted_phase_is_rewound(tmp_path):
    folder = RunFolder(tmp_path)
    before = rows((1, "challenger", 1), (1, "challenger", 2), (1, "solver", 1), (1, "solver", 2), (1, "solver", 3))
    for row in before:
        folder.log(row)
    assert read_lines(folder.metrics) == before
    folder.rewind("solver", 1, 3)
    assert read_lines(folder.metrics) == before
    folder.rewind("solver", 1, 1)
    assert read_lines(folder.metrics) == before[:3]
    folder.log(before[3])
    assert read_lines(folder.metrics) == before[:4]


def test_a_line_that_was_cut_off_is_removed(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    folder = RunFolder(tmp_path)
    folder.log({"step": 2})
    assert read_lines(folder.metrics) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("half", ['{"st', "\udcff", '{"a": "\udcc3', "", "\udce2\udc82"])
def test_half_a_line_of_any_bytes_is_removed_from_both_files(tmp_path, half):
    for name in ("metrics.jsonl", "eval.jsonl"):
        (tmp_path / name).write_bytes(b'{"step": 1}\n' + half.encode(errors="surrogateescape"))
    folder = RunFolder(tmp_path)
    for file in (folder.metrics, folder.evals):
        assert file.read_bytes() == b'{"step": 1}\n'
    folder.metrics.write_bytes(half.encode(errors="surrogateescape"))  # of the first line
    assert read_lines(RunFolder(tmp_path).metrics) == []


def test_a_claim_names_the_settings_that_differ(tmp_path):
    claim(tmp_path / "run", {"seed": 0, "rows": 1})
    claim(tmp_path / "run", {"seed": 0, "rows": 2}, free=("rows",))
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"seed": 0, "rows": 2}
    with pytest.raises(ValueError, match=r"holds a run with other settings \(seed: 0 there, 1 here\); choose another --out"):
        claim(tmp_path / "run", {"seed": 1, "rows": 2}, free=("rows",))
    claim(tmp_path / "more", {"seed": 0, "lr": 2e-4, "rows": 1, "task": "sums"})
    with pytest.raises(ValueError, match=r"\(seed: 0 there, 1 here; lr: 0.0002 there, 0.001 here; new: None there, 'x\\ny' here\); "
                                         "choose another --out$"):
        claim(tmp_path / "more", {"seed": 1, "lr": 1e-3, "rows": 2, "task": "sums", "new": "x\ny"}, free=("rows",))
    assert json.loads((tmp_path / "more" / "config.json").read_text())["seed"] == 0


def test_what_changes_only_speed_and_memory_may_change():
    """And what makes a run longer, or changes what is kept on the disk, its place or its logger."""
    speed = {name for name, comment in comments_of(Config).items() if "speed and memory only" in comment}
    assert speed and {*MAY_CHANGE} == speed | {"iterations", "out", "dry_run", "log", "checkpoint_every", "role_dtype"}


def test_the_disk_decides_how_many_checkpoints_are_kept(tmp_path, monkeypatch, capsys):
    """4 billion weights: 3 iterations are 6 folders of 16 GB and 1.6 GB of questions, a checkpoint is 48 GB, and one
    more must fit while it is written. In bf16 four of the folders have 8 GB, and what is rewritten stands beside."""
    paper = PRESETS["paper"]
    needed, checkpoint = disk_needed(paper, 4e9)
    assert (round(needed / 1e9, 1), checkpoint) == (97.6, 48e9)
    assert round(disk_needed(replace(paper, role_dtype="bf16"), 4e9)[0] / 1e9, 1) == 2 * 16 + 4 * 8 + 16 + 1.6
    (tmp_path / "iter1").mkdir()
    (tmp_path / "iter1" / "half").write_bytes(bytes(1000))
    for free, keep in ((97.7, 0), (97.6 + 95, 0), (97.6 + 97, 1), (97.6 + 143, 1), (97.6 + 145, 2), (1000, 2)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: namedtuple("usage", "free")(free * 1e9))
        assert checkpoints_kept(paper, 4e9, tmp_path) == keep
        says = capsys.readouterr().out
        assert f"{keep or 'no'} checkpoints" in says and says.count("\n") == 1
    assert checkpoints_kept(replace(paper, checkpoint_every=0), 4e9, tmp_path) == 0
    missing = needed - 1001  # with the 1,000 bytes that are there: one too few
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("usage", "free")(missing))
    with pytest.raises(OSError, match=r"will hold about 97.6 GB of weights and questions; its disk has room for 97.6"):
        checkpoints_kept(paper, 4e9, tmp_path)
    missing += 1
    checkpoints_kept(paper, 4e9, tmp_path)


def test_a_run_without_room_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("usage", "free")(1e6))
    with pytest.raises(OSError, match="will hold about 0.00[0-9]* GB of weights and questions"):
        Run(small(tmp_path / "run", heldout=""))


def test_what_a_logger_gets(tmp_path):
    """The numbers of each row under the name of its phase, whose steps are counted over the iterations, and anew where an
    interrupted try was rewound."""
    folder, got = RunFolder(tmp_path), []
    folder.logger = lambda numbers, step: got.append((numbers, step))
    folder.log({"iteration": 0, "mean": 0.5, "dropped": {"too easy": 0.1}, "new": None})
    for row in rows((1, "solver", 1), (1, "solver", 2), (2, "challenger", 1), (2, "solver", 1), (2, "solver", 2)):
        folder.log(row | {"reward": np.float64(row["step"]), "share_counts": [1, 2]})
    assert got == [({"eval/mean": 0.5}, 0), ({"solver/reward": 1}, 1), ({"solver/reward": 2}, 2), ({"challenger/reward": 1}, 1),
                   ({"solver/reward": 1}, 3), ({"solver/reward": 2}, 4)]
    folder.rewind("solver", 2, 1)
    folder.log({"iteration": 2, "phase": "solver", "step": 2, "reward": 7})
    assert got[-1] == ({"solver/reward": 7}, 4)


@pytest.mark.parametrize("found", [None, ModuleSpec("wandb", None)])  # nothing, or a mere folder of that name
def test_a_logger_that_is_not_installed_is_refused_before_any_work(tmp_path, monkeypatch, found):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(ValueError, match="^--log wandb needs the package wandb: pip install wandb$"):
        Run(small(tmp_path / "run", log="wandb"))
    assert not (tmp_path / "run").exists()


WANDB = """
class Error(Exception):
    pass
class Run:
    def define_metric(self, name, step_metric):
        steps.append((name, step_metric))
    def log(self, row):
        logged.append(row)
def init(**settings):
    if settings["project"] == refused:
        raise Error("no key")
    begun.append(settings)
    return Run()
steps, logged, begun, refused = [], [], [], None
"""


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_its_wandb_run(tmp_path, monkeypatch):
    """The numbers of the files, under one id, whichever process made them."""
    (tmp_path / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    cfg = small(tmp_path / "run", heldout="", challenger_steps=0, solver_steps=1, log="wandb")
    evolve(Run(cfg))
    import wandb  # the stub
    assert ("solver/*", "solver/step") in wandb.steps
    evolve(Run(replace(cfg, iterations=2)))
    first, second = wandb.begun
    assert first["id"] == second["id"] == (tmp_path / "run" / "wandb.id").read_text() and first["resume"] == "allow"
    assert (first["config"]["iterations"], second["config"]["iterations"], first["dir"]) == (1, 2, tmp_path / "run")
    solver = [row for row in wandb.logged if "solver/loss" in row]
    metrics = [row for row in read_lines(tmp_path / "run" / "metrics.jsonl") if row["phase"] == "solver"]
    assert [row["solver/step"] for row in solver] == [1, 2] and [row["iteration"] for row in metrics] == [1, 2]
    for theirs, ours in zip(solver, metrics, strict=True):
        assert theirs["solver/loss"] == ours["loss"] and theirs["solver/reward"] == ours["reward"]
    pools = [(row["eval/step"], row["eval/kept"]) for row in wandb.logged if "eval/kept" in row]
    assert pools == [(row["iteration"], row["kept"]) for row in read_lines(tmp_path / "run" / "eval.jsonl")[1:]]
    wandb.refused = "r-zero"
    with pytest.raises(ValueError, match="^--log wandb: no key$"):
        Run(cfg)


def test_tensorboard_has_what_is_logged(tmp_path, monkeypatch):
    written = []
    writer = SimpleNamespace(add_scalar=lambda *number: written.append(number), flush=lambda: written.append("flushed"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard",
                        SimpleNamespace(SummaryWriter=lambda path: written.append(path) or writer))
    folder = RunFolder(tmp_path)
    folder.open_logger("tensorboard", {})
    folder.log({"iteration": 1, "phase": "solver", "step": 1, "loss": 0.5, "reward": 1.0})
    assert written == [tmp_path / "tensorboard", ("solver/loss", 0.5, 1), ("solver/reward", 1.0, 1), "flushed"]


@pytest.mark.slow
def test_older_role_folders_become_bf16_and_a_killed_rewriting_goes_on(tmp_path, monkeypatch):
    """The run goes on for an iteration: each role's first folder is rewritten once its second is there, which stays fp32."""
    cfg = small(tmp_path / "run", heldout="", challenger_steps=0, solver_steps=1, role_dtype="bf16")
    evolve(Run(cfg))
    folders = {(role, i): tmp_path / "run" / f"iter{i}" / role for role in ("challenger", "solver") for i in (1, 2)}
    before = {role: load_file(folders[role, 1] / "model.safetensors") for role in ("challenger", "solver")}
    assert {tensor.dtype for tensors in before.values() for tensor in tensors.values()} == {torch.float32}
    real = os.replace

    def killed(source, target):
        if str(target).endswith("solver/model.safetensors"):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(folder_module.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        evolve(Run(replace(cfg, iterations=2)))
    monkeypatch.undo()
    assert all(tensor.equal(load_file(folders["solver", 1] / "model.safetensors")[name])
               for name, tensor in before["solver"].items())
    evolve(Run(replace(cfg, iterations=2)))  # finds both folders of the second iteration; a third would rewrite it
    RunFolder(tmp_path / "run").shrink("solver", 2)
    for role, tensors in before.items():
        for i, dtype in ((1, torch.bfloat16), (2, torch.float32)):
            got = load_file(folders[role, i] / "model.safetensors")
            assert {tensor.dtype for tensor in got.values()} == {dtype}
            assert read_json(folders[role, i] / "config.json")["dtype"] == str(dtype).removeprefix("torch.")
            assert i == 2 or all(tensor.bfloat16().equal(got[name]) for name, tensor in tensors.items())
    assert Config().role_dtype == "fp32"


def test_damaged_weights_are_not_rewritten_as_if_they_were_whole(tmp_path, capsys):
    cfg = small(tmp_path / "run", heldout="", challenger_steps=0, solver_steps=0)
    evolve(Run(cfg))
    file = tmp_path / "run" / "iter1" / "solver" / "model.safetensors"
    flip(file)
    data = file.read_bytes()
    RunFolder(tmp_path / "run").shrink("solver", 2)
    assert file.read_bytes() == data and f"{file} is damaged" in capsys.readouterr().out


def test_nothing_is_removed_from_a_folder_that_is_refused(tmp_path):
    """Nor from another run below it."""
    (tmp_path / "config.json").write_text(json.dumps({"seed": 99}))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}')  # without the end of its line
    (tmp_path / "other" / "iter1" / "solver.partial").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds a run with other settings"):
        Run(small(tmp_path, heldout=""))
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}'
    RunFolder(tmp_path)
    assert (tmp_path / "other" / "iter1" / "solver.partial").exists()


def test_columns():
    assert columns([["a", "long"], ["bcd", "x"]]) == "a     long\nbcd      x"
