"""R-Zero (Huang et al., arXiv 2508.05004): a language model that improves on questions it asks itself, without any
data.

One base model plays two roles, each with weights of its own. The Challenger is rewarded for questions on which the
Solver's answers agree about half of the time. The Solver learns from the majority of its own answers. Both are trained
with GRPO, in turns:

    for each iteration
        Challenger   reward max(0, r_unc - r_rep) for each question, the Solver frozen             `train_challenger`
        questions    a pool from the trained Challenger, kept where |p - 1/2| <= delta             `build_questions`
        Solver       reward 1 where an answer equals the question's majority, the Challenger frozen    `train_solver`

    torchrun rzero.py                                            the tiny base model, on a laptop, into runs/tiny
    torchrun rzero.py --preset paper --model Qwen/Qwen3-4B-Base --out runs/4b
    torchrun rzero.py --preset paper --model runs/4b/iter3/solver --train_file labelled.jsonl --out runs/labelled
    python plan.py --preset paper --devices 1 --device_gb 141    the memory that this takes

This is the algorithm of the paper. Where its official code does otherwise there is a setting, and `--preset official`
sets them all. The paper leaves four things open: here clusters are found by average linkage, the clip range is 0.2, a
group's standard deviation is the unbiased one, and the loss is a mean over tokens.

Every finished part is a file in the run folder (`--out`). Given again, the command goes on after the last finished
part. All draws are functions of (seed, iteration, phase, step, prompt, completion, position)."""

import sys
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from common import DTYPES, parse_settings, require_least, require_most, require_one_of, start_processes
from folder import LOGGERS
from grpo import GRPOConfig
from guard import ending, hold
from run import Run, vote_metrics
from tasks.similarity import average_linkage, bleu_distances


class Vote(NamedTuple):
    """A question of the Challenger (None where the format was wrong) and the answer that it proposed; the Solver's m
    answers (None: no box), the most frequent one, and its share p of all m."""

    question: str | None
    proposed: str | None
    answers: list
    majority: str | None
    share: float


# ---- rewards


def challenger_rewards(questions, shares, task, cfg):
    """max(0, r_unc - r_rep) for each proposal -> (rewards [B], metrics) (paper, section 3.1).

        r_unc = s min(p, 1 - p)        p: the share of the Solver's answers that equal their majority; s: reward_scale,
                                       of which 2 makes this the paper's 1 - 2 |p - 1/2|
        r_rep = lambda |C_k| / B       C_k: the question's cluster among the B proposals of the batch

    questions: [B], None where the format was wrong, which earns invalid_reward. shares: [B], p. Without clip_reward
    nothing is clipped at 0, and a wrong format pays its r_rep of 1 / B too, as in the official code. metrics: means of
    r_unc (uncertainty) and r_rep (penalty) over the well-formed; the number of their clusters."""
    valid, p = np.array([q is not None for q in questions], dtype=bool), np.asarray(shares, dtype=float)
    r_unc = np.where(valid, cfg.reward_scale * np.minimum(p, 1 - p), cfg.invalid_reward)
    cluster_shares = repetition_penalty(questions, task.distances, cfg.penalty_distance)
    r_rep = cfg.penalty_weight * cluster_shares
    rewards = r_unc - r_rep
    if cfg.clip_reward:
        rewards = np.where(valid, np.maximum(0, rewards), cfg.invalid_reward)
    metrics = {"uncertainty": r_unc[valid].mean(), "penalty": r_rep[valid].mean()} if valid.any() else {}
    return rewards, metrics | {"clusters": round((1 / len(questions) / cluster_shares[valid]).sum())}


def repetition_penalty(questions, distances=bleu_distances, tau=0.5):
    """|C_k| / B for each of B proposals: the share of the batch in its cluster -> [B] (paper, section 3.1). Clusters
    are merged by average linkage while the mean of their distances(questions) [B, B] is below tau. A proposal in the
    wrong format, None, is like no other."""
    valid, shares = np.array([q is not None for q in questions], dtype=bool), np.full(len(questions), 1.0)
    if valid.any():
        clusters = average_linkage(distances([q for q in questions if q is not None]), tau)
        shares[valid] = np.bincount(clusters)[clusters]
    return shares / max(1, len(questions))


def solver_rewards(answers, labels, same):
    """1 where an answer (None: no box) is the same as its label, else 0 -> [B] (paper, section 3.3)."""
    return np.array([float(a is not None and same(a, label)) for a, label in zip(answers, labels, strict=True)])


def why_dropped(vote, task, cfg):
    """None for a question to learn from, else the reason against it: |p - 1/2| must be at most delta (section 3.2)."""
    if vote.question is None:
        return "wrong format"
    if vote.majority is None:
        return "no answer"
    if not cfg.keep_low - 1e-9 <= vote.share <= cfg.keep_high + 1e-9:
        return "too easy" if vote.share > cfg.keep_high else "too hard"
    if cfg.agreement and not task.agree(vote.majority, vote.proposed):
        return "another answer proposed"
    return "unwanted word" if cfg.word_filter and task.unwanted(vote.question, vote.majority) else None


# ---- the three parts of an iteration, and the loop


def propose(run, challenger, G, N, key, top_p, needs_answer=False):
    """G groups of N proposals -> lists of their prompts, completions, and (question, proposed answer), with None for
    the question where the format is wrong. needs_answer: it is, where no answer is proposed."""
    task, prompts = run.task, run.challenger_prompts(G, key)  # without --context all groups share one prompt
    each = G * N // len(prompts)
    groups = run.sample(challenger, prompts, each, run.cfg.max_question_tokens, key, "asking", top_p)
    completions = [completion for group in groups for completion in group]
    proposals = [(task.question(text), task.proposed(text)) for text in map(run.text, completions)]
    if needs_answer:
        proposals = [(None if answer is None else question, answer) for question, answer in proposals]
    return [prompt for prompt in prompts for _ in range(each)], completions, proposals


def vote(run, solver, proposals, m, key):
    """The Solver answers each question m times; the most frequent answer is the label -> a `Vote` for each proposal."""
    cfg, task = run.cfg, run.task
    prompts = [run.solver_prompt(question) for question, _ in proposals if question is not None]
    groups = iter(run.sample(solver, prompts, m, cfg.max_answer_tokens, (*key, "vote"), "answering", cfg.vote_top_p,
                             cfg.vote_top_k, keep=lambda completion: task.answer(run.text(completion))))
    votes = []
    for question, proposed in proposals:
        answers = [] if question is None else next(groups)
        votes.append(Vote(question, proposed, answers, *task.majority(answers, cfg.unboxed)))
    return votes


def train_challenger(run, iteration):
    """Part 1. GRPO towards questions on which the frozen Solver's answers agree about half of the time."""
    cfg, task, solver = run.cfg, run.task, run.weights("solver", iteration - 1)
    G, N = cfg.challenger_prompts, cfg.challenger_rollouts
    for step in run.phase("challenger", iteration):
        prompts, completions, proposals = propose(run, step.policy, G, N, step.key, cfg.top_p)
        votes = vote(run, solver, proposals, cfg.answers, step.key)
        shares = [0 if cfg.agreement and not task.agree(v.majority, v.proposed) else v.share for v in votes]
        rewards, metrics = challenger_rewards([v.question for v in votes], shares, task, cfg)
        rewards_GN = rewards.reshape((1, G * N) if cfg.challenger_group == "batch" else (G, N))
        step.learn(prompts, completions, rewards_GN, **vote_metrics([v._asdict() for v in votes], task), **metrics)


def build_questions(run, iteration):
    """Part 2. The trained Challenger asks, the Solver votes, and the questions of middling agreement are kept."""
    run.begin()
    cfg, rows = run.cfg, []
    challenger, solver = run.weights("challenger", iteration), run.start("solver", iteration)
    enough = run.enough_questions(iteration)
    for draw in range(cfg.pool_draws):
        key = (iteration, "questions", draw)
        *_, proposals = propose(run, challenger, cfg.pool, 1, key, cfg.pool_top_p, cfg.pool_needs_answer)
        votes = vote(run, solver, proposals, cfg.pool_answers, key)
        rows += [{**v._asdict(), "dropped": why_dropped(v, run.task, cfg)} for v in votes]
        if sum(row["dropped"] is None for row in rows) >= enough:
            break
    if cfg.match_kept:
        for row in [row for row in rows if row["dropped"] is None][enough:]:
            row["dropped"] = "more than matched"
    run.write_questions(iteration, rows)


def train_solver(run, iteration):
    """Part 3. GRPO on the kept questions: an answer that equals the label, the majority, earns 1."""
    cfg, task, N, w = run.cfg, run.task, run.cfg.solver_rollouts, run.cfg.format_weight
    labelled, needed = run.labelled_questions(iteration), cfg.solver_steps * cfg.solver_prompts
    order = run.shuffled(labelled, needed, (iteration, "solver order"))
    for step in run.phase("solver", iteration):
        batch = order[step.index * cfg.solver_prompts:(step.index + 1) * cfg.solver_prompts]
        prompts = [run.solver_prompt(row["question"]) for row in batch]
        groups = run.sample(step.policy, prompts, N, cfg.max_answer_tokens, step.key, "answering", cfg.top_p)
        completions = [c for group in groups for c in group]
        texts = [run.text(c) for c in completions]
        answers, labels = [task.answer(text) for text in texts], [row["label"] for row in batch for _ in range(N)]
        rewards = solver_rewards(answers, labels, task.same)
        if w:
            rewards = (1 - w) * rewards + w * np.array([task.well_formed(text) for text in texts])
        step.learn([p for p in prompts for _ in range(N)], completions, rewards.reshape(-1, N),
                   share=np.mean([row["share"] for row in batch]), boxless=answers.count(None) / len(answers))


def evolve(run):
    """The loop: all iterations, from wherever the run folder stands."""
    run.measure(0)
    for iteration in range(1, run.cfg.iterations + 1):
        if not (run.cfg.train_file or run.finished("challenger", iteration)):
            train_challenger(run, iteration)
        if not (run.cfg.train_file or run.finished("questions.jsonl", iteration)):
            build_questions(run, iteration)
        if not run.finished("solver", iteration):
            train_solver(run, iteration)
        run.measure(iteration)
    run.report()


# ---- settings


@dataclass
class Config(GRPOConfig):
    """All settings of a run, those of GRPO included. The defaults are the preset `tiny`. Symbols are the paper's; files
    are the official code's, named where it does otherwise than the paper."""

    model: str = "tiny"  # the base model: a Hugging Face folder or a Hub id
    task: str = "sums"  # what is asked and what counts as right: math, sums, or FILE.py:CLASS
    out: str = "runs/tiny"  # the run folder
    dry_run: bool = False  # go once through the whole loop at the smallest size, into a folder beside `out`, and say so
    seed: int = 0  # of all random draws
    iterations: int = 3  # rounds of Challenger and Solver
    one_model: bool = False  # one set of weights in both roles: each phase goes on from the other's
    challenger: str = ""  # the model that is the Challenger at first, if not the base; frozen with challenger_steps 0
    context: str = ""  # JSONL of strings, or of objects with a text; each Challenger prompt gets one, drawn by seed
    train_file: str = ""  # JSONL of question and answer, or a run's questions.jsonl: train the Solver on it alone
    log: str = ""  # where the metrics go besides the run folder's files: `tensorboard` or `wandb`

    # The Challenger's steps
    challenger_steps: int = 10  # GRPO steps of the Challenger in an iteration; 0 leaves it untrained
    challenger_prompts: int = 32  # groups a Challenger step; all have the same prompt, if there is no context
    challenger_rollouts: int = 4  # questions a group
    challenger_group: str = "prompt"  # rewards are compared within the questions of a `prompt`, or of the whole `batch`
    challenger_lr: float = 2e-4  # learning rate of the Challenger
    challenger_mini_batches: int = 1  # optimizer updates a Challenger step
    challenger_average_rows: int = 1  # rows averaged together in its loss, with --average rows

    # What a proposal is, and its reward
    question_block: str = "last"  # the <question> block that counts: the `last`, or the `first`
    box: str = "after"  # a proposal's answer stands `after` its block, `anywhere`, or is `optional` (caller_penalty.py)
    answers: int = 10  # answers that the Solver votes with on a proposal (m)
    vote_top_p: float = 0.99  # nucleus of these answers; 1.0 in start_vllm_server.py
    vote_top_k: int = 0  # draw them from so many tokens at most; 0: from all; 40 in start_vllm_server.py
    unboxed: str = "counted"  # answers without a box: `counted` in p's denominator, `ignored`, or one `answer` together
    agreement: bool = False  # p is 0, and the pool drops the question, where the label is not the proposed answer
    reward_scale: float = 2.0  # r_unc is this times min(p, 1 - p); 1 in caller_penalty.py
    penalty_weight: float = 1.0  # weight of the repetition penalty (lambda); 0: no penalty
    penalty_distance: float = 0.5  # questions nearer than this, in 1 - BLEU, are one cluster (tau)
    clip_reward: bool = True  # rewards are at least 0; false in caller_penalty.py
    invalid_reward: float = 0.0  # reward of a proposal in the wrong format; -1 in caller_penalty.py

    # The pool of questions for the Solver
    pool: int = 600  # questions drawn for the Solver's data (N)
    pool_draws: int = 4  # pools drawn at most until a Solver step's worth of questions is kept
    pool_top_p: float = 0.99  # nucleus of these questions; 0.95 in question_generate.py
    pool_answers: int = 10  # answers that the Solver votes with on one of them (m); 9 in question_evaluate/evaluate.py
    pool_needs_answer: bool = False  # with `box optional`, the pool wants a box all the same (question_generate.py)
    keep_low: float = 0.25  # a question is kept when p is at least this (1/2 - delta); 0.3 in solver_train.sh
    keep_high: float = 0.75  # a question is kept when p is at most this (1/2 + delta); 0.8 in solver_train.sh
    word_filter: bool = False  # drop questions and labels with words that the task lists (question_evaluate)
    match_kept: str = ""  # a run folder: keep as many questions as it did, from pool_draws pools at most

    # The Solver's steps
    solver_steps: int = 15  # GRPO steps of the Solver in an iteration
    solver_prompts: int = 64  # questions a Solver step
    solver_rollouts: int = 5  # answers a question
    solver_lr: float = 4e-4  # learning rate of the Solver
    solver_mini_batches: int = 1  # optimizer updates a Solver step
    solver_average_rows: int = 1  # rows averaged together in its loss, with --average rows
    labels: str = "majority"  # what the Solver learns from: `majority`, or `truth`, a control where it can be computed
    format_weight: float = 0.0  # share of the form in its reward, which the prompt does not mention; 0.1 in math.py

    # Sampling, memory and disk
    top_p: float = 0.99  # nucleus of the completions that are learned from
    max_question_tokens: int = 96  # longest completion of the Challenger
    max_answer_tokens: int = 160  # longest completion of the Solver
    sampler_dtype: str = "auto"  # of sampler and reference: `fp32`, `bf16`, or `auto`, which is bf16 on CUDA alone
    max_rows: int = 512  # completions decoded together; changes speed and memory only
    kv_gb: float = 0.0  # largest key/value cache, 10^9 bytes; 0: 80 % of free memory; changes speed and memory only
    checkpoint_every: int = 5  # steps between two checkpoints within a phase; 0 for none
    role_dtype: str = "fp32"  # of all role folders but each role's newest: `fp32`, or `bf16` on half the disk

    heldout: str = "tiny/heldout.jsonl"  # questions with answers, asked after each iteration and never learned from
    heldout_samples: int = 16  # samples a held-out question

    def check(self):
        """Raises ValueError, naming the setting, for a value that no run can have."""
        super().check()
        require_least(self, 1, "iterations", "challenger_prompts", "pool", "pool_draws", "solver_prompts",
                      "challenger_mini_batches", "solver_mini_batches", "challenger_average_rows",
                      "solver_average_rows", "max_question_tokens", "max_answer_tokens", "max_rows", "heldout_samples")
        require_least(self, 2, "challenger_rollouts", "solver_rollouts", "answers", "pool_answers")
        require_least(self, 0, "seed", "challenger_steps", "solver_steps", "challenger_lr", "solver_lr", "vote_top_k",
                      "reward_scale", "penalty_weight", "penalty_distance", "keep_low", "format_weight", "kv_gb",
                      "checkpoint_every")
        require_least(self, self.keep_low, "keep_high")
        require_least(self, 1e-9, "top_p", "pool_top_p", "vote_top_p")
        require_most(self, 1, "top_p", "pool_top_p", "vote_top_p", "format_weight")
        require_one_of(self, ("prompt", "batch"), "challenger_group")
        require_one_of(self, ("last", "first"), "question_block")
        require_one_of(self, ("after", "anywhere", "optional"), "box")
        require_one_of(self, ("counted", "ignored", "answer"), "unboxed")
        require_one_of(self, ("majority", "truth"), "labels")
        require_one_of(self, ("fp32", "bf16"), "role_dtype")
        require_one_of(self, DTYPES, "sampler_dtype")
        if self.log:
            require_one_of(self, LOGGERS, "log")
        if self.one_model and self.challenger:
            raise ValueError("--one_model leaves no place for --challenger")
        for name in ("one_model", "challenger", "context", "match_kept"):
            if self.train_file and getattr(self, name):
                raise ValueError(f"--{name} is of the Challenger, which --train_file does without")


PAPER = Config(  # as its author means it: what a step is, and the updates in it, are the script's, all else the text's
    model="Qwen/Qwen3-4B-Base", task="math", out="runs/paper", heldout="",
    challenger_steps=5, challenger_prompts=512, challenger_mini_batches=32, challenger_lr=1e-6,
    pool=8000, solver_prompts=512, solver_mini_batches=4, solver_lr=1e-6,
    max_question_tokens=4096, max_answer_tokens=4096,
    token_budget=16384, activation_checkpointing=True, compile_blocks=True, reshard=True, checkpoint_every=1)
PRESETS = {
    "tiny": Config(),
    "paper": PAPER,
    "official": replace(  # what the published code does, for the checkpoints that came of it
        PAPER, out="runs/official", iterations=5, box="optional", unboxed="answer", vote_top_p=1.0, vote_top_k=40,
        reward_scale=1.0, clip_reward=False, invalid_reward=-1.0,
        pool_answers=9, pool_top_p=0.95, pool_needs_answer=True, keep_low=0.3, keep_high=0.8, word_filter=True,
        format_weight=0.1, warmup_steps=1, clip_high=0.3, clip_dual=3.0, kl_max=10.0,
        average="rows", challenger_average_rows=2, solver_average_rows=1),
    "small": replace(  # one card of 24 GB, overnight; a model of 1.7 billion weights with --offload true
        PAPER, model="Qwen/Qwen3-0.6B-Base", out="runs/small", challenger_prompts=64,
        max_question_tokens=2048, pool=2000, solver_prompts=128, max_answer_tokens=2048,
        token_budget=8192, max_rows=256),
}

# The most of each size that a dry run keeps.
SMALLEST = dict(iterations=1, challenger_steps=2, challenger_prompts=4, challenger_rollouts=4, answers=4,
                challenger_mini_batches=2, pool=16, pool_draws=2, pool_answers=4, solver_steps=2, solver_prompts=4,
                solver_rollouts=4, solver_mini_batches=2, heldout_samples=2, max_question_tokens=512,
                max_answer_tokens=512)


def smallest(cfg):
    """The settings of a dry run: the same models, task, rewards and flags at the smallest size that goes through every
    part. A few questions may all be too easy or too hard, so it keeps any p. Raises ValueError as `Config.check`."""
    cfg.check()
    sizes = {name: min(getattr(cfg, name), most) for name, most in SMALLEST.items()}
    return replace(cfg, out=f"{cfg.out.rstrip('/')}-dry-run", keep_low=0.0, keep_high=1.0, checkpoint_every=0,
                   compile_blocks=False, **sizes)


def main():
    cfg = parse_settings("rzero.py", __doc__, PRESETS, sys.argv[1:])
    with ending("rzero.py"):
        start_processes()
        cfg = smallest(cfg) if cfg.dry_run else cfg
        with hold(cfg.out), Run(cfg) as run:
            evolve(run)


if __name__ == "__main__":
    main()
