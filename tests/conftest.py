"""Puts the repository on the path, and runs the Triton kernels in the interpreter where there is no GPU."""

import os
import sys
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel is defined, so before any import of kernels

torch.set_num_threads(1)  # the tests are small, and threads that spin on a busy machine cost more than they give
sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture
def tiny():
    """The folder of the embedded base model."""
    return Path(__file__).parents[1] / "tiny"
