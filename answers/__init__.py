r"""What a final answer is, when two answers are the same, and the majority of many. Knows nothing of models.

    clean.py    takes off what does not change the value of an answer: $, \left, \dfrac, unicode dress
    tokens.py   cuts it into numbers, letters, words and signs
    latex.py    reads these -> a Quantity (an expression and its unit), a Group (tuple, set, ...) or a Relation
    read.py     says what a text may say, read as LaTeX, as words, or with its comma as a point
    items.py    defines what is read
    value.py    evaluates expressions: exactly where they are rational, else with 50 digits, at seeded points
    same.py     compares two readings: values, groups item by item, equations up to a factor

Nothing here can hang. Reading takes linear time, every operation checks the size of its operands before it computes,
and a comparison has a budget of work. What is too large (5^{5^{5^5}}), too long or cannot be read is compared as it
is written. There is no `eval`, no `simplify`, no timer and no thread.
"""

import re
from collections import Counter

from . import value
from .clean import LONGEST_READ, written_form
from .read import readings
from .same import compared_as_written, same
from .value import TooMuchWork, value_at

__all__ = ["compared_as_written", "extract_boxed", "majority", "same_answer", "written_form"]

BOX_WINDOW = 60_000  # characters at the end of a text that are searched for a box
MOST_WORK = 3000  # of a comparison
MOST_WORK_OF_VOTE = 150_000  # after which a vote compares the rest as they are written
MOST_COMPARED = 200  # different strings of one vote that are compared with one another

# \\ and \{ are tokens of their own, so that \\{ opens a group and \{ does not; some models write \\boxed
BOX_OR_BRACE = re.compile(r"(\\\\?f?box(?:ed)?\s*\{)|\\\\?f?box(?:ed)?\s+"
                          r"([-+]?\.?[0-9][^\s$]*|\\[a-z]+[^\s$]*|[A-Za-z](?![A-Za-z]))|\\[\\{}]|[{}]")


def extract_boxed(text):
    r"""The stripped content of the last complete `\boxed{...}`, `\fbox{...}` or `\boxed 5`; None if there is none, or
    nothing is in it.

    Last is the one that opens last, so the inner of two nested boxes. Complete is one whose braces balance, without \{
    and \}. Only the last 60,000 characters are searched, in linear time.
    """
    text = text[-BOX_WINDOW:]
    opened, last, end = [], -1, -1
    for token in BOX_OR_BRACE.finditer(text):
        if token[0] == "{":
            opened.append(-1)
        elif token[0] == "}" and opened:
            start = opened.pop()
            if start > last:
                last, end = start, token.start()
        elif token[1]:
            opened.append(token.end())
        elif token[2]:
            last, end = token.start(2), token.start(2) + len(token[2].rstrip(".,;:"))
    return text[last:end].strip() or None  # -1:-1 cuts out nothing


def same_answer(a, b):
    """Whether two strings are one answer. Symmetric, deterministic, never raises; some 0.1 ms, 50 ms at most.

    A unit, percent sign, degree sign or base that one side lacks is not missed, and so it is not transitive: 50% is 0.5
    and 50. Texts of more than 2,000 characters are compared as they are written, in linear time.
    """
    if a == b:
        return True
    a, b = sorted((a, b))  # the order of the arguments must not matter where an order is tried
    if len(b) > LONGEST_READ or len(a) > LONGEST_READ:
        compared_as_written["too long"] += 1
        return written_form(a) == written_form(b)
    value.limit = value.spent + MOST_WORK
    value_at.cache_clear()
    try:
        return any(same(one, other) for one in readings(a) for other in readings(b))
    except TooMuchWork:
        compared_as_written["too much work"] += 1
        return written_form(a) == written_form(b)


def majority(answers, *, same=same_answer, count_unboxed=True):
    """The most frequent answer and its share -> (answer, share); (None, 0.0) if nobody answers.

    answers: strings, or None without a box, which has no vote but counts in the share unless count_unboxed is False.
    same(a, b): whether two strings are one answer. The first seen of a class stands for it, and wins a tie. Equal
    strings are counted first; of more than 200 different ones only the 200 most frequent are compared and can win.
    """
    counts = Counter(answers)
    unboxed = counts.pop(None, 0)
    if not counts:
        return None, 0.0
    compared = counts
    if len(counts) > MOST_COMPARED:
        compared_as_written["too many"] += 1
        frequent = dict(counts.most_common(MOST_COMPARED))
        compared = [answer for answer in counts if answer in frequent]
    votes, most = {}, value.spent + MOST_WORK_OF_VOTE
    for answer in compared:
        first = next((seen for seen in votes if (
            same(seen, answer) if value.spent < most else written_form(seen) == written_form(answer))), answer)
        votes[first] = votes.get(first, 0) + counts[answer]
    winner = max(votes, key=votes.get)
    return winner, votes[winner] / (len(answers) if count_unboxed else len(answers) - unboxed)
