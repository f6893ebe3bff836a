"""Compares two readings: quantities by their values, groups item by item, equations up to a factor."""

from collections import Counter
from fractions import Fraction
from itertools import chain

from .items import INFINITY, MINUS_INFINITY, Group, Quantity, Relation, Unreadable, as_tree, is_name, negative
from .value import POINTS, equal, spend, value_at

compared_as_written = Counter()
"""How many comparisons, of answers or of values in them, were decided by their writing, by reason: too long,
unreadable, without value, too much work, too many (a whole vote)."""


def same(a, b):
    """Whether two readings are one answer. Raises TooMuchWork."""
    spend(2)
    if isinstance(a, str) or isinstance(b, str):
        compared_as_written["unreadable"] += 1
        return a == b
    if isinstance(a, Relation) and isinstance(b, Relation):
        return same_relation(a, b)
    if isinstance(b, Relation) or isinstance(b, Group) and isinstance(a, Quantity):
        a, b = b, a
    if isinstance(a, Relation):
        _, value = said(a)
        return value is not None and same(value, b)
    if isinstance(a, Quantity):
        return same_quantity(a, b)
    return same_group(a, b if isinstance(b, Group) else Group(a.kind, [b], a.ends))  # {5} is 5


def same_quantity(a, b):
    if a.word and a.word.casefold() == b.word.casefold():
        return True
    if a.word.isupper() and b.word.isupper():
        return False  # HHT is not THH, though ab is ba
    if a.marked == b.marked:
        return a.unit == b.unit and same_value(a, b)
    marked, bare = (a, b) if a.marked else (b, a)
    if marked.unit in bare.variables:  # 5 m, read as a product, and 5\text{ m}
        bare = Quantity(("*", bare.tree, ("^", marked.unit, Fraction(-1))))
    return same_value(marked, bare, marks_count=False) or not marked.unit and same_value(marked, bare)


def same_value(a, b, marks_count=True):
    """Whether two trees are equal: as they are written, or in all values that they have."""
    rounding = 0.0 if a.variables or b.variables else max(a.rounding, b.rounding)
    rational = isinstance(a.tree, Fraction) and isinstance(b.tree, Fraction)
    if a.tree == b.tree and marks_count or rational and not rounding:
        return a.tree == b.tree  # what most pairs in a vote are
    return all(equal(one, other, rounding) for one, other in values(a, b, marks_count))


def values(a, b, marks_count=True):
    """Yields the values of two quantities at each point where both are real. Where less than two of these are found,
    those where they have complex values follow; if these are less than two as well, so do 0 and 1, which differ."""
    points, least = (range(POINTS), 2) if a.variables or b.variables else (range(1), 1)
    for real in (True, False):
        met = 0
        for point in points:
            spend(1)
            one, other = (value_at(quantity, point, marks_count, real) for quantity in (a, b))
            if one is not None and other is not None:
                yield one, other
                met += 1
        if met >= least:
            return
    compared_as_written["without value"] += 1
    yield Fraction(0), Fraction(1)


def said(relation):
    """(name, what is said of it): (x, 5) for x = 5 and 5 = x, (x, (2, ∞)) for x > 2, (2 + 3, 5) for 2 + 3 = 5;
    (None, None) for other equations and inequalities."""
    left, right = relation.left, relation.right
    variables = any(isinstance(side, Quantity) and side.variables for side in (left, right))
    if relation.sign == "∈" or relation.sign == "=" and (is_name(left) or not variables):
        return left, right
    if relation.sign == "=" and is_name(right):
        return right, left
    if relation.sign in "<≤" and is_name(left) != is_name(right):
        closed = relation.sign == "≤"
        if is_name(left):
            return left, Group("tuple", [MINUS_INFINITY, right], "(]" if closed else "()")
        return right, Group("tuple", [left, INFINITY], "[)" if closed else "()")
    return None, None


def same_relation(a, b):
    """Whether they say the same of one name, or left - right of one is that of the other times a constant, which is
    positive for < and ≤."""
    (name, value), (other_name, other_value) = said(a), said(b)
    if name and other_name and same(name, other_name) and same(value, other_value):
        return True
    if a.sign != b.sign:
        return False
    try:
        top, bottom = (("+", as_tree(item.left), negative(as_tree(item.right))) for item in (a, b))
    except Unreadable:
        return False
    ratio = Quantity(("*", top, ("^", bottom, Fraction(-1))))
    ratios = (value for value, _ in values(ratio, ratio))
    first = next(ratios)
    return first != 0 and (a.sign in "=≠" or first.real > 0) and all(equal(value, first) for value in ratios)


def same_group(a, b):
    kinds = {a.kind, b.kind}
    if "union" in kinds:
        return in_any_order(parts_of(a), parts_of(b))
    if "tuple" in kinds:
        ends = {a.ends, b.ends} - ({"[]"} if "list" in kinds else set())  # a list may have square brackets
        return "set" not in kinds and (len(ends) == 1 or len(a.items) != 2) and in_order(a.items, b.items)
    named = [len({str(item.left) for item in group.items if isinstance(item, Relation)}) > 1 for group in (a, b)]
    if named[0] != named[1]:  # x = 1, y = 2 is 1, 2, but not 2, 1
        return in_order(a.items, b.items)
    return in_any_order(a.items, b.items)


def parts_of(group):
    """What a union is made of, the elements of its sets one by one."""
    if group.kind == "tuple":
        return [group]
    parts = (item.items if isinstance(item, Group) and item.kind != "tuple" else [item] for item in group.items)
    return [*chain(*parts)]


def in_order(a, b):
    return len(a) == len(b) and all(map(same, a, b))


def in_any_order(a, b):
    """Whether each item is found as often in both."""
    return len(a) == len(b) and all(sum(same(x, y) for y in a) == sum(same(x, y) for y in b) for x in a)
