"""What a tree is worth: a fraction where it is rational, else 50 digits, at points that all trees share.

Trees are evaluated from the leaves up, and each operation looks at the size of its operands before it computes, so that
nothing here can hang.
"""

import math
import random
from fractions import Fraction
from functools import lru_cache

from mpmath import MPContext

from .items import is_whole

LARGEST_EXACT, LARGEST, LARGEST_COUNT = 50_000, 2000, 3000  # bits of a fraction; |log2| of another value; n of n!
BITS, MORE_BITS = 170, 60  # every value is computed with 50 digits, and again with 18 more
POINTS, NEAR_POINTS = 15, 11

MP = MPContext()
CONSTANTS = {"e": lambda: +MP.e, "i": lambda: MP.j, "π": lambda: +MP.pi}  # at the precision of the moment
MARKS = {"%": (lambda: Fraction(1, 100), lambda: Fraction(1)), "°": (lambda: MP.pi / 180, lambda: Fraction(1)),
         "base": (lambda: Fraction(1), lambda: Fraction(0))}  # their values, and if the other side leaves them out


class TooLarge(ArithmeticError):
    """A value is too large to be computed."""


class TooMuchWork(Exception):
    """A comparison has used up its work."""


class Work:
    """What the comparison of the moment may still do, and what all have done; a unit is some 10 microseconds."""

    left = done = 0

    @classmethod
    def spend(cls, units):
        cls.left, cls.done = cls.left - units, cls.done + units
        if cls.left < 0:
            raise TooMuchWork


@lru_cache(maxsize=4096)
def samples(name, kind):
    """The values of a variable at the points: near ones of both signs from 1/4 to 24, in an order that depends on the
    name, and then far ones up to 4,096. kind: "any", "positive" or "whole", which is 2 or more."""
    rng = random.Random(name.encode("utf-8", "replace"))  # seeded by SHA-512: the same in every process
    turns = rng.sample(range(NEAR_POINTS), NEAR_POINTS)
    sizes = [Fraction(rng.randrange(256, 768), 1024) * 2 ** (turn // 2) for turn in turns]
    sizes = [Fraction(turn + 2) for turn in turns] if kind == "whole" else sizes
    sizes += [Fraction(rng.randrange(size, 2 * size)) for size in (32, 32, 2048, 2048)]
    turns += range(POINTS - NEAR_POINTS)
    return [-size if turn % 2 and kind == "any" else size for turn, size in zip(turns, sizes)]


def evaluate(tree, names):
    """The value of a tree, whose names have the values `names`: a Fraction if it is rational, else a real or complex
    number with MP's precision. Raises ArithmeticError or ValueError where there is none."""
    if isinstance(tree, Fraction):
        return tree
    if isinstance(tree, str):
        return CONSTANTS[tree]() if tree in CONSTANTS else names[tree]
    op, *args = tree
    args = [evaluate(arg, names) for arg in args]
    value = OPERATIONS[op](*args) if op in OPERATIONS else function(op, number(*args))
    Work.spend(1 + (size(value) >> 7) if isinstance(value, Fraction) else 3 + (MP.prec >> 8) ** 2)
    if not isinstance(value, Fraction) and value and not abs(MP.mag(value)) < LARGEST:  # or it is infinite or NaN
        raise TooLarge
    return value


def size(*fractions):
    """Bits of fractions."""
    return sum(max(value.numerator.bit_length(), value.denominator.bit_length()) for value in fractions)


def number(value):
    """A value as a number of MP."""
    return MP.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def of_many(operation, values):
    """The sum or product of values, exact where all are."""
    if not all(isinstance(value, Fraction) for value in values):
        return operation(map(number, values))
    if size(*values) > LARGEST_EXACT:
        raise TooLarge
    return operation(values)


def power(base, exponent):
    if isinstance(base, Fraction) and is_whole(exponent) and (size(base) - 1) * abs(exponent) <= LARGEST_EXACT:
        return base ** int(exponent)
    base, exponent = number(base), number(exponent)
    if base and max(1, abs(MP.mag(base))) * abs(exponent) > LARGEST:
        raise TooLarge
    return MP.power(base, exponent)


def root(radicand, degree):
    if is_whole(degree) and degree % 2 and not (value := number(radicand)).imag and value < 0:
        return -power(-radicand, 1 / degree)  # the real root of a negative number
    return power(radicand, 1 / degree)


def count(value):
    """The whole number that a value is, up to rounding."""
    nearest = MP.nint(MP.re(number(value)))
    if abs(number(value) - nearest) > 1e-30:
        raise ValueError
    if nearest > LARGEST_COUNT:
        raise TooLarge
    return int(nearest)


def floor(value):  # the square of a root of 2 is not quite 2, hence 1e-40
    return Fraction(math.floor(value) if isinstance(value, Fraction) else int(MP.floor(MP.re(value) + 1e-40)))


def function(name, argument):
    if (name in ("exp", "sinh", "cosh") or MP.im(argument)) and abs(argument) > LARGEST:  # these grow as powers do
        raise TooLarge
    return getattr(MP, name)(argument)


OPERATIONS = {"+": lambda *values: of_many(sum, values), "*": lambda *values: of_many(math.prod, values), "^": power,
              "root": root, "abs": abs, "floor": floor, "ceil": lambda value: -floor(-value),
              "!": lambda n: Fraction(math.factorial(count(n))),
              "binom": lambda n, k: Fraction(math.comb(count(n), count(k)))}


def value_at(quantity, index, kinds, marks_count):
    """(value, bound of its error) of a quantity at a point. Raises ArithmeticError or ValueError where it has none.

    index: of the point. kinds: {variable: "any", "positive" or "whole"}. The same call costs the same work even where
    the value is known, so that a verdict does not depend on what was compared before.
    """
    key = index, marks_count, *(kinds[name] for name in quantity.needs)
    if key in quantity.values:
        Work.spend(quantity.values[key][1])
    else:
        before = Work.done
        try:
            names = {name: samples(name, kinds[name])[index] for name in quantity.needs}
            result = precise_value(quantity.tree, names, marks_count)
        except (ArithmeticError, ValueError) as error:
            result = error
        quantity.values[key] = result, Work.done - before
    if isinstance(quantity.values[key][0], Exception):
        raise quantity.values[key][0]
    return quantity.values[key][0]


def precise_value(tree, names, marks_count):
    """(value, bound of its error), which is the difference between two precisions. Where that of a constant is not
    small, as of 10^60 + sqrt 2, both grow by as much."""
    marks = {name: values[0 if marks_count else 1] for name, values in MARKS.items()}
    bits, values, error = BITS, [], 0
    while len(values) < 2 or error > 1e-40 and not names and len(values) < 4:
        for MP.prec in (bits, bits + MORE_BITS):
            values.append(evaluate(tree, names | {name: mark() for name, mark in marks.items()}))
            if isinstance(values[-1], Fraction):
                return values[-1], 0
        error = abs(values[-1] - values[-2])
        bits = 2 * BITS + (MP.mag(error) if error else 0)
    if error > 1e-3 * max(1, abs(values[-1])):  # no digit is left of tan(pi/2)
        raise ArithmeticError
    return values[-1], error
