"""What a run will take on a machine, told before it is begun: memory per device, tokens and hours per iteration.

    python plan.py --preset paper --model Qwen/Qwen3-4B-Base --devices 1 --device_gb 141 --tflops 790 --tb_s 4.3

--devices, --device_gb (10^9 bytes), --tflops (10^12 FLOP/s of large matrix products) and --tb_s (10^12 bytes/s)
describe a machine of GPUs. Without --device_gb this one is measured. All other options are those of rzero.py."""

import os
import sys
import timeit
from dataclasses import dataclass, replace

import numpy as np
import torch

from common import Parser, compute_dtype, free_memory, parse_settings, this_device
from kernels.logprob import chunk_tokens
from model import read_config, resolve
from pages import PagedCache
from rzero import PRESETS

PROMPT = 200  # assumed tokens of a prompt
MEAN = 0.3  # assumed length of the mean completion, as a share of the longest


@dataclass
class Machine:
    devices: int
    gb: float  # memory of a device, 10^9 bytes
    dtype: torch.dtype  # of the computation
    tflops: float | None  # 10^12 FLOP/s of a device; None: unknown
    tb_s: float | None  # 10^12 bytes/s of its memory; None: unknown


def matmul_rate(device, dtype, size=1024):
    """FLOP/s of the product of two square matrices: what the device can do at most."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in "ab")
    return 2 * size**3 / quickest(lambda: a @ b, device)


def copy_rate(device, numbers=2**26):
    """Bytes read and written per second by a copy within the device's memory."""
    source = torch.zeros(numbers, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / quickest(lambda: target.copy_(source), device)


def quickest(call, device, rounds=9):
    """Seconds of a call in the quickest of `rounds`, each of 4 calls."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    return min(timeit.repeat(lambda: (call(), wait()), number=4, repeat=rounds)) / 4


def training_memory(config, cfg, tokens, devices, dtype, sharded):
    """What a `Trainer` takes at its peak on each device -> {what: bytes}. tokens: of a micro-batch, at least the budget
    or the longest row. dtype: of the computation. sharded: by FSDP over `devices`, of which there may be one."""
    D, F, attended = config.width, config.ffn, (config.heads + config.kv_heads) * config.head_dim
    weights, size = config.parameters(), dtype.itemsize
    outer = weights - config.layers * config.block_parameters()  # the embedding, the head, the last norm
    # What autograd keeps of a block, per token: its input, both norms' outputs, the sum between (4 D); queries and keys
    # before and after norm and rotation, values, attention's output (3 HC + 3 KC); four tensors of SwiGLU (4 F).
    block = 4 * D + 3 * attended + 4 * F
    if dtype == torch.float32:  # there PyTorch's rms_norm is not one kernel, and keeps the normalised values
        block += 2 * D + attended
    if cfg.reshard:  # the outer weights and those of two blocks, with their gradients, in the dtype of the computation
        gathered = size * (2 * outer + 4 * config.block_parameters())
    else:  # all weights, and fp32 gradients
        gathered = (size + 4) * weights
    kept, again = (D, tokens * size * block) if cfg.activation_checkpointing else (block, 0)
    chunk = min(tokens, chunk_tokens(config.vocab_size, size)) * config.vocab_size * size
    return {
        "fp32 weights": 4 * weights / devices,
        "AdamW moments": 8 * weights / devices,
        "fp32 gradients": 4 * weights / devices,
        "gathered weights": gathered if sharded else 0,
        "activations": tokens * size * kept * config.layers,
        # At the head a chunk of logits, of which the plain twin makes two copies, and hidden states; later a block.
        "logits, or a block": max(chunk * (3 if dtype == torch.float32 else 1) + 2 * tokens * size * D, again),
    }


def longest_row(cfg):
    """Tokens of the longest prompt and completion."""
    return PROMPT + max(cfg.max_question_tokens, cfg.max_answer_tokens)


def memory(cfg, config, machine):
    """What a process of the run takes on its device at most, in bytes -> {what: bytes}, the key/value pages last."""
    longest, size = longest_row(cfg), machine.dtype.itemsize
    sharded = machine.devices > 1 or machine.dtype == torch.bfloat16
    parts = training_memory(config, cfg, max(cfg.token_budget, longest), machine.devices, machine.dtype, sharded)
    parts |= {"sampler's weights": size * config.parameters(),
              "sampler's logits": size * cfg.max_rows * config.vocab_size,
              "reserve": 0.05e9 * machine.gb}  # the CUDA context, and memory in pieces too small to be used
    most = cfg.max_rows * longest * PagedCache.bytes_of_page(config, 1, machine.dtype)
    free = 0.8 * (1e9 * machine.gb - parts["sampler's weights"])  # what the sampler takes when it is not told
    return parts | {"key/value pages": min(most, cfg.kv_gb * 1e9 or free)}


def fitting(cfg, config, machine):
    """The first change of settings, or of the number of devices, with which the run fits and keeps pages for 4 of the
    longest rows -> {setting: value}; None when nothing does."""
    longest = longest_row(cfg)
    least = 4 * longest * PagedCache.bytes_of_page(config, 1, machine.dtype)
    changes = [{}, {"reshard": True}, {"activation_checkpointing": True},
               {"token_budget": min(longest, cfg.token_budget)}]
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
    """(tokens drawn in an iteration, hours of sampling, hours of updates), if every device reached its rates."""
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
    """Prints what the run will take. Raises ValueError, with settings that would do, when it cannot fit."""
    config = read_config(resolve(cfg.model, ["config.json"]))
    parts = memory(cfg, config, machine)
    left = 1e9 * machine.gb - sum(parts.values())
    print(f"{cfg.model}: {config.parameters() / 1e9:.3g} billion weights; {machine.devices} x {machine.gb:g} GB, "
          f"computing in {str(machine.dtype).removeprefix('torch.')}\n\nGB a device, at most")
    for name, value in [*parts.items(), ("left", left)]:
        print(f"{value / 1e9:10.3f}  {name}")
    longest = longest_row(cfg)
    rows = parts["key/value pages"] / PagedCache.bytes_of_page(config, 1, machine.dtype)
    print(f"\nThe pages hold {rows / 1000:,.0f} rows of 1,000 tokens, or {rows / longest:,.0f} of {longest:,}.")
    if machine.tflops and machine.tb_s:
        tokens, sampling, updates = iteration_hours(cfg, config, machine, parts["key/value pages"])
        print(f"An iteration draws {tokens / 1e6:,.1f} million tokens, the mean completion taken as {100 * MEAN:.0f} % "
              f"of the longest:\nat least {sampling:.3g} hours of sampling and {updates:.3g} of updates, at "
              f"{machine.tflops:.3g} TFLOP/s and {machine.tb_s:.3g} TB/s, all of which no program reaches.")
    else:
        print("For the hours of an iteration, give --tflops and --tb_s.")
    if left < 0:
        change = fitting(cfg, config, machine) or {}
        settings = " ".join(f"--{name} {str(value).lower()}" for name, value in change.items())
        raise ValueError(f"the run needs {-left / 1e9:.1f} GB more than a device has; " + (
            f"it fits with {settings}" if change else
            "no number of such devices up to 128 makes room for the sampler's copy of the weights"))


def parse_machine(argv):
    """(the `Machine` of a command line, the rest of it)."""
    parser = Parser("plan.py", None, add_help=False)
    parser.add_argument("--devices", type=int, default=int(os.environ.get("WORLD_SIZE", "1")))
    for name in ("--device_gb", "--tflops", "--tb_s"):
        parser.add_argument(name, type=float)
    given, rest = parser.parse_known_args(argv)
    if not given.devices >= 1 or any(x is not None and not x > 0 for x in (given.device_gb, given.tflops, given.tb_s)):
        parser.error("--devices, --device_gb, --tflops and --tb_s must be above 0")
    if given.device_gb:  # of a GPU, here or elsewhere
        return Machine(given.devices, given.device_gb, torch.bfloat16, given.tflops, given.tb_s), rest
    device = this_device()
    dtype = compute_dtype(device)
    tflops = given.tflops or matmul_rate(device, dtype, 8192 if device.type == "cuda" else 1024) / 1e12
    tb_s = given.tb_s or copy_rate(device) / 1e12
    return Machine(given.devices, round(free_memory(device) / 1e9, 1), dtype, tflops, tb_s), rest


def main():
    machine, rest = parse_machine(sys.argv[1:])
    cfg = parse_settings("plan.py", __doc__, PRESETS, rest)
    try:
        plan(cfg, machine)
    except (OSError, ValueError) as error:
        sys.exit(f"plan.py: {error}")


if __name__ == "__main__":
    main()
