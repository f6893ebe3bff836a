"""What a tree is worth at points that all trees share: a Fraction where it is rational, else a number of 640 bits.

No number is larger than 2^256, so that its error stays far below 2^-256. What is that close to a whole number is this
number. Each operation looks at the size of its operands before it computes.
"""

import math
import random
from fractions import Fraction
from functools import lru_cache

from mpmath import MPContext

from .items import is_whole

LARGEST, LARGEST_EXACT, LARGEST_COUNT = 256, 50_000, 3000  # |log2| of a number; bits of a Fraction; n of n!
MOST_WORK = 3000  # of a comparison; a unit is some 10 microseconds
POINTS = 18

MP = MPContext()
MP.prec = 640
TINY = MP.mpf(2) ** -LARGEST
CONSTANTS = {"e": +MP.e, "i": MP.j, "π": +MP.pi}
MARKS = {True: {"%": Fraction(1, 100), "°": MP.pi / 180, "base": Fraction(1)},
         False: {"%": Fraction(1), "°": Fraction(1), "base": Fraction(0)}}  # if the other side leaves them out

spent = limit = 0  # the work of all comparisons, and what it may be at the end of this one


class TooMuchWork(Exception):
    """A comparison has used up its work."""


def begin_comparison():
    global limit
    limit = spent + MOST_WORK
    value_at.cache_clear()  # so that a verdict does not depend on what was compared before


def spend(units):
    global spent
    spent += units
    if spent > limit:
        raise TooMuchWork


@lru_cache(maxsize=4096)
def samples(name):
    """The values of a variable at the points: whole numbers near and far, then fractions of both signs. Their order
    depends on the name. Names that begin with i to n are always whole, which ⌈n/2⌉ = ⌊(n+1)/2⌋ takes for granted."""
    rng = random.Random(name.encode("utf-8", "replace"))  # seeded by SHA-512: the same in every process
    whole = [*rng.sample(range(2, 8), 6), rng.randrange(32, 64), rng.randrange(1024, 2048)]
    others = [Fraction(rng.randrange(256, 768), 1024) * 2 ** (i // 2) * (-1) ** i for i in rng.sample(range(10), 10)]
    return [*map(Fraction, whole), *(map(round, others) if name[0] in "ijklmn" else others)]


@lru_cache(maxsize=None)
def value_at(quantity, point, marks_count=True, real=True):
    """The value of a quantity at a point (an index of `samples`); None where it has none."""
    names = CONSTANTS | MARKS[marks_count] | {name: samples(name)[point] for name in quantity.variables}
    try:
        return evaluate(quantity.tree, names, real)
    except (ArithmeticError, ValueError):
        return None


def evaluate(tree, names, real):
    """The value of a tree whose names have the values `names`. Raises ArithmeticError or ValueError where there is
    none, and if `real` also where an operation leaves the real numbers."""
    if isinstance(tree, Fraction):
        return tree
    if isinstance(tree, str):
        return names[tree]
    operation, *args = tree
    args = [evaluate(arg, names, real) for arg in args]
    value = OPERATIONS[operation](*args) if operation in OPERATIONS else getattr(MP, operation)(number(*args))
    if isinstance(value, Fraction):
        spend(1 + (size(value) >> 7))
        return value
    spend(3)
    magnitude = MP.mag(value) if value else 0
    if not magnitude < LARGEST or magnitude < -LARGEST and operation in "*^":  # what a sum leaves so small is 0
        raise OverflowError
    value = value.real if abs(value.imag) < TINY else value
    if real and value.imag and not any(arg.imag for arg in args):
        raise ValueError
    nearest = MP.nint(value.real)
    return Fraction(int(nearest)) if abs(value - nearest) < TINY else value


def equal(a, b, rounding=0.0):
    """Whether two values are equal, or differ by rounding."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return abs(a - b) <= rounding
    try:
        return abs(number(a) - number(b)) < max(TINY, rounding)
    except OverflowError:
        return False


def size(*fractions):
    """Bits of fractions."""
    return sum(max(value.numerator.bit_length(), value.denominator.bit_length()) for value in fractions)


def number(value):
    """A value as a number of MP."""
    if not isinstance(value, Fraction):
        return value
    if value and abs(value.numerator.bit_length() - value.denominator.bit_length()) > LARGEST:
        raise OverflowError
    return MP.mpf(value.numerator) / value.denominator


def of_many(operation, values):
    """The sum or product of values, exact where all are."""
    if not all(isinstance(value, Fraction) for value in values):
        return operation(map(number, values))
    if size(*values) > LARGEST_EXACT:
        raise OverflowError
    return operation(values)


def power(base, exponent):
    if isinstance(base, Fraction) and is_whole(exponent) and (size(base) - 1) * abs(exponent) <= LARGEST_EXACT:
        return base ** int(exponent)
    base, exponent = number(base), number(exponent)
    if base and max(1, abs(MP.mag(base))) * abs(exponent) > 2 * LARGEST:
        raise OverflowError
    return MP.power(base, exponent)


def root(radicand, degree):
    if is_whole(degree) and degree % 2 and not radicand.imag and radicand < 0:
        return -power(-radicand, 1 / degree)  # the real root of a negative number
    return power(radicand, 1 / degree)


def count(value):
    if not is_whole(value) or value > LARGEST_COUNT:
        raise ValueError
    return int(value)


def floor(value):
    return Fraction(int(MP.floor(number(value).real)))


OPERATIONS = {"+": lambda *values: of_many(sum, values), "*": lambda *values: of_many(math.prod, values), "^": power,
              "root": root, "exp": lambda exponent: power(MP.e, exponent), "abs": abs, "floor": floor,
              "ceil": lambda value: -floor(-value), "!": lambda n: Fraction(math.factorial(count(n))),
              "binom": lambda n, k: Fraction(math.comb(count(n), count(k)))}
