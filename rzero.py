"""R-Zero (Huang et al., arXiv 2508.05004): a language model that improves on questions it asks itself, without any data.

One base model plays two roles, each with weights of its own. The Challenger is rewarded for questions that the Solver gets
right about half of the time; the Solver learns from the majority of its own answers to them. Both are trained with GRPO,
in turns:

    for each iteration
        Challenger   max(0, r_unc - r_rep) as the reward of each question, the Solver frozen          `train_challenger`
        questions    a pool from the trained Challenger; kept where |p - 1/2| <= delta                 `build_questions`
        Solver       reward 1 where the boxed answer equals the majority's, the Challenger frozen      `train_solver`

    torchrun rzero.py                                            the tiny base model, on a laptop, into runs/tiny
    torchrun rzero.py --preset paper --model Qwen/Qwen3-4B-Base --out runs/4b
    python rzero.py --plan --preset paper --devices 1 --device_gb 141           what that takes, before it is begun

This is the algorithm of the paper, not of its official code where the two differ. What the paper leaves open: the
repetition penalty's clusters are found by average linkage; the clip range is 0.2; a group's std is the unbiased one.

Every finished part is a file in the run folder (`--out`), written whole or not at all. Given again, the command goes on
after the last finished part. All draws are functions of (seed, iteration, phase, step, prompt, completion, position).
"""

import argparse
import ast
import difflib
import hashlib
import inspect
import json
import os
import resource
import shutil
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from answers import extract_boxed, majority, same_answer
from common import (
    barrier,
    compute_dtype,
    free_memory,
    read_json,
    read_lines,
    start_processes,
    write_lines,
    write_whole,
)
from evaluate import SOLVER_SYSTEM, evaluate, mean_and_ci, read_questions
from grpo import Rollout, Trainer, copy_rate, copy_weights, group_advantages, matmul_rate, training_memory
from model import Tokenizer, load, read_config, resolve, save
from sample import PagedCache, Sampler
from tasks import Sums
from tasks.similarity import average_linkage, bleu_distances

solve = Sums().truth

CHALLENGER_SYSTEM = """\
You set problems for mathematics competitions. First think privately, step by step, to design a brand-new, non-trivial \
problem from any field: algebra, geometry, number theory, combinatorics, prealgebra, probability, statistics or calculus. \
It must be hard enough that fewer than 30% of advanced high-school students solve it, and it must not repeat a textbook \
cliche or a famous contest problem. Then output exactly two blocks and nothing else:
<question>
the problem
</question>

\\boxed{final_answer}"""
CHALLENGER_USER = "Generate one new, challenging reasoning question now, formatted exactly as instructed."


@dataclass
class Config:
    """All settings of a run; the defaults are the preset `tiny`. Symbols in parentheses are the paper's."""

    model: str = "tiny"
    """the base model: a Hugging Face folder or a Hub id"""
    out: str = "runs/tiny"
    """the run folder"""
    seed: int = 0
    """of all random draws"""
    iterations: int = 3
    """rounds of Challenger and Solver"""

    challenger_steps: int = 10
    """GRPO steps of the Challenger in an iteration; 0 leaves it untrained"""
    challenger_prompts: int = 32
    """groups a Challenger step; all have the same prompt"""
    challenger_rollouts: int = 4
    """questions a group"""
    challenger_lr: float = 2e-4
    """learning rate of the Challenger"""
    answers: int = 10
    """answers that the Solver votes with on a question (m)"""
    count_unboxed: bool = True
    """whether answers without a box count among the m that the majority's share is a share of"""
    penalty_weight: float = 1.0
    """weight of the repetition penalty (lambda)"""
    penalty_distance: float = 0.5
    """questions nearer than this, in 1 - BLEU, are one cluster (tau)"""

    pool: int = 600
    """questions drawn for the Solver's data (N)"""
    pool_draws: int = 4
    """pools drawn at most until a Solver step's worth of questions is kept"""
    keep_distance: float = 0.25
    """a question is kept when the majority's share is at most this far from 1/2 (delta)"""

    solver_steps: int = 15
    """GRPO steps of the Solver in an iteration"""
    solver_prompts: int = 64
    """questions a Solver step"""
    solver_rollouts: int = 5
    """answers a question"""
    solver_lr: float = 4e-4
    """learning rate of the Solver"""
    labels: str = "majority"
    """what the Solver learns from: `majority`, or `truth` as a control, where it can be computed"""

    weight_decay: float = 0.01
    """of AdamW"""
    kl_coef: float = 0.01
    """weight of the KL divergence to the phase's starting weights (beta)"""
    clip_low: float = 0.2
    """the ratio is clipped below 1 - clip_low"""
    clip_high: float = 0.2
    """the ratio is clipped above 1 + clip_high"""
    mini_batches: int = 1
    """optimizer updates a step"""
    old_logprobs: str = "recomputed"
    """the ratio's denominator when a step has several updates: `recomputed` by the trainer, or the `sampler`'s own"""
    importance_cap: float = 0.0
    """weight tokens by their probability in the trainer over that in the sampler, at most this (2.0 is usual); 0 for none"""
    max_grad_norm: float = 1.0
    """gradients are scaled down to this norm"""
    token_budget: int = 2048
    """tokens of a micro-batch, padding included; changes speed and memory only"""
    activation_checkpointing: bool = False
    """keep only each block's input for backward; changes speed and memory only"""
    compile_blocks: bool = False
    """run the trained blocks through torch.compile; changes speed and memory only"""
    reference_on_host: bool = False
    """keep the weights that the KL refers to in host memory (CUDA only); changes speed and memory only"""
    reshard: bool = False
    """processes give weights back after each use, for large models; changes speed and memory only"""
    checkpoint_every: int = 5
    """steps between two checkpoints within a phase, 0 for none"""

    temperature: float = 1.0
    """of every draw in training"""
    top_p: float = 0.99
    """nucleus of every draw in training"""
    max_question_tokens: int = 96
    """longest completion of the Challenger"""
    max_answer_tokens: int = 160
    """longest completion of the Solver"""
    max_rows: int = 512
    """completions decoded together; changes speed and memory only"""
    kv_gb: float = 0.0
    """most that a process's key/value cache takes, in 10^9 bytes, 0 for what is free; changes speed and memory only"""

    heldout: str = "tiny/heldout.jsonl"
    """questions with answers, asked after every iteration and never learned from; empty for none"""
    heldout_samples: int = 16
    """samples a held-out question"""
    truth: bool = True
    """questions are those of tiny/task.py, whose true answers are computed to measure the labels"""

    def check(self):
        """Raises ValueError, naming the setting, for a value that no run can have."""
        least = {"iterations": 1, "challenger_steps": 0, "solver_steps": 0, "challenger_rollouts": 2, "solver_rollouts": 2,
                 "answers": 2, "seed": 0, "top_p": 1e-9, "temperature": 1e-9, "weight_decay": 0, "kl_coef": 0, "keep_distance": 0,
                 "penalty_weight": 0, "challenger_lr": 0, "solver_lr": 0, "clip_low": 0, "clip_high": 0, "max_grad_norm": 1e-9,
                 "penalty_distance": 0, "kv_gb": 0, "importance_cap": 0, "checkpoint_every": 0}
        for f in fields(self):
            if f.type in (int, float) and not getattr(self, f.name) >= least.get(f.name, 1):
                raise ValueError(f"--{f.name} is {getattr(self, f.name)}, but must be at least {least.get(f.name, 1)}")
        if self.labels not in ("majority", "truth"):
            raise ValueError(f"--labels is {self.labels!r}, but must be majority or truth")
        if self.old_logprobs not in ("recomputed", "sampler"):
            raise ValueError(f"--old_logprobs is {self.old_logprobs!r}, but must be recomputed or sampler")
        if self.old_logprobs == "sampler" and self.importance_cap:
            raise ValueError("--importance_cap needs --old_logprobs recomputed: the sampler's ratio has that weight already")
        if self.reference_on_host and not torch.cuda.is_available():
            raise ValueError("--reference_on_host true needs a CUDA device")
        if self.labels == "truth" and not self.truth:
            raise ValueError("--labels truth needs --truth true: only the tiny task's questions have computable answers")
        if self.top_p > 1:
            raise ValueError(f"--top_p is {self.top_p}, but must be at most 1")


PRESETS = {
    "tiny": Config(),
    "paper": Config(
        model="Qwen/Qwen3-4B-Base", out="runs/paper", challenger_steps=5, challenger_prompts=128, challenger_lr=1e-6,
        pool=8000, solver_prompts=128, solver_lr=1e-6, max_question_tokens=4096, max_answer_tokens=4096,
        kv_gb=32.0, token_budget=4096, activation_checkpointing=True, reshard=True, checkpoint_every=1, heldout="",
        truth=False),
}


# ---- The Challenger's reward (paper, section 3.1) ----


def parse_question(text):
    """The question of a Challenger's completion, or None when its format is wrong: one <question> block, then a box."""
    before, opened, rest = text.partition("<question>")
    question, closed, after = rest.partition("</question>")
    if not (opened and closed and question.strip()) or extract_boxed(after) is None:
        return None
    return question.strip()


def repetition_penalty(questions, penalty_distance=0.5):
    """|C_k| / B for each of B questions, C_k being its cluster: the share of the batch that says much the same -> [B].

    Clusters are those of `average_linkage` under `bleu_distances` at penalty_distance (tau).
    """
    if not questions:
        return np.zeros(0)
    labels = average_linkage(bleu_distances(questions), penalty_distance)
    return np.bincount(labels)[labels] / len(questions)


def challenger_rewards(questions, shares, penalty_weight=1.0, penalty_distance=0.5):
    """max(0, r_unc - r_rep) of each proposal -> [B].

    questions: [B], None where the format was wrong; its reward is 0, and it counts in no cluster. shares: [B], the share
    p of the Solver's answers that equal their majority. r_unc = 1 - 2 |p - 1/2|; r_rep: `repetition_penalty` among the
    well-formed questions of the batch.
    """
    rewards = np.zeros(len(questions))
    valid = np.array([q is not None for q in questions], dtype=bool)
    uncertainty = 1 - 2 * np.abs(np.asarray(shares, dtype=float)[valid] - 0.5)
    repetition = penalty_weight * repetition_penalty([q for q in questions if q is not None], penalty_distance)
    rewards[valid] = np.maximum(0, uncertainty - repetition)
    return rewards


# ---- The Solver's data and reward (paper, sections 3.2 and 3.3) ----


def why_dropped(label, share, keep_distance):
    """None for a question to learn from, else why not: its majority's share p must have |p - 1/2| <= delta."""
    if label is None:
        return "no answer"
    if abs(share - 0.5) > keep_distance + 1e-9:
        return "too easy" if share > 0.5 else "too hard"
    return None


def solver_rewards(answers, labels):
    """1 where an answer (None: no box) equals its pseudo-label, else 0 -> [B]."""
    return np.array([float(a is not None and same_answer(a, label)) for a, label in zip(answers, labels, strict=True)])


# ---- The run ----

TRAINER_SETTINGS = ("weight_decay", "kl_coef", "clip_low", "clip_high", "mini_batches", "old_logprobs", "importance_cap",
                    "token_budget", "max_grad_norm", "temperature", "activation_checkpointing", "compile_blocks",
                    "reference_on_host", "reshard")  # those of Config that a `Trainer` has under the same name


def draw_seed(*place):
    """The seed of the draws at one place of the run, such as (seed, iteration, phase, step)."""
    return int.from_bytes(hashlib.sha256(repr(place).encode()).digest()[:7], "big")


def rollouts_and_metrics(prompts, completions, rewards_GN, metrics):
    """What a step learns from -> (Rollouts, metrics with those of the rewards and completions added)."""
    advantages_GN = group_advantages(rewards_GN)
    rollouts = [Rollout(prompt, c.tokens, a, c.full_logprobs)
                for prompt, c, a in zip(prompts, completions, advantages_GN.flatten().tolist(), strict=True)]
    lengths = [len(c.tokens) for c in completions]
    return rollouts, metrics | {
        "reward": rewards_GN.mean(), "reward_std": rewards_GN.std(), "equal_groups": (np.ptp(rewards_GN, 1) == 0).mean(),
        "advantage_min": advantages_GN.min().item(), "advantage_max": advantages_GN.max().item(),
        "completion_tokens": np.mean(lengths), "completion_tokens_max": max(lengths),
        "truncated": np.mean([not c.finished for c in completions])}


class NoQuestions(RuntimeError):
    """The Challenger asked nothing that the Solver could learn from."""


class Run:
    """A run folder and what works on it. The one sampler plays either role, with that role's weights copied in."""

    def __init__(self, cfg):
        """Checks all that can be checked before any work. Raises OSError or ValueError, in one line, for bad input."""
        cfg.check()
        self.cfg, self.folder = cfg, Path(cfg.out)
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        self.heldout = read_questions(cfg.heldout) if cfg.heldout else []
        self.base = resolve(cfg.model)
        self.tokenizer = Tokenizer(self.base)
        self.sampler = Sampler(load(self.base, self.device, compute_dtype(self.device)), self.tokenizer, cfg.max_rows,
                               cfg.kv_gb or None)
        if self.rank == 0:
            self._claim_folder()
        self.challenger_prompt = self.tokenizer.chat(CHALLENGER_SYSTEM, CHALLENGER_USER)
        self.spent = Counter()  # seconds in each use of the sampler, and tokens drawn, since the step began

    def _claim_folder(self):
        """Makes the folder this run's own: its settings are written there, or equal those that are."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            mine, file = asdict(self.cfg), self.folder / "config.json"
            if file.exists():
                theirs = read_json(file)
                # More iterations continue a run; the others change nothing but speed, or say where the run is.
                free = {"iterations", "out", "max_rows", "kv_gb", "token_budget", "activation_checkpointing", "compile_blocks",
                        "reference_on_host", "reshard", "checkpoint_every"}
                differ = [k for k in mine if k not in free and mine[k] != theirs.get(k)]
                if differ:
                    raise ValueError(f"{self.folder} holds a run with other settings ({differ[0]}: {theirs.get(differ[0])!r} "
                                     f"there, {mine[differ[0]]!r} here); choose another --out")
            write_whole(file, json.dumps(mine, indent=2) + "\n")
        except OSError as error:
            raise OSError(f"cannot write the run folder {str(self.folder)!r}: {error.strerror}") from None

    # -- what both phases share --

    def weights_of(self, role, iteration):
        """The folder of a role's weights after an iteration; 0 is the base model."""
        return self.folder / f"iter{iteration}" / role if iteration else self.base

    def sample(self, prompts, n, max_tokens, place, progress):
        start = time.perf_counter()
        groups = self.sampler.generate(prompts, n=n, max_tokens=max_tokens, temperature=self.cfg.temperature,
                                       top_p=self.cfg.top_p, seed=draw_seed(self.cfg.seed, *place), progress=progress)
        self.spent[f"{progress}_seconds"] += time.perf_counter() - start
        self.spent["tokens"] += sum(len(c.tokens) for group in groups for c in group)
        return groups

    def propose(self, n, place):
        """n proposals of the Challenger whose weights are in the sampler -> (Completions, questions or None)."""
        completions = self.sample([self.challenger_prompt], n, self.cfg.max_question_tokens, place, "asking")[0]
        return completions, [parse_question(self.tokenizer.decode(c.tokens)) for c in completions]

    def vote(self, questions, place):
        """The Solver whose weights are in the sampler answers each question m times -> list of (answers, majority, share),
        ([], None, 0) for a question that is None."""
        asked = [q for q in questions if q is not None]
        prompts = [self.tokenizer.chat(SOLVER_SYSTEM, q) for q in asked]
        groups = iter(self.sample(prompts, self.cfg.answers, self.cfg.max_answer_tokens, place, "answering"))
        votes = []
        for question in questions:
            answers = [] if question is None else [extract_boxed(self.tokenizer.decode(c.tokens)) for c in next(groups)]
            votes.append((answers, *majority(answers, count_unboxed=self.cfg.count_unboxed)))
        return votes

    def train_phase(self, role, iteration, steps, lr, rollouts_of):
        """GRPO of one role from its last weights to iter<i>/<role>, or on from the last checkpoint in iter<i>/<role>.steps.
        rollouts_of(step, trainer) -> (Rollouts, metrics). Raises FloatingPointError naming the step and the rollouts."""
        cfg, folder = self.cfg, self.weights_of(role, iteration)
        trainer = Trainer(load(self.weights_of(role, iteration - 1), dtype=None), self.device, lr=lr,
                          **{name: getattr(cfg, name) for name in TRAINER_SETTINGS})
        unfinished = folder.with_name(role + ".steps")
        done = trainer.load_checkpoint(unfinished)
        bar = tqdm(range(done, steps), initial=done, total=steps, desc=f"iteration {iteration}, {role}", unit=" steps",
                   disable=self.rank > 0)
        for step in bar:
            start, self.spent = time.perf_counter(), Counter()
            rollouts, metrics = rollouts_of(step, trainer)
            try:
                metrics |= trainer.step(rollouts)
            except FloatingPointError as error:
                raise FloatingPointError(f"iteration {iteration}, {role}, step {step + 1}: {error} (in the order of the prompts, "
                                         "from 0). What was finished, and the last checkpoint, are intact") from None
            metrics |= self.cost(start)
            self.log({"iteration": iteration, "phase": role, "step": step + 1, **metrics})
            bar.set_postfix_str(f"reward {metrics['reward']:.3f}, p {metrics['share']:.2f}, {metrics['completion_tokens']:.0f} "
                                f"tokens each, {metrics['tokens_per_second']:,.0f} tokens/s")
            if cfg.checkpoint_every and (step + 1) % cfg.checkpoint_every == 0 and step + 1 < steps:
                trainer.save_checkpoint(unfinished, step + 1)
        model = trainer.gather()
        if self.rank == 0:
            save(model, folder, self.tokenizer)
            shutil.rmtree(unfinished, ignore_errors=True)
        barrier()

    def cost(self, start):
        """What a step took since `start`: seconds, of which in the sampler, tokens, and this process's peak memory, each that of
        the process where it is largest."""
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated()
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        own = {"seconds": time.perf_counter() - start, **self.spent, "peak_memory_gb": peak / 1e9}
        largest = torch.tensor(list(own.values()), dtype=torch.float64, device=self.device)
        if dist.is_initialized():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        largest = dict(zip(own, largest.tolist()))
        return largest | {"tokens_per_second": largest["tokens"] / largest["seconds"]}

    def log(self, metrics):
        """Adds a step to metrics.jsonl, in place of what an interrupted try at the same phase left of it."""
        if self.rank == 0:
            place = [metrics[k] for k in ("iteration", "phase", "step")]
            file = self.folder / "metrics.jsonl"
            before = [m for m in read_lines(file)
                      if [m["iteration"], m["phase"]] != place[:2] or m["step"] < place[2]]
            write_lines(file, [*before, metrics])

    # -- the three parts of an iteration --

    def train_challenger(self, iteration):
        """Part 1: `challenger_steps` GRPO steps towards questions that the frozen Solver answers half of the time alike."""
        cfg, solver = self.cfg, load(self.weights_of("solver", iteration - 1), dtype=None)

        def rollouts_of(step, trainer):
            G, N, place = cfg.challenger_prompts, cfg.challenger_rollouts, (iteration, "challenger", step)
            copy_weights(trainer.policy.model, self.sampler.model)
            completions, questions = self.propose(G * N, place)
            copy_weights(solver, self.sampler.model)
            shares = np.array([share for _, _, share in self.vote(questions, (*place, "vote"))])
            rewards = challenger_rewards(questions, shares, cfg.penalty_weight, cfg.penalty_distance)
            valid = np.array([q is not None for q in questions])
            metrics = {"share": shares[valid].mean() if valid.any() else 0.0, "valid": valid.mean()}
            return rollouts_and_metrics([self.challenger_prompt] * (G * N), completions, rewards.reshape(G, N), metrics)

        self.train_phase("challenger", iteration, cfg.challenger_steps, cfg.challenger_lr, rollouts_of)

    def build_questions(self, iteration):
        """Part 2: the pool of questions, each with its votes and why it was dropped, into iter<i>/questions.jsonl."""
        cfg = self.cfg
        challenger, solver = (load(self.weights_of(role, i), dtype=None)
                              for role, i in (("challenger", iteration), ("solver", iteration - 1)))
        rows = []
        for draw in range(cfg.pool_draws):
            place = (iteration, "questions", draw)
            copy_weights(challenger, self.sampler.model)
            _, questions = self.propose(cfg.pool, place)
            copy_weights(solver, self.sampler.model)
            for question, (answers, label, share) in zip(questions, self.vote(questions, (*place, "vote"))):
                dropped = "wrong format" if question is None else why_dropped(label, share, cfg.keep_distance)
                rows.append({"question": question, "answers": answers, "majority": label, "share": share, "dropped": dropped})
                if cfg.truth:
                    rows[-1]["truth"] = question and solve(question)
            if sum(row["dropped"] is None for row in rows) >= cfg.solver_prompts:
                break
        if self.rank == 0:
            write_lines(self.folder / f"iter{iteration}" / "questions.jsonl", rows)
        barrier()

    def train_solver(self, iteration):
        """Part 3: `solver_steps` GRPO steps on the kept questions. Raises NoQuestions when there is none."""
        cfg = self.cfg
        kept = [row for row in read_lines(self.folder / f"iter{iteration}" / "questions.jsonl") if row["dropped"] is None]
        if cfg.labels == "truth":
            kept = [row | {"majority": row["truth"]} for row in kept if row["truth"] is not None]
        if not kept:
            raise NoQuestions(f"iteration {iteration}: no question of {cfg.pool_draws} x {cfg.pool} was fit to learn from; "
                               f"{self.folder}/iter{iteration}/questions.jsonl says why. Begin another --out with a wider "
                              "--keep_distance or a larger --pool")
        rng = np.random.default_rng(draw_seed(cfg.seed, iteration, "solver order"))
        epochs = -(-cfg.solver_steps * cfg.solver_prompts // len(kept))
        order = np.concatenate([rng.permutation(len(kept)) for _ in range(max(1, epochs))])

        def rollouts_of(step, trainer):
            N, place = cfg.solver_rollouts, (iteration, "solver", step)
            batch = [kept[i] for i in order[step * cfg.solver_prompts:(step + 1) * cfg.solver_prompts]]
            prompts = [self.tokenizer.chat(SOLVER_SYSTEM, row["question"]) for row in batch]
            copy_weights(trainer.policy.model, self.sampler.model)
            groups = self.sample(prompts, N, cfg.max_answer_tokens, place, "answering")
            completions = [c for group in groups for c in group]
            answers = [extract_boxed(self.tokenizer.decode(c.tokens)) for c in completions]
            rewards = solver_rewards(answers, [row["majority"] for row in batch for _ in range(N)])
            metrics = {"share": np.mean([row["share"] for row in batch])}
            return rollouts_and_metrics([p for p in prompts for _ in range(N)], completions, rewards.reshape(-1, N), metrics)

        self.train_phase("solver", iteration, cfg.solver_steps, cfg.solver_lr, rollouts_of)

    # -- what came of it --

    def measure(self, iteration):
        """Adds the Solver's held-out accuracy after an iteration, and how good its questions were, to eval.jsonl."""
        file, cfg = self.folder / "eval.jsonl", self.cfg
        known = any(row["iteration"] == iteration for row in read_lines(file))
        barrier()  # all have looked before rank 0 writes
        if known:
            return
        row = {"iteration": iteration}
        if self.heldout:
            if iteration:  # the sampler holds the base until the first phase
                copy_weights(load(self.weights_of("solver", iteration), dtype=None), self.sampler.model)
            result = evaluate(self.sampler, self.heldout, samples=cfg.heldout_samples, max_tokens=cfg.max_answer_tokens,
                              seed=draw_seed(cfg.seed, "held-out"), progress="held-out")
            row["mean"], row["mean_ci"] = mean_and_ci(result.sampled)
            row["greedy"], row["greedy_ci"] = mean_and_ci(result.greedy)
            row |= {"completion_tokens": result.completion_tokens, "worked": result.worked}
        if iteration:
            questions = read_lines(self.folder / f"iter{iteration}" / "questions.jsonl")
            kept = [q for q in questions if q["dropped"] is None]
            asked = [q for q in questions if q["question"] is not None]
            row |= {"kept": len(kept), "pool": len(questions), "share": float(np.mean([q["share"] for q in asked]))}
            if cfg.truth:
                right = [q["truth"] is not None and same_answer(q["majority"], q["truth"]) for q in kept]
                row |= {"label_accuracy": float(np.mean(right)) if kept else None,
                        "well_posed": float(np.mean([q["truth"] is not None for q in asked]))}
        if self.rank == 0:
            write_lines(file, [*read_lines(file), row])
            if self.heldout:
                print(f"{f'iteration {iteration}' if iteration else 'base model'}: held-out mean {100 * row['mean']:.1f} %, "
                      f"greedy {100 * row['greedy']:.1f} %", flush=True)
        barrier()

    def table(self):
        """The lines of eval.jsonl as a table, in percent, and where everything is."""
        def percent(row, key, ci=None):
            if row.get(key) is None:
                return "-"
            return f"{100 * row[key]:.1f}" + (f" +- {100 * row[ci]:.1f}" if ci else "")

        lines = ["iteration   held-out mean   held-out greedy   label accuracy   mean p   kept   worked   tokens"]
        for row in read_lines(self.folder / "eval.jsonl"):
            kept = percent({"kept": row["kept"] / row["pool"]}, "kept") if "kept" in row else "-"
            tokens = f"{row['completion_tokens']:.0f}" if "completion_tokens" in row else "-"
            lines.append(f"{row['iteration'] or 'base':>9}   {percent(row, 'mean', 'mean_ci'):>13}   "
                         f"{percent(row, 'greedy', 'greedy_ci'):>15}   {percent(row, 'label_accuracy'):>14}   "
                         f"{percent(row, 'share'):>6}   {kept:>4}   {percent(row, 'worked'):>6}   {tokens:>6}")
        return "\n".join(lines)

    def run(self):
        """All iterations, from wherever the folder stands, and the table of what came of them."""
        self.measure(0)
        for iteration in range(1, self.cfg.iterations + 1):
            for part, result in ((self.train_challenger, "challenger"), (self.build_questions, "questions.jsonl"),
                                 (self.train_solver, "solver")):
                if not (self.folder / f"iter{iteration}" / result).exists():
                    part(iteration)
            self.measure(iteration)
        if self.rank == 0:
            print(f"\n{self.table()}\n\npercent (tokens: a mean count), +- 95 % intervals; all of it is in {self.folder}/")
            if self.cfg.truth and self.cfg.labels == "majority":
                print("label accuracy is known because the tiny task's answers can be computed; no model learns from them")


# ---- The plan ----


@dataclass
class Machine:
    """What a plan is made for: the number of devices, and of each the memory in 10^9 bytes, the dtype computed in, the rate of
    large matrix products in 10^12 FLOP/s and that of memory in 10^12 bytes/s (None: unknown)."""

    devices: int
    gb: float
    dtype: torch.dtype
    tflops: float | None
    tb_s: float | None


PROMPT = 200  # tokens of a prompt, and
MEAN = 0.3  # the mean completion's share of the longest: what a plan assumes


def longest_row(cfg):
    """Tokens of the longest prompt and completion."""
    return PROMPT + max(cfg.max_question_tokens, cfg.max_answer_tokens)


def memory(cfg, config, machine):
    """What a process of the run takes on its device at most, in bytes -> {what: bytes}, the key/value pages last."""
    longest = longest_row(cfg)
    size = machine.dtype.itemsize
    parts = training_memory(config, max(cfg.token_budget, longest), machine.devices, machine.dtype,
                            machine.devices > 1 or machine.dtype == torch.bfloat16, cfg.activation_checkpointing,
                            cfg.reference_on_host, cfg.reshard)
    parts |= {"sampler's weights": size * config.parameters(), "sampler's logits": size * cfg.max_rows * config.vocab_size,
              "reserve": 0.05e9 * machine.gb}  # the CUDA context, and memory in pieces too small to be used
    most = cfg.max_rows * longest * PagedCache.bytes_of_page(config, 1, machine.dtype)
    free = 0.8 * (1e9 * machine.gb - parts["sampler's weights"])  # what the sampler takes when it is not told
    return parts | {"key/value pages": min(most, cfg.kv_gb * 1e9 or free)}


def fitting(cfg, config, machine):
    """The first change of settings, or of the number of devices, with which the run fits and keeps pages for 4 of the longest
    rows -> {setting: value}, None when nothing does."""
    longest = longest_row(cfg)
    least = 4 * longest * PagedCache.bytes_of_page(config, 1, machine.dtype)
    on_host = {"reference_on_host": True} if machine.dtype == torch.bfloat16 else {}
    changes = [{}, {"reshard": True}, {"activation_checkpointing": True}, {"token_budget": min(longest, cfg.token_budget)},
               on_host]
    for devices in (machine.devices * 2**i for i in range(8)):
        change = {"devices": devices} if devices > machine.devices else {}
        for more in changes:
            change |= {name: value for name, value in more.items() if getattr(cfg, name) != value}
            settings = {name: value for name, value in change.items() if name != "devices"}
            parts = memory(replace(cfg, **settings), config, replace(machine, devices=devices))
            left = 1e9 * machine.gb - sum(parts.values()) + parts["key/value pages"]
            if left >= least:
                return change | {"kv_gb": np.floor(min(left, parts["key/value pages"]) / 1e8) / 10}
    return None


def iteration_hours(cfg, config, machine, page_bytes):
    """Tokens drawn in an iteration, and the hours of its sampling and of its updates if every device reached its rates."""
    proposals = cfg.challenger_steps * cfg.challenger_prompts * cfg.challenger_rollouts
    answers = cfg.solver_steps * cfg.solver_prompts * cfg.solver_rollouts
    question, answer = MEAN * cfg.max_question_tokens, MEAN * cfg.max_answer_tokens
    asked = proposals + cfg.pool
    tokens = asked * question + (asked * cfg.answers + answers) * answer
    token_bytes = PagedCache.bytes_of_page(config, 1, machine.dtype)
    context = PROMPT + max(question, answer) / 2
    rows = max(1, min(cfg.max_rows, page_bytes / token_bytes / context))
    weights_bytes = machine.dtype.itemsize * config.parameters()
    reading = (weights_bytes + rows * context * token_bytes) / machine.tb_s
    step = max(reading, rows * config.forward_flops(1, context, 1) / machine.tflops)
    sampling = tokens / rows / machine.devices * step / 1e12 / 3600
    passes = 4 + (cfg.mini_batches > 1) + cfg.activation_checkpointing  # backward is two; the reference
    flops = sum(count * config.forward_flops(PROMPT + mean, (PROMPT + mean)**2 / 2, mean)
                for count, mean in ((proposals, question), (answers, answer)))
    return tokens, sampling, passes * flops / machine.tflops / 1e12 / machine.devices / 3600


def plan(cfg, machine):
    """Prints what the run will take on this machine. Raises ValueError, with settings that would do, when it cannot fit."""
    config = read_config(resolve(cfg.model, ["config.json"]))
    parts = memory(cfg, config, machine)
    left = 1e9 * machine.gb - sum(parts.values())
    print(f"{cfg.model}: {config.parameters() / 1e9:.3g} billion weights; {machine.devices} x {machine.gb:g} GB, computing in "
          f"{str(machine.dtype).removeprefix('torch.')}\n\nGB a device, at most")
    for name, value in [*parts.items(), ("left", left)]:
        print(f"{value / 1e9:10.3f}  {name}")
    longest = longest_row(cfg)
    rows = parts["key/value pages"] / PagedCache.bytes_of_page(config, 1, machine.dtype)
    print(f"\nThe pages hold {rows / 1000:,.0f} rows of 1,000 tokens, {rows / longest:,.0f} of the longest ({longest:,}).")
    if machine.tflops and machine.tb_s:
        tokens, sampling, updates = iteration_hours(cfg, config, machine, parts["key/value pages"])
        print(f"An iteration draws {tokens / 1e6:,.1f} million tokens, the mean completion taken as {100 * MEAN:.0f} % of the "
              f"longest:\nat least {sampling:.3g} hours of sampling and {updates:.3g} of updates, at {machine.tflops:.3g} "
              f"TFLOP/s and {machine.tb_s:.3g} TB/s, all of which no program reaches.")
    else:
        print("For the hours of an iteration, give --tflops and --tb_s.")
    if left < 0:
        change = fitting(cfg, config, machine)
        raise ValueError(f"the run needs {-left / 1e9:.1f} GB more than a device has; " + (
            "it fits with " + " ".join(f"--{name} {str(value).lower()}" for name, value in change.items()) if change else
            "no number of such devices up to 128 makes room for the sampler's copy of the weights"))


def parse_machine(argv):
    """The `Machine` that the options of --plan describe, and the rest of the command line. What they leave out is asked of, or
    measured on, this machine."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--devices", type=int, default=int(os.environ.get("WORLD_SIZE", "1")))
    for name in ("--device_gb", "--tflops", "--tb_s"):
        parser.add_argument(name, type=float)
    given, rest = parser.parse_known_args(argv)
    if not given.devices >= 1 or any(x is not None and not x > 0 for x in (given.device_gb, given.tflops, given.tb_s)):
        parser.error("--devices, --device_gb, --tflops and --tb_s must be above 0")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if given.device_gb:  # of a GPU, here or elsewhere
        return Machine(given.devices, given.device_gb, torch.bfloat16, given.tflops, given.tb_s), rest
    dtype = compute_dtype(device)
    tflops = given.tflops or matmul_rate(device, dtype, 8192 if device.type == "cuda" else 1024) / 1e12
    tb_s = given.tb_s or copy_rate(device) / 1e12
    return Machine(given.devices, round(free_memory(device) / 1e9, 1), dtype, tflops, tb_s), rest


# ---- The command line ----


def documentation():
    """The line under each field of `Config`, by name."""
    body = ast.parse(inspect.getsource(Config)).body[0].body
    return {field.target.id: doc.value.value for field, doc in zip(body, body[1:])
            if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr)}


def truth_value(text):
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text == "true"


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"rzero.py: {message}\n")


def parse_config(argv):
    """The `Config` of a command line; exits with one line for an unknown setting or a value of the wrong type."""
    parser = Parser(description=__doc__, usage="rzero.py [--preset NAME] [--SETTING VALUE ...]", allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="tiny", help="the settings to start from")
    docs = documentation()
    for f in fields(Config):
        parser.add_argument(f"--{f.name}", type=truth_value if f.type is bool else f.type, default=argparse.SUPPRESS,
                            metavar=f.type.__name__.upper(), help=f"{docs[f.name]} (tiny: {f.default})".replace("%", "%%"))
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        name = unknown[0].split("=")[0]
        near = difflib.get_close_matches(name, [f"--{f.name}" for f in fields(Config)] + ["--preset"], n=1, cutoff=0.5)
        parser.error(f"unknown setting {name}" + (f"; did you mean {near[0]}?" if near else "; --help lists them all"))
    settings = vars(given)
    return replace(PRESETS[settings.pop("preset")], **settings)


def main():
    if "--plan" in sys.argv:
        machine, rest = parse_machine(sys.argv[1:])
        try:
            return plan(parse_config(rest), machine)
        except (OSError, ValueError) as error:
            sys.exit(f"rzero.py: {error}")
    cfg = parse_config(sys.argv[1:])
    start_processes()
    try:
        Run(cfg).run()
    except (NoQuestions, FloatingPointError, OSError, ValueError) as error:
        sys.exit(f"rzero.py: {error}")
    except KeyboardInterrupt:
        sys.exit("rzero.py: interrupted; the same command goes on after the last finished part")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
