r"""How well and how fast answers are compared, on the gold answers of real test sets.

    python tests/bench_answers.py            (the files of the sets in $BENCHMARKS or ../shared/benchmarks)

Golds against their rewritings, which must be the same; random pairs of different golds, which must not (those that are called
the same are printed); agreement with math-verify, and both speeds on the same pairs in turn; the vote. The last line is JSON.
"""

import json
import logging
import os
import random
import re
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from answers import majority, same_answer  # noqa: E402
from answers.read import readings  # noqa: E402
from tasks.benchmarks import BENCHMARKS, OWN, read_questions  # noqa: E402

DATA = Path(os.environ.get("BENCHMARKS", ROOT.parent / "shared" / "benchmarks"))
PLAIN = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
FRACTION = re.compile(r"\\[dt]?frac\{(-?[0-9]+)\}\{([0-9]+)\}")


def question_files(folder=DATA):
    """{name: questions} of every benchmark file in the folder; those that no benchmark names are read as a user's own."""
    found = {}
    for file in sorted(Path(folder).glob("*.json*")):
        name = file.stem.removesuffix("_mini")
        found[name] = read_questions(file, BENCHMARKS.get(name, OWN))
    return found


def all_golds():
    return list(dict.fromkeys(q.answer for questions in question_files().values() for q in questions))


def formulas():
    """The gold answers without words, of which math-verify knows nothing."""
    return [gold for gold in all_golds() if not re.search(r"[a-z]{4}", gold.replace("\\", ""))]


def when(pattern, change):
    """A rewriting of golds that match all of a pattern; others give None."""
    return lambda gold: change(gold) if re.fullmatch(pattern, gold, re.DOTALL) else None


def replaced(old, new):
    return lambda gold: gold.replace(old, new) if old in gold else None


def substituted(pattern, by):
    return lambda gold: re.sub(pattern, by, gold) if re.search(pattern, gold) else None


def grouped(separator):
    return lambda gold: re.sub(r"(?<=[0-9])(?=([0-9]{3})+$)", lambda _: separator, gold)


def decimal_as_fraction(gold):
    whole, _, decimals = gold.partition(".")
    return rf"\frac{{{whole}{decimals}}}{{{10 ** len(decimals)}}}"


def scientific(gold):
    mantissa, exponent = gold.split("e")
    return rf"{mantissa} \times 10^{{{int(exponent)}}}"


def brackets(gold):
    if gold.count("(") != gold.count(")") or "(" not in gold or "\\left" in gold:
        return None
    return gold.replace("(", r"\left(").replace(")", r"\right)")


def spread(gold):
    """Fraction bars as slashes where both parts are written numbers and nothing stands beside."""
    top, bottom = FRACTION.fullmatch(gold).groups()
    return f"{top}/{bottom}"


def another_order(gold):
    parts = re.split(r",\s*", gold.strip("$"))
    return ", ".join(parts[1:] + parts[:1]) if len(set(parts)) == len(parts) else None


NUMBER = r"-?[0-9]+(\.[0-9]+)?"
# ways to write the same value; each takes a gold answer and gives None where it has nothing to change
REWRITINGS = {
    "spaces around": lambda gold: f"  {gold} ",
    "dollars": lambda gold: f"${gold}$" if "$" not in gold else None,
    r"\(...\)": lambda gold: rf"\({gold}\)" if "$" not in gold else None,
    "full stop": lambda gold: gold + "." if not gold.endswith(".") else None,
    r"\displaystyle": lambda gold: rf"\displaystyle {gold}" if "$" not in gold else None,
    r"\dfrac": replaced(r"\frac", r"\dfrac"),
    r"\left( \right)": brackets,
    "thin space": lambda gold: gold.replace(" ", r"\,") if " " in gold and r"\!" not in gold else None,
    "spaces after commas": lambda gold: re.sub(r", ?(?![0-9]{3}(?![0-9]))", ",  ", gold) 
        if "," in gold and not re.search(r",\\!|[0-9],[0-9]{3}", gold) else None,
    "unicode minus": lambda gold: gold.replace("-", "−") if "-" in gold and not re.search("[a-z]{3}", gold) else None,
    "trailing zero": when(NUMBER, lambda gold: gold + ("0" if "." in gold else ".0")),
    "plus sign": when(r"[0-9.]+", lambda gold: "+" + gold),
    "leading zero dropped": when(r"0\.[0-9]+", lambda gold: gold[1:]),
    "thousands": when(r"-?[1-9][0-9]{3,}", grouped(",")),
    "thousands {,}": when(r"-?[1-9][0-9]{3,}", grouped("{,}")),
    "unit": when(NUMBER, lambda gold: gold + r" \text{ cm}"),
    "currency": when(r"[0-9]+(\.[0-9]+)?", lambda gold: r"\$" + gold),
    "x =": when(r"-?[0-9.]+|\\frac\{[0-9]+\}\{[0-9]+\}", lambda gold: "x = " + gold),
    "slash": when(FRACTION.pattern, spread),
    "decimal as fraction": when(r"-?[0-9]+\.[0-9]+", decimal_as_fraction),
    "power of ten": when(r"[0-9.]+e-?[0-9]+", scientific),
    r"\cdot": substituted(r"(?<=[0-9]) ?(?=\\sqrt|\\pi)", r" \\cdot "),
    "bare fraction arguments": substituted(r"\\frac\{([0-9])\}\{([0-9])\}", r"\\frac\1\2"),
    "power one half": substituted(r"\\sqrt\{([0-9]+)\}", r"{\1}^{1/2}"),
    "degree sign": substituted(r"\^\{?\\circ\}?", "°"),
    r"\text": when(r"[A-Za-z]{3,}( [A-Za-z]+)*|\(?[A-Z]\)?", lambda gold: rf"\text{{{gold}}}"),
    "option without brackets": when(r"\([A-Z]\)", lambda gold: gold[1]),
    "option with a full stop": when(r"\([A-Z]\)", lambda gold: gold[1] + "."),
    "infinity": replaced(r"\infty", "∞"),
    "another order": when(r"\$?-?[0-9]+(, ?-?[0-9]{1,2})+\$?", another_order),
}


def rewritten(golds):
    """(how, gold, its rewriting) of every rewriting that changes a gold."""
    for gold in golds:
        for how, rewrite in REWRITINGS.items():
            other = rewrite(gold)
            if other is not None and other != gold:
                yield how, gold, other


# math-verify reads 4e33 as 4 times Euler's e times 33, and a full stop only after some numbers: there it is no referee
UNREAD = ("full stop", "option with a full stop", "power of ten")


def math_verify():
    """same(a, b) by math-verify, gold first, with its defaults."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)

    def read(answer):
        """As the content of a box; as a formula where a box gives it nothing but the text itself (5. and 75°)."""
        boxed = parse(rf"\boxed{{{answer}}}")
        return parse(f"${answer}$") if all(isinstance(item, str) for item in boxed) else boxed

    return lambda a, b: verify(read(a), read(b))


def cross_pairs(golds, count, seed=0):
    """Random pairs of golds that are different strings."""
    rng = random.Random(seed)
    while count:
        pair = rng.choice(golds), rng.choice(golds)
        if pair[0] != pair[1]:
            count -= 1
            yield pair


def agreement(golds, most=150, cross=1500, shown=3):
    """Rewritings, at most `most` of each kind, and random pairs, by both -> (agreement on all, on all but `UNREAD`, ours
    seconds, theirs). Prints the first disagreements of each kind."""
    theirs, rng = math_verify(), random.Random(1)
    pairs, chosen, used = list(rewritten(golds)), [], Counter()
    rng.shuffle(pairs)
    for pair in pairs:
        used[pair[0]] += 1
        if used[pair[0]] <= most:
            chosen.append(pair)
    chosen += [("random pairs", a, b) for a, b in cross_pairs(golds, cross, seed=1)]
    seconds, differ, total = [0.0, 0.0], {}, Counter()
    for how, a, b in chosen:
        readings.cache_clear()
        a, b = (text if r"\$" in text else text.replace("$", "") for text in (a, b))  # math-verify reads no $ inside a box
        verdicts = []
        for i, same in enumerate((same_answer, theirs)):
            start = time.perf_counter()
            verdicts.append(bool(same(a, b)))
            seconds[i] += time.perf_counter() - start
        total[how] += 1
        if verdicts[0] != verdicts[1]:
            differ.setdefault(how, []).append((verdicts[0], a, b))
    for how, cases in differ.items():
        print(f"  {how}: they differ on {len(cases)} of {total[how]}")
        for ours, a, b in cases[:shown]:
            print(f"      we say {'same' if ours else 'different'}: {a[:70]}  |  {b[:70]}")
    read = [how for how in total if how not in UNREAD]
    wrong = {how: len(cases) for how, cases in differ.items()}
    return (1 - sum(wrong.values()) / len(chosen), 1 - sum(wrong.get(how, 0) for how in read) / sum(total[how] for how in read),
            *seconds)


def main():
    golds = all_golds()
    print(f"{len(golds)} different gold answers of {DATA.name}")
    pairs = list(rewritten(golds))
    missed = [pair for pair in pairs if not same_answer(*pair[1:])]
    print(f"{len(pairs)} rewritings of {len(REWRITINGS)} kinds, {len(missed)} called different", *missed, sep="\n  ")
    called = [pair for pair in cross_pairs(golds, 100_000) if same_answer(*pair)]
    print(f"100000 random pairs of different golds, {len(called)} called the same", *map(str, called), sep="\n  ")
    times = []
    for _, a, b in pairs:
        readings.cache_clear()
        start = time.perf_counter()
        same_answer(a, b)
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    for question in range(2048):
        majority([rf"\frac{{{question}}}{{{k + 3}}}" for k in range(10)])
    vote = time.perf_counter() - start
    agree, agree_read, ours, theirs = agreement(formulas())
    print(json.dumps({"golds": len(golds), "rewritings_missed": len(missed), "random_pairs_called_same": len(called),
                      "median_ms": round(1e3 * statistics.median(times), 4), "slowest_ms": round(1e3 * max(times), 2),
                      "vote_of_10_over_2048_seconds": round(vote, 2), "agreement_all": round(agree, 4),
                      "agreement_where_math_verify_reads": round(agree_read, 4), "times_math_verify": round(theirs / ours, 1)}))


if __name__ == "__main__":
    main()
