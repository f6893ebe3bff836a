"""Puts the repository on the path, and runs the Triton kernels in the interpreter where there is no GPU."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel is defined, so before any import of kernels

torch.set_num_threads(1)  # the tests are small, and threads that spin on a busy machine cost more than they give
sys.path.insert(0, str(Path(__file__).parents[1]))

from kernels import triton


def why_not_triton():
    """Why the Triton kernels cannot run here; None if they can."""
    if triton is None:
        return "Triton is not installed (it exists for Linux only)"
    old, new = (tuple(map(int, x.__version__.split(".")[:2])) for x in (triton, np))
    if os.environ.get("TRITON_INTERPRET") == "1" and old < (3, 7) and new >= (2, 4):
        return f"the interpreter of Triton {triton.__version__} does not take NumPy {np.__version__}; NumPy 2.3 it takes"
    return None


needs_triton = pytest.mark.skipif(why_not_triton() is not None, reason=str(why_not_triton()))


@pytest.fixture
def tiny():
    """The folder of the embedded base model."""
    return Path(__file__).parents[1] / "tiny"


@pytest.fixture
def small_disk(request, tmp_path):
    """A disk as large as the module's DISK says."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = sys.platform == "linux" and shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.module.DISK}", "tmpfs", disk], capture_output=True,
        check=False).returncode == 0
    if not mounted:
        pytest.skip("a small disk cannot be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)  # some weights that are mapped may not be collected yet
