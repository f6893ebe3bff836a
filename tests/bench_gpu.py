"""Everything that only a CUDA device can show, in one command of at most 9 minutes, for one card of 80 GB or more:

    python tests/bench_gpu.py --json bench_gpu.json
    pip install tokenizers safetensors numpy sympy tqdm pytest transformers      first, where the machine lacks them; they
                                                                                 leave its torch and triton alone

It needs torch 2.11 or later with its Triton, and no network. The parts, in this order, each in a process and with a time
limit of its own, so that none can take the others with it:

    tests         `pytest -m gpu`
    decode        the decode step by rows, and 512 rows of drawn lengths, at Qwen3-4B's shape against the roofline: the
                  weights once a step and each row's pages once, at the copy bandwidth; the memory against plan.py's
    transformers  the same rows by transformers' continuous batching
    kernels       draw, attention, write, logprob: against the copy bandwidth or the rate of matrix products
    update        GRPO steps at Qwen3-4B's shape against that rate; the peak of memory against plan.py's
    rzero         an iteration of R-Zero on `tiny`, from the command line

A part prints each result as it has it, and a failure as one line. The last lines are the table of all results, and the
file has them as JSON. `--part NAME` runs one alone; `--small` runs at a tiny size, on any machine, so that no slip waits
for a card. Rates are medians, in the unit of the line."""

import argparse
import gc
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before any import of kernels

import torch.distributed as dist
from bench_sample import QWEN3_4B, decode_step, log_normal_lengths, medians, no_stops, random_model, wait

import plan
from batches import Rollout
from common import compute_dtype, start_processes, this_device
from grpo import Trainer
from kernels.attention import paged_attention_triton
from kernels.draw import draw_triton
from kernels.logprob import linear_logprob
from kernels.write import write_pages_triton
from model import ModelConfig
from pages import PagedCache
from plan import copy_rate, matmul_rate
from rzero import PRESETS
from sample import Sampler

BUDGET = 530  # seconds for all parts
DEVICE = this_device()
DTYPE = compute_dtype(DEVICE)

FULL = SimpleNamespace(
    shape=QWEN3_4B, rows=(1, 16, 64, 256), context=1024, questions=64, n=8, prompt=128, middle=200, cap=1000, kv_gb=24.0,
    rounds=5, repeat=5, copy=2**28, matmul=8192, draw=(256, 151_936), attention=(256, 32, 8, 128), head=32_768, steps=3, length=2048,
    rollouts=16, budget=16_384, peer={},
    rzero=dict(challenger_steps=2, challenger_prompts=16, solver_steps=3, solver_prompts=32, pool=200, heldout_samples=4,
               activation_checkpointing=True, compile_blocks=True, reshard=True, offload="sampling"))
SMALL = SimpleNamespace(
    shape=QWEN3_4B | dict(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                          head_dim=16, intermediate_size=48),
    rows=(1, 3), context=20, questions=3, n=2, prompt=5, middle=6, cap=12, kv_gb=0.01, rounds=1, repeat=1, copy=2**16, matmul=256,
    draw=(2, 300), attention=(2, 4, 2, 16), head=100, steps=1, length=64, rollouts=4, budget=128,
    peer={"num_blocks": 16, "max_batch_tokens": 64},
    rzero=dict(challenger_steps=1, challenger_prompts=2, challenger_rollouts=2, solver_steps=1, solver_prompts=2,
               solver_rollouts=2, answers=2, pool=4, pool_draws=1, heldout="", keep_low=0.0, keep_high=1.0, max_question_tokens=32,
               max_answer_tokens=16))


class Report:
    """The results of a part: printed as they come, and kept in a file of JSON lines, where a killed process leaves them."""

    def __init__(self, file):
        self.file = file

    def __call__(self, what, value, unit, share=None, of=None):
        """A result. share: its part of what the device could do, or of what was expected, which `of` names."""
        row = {"what": what, "value": value, "unit": unit} | ({} if share is None else {"share": round(share, 4), "of": of})
        print(as_line(row), flush=True)
        with open(self.file, "a") as lines:
            lines.write(json.dumps(row) + "\n")

    def rows(self):
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []


def as_line(row):
    value = row["value"] if isinstance(row["value"], str) else f"{row['value']:,.4g}"
    share = f"   {100 * row['share']:.1f} % of {row['of']}" if "share" in row else ""
    return f"  {row['what']:<52} {value:>9} {row['unit']}{share}"


# ---- the parts


def tests(size, report):
    """The GPU tests, each result as it comes; in the small size they are only collected, since the suite has them."""
    more, count = ["--collect-only", "-q"] if size is SMALL else ["-v"], 0
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests/test_gpu.py", *more]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if found := re.match(r"tests/test_gpu.py::(\S+)(?: (PASSED|FAILED|ERROR|SKIPPED))?", line):
                name, outcome = found.groups()
                count += 1
                report(name.removeprefix("test_"), (outcome or "found").lower(), "")
    if process.returncode:
        raise RuntimeError(f"pytest ended with {process.returncode} after {count} tests")


def decode(size, report):
    """The decode step by rows, then whole generations, beside the roofline and the plan."""
    bandwidth = copy_rate(DEVICE, size.copy)
    report("copy bandwidth", bandwidth / 1e12, "TB/s")
    model = random_model(size.shape, DEVICE, DTYPE)
    weights, token_bytes = sum(p.nbytes for p in model.parameters()), PagedCache.bytes_of_page(model.config, 1, DTYPE)
    prompts, limits = generation_rows(size)
    sampler = Sampler(model, no_stops(size.shape), len(prompts), size.kv_gb)
    for rows in size.rows:
        took = medians({"step": decode_step(sampler, rows, size.context)}, DEVICE, size.rounds, size.repeat)["step"]
        least = (weights + rows * size.context * token_bytes) / bandwidth
        report(f"decode step, {rows} rows of {size.context} tokens", 1e3 * took, "ms", least / took, "the roofline")
    sampler.release()

    lengths = np.array(limits, dtype=float)
    read = (lengths * size.prompt + lengths * (lengths + 1) / 2).sum() * token_bytes
    sampler.generate(prompts[:8], max_tokens=8)  # compiles
    for turn in ("graphs captured on the way", "again"):
        gc.collect()
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        step, steps = sampler._decode, []
        sampler._decode = lambda *args, step=step, steps=steps: (steps.append(0), step(*args))
        start = time.perf_counter()
        sampler.generate(prompts, max_tokens=limits, progress="ours")
        took = time.perf_counter() - start
        sampler._decode = step
        least = (len(steps) * weights + read) / bandwidth
        report(f"{len(prompts)} rows of drawn lengths, {turn}", sum(limits) / took, "tokens/s", least / took, "the roofline")
    report("rows preempted", sampler.preemptions, "rows")
    cfg = replace(PRESETS["paper"], max_rows=len(prompts), kv_gb=size.kv_gb, max_question_tokens=size.cap,
                  max_answer_tokens=size.cap)
    against_plan(report, "memory while sampling", plan.memory(cfg, model.config, machine())["pool"])


def generation_rows(size):
    """Equal prompts follow each other: to our sampler they are one group. Each row has a limit, and no stop token."""
    prompts = np.random.default_rng(1).integers(0, size.shape["vocab_size"], (size.questions, size.prompt)).tolist()
    limits = log_normal_lengths(size.questions, size.n, size.middle, size.cap).flatten().tolist()
    return [p for p in prompts for _ in range(size.n)], limits


def machine():
    total = torch.cuda.get_device_properties(DEVICE).total_memory if DEVICE.type == "cuda" else 80e9
    return plan.Machine(1, total / 1e9, DTYPE, None, None)


def against_plan(report, what, parts, before=0):
    """The peak of the device's tensors beside the sum of these parts of the plan, the reserve left out."""
    planned = sum(value for name, value in parts.items() if name != "reserve")
    measured = torch.cuda.max_memory_allocated() - before if DEVICE.type == "cuda" else planned
    report(what, measured / 1e9, "GB", measured / planned, f"the plan's {planned / 1e9:.1f}")


def peer(size, report):
    """transformers' continuous batching on the rows of `decode`."""
    import transformers

    shape, (prompts, limits) = size.shape, generation_rows(size)
    config = transformers.Qwen3Config(**{k: v for k, v in shape.items() if k not in ("model_type", "rope_theta")},
                                      rope_parameters={"rope_type": "default", "rope_theta": shape["rope_theta"]})
    with torch.device(DEVICE):
        model = transformers.Qwen3ForCausalLM(config).to(DTYPE).eval()
    params = transformers.GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, eos_token_id=-1,
                                           max_new_tokens=max(limits))
    with model.continuous_batching_context_manager(
            generation_config=params,
            continuous_batching_config=transformers.ContinuousBatchingConfig(**size.peer),
            block=True, timeout=5) as manager:
        for warm in (True, False):
            start = time.perf_counter()
            asked = list(zip(prompts, limits))[:8] if warm else list(zip(prompts, limits))
            for tokens, limit in asked:
                manager.add_request(tokens, max_new_tokens=min(8, limit) if warm else limit)
            for _ in asked:
                while not ((result := manager.get_result(timeout=1)) and result.is_finished()):
                    if not manager.is_running():
                        raise RuntimeError("transformers' continuous batching ended early; its messages stand above")
                if result.error:
                    raise RuntimeError(f"transformers' continuous batching: {result.error}")
            took = time.perf_counter() - start
    report(f"{len(prompts)} rows of drawn lengths, transformers {transformers.__version__}", sum(limits) / took, "tokens/s")


def kernels(size, report):
    """Each kernel alone, at the size at which training or sampling calls it."""
    bandwidth, rate = copy_rate(DEVICE, size.copy), matmul_rate(DEVICE, DTYPE, size.matmul)
    report("matrix products", rate / 1e12, "TFLOP/s")

    def against_copy(what, nbytes, call):
        took = medians({what: call}, DEVICE, size.rounds, size.repeat)[what]
        report(what, 1e3 * took, "ms", nbytes / took / bandwidth, "the copy bandwidth")

    R, V = size.draw
    logits_RV = (torch.randn(R, V, device=DEVICE) * 3).to(DTYPE)
    key_R, position_R = torch.arange(R, device=DEVICE), torch.zeros(R, dtype=torch.int64, device=DEVICE)
    for how in ({}, {"top_p": 0.95}, {"top_k": 50}):
        against_copy(f"draw, {R} x {V} {how or ''}", logits_RV.nbytes,
                     lambda how=how: draw_triton(logits_RV, 1, key_R, position_R, **how))

    (A, H, K, C), P = size.attention, 16
    n = (size.context - 1) // P + 1
    keys, values = (torch.randn(K, A * n + 1, P, C, device=DEVICE).to(DTYPE) for _ in "kv")
    for rows in sorted({1, A // 8 or 1, A}):
        table_An = (torch.randperm(A * n, device=DEVICE)[:rows * n].view(rows, n) + 1).int()
        length_A, q_AHC = torch.full((rows,), size.context, device=DEVICE), torch.randn(rows, H, C, device=DEVICE).to(DTYPE)
        against_copy(f"attention of a layer, {rows} x {size.context}", 2 * rows * K * size.context * C * DTYPE.itemsize,
                     lambda q=q_AHC, table=table_An, length=length_A: paged_attention_triton(q, keys, values, table, length))
    k_NKC, slot_N = torch.randn(A, K, C, device=DEVICE).to(DTYPE), torch.arange(A, device=DEVICE) * P + P
    against_copy(f"write of a layer, {A} tokens", 4 * k_NKC.nbytes,
                 lambda: write_pages_triton(k_NKC, k_NKC, keys.flatten(1, 2), values.flatten(1, 2), slot_N))

    call = head(ModelConfig.from_dict(size.shape), DEVICE, size.head)
    most, took = peak(DEVICE, call), medians({"head": call}, DEVICE, size.rounds)["head"]
    flops = 8 * size.head * size.shape["vocab_size"] * size.shape["hidden_size"]  # logits twice, two gradients
    report(f"head and logprob of {size.head} tokens, both ways", 1e3 * took, "ms", flops / took / rate, "the matmul rate")
    report("memory that these take", most / 1e9, "GB")


def head(config, device, tokens):
    """A call: forward and backward of head and logprob of `tokens` tokens, in bf16."""
    hidden = torch.randn(tokens, config.width, device=device, dtype=torch.bfloat16).requires_grad_()
    weight = torch.randn(config.vocab_size, config.width, device=device, dtype=torch.bfloat16).mul_(0.02).requires_grad_()
    target = torch.randint(config.vocab_size, (tokens,), device=device)

    def both():
        linear_logprob(hidden, weight, target)[0].sum().backward()
        hidden.grad = weight.grad = None
    return both


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


def update(size, report):
    """GRPO steps in bf16 over fp32 weights, with the settings of the preset `paper`, no second model beside the Trainer."""
    start_processes()
    config, rate = ModelConfig.from_dict(size.shape), matmul_rate(DEVICE, DTYPE, size.matmul)
    cfg = replace(PRESETS["paper"], token_budget=size.budget, kl_coef=0.0, compile_blocks=DEVICE.type == "cuda")
    trainer = Trainer(random_model(size.shape, DEVICE, DTYPE), cfg, 1e-6, DEVICE)
    words, g = config.vocab_size, torch.Generator().manual_seed(0)

    def ids(count):
        return torch.randint(words, (count,), generator=g).tolist()

    def rows(prompts, count, length):
        return [Rollout(prompts[i % len(prompts)], ids(length - len(prompts[0])), (-1.0)**i) for i in range(count)]

    apart = rows([ids(size.length // 32) for _ in range(size.rollouts)], size.rollouts, size.length)
    length, prompt = size.length // 4, size.length // 8  # of the Challenger's kind: one micro-batch, but for a token
    shared = rows([ids(prompt)], (size.budget - prompt) // (length - prompt + 1), length)
    for what, rollouts in (("an update, rows with nothing in common", apart), ("an update, half of each row shared", shared)):
        trainer.step(rollouts)
        gc.collect()
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        steps = [trainer.step(rollouts) for _ in range(size.steps)]
        seconds = float(np.median([s["update_seconds"] for s in steps]))
        report(what, sum(map(len, rollouts)) / seconds, "tokens/s", 1e12 * steps[0]["update_tflops"]
               * steps[0]["update_seconds"] / seconds / rate, "the matmul rate")
        if rollouts is apart:
            parts = plan.state_memory(config, 1) | plan.update_memory(config, cfg, size.budget, 1, DTYPE, True)
            against_plan(report, "memory of the update", parts)
    for what, call in (("first, which pins host memory", trainer.park), ("and back", trainer.unpark),
                       ("again", trainer.park), ("and back again", trainer.unpark)):
        wait(DEVICE)
        start = time.perf_counter()
        call()
        wait(DEVICE)
        report(f"weights and moments to the host, {what}", time.perf_counter() - start, "s")
    trainer.close()
    if dist.is_initialized():
        dist.destroy_process_group()


def iteration(size, report):
    """rzero.py from the command line; what its metrics say."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        settings = {"model": ROOT / "tiny", "out": out, "iterations": 1, "heldout": ROOT / "tiny/heldout.jsonl"} | size.rzero
        flags = [str(x) for k, v in settings.items() for x in (f"--{k}", str(v).lower() if isinstance(v, bool) else v)]
        start = time.perf_counter()
        subprocess.run([sys.executable, ROOT / "rzero.py", *flags], cwd=ROOT, check=True)
        report("an iteration on tiny", time.perf_counter() - start, "s")
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        rows = [row for row in rows if row["phase"] in ("challenger", "solver")]
        evals = [json.loads(line) for line in (out / "eval.jsonl").read_text().splitlines()]
    if len(rows) != settings["challenger_steps"] + settings["solver_steps"]:
        raise RuntimeError(f"the run has {len(rows)} steps")
    for name, unit in (("sampler_kl", "nats"), ("kl", "nats"), ("grad_norm", ""), ("seconds", "s a step"),
                       ("update_seconds", "s a step"), ("peak_memory_gb", "GB")):
        report(f"its largest {name}", max(row[name] for row in rows), unit)
    for row in evals if settings["heldout"] else []:
        report(f"held-out mean after iteration {row['iteration']}", 100 * row["mean"], "%")


# ---- running them

PARTS = {  # seconds that each may take; what an earlier part leaves, the later ones may use
    "tests": (tests, 135), "decode": (decode, 95), "transformers": (peer, 70), "kernels": (kernels, 40),
    "update": (update, 110), "rzero": (iteration, 80)}


def run_part(name, limit, file, small):
    """Runs a part in a process of its own -> why it did not end well, or None."""
    command = [sys.executable, __file__, "--part", name, "--report", file, *["--small"] * small]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return f"exit code {process.returncode}" if process.wait(limit) else None
    except subprocess.TimeoutExpired:
        return f"stopped after {limit:.0f} s"
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)  # with the programs that it started
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one; may be given more than once")
    parser.add_argument("--json", type=Path, help="the file for all results (default: one in the temporary folder)")
    parser.add_argument("--small", action="store_true", help="a tiny size, on any machine")
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)  # in the process of one part
    args = parser.parse_args()
    if DEVICE.type == "cpu" and not args.small:
        sys.exit("bench_gpu.py: needs a CUDA device; --small runs anywhere")
    if args.report:
        sys.exit(here(args.part[0], SMALL if args.small else FULL, Report(args.report)))
    everything(args.part or list(PARTS), args.json or Path(tempfile.mkdtemp()) / "bench_gpu.json", args.small)


def here(name, size, report):
    """Runs a part in this process -> whether it failed."""
    try:
        PARTS[name][0](size, report)
        return False
    except Exception as error:
        traceback.print_exc()
        report(f"{name} failed", f"{type(error).__name__}: {error}".splitlines()[0][:300], "")
        return True


def everything(names, file, small):
    """Runs these parts, prints the table and writes the file."""
    begin, results = time.perf_counter(), {}
    where = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    title = f"{where}, torch {torch.__version__}, Python {sys.version.split()[0]}, {time.strftime('%Y-%m-%d')}"
    with tempfile.TemporaryDirectory() as folder:
        for i, name in enumerate(names):
            reserved = sum(PARTS[later][1] for later in names[i + 1:])
            limit = max(PARTS[name][1], BUDGET - reserved - (time.perf_counter() - begin))
            print(f"\n== {name}", flush=True)
            start, part = time.perf_counter(), Path(folder) / f"{name}.part"
            failure = run_part(name, limit, part, small)
            results[name] = {"seconds": round(time.perf_counter() - start, 1), "failure": failure,
                             "results": Report(part).rows()}
            file.write_text(json.dumps({"where": title, "parts": results}, indent=1) + "\n")
    print(f"\n{title}")
    for name, part in results.items():
        print(f"{name}, {part['seconds']:.0f} s{', ' + part['failure'] if part['failure'] else ''}")
        for row in part["results"]:
            print(as_line(row))
    rates = [row["value"] for name in ("decode", "transformers") for row in results.get(name, {"results": []})["results"]
             if row["unit"] == "tokens/s"]
    if len(rates) == 3:
        print(f"the sampler's rate over transformers': {rates[0] / rates[2]:.2f}, again {rates[1] / rates[2]:.2f}")
    failed = sum(part["failure"] is not None for part in results.values())
    print(f"{failed} parts of {len(results)} failed; all of it is in {file}")


if __name__ == "__main__":
    main()
