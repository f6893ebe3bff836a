"""Speed and memory of a GRPO step, beside TRL's trainer and beside what the machine can do at most.

    python tests/bench_train.py             # CPU, tiny: whole steps against TRL's GRPOTrainer; the update against the matmul rate
    python tests/bench_train.py processes   # CPU: the update on two processes against one, a thread each
    python tests/bench_train.py gpu         # Qwen3-4B's shape: update, head, a whole Challenger and Solver step

Programs that are compared run in turn; a ratio is one of medians. The last line is JSON. `pip install trl==1.16.0` first;
for the GPU part, liger-kernel as well.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bench_sample import QWEN3_4B, medians, wait
from processes import run_processes

from batches import Rollout
from common import compute_dtype
from grpo import GRPOConfig, Trainer, copy_weights, group_advantages
from kernels.logprob import linear_logprob
from model import ModelConfig, Tokenizer, Transformer, load
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
    sampler = Sampler(load(TINY), tokenizer, PROMPTS * N)
    trainer = Trainer(load(TINY), GRPOConfig(), LR)

    def step(seed):
        copy_weights(trainer.policy.model, sampler.model)
        groups = sampler.generate(prompts, n=N, max_tokens=LONGEST, seed=seed)
        rewards = torch.tensor([[reward(tokenizer.decode(c.tokens)) for c in group] for group in groups])
        advantages = group_advantages(rewards)
        trainer.step([Rollout(prompt, c.tokens, a, c.full_logprobs) for prompt, group, row in zip(prompts, groups, advantages)
                      for c, a in zip(group, row.tolist())])
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
    trainer = Trainer(load(TINY), GRPOConfig(), LR)
    rollouts = some_rollouts(prompts, PROMPTS * N)
    shares, rate = [], []
    for _ in range(9):
        rate.append(matmul_rate(trainer.device, torch.float32))
        shares.append(1e12 * trainer.step(rollouts)["update_tflops"] / rate[-1])
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
    trainer = Trainer(load(TINY), GRPOConfig(), LR)
    rollouts = some_rollouts(prompts, 320)
    return [trainer.step(rollouts)["update_seconds"] for _ in range(rounds + 1)][1:]


def processes(turns=3, rounds=5):
    """The update of 320 rows on one process and on two, a thread each, in turn."""
    took = {1: [], 2: []}
    for _ in range(turns):
        for world, seconds in took.items():
            seconds += [max(times) for times in zip(*run_processes(world, _updates, rounds))]
    print(f"320 rows: one process {median(took[1]):.2f} s, two {median(took[2]):.2f} s")
    return {"seconds": {world: round(median(times), 3) for world, times in took.items()},
            "ratio": round(median(took[1]) / median(took[2]), 2)}


def peak(device, call):
    """Most bytes allocated during a call beyond those before it; 0 on the CPU, where nobody counts."""
    gc.collect()
    if device.type == "cpu":
        call()
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    wait(device)
    return torch.cuda.max_memory_allocated(device) - before


def head(config, device, tokens):
    """Forward and backward of head and logprob of `tokens` tokens in bf16 -> peak bytes more, seconds."""
    hidden = torch.randn(tokens, config.width, device=device, dtype=torch.bfloat16).requires_grad_()
    weight = torch.randn(config.vocab_size, config.width, device=device, dtype=torch.bfloat16).mul_(0.02).requires_grad_()
    target = torch.randint(config.vocab_size, (tokens,), device=device)

    def both():
        linear_logprob(hidden, weight, target)[0].sum().backward()
        hidden.grad = weight.grad = None
    return peak(device, both), medians({"head": both}, device)["head"]


def liger(config, device, rows, length):
    """Seconds of the same update by transformers with Liger's fused GRPO loss: forward, reference, backward, AdamW; fp32
    weights under autocast, gradient checkpointing."""
    import transformers
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss
    hf = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**{k: v for k, v in config.raw.items() if k != "model_type"}))
    model = hf.to(device)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    loss_of = LigerFusedLinearGRPOLoss(beta=0.01, use_ref_model=True, chunk_size=1)
    tokens = torch.randint(config.vocab_size, (rows, length), device=device)
    advantages, mask = torch.randn(rows, device=device), torch.ones(rows, length - 1, device=device)

    def update():
        with torch.autocast("cuda", torch.bfloat16):
            with torch.no_grad():
                reference = model.model(tokens[:, :-1]).last_hidden_state
            hidden = model.model(tokens[:, :-1]).last_hidden_state
            weight = model.lm_head.weight.to(torch.bfloat16)
            loss, _ = loss_of(hidden, weight, tokens[:, 1:], mask, advantages, ref_input=reference, ref_weight=weight.detach())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return medians({"liger": update}, device, rounds=3)["liger"]


def gpu():
    """All of `ours`, then the same update by transformers + Liger."""
    device, length, rows = torch.device("cuda"), 2048, 16
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    result = {"device": torch.cuda.get_device_name(), **ours(QWEN3_4B, device, length, rows)}
    result["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 1)
    gc.collect()
    torch.cuda.empty_cache()
    result["liger_seconds"] = round(liger(ModelConfig.from_dict(QWEN3_4B), device, 4, length) * rows / 4, 2)
    result["ratio_liger"] = round(result["liger_seconds"] / result["update_seconds"], 2)
    dist.destroy_process_group()
    return result


def ours(shape, device, length, rows, head_tokens=32_768, pages_gb=30.0, longest=1000):
    """Head and logprob; the update's share of the bf16 matmul rate; a whole step of either role with pages for 200 rows."""
    config = ModelConfig.from_dict(shape)
    bytes_of_head, seconds_of_head = head(config, device, head_tokens)
    result = {"head_peak_gb": round(bytes_of_head / 1e9, 2), "head_seconds": float(f"{seconds_of_head:.3g}")}
    print(result, flush=True)
    with torch.device(device):
        model = Transformer(config).to(torch.bfloat16)
    compiled = device.type == "cuda"  # on a CPU it takes a minute, and tests/test_grpo.py has it
    cfg = GRPOConfig(token_budget=4 * length, activation_checkpointing=True, compile_blocks=compiled, reshard=True)
    trainer = Trainer(model, cfg, lr=1e-6)
    del model
    rollouts = [Rollout([1] * 8, torch.randint(config.vocab_size, (length - 8,)).tolist(), (-1.0)**i) for i in range(rows)]
    rate = matmul_rate(device, compute_dtype(device), 8192 if device.type == "cuda" else 512) / 1e12
    steps = [trainer.step(rollouts) for _ in range(4)][1:]
    result |= {"update_share": round(median(s["update_tflops"] for s in steps) / rate, 3),
               "update_seconds": round(median(s["update_seconds"] for s in steps), 2)}
    print(result, flush=True)

    tokenizer = Tokenizer(TINY)
    with torch.device(device):
        sampler = Sampler(Transformer(config).to(torch.bfloat16), tokenizer, 256, kv_gb=pages_gb)
    for role in ("challenger", "solver"):
        copy_weights(trainer.policy.model, sampler.model)
        start = time.perf_counter()
        groups = sampler.generate([[1] * 100] * 40, n=5, max_tokens=longest, seed=0)
        drawn = [Rollout([1] * 100, c.tokens, (-1.0)**i, c.full_logprobs) for i, c in enumerate(c for g in groups for c in g)]
        trainer.step(drawn)
        result[f"{role}_step_seconds"] = round(time.perf_counter() - start, 1)
    print(result, flush=True)
    return result


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["cpu", "processes", "gpu"], default="cpu")
    print(json.dumps({"cpu": cpu, "processes": processes, "gpu": gpu}[parser.parse_args().part]()))
