"""Charts as SVG: ticks, thinning, and nothing outside the drawing."""

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from charts import histogram, line_chart, stacked_bars, svg, thinned, ticks


@pytest.mark.parametrize("low, high", [(0, 1), (0, 0.043), (0, 3.4e-13), (-0.02, 0.3), (1, 400), (0, 106), (0, 1e6), (-5, -1), (0.2, 0.21)])
def test_ticks_are_few_round_and_within(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 6 and low - 1e-9 <= found[0] and found[-1] <= high * (1 + 1e-9)
    steps = {float(f"{b - a:.6g}") for a, b in pairwise(found)}
    assert len(steps) == 1 and f"{steps.pop():.3e}"[:4] in ("1.00", "2.00", "5.00", "2.50")


def test_a_long_line_is_thinned_evenly_and_keeps_its_last_point():
    points = [(i, i, 0) for i in range(1_001)]
    found = [x for x, *_ in thinned(points)]
    assert len(found) <= 400 and found[-1] == 1_000 and len({b - a for a, b in pairwise(found)}) == 1
    assert thinned(points[:7]) == points[:7] and thinned([]) == []


def test_nothing_is_drawn_of_nothing():
    assert line_chart("t", [("a", 0, False, []), ("b", 1, False, [(1, float("nan"), 0)])], "x") is None
    assert histogram("t", {"a": [0] * 11, "b": []}, (0, 1)) is None
    assert stacked_bars("t", [], "s") is None and stacked_bars("t", [("a", {"x": 0.0})], "s") is None


def test_the_stretches_that_the_pointer_meets_do_not_overlap():
    markup, _ = line_chart("t", [("a", 0, False, [(1, 5, 0), (2, 6, 0), (10, 7, 0)]), ("b", 1, False, [(2, 0, 0)])], "x")
    found = [(float(x), float(x) + float(width)) for x, width in re.findall(r'class="hit" x="([\d.]+)" [^>]*?width="([\d.]+)"', markup)]
    assert len(found) == 3 and all(right <= left + 0.11 for (_, right), (left, _) in pairwise(found))


@pytest.mark.parametrize("chart", [
    line_chart("t", [("a run with a name that is far too long for the place that a chart has for it", 0, False, [(0, 1, 2)])], "x", "%"),
    line_chart("t", [(f"run {i}", i, False, [(1, -1e-13, 0), (3, 1e12, 0)]) for i in range(9)], "x", marks={0: "one", 2: "two"}),
    histogram("t", {"a": [1] * 11}, (0.25, 0.75)), stacked_bars("t", [("a", {"x": 1, "y": 2}), ("b", {"z": 9})], "s")])
def test_marks_and_words_stay_within_the_chart(chart):
    """No rectangle leaves the drawing, and no word's estimated width does."""
    root = ElementTree.fromstring(svg(chart))
    width, height = map(float, root.get("viewBox").split()[2:])
    for one in root.iter("rect"):
        x, y, w, h = (float(one.get(key)) for key in ("x", "y", "width", "height"))
        assert -0.1 <= x and x + w <= width + 0.1 and -0.1 <= y and y + h <= height + 0.1
    for one in root.iter("text"):
        x, size = float(one.get("x")), 6 * len(one.text)
        left = x - {"start": 0, "middle": size / 2, "end": size}[one.get("text-anchor")]
        assert -4 <= left and left + size <= width + 4 and 0 < float(one.get("y")) < height, one.text
