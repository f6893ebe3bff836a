"""Compares two readings: quantities by their values, groups item by item, equations up to a factor."""

from collections import Counter
from fractions import Fraction

from .value import POINTS, Group, Quantity, Relation, Unreadable, as_tree, equal, is_name, negative, spend, value_at

INFINITY, MINUS_INFINITY = Quantity("∞"), Quantity(negative("∞"))

# The number of comparisons, of answers or of values in them, that were decided by their writing, by reason
compared_as_written = Counter()


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
    if a.word and b.word:  # ab is ba, but HHT is not THH
        return a.word.casefold() == b.word.casefold() or (a.word + b.word).islower() and same_value(a, b)
    if a.marked == b.marked:
        return a.unit == b.unit and same_value(a, b)
    marked, bare = (a, b) if a.marked else (b, a)
    if marked.unit in bare.variables:  # 5 m, read as a product, and 5\text{ m}
        bare = Quantity(("*", bare.tree, ("^", marked.unit, Fraction(-1))))
    return same_value(marked, bare, marks_count=False) or not marked.unit and same_value(marked, bare)


def same_value(a, b, marks_count=True):
    """Whether two trees are equal: as they are written, or in all values that they have."""
    if marks_count and a.tree == b.tree:
        return True
    rounding = max(a.rounding, b.rounding)
    if isinstance(a.tree, Fraction) and isinstance(b.tree, Fraction):  # what most pairs in a vote are
        return equal(a.tree, b.tree, rounding)
    return all(equal(one, other, rounding) for one, other in values(a, b, marks_count))


def values(a, b, marks_count=True):
    """Yields the values of two quantities at each point where both have one. If there are less than two of these, or
    none of two constants, 0 and 1 follow, which differ."""
    points, met = POINTS if a.variables or b.variables else 1, 0
    for point in range(points):
        spend(1)
        pair = [value_at(quantity, point, marks_count) for quantity in (a, b)]
        if None not in pair:
            met += 1
            yield pair
    if met < min(points, 2):
        compared_as_written["without value"] += 1
        yield Fraction(0), Fraction(1)


def said(relation):
    """(name, what is said of it): (x, 5) for x = 5 and 5 = x, (x, (2, ∞)) for x > 2, (2 + 3, 5) for 2 + 3 = 5;
    (None, None) for other equations and inequalities."""
    left, right, closed = relation.left, relation.right, relation.sign == "≤"
    variables = any(isinstance(side, Quantity) and side.variables for side in (left, right))
    if relation.sign == "∈" or relation.sign == "=" and (is_name(left) or not variables):
        return left, right
    if relation.sign == "=" and is_name(right):
        return right, left
    if relation.sign in "<≤" and is_name(left) and not is_name(right):
        return left, Group("tuple", [MINUS_INFINITY, right], "(]" if closed else "()")
    if relation.sign in "<≤" and is_name(right) and not is_name(left):
        return right, Group("tuple", [left, INFINITY], "[)" if closed else "()")
    return None, None


def same_relation(a, b):
    """Whether they say the same of one name, or their left - right are proportional, above 0 for < and ≤."""
    (name, value), (other_name, other_value) = said(a), said(b)
    if name and other_name and same(name, other_name) and same(value, other_value):
        return True
    if a.sign != b.sign or same(a.left, b.left) and same(a.right, b.right):
        return a.sign == b.sign
    try:
        top, bottom = (("+", as_tree(item.left), negative(as_tree(item.right))) for item in (a, b))
    except Unreadable:
        return False
    spend(10)
    ratio = Quantity(("*", top, ("^", bottom, Fraction(-1))))
    ratios = (value for value, _ in values(ratio, ratio))
    first = next(ratios)
    if first == 0 or a.sign in "<≤" and not first.real > 0:
        return False
    return bool(ratio.variables) and all(equal(value, first) for value in ratios)


def same_group(a, b):
    kinds = {a.kind, b.kind}
    in_order = len(a.items) == len(b.items) and all(map(same, a.items, b.items))
    if "tuple" in kinds:
        ends = {a.ends, b.ends} - ({"[]"} if "list" in kinds else set())  # a list may have square brackets
        return in_order and kinds <= {"tuple", "list"} and (len(ends) == 1 or len(a.items) != 2)
    named = [len({str(item.left) for item in group.items if isinstance(item, Relation) and item.sign == "="}) > 1
             for group in (a, b)]
    if in_order or named[0] != named[1]:  # x = 1, y = 2 is 1, 2, but not 2, 1
        return in_order
    return len(a.items) == len(b.items) and all(  # in any order, each item as often
        sum(same(x, y) for y in a.items) == sum(same(x, y) for y in b.items) for x in a.items)
