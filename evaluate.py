"""Asks a model a set of questions with known answers and says how many it gets right.

    python evaluate.py --model FOLDER --data FILE.jsonl

FILE.jsonl holds one object a line, with the keys `question` (or `problem`) and `answer`. Two measures: greedy accuracy,
and the mean accuracy of samples at temperature 1, each with a 95 % interval over the questions.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from answers import extract_boxed, same_answer
from model import MATH_INSTRUCTION, Tokenizer, compute_dtype, load
from sample import Sampler

SOLVER_SYSTEM = MATH_INSTRUCTION  # the Solver is evaluated with the prompt it is trained with


def read_questions(path):
    """The (question, answer) pairs of a JSONL file. Raises FileNotFoundError, or ValueError naming the line at fault."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no question file {str(path)!r}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from None
    pairs = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}, is not JSON: {error}") from None
        question = row.get("question", row.get("problem")) if isinstance(row, dict) else None
        if not isinstance(question, str) or "answer" not in row:
            raise ValueError(f"{path}, line {number}, needs the keys question (or problem) and answer")
        pairs.append((question, str(row["answer"])))
    if not pairs:
        raise ValueError(f"{path} holds no question")
    return pairs


def mean_and_ci(values):
    """Mean of one value a question, and the half-width of its 95 % interval: 1.96 standard errors."""
    values = np.asarray(values, dtype=float)
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()), float(1.96 * error)


@dataclass
class Result:
    """sampled, greedy: accuracy of each question, [Q]. completion_tokens: mean length of a sampled answer. worked: share
    of the sampled answers of more than one line. truncated: share without a stop token."""

    sampled: np.ndarray
    greedy: np.ndarray
    completion_tokens: float
    worked: float
    truncated: float


def evaluate(sampler, pairs, *, samples=16, max_tokens=4096, seed=0, progress=None):
    """Answers every question once greedily and `samples` times at temperature 1 -> `Result`; no box is a wrong answer."""
    prompts = [sampler.tokenizer.chat(SOLVER_SYSTEM, question) for question, _ in pairs]
    drawn = sampler.generate(prompts, n=samples, max_tokens=max_tokens, seed=seed, progress=progress)
    greedy = sampler.generate(prompts, max_tokens=max_tokens, temperature=0, progress=progress and progress + ", greedy")

    def texts_of(groups):
        return [[sampler.tokenizer.decode(c.tokens) for c in group] for group in groups]

    def grade(texts, answer):
        boxes = map(extract_boxed, texts)
        return np.mean([box is not None and same_answer(box, answer) for box in boxes])

    answers = [answer for _, answer in pairs]
    texts = texts_of(drawn)
    flat = [c for group in drawn for c in group]
    return Result(
        sampled=np.array([grade(*row) for row in zip(texts, answers)]),
        greedy=np.array([grade(*row) for row in zip(texts_of(greedy), answers)]),
        completion_tokens=float(np.mean([len(c.tokens) for c in flat])),
        worked=float(np.mean(["\n" in text.strip() for group in texts for text in group])),
        truncated=float(np.mean([not c.finished for c in flat])),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face folder or Hub id")
    parser.add_argument("--data", required=True, help="JSONL file with question (or problem) and answer")
    parser.add_argument("--samples", type=int, default=16, help="samples a question (default 16)")
    parser.add_argument("--max_tokens", type=int, default=4096, help="most tokens of an answer (default 4096)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max_rows", type=int, default=512, help="answers decoded together (default 512)")
    parser.add_argument("--kv_gb", "--kv-gb", type=float, help="most that the key/value cache takes, in 10^9 bytes")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        pairs, tokenizer = read_questions(args.data), Tokenizer(args.model)
        sampler = Sampler(load(args.model, device, compute_dtype(device)), tokenizer, args.max_rows, args.kv_gb)
        result = evaluate(sampler, pairs, samples=args.samples, max_tokens=args.max_tokens, seed=args.seed,
                          progress=Path(args.data).stem)
    except (OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"evaluate.py: {error}")
    print(f"{len(pairs)} questions of {args.data}, answered by {args.model}")
    for name, values in (("greedy", result.greedy), (f"mean of {args.samples} samples", result.sampled)):
        mean, ci = mean_and_ci(values)
        print(f"  {name:<20} {100 * mean:6.2f} % +- {100 * ci:.2f}")
    print(f"  {result.completion_tokens:.0f} tokens an answer, {100 * result.truncated:.1f} % cut off at {args.max_tokens}")


if __name__ == "__main__":
    main()
