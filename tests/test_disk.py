"""A disk that fills up, turns read-only or vanishes while a run or an evaluation writes: one line says what could not be
written, nothing half-written stays, and with room again the same command ends as if nothing had been."""

import mmap
import os
import re
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from small_runs import timeless
from test_rzero import ROOT, lines, small

import checkpoint
import common
import evaluate
import folder as folder_module
import model
import run as plumbing
from common import read_lines
from folder import RunFolder
from run import Run
from rzero import evolve

DISK = "24m"  # of small_disk: a small run and its checkpoints


class Full:
    says = "No space left on device"

    def begin(self, place):
        room = os.statvfs(place)
        with open(place / "filler", "ab") as file:
            file.write(bytes(room.f_bavail * room.f_frsize))

    def end(self, place):
        (place / "filler").unlink()


class ReadOnly:
    says = "Read-only file system"

    def begin(self, place):
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)

    def end(self, place):
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)


class Gone:
    says = "No such file or directory"

    def begin(self, place):
        os.rename(place / "run", place / "elsewhere")

    def end(self, place):
        assert not (place / "run").exists()  # nothing has made it anew
        os.rename(place / "elsewhere", place / "run")


class Faults:
    """Has the disk fail as the file or folder named `at` begins to be written; as a page is, for that time alone."""

    def __init__(self, place, fault, monkeypatch):
        self.place, self.fault, self.at, self.pages = place, fault, None, 0
        real, learn = common.writing, plumbing.Step.learn

        @contextmanager
        def writing(partial, path, *rest):
            self.before(path.name)
            try:
                with real(partial, path, *rest):
                    yield
            finally:
                if path.name == "report.html":
                    self.fault.end(self.place)

        def learning(step, *rest, **metrics):
            learn(step, *rest, **metrics)
            self.before(f"checkpoint of the {step.role}")

        for module in (checkpoint, common, folder_module, model):
            monkeypatch.setattr(module, "writing", writing)
        monkeypatch.setattr(plumbing.Step, "learn", learning)

    def before(self, name):
        self.pages += name == "report.html"
        if name in (self.at, "report.html"):
            self.fault.begin(self.place)

    def stop(self, at, do, says):
        """`do` must end in one line where this is written."""
        self.at = at
        with pytest.raises(OSError, match=self.fault.says) as error:
            do()
        self.at, said = None, str(error.value)
        assert "\n" not in said and f"/{says}" in said
        assert re.fullmatch(f"(evaluate.py: )?cannot write .*/{says}, which takes [0-9.]+ MB where [0-9.]+ are free: .*", said)
        if not isinstance(self.fault, Gone):  # given again too early, it ends as soon
            with pytest.raises(OSError, match=self.fault.says) as error:
                do()
            assert "\n" not in str(error.value)
        self.fault.end(self.place)
        assert not [*self.place.rglob("*.partial")]


def least(out):
    Path(f"{out}.jsonl").write_text("\n".join((ROOT / "tiny" / "heldout.jsonl").read_text().splitlines()[:3]))
    return small(out, challenger_prompts=2, answers=2, pool=8, pool_answers=2, pool_draws=1, keep_low=0.0, keep_high=1.0,
                 solver_prompts=4, solver_rollouts=2, heldout_samples=1, max_question_tokens=48, max_answer_tokens=32,
                 checkpoint_every=1, max_rows=64)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    evolve(Run(least(out)))
    return out


WRITES = {  # in order -> what the line names; a checkpoint has the name of its step
    "config.json": "run/config.json", "iter0": "run/iter0", "metrics.jsonl": "run/metrics.jsonl",
    "heldout.jsonl": "iter0/heldout.jsonl", "eval.jsonl": "run/eval.jsonl", "iter1": "run/iter1", "challenger": "iter1/challenger", "questions.jsonl": "iter1/questions.jsonl",
    "checkpoint of the solver": "iter1/solver.steps/step000001", "solver": "iter1/solver"}


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Full(), ReadOnly(), Gone()], ids=lambda fault: type(fault).__name__)
def test_a_run_goes_on_after_each_of_its_writes_failed(undisturbed, small_disk, monkeypatch, fault, capsys):
    """One run, stopped at each kind of write in turn. The page fails each time, which stops nothing."""
    cfg, out, faults = least(small_disk / "run"), small_disk / "run", Faults(small_disk, fault, monkeypatch)
    # A folder that is not made yet cannot be gone; in a full tmpfs, or in one that has them, folders can be made.
    left_out = ["config.json"] if isinstance(fault, Gone) else ["iter0", "iter1"]
    for at, says in ((at, says) for at, says in WRITES.items() if at not in left_out):
        finished = {file: file.read_bytes() for file in out.glob("iter*/*") if file.is_file()}
        faults.stop(at, lambda: evolve(Run(cfg)), says)
        assert all(file.read_bytes() == content for file, content in finished.items())
    assert [file.name for file in (out / "iter1" / "solver.steps").iterdir()] == ["step000001"]
    evolve(Run(cfg))
    assert faults.pages >= 3 == capsys.readouterr().out.count("report.html was not written: OSError: cannot write")
    assert not (out / "report.html").exists()
    monkeypatch.undo()
    for name in ("iter1/challenger/model.safetensors", "iter1/solver/model.safetensors", "iter1/questions.jsonl",
                 "iter0/heldout.jsonl", "iter1/heldout.jsonl", "eval.jsonl"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert timeless(lines(out / "metrics.jsonl")) == timeless(lines(undisturbed / "metrics.jsonl"))
    files = {str(file.relative_to(out)) for file in out.rglob("*")} | {"report.html"}
    assert files == {str(file.relative_to(undisturbed)) for file in undisturbed.rglob("*")}


def test_a_line_that_does_not_fit_is_cut_off_by_the_next_start(small_disk):
    """A page of the file holds four rows, and there is none for the rest of the fifth."""
    out, fault = small_disk / "run", Full()
    out.mkdir()
    text = "x" * (mmap.PAGESIZE // 4 - 100)
    folder, rows = RunFolder(out), [{"iteration": 1, "phase": "solver", "step": i, "text": text} for i in range(1, 7)]
    folder.log(rows[0])
    fault.begin(small_disk)
    with pytest.raises(OSError, match="cannot write .*/metrics.jsonl, which takes 0.1 MB where 0.0 are free: .*No space"):
        for row in rows[1:]:
            folder.log(row)
    assert not folder.metrics.read_bytes().endswith(b"\n")
    folder = RunFolder(out)  # takes no room
    assert read_lines(folder.metrics) == rows[:4]
    fault.end(small_disk)
    for row in rows[4:]:
        folder.log(row)
    assert read_lines(folder.metrics) == rows


@pytest.mark.parametrize("fault", [Full(), ReadOnly(), Gone()], ids=lambda fault: type(fault).__name__)
def test_an_evaluation_goes_on_after_each_of_its_writes_failed(small_disk, tmp_path, monkeypatch, fault, capsys):
    """Its part files are lost in no case: what was answered before is not asked again."""
    (tmp_path / "few.jsonl").write_text("\n".join((ROOT / "tiny" / "heldout.jsonl").read_text().splitlines()[:3]))
    command = ["evaluate.py", "--model", str(ROOT / "tiny"), "--data", str(tmp_path / "few.jsonl"), "--task", "sums",
               "--samples", "2", "--max_tokens", "16", "--out"]

    def do():
        try:
            evaluate.main()
        except SystemExit:
            raise OSError(capsys.readouterr().err.splitlines()[-1]) from None

    monkeypatch.setattr(sys, "argv", [*command, str(tmp_path / "undisturbed")])
    do()
    monkeypatch.setattr(sys, "argv", [*command, str(small_disk / "run")])
    if isinstance(fault, ReadOnly):  # which a disk does not turn while the lock is open on it
        monkeypatch.setattr(evaluate, "hold", nullcontext)
    faults = Faults(small_disk, fault, monkeypatch)
    for at in ("settings.json", "few.part0.jsonl", "few.jsonl", "results.json")[isinstance(fault, Gone):]:
        faults.stop(at, do, f"run/{at}")
    do()
    for name in ("few.jsonl", "results.json"):
        assert (small_disk / "run" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    assert len([*(small_disk / "run").iterdir()]) == 3


def test_any_process_of_an_evaluation_says_what_it_cannot_write(tmp_path, monkeypatch):
    """This process believes that it is rank 1, whose folder rank 0 should have made."""
    (tmp_path / "few.jsonl").write_text((ROOT / "tiny" / "heldout.jsonl").read_text().splitlines()[0])
    monkeypatch.setattr(evaluate, "rank_and_world", lambda: (1, 2))
    args = evaluate.parse(["--model", str(ROOT / "tiny"), "--data", str(tmp_path / "few.jsonl"), "--task", "sums",
                           "--max_tokens", "9", "--out", str(tmp_path / "out")])
    with pytest.raises(OSError, match="cannot write .*/out/few.part1.jsonl, which takes .*No such file"):
        evaluate.answer_all(args, tmp_path / "out")
    assert not (tmp_path / "out").exists()
