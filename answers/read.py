r"""Says what a text may say. Reads its tokens by recursive descent, in linear time."""

import re
from fractions import Fraction
from functools import lru_cache

from .clean import THOUSANDS, as_written, clean
from .items import (INFINITY, MARKS, MINUS_INFINITY, Group, Quantity, Relation, Unreadable, as_tree, is_name, is_whole,
                    negative, quotient)
from .tokens import ACCENTS, FACTORS, FUNCTIONS, RELATIONS, SYMBOLS, UNITS, tokens_of

DEEPEST = 40  # brackets, roots, ... within one another
MOST_POSTFIXES = 6  # powers, factorials and percent signs in a row
DECIMAL_COMMA = re.compile(r"[+-]?(?:0,[0-9]+|[0-9]+,(?:[0-9]{2}|[0-9]{4,}))")  # 1,2 is a list, and 1,234 is a number


@lru_cache(maxsize=4096)
def readings(text):
    """What a text may say: 1,234 is a number, and may be a list of two as well; 1/3 ≈ 0.33 says both."""
    if re.fullmatch(r"-?[0-9]{1,1000}", text):  # what most answers are
        return (Quantity(Fraction(int(text))),)
    cleaned = clean(text)
    grouped = THOUSANDS.sub(lambda number: number[0].replace(",", ""), cleaned)
    said = [cleaned]
    if grouped != cleaned and not re.search(r"^\{|[(\[]|\\[{l]", cleaned):
        said = [grouped] if ",0" in cleaned else [grouped, cleaned]
    if DECIMAL_COMMA.fullmatch(cleaned):
        said.append(cleaned.replace(",", "."))
    exact, approximately, _ = grouped.partition(r"\approx")
    if approximately and not re.fullmatch("[ A-Za-z]*", exact):
        said.append(exact.strip())
    return tuple(map(read, said))


def read(cleaned):
    """What a cleaned text says: a Quantity, Group or Relation, or a string, as it is written, if it cannot be read."""
    try:
        return read_tokens(tokens_of(cleaned))
    except (Unreadable, ValueError):  # ValueError: int("2", 99)
        return as_written(cleaned)


def read_tokens(tokens):
    """The Quantity, Group or Relation that tokens say."""
    if r"\pm" in tokens or r"\mp" in tokens:  # read with either sign: what it changes is said twice
        plus, minus = (read_tokens([signs.get(token, token) for token in tokens])
                       for signs in ({r"\pm": "+", r"\mp": "-"}, {r"\pm": "-", r"\mp": "+"}))
        if not isinstance(plus, Group) or plus.kind not in ("set", "list"):
            return Group("list", [plus, minus])
        return Group(plus.kind, [*plus.items, *(y for x, y in zip(plus.items, minus.items) if str(x) != str(y))])
    reader = Reader(tokens)
    reader.take("=")
    items = reader.items()
    if reader.token:
        raise Unreadable
    return items[0] if len(items) == 1 else Group("list", items)


class Reader:
    """Reads a list of tokens -> Quantity, Group or Relation. Raises Unreadable.

    One method for each level of the grammar, loosest first: items, statement, side, quantity, total, term, factor,
    atom. The last four give trees, or a Group that stands alone.
    """

    def __init__(self, tokens):
        self.tokens, self.at, self.depth = [*tokens, "", ""], 0, 0

    @property
    def token(self):
        """The next token, "" behind the last."""
        return self.tokens[self.at]

    def take(self, *tokens):
        """Goes past the next token and gives it, if it is one of these; else gives None."""
        if self.token in tokens:
            self.at += 1
            return self.tokens[self.at - 1]
        return None

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
        named = [is_name(side) for side in sides]
        if len(signs) > 1 and {*signs} == {"="} and not any(named[1:-1]):  # x = 2 + 3 = 5
            sides, signs = [sides[0], sides[-1]], ["="]
        if {*signs} <= {">", "≥"}:
            sides, signs = sides[::-1], ["<" if sign == ">" else "≤" for sign in reversed(signs)]
        if len(signs) < 2:
            return Relation(signs[0], *sides) if signs else sides[0]
        if not {*signs} <= {"<", "≤"} or named != [False, True, False]:
            raise Unreadable
        ends = ("[" if signs[0] == "≤" else "(") + ("]" if signs[1] == "≤" else ")")
        return Relation("∈", sides[1], Group("tuple", sides[::2], ends))

    def side(self):
        parts, _ = self.many(self.quantity, r"\cup")
        return Group("union", parts) if len(parts) > 1 else parts[0]

    def quantity(self):
        """A value and its unit, or words."""
        start = self.at
        if self.token[:1] == " " and len(self.token) > 2:
            words = "".join(self.words()).casefold().strip()
            return Quantity("words " + words, word=words)
        tree = self.total()
        if self.take(":"):
            tree = quotient(as_tree(tree), as_tree(self.total()))
        if isinstance(tree, Group):
            return tree
        written = self.tokens[start:self.at]
        word = "".join(written) if len(written) > 1 and "".join(written).isalpha() else ""
        names = [name.strip().casefold() for name in self.words("/", "^", "*")]
        names = [UNITS.get(name.removesuffix("s"), name.removesuffix("s")) or name for name in names if name not in "*^"]
        unit = " ".join(sorted(names, key=lambda name: name.strip("-").isdigit()))  # square inches as inches^2: in 2
        tree = ("*", tree, unit) if unit in MARKS else tree
        exact = rounding(written[-1]) if isinstance(tree, Fraction) else 0.0
        return Quantity(tree, "" if unit in (*MARKS, "rad") else unit, word, exact)

    def words(self, *signs):
        """The words that follow, with what stands behind a sign between or behind them."""
        words = []
        while self.token[:1] == " " or words and (self.token in signs or words[-1] == "/" and self.token.isalpha()):
            words.append(self.token)
            self.at += 1
            if words[-1] == "^":
                words.append(self.raw())
        return words

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
            if self.take("*"):
                factors.append(self.signed(self.factor))
            elif self.take("/"):
                factors[-1] = quotient(as_tree(factors[-1]), as_tree(self.signed(self.factor)))
            elif self.starts_factor():
                factors.append(self.factor())
                if self.tokens[start - 1][0].isdigit() and self.tokens[start][0].isdigit() and self.at == start + 1:
                    raise Unreadable  # two numbers side by side
            else:
                return joined("*", factors)

    def starts_factor(self):
        return self.token in FACTORS or self.token[:1].isdigit() or self.token.isalpha()

    def factor(self):
        """An atom with what follows it: powers, !, %, a degree sign, a number's base."""
        tree = self.atom()
        for _ in range(MOST_POSTFIXES):
            digits = self.tokens[self.at - 1]
            if self.take("^"):
                tree = ("^", as_tree(tree), self.exponent())
            elif self.take("!"):
                tree = ("!", as_tree(tree))
            elif mark := self.take("%", "°"):
                tree = ("*", as_tree(tree), mark)
            elif digits.isdigit() and self.take("_"):
                base = self.argument()
                if not is_whole(base) or base < 2:
                    raise Unreadable
                tree = ("+", tree, ("*", int(digits, int(base)) - tree, "base"))
            else:
                return tree
        raise Unreadable

    def exponent(self):
        self.depth += 1
        tree = as_tree(self.atom() if self.token in ("{", "(") else self.signed(self.factor))
        self.depth -= 1
        return tree

    def argument(self):
        r"""What \frac and _ take: a braced group or one token, where a token of a number is one digit."""
        if self.token[:1].isdigit() and len(self.token) > 1:
            self.tokens[self.at:self.at + 1] = self.token[0], self.token[1:]
        return as_tree(self.atom())

    def atom(self):
        token = self.token
        self.at += 1
        self.depth += 1
        if self.depth > DEEPEST or not token:
            raise Unreadable
        if token[0].isdigit():
            tree = number(token)
        elif token.isalpha() or token[0] == " " and len(token) == 2:
            tree = self.variable(token.strip())
        elif token in ("(", "[", "{", r"\{"):
            tree = self.bracket(token)
        elif token in FACTORS:
            tree = self.command(token[1:])
        else:
            raise Unreadable
        self.depth -= 1
        return tree

    def bracket(self, opener):
        items = [] if self.token in ("}", r"\}") else self.items()
        ends = opener + (self.take(")", "]", "}", r"\}") or "")
        if ends == r"\{\}" or ends == "{}" and len(items) != 1:  # braces that LaTeX does not print enclose a mere list
            return Group("list" if ends == "{}" else "set", items)
        if ends not in ("()", "[]", "(]", "[)", "{}"):
            raise Unreadable
        item, ends = items[0], "()" if ends == "{}" else ends
        if len(items) > 1 or ends in ("(]", "[)"):
            return Group("tuple", items, ends)
        if isinstance(item, Group) and item.kind == "tuple" and item.ends == "()":
            return item
        return item.tree if isinstance(item, Quantity) and not item.unit else Group("tuple", items, ends)

    def variable(self, name):
        """Its name with index and primes. f(x) is a variable as well."""
        while mark := self.take("'", "_"):
            name += mark + (self.raw() if mark == "_" else "")
        if name[0] in "fgh" and self.take("("):
            name += f"({','.join(str(as_tree(item)) for item in self.items())})"
            self.closed(")")
        return name

    def closed(self, closer, inner=None):
        """What stands before a closer."""
        if not self.take(closer):
            raise Unreadable
        return inner

    def raw(self):
        """One token, or all up to the closing brace, as a string."""
        start = self.at
        end = self.tokens.index("}", start) if self.token == "{" else start
        self.at = min(end + 1, len(self.tokens) - 2)
        return "".join(self.tokens[start:end + 1]).strip("{} ")

    def command(self, name):
        if name in ("frac", "binom"):
            top, bottom = self.argument(), self.argument()
            return quotient(top, bottom) if name == "frac" else ("binom", top, bottom)
        if name == "sqrt":
            degree = self.closed("]", as_tree(self.total())) if self.take("[") else 2
            return ("^", as_tree(self.atom()), Fraction(1, 2)) if degree == 2 else ("root", as_tree(self.atom()), degree)
        if name in ("lvert", "lfloor", "lceil"):
            return "abs" if name == "lvert" else name[1:], self.closed("\\r" + name[1:], as_tree(self.total()))
        if name == "matrix":  # the tuple of its rows; a vector is one tuple
            rows = self.closed(r"\end", self.many(self.items, r"\cr")[0])
            items = [row[0] if len(row) == 1 else Group("tuple", row) for row in rows]
            return Group("tuple", rows[0] if len(rows) == 1 else items)
        if name in FUNCTIONS:
            return self.function(name)
        if name in ("pi", "infty", "emptyset"):
            return {"pi": "π", "infty": "∞"}.get(name) or Group("set", [])
        if name in SYMBOLS:
            return self.variable("\\" + name)
        inner = self.raw()
        if (name, inner) == ("mathbb", "R"):
            return Group("tuple", [MINUS_INFINITY, INFINITY])
        return self.variable(f"{name.replace('overline', 'bar')} {inner}")

    def function(self, name):
        r"""\sin x, \sin^2 x, \sin^{-1} x, \log_2 n, \sin(x), and \sin 2x, which ends before the next function."""
        base, exponent = Fraction(10) if name == "log" else None, None  # log without a base is the decimal one
        while mark := self.take("_", "^"):
            base, exponent = (self.argument(), exponent) if mark == "_" else (base, self.exponent())
        bracketed = self.token in ("(", "{")
        factors = [self.atom() if bracketed else self.signed(self.factor)]
        while not bracketed and self.starts_factor() and self.token != "(" and self.token[1:] not in FUNCTIONS:
            factors.append(self.factor())
        inverse = exponent == -1 and "a" + FUNCTIONS[name] in FUNCTIONS.values()
        tree = (("a" if inverse else "") + FUNCTIONS[name], as_tree(joined("*", factors)))
        tree = quotient(tree, ("log", base)) if base else tree
        return tree if exponent is None or inverse else ("^", tree, exponent)


def joined(operation, parts):
    return (operation, *map(as_tree, parts)) if len(parts) > 1 else parts[0]


def number(string):
    """The value of 12, 1.25 or 4.5e33."""
    if len(string.lower().partition("e")[2]) > 4:
        raise Unreadable
    return Fraction(string)


def rounding(string):
    """Half of the last place of a decimal with six digits or more behind the point, and as many that count; else 0."""
    mantissa, _, exponent = string.lower().partition("e")
    places = len(mantissa.partition(".")[2]) - int(exponent or 0)
    return 10.0 ** -places / 2 if 6 <= places <= 300 and len(mantissa.replace(".", "").lstrip("0")) >= 6 else 0.0
