"""Reading benchmarks, asking and grading: intervals, estimators, resuming, regrading, several processes."""

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import bench_answers as bench
import huggingface_hub
import numpy as np
import pytest

import evaluate as module
from answers import same_answer
from evaluate import accuracy, ask, held_out, mean_and_ci
from sample import Completion
from tasks import Math, benchmarks
from tasks.benchmarks import BENCHMARKS, ByValue, Question, grader, read_questions

ROOT = Path(__file__).parents[1]
needs_files = pytest.mark.skipif(not bench.DATA.is_dir(), reason="no benchmark files; set BENCHMARKS to their folder")


def extract(completion, grading, options=()):
    return grader(grading, options, ByValue()).answer(completion)


def is_right(answer, gold, grading="math"):
    return module.is_right(grader(grading, (), ByValue()), answer, gold)


def test_reads_both_spellings(tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_text('{"question": "1+\u20281?", "answer": "2"}\n\n{"problem": "2+2?", "answer": 4, "level": 1}\n')
    assert read_questions(file) == [("1+\u20281?", "2", (), "math"), ("2+2?", "4", (), "math")]  # U+2028 ends no line


@pytest.mark.parametrize("text, says", [
    ('{"question": "q", "answer": "a"}\n{"question": ', "line 2, is not valid JSON"),
    ('{"question": "q"}', "line 1, needs the keys question"),
    ('[1, 2]', "line 1, needs the keys question"),
    ("\n", "holds no question"),
])
def test_bad_files_name_the_line(tmp_path, text, says):
    file = tmp_path / "q.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=says):
        read_questions(file)
    with pytest.raises(FileNotFoundError, match="no question file"):
        read_questions(tmp_path / "other.jsonl")


def test_interval():
    mean, ci = mean_and_ci([0, 1] * 50)
    assert mean == 0.5 and ci == pytest.approx(1.96 * np.sqrt(0.25 * 100 / 99) / 10)
    assert mean_and_ci([1.0]) == (1.0, 0.0)


class Says:
    """A sampler that gives each prompt known completions: {(prompt, temperature): texts}. Records how it was called."""

    tokenizer = SimpleNamespace(chat=lambda system, user: user, decode=lambda tokens: tokens, stop_ids="}x")

    def __init__(self, said):
        self.said, self.calls = said, []

    def generate(self, prompts, n=1, temperature=1.0, keep=None, **settings):
        self.calls.append({"prompts": prompts, "n": n, "temperature": temperature} | settings)
        groups = [[Completion(text, [], text[-1] in "}x") for text in self.said[p, int(temperature)]] for p in prompts]
        kept = {(i, j): keep(i, j, c) for i, group in reversed([*enumerate(groups)])  # completions end in any order
                for j, c in enumerate(group)}
        return [[kept[i, j] for j in range(len(group))] for i, group in enumerate(groups)]


SAID = {("one", 1): ["\\boxed{1}", "work\n\\boxed{1.0}", "1", "\\boxed{2}"], ("one", 0): ["no"],
        ("two", 1): ["\\boxed{2}", "2", "x", "\\boxed{3}"], ("two", 0): ["\\boxed{2}"]}
TWO = [Question("one", "1"), Question("two", "2")]


def test_grades_what_is_in_the_box():
    """Of four samples two are right for the first question, one for the second; greedy is right for the second only."""
    sampler = Says(SAID)
    result, rows = held_out(sampler, Math(), TWO, samples=4, max_tokens=9, seed=5)
    sampled = ask(sampler, Math(), TWO, samples=4, max_tokens=9, seed=5)
    greedy = ask(sampler, Math(), TWO, samples=0, max_tokens=9, seed=5)
    assert [np.mean([row["right"] for row in group]) for group in module.by_question(sampled)] == [0.5, 0.25]
    assert [row["right"] for row in greedy] == [False, True]
    assert (result["mean"], result["mean_ci"]) == mean_and_ci([0.5, 0.25]) == accuracy(sampled)
    assert (result["greedy"], result["greedy_ci"]) == mean_and_ci([0, 1])
    texts = [text for question in TWO for text in SAID[question.question, 1]]
    assert result["worked"] == 1 / 8 and result["completion_tokens"] == np.mean([*map(len, texts)])
    assert module.summary(sampled, Math())["truncated"] == 2 / 8  # the texts that end neither in } nor in x
    assert result.keys() == {"mean", "mean_ci", "greedy", "greedy_ci", "completion_tokens", "worked"}
    assert [row["right"] for row in rows] == [0.5, 0.25] and [row["greedy_right"] for row in rows] == [False, True]
    assert [(row["question"], row["gold"], row["greedy_answer"], row["text"]) for row in rows] == [
        ("one", "1", greedy[0]["answer"], SAID["one", 0][0]), ("two", "2", "2", "\\boxed{2}")]
    assert sum(row["tokens"] for row in rows) == sum(map(len, [*texts, SAID["one", 0][0], SAID["two", 0][0]]))
    assert [(c["n"], c["temperature"], c["max_tokens"], c.get("seed")) for c in sampler.calls[:2]] == [(4, 1.0, 9, 5),
                                                                                                      (1, 0, 9, None)]


@pytest.mark.parametrize("samples", [4, 0])
def test_rows_in_memory_and_in_a_file_are_the_same(samples, tmp_path):
    """A regression: the loop and the benchmarks had an asker each, which graded differently."""
    how = dict(samples=samples, max_tokens=9, seed=0)
    rows = ask(Says(SAID), Math(), TWO, **how)
    file = tmp_path / "two.jsonl"
    assert ask(Says(SAID), Math(), TWO, **how, keep=file) == rows
    assert [json.loads(line) for line in file.read_text().splitlines()] == rows and [*tmp_path.iterdir()] == [file]
    assert ask(None, Math(), [], **how, keep=file) == rows  # which is complete, so that no sampler is needed
    (tmp_path / "two.part0.jsonl").write_text(json.dumps(rows[0]))
    file.unlink()
    again = Says(SAID)
    assert ask(again, Math(), TWO, **how, keep=file) == rows
    assert again.calls[0]["prompts"] == (["one", "two"] if samples else ["two"])


def test_a_limit_is_evenly_spaced():
    assert module.evenly_spaced([*range(10)], 3) == [0, 3, 6]
    assert module.evenly_spaced([*range(500)], 100) == [*range(0, 500, 5)]
    assert module.evenly_spaced([1, 2], 5) == module.evenly_spaced([1, 2], None) == [1, 2]


# ---- the paper's ten

FORMATS = {
    "amc23": ({"problem": "q", "question": "q", "answer": 27.0, "url": ""}, "27.0"),
    "minerva_math": ({"problem": "q", "solution": r"so $\boxed{4}$, no, \[s=\boxed{4.5e33} \mathrm{~erg}\]"}, "4.5e33"),
    "math500": ({"problem": "q", "solution": r"\boxed{1}", "answer": r"\frac{1}{2}", "subject": "", "level": 1},
                r"\frac{1}{2}"),
    "gsm8k": ({"question": "q", "answer": "2+3=<<2+3=5>>5\n#### 1,005", "idx": 0}, "1,005"),
    "olympiadbench": ({"question": "q", "final_answer": ["$2$", "$3$"], "unit": None}, "$2$, $3$"),
    "aime25": ({"problem": "q", "answer": "070"}, "070"),
    "aime24": ({"problem": "q", "solution": r"\boxed{025}", "answer": "025"}, "025"),
    "supergpqa": ({"question": "q", "options": ["x", "y", "z"], "answer": "z", "answer_letter": "C"}, "C"),
    "mmlu_pro": ({"question": "q", "options": ["x", "y", "z"], "answer": "B", "answer_index": 1}, "B"),
    "bbeh": ({"input": "q", "target": "yes, no", "task": ""}, "yes, no"),
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_reads_each_format(name, tmp_path):
    row, answer = FORMATS[name]
    (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    question, = read_questions(benchmarks.benchmark_files([name], tmp_path)[name], BENCHMARKS[name])
    assert question.answer == answer
    assert question.question.startswith("q") and ("(C) z" in question.question) == (name in ("supergpqa", "mmlu_pro"))
    assert (question.options == ("x", "y", "z")) == (BENCHMARKS[name].grading == "option")
    assert question.grading == BENCHMARKS[name].grading


def test_reads_json_with_examples_and_indices_of_choices(tmp_path):
    (tmp_path / "bbeh_mini.json").write_text(json.dumps({"examples": [{"input": "a", "target": "b"}]}))
    assert benchmarks.benchmark_files(["bbeh"], tmp_path) == {"bbeh": tmp_path / "bbeh_mini.json"}
    assert read_questions(tmp_path / "bbeh_mini.json", BENCHMARKS["bbeh"]) == [("a", "b", (), "text")]
    (tmp_path / "own.jsonl").write_text('{"question": "q", "choices": ["u", "v"], "answer": 1}')
    assert read_questions(tmp_path / "own.jsonl")[0][1:] == ("B", ("u", "v"), "option")
    (tmp_path / "own.jsonl").write_text('{"question": "q", "options": {"A": "u", "B": "v"}, "answer": "B"}\n'
                                        '{"question": "q", "answer": "5"}')
    assert [q[1:] for q in read_questions(tmp_path / "own.jsonl")] == [("B", ("u", "v"), "option"), ("5", (), "math")]
    (tmp_path / "own.jsonl").write_text('{"question": "q", "choices": ["u", "v"], "answer": "C"}')
    with pytest.raises(ValueError, match="line 1, has the answer 'C', which is none of its 2 options"):
        read_questions(tmp_path / "own.jsonl")
    (tmp_path / "own.json").write_text('{"rows": []}')
    with pytest.raises(ValueError, match="needs a list of rows"):
        read_questions(tmp_path / "own.json")


def test_files_that_are_not_there(tmp_path, monkeypatch):
    says = r"so make it with: pip install datasets .*openai/gsm8k.*gsm8k\.jsonl"
    with pytest.raises(FileNotFoundError, match=says) as error:
        benchmarks.benchmark_files(["math500", "gsm8k", "amc23"], tmp_path)
    assert [line.split(";")[0] for line in str(error.value).splitlines()] == [
        f"no {tmp_path}/gsm8k.jsonl", f"no {tmp_path}/amc23.jsonl"]  # all that are missing, before the Hub is asked
    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download",
                        lambda *a, **k: asked.append((a, k)) or str(tmp_path / "x.jsonl"))
    assert benchmarks.benchmark_files(["math500"], tmp_path) == {"math500": tmp_path / "x.jsonl"}
    assert asked == [(("HuggingFaceH4/MATH-500", "test.jsonl"), {"repo_type": "dataset"})]

    def offline(*args, **how):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(FileNotFoundError, match="the Hub did not give HuggingFaceH4/MATH-500: no route"):
        benchmarks.benchmark_files(["math500"], tmp_path)


@needs_files
def test_a_perfect_model_and_one_that_is_always_wrong():
    """Gold answers in boxes score 100 % on every file, another option 0."""
    found = bench.question_files()
    assert len(found) == 8 and sum(map(len, found.values())) > 3000
    for name, questions in found.items():
        for q in questions:
            def right(text, q=q):
                judge = grader(q.grading, q.options, ByValue())
                return module.is_right(judge, judge.answer(text), q.answer)

            assert right(rf"Thus \boxed{{{q.answer}}}."), (name, q.answer)
            assert not right(f"The answer is {q.answer}")
            for letter, option in zip("ABCD", q.options):
                assert right(rf"\boxed{{{letter}}}") == (letter == q.answer)
                assert right(rf"\boxed{{\text{{({letter})}} {option}}}") == (letter == q.answer), (name, option)


@needs_files
def test_golds_under_rewritings():
    golds = bench.all_golds()
    assert len(bench.REWRITINGS) >= 20
    used = {how for how, gold, other in bench.rewritten(golds)}
    assert used == bench.REWRITINGS.keys()
    assert not [case for case in bench.rewritten(golds) if not same_answer(*case[1:])]
    assert sum(same_answer(*pair) for pair in bench.cross_pairs(golds, 20_000)) <= 20


@needs_files
@pytest.mark.slow
def test_math_verify_agrees():
    _, agreed, ours, theirs = bench.agreement(bench.formulas(), most=60, cross=600, shown=0)
    assert agreed >= 0.98 and theirs > 20 * ours


# ---- grading

@pytest.mark.parametrize("box, letter", [
    ("B", "B"), ("(B)", "B"), ("B.", "B"), ("B)", "B"), (r"\text{B}", "B"), (r"\textbf{(B)}", "B"), ("b", "B"),
    ("(b)", "B"), ("option B", "B"), ("B: the sun", "B"), ("(B) the sun", "B"), (r"\text{B. the sun}", "B"),
    ("the sun", "B"), (r"\text{The Sun}", "B"), ("E", None), ("", None), ("A or B", None), ("A, B", None),
    ("Because", None), ("a star", None), ("12", None), ("a", "A"), ("C. 12 m", "C"), ("C, 12 m", "C"),
    ("(c) 12 stars", "C"), ("(C) (12 stars)", "C"), (r"\bf C", "C"), (r"\textbf C", "C"), ("The answer is C", "C"),
    ("The correct option is (C).", "C"), (r"\text{The Sun.}", "B"), ("C - 12 m", "C"), ("C)12 m", "C"),
    ("C 12 stars", "C"), ("C 12 m", None), (r"C.\ 12\,V", "C"), ("A. and C.", None),
    ("A: the moon. B: the sun", None), ("(A) and (B)", None), ("A and B", None), ("E. the sun", None),
])
def test_options(box, letter):
    options = ("the moon", "the sun", "12 stars", "12 suns")
    assert extract(rf"\boxed{{{box}}}", "option", options) == letter


def test_a_letter_goes_before_a_text_of_one_letter():
    assert extract(r"\boxed{A}", "option", ("v", "c", "b", "a")) == "A"
    assert extract(r"\boxed{D}", "option", ("Vitamin A", "D", "C", "K")) == "D"
    assert extract(r"\boxed{K}", "option", ("N", "P", "K", "S")) == "C"
    assert extract(r"\boxed{v}", "option", ("u", "v")) == "B"
    assert extract(r"\boxed{(B) 12 V}", "option", ("1 volt", "12 volts")) == "B"
    assert extract(r"\boxed{\frac12}", "option", (r"$\frac{1}{2}$", "2")) == "A"
    assert extract(r"\boxed{12}", "option", ("12 cm", "13 cm")) == "A"


def test_nothing_is_guessed():
    assert extract("The answer is (B).", "option", ("x", "y")) is None
    assert not is_right(None, "None", "math") and not is_right(None, "B", "option")


@pytest.mark.parametrize("said, gold, right", [
    ("yes, no", "yes, no", True), ("Yes,no", "yes, no", True), ("no, yes", "yes, no", False),
    (r"\text{yes, no}", "yes, no", True), ("(A)", "A", True), ("A", "(A)", True), ("[thursday]", "thursday", True),
    ("156", "156.0", True), ("0,0,1", "1,0,0", False), ("01-09-2016", "01-08-2015", False),
    ("**proved**", "proved", True), ("[135.0]", "135", True), ("'proved'", "proved", True),
    (r"\texttt{proved}", "proved", True), (r"x\_y", "x_y", True), ("1,194", "1194", True), ("()", "[]", False),
    ("f(x", "f(x)", False),
])
def test_texts_are_compared_as_written(said, gold, right):
    assert is_right(said, gold, "text") is right


@pytest.mark.parametrize("said, gold, right", [
    (r"\textbf{(D) } 12", "D", True), (r"\text{(D)}\ 12", "(D)", True), ("B) 12", "B", True), ("Option C", "C", True),
    (r"\text{Option C}", "(C)", True), ("(C)", r"\text{(C)}", True), ("C.", r"\text{(C)}", True),
    (r"(C) \frac{1}{2}", r"\text{(C)}", True), ("(D) 12", "C", False), ("(D) 12", "12", False),
    ("(A) and (B)", "A", False), ("(A) or B", "A", False), (r"\sin (A)", "A", False), (r"\{A\}", "B", False),
    ("c) 12", "C", False), ("A, B", "A", False), ("(A, 2)", "A", False), ("A 12", "A", False),
])
def test_an_option_with_its_text_is_its_letter(said, gold, right):
    """Also where the options stand in the question only: in MATH some do, and their golds are letters."""
    assert is_right(said, gold, "math") is right and is_right(gold, said, "math") is right
    assert is_right(said, gold, "text") is right or (said, gold) == ("C.", r"\text{(C)}")


def test_a_vote_counts_what_is_graded_alike():
    """A regression: votes went by mathematics, 50 % and 50 together, where grading went by the text."""
    def winner(answers, grading):
        return grader(grading, ("x", "y"), ByValue()).majority(answers)[0]

    assert winner(["50%", "0.5", "50", "0.5", None], "text") == "0.5"
    assert winner(["50%", "0.5", "50", "0.5", None], "math") == "50%"
    assert winner(["[yes]", "no", "yes"], "text") == "[yes]" and winner([None], "text") is None
    assert winner(["(C) 12", "12", "C"], "math") == "(C) 12" and winner(["A", "B", "B", None], "option") == "B"


def test_pass_at_k_is_the_share_of_subsets():
    for n, c in itertools.product(range(1, 7), range(7)):
        for k in range(1, n + 1):
            if c <= n:
                subsets = list(itertools.combinations([1] * c + [0] * (n - c), k))
                assert module.pass_at_k(c, n, k) == pytest.approx(np.mean([max(s) for s in subsets]))


def rows(*questions):
    """Rows of questions given as lists of answers, whose first is the gold one."""
    return [{"question": i, "sample": j, "text": "", "tokens": 10, "finished": j != 1, "gold": gold, "grading": "math",
             "options": [], "answer": answer, "right": is_right(answer, gold, "math")}
            for i, (gold, *answers) in enumerate(questions) for j, answer in enumerate(answers)]


def test_summary():
    result = module.summary(rows(["1", "1", "1.0", "2", None], ["1/2", "0.4", "0.4", "0.5", "3"],
                                 ["7", None, None, None, None]), Math())
    assert result["questions"] == 3 and result["samples"] == 4
    assert result["mean"][0] == pytest.approx((0.5 + 0.25 + 0) / 3)
    assert result["pass@2"][0] == pytest.approx((5 / 6 + 1 / 2 + 0) / 3) and result["pass@4"][0] == pytest.approx(2 / 3)
    assert result["majority@4"][0] == pytest.approx(1 / 3)
    assert result["no_answer"] == pytest.approx(5 / 12) and result["truncated"] == pytest.approx(1 / 4)
    assert result["tokens"] == 10


def test_table_is_in_the_order_of_the_paper_with_its_row_beside():
    result = module.summary(rows(["1", "1"], ["1", "2"]), ByValue()) | {"metric": "greedy", "of_paper": True}
    results = {name: result | {"total": benchmark.size} for name, benchmark in BENCHMARKS.items()}
    lines = module.table(results, "Qwen3-4B-Base").split("\n")
    assert [line.split()[0] for line in lines[1:-2]] == ["AMC", "Minerva", "MATH", "GSM8K", "Olympiad", "AIME25",
                                                         "AIME24", "SuperGPQA", "MMLU-Pro", "BBEH"]
    assert "50.0 +- 98.0" in lines[1] and lines[1].endswith("45.70") and lines[10].endswith("7.57")
    assert lines[11].startswith("math average") and lines[11].endswith("42.57")
    assert "2 of 40" in lines[1]  # a part of the set does not stand beside the paper's number unmarked
    own = result | {"of_paper": False, "total": 2}
    assert "nan" not in module.table(results | {"own": own}, "Qwen3-8B-Base")
    assert "paper" not in module.table(results, None) and " of " not in module.table({"own": own}, None)


def test_row_of_paper(tmp_path):
    assert module.row_of_paper("Qwen/Qwen3-4B-Base") == "Qwen3-4B-Base" and module.row_of_paper("tiny") is None
    (tmp_path / "iter3" / "solver").mkdir(parents=True)
    (tmp_path / "config.json").write_text('{"model": "Qwen/Qwen3-8B-Base"}')
    assert module.row_of_paper(tmp_path / "iter3" / "solver") == "Qwen3-8B-Base, R-Zero, 3 iterations"
    for row in module.PAPER.values():  # the paper's own average
        assert len(row) in (7, 10)


# ---- the command

def run(*arguments, processes=1):
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    return subprocess.run([sys.executable, *torchrun, str(ROOT / "evaluate.py"), *map(str, arguments)], check=False,
                          capture_output=True, text=True, timeout=200, cwd=ROOT)


@pytest.fixture
def here(monkeypatch, capsys):
    """Runs the command in this process, where it takes no seconds to start -> (error or None, stdout)."""
    def command(*arguments):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
        capsys.readouterr()
        error = None
        try:
            module.main()
        except SystemExit as exit:  # any other exception would be a traceback
            error = exit.code
        printed = capsys.readouterr()
        return printed.err.removesuffix("\n") if isinstance(error, int) else error, printed.out

    return command


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A folder of completions of the tiny model, 3 samples of each of 12 questions, and what was printed."""
    folder = tmp_path_factory.mktemp("evaluate")
    lines = (ROOT / "tiny" / "heldout.jsonl").read_text().split("\n")[:12]
    (folder / "few.jsonl").write_text("\n".join(lines))
    command = ["--model", "tiny", "--data", folder / "few.jsonl", "--samples", 3, "--max_tokens", 60,
               "--out", folder / "out"]
    done = run(*command)
    assert done.returncode == 0, done.stderr
    return folder, command, done


def test_the_command_shows_progress_and_where_things_are(asked):
    folder, _, done = asked
    assert "12/12" in done.stderr and "% right" in done.stderr
    assert "mean@3" in done.stdout and f"are in {folder / 'out'}/" in done.stdout
    written = [json.loads(line) for line in (folder / "out" / "few.jsonl").read_text().splitlines()]
    assert [(row["question"], row["sample"]) for row in written] == [*itertools.product(range(12), range(3))]
    result = json.loads((folder / "out" / "results.json").read_text())["few"]
    assert result["mean"][0] == pytest.approx(np.mean([row["right"] for row in written]))
    assert len({row["text"] for row in written if row["question"] == 0}) > 1  # samples, not copies
    assert not list((folder / "out").glob("*.part*"))


def test_goes_on_where_it_stopped(asked, here, tmp_path):
    """Questions that are complete in a part file are not asked again: two are there with a text that no model wrote."""
    folder, command, _ = asked
    written = [json.loads(line) for line in (folder / "out" / "few.jsonl").read_text().splitlines()]
    parts = [row | {"text": "kept"} for row in written if row["question"] in (0, 5)] + written[9:11]
    lines = [*map(json.dumps, parts)]
    lines.insert(2, '{"question": 7, "sam')  # cut off, then gone on with, then cut off again
    (tmp_path / "few.part0.jsonl").write_text("\n".join(lines) + '\n{"question": 7, "sam')
    (tmp_path / "settings.json").write_text((folder / "out" / "settings.json").read_text())
    assert here(*command[:-1], tmp_path)[0] is None
    again = [json.loads(line) for line in (tmp_path / "few.jsonl").read_text().splitlines()]
    assert again == [row | {"text": "kept"} if row["question"] in (0, 5) else row for row in written]


def test_two_processes_give_the_same(asked, tmp_path):
    folder, command, _ = asked
    done = run(*command[:-1], tmp_path, processes=2)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "few.jsonl").read_text() == (folder / "out" / "few.jsonl").read_text()
    assert done.stdout.count("mean@3") == 1 and "12/12" in done.stderr


def test_regrade(asked, here, tmp_path):
    folder, _, first = asked
    written = [json.loads(line) for line in (folder / "out" / "few.jsonl").read_text().splitlines()]
    ungraded = [row | {"right": False, "answer": None} for row in written]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ungraded))
    (tmp_path / "settings.json").write_text((folder / "out" / "settings.json").read_text())
    error, printed = here("--regrade", "--out", tmp_path)
    changed = sum(row["right"] for row in written)
    assert f"few: {changed} of 36 completions are graded otherwise" in printed, error
    assert (tmp_path / "few.jsonl").read_text() == (folder / "out" / "few.jsonl").read_text()
    assert first.stdout.split("\n\n")[1] in printed


@pytest.mark.parametrize("arguments, says", [
    (["--model", "tiny", "--data", "nowhere.jsonl"], "no question file 'nowhere.jsonl'"),
    (["--model", "tiny", "--data", "tiny", "--benchmarks", "math501"], "no benchmark 'math501'; there are amc23"),
    (["--model", "tiny", "--data", "tiny", "--benchmarks", "amc23"], "so make it with: pip install datasets"),
    (["--data", "tiny"], "--model is missing"),
    (["--regrade"], "--regrade needs --out"),
    (["--regrade", "--out", "nowhere"], "no completions in 'nowhere'"),
    (["--model", "tiny", "--samples", "-1"], "--samples is -1"),
    (["--model", "tiny", "--limit", "0"], "--limit is 0, but must be positive"),
    (["--model", "tiny", "--data", "tiny", "--task", "sums"], "benchmarks have their own"),
    (["--model", "tiny", "--data", "tiny/heldout.jsonl", "--task", "nowhere.py:Mine"], "which is not there"),
    (["--model", "tiny", "--data", "tiny/heldout.jsonl", "--task", "maths"], "must be math, sums or FILE.py:CLASS"),
    (["--model", "tiny", "--max_tokens", "0"], "--max_tokens is 0"),
    (["--model", "tiny", "--data", "tiny/heldout.jsonl", "--benchmarks", "all"],
     "--benchmarks names files in a folder"),
    (["--model", "tiny", "--data", "tiny/heldout.jsonl", "--out", "README.md"], "--out is the file README.md"),
    (["--model", "tiny", "--data", "tiny/heldout.jsonl", "--out", "tiny"],
     "holds a heldout.jsonl that was not made by this"),
])
def test_bad_input_gets_one_line(arguments, says, here):
    error, _ = here(*arguments)
    assert says in error.splitlines()[-1] and ("\n" not in error.strip() or "make it with" in says)


def test_bad_input_is_no_traceback():
    done = run("--model", "tiny", "--data", "nowhere.jsonl")
    assert done.returncode == 1 and done.stderr == "evaluate.py: no question file 'nowhere.jsonl'\n"


@pytest.mark.parametrize("change, says", [
    (["--seed", 1], "seed: 0 there, 1 here"), (["--samples", 0], "samples: 3 there, 0 here"),
    (["--max_tokens", 61], "max_tokens: 60 there, 61 here"),
    (["--model", "nowhere"], "model: 'tiny' there, 'nowhere' here"),
    (["--limit", 12], "limit: None there, 12 here"), (["--task", "sums"], "task: 'math' there, 'sums' here"),
    (["--seed", 2, "--samples", 1, "--limit", 9], "seed: 0 there, 2 here; samples: 3 there, 1 here; limit: None there, 9 here; "
                                                  "questions: 'QUESTIONS' there, 'QUESTIONS' here"),
])
def test_other_settings_do_not_mix(asked, here, change, says):
    folder, command, _ = asked
    error, _ = here(*command, *change)
    error = re.sub("'[0-9a-f]{16}'", "'QUESTIONS'", error)  # a hash of them
    assert f"holds answers of few with other settings ({says}); choose another --out" in error and "\n" not in error


def test_other_questions_do_not_mix(asked, here, tmp_path):
    """A regression: where the gold answers were the same, other questions were taken as answered."""
    folder, command, _ = asked
    rows = [json.loads(line) for line in (folder / "few.jsonl").read_text().splitlines()]
    (tmp_path / "few.jsonl").write_text("\n".join(json.dumps(row | {"question": "1 + 1?"}) for row in rows))
    error, _ = here(*command[:3], tmp_path / "few.jsonl", *command[4:])
    assert "holds answers of few with other settings (questions: " in error


def test_a_wrong_model_does_not_claim_the_folder(here, tmp_path):
    command = ["--data", ROOT / "tiny" / "heldout.jsonl", "--out", tmp_path / "out"]
    assert "evaluate.py: " in here("--model", "/nowhere", *command)[0] and not (tmp_path / "out").exists()


def test_a_limit_is_in_the_table(asked, here, tmp_path):
    folder, command, _ = asked
    command = [*command[:-1], tmp_path / "out"]
    error, printed = here(*command, "--limit", 4)
    assert error is None and re.search(r"^few +4 of 12 +mean@3 ", printed, re.MULTILINE), printed
    golds = [json.loads(line)["gold"] for line in (tmp_path / "out" / "few.jsonl").read_text().splitlines()]
    everything = [question.answer for question in read_questions(folder / "few.jsonl")]
    assert golds == [gold for gold in everything[::3] for _ in range(3)]
    assert "limit: 4 there, None here" in here(*command)[0]


def test_a_task_of_a_file(here, tmp_path):
    """Its system prompt is asked, its `answer` and `same` grade, the vote included, and again by --regrade."""
    (tmp_path / "mine.py").write_text("""
from tasks import Math

class Mine(Math):
    solver_system = "Be brief."

    def answer(self, completion):
        return completion[:1]

    def same(self, a, b):
        return a != "Z"
""")
    (tmp_path / "own.jsonl").write_text('{"question": "1 + 1?", "answer": "Z"}\n'
                                        '{"question": "2 + 2?", "options": [4, 5], "answer": "A"}')
    command = ["--model", "tiny", "--data", tmp_path / "own.jsonl", "--task", f"{tmp_path}/mine.py:Mine",
               "--max_tokens", 4, "--samples", 2, "--out", tmp_path / "out"]
    error, printed = here(*command)
    rows = [json.loads(line) for line in (tmp_path / "out" / "own.jsonl").read_text().splitlines()]
    assert error is None and [row["right"] for row in rows] == [True, True, False, False]  # options go by letter
    assert [len(row["answer"] or "") for row in rows] == [1, 1, 0, 0]
    assert json.loads((tmp_path / "out" / "results.json").read_text())["own"]["majority@2"][0] == 0.5
    assert "0 of 4 completions are graded otherwise" in here("--regrade", "--out", tmp_path / "out")[1]
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text().replace("brief", "verbose"))
    assert "system: 'Be brief.' there, 'Be verbose.' here" in here(*command)[0]


def test_the_system_message_is_the_tasks():
    class Short(Math):
        solver_system = "Be brief."

    sampler = Says({("Be brief.one", 0): ["x"]})
    sampler.tokenizer = SimpleNamespace(chat=lambda system, user: system + user, decode=lambda tokens: tokens)
    assert [row["text"] for row in ask(sampler, Short(), TWO[:1], samples=0, max_tokens=9, seed=0)] == ["x"]


def test_says_that_a_judge_graded_the_papers_numbers(asked, here, monkeypatch, tmp_path):
    folder, _, first = asked
    assert "judge" not in first.stdout
    shutil.copytree(folder / "out", tmp_path / "out")
    monkeypatch.setattr(module, "row_of_paper", lambda model: "Qwen3-4B-Base")
    assert "a judge model (GPT-4o)" in here("--regrade", "--out", tmp_path / "out")[1]


def test_another_benchmark_joins_the_table(asked, here, tmp_path):
    folder, command, _ = asked
    shutil.copytree(folder / "out", tmp_path / "out")
    (tmp_path / "more.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}')
    error, printed = here(*command[:3], tmp_path / "more.jsonl", *command[4:-1], tmp_path / "out")
    assert error is None and {"few", "more"} < {line.split()[0] for line in printed.splitlines() if line}
    assert json.loads((tmp_path / "out" / "results.json").read_text()).keys() == {"few", "more"}
