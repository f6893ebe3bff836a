"""Every state of a run has its page; several runs share one; no text scripts it; the command."""

import os
import re
import sys
import time
import xml.etree.ElementTree as ElementTree

import pytest
from run_folders import Page, age, edit, fail_in_format, page_of, write_run

import report
from common import read_lines, write_lines
from folder import read_run
from report import main, page


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "finished")


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
