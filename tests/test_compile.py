"""The kernels compile for an NVIDIA GPU without one: Triton brings the assembler. The interpreter takes what the compiler
refuses, such as a name with two types in the two branches of an `if`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed (it exists for Linux only)")
ROOT = Path(__file__).parents[1]
POINTERS = dict.fromkeys(("lengths", "rows", "positions", "tokens", "slots", "targets"), "*i64") | {"table": "*i32"}
POINTERS |= dict.fromkeys(("log_sums", "parts", "logprobs", "full_logprobs", "entropies", "grad_logprobs", "grad_entropies"),
                          "*fp32")
FLOATS = {"scale", "eps", "top_p"}
DATA = {"logits", "q", "k", "v", "keys", "values", "out", "q_weight", "k_weight", "cos", "sin"}
DRAW = dict(GREEDY=False, TOP_K=False, TOP_P=False, ENTROPY=False, BLOCK=4096, BLOCKS=64)
ATTENTION = dict(HEADS=32, GROUP=4, SPLITS=1, TILE=64, GROUP_PADDED=16, C_PADDED=128)
WRITE = dict(H=32, K=8, NORM=True, H_PADDED=32, K_PADDED=8, HALF_PADDED=64)


def compile_kernel(file, name, dtype, constants):
    """Compiles kernels/`file`.py's kernel for compute capability 9.0; run as a program, where nothing is interpreted."""
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
    print(len(compiled.asm["cubin"]), "bytes,", "cp.async" in compiled.asm["ptx"])


@pytest.mark.parametrize("file, name, dtype, constants", [
    ("draw", "draw_kernel", "bf16", DRAW),
    ("draw", "draw_kernel", "bf16", DRAW | dict(TOP_P=True)),
    ("draw", "draw_kernel", "fp32", DRAW | dict(TOP_K=True, TOP_P=True, ENTROPY=True)),
    ("draw", "draw_kernel", "bf16", DRAW | dict(GREEDY=True)),
    ("draw", "draw_kernel", "bf16", DRAW | dict(BLOCK=1024, BLOCKS=1)),  # the shape of tiny/, as below
    ("logprob", "reduce_kernel", "bf16", dict(BLOCK=4096)),
    ("logprob", "reduce_kernel", "fp32", dict(BLOCK=1024)),
    ("logprob", "gradient_kernel", "bf16", dict(BLOCK=4096)),
    ("logprob", "gradient_kernel", "fp32", dict(BLOCK=1024)),
    ("attention", "attention_kernel", "bf16", ATTENTION),
    ("attention", "attention_kernel", "bf16", ATTENTION | dict(SPLITS=8)),
    ("attention", "attention_kernel", "fp32", ATTENTION | dict(C_PADDED=64, GROUP=1)),
    ("attention", "attention_kernel", "bf16", ATTENTION | dict(HEADS=4, GROUP=2, C_PADDED=32, SPLITS=32)),
    ("attention", "merge_kernel", "bf16", dict(SPLITS=8, SPLITS_PADDED=8, C_PADDED=128)),
    ("write", "write_kernel", "bf16", WRITE),
    ("write", "write_kernel", "bf16", WRITE | dict(H=4, K=2, H_PADDED=4, K_PADDED=2, HALF_PADDED=16)),
    ("write", "write_kernel", "fp32", WRITE | dict(NORM=False, H=12, H_PADDED=16, K=3, K_PADDED=4)),
])
def test_kernel_compiles_for_sm_90(file, name, dtype, constants):
    """And the loops over memory prefetch: their loads are asynchronous copies."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, __file__, repr((file, name, dtype, constants))], env=environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    if name in ("draw_kernel", "attention_kernel", "reduce_kernel"):
        assert done.stdout.strip().endswith("True")


if __name__ == "__main__":
    compile_kernel(*eval(sys.argv[1]))
