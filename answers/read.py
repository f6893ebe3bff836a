r"""Says what the text of an answer may mean. It is cut into tokens, and these are read by recursive descent, in linear
time. A token is a number, a letter, a sign, a command such as \frac, or a word, which starts with a space."""

import re
from fractions import Fraction
from functools import lru_cache

from .clean import GREEK, TEXT, THOUSANDS, UNWRAP, as_written, clean
from .value import MARKS, Group, Quantity, Relation, Unreadable, as_tree, is_name, negative, quotient

MOST_TOKENS = 400
FUNCTIONS = {name: name.replace("arc", "a") for name in (  # what mpmath calls them
    "sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan arccot arcsec arccsc exp log").split()} | {"ln": "log"}
SYMBOLS = [*GREEK, *("varepsilon vartheta varphi ell hbar nabla partial angle triangle cdots ldots dots").split()]
ACCENTS = "bar vec hat tilde dot ddot mathcal mathbb mathfrak".split()
RELATIONS = ["=", "<", ">", "≤", "≥", "≠", "∈"]
# Other ways to write a token. The names of functions and Greek letters need no backslash
ALIASES = {alias: token for token, aliases in {
    "=": r"\approx \equiv \simeq :=", "<": r"\lt", ">": r"\gt", "≤": r"\le \leq \leqslant <=", "∈": r"\in", "^": "**",
    "≥": r"\ge \geq \geqslant >=", "≠": r"\ne \neq !=", ",": "; & and or And Or", "*": r"\times \cdot \ast",
    "/": r"\div", "%": r"\%", "(": r"\langle", ")": r"\rangle", r"\lvert": r"\vert", r"\cup": "union U",
    r"\infty": "inf infinity oo", r"\bar": r"\overline", r"\emptyset": r"\varnothing", r"\log": r"\lg lg",
    r"\tan": r"\tg tg", r"\arctan": r"\arctg arctg", " dollar": r"\$", " euro": "€", " pound": "£", " rupee": "₹",
}.items() for alias in aliases.split()} | {name: "\\" + name for name in ("pi", "infty", "sqrt", *FUNCTIONS, *SYMBOLS)}
FACTORS = {"(", "[", "{", r"\{", *("\\" + name for name in (  # tokens that start a factor, as numbers and letters do
    *FUNCTIONS, *SYMBOLS, *ACCENTS, *"lvert lfloor lceil frac binom sqrt pi infty emptyset".split()))}

# The names of units; others have their own. Without \text, two or three letters are a unit only if they stand here
UNITS = {alias: unit for unit, aliases in {
    "%": "percent pct", "°": "deg degree", "dollar": "usd", "pound": "lb", "m": "meter metre", "cm": "centimeter",
    "mm": "millimeter", "km": "kilometer", "in": "inch inche", "ft": "foot feet", "yd": "yard", "mi": "mile",
    "g": "gram", "kg": "kilogram", "mg": "milligram", "l": "liter", "ml": "milliliter", "s": "second sec", "day": "",
    "min": "minute", "h": "hour hr", "h mi": "mph", "h km": "kmh", "rad": "radian", "2": "square sq", "3": "cubic",
}.items() for alias in (unit, *aliases.split())}

TOKEN = re.compile(
    rf"\s+|\\{TEXT} ?\{{(?P<content>(?:[^{{}}]|\^\{{-?[0-9]\}})*)\}}|\\boxed|(?P<letters>[A-Za-z]+)"
    r"|(?P<number>[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,4}(?![0-9]))?)"
    r"|(?P<sign>\\(?:[A-Za-z]+|.)|\*\*|<=|>=|!=|!!|:=|[!-~°€£₹])|(?P<unknown>.)", re.DOTALL)
UNIT = re.compile(r"[A-Za-z]+(?:\^?\{?-?[0-9]\}?)?(?: ?[/ ] ?[A-Za-z]+(?:\^?\{?-?[0-9]\}?)?)*")
WORDS = re.compile(r"[A-Za-z][A-Za-z'\". -]*")  # a \text{...} of words or, behind a number, a unit is no formula


def tokens_of(text):
    """The tokens of a text. Raises Unreadable if there are too many, or a character is unknown."""
    words = re.findall("[a-z]+", prose.lower()) if WORDS.fullmatch(prose := UNWRAP.sub(r"\1", text)) else []
    longer = [word for word in words if len(word) > 1 and not {word, word.removesuffix("x")} & {*ALIASES}]
    if len(longer) > 1 or any(len(word) > 3 for word in longer):  # a phrase, not a formula
        return [token for part in re.split(" (?:and|or) ", " ".join(words)) for token in (",", " " + part)][1:]
    tokens = []
    for token in TOKEN.finditer(text):
        kind, string = token.lastgroup, token[0]
        if kind == "content":
            content = token["content"].strip(" ~.")
            if WORDS.fullmatch(content) or tokens and UNIT.fullmatch(content):
                tokens += [ALIASES.get(run, " " + run) for run in re.findall("[A-Za-z]+|-?[0-9]", content)]
            else:
                tokens += tokens_of(content)
        elif string in ALIASES and (string != "U" or tokens):
            tokens.append(ALIASES[string])
        elif kind == "letters" and string[-1] == "x" and string[:-1] in ALIASES:  # sinx
            tokens += ALIASES[string[:-1]], "x"
        elif kind == "letters" and (len(string) > 3 or len(string) > 1 and tokens and string.lower() in UNITS):
            tokens.append(" " + string)
        elif kind:
            tokens += string if kind == "letters" else [string]  # a product of variables
        if len(tokens) > MOST_TOKENS or kind == "unknown":
            raise Unreadable
    return [token for i, token in enumerate(tokens) if token != "," or tokens[i - 1:i] != [","]]  # 1, 2, and 3


DEEPEST, MOST_POSTFIXES = 40, 6  # brackets, roots, ... within one another; powers, factorials, ... in a row
NAMED = {r"\pi": "π", r"\infty": "∞", r"\emptyset": Group("set", []),
             r"\mathbb R": Group("tuple", [Quantity(negative("∞")), Quantity("∞")])}
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
    if "±" in cleaned:  # read with either sign: what it changes is said twice
        plus, minus = (read(cleaned.translate({ord("±"): sign, ord("∓"): other})) for sign, other in ("+-", "-+"))
        if isinstance(plus, str) or isinstance(minus, str):
            return as_written(cleaned)
        if isinstance(plus, Group) and plus.kind in ("set", "list"):
            return Group(plus.kind, plus.items + [y for x, y in zip(plus.items, minus.items) if str(x) != str(y)])
        return Group("list", [plus, minus])
    try:
        reader = Reader(tokens_of(cleaned))
        reader.take("=")
        items, _ = reader.many(reader.statement, ",")
    except (Unreadable, ValueError):  # ValueError: int("2", 99)
        return as_written(cleaned)
    return as_written(cleaned) if reader.token else items[0] if len(items) == 1 else Group("list", items)


class Reader:
    """Reads a list of tokens. The grammar has a method for each level: statement, side, quantity, expression, factor,
    atom. The last three return trees, or a Group that stands alone. Raises Unreadable or ValueError."""

    def __init__(self, tokens):
        self.tokens, self.at, self.depth = [*tokens, "", "", ""], 0, 0  # so that one may look ahead

    @property
    def token(self):
        """The next token, "" behind the last."""
        return self.tokens[self.at]

    def take(self, *tokens):
        """The next token if it is one of these, and moves past it; else None."""
        found = self.token if self.token in tokens else None
        self.at += found is not None
        return found

    def many(self, read, *signs):
        """Reads a part, and another one behind each of the signs -> (parts, the signs between them)."""
        parts, between = [read()], []
        while sign := self.take(*signs):
            between.append(sign)
            parts.append(read())
        return parts, between

    def statement(self):
        """An equation, an inequality, a ∈ b, or only a side. 1 < x < 2 is x ∈ (1, 2)."""
        sides, signs = self.many(self.side, *RELATIONS)
        if {*signs} <= {">", "≥"}:
            sides, signs = sides[::-1], ["≤" if sign == "≥" else "<" for sign in reversed(signs)]
        named = [is_name(side) for side in sides]
        if len(signs) == 2 and {*signs} <= {"<", "≤"} and named == [False, True, False]:
            ends = "(["[signs[0] == "≤"] + ")]"[signs[1] == "≤"]
            return Relation("∈", sides[1], Group("tuple", sides[::2], ends))
        if len(signs) > 1 and ({*signs} != {"="} or any(named[1:-1])):  # x = 2 + 3 = 5 says 5, x = y = z is not read
            raise Unreadable
        return Relation(signs[0], sides[0], sides[-1]) if signs else sides[0]

    def side(self):
        parts, _ = self.many(self.quantity, r"\cup")
        return Group("union", parts) if len(parts) > 1 else parts[0]

    def quantity(self):
        """A value and its unit, or words."""
        start, names = self.at, []
        tree = None if self.token[:1] == " " and len(self.token) > 2 else self.expression()
        if self.take(":"):
            tree = quotient(as_tree(tree), as_tree(self.expression()))
        if isinstance(tree, Group):
            return tree
        written = self.tokens[start:self.at]
        while self.token[:1] == " " or names and self.take("/", "^", "*"):
            names.append(self.raw().casefold())
        if tree is None:
            return Quantity("words " + " ".join(names), word=" ".join(names))
        names = [name.removesuffix("s") or name for name in names if name != "per"]
        unit = " ".join(sorted(UNITS.get(name, name) for name in names))  # in any order: square inches, inches^2
        word = "".join(written) if len(written) > 1 and "".join(written).isalpha() else ""
        exact = rounding(written[-1]) if isinstance(tree, Fraction) else 0.0
        tree = ("*", tree, unit) if unit in MARKS else tree
        return Quantity(tree, "" if unit in (*MARKS, "rad") else unit, word, exact)

    def expression(self, level=0):
        """A sum (level 0), a product (1), the argument of a function without brackets (2), or a factor (3)."""
        minus = False
        while sign := self.take("+", "-"):
            minus ^= sign == "-"
        tree = negative(as_tree(self.factor())) if minus else self.factor()
        while True:
            start = self.at
            if level < 1 and self.token in ("+", "-"):
                tree = joined("+", tree, self.expression(1))  # the sign belongs to the next term
            elif level < 2 and self.take("*"):
                tree = joined("*", tree, self.expression(3))
            elif level < 2 and self.take("/"):
                tree = quotient(as_tree(tree), as_tree(self.expression(3)))
            elif (level < 2 or level == 2 and self.token != "(" and self.token[1:] not in FUNCTIONS) and (
                    self.token in FACTORS or self.token[:1].isalnum()):
                tree = joined("*", tree, self.factor())
                if self.at == start + 1 and (self.tokens[start - 1][0] + self.tokens[start][0]).isdigit():
                    raise Unreadable  # two numbers side by side
            else:
                return tree

    def factor(self):
        """An atom with what follows it: powers, !, %, a degree sign, a number's base."""
        tree = self.atom()
        for _ in range(MOST_POSTFIXES):
            digits = self.tokens[self.at - 1]
            if self.take("^"):
                minus, exponent = self.take("+", "-") == "-", as_tree(self.atom())
                tree = ("^", as_tree(tree), negative(exponent) if minus else exponent)
            elif self.take("!"):
                tree = ("!", as_tree(tree))
            elif mark := self.take("%", "°"):
                tree = ("*", as_tree(tree), mark)
            elif digits.isdigit() and self.take("_"):
                tree = ("+", tree, ("*", int(digits, int(self.raw())) - Fraction(digits), "base"))
            else:
                return tree
        raise Unreadable

    def atom(self):
        token, name = self.token, self.token[1:]
        self.at += 1
        self.depth += 1
        if self.depth > DEEPEST or not token:
            raise Unreadable
        if token[0].isdigit():
            tree = Fraction(token)
        elif token.isalpha() or name in SYMBOLS or token[0] == " " and len(token) == 2:
            tree = self.variable(token.strip())
        elif token in ("(", "[", "{", r"\{"):
            tree = self.bracket(token)
        elif token in NAMED:
            tree = NAMED[token]
        elif name in FUNCTIONS:
            tree = self.function(name)
        elif name in ("frac", "binom"):
            top, bottom = as_tree(self.atom()), as_tree(self.atom())
            tree = quotient(top, bottom) if name == "frac" else ("binom", top, bottom)
        elif name == "sqrt":
            degree, = self.enclosed("]") if self.take("[") else [Fraction(2)]
            tree = ("root", as_tree(self.atom()), as_tree(degree))
        elif name in ("lvert", "lfloor", "lceil"):
            inner, = self.enclosed("\\r" + name[1:])
            tree = ("abs" if name == "lvert" else name[1:], as_tree(inner))
        elif name in ACCENTS:
            name = f"{token} {self.raw()}"
            tree = NAMED.get(name) or self.variable(name)
        else:
            raise Unreadable
        self.depth -= 1
        return tree

    def enclosed(self, *closers):
        """The items up to a closing bracket, which may be none."""
        items = [] if self.token in closers else self.many(self.statement, ",")[0]
        if not self.take(*closers):
            raise Unreadable
        return items

    def bracket(self, opener):
        items = self.enclosed(")", "]", "}", r"\}")
        ends = opener + self.tokens[self.at - 1]
        if ends == r"\{\}" or ends == "{}" and len(items) != 1:  # braces that LaTeX does not print enclose a mere list
            return Group("list" if ends == "{}" else "set", items)
        if not items or ends not in ("()", "[]", "(]", "[)", "{}"):
            raise Unreadable
        ends = ends.replace("{}", "()")
        item = items[0] if len(items) == 1 and ends in ("()", "[]") else None
        if isinstance(item, Group) and item.kind == "tuple" and item.ends == "()":
            return item
        return item.tree if isinstance(item, Quantity) and not item.unit else Group("tuple", items, ends)

    def variable(self, name):
        """Its name with index and primes. f(x), and I(0), which is not I times 0, are variables as well."""
        while mark := self.take("'", "_"):
            name += mark + (self.raw() if mark == "_" else "")
        number_follows = self.tokens[self.at + 1].isdigit() and self.tokens[self.at + 2] == ")"
        if (name[0] in "fgh" or number_follows) and self.take("("):
            name += f"({','.join(str(as_tree(item)) for item in self.enclosed(')'))})"
        return name

    def raw(self):
        """One token, or all up to the closing brace, as a string."""
        start = self.at
        end = self.tokens.index("}", start) if self.token == "{" else start
        self.at = min(end + 1, len(self.tokens) - 3)
        return "".join(self.tokens[start:end + 1]).strip("{} ")

    def function(self, name):
        r"""\sin x, \sin^2 x, \sin^{-1} x, \log_2 n, \sin(x), and \sin 2x, which ends before the next function."""
        marks = {"_": Fraction(10)} if name == "log" else {}  # log without a base is the decimal one
        while mark := self.take("_", "^"):
            marks[mark] = as_tree(self.atom())
        inverse = marks.get("^") == -1 and "a" + FUNCTIONS[name] in FUNCTIONS.values()
        argument = self.atom() if self.token in ("(", "{") else self.expression(2)
        tree = (("a" if inverse else "") + FUNCTIONS[name], as_tree(argument))
        tree = quotient(tree, ("log", marks["_"])) if "_" in marks else tree
        return ("^", tree, marks["^"]) if "^" in marks and not inverse else tree


def joined(operation, one, other):
    """The sum or product of two trees. A long one is a single tuple."""
    one, other = as_tree(one), as_tree(other)
    return (*one, other) if isinstance(one, tuple) and one[0] == operation else (operation, one, other)


def rounding(string):
    """Half of the last place of a decimal with six digits or more behind the point, and as many that count; else 0."""
    mantissa, _, exponent = string.lower().partition("e")
    places = len(mantissa.partition(".")[2]) - int(exponent or 0)
    return 10.0 ** -places / 2 if 6 <= places <= 300 and len(mantissa.replace(".", "").lstrip("0")) >= 6 else 0.0
