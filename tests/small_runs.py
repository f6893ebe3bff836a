"""Small runs in processes of their own, for the tests that do something to them, and what such a run leaves.

It needs Linux, whose /proc says which processes work on a folder."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stdout, suppress
from pathlib import Path

from common import read_lines
from report import write_page
from run import Run
from rzero import Config, evolve

ROOT = Path(__file__).parents[1]
SMALL = dict(model=str(ROOT / "tiny"), iterations=2, challenger_steps=3, challenger_prompts=4, challenger_rollouts=4,
             answers=4, pool=16, pool_draws=2, pool_answers=4, keep_low=0.0, keep_high=0.9, solver_steps=3,
             solver_prompts=6, solver_rollouts=4, heldout_samples=1, max_question_tokens=48, max_answer_tokens=64,
             checkpoint_every=1)
TIMES = "seconds", "tokens_per_second", "update_tflops", "peak_memory_gb"  # how the metrics' names of times end
LIMIT = 300  # seconds that a run may take

# ---- processes


def processes_on(out):
    """The ids of the processes that have a run folder on their command line, those of torchrun among them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(out) in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it ended
            pass
    return found


def free_port():
    """A port that is free, and that no connection is given as its own."""
    while True:
        with socket.socket() as s, suppress(OSError):
            s.bind(("127.0.0.1", port := random.randrange(10_000, 30_000)))
            return port


class Folder:
    """The run folder of a round, and the command that is given on it again and again.

    processes: of torchrun; 0 for `python rzero.py`. settings: other values than SMALL's."""

    def __init__(self, place, processes=0, **settings):
        self.place, self.out, self.processes, self.starts = place, place / "run", processes, []
        self.settings = SMALL | dict(out=self.out, heldout=place.parent / "heldout.jsonl") | settings
        self.words = [str(word) for name, value in self.settings.items() for word in (f"--{name}", value)]
        self.torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port",
                         str(free_port())] if processes else []
        place.mkdir(parents=True, exist_ok=True)
        rows = (ROOT / "tiny" / "heldout.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        self.settings["heldout"].write_text("".join(rows[::60]), encoding="utf-8")

    def start(self, *script, more=()):
        """Gives the command; with the words of a script in the place of rzero.py, and more words for torchrun."""
        log = self.place / f"{len(self.starts)}.log"
        command = [sys.executable, *self.torchrun, *more, *map(str, script or (ROOT / "rzero.py",)), *self.words]
        with open(log, "w", encoding="utf-8") as out, open(log.with_suffix(".err"), "w", encoding="utf-8") as err:
            process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err,
                                       env=os.environ | {"OMP_NUM_THREADS": "1"})
        self.starts.append(process)
        process.log = log
        return process

    def fails_at(self, how, rank, n):
        """Gives the command to tests/fails_at.py."""
        return self.start(ROOT / "tests" / "fails_at.py", how, rank, n)

    def run_here(self):
        """Makes the run in this process; what it prints goes to a log."""
        values = {name: str(x) if isinstance(x, Path) else x for name, x in self.settings.items()}
        with open(self.place / "0.log", "w", encoding="utf-8") as log, redirect_stdout(log):
            evolve(Run(Config(**values)))

    def workers(self):
        """The ids of the living processes that do the work."""
        return [pid for pid in processes_on(self.out) if not self.processes or pid not in [p.pid for p in self.starts]]

    def kill(self, victim, rng):
        """SIGKILL to a `worker` (to torchrun where there is none yet), to `torchrun`, or to `both` -> the seconds."""
        workers, torchrun = self.workers(), self.starts[-1].pid
        chosen = [rng.choice(workers or [torchrun])] if victim == "worker" else [torchrun]
        for pid in chosen + workers * (victim == "both"):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return time.monotonic()

    def finish(self):
        """Gives the command, which must end well -> its process."""
        process = self.start()
        assert process.wait(LIMIT) == 0, f"the command failed:\n{text(process)[-3000:]}"
        return process

    def close(self):
        """Ends what still runs."""
        for process in self.starts:
            if process.poll() is None:
                process.kill()
                process.wait()
        for pid in processes_on(self.out):
            os.kill(pid, signal.SIGKILL)


def text(process):
    """What a process said: stdout, then stderr."""
    return "".join(file.read_text(encoding="utf-8") for file in (process.log, process.log.with_suffix(".err")))


def wait(process, condition, seconds=LIMIT):
    """Waits until a condition holds -> whether it did before the process ended."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < end, f"it did not come in {seconds} s"
        time.sleep(0.001)
    return True


def all_gone(folder, since, seconds, those=None):
    """Asserts that no worker, or none of those, lives `seconds` after `since`."""
    while living := [pid for pid in folder.workers() if those is None or pid in those]:
        assert time.monotonic() < since + seconds, f"processes {living} live {seconds} s on"
        time.sleep(0.05)


# ---- what a run leaves


def files(folder):
    """All files in a folder, in which a run may be at work."""
    return [Path(where) / name for where, _, names in os.walk(folder) for name in names]


def flip(file, bit=None):
    """Turns one bit of a file over; the last by default."""
    data = bytearray(file.read_bytes())
    bit = 8 * len(data) - 1 if bit is None else bit
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def timeless(rows):
    """Rows of metrics.jsonl without what differs from one run to the next."""
    return [{name: value for name, value in row.items() if not name.endswith(TIMES)} for row in rows]


def differences(ours, theirs):
    """The files in which a run folder differs from another: missing, more, or not byte for byte the same, times aside.
    The settings hold the folder's own name; the report, times."""
    a, b = ({str(file.relative_to(folder)): file for file in files(folder) if ".damaged" not in str(file)}
            for folder in (ours, theirs))
    found = [f"{name} {'is missing' if name in b else 'is left'}" for name in sorted(set(a) ^ set(b))]
    for name in sorted(set(a) & set(b) - {"config.json", "report.html"}):
        alike = timeless(read_lines(a[name])) == timeless(read_lines(b[name])) if name == "metrics.jsonl" else \
            a[name].read_bytes() == b[name].read_bytes()
        found += [] if alike else [f"{name} differs"]
    return found


class References:
    """Undisturbed runs, each made when it is first asked for."""

    def __init__(self, home):
        self.home, self.made = home, {}

    def __call__(self, processes=0, **settings):
        """(folder, seconds that it took, changes of files that rank 0 made)."""
        key = processes, tuple(settings.items())
        if key not in self.made:
            folder = Folder(self.home / f"reference-{len(self.made)}", processes, **settings)
            start = time.monotonic()
            process = folder.fails_at("kill", 0, 0)
            assert process.wait(LIMIT) == 0, text(process)
            changes = max(map(int, re.findall(r"^(\d+) changes", text(process), re.MULTILINE)))
            self.made[key] = folder.out, time.monotonic() - start, changes
        return self.made[key]


def same(folder, reference):
    """Asserts that a run left what the undisturbed one did, and that its page shows all of it."""
    assert not (found := differences(folder.out, reference)), "; ".join(found)
    page = folder.place / "page.html"
    write_page([folder.out], page)
    assert page.read_bytes() == (folder.out / "report.html").read_bytes(), "report.html is older than the run"
