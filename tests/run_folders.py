"""Run folders made by hand, as a run writes them, and what a page says of them, for the tests of report.py."""

import json
from collections import Counter
from dataclasses import asdict, replace
from html.parser import HTMLParser

import numpy as np

from common import mean_and_ci, read_lines, write_lines
from folder import read_run
from report import page
from rzero import PRESETS

STEPS = {"challenger": 4, "solver": 5}


def settings(**changes):
    """What config.json holds of a short run on the toy task."""
    short = replace(PRESETS["tiny"], iterations=2, challenger_steps=STEPS["challenger"], solver_steps=STEPS["solver"])
    return asdict(short) | changes


def cost(rng, iteration, phase, step, **parts):
    """The part of a row of metrics.jsonl that every phase has."""
    seconds = sum(parts.values()) + rng.uniform(0, 1)
    tokens = float(rng.integers(1_000, 90_000))
    return {"iteration": iteration, "phase": phase, "step": step, **parts, "tokens": tokens, "seconds": seconds,
            "tokens_per_second": tokens / seconds, "peak_memory_gb": rng.uniform(0.5, 0.6)}


def step_row(rng, iteration, phase, step):
    """A healthy GRPO step's row of metrics.jsonl."""
    row = {"reward": rng.uniform(0.2, 0.4), "reward_std": 0.3, "equal_groups": rng.uniform(0, 0.3),
           "advantage_min": -1.5, "advantage_max": 1.5, "share": rng.uniform(0.4, 0.8), "boxless": rng.uniform(0, 0.1),
           "completion_tokens": rng.uniform(20, 30), "completion_tokens_max": int(rng.integers(40, 90)),
           "truncated": rng.uniform(0, 0.05), "loss": -0.01, "kl": rng.uniform(0, 0.01), "clip_low": rng.uniform(0, 0.1),
           "clip_high": rng.uniform(0, 0.1), "clip_dual": 0.0, "entropy": rng.uniform(0.3, 0.5),
           "sampler_kl": rng.uniform(0, 1e-12), "grad_norm": rng.uniform(0.1, 0.2), "update_tflops": 0.01}
    parts = {"update_seconds": rng.uniform(2, 3), "answering_seconds": rng.uniform(3, 9)}
    if phase == "challenger":
        parts["asking_seconds"] = rng.uniform(1, 2)
        counts = rng.integers(0, 20, 11)
        row |= {"valid": rng.uniform(0.8, 1), "share_counts": counts.tolist(), "agreement": 0.3,
                "uncertainty": rng.uniform(0.3, 0.5), "penalty": rng.uniform(0, 0.1), "clusters": 14}
    return cost(rng, iteration, phase, step, **parts) | row


def pool_row(rng, question, truth):
    """A question, and a vote in which equal values may be written in two ways."""
    values = [truth + int(error) for error in rng.geometric(rng.uniform(0.2, 1), 10) - 1]
    answers = [None if rng.random() < 0.1 else str(value) + ".0" * bool(rng.random() < 0.3) for value in values]
    groups = [None if answer is None else values.index(value) for answer, value in zip(answers, values)]
    # Where the first of a value has no box, the next one stands for it.
    groups = [None if one is None else next(i for i, other in enumerate(groups) if other == one) for one in groups]
    counts = Counter(group for group in groups if group is not None)
    winner, count = counts.most_common(1)[0] if counts else (None, 0)
    majority = None if winner is None else answers[winner]
    dropped = "no answer" if majority is None else None if 3 <= count <= 7 else "too easy" if count > 7 else "too hard"
    return {"question": question, "proposed": str(truth), "answers": answers, "majority": majority, "share": count / 10,
            "dropped": dropped, "groups": groups, "truth": str(truth),
            "label_right": majority is not None and float(majority) == truth}


NO_QUESTION = {"question": None, "proposed": None, "answers": [], "majority": None, "share": 0.0,
               "dropped": "wrong format", "groups": [], "truth": None, "label_right": False}


def pool_rows(rng, count, iteration):
    """A pool whose every fourth question was asked in all earlier iterations, and every ninth has no question."""
    asked = [f"What is {iteration * (i % 4 > 0) + 1} + {i}?" for i in range(count)]
    truths = [iteration * (i % 4 > 0) + 1 + i for i in range(count)]
    return [NO_QUESTION if i % 9 == 8 else pool_row(rng, *both) for i, both in enumerate(zip(asked, truths))]


def heldout_rows(rng, count, iteration):
    """Answers to the same held-out questions, better in each iteration."""
    rows = []
    for i in range(count):
        right = rng.binomial(16, min(0.9, 0.2 + 0.2 * iteration)) / 16
        greedy = (7 * i % 40 < 8 + 8 * iteration) != (i == 3 and iteration == 2)
        answer = str(2 * i if greedy else 2 * i + 1)
        rows.append({"question": f"What is {i} + {i}?", "gold": str(2 * i), "right": right, "greedy_answer": answer,
                     "greedy_right": greedy, "tokens": 400, "level": 1 + i % 3,
                     "text": f"Iteration {iteration} adds {i} and {i}.\nThe answer is \\boxed{{{answer}}}."})
    return rows


def measured(iteration, pools, answers):
    """A row of eval.jsonl."""
    row = {"iteration": iteration}
    if answers:
        (mean, mean_ci), (greedy, greedy_ci) = (mean_and_ci([one[key] for one in answers])
                                                for key in ("right", "greedy_right"))
        row |= {"mean": mean, "mean_ci": mean_ci, "greedy": greedy, "greedy_ci": greedy_ci,
                "completion_tokens": 27.9, "worked": 0.8}
    if iteration in pools:
        pool, earlier = pools[iteration], {one["question"] for i in range(1, iteration) for one in pools[i]}
        kept, asked = [one for one in pool if not one["dropped"]], [one for one in pool if one["question"]]
        counts = Counter(one["dropped"] for one in pool if one["dropped"])
        row |= {"kept": len(kept), "pool": len(pool), "valid": len(asked) / len(pool),
                "share": float(np.mean([one["share"] for one in asked])) if asked else 0.0,
                "dropped": {reason: count / len(pool) for reason, count in counts.items()},
                "new": float(np.mean([one["question"] not in earlier for one in asked])) if asked else None,
                "label_accuracy": float(np.mean([one["label_right"] for one in kept])) if kept else None}
    return row


def write_run(path, until=None, pool=60, heldout=40, seed=0, **changes):
    """Writes a run folder up to a point of its life -> its path. until: (iteration, phase, how many of its steps) of an
    unfinished phase, or (iteration, phase) of the last finished one; the end by default. heldout: how many held-out
    questions there are, or None for a run without."""
    rng, cfg = np.random.default_rng(seed), settings(out=str(path), seed=seed, **changes)
    if heldout is None:
        cfg["heldout"] = ""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(cfg))
    phases = [(0, "held-out"), *((i, phase) for i in range(1, cfg["iterations"] + 1) for phase in
                                 ("challenger", "questions", "solver", "held-out"))]
    if cfg["train_file"]:
        phases = [one for one in phases if one[1] in ("solver", "held-out")]
    metrics, evals, pools = [], [], {}
    for iteration, phase in phases:
        unfinished = until is not None and until[:2] == (iteration, phase) and until[2:]
        folder = path / f"iter{iteration}"
        if phase in STEPS:
            steps = until[2] if unfinished else cfg[f"{phase}_steps"]
            metrics += [step_row(rng, iteration, phase, step) for step in range(1, steps + 1)]
            if not unfinished:
                (folder / phase).mkdir(parents=True)
        elif phase == "questions" and not unfinished:
            pools[iteration] = pool_rows(rng, pool, iteration)
            folder.mkdir(exist_ok=True)
            write_lines(folder / "questions.jsonl", pools[iteration])
            metrics.append(cost(rng, iteration, phase, 1, asking_seconds=2.5, answering_seconds=4.0))
        elif phase == "held-out" and not unfinished:
            rows = heldout_rows(rng, heldout, iteration) if heldout else []
            if rows:
                folder.mkdir(exist_ok=True)
                write_lines(folder / "heldout.jsonl", rows)
                metrics.append(cost(rng, iteration, phase, 1, answering_seconds=8.0))
            evals.append(measured(iteration, pools, rows))
        if until is not None and until[:2] == (iteration, phase):
            break
    write_lines(path / "metrics.jsonl", metrics)
    write_lines(path / "eval.jsonl", evals)
    return path


def edit(file, change):
    """Rewrites each row of a JSONL file as change(row)."""
    write_lines(file, [change(row) for row in read_lines(file)])


def fail_in_format(path):
    """Writes a run whose Challenger never asked in the right format, and which ended for want of questions."""
    write_run(path, until=(1, "questions"), iterations=3)
    nothing = {"valid": 0.0, "share": 0.0, "share_counts": [0] * 11, "agreement": 0.0, "boxless": 0.0, "reward": 0.0,
               "reward_std": 0.0, "equal_groups": 1.0, "clusters": 0}
    edit(path / "metrics.jsonl", lambda row: {key: value for key, value in (row | nothing).items()
                                              if key not in ("uncertainty", "penalty")}
         if row["phase"] == "challenger" else row)
    edit(path / "iter1" / "questions.jsonl", lambda row: NO_QUESTION)
    return path


def age(path):
    """Takes from a run folder what an earlier version did not write."""
    for file in path.glob("iter*/heldout.jsonl"):
        file.unlink()
    for file in path.glob("iter*/questions.jsonl"):
        edit(file, lambda row: {key: value for key, value in row.items() if key not in ("groups", "label_right")})
    write_lines(path / "metrics.jsonl", [{key: value for key, value in row.items() if key != "boxless"}
                                         for row in read_lines(path / "metrics.jsonl") if row["phase"] in STEPS])
    return path


# ---- what a page says

VOID = {"meta", "path", "rect", "circle", "br"}


class Page(HTMLParser):
    """The parts of a page. text: all that is read. sections: {heading: its text}. charts: [(title, what the pointer
    shows of its marks)]. tables: [rows of cells], the head first. chips: the answers of each question. elements: how
    many there are of each name. attributes: the names of all of them."""

    def __init__(self, markup):
        super().__init__()
        self.text, self.charts, self.tables, self.chips, self.elements = "", [], [], [], Counter()
        self.attributes, self.sections, self.heading, self.path = Counter(), {}, "", []
        self.feed(markup)
        assert self.path == [], f"not closed: {self.path}"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements[tag] += 1
        self.attributes.update(attributes.keys())
        if tag not in VOID:
            self.path.append((tag, attributes.get("class")))
        if tag == "svg":
            self.charts.append(["", []])
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "h2":
            self.heading = ""
        elif tag == "article":
            self.chips.append([])
        elif tag == "li" and self.chips:
            self.chips[-1].append("")
        if "data-tip" in attributes:
            self.charts[-1][1].append(attributes["data-tip"])

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self.path.pop()[0] == tag

    def handle_data(self, data):
        names = [name for name, _ in self.path]
        if names and names[-1] in ("script", "style"):
            return
        self.text += data
        if names and names[-1] == "h2":
            self.heading += data
            self.sections[self.heading] = ""
        elif self.heading:
            self.sections[self.heading] += data + " "
        if self.path and self.path[-1] == ("text", "title"):
            self.charts[-1][0] += data
        if "td" in names or "th" in names:
            self.tables[-1][-1][-1] += data
        elif "li" in names and self.chips:
            self.chips[-1][-1] += data

    def section(self, number):
        return next(words for heading, words in self.sections.items() if heading.startswith(f"{number}."))

    def tips(self, title):
        """What the pointer shows of the marks of the one chart with this title."""
        found = [tips for name, tips in self.charts if name == title]
        assert len(found) == 1, f"{len(found)} of {title!r} in {[name for name, _ in self.charts]}"
        return found[0]


def page_of(*folders):
    """The `Page` of run folders."""
    return Page(page([read_run(folder) for folder in folders]))
