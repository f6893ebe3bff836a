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
    python plan.py --preset paper --devices 1 --device_gb 141    the memory that this takes

This is the algorithm of the paper, not of its official code where the two differ. The paper leaves four things open:
here clusters are found by average linkage, the clip range is 0.2, a group's standard deviation is the unbiased one, and
the loss is a mean over tokens.

Every finished part is a file in the run folder (`--out`). Given again, the command goes on after the last finished
part. All draws are functions of (seed, iteration, phase, step, prompt, completion, position)."""

import sys
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch.distributed as dist

from common import DTYPES, parse_settings, require_least, require_one_of, start_processes
from grpo import GRPOConfig
from run import NoQuestions, Run
from tasks.similarity import average_linkage, bleu_distances

# ---- rewards


def challenger_rewards(questions, shares, task, cfg):
    """max(0, r_unc - r_rep) for each proposal -> [B] (paper, section 3.1).

        r_unc = 1 - 2 |p - 1/2|        p: the share of the Solver's answers that equal their majority
        r_rep = lambda |C_k| / B       C_k: the question's cluster among the B well-formed questions of the batch

    questions: [B], None where the format was wrong; its reward is 0, and it belongs to no cluster. shares: [B], p."""
    rewards = np.zeros(len(questions))
    valid = np.array([q is not None for q in questions], dtype=bool)
    r_unc = 1 - 2 * np.abs(np.asarray(shares, dtype=float)[valid] - 0.5)
    well_formed = [q for q in questions if q is not None]
    r_rep = cfg.penalty_weight * repetition_penalty(well_formed, task.distances, cfg.penalty_distance)
    rewards[valid] = np.maximum(0, r_unc - r_rep)
    return rewards


def repetition_penalty(questions, distances=bleu_distances, tau=0.5):
    """|C_k| / B for each of B questions: the share of the batch in its cluster -> [B] (paper, section 3.1). Clusters
    are merged by average linkage while the mean of their distances(questions) [B, B] is below tau."""
    if not questions:
        return np.zeros(0)
    clusters = average_linkage(distances(questions), tau)
    return np.bincount(clusters)[clusters] / len(questions)


def solver_rewards(answers, labels, same):
    """1 where an answer (None: no box) is the same as its label, else 0 -> [B] (paper, section 3.3)."""
    return np.array([float(a is not None and same(a, label)) for a, label in zip(answers, labels, strict=True)])


def why_dropped(label, share, keep_distance):
    """None for a question to learn from, else the reason against it: |p - 1/2| must be at most delta (section 3.2)."""
    if label is None:
        return "no answer"
    if abs(share - 0.5) > keep_distance + 1e-9:
        return "too easy" if share > 0.5 else "too hard"
    return None


# ---- the three parts of an iteration, and the loop


class Vote(NamedTuple):
    """The Solver's m answers to a question (None: no box), the most frequent one, and its share p of all m."""

    answers: list
    majority: str | None
    share: float


def propose(run, challenger, n, key):
    """n completions of the Challenger -> (completions, their questions; None where the format is wrong)."""
    completions, = run.sample(challenger, [run.challenger_prompt_ids], n, run.cfg.max_question_tokens, key, "asking")
    return completions, [run.task.question(run.text(c)) for c in completions]


def vote(run, solver, questions, key):
    """The Solver answers each question m times; the most frequent answer is the label -> a `Vote` for each question."""
    cfg, task = run.cfg, run.task
    prompts = [run.solver_prompt(q) for q in questions if q is not None]
    groups = iter(run.sample(solver, prompts, cfg.answers, cfg.max_answer_tokens, (*key, "vote"), "answering",
                             keep=lambda completion: task.answer(run.text(completion))))
    votes = []
    for question in questions:
        answers = [] if question is None else next(groups)
        votes.append(Vote(answers, *task.majority(answers, cfg.count_unboxed)))
    return votes


def train_challenger(run, iteration):
    """Part 1. GRPO towards questions on which the frozen Solver's answers agree about half of the time."""
    cfg, solver = run.cfg, run.weights("solver", iteration - 1)
    G, N = cfg.challenger_prompts, cfg.challenger_rollouts
    for step in run.phase("challenger", iteration, cfg.challenger_steps, cfg.challenger_lr):
        completions, questions = propose(run, step.policy, G * N, step.key)
        shares = np.array([v.share for v in vote(run, solver, questions, step.key)])
        rewards = challenger_rewards(questions, shares, run.task, cfg)
        valid = np.array([q is not None for q in questions])
        step.learn([run.challenger_prompt_ids] * (G * N), completions, rewards.reshape(G, N),
                   share=shares[valid].mean() if valid.any() else 0.0, valid=valid.mean())


def build_questions(run, iteration):
    """Part 2. The trained Challenger asks, the Solver votes, and the questions of middling agreement are kept."""
    cfg, rows = run.cfg, []
    challenger, solver = run.weights("challenger", iteration), run.weights("solver", iteration - 1)
    for draw in range(cfg.pool_draws):
        key = (iteration, "questions", draw)
        _, questions = propose(run, challenger, cfg.pool, key)
        for question, v in zip(questions, vote(run, solver, questions, key)):
            dropped = "wrong format" if question is None else why_dropped(v.majority, v.share, cfg.keep_distance)
            rows.append({"question": question, **v._asdict(), "dropped": dropped})
        if sum(row["dropped"] is None for row in rows) >= cfg.solver_prompts:
            break
    run.write_questions(iteration, rows)


def train_solver(run, iteration):
    """Part 3. GRPO on the kept questions: an answer that equals the majority earns 1."""
    cfg, task, N = run.cfg, run.task, run.cfg.solver_rollouts
    kept = run.kept_questions(iteration)
    order = run.shuffled(kept, cfg.solver_steps * cfg.solver_prompts, (iteration, "solver order"))
    for step in run.phase("solver", iteration, cfg.solver_steps, cfg.solver_lr):
        batch = order[step.index * cfg.solver_prompts:(step.index + 1) * cfg.solver_prompts]
        prompts = [run.solver_prompt(row["question"]) for row in batch]
        groups = run.sample(step.policy, prompts, N, cfg.max_answer_tokens, step.key, "answering")
        completions = [c for group in groups for c in group]
        answers = [task.answer(run.text(c)) for c in completions]
        labels = [row[cfg.labels] for row in batch for _ in range(N)]
        rewards = solver_rewards(answers, labels, task.same)
        step.learn([p for p in prompts for _ in range(N)], completions, rewards.reshape(-1, N),
                   share=np.mean([row["share"] for row in batch]))


def evolve(run):
    """The loop: all iterations, from wherever the run folder stands."""
    run.measure(0)
    for iteration in range(1, run.cfg.iterations + 1):
        if not run.finished("challenger", iteration):
            train_challenger(run, iteration)
        if not run.finished("questions.jsonl", iteration):
            build_questions(run, iteration)
        if not run.finished("solver", iteration):
            train_solver(run, iteration)
        run.measure(iteration)
    run.report()


# ---- settings


@dataclass
class Config(GRPOConfig):
    """All settings of a run, those of GRPO included. The defaults are the preset `tiny`. Symbols are the paper's."""

    model: str = "tiny"  # the base model: a Hugging Face folder or a Hub id
    task: str = "sums"  # what is asked and what counts as right: math, sums, or FILE.py:CLASS
    out: str = "runs/tiny"  # the run folder
    seed: int = 0  # of all random draws
    iterations: int = 3  # rounds of Challenger and Solver

    challenger_steps: int = 10  # GRPO steps of the Challenger in an iteration; 0 leaves it untrained
    challenger_prompts: int = 32  # groups a Challenger step; all have the same prompt
    challenger_rollouts: int = 4  # questions a group
    challenger_lr: float = 2e-4  # learning rate of the Challenger
    answers: int = 10  # answers that the Solver votes with on a question (m)
    count_unboxed: bool = True  # count answers without a box in p's denominator
    penalty_weight: float = 1.0  # weight of the repetition penalty (lambda)
    penalty_distance: float = 0.5  # questions nearer than this, in 1 - BLEU, are one cluster (tau)

    pool: int = 600  # questions drawn for the Solver's data (N)
    pool_draws: int = 4  # pools drawn at most until a Solver step's worth of questions is kept
    keep_distance: float = 0.25  # a question is kept when p is at most this far from 1/2 (delta)

    solver_steps: int = 15  # GRPO steps of the Solver in an iteration
    solver_prompts: int = 64  # questions a Solver step
    solver_rollouts: int = 5  # answers a question
    solver_lr: float = 4e-4  # learning rate of the Solver
    labels: str = "majority"  # what the Solver learns from: `majority`, or `truth`, a control where it can be computed

    top_p: float = 0.99  # nucleus of every draw in training
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
                      "max_question_tokens", "max_answer_tokens", "max_rows", "heldout_samples")
        require_least(self, 2, "challenger_rollouts", "solver_rollouts", "answers")
        require_least(self, 0, "seed", "challenger_steps", "solver_steps", "challenger_lr", "solver_lr",
                      "penalty_weight", "penalty_distance", "keep_distance", "kv_gb", "checkpoint_every")
        require_least(self, 1e-9, "top_p")
        if self.top_p > 1:
            raise ValueError(f"--top_p is {self.top_p}, but must be at most 1")
        require_one_of(self, ("majority", "truth"), "labels")
        require_one_of(self, ("fp32", "bf16"), "role_dtype")
        require_one_of(self, DTYPES, "sampler_dtype")


PRESETS = {
    "tiny": Config(),
    "paper": Config(
        model="Qwen/Qwen3-4B-Base", task="math", out="runs/paper", heldout="",
        challenger_steps=5, challenger_prompts=128, challenger_lr=1e-6, max_question_tokens=4096,
        pool=8000, solver_prompts=128, solver_lr=1e-6, max_answer_tokens=4096,
        token_budget=16384, activation_checkpointing=True, compile_blocks=True, reshard=True, checkpoint_every=1),
}


def main():
    cfg = parse_settings("rzero.py", __doc__, PRESETS, sys.argv[1:])
    start_processes()
    try:
        evolve(Run(cfg))
    except (NoQuestions, FloatingPointError, OSError, ValueError) as error:
        sys.exit(f"rzero.py: {error}")
    except KeyboardInterrupt:
        sys.exit("rzero.py: interrupted; the same command goes on after the last finished part")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
