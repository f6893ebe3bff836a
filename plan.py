"""What a run will take on a machine, told before it is begun: memory per device, phase by phase, memory of the host,
disk, tokens and hours per iteration.

    python plan.py --preset paper --model Qwen/Qwen3-4B-Base --devices 1 --device_gb 141 --tflops 790 --tb_s 4.3

--devices, --device_gb (10^9 bytes), --tflops (10^12 FLOP/s of large matrix products) and --tb_s (10^12 bytes/s)
describe a machine of GPUs. Without --device_gb this one is measured; without --devices too, the rates that a run in
--out has reached here take the place of what was measured. All other options are those of rzero.py."""

import math
import os
import sys
import timeit
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from common import DTYPES, Parser, compute_dtype, free_memory, parse_settings, read_json, read_lines, this_device
from folder import columns, disk_needed
from kernels.logprob import chunk_tokens
from model import read_config, resolve
from pages import MAX_PREFILL_TOKENS, MEMORY_SHARE, PAGE_SIZE, PagedCache
from rzero import PRESETS
from watch import sizes

PROMPT = 200  # assumed tokens of a prompt
MEAN = 0.3  # assumed length of the mean completion, as a share of the longest
HOST_TB_S = 0.025  # assumed 10^12 bytes/s between host and device: what PCIe 4.0 x16 (0.032) leaves


@dataclass
class Machine:
    devices: int
    gb: float  # memory of a device, 10^9 bytes
    dtype: torch.dtype  # of the computation
    tflops: float | None  # 10^12 FLOP/s of a device; None: unknown
    tb_s: float | None  # 10^12 bytes/s of its memory; None: unknown
    here: bool = False  # it is this one, so what a run reached here holds for it


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


def sampler_dtype(cfg, machine):
    """The dtype that the sampler computes in."""
    return DTYPES[cfg.sampler_dtype] or machine.dtype


def logits_memory(config, tokens, dtype, plain):
    """Bytes of these tokens' logits. plain: by the plain twins of the kernels, which make three copies in fp32."""
    return tokens * config.vocab_size * (dtype.itemsize + (12 if plain else 0))


def state_memory(config, devices):
    """What a `Trainer` keeps between its updates, on each device -> {what: bytes}."""
    return {"fp32 weights": 4 * config.parameters() / devices, "AdamW moments": 8 * config.parameters() / devices}


def update_memory(config, cfg, tokens, devices, dtype, sharded):
    """What an update takes at its peak on each device, beside the `Trainer`'s state -> {what: bytes}. tokens: of a
    micro-batch, at least the budget or the longest row. dtype: of the computation. sharded: by FSDP over `devices`, of
    which there may be one."""
    D, F, HC, KC = config.width, config.ffn, config.heads * config.head_dim, config.kv_heads * config.head_dim
    N, size, one = config.parameters(), dtype.itemsize, dtype.itemsize * config.block_parameters()
    outer = size * N - config.layers * one  # of the embedding, the head, the last norm
    # What autograd keeps of a block, per token: its input, both norms' outputs, the sum between (4 D); queries and keys
    # before and after norm and rotation; values; attention's output without and with the prefix's (4 HC + 3 KC); keys
    # and values of whole rows, the common prefix in each: at most twice the tokens (4 KC); four of SwiGLU (4 F).
    block = 4 * D + 4 * HC + 7 * KC + 4 * F
    if dtype == torch.float32:  # there PyTorch's rms_norm is not one kernel, and keeps the normalised values
        block += 2 * D + HC + KC
    kept, again = (D, tokens * size * block) if cfg.activation_checkpointing else (block, 0)
    chunk, hidden = min(tokens, chunk_tokens(config.vocab_size, size)), 2 * tokens * size * D
    forward = hidden + logits_memory(config, chunk, dtype, dtype == torch.float32)  # at the head
    backward = max(hidden + logits_memory(config, chunk, dtype, False), again)  # at the head, or in a block
    gradients = 0 if cfg.offload == "true" else 4 * N / devices
    if sharded and not (cfg.reshard or cfg.offload == "true"):  # all weights, and gradients not yet sharded
        gradients, forward = 4 * N, forward + size * N
    elif sharded:  # the outer weights and two blocks'; then their gradients too
        # When the outer weights are gathered: as they are used, in the gathering's buffer, cast, and from the host.
        gathering = outer * (3 + (4 / size if cfg.offload == "true" else 0))
        forward, backward = forward + outer + 2 * one, max(backward + 2 * outer + 4 * one, gathering)
    return {"fp32 gradients": gradients, "activations": tokens * size * kept * config.layers,
            "weights and logits in use": max(forward, backward)}


def forward_memory(config, tokens, size):
    """Bytes of a forward pass without gradients at its peak: in a block's SwiGLU, or in its attention."""
    attended = (config.heads + config.kv_heads) * config.head_dim
    return tokens * size * (3 * config.width + max(4 * config.ffn, 3 * attended))


def sampling_memory(config, rows, longest, free, most, dtype, plain):
    """What the sampler takes beside its weights -> {what: bytes}, the pages last: its share of the `free` bytes, but no
    more than `rows` of the `longest` tokens need, and than `most` (0: no bound)."""
    logits = logits_memory(config, rows, dtype, plain)
    prompts = forward_memory(config, max(MAX_PREFILL_TOKENS, longest), dtype.itemsize)  # a preempted row's is one
    need = rows * (longest // PAGE_SIZE + 2) * PagedCache.bytes_of_page(config, PAGE_SIZE, dtype)
    return {"token rows": 16 * rows * longest,
            "weights and logits in use": max(logits, prompts) if plain else logits + prompts,  # a graph keeps its own
            "key/value pages": max(0, min(need, MEMORY_SHARE * free, most or need))}


def longest_row(cfg):
    """Tokens of the longest prompt and completion."""
    return PROMPT + max(cfg.max_question_tokens, cfg.max_answer_tokens)


def memory(cfg, config, machine):
    """What each phase of a run takes on a device -> {phase: {what: bytes}}. The phases: `sampling` while a Trainer
    waits; `reference`, which scores the rollouts; `update`; `pool`, sampling for it and for held-out questions, when
    there is no Trainer."""
    longest, dtype, plain = longest_row(cfg), sampler_dtype(cfg, machine), machine.dtype == torch.float32
    tokens, sharded = max(cfg.token_budget, longest), machine.devices > 1 or not plain
    # What is always there: the CUDA context and memory in pieces too small to be used; the sampler's weights.
    always = {"reserve": 0.05e9 * machine.gb, "sampler's weights": dtype.itemsize * config.parameters()}
    state = {} if cfg.offload == "true" else state_memory(config, machine.devices)
    phases = {}
    for phase, beside in (("sampling", {} if cfg.offload == "sampling" else state), ("pool", {})):
        free = 1e9 * machine.gb - sum(always.values()) - sum(beside.values())
        parts = sampling_memory(config, cfg.max_rows, longest, free, cfg.kv_gb * 1e9, dtype, plain)
        phases[phase] = always | beside | parts
    chunk = logits_memory(config, min(tokens, chunk_tokens(config.vocab_size, dtype.itemsize)), dtype, plain)
    scoring = {"weights and logits in use": max(chunk, forward_memory(config, tokens, dtype.itemsize))}
    update = update_memory(config, cfg, tokens, machine.devices, machine.dtype, sharded)
    return {"sampling": phases["sampling"], "reference": always | state | scoring, "update": always | state | update,
            "pool": phases["pool"]}


def host_memory(cfg, config, devices):
    """Bytes of host memory that a device's share of the training takes. PyTorch rounds each pinned tensor up to a power
    of two. Pinned are weights and moments under `sampling`, weights and gradients under `true`, the moments not."""
    if cfg.offload == "false":
        return 0
    shards = [-(-4 * math.prod(shape) // devices) for shape in config.shapes().values()]
    pinned = sum(2 ** (size - 1).bit_length() for size in shards)
    return 3 * pinned if cfg.offload == "sampling" else 2 * pinned + 2 * sum(shards)


def fits(cfg, config, machine):
    """Whether every phase fits, and pages for 4 of the longest rows beside a Trainer."""
    phases = memory(cfg, config, machine)
    least = 4 * longest_row(cfg) * PagedCache.bytes_of_page(config, 1, sampler_dtype(cfg, machine))
    return (all(sum(parts.values()) <= 1e9 * machine.gb for parts in phases.values())
            and phases["sampling"]["key/value pages"] >= least)


def fitting(cfg, config, machine):
    """The first changes of settings, or of the number of devices, with which the run `fits`, what costs the least time
    first -> {setting: value}; None when nothing does."""
    sizes = {max(cfg.token_budget >> i, longest_row(cfg)) for i in range(1, 8)}
    smaller = [{"token_budget": size} for size in sorted(sizes, reverse=True) if size < cfg.token_budget]
    on_host = [{"offload": "true", "token_budget": cfg.token_budget}, *smaller]
    steps = [{}, {"reshard": True}, {"offload": "sampling"}, {"activation_checkpointing": True}, *smaller, *on_host]
    if machine.dtype == torch.float32:  # on a CPU there is no other memory
        steps = [step for step in steps if "offload" not in step]
    for devices in (machine.devices * 2**i for i in range(8)):
        larger, change = replace(machine, devices=devices), {}
        for step in steps:
            change |= step
            if fits(replace(cfg, **change), config, larger):
                for name in list(change):  # what an earlier step changed may not be needed
                    less = {key: value for key, value in change.items() if key != name}
                    change = less if fits(replace(cfg, **less), config, larger) else change
                return change | ({"devices": devices} if devices > machine.devices else {})
    return None


def reached(cfg):
    """What the run in cfg.out measured, if it has made a step with this model: (mean tokens of a question, and of an
    answer, tokens/s of sampling, FLOP/s of updates), on all its devices together. None: not yet."""
    rows = [row for row in read_lines(Path(cfg.out) / "metrics.jsonl") if row["phase"] in ("challenger", "solver")]
    if not rows or read_json(Path(cfg.out) / "config.json").get("model") != cfg.model:
        return None, None, None, None
    lengths = [[row["completion_tokens"] for row in rows if row["phase"] == role] for role in ("challenger", "solver")]
    total = {name: sum(row.get(name, 0) for row in rows) for name in
             ("tokens", "asking_seconds", "answering_seconds", "update_seconds")}
    flops = 1e12 * sum(row["update_tflops"] * row["update_seconds"] for row in rows)
    return (*(float(np.mean(of)) if of else None for of in lengths),
            total["tokens"] / (total["asking_seconds"] + total["answering_seconds"]), flops / total["update_seconds"])


def sampling_rate(cfg, config, machine, page_bytes, mean):
    """Tokens/s that a device draws at most: each step reads the weights, and the pages of the rows that they hold."""
    dtype = sampler_dtype(cfg, machine)
    token_bytes = PagedCache.bytes_of_page(config, 1, dtype)
    context = PROMPT + mean / 2
    rows = max(1, min(cfg.max_rows, page_bytes / token_bytes / context))
    reading = (dtype.itemsize * config.parameters() + rows * context * token_bytes) / machine.tb_s
    return 1e12 * rows / max(reading, rows * config.forward_flops(1, context, 1) / machine.tflops)


def iteration_hours(cfg, config, machine):
    """(tokens drawn in an iteration, hours of sampling in steps, of sampling for the pool, of updates), at the mean
    lengths that the run in cfg.out measured. The rates are those that it reached, on the machine it ran on; of another
    every device reaches its own."""
    question, answer, rate, flops_rate = reached(cfg)
    question, answer = question or MEAN * cfg.max_question_tokens, answer or MEAN * cfg.max_answer_tokens
    if not machine.here:
        rate = flops_rate = None
    challenger_steps, pool = (0, 0) if cfg.train_file else (cfg.challenger_steps, cfg.pool)
    proposals = challenger_steps * cfg.challenger_prompts * cfg.challenger_rollouts
    answers = cfg.solver_steps * cfg.solver_prompts * cfg.solver_rollouts
    tokens = {"sampling": proposals * (question + cfg.answers * answer) + answers * answer,
              "pool": pool * (question + cfg.pool_answers * answer)}
    phases, seconds = memory(cfg, config, machine), []
    for phase, drawn in tokens.items():
        pages = phases[phase]["key/value pages"]
        seconds.append(drawn / (rate or machine.devices * sampling_rate(cfg, config, machine, pages,
                                                                        max(question, answer))))
    again = cfg.activation_checkpointing and not flops_rate  # a measured rate does not count what is computed again
    flops = moved = 0
    for steps, mini_batches, rows, length, pairs, scored in (  # the Challenger's common prompt costs next to nothing
            (challenger_steps, cfg.challenger_mini_batches, proposals,
             question, question * (PROMPT + question / 2), question),
            (cfg.solver_steps, cfg.solver_mini_batches, answers, PROMPT + answer, (PROMPT + answer)**2 / 2, answer)):
        recomputed = mini_batches > 1 and cfg.old_logprobs == "recomputed"
        passes = 3 + (cfg.kl_coef > 0) + recomputed + again  # a backward is two
        flops += rows * passes * config.forward_flops(length, pairs, scored)
        batches = max(steps * mini_batches, rows * length / cfg.token_budget / machine.devices)
        # Bytes of a weight between host and device: it and its moments there and back; or it for each pass of the
        # policy, of which the backward is one, and its gradient.
        moved += {"false": 0, "sampling": 24 * steps, "true": (12 + 4 * recomputed) * batches}[cfg.offload]
    moving = 0 if flops_rate else moved * config.parameters() / machine.devices / HOST_TB_S / 1e12
    seconds.append(flops / (flops_rate or 1e12 * machine.tflops * machine.devices) + moving)
    return sum(tokens.values()), *(s / 3600 for s in seconds)


def plan(cfg, machine):
    """Prints what the run will take. Raises ValueError, with settings that would do, when it cannot fit."""
    config = read_config(resolve(cfg.model, ["config.json"]))
    phases = memory(cfg, config, machine)
    left = {phase: 1e9 * machine.gb - sum(parts.values()) for phase, parts in phases.items()}
    names = dict.fromkeys(name for parts in phases.values() for name in parts)
    table = [(name, *(f"{parts[name] / 1e9:.3f}" if parts.get(name) else "-" for parts in phases.values()))
             for name in names]
    print(f"{cfg.model}: {config.parameters() / 1e9:.3g} billion weights; {machine.devices} x {machine.gb:g} GB, "
          f"computing in {str(machine.dtype).removeprefix('torch.')}\n")
    print(columns([("GB a device, at most", *phases), *table, ("left", *(f"{x / 1e9:.3f}" for x in left.values()))]))
    longest, token_bytes = longest_row(cfg), PagedCache.bytes_of_page(config, 1, sampler_dtype(cfg, machine))
    beside, alone = (phases[phase]["key/value pages"] / token_bytes for phase in ("sampling", "pool"))
    print(f"\nThe pages hold {beside / 1000:,.0f} rows of 1,000 tokens, or {beside / longest:,.0f} of {longest:,}, in "
          f"sampling; {alone / 1000:,.0f} or {alone / longest:,.0f} in the pool.")
    if host := host_memory(cfg, config, machine.devices):
        print(f"The host holds {host / 1e9:,.1f} GB for each device (--offload {cfg.offload}).")
    needed, checkpoint = disk_needed(cfg, config.parameters())
    print(sizes(cfg))
    print(f"On disk are about {needed / 1e9:.3g} GB of weights and questions"
          + f", and up to three checkpoints of {checkpoint / 1e9:.3g}" * (cfg.checkpoint_every > 0) + ".")
    measured = any(reached(cfg))
    if measured and machine.here or machine.tflops and machine.tb_s:
        tokens, steps, pool, updates = iteration_hours(cfg, config, machine)
        how = f"at the lengths and rates measured in {cfg.out}" if measured and machine.here else (
            f"at {machine.tflops:.3g} TFLOP/s and {machine.tb_s:.3g} TB/s, all of which\nno program reaches, the mean "
            + (f"lengths as measured in {cfg.out}" if measured else
               f"completion taken as {100 * MEAN:.0f} % of the longest"))
        print(f"An iteration draws {tokens / 1e6:,.1f} million tokens: at least {steps:.3g} hours of sampling, "
              f"{pool:.3g} for the pool\nand {updates:.3g} of updates, {how}.")
    else:
        print("For the hours of an iteration, give --tflops and --tb_s.")
    if not fits(cfg, config, machine):
        change = fitting(cfg, config, machine) or {}
        settings = " ".join(f"--{name} {str(value).lower()}" for name, value in change.items())
        short = -min(left.values()) / 1e9
        raise ValueError((f"the run needs {short:.1f} GB more than a device has; " if short > 0 else
                          "the pages hold fewer than 4 of the longest rows; ") + (
            f"it fits with {settings}" if change else
            f"no number of such devices up to {128 * machine.devices} makes room for the sampler's weights"))


def parse_machine(argv):
    """(the `Machine` of a command line, the rest of it)."""
    parser = Parser("plan.py", None, add_help=False)
    parser.add_argument("--devices", type=int)
    for name in ("--device_gb", "--tflops", "--tb_s"):
        parser.add_argument(name, type=float)
    given, rest = parser.parse_known_args(argv)
    here = given.devices is None and given.device_gb is None
    devices = int(os.environ.get("WORLD_SIZE", "1")) if given.devices is None else given.devices
    if not devices >= 1 or any(x is not None and not x > 0 for x in (given.device_gb, given.tflops, given.tb_s)):
        parser.error("--devices, --device_gb, --tflops and --tb_s must be above 0")
    if given.device_gb:  # of a GPU, here or elsewhere
        return Machine(devices, given.device_gb, torch.bfloat16, given.tflops, given.tb_s), rest
    device = this_device()
    dtype = compute_dtype(device)
    tflops = given.tflops or matmul_rate(device, dtype, 8192 if device.type == "cuda" else 1024) / 1e12
    tb_s = given.tb_s or copy_rate(device) / 1e12
    return Machine(devices, round(free_memory(device) / 1e9, 1), dtype, tflops, tb_s, here), rest


def main():
    machine, rest = parse_machine(sys.argv[1:])
    cfg = parse_settings("plan.py", __doc__, PRESETS, rest)
    try:
        plan(cfg, machine)
    except (OSError, ValueError) as error:
        sys.exit(f"plan.py: {error}")


if __name__ == "__main__":
    main()
