"""A run folder in, one page out: what two models did to one another, to be looked at.

    python report.py runs/tiny                       writes runs/tiny/report.html; a run does so after each iteration
    python report.py runs/tiny runs/untrained        several runs, laid over one another, into runs/compared.html
    python report.py runs/tiny --svg picture.svg     its three first charts as a picture

The page holds all that it shows, and asks the network for nothing. Runs that are not finished, or lack a part, are
shown as far as they go. Whatever a model wrote is escaped, and the page runs no script but its own."""

import base64
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from string import Template

import numpy as np

from charts import STYLE, grid, histogram, line_chart, note, picture, stacked_bars, table, text
from common import Parser, evenly_spaced, mean_and_ci, write_whole
from folder import percent as plain_percent
from folder import read_run, shortened, words


def label_runs(runs):
    """Names runs by the settings in which they differ, or where these are too many by their folders -> the settings."""
    names = dict.fromkeys(name for run in runs for name in run.config if name != "out")
    differ = [name for name in names if len({json.dumps(run.config.get(name)) for run in runs}) > 1]
    labels = [", ".join(f"{name} {run.config.get(name, '(none)')}" for name in differ) for run in runs]
    if len({*labels}) < len(runs) or max(map(len, labels)) > 40:
        labels = [run.path.name for run in runs]
    if len({*labels}) < len(runs):
        labels = [str(run.path) for run in runs]
    for run, label in zip(runs, labels):
        run.label = ("baseline: " if run.is_baseline and len(runs) > 1 else "") + label
    return differ


# ---- small pieces of HTML


def percent(value, interval=None):
    return plain_percent(value, interval).replace("+-", "±")


def short(value, most=60):
    """What anyone wrote, as HTML of at most about `most` characters, whose direction of writing stays its own."""
    return f"<bdi>{text(shortened(str(value), most))}</bdi>"


def each(runs, content):
    """What `content` says of each run, under its name where there are several."""
    return "".join((f"<h3>{text(run.label)}</h3>" if len(runs) > 1 else "") + content(run) for run in runs)


def rounded(value):
    return "-" if value is None else f"{value:,.0f}"


# ---- 1. the result


def result(run):
    """One sentence: how much better than its base the last Solver is."""
    measured = [row for row in run.evals if row.get("mean") is not None]
    if not measured:
        return "No held-out question is answered yet." if run.config.get("heldout") and not run.evals else \
            "The run has no held-out questions (--heldout), so nothing says whether the Solver became better."
    base, last = measured[0], measured[-1]
    count = f" of {len(run.answers[last['iteration']])} held-out questions" if last["iteration"] in run.answers else ""
    now = f"{percent(last['mean'], last['mean_ci'])} %{count} right"
    if last is base:
        return f"The base model gets {now}; no iteration is finished."
    gain, ci = 100 * (last["mean"] - base["mean"]), None
    if {base["iteration"], last["iteration"]} <= run.answers.keys():
        pairs = zip(run.answers[base["iteration"]], run.answers[last["iteration"]])
        gain, ci = mean_and_ci([100 * (after["right"] - before["right"]) for before, after in pairs])
    interval = "" if ci is None else f" (95 % interval, same questions: {gain - ci:+.1f} to {gain + ci:+.1f})"
    return (f"After iteration {last['iteration']} the Solver gets {now}: <b>{gain:+.1f} points</b>{interval} "
            f"against its base model's {percent(base['mean'])} %.")


def state(run):
    """Where a run stands that is not finished; empty if it is."""
    total, i = run.config.get("iterations", 0), 1 + max((row["iteration"] for row in run.evals), default=-1)
    if i > total:
        return ""
    if i == 0:
        return "Not finished: the base model is not measured yet."
    here, folder = f"iteration {i} of {total}", run.path / f"iter{i}"
    if (folder / "solver").exists():
        return f"Not finished: {here}, the Solver is trained and not measured yet."
    pool, label = run.pools.get(i), run.config.get("labels", "majority")
    if pool and not any(row["dropped"] is None and row.get(label) is not None for row in pool):
        return f"The run ended in {here}: none of the pool's {len(pool):,} questions was fit to learn from."
    if not pool and not run.is_given and (folder / "challenger").exists():
        return f"Not finished: {here}, the pool of questions is being drawn."
    role = "solver" if pool or run.is_given else "challenger"
    return f"Not finished: {here}, {role.title()}, {len(run.of(role, i))} of {run.config.get(f'{role}_steps')} steps."


SETTINGS = ("model", "task", "seed", "iterations", "challenger_steps", "challenger_prompts", "challenger_rollouts",
            "challenger_lr", "answers", "pool", "keep_low", "keep_high", "solver_steps", "solver_prompts",
            "solver_rollouts", "solver_lr", "labels", "kl_coef", "max_question_tokens", "max_answer_tokens")


def first_section(runs, differ):
    def rows(names):
        return [[text(name), *(short(run.config.get(name, "-"), 200) for run in runs)] for name in names]

    head = ["setting", *(run.label if len(runs) > 1 else "value" for run in runs)]
    shared = [name for name in SETTINGS if name not in differ and name in runs[0].config]
    others = sorted({name for run in runs for name in run.config} - {*shared, *differ})
    return (each(runs, lambda run: f'<p class="result">{result(run)}</p>' + (note(state(run)) if state(run) else ""))
            + (table(head, rows(differ)) if differ else "") + '<ul class="chips">'
            + "".join(f"<li>{name} <b>{short(runs[0].config[name])}</b></li>" for name in shared)
            + f"</ul><details><summary>All other settings</summary>{table(head, rows(others))}</details>")


# ---- 2. held-out accuracy


def overlaid(title, runs, keys, points, *axis, **more):
    """Charts of points(run, key) for metrics {key: what it is called}: of one run a chart with a line for each metric,
    of several runs a chart for each metric, with a line for each run; a baseline's is dashed."""
    if len(runs) == 1:
        lines = [(what, i, False, points(runs[0], key)) for i, (key, what) in enumerate(keys.items())]
        return [line_chart(title, lines, *axis, **more)]
    return [line_chart(", ".join(filter(None, (title, what))), [(run.label, i, run.is_baseline, points(run, key))
                                                               for i, run in enumerate(runs)], *axis, **more)
            for key, what in keys.items()]


def accuracy_charts(runs):
    def after(run, key):
        return [(row["iteration"], 100 * row[key], 100 * (row.get(f"{key}_ci") or 0)) for row in run.evals
                if row.get(key) is not None]

    return overlaid("Held-out accuracy", runs, {"mean": "sampled", "greedy": "greedy"}, after, "iteration", "%",
                    names={0: "base"})


def name_of(iteration):
    return f"iteration {iteration}" if iteration else "base"


def levels(rows):
    """{level: (accuracy of the samples, half-width of its interval)}, in percent, of held-out answers."""
    found = {}
    for row in rows:
        if row.get("level") is not None:
            found.setdefault(row["level"], []).append(100 * row["right"])
    return {level: mean_and_ci(right) for level, right in found.items()}


def level_chart(runs):
    """Accuracy by level: of each Solver of one run, or of the last of several."""
    by_level = [(name_of(i), levels(rows)) for i, rows in runs[0].answers.items()] if len(runs) == 1 else \
        [(run.label, levels(run.answers[max(run.answers)])) for run in runs if run.answers]
    all_levels = sorted({level for _, found in by_level for level in found}, key=lambda x: (isinstance(x, str), x))
    series = [(label, i, False, [(x, *found[level]) for x, level in enumerate(all_levels) if level in found])
              for i, (label, found) in enumerate(by_level)]
    return line_chart("Accuracy by level", series, "level", "%", {x: str(one)[:12] for x, one in enumerate(all_levels)})


def heldout_section(runs):
    charts = grid([*accuracy_charts(runs), level_chart(runs)], "No held-out questions were answered.")
    def rows(run):
        return [["base" if not row["iteration"] else row["iteration"], percent(row.get("mean"), row.get("mean_ci")),
                 percent(row.get("greedy"), row.get("greedy_ci")), percent(row.get("label_accuracy")),
                 percent(row.get("share")), percent(row["kept"] / row["pool"] if "kept" in row else None),
                 percent(row.get("new")), percent(row.get("worked")), rounded(row.get("completion_tokens"))]
                for row in run.evals]

    head = ["iteration", "held-out mean", "greedy", "labels right", "mean p", "kept", "new", "worked", "tokens"]
    return charts + each(runs, lambda run: table(head, rows(run))) + note(
        "Percent, with 95 % intervals over questions. Labels right: of the kept questions, where the truth is known. "
        "Mean p, kept, new: of the pool. Worked: answers of more than one line. Tokens: mean of an answer.")


# ---- 3. the Challenger


def over_steps(title, runs, phase, keys, scale=1, unit=""):
    """Charts of metrics {key: what it is called} over the steps of a phase in all iterations."""
    def by_step(run, key):
        return [(i, scale * row[key], 0) for i, row in enumerate(run.of(phase), 1) if row.get(key) is not None
                and (key != "share" or row.get("valid") != 0)]  # without a question there is no p

    starts = [{i: name_of(row["iteration"]) for i, row in enumerate(run.of(phase)) if row["step"] == 1} for run in runs]
    longest = max(starts, key=len)
    marks = longest if all(one.items() <= longest.items() for one in starts) else {}
    return overlaid(title, runs, keys, by_step, f"{phase.title()}'s step", unit, marks=marks)


def reward_charts(runs):
    return over_steps("Reward of the Challenger", runs, "challenger",
                      {"reward": "r_Q", "uncertainty": "r_unc", "penalty": "r_rep"})


def share_charts(run):
    """The distribution of p in each iteration: in the Challenger's first step, and in the pool that it asks at last."""
    band, charts = (run.config.get("keep_low", 0), run.config.get("keep_high", 1)), []
    for iteration in sorted({row["iteration"] for row in run.of("challenger")} | run.pools.keys()):
        first = run.of("challenger", iteration)[:1]
        shares = [row["share"] for row in run.pools.get(iteration, ()) if row["question"] is not None]
        sets = {"first step": first[0].get("share_counts", []) if first else [],
                "pool": np.bincount(np.rint(10 * np.array(shares)).astype(int), minlength=11) if shares else []}
        charts.append(histogram(f"p in iteration {iteration}", sets, band))
    return charts


def drop_chart(run):
    rows = [(name_of(i), Counter(row["dropped"] or "kept" for row in pool)) for i, pool in run.pools.items() if pool]
    shares = [(name, {one: 100 * counts[one] / counts.total() for one in ("kept", *counts)}) for name, counts in rows]
    return stacked_bars("What became of the pool", shares, "% of the pool", first="kept")


def no_pool(run):
    return "The Solver learns from --train_file." if run.is_given else "No pool of questions is drawn yet."


def challenger_section(runs):
    charts = [*reward_charts(runs),
              *over_steps("Proposals in the right format", runs, "challenger", {"valid": ""}, 100, "%"),
              *over_steps("Mean p of the proposals", runs, "challenger", {"share": ""})]
    return grid(charts, "The Challenger made no step.") + each(runs, lambda run: grid(
        [*share_charts(run), drop_chart(run)], no_pool(run))) + note(
        "r_Q: the mean reward of a step's proposals; r_unc, uncertainty, and r_rep, penalty, are the means of its "
        "parts over those in the right format. p: the share of the Solver's answers that are the majority. The band "
        "holds the p that the Solver learns from. The first step shows the Challenger before its phase, answered by "
        "the Solver as the last iteration left it; the pool shows it afterwards. Dotted lines: an iteration begins.")


# ---- 4. the questions


def votes(row):
    """[(answers counted together, how many, whether they won)] of a question, the most frequent first."""
    found = {}
    for answer, group in zip(row["answers"], row.get("groups", row["answers"])):
        found.setdefault(group, []).append(answer)
    ordered = sorted(found.values(), key=len, reverse=True)
    return [(" = ".join(map(str, dict.fromkeys(group))) if group[0] is not None else "no box", len(group),
             row["majority"] in group and row["share"] > 0) for group in ordered]


def label_of(row):
    """What is to be said of a question's label, as HTML; with the truth where it is known."""
    label = "no label" if row["majority"] is None else f"label {short(row['majority'])}"
    if row.get("truth") is None:
        return label + (", not well posed" if "truth" in row else "")
    if row.get("label_right", row["majority"] == row["truth"]):  # a run of an earlier version has no verdict
        return f'{label} is <span class="right">true</span>'
    false = "" if row["majority"] is None else ' is <span class="wrong">false</span>'
    return f"{label}{false}, the truth is {short(row['truth'])}"


def question_card(row, asked_in):
    chips = "".join(f'<li{" class=won" if won else ""}>{short(answer)} <b>&times;{n}</b></li>'
                    for answer, n, won in votes(row))
    tags = [label_of(row), f"p&nbsp;=&nbsp;{row['share']:.2g}", row["dropped"] or "kept",
            f"asked in iteration {asked_in}" if asked_in else "new"]
    return (f'<article><p class="model">{text(shortened(row["question"], 1000))}</p><ul class="chips">{chips}</ul>'
            f'<p class="tags">{" &middot; ".join(tags)}</p></article>')


def questions_of(run):
    asked_in, parts = {}, []
    for iteration, pool in run.pools.items():
        rows = sorted((row for row in pool if row["question"] is not None), key=lambda row: row["share"])
        low, high = run.config.get("keep_low", 0), run.config.get("keep_high", 1)
        kinds = {"easy": [row for row in rows if row["share"] > high + 1e-9],
                 "edge": [row for row in rows if low - 1e-9 <= row["share"] <= high + 1e-9],
                 "hard": [row for row in rows if row["share"] < low - 1e-9]}
        new = np.mean([words(row["question"]) not in asked_in for row in rows]) if rows else 0
        says = f"{len(rows)} of {len(pool)} in the right format; {100 * new:.0f} % of them new" if rows else \
            f"none of {len(pool)} proposals had the right format"
        most = next(n for n in range(4, 13) if n == 12 or sum(min(n, len(some)) for some in kinds.values()) >= 12)
        cards = "".join(f'<h4>{kind} ({len(some)})</h4><div class="cards">' + "".join(
            question_card(row, asked_in.get(words(row["question"]))) for row in evenly_spaced(some, most)) + "</div>"
            for kind, some in kinds.items() if some)
        parts.append(f"<details open><summary>Iteration {iteration}: {says}</summary>{cards}</details>")
        for row in rows:
            asked_in.setdefault(words(row["question"]), iteration)
    return "".join(parts) or note(no_pool(run))


# ---- 5. the same question, answered by each Solver


def answers_of(run, most=40):
    models = [name_of(i) for i in run.answers]
    if not models:
        return note("The run holds no answers to held-out questions.")
    questions = [rows for rows in zip(*run.answers.values()) if all("text" in row for row in rows)]
    changed = [rows for rows in questions if len({row["greedy_right"] for row in rows}) > 1]
    same = [rows for rows in questions if len({row["greedy_right"] for row in rows}) == 1]
    cards = []
    for rows in [*evenly_spaced(changed, most - 10), *evenly_spaced(same, 10)]:
        verdicts = [("right", "&check;") if row["greedy_right"] else ("wrong", "&cross;") for row in rows]
        marks = "".join(f'<span class="{style}">{name} {mark}</span>' for name, (style, mark) in zip(models, verdicts))
        columns = "".join(f'<div><h4>{name}, {100 * row["right"]:.0f} % of samples right</h4>'
                          f'<p class="model">{text(row["text"])}</p></div>' for name, row in zip(models, rows))
        cards.append(f'<details{"" if cards else " open"}><summary>{short(rows[0]["question"], 600)} <span '
                     f'class="tags">truth {short(rows[0]["gold"])}</span> {marks}</summary><div class="cards">{columns}'
                     '</div></details>')
    return "".join(cards) + note(f"Greedy answers. {len(changed)} of the {len(questions)} questions with kept texts "
                                 f"changed between right and wrong; {len(cards)} are shown, those first.")


# ---- 6. health

HEALTH = (  # title of a chart, unit, scale, {metric: its name}
    ("entropy", "nats", 1, {"entropy": ""}), ("KL to the phase's start", "nats", 1, {"kl": ""}),
    ("clipped tokens", "%", 100, {"clip_low": "low", "clip_high": "high"}),
    ("KL of sampler and trainer", "nats", 1, {"sampler_kl": ""}), ("gradient norm", "", 1, {"grad_norm": ""}),
    ("completion", "tokens", 1, {"completion_tokens": "mean", "completion_tokens_max": "longest"}),
    ("completions", "%", 100, {"truncated": "truncated", "boxless": "boxless answers"}),
    ("groups of equal rewards", "%", 100, {"equal_groups": ""}))
RULES = (  # metric, what the rule asks, whether a phase's values break it
    ("entropy", "should stay above 0.02 nats, else the policy no longer explores", lambda v: min(v) < 0.02),
    ("entropy", "should not double within a phase, else the policy grows random", lambda v: v[-1] > 2 * max(v[0], 0.5)),
    ("kl", "should stay below 0.5 nats, else the policy is far from where it began", lambda v: max(v) > 0.5),
    ("clip_low", "should stay below 30 %, else most of an update is thrown away", lambda v: max(v) > 0.3),
    ("clip_high", "should stay below 30 %, else most of an update is thrown away", lambda v: max(v) > 0.3),
    ("sampler_kl", "should stay below 0.01 nats, else sampler and trainer disagree", lambda v: max(v) > 0.01),
    ("grad_norm", "should stay within ten times its median", lambda v: max(v) > 10 * np.median(v)),
    ("completion_tokens", "should not triple or fall to a third within a phase",
     lambda v: not v[0] / 3 <= v[-1] <= 3 * v[0]),
    ("truncated", "should stay below 25 %: such completions are cut off before their answer", lambda v: max(v) > 0.25),
    ("boxless", "should end below 50 %: an answer without a box cannot earn a reward", lambda v: v[-1] > 0.5),
    ("equal_groups", "should stay below 90 % on the mean, else few groups teach anything", lambda v: np.mean(v) > 0.9),
    ("valid", "should end above 50 %: other proposals earn nothing", lambda v: v[-1] < 0.5))


def broken_rules(run):
    """A sentence for each rule that a phase broke."""
    found = []
    for phase, iteration in dict.fromkeys((row["phase"], row["iteration"]) for row in run.steps):
        rows, where = run.of(phase, iteration), f"Iteration {iteration}, {phase.title()}: "
        for metric in dict.fromkeys(key for row in rows for key, value in row.items() if value is None):
            found.append(f"{where}{metric} is not a finite number in some step; it should be one.")
        for metric, rule, broken in RULES:
            values = [row[metric] for row in rows if row.get(metric) is not None]
            if values and broken(values):
                found.append(f"{where}{metric} went from {values[0]:.3g} to {values[-1]:.3g} (between "
                             f"{min(values):.3g} and {max(values):.3g}); it {rule}.")
    return found


def health_section(runs):
    def rules(run):
        return "".join(f'<p class="wrong">{text(says)}</p>' for says in broken_rules(run)) or note(
            "Nothing is out of the ordinary." if run.steps else "No step is made yet.")

    charts = [chart for phase in ("challenger", "solver") for title, unit, scale, keys in HEALTH
              for chart in over_steps(f"{phase.title()}: {title}", runs, phase, keys, scale, unit)]
    return each(runs, rules) + grid(charts, "There is nothing to draw.")


# ---- 7. time, tokens, memory

PARTS = {"asking_seconds": "questions", "answering_seconds": "answers", "update_seconds": "updates"}


def times(run):
    """[(name, {part of the time: minutes}, minutes in all, tokens, peak GB)] of each phase, in order."""
    found = []
    for iteration, phase in dict.fromkeys((row["iteration"], row["phase"]) for row in run.steps):
        rows = run.of(phase, iteration)
        seconds, tokens, *parts = (sum(row.get(key) or 0 for row in rows) for key in ("seconds", "tokens", *PARTS))
        # Each is the maximum over processes, so that the parts of several may be more than the whole.
        minutes = {name: part / 60 * min(1, seconds / (sum(parts) or 1)) for name, part in zip(PARTS.values(), parts)}
        minutes["other"] = seconds / 60 - sum(minutes.values())
        found.append((f"{iteration} {phase}" if iteration else "base", minutes, seconds / 60, tokens,
                      max(row.get("peak_memory_gb") or 0 for row in rows)))
    return found


def time_of(run):
    found = times(run)
    total = sum(spent for _, _, spent, *_ in found)
    if not total:
        return note("No time was counted yet.")
    rows = [[text(name), f"{spent:.2f}", f"{100 * spent / total:.1f}", rounded(tokens),
             rounded(tokens / spent / 60 if spent else None), f"{peak:.2f}"] for name, _, spent, tokens, peak in found]
    chart = stacked_bars("Where the time went", [(name, minutes) for name, minutes, *_ in found], "minutes")
    untimed = ", nor are pools and held-out questions, which this run did not time." if not run.of("questions") and \
        run.pools else "."
    return grid([chart], "") + table(["phase", "minutes", "% of time", "tokens", "tokens/s", "peak GB"], rows) + note(
        f"{total:.1f} minutes in all: sampling of questions and answers, updates, and the rest (grading, the penalty's "
        f"distances). Start-up and saving of weights are not in it{untimed}")


# ---- the page

TEMPLATE = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")


def page(runs):
    """The page of one run, or of several over one another, as HTML."""
    differ = label_runs(runs)
    sections = {
        "Result": first_section(runs, differ), "Held-out accuracy": heldout_section(runs),
        "The Challenger": challenger_section(runs), "The questions": each(runs, questions_of),
        "One question, each Solver": each(runs, answers_of), "Health": health_section(runs),
        "Time, tokens, memory": each(runs, time_of)}
    body = "\n".join(f"<section><h2>{i}. {name}</h2>{content}</section>" for i, (name, content) in
                     enumerate(sections.items(), 1))
    script = TEMPLATE.partition("<script>")[2].partition("</script>")[0]
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()  # the one script that the page may run
    title = text("R-Zero: " + ", ".join(str(run.path) for run in runs))
    return Template(TEMPLATE).substitute(title=title, style=STYLE, body=body, own=own)


def write_page(folders, file):
    write_whole(Path(file), page([read_run(folder) for folder in folders]))


def main():
    parser = Parser("report.py", __doc__)
    parser.add_argument("runs", nargs="+", help="run folders")
    parser.add_argument("--out", help="the page (default RUN/report.html, of several compared.html beside them)")
    parser.add_argument("--svg", help="write a picture of three charts to this file, and no page")
    args = parser.parse_args()
    first = Path(args.runs[0])
    out = args.svg or args.out or (first / "report.html" if len(args.runs) == 1 else first.parent / "compared.html")
    try:
        if args.svg:
            runs = [read_run(folder) for folder in args.runs]
            label_runs(runs)
            charts = [*accuracy_charts(runs), *reward_charts(runs), *share_charts(runs[0])[-1:]]
            write_whole(Path(out), picture([chart for chart in charts if chart]))
        else:
            write_page(args.runs, out)
    except (OSError, ValueError) as error:
        sys.exit(f"report.py: {error}")
    print(f"{out}, {Path(out).stat().st_size / 1e3:,.0f} kB")


if __name__ == "__main__":
    main()
