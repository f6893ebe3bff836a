"""Compares two readings: rational values exactly, other values at points, groups item by item."""

from collections import Counter
from fractions import Fraction

from .latex import INFINITY, MINUS_INFINITY, Group, Relation, Unreadable, as_tree, is_name
from .value import LARGEST, MP, POINTS, Quantity, TooLarge, Work, negative, number, structure, value_at

compared_as_written = Counter()
"""How many comparisons, of answers or of values in them, were decided by their writing, by reason: too long, unreadable,
too large, too much work, too many (a whole vote)."""


def same(a, b):
    """Whether two readings are one answer. Raises TooMuchWork."""
    Work.spend(1)
    if isinstance(a, str) or isinstance(b, str):
        compared_as_written["unreadable"] += 1
        return isinstance(a, str) and isinstance(b, str) and a == b
    if isinstance(a, Relation) and isinstance(b, Relation):
        return same_relation(a, b)
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Relation):
            value = assigned(one) if one.sign == "=" else as_set(one)
            return value is not None and same(value, other)
    if isinstance(a, Quantity) and isinstance(b, Quantity):
        return same_quantity(a, b)
    if isinstance(a, Group) and isinstance(b, Group):
        return same_group(a, b)
    group, other = (a, b) if isinstance(a, Group) else (b, a)
    return group.kind in ("set", "tuple", "list") and len(group.items) == 1 and same(group.items[0], other)


# ---- quantities

def said(quantity):
    """The words it consists of, if it does."""
    name = quantity.tree if isinstance(quantity.tree, str) else ""
    return quantity.word.casefold() or (name.removeprefix("words ") if name.startswith("words ") else "")


def same_quantity(a, b):
    if said(a) and said(a) == said(b):
        return True
    if a.word.isupper() and b.word.isupper() and (len(a.word) > 2 or {*a.word} <= {*"IVX"}):  # HHT is not THH
        return a.word == b.word
    if a.marked == b.marked:
        return a.unit == b.unit and same_value(a, b)
    marked, bare = (a, b) if a.marked else (b, a)
    if same_value(marked, bare, marked=False):
        return True
    if marked.unit in bare.needs:  # 5 m, read as a product, and 5\text{ m}
        return same_value(Quantity(("*", marked.tree, marked.unit)), bare)
    return not marked.unit and same_value(marked, bare)


def same_value(a, b, marked=True):
    """Equality of two trees: exact where both are rational, else numeric; by their writing where either is too large."""
    if a.tree == b.tree and marked:
        return True
    rounding = 0 if a.needs or b.needs else max(a.rounding, b.rounding)
    if isinstance(a.tree, Fraction) and isinstance(b.tree, Fraction) and not rounding:
        return a.tree == b.tree  # what most pairs in a vote are
    met = met_real = differ = False
    for one, other, error in values(a, b, marked):
        real = max(abs(MP.im(one)), abs(MP.im(other))) <= error
        if abs(one - other) > max(error, rounding):
            if real:
                return False
            differ = True  # which matters only if they are never real: elsewhere they may take other branches of a root
        met, met_real = True, met_real or real
    return met and (met_real or not differ) or structure(a.tree) == structure(b.tree)


def values(a, b, marked=True):
    """(value of a, value of b, error of either) of two quantities, at each point where both have one."""
    needs = {name: need_of(name, a.needs.get(name, set()) | b.needs.get(name, set())) for name in a.needs | b.needs}
    plain = not any((*a.needs.values(), *b.needs.values()))
    met = too_large = 0
    for index in range(POINTS if needs else 1):
        try:
            one, other = (value_at(quantity, index, needs, marked) for quantity in (a, b))
        except TooLarge:
            too_large += 1
            continue
        if one and other:
            met += 1
            values, errors = zip(one, other)
            if not all(isinstance(value, Fraction) for value in values):
                MP.prec = 2 * LARGEST
                values = map(number, values)
            yield *values, sum(errors)
            if plain and met == 3:
                return
    if too_large and not met:
        compared_as_written["too large"] += 1


def need_of(name, needs):
    """What a variable must be: "whole", "positive" or "any". n is whole in a floor, x is not."""
    whole = "whole" in needs or "floor" in needs and name[0] in "ijklmnopq"
    return "whole" if whole else "positive" if "positive" in needs else "any"


# ---- relations

def assigned(relation):
    """What an equation says of a name: 5 for x = 5, 5 = x, f(2) = 5 and 2 + 3 = 5; None if it names nothing."""
    left, right = relation.left, relation.right
    if is_name(left) or not any(isinstance(side, Quantity) and side.needs for side in (left, right)):
        return right
    return left if is_name(right) else None


def as_set(relation):
    """The set that a relation says a variable to be in: the interval (2, ∞) for x > 2; None where it says none."""
    left, right = relation.left, relation.right
    if relation.sign == "=":
        return None if assigned(relation) is None else Group("set", [assigned(relation)])
    if relation.sign == "∈":
        return right if is_name(left) else None
    if relation.sign == "≠" or is_name(left) == is_name(right):
        return None
    closed = relation.sign == "≤"
    if is_name(left):
        return Group("tuple", [MINUS_INFINITY, right], "(]" if closed else "()")
    return Group("tuple", [left, INFINITY], "[)" if closed else "()")


def is_function(item):
    """Whether it is f(x), of an f that is not known."""
    return isinstance(item, Quantity) and isinstance(item.tree, str) and "(" in item.tree


def subject(relation):
    """What a relation is about."""
    return relation.left if is_name(relation.left) else relation.right


def same_relation(a, b):
    if a.sign != b.sign or a.sign == "∈":
        one, other = as_set(a), as_set(b)
        return one is not None and other is not None and same(subject(a), subject(b)) and same(one, other)
    if same(a.left, b.left) and same(a.right, b.right):
        return True
    if a.sign == "≠" and same(a.left, b.right) and same(a.right, b.left):
        return True
    if a.sign == "=" and is_name(a.left) and is_name(b.left) and is_function(a.left) != is_function(b.left):
        return same(a.right, b.right)  # f(x) = 2x and y = 2x
    one, other = difference(a), difference(b)
    return None not in (one, other) and proportional(one, other, positive=a.sign in "<≤")


def difference(relation):
    """left - right, None where it is none of two expressions."""
    try:
        return Quantity(("+", as_tree(relation.left), negative(as_tree(relation.right))))
    except Unreadable:
        return None


def proportional(a, b, positive):
    """Whether a is b times a constant, which is positive where `positive`."""
    first = None
    if not (a.needs and b.needs):
        return False
    for one, other, error in values(a, b):
        x, y, uncertain = first = first or (one, other, error)
        if not abs(one * y - other * x) <= (error + uncertain) * (1 + abs(x) + abs(y)):
            return False
        if x == 0 or y == 0 or positive and MP.re(number(x)) * MP.re(number(y)) <= 0:
            return False
    return first is not None


# ---- groups

def same_group(a, b):
    kinds = {a.kind, b.kind}
    if "union" in kinds:
        return same_members(parts_of(a), parts_of(b))
    if "matrix" in kinds:
        if a.kind == b.kind:
            return same_sequence(a.items, b.items)
        matrix, other = (a, b) if a.kind == "matrix" else (b, a)
        rows = matrix.items
        flat = rows[0].items if len(rows) == 1 else [row.items[0] for row in rows if len(row.items) == 1]
        return other.kind == "tuple" and len(flat) == max(len(rows), len(rows[0].items)) and same_sequence(flat, other.items)
    if kinds == {"tuple"}:
        return (a.ends == b.ends or len(a.items) != 2) and same_sequence(a.items, b.items)
    if "tuple" in kinds:
        listed, pair = (a, b) if b.kind == "tuple" else (b, a)
        return listed.kind == "list" and pair.ends in ("()", "[]") and same_sequence(a.items, b.items)
    if same_sequence(a.items, b.items):
        return True
    if has_names(a.items) != has_names(b.items):  # x = 1, y = 2 is not 2, 1
        return False
    if "set" in kinds:
        return same_members(a.items, b.items)
    left = [*b.items]  # two lists: in any order, each item as often
    for x in a.items:
        i = next((i for i, y in enumerate(left) if same(x, y)), None)
        if i is None:
            return False
        del left[i]
    return not left


def parts_of(group):
    """The parts of a union, each element of a set for itself."""
    if group.kind == "union":
        return [part for inner in group.items for part in (parts_of(inner) if isinstance(inner, Group) else [inner])]
    return [Group("set", [member]) for member in group.items] if group.kind == "set" else group.items if group.kind == "list" else [group]


def has_names(items):
    """Whether they say what each of several names is."""
    return all(isinstance(item, Relation) and item.sign == "=" and isinstance(item.left, Quantity) and is_name(item.left)
               for item in items) and len({structure(item.left.tree) for item in items}) > 1


def same_sequence(a, b):
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))


def same_members(a, b):
    """Whether each item is one of the others'."""
    return all(any(same(x, y) for y in b) for x in a) and all(any(same(x, y) for x in a) for y in b)
