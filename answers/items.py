"""What an answer is once it is read: a Quantity, a Group or a Relation, and the trees of which they are made.

A tree is a Fraction, a name (str), or a tuple (operation, tree, ...): + * ^ ! binom, root(x, degree), abs, floor, ceil
and the functions by their names in mpmath. The names e, i and π are constants. % and ° stand for themselves, and 12_3
is 12 + (5 - 12) "base", for the other side may leave them out: 50% is 0.5, and 50 too. ∞ is a variable like any other.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

CONSTANTS, MARKS = {"e", "i", "π"}, {"%", "°", "base"}
# What the variables in an operation are taken to be, for nobody means the other branches of a root
NEEDS = {"root": "positive", "log": "positive", "!": "whole", "binom": "whole", "abs": "any", "floor": "floor",
         "ceil": "floor"}


class Unreadable(Exception):
    """The text is no mathematics that is known here."""


def is_whole(tree):
    return isinstance(tree, Fraction) and tree.denominator == 1


def negative(tree):
    return -tree if isinstance(tree, Fraction) else ("*", Fraction(-1), tree)


def quotient(top, bottom):
    return top / bottom if is_whole(top) and is_whole(bottom) and bottom else ("*", top, ("^", bottom, Fraction(-1)))


def structure(tree):
    """A string that two trees share when they differ in the order of sums and products only."""
    parts = [structure(arg) for arg in tree[1:]] if isinstance(tree, tuple) else []
    return f"{tree[0]}({','.join(sorted(parts) if tree[0] in '+*' else parts)})" if parts else str(tree)


@dataclass(eq=False)
class Quantity:
    """A tree and its unit in words, if any."""

    tree: Fraction | str | tuple
    unit: str = ""
    word: str = ""  # the letters, if it is nothing but letters: Yes is yes, though Y is not y
    rounding: float = 0.0  # half of the last place of a long decimal: 0.333333 is 1/3, but 0.3333 is not

    def __post_init__(self):
        names = needs_of(self.tree, {})
        self.needs = {name: need for name, need in names.items() if name not in MARKS}  # {variable: what it must be}
        self.marked = bool(self.unit) or len(names) > len(self.needs)  # with what the other side may leave out
        self.values = {}  # see `value_at`


def needs_of(tree, found, outer=frozenset()):
    """Adds the names in a tree, and what they must be, to `found`."""
    if isinstance(tree, str) and tree not in CONSTANTS:
        found[tree] = found.get(tree, frozenset()) | outer
    elif isinstance(tree, tuple):
        op, *args = tree
        needs = [outer | {NEEDS[op]} if op in NEEDS else outer] * len(args)
        if op == "^" and not is_whole(args[1]):
            base = args[0][1] if isinstance(args[0], tuple) else args[0]
            minus = isinstance(base, Fraction) and base < 0  # (-1)^n, (-x)^n
            needs = [outer, outer | {"whole"}] if minus else [outer | {"positive"}, outer]
        for arg, need in zip(args, needs):
            needs_of(arg, found, need)
    return found


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

    @cached_property
    def difference(self):
        """left - right, a Quantity; None where it is none of two expressions."""
        try:
            return Quantity(("+", as_tree(self.left), negative(as_tree(self.right))))
        except Unreadable:
            return None


INFINITY, MINUS_INFINITY = Quantity("∞"), Quantity(negative("∞"))


def as_tree(item):
    """The tree of a value without unit."""
    if isinstance(item, Group | Relation) or isinstance(item, Quantity) and item.unit:
        raise Unreadable
    return item.tree if isinstance(item, Quantity) else item


def is_name(item):
    """Whether it is a variable, f(x), |AB|, or a product such as AB or x/y: what an equation may say the value of."""
    if isinstance(item, Group):
        return item.kind == "tuple" and all(map(is_name, item.items))
    tree = item.tree if isinstance(item, Quantity) and not item.unit else None
    tree = tree[1] if isinstance(tree, tuple) and tree[0] == "abs" else tree
    if isinstance(tree, tuple) and tree[0] == "*":
        bases = [part[1] if isinstance(part, tuple) and part[0] == "^" else part for part in tree[1:]]
        return all(is_name(Quantity(base)) for base in bases)
    return isinstance(tree, str) and tree not in (*CONSTANTS, *MARKS, "∞")
