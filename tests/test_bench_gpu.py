"""The command for a card runs through at a tiny size on the CPU, its kernels in the interpreter; no time is judged."""

import json

import bench_gpu as bench
import pytest
from conftest import needs_triton


def results(tmp_path, part):
    report = bench.Report(tmp_path / "part")
    bench.PARTS[part][0](bench.SMALL, report)
    return {row["what"]: row["value"] for row in report.rows()}


def test_decode(tmp_path):
    values = results(tmp_path, "decode")
    assert values["6 rows of drawn lengths, again"] > 0 and values["decode step, 3 rows of 20 tokens"] > 0


def test_transformers(tmp_path):
    pytest.importorskip("psutil", reason="transformers' continuous batching finds a CPU's free memory with psutil")
    assert min(results(tmp_path, "transformers").values()) > 0


@needs_triton
def test_kernels(tmp_path):
    values = results(tmp_path, "kernels")
    assert values.pop("memory that these take") == 0 and min(values.values()) > 0


def test_update(tmp_path):
    values = results(tmp_path, "update")
    assert values["an update, half of each row shared"] > 0 and values["memory of the update"] > 0


def test_iteration(tmp_path):
    values = results(tmp_path, "rzero")
    assert values["an iteration on tiny"] > 0 and values["its largest grad_norm"] > 0


def test_a_part_that_fails_is_a_line(tmp_path, monkeypatch):
    def fails(size, report):
        report("half of it", 1, "s")
        raise RuntimeError("out of memory\nand so on")

    monkeypatch.setitem(bench.PARTS, "update", (fails, 1))
    report = bench.Report(tmp_path / "part")
    assert bench.here("update", bench.SMALL, report)
    assert [row["value"] for row in report.rows()] == [1, "RuntimeError: out of memory"]


def test_a_part_that_hangs_is_stopped_and_the_next_one_runs(tmp_path, monkeypatch, capfd):
    """As processes: one that is given no time, and the collection of the GPU tests."""
    monkeypatch.setattr(bench, "PARTS", {"update": (None, 0.01), "tests": (None, 90)})
    monkeypatch.setattr(bench, "BUDGET", 0)
    bench.everything(["update", "tests"], tmp_path / "all.json", small=True)
    parts = json.loads((tmp_path / "all.json").read_text())["parts"]
    assert parts["update"]["failure"].startswith("stopped after") and not parts["update"]["results"]
    assert parts["tests"]["failure"] is None and len(parts["tests"]["results"]) > 10
    last = capfd.readouterr().out.splitlines()
    assert last[-1].startswith("1 parts of 2 failed") and any(line.startswith("update, ") for line in last)
