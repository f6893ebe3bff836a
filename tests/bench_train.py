"""Speed and memory of a GRPO step, beside TRL's trainer and beside what the machine can do at most.

    python tests/bench_train.py             # CPU, tiny: whole steps against TRL's GRPOTrainer; the update against the matmul rate
    python tests/bench_train.py processes   # CPU: the update on two processes against one, a thread each

Programs that are compared run in turn; a ratio is one of medians. The last line is JSON. `pip install trl==1.16.0` first.
What a GPU shows is in bench_gpu.py.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from processes import run_processes

from batches import Rollout
from grpo import GRPOConfig, Trainer, copy_weights, group_advantages
from model import Tokenizer, load
from plan import matmul_rate
from sample import Sampler
from tasks.benchmarks import read_questions
from tasks.mathematics import SOLVER_SYSTEM

TINY = ROOT / "tiny"
PROMPTS, N, LONGEST, LR = 32, 5, 64, 1e-5


def reward(text):
    """Any function of the text that differs within a group: the share of digits in it."""
    return sum(c.isdigit() for c in text) / max(1, len(text))


def our_steps(prompts, tokenizer):
    """A function that makes one step, sampling included -> tokens drawn."""
    sampler, reference = Sampler(load(TINY), tokenizer, PROMPTS * N), load(TINY)
    trainer = Trainer(reference, GRPOConfig(), LR)

    def step(seed):
        copy_weights(trainer.policy.model, sampler.model)
        groups = sampler.generate(prompts, n=N, max_tokens=LONGEST, seed=seed)
        rewards = torch.tensor([[reward(tokenizer.decode(c.tokens)) for c in group] for group in groups])
        advantages = group_advantages(rewards)
        copy_weights(reference, sampler.model)
        trainer.step([Rollout(prompt, c.tokens, a, c.full_logprobs) for prompt, group, row in zip(prompts, groups, advantages)
                      for c, a in zip(group, row.tolist())], sampler.model)
        return sum(len(c.tokens) for group in groups for c in group)
    return step


def trl_steps(prompts, tokenizer, steps, folder):
    """Seconds of each of TRL's steps on the same weights, prompts and settings, without vLLM; the first are left out."""
    import datasets
    import transformers
    import trl

    class Clock(transformers.TrainerCallback):
        times = [time.perf_counter()]

        def on_step_end(self, *args, **kwargs):
            self.times.append(time.perf_counter())

    def rewards(completions, **_):
        return [reward(text) for text in completions]

    texts = [tokenizer.inner.decode(ids, skip_special_tokens=False) for ids in prompts]
    how = trl.GRPOConfig(
        output_dir=folder, per_device_train_batch_size=PROMPTS * N, num_generations=N, max_completion_length=LONGEST,
        temperature=1.0, top_p=1.0, top_k=0, learning_rate=LR, beta=0.01, max_steps=steps, use_cpu=True, bf16=False, fp16=False,
        gradient_checkpointing=False, lr_scheduler_type="constant", weight_decay=0.01, report_to=[], logging_strategy="no",
        save_strategy="no", disable_tqdm=True, loss_type="dapo", num_iterations=1, seed=0)
    clock = Clock()
    trainer = trl.GRPOTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(TINY), reward_funcs=rewards, args=how, callbacks=[clock],
        train_dataset=datasets.Dataset.from_list([{"prompt": text} for text in texts] * steps),
        processing_class=transformers.AutoTokenizer.from_pretrained(TINY))
    trainer.train()
    return [b - a for a, b in zip(clock.times, clock.times[1:])][1:]


def some_rollouts(prompts, rows, seed=0):
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(20, LONGEST, (rows,), generator=g).tolist()
    return [Rollout(prompts[i % len(prompts)], torch.randint(3, 500, (length,), generator=g).tolist(), (-1.0)**i)
            for i, length in enumerate(lengths)]


def cpu(rounds=3, steps=4):
    """Whole steps of ours and of TRL in turn, and the share of the matmul rate that our update reaches."""
    tokenizer = Tokenizer(TINY)
    prompts = [tokenizer.chat(SOLVER_SYSTEM, q) for q, *_ in read_questions(ROOT / "tiny/heldout.jsonl")[::15][:PROMPTS]]
    took = {"ours": [], "trl": []}
    step = our_steps(prompts, tokenizer)
    step(0)
    for i in range(rounds):
        for j in range(steps):
            start = time.perf_counter()
            step(1 + i * steps + j)
            took["ours"].append(time.perf_counter() - start)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
            took["trl"] += trl_steps(prompts, tokenizer, steps + 1, folder)
    reference = load(TINY)
    trainer = Trainer(reference, GRPOConfig(), LR)
    rollouts = some_rollouts(prompts, PROMPTS * N)
    shares, rate = [], []
    for _ in range(9):
        rate.append(matmul_rate(trainer.device, torch.float32))
        shares.append(1e12 * trainer.step(rollouts, reference)["update_tflops"] / rate[-1])
    seconds = {name: median(times) for name, times in took.items()}
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"a step of {PROMPTS} x {N} completions of up to {LONGEST} tokens: ours {seconds['ours']:.2f} s "
          f"({min(took['ours']):.2f} to {max(took['ours']):.2f}), TRL {seconds['trl']:.2f} s ({min(took['trl']):.2f} to "
          f"{max(took['trl']):.2f})\nupdate: {100 * median(shares):.0f} % of the rate of 1,024-square products, "
          f"{median(rate) / 1e9:.0f} GFLOP/s")
    return {"seconds": {name: round(value, 3) for name, value in seconds.items()},
            "ratio": round(seconds["trl"] / seconds["ours"], 2), "share_of_matmul_rate": round(median(shares), 3)}


def _updates(rank, world, rounds):
    tokenizer = Tokenizer(TINY)
    prompts = [tokenizer.chat(SOLVER_SYSTEM, "What is 17 + 25 - 8?")]
    reference = load(TINY)
    trainer = Trainer(reference, GRPOConfig(), LR)
    rollouts = some_rollouts(prompts, 320)
    return [trainer.step(rollouts, reference)["update_seconds"] for _ in range(rounds + 1)][1:]


def processes(turns=3, rounds=5):
    """The update of 320 rows on one process and on two, a thread each, in turn."""
    took = {1: [], 2: []}
    for _ in range(turns):
        for world, seconds in took.items():
            seconds += [max(times) for times in zip(*run_processes(world, _updates, rounds))]
    print(f"320 rows: one process {median(took[1]):.2f} s, two {median(took[2]):.2f} s")
    return {"seconds": {world: round(median(times), 3) for world, times in took.items()},
            "ratio": round(median(took[1]) / median(took[2]), 2)}


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["cpu", "processes"], default="cpu")
    print(json.dumps({"cpu": cpu, "processes": processes}[parser.parse_args().part]()))
