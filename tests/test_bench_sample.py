"""The benchmark's parts run through at a tiny size; no time is judged."""

import sys

import bench_sample as bench
import numpy as np
import pytest
import torch

from model import Tokenizer, load
from sample import Sampler

CPU = torch.device("cpu")
SHAPE = dict(model_type="qwen3", vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
             head_dim=16, num_key_value_heads=2, intermediate_size=48, tie_word_embeddings=True, rope_theta=1e6)


def test_cpu(tiny):
    result = bench.cpu(tiny, questions=4, n=2, max_tokens=8, rounds=1)
    assert result["ratio"] > 0 and 0 < result["share_of_matmul_rate"] < 1


def test_growth_leaves_out_what_does_not_fit(tiny):
    rates = bench.growth(Sampler(load(tiny), Tokenizer(tiny), kv_gb=0.001), (1, 8), (16, 128), rounds=1)
    assert rates[1][16] > 0 and rates[1][128] > 0 and rates[8][16] > 0 and rates[8][128] is None
    assert bench.as_table(rates).splitlines()[3].endswith("| - |")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory():
    """The pages are the memory: what else a run takes is within 5 %."""
    result = bench.memory(CPU, rows=64, positions=128)
    assert 0.95 < result["ratio"] < 1.05


def test_preempted_rows_draw_nothing_again():
    """What is drawn beyond the completions is what rows decode between their end and the next sync."""
    result = bench.schedule((0.25, 0.5, 5), questions=20, n=5, prompt=40, max_rows=64, middle=200, cap=1000)
    assert result[0.25]["preemptions"] > 10 and result[5]["preemptions"] == 0
    assert all(1 < of["drawn"] <= 1.05 and of["recomputed"] < 0.5 for of in result.values())
    assert result[0.25]["rows"] < result[0.5]["rows"] < result[5]["rows"]


def test_lengths():
    lengths = bench.log_normal_lengths(500, 10)
    assert 550 < np.median(lengths) < 650 and lengths.max() == 4096 and lengths.min() >= 1


def test_flops_of_a_matmul_only_model():
    """Two layers: 2 x (32 x (64 + 2 x 32) + 64 x 32) for attention's matrices, 3 x 32 x 48 twice, the head; then the
    context."""
    config = bench.ModelConfig.from_dict(SHAPE)
    matrices = 2 * (32 * (64 + 2 * 32) + 64 * 32) + 2 * 3 * 32 * 48 + 200 * 32
    assert config.forward_flops(1, 0, 1) == 2 * matrices
    assert config.forward_flops(1, 10, 1) - 2 * matrices == 2 * 2 * 2 * 4 * 16 * 10  # layers, q k and p v, + and *
