"""What an answer is once it is read, and what it is worth.

A tree is a Fraction, a name (str), or a tuple (operation, tree, ...): + * ^ ! binom, root(x, degree), abs, floor, ceil
and the functions by their names in mpmath. The names e, i and π are constants. % and ° stand for themselves, and 12_3
is 12 + (5 - 12) "base", for the other side may leave them out: 50% is 0.5, and 50 too. ∞ is a variable like any other.

A tree's value, at points that all trees share, is a Fraction where it is rational, else a number of 640 bits. There is
none outside 2^-256 to 2^256, so that errors stay far below 2^-256, and what is that close to a whole number is this
number. Each operation looks at the size of its operands before it computes."""

import math
import random
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache

from mpmath import MPContext

LARGEST, LARGEST_EXACT, LARGEST_COUNT = 256, 50_000, 3000  # |log2| of a number; bits of a Fraction; n of n!
POINTS = 16
MP = MPContext()
MP.prec = 640
TINY = MP.mpf(2) ** -LARGEST
CONSTANTS = {"e": +MP.e, "i": MP.j, "π": +MP.pi}
MARKS = {"%": Fraction(1, 100), "°": MP.pi / 180, "base": Fraction(1)}
IGNORED = {"%": Fraction(1), "°": Fraction(1), "base": Fraction(0)}  # their values where the other side leaves them out

spent = limit = 0  # the work of all comparisons, and where that of this one ends; a unit is some 10 microseconds


class Unreadable(Exception):
    """The text is no mathematics that is known here."""


def is_whole(tree):
    return isinstance(tree, Fraction) and tree.denominator == 1


def negative(tree):
    return -tree if isinstance(tree, Fraction) else ("*", Fraction(-1), tree)


def quotient(top, bottom):
    return top / bottom if is_whole(top) and is_whole(bottom) and bottom else ("*", top, ("^", bottom, Fraction(-1)))


def names_in(tree):
    if isinstance(tree, tuple):
        return set().union(*map(names_in, tree[1:]))
    return {tree} - CONSTANTS.keys() if isinstance(tree, str) else set()


@dataclass(eq=False)
class Quantity:
    tree: Fraction | str | tuple
    unit: str = ""
    word: str = ""  # the letters, if it is nothing but letters: Yes is yes, though Y is not y
    rounding: float = 0.0  # half of the last place of a long decimal: 0.333333 is 1/3, but 0.3333 is not

    def __post_init__(self):
        names = names_in(self.tree)
        self.variables = names - MARKS.keys()
        self.marked = bool(self.unit or names & MARKS.keys())  # with what the other side may leave out


@dataclass(eq=False)
class Group:
    kind: str  # tuple (a matrix is one of rows), list (bare, with commas or "and"), set or union
    items: list
    ends: str = "()"  # a tuple's brackets


@dataclass(eq=False)
class Relation:
    sign: str  # = ∈ < ≤ ≠; a > b is read as b < a, and 1 < x < 2 as x ∈ (1, 2)
    left: object
    right: object


def as_tree(item):
    """The tree of a value; raises Unreadable for a group, a relation and a value with a unit."""
    if isinstance(item, Group | Relation) or isinstance(item, Quantity) and item.unit:
        raise Unreadable
    return item.tree if isinstance(item, Quantity) else item


def is_name(item):
    """Whether it is what an equation may say the value of: a variable, f(x), |AB|, or a tuple of these."""
    if isinstance(item, Group):
        return item.kind == "tuple" and all(map(is_name, item.items))
    tree = item.tree if isinstance(item, Quantity) and not item.unit else item
    if isinstance(tree, tuple):
        return tree[0] in ("*", "abs") and all(map(is_name, tree[1:]))
    return isinstance(tree, str) and tree not in (*CONSTANTS, *MARKS, "∞")


class TooMuchWork(Exception):
    """A comparison has used up its work."""


def spend(work):
    global spent  # noqa: PLW0603
    spent += work
    if spent > limit:
        raise TooMuchWork


@lru_cache(maxsize=4096)
def samples(name):
    """The values of a variable at the points: whole numbers near and far, then fractions of both signs, by its name.
    Names that begin with i to n are always whole, which ⌈n/2⌉ = ⌊(n+1)/2⌋ takes for granted."""
    rng = random.Random(name.encode("utf-8", "replace"))  # seeded by SHA-512: the same in every process
    whole = [*rng.sample(range(2, 8), 6), rng.randrange(32, 64), rng.randrange(1024, 2048)]
    others = [Fraction(rng.randrange(256, 768), 1024) * 2 ** (i // 2) * (-1) ** i for i in rng.sample(range(8), 8)]
    return [Fraction(value) for value in (*whole, *(map(round, others) if name[0] in "ijklmn" else others))]


@cache  # emptied before each comparison, so that a verdict does not depend on those before
def value_at(quantity, point, marks_count=True):
    """The value of a quantity at a point (an index of `samples`); None where it has none. Only a constant, and what
    contains i, may be complex: in others, a point where an operation leaves the real numbers has no value."""
    samples_here = {name: samples(name)[point] for name in quantity.variables}
    names = CONSTANTS | (MARKS if marks_count else IGNORED) | samples_here
    try:
        return evaluate(quantity.tree, names, real=bool(quantity.variables))
    except (ArithmeticError, ValueError):
        return None


def evaluate(tree, names, real):
    """The value of a tree whose names have the values `names`. Raises ArithmeticError or ValueError where there is
    none, and if `real` also where an operation leaves the real numbers."""
    if not isinstance(tree, tuple):
        return names[tree] if isinstance(tree, str) else tree
    operation, *args = tree
    args = [evaluate(arg, names, real) for arg in args]
    if operation in ("!", "binom") and not all(is_whole(arg) and arg <= LARGEST_COUNT for arg in args):
        raise ValueError
    if sum(map(size, args)) > LARGEST_EXACT:
        raise OverflowError
    value = OPERATIONS.get(operation, getattr(MP, operation, None))(*args)
    spend(1 + (size(value) >> 7) if isinstance(value, Fraction) else 3)
    if isinstance(value, Fraction):
        return value
    magnitude = MP.mag(value) if value else 0
    if not magnitude < LARGEST or magnitude < -LARGEST and operation in ("*", "^", "exp"):  # a sum so small is 0
        raise OverflowError
    value = value.real if abs(value.imag) < TINY else value
    if real and value.imag and not any(arg.imag for arg in args):
        raise ValueError
    nearest = MP.nint(value.real)
    return Fraction(int(nearest)) if abs(value - nearest) < TINY else value


def equal(a, b, rounding=0.0):
    """Whether two values are equal, or differ by rounding."""
    gap = abs(a + -b)
    return gap <= rounding or not isinstance(gap, Fraction) and gap < TINY


def size(value):
    """Bits of a fraction."""
    return max(value.numerator.bit_length(), value.denominator.bit_length()) if isinstance(value, Fraction) else 0


def power(base, exponent):
    if isinstance(base, Fraction) and is_whole(exponent):
        if (size(base) - 1) * abs(exponent) > LARGEST_EXACT:
            raise OverflowError
        return base ** int(exponent)
    if base and max(1, abs(MP.mag(base))) * abs(exponent) > 2 * LARGEST:
        raise OverflowError
    if not base.imag and base < 0 and isinstance(exponent, Fraction) and exponent.numerator == exponent.denominator % 2:
        return -MP.power(-base, exponent)  # the cube root of -8 is -2
    return MP.power(base, exponent)


OPERATIONS = {"+": lambda *values: sum(values), "*": lambda *values: math.prod(values), "^": power, "abs": abs,
              "root": lambda value, degree: power(value, 1 / degree), "!": lambda n: Fraction(math.factorial(int(n))),
              "binom": lambda n, k: Fraction(math.comb(int(n), int(k)))}
