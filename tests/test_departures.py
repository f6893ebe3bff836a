"""Where the official code is not the paper: for each setting a case by hand, with what both do, and the baselines."""

import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from test_grpo import gradient, small_model, some_rollouts, weights
from test_penalty import slow_penalty, some_questions

import evaluate
import run as plumbing
import rzero
from common import read_json, read_lines, write_lines
from grpo import GRPOConfig, Trainer, group_advantages, grpo_loss, token_weights
from model import load, save
from run import Run, vote_metrics
from rzero import PRESETS, Config, Vote, build_questions, challenger_rewards, evolve, train_challenger
from tasks import Math, Sums, load_task
from tasks.benchmarks import read_texts
from watch import sizes

ROOT = Path(__file__).parents[1]
PAPER, OFFICIAL = PRESETS["paper"], PRESETS["official"]


def tiny_run(out, **settings):
    return Config(**{"model": str(ROOT / "tiny"), "out": str(out), "heldout": "", "iterations": 1} | settings)


def refused(out, says, **settings):
    """Whether a run is refused in one line, before any work."""
    with pytest.raises((OSError, ValueError), match=says) as error:
        Run(tiny_run(out, **settings))
    return "\n" not in str(error.value) and not out.exists()


def test_rewards_and_advantages_of_208_questions():
    """The code clusters all proposals, an invalid one as the empty text, which is like no other; it clips nothing, and
    pays -1 for the invalid. The paper's formula is clipped at 0, and 0 for the invalid. B is 208 in both."""
    rng = random.Random(4)
    questions = some_questions(208, 4, vocabulary=60, longest=16)
    for _ in range(30):
        questions[rng.randrange(208)] = rng.choice(questions)
    questions = [None if rng.random() < 0.2 else q for q in questions]
    valid = np.array([q is not None for q in questions])
    p = np.where(valid, [rng.randrange(11) / 10 for _ in questions], 0)
    r_rep = slow_penalty([q or "" for q in questions])
    assert 20 < (~valid).sum() < 70 and r_rep.max() > 2 / 208 and (r_rep[~valid] == 1 / 208).all()
    official, metrics = challenger_rewards(questions, p, Math(), OFFICIAL)
    expected = np.where(valid, np.minimum(p, 1 - p), -1) - r_rep
    np.testing.assert_allclose(official, expected, rtol=0, atol=1e-9)
    groups = expected.reshape(52, 4)
    advantages = (groups - groups.mean(1, keepdims=True)) / (groups.std(1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(group_advantages(official.reshape(52, 4)), advantages, rtol=0, atol=1e-9)
    paper, same_clusters = challenger_rewards(questions, p, Math(), PAPER)
    expected = np.where(valid, np.maximum(0, 1 - 2 * np.abs(p - 0.5) - r_rep), 0)
    np.testing.assert_allclose(paper, expected, rtol=0, atol=1e-9)
    assert metrics["penalty"] == pytest.approx(r_rep[valid].mean())
    assert metrics["uncertainty"] == pytest.approx(np.minimum(p, 1 - p)[valid].mean())
    assert metrics["clusters"] == same_clusters["clusters"] == round((1 / (208 * r_rep[valid])).sum())
    without, _ = challenger_rewards(questions, p, Math(), replace(PAPER, penalty_weight=0))
    np.testing.assert_allclose(without, np.where(valid, 1 - 2 * np.abs(p - 0.5), 0), atol=1e-12)


@pytest.mark.parametrize("answers, counted, ignored, answer", [
    (["1", None, None, "2"], ("1", 0.25), ("1", 0.5), (None, 0.5)),
    (["1", None, "1.0", None], ("1", 0.5), ("1", 1.0), ("1", 0.5)),  # of a tie, the first seen
    ([None, "1", "1.0", None], ("1", 0.5), ("1", 1.0), (None, 0.5)),
    ([None, None], (None, 0.0), (None, 0.0), (None, 1.0)),
])
def test_what_no_box_is_in_a_vote(answers, counted, ignored, answer):
    for unboxed, (label, share) in (("counted", counted), ("ignored", ignored), ("answer", answer)):
        assert Math().majority(answers, unboxed) == (label, pytest.approx(share))


def test_the_block_and_the_box_of_a_question():
    last = "<question>1 + 1?</question>"
    recited = f"<question>\nthe problem\n</question>\n\n\\boxed{{final_answer}}\nSo:\n{last}"
    for completion, rules, question in (
            (f"{recited}\\boxed{{2}}", {}, "1 + 1?"), (recited, {"question_block": "first"}, "the problem"),
            (recited, {}, None), (recited, {"box": "anywhere"}, "1 + 1?"), (last, {"box": "anywhere"}, None),
            (last, {"box": "optional"}, "1 + 1?"), ("1 + 1? \\boxed{2}", {"box": "optional"}, None)):
        assert load_task("math", **rules).question(completion) == question


def reason(share, cfg, question="1 + 1?", proposed="2", majority="2"):
    return rzero.why_dropped(Vote(question, proposed, [], majority, share), Math(), cfg)


def test_which_questions_are_kept():
    def kept(m, cfg):
        return [n for n in range(m + 1) if reason(n / m, cfg) is None]
    assert kept(10, PAPER) == [3, 4, 5, 6, 7] and kept(4, PAPER) == [1, 2, 3]  # the bounds are kept too
    assert kept(10, OFFICIAL) == [3, 4, 5, 6, 7, 8] and kept(9, OFFICIAL) == [3, 4, 5, 6, 7]
    assert [reason(p, PAPER) for p in (0.2, 0.8)] == ["too hard", "too easy"]
    assert reason(0.5, PAPER, question=None) == "wrong format"
    assert reason(0.5, OFFICIAL, majority=None) == "no answer"  # most answers had no box, which is an answer there
    for change in ({"question": "A Box of 3?"}, {"question": "证明 1 + 1 = 2"}, {"majority": "\\text{two}"}):
        assert reason(0.5, PAPER, **change) is None and reason(0.5, OFFICIAL, **change) == "unwanted word"


def asks(k):
    """Even questions propose the right answer, odd ones a wrong one."""
    return f"<question>What is 1 + {k}?</question>\\boxed{{{k + 1 + 50 * (k % 2)}}}"


class Scripted(Run):
    """A `Run` whose weights are names, and whose sampler says what it is told to: as the Challenger asks(k), as the
    Solver every other answer right, and the rest all different."""

    def __init__(self, asks=asks, given=(), **settings):
        self.cfg = Config(**{"iterations": 1, "challenger_steps": 1, "challenger_prompts": 2, "challenger_rollouts": 2,
                             "pool": 4, "pool_draws": 1, "solver_steps": 1, "solver_prompts": 2, "solver_rollouts": 2,
                             "answers": 4, "pool_answers": 6, "penalty_weight": 0.0} | settings)
        self.task = load_task("sums", question_block=self.cfg.question_block, box=self.cfg.box)
        self.truth, self.given, self.contexts, self.matched, self.trainer = None, given, [], [], None
        self.asks, self.calls, self.starts, self.learned, self.rows = asks, [], [], [], {}
        self.tokenizer = Mock(chat=lambda system, user: user, decode=lambda tokens: tokens)
        self.sampler, self.spent, self.watch = Mock(generate=self.generate), plumbing.Counter(), Mock()
        self.folder = Mock(questions=self.rows.get, write_part=lambda _, iteration, rows: self.rows.update({iteration: rows}))
        self.finished = self.measure = self.report = self.log_cost = lambda *_, **__: False

    def weights(self, role, iteration):
        return f"{role} {iteration}"

    def play(self, weights):
        self.playing = weights

    def generate(self, prompts, n, keep, **settings):
        self.calls.append(settings | {"n": n, "weights": self.playing, "prompts": prompts})
        asking = settings["progress"] == "asking"
        texts = [[self.asks(i * n + j) if asking else f"\\boxed{{{1000 + j if j % 2 else 1 + int(p.split()[-1][:-1])}}}"
                  for j in range(n)] for i, p in enumerate(prompts)]
        return [[keep(i, j, Mock(tokens=text)) for j, text in enumerate(group)] for i, group in enumerate(texts)]

    def phase(self, role, iteration):
        self.starts.append(self.start(role, iteration))
        step = Mock(policy=f"{role} in training", key=(iteration, role, 0), index=0)
        step.learn = lambda _, __, rewards_GN, **metrics: self.learned.append((rewards_GN, metrics))
        yield step


def test_each_use_of_the_sampler_has_its_own_settings():
    run = Scripted(top_p=0.9, vote_top_p=0.8, vote_top_k=40, pool_top_p=0.7)
    evolve(run)
    assert [(c["weights"], c["n"], c["top_p"], c["top_k"]) for c in run.calls] == [
        ("challenger in training", 4, 0.9, 0), ("solver 0", 4, 0.8, 40), ("challenger 1", 4, 0.7, 0),
        ("solver 0", 6, 0.8, 40), ("solver in training", 2, 0.9, 0)]
    for cfg, values in ((PAPER, (0.99, 0.99, 0, 0.99, 10, 10)), (OFFICIAL, (0.99, 1.0, 40, 0.95, 10, 9))):
        assert (cfg.top_p, cfg.vote_top_p, cfg.vote_top_k, cfg.pool_top_p, cfg.answers, cfg.pool_answers) == values


@pytest.mark.parametrize("one_model, starts, voters", [
    (False, ["challenger 0", "solver 0", "challenger 1", "solver 1"], ["solver 0", "solver 0", "solver 1", "solver 1"]),
    (True, *[["solver 0", "challenger 1", "solver 1", "challenger 2"]] * 2)])
def test_which_weights_each_phase_starts_from_and_who_votes(one_model, starts, voters):
    run = Scripted(one_model=one_model, iterations=2)
    evolve(run)
    assert run.starts == starts
    assert [c["weights"] for c in run.calls if c["progress"] == "answering" and c["n"] > 2] == voters  # 2: to learn


@pytest.mark.parametrize("unboxed, share", [("counted", 0.25), ("ignored", 0.5), ("answer", 0.5)])
def test_a_run_votes_by_its_rule(unboxed, share):
    run = Scripted(unboxed=unboxed, pool_answers=4)
    run.task.answer = Mock(side_effect=[None, None, "1", "2"] * 4)
    build_questions(run, 1)
    assert [(r["share"], r["majority"]) for r in run.rows[1]] == [(share, None if unboxed == "answer" else "1")] * 4


def test_agreement_with_the_proposed_answer():
    """p is 1/2 for all, which earns 1; where the Challenger's own answer is another, with agreement nothing."""
    for agreement, rewards, dropped in ((False, [1, 1, 1, 1], [None] * 4),
                                        (True, [1, 0, 1, 0], [None, "another answer proposed"] * 2)):
        run = Scripted(agreement=agreement)
        evolve(run)
        rewards_GN, metrics = run.learned[0]
        assert rewards_GN.flatten().tolist() == rewards and metrics["agreement"] == 0.5
        assert [row["dropped"] for row in run.rows[1]] == dropped


def test_rewards_are_compared_in_groups_or_over_the_whole_batch():
    """Rewards 1, 0 | 0, 0: in groups of 2 the last two teach nothing; over the batch all are below the first."""
    for group, advantages in (("prompt", [math.sqrt(0.5), -math.sqrt(0.5), 0, 0]),
                              ("batch", [1.5, -0.5, -0.5, -0.5])):  # mean 1/4, unbiased std 1/2
        run = Scripted(lambda k: "no block" if k else asks(k), challenger_group=group)
        train_challenger(run, 1)
        assert group_advantages(run.learned[0][0]).flatten().tolist() == pytest.approx(advantages, abs=1e-5)


def test_the_pool_may_want_an_answer_where_training_does_not():
    for needs_answer, dropped in ((False, [None] * 4), (True, [None, "wrong format"] * 2)):
        run = Scripted(lambda k: asks(k).replace("boxed", "" if k % 2 else "boxed"), box="optional",
                       pool_needs_answer=needs_answer)
        evolve(run)
        assert run.learned[0][1]["valid"] == 1 and [row["dropped"] for row in run.rows[1]] == dropped
    assert OFFICIAL.box == "optional" and OFFICIAL.pool_needs_answer and PAPER.box == "after"


@pytest.mark.parametrize("matched, drawn", [(2, 4), (4, 4), (6, 8), (100, 12)])
def test_pools_are_drawn_until_as_many_are_kept(matched, drawn):
    """Pools of 4 questions, all of which are kept; of 3 pools at most."""
    run = Scripted(match_kept="other", pool_draws=3)
    run.matched = [matched]
    build_questions(run, 1)
    dropped = [row["dropped"] for row in run.rows[1]]
    assert dropped == [None] * min(matched, drawn) + ["more than matched"] * (drawn - matched)


def test_a_part_of_the_solvers_reward_for_the_form():
    think = "<think>1 and 1</think>\\boxed{2}"
    assert Math().well_formed(think)
    for bad in ("\\boxed{2}", " " + think, think.replace("</think>", ""), "<think>\\boxed{2}</think>", think[:-1]):
        assert not Math().well_formed(bad)
    for weight, label, rewards in ((0.0, "2", [1, 1]), (0.1, "2", [1, 0.9]), (0.1, "3", [0.1, 0])):
        run = Scripted(given=[{"question": "What is 1 + 1?", "label": label, "share": 1.0}], format_weight=weight)
        run.text = Mock(side_effect=[think, "\\boxed{2}"] * 2)
        rzero.train_solver(run, 1)
        np.testing.assert_allclose(run.learned[0][0], [rewards, rewards])


def test_each_challenger_prompt_holds_a_text():
    """One a group in training, one a question in the pool; the same seed draws the same."""
    def prompts(seed):
        run = Scripted(context="some.jsonl", seed=seed, challenger_prompts=6, pool=9)
        run.contexts = [f"text {i}" for i in range(20)]
        evolve(run)
        return [(c["n"], c["prompts"]) for c in run.calls if c["progress"] == "asking"]
    training, pool = prompts(0)
    assert (training[0], len(training[1])) == (2, 6) and (pool[0], len(pool[1])) == (1, 9)
    user = Math.challenger_prompt[1]
    assert all(p.startswith("text ") and p.endswith(f"\n\n{user}") for p in training[1] + pool[1])
    assert len(set(training[1])) > 1 and prompts(0) == [training, pool] and prompts(1) != [training, pool]


def test_texts_of_a_file(tmp_path):
    file = tmp_path / "texts.jsonl"
    file.write_text('"a baker"\n\n{"text": " a sailor ", "id": 3}\n')
    assert read_texts(file) == ["a baker", "a sailor"]
    for text, says in (("a baker", "line 1, is not valid JSON"), ('"a"\n3', "line 2, needs a text"), ('""', "needs a text"),
                       ('{"txt": "a"}', "line 1, needs a text"), ("\n", "holds no text")):
        file.write_text(text)
        assert refused(tmp_path / "run", says, context=str(file))
    assert refused(tmp_path / "run", "no file 'nowhere.jsonl'", context="nowhere.jsonl")


def loss_of(ratio, A, cfg, reference_ratio):
    logprobs = torch.tensor([[math.log(0.1)]], dtype=torch.float64)
    old, ref = logprobs - math.log(ratio), logprobs + math.log(reference_ratio)
    A_1, mask_11 = torch.tensor([A], dtype=torch.float64), torch.ones(1, 1)
    return grpo_loss(logprobs, old, ref, A_1, mask_11, cfg, denominator=1, averaged_B=mask_11[0])[0].item()


def test_clips_by_hand():
    """Ratio 1.25 is clipped at 1.2 in the paper, not in the code at 1.3; ratio 5 with A = -1 is bounded at 3 there. Of
    a reference that is e^3 times as likely, k3 is e^3 - 4 = 16.09, there at most 10."""
    for ratio, A, reference_ratio, paper, official in (
            (1.25, 1, 1, 1.2, 1.25), (2, 1, 1, 1.2, 1.3), (0.5, -1, 1, -0.8, -0.8), (2, -1, 1, -2, -2),
            (5, -1, 1, -5, -3), (1, 0, math.exp(2), -0.04389056, -0.04389056), (1, 0, math.exp(3), -0.16085537, -0.1)):
        found = [-loss_of(ratio, A, cfg, reference_ratio) for cfg in (PAPER, OFFICIAL)]
        assert found == pytest.approx([paper, official])


def test_averages_by_hand():
    """Rows of 1, 3, 2 and 4 tokens: a token weighs 1/10; 1/4 of its row; or 1/2 of its pair's 4 and 6."""
    mask = (torch.arange(4) < torch.tensor([[1], [3], [2], [4]])).double()
    for average, count, of_row in (("token", 10, [1 / 10] * 4), ("sequence", 4, [1 / 4, 1 / 12, 1 / 8, 1 / 16]),
                                   ("rows", 2, [1 / 8, 1 / 8, 1 / 12, 1 / 12])):
        found = token_weights(mask, average, count, torch.tensor([4, 4, 6, 6]))
        assert torch.allclose(found, mask * mask.new_tensor(of_row)[:, None])


def trained(average, rows, average_rows=1, mini_batches=1, token_budget=2048):
    """The gradient of a step; of mini-batches one after the other, at the same weights."""
    cfg = GRPOConfig(kl_coef=0.0, max_grad_norm=1e9, average=average, token_budget=token_budget)
    return gradient(Trainer(small_model(), cfg, 1.0, mini_batches=mini_batches, average_rows=average_rows), rows)


def test_rows_are_averaged_together_whatever_a_micro_batch_holds():
    """The pairs of 7 rows, and the one left over, weigh the same; each is a mean over its tokens. Mini-batches, of 4
    and 3 rows, are averaged apart."""
    rows = some_rollouts(20)[:7]
    pairs = sum(trained("token", rows[i:i + 2]) for i in range(0, 7, 2)) / 4
    for token_budget in (2048, 60, 1):
        assert torch.allclose(trained("rows", rows, 2, token_budget=token_budget), pairs, atol=1e-6)
    assert not torch.allclose(trained("token", rows), pairs, atol=1e-4)
    for average_rows, average in ((1, "sequence"), (7, "token"), (99, "token")):
        assert torch.allclose(trained("rows", rows, average_rows), trained(average, rows), atol=1e-6)
    both = torch.cat([trained("rows", mini, 3) for mini in (rows[:4], rows[4:])])  # 3 and 1 rows, then 3
    assert torch.allclose(trained("rows", rows, 3, mini_batches=2), both, atol=1e-6)


@pytest.mark.parametrize("warmup_steps, rates", [(0, [1, 1, 1]), (1, [0, 1, 1]), (2, [0, 0.5, 1])])
def test_warm_up(warmup_steps, rates, tmp_path):
    """The rate of each step, in all its updates; also of a trainer that goes on from the first step's checkpoint."""
    cfg = GRPOConfig(kl_coef=0.0, warmup_steps=warmup_steps)
    trainer, resumed = (Trainer(small_model(), cfg, 1e-3, mini_batches=3) for _ in range(2))
    for step, rate in enumerate(rates):
        before = weights(trainer.policy).clone()
        trainer.step(some_rollouts(seed=step))
        assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * rate)
        assert weights(trainer.policy).equal(before) == (rate == 0)
        if step == 0:
            trainer.save_checkpoint(tmp_path)
            resumed.load_checkpoint(tmp_path)
        else:
            resumed.step(some_rollouts(seed=step))
        assert weights(resumed.policy).equal(weights(trainer.policy))


def test_each_role_has_its_own_updates(monkeypatch):
    run = Scripted(challenger_lr=1.0, challenger_mini_batches=2, challenger_average_rows=3,
                   solver_lr=4.0, solver_mini_batches=5, solver_average_rows=6)
    run.sampler = Mock(device="cpu", **{"model.config.width": 8})
    for role, *its_own in (("challenger", 1.0, "cpu", 2, 3), ("solver", 4.0, "cpu", 5, 6)):
        monkeypatch.setattr(plumbing, "Trainer", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            next(Run.phase(run, role, 1))
        plumbing.Trainer.assert_called_once_with(f"{role} 0", run.cfg, *its_own)


def test_a_run_says_how_many_updates_an_iteration_makes():
    for cfg, says in ((PAPER, ("5 x 2,048 questions, answered 10 times each; 160 optimizer updates\n",
                               "15 x 512 questions 5 times each; 60 optimizer updates")),
                      (OFFICIAL, ("160 optimizer updates, 128 above learning rate 0\n", "answered 9 times each",
                                  "60 optimizer updates, 56 above learning rate 0"))):
        assert all(text in sizes(cfg) for text in says) and sizes(cfg).endswith(says[-1])
    assert sizes(Config(train_file="some.jsonl")).count("\n") == 1  # neither Challenger nor pool


def row(question, share=0.0, majority="1", proposed="1", dropped=None, truth="1", answers=("1", None, None)):
    return locals() | {"label_right": truth is not None and majority == truth}


def test_what_is_said_of_votes_and_of_a_pool():
    rows = [row("a", 0.5), row("b", 0.9, proposed="2"), row("c", 1.0, proposed="1.0"), row(None, 0.0, None, None)]
    assert vote_metrics(rows, Math()) == {"valid": 0.75, "share": pytest.approx(0.8), "agreement": pytest.approx(2 / 3),
                                          "share_counts": [0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1],
                                          "boxless": pytest.approx(2 / 3)}
    assert vote_metrics([row(None)], Math()) == {"valid": 0, "share": 0, "agreement": 0, "share_counts": [0] * 11,
                                                 "boxless": 0}
    run = Scripted()
    run.truth = Sums().truth
    run.rows[1] = [row("What is  1 + 2?"), row("other", dropped="too easy")]
    run.rows[2] = [row("what is 1 + 2?", 0.5), row("What is 1 + 3?", 0.5, truth="4"), row("x", 1.0, dropped="too easy"),
                   row(None, dropped="wrong format", truth=None), row("y", 0.1, dropped="too hard", truth=None)]
    assert run.of_pool(1)["new"] == 1
    assert run.of_pool(2).items() >= {
        "kept": 2, "pool": 5, "valid": 0.8, "new": 0.75, "label_accuracy": 0.5, "well_posed": 0.75,
        "dropped": {"too easy": 0.2, "too hard": 0.2, "wrong format": 0.2}}.items()


SUMS = {f"What is {23 + 7 * i} + {41 - 3 * i} - 1{i} + 2{i}?": str(74 + 4 * i) for i in range(8)}


@pytest.fixture
def questions(tmp_path):
    rows = [row("What is 1 + 1?", 1.0, "2", dropped="too easy"), row(None, 0.0, None, None, dropped="wrong format")]
    write_lines(file := tmp_path / "questions.jsonl", rows + [row(q, 0.5, answer) for q, answer in SUMS.items()])
    return file


def test_a_challenger_of_another_shape_is_refused(tmp_path):
    shutil.copytree(ROOT / "tiny", tmp_path / "deeper")
    config = read_json(tmp_path / "deeper" / "config.json")
    (tmp_path / "deeper" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 99}))
    assert refused(tmp_path / "run", "is a model of another shape", challenger=str(tmp_path / "deeper"))


def test_a_file_to_train_on(questions, tmp_path):
    """A run's pool is such a file, of which the dropped rows are left out; options are not taken."""
    run = Run(tiny_run(tmp_path / "run", train_file=str(questions)))
    assert run.labelled_questions(1) == [{"question": q, "label": a, "share": 1.0} for q, a in SUMS.items()]
    options, other = tmp_path / "options.jsonl", tmp_path / "other"
    options.write_text('{"question": "Which?", "answer": "A", "options": ["this", "that"]}\n')
    assert refused(other, "has questions with options", train_file=str(options))
    assert refused(other, "no question file", train_file="nowhere.jsonl")
    assert refused(other, "--one_model is of the Challenger", one_model=True, train_file=str(questions))
    assert refused(other, "--context is of the Challenger", context="texts.jsonl", train_file=str(questions))
    assert refused(other, "--match_kept names .* which has no iter1/questions.jsonl", match_kept=str(tmp_path))


@pytest.mark.slow
def test_training_on_a_file_and_asking_it(questions, tmp_path, monkeypatch):
    """The Solver alone is trained, in the folder of any run, and learns; evaluate.py asks the 8 kept questions."""
    out = tmp_path / "run"
    evolve(Run(tiny_run(out, train_file=str(questions), solver_steps=10, solver_prompts=8, max_answer_tokens=96)))
    assert [p.name for p in (out / "iter1").iterdir()] == ["solver"]
    steps = read_lines(out / "metrics.jsonl")
    assert [(step["phase"], step["step"], step["share"]) for step in steps] == [("solver", i, 1) for i in range(1, 11)]
    assert steps[8]["reward"] + steps[9]["reward"] > steps[0]["reward"] + steps[1]["reward"] + 0.2
    monkeypatch.setattr("sys.argv", ["evaluate.py", "--model", str(out / "iter1" / "solver"), "--data", str(questions),
                                     "--task", "sums", "--max_tokens", "96", "--out", str(tmp_path / "asked")])
    evaluate.main()
    asked = read_lines(tmp_path / "asked" / "questions.jsonl")
    assert {row["question"]: row["gold"] for row in asked} == dict(enumerate(SUMS.values()))


@pytest.mark.slow
def test_a_frozen_challenger_of_another_run(tmp_path):
    base, other = (load(ROOT / "tiny", dtype=None) for _ in range(2))
    other.norm.weight.data += 1
    save(other, tmp_path / "other", Run(tiny_run(tmp_path / "first")).tokenizer)
    train_challenger(run := Run(tiny_run(tmp_path / "run", challenger=str(tmp_path / "other"), challenger_steps=0)), 1)
    assert weights(run.weights("challenger", 1)).equal(weights(other)) and not weights(base).equal(weights(other))
    assert weights(run.start("solver", 1)).equal(weights(base))
