r"""What a final answer is, when two answers are the same, and the majority of many. Knows nothing of models.

An answer is the text in the last `\boxed{...}`. Two are the same when their normal forms are equal strings: LaTeX dress and
white space are taken off, and every number that stands alone or as an element of a tuple, list or interval is replaced by
its exact value. So 0.5, 1/2 and $\dfrac12$ are one answer, and sameness is symmetric and transitive.

Nothing is evaluated but the quotient of two written numbers, so no answer can cost more than reading it. Not done yet: algebra
(2\sqrt{2} and \sqrt{8} differ), sets in another order, percent, units, `x = 5`, mixed numbers, exponents and decimal commas.
"""

import re
from collections import Counter
from fractions import Fraction

LONGEST_READ = 1000  # characters; int() is quadratic in the digits and refuses more than 4300 of them

# \\ and \{ are tokens of their own, so that \\{ opens a group and \{ does not; some models double the backslash of \boxed
BOX_OR_BRACE = re.compile(r"(\\\\?boxed\s*\{)|\\[\\{}]|[{}]")

DRESS = re.compile(r"\\(?:left|right|displaystyle|quad)(?![A-Za-z])|\\[;: ()\[\]]|~|(?<!\\)\$")
TEXT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox) ?\{([^{}]*)\}")
LOOSE_SPACE = re.compile(r"(?<![0-9,]) | (?![0-9])")

# [0-9] and not \d, which matches the digits of every script
THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?")
UNSIGNED = r"(?:(?:[1-9][0-9]{0,2}(?:\{,\}[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
ARGUMENT = rf"(\{{[+-]?{UNSIGNED}\}}|[0-9])"
# A number counts only between brackets, commas and the ends: 0.1(6) and 0.10(6) are not the same
NUMBER = re.compile(
    rf"(?<![^(\[,])([+-]?)(?:\\frac{ARGUMENT} ?{ARGUMENT}|({UNSIGNED})(?:/([+-]?{UNSIGNED}))?)(?![^)\],])")


def extract_boxed(text):
    r"""The stripped content of the last complete `\boxed{...}` in text; None if there is none, or nothing is in it.

    Last is the one that opens last, so the inner of two nested boxes. Complete is one whose braces balance; \{ and \} do not
    count. Time is linear in the text.
    """
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
    return text[last:end].strip() or None  # -1:-1 cuts out nothing


def normal_form(text):
    """The string that all ways of writing an answer share.

    Time is linear in the text. Once its dress is off, numbers are read as values if at most LONGEST_READ characters are left,
    else they stay as written.
    """
    # A line break goes by its other name, so that every backslash left begins a command
    text = text.replace("\N{MINUS SIGN}", "-").replace(r"\\", r"\cr ").replace(r"\!", "").replace(r"\,", "")
    text = TEXT.sub(r"\1", DRESS.sub(" ", text))
    text = re.sub(r"\\[dtc]frac", r"\\frac", text)
    # Space stays between digits, for 3 1/2 is not 31/2, and after a comma until it is known that 1, 234 is not 1234
    text = LOOSE_SPACE.sub("", " ".join(text.split())).removesuffix(".")
    if THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    text = text.replace(", ", ",")
    return NUMBER.sub(exact_value, text) if len(text) <= LONGEST_READ else text


def exact_value(number):
    """The value of a match of NUMBER in lowest terms, such as -1/2; what is written there if it divides by zero."""
    sign, top, bottom, numerator, denominator = number.groups()
    top, bottom = (Fraction(re.sub("[{,}]", "", part)) for part in (top or numerator, bottom or denominator or "1"))
    if bottom == 0:
        return number[0]
    return str(-top / bottom if sign == "-" else top / bottom)


def same_answer(a, b):
    """Whether two strings are one answer: their normal forms are equal. Never raises; the cost is that of `normal_form`."""
    return normal_form(a) == normal_form(b)


def majority(answers):
    """The most frequent answer and its share of all -> (answer, share); (None, 0.0) if nobody answers.

    answers: strings, or None for no answer, which has no vote but counts in the share. The answer is the first seen of its
    class, and of equally large classes the one seen first wins. Costs one `normal_form` for each different string.
    """
    votes, first_seen = Counter(), {}
    for answer, count in Counter(a for a in answers if a is not None).items():
        form = normal_form(answer)
        votes[form] += count
        first_seen.setdefault(form, answer)
    if not votes:
        return None, 0.0
    winner = max(votes, key=votes.get)
    return first_seen[winner], votes[winner] / len(answers)
