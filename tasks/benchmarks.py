"""The paper's ten benchmarks, and any JSONL file of a user's: where they are, how a question is read, how it is graded.

A question is graded by value, by letter or by text: three small tasks, between which `grader` chooses."""

import re
from pathlib import Path
from string import ascii_uppercase
from typing import NamedTuple

from answers import extract_boxed, same_answer, written_form
from common import parse_json, read_rows
from tasks.mathematics import Math
from tasks.task import Task


class Benchmark(NamedTuple):
    """A benchmark and its format. `question`, `answer` and `options` are keys; the first that a row has counts."""

    title: str  # its column in the paper's tables
    size: int  # how many questions the whole set has
    hub: str  # its dataset on the Hugging Face Hub
    hub_file: str | tuple = ("default", "test")  # its JSONL file there; where it has parquet: (configuration, split)
    question: tuple = ("question", "problem", "input")
    answer: tuple = ("answer", "final_answer", "target", "solution")
    options: tuple = ("options", "choices")
    grading: str = "math"  # math (by value), option (by letter) or text (as it is written)
    samples: int = 0  # k of the paper's mean@k; 0 is greedy
    max_tokens: int = 4096  # of an answer


# {name of the file, without its ending: benchmark}, in the order of the paper's tables
BENCHMARKS = {
    "amc23": Benchmark("AMC", 40, "math-ai/amc23", samples=32),
    "minerva_math": Benchmark("Minerva", 272, "math-ai/minervamath", "test.jsonl"),
    "math500": Benchmark("MATH", 500, "HuggingFaceH4/MATH-500", "test.jsonl"),
    "gsm8k": Benchmark("GSM8K", 1319, "openai/gsm8k", ("main", "test")),
    "olympiadbench": Benchmark("Olympiad", 674, "Hothan/OlympiadBench", ("OE_TO_maths_en_COMP", "train")),
    "aime25": Benchmark("AIME25", 30, "math-ai/aime25", "test.jsonl", samples=32),
    "aime24": Benchmark("AIME24", 30, "math-ai/aime24", samples=32),
    "supergpqa": Benchmark("SuperGPQA", 26529, "m-a-p/SuperGPQA", "SuperGPQA-all.jsonl", answer=("answer_letter",),
                           grading="option", max_tokens=8192),
    "mmlu_pro": Benchmark("MMLU-Pro", 12032, "TIGER-Lab/MMLU-Pro", grading="option", max_tokens=8192),
    "bbeh": Benchmark("BBEH", 4520, "MrLight/bbeh-eval", "train.jsonl", options=(), grading="text", max_tokens=8192),
}
GROUPS = {name: [name] for name in BENCHMARKS} | {  # what --benchmarks may name
    "math": [*BENCHMARKS][:7], "general": [*BENCHMARKS][7:], "all": [*BENCHMARKS]}
# A file of the user's, or the questions.jsonl of a run, whose labels are majorities
OWN = Benchmark("", 0, "", answer=(*Benchmark._field_defaults["answer"], "majority"))
LONGEST_TEXT, LONGEST_QUESTION = 16_000, 200_000  # characters of a context, and of a question with its options

# accuracies in the main tables of arXiv 2508.05004, in the order of BENCHMARKS
PAPER = {name: dict(zip(BENCHMARKS, row)) for name, row in {
    "Qwen3-4B-Base": (45.70, 38.24, 68.20, 87.79, 41.04, 10.30, 6.70, 20.88, 50.58, 7.57),
    "Qwen3-4B-Base, R-Zero, 3 iterations": (57.27, 52.94, 79.60, 92.12, 44.59, 9.60, 13.40, 27.55, 55.47, 10.42),
    "Qwen3-8B-Base": (51.95, 50.00, 78.00, 89.08, 44.74, 12.10, 14.60),
    "Qwen3-8B-Base, R-Zero, 3 iterations": (61.67, 60.66, 82.00, 94.09, 48.89, 13.30, 15.40),
}.items()}


# ---- reading questions

def benchmark_files(names, folder):
    """{name: file} of benchmarks. A file that `folder` lacks is downloaded if the Hub has it as JSONL. Raises
    FileNotFoundError that says how to get what neither has."""
    files, commands = {}, []
    for name in names:
        file, hub, source = Path(folder) / f"{name}.jsonl", BENCHMARKS[name].hub, BENCHMARKS[name].hub_file
        places = [file.with_name(name + ending) for ending in (".jsonl", ".json", "_mini.jsonl", "_mini.json")]
        files[name] = next((place for place in places if place.is_file()), None)
        if not files[name] and isinstance(source, tuple):
            commands.append(f"no {file}; the Hub has {hub} as parquet only, so make it with: pip install datasets && "
                            "python -c \"from datasets import load_dataset as l; "
                            f"l('{hub}', '{source[0]}', split='{source[1]}').to_json('{file}')\"")
    if commands:
        raise FileNotFoundError("\n".join(commands))
    return {name: file or download(name, folder) for name, file in files.items()}


def download(name, folder):
    """The file of a benchmark, from the Hub. Raises FileNotFoundError."""
    from huggingface_hub import hf_hub_download  # optional: files in a folder need no Hub

    hub, file = BENCHMARKS[name].hub, BENCHMARKS[name].hub_file
    try:
        return Path(hf_hub_download(hub, file, repo_type="dataset"))
    except Exception as error:  # the Hub's errors and those of the connection share no base class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(f"no {Path(folder) / name}.jsonl, and the Hub did not give {hub}: {reason}") from None


class Question(NamedTuple):
    """A question with a known answer."""

    question: str  # as the model is asked, its options included
    answer: str  # the gold answer; a letter if there are options
    options: tuple = ()
    grading: str = "math"  # see `grader`


def read_questions(path, benchmark=OWN):
    """The `Question`s of a file of `question_rows`. Raises FileNotFoundError, or ValueError that names the line at
    fault."""
    return [question_of(row, benchmark, where) for where, row in question_rows(path).items()]


def question_rows(path):
    """{where it stands, for an error: a question's row} of a JSONL file, or of a JSON file with a list of rows, at its
    top or under the key `examples`. Raises FileNotFoundError, ValueError."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no question file {str(path)!r}")
    if path.suffix == ".json":
        rows = parse_json(path.read_bytes(), path)
        rows = rows.get("examples") if isinstance(rows, dict) else rows
        if not isinstance(rows, list):
            raise ValueError(f"{path} needs a list of rows, at its top or under the key examples")
        rows = {f"{path}, row {number},": row for number, row in enumerate(rows, 1)}
    else:
        rows = read_rows(path)
    # Of a run's questions.jsonl, those that the Solver learned from.
    rows = {where: row for where, row in rows.items() if not (isinstance(row, dict) and row.get("dropped"))}
    if not rows:
        raise ValueError(f"{path} holds no question")
    return rows


def read_texts(path):
    """The texts of a JSONL file, whose lines are strings or objects with the key text. Raises OSError or ValueError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    texts = []
    for where, row in read_rows(Path(path)).items():
        text = row.get("text") if isinstance(row, dict) else row
        if not isinstance(text, str) or not 0 < len(text.strip()) <= LONGEST_TEXT:
            raise ValueError(f"{where} needs a text of 1 to {LONGEST_TEXT:,} characters, or an object with a text")
        texts.append(text.strip())
    if not texts:
        raise ValueError(f"{path} holds no text")
    return texts


def question_of(row, benchmark, where):
    """The `Question` of a row. Raises ValueError."""
    row = row if isinstance(row, dict) else {}
    question, answer, options = (next((key for key in keys if row.get(key) is not None), None)
                                 for keys in (benchmark.question, benchmark.answer, benchmark.options))
    text = row.get(question)
    if not isinstance(text, str) or not text.strip() or answer is None:
        keys = " or ".join(benchmark.question), " or ".join(benchmark.answer)
        raise ValueError(f"{where} needs the keys {keys[0]}, and {keys[1]}")
    if len(text) + len(str(row.get(options))) > LONGEST_QUESTION:
        raise ValueError(f"{where} has a question of more than {LONGEST_QUESTION:,} characters")
    if options is not None:
        return question_with_options(text, row[answer], row[options], where)
    if benchmark.grading == "option":
        raise ValueError(f"{where} needs the key {' or '.join(benchmark.options)}")
    gold = gold_answer(row[answer], is_solution=answer == "solution")
    if gold is None:
        raise ValueError(f"{where} has no answer that could be given: {answer} is {str(row[answer])[:60]!r}")
    return Question(text, gold, grading=benchmark.grading)


def question_with_options(text, answer, options, where):
    """A multiple-choice question. answer: a letter, or the index of an option."""
    if isinstance(options, list) and len(options) <= 26:
        options = dict(zip(ascii_uppercase, options))
    if not isinstance(options, dict) or not options or [*options] != [*ascii_uppercase[:len(options)]]:
        raise ValueError(f"{where} needs options that are a list of up to 26, or {{A: ..., B: ...}}")
    letter = [*options][answer] if type(answer) is int and 0 <= answer < len(options) else str(answer)
    if letter not in options:
        raise ValueError(f"{where} has the answer {letter[:60]!r}, which is none of its {len(options)} options")
    listed = "\n".join(f"({name}) {option}" for name, option in options.items())
    return Question(f"{text}\n{listed}\nAnswer with the letter of the right option.", letter,
                    tuple(map(str, options.values())), "option")


def gold_answer(value, is_solution):
    """The gold answer in a value of a row, as text; None if there is none. The value is a number, a text, a text that
    ends in `#### 5` or holds a box, or a list of these. Only a box or `####` marks the answer in a whole solution."""
    if isinstance(value, list):
        parts = [gold_answer(part, is_solution) for part in value]
        return None if None in parts or not parts else ", ".join(parts)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:
        return None
    text = str(value)
    text = text.rpartition("####")[2] if "####" in text else extract_boxed(text) or ("" if is_solution else text)
    return text.strip() or None


# ---- grading

def grader(grading, options, task):
    """The task that grades a question: by letter where it has options, as written for `text`, else `task` itself."""
    return ByLetter(options) if grading == "option" else ByText() if grading == "text" else task


class ByValue(Math):
    """The mathematics benchmarks. Some of their questions list options, so that (C), C and (C) 12 are the same."""

    def same(self, a, b):
        return super().same(a, b) or same_letter(a, b)


class ByText(Math):
    """Answers are compared as they are written."""

    def same(self, a, b):
        return text_form(a) == text_form(b) or same_letter(a, b)


def text_form(answer):
    r"""The string that a text is compared by: without \texttt, and without brackets or quotes around all of it."""
    text = re.sub(r"\\texttt ?\{([^{}]*)\}", r"\1", answer).replace(r"\_", "_").strip()
    inside = re.fullmatch(r"""\(([^()]+)\)|\[([^\[\]]+)\]|'([^']+)'|"([^"]+)\"""", text)
    return written_form(inside[inside.lastindex].strip() if inside else text)


# An answer that names one option: C, C., C), (C), Option C or (C) 12, but not (A) and (B)
OPTION = r"(?:[Oo]ption |[Cc]hoice )?\(?([A-Z])(?:[.:]|\)\.?|\) +(?!.*\b(?:[A-Z]|and|or)\b)[0-9A-Za-z\\].*)?"
TEXT_COMMAND = r"\\(?:(?:text[a-z]*|mathrm|mathbf|rm|bf)(?![A-Za-z])|[,;:! ])|[{}$]"


def same_letter(a, b):
    """Whether two answers name the same option of a question whose options are not known."""
    letters = [re.fullmatch(OPTION, " ".join(re.sub(TEXT_COMMAND, " ", answer).split())) for answer in (a, b)]
    return None not in letters and letters[0][1] == letters[1][1]


COMMAND = r"\\(?:[a-zA-Z]+ ?|[,;:! ])|[{}$\\]"
LETTER = r"(?i)\W*(?:(?:the )?(?:correct |right |final )?(?:answer|option|choice)(?: is)?)?\W*([A-Z])\W*"
# A letter and a text: (C) 12 m, C. 12 m, (c) 12 m, C - 12 m. Without a sign, as in C 12 m, the letter may be an article
LETTER_AND_TEXT = (r"(?s)[\s*]*(?:[Oo]ption |[Cc]hoice )?(?:\((?P<bracketed>[A-Za-z])\)[.:,]?|"
                   r"(?P<letter>[A-Z])(?P<sign>\)|[.:,](?=\s)|\s-(?=\s)|(?=\s)))\s*(?P<rest>.+)")
ANOTHER_LETTER = r"(?:^|\band\b|\bor\b|[,&/])\s*\(?[{0}]\b\)?\W*$|\b[{0}][.):]\s"  # (A) and (B), A: this. B: that


class ByLetter(Task):
    """Multiple choice: an answer is the letter of one of `options`."""

    def __init__(self, options):
        self.options = dict(zip(ascii_uppercase, options))

    def answer(self, completion):
        """The letter of the one option that the box names; None if it names none, or more than one. A letter alone
        comes first, then the text of an option, then a letter in front of a text."""
        box = extract_boxed(completion)
        if box is None:
            return None
        plain = re.sub(COMMAND, " ", box).strip()
        alone, both = re.fullmatch(LETTER, plain), re.fullmatch(LETTER_AND_TEXT, plain)
        if alone and alone[1].upper() in self.options:
            return alone[1].upper()
        named = [letter for letter, option in self.options.items()
                 if same_answer(option, box) or written_form(option) == written_form(plain)]
        if len(named) == 1:
            return named[0]
        letter = both and (both["letter"] or both["bracketed"].upper())
        if letter not in self.options:
            return None
        own_text = written_form(both["rest"]) == written_form(re.sub(COMMAND, " ", self.options[letter]).strip())
        another = re.search(ANOTHER_LETTER.format("".join(self.options)), both["rest"])
        return letter if own_text or (both["sign"] or both["bracketed"]) and not another else None
