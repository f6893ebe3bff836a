r"""Reads tokens of LaTeX and plain text by recursive descent, in linear time."""

from fractions import Fraction

from .items import (
    INFINITY,
    MARKS,
    MINUS_INFINITY,
    Group,
    Quantity,
    Relation,
    Unreadable,
    as_tree,
    is_name,
    is_whole,
    negative,
    quotient,
    structure,
)
from .tokens import ACCENTS, CLOSERS, FUNCTIONS, NO_FACTORS, OPENERS, RELATIONS, SYMBOLS, UNITS, number, rounding

DEEPEST = 40  # brackets, roots, ... within one another
MOST_POSTFIXES = 6  # powers, factorials and percent signs in a row
CONDITIONS = {"at", "if", "when", "where", "except", "unless"}  # undefined at x = 5
END = ("end", "")  # of all


def joined(operation, parts):
    return (operation, *map(as_tree, parts)) if len(parts) > 1 else parts[0]


class Reader:
    """Reads a list of tokens -> Quantity, Group or Relation. Raises Unreadable.

    One method for each level of the grammar, loosest first: items, statement, side, quantity, total, term, factor,
    atom. The last four give trees, or a Group that stands alone.
    """

    def __init__(self, tokens):
        self.tokens, self.at = tokens + [END] * 3, 0  # so that `peek` may look ahead
        self.depth = 0
        self.bars = False  # whether a | would close one

    def peek(self, ahead=0):
        return self.tokens[self.at + ahead]

    def next_is(self, *strings):
        return self.peek()[0] == "sign" and self.peek()[1] in strings

    def take(self, *strings):
        self.at += (found := self.next_is(*strings))
        return self.peek(-1)[1] if found else None

    def expect(self, *strings):
        if not self.take(*strings):
            raise Unreadable

    def many(self, read, *signs):
        """What is read once, and again behind each of the signs -> (parts, the signs between them)."""
        parts, between = [read()], []
        while sign := self.take(*signs):
            between.append(sign)
            parts.append(read())
        return parts, between

    def items(self):
        return self.many(self.statement, ",")[0]

    def statement(self):
        sides, signs = self.many(self.side, *RELATIONS)
        signs = [RELATIONS[sign] for sign in signs]
        if not signs:
            return sides[0]
        if {*signs} == {"="}:
            if len(sides) > 2 and all(map(is_name, sides[:-1])):  # x = y = 2
                return Group("list", [Relation("=", side, sides[-1]) for side in sides[:-1]])
            return Relation("=", sides[0], sides[-1])  # x = 2 + 3 = 5
        if {*signs} <= {">", "≥"}:
            sides, signs = sides[::-1], ["<" if sign == ">" else "≤" for sign in reversed(signs)]
        if len(signs) == 1:
            return Relation(signs[0], *sides)
        if not {*signs} <= {"<", "≤"} or [is_name(side) for side in sides] != [False, True, False]:
            raise Unreadable
        ends = ("[" if signs[0] == "≤" else "(") + ("]" if signs[1] == "≤" else ")")
        return Relation("∈", sides[1], Group("tuple", sides[::2], ends))

    def side(self):
        parts, _ = self.many(self.quantity, r"\cup")
        return Group("union", parts) if len(parts) > 1 else parts[0]

    def quantity(self):
        start = self.at
        if self.peek()[0] == "word":
            while self.peek()[0] in ("word", "letter", "number"):
                self.at += 1
            words = [string.casefold() for _, string in self.tokens[start:self.at]]
            if CONDITIONS & {*words}:
                raise Unreadable
            return Quantity("words " + " ".join(words), word=" ".join(words))
        tree = self.total()
        if self.take(":"):
            tree = quotient(as_tree(tree), as_tree(self.total()))
        if isinstance(tree, Group):
            return tree
        kinds, strings = zip(*self.tokens[start:self.at])
        word = "".join(strings) if {*kinds} == {"letter"} and len(kinds) > 1 else ""
        exact = rounding(strings[-1]) if kinds[-1] == "number" and isinstance(tree, Fraction) else 0.0
        unit = self.unit()
        tree = ("*", tree, unit) if unit in MARKS else tree
        return Quantity(tree, "" if unit in (*MARKS, "rad") else unit, word, exact)

    def unit(self):
        """The words behind a value, by their names in `UNITS`, powers last: square inches are `in 2`, as inches^2."""
        names = []
        while self.peek()[0] == "word" or names and self.next_is("/", "^", r"\cdot"):
            kind, name = self.peek()
            self.at += 1
            if name == "^":
                names.append(self.raw_group())
            elif name != r"\cdot":
                one = name.casefold().removesuffix("s")
                names.append(UNITS.get(name.casefold()) or UNITS.get(one) or one)
            if name in ("/", r"\cdot") and self.peek()[0] == "letter":  # m/s, of which s is not in a \text
                names.append(UNITS.get(self.peek()[1].casefold(), self.peek()[1]))
                self.at += 1
        return " ".join(sorted(names, key=lambda name: name.strip("-").isdigit()))

    def total(self):
        terms, signs = self.many(lambda: self.signed(self.term), "+", "-")
        return joined("+", [terms[0], *(negative(as_tree(term)) if sign == "-" else term
                                        for sign, term in zip(signs, terms[1:]))])

    def signed(self, read):
        minus = False
        while sign := self.take("+", "-"):
            minus ^= sign == "-"
        return negative(as_tree(read())) if minus else read()

    def term(self):
        factors = [self.factor()]
        while True:
            start = self.at
            if self.take("*", r"\times", r"\cdot", r"\ast"):
                factors.append(self.signed(self.factor))
            elif self.take("/", r"\div"):
                ratio = quotient(as_tree(factors.pop()), as_tree(self.signed(self.factor)))
                factors += ratio[1:] if isinstance(ratio, tuple) else [ratio]
            elif self.starts_factor():
                factors.append(self.factor())
                if self.tokens[start - 1][0] == self.tokens[start][0] == "number" and self.at == start + 1:
                    raise Unreadable  # two numbers side by side
            else:
                return joined("*", factors)

    def starts_factor(self):
        kind, string = self.peek()
        return kind in ("number", "letter", "begin") or kind == "sign" and string not in NO_FACTORS and (
            string in OPENERS or string == "|" and not self.bars or string[0] == "\\" and string[1:].isalpha())

    def factor(self):
        """An atom with what follows it: powers, !, %, a degree sign, a number's base."""
        tree = self.atom()
        for _ in range(MOST_POSTFIXES):
            written = self.peek(-1)[0] == "number" and is_whole(tree)
            if self.take("^", "**"):
                tree = ("^", as_tree(tree), self.exponent())
            elif self.take("!") and not self.next_is("!"):
                tree = ("!", as_tree(tree))
            elif mark := self.take("%", r"\%", "°"):
                tree = ("*", as_tree(tree), mark[-1])
            elif written and self.take("_"):
                base = self.argument()
                if not is_whole(base) or base < 2:
                    raise Unreadable
                tree = ("+", tree, ("*", int(str(tree), int(base)) - tree, "base"))
            else:
                return tree
        raise Unreadable

    def exponent(self):
        self.depth += 1
        tree = as_tree(self.atom() if self.next_is("{", "(") else self.signed(self.factor))
        self.depth -= 1
        return tree

    def argument(self):
        r"""What \frac, \sqrt and _ take: a braced group or one token, where a token of a number is one digit."""
        kind, string = self.peek()
        if kind == "number" and len(string) > 1:
            self.tokens[self.at:self.at + 1] = [("number", string[0]), ("number", string[1:])]
        return as_tree(self.atom())

    def atom(self):
        kind, string = self.peek()
        self.at += 1
        self.depth += 1
        if self.depth > DEEPEST or kind in ("end", "word"):
            raise Unreadable
        if kind != "sign":
            tree = {"number": number, "letter": self.variable, "begin": self.environment}[kind](string)
        elif string in OPENERS:
            tree = self.bracket(OPENERS[string])
        elif string in ("|", r"\lvert", r"\vert"):
            tree = ("abs", self.enclosed("|", r"\rvert", r"\vert"))
        elif string in (r"\lfloor", r"\lceil"):
            tree = (string[2:], self.enclosed(string.replace("l", "r", 1)))
        else:
            tree = self.command(string)
        self.depth -= 1
        return tree

    def enclosed(self, *closers):
        """The one expression up to a closer."""
        outer, self.bars = self.bars, "|" in closers
        tree = as_tree(self.total())
        self.expect(*closers)
        self.bars = outer
        return tree

    def bracket(self, opener):
        outer, self.bars = self.bars, False
        items = [] if self.next_is(*CLOSERS) else self.items()
        ends = opener + CLOSERS.get(self.take(*CLOSERS), "?")
        self.bars = outer
        if ends not in ("()", "(]", "[)", "[]", "{}", "<>", ""):
            raise Unreadable
        if opener == "{" or not opener and len(items) > 1:  # braces that LaTeX does not print enclose a mere list
            return Group("set" if opener else "list", items)
        ends = ends if opener in ("(", "[") else "()"
        item = items[0] if len(items) == 1 and ends in ("()", "[]") else None
        if isinstance(item, Group) and item.kind == "tuple" and item.ends == "()":
            return item
        return item.tree if isinstance(item, Quantity) and not item.unit else Group("tuple", items, ends)

    def variable(self, name):
        """Its name with index and primes. f(x), and I(0), which is not I times 0, are variables as well."""
        applied = self.peek()[1] == "(" and (name in "fgh" or self.peek(1)[0] == "number" and self.peek(2)[1] == ")")
        while mark := self.take("'", "_"):
            name += mark + (self.raw_group() if mark == "_" else "")
        if applied and self.take("("):
            name += f"({','.join(structure(as_tree(item)) for item in self.items())})"
            self.expect(")")
        return name

    def raw_group(self):
        """One token, or all up to the closing brace, as a string."""
        start = self.at
        end = self.tokens.index(("sign", "}"), start) if self.next_is("{") else start
        self.at = min(end + 1, len(self.tokens) - 3)
        return "".join(string for _, string in self.tokens[start:end + 1]).strip("{}")

    def environment(self, name):
        """A matrix as the tuple of its rows, a vector as one tuple, a system of equations as a list."""
        rows, system = [[]], name in ("cases", "aligned")
        while system or "matrix" in name or name == "array":
            rows[-1].append(self.statement())
            self.take(",")
            if self.take(r"\cr"):
                rows.append([])
            elif not self.take("&") and self.peek() != ("end", name):
                raise Unreadable
            if self.peek() == ("end", name):
                self.at += 1
                rows = [row for row in rows if row]
                items = [row[0] if len(row) == 1 else Group("tuple", row) for row in rows]
                return Group("list", items) if system else Group("tuple", rows[0] if len(rows) == 1 else items)
        raise Unreadable

    def command(self, command):
        name = command[1:]
        if name in ("frac", "binom"):
            top, bottom = self.argument(), self.argument()
            return quotient(top, bottom) if name == "frac" else ("binom", top, bottom)
        if name == "sqrt":
            degree = self.enclosed("]") if self.take("[") else None
            return ("root", self.argument(), degree) if degree else ("^", as_tree(self.atom()), Fraction(1, 2))
        if name in FUNCTIONS:
            return self.function(name)
        if name in ("pi", "infty", "emptyset", "varnothing"):
            return {"pi": "π", "infty": "∞"}.get(name) or Group("set", [])
        if name in SYMBOLS:
            return self.variable(command)
        if name not in ACCENTS:
            raise Unreadable
        inner = self.raw_group()
        if (name, inner) == ("mathbb", "R"):
            return Group("tuple", [MINUS_INFINITY, INFINITY])
        return self.variable(f"{name.replace('overline', 'bar')} {inner}")

    def function(self, name):
        r"""\sin x, \sin^2 x, \sin^{-1} x, \log_2 n, \sin(x), and \sin 2x, which ends before the next function."""
        base, exponent = Fraction(10) if name in ("log", "lg") else None, None  # log without a base is the decimal one
        while mark := self.take("_", "^", "**"):
            base, exponent = (self.argument(), exponent) if mark == "_" else (base, self.exponent())
        if self.next_is("(", "{", "["):
            inner = as_tree(self.atom())
            inner = ("*", inner, "°") if self.take("°") else inner
        else:
            factors = [self.signed(self.factor)]
            while self.starts_factor() and not self.next_is("(") and self.peek()[1][1:] not in FUNCTIONS:
                factors.append(self.factor())
            if factors[-1] == "π" and self.peek(1)[0] == "number" and self.take("/"):  # \cos \pi/3
                factors.append(("^", as_tree(self.factor()), Fraction(-1)))
            inner = as_tree(joined("*", factors))
        inverse = exponent == -1 and "a" + FUNCTIONS[name] in FUNCTIONS.values()
        tree = (("a" if inverse else "") + FUNCTIONS[name], inner)
        tree = quotient(tree, ("log", base)) if base else tree
        return tree if exponent is None or inverse else ("^", tree, exponent)
