"""Random damage to a model folder ends in one line or in a model that works: `python tests/fuzz_models.py --rounds 500`.

Each round copies `tiny` as one file with an index, changes one of config.json, tokenizer.json, the index and the
safetensors header, and then loads it and draws three tokens. A change replaces, removes, repeats or adds a value
somewhere in the JSON, or changes bytes. Round i of a seed is always the same."""

import argparse
import json
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sample import Sampler

TINY = Path(__file__).parents[1] / "tiny"
TARGETS = "config.json", "tokenizer.json", "model.safetensors.index.json", "header"
VALUES = [None, True, False, 0, 1, 2, 3, -1, 7, 31, 96, 255, 573, 10**6, 10**9, 2**31, 2**32, 2**63, 10**30, 0.5, 1e-30,
          1e300, float("nan"), float("inf"), "", "x", "F64", "BF16", "I8", "llama", "qwen2", "../x", "/dev/zero",
          "model.safetensors", "a" * 100_000, "é\n\x00", [], [1], [0, 2**62], [[]] * 1000, {}, {"": {}},
          {"rope_type": "llama3", "factor": 0}, {"type": "Replace", "pattern": {"String": ""}, "content": "aaaa"},
          {"Regex": "(a+)+$"}, {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 50}]
SECONDS, MEGABYTES = 5, 1_000  # the most of the CPU that a round takes, and the most that all rounds add to the memory


def places(value, found):
    """(container, key) of every value in a JSON value, in `found`; of a long list or object a few only."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys if len(keys) < 40 else [keys[0], keys[1], keys[len(keys) // 2], keys[-1]]:
        found.append((value, key))
        places(value[key], found)
    return found


def change(rng, value):
    """Changes one place of a JSON object."""
    container, key = rng.choice(places(value, []))
    what = rng.choice(["replace", "replace", "replace", "scale", "remove", "add", "swap"])
    if what == "remove":
        del container[key]
    elif what == "scale" and type(container[key]) in (int, float):
        container[key] = rng.choice([-1, 2, 1000, 0.5, 10**9]) * container[key]
    elif what == "add" and isinstance(container, dict):
        container[rng.choice(["auto_map", "rope_scaling", "head_dim", "x", "", "id"])] = rng.choice(VALUES)
    elif what == "swap":
        other, name = rng.choice(places(value, []))
        container[key] = json.loads(json.dumps(other[name]))
    else:
        container[key] = rng.choice(VALUES)


def damage(rng, data):
    """Changes, removes or repeats bytes."""
    data, i = bytearray(data), rng.randrange(len(data))
    what = rng.randrange(4)
    if what < 2:
        for _ in range(rng.choice([1, 1, 5])):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif what == 2:
        del data[i:i + rng.choice([1, 100, len(data)])]
    else:
        data[i:i] = data[i:i + 100] * rng.choice([1, 100])
    return bytes(data)


def mutate(folder, rng):
    """Makes a damaged copy of `tiny` -> what was damaged."""
    shutil.copytree(TINY, folder)
    weights, target = folder / "model.safetensors", rng.choice(TARGETS)
    data = weights.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8:8 + length]
    index = {"metadata": {}, "weight_map": dict.fromkeys(json.loads(header), weights.name)}
    (folder / TARGETS[2]).write_text(json.dumps(index))
    old = header if target == "header" else (folder / target).read_bytes()
    if rng.random() < 0.3:
        new = damage(rng, old)
    else:
        value = json.loads(old)
        for _ in range(rng.choice([1, 1, 2, 4])):
            change(rng, value)
        new = json.dumps(value).encode()
    if target != "header":
        (folder / target).write_bytes(new)
    else:
        claimed = rng.choice([len(new)] * 4 + [length, 0, 2**63, 10**9, len(new) + 1])
        weights.write_bytes(claimed.to_bytes(8, "little") + new + data[8 + length:])
    return target


def trial(folder):
    """Loads a folder and draws three tokens -> "works", or the line that says why not. Raises whatever else."""
    try:
        sampler = Sampler.load(folder, kv_gb=0.01)
        prompt = sampler.tokenizer.chat("Reason.", "What is 17 + 25 - 8?") or [0]
        (completion,), = sampler.generate([prompt], max_tokens=3)
        sampler.tokenizer.decode(completion.tokens)
    except (OSError, ValueError) as error:
        assert str(error) and len(str(error).splitlines()) == 1 and len(str(error)) < 1000, f"no line: {error!r:.3000}"
        return str(error)
    room = max(1, sampler.model.config.context - len(prompt))
    assert len(completion.tokens) == min(3, room) or completion.finished
    return "works"


def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def fuzz(rounds, seed, folder):
    """{(what was damaged, how it ended): count}; raises AssertionError naming the round that ends otherwise."""
    ended, before = Counter(), megabytes()
    for i in range(rounds):
        start = time.process_time()
        target = mutate(folder / "m", random.Random(f"{seed} {i}"))
        try:
            line = trial(folder / "m")
        except BaseException as error:
            raise AssertionError(f"seed {seed}, round {i}, {target}: {type(error).__name__}: {error}") from error
        took, grown = time.process_time() - start, megabytes() - before
        assert took < SECONDS and grown < MEGABYTES, f"seed {seed}, round {i}, {target}: {took} s, {grown} MB: {line}"
        ended[target, "works" if line == "works" else "one line"] += 1
        shutil.rmtree(folder / "m")
    return ended


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        ended = fuzz(args.rounds, args.seed, Path(folder))
    for (target, how), count in sorted(ended.items()):
        print(f"{target:32}{how:10}{count:6}")
    print(f"{args.rounds} rounds of seed {args.seed} in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
