"""The page of a run: its numbers are those of the folder, every state of a run is shown, and no text scripts it."""

import os
import re
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from run_folders import NO_QUESTION, STEPS, Page, age, edit, fail_in_format, write_run

import report
from charts import histogram, line_chart, stacked_bars, svg, thinned, ticks
from common import mean_and_ci, read_json, read_lines, write_lines
from folder import read_run, words
from report import RULES, broken_rules, main, page


def page_of(*folders):
    return Page(page([read_run(folder) for folder in folders]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture(scope="module")
def finished_page(finished):
    return page_of(finished)


# ---- the numbers are those of the folder

CHARTS = {  # title on the page: {what the pointer calls a line: (metric, scale, unit)}
    "entropy, nats": {"": ("entropy", 1, " nats")},
    "KL to the phase's start, nats": {"": ("kl", 1, " nats")},
    "clipped tokens, %": {"low: ": ("clip_low", 100, " %"), "high: ": ("clip_high", 100, " %")},
    "KL of sampler and trainer, nats": {"": ("sampler_kl", 1, " nats")},
    "gradient norm": {"": ("grad_norm", 1, "")},
    "completion, tokens": {"mean: ": ("completion_tokens", 1, " tokens"), "longest: ": ("completion_tokens_max", 1, " tokens")},
    "completions, %": {"truncated: ": ("truncated", 100, " %"), "boxless answers: ": ("boxless", 100, " %")},
    "groups of equal rewards, %": {"": ("equal_groups", 100, " %")}}
CHALLENGERS = {
    "Reward of the Challenger": {"r_Q: ": ("reward", 1, ""), "r_unc: ": ("uncertainty", 1, ""), "r_rep: ": ("penalty", 1, "")},
    "Proposals in the right format, %": {"": ("valid", 100, " %")},
    "Mean p of the proposals": {"": ("share", 1, "")}}
STEP_CHARTS = [("challenger", title, lines) for title, lines in CHALLENGERS.items()] + [
    (phase, f"{phase.title()}: {title}", lines) for phase in STEPS for title, lines in CHARTS.items()]


def steps_of(folder, phase):
    return [row for row in read_lines(folder / "metrics.jsonl") if row["phase"] == phase]


@pytest.mark.parametrize("phase, title, lines", STEP_CHARTS, ids=[title for _, title, _ in STEP_CHARTS])
def test_the_points_of_a_steps_chart_are_those_of_metrics_jsonl(finished, finished_page, phase, title, lines):
    expected = ["\n".join([f"{phase.title()}'s step: {i}, iteration {row['iteration']}",
                           *(f"{name}{scale * row[metric]:.4g}{unit}" for name, (metric, scale, unit) in lines.items())])
                for i, row in enumerate(steps_of(finished, phase), 1)]
    assert len(expected) == 2 * STEPS[phase] and finished_page.tips(title) == expected


def test_the_accuracies_are_those_of_eval_jsonl(finished, finished_page):
    rows = read_lines(finished / "eval.jsonl")
    assert finished_page.tips("Held-out accuracy, %") == [
        f"iteration: {row['iteration'] or 'base'}\nsampled: {100 * row['mean']:.4g} ± {100 * row['mean_ci']:.2g} %\n"
        f"greedy: {100 * row['greedy']:.4g} ± {100 * row['greedy_ci']:.2g} %" for row in rows]
    head, *cells = next(table for table in finished_page.tables if table[0][0] == "iteration")
    assert head == ["iteration", "held-out mean", "greedy", "labels right", "mean p", "kept", "new", "worked", "tokens"]
    share = [("label_accuracy", 1), ("share", 1), ("kept", 60), ("new", 1), ("worked", 1)]
    assert cells == [[str(row["iteration"] or "base"), *(f"{100 * row[key]:.1f} ± {100 * row[f'{key}_ci']:.1f}" for key in ("mean", "greedy")),
                      *(f"{100 * row[key] / whole:.1f}" if key in row else "-" for key, whole in share), "28"] for row in rows]


def test_the_result_is_the_paired_gain_with_its_interval(finished, finished_page):
    base, last = (read_lines(finished / f"iter{i}" / "heldout.jsonl") for i in (0, 2))
    gains = np.array([100 * (after["right"] - before["right"]) for before, after in zip(base, last)])
    ci = 1.96 * gains.std(ddof=1) / len(gains) ** 0.5
    rows = read_lines(finished / "eval.jsonl")
    says = (f"After iteration 2 the Solver gets {100 * rows[2]['mean']:.1f} ± {100 * rows[2]['mean_ci']:.1f} % of 40 held-out questions "
            f"right: {gains.mean():+.1f} points (95 % interval, same questions: {gains.mean() - ci:+.1f} to {gains.mean() + ci:+.1f}) "
            f"against its base model's {100 * rows[0]['mean']:.1f} %.")
    assert says in re.sub(" +", " ", finished_page.section(1)).replace(" (95", " (95") and "Not finished" not in finished_page.text


def test_every_setting_is_there_those_that_matter_in_sight(finished, finished_page):
    in_sight, _, others = finished_page.section(1).partition("All other settings")
    for name, value in read_json(finished / "config.json").items():
        assert re.search(rf"\b{name}\s+{re.escape(str(value))}", in_sight if name in report.SETTINGS else others)


def test_the_levels_are_those_of_the_held_out_answers(finished, finished_page):
    sets = {name: read_lines(finished / f"iter{i}" / "heldout.jsonl") for i, name in enumerate(["base", "iteration 1", "iteration 2"])}
    expected = []
    for level in (1, 2, 3):
        lines = [f"level: {level}"]
        for name, rows in sets.items():
            mean, ci = mean_and_ci([100 * row["right"] for row in rows if row["level"] == level])
            lines.append(f"{name}: {mean:.4g} ± {ci:.2g} %")
        expected.append("\n".join(lines))
    assert finished_page.tips("Accuracy by level, %") == expected


def test_the_distributions_of_p_are_those_of_the_first_step_and_of_the_pool(finished, finished_page):
    for iteration in (1, 2):
        first = next(row for row in steps_of(finished, "challenger") if row["iteration"] == iteration)["share_counts"]
        pool = Counter(row["share"] for row in read_lines(finished / f"iter{iteration}" / "questions.jsonl") if row["question"])
        expected = ["kept: p from 0.25 to 0.75"]
        for name, counts in (("first step", first), ("pool", [pool[p / 10] for p in range(11)])):
            expected += [f"{name}: {100 * n / sum(counts):.1f} % ({n}) have p = {p / 10:g}" for p, n in enumerate(counts)]
        assert finished_page.tips(f"p in iteration {iteration}, % of questions") == expected


@pytest.mark.parametrize("low, high, kept", [(0.25, 0.75, range(3, 8)), (0.3, 0.8, range(3, 9)), (0, 1, range(11))])
def test_the_band_holds_the_bars_of_the_kept_p_whole(low, high, kept):
    markup, _ = histogram("p", {"pool": [1] * 11}, (low, high))
    band, *bars = re.findall(r'<rect class="(?:band|bar c0)" x="([\d.]+)" [^>]*?width="([\d.]+)"', markup)
    left, right = float(band[0]), float(band[0]) + float(band[1])
    assert [p for p, (x, width) in enumerate(bars) if left < float(x) and float(x) + float(width) < right] == [*kept]


def test_the_reasons_for_drops_add_up(finished, finished_page):
    tips = finished_page.tips("What became of the pool, % of the pool")
    for row in read_lines(finished / "eval.jsonl")[1:]:
        shares = dict(re.match(r"iteration \d+, (.*): (\S+) %", tip).groups() for tip in tips if f"iteration {row['iteration']}," in tip)
        assert abs(sum(map(float, shares.values())) - 100) < 0.01
        expected = {"kept": row["kept"] / row["pool"], **row["dropped"]}
        assert {reason: share for reason, share in shares.items() if share != "0"} == {
            reason: f"{100 * share:.4g}" for reason, share in expected.items()}


def test_the_time_adds_up(finished, finished_page):
    rows = read_lines(finished / "metrics.jsonl")
    head, *cells = next(table for table in finished_page.tables if table[0][0] == "phase")
    assert head == ["phase", "minutes", "% of time", "tokens", "tokens/s", "peak GB"]
    bars = Counter()
    for tip in finished_page.tips("Where the time went, minutes"):
        name, minutes = re.match(r"(.*), \w+: (\S+) minutes", tip).groups()
        bars[name] += float(minutes)
    assert [*bars] == [row[0] for row in cells] and len(cells) == 9
    for name, minutes, share, tokens, speed, peak in cells:
        iteration, phase = (0, "held-out") if name == "base" else (int(name[0]), name[2:])
        own = [row for row in rows if (row["iteration"], row["phase"]) == (iteration, phase)]
        seconds, total = sum(row["seconds"] for row in own), sum(row["seconds"] for row in rows)
        assert abs(bars[name] - seconds / 60) < 0.001 and minutes == f"{seconds / 60:.2f}"
        assert share == f"{100 * seconds / total:.1f}" and tokens == f"{sum(row['tokens'] for row in own):,.0f}"
        assert speed == f"{sum(row['tokens'] for row in own) / seconds:,.0f}"
        assert peak == f"{max(row['peak_memory_gb'] for row in own):.2f}"
    assert f"{sum(row['seconds'] for row in rows) / 60:.1f} minutes in all" in finished_page.section(7)


def test_the_parts_of_several_processes_stay_within_the_whole(finished, tmp_path):
    """Each part is the maximum over processes: of two of which one samples and one trains longer, they are too much."""
    run = read_run(finished)
    run.steps = [{"iteration": 1, "phase": "solver", "step": 1, "seconds": 60, "answering_seconds": 45, "update_seconds": 45}]
    [(_, parts, minutes, *_)] = report.times(run)
    assert minutes == 1 and parts == {"questions": 0, "answers": 0.5, "updates": 0.5, "other": 0}


# ---- questions and answers


def cards(finished_page, finished, iteration):
    """[(row of questions.jsonl, its chips)] of the cards of an iteration, in order."""
    rows = {row["question"]: row for row in read_lines(finished / f"iter{iteration}" / "questions.jsonl")}
    shown = [re.findall(r"What is \d+ \+ \d+\?", part) for part in re.split(r"Iteration \d: ", finished_page.section(4))]
    chips = finished_page.chips[len(shown[1]) if iteration == 2 else 0:]
    return [(rows[question], own) for question, own in zip(shown[iteration], chips)]


def test_the_votes_are_grouped_as_the_vote_grouped_them(finished, finished_page):
    merged = 0
    for iteration in (1, 2):
        found = cards(finished_page, finished, iteration)
        assert 12 <= len(found) <= 13
        for row, chips in found:
            forms = {}
            for answer, group in zip(row["answers"], row["groups"]):
                forms.setdefault(group, []).append(answer)
            expected = Counter({"no box" if group is None else " = ".join(dict.fromkeys(own)): len(own) for group, own in forms.items()})
            assert Counter({chip.rpartition(" ×")[0]: int(chip.rpartition(" ×")[2]) for chip in chips}) == expected
            counts = [int(chip.rpartition("×")[2]) for chip in chips]
            assert sum(counts) == 10 and counts == sorted(counts, reverse=True)
            merged += any(" = " in chip for chip in chips)
    assert merged > 3


def test_a_dozen_questions_by_p_easy_edge_and_hard(finished, finished_page):
    for iteration in (1, 2):
        pool = [row for row in read_lines(finished / f"iter{iteration}" / "questions.jsonl") if row["question"]]
        shares = [row["share"] for row, _ in cards(finished_page, finished, iteration)]
        kinds = [("easy", "edge", "hard")[(p <= 0.75) + (p < 0.25)] for p in shares]
        of_pool = Counter(("easy", "edge", "hard")[(row["share"] <= 0.75) + (row["share"] < 0.25)] for row in pool)
        assert kinds == sorted(kinds, key=["easy", "edge", "hard"].index) and 12 <= len(kinds) <= 13 and all(kinds.count(kind) >= min(4, of_pool[kind]) for kind in of_pool)
        assert shares[0] < shares[kinds.count("easy") - 1]  # spread over the easy ones
        says = re.split(r"Iteration \d: ", finished_page.section(4))[iteration]
        for kind, count in (("easy", sum(row["share"] > 0.75 for row in pool)), ("hard", sum(row["share"] < 0.25 for row in pool))):
            assert f"{kind} ({count})" in says
        assert says.startswith(f"{len(pool)} of 60 in the right format")


def test_where_all_questions_are_at_the_edge_they_make_the_dozen(finished):
    run = read_run(finished)
    run.pools = {1: [row for row in read_run(finished).pools[1] if 0.25 <= row["share"] <= 0.75]}
    assert len(Page(page([run])).chips) == 12


def test_a_label_is_said_to_be_true_or_false_and_a_question_to_be_new(finished, finished_page):
    first = {words(row["question"]) for row in read_lines(finished / "iter1" / "questions.jsonl") if row["question"]}
    seen = Counter()
    for iteration in (1, 2):
        says = re.sub(r"\s+", " ", re.split(r"Iteration \d: ", finished_page.section(4))[iteration])
        for row, _ in cards(finished_page, finished, iteration):
            own = says.partition(row["question"])[2].partition("What is")[0]
            asked_before = iteration == 2 and words(row["question"]) in first
            assert ("asked in iteration 1" if asked_before else "· new") in own
            label = "no label" if row["majority"] is None else f"label {row['majority']} is true" if row["label_right"] else \
                f"label {row['majority']} is false , the truth is {row['truth']}"
            assert label in own and f"p = {row['share']:g}" in own and (row["dropped"] or "kept") in own
            seen[row["label_right"], asked_before] += 1
    assert seen[False, False] and seen[True, False] and seen[True, True] + seen[False, True]
    new = np.mean([words(row["question"]) not in first for row in read_lines(finished / "iter2" / "questions.jsonl") if row["question"]])
    assert f"{100 * new:.0f} % of them new" in finished_page.section(4)


def test_nobody_wins_a_vote_without_an_answer():
    row = NO_QUESTION | {"question": "x", "answers": [None] * 10, "groups": [None] * 10, "dropped": "no answer", "truth": "3"}
    assert report.votes(row) == [("no box", 10, False)]
    assert report.label_of(row) == "no label, the truth is <bdi>3</bdi>"
    assert report.votes(row | {"share": 1.0}) == [("no box", 10, True)]  # --unboxed answer


def test_held_out_answers_that_changed_come_first_with_the_whole_text(finished, finished_page):
    answers = [read_lines(finished / f"iter{i}" / "heldout.jsonl") for i in range(3)]
    says = finished_page.section(5)
    changed = {rows[0]["question"] for rows in zip(*answers) if len({row["greedy_right"] for row in rows}) > 1}
    shown = re.findall(r"What is \d+ \+ \d+\?", says)
    assert 10 < len(changed) < 30 and {*shown[:len(changed)]} == changed and len(shown) == len(changed) + 10
    for rows in zip(*answers):
        if rows[0]["question"] in shown:
            assert all(row["text"] in says for row in rows)
    assert f"{len(changed)} of the 40 questions with kept texts changed" in says
    first = next(rows for rows in zip(*answers) if rows[0]["question"] == shown[0])
    marks = [f"{name} {'✓' if row['greedy_right'] else '✗'}" for name, row in zip(("base", "iteration 1", "iteration 2"), first)]
    assert re.search(r"\s+".join(map(re.escape, marks)), says)
    assert f"base, {100 * first[0]['right']:.0f} % of samples right" in says


# ---- health

BREAKS = {  # metric: (values of a phase that break a rule, a word of the rule)
    "entropy": [([0.3, 0.01, 0.2], "above 0.02 nats"), ([0.3, 0.5, 1.1], "double")], "kl": [([0, 0.6, 0.1], "below 0.5 nats")],
    "clip_low": [([0, 0.4, 0], "below 30 %")], "clip_high": [([0, 0.4, 0], "below 30 %")], "sampler_kl": [([0, 0.02, 0], "below 0.01 nats")],
    "grad_norm": [([0.1, 0.1, 2], "ten times its median")],
    "completion_tokens": [([20, 40, 70], "triple"), ([70, 40, 20], "a third")],
    "truncated": [([0, 0.3, 0], "below 25 %")], "boxless": [([0, 0.3, 0.6], "below 50 %")],
    "equal_groups": [([0.95, 0.9, 0.95], "below 90 %")], "valid": [([0.9, 0.6, 0.4], "above 50 %")]}


def test_nothing_is_out_of_the_ordinary_in_a_healthy_run(finished, finished_page):
    assert broken_rules(read_run(finished)) == [] and "Nothing is out of the ordinary." in finished_page.section(6)
    assert {metric for metric, *_ in RULES} == BREAKS.keys()


@pytest.mark.parametrize("metric, values, rule", [(metric, *case) for metric, cases in BREAKS.items() for case in cases])
def test_a_broken_rule_is_named(finished, metric, values, rule):
    run = read_run(finished)
    rows = [row for row in run.steps if (row["phase"], row["iteration"]) == ("challenger", 2)][:3]
    for row, value in zip(rows, values):
        row[metric] = value
    run.steps = [row for row in run.steps if row["phase"] != "challenger" or row["iteration"] == 1] + rows
    [sentence] = broken_rules(run)
    assert sentence.startswith(f"Iteration 2, Challenger: {metric} went from {values[0]:.3g} to {values[-1]:.3g} ")
    assert f"(between {min(values):.3g} and {max(values):.3g}); it should" in sentence and rule in sentence
    assert sentence in Page(page([run])).section(6)


# ---- every state of a run

STATES = [
    ((0, "held-out", 0), "Not finished: the base model is not measured yet."),
    ((0, "held-out"), "Not finished: iteration 1 of 2, Challenger, 0 of 4 steps."),
    ((1, "challenger", 2), "Not finished: iteration 1 of 2, Challenger, 2 of 4 steps."),
    ((1, "challenger"), "Not finished: iteration 1 of 2, the pool of questions is being drawn."),
    ((1, "questions"), "Not finished: iteration 1 of 2, Solver, 0 of 5 steps."),
    ((1, "solver", 3), "Not finished: iteration 1 of 2, Solver, 3 of 5 steps."),
    ((1, "solver"), "Not finished: iteration 1 of 2, the Solver is trained and not measured yet."),
    ((1, "held-out"), "Not finished: iteration 2 of 2, Challenger, 0 of 4 steps."),
    ((2, "solver", 1), "Not finished: iteration 2 of 2, Solver, 1 of 5 steps.")]


@pytest.mark.parametrize("until, says", STATES, ids=[" ".join(map(str, until)) for until, _ in STATES])
@pytest.mark.parametrize("heldout", [6, None])
def test_an_unfinished_run_says_where_it_stands(tmp_path, until, says, heldout):
    found = page_of(write_run(tmp_path / "run", until=until, heldout=heldout))
    assert says in found.section(1) and len(found.sections) == 7
    if heldout is None and until[0] == 0 and len(until) == 2:
        assert "has no held-out questions" in found.section(1)
    elif heldout and until == (0, "held-out", 0):
        assert "No held-out question is answered yet." in found.section(1)
    elif heldout and until[0] < 2 and until != (1, "held-out"):
        assert re.search(r"The base model gets [\d.]+ ± [\d.]+ % of 6 held-out questions right; no iteration is finished", found.section(1))
    if until[0] == 0 or until[:2] == (1, "challenger"):
        assert "No pool of questions is drawn yet." in found.section(4)
        assert ("p in iteration 1, % of questions" in found.section(3)) == (until[0] == 1)


def test_a_line_that_is_being_written_is_left_out(finished, tmp_path):
    run = write_run(tmp_path / "run", until=(1, "solver", 3), heldout=6)
    before = page_of(run)
    for file in ("metrics.jsonl", "eval.jsonl"):
        with open(run / file, "a", encoding="utf-8") as out:
            out.write('{"iteration": 1, "phase": "solver", "step": 4, "entro')
    assert page_of(run).text == before.text


def test_a_run_without_held_out_questions(tmp_path):
    found = page_of(write_run(tmp_path / "run", heldout=None))
    assert "has no held-out questions (--heldout)" in found.section(1) and "Not finished" not in found.text
    assert "No held-out questions were answered." in found.section(2)
    assert "holds no answers to held-out questions" in found.section(5)
    assert len(found.tips("Reward of the Challenger")) == 8 and len(found.chips) >= 24


def test_a_challenger_that_failed_in_format(tmp_path):
    found = page_of(fail_in_format(tmp_path / "run"))
    assert "The run ended in iteration 1 of 3: none of the pool's 60 questions was fit to learn from." in found.section(1)
    assert found.tips("Proposals in the right format, %")[-1].endswith("\n0 %")
    assert found.tips("What became of the pool, % of the pool") == [
        "iteration 1, kept: 0 % of the pool", "iteration 1, wrong format: 100 % of the pool"]
    assert "none of 60 proposals had the right format" in found.section(4)
    titles = [title for title, _ in found.charts]
    assert "Mean p of the proposals" not in titles and "p in iteration 1, % of questions" not in titles
    assert found.tips("Reward of the Challenger")[0] == "Challenger's step: 1, iteration 1\nr_Q: 0"
    assert "Iteration 1, Challenger: valid went from 0 to 0 (between 0 and 0); it should end above 50 %" in found.section(6)
    assert "Iteration 1, Challenger: equal_groups went from 1 to 1" in found.section(6)


def test_a_run_on_given_questions_has_no_challenger(tmp_path):
    found = page_of(write_run(tmp_path / "run", train_file="labelled.jsonl"))
    assert "The Challenger made no step." in found.section(3) and "The Solver learns from --train_file." in found.section(3)
    assert "The Solver learns from --train_file." in found.section(4) and "Not finished" not in found.text
    assert len(found.tips("Solver: entropy, nats")) == 10
    unfinished = page_of(write_run(tmp_path / "other", train_file="labelled.jsonl", until=(2, "solver", 3)))
    assert "Not finished: iteration 2 of 2, Solver, 3 of 5 steps." in unfinished.section(1)


def test_a_run_of_an_earlier_version(tmp_path):
    run = age(write_run(tmp_path / "run"))
    found = page_of(run)
    rows = read_lines(run / "eval.jsonl")
    assert f"{100 * (rows[2]['mean'] - rows[0]['mean']):+.1f} points against" in re.sub(r"\s+", " ", found.section(1))
    assert "holds no answers to held-out questions" in found.section(5)
    assert "nor are pools and held-out questions, which this run did not time" in found.section(7)
    assert len(found.chips) >= 24 and not any(" = " in chip for chips in found.chips for chip in chips)
    assert found.tips("Solver: completions, %")[0].count("\n") == 1  # boxless is not known


def test_values_that_are_not_finite_are_left_out_and_named(tmp_path):
    run = write_run(tmp_path / "run")
    nan, inf = float("nan"), float("inf")
    edit(run / "metrics.jsonl", lambda row: row | {"entropy": nan, "reward": inf, "seconds": nan, "tokens": None, "peak_memory_gb": nan}
         if (row["iteration"], row["phase"]) == (1, "challenger") else row)
    edit(run / "eval.jsonl", lambda row: row | {"greedy": nan, "greedy_ci": nan, "mean_ci": None, "share": None}
         if row["iteration"] == 1 else row | {"mean": nan} if row["iteration"] == 2 else row)
    markup = page([read_run(run)])
    found = Page(markup)
    assert not re.search(r'[" ]-?(nan|inf)\b', markup) and "NaN" not in found.text
    assert "Iteration 1, Challenger: entropy is not a finite number in some step; it should be one." in found.section(6)
    assert len(found.tips("Challenger: entropy, nats")) == 4
    assert re.fullmatch(r"iteration: 1\nsampled: [\d.]+ %", found.tips("Held-out accuracy, %")[1])
    assert found.section(1).split("gets")[0].endswith("After iteration 1 the Solver ")


def test_a_folder_with_its_settings_alone(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    found = page_of(tmp_path)
    assert len(found.sections) == 7 and not found.charts and "the base model is not measured yet" in found.section(1)
    for number, says in enumerate(("", "", "No held-out questions were answered", "The Challenger made no step.", "No pool of questions",
                                   "holds no answers", "No step is made yet", "No time was counted")):
        assert number < 2 or says in found.section(number)


def test_files_without_a_row(tmp_path):
    run = write_run(tmp_path / "run", until=(1, "solver"), heldout=6)
    for file in ("metrics.jsonl", "eval.jsonl", "iter1/questions.jsonl"):
        (run / file).write_text("")
    found = page_of(run)
    assert "the base model is not measured yet" in found.section(1) and "What became of the pool, % of the pool" not in found.section(3)
    assert "none of 0 proposals had the right format" in found.section(4) and "base" in found.section(5)


# ---- several runs


def test_several_runs_are_laid_over_one_another(finished, tmp_path):
    other = write_run(tmp_path / "untrained", challenger_steps=0, keep_low=0.3)
    found = page_of(finished, other)
    labels = ["challenger_steps 4, keep_low 0.25", "baseline: challenger_steps 0, keep_low 0.3"]
    evals = [read_lines(run / "eval.jsonl") for run in (finished, other)]
    for metric, title in (("mean", "sampled"), ("greedy", "greedy")):
        assert found.tips(f"Held-out accuracy, {title}, %") == ["\n".join([
            f"iteration: {i or 'base'}",
            *(f"{label}: {100 * rows[i][metric]:.4g} ± {100 * rows[i][metric + '_ci']:.2g} %" for label, rows in zip(labels, evals))])
            for i in range(3)]
    assert found.tips("Solver: clipped tokens, high, %")[0].startswith(f"Solver's step: 1, iteration 1\n{labels[0]}: ")
    assert found.tables[0][0] == ["setting", *labels]
    assert ["keep_low", "0.25", "0.3"] in found.tables[0] and ["challenger_steps", "4", "0"] in found.tables[0]
    assert found.text.count(labels[1]) >= 8 and len(found.sections) == 7
    assert sum(title == "Where the time went, minutes" for title, _ in found.charts) == 2
    assert found.tips("Challenger: entropy, nats")[0].count("\n") == 1  # the baseline's made no step


def test_the_line_of_a_baseline_is_dashed(finished, tmp_path):
    runs = [read_run(finished), read_run(write_run(tmp_path / "untrained", challenger_steps=0))]
    assert "line dash" not in page(runs[:1])
    markup = page(runs).partition("Held-out accuracy, sampled")[2].partition("</svg>")[0]
    assert re.findall(r'<path class="(line(?: dash)?)" d="M\d', markup) == ["line", "line dash", "line", "line dash"]  # legend, then lines


@pytest.mark.parametrize("places, settings, labels", [
    (("a", "b"), ({"seed": 0}, {"seed": 1}), ["seed 0", "seed 1"]),
    (("a", "b"), ({}, {}), ["a", "b"]),
    (("x/a", "y/a"), ({}, {}), ["x/a", "y/a"]),
    (("a", "b"), ({"heldout": "x" * 50}, {"heldout": "y"}), ["a", "b"])])
def test_runs_are_named_by_what_differs_else_by_their_folders(tmp_path, monkeypatch, places, settings, labels):
    monkeypatch.chdir(tmp_path)
    runs = []
    for place, own in zip(places, settings):
        os.makedirs(place)
        write_lines(tmp_path / place / "config.json", [own | {"out": place}])
        runs.append(read_run(place))
    report.label_runs(runs)
    assert [run.label for run in runs] == labels


# ---- what anyone wrote cannot script the page

HOSTILE = ('</script><script>window.hacked = 1; document.title = "hacked"</script>',
           '<img src=x onerror="window.hacked = 1">', '</svg><svg onload="window.hacked = 1">', '" onmouseover="window.hacked = 1" x="',
           "' autofocus onfocus='window.hacked = 1' '", '<a href="javascript:window.hacked = 1">x</a>', "</style><style>* { display: none }",
           "<!-- -- >", "-->", "]]>", "$title $own ${body} $$", "&lt;script&gt; &amp;amp; &#60;", "half \ud800 a pair \udfff", "\u202eright to left\u202d",
           "nul \0 and \x1b[31m \x7f\x9f \ufffe", "x" * 1_000_000, "<iframe src='https://example.org'></iframe>", "{{7*7}} \\boxed{\\frac{1}{2}}")


def hostile_run(path):
    """A run in which every text that a model or a user may choose is hostile."""
    run = write_run(path, pool=len(HOSTILE), heldout=len(HOSTILE), model=HOSTILE[0], task="".join(HOSTILE), context=HOSTILE[2])
    for file in run.glob("iter*/questions.jsonl"):
        write_lines(file, [row | {"question": text, "answers": [text] * 7 + [None] * 3, "groups": [0] * 7 + [None] * 3, "proposed": text,
                                  "majority": text, "share": 0.7, "dropped": None, "truth": text, "label_right": False}
                           for row, text in zip(read_lines(file), HOSTILE)])
    for file in run.glob("iter*/heldout.jsonl"):
        write_lines(file, [row | {"question": text, "gold": text, "text": text[:4000], "greedy_answer": text, "level": text[:200]}
                           for row, text in zip(read_lines(file), HOSTILE)])
    return run


def test_hostile_text_is_escaped_and_capped(tmp_path):
    runs = [hostile_run(tmp_path / ("<img src=x onerror=alert(1)>" + "\udcff")), write_run(tmp_path / '"><script>alert(1)<', seed=1)]
    for chosen in (runs[:1], runs):
        markup = page([read_run(run) for run in chosen])
        (tmp_path / "page.html").write_text(markup, encoding="utf-8")  # raises where it is not UTF-8
        found = Page(markup)
        plain = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "h4", "section", "p", "b", "ul", "li", "bdi", "details", "summary",
                 "table", "thead", "tbody", "tr", "th", "td", "button", "div", "span", "figure", "svg", "text", "path", "rect", "circle", "g", "article", "script"}
        assert {*found.elements} <= plain and found.elements["script"] == found.elements["style"] == 1
        assert not [name for name in found.attributes if name.startswith("on") or name in ("href", "src", "style", "autofocus")]
        assert len(markup) < 600_000 and not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]", markup)
        assert HOSTILE[0] in found.section(4) and HOSTILE[1] in found.section(5) and HOSTILE[10] in found.section(4)
        for svg_text in re.findall("<svg.*?</svg>", markup):
            ElementTree.fromstring(svg_text)


def test_the_picture_is_well_formed_whatever_the_runs_are_called(tmp_path, monkeypatch):
    run = write_run(tmp_path / "a<&\x01\udcff")
    monkeypatch.setattr(sys, "argv", ["report.py", str(run), str(write_run(tmp_path / "b", seed=1)), "--svg", str(tmp_path / "picture.svg")])
    main()
    root = ElementTree.parse(tmp_path / "picture.svg").getroot()
    assert len([one for one in root.iter() if one.get("class") == "title"]) == 6


def test_the_page_names_no_other_place(finished):
    markup = page([read_run(finished)])
    assert not re.search(r"https?://|//[a-z]|url\(|@import|<link|<img|src=|href=", markup)
    assert "default-src 'none'" in markup


# ---- size, and the command


@pytest.mark.slow
def test_a_run_of_the_papers_scale_is_a_small_page_made_soon(tmp_path):
    run = write_run(tmp_path / "run", pool=8_000, heldout=500, iterations=3, challenger_steps=400, solver_steps=1_000)
    question, answer = "A long question with words. " * 60, "An answer of words "  * 220
    for file in run.glob("iter*/questions.jsonl"):
        edit(file, lambda row: row if row["question"] is None else row | {"question": question + row["question"]})
    for file in run.glob("iter*/heldout.jsonl"):
        edit(file, lambda row: row | {"question": question + row["question"], "text": answer[:4000 - len(row["text"])] + row["text"]})
    start = time.process_time()
    report.write_page([run], tmp_path / "page.html")
    assert time.process_time() - start < 10
    assert (tmp_path / "page.html").stat().st_size < 5e6
    found = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(found.chips) == 36 and answer[:3000] in found.section(5)
    assert 300 <= len(found.tips("Solver: entropy, nats")) <= 400


def test_the_command(finished, tmp_path, monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["report.py", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    other = write_run(finished.parent / "other", seed=1, heldout=6)
    assert call(finished).startswith(f"{finished}/report.html, ") and (finished / "report.html").is_file()
    assert call(finished, other).startswith(f"{finished.parent}/compared.html, ")
    assert call(finished, "--out", tmp_path / "x.html").startswith(f"{tmp_path}/x.html, ")
    assert Page((tmp_path / "x.html").read_text(encoding="utf-8")).text == Page((finished / "report.html").read_text(encoding="utf-8")).text


@pytest.mark.parametrize("content, says", [
    (None, "report.py: '{folder}' is not a run folder: it has no config.json"),
    ("{", "report.py: {folder}/config.json is not valid JSON"), ("[]", "report.py: {folder}/config.json does not hold a JSON object")])
def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path, monkeypatch, content, says):
    if content:
        (tmp_path / "config.json").write_text(content)
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path)])
    with pytest.raises(SystemExit) as error:
        main()
    assert str(error.value.code).startswith(says.format(folder=tmp_path)) and "\n" not in error.value.code
    assert not (tmp_path / "report.html").exists()


# ---- the charts


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
