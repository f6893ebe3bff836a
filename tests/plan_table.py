"""The README's table of what fits on one card: Qwen3 models under the preset `paper`, by the functions of plan.py.

    python tests/plan_table.py

Rates of H100 and H200 are those of DESIGN.md; the others are the peaks of the makers' datasheets."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from model import ModelConfig
from pages import PagedCache
from plan import Machine, fitting, host_memory, iteration_hours, memory
from rzero import PRESETS

CARDS = {  # GB as sold: (name, 10^9 bytes to plan with, 10^12 bf16 FLOP/s with fp32 sums, 10^12 bytes/s)
    8: ("RTX 4060", 8.0, 30, 0.272), 24: ("RTX 4090", 24.0, 165, 1.008), 48: ("L40S", 47.7, 362, 0.864),
    80: ("H100", 84.0, 790, 3.0), 141: ("H200", 149.0, 790, 4.3)}
SHAPES = {  # width, layers, heads, ffn, tied; all have 8 key/value heads of 128
    "0.6B": (1024, 28, 16, 3072, True), "1.7B": (2048, 28, 16, 6144, True),
    "4B": (2560, 36, 32, 9728, True), "8B": (4096, 36, 32, 12_288, False)}


def config(width, layers, heads, ffn, tied):
    return ModelConfig.from_dict(dict(
        model_type="qwen3", vocab_size=151_936, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=8, head_dim=128, intermediate_size=ffn, tie_word_embeddings=tied, rope_theta=1e6))


def cell(shape, gb, tflops, tb_s):
    """Settings that fit, beside the preset's, and GB of the host; rows of 1,000 tokens in the pages, in sampling and in
    the pool; hours of an iteration."""
    machine = Machine(1, gb, torch.bfloat16, tflops, tb_s)
    cfg = replace(PRESETS["paper"], out="")
    change = fitting(cfg, shape, machine)
    if change is None or "devices" in change:
        return "no"
    cfg = replace(cfg, **change)
    phases, token_bytes = memory(cfg, shape, machine), PagedCache.bytes_of_page(shape, 1, machine.dtype)
    rows = ", ".join(f"{phases[p]['key/value pages'] / token_bytes / 1000:,.0f}" for p in ("sampling", "pool"))
    settings, host = ", ".join(f"`{name} {value}`" for name, value in change.items()), host_memory(cfg, shape, 1)
    hours = sum(iteration_hours(cfg, shape, machine)[1:])
    return (f"{settings}{f' ({host / 1e9:.0f})' if host else ''}; " * bool(change)
            + f"{rows}; {hours:.{1 if hours < 10 else 0}f} h")


def main():
    print("| | " + " | ".join(f"{sold} GB, {name}" for sold, (name, *_) in CARDS.items()) + " |")
    print("|---" * (1 + len(CARDS)) + "|")
    for name, shape in SHAPES.items():
        print(f"| {name} | " + " | ".join(cell(config(*shape), *numbers) for _, *numbers in CARDS.values()) + " |")


if __name__ == "__main__":
    main()
