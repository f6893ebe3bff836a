"""Helpers of all rooms: files, settings of a command line, processes, devices."""

import argparse
import difflib
import inspect
import json
import os
import re
import reprlib
import shutil
import sys
import time
from codecs import BOM_UTF8
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from tqdm import tqdm

os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # read as CUDA starts: memory in fewer pieces
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 100
short = SHORT.repr  # anything that is not ours, as part of one line
DTYPES = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16}


def remove(path):
    """Removes a file, or a folder with all in it."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def writing(partial, path, size):
    """Around the writing of a file or folder `partial`, of `size` bytes, that becomes `path`; None where `path` grows.
    A write that fails leaves nothing of `partial` and is an OSError in one line, whose size is rounded up. The folder
    of `path` must be there: one that vanished is not made anew."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has its own for a full disk
        with suppress(OSError):
            if partial:
                remove(partial)
        free = shutil.disk_usage(next(p for p in path.absolute().parents if os.path.exists(p))).free
        raise OSError(f"cannot write {path}, which takes {-(-size // 100_000) / 10:,} MB where {free / 1e6:,.1f} are "
                      f"free: {str(error).strip().splitlines()[-1]}") from None


def write_whole(path, text):
    """Writes a text file that appears whole or not at all. Raises OSError as `writing`."""
    partial, encoded = path.with_name(path.name + ".partial"), text.encode()
    with writing(partial, path, len(encoded)):
        partial.write_bytes(encoded)
        os.replace(partial, path)


def append(path, text):
    """Adds a text to a file. Raises OSError as `writing`; a part of the text may then be in the file."""
    encoded = text.encode()
    with writing(None, path, len(encoded)), open(path, "ab") as file:
        file.write(encoded)


def write_lines(path, objects):
    """Writes JSON objects, one a line, by `write_whole`."""
    write_whole(path, "".join(json.dumps(x) + "\n" for x in objects))


def read_rows(path):
    """{where a line stands, for an error: its value} of a JSONL file. Raises ValueError."""
    lines = enumerate(path.read_bytes().removeprefix(BOM_UTF8).split(b"\n"), 1)
    return {(where := f"{path}, line {number},"): parse_json(line, where) for number, line in lines if line.strip()}


def read_lines(path):
    """The JSON objects of a file that holds one a line; none if there is no such file. Raises ValueError."""
    return [*read_rows(path).values()] if path.exists() else []


def parse_json(data, where):
    """The value of JSON as bytes. Raises ValueError that says where they are from."""
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deeply
        raise ValueError(f"{where} is not valid JSON: {error}") from None


def read_json(file):
    """The JSON object in `file`. Raises ValueError."""
    value = parse_json(file.read_bytes(), file)
    if not isinstance(value, dict):
        raise ValueError(f"{file} does not hold a JSON object")
    return value


def printable(text):
    """A text as a terminal may show it: control characters, those without a width and those that turn the direction of
    writing become spaces, and what its encoding lacks a `?`."""
    encoding = sys.stdout.encoding or "utf-8"
    shown = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)
    return shown.encode(encoding, "replace").decode(encoding)


def mean_and_ci(values):
    """The mean of one value a question, and the half-width of its 95 % interval: 1.96 standard errors."""
    values = np.asarray(values, dtype=float)
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()), float(1.96 * error)


def evenly_spaced(items, limit):
    """`limit` of the items, evenly spaced; all of them if there are no more."""
    n = min(limit or len(items), len(items))
    return [items[i * len(items) // n] for i in range(n)]


class Lines:
    """What a progress bar writes to where no terminal is: each of its states becomes a line of stderr."""

    def write(self, text):
        if state := text.strip():  # without the carriage return before it, and the spaces that clear the state before
            print(state, file=sys.stderr, flush=True)

    def flush(self):
        pass


def progress_bar(*iterable, leave=True, **options):
    """A tqdm bar on a terminal; in a log file a line each 30 seconds at most. leave: whether its last state stays."""
    terminal = sys.stderr.isatty()
    seconds = 0.1 if terminal else 30
    return tqdm(*iterable, file=sys.stderr if terminal else Lines(), mininterval=seconds, miniters=1, leave=leave,
                delay=0 if leave or terminal else seconds, **options)


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line."""

    def __init__(self, prog, description, **more):
        super().__init__(prog=prog, description=description, allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter, **more)

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")


def boolean(text):
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text == "true"


def comments_of(settings):
    """{field: the comment behind it} of a dataclass of settings and of those that it extends."""
    source = "\n".join(inspect.getsource(c) for c in settings.__mro__[:-1])
    return dict(re.findall(r"^    (\w+): .*?  # (.+)$", source, re.MULTILINE))


def parse_settings(prog, description, presets, argv):
    """The settings of a command line: an option for each field, on top of one of the presets {name: dataclass}, the
    first if none is named. Exits with one line for a wrong value or an unknown setting, naming the nearest."""
    first, *_ = presets.values()
    parser = Parser(prog, description, usage=f"{prog} [--preset NAME] [--SETTING VALUE ...]")
    parser.add_argument("--preset", choices=presets, default=next(iter(presets)), help="the settings to start from")
    comments = comments_of(type(first))
    for f in fields(first):
        text = f"{comments[f.name]} (default {f.default})".replace("%", "%%")
        parser.add_argument(f"--{f.name}", type=boolean if f.type is bool else f.type, default=argparse.SUPPRESS,
                            metavar=f.type.__name__.upper(), help=text)
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        name = unknown[0].split("=")[0]
        near = difflib.get_close_matches(name, ["--preset", *(f"--{f.name}" for f in fields(first))], n=1, cutoff=0.5)
        parser.error(f"unknown setting {name}" + (f"; did you mean {near[0]}?" if near else "; --help lists them all"))
    given = vars(given)
    return replace(presets[given.pop("preset")], **given)


def require_least(settings, least, *names):
    """Raises ValueError, naming the setting, where one of these is below `least` or not a number."""
    for name in names:
        if not getattr(settings, name) >= least:
            raise ValueError(f"--{name} is {getattr(settings, name)}, but must be at least {least}")


def require_most(settings, most, *names):
    """Raises ValueError, naming the setting, where one of these is above `most` or not a number."""
    for name in names:
        if not getattr(settings, name) <= most:
            raise ValueError(f"--{name} is {getattr(settings, name)}, but must be at most {most}")


def require_one_of(settings, choices, *names):
    """Raises ValueError, naming the setting, where one of these is none of the choices."""
    for name in names:
        if getattr(settings, name) not in choices:
            raise ValueError(f"--{name} is {getattr(settings, name)!r}, but must be {' or '.join(choices)}")


def start_processes(alone=True):
    """Joins torchrun's processes. One process on CUDA makes a group of its own if `alone`: FSDP computes in bf16."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if world == 1 and not (alone and torch.cuda.is_available()):
        return
    store = next(dist.rendezvous("env://"))[0] if world > 1 else dist.HashStore()
    # The store of torchrun still has the addresses of the processes before a restart.
    store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    # Processes sample for hours between two collectives; the default limit is ten minutes.
    hours = timedelta(hours=12)
    store.set_timeout(hours)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"  # gloo too for weights kept on the host
    rank = int(os.environ.get("RANK", "0"))
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=hours)


THREADS = torch.get_num_threads()  # PyTorch's default


def choose_threads(width):
    """Takes as many threads as multiply matrices of about this width fastest now: all of them, half, and so on. Beside
    another busy program two threads on two cores wait for one another, and are slower than one. OMP_NUM_THREADS, where
    it is set (torchrun sets it for several processes), is left alone. On two cores this takes 0.3 s."""
    if torch.cuda.is_available() or "OMP_NUM_THREADS" in os.environ or THREADS == 1:
        return
    counts, before = [THREADS >> i for i in range(THREADS.bit_length())], torch.get_num_threads()
    width, done, took = min(width, 512), Counter(), Counter()
    rows, matrix = torch.ones(256, width), torch.ones(width, 4 * width)
    for n in counts * 4:
        torch.set_num_threads(n)
        start = time.perf_counter()
        while time.perf_counter() < start + 0.04:  # longer than the scheduler's time slice
            rows @ matrix
            done[n] += 1
        took[n] += time.perf_counter() - start
    best = max(counts, key=lambda n: done[n] / took[n])
    torch.set_num_threads(best)
    if best not in (THREADS, before):
        print(f"{best} of {THREADS} threads: more would be slower, beside another program or for so small a model")


def rank_and_world():
    """This process's rank and the number of processes; (0, 1) without torch.distributed."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def barrier():
    """Waits until all processes are here, so that what rank 0 wrote before is there for all."""
    if dist.is_initialized():
        dist.barrier()


def from_rank_0(value):
    """Rank 0's value, for all processes."""
    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values)
    return values[0]


def compiled(function, **options):
    """torch.compile of a function for any sizes."""
    torch._dynamo.config.recompile_limit = 64  # fp32 and bf16, one row or many, with gradients and without
    return torch.compile(function, dynamic=True, **options)


def this_device():
    """The device of this process: its GPU, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def compute_dtype(device):
    """The dtype that models are sampled and trained in: bf16 on CUDA, fp32 elsewhere."""
    return torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32


def free_memory(device):
    """Bytes that this process may still take on the device."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    try:
        with open("/proc/meminfo") as file:
            available = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except OSError:  # not Linux: half of what the machine has
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
