"""R-Zero on the tiny model from five seeds, beside its two controls, and the table of what came of them.

    python tests/five_seeds.py --out runs/five --jobs 2

The controls have the same budget: `untrained`, whose Challenger stays the base model, and `truth`, whose Solver learns from
the true answers in place of majorities. Finished runs are not redone. The paired interval is that of the difference between
two arms at one seed, with Student's t over the seeds.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
ARMS = {"R-Zero": [], "untrained": ["--challenger_steps", "0"], "truth": ["--labels", "truth"]}
T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t of 0.975, by the number of seeds


def run(out, arm, seed, extra):
    folder = out / f"{arm}-{seed}"
    command = [sys.executable, str(ROOT / "rzero.py"), "--out", str(folder), "--seed", str(seed), *ARMS[arm], *extra]
    with open(out / f"{arm}-{seed}.log", "w") as log:
        subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/five"))
    parser.add_argument("--seeds", type=int, default=5, choices=T_975)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, of one thread each")
    args, extra = parser.parse_known_args()
    args.out.mkdir(parents=True, exist_ok=True)
    out = args.out.resolve()
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = [pool.submit(run, out, arm, seed, extra) for seed in range(args.seeds) for arm in ARMS]
        for job in tqdm(jobs, unit=" runs"):
            job.result()

    rows = {arm: [[json.loads(line) for line in (out / f"{arm}-{s}" / "eval.jsonl").read_text().splitlines()]
                  for s in range(args.seeds)] for arm in ARMS}

    def values(arm, key):  # [seeds, iterations], in percent
        return 100 * np.array([[np.nan if row.get(key) is None else row[key] for row in run] for run in rows[arm]], dtype=float)

    for key, name in (("mean", "held-out, mean of samples"), ("greedy", "held-out, greedy"),
                      ("label_accuracy", "kept labels right"),
                      ("well_posed", "questions well-posed"), ("share", "mean p")):
        print(f"\n{name}, by iteration from 0: mean over seeds (each seed)")
        for arm in ARMS:
            table = values(arm, key)
            print(f"  {arm:<10}", "   ".join("-" if np.isnan(column).all() else
                  f"{column.mean():.1f} ({' '.join(f'{x:.1f}' for x in column)})" for column in table.T))
    print()
    for key in ("mean", "greedy"):
        gain = values("R-Zero", key)[:, -1] - values("R-Zero", key)[:, 0]
        print(f"R-Zero's gain over the base, {key}: least {gain.min():.1f}, mean {gain.mean():.1f}")
        for arm in ("untrained", "truth"):
            ahead = values("R-Zero", key)[:, -1] - values(arm, key)[:, -1]
            half = T_975[args.seeds] * ahead.std(ddof=1) / np.sqrt(args.seeds)
            print(f"R-Zero ahead of {arm}, {key}, last iteration: {ahead.mean():.1f} +- {half:.1f}")


if __name__ == "__main__":
    main()
