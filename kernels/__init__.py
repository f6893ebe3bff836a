"""A file for each kernel: the Triton version, and the plain PyTorch twin that specifies it. The file's first function
takes the Triton version for tensors on CUDA and the plain twin for all others."""

from types import SimpleNamespace

try:
    import triton
    import triton.language as tl
except ImportError:  # Triton exists for Linux only; elsewhere the plain twins are the only path
    triton, tl = None, SimpleNamespace(constexpr=None)

jit = triton.jit if triton else lambda kernel: kernel


def use_triton(x):
    """Whether the kernels take this tensor, or their plain twins do."""
    return x.is_cuda and triton is not None


@jit
def load_scaled(logits, v, V, scale):
    """The logits of the tokens v, times scale, in fp32; -inf past the vocabulary's end."""
    return tl.load(logits + v, mask=v < V, other=float("-inf")).to(tl.float32) * scale
