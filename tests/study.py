"""R-Zero on the tiny model beside its ablations and baselines: variants x seeds, and the table of what came of them.

    python tests/study.py --out runs/study --jobs 2                   all variants, five seeds
    python tests/study.py --out runs/study --table                    the table of what is finished, at any time
    python tests/study.py --out runs/b --variants full,no_filter --pool 300   two variants; rzero.py gets what is left

The order is seed by seed, so that a study cut short has the same seeds of all variants. Each run is a process of one
thread with its own folder and log. Given again, the command goes on with the runs that are not finished; other
settings need another --out."""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from common import Parser, read_lines

VARIANTS = {  # name: (what the table says, settings); {full} is the folder of the full run of the same seed
    "full": ("full R-Zero", ""),
    "untrained": ("untrained Challenger", "--challenger_steps 0"),
    "equal_count": ("untrained, as many questions", "--challenger_steps 0 --match_kept {full} --pool_draws 20"),
    "no_penalty": ("no penalty", "--penalty_weight 0"),
    "no_filter": ("no filter", "--keep_low 0 --keep_high 1"),
    "one_model": ("one model", "--one_model true"),
    "batch_groups": ("batch groups", "--challenger_group batch"),
    "official_reward": ("official reward", "--reward_scale 1 --clip_reward false --invalid_reward -1"),
    "true_labels": ("true labels", "--labels truth")}
T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # t by seeds

# ---- runs


class Job(NamedTuple):
    """A run of the study; as text, the name of its folder and log."""

    variant: str
    seed: int

    def __str__(self):
        return f"{self.variant}-{self.seed}"

    @property
    def needs(self):
        """The run that must be finished before this one can start, or None."""
        return Job("full", self.seed) if "{full}" in VARIANTS[self.variant][1] else None


def command(out, job, settings):
    """The run's command line. The variant's own settings come last, so that they win."""
    own = [word.format(full=out / f"full-{job.seed}") for word in VARIANTS[job.variant][1].split()]
    return [sys.executable, str(ROOT / "rzero.py"), *settings, "--out", str(out / str(job)), "--seed", str(job.seed),
            *own]


def start(out, job, settings):
    with open(out / f"{job}.log", "w", encoding="utf-8") as log:
        return subprocess.Popen(command(out, job, settings), cwd=ROOT, stdout=log, stderr=log,
                                env=os.environ | {"OMP_NUM_THREADS": "1"})


def last_line(log):
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "its log is empty"


def finished(out, job, iterations):
    return any(row["iteration"] == iterations for row in read_lines(out / str(job) / "eval.jsonl"))


def run_all(out, jobs, at_once, iterations, settings):
    """Runs the jobs that are not finished, in their order, `at_once` at a time; one that waits for another run lets
    those behind it pass. Ends all that it started when it is interrupted -> {job: why it failed}."""
    waiting, running, failed = [job for job in jobs if not finished(out, job, iterations)], {}, {}
    settings = ["--iterations", str(iterations), *settings]
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(waiting), unit=" runs")
    try:
        while waiting or running:
            for job in [job for job, process in running.items() if process.poll() is not None]:
                if running.pop(job).returncode or not finished(out, job, iterations):
                    failed[job] = last_line(out / f"{job}.log")
                bar.update()
            for job in list(waiting):
                if len(running) == at_once:
                    break
                if job.needs in waiting or job.needs in running:
                    continue
                waiting.remove(job)
                if job.needs and not finished(out, job.needs, iterations):
                    failed[job] = f"{job.needs}, which it needs, is not finished"
                    bar.update()
                else:
                    running[job] = start(out, job, settings)
            if bar.postfix != (names := ", ".join(map(str, running))):
                bar.set_postfix_str(names)
            time.sleep(0.1)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
        bar.close()
    return failed


# ---- tables


def read_rows(out, seeds, iterations):
    """{variant: {seed: {iteration: its row of eval.jsonl}}} of the runs that are finished."""
    return {variant: {seed: {row["iteration"]: row for row in read_lines(out / f"{variant}-{seed}" / "eval.jsonl")}
                      for seed in range(seeds) if finished(out, Job(variant, seed), iterations)}
            for variant in VARIANTS}


def values(runs, key, iteration):
    """{seed: percent} of a variant's runs that have a value."""
    found = {}
    for seed, rows in runs.items():
        row = rows[iteration]
        value = row["kept"] / row["pool"] if key == "kept" else row.get(key)
        if value is not None:
            found[seed] = 100 * value
    return found


def mean(values):
    return f"{np.mean(list(values.values())):.1f}" if values else "-"


def paired(ours, full, seeds):
    """Mean of ours - full at equal seeds +- its 95 % interval by Student's t; n where fewer than `seeds` have both."""
    ahead = [value - full[seed] for seed, value in ours.items() if seed in full]
    n = len(ahead)
    if not n:
        return "-"
    interval = f" +- {T_975[n] * np.std(ahead, ddof=1) / np.sqrt(n):.1f}" if n > 1 else ""
    return f"{np.mean(ahead):+.1f}{interval}" + (f" (n = {n})" if n < seeds else "")


def markdown(head, *rows):
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def tables(rows, variants, seeds, iterations):
    """The study as text: `rows` of `read_rows`, in percent, of these variants; a mean is over the seeds finished."""
    full, table, course = rows["full"], [], []
    for variant in variants:
        runs, cells = rows[variant], [VARIANTS[variant][0]]
        for key in "mean", "greedy":
            ours = values(runs, key, iterations)
            difference = "" if variant == "full" else paired(ours, values(full, key, iterations), seeds)
            cells += [mean(ours), difference]
        others = "label_accuracy", "kept", "well_posed", "share"
        table.append(cells + [mean(values(runs, key, iterations)) for key in others])
        course.append(cells[:1] + [mean(values(runs, "mean", i)) for i in range(iterations + 1)])
    parts = [markdown(("", "held-out mean", "to full", "greedy", "to full", "kept labels right", "kept", "well-posed",
                       "mean p"), *table),
             markdown(("held-out mean after iteration", *map(str, range(iterations + 1))), *course)]
    for key, name in ("mean", "held-out mean"), ("greedy", "greedy"):
        base, last = values(full, key, 0), values(full, key, iterations)
        if gains := [last[seed] - base[seed] for seed in last if seed in base]:
            parts.append(f"full R-Zero's gain over its base, {name}: least {min(gains):.1f}, mean "
                         f"{np.mean(gains):.1f} (n = {len(gains)})")
    missing = [str(Job(v, seed)) for seed in range(seeds) for v in variants if seed not in rows[v]]
    return "\n\n".join(parts + [f"not finished: {', '.join(missing)}"] * bool(missing))


def names_of(text):
    for name in (names := text.split(",")):
        if name not in VARIANTS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(VARIANTS)}")
    return names


def main():
    parser = Parser("study.py", __doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="folder of the runs' folders")
    parser.add_argument("--variants", type=names_of, default=list(VARIANTS), help=",".join(VARIANTS))
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, 11), help="seeds from 0 of each variant")
    parser.add_argument("--iterations", type=int, default=3, help="of each run")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, of one thread each")
    parser.add_argument("--table", action="store_true", help="print the tables and start nothing")
    args, settings = parser.parse_known_args()
    out, failed = args.out.resolve(), {}
    if not args.table:
        out.mkdir(parents=True, exist_ok=True)
        for number in signal.SIGINT, signal.SIGTERM:  # in the background of a script SIGINT is ignored by default
            signal.signal(number, signal.default_int_handler)
        jobs = [Job(variant, seed) for seed in range(args.seeds) for variant in args.variants]
        try:
            failed = run_all(out, jobs, args.jobs, args.iterations, settings)
        except KeyboardInterrupt:
            sys.exit("study.py: interrupted; the same command goes on")
    print(tables(read_rows(out, args.seeds, args.iterations), args.variants, args.seeds, args.iterations))
    if failed:
        sys.exit("\nfailed; the same command tries again:\n" + "\n".join(f"{job}: {failed[job]}" for job in failed))


if __name__ == "__main__":
    main()
