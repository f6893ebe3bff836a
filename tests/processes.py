"""Runs a function in several processes that share a torch.distributed group (gloo, on this machine)."""

import os
import socket
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _enter(rank, world, port, folder, function, args):
    torch.set_num_threads(1)
    if world > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world)}
        dist.init_process_group("gloo")
    torch.save(function(rank, world, *args), Path(folder) / f"{rank}.pt")
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


def run_processes(world, function, *args):
    """The results of function(rank, world, *args) of each process, in order of rank."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*sys.path, *paths]))
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_enter, (world, port, folder, function, args), nprocs=world)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(world)]
