"""The study's order of runs, what it does about runs that fail, and its tables; nothing is trained."""

import os
import signal
import sys
import time

import pytest
import study
from study import Job, command, finished, paired, read_rows, run_all, tables

from common import write_lines

# What stands in for rzero.py: writes the rows of a finished run, and its name to the order in which runs ended.
FAKE = """import json, pathlib, sys
folder = pathlib.Path(sys.argv[1]); folder.mkdir(exist_ok=True)
(folder / "eval.jsonl").write_text("".join(json.dumps({"iteration": i}) + chr(10) for i in range(2)))
open(folder.parent / "order", "a").write(folder.name + chr(10))"""


def finish(out, name, *rows):
    (out / name).mkdir()
    write_lines(out / name / "eval.jsonl", [{"iteration": i, **row} for i, row in enumerate(rows)])


def last(mean, greedy=0.5, label_accuracy=0.5):
    return {"mean": mean, "greedy": greedy, "label_accuracy": label_accuracy, "kept": 30, "pool": 60,
            "well_posed": 1.0, "share": 0.7}


def fake(monkeypatch, **programs):
    """Every run is FAKE, but those named (seed 0), which are the programs given."""
    monkeypatch.setattr(study, "command", lambda out, job, settings: [
        sys.executable, "-c", programs.get(job.variant, FAKE) if job.seed == 0 else FAKE, str(out / str(job))])


def jobs(seeds, *variants):
    return [Job(variant, seed) for seed in range(seeds) for variant in variants]


def order(out):
    return (out / "order").read_text().split()


def test_tables(tmp_path):
    base = {"mean": 0.3, "greedy": 0.2}
    for seed, (full, ablated) in enumerate(((0.60, 0.59), (0.62, 0.60), (0.64, 0.61))):
        finish(tmp_path, f"full-{seed}", base, last(full))
        finish(tmp_path, f"no_filter-{seed}", base, last(ablated, label_accuracy=None))
    finish(tmp_path, "no_penalty-0", base, last(0.50, label_accuracy=0.25))
    finish(tmp_path, "no_penalty-1", base, last(0.56, label_accuracy=None))
    finish(tmp_path, "no_penalty-2", base)  # goes on
    says = tables(read_rows(tmp_path, 3, 1), ["full", "no_filter", "no_penalty", "true_labels"], 3, 1)
    # Differences of -1, -2 and -3 points: 4.303 * 1 / sqrt(3) = 2.48. Of -10 and -6: 12.706 * 2.828 / sqrt(2) = 25.4.
    assert says == """\
|  | held-out mean | to full | greedy | to full | kept labels right | kept | well-posed | mean p |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| full R-Zero | 62.0 |  | 50.0 |  | 50.0 | 50.0 | 100.0 | 70.0 |
| no filter | 60.0 | -2.0 +- 2.5 | 50.0 | +0.0 +- 0.0 | - | 50.0 | 100.0 | 70.0 |
| no penalty | 53.0 | -8.0 +- 25.4 (n = 2) | 50.0 | +0.0 +- 0.0 (n = 2) | 25.0 | 50.0 | 100.0 | 70.0 |
| true labels | - | - | - | - | - | - | - | - |

| held-out mean after iteration | 0 | 1 |
| --- | --- | --- |
| full R-Zero | 30.0 | 62.0 |
| no filter | 30.0 | 60.0 |
| no penalty | 30.0 | 53.0 |
| true labels | - | - |

full R-Zero's gain over its base, held-out mean: least 30.0, mean 32.0 (n = 3)

full R-Zero's gain over its base, greedy: least 30.0, mean 30.0 (n = 3)

not finished: true_labels-0, true_labels-1, no_penalty-2, true_labels-2"""


def test_a_difference_is_of_equal_seeds_alone():
    assert paired({0: 50.0, 2: 54.0}, {1: 10.0, 2: 55.0}, 3) == "-1.0 (n = 1)"
    assert paired({0: 50.0}, {1: 10.0}, 3) == "-"


def test_tables_before_any_run_is_finished(tmp_path):
    says = tables(read_rows(tmp_path, 1, 3), ["full", "equal_count"], 1, 3)
    assert "| full R-Zero | - |" in says and says.endswith("not finished: full-0, equal_count-0")


def test_a_variants_settings_win(tmp_path):
    words = command(tmp_path, Job("equal_count", 3), ["--challenger_steps", "9"])
    assert words.index("9") < words.index("0")
    assert words[words.index("--match_kept") + 1] == str(tmp_path / "full-3")
    assert words[words.index("--seed") + 1] == "3"


def test_seed_by_seed_and_finished_runs_are_left_alone(tmp_path, monkeypatch):
    fake(monkeypatch)
    finish(tmp_path, "full-0", {}, {})
    assert run_all(tmp_path, jobs(2, "full", "no_filter"), 1, 1, []) == {}
    assert order(tmp_path) == ["no_filter-0", "full-1", "no_filter-1"]


def test_a_run_that_waits_for_another_lets_others_pass(tmp_path, monkeypatch):
    fake(monkeypatch, full="import time; time.sleep(0.6)\n" + FAKE)
    assert run_all(tmp_path, jobs(1, "equal_count", "full", "no_filter"), 2, 1, []) == {}
    assert order(tmp_path) == ["no_filter-0", "full-0", "equal_count-0"]


def test_a_failed_run_stops_only_those_that_need_it(tmp_path, monkeypatch):
    fake(monkeypatch, full="import sys; sys.exit('\\nrzero.py: no room\\n')", no_penalty="pass")
    some = jobs(2, "full", "equal_count", "no_filter", "no_penalty")
    assert run_all(tmp_path, some, 2, 1, []) == {
        Job("full", 0): "rzero.py: no room", Job("no_penalty", 0): "its log is empty",
        Job("equal_count", 0): "full-0, which it needs, is not finished"}
    assert sorted(order(tmp_path)) == ["equal_count-1", "full-1", "no_filter-0", "no_filter-1", "no_penalty-1"]
    fake(monkeypatch)
    assert run_all(tmp_path, some, 2, 1, []) == {}
    assert all(finished(tmp_path, job, 1) for job in some)


def test_an_interrupt_ends_the_runs(tmp_path, monkeypatch):
    fake(monkeypatch, full="import time; time.sleep(60)")
    started = []
    start = study.start
    monkeypatch.setattr(study, "start", lambda *arguments: started.append(start(*arguments)) or started[-1])
    monkeypatch.setattr(time, "sleep", lambda seconds: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run_all(tmp_path, jobs(1, "full", "no_filter"), 1, 1, [])
    assert [process.returncode for process in started] == [-signal.SIGTERM] and not (tmp_path / "no_filter-0").exists()


def test_command_line(tmp_path, monkeypatch, capsys):
    def says(*arguments):
        monkeypatch.setattr(sys, "argv", ["study.py", "--out", str(tmp_path), *arguments])
        study.main()

    says("--table", "--seeds", "1", "--variants", "full")
    assert capsys.readouterr().out.endswith("not finished: full-0\n")
    with pytest.raises(SystemExit):
        says("--variants", "ful")
    assert capsys.readouterr().err.startswith("study.py: argument --variants: 'ful' is none of full, untrained,")
