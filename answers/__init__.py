r"""What a final answer is, when two answers are the same, and the majority of many. Knows nothing of models.

    clean.py    takes off what does not change the value of an answer: $, \left, \dfrac, unicode dress
    read.py     reads the rest -> a Quantity (an expression and its unit), a Group (tuple, set, ...) or a Relation
    value.py    evaluates expressions at seeded points: exactly where they are rational, else with 190 digits
    same.py     compares two readings: values, groups item by item, equations up to a factor

Nothing here can hang: there is no `eval` and no `simplify`, reading takes linear time, a value has bounds, and a
comparison has a budget of work. What exceeds them (5^{5^{5^5}}) or cannot be read is compared as it is written."""

import re
from collections import Counter

from . import value
from .clean import LONGEST_READ, written_form
from .read import readings
from .same import compared_as_written, same

__all__ = ["classes", "compared_as_written", "extract_boxed", "majority", "same_answer", "written_form"]

BOX_WINDOW = 60_000  # characters at the end of a text that are searched for a box
MOST_WORK, MOST_WORK_OF_VOTE = 2500, 150_000  # of a comparison, and before a vote compares the rest as written
MOST_COMPARED = 200  # different strings of one vote that are compared with one another

# \\ and \{ are tokens of their own, so that \\{ opens a group and \{ does not; some models write \\boxed
BOX_OR_BRACE = re.compile(r"(\\\\?f?box(?:ed)?\s*\{)|\\\\?f?box(?:ed)?\s+"
                          r"([-+]?\.?[0-9][^\s$]*|\\[a-z]+[^\s$]*|[A-Za-z](?![A-Za-z]))|\\[\\{}]|[{}]")


def extract_boxed(text):
    r"""The stripped content of the complete `\boxed{...}`, `\fbox{...}` or `\boxed 5` that opens last in the last
    60,000 characters; None if there is none, or nothing is in it. Its braces balance, without \{ and \}."""
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
    """Whether two strings are one answer. Symmetric, deterministic, never raises; some 0.1 ms, 50 ms at most. A unit,
    percent sign, degree sign or base that one side lacks is not missed, and so it is not transitive: 50% is 0.5 and 50.
    Texts of more than 2,000 characters are compared as they are written."""
    if a == b:
        return True
    a, b = sorted((a, b))  # the order of the arguments must not matter where an order is tried
    reason = "too long"
    if max(len(a), len(b)) <= LONGEST_READ:
        try:
            value.limit = value.spent + MOST_WORK
            value.value_at.cache_clear()
            return any(same(one, other) for one in readings(a) for other in readings(b))
        except value.TooMuchWork:
            reason = "too much work"
    compared_as_written[reason] += 1
    return written_form(a) == written_form(b)


def classes(answers, *, same=same_answer):
    """{answer: the first seen of those that are the same} of strings, or None without a box, which is in no class.
    same(a, b): whether two strings are one answer. Of more than 200 different strings the 200 most frequent are
    compared; the others are left out."""
    counts = Counter(answer for answer in answers if answer is not None)
    frequent = dict(counts.most_common(MOST_COMPARED))
    if len(counts) > MOST_COMPARED:
        compared_as_written["too many"] += 1
    first_of, most = {}, value.spent + MOST_WORK_OF_VOTE
    for answer in filter(frequent.get, counts):
        first_of[answer] = next((seen for seen in dict.fromkeys(first_of.values()) if (
            same(seen, answer) if value.spent < most else written_form(seen) == written_form(answer))), answer)
    return first_of


def majority(answers, *, same=same_answer, count_unboxed=True):
    """The most frequent answer and its share -> (answer, share); (None, 0.0) if nobody answers. answers, same: as in
    `classes`. None has no vote but counts in the share unless count_unboxed is False. The first seen of a class stands
    for it, and wins a tie."""
    first_of = classes(answers, same=same)
    if not first_of:
        return None, 0.0
    votes = Counter(first_of[answer] for answer in answers if answer in first_of)
    winner = max(votes, key=votes.get)
    return winner, votes[winner] / (len(answers) if count_unboxed else len(answers) - answers.count(None))
