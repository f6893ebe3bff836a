"""Asks a model the questions of benchmarks with known answers, and says how many it gets right.

    python evaluate.py --model Qwen/Qwen3-4B-Base --data benchmarks --benchmarks math500,gsm8k
    torchrun --nproc-per-node 8 evaluate.py --model runs/4b/iter3/solver --data benchmarks --benchmarks all
    python evaluate.py --model runs/tiny/iter3/solver --data tiny/heldout.jsonl --samples 16
    python evaluate.py --regrade --out runs/evaluate/Qwen-Qwen3-4B-Base

`BENCHMARKS` are the paper's ten: read from the folder --data where a file of that name lies, else fetched from the Hub. --data
may also be any JSONL file whose lines have `question` (or `problem`) and `answer`. An answer without a box is wrong, and no
answer is guessed. Every completion is kept in --out as it ends: the same command goes on where it stopped, and --regrade grades
what is there again without a model.

Here mean@k is the mean over k different samples at temperature 1, pass@k the unbiased estimator of arXiv 2107.03374, and
majority@k grades the answer that most of the k give. Intervals are 95 %, over questions.
"""

import argparse
import glob
import hashlib
import json
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass
from math import comb
from pathlib import Path
from string import ascii_uppercase
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from answers import compared_as_written, extract_boxed, majority, same_answer, written_form
from common import compute_dtype, read_json, read_lines, start_processes, write_lines, write_whole
from model import MATH_INSTRUCTION, Tokenizer, load
from sample import Sampler

SOLVER_SYSTEM = MATH_INSTRUCTION  # the Solver is evaluated with the prompt it is trained with


# ---- the benchmarks

class Benchmark(NamedTuple):
    """title: its column in the paper's table. size: how many questions it has. hub, hub_file: the dataset and its JSONL file;
    None if it has only parquet, to be converted from split, (configuration, split). question, answer, options: keys, the first
    that a row has. grading: math (by `same_answer`), option (a letter) or text (by `text_form`). samples: of mean@k; 0 is
    greedy. max_tokens: of an answer."""

    title: str
    size: int
    hub: str
    hub_file: str | None
    split: tuple = ("default", "test")
    question: tuple = ("question", "problem", "input")
    answer: tuple = ("answer", "final_answer", "target", "solution")
    options: tuple = ("options", "choices")
    grading: str = "math"
    samples: int = 0
    max_tokens: int = 4096


# file name without ending -> benchmark, in the order of the paper's tables
BENCHMARKS = {
    "amc23": Benchmark("AMC", 40, "math-ai/amc23", None, samples=32),
    "minerva_math": Benchmark("Minerva", 272, "math-ai/minervamath", "test.jsonl"),
    "math500": Benchmark("MATH", 500, "HuggingFaceH4/MATH-500", "test.jsonl"),
    "gsm8k": Benchmark("GSM8K", 1319, "openai/gsm8k", None, ("main", "test")),
    "olympiadbench": Benchmark("Olympiad", 674, "Hothan/OlympiadBench", None, ("OE_TO_maths_en_COMP", "train")),
    "aime25": Benchmark("AIME25", 30, "math-ai/aime25", "test.jsonl", samples=32),
    "aime24": Benchmark("AIME24", 30, "math-ai/aime24", None, samples=32),
    "supergpqa": Benchmark("SuperGPQA", 26529, "m-a-p/SuperGPQA", "SuperGPQA-all.jsonl", answer=("answer_letter",),
                           grading="option", max_tokens=8192),
    "mmlu_pro": Benchmark("MMLU-Pro", 12032, "TIGER-Lab/MMLU-Pro", None, grading="option", max_tokens=8192),
    "bbeh": Benchmark("BBEH", 4520, "MrLight/bbeh-eval", "train.jsonl", options=(), grading="text", max_tokens=8192),
}
MATH, GENERAL = list(BENCHMARKS)[:7], list(BENCHMARKS)[7:]
OWN = Benchmark("", 0, "", None)  # a file of the user's

# arXiv 2508.05004, its main tables; in the order of BENCHMARKS
PAPER = {name: dict(zip(BENCHMARKS, row)) for name, row in {
    "Qwen3-4B-Base": (45.70, 38.24, 68.20, 87.79, 41.04, 10.30, 6.70, 20.88, 50.58, 7.57),
    "Qwen3-4B-Base, R-Zero, 3 iterations": (57.27, 52.94, 79.60, 92.12, 44.59, 9.60, 13.40, 27.55, 55.47, 10.42),
    "Qwen3-8B-Base": (51.95, 50.00, 78.00, 89.08, 44.74, 12.10, 14.60),
    "Qwen3-8B-Base, R-Zero, 3 iterations": (61.67, 60.66, 82.00, 94.09, 48.89, 13.30, 15.40),
}.items()}


def row_of_paper(model):
    """The paper's name for a model: a base by its own name, iter3/solver of a run by the base that its config.json names."""
    folder = Path(model).resolve() if Path(model).is_dir() else Path(model)
    name, config = folder.name, folder.parent.parent / "config.json"
    if folder.name == "solver" and folder.parent.name == "iter3" and config.is_file():
        name = f"{Path(str(read_json(config).get('model'))).name}, R-Zero, 3 iterations"
    return name if name in PAPER else None


# ---- reading questions

class Question(NamedTuple):
    """question: as it is asked, with its options. answer: the gold one; a letter where there are options. grading: see
    `Benchmark`."""

    question: str
    answer: str
    options: tuple = ()
    grading: str = "math"


def read_questions(path, benchmark=OWN):
    """The `Question`s of a JSONL file, or of a JSON file that holds a list, perhaps under the key `examples`. Raises
    FileNotFoundError, or ValueError naming the line at fault."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no question file {str(path)!r}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from None
    questions = [question_of(row, benchmark, place) for place, row in rows_of(path, text)]
    if not questions:
        raise ValueError(f"{path} holds no question")
    return questions


def rows_of(path, text):
    """(where it stands, row) of each row."""
    if path.suffix == ".json":
        try:
            rows = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
        rows = rows.get("examples") if isinstance(rows, dict) else rows
        if not isinstance(rows, list):
            raise ValueError(f"{path} needs a list of rows, at its top or under the key examples")
        yield from ((f"{path}, row {number},", row) for number, row in enumerate(rows, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"{path}, line {number},", json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}, is not JSON: {error}") from None


def question_of(row, benchmark, place):
    """Gold answers are numbers, texts, texts that end in `#### 5` or hold a box, lists of these, or indices of options."""
    row = row if isinstance(row, dict) else {}
    question, answer, options = (next((key for key in keys if row.get(key) is not None), None)
                                 for keys in (benchmark.question, benchmark.answer, benchmark.options))
    text, wanted = row.get(question), row.get(answer)
    if not isinstance(text, str) or not text.strip() or answer is None:
        raise ValueError(f"{place} needs the keys {' or '.join(benchmark.question)}, and {' or '.join(benchmark.answer)}")
    try:
        (text + str(row.get(options))).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{place} holds text that is not Unicode (half of a surrogate pair)") from None
    if options is None:
        if benchmark.grading == "option":
            raise ValueError(f"{place} needs the key {' or '.join(benchmark.options)}")
        said = gold(wanted, boxed=answer == "solution")
        if said is None:
            raise ValueError(f"{place} has no answer that could be given: {answer} is {str(wanted)[:60]!r}")
        return Question(text, said, grading=benchmark.grading)
    listed = row[options]
    if isinstance(listed, dict) and [*listed] == [*ascii_uppercase[:len(listed)]]:
        listed = [*listed.values()]
    if not isinstance(listed, list) or not 0 < len(listed) <= 26:
        raise ValueError(f"{place} needs {options} that are a list of up to 26, or {{A: ..., B: ...}}")
    letters = ascii_uppercase[:len(listed)]
    letter = letters[wanted] if type(wanted) is int and 0 <= wanted < len(letters) else str(wanted)
    if letter not in [*letters]:
        raise ValueError(f"{place} has the answer {letter!r}, which is none of its {len(listed)} options")
    lines = "\n".join(f"({name}) {option}" for name, option in zip(letters, listed))
    return Question(f"{text}\n{lines}\nAnswer with the letter of the right option.", letter, tuple(map(str, listed)), "option")


def gold(answer, boxed):
    """The answer that a value of a row holds, as text; None if none. boxed: it is a solution, whose answer is marked in it."""
    if isinstance(answer, list):
        parts = [gold(part, boxed) for part in answer]
        return None if None in parts or not parts else ", ".join(parts)
    if isinstance(answer, bool) or not isinstance(answer, str | int | float) or answer != answer:
        return None
    text = str(answer)
    text = text.rpartition("####")[2].strip() if "####" in text else extract_boxed(text) or ("" if boxed else text)
    return text if text.strip() else None


def local_file(name, folder):
    """The file of a benchmark in a folder; None if there is none."""
    names = [name + ending for ending in (".jsonl", ".json", "_mini.jsonl", "_mini.json")]
    return next((Path(folder) / file for file in names if (Path(folder) / file).is_file()), None)


def benchmark_files(names, folder):
    """{name: file} of the benchmarks, each in `folder`, else from the Hub. Raises FileNotFoundError that says how to get those
    that neither gives."""
    files, missing = {name: local_file(name, folder) for name in names}, []
    for name in names:
        benchmark, (configuration, split) = BENCHMARKS[name], BENCHMARKS[name].split
        if not files[name] and not benchmark.hub_file:
            goal = Path(folder) / f"{name}.jsonl"
            missing.append(f"no {goal}; the Hub has {benchmark.hub} as parquet only, so make it with: pip install datasets && "
                           f"python -c \"from datasets import load_dataset as l; l('{benchmark.hub}', '{configuration}', "
                           f"split='{split}').to_json('{goal}')\"")
    if missing:
        raise FileNotFoundError("\n".join(missing))
    for name in names:
        if not files[name]:
            from huggingface_hub import hf_hub_download

            hub = BENCHMARKS[name].hub
            try:
                files[name] = Path(hf_hub_download(hub, BENCHMARKS[name].hub_file, repo_type="dataset"))
            except Exception as error:  # the Hub's own errors share no base class with those of the connection
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise FileNotFoundError(
                    f"no {Path(folder) / name}.jsonl, and the Hub did not give {hub}: {reason}") from None
    return files


# ---- grading

LETTER = re.compile(r"\W*(?:(?:the )?(?:correct |right |final )?(?:answer|option|choice)(?: is)?)?\W*([A-Z])\W*", re.IGNORECASE)
# a letter before what it stands for: (C) 12 m, C. 12 m, (c) 12 m, C - 12 m; without a sign, C 12 m, it may be an article
LETTER_AND_TEXT = re.compile(r"[\s*]*(?:[Oo]ption |[Cc]hoice )?(?:(?P<letter>[A-Z])(?P<sign>\)|[.:,](?=\s)|\s-(?=\s)|(?=\s))"
                             r"|\((?P<bracketed>[A-Za-z])\)[.:,]?)\s*(?P<rest>.+)", re.DOTALL)
# it is followed by a second one: (A) and (B), A: this. B: that
ANOTHER_LETTER = r"(?:^|\band\b|\bor\b|[,&/])\s*\(?[{0}]\b\)?\W*$|\b[{0}][.):]\s"


def extract(text, grading, options=()):
    """The answer in a completion, None if it has none: what is in the box; of options, the letter."""
    box = extract_boxed(text)
    return box if box is None or grading != "option" else letter_of(box, options)


def letter_of(box, options):
    """The letter of the one option that a box names: by the letter alone, else by the option's text, else by a letter in
    front of a text. None if it names none, or more than one."""
    options = dict(zip(ascii_uppercase, options))
    plain = without_commands(box)
    alone = LETTER.fullmatch(plain)
    if alone and alone[1].upper() in options:
        return alone[1].upper()
    same = [letter for letter, option in options.items()
            if same_answer(option, box) or written_form(option) == written_form(plain)]
    if len(same) == 1:
        return same[0]
    before = LETTER_AND_TEXT.fullmatch(plain)
    letter = (before["letter"] or before["bracketed"]).upper() if before else None
    if letter not in options:
        return None
    own = written_form(before["rest"]) == written_form(without_commands(options[letter]))
    one = (before["sign"] or before["bracketed"]) and not re.search(ANOTHER_LETTER.format("".join(options)), before["rest"])
    return letter if own or one else None


def without_commands(text):
    return re.sub(r"\\(?:[a-zA-Z]+ ?|[,;:! ])|[{}$\\]", " ", text).strip()


def text_form(answer):
    r"""What a text is compared by: as it is written, without \texttt and the brackets or quotes around all of it."""
    text = re.sub(r"\\texttt ?\{([^{}]*)\}", r"\1", answer).replace(r"\_", "_").strip()
    inside = re.fullmatch(r"""\(([^()]+)\)|\[([^\[\]]+)\]|'([^']+)'|"([^"]+)\"""", text)
    return written_form(inside[inside.lastindex].strip() if inside else text)


def is_right(answer, gold, grading):
    """Whether an extracted answer is right; None is not."""
    if answer is None:
        return False
    if grading == "math":
        return same_answer(answer, gold)
    return answer == gold if grading == "option" else text_form(answer) == text_form(gold)


def winner(answers, grading):
    """The answer that most give, by what counts as the same in grading; None if nobody answers."""
    if grading == "math":
        return majority(answers)[0]
    votes = Counter(text_form(answer) for answer in answers if answer is not None)
    best = max(votes, key=votes.get, default=None)
    return next((answer for answer in answers if answer is not None and text_form(answer) == best), None)


def mean_and_ci(values):
    """Mean of one value a question, and the half-width of its 95 % interval: 1.96 standard errors."""
    values = np.asarray(values, dtype=float)
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()), float(1.96 * error)


def pass_at_k(right, n, k):
    """The chance that one of k samples is right, where `right` of n were: 1 - C(n - right, k) / C(n, k) (arXiv 2107.03374)."""
    return 1 - comb(n - right, k) / comb(n, k)


# ---- asking, for the loop

@dataclass
class Result:
    """sampled, greedy: accuracy of each question, [Q]. completion_tokens: mean length of a sampled answer. worked: share
    of the sampled answers of more than one line. truncated: share without a stop token."""

    sampled: np.ndarray
    greedy: np.ndarray
    completion_tokens: float
    worked: float
    truncated: float


def evaluate(sampler, questions, *, samples=16, max_tokens=4096, seed=0, progress=None):
    """Answers every question once greedily and `samples` times at temperature 1 -> `Result`; no box is a wrong answer."""
    prompts = [sampler.tokenizer.chat(SOLVER_SYSTEM, q.question) for q in questions]
    drawn = sampler.generate(prompts, n=samples, max_tokens=max_tokens, seed=seed, progress=progress)
    greedy = sampler.generate(prompts, max_tokens=max_tokens, temperature=0, progress=progress and progress + ", greedy")

    def texts_of(groups):
        return [[sampler.tokenizer.decode(c.tokens) for c in group] for group in groups]

    def accuracy(groups):
        return np.array([np.mean([is_right(extract_boxed(text), q.answer, "math") for text in texts])
                         for texts, q in zip(groups, questions)])

    texts = texts_of(drawn)
    flat = [c for group in drawn for c in group]
    return Result(
        sampled=accuracy(texts), greedy=accuracy(texts_of(greedy)),
        completion_tokens=float(np.mean([len(c.tokens) for c in flat])),
        worked=float(np.mean(["\n" in text.strip() for group in texts for text in group])),
        truncated=float(np.mean([not c.finished for c in flat])),
    )


# ---- asking, for the benchmarks

def graded(row):
    """The row of a completion with its answer and whether that is right, from its text, gold answer, grading and options."""
    answer = extract(row["text"], row["grading"], row["options"])
    return row | {"answer": answer, "right": is_right(answer, row["gold"], row["grading"])}


def ask(sampler, name, questions, samples, max_tokens, seed, folder):
    """Asks all questions, `samples` times at temperature 1 or greedily for 0, until one row a completion is in
    folder/<name>.jsonl. A completion is written as it ends, to a part file of its process; on the next call questions all of
    whose completions are in part files are not asked again."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    file, n = folder / f"{name}.jsonl", max(samples, 1)
    asked = [None]
    if rank == 0 and file.exists():
        remove_parts(folder, name)
    elif rank == 0:  # what it sees counts: others may look later
        old = finished(folder, name)
        asked = [[i for i in range(len(questions)) if any((i, j) not in old for j in range(n))]]
    if dist.is_initialized():
        dist.broadcast_object_list(asked)
    asked, = asked
    if asked is None:
        return
    own, right = 0, 0
    pause = 0.1 if sys.stderr.isatty() else 30
    with (open(folder / f"{name}.part{rank}.jsonl", "a", encoding="utf-8") as part,
          tqdm(total=len(questions), initial=len(questions) - len(asked), desc=f"{name:<14}", unit="question", mininterval=pause,
               disable=rank > 0) as bar):
        done = bar.n
        part.write("\n")  # where it was cut off within a line, the next must not be lost with it

        def watch(i, j, tokens, ended):
            nonlocal own, right
            if not ended:
                return
            question = questions[asked[i]]
            row = graded({"question": asked[i], "sample": j, "text": sampler.tokenizer.decode(tokens), "tokens": len(tokens),
                          "finished": tokens[-1] in sampler.tokenizer.stop_ids, "gold": question.answer,
                          "grading": question.grading, "options": question.options})
            part.write(json.dumps(row) + "\n")
            part.flush()
            own, right = own + 1, right + row["right"]
            bar.set_postfix_str(f"{100 * right / own:.1f} % right", refresh=False)
            # the processes are equally far, nearly
            bar.update(done + min(len(asked), own * world // n) - bar.n)

        prompts = [sampler.tokenizer.chat(SOLVER_SYSTEM, questions[i].question) for i in asked]
        how = dict(n=n, temperature=1.0, seed=seed) if samples else dict(temperature=0)
        sampler.generate(prompts, max_tokens=max_tokens, watch=watch, **how)
        bar.update(len(questions) - bar.n)
    if dist.is_initialized():
        dist.barrier()
    if rank == 0:
        rows = finished(folder, name)
        write_lines(file, [rows[place] for place in sorted(rows)])
        remove_parts(folder, name)


def part_files(folder, name):
    return sorted(folder.glob(f"{glob.escape(name)}.part*.jsonl"))


def remove_parts(folder, name):
    for part in part_files(folder, name):
        part.unlink(missing_ok=True)


def finished(folder, name):
    """{(question, sample): row} of the part files of a benchmark, in which lines may have been cut off."""
    rows = {}
    for part in part_files(folder, name):
        for line in part.read_text(encoding="utf-8").split("\n"):
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            rows[row["question"], row["sample"]] = row
    return rows


def summary(rows):
    """What the rows of one benchmark say: questions Q, samples k, mean, pass@2..k, majority@k, each with its interval, and the
    shares without an answer and without an end."""
    groups = {}
    for row in rows:
        groups.setdefault(row["question"], []).append(row)
    n = len(rows) // len(groups)
    right = [sum(row["right"] for row in group) for group in groups.values()]
    result = {"questions": len(groups), "samples": n, "mean": mean_and_ci([r / n for r in right])}
    for k in [2**p for p in range(1, 11) if 2**p <= n]:
        result[f"pass@{k}"] = mean_and_ci([pass_at_k(r, n, k) for r in right])
    if n > 1:
        winners = [(winner([row["answer"] for row in group], group[0]["grading"]), group[0]) for group in groups.values()]
        result[f"majority@{n}"] = mean_and_ci([is_right(answer, row["gold"], row["grading"]) for answer, row in winners])
    return result | {"no_answer": float(np.mean([row["answer"] is None for row in rows])),
                     "truncated": float(np.mean([not row["finished"] for row in rows])),
                     "tokens": float(np.mean([row["tokens"] for row in rows]))}


def table(results, paper):
    """The results as lines of text, in percent, with the paper's row beside them. results: {name: summary}."""
    def percent(pair):
        return f"{100 * pair[0]:.1f} +- {100 * pair[1]:.1f}"

    def in_paper(*names):
        if not paper:
            return []
        values = [PAPER[paper].get(name) if results[name]["of_paper"] else None for name in names]
        return ["-" if None in values else f"{np.mean(values):.2f}"]

    rows = [["benchmark", "questions", "how", "right", "pass@k", "majority@k", "no answer", "cut off", "tokens",
             *(["paper"] if paper else [])]]
    for name, result in results.items():
        k, count = result["samples"], result["questions"]
        passed = max((key for key in result if key.startswith("pass@")), key=lambda key: int(key[5:]), default=None)
        benchmark = BENCHMARKS[name] if result["of_paper"] else OWN
        rows.append([benchmark.title or name, f"{count} of {benchmark.size}" if count < benchmark.size else str(count),
                     result["how"], percent(result["mean"]),
                     f"{percent(result[passed])} (k={passed[5:]})" if passed else "-",
                     percent(result[f"majority@{k}"]) if k > 1 else "-", f"{100 * result['no_answer']:.1f}",
                     f"{100 * result['truncated']:.1f}", f"{result['tokens']:.0f}", *in_paper(name)])
    for title, names in (("math average", MATH), ("general average", GENERAL)):
        if all(name in results for name in names):
            mean = np.mean([results[name]["mean"][0] for name in names])
            rows.append([title, "", "", f"{100 * mean:.1f}", *[""] * 5, *in_paper(*names)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("   ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
                     for row in rows)


# ---- the command line

def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="Hugging Face folder or Hub id")
    parser.add_argument("--data", default=".",
                        help="JSONL file with question (or problem) and answer, or a folder of benchmark files (default .)")
    parser.add_argument("--benchmarks",
                        help=f"comma-separated of {', '.join(BENCHMARKS)}; or math, general, all (default math)")
    parser.add_argument("--out", help="folder for completions and results (default runs/evaluate/<model>)")
    parser.add_argument("--regrade", action="store_true", help="grade the completions in --out again, without a model")
    parser.add_argument("--samples", type=int, help="samples a question; 0 is greedy (default: the paper's, greedy for a file)")
    parser.add_argument("--max_tokens", "--max-tokens", type=int, help="most tokens of an answer (default: the paper's, or 4096)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max_rows", "--max-rows", type=int, default=512, help="answers decoded together (default 512)")
    parser.add_argument("--kv_gb", "--kv-gb", type=float, help="most that the key/value cache takes, in 10^9 bytes")
    args = parser.parse_args(arguments)
    if args.regrade and not args.out:
        parser.error("--regrade needs --out, the folder that holds the completions")
    if not args.regrade and not args.model:
        parser.error("--model is missing: a Hugging Face folder or a Hub id")
    for name, least in (("samples", 0), ("max_tokens", 1), ("max_rows", 1), ("kv_gb", 1e-9)):
        value = getattr(args, name)
        if value is not None and not value >= least:
            parser.error(f"--{name} is {value}, but must be {'positive' if least else 'at least 0'}")
    if args.benchmarks and Path(args.data).is_file():
        parser.error(f"--benchmarks names files in a folder, but --data is the file {args.data}")
    return args


def chosen(args):
    """{name: (questions, samples, max_tokens)} of what is to be asked. Raises OSError or ValueError."""
    groups = {"math": MATH, "general": GENERAL, "all": list(BENCHMARKS)}
    if Path(args.data).is_dir():
        names = [name for part in (args.benchmarks or "math").split(",") for name in groups.get(part.strip(), [part.strip()])]
        unknown = [name for name in names if name not in BENCHMARKS]
        if unknown:
            raise ValueError(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}, and math, general and all")
        files = benchmark_files([name for name in BENCHMARKS if name in names], args.data)
    else:
        files = {Path(args.data).stem: Path(args.data)}
    tasks = {}
    for name, file in files.items():
        benchmark = BENCHMARKS[name] if Path(args.data).is_dir() else OWN
        tasks[name] = (read_questions(file, benchmark), benchmark.samples if args.samples is None else args.samples,
                       args.max_tokens or benchmark.max_tokens)
    return tasks


def settings_of(args, tasks, folder):
    """What is asked, and how, joined with what was asked into this folder before. Raises ValueError where they differ."""
    settings = {"model": args.model, "seed": args.seed, "benchmarks": {}}
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out is the file {folder}, but must be a folder")
    if (folder / "settings.json").is_file():
        settings = read_json(folder / "settings.json")
    for name, (questions, samples, max_tokens) in tasks.items():
        digest = hashlib.sha256(json.dumps(questions).encode()).hexdigest()[:16]
        new = {"questions": digest, "samples": samples, "max_tokens": max_tokens, "of_paper": Path(args.data).is_dir()}
        old = settings["benchmarks"].setdefault(name, new)
        for key, ours, theirs in [("model", args.model, settings["model"]), ("seed", args.seed, settings["seed"]),
                                  *((key, new[key], old.get(key)) for key in new)]:
            if ours != theirs:
                raise ValueError(f"{folder} holds answers of {name} with another setting ({key}: {theirs} there, {ours} here); "
                                 "choose another --out")
        if old is new and (folder / f"{name}.jsonl").exists():
            raise ValueError(f"{folder} holds a {name}.jsonl that was not made by this program; choose another --out")
    return settings


def answer_all(args, folder, rank):
    """Asks what is not answered yet."""
    tasks = chosen(args)
    settings = settings_of(args, tasks, folder)
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    sampler = Sampler(load(args.model, device, compute_dtype(device)), Tokenizer(args.model), args.max_rows, args.kv_gb)
    folder.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        write_whole(folder / "settings.json", json.dumps(settings, indent=2) + "\n")
    for name, task in tasks.items():
        ask(sampler, name, *task, args.seed, folder)


def regrade(folder):
    """Grades the completions in a folder again, and says how many verdicts change."""
    for name in finished_names(folder):
        before = read_lines(folder / f"{name}.jsonl")
        after = [graded(row) for row in tqdm(before, desc=f"{name:<14}", unit="completion")]
        changed = sum(one["right"] != other["right"] for one, other in zip(before, after))
        print(f"{name}: {changed} of {len(before)} completions are graded otherwise than before")
        write_lines(folder / f"{name}.jsonl", after)


def finished_names(folder):
    """What has been asked into a folder to the end, the paper's benchmarks in its order. Raises FileNotFoundError."""
    if not (folder / "settings.json").is_file():
        raise FileNotFoundError(f"no completions in {str(folder)!r}")
    names = read_json(folder / "settings.json")["benchmarks"]
    return [name for name in [*BENCHMARKS, *sorted(names.keys() - BENCHMARKS.keys())]
            if name in names and (folder / f"{name}.jsonl").is_file()]


def report(folder):
    """Prints the table of all that is finished in a folder, and writes results.json."""
    names = finished_names(folder)
    if not names:
        raise ValueError(f"no benchmark in {folder} is finished; the command without --regrade goes on")
    settings = read_json(folder / "settings.json")
    results = {}
    for name in names:
        how = settings["benchmarks"][name]
        results[name] = summary(read_lines(folder / f"{name}.jsonl")) | {
            "how": f"mean@{how['samples']}" if how["samples"] else "greedy", "of_paper": how["of_paper"]}
    write_whole(folder / "results.json", json.dumps(results, indent=2) + "\n")
    paper = row_of_paper(settings["model"])
    print(f"\n{settings['model']}\n\n{table(results, paper)}\n\npercent, +- 95 % intervals over questions"
          + (f"; paper: {paper} in arXiv 2508.05004" if paper else ""))
    for reason, count in compared_as_written.items():
        if reason != "unreadable":
            print(f"{count} of the comparisons of this process were decided by their writing: {reason}")
    print(f"every completion, and results.json, are in {folder}/")


def main():
    args = parse(sys.argv[1:])
    if not args.regrade:
        start_processes(alone=False)
    rank = int(os.environ.get("RANK", "0"))
    model = Path(args.model or "")
    folder = Path(args.out or f"runs/evaluate/{'-'.join((model.resolve() if model.is_dir() else model).parts[-3:])}")
    try:
        if not args.regrade:
            answer_all(args, folder, rank)
        elif rank == 0:
            regrade(folder)
        if rank == 0:
            report(folder)
        if dist.is_initialized():
            dist.barrier()  # gloo aborts now and then where a process leaves while another still works
    except (OSError, ValueError, FloatingPointError) as error:
        everyone = not isinstance(error, FloatingPointError)  # met it, so that one may tell
        sys.exit(1 if everyone and rank else f"evaluate.py: {error}")
    except KeyboardInterrupt:
        sys.exit("evaluate.py: interrupted; the same command goes on after the last finished question")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
