"""What may happen to a run that lasts days is done to small ones: `python tests/faults.py`, in about an hour.

    python tests/faults.py --only kills --rounds 40 --seed 1     one fault

Each round of a fault runs the loop at its smallest in a folder of its own, does something to its processes or files,
gives the same command again at once, and compares all that the run leaves with an undisturbed run. A round that was
not survived is told with its folder, which is kept. The table at the end says how many were. It needs Linux (/proc)."""

import gc
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from fuzz_models import fuzz
from small_runs import LIMIT, Folder, References, all_gone, files, flip, same, text, wait
from study import markdown

from common import Parser, progress_bar, read_lines
from run import Run

TORCHRUNS_OWN = re.compile(r"^([WEIF]\d{4} |={20})", re.MULTILINE)  # how what torchrun itself says begins
ORPHAN, RANKS = 10, 30  # seconds that a worker outlives torchrun, and that a rank outlives another


# ---- the faults: each a round, which raises AssertionError where it is not survived


def moment(folder, process, rng, seconds):
    """Waits for a moment: at random in the time of a run, or aimed at a file that is being written, or behind a row
    of the metrics, which lie in all phases -> whether it came before the end."""
    aim = rng.choice(["time", "partial", "row"])
    if aim == "time":
        end = time.monotonic() + rng.uniform(0, seconds)
        return wait(process, lambda: time.monotonic() > end)
    if aim == "partial":
        skip, seen = rng.randrange(25), set()  # so many writes pass

        def written():
            seen.update(file for file in files(folder.out) if ".partial" in str(file))
            return len(seen) > skip

        return wait(process, written)
    rows, metrics = rng.randrange(1, 17), folder.out / "metrics.jsonl"
    if not wait(process, lambda: metrics.exists() and metrics.read_bytes().count(b"\n") >= rows):
        return False
    time.sleep(rng.uniform(0, 0.2))
    return process.poll() is None


def kills(place, rng, references):
    """SIGKILL of worker, torchrun or both at a random moment, up to three times in a row, on 0, 1 or 2 processes."""
    folder = Folder(place, rng.choice([0, 1, 1, 2, 2]))
    reference, seconds, _ = references(folder.processes)
    try:
        left = rng.choice([1, 1, 2, 3])
        while left:
            process = folder.start()
            if moment(folder, process, rng, seconds):
                folder.kill(rng.choice(["worker", "torchrun", "both"]), rng)
                left -= 1
            else:  # it ended before
                assert process.returncode == 0, f"the command failed:\n{text(process)[-3000:]}"
                shutil.rmtree(folder.out)
        folder.finish()
        same(folder, reference)
    finally:
        folder.close()


def writes(place, rng, references):
    """SIGKILL of a rank just before a change of a file, drawn from all changes, then perhaps again as it goes on."""
    more = rng.choice([{}, {"role_dtype": "bf16"}])  # which rewrites older weights
    folder = Folder(place, rng.choice([0, 1, 2]), **more)
    reference, _, changes = references(folder.processes, **more)
    try:
        for n in [rng.randint(1, changes)] + [rng.randint(1, 20)] * rng.randrange(3):
            folder.fails_at("kill", 0, n).wait(LIMIT)
        folder.finish()
        same(folder, reference)
    finally:
        folder.close()


def orphans(place, rng, references):
    """SIGKILL of torchrun alone: its workers end by themselves within ORPHAN seconds."""
    folder = Folder(place, rng.choice([1, 2]), iterations=30)  # which outlives the wait
    try:
        process = folder.start()
        assert wait(process, lambda: len(folder.workers()) == folder.processes)
        time.sleep(rng.uniform(0, 8))
        all_gone(folder, folder.kill("torchrun", rng), ORPHAN)
    finally:
        folder.close()


def ranks(place, rng, references):
    """An error in one of two ranks, or its death: the other ends within RANKS seconds and says nothing; the error is
    the last line before torchrun's own."""
    folder = Folder(place, 2)
    reference, *_ = references(2)
    try:
        rank, dies = rng.randrange(2), rng.random() < 0.3
        if dies:
            process = folder.start()
            metrics, rows = folder.out / "metrics.jsonl", rng.randrange(1, 17)
            wait(process, lambda: metrics.exists() and metrics.read_bytes().count(b"\n") >= rows)
            since = folder.kill("worker", rng)
        else:
            process = folder.fails_at("raise", rank, rng.randint(1, 20))  # of its 22 calls at least
            wait(process, lambda: "is out of order" in text(process))
            since = time.monotonic()
        all_gone(folder, since, RANKS)
        process.wait(RANKS)
        own = TORCHRUNS_OWN.split(process.log.with_suffix(".err").read_text(encoding="utf-8"))[0].strip().splitlines()
        if dies:
            assert "Traceback" not in "".join(own), "the other rank said:\n" + "\n".join(own)
        else:
            assert own and own[-1].endswith(f"rank {rank} is out of order"), "last it said:\n" + "\n".join(own[-20:])
        assert process.returncode
        folder.finish()
        same(folder, reference)
    finally:
        folder.close()


def restarts(place, rng, references):
    """`torchrun --max-restarts 3` goes on by itself after one to three kills of a worker."""
    folder = Folder(place, rng.choice([1, 2]))
    reference, seconds, _ = references(folder.processes)
    try:
        process = folder.start(more=("--max-restarts", "3"))
        for _ in range(rng.randint(1, 3)):
            time.sleep(rng.uniform(0, seconds))
            if workers := folder.workers():  # between two restarts, or at the end, there is none
                with suppress(ProcessLookupError):
                    os.kill(rng.choice(workers), signal.SIGKILL)
        assert process.wait(LIMIT) == 0, text(process)[-3000:]
        same(folder, reference)
    finally:
        folder.close()


def signals(place, rng, references):
    """SIGINT or SIGTERM at a random moment of `python rzero.py` or of torchrun: a checkpoint of the finished steps is
    left, also between two regular ones, one line says how to go on, and the exit code is 128 + the signal."""
    folder = Folder(place, rng.choice([0, 0, 1, 2]), checkpoint_every=5)
    reference, seconds, _ = references(folder.processes)
    number = rng.choice([signal.SIGINT, signal.SIGTERM])
    try:
        process, end = folder.start(), time.monotonic() + rng.uniform(0, seconds)
        if wait(process, lambda: time.monotonic() > end):
            began = (folder.out / "config.json").exists()  # before that it is Python or torchrun that ends
            process.send_signal(number)
            process.wait(RANKS)
            all_gone(folder, time.monotonic(), 1)
            if began:
                interrupted(folder, process, number)
        folder.finish()
        same(folder, reference)
    finally:
        folder.close()


def interrupted(folder, process, number):
    """Asserts that a run that had begun ended on a signal as it should, if it had not just ended by itself."""
    says = text(process)
    if process.returncode == 0 or "all of it is in" in says:
        return
    assert folder.processes or process.returncode == 128 + number, f"exit code {process.returncode}"
    assert says.count("the same command goes on") == 1 and "Traceback" not in TORCHRUNS_OWN.split(says)[0], says[-3000:]
    rows = [row for row in read_lines(folder.out / "metrics.jsonl") if row["phase"] in ("challenger", "solver")]
    if rows:
        role, iteration, step = (rows[-1][name] for name in ("phase", "iteration", "step"))
        kept = folder.out / f"iter{iteration}"
        assert (kept / role).exists() or (kept / f"{role}.steps" / f"step{step:06d}").exists(), f"{role} {step} is lost"


def locks(place, rng, references):
    """A second start on a folder in which the first is at work: refused with one line that names the first."""
    folder = Folder(place, rng.choice([0, 1]), iterations=8)
    reference, *_ = references(folder.processes, iterations=8)
    second = Folder(place, rng.choice([0, 1]), iterations=8)
    try:
        first = folder.start()
        time.sleep(rng.uniform(0, 6))
        second.starts = folder.starts  # one numbering of logs
        other = second.start()
        codes = [process.wait(LIMIT) for process in (first, other)]
        assert sorted(map(bool, codes)) == [False, True], f"exit codes {codes}\n{text(first)}\n{text(other)}"
        refused = TORCHRUNS_OWN.split(text(first if codes[0] else other))[0].strip().splitlines()
        assert socket.gethostname() in refused[-1] and re.search(r"\b\d+\b", refused[-1]), "\n".join(refused)
        same(folder, reference)
    finally:
        folder.close()


def damage(place, rng, references):
    """A bit flipped in, or an end cut off, the newest checkpoint or the newest weights of a role, after all processes
    were killed: it is named, and the one before it is used."""
    folder = Folder(place, rng.choice([0, 1, 2]))
    reference, *_ = references(folder.processes)
    role, iteration = rng.choice(["challenger", "solver"]), rng.randint(1, 2)
    steps = folder.out / f"iter{iteration}" / f"{role}.steps"
    try:
        process, least = folder.start(), rng.randint(1, 2)
        wait(process, lambda: len(list(steps.glob("step??????"))) >= least)
        folder.kill("both", rng)
        process.wait()
        found = [*max(steps.glob("step??????"), default=steps).glob("*.safetensors")]
        for weights in "challenger", "solver":
            found += sorted(folder.out.glob(f"iter?/{weights}/model.safetensors"))[-1:]
        part = damaged(sorted(found), rng).parent.relative_to(folder.out)
        process = folder.finish()
        assert str(part) in text(process), f"{part}, which was damaged, is not named:\n{text(process)[-3000:]}"
        same(folder, reference)
    finally:
        folder.close()


def damaged(found, rng):
    """Flips a random bit of one of the files, or cuts it at a random place -> the file."""
    file = rng.choice(found)
    i = rng.randrange(file.stat().st_size)
    if rng.random() < 0.5:
        os.truncate(file, i)
    else:
        flip(file, 8 * i + rng.randrange(8))
    return file


def determinism(place, rng, references):
    """Two undisturbed runs with one seed are byte for byte the same."""
    folder = Folder(place, rng.choice([0, 1, 2]))
    reference, *_ = references(folder.processes)
    folder.finish()
    same(folder, reference)


def soak(place, rng, references, iterations=30, first=10, most=0.02):
    """Many iterations in this process: memory, and the bytes that an iteration adds to the folder, grow by less than
    `most` an iteration from iteration `first` on; no handles, threads, child processes or shared memory are left."""
    folder, measure, seen = Folder(place, iterations=iterations, challenger_steps=1, solver_steps=1), Run.measure, []

    def measured(run, iteration):
        measure(run, iteration)
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1])
        seen.append((resident, sum(file.stat().st_size for file in files(folder.out)), held()))

    Run.measure = measured
    try:
        folder.run_here()
    finally:
        Run.measure = measure
    memory, sizes, left = zip(*seen)
    added = [b - a for a, b in zip(sizes, sizes[1:])]  # the first is of iteration 1
    for what, early, late in ("memory", memory[first], memory[-1]), ("the folder", added[first - 1], added[-1]):
        grown = (late / early - 1) / (iterations - first)
        print(f"soak: {what} grows by {100 * grown:.3f} % an iteration")
        assert grown < most, f"{what} grows by {100 * grown:.1f} % an iteration"
    for what, early in left[2].items():
        assert len(left[-1][what]) <= len(early), f"{what} after iteration 2: {early}, at the end: {left[-1][what]}"


def held():
    """What this process holds of the system, {kind: names}."""
    me = str(os.getpid())
    return {"file handles": os.listdir("/proc/self/fd"), "threads": os.listdir("/proc/self/task"),
            "shared memory": [name for name in os.listdir("/dev/shm") if me in name],
            "child processes": Path(f"/proc/self/task/{me}/children").read_text().split()}


def models(place, rng, references):
    """A random mutation of a model folder ends in one line or in a model that works."""
    place.mkdir()
    fuzz(1, rng.random(), place)


def tests_of(file):
    """A round of the tests in a file, which must not be skipped."""
    def tests(place, rng, references):
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", f"--basetemp={place}", Path(__file__).with_name(file)],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout
    return tests


# name: (round, number of rounds, what the table says)
FAULTS = {
    "kills": (kills, 40, "SIGKILL of worker, torchrun or both at a random moment"),
    "writes": (writes, 40, "SIGKILL just before a change of a file"),
    "orphans": (orphans, 6, "SIGKILL of torchrun: its workers end within 10 s"),
    "ranks": (ranks, 10, "an error in one of two ranks, or its death"),
    "restarts": (restarts, 6, "kills of a worker under `--max-restarts 3`"),
    "signals": (signals, 16, "Ctrl-C or SIGTERM at a random moment"),
    "locks": (locks, 10, "a second start on the folder"),
    "damage": (damage, 16, "a damaged checkpoint or weights file"),
    "disks": (tests_of("test_disk.py"), 1, "a disk that is full, read-only or gone, at each of 36 writes"),
    "texts": (tests_of("test_hostile.py"), 1, "hostile texts, empty and extreme runs, broken tasks: all of them"),
    "determinism": (determinism, 6, "nothing: the run once more"),
    "soak": (soak, 1, "30 iterations in one process"),
    "models": (models, 500, "a random mutation of a model folder"),
}


def main():
    parser = Parser("faults.py", __doc__)
    parser.add_argument("--only", choices=FAULTS, nargs="+", default=list(FAULTS), help="these faults")
    parser.add_argument("--rounds", type=int, help="of each, the soak too; by default each has its own number")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for number in signal.SIGINT, signal.SIGTERM:  # a round ends all that it started, also in the background of a script
        signal.signal(number, signal.default_int_handler)
    home, table, failed = Path(tempfile.mkdtemp(prefix="faults-")), [], 0
    references = References(home)
    for name in args.only:
        fault, rounds, says = FAULTS[name]
        rounds, survived = args.rounds or rounds, 0
        for i in progress_bar(range(rounds), desc=name):
            place = home / f"{name}-{i}"
            try:
                fault(place, random.Random(f"{args.seed} {name} {i}"), references)
                survived += 1
                shutil.rmtree(place, ignore_errors=True)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                print(f"\n{place}: {error}", flush=True)
        table.append((says, str(rounds), str(survived)))
        failed += rounds - survived
    print(markdown(("fault", "tried", "survived"), *table))
    if failed:
        sys.exit(f"{failed} not survived; what they left is in {home}")
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
