"""Compares two readings: rational values exactly, other values at points, groups item by item."""

from collections import Counter
from fractions import Fraction

from .items import INFINITY, MINUS_INFINITY, Group, Quantity, Relation, is_name, structure
from .value import LARGEST, MP, POINTS, TooLarge, Work, number, value_at

compared_as_written = Counter()
"""How many comparisons, of answers or of values in them, were decided by their writing, by reason: too long,
unreadable, too large, too much work, too many (a whole vote)."""


def same(a, b):
    """Whether two readings are one answer. Raises TooMuchWork."""
    Work.spend(2)
    if isinstance(a, str) or isinstance(b, str):
        compared_as_written["unreadable"] += 1
        return a == b
    if isinstance(b, Relation) or isinstance(b, Group) and isinstance(a, Quantity):
        a, b = b, a
    if isinstance(a, Relation):
        if isinstance(b, Relation):
            return same_relation(a, b)
        value = assigned(a) if a.sign == "=" else as_set(a)
        return value is not None and same(value, b)
    if isinstance(a, Quantity):
        return same_quantity(a, b)
    if isinstance(b, Group):
        return same_group(a, b)
    return a.kind in ("set", "tuple", "list") and len(a.items) == 1 and same(a.items[0], b)


def same_quantity(a, b):
    if a.word and a.word.casefold() == b.word.casefold():
        return True
    if a.word.isupper() and b.word.isupper() and (len(a.word) > 2 or {*a.word} <= {*"IVX"}):
        return False  # HHT is not THH, though ab is ba
    if a.marked == b.marked:
        return a.unit == b.unit and same_value(a, b)
    marked, bare = (a, b) if a.marked else (b, a)
    if same_value(marked, bare, marks_count=False):
        return True
    if marked.unit in bare.needs:  # 5 m, read as a product, and 5\text{ m}
        return same_value(Quantity(("*", marked.tree, marked.unit)), bare)
    return not marked.unit and same_value(marked, bare)


def same_value(a, b, marks_count=True):
    """Whether two trees are equal: by their values, or by their writing where they have none."""
    rounding = 0 if a.needs or b.needs else max(a.rounding, b.rounding)
    rational = isinstance(a.tree, Fraction) and isinstance(b.tree, Fraction)
    if a.tree == b.tree and marks_count or rational and not rounding:
        return a.tree == b.tree  # what most pairs in a vote are
    met = met_real = differ = False
    for one, other, error in values(a, b, marks_count):
        real = all(isinstance(value, Fraction) or abs(value.imag) <= error for value in (one, other))
        if abs(one - other) > max(error, rounding):
            if real:
                return False
            differ = True  # which matters only if they are never real: elsewhere they may take other branches of a root
        met, met_real = True, met_real or real
    return met and (met_real or not differ) or structure(a.tree) == structure(b.tree)


def values(a, b, marks_count=True):
    """(value of a, value of b, error of either) of two quantities, at each point where both have one."""
    needs = {name: a.needs.get(name, set()) | b.needs.get(name, set()) for name in a.needs | b.needs}
    kinds = {name: "whole" if "whole" in need or "floor" in need and name[0] in "ijklmnopq" else  # n, but not x
             "positive" if "positive" in need else "any" for name, need in needs.items()}
    met = too_large = 0
    for index in range(POINTS if needs else 1):
        Work.spend(2)
        try:
            (one, error), (other, more) = (value_at(quantity, index, kinds, marks_count) for quantity in (a, b))
        except TooLarge:
            too_large += 1
            continue
        except (ArithmeticError, ValueError):
            continue
        if not (isinstance(one, Fraction) and isinstance(other, Fraction)):
            MP.prec = 2 * LARGEST
            one, other = number(one), number(other)
        yield one, other, error + more
        met += 1
        if met == 3 and not any(needs.values()):  # enough for what has neither steps nor roots
            return
    if too_large and not met:
        compared_as_written["too large"] += 1


# ---- relations

def assigned(relation):
    """What an equation says of a name: 5 for x = 5, 5 = x, f(2) = 5 and 2 + 3 = 5; None if it names nothing."""
    left, right = relation.left, relation.right
    if is_name(left) or not any(isinstance(side, Quantity) and side.needs for side in (left, right)):
        return right
    return left if is_name(right) else None


def as_set(relation):
    """What an inequality or a relation ∈ says a variable to be in: (2, ∞) for x > 2; None if it says no such thing."""
    left, right = relation.left, relation.right
    if relation.sign == "∈" and is_name(left):
        return right
    if relation.sign not in "<≤" or is_name(left) == is_name(right):
        return None
    if is_name(left):
        return Group("tuple", [MINUS_INFINITY, right], "(]" if relation.sign == "≤" else "()")
    return Group("tuple", [left, INFINITY], "[)" if relation.sign == "≤" else "()")


def same_relation(a, b):
    if a.sign != b.sign or a.sign == "∈":
        sets = [as_set(item) for item in (a, b)]
        names = [item.left if is_name(item.left) else item.right for item in (a, b)]
        return None not in sets and same(*names) and same(*sets)
    if same(a.left, b.left) and same(a.right, b.right):
        return True
    trees = [item.left.tree if isinstance(item.left, Quantity) else () for item in (a, b) if is_name(item.left)]
    if a.sign == "=" and [isinstance(tree, str) and "(" in tree for tree in trees] in ([True, False], [False, True]):
        return same(a.right, b.right)  # f(x) = 2x and y = 2x
    differences = a.difference, b.difference
    return None not in differences and proportional(*differences, positive=a.sign in "<≤")


def proportional(a, b, positive):
    """Whether a is b times a constant, which is positive where `positive`."""
    first = None
    for one, other, error in values(a, b) if a.needs and b.needs else ():
        x, y, uncertain = first = first or (one, other, error)
        if abs(one * y - other * x) > (error + uncertain) * (1 + abs(x) + abs(y)):
            return False
        if x == 0 or y == 0 or positive and MP.re(number(x)) * MP.re(number(y)) <= 0:
            return False
    return first is not None


# ---- groups

def same_group(a, b):
    kinds = {a.kind, b.kind}
    if "union" in kinds:
        return same_members(parts_of(a), parts_of(b))
    if "tuple" in kinds:
        ends = {group.ends if len(group.items) == 2 else "()" for group in (a, b) if group.kind == "tuple"}
        ends = ends if kinds == {"tuple"} else ends - {"[]"} | {"()"}  # a list may be written in brackets
        return "set" not in kinds and len(ends) == 1 and same_sequence(a.items, b.items)
    if same_sequence(a.items, b.items):
        return True
    if has_names(a.items) != has_names(b.items):  # x = 1, y = 2 is not 2, 1
        return False
    if "set" in kinds:
        return same_members(a.items, b.items)
    return len(a.items) == len(b.items) and all(  # two lists: in any order, each item as often
        sum(same(x, y) for y in a.items) == sum(same(x, y) for y in b.items) for x in a.items)


def parts_of(group):
    """The parts of a union, each element of a set for itself."""
    if not isinstance(group, Group) or group.kind == "tuple":
        return [group]
    if group.kind == "set":
        return [Group("set", [member]) for member in group.items]
    return [part for inner in group.items for part in parts_of(inner)]


def has_names(items):
    """Whether they say what each of several names is."""
    return len({str(item.left.tree) for item in items if isinstance(item, Relation) and item.sign == "="
                and isinstance(item.left, Quantity) and is_name(item.left)}) == len(items) > 1


def same_sequence(a, b):
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))


def same_members(a, b):
    """Whether each item is one of the others'."""
    return all(any(same(x, y) for y in b) for x in a) and all(any(same(x, y) for x in a) for y in b)
