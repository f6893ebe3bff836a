"""The kernels compile for an NVIDIA GPU without one: Triton brings the assembler. The interpreter takes what the
compiler refuses, such as a name with two types in the two branches of an `if`. And the blocks that PyTorch compiles."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model import load
from sample import compile_blocks, merge_projections

ROOT = Path(__file__).parents[1]
POINTERS = dict.fromkeys(("lengths", "row_keys", "positions", "tokens", "slots", "targets"), "*i64")
POINTERS |= dict.fromkeys(("log_sums", "parts", "logprobs", "full_logprobs", "entropies", "grad_logprobs",
                           "grad_entropies"), "*fp32") | {"table": "*i32"}
FLOATS = {"scale", "top_p"}
DATA = {"logits", "q", "k", "v", "keys", "values", "out"}
DRAW = dict(GREEDY=False, TOP_K=False, TOP_P=False, BLOCK=4096, BLOCKS=64)
ATTENTION = dict(HEADS=32, GROUP=4, SPLITS=1, LEAST=16, TILE=64, GROUP_PADDED=16, C_PADDED=128)
CASES = [
    ("draw", "draw_kernel", "bf16", DRAW),
    ("draw", "draw_kernel", "bf16", DRAW | dict(TOP_P=True)),
    ("draw", "draw_kernel", "fp32", DRAW | dict(TOP_K=True, TOP_P=True)),
    ("draw", "draw_kernel", "bf16", DRAW | dict(GREEDY=True)),
    ("draw", "draw_kernel", "bf16", DRAW | dict(BLOCK=1024, BLOCKS=1)),  # the shape of tiny/, as below
    ("logprob", "reduce_kernel", "bf16", dict(BLOCK=4096)),
    ("logprob", "reduce_kernel", "fp32", dict(BLOCK=1024)),
    ("logprob", "gradient_kernel", "bf16", dict(BLOCK=4096)),
    ("logprob", "gradient_kernel", "fp32", dict(BLOCK=1024)),
    ("attention", "attention_kernel", "bf16", ATTENTION),
    ("attention", "attention_kernel", "bf16", ATTENTION | dict(SPLITS=8)),
    ("attention", "attention_kernel", "fp32", ATTENTION | dict(C_PADDED=64, GROUP=1)),
    ("attention", "attention_kernel", "bf16", ATTENTION | dict(HEADS=4, GROUP=2, C_PADDED=32, SPLITS=32, LEAST=1)),
    ("attention", "merge_kernel", "bf16", dict(HEADS=32, SPLITS=5, LEAST=2, TILE=64, SPLITS_PADDED=8, C_PADDED=128)),
    ("write", "write_kernel", "bf16", dict(K=8, K_PADDED=8, C_PADDED=128)),
    ("write", "write_kernel", "bf16", dict(K=2, K_PADDED=2, C_PADDED=32)),
    ("write", "write_kernel", "fp32", dict(K=3, K_PADDED=4, C_PADDED=128)),
]


def compile_kernel(file, name, dtype, constants):
    """Compiles kernels/`file`.py's kernel for compute capability 9.0 -> (bytes of it, whether it copies
    asynchronously). Run as a program, where nothing is interpreted."""
    import triton
    from triton.backends.compiler import GPUTarget
    module = __import__(f"kernels.{file}", fromlist=[name])
    kernel = getattr(module, name)
    kinds = {argument: "constexpr" if argument in constants else "*" + dtype if argument in DATA else
             POINTERS.get(argument, "fp32" if argument in FLOATS else "i64" if argument == "seed" else "i32")
             for argument in kernel.arg_names}
    values = {(kernel.arg_names.index(argument),): value for argument, value in constants.items()}
    aligned = {(i,): [["tt.divisibility", 16]] for i, (argument, kind) in enumerate(kinds.items())
               if kind[0] == "*" or argument.endswith("stride") or argument in ("C", "V", "P")}
    source = triton.compiler.ASTSource(fn=kernel, signature=kinds, constexprs=values, attrs=aligned)
    options = {"num_warps": 8 if file in ("draw", "logprob") else 4}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    return len(compiled.asm["cubin"]), "cp.async" in compiled.asm["ptx"]


@pytest.fixture(scope="module")
def compiled():
    """The results of all cases, from one process: what it costs is to import PyTorch and Triton."""
    pytest.importorskip("triton", reason="Triton is not installed (it exists for Linux only)")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("i", range(len(CASES)), ids=lambda i: f"{CASES[i][1]}-{i}")
def test_kernel_compiles_for_sm_90(compiled, i):
    """And the loops over memory prefetch: their loads are asynchronous copies."""
    size, asynchronous = compiled[i]
    assert isinstance(size, int) and size > 0, size
    if CASES[i][1] in ("draw_kernel", "attention_kernel", "reduce_kernel"):
        assert asynchronous


def test_all_layers_share_one_compiled_graph(tiny):
    """Of whole blocks, as the trainer compiles them, and of the sampler's parts. A layer's number must not be part of
    what is compiled: each layer would compile anew, and past eight of them PyTorch gives up."""
    graphs, tokens = [], torch.arange(60).view(3, 20)

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model = load(tiny)
    expected = model(tokens)
    for block in model.layers:
        block.forward = torch.compile(block.forward, dynamic=True, backend=backend)
    assert model(tokens).equal(expected) and len(graphs) == 1 < len(model.layers)
    model = load(tiny)
    merge_projections(model)
    compile_blocks(model, backend=backend)
    with torch.inference_mode():
        assert model(tokens).equal(expected) and len(graphs) == 1 + 3
        model(tokens[:2, :7])
        assert len(graphs) == 1 + 3
        for shape in ((1, 7), (3, 1), (1, 1), (2, 1), (1, 9), (3, 5)):  # one row, and one token, compile once more
            model(torch.ones(shape, dtype=torch.int64), torch.arange(shape[1]).expand(shape))
    assert len(graphs) <= 1 + 3 * 5


if __name__ == "__main__":
    results = []
    for case in CASES:
        try:
            results.append(compile_kernel(*case))
        except Exception as error:
            results.append((f"{type(error).__name__}: {error}", False))
    print(json.dumps(results))
