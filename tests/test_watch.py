"""What a person sees of a run: a line a step, the time left, votes, a dry run, on a terminal and in a log file."""

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import replace
from pathlib import Path

import pytest
from test_rzero import lines, small, write_heldout

from common import progress_bar
from folder import RunFolder, clear_dry_run
from run import Run
from rzero import PRESETS, Config, evolve, smallest
from watch import (
    Watch,
    clock,
    example,
    parts_of_run,
    plain,
    real_run,
    said_of_pool,
    said_of_steps,
    say,
    step_line,
    time_left,
    votes,
)

ROOT = Path(__file__).parents[1]
TWO = Config(iterations=2, challenger_steps=2, challenger_prompts=4, challenger_rollouts=5, answers=4, pool=10,
             pool_answers=9, solver_steps=3, solver_prompts=5, solver_rollouts=2, heldout_samples=3)


def step(iteration, phase, number, seconds, update=0.0, **more):
    return {"iteration": iteration, "phase": phase, "step": number, "seconds": seconds, "tokens_per_second": 12345.6,
            **({"update_seconds": update} if update else {}), **more}


def test_the_parts_of_a_run_and_their_completions():
    assert parts_of_run(TWO, 25) == {
        (0, "held-out"): (1, 100, 0),
        (1, "challenger"): (2, 100, 20), (1, "questions"): (1, 100, 0), (1, "solver"): (3, 10, 10), (1, "held-out"): (1, 100, 0),
        (2, "challenger"): (2, 100, 20), (2, "questions"): (1, 100, 0), (2, "solver"): (3, 10, 10), (2, "held-out"): (1, 100, 0)}
    assert list(parts_of_run(replace(TWO, train_file="x", iterations=1), 0)) == [
        (0, "held-out"), (1, "solver"), (1, "held-out")]


def test_the_time_left_by_hand():
    """A completion takes 0.1 s to draw, and 0.5 s more to learn from."""
    parts, seen = parts_of_run(TWO, 25), [step(0, "held-out", 1, 10.0)]
    # Nothing but drawing is known: 2 iterations of 2 x 10 + 10 + 3 x 1 + 10 s.
    assert time_left(seen[0], seen, parts) == pytest.approx((0, 2 * 43))
    seen.append(step(1, "challenger", 1, 20.0, 10.0))
    # A step of the Challenger takes 20 s, one of the Solver 10 x 0.1 + 10 x 0.5 s: iterations of 40 + 10 + 3 x 6 + 10 s.
    assert time_left(seen[1], seen, parts) == pytest.approx((20, 2 * 78 - 20))
    seen += [step(1, "challenger", 2, 20.0, 10.0), step(1, "questions", 1, 31.0), step(1, "solver", 1, 50.0, 40.0)]
    # Pools and Solver's steps have been seen by now, and what they take no longer depends on the others.
    assert time_left(seen[-1], seen, parts) == pytest.approx((100, 100 + 10 + 40 + 31 + 150 + 10))
    # The median of five forgets a first step that compiled.
    seen += [step(1, "solver", 2, 6.0, 5.0), step(1, "solver", 3, 6.0, 5.0)]
    assert time_left(seen[-1], seen, parts) == pytest.approx((0, 10 + 40 + 31 + 18 + 10))


def test_a_resumed_run_counts_what_is_left():
    seen = [step(2, "solver", 2, 6.0, 5.0)]
    left = time_left(seen[0], seen, parts_of_run(TWO, 25))
    assert left == pytest.approx((6, 6 + 100 * 0.1))
    assert time_left(step(2, "held-out", 1, 8.0), seen + [step(2, "held-out", 1, 8.0)], parts_of_run(TWO, 25)) == (0, 0)


def test_clock():
    assert [clock(x) for x in (0.4, 41, 59.6, 310, 3599.7, 3910, 360000)] == [
        "0:00", "0:41", "1:00", "5:10", "1:00:00", "1:05:10", "100:00:00"]


def test_the_columns_of_all_phases_are_the_same():
    cfg = replace(TWO, iterations=10, solver_steps=15, challenger_steps=5)
    trained = {"reward": 0.4125, "share": 0.63, "valid": 0.98, "boxless": 0.02}
    said = [step_line(row, cfg, 41, 310) for row in (
        step(0, "held-out", 1, 1.0, mean=0.284, greedy=1.0), step(1, "challenger", 3, 1.0, **trained),
        step(1, "questions", 1, 1.0, kept=0.415, valid=1.0, share=0.5), step(10, "solver", 12, 1.0, **(trained | {"reward": -1})))]
    assert said[1] == ("iteration 1   challenger  step  3/5    reward  0.412   p 0.63   valid    98 %      12,346 tokens/s   "
                       "left    5:10 in the run, 0:41 in the phase")
    assert re.split("  +", said[0]) == ["base model", "held-out", "mean", "28 %", "greedy", "100 %", "12,346 tokens/s", "left", "5:10 in the run"]
    assert "kept     42 %   p 0.50   valid   100 %" in said[2] and "step 12/15   reward -1.000   p 0.63   boxless   2 %" in said[3]
    for word in ("tokens/s", "left", "in the run"):
        assert len({line.index(word) for line in said}) == 1
    assert said[1].index("p 0.63") == said[2].index("p 0.50") == said[3].index("p 0.63")


def question(share, answers, groups, **more):
    return {"question": "What is 1 + 1?", "share": share, "dropped": None, "answers": answers, "groups": groups,
            "majority": answers[0], **more}


def test_the_question_that_is_shown_and_its_votes():
    rows = [question(0.25, ["2", "3", "4", None], [0, 1, 2, None]), question(0.75, ["5", "1", "5", "5"], [0, 1, 0, 0]),
            question(0.5, ["7", None, "7.0", "8"], [0, None, 0, 3]) | {"truth": None}]
    assert example(rows) is rows[2] and example([row | {"dropped": "too easy"} for row in rows]) is None
    assert votes(rows[2]) == "2 x 7, 8, 1 without a box; label 7, p 0.50; true answer none"
    assert votes(rows[1] | {"truth": "5"}) == "3 x 5, 1; label 5, p 0.75; true answer 5"


def test_a_models_text_cannot_write_to_the_terminal():
    assert plain("a\x1b[2J\r\n b\tc\x07") == "a [2J b c"
    assert len(plain("x" * 10**6)) < 450


def test_a_terminal_that_lacks_a_character_does_not_end_a_run(monkeypatch):
    terminal = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(terminal, encoding="ascii"))
    say("a question: \u00bf1 + 1\u2260?")
    assert terminal.getvalue() == b"a question: ?1 + 1??\n"


def test_a_bar_in_a_log_file_is_few_whole_lines(capsys, monkeypatch):
    """Two minutes of work with a state each second: a line each 30 s, and none where all of it is shorter than that."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])

    def work(seconds, **options):
        with progress_bar(desc="asking", **options) as bar:
            for _ in range(seconds):
                now[0] += 1
                bar.set_postfix_str("some rows", refresh=False)
                bar.update(10)
        return capsys.readouterr().err

    assert work(29, leave=False) == ""
    said = work(120, leave=False)
    assert "\r" not in said and len(said.splitlines()) == 4 and said.startswith("asking: 300it [00:30") and said.endswith("\n")
    said = work(3, total=30)
    assert [line[:13] for line in said.splitlines()] == ["asking:   0%|", "asking: 100%|"] and "30/30" in said


def seen_on(terminal):
    """The lines that a terminal shows of these bytes: a carriage return goes back in the line, text overwrites."""
    shown = []
    for line in terminal.decode().replace("\r\n", "\n").split("\n"):
        cells = []
        for part in line.split("\r"):
            cells[:len(part)] = part
        shown.append("".join(cells).rstrip())
    return shown


def run_in(how, *arguments):
    """What a run prints, all of it: into a pseudo-terminal, or into a pipe as into a log file."""
    command = [sys.executable, ROOT / "rzero.py", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if how == "file":
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, check=False)
        return done.returncode, done.stdout
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 150, 0, 0))
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    said = b""
    while True:
        try:
            said += (more := os.read(ours, 4096))
        except OSError:  # Linux: the other end is closed
            break
        if not more:
            break
    os.close(ours)
    return process.wait(), said


@pytest.mark.slow
def test_a_run_on_a_terminal_and_in_a_log_file(tmp_path):
    """The same whole lines in both: on the terminal after bars that are gone when a line comes."""
    said = {}
    for how in ("terminal", "file"):
        out = tmp_path / how
        write_heldout(out)
        changed = {k: v for k, v in vars(small(out)).items() if v != getattr(Config(), k)}
        code, output = run_in(how, *(f"--{name}={value}" for name, value in changed.items()))
        assert code == 0
        said[how] = seen_on(output) if how == "terminal" else output.decode().split("\n")
        if how == "file":
            assert b"\r" not in output and b"tokens, " not in output
        else:
            assert b"\rasking: " in output and b"\ranswering: " in output and b"\rheld-out: " in output
    steps = [[line for line in printed if "tokens/s   left" in line] for printed in said.values()]
    for printed in steps:
        assert [re.split("  +", line)[:3:2] if "step" in line else line[:23].rstrip() for line in printed] == [
            "base model   held-out", ["iteration 1", "step 1/1"], "iteration 1  questions", ["iteration 1", "step 1/2"],
            ["iteration 1", "step 2/2"], "iteration 1  held-out"]
    clockless = [[re.sub(r" *[\d,]+ tokens/s.*", "", line) for line in printed] for printed in steps]
    assert clockless[0] == clockless[1]
    for printed in said.values():
        assert not [line for line in printed if re.search("asking: |answering: |held-out: ", line)]
        assert sum(line.startswith("iteration   held-out mean") for line in printed) == 1  # the table, once
        shown = next(i for i, line in enumerate(printed) if line.startswith("a question: "))
        assert printed[shown + 1].startswith("    answers: ") and "; true answer " in printed[shown + 1]
    asked = lines(tmp_path / "file" / "iter1" / "questions.jsonl")
    kept = [row for row in asked if row["dropped"] is None]
    valid = [row["share"] for row in asked if row["question"] is not None]
    assert (f"kept {100 * len(kept) / len(asked):>6.0f} %   p {sum(valid) / len(valid):.2f}   valid {100 * len(valid) / len(asked):>5.0f} %"
            in next(line for line in said["file"] if line.startswith("iteration 1  questions")))
    assert f"a question: {min(kept, key=lambda row: abs(row['share'] - 0.5))['question']}" in said["file"]


@pytest.mark.slow
def test_the_table_is_there_after_each_iteration_and_once_at_the_end(tmp_path, capsys):
    cfg = small(tmp_path / "run", heldout="", challenger_steps=0, solver_steps=1, iterations=2)
    for tables in (2, 1):  # the second time all is finished
        evolve(Run(cfg))
        said = capsys.readouterr().out
        assert said.count("iteration   held-out mean") == tables and said.count("intervals; all of it is in") == 1
        assert said.count("\na question: ") == tables * (tables - 1)


# ---- the dry run


def test_a_dry_run_keeps_what_a_run_is_and_makes_it_small():
    for preset in PRESETS.values():
        cfg = smallest(replace(preset, out="runs/x/", seed=3, challenger_steps=0, penalty_weight=0.5, dry_run=True))
        cfg.check()
        assert cfg.out == "runs/x-dry-run" and (cfg.iterations, cfg.pool, cfg.solver_steps, cfg.challenger_steps) == (1, 16, 2, 0)
        assert (cfg.model, cfg.task, cfg.seed, cfg.penalty_weight, cfg.box, cfg.reward_scale, cfg.solver_lr) == (
            preset.model, preset.task, 3, 0.5, preset.box, preset.reward_scale, preset.solver_lr)
    with pytest.raises(ValueError, match="--solver_lr is -1"):
        smallest(Config(solver_lr=-1))
    with pytest.raises(ValueError, match="--iterations is 0"):  # which a dry run would not see
        smallest(Config(iterations=0))


def test_the_command_of_the_real_run():
    assert real_run(["rzero.py", "--dry_run", "true", "--model", "my model"]) == "python rzero.py --model 'my model'"
    assert real_run(["rzero.py", "--seed=1", "--dry_run=true"], "8") == "torchrun --nproc_per_node 8 rzero.py --seed=1"


def test_only_a_dry_runs_folder_is_replaced(tmp_path):
    folder = tmp_path / "x-dry-run"
    clear_dry_run(folder)
    (folder / "iter1").mkdir(parents=True)
    for settings in (None, {"dry_run": False}, {"seed": 1}):
        if settings:
            (folder / "config.json").write_text(json.dumps(settings))
        with pytest.raises(ValueError, match="holds something else; choose another --out"):
            clear_dry_run(folder)
        assert (folder / "iter1").exists()
    (folder / "config.json").write_text(json.dumps({"dry_run": True}))
    (folder / "lock.json").write_text("{}")  # which this process holds
    clear_dry_run(folder)
    assert [file.name for file in folder.iterdir()] == ["lock.json"]
    clear_dry_run(folder)


def test_what_a_dry_run_says_of_its_parts():
    row = {"valid": 0.5, "boxless": 0.25, "share": 0.7, "reward": 0.3, "loss": -0.01, "grad_norm": 0.2}
    rows = [row, row | {"valid": 1.0, "loss": 0.03}]
    assert said_of_steps("challenger", rows, TWO) == (
        "Challenger: in each of 2 steps it asked 20 questions, 75.0 % in the right format, and the frozen Solver answered each 4 "
        "times; in the mean p was 0.70, the reward 0.300, the loss 0.010 and the norm of the gradient 0.200 (weights in "
        "iter1/challenger/).")
    assert "answered 5 questions 2 times each, 25.0 % without a box; in the mean p" in said_of_steps("solver", rows, TWO)
    assert said_of_steps("solver", [], TWO) == "Solver: without a step (--solver_steps 0) it stays as it was."
    asked = [question(0.5, ["1", "1", "2", None], [0, 0, 2, None]),
             *[{"question": None, "share": 0.0, "dropped": "wrong format", "answers": [], "groups": [], "majority": None}] * 2]
    assert said_of_pool(asked, TWO) == (
        "Questions: the trained Challenger asked 3, 1 of them in the right format; the Solver answered these 9 times each, and "
        "can learn from 1, as a dry run keeps any p (2 wrong format): iter1/questions.jsonl.\n"
        "a question: What is 1 + 1?\n    answers: 2 x 1, 2, 1 without a box; label 1, p 0.50")
    assert said_of_pool(asked[1:], TWO).startswith(
        "Questions: the trained Challenger asked 2, none of them in the right format (2 wrong format): iter1/questions.jsonl. So")
    assert "the loop ends here" in said_of_pool(asked[1:], TWO) and "the loop ends here" not in said_of_pool(asked, TWO)


@pytest.mark.slow
def test_a_dry_run_goes_through_every_part_beside_the_run(tmp_path):
    """The run's own folder is not touched. A second dry run, whose Challenger has no room for a question, replaces the
    first and says where it stops."""
    out, dry = tmp_path / "run", tmp_path / "run-dry-run"
    out.mkdir()
    code, said = run_in("file", "--dry_run", "true", "--out", out)
    said = said.decode()
    assert code == 0, said
    starts = "Base model: ", "Challenger: ", "Questions: ", "a question: ", "Solver: ", "Solver, trained: ", "The loop is at its end"
    assert re.findall(f"^({'|'.join(starts)})", said, re.MULTILINE) == list(starts)
    assert f"    python {ROOT / 'rzero.py'} --out {out}\n" in said and "left" not in said
    rows = lines(dry / "metrics.jsonl")
    assert [(row["phase"], row["step"]) for row in rows] == [
        ("held-out", 1), *[("challenger", i) for i in (1, 2)], ("questions", 1), *[("solver", i) for i in (1, 2)], ("held-out", 1)]
    assert f"the reward {(rows[1]['reward'] + rows[2]['reward']) / 2:.3f}, the loss" in said
    assert f"{100 * lines(dry / 'eval.jsonl')[0]['mean']:.1f} % right" in said and len(lines(dry / "iter0" / "heldout.jsonl")) == 8
    assert not list(out.iterdir())
    code, said = run_in("file", "--dry_run", "true", "--out", out, "--max_question_tokens", "3")
    assert code == 1 and "Traceback" not in said.decode()
    assert "none of them in the right format" in said.decode() and said.decode().splitlines()[-1].endswith("says why")
    assert not list(out.iterdir()) and not (dry / "iter1" / "solver").exists()


def test_only_rank_0_speaks(tmp_path, capsys):
    folder = RunFolder(tmp_path)
    folder.writes = False
    for cfg in (TWO, replace(TWO, dry_run=True)):
        watch = Watch(cfg, folder, 25)
        watch.step(step(0, "held-out", 1, 1.0, mean=0.1, greedy=0.1))
        watch.finished("held-out", 1)
        watch.end(by_truth=True)
    assert capsys.readouterr().out == ""
