"""The page of a run: its numbers are those of the folder."""

import re
from collections import Counter

import numpy as np
import pytest
from run_folders import NO_QUESTION, STEPS, Page, page_of, write_run

import report
from charts import histogram
from common import mean_and_ci, read_json, read_lines
from folder import read_run, words
from report import RULES, broken_rules, page


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
