"""The run folder: what it claims, what it appends, and what it forgets of an interrupted try."""

import json

import pytest

from common import read_lines
from folder import RunFolder, claim, columns


def rows(*steps):
    return [{"iteration": i, "phase": phase, "step": step} for i, phase, step in steps]


def test_metrics_are_appended_and_an_interrupted_phase_is_rewound(tmp_path):
    folder = RunFolder(tmp_path, "base")
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
    folder = RunFolder(tmp_path, "base")
    folder.log({"step": 2})
    assert read_lines(folder.metrics) == [{"step": 1}, {"step": 2}]


def test_a_claim_names_the_setting_that_differs(tmp_path):
    claim(tmp_path / "run", {"seed": 0, "rows": 1})
    claim(tmp_path / "run", {"seed": 0, "rows": 2}, free=("rows",))
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"seed": 0, "rows": 2}
    with pytest.raises(ValueError, match=r"holds a run with other settings \(seed: 0 there, 1 here\); choose another --out"):
        claim(tmp_path / "run", {"seed": 1, "rows": 2}, free=("rows",))


def test_columns():
    assert columns([["a", "long"], ["bcd", "x"]]) == "a     long\nbcd      x"
