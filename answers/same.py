"""Compares two readings: quantities by their values, groups item by item, equations up to a factor."""

from collections import Counter
from fractions import Fraction

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
    return at_all_points(lambda one, other: equal(one, other, rounding), a, b, marks_count)


def at_all_points(holds, a, b, marks_count=True):
    """Whether holds(value of a, value of b) wherever both are real. Where less than two points are left, it must hold
    wherever both have complex values; False if these are less than two as well."""
    points, least = (range(POINTS), 2) if a.variables or b.variables else (range(1), 1)
    for real in (True, False):
        met = 0
        for point in points:
            spend(1)
            one, other = (value_at(quantity, point, marks_count, real) for quantity in (a, b))
            if one is not None and other is not None:
                if not holds(one, other):
                    return False
                met += 1
        if met >= least:
            return True
    compared_as_written["without value"] += 1
    return False


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
    try:
        top, bottom = (("+", as_tree(item.left), negative(as_tree(item.right))) for item in (a, b))
    except Unreadable:
        return False
    ratio, seen = Quantity(("*", top, ("^", bottom, Fraction(-1)))), []

    def is_constant(value, _):
        seen.append(value)
        return value != 0 and equal(value, seen[0]) and (a.sign in "=≠" or value.real > 0)

    return a.sign == b.sign and bool(ratio.variables) and at_all_points(is_constant, ratio, ratio)


def same_group(a, b):
    kinds = {a.kind, b.kind}
    if "union" in kinds:
        return same_members(parts_of(a), parts_of(b))
    in_order = len(a.items) == len(b.items) and all(map(same, a.items, b.items))
    if "tuple" in kinds:
        ends = {a.ends, b.ends} if kinds == {"tuple"} else {a.ends, b.ends} - {"[]"}  # a list may have square brackets
        return in_order and "set" not in kinds and (len(ends) == 1 or len(a.items) != 2)
    if in_order or has_names(a) != has_names(b):  # x = 1, y = 2 is not 2, 1
        return in_order
    if "set" in kinds:
        return same_members(a.items, b.items)
    return len(a.items) == len(b.items) and all(  # two lists: in any order, each item as often
        sum(same(x, y) for y in a.items) == sum(same(x, y) for y in b.items) for x in a.items)


def parts_of(group):
    """The parts of a union, each element of a set for itself."""
    if not isinstance(group, Group) or group.kind == "tuple":
        return [group]
    return [part for item in group.items for part in ([item] if group.kind == "set" else parts_of(item))]


def has_names(group):
    """Whether its items say what each of several names is."""
    return len({str(item.left) for item in group.items if isinstance(item, Relation)}) > 1


def same_members(a, b):
    """Whether each item is one of the others'."""
    return all(any(same(x, y) for y in b) for x in a) and all(any(same(x, y) for x in a) for y in b)
