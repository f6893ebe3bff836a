"""What an answer is once it is read: a Quantity, a Group or a Relation, and the trees of which they are made.

A tree is a Fraction, a name (str), or a tuple (operation, tree, ...): + * ^ ! binom, root(x, degree), abs, floor, ceil
and the functions by their names in mpmath. The names e, i and π are constants. % and ° stand for themselves, and 12_3
is 12 + (5 - 12) "base", for the other side may leave them out: 50% is 0.5, and 50 too. ∞ is a variable like any other.
"""

from dataclasses import dataclass
from fractions import Fraction

CONSTANTS, MARKS = {"e", "i", "π"}, {"%", "°", "base"}
structure = str  # of a tree, as a part of a name: f(x + 1)


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
    return {tree} - CONSTANTS if isinstance(tree, str) else set()


@dataclass(eq=False)
class Quantity:
    tree: Fraction | str | tuple
    unit: str = ""
    word: str = ""  # the letters, if it is nothing but letters: Yes is yes, though Y is not y
    rounding: float = 0.0  # half of the last place of a long decimal: 0.333333 is 1/3, but 0.3333 is not

    def __post_init__(self):
        names = names_in(self.tree)
        self.variables = names - MARKS
        self.marked = bool(self.unit or names & MARKS)  # with what the other side may leave out


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


INFINITY, MINUS_INFINITY = Quantity("∞"), Quantity(negative("∞"))


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
