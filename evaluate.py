"""Asks a model questions with known answers, grades what it says, and reports accuracies with intervals.

    python evaluate.py --model Qwen/Qwen3-4B-Base --data benchmarks --benchmarks math500,gsm8k
    torchrun --nproc-per-node 8 evaluate.py --model runs/4b/iter3/solver --data benchmarks --benchmarks all
    python evaluate.py --model runs/tiny/iter3/solver --data tiny/heldout.jsonl --samples 16
    python evaluate.py --model runs/mine/iter3/solver --data mine.jsonl --task my_task.py:MyTask --limit 100
    python evaluate.py --regrade --out runs/evaluate/Qwen-Qwen3-4B-Base

--data is a folder of the paper's ten benchmarks (tasks/benchmarks.py), where the Hub gives those that are missing, or a
JSONL file of your own. Its lines have `question` (or `problem`) and `answer`, and --task grades them; lines with
`options` are graded by letter. Of the questions.jsonl of a run, the kept are asked, and the majority is the answer. A
completion without a final answer is wrong. Every completion is written to --out as it ends, and the same command
resumes there. --regrade grades again without a model.

mean@k is the mean over k samples at temperature 1, pass@k the unbiased estimator of arXiv 2107.03374, and majority@k
the accuracy of the most frequent of the k answers. Intervals are 95 %, over questions."""

import glob
import hashlib
import json
import sys
from collections import Counter
from functools import partial
from itertools import groupby
from math import comb
from pathlib import Path

import numpy as np

from answers import compared_as_written
from common import (
    Parser,
    append,
    barrier,
    evenly_spaced,
    mean_and_ci,
    progress_bar,
    rank_and_world,
    read_json,
    read_lines,
    start_processes,
    write_lines,
    write_whole,
)
from folder import claim, columns, percent, refuse_other, shortened, whole_lines
from guard import ending, hold
from sample import Sampler
from tasks import load_task
from tasks.benchmarks import BENCHMARKS, GROUPS, OWN, PAPER, ByValue, benchmark_files, grader, read_questions

# ---- asking and grading

class PartFiles:
    """Rows that several processes write, each to a part file beside `file`, until all are there and `file` is whole. A
    row is a dict with the keys question and sample. A part file may hold unfinished lines, of a killed process."""

    def __init__(self, file):
        self.file = file

    def append(self, rank, row):
        """Adds a row to the part file of a process. Raises OSError."""
        part = self.file.with_name(f"{self.file.stem}.part{rank}.jsonl")
        append(part, f"\n{json.dumps(row)}")  # after the end of an unfinished line

    def paths(self):
        return sorted(self.file.parent.glob(f"{glob.escape(self.file.stem)}.part*.jsonl"))

    def rows(self):
        """{(question, sample): row} of all part files."""
        return {(row["question"], row["sample"]): row for path in self.paths() for row in whole_lines(path)}

    def join(self):
        """Makes `file` of the parts, in order."""
        rows = self.rows()
        write_lines(self.file, [rows[key] for key in sorted(rows)])
        for path in self.paths():
            path.unlink()


def ask(sampler, task, questions, *, samples, max_tokens, seed, progress=None, keep=None):
    """Asks each question `samples` times at temperature 1, or once greedily if 0 -> rows, one a completion, in order. A
    row is a dict: question and sample (their indices), text, tokens (how many), finished (by a stop token), gold,
    grading, options, answer, right. progress: the label of the progress bar. keep: a file for the rows. With it, each
    completion is written as it ends, to a part file of its process; another call asks only what is missing."""
    if keep and keep.exists():
        return read_lines(keep)
    n = max(samples, 1)
    sampling = dict(n=n, temperature=1.0, seed=seed) if samples else dict(temperature=0)
    prompts = [sampler.tokenizer.chat(task.solver_system, q.question) for q in questions]

    def row(i, j, c):
        q = questions[i]
        text = sampler.tokenizer.decode(c.tokens)
        return graded({"question": i, "sample": j, "text": text, "tokens": len(c.tokens), "finished": c.finished,
                       "gold": q.answer, "grading": q.grading, "options": list(q.options)}, task)

    if keep is None:
        groups = sampler.generate(prompts, max_tokens=max_tokens, progress=progress, keep=row, **sampling)
        return [row for group in groups for row in group]

    (rank, world), parts, verdicts = rank_and_world(), PartFiles(keep), Counter()
    held = parts.rows()
    barrier()  # all processes have read, and the folder is there, before one of them writes
    asked = [i for i in range(len(questions)) if any((i, j) not in held for j in range(n))]
    done = len(questions) - len(asked)
    with progress_bar(desc=f"{keep.stem:<14}", total=len(questions), initial=done, unit="question",
                      disable=rank > 0) as bar:
        def write(i, j, completion):
            new = row(asked[i], j, completion)
            parts.append(rank, new)
            verdicts[new["right"]] += 1
            bar.set_postfix_str(f"{percent(verdicts[True] / verdicts.total())} % right", refresh=False)
            # The bar assumes that the other processes are as far.
            bar.update(done + min(len(asked), verdicts.total() * world // n) - bar.n)

        sampler.generate([prompts[i] for i in asked], max_tokens=max_tokens, keep=write, **sampling)
        bar.update(len(questions) - bar.n)
    barrier()
    if rank == 0:
        parts.join()
    barrier()
    return read_lines(keep)


def graded(row, task):
    """The row of a completion with the answer in its text, and whether that is right."""
    rule = grader(row["grading"], row["options"], task)
    answer = rule.answer(row["text"])
    return row | {"answer": answer, "right": is_right(rule, answer, row["gold"])}


def is_right(rule, answer, gold):
    """Whether an answer equals the gold one by the task `rule`. None, no answer, is wrong."""
    return answer is not None and bool(rule.same(answer, gold))


# ---- measuring and reporting

KEPT_TEXTS, KEPT_CHARACTERS = 500, 4000  # of the held-out answers that a run keeps


def pass_at_k(right, n, k):
    """The chance that one of k samples is right if `right` of n are: 1 - C(n - right, k) / C(n, k)."""
    return 1 - comb(n - right, k) / comb(n, k)


def by_question(rows):
    """The rows, which are in order, as a list for each question."""
    return [list(group) for _, group in groupby(rows, key=lambda row: row["question"])]


def accuracy(rows):
    """(mean, half-width of its interval) of the share of right answers to each question."""
    return mean_and_ci([np.mean([row["right"] for row in group]) for group in by_question(rows)])


def held_out(sampler, task, questions, *, samples, max_tokens, seed):
    """How well the Solver in the sampler answers held-out questions -> (what eval.jsonl says, rows of heldout.jsonl).
    The first: accuracy of samples at temperature 1 (mean) and greedy, with intervals; the samples' mean length in
    tokens (completion_tokens) and share with more than one line (worked). A row:
    question, gold, the share of right samples (right), the greedy answer and whether it is right, and the tokens drawn
    for them; of KEPT_TEXTS questions also the greedy text, shortened."""
    sampled = ask(sampler, task, questions, samples=samples, max_tokens=max_tokens, seed=seed, progress="held-out")
    greedily = ask(sampler, task, questions, samples=0, max_tokens=max_tokens, seed=seed, progress="held-out, greedy")
    (mean, mean_ci), (greedy, greedy_ci) = accuracy(sampled), accuracy(greedily)
    with_text = set(evenly_spaced(range(len(questions)), KEPT_TEXTS))
    rows = [{"question": q.question, "gold": q.answer, "right": float(np.mean([row["right"] for row in group])),
             "greedy_answer": row["answer"], "greedy_right": row["right"],
             "tokens": sum(row["tokens"] for row in group) + row["tokens"]}
            | ({"text": shortened(row["text"], KEPT_CHARACTERS)} if i in with_text else {})
            for i, (q, group, row) in enumerate(zip(questions, by_question(sampled), greedily, strict=True))]
    return {"mean": mean, "mean_ci": mean_ci, "greedy": greedy, "greedy_ci": greedy_ci,
            "completion_tokens": float(np.mean([row["tokens"] for row in sampled])),
            "worked": float(np.mean(["\n" in row["text"].strip() for row in sampled]))}, rows


def summary(rows, task):
    """What the rows of a benchmark say: questions, samples; mean, pass@2..k and majority@k, each with its interval; the
    shares without an answer (no_answer) and without a stop token (truncated); the mean length in tokens (tokens)."""
    def majority_is_right(group):
        rule, answers = grader(group[0]["grading"], group[0]["options"], task), [row["answer"] for row in group]
        return is_right(rule, rule.majority(answers)[0], group[0]["gold"])

    groups = by_question(rows)
    n = len(rows) // len(groups)
    result = {"questions": len(groups), "samples": n, "mean": accuracy(rows)}
    for k in [2**p for p in range(1, 11) if 2**p <= n]:
        result[f"pass@{k}"] = mean_and_ci([pass_at_k(sum(row["right"] for row in group), n, k) for group in groups])
    if n > 1:
        result[f"majority@{n}"] = mean_and_ci([majority_is_right(group) for group in groups])
    return result | {"no_answer": float(np.mean([row["answer"] is None for row in rows])),
                     "truncated": float(np.mean([not row["finished"] for row in rows])),
                     "tokens": float(np.mean([row["tokens"] for row in rows]))}


def table(results, paper):
    """The results as lines of text, in percent. results: {name: summary, and what `report` adds}. paper: the row of
    PAPER to print beside them, or None."""
    def paper_cell(*names):
        values = [PAPER.get(paper, {}).get(name) if results[name]["of_paper"] else None for name in names]
        return "-" if None in values else f"{np.mean(values):.2f}"

    rows = [["benchmark", "questions", "metric", "right", "pass@k", "majority@k", "no answer", "cut off", "tokens",
             "paper"]]
    for name, result in results.items():
        count, total, majority = result["questions"], result["total"], f"majority@{result['samples']}"
        passed = ["-", *(f"{percent(*result[key])} (k={key[5:]})" for key in result if key.startswith("pass@"))]
        rows.append([BENCHMARKS[name].title if result["of_paper"] else name,
                     f"{count} of {total}" if count < total else str(count), result["metric"], percent(*result["mean"]),
                     passed[-1], percent(*result.get(majority, [None])), percent(result["no_answer"]),
                     percent(result["truncated"]), f"{result['tokens']:.0f}", paper_cell(name)])
    for group in ("math", "general"):
        if results.keys() >= {*GROUPS[group]}:
            mean = np.mean([results[name]["mean"][0] for name in GROUPS[group]])
            rows.append([f"{group} average", "", "", percent(mean), *[""] * 5, paper_cell(*GROUPS[group])])
    return columns(rows if paper else [row[:-1] for row in rows])


def row_of_paper(model):
    """The row of PAPER for a model, None if there is none: of a base model by its name, of a run's folder iter3/solver
    by the base model in the run's config.json."""
    folder = Path(model).resolve()
    name, config = folder.name, folder.parent.parent / "config.json"
    if folder.parts[-2:] == ("iter3", "solver") and config.is_file():
        name = f"{Path(str(read_json(config).get('model'))).name}, R-Zero, 3 iterations"
    return name if name in PAPER else None


def regrade(file, before, task):
    """Grades the rows of a file again, and prints how many verdicts change -> the rows."""
    after = [graded(row, task) for row in progress_bar(before, desc=f"{file.stem:<14}", unit="completion")]
    changed = sum(one["right"] != other["right"] for one, other in zip(before, after))
    print(f"{file.stem}: {changed} of {len(before)} completions are graded otherwise than before")
    write_lines(file, after)
    return after


def report(folder, again):
    """Prints the table of all finished benchmarks in a folder, and writes results.json. again: whether to regrade."""
    if not (folder / "settings.json").is_file():
        raise FileNotFoundError(f"no completions in {str(folder)!r}")
    settings, results = read_json(folder / "settings.json"), {}
    for name in dict.fromkeys([*BENCHMARKS, *settings["benchmarks"]]):  # the paper's first, in its order
        file, asked = folder / f"{name}.jsonl", settings["benchmarks"].get(name)
        if asked and file.is_file():
            task, rows = ByValue() if asked["of_paper"] else load_task(asked["task"]), read_lines(file)
            result = summary(regrade(file, rows, task) if again else rows, task)
            results[name] = result | {"metric": f"mean@{asked['samples']}" if asked["samples"] else "greedy",
                                      "of_paper": asked["of_paper"], "total": asked["total"]}
    if not results:
        raise ValueError(f"no benchmark in {folder} is finished; the command without --regrade resumes")
    write_whole(folder / "results.json", json.dumps(results, indent=2) + "\n")
    paper = row_of_paper(settings["model"])
    print(f"\n{settings['model']}\n\n{table(results, paper)}\n\npercent, +- 95 % intervals over questions")
    if paper:
        print(f"paper: {paper}, arXiv 2508.05004, graded with the help of a judge model (GPT-4o); ours has no judge")
    for reason, count in compared_as_written.items():
        if reason != "unreadable":
            print(f"{count} comparisons of this process were decided by how the answers are written: {reason}")
    print(f"every completion, and results.json, are in {folder}/")


# ---- the command

def parse(arguments):
    parser = Parser("evaluate.py", __doc__)
    add = parser.add_argument
    add("--model", help="Hugging Face folder or Hub id")
    add("--data", default=".", help="folder of benchmark files, or a JSONL file (default .)")
    add("--benchmarks", help=f"comma-separated of {', '.join(GROUPS)} (default math)")
    add("--task", default="math", help="grades a JSONL file: math (default), sums or FILE.py:CLASS")
    add("--limit", type=int, help="most questions of each benchmark, evenly spaced (default: all)")
    add("--out", help="folder for completions and results (default runs/evaluate/<model>)")
    add("--regrade", action="store_true", help="grade the completions in --out again, without a model")
    add("--samples", type=int, help="samples a question; 0 is greedy (default: the paper's, else 0)")
    add("--max_tokens", "--max-tokens", type=int, help="most tokens of an answer (default: the paper's, else 4096)")
    add("--seed", type=int, default=0)
    add("--max_rows", "--max-rows", type=int, default=512, help="rows decoded together (default 512)")
    add("--kv_gb", "--kv-gb", type=float, help="most that the key/value cache takes, in 10^9 bytes")
    args = parser.parse_args(arguments)
    if args.regrade and not args.out:
        parser.error("--regrade needs --out, the folder that holds the completions")
    if not args.regrade and not args.model:
        parser.error("--model is missing: a Hugging Face folder or a Hub id")
    for name, least in (("samples", 0), ("limit", 1), ("max_tokens", 1), ("max_rows", 1), ("kv_gb", 1e-9)):
        value = getattr(args, name)
        if value is not None and not value >= least:
            parser.error(f"--{name} is {value}, but must be {'positive' if least else 'at least 0'}")
    if args.out and Path(args.out).is_file():
        parser.error(f"--out is the file {args.out}, but must be a folder")
    if args.benchmarks and Path(args.data).is_file():
        parser.error(f"--benchmarks names files in a folder, but --data is the file {args.data}")
    if args.task != "math" and Path(args.data).is_dir():
        parser.error(f"--task grades a JSONL file, but --data is the folder {args.data}; benchmarks have their own")
    return args


def chosen(args):
    """{name: (task, questions, settings)} of what is to be asked. Raises OSError or ValueError."""
    data, of_paper, result = Path(args.data), Path(args.data).is_dir(), {}
    if of_paper:
        parts = [part.strip() for part in (args.benchmarks or "math").split(",")]
        unknown = [part for part in parts if part not in GROUPS]
        if unknown:
            raise ValueError(f"no benchmark {unknown[0]!r}; there are {', '.join(GROUPS)}")
        files = benchmark_files(dict.fromkeys(name for part in parts for name in GROUPS[part]), data)
    else:
        files = {data.stem: data}
    task = ByValue() if of_paper else load_task(args.task)
    for name, file in files.items():
        benchmark = BENCHMARKS[name] if of_paper else OWN
        everything = read_questions(file, benchmark)
        questions = evenly_spaced(everything, args.limit)
        result[name] = task, questions, {
            "samples": benchmark.samples if args.samples is None else args.samples,
            "max_tokens": args.max_tokens or benchmark.max_tokens, "limit": args.limit, "task": args.task,
            "of_paper": of_paper, "system": task.solver_system, "total": max(benchmark.size, len(everything)),
            "questions": hashlib.sha256(json.dumps(questions).encode()).hexdigest()[:16]}
    return result


def answer_all(args, folder):
    """Asks what the folder does not hold yet. Raises ValueError where it holds answers under other settings."""
    benchmarks, run, file = chosen(args), {"model": args.model, "seed": args.seed}, folder / "settings.json"
    settings = read_json(file) if file.is_file() else run | {"benchmarks": {}}
    for name, (_, _, asked) in benchmarks.items():
        if name not in settings["benchmarks"] and (folder / f"{name}.jsonl").exists():
            raise ValueError(f"{folder} holds a {name}.jsonl that was not made by this program; choose another --out")
        held = settings | settings["benchmarks"].setdefault(name, asked)  # what is asked joins what is there
        refuse_other(folder, run | asked, held, what=f"answers of {name}")
    sampler = Sampler.load(args.model, max_rows=args.max_rows, kv_gb=args.kv_gb)
    if rank_and_world()[0] == 0:
        claim(folder, settings, free=("benchmarks",), file="settings.json")
    for name, (task, questions, _) in benchmarks.items():
        prompt_of = partial(sampler.tokenizer.chat, task.solver_system)
        sampler.require_room(name, [q.question for q in questions], prompt_of, max_tokens=1)
    for name, (task, questions, asked) in benchmarks.items():
        ask(sampler, task, questions, samples=asked["samples"], max_tokens=asked["max_tokens"], seed=args.seed,
            keep=folder / f"{name}.jsonl")


def main():
    args = parse(sys.argv[1:])
    model = Path(args.model or "")
    folder = Path(args.out or f"runs/evaluate/{'-'.join((model.resolve() if model.is_dir() else model).parts[-3:])}")
    with ending("evaluate.py"):
        start_processes(alone=False)
        with hold(folder):
            if not args.regrade:
                answer_all(args, folder)
            if rank_and_world()[0] == 0:
                report(folder, args.regrade)
            barrier()  # gloo sometimes aborts if a process leaves while another still works


if __name__ == "__main__":
    main()
