"""The plumbing of a run: one sampler that plays either role, phases with resume and metrics, measurement.

The algorithm is in rzero.py; a `Run` keeps sampling, resume and metrics out of it."""

import hashlib
import resource
import shutil
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from batches import Rollout
from checkpoint import whole_or_set_aside
from common import DTYPES, barrier, choose_threads, evenly_spaced, from_rank_0, rank_and_world, read_lines
from evaluate import held_out
from folder import RunFolder, checkpoints_kept, claim, clear_dry_run, require_logger, words
from grpo import Trainer, copy_weights, group_advantages
from guard import SIGNALS, Stopped
from model import load, read_config, resolve, save
from report import write_page
from sample import Sampler
from tasks import load_task
from tasks.benchmarks import question_rows, read_questions, read_texts
from watch import Watch, sizes

# A run may go on with other values of these: they change its length, place, speed, memory or logger, and draws only by
# the rounding of logits. A dry run has a folder of its own.
MAY_CHANGE = ("iterations", "out", "max_rows", "kv_gb", "token_budget", "activation_checkpointing", "compile_blocks",
              "offload", "reshard", "checkpoint_every", "role_dtype", "log", "dry_run")
DRY_RUN_HELD_OUT = 8  # held-out questions of a dry run


class NoQuestions(ValueError):
    """The Challenger asked nothing that the Solver could learn from."""


def draw_seed(*key):
    """The seed of the draws that a key names, such as (seed, iteration, phase, step)."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:7], "big")


def vote_metrics(rows, task):
    """What the metrics say of proposals and their votes, dicts of question, proposed, answers, majority, share: the
    share of the right format (valid), and of these the mean p (share), how many have p = 0, 0.1 .. 1 (share_counts),
    the part whose majority is the proposed answer (agreement), and the share of the Solver's answers without a box
    (boxless)."""
    asked = [row for row in rows if row["question"] is not None]
    shares, boxless = [row["share"] for row in asked], [answer is None for row in asked for answer in row["answers"]]
    agreed = [task.agree(row["majority"], row["proposed"]) for row in asked]
    return {"valid": len(asked) / len(rows), "share": float(np.mean(shares)) if asked else 0.0,
            "share_counts": np.bincount(np.rint(10 * np.array(shares)).astype(int), minlength=11).tolist(),
            "agreement": float(np.mean(agreed)) if asked else 0.0,
            "boxless": float(np.mean(boxless)) if asked else 0.0}


def number_kept(folder, iteration):
    """How many questions another run kept. Raises ValueError where it has not come so far."""
    rows = read_lines(Path(folder) / f"iter{iteration}" / "questions.jsonl")
    if not rows:
        raise ValueError(f"--match_kept names {folder!r}, which has no iter{iteration}/questions.jsonl")
    return sum(row["dropped"] is None for row in rows)


class Run:
    """What rzero.py works with: settings, task, run folder, and a sampler that plays the role whose weights it has."""

    def __init__(self, cfg):
        """Checks all that can be checked before any work. Raises OSError or ValueError, in one line, for bad input."""
        cfg.check()
        require_logger(cfg.log)
        self.cfg, self.task = cfg, load_task(cfg.task, question_block=cfg.question_block, box=cfg.box)
        self.truth = getattr(self.task, "truth", None)
        if cfg.labels == "truth" and self.truth is None:
            raise ValueError(f"--labels truth needs a task whose answers can be computed, which {cfg.task} is not")
        most = DRY_RUN_HELD_OUT if cfg.dry_run else None
        self.heldout = evenly_spaced(read_questions(cfg.heldout), most) if cfg.heldout else []
        rows = evenly_spaced([*question_rows(cfg.heldout).values()], most) if cfg.heldout else []
        self.levels = [row.get("level") for row in rows]
        given = read_questions(cfg.train_file) if cfg.train_file else []
        if any(q.options for q in given):
            raise ValueError(f"--train_file {cfg.train_file} has questions with options, which only evaluate.py takes")
        self.given = [{"question": q.question, "label": q.answer, "share": 1.0} for q in given]
        self.contexts = read_texts(cfg.context) if cfg.context else []
        base = resolve(cfg.model)
        self.first = {"solver": base, "challenger": resolve(cfg.challenger) if cfg.challenger else base}
        self.sampler = Sampler.load(base, DTYPES[cfg.sampler_dtype], max_rows=cfg.max_rows, kv_gb=cfg.kv_gb or None)
        if cfg.challenger:
            if read_config(self.first["challenger"]) != self.sampler.model.config:
                raise ValueError(f"--challenger {cfg.challenger} is a model of another shape than --model {cfg.model}")
            self.weights("challenger", 0)  # which may be broken, and are not used before the first phase ends
        self.tokenizer = self.sampler.tokenizer
        room = self.sampler.require_room
        room(cfg.heldout, [q.question for q in self.heldout], self.solver_prompt, cfg.max_answer_tokens)
        room(cfg.train_file, [row["question"] for row in self.given], self.solver_prompt, cfg.max_answer_tokens)
        room(cfg.context, self.contexts, self.challenger_prompt, cfg.max_question_tokens)
        self.matched = [number_kept(cfg.match_kept, i) for i in range(1, cfg.iterations + 1)] if cfg.match_kept else []
        self.rank, _ = rank_and_world()
        if self.rank == 0:
            if cfg.dry_run:
                clear_dry_run(Path(cfg.out))
            claim(Path(cfg.out), asdict(cfg), MAY_CHANGE)
        self.folder = RunFolder(cfg.out)
        self.watch = Watch(cfg, self.folder, len(self.heldout))
        checkpoints = None
        if self.rank == 0:
            self.folder.open_logger(cfg.log, asdict(cfg))
            print(sizes(cfg))
            checkpoints = checkpoints_kept(cfg, self.sampler.model.config.parameters(), self.folder.path)
        self.checkpoints_kept = from_rank_0(checkpoints)  # all processes save, so one look at the disk decides for all
        self.trainer, self.steps_folder = None, None  # of the phase that is going on, and their folder
        self.begin()

    def __enter__(self):
        """From here on a signal waits until the sampler polls."""
        SIGNALS.wait, self.sampler.poll = True, SIGNALS.poll
        return self

    def __exit__(self, kind, error, traceback):
        """Where a signal ends the run within a phase, saves the steps that are made."""
        if kind is Stopped and self.trainer and self.trainer.steps and self.checkpoints_kept:
            self.sampler.release()
            self.trainer.save_checkpoint(self.steps_folder, self.checkpoints_kept)
            error.advice = f"the same command goes on after step {self.trainer.steps} in {self.steps_folder}"

    def weights(self, role, iteration):
        """A role's weights after an iteration; on the CPU, in the memory of their file."""
        return load(self.folder.part(role, iteration) if iteration else self.first[role], dtype=None)

    def start(self, role, iteration):
        """The weights from which a role's phase of an iteration starts."""
        if self.cfg.one_model and role == "solver":
            return self.weights("challenger", iteration)
        return self.weights("solver" if self.cfg.one_model else role, iteration - 1)

    def challenger_prompts(self, groups, key):
        """The prompt of each group, with a text of --context drawn by `key`; without --context one prompt for all."""
        if not self.contexts:
            return [self.challenger_prompt()]
        rng = np.random.default_rng(draw_seed(self.cfg.seed, *key, "context"))
        return [self.challenger_prompt(self.contexts[i]) for i in rng.integers(len(self.contexts), size=groups)]

    def challenger_prompt(self, context=None):
        return self.tokenizer.chat(*self.task.challenger_messages(context))

    def solver_prompt(self, question):
        return self.tokenizer.chat(self.task.solver_system, question)

    def text(self, completion):
        return self.tokenizer.decode(completion.tokens)

    def play(self, weights):
        """Gives the sampler's model a role's weights -> the model."""
        copy_weights(weights, self.sampler.model)
        return self.sampler.model

    def sample(self, weights, prompts, n, max_tokens, key, label, top_p, top_k=0, keep=lambda completion: completion):
        """n completions of each prompt under these weights -> a list for each prompt. key: of the draws, with the
        seed. label: of the progress bar, and of the seconds in the metrics. keep: what to hold of a completion."""
        cfg, start = self.cfg, time.perf_counter()
        self.play(weights)
        if self.trainer and cfg.offload == "sampling":
            self.trainer.park()
        groups = self.sampler.generate(prompts, n=n, max_tokens=max_tokens, temperature=cfg.temperature,
                                       top_p=top_p, top_k=top_k, seed=draw_seed(cfg.seed, *key), progress=label,
                                       keep=lambda i, j, completion: (len(completion.tokens), keep(completion)))
        self.spent[f"{label}_seconds"] += time.perf_counter() - start
        self.spent["tokens"] += sum(tokens for group in groups for tokens, _ in group)
        return [[kept for _, kept in group] for group in groups]

    def begin(self):
        """Starts the clock of a step. spent: the seconds in each use of the sampler, and the tokens drawn."""
        self.began, self.spent = time.perf_counter(), Counter()

    def cost(self):
        """What it took since `begin`: seconds, those in the sampler, tokens, peak memory; each the maximum over
        processes."""
        if self.sampler.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated()
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        own = {"seconds": time.perf_counter() - self.began, **self.spent, "peak_memory_gb": peak / 1e9}
        largest = torch.tensor(list(own.values()), dtype=torch.float64, device=self.sampler.device)
        if dist.is_initialized():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        largest = dict(zip(own, largest.tolist()))
        return largest | {"tokens_per_second": largest["tokens"] / largest["seconds"]}

    def log_cost(self, phase, iteration, **found):
        """Logs what a phase without GRPO steps took, as one step. found: what else its line on the terminal says."""
        self.folder.rewind(phase, iteration, 0)
        row = {"iteration": iteration, "phase": phase, "step": 1, **self.cost()}
        self.folder.log(row)
        self.watch.step(row | found)

    def phase(self, role, iteration):
        """The steps of a phase that are still to be made, one `Step` at a time. The role starts from its last weights,
        or from the phase's last checkpoint; after the last step its weights are saved."""
        cfg, self.steps_folder = self.cfg, self.folder.part(f"{role}.steps", iteration)
        steps, lr, mini_batches, average_rows = (getattr(cfg, f"{role}_{name}") for name in (
            "steps", "lr", "mini_batches", "average_rows"))
        choose_threads(self.sampler.model.config.width)
        self.sampler.release()  # of the last part's cache, where the trainer is to live
        reference = self.start(role, iteration)
        trainer = self.trainer = Trainer(reference, cfg, lr, self.sampler.device, mini_batches, average_rows)
        done = trainer.load_checkpoint(self.steps_folder)
        self.folder.rewind(role, iteration, done)
        for index in range(done, steps):
            yield Step(self, reference, role, iteration, index)
            if self.checkpoints_kept and (index + 1) % cfg.checkpoint_every == 0 and index + 1 < steps:
                trainer.save_checkpoint(self.steps_folder, self.checkpoints_kept)
        model = trainer.gather()
        if self.rank == 0:
            save(model, self.folder.part(role, iteration), self.tokenizer)
            shutil.rmtree(self.steps_folder, ignore_errors=True)
            if cfg.role_dtype == "bf16":
                self.folder.shrink(role, iteration)
        barrier()
        trainer.close()
        self.trainer = None
        self.watch.finished(role, iteration)

    def finished(self, part, iteration):
        """Whether the folder holds a part of an iteration: challenger, questions.jsonl or solver. A role's newest
        weights are checked; damaged ones are set aside, and their phase is made again."""
        path, newer = (self.folder.part(part, i) for i in (iteration, iteration + 1))
        return from_rank_0(self.rank == 0 and path.exists() and (
            path.is_file() or newer.exists() or whole_or_set_aside(path)))

    def write_questions(self, iteration, rows):
        """Writes the pool of questions, with the groups of their votes, and their true answers where these can be
        computed."""
        rows = [row | {"groups": self.task.groups(row["answers"])} for row in rows]
        if self.truth:
            rows = [row | {"truth": row["question"] and self.truth(row["question"])} for row in rows]
            rows = [row | {"label_right": None not in (row["majority"], row["truth"])
                                          and bool(self.task.same(row["majority"], row["truth"]))} for row in rows]
        kept = sum(row["dropped"] is None for row in rows) / len(rows)
        self.log_cost("questions", iteration, kept=kept, **vote_metrics(rows, self.task))
        self.folder.write_part("questions.jsonl", iteration, rows)
        self.watch.finished("questions", iteration)
        barrier()

    def enough_questions(self, iteration):
        """The number of kept questions at which no further pool is drawn."""
        return self.matched[iteration - 1] if self.matched else self.cfg.solver_prompts

    def labelled_questions(self, iteration):
        """What the Solver learns from: question, label and share p (1 in a train_file) of those that the pool of an
        iteration keeps. Raises NoQuestions when there is none."""
        cfg = self.cfg
        if self.given:
            return self.given
        kept = [row | {"label": row[cfg.labels]} for row in self.folder.questions(iteration)
                if row["dropped"] is None and row[cfg.labels] is not None]
        if not kept:
            if self.rank == 0:
                self.write_page()  # it says that the run ended here
            file = self.folder.part("questions.jsonl", iteration)
            advice = "" if cfg.dry_run else ". Begin another --out with a lower --keep_low or more --pool"
            raise NoQuestions(f"iteration {iteration}: no question of {cfg.pool_draws} x {cfg.pool} was fit to learn "
                              f"from; {file} says why{advice}")
        return kept

    def shuffled(self, items, count, key):
        """At least `count` items: all of them in a random order, then again in another, as often as it takes."""
        rng = np.random.default_rng(draw_seed(self.cfg.seed, *key))
        passes = max(1, -(-count // len(items)))
        return [items[i] for _ in range(passes) for i in rng.permutation(len(items))]

    def measure(self, iteration):
        """Adds the Solver's held-out accuracy after an iteration, and how good its questions were, to eval.jsonl."""
        known = any(row["iteration"] == iteration for row in read_lines(self.folder.evals))
        barrier()  # all processes have read eval.jsonl before rank 0 appends
        if known:
            return
        row = {"iteration": iteration}
        if self.heldout:
            self.begin()
            choose_threads(self.sampler.model.config.width)
            self.play(self.weights("solver", iteration))
            measured, answers = held_out(self.sampler, self.task, self.heldout, samples=self.cfg.heldout_samples,
                                         max_tokens=self.cfg.max_answer_tokens,
                                         seed=draw_seed(self.cfg.seed, "held-out"))
            row |= measured
            answers = [answer | {"level": level} for answer, level in zip(answers, self.levels, strict=True)]
            self.spent += {"answering_seconds": time.perf_counter() - self.began,
                           "tokens": sum(answer["tokens"] for answer in answers)}
            self.log_cost("held-out", iteration, **measured)
            self.folder.write_part("heldout.jsonl", iteration, answers)
        if iteration and not self.given:
            row |= self.of_pool(iteration)
        self.folder.log(row)
        if self.rank == 0:
            self.write_page()
        self.watch.finished("held-out", iteration)
        barrier()

    def write_page(self):
        """Writes report.html. A page that cannot be drawn does not end the run."""
        try:
            write_page([self.folder.path], self.folder.path / "report.html")
        except Exception as error:  # whatever it is, the run's own files are whole
            print(f"report.html was not written: {type(error).__name__}: {error}", flush=True)

    def of_pool(self, iteration):
        """What eval.jsonl says of an iteration's pool of questions."""
        rows = self.folder.questions(iteration)
        kept, asked = [q for q in rows if q["dropped"] is None], [q for q in rows if q["question"] is not None]
        reasons = Counter(q["dropped"] for q in rows if q["dropped"])
        earlier = {words(q["question"]) for i in range(1, iteration) for q in self.folder.questions(i) if q["question"]}
        found = {"kept": len(kept), "pool": len(rows), **vote_metrics(rows, self.task),
                 "dropped": {reason: count / len(rows) for reason, count in sorted(reasons.items())},
                 "new": float(np.mean([words(q["question"]) not in earlier for q in asked])) if asked else None}
        if self.truth:
            found |= {"label_accuracy": float(np.mean([q["label_right"] for q in kept])) if kept else None,
                      "well_posed": float(np.mean([q["truth"] is not None for q in asked])) if asked else None}
        return found

    def report(self):
        """Says that the run is at its end, and does what a process that was killed there had no time for."""
        if self.rank == 0:
            self.folder.sort()
            if self.cfg.role_dtype == "bf16":
                self.folder.shrink("challenger", self.cfg.iterations)
                self.folder.shrink("solver", self.cfg.iterations)
            self.write_page()
        self.watch.end(by_truth=bool(self.truth) and self.cfg.labels == "majority" and not self.given)


class Step:
    """One GRPO step of a phase. index: from 0. key: of its draws, with the seed. reference: the weights at the
    phase's start, on the CPU."""

    def __init__(self, run, reference, role, iteration, index):
        self.run, self.reference = run, reference
        self.role, self.iteration, self.index, self.key = role, iteration, index, (iteration, role, index)
        run.begin()

    @property
    def policy(self):
        """The model being trained, on its device."""
        self.run.trainer.unpark()
        return self.run.trainer.policy.model

    def learn(self, prompts, completions, rewards_GN, **metrics):
        """Trains on one completion for each of G * N prompts, in the order of the groups, and logs the step. metrics:
        what the caller knows of it. Raises FloatingPointError naming the step and the rollouts."""
        advantages_GN = group_advantages(rewards_GN, self.run.cfg.normalise_std)
        rollouts = [Rollout(prompt, c.tokens, a, c.full_logprobs)
                    for prompt, c, a in zip(prompts, completions, advantages_GN.flatten().tolist(), strict=True)]
        self.run.sampler.release()
        try:
            reference = self.run.play(self.reference) if self.run.cfg.kl_coef else None
            update = self.run.trainer.step(rollouts, reference)
        except FloatingPointError as error:
            raise FloatingPointError(
                f"iteration {self.iteration}, {self.role}, step {self.index + 1}: {error} (in the order of the "
                "prompts, from 0). What was finished, and the last checkpoint, are intact") from None
        lengths = [len(c.tokens) for c in completions]
        row = {
            "iteration": self.iteration, "phase": self.role, "step": self.index + 1, **metrics,
            "reward": rewards_GN.mean(), "reward_std": rewards_GN.std(),
            "equal_groups": (np.ptp(rewards_GN, 1) == 0).mean(),
            "advantage_min": advantages_GN.min().item(), "advantage_max": advantages_GN.max().item(),
            "completion_tokens": np.mean(lengths), "completion_tokens_max": max(lengths),
            "truncated": np.mean([not c.finished for c in completions]), **update, **self.run.cost()}
        self.run.folder.log(row)
        self.run.watch.step(row)
