r"""What a final answer is, when two answers are the same, and the majority of many. Knows nothing of models.

An answer is the text in the last `\boxed{...}`. It is read in three steps, each bounded by the length of what it reads:

    `clean`     takes off what does not change the value: $, \left, \dfrac, thin spaces, unicode dress, **bold**
    `Reader`    a recursive-descent reader of LaTeX and plain text; expressions become sympy trees that are never evaluated by
                sympy, and around them stand a Quantity (a tree and its unit), a Group (tuple, set, ...), a Relation
    `same`      compares two of those: rational values exactly, other values at seeded points, groups item by item

Nothing here can hang: a tree's size is bounded by `survey` before anything in it is computed, and what is too large to compute
(5^{5^{5^5}}) or cannot be read is compared as it is written. `compared_as_written` counts how often, and why. There is no
`eval`, no `simplify`, no timer and no thread, and no call into sympy that computes.
"""

import hashlib
import math
import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import NamedTuple

import sympy as sp
from mpmath import MPContext, fp
from sympy.core.function import AppliedUndef

BOX_WINDOW = 60_000  # characters at the end of a text that are searched for a box
LONGEST_READ = 2000  # characters of an answer that is read as mathematics
MOST_TOKENS = 400
DEEPEST = 40  # brackets within brackets
LARGEST_RATIONAL = 60_000  # bits of a number that is computed, by the bounds of `survey`
LARGEST = 1200  # |log2| of any other value that is computed
LARGEST_VARIABLE = 1.6, 4.6, 12  # |log2| at narrow, wide and far points
MOST_WORK = 240  # nodes visited to evaluate all of an answer once, the terms of its sums counted
MOST_TERMS = 24  # of a sum or product whose ends have variables
MOST_STEPS = 1500  # of a comparison: pairs of parts that are compared, and points where they are
MOST_STEPS_OF_VOTE = 60_000  # after which a vote compares the rest as they are written
MOST_COMPARED = 200  # different strings of one vote that are compared with one another

compared_as_written = Counter()
"""How many comparisons, of answers or of values in them, were decided by their writing, by reason: too long, unreadable, too
large, too many steps, too many (a whole vote)."""


# ---- the box

# \\ and \{ are tokens of their own, so that \\{ opens a group and \{ does not; some models double the backslash of \boxed
BOX_OR_BRACE = re.compile(
    r"(\\\\?f?box(?:ed)?\s*\{)|\\\\?f?box(?:ed)?\s+([-+]?\.?[0-9][^\s$]*|\\[a-z]+[^\s$]*|[A-Za-z](?![A-Za-z]))|\\[\\{}]|[{}]")


def extract_boxed(text):
    r"""The stripped content of the last complete `\boxed{...}`, `\fbox{...}` or `\boxed 5`; None if there is none, or nothing
    is in it.

    Last is the one that opens last, so the inner of two nested boxes. Complete is one whose braces balance; \{ and \} do not
    count. Only the last 60,000 characters are searched; time is linear in them.
    """
    text = text[-BOX_WINDOW:]
    opened, last, end = [], -1, -1
    for token in BOX_OR_BRACE.finditer(text):
        if token[0] == "{":
            opened.append(-1)
        elif token[0] == "}" and opened:
            start = opened.pop()
            if start > last:
                last, end = start, token.start()
        elif token[1]:
            opened.append(token.end())
        elif token[2]:
            last, end = token.start(2), token.start(2) + len(token[2].rstrip(".,;:"))
    return text[last:end].strip() or None  # -1:-1 cuts out nothing


# ---- taking the dress off

SIGNS = {"−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "∙": r"\cdot ",
         "÷": "/", "∕": "/", "⁄": "/", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
         "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "∞": r"\infty ",
         "π": r"\pi ", "√": r"\sqrt ", "∛": r"\sqrt[3] ", "°": r"^\circ ", "º": r"^\circ ",
         "′": "'", "’": "'", "ℝ": r"\mathbb{R}", "“": '"', "”": '"',
         "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
         "⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "％": "%",
         "\N{NO-BREAK SPACE}": " ", "\N{NARROW NO-BREAK SPACE}": " ", "\N{THIN SPACE}": " "}
GREEK = ("alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon phi "
         "varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega ell hbar mho odot aleph nabla partial "
         "angle triangle prime star dagger").split()
SIGNS |= {sign: rf"\{name} " for sign, name in zip("αβγδεζηθικλμνξρστυφχψωΓΔΘΛΞΣΦΨΩ", (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega").split(), strict=True)}
INVISIBLE = [0, 0xAD, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A)]
UNICODE = str.maketrans(SIGNS | dict.fromkeys(map(chr, INVISIBLE), ""))
SUPERSCRIPTS, SUBSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "₀₁₂₃₄₅₆₇₈₉"
RAISED = str.maketrans(SUPERSCRIPTS + SUBSCRIPTS, "0123456789+-n" + "0123456789")

# (?![A-Za-z]) so that \left does not cut \leftarrow
DRESS = re.compile(
    r"\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|quad|qquad|hfill|strut|space|big|bf|rm|it"
    r"|tiny|small|large|Large|LARGE|huge|Huge|underline|ensuremath|checkmark)(?![A-Za-z])\.?"
    r"|\\[;:> ()\[\]]|~|(?<!\\)\$|\\(?:hspace\*?|v?phantom|label|color|textcolor) ?\{[^{}]*\}|\bnp\.")
TEMPERATURE = re.compile(r"\^ ?(?:\\circ|\{ ?\\circ ?\}) ?(?:\\(?:text|mathrm) ?\{ ?([CF]) ?\}|([CF])(?![A-Za-z]))")
DEGREE = re.compile(r"\^ ?(?:\\circ|o(?![A-Za-z])|\{ ?(?:\\circ|o) ?\})|\\degree(?![A-Za-z])|\\circ$")
ROW_SPACE = re.compile(r"(\\\\)\[-?[0-9.]+ ?[a-z]{2}\]")  # \\[2pt]
NEXT_LINE = re.compile(r"\\\\(?=\s)|\\q?quad(?![A-Za-z])")  # between x = 1 and y = 2
LETTERED_DIGITS = re.compile(r"((?=[A-Z]*[0-9])[0-9]*[A-Z][0-9A-Z]*) ?_ ?\{?([123][0-9])\}?")  # 2A_{16}
INTEGER = re.compile(r"-?[0-9]{1,1000}")
PLAIN_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
DECIMAL = re.compile(r"[+-]*(?P<whole>[0-9]*)\.(?P<decimals>[0-9]+)(?:[eE]\{?(?P<exponent>[+-]?[0-9]{1,4})\}?)?")
POWER_OF_TEN = re.compile(r"(?:\\times|\\cdot|\*)10\^")
SPACED_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?")
GROUPED_DIGITS = re.compile(r"(?<![0-9.])[1-9][0-9]{0,2}(?:(?: ?\{ ?, ?\}|,\\!) ?[0-9]{3})+(?![0-9])")  # 1{,}000 is never a list
THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
DECIMAL_COMMA = re.compile(r"[+-]?(?:0,[0-9]+|[0-9]+,(?:[0-9]{2}|[0-9]{4,}))")  # 1,2 is a list, and 1,234 is a number
CHOOSE = re.compile(r"\{([^{}\\]*)\\(choose|over)(?![a-z])([^{}\\]*)\}")
BUILDER = re.compile(r"\\?\{ ?[a-zA-Z] ?(?:\\in ?\\mathbb ?\{?R\}? ?)?(?:\\mid|\||:|\\vert)(?![a-z])([^{}]*?)\\?\}")
ORDINAL = re.compile(r"([0-9]) ?(?:\^ ?\{? ?)?(?:\\text ?\{)?(?:st|nd|rd|th)(?![A-Za-z])\}{0,2}")
UNIT_SIGN = re.compile(r"(?<=[0-9}) ])\\(Omega|AA) *$|\\(mu) ?\\(?:text|mathrm) ?\{ ?")  # 10\,\Omega, \mu\mathrm{m}
UNIT_NAMES = {"mu": r"\text{micro", "Omega": r"\text{ohm}", "AA": r"\text{angstrom}"}
ANY_WHOLE = re.compile(r"(?<=[^ ,(]),? ?\(?(?:\\text ?\{[a-z ]*\})? ?[a-z] ?\\in ?\\mathbb ?\{? ?[ZN] ?\}?(?:\^\+)? ?\)?$")
CLOCK = re.compile(r"\b([aApP])\.m\b\.?")  # 3:30 p.m.
PREFACE = re.compile(r"^ *(?:\\text(?:bf|rm|it)? ?\{ ?)?(?:the )?(?:final )?answer"
                     r"(?:(?: is:?|:) ?\}? ?(?=[^} ])| +(?=[^A-Za-z} ]))", re.IGNORECASE)
PLAIN_AREA = re.compile(r"([0-9.,]+) ?([cdk]?m|ft|in)([²³])")  # 25m², where m is no variable
# (C) 12 is the option and not 12, but (A) and (B) are two
OPTION = re.compile(r"(?:[Oo]ption |[Cc]hoice )?\(?([A-Z])(?:[.:]|\)\.?|\) +(?!.*\b(?:[A-Z]|and|or)\b)[0-9A-Za-z].*)?")
LOOSE_SPACE = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])|(?<=[A-Za-z]) (?=[0-9])|(?<=[0-9]) (?=[A-Za-z])")


def clean(text):
    r"""The text without what only dresses it: unicode signs become LaTeX ones, $, \left, \displaystyle, thin spaces and
    emphasis go, fractions are all \frac. Time is linear in the text."""
    area = PLAIN_AREA.fullmatch(text.strip())
    if area:
        text = rf"{area[1]} \text{{{area[2]}}}{area[3]}"
    text = re.sub(f"[{SUPERSCRIPTS}]+", lambda run: "^{" + run[0].translate(RAISED) + "}", text)
    text = re.sub(f"[{SUBSCRIPTS}]+", lambda run: "_{" + run[0].translate(RAISED) + "}", text)
    text = text.translate(UNICODE)
    # In a matrix a doubled backslash ends a row, elsewhere one was escaped twice. \cr, so that no space looks escaped
    if re.search(r"(?<!\\)\\\\begin", text) or r"\\\\" in text:
        text = text.replace(r"\\", "\\")
    if r"\begin" not in text and text.count("=") > 1:
        text = NEXT_LINE.sub(", ", text)
    text = ROW_SPACE.sub(r"\1", text).replace(r"\\", r"\cr " if r"\begin" in text else "\\")
    text = GROUPED_DIGITS.sub(lambda number: re.sub("[^0-9]", "", number[0]), text)
    text = text.replace(r"\!", "").replace(r"\,", " ").replace("{,}", ",")
    text = CHOOSE.sub(lambda pair: rf"\{'binom' if pair[2] == 'choose' else 'frac'}{{{pair[1]}}}{{{pair[3]}}}", text)
    text = re.sub(r"\\(?:[dtcs]|nice)(frac|binom)(?![A-Za-z])", r"\\\1", DRESS.sub(" ", text))
    text = DEGREE.sub("°", TEMPERATURE.sub(r"\\text{degrees \1\2}", text))
    text = PREFACE.sub("", ORDINAL.sub(r"\1", CLOCK.sub(r"\1m", text)))
    text = UNIT_SIGN.sub(lambda sign: UNIT_NAMES[sign[1] or sign[2]], text)
    text = " ".join(text.split()).strip("*_ ").strip('"`').rstrip("\\").removesuffix(",").removesuffix(";")
    text = text.removesuffix(".").strip()
    text = ANY_WHOLE.sub("", re.sub(r"\(([0-9]+)\) ?_", r"\1_", text))  # k pi, k in Z; (101)_2
    builder = BUILDER.fullmatch(text)
    if builder:
        text = builder[1].strip()
    option = OPTION.fullmatch(UNWRAP.sub(r"\1", text))
    if option:
        return option[1]
    return text.replace(" ", "") if SPACED_THOUSANDS.fullmatch(text) else text


# ---- what is read

class Unreadable(Exception):
    """The text is no mathematics that `Reader` knows."""


@dataclass(eq=False)
class Quantity:
    """A sympy tree that was not evaluated, and its unit in words, if any. Percent, degrees and bases stand in the tree, as the
    symbols % and ° and the function base, because each may be missing on the other side: 50% is 0.5, and 50 too."""

    tree: sp.Basic
    unit: str = ""
    word: str = ""  # the letters, if it is nothing but letters: Yes is yes, though Y is not y
    rounding: Fraction = Fraction(0)  # half of the last place of a long decimal: 0.333333 is 1/3, but 0.3333 is not

    def __post_init__(self):
        self.traits, self.sizes, self.values, self.work = set(), {}, {}, 0
        self.size(0)
        self.marks = {t for t in self.traits if t in ("%", "°", "base")} | ({self.unit} if self.unit else set())
        self.variables = {t[1:] for t in self.traits if t[0] == "$"}

    def size(self, reach):
        """A bound of |log2| of its value at narrow (0), wide (1) or far points (2), see `survey`; infinite if it is too large to
        compute."""
        if reach not in self.sizes:
            try:
                bits, magnitude, self.work = survey(self.tree, self.traits, LARGEST_VARIABLE[reach])
                rational = not any(trait[0] == "$" or trait in ("irrational", "°") for trait in self.traits)
                fits = max(bits, magnitude) <= LARGEST_RATIONAL if rational else magnitude <= LARGEST
                self.sizes[reach] = magnitude if fits else math.inf
                self.work /= 8 if rational else 1  # computed once, in whole numbers
            except OverflowError:
                self.sizes[reach] = math.inf
        return self.sizes[reach]

    @cached_property
    def times_unit(self):
        """Its product with the variable of its unit's name."""
        return Quantity(product([self.tree, sp.Symbol(self.unit)]))

    @property
    def said(self):
        """The words it consists of, if it does."""
        return self.word.casefold() or (self.tree.name[6:] if self.tree.is_Symbol and self.tree.name.startswith("words ") else "")


@dataclass(eq=False)
class Group:
    """kind: tuple, list (bare, with commas or "and"), ratio (three or more, each divided by the first), set, union, matrix
    (items are rows, of kind tuple), minus (of two sets) or chain (of two inequalities). ends: a tuple's brackets, as "(]"."""

    kind: str
    items: list
    ends: str = ""


@dataclass(eq=False)
class Relation:
    """left sign right; sign is = ∈ < ≤ or ≠ (a > b is read as b < a)."""

    sign: str
    left: object
    right: object

    @cached_property
    def difference(self):
        """left - right, None where it is none of two expressions."""
        try:
            return Quantity(sp.Add(as_tree(self.left), negative(as_tree(self.right)), evaluate=False))
        except Unreadable:
            return None


# ---- reading

FUNCTIONS = {name: getattr(sp, sympy_name) for name, sympy_name in dict(
    sin="sin", cos="cos", tan="tan", cot="cot", sec="sec", csc="csc", sinh="sinh", cosh="cosh", tanh="tanh", coth="coth",
    arcsin="asin", arccos="acos", arctan="atan", arccot="acot", arcsec="asec", arccsc="acsc", asin="asin", acos="acos",
    atan="atan", arcsinh="asinh", arccosh="acosh", arctanh="atanh", tg="tan", ctg="cot", arctg="atan", arcctg="acot").items()}
LOGARITHMS = {"ln": sp.E, "log": sp.Integer(10), "lg": sp.Integer(10)}  # log without a base is the decimal one
INVERSES = {sp.sin: sp.asin, sp.cos: sp.acos, sp.tan: sp.atan, sp.cot: sp.acot, sp.sec: sp.asec, sp.csc: sp.acsc,
            sp.sinh: sp.asinh, sp.cosh: sp.acosh, sp.tanh: sp.atanh}
RELATIONS = {"=": "=", r"\approx": "=", r"\equiv": "=", r"\simeq": "=", "<": "<", ">": ">", r"\lt": "<", r"\gt": ">",
             r"\le": "≤", r"\leq": "≤", r"\leqslant": "≤", r"\ge": "≥", r"\geq": "≥", r"\geqslant": "≥", r"\ne": "≠",
             r"\neq": "≠", r"\in": "∈", "<=": "≤", ">=": "≥", "!=": "≠", ":=": "=", "==": "="}
ACCENTS = r"\overline \bar \vec \hat \tilde \dot \ddot \widehat \overrightarrow \mathcal \mathbb \mathfrak \underline".split()
CLOSERS = {"(": ")", "[": "]", r"\{": r"\}", r"\langle": r"\rangle", "{": "}", r"\lbrace": r"\rbrace", r"\lbrack": r"\rbrack"}
NO_FACTORS = (r"\cup \cap \pm \mp \times \cdot \div \ast \rangle \rfloor \rceil \rvert \setminus \backslash \rbrace \mid \to \cr "
              r"\choose \over").split()
ENVIRONMENTS = ("pmatrix", "bmatrix", "matrix", "Bmatrix", "array", "smallmatrix", "vmatrix", "cases", "aligned")
NAMED = {"pi": r"\pi", "inf": r"\infty", "infty": r"\infty", "infinity": r"\infty", "oo": r"\infty", "sqrt": r"\sqrt",
         "exp": r"\exp", "abs": r"\abs", "union": r"\cup", "U": r"\cup"} | {
    name: "\\" + name for name in (*FUNCTIONS, *LOGARITHMS, *GREEK) if len(name) > 1}

# canonical unit: other ways of writing it. Only these are units without \text when shorter than four letters
UNITS = {alias: unit for unit, aliases in {
    "%": "percent pct percentage", "°": "deg degree degrees", "$": "usd dollar dollars buck bucks", "cent": "cents ¢",
    "euro": "euros eur", "pound": "pounds lb lbs", "cm": "centimeter centimeters centimetre centimetres",
    "mm": "millimeter millimeters millimetre millimetres", "km": "kilometer kilometers kilometre kilometres",
    "m": "meter meters metre metres", "in": "inch inches", "ft": "foot feet", "yd": "yard yards", "mi": "mile miles",
    "kg": "kilogram kilograms", "g": "gram grams", "mg": "milligram milligrams", "l": "liter liters litre litres",
    "ml": "milliliter milliliters", "s": "second seconds sec secs", "min": "minute minutes mins", "h": "hour hours hr hrs",
    "day": "days", "week": "weeks", "month": "months", "year": "years yr yrs", "mi / h": "mph", "km / h": "kmh kph",
    "rad": "radian radians", "unit": "units", "2": "square sq", "3": "cubic",
    "/": "per", "hz": "hertz", "mol": "mole moles", "oz": "ounce ounces",
    "j": "joule joules", "n": "newton newtons", "w": "watt watts", "v": "volt volts", "k": "kelvin", "pa": "pascal pascals",
    **dict.fromkeys("khz mhz ghz ev kev mev gev kj kw mw nm pm ms ns kpa".split(), ""),
}.items() for alias in (unit, *aliases.split())}
CURRENCIES = {r"\$": "$", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee"}
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
PHRASES = dict.fromkeys(("all real numbers", "all reals", "real numbers"), r"\mathbb{R}") | dict.fromkeys(
    ("no solution", "no solutions", "no real solutions", "empty set", "the empty set"), r"\emptyset")
MARKS = {"°": sp.Symbol("°"), "%": sp.Symbol("%")}  # units with a value
APPLIED = {name: sp.Function(name) for name in ("base", "root", "sum", "prod")}

TEXT = r"(?:text(?:bf|it|rm|sf|normal)?|math(?:rm|bf|it|sf)|mbox|hbox|operatorname|emph|boldsymbol|bm|rm|bf)\*?"
TOKEN = re.compile(
    rf"\s+|\\(?P<text>{TEXT}) ?\{{(?P<content>(?:[^{{}}]|\^\{{-?[0-9]\}})*)\}}"
    r"|\\begin ?\{ ?(?P<begin>[a-zA-Z]+)\*? ?\}(?: ?\{[lcr| ]*\})?|\\end ?\{ ?(?P<end>[a-zA-Z]+)\*? ?\}"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|(?P<letters>[A-Za-z]+)"
    r"|(?P<sign>\\(?:[A-Za-z]+|.)|\*\*|<=|>=|!=|==|:=|.)", re.DOTALL)
UNWRAP = re.compile(rf"\\{TEXT} ?\{{([^{{}}]*)\}}")
UNIT = re.compile(r"[A-Za-z]+(?:\^?-?[0-9])?(?: ?[/ ] ?[A-Za-z]+(?:\^?-?[0-9])?)*")
NO_NAME = re.compile(r"[=<>!:,;]|\\(?:text|mathrm|mbox|not|equiv|p?mod|le|ge|in)(?![a-z])|(?<![\\A-Za-z])[A-Za-z]{3}")
WORDS = re.compile(r"[A-Za-z][A-Za-z'\". -]*")


def tokens_of(text, inside=0):
    """The text as a list of (kind, string), kind one of number, letter, word, begin, end, sign. Raises Unreadable."""
    tokens = []
    for token in TOKEN.finditer(text):
        kind, string = token.lastgroup, token[0]
        if kind == "content":
            content = re.sub(r"\{(-?[0-9])\}", r"\1", token["content"]).strip(" ~.")
            tokens += text_tokens(token["text"], content, first=not tokens, inside=inside)
        elif kind == "letters":
            tokens += letter_tokens(string, first=not tokens)
        elif kind in ("begin", "end"):
            tokens.append((kind, token[kind]))
        elif kind and string not in (r"\boxed", r"\fbox"):
            tokens.append((kind, string))
        if len(tokens) > MOST_TOKENS:
            raise Unreadable
    return tokens


def text_tokens(command, content, first, inside):
    r"""What stands in \text{...}: words, a unit, an option letter; anything else is read as if it stood outside."""
    if WORDS.fullmatch(content) or not first and UNIT.fullmatch(content):
        runs = re.findall("[A-Za-z]+|[0-9/^-]", content)
        listing = {"and", "or"} & {*runs}
        if len(runs) == 1 and len(content) == 1 or listing:
            bare = first or listing or content in "eid" or command in ("mathbf", "boldsymbol", "operatorname")
        else:
            bare = False
        return [token for run in runs for token in (
            letter_tokens(run, False) if run in NAMED or run in ("and", "or") else
            [("letter" if len(run) == 1 and bare else "word" if run.isalpha() else "number" if run.isdigit() else "sign", run)])]
    if inside:
        raise Unreadable
    return tokens_of(content, inside=1)


def letter_tokens(run, first):
    """A run of letters: a function, `and`, a unit (not as the first of all), a word, or a product of variables."""
    if run.lower() in ("and", "or"):
        return [("sign", ",")]
    if run in NAMED and not (run == "U" and first):
        return [("sign", NAMED[run])]
    if run[-1] == "x" and run[:-1] in NAMED:  # sinx
        return [("sign", NAMED[run[:-1]]), ("letter", "x")]
    if len(run) > 3 or len(run) > 1 and not first and run.lower() in UNITS:
        return [("word", run)]
    return [("letter", letter) for letter in run]


def number(string):
    """The value written as 12, 1.25, .5 or 4.5e33, unevaluated if its exponent is large."""
    mantissa, _, exponent = string.lower().partition("e")
    whole, _, decimals = mantissa.partition(".")
    value = sp.Rational(int((whole + decimals) or "0"), 10 ** len(decimals)) if decimals else sp.Integer(int(whole or "0"))
    if not exponent:
        return value
    if len(exponent) > 12:
        raise Unreadable
    return product([value, power(sp.Integer(10), sp.Integer(int(exponent)))])


def power(base, exponent):
    return sp.Pow(base, exponent, evaluate=False)


def product(factors):
    return sp.Mul(*factors, evaluate=False) if len(factors) > 1 else factors[0]


def negative(tree):
    return -tree if tree.is_Rational else product([sp.S.NegativeOne, tree])


def quotient(top, bottom):
    if top.is_Integer and bottom.is_Integer and bottom != 0:
        return sp.Rational(top.p, bottom.p)  # lowest terms of two written integers
    return product([top, power(bottom, sp.S.NegativeOne)])


END = ("end", "")  # of all
POSTFIXES = {"^", "**", "!", "%", r"\%", "°", "_"}


class Reader:
    """Reads a list of tokens -> Quantity, Group or Relation. Raises Unreadable.

    One method for each level of the grammar, loosest first: answer, items, statement, side, quantity, total, term, factor,
    atom. Expressions between the last four are sympy trees; atom and above may give a Group instead.
    """

    def __init__(self, tokens):
        self.tokens, self.at, self.depth = tokens + [END] * 3, 0, 0  # so that `peek` may look ahead
        self.plus = True  # the sign that a \pm is read with
        self.split = False  # a \pm was met
        self.bars = 0  # open |
        self.i = sp.I  # what the letter i is: a symbol where it is an index
        self.work = 0  # of all quantities read, see `survey`

    def peek(self, ahead=0):
        return self.tokens[self.at + ahead]

    def next_is(self, *strings):
        kind, string = self.tokens[self.at]
        return kind == "sign" and string in strings

    def take(self, *strings):
        if self.next_is(*strings):
            self.at += 1
            return self.tokens[self.at - 1][1]
        return None

    def expect(self, *strings):
        if not self.take(*strings):
            raise Unreadable

    def answer(self):
        self.take("=", r"\approx")
        items = self.items(spread=True)
        if self.peek() != END:
            raise Unreadable
        return items[0] if len(items) == 1 else Group("list", items)

    def items(self, spread):
        r"""Statements between commas. Where `spread`, one with \pm becomes two; else it is left to who reads around it."""
        items = []
        while True:
            start, outer = self.at, self.split
            self.split = False
            items.append(self.statement())
            if self.split and spread and self.plus:
                end, self.at, self.plus = self.at, start, False
                items.append(self.statement())
                if self.at != end:
                    raise Unreadable
                self.plus = True
            self.split = outer or self.split and not spread
            if not self.take(",", ";"):
                return items
            while self.take(",", ";"):  # 1, 2, and 3
                pass

    def statement(self):
        sides, signs = [self.side()], []
        while self.peek()[0] == "sign" and self.peek()[1] in RELATIONS:
            signs.append(RELATIONS[self.take(*RELATIONS)])
            sides.append(self.side())
        if not signs:
            return sides[0]
        if all(sign == "=" for sign in signs):
            if len(sides) > 2 and all(map(is_name, sides[:-1])):  # x = y = 2
                return Group("list", [Relation("=", side, sides[-1]) for side in sides[:-1]])
            return Relation("=", sides[0], sides[-1])  # x = 2 + 3 = 5
        if len(signs) > 2 or len(signs) == 2 and not ({*signs} <= {"<", "≤"} or {*signs} <= {">", "≥"}):
            raise Unreadable
        pairs = [Relation({">": "<", "≥": "≤"}[sign], b, a) if sign in (">", "≥") else Relation(sign, a, b)
                 for sign, a, b in zip(signs, sides, sides[1:])]
        return pairs[0] if len(pairs) == 1 else Group("chain", pairs if signs[0] in ("<", "≤") else pairs[::-1])

    def side(self):
        parts = [self.quantity()]
        while self.take(r"\cup"):
            parts.append(self.quantity())
        if len(parts) > 1:
            return Group("union", parts)
        if self.take(r"\setminus", r"\backslash") or isinstance(parts[0], Group) and self.take("-"):
            return Group("minus", [parts[0], self.quantity()])
        return parts[0]

    def quantity(self):
        start, currency = self.at, self.take(*CURRENCIES)
        minus = not currency and self.peek(1)[1] in CURRENCIES and self.take("-")
        currency = currency or self.take(*CURRENCIES)
        if self.peek()[0] == "word":
            return Quantity(sp.Symbol("words " + self.words()))
        tree = self.total()
        if self.next_is(":"):
            parts = [tree]
            while self.take(":"):
                parts.append(self.total())
            if len(parts) > 2:
                return Group("ratio", [self.counted(Quantity(quotient(as_tree(part), as_tree(tree)))) for part in parts])
            tree = quotient(*map(as_tree, parts))
        if isinstance(tree, Group):
            return tree
        tree = negative(tree) if minus else tree
        while self.peek()[0] == "word" and self.peek()[1].casefold() in SCALES:
            tree = product([tree, power(sp.Integer(10), sp.Integer(SCALES[self.peek()[1].casefold()]))])
            self.at += 1
        currency = currency or self.take(*CURRENCIES)
        units = [CURRENCIES[currency]] if currency else self.unit()
        if len(units) == 1 and units[0] in MARKS:
            tree, units = product([tree, MARKS[units[0]]]), []
        elif units == ["rad"]:
            units = []
        letters = self.tokens[start:self.at]
        word = "".join(string for kind, string in letters) if all(kind == "letter" for kind, _ in letters) else ""
        return self.counted(Quantity(tree, " ".join(units), word if len(word) > 1 else "", self.rounding(letters)))

    @staticmethod
    def rounding(tokens):
        """Half of the last place of a lone decimal of six digits or more behind the point, and as many that count."""
        written = "".join(string for _, string in tokens)
        decimal = DECIMAL.fullmatch(POWER_OF_TEN.sub("e", written)) if "." in written else None
        if decimal:
            places = len(decimal["decimals"]) - int(decimal["exponent"] or 0)
            if 6 <= places <= 300 and len((decimal["whole"] + decimal["decimals"]).lstrip("0")) >= 6:
                return Fraction(1, 2 * 10 ** places)
        return Fraction(0)

    def words(self):
        words = []
        while self.peek()[0] in ("word", "letter", "number"):
            words.append(self.peek()[1].casefold())
            self.at += 1
        if {*words} & {"at", "if", "when", "where", "except", "unless"}:  # undefined at x = 5
            raise Unreadable
        return " ".join(words)

    def unit(self):
        """The words behind a value, in their canonical names, powers last: square inches are `in 2`, and so are inches^2."""
        names = []
        while self.peek()[0] == "word" or names and self.next_is("/", "^", r"\cdot"):
            sign = self.take("/", "^", r"\cdot")
            if sign == "^":
                names.append((self.take("-") or "") + self.raw_group())
                continue
            kind, name = self.peek()
            if kind not in ("word", "letter"):
                raise Unreadable
            self.at += 1
            alone = name.casefold().removesuffix("s")
            names += ["/"] if sign == "/" else []
            names.append(UNITS.get(name.casefold()) or UNITS.get(alone) or alone)
        return sorted(names, key=str.isdigit)

    def total(self):
        if self.depth > DEEPEST:
            raise Unreadable
        self.depth += 1
        terms = [self.signed_term()]
        while self.next_is("+", "-", r"\pm", r"\mp") and not (isinstance(terms[0], Group) and terms[0].kind != "matrix"):
            terms.append(self.signed_term())
        self.depth -= 1
        if len(terms) == 1:
            return terms[0]
        if any(isinstance(term, Group) for term in terms) and not all(isinstance(term, Group) for term in terms):
            raise Unreadable
        return self.entrywise(lambda *trees: sp.Add(*trees, evaluate=False), terms)

    def signed_term(self):
        minus = False
        while sign := self.take("+", "-", r"\pm", r"\mp"):
            self.split = self.split or sign in (r"\pm", r"\mp")
            minus ^= sign == "-" or sign == r"\pm" and not self.plus or sign == r"\mp" and self.plus
        tree = self.term()
        return self.entrywise(negative, [tree]) if minus else tree

    def term(self):
        factors = [self.factor()]
        while True:
            if self.take("*", r"\times", r"\cdot", r"\ast"):
                factors.append(self.signed_factor())
            elif self.take("/", r"\div"):
                bottom = as_tree(self.signed_factor())
                factors[-1] = quotient(as_tree(factors[-1]), bottom)
            elif self.starts_factor():
                factors.append(self.beside(factors))
            else:
                break
        if len(factors) == 1:
            return factors[0]
        if sum(isinstance(factor, Group) for factor in factors) > 1:
            raise Unreadable
        return self.entrywise(lambda *trees: product(trees), factors)

    def entrywise(self, operation, parts):
        """operation(*trees) of the parts; an entry for an entry where some are matrices, all of one shape."""
        matrices = [part for part in parts if isinstance(part, Group)]
        if not matrices:
            return operation(*map(as_tree, parts))
        shapes = {(part.kind, part.ends, *(len(row.items) for row in part.items)) for part in matrices if part.kind == "matrix"}
        if len(shapes) != 1 or any(part.kind != "matrix" for part in matrices):
            raise Unreadable

        def entry(i, j):
            return self.counted(Quantity(operation(*(
                as_tree(part.items[i].items[j] if isinstance(part, Group) else part) for part in parts))))

        return Group("matrix", [Group("tuple", [entry(i, j) for j in range(len(row.items))], row.ends)
                                for i, row in enumerate(matrices[0].items)], matrices[0].ends)

    def counted(self, quantity):
        self.work += quantity.work
        if self.work > MOST_WORK:
            raise Unreadable
        return quantity

    def signed_factor(self):
        minus = False
        while sign := self.take("+", "-"):
            minus ^= sign == "-"
        return negative(as_tree(self.factor())) if minus else self.factor()

    def starts_factor(self):
        kind, string = self.peek()
        return kind in ("number", "letter", "begin") or kind == "sign" and (
            string in "([{" or string in (r"\{", r"\langle") or string == "|" and not self.bars
            or string[0] == "\\" and string[1:].isalpha() and string not in RELATIONS
            and string not in NO_FACTORS)

    def beside(self, factors):
        r"""A factor without a sign before it. 1\frac45 and 3 1/2 are mixed numbers; two numbers side by side are nothing."""
        kind, string = self.peek()
        before = factors[-1]
        whole = self.tokens[self.at - 1][0] == "number" and isinstance(before, sp.Integer)
        if kind == "number":
            if not (whole and self.peek(1) == ("sign", "/") and self.peek(2)[0] == "number"):
                start, factor = self.at, self.factor()
                if self.at == start + 1 and self.tokens[start - 1][0] == "number" or not isinstance(before, sp.Basic):
                    raise Unreadable
                return factor
            top = number(string)
            self.at += 2
            part = quotient(top, as_tree(self.atom()))
        elif string == r"\frac" and whole:
            part = self.atom()
        else:
            return self.factor()
        if isinstance(part, sp.Rational) and 0 < part < 1:
            return self.postfixed(factors.pop() + part)  # two written numbers
        if kind == "number":
            raise Unreadable
        return self.postfixed(part)

    def factor(self):
        return self.postfixed(self.atom())

    def postfixed(self, tree):
        """The tree with what follows it: powers, !, %, a degree sign, a number's base."""
        while self.peek()[1] in POSTFIXES:
            if self.take("^", "**"):
                tree = self.raised(as_tree(tree))
            elif self.take("!"):
                if self.next_is("!"):
                    raise Unreadable
                tree = sp.factorial(as_tree(tree), evaluate=False)
            elif self.take("%", r"\%"):
                tree = product([as_tree(tree), MARKS["%"]])
            elif self.take("°"):
                tree = product([as_tree(tree), MARKS["°"]])
            elif isinstance(tree, sp.Integer) and self.tokens[self.at - 1][0] == "number" and self.take("_"):
                tree = APPLIED["base"](tree, as_tree(self.argument()))
            else:
                break
        return tree

    def raised(self, base):
        if self.depth > DEEPEST:
            raise Unreadable
        self.depth += 1
        if self.take("+"):
            exponent = as_tree(self.factor())
        elif self.take("-"):
            exponent = negative(as_tree(self.factor()))
        elif self.next_is("{", "("):
            exponent = as_tree(self.atom())
        else:
            exponent = as_tree(self.atom())
            if self.take("^", "**"):
                exponent = self.raised(exponent)
        self.depth -= 1
        return power(base, exponent)

    def argument(self):
        r"""What \frac, \sqrt and _ take: a braced group or one token, where a token of a number is one digit."""
        kind, string = self.peek()
        if kind == "number" and len(string) > 1:
            self.tokens[self.at:self.at + 1] = [("number", string[0]), ("number", string[1:])]
        return self.atom()

    def group_of(self, closer):
        """The one expression up to the closer."""
        tree = as_tree(self.total())
        self.expect(closer)
        return tree

    def atom(self):
        kind, string = self.peek()
        if (kind, string) == END:
            raise Unreadable
        self.at += 1
        if kind == "number":
            return self.repeating(string)
        if kind == "letter":
            return self.letter(string)
        if kind == "begin":
            return self.matrix(string)
        if kind != "sign":
            raise Unreadable
        if string in CLOSERS:
            return self.bracket(string)
        if string in ("|", r"\lvert", r"\vert"):
            self.bars += 1
            tree = as_tree(self.total())
            self.bars -= 1
            self.expect("|", r"\rvert", r"\vert")
            return sp.Abs(tree, evaluate=False)
        if string in (r"\lfloor", r"\lceil"):
            bars, self.bars = self.bars, 0
            tree = self.group_of(string.replace("l", "r", 1))
            self.bars = bars
            return (sp.floor if string == r"\lfloor" else sp.ceiling)(tree, evaluate=False)
        if string[0] == "\\":
            return self.command(string[1:])
        raise Unreadable

    def bracket(self, opener):
        if self.depth > DEEPEST:
            raise Unreadable
        if opener == r"\{" and self.peek()[0] == "begin" and ("sign", r"\}") not in self.tokens[self.at:]:
            system = self.atom()  # \left\{ \begin{array} ... \right.
            rows = system.items if system.kind == "matrix" else []
            return Group("list", [row.items[0] if len(row.items) == 1 else row for row in rows]) if rows else system
        self.depth += 1
        bars, self.bars = self.bars, 0
        closers = ")", "]", r"\}", "}", r"\rangle", r"\rbrace", r"\rbrack"
        items = [] if self.next_is(*closers) else self.items(spread=opener in ("[", r"\{", r"\lbrace"))
        closer = self.take(*closers)
        self.depth -= 1
        self.bars = bars
        if opener in ("(", "[", r"\lbrack") and closer in (")", "]", r"\rbrack"):
            ends = ("(" if opener == "(" else "[") + (")" if closer == ")" else "]")
        elif closer == CLOSERS[opener]:
            ends = "()"
        else:
            raise Unreadable
        if opener in (r"\{", r"\lbrace"):
            return Group("set", items)
        if opener == "{" and len(items) > 1:  # braces that LaTeX does not print
            return Group("list", items)
        if len(items) != 1:
            return Group("tuple", items, ends)
        item = items[0]
        if isinstance(item, Group) and (item.kind == "tuple" and ends == "()" or item.kind == "matrix" and ends in ("()", "[]")):
            return item
        return item.tree if isinstance(item, Quantity) and not item.unit and ends in ("()", "[]") else Group("tuple", items, ends)

    def repeating(self, string):
        r"""A number; 0.1\overline{6} is the exact 1/6."""
        if "." not in string or not self.take(r"\overline", r"\bar"):
            return number(string)
        digits = self.raw_group()
        if not digits.isdecimal():
            raise Unreadable
        return number(string) + sp.Rational(int(digits), (10 ** len(digits) - 1) * 10 ** len(string.partition(".")[2]))

    def letter(self, name):
        applied = self.peek()[1] == "(" and (name in "fgh" or self.peek(1)[0] == "number" and self.peek(2)[1] == ")")
        name = self.decorated(name)
        if applied:  # f(x), and I(0), which is not I times 0
            self.expect("(")
            items = self.items(spread=False)
            self.expect(")")
            return sp.Function(name)(*(as_tree(item) for item in items))
        return {"e": sp.E, "i": self.i}.get(name) or sp.Symbol(name)

    def decorated(self, name):
        """The name of a variable with its index and primes."""
        while True:
            if self.take("'"):
                name += "'"
            elif self.next_is("^") and (self.peek(1)[1] == r"\prime" or self.peek(2)[1] == r"\prime" and self.peek(1)[1] == "{"):
                while self.peek()[1] in ("^", "{", r"\prime", "}"):
                    name += "'" * (self.peek()[1] == r"\prime")
                    self.at += 1
            elif self.take("_"):
                name += "_" + self.raw_group()
            else:
                return name

    def raw_group(self):
        """One token, or all up to the closing brace, as a string."""
        if self.peek() == END:
            raise Unreadable
        if not self.take("{"):
            self.at += 1
            return self.tokens[self.at - 1][1]
        strings, open_braces = [], 1
        while open_braces:
            kind, string = self.peek()
            if self.peek() == END:
                raise Unreadable
            self.at += 1
            open_braces += (string == "{") - (string == "}")
            strings.append(string)
        return "".join(strings[:-1])

    def matrix(self, name):
        if name not in ENVIRONMENTS:
            raise Unreadable
        rows = [[]]
        while True:
            rows[-1].append(self.statement())
            if name in ("cases", "array", "aligned"):
                self.take(",")
            if self.take("&"):
                continue
            if self.take(r"\cr"):
                if self.peek() != ("end", name):
                    rows.append([])
                    continue
            if self.peek() != ("end", name):
                raise Unreadable
            self.at += 1
            if name in ("cases", "aligned"):
                return Group("list", [row[0] if len(row) == 1 else Group("tuple", row, "()") for row in rows])
            return Group("matrix", [Group("tuple", row, "()") for row in rows], name if name == "vmatrix" else "")

    def command(self, name):
        if name == "frac":
            return quotient(as_tree(self.argument()), as_tree(self.argument()))
        if name == "sqrt":
            if self.take("["):
                degree = self.group_of("]")
                return APPLIED["root"](as_tree(self.argument()), degree)
            return power(as_tree(self.atom()), sp.S.Half)
        if name == "binom":
            return sp.binomial(as_tree(self.argument()), as_tree(self.argument()), evaluate=False)
        if name in FUNCTIONS or name in LOGARITHMS or name in ("exp", "abs"):
            return self.function(name)
        if name in ("sum", "prod"):
            return self.series(name)
        if name == "pi":
            return sp.pi
        if name in ("infty", "emptyset", "varnothing"):
            return INFINITY.tree if name == "infty" else Group("set", [])
        if "\\" + name in ACCENTS:
            inner = self.raw_group()
            if (name, inner) == ("mathbb", "R"):
                return Group("tuple", [MINUS_INFINITY, INFINITY], "()")
            return sp.Symbol(self.decorated(f"{name.replace('overline', 'bar')} {inner}"))
        if name in ("imath", "cdots", "ldots", "dots"):
            return sp.I if name == "imath" else sp.Symbol("…")
        if name in GREEK:
            return sp.Symbol(self.decorated("\\" + name))
        raise Unreadable

    def function(self, name):
        r"""\sin x, \sin^2 x, \sin^{-1} x, \log_2 n, \sin(x), and \sin 2x, whose argument ends before the next function."""
        base = as_tree(self.argument()) if self.take("_") else None
        exponent = None
        if self.take("^", "**"):
            exponent = as_tree(self.argument() if not self.next_is("-") else self.signed_factor())
        if base is None and self.take("_"):
            base = as_tree(self.argument())
        if self.next_is("(", "{", "["):
            inner = as_tree(self.atom())
            if self.next_is("°"):
                self.at += 1
                inner = product([inner, MARKS["°"]])
        else:
            factors = [as_tree(self.signed_factor())]
            while self.starts_factor() and not self.next_is("(") and not self.next_is(
                    *("\\" + other for other in (*FUNCTIONS, *LOGARITHMS))):
                factors.append(as_tree(self.factor()))
            if factors[-1] == sp.pi and self.next_is("/") and self.peek(1)[0] == "number":  # \cos \pi/3
                self.at += 1
                factors[-1] = quotient(factors[-1], as_tree(self.factor()))
            inner = product(factors)
        if name == "exp":
            return power(sp.E, inner)
        if name == "abs":
            return sp.Abs(inner, evaluate=False)
        if name in LOGARITHMS:
            base = base or LOGARITHMS[name]
            tree = sp.log(inner, evaluate=False)
            tree = tree if base == sp.E else product([tree, power(sp.log(base, evaluate=False), sp.S.NegativeOne)])
        else:
            kind = FUNCTIONS[name]
            if exponent == sp.S.NegativeOne and kind in INVERSES:
                kind, exponent = INVERSES[kind], None
            tree = kind(inner, evaluate=False)
        return tree if exponent is None else power(tree, exponent)

    def series(self, name):
        r"""\sum_{k=a}^{b} of the term that follows."""
        self.expect("_")
        self.expect("{")
        outer = self.i
        if self.peek() == ("letter", "i"):
            self.i = sp.Symbol("i")
        start = self.statement()
        self.expect("}")
        self.expect("^")
        end = as_tree(self.argument())
        if not (isinstance(start, Relation) and start.sign == "=" and as_tree(start.left).is_Symbol):
            raise Unreadable
        body = as_tree(self.term())
        self.i = outer
        if any(start.left.tree.name in symbol.name.partition("_")[2] for symbol in body.free_symbols):  # x_k
            raise Unreadable
        return APPLIED[name](body, start.left.tree, as_tree(start.right), end)


def as_tree(item):
    """The tree of a value without unit. Raises Unreadable for anything else."""
    if isinstance(item, Quantity) and not item.unit:
        return item.tree
    if not isinstance(item, sp.Basic):
        raise Unreadable
    return item


# ---- sizes, before anything is computed

def survey(tree, traits, variable):
    """Bounds of what computing a tree would take -> (bits, magnitude, work); what it is made of is added to the set `traits`.

    bits: of its numerator and denominator, if it is rational; magnitude: |log2| of its value; work: the nodes visited.
    variable: the magnitude of a variable. Traits: %, ° and base; $x for each variable x; +x where it stands in a root, a
    logarithm or the base of an unknown power; #x where it must be whole (in a factorial, a power of a negative number, the end of
    a sum, and in a floor if x is one of i to q); signs (an absolute value or floor of variables); irrational.
    Raises OverflowError where a bound is beyond a float.
    """
    if tree.is_Rational:
        return tree.p.bit_length() + tree.q.bit_length(), abs(math.log2(abs(tree.p)) - math.log2(tree.q)) if tree.p else 0, 1
    if tree.is_Symbol:
        traits.add(tree.name if tree.name in ("%", "°") else "$" + tree.name)
        return 8, variable, 1
    if not tree.args:
        traits.add("irrational")
        return 2, 0 if tree is sp.I else 1.7, 1  # pi is below 2^1.7
    kind, name = tree.func, tree.func.__name__
    if name in ("sum", "prod"):
        return survey_series(tree, traits, variable)
    insides = [set() for arg in tree.args]
    bits, magnitudes, works = zip(*(survey(arg, inside, variable) for arg, inside in zip(tree.args, insides)))
    traits |= set().union(*insides)
    names = [{trait[1:] for trait in inside if trait[0] == "$"} for inside in insides]  # of the variables in each argument
    work = 1 + sum(works)
    if kind is sp.Add:
        return sum(bits), max(magnitudes) + math.log2(len(magnitudes)), work
    if kind is sp.Mul:
        return sum(bits), sum(magnitudes), work
    if kind is sp.Pow:
        base, exponent = tree.args
        if not exponent.is_Integer:
            traits.add("irrational")
        if names[1] and (base.args[0] if base.is_Mul else base) == sp.S.NegativeOne:
            traits |= marked("#", names[1])
        elif not exponent.is_Integer and (exponent.is_Rational or names[1]):
            traits |= marked("+", names[0])
        largest = abs(exponent.p / exponent.q) if exponent.is_Rational else 2.0 ** magnitudes[1]
        return bits[0] * largest, max(magnitudes[0], 1) * largest, work
    if kind in (sp.factorial, sp.binomial):
        traits |= marked("#", *names)
        top = 2.0 ** magnitudes[0]
        return (top + 1) * (magnitudes[0] + 1), (top + 1) * (magnitudes[0] + 1), work
    if name == "base":
        traits.add("base")
        return 4 * bits[0], 4 * bits[0], work
    traits.add("irrational")
    if name == "root":
        traits |= marked("+", *names)
        return sum(bits), max(magnitudes[0], 1) * 2.0 ** magnitudes[1], work
    if kind in (sp.floor, sp.ceiling):
        traits |= {trait for trait in marked("#", *names) if trait[1] in "ijklmnopq"}
    if names[0] and kind in (sp.Abs, sp.floor, sp.ceiling):
        traits.add("signs")
    if kind is sp.log:
        traits |= marked("+", *names)
    if max(magnitudes) > LARGEST:
        raise OverflowError
    if kind in (sp.sinh, sp.cosh):
        return sum(bits), 2.0 ** magnitudes[0] * 1.5, work
    if kind is sp.log:
        return sum(bits), math.log2(magnitudes[0] + 4), work
    return sum(bits), magnitudes[0] if kind in (sp.Abs, sp.floor, sp.ceiling) else 3, work


def marked(mark, *names):
    return {mark + name for name in set().union(*names)}


def survey_series(tree, traits, variable):
    """`survey` of a sum or product, whose body is as large as its index makes it."""
    body, index, start, end = tree.args
    at_ends, inside = set(), set()
    ends = [survey(bound, at_ends, variable) for bound in (start, end)]
    bits, magnitude, work = survey(body, inside, max(variable, *(magnitude for _, magnitude, _ in ends)))
    traits |= at_ends | inside - {mark + index.name for mark in "$+#"}
    if start.is_Integer and end.is_Integer:
        terms = max(end.p - start.p + 1, 1)
    else:
        traits |= marked("#", {trait[1:] for trait in at_ends if trait[0] == "$"})
        terms = MOST_TERMS
    return (bits * terms, magnitude * terms if tree.func is APPLIED["prod"] else magnitude + math.log2(terms),
            work * terms + sum(work for *_, work in ends))


INFINITY = Quantity(sp.Symbol("∞"))  # a variable to all but `between`
MINUS_INFINITY = Quantity(negative(INFINITY.tree))


# ---- computing

PRECISE = MPContext()
STEPS = (sp.floor, sp.ceiling, sp.factorial, sp.binomial)  # of whole numbers, or to them: no small error changes them
MOST = {fp: 1e300, PRECISE: PRECISE.ldexp(1, 2 * LARGEST)}  # a value beyond it has a pole nearby
METHODS = {"Abs": "fabs", "log": "ln"}  # what mpmath calls otherwise than sympy


class Exact:
    """The rationals, as far as `Point` needs an mpmath context of them. What is irrational raises AttributeError."""

    mpf, fabs = Fraction, abs

    @staticmethod
    def power(base, exponent):
        if exponent.denominator != 1:
            raise ValueError
        return base ** exponent.numerator

    @staticmethod
    def floor(value):
        return Fraction(math.floor(value))

    @staticmethod
    def ceil(value):
        return Fraction(math.ceil(value))


NEAR, ALL = 11, 15  # wide points, without and with the far ones


@lru_cache(maxsize=65536)
def draw_of(index, name):
    return int.from_bytes(hashlib.blake2b(f"{index} {name}".encode("utf-8", "replace"), digest_size=4).digest(), "big")


@lru_cache(maxsize=4096)
def turns_of(name):
    """The order in which a variable takes the scales and signs, or whole numbers, of the near points: another for each name."""
    return sorted(range(NEAR), key=lambda turn: draw_of(turn, name))


class Point:
    """Evaluates trees at one point in the numbers of a context (fp: floats; PRECISE: 50 digits or more; Exact) -> (value, bound
    of its error), where each step is taken to lose a part `loss` of its value. marked: % is 1/100, ° is pi/180 and 12_3 is five;
    else % and ° are 1 and 12_3 is 12."""

    def __init__(self, context, place, index, marked):
        self.context, self.place, self.index, self.marked = context, place, index, marked
        self.loss = {fp: 1e-10, PRECISE: PRECISE.mpf(2) ** (40 - PRECISE.prec)}.get(context, 0)
        self.bound = {}

    def __call__(self, tree):
        value, error = self.evaluate(tree)
        if not self.loss or tree.is_Symbol and tree.name != "°" or tree.is_Rational and tree.q & tree.q - 1 == 0:
            return value, error  # exact
        size = abs(value)
        if not size < MOST[self.context]:  # nor NaN
            raise ArithmeticError
        return value, error + self.loss * size

    def evaluate(self, tree):
        context, kind, name = self.context, tree.func, tree.func.__name__
        if tree.is_Rational:
            return context.mpf(tree.p) / tree.q, 0
        if tree.is_Symbol:
            return self.bound.get(tree.name) or (self.variable(tree.name), 0)
        if not tree.args:
            return {sp.pi: lambda: context.pi * 1, sp.E: lambda: context.e * 1, sp.I: lambda: context.mpc(0, 1)}[tree](), 0
        if name in ("sum", "prod"):
            return self.series(name, *tree.args)
        if name == "base":
            digits, base = tree.args
            return context.mpf(int(str(digits), int(base)) if self.marked else digits.p), 0
        values, errors = zip(*map(self, tree.args))
        if kind is sp.Add:
            return sum(values), sum(errors)
        if kind is sp.Mul:
            return self.multiply(values, errors)
        function = self.function(tree)
        value = function(*values)
        error = 0
        for i, (argument, uncertain) in enumerate(zip(values, errors)):  # how much the value moves within an argument's error
            if uncertain and kind not in STEPS:
                error += abs(function(*values[:i], argument + uncertain, *values[i + 1:]) - value)
        return value, error

    @staticmethod
    def multiply(values, errors):
        if not any(errors):
            return math.prod(values), 0
        value, size, most = values[0], abs(values[0]), abs(values[0]) + errors[0]
        for factor, error in zip(values[1:], errors[1:]):
            value, size, most = value * factor, size * abs(factor), most * (abs(factor) + error)
        return value, most - size

    def function(self, tree):
        context, kind, name = self.context, tree.func, tree.func.__name__
        if kind is sp.Pow or kind in (sp.sinh, sp.cosh):
            function = context.power if kind is sp.Pow else getattr(context, name)
            return lambda *values: function(*values) if abs(values[-1]) < 1e6 else 1 // 0  # bounded even after a division by ~0
        if kind in (sp.factorial, sp.binomial):
            count = math.factorial if kind is sp.factorial else math.comb
            return lambda *values: context.mpf(count(*map(self.whole, values)))
        if kind in (sp.floor, sp.ceiling):
            nudge = {fp: 1e-9, PRECISE: 1e-40}.get(context, 0)  # 3/5 * 5 is not quite 3
            return lambda value: context.floor(value + nudge) if kind is sp.floor else context.ceil(value - nudge)
        if name == "root":
            return self.root
        if isinstance(tree, AppliedUndef):  # an unknown function is one smooth function of its own
            shift = self.variable(name)
            return lambda *values: context.cos(sum((n + 2) * value for n, value in enumerate(values))) + shift
        function = getattr(context, METHODS.get(name, name))
        return lambda *values: function(*values) if all(  # of a complex number, which grows as a power does
            not context.im(value) or abs(value) < 1e6 for value in values) else 1 // 0

    def whole(self, value):
        """The whole number that a value is, up to rounding. Raises ArithmeticError if it is none, or above 3,000."""
        nearest = round(self.context.re(value)) if self.loss else value.numerator
        if abs(value - nearest) > 1e-9 or nearest > 3000:
            raise ArithmeticError
        return nearest

    def root(self, radicand, degree):
        """The real root of a negative number, if there is one."""
        context = self.context
        if abs(degree) < 1e-6:
            raise ArithmeticError
        if context.im(radicand) == 0 and context.re(radicand) < 0 and degree == context.floor(degree) and degree % 2 == 1:
            return -context.power(-radicand, 1 / degree)
        return context.power(radicand, 1 / degree)

    def variable(self, name):
        """Where the point has this variable: by its name, so that it is the same for both trees."""
        if name == "%":
            return self.context.mpf(1) / (100 if self.marked else 1)
        if name == "°":
            return self.context.pi / 180 if self.marked else self.context.mpf(1)
        draw = draw_of(self.index, name)
        if self.index >= NEAR:  # one of two far points, with either sign
            value, turn = self.context.mpf((32, 2048)[(self.index - NEAR) // 2] * (1 + draw % 1000 / 1000) // 1), self.index
        else:
            turn = turns_of(name)[self.index]
            if name in self.place.whole:
                return self.context.mpf(2 + turn)
            value = self.context.mpf(2**19 + draw % 2**20) / 2**19  # between 1 and 3
            value = value * 2 ** (turn // 2) / 4 if self.place.wide else value
        return -value if turn % 2 and name not in self.place.positive | self.place.whole else value

    def series(self, name, body, index, start, end):
        fixed = start.is_Integer and end.is_Integer
        (start, _), (end, _) = self(start), self(end)
        if start != int(start) or end != int(end) or not fixed and end - start >= MOST_TERMS:
            raise ArithmeticError
        outer, terms = dict(self.bound), []
        for k in range(int(start), int(end) + 1):
            self.bound[index.name] = self.context.mpf(k), 0
            terms.append(self(body))
        self.bound = outer
        if not terms:
            return self.context.mpf(name == "prod"), 0
        values, errors = zip(*terms)
        return self.multiply(values, errors) if name == "prod" else (sum(values), sum(errors))


FAILURES = (ArithmeticError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError, MemoryError)


def value_at(quantity, context, place, index, marked):
    """(value, bound of its error) of a quantity at a point; None where it has none, as 1/0, or is too large for the context."""
    key = context, place, index, marked
    if key not in quantity.values:
        if context is PRECISE:
            if quantity.size(place.wide) > LARGEST:
                return None
            PRECISE.prec = 170 + int(quantity.size(place.wide))  # 50 digits behind the point as well as in all
        try:
            value, error = Point(context, place, index, marked)(quantity.tree)
            # Where no digit is left, as at tan(pi/2), there is no value
            quantity.values[key] = None if error and error > 1e-3 * max(1, abs(value)) else (value, error)
        except FAILURES:
            quantity.values[key] = None
    return quantity.values[key]


class Place(NamedTuple):
    """Where quantities are compared. positive: the variables that must be, since they stand in roots and logarithms, whose
    branches nobody means. whole: those that are whole numbers, from 2 to 12. wide: whether the others are between 1/4 and
    24, so that signs and steps are met, or between 1 and 3. Where it can be computed, some points are far: up to 4,096."""

    positive: frozenset = frozenset()
    whole: frozenset = frozenset()
    wide: bool = False


@lru_cache(maxsize=4096)
def traits_of(text):
    """The traits of all quantities in all readings of a text."""
    return frozenset().union(*(quantity.traits for reading in readings(text) for quantity in quantities_in(reading)))


@lru_cache(maxsize=4096)
def place_of(traits):
    positive, whole = (frozenset(trait[1:] for trait in traits if trait[0] == mark) for mark in "+#")
    return Place(positive, whole, wide=bool(positive or whole or "signs" in traits))


def quantities_in(item):
    if isinstance(item, Quantity):
        yield item
    parts = item.items if isinstance(item, Group) else (item.left, item.right) if isinstance(item, Relation) else ()
    for part in parts:
        yield from quantities_in(part)


class Comparison:
    """Of the comparison in progress: the points, the same for all parts of both answers, so that each part has its values
    computed once; and how many steps are left, for nested groups would take any number."""

    place = Place()
    steps = 0


class TooMany(Exception):
    """A comparison has taken `MOST_STEPS` steps."""


def computable(a, b):
    wide = Comparison.place.wide
    return max(a.size(wide), b.size(wide)) < math.inf


def points(a, b, context, marked_a=True, marked_b=True):
    """Pairs of values of two quantities at seeded points, as (value of a, of b, error), where both have one."""
    place = Comparison.place
    count = 1 if not (a.variables or b.variables) else 3
    if count > 1 and place.wide:
        count = ALL if max(a.size(2), b.size(2)) < LARGEST else NEAR
        count = min(count, max(3, int(1200 / (a.work + b.work))))  # of long sums only a few
    for index in range(min(count, 2) if context is PRECISE else count):
        Comparison.steps -= 1
        one = value_at(a, context, place, index, marked_a)
        other = value_at(b, context, place, index, marked_b)
        if one and other:
            if context is PRECISE:
                PRECISE.prec = 170 + int(max(a.size(place.wide), b.size(place.wide)))
            yield one[0], other[0], one[1] + other[1]


def contexts(a, b):
    """Floats, where most that differ do so at the first point, and then 50 digits; only these beyond the largest float."""
    wide = Comparison.place.wide
    return (fp, PRECISE) if max(a.size(wide), b.size(wide)) < 900 else (PRECISE,)


# ---- sameness

def read(cleaned):
    """What a cleaned text says: a Quantity, Group or Relation, or a string, as it is written, if it cannot be read."""
    try:
        unwrapped = UNWRAP.sub(r"\1", cleaned)
        prose = unwrapped.lower()
        words = re.findall("[a-z]+", prose) if WORDS.fullmatch(prose) else []
        longer = [word for word in words if len(word) > 1 and not {word, word.removesuffix("x")} & (NAMED.keys() | {"and", "or"})]
        if prose in PHRASES:
            return read(PHRASES[prose])
        if digits := LETTERED_DIGITS.fullmatch(unwrapped):
            return Quantity(sp.Integer(int(digits[1], int(digits[2]))))
        if len(longer) > 1 or any(len(word) > 3 for word in longer):
            parts = re.split(" (?:and|or) ", " ".join(words))
            said = [Quantity(sp.Symbol("words " + part)) for part in parts]
            return Group("list", said) if len(said) > 1 else said[0]
        return Reader(tokens_of(cleaned)).answer()
    except (Unreadable, RecursionError, ValueError):  # ValueError: 2G_{16}
        name, sign, value = cleaned.rpartition("=")
        if sign and not NO_NAME.search(re.sub(r"\([^()]*\)", "", name)) and not isinstance(said := read(value), str):
            return Relation("=", Quantity(sp.Symbol("words " + as_written(name))), said)  # P(A|B) = 1/2
        return as_written(cleaned)


def as_written(cleaned):
    """A cleaned text without commands for text, braces around one sign, loose spaces and, where it is no formula, case."""
    unwrapped = re.sub(r"\{([0-9A-Za-z])\}", r" \1 ", UNWRAP.sub(r"\1", cleaned))
    unspaced = LOOSE_SPACE.sub("", " ".join(unwrapped.split()))
    return unspaced if "\\" in unspaced else unspaced.casefold()


def written_form(text):
    """The string that a text is compared by where it is not read: the value of a plain number of any length, else the text
    without dress, case and loose spaces. Time is linear in the text; a long one keeps all its dress but the outermost."""
    if len(text) > LONGEST_READ:
        for space in " \n\t\r":
            text = text.replace(space, "")
        text = text.strip("$").removeprefix(r"\(").removesuffix(r"\)").removeprefix(r"\[").removesuffix(r"\]")
    else:
        text = as_written(clean(text))
    if text[:1].isdigit() and "," in text and THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if PLAIN_NUMBER.fullmatch(text):
        whole, _, decimals = text.lstrip("+-").partition(".")
        whole, decimals = whole.lstrip("0") or "0", decimals.rstrip("0")
        sign = "-" if text[0] == "-" and (whole, decimals) != ("0", "") else ""
        text = sign + whole + ("." + decimals if decimals else "")
    return text


@lru_cache(maxsize=4096)
def readings(text):
    """What a text may say: 1,234 is a number, and may be a list of two as well; 1/3 ≈ 0.33 says both."""
    if INTEGER.fullmatch(text):  # what most answers are
        return (Quantity(sp.Integer(int(text))),)
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


def same_answer(a, b):
    """Whether two strings are one answer. Symmetric, deterministic, never raises.

    A unit, percent sign, degree sign or base that one side lacks is not missed, and so it is not transitive: 50% is 0.5 and 50.
    Texts of up to 2,000 characters are read, mostly within 0.1 ms, in some 50 at most; longer ones are compared as they are
    written, in linear time.
    """
    Comparison.steps = MOST_STEPS
    if a == b:
        return True
    a, b = sorted((a, b))  # the order of the arguments must not matter where an order is tried
    if len(b) > LONGEST_READ or len(a) > LONGEST_READ:
        compared_as_written["too long"] += 1
        return written_form(a) == written_form(b)
    Comparison.place = place_of(traits_of(a) | traits_of(b))
    try:
        return any(same(one, other) for one in readings(a) for other in readings(b))
    except TooMany:
        compared_as_written["too many steps"] += 1
        return written_form(a) == written_form(b)


def same(a, b):
    """Whether two results of `read` are one answer. Raises TooMany."""
    Comparison.steps -= 1
    if Comparison.steps < 0:
        raise TooMany
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


def same_quantity(a, b):
    if a.said and a.said == b.said:
        return True
    if a.word.isupper() and b.word.isupper() and (len(a.word) > 2 or {*a.word} <= {*"IVX"}):  # HHT is not THH, IV is not VI
        return a.word == b.word
    if bool(a.marks) == bool(b.marks):
        return a.unit == b.unit and same_value(a, b)
    marked, bare = (a, b) if a.marks else (b, a)
    if same_value(marked, bare, False, False):
        return True
    if marked.unit in bare.variables:  # 5 m, read as a product, and 5\text{ m}
        return same_value(marked.times_unit, bare)
    return not marked.unit and same_value(marked, bare)


def same_value(a, b, marked_a=True, marked_b=True):
    """Equality of two trees: exact where both are rational, else numeric; by their writing where either is too large."""
    if marked_a == marked_b and a.tree == b.tree:
        return True
    if a.tree.is_Rational and b.tree.is_Rational and not (a.rounding or b.rounding):
        return False  # what most pairs in a vote are
    if not computable(a, b):
        compared_as_written["too large"] += 1
        return structure(a.tree) == structure(b.tree)
    if not (a.variables or b.variables or {"irrational"} & (a.traits | b.traits)):
        one, other = value_at(a, Exact, Place(), 0, marked_a), value_at(b, Exact, Place(), 0, marked_b)
        if one and other:
            return abs(one[0] - other[0]) <= max(a.rounding, b.rounding)
    met = met_real = differ = False
    rounding = 0 if a.variables or b.variables else float(max(a.rounding, b.rounding))
    for context in contexts(a, b):
        for one, other, error in points(a, b, context, marked_a, marked_b):
            real = max(abs(context.im(one)), abs(context.im(other))) <= error
            if abs(one - other) > max(error, rounding):
                if real:
                    return False
                differ = True  # which matters only if they are never real: elsewhere they may take other branches of a root
            met, met_real = True, met_real or real
    return met and (met_real or not differ) or structure(a.tree) == structure(b.tree)


def structure(tree):
    """A string that two trees share when they differ in the order of sums and products only."""
    if not tree.args:
        return str(tree)
    parts = [structure(arg) for arg in tree.args]
    return f"{tree.func.__name__}({','.join(sorted(parts) if tree.func in (sp.Add, sp.Mul) else parts)})"


def assigned(relation):
    """What an equation says of a name: 5 for x = 5, 5 = x, f(2) = 5 and 2 + 3 = 5; None if it names nothing."""
    left, right = relation.left, relation.right
    if is_name(left) or not any(isinstance(side, Quantity) and side.variables for side in (left, right)):
        return right
    return left if is_name(right) else None


def is_function(item):
    """Whether it is f(x), of an f that is not known."""
    return isinstance(item, Quantity) and isinstance(item.tree, AppliedUndef) and item.tree.func.__name__ not in APPLIED


def is_name(item):
    if isinstance(item, Group):
        return item.kind == "tuple" and all(map(is_name, item.items))
    tree = item.tree if isinstance(item, Quantity) and not item.unit else None
    tree = tree.args[0] if isinstance(tree, sp.Abs) else tree  # |AB|
    return tree is not None and tree != INFINITY.tree and (tree.is_Symbol or is_function(item)
                                 or tree.is_Mul and all(factor.is_Symbol or factor.is_Pow and factor.args[0].is_Symbol
                                                        for factor in tree.args))  # AB, and x/y


def same_relation(a, b):
    if "∈" in (a.sign, b.sign) or a.sign != b.sign:
        one, other = as_set(a), as_set(b)
        return one is not None and other is not None and same(one, other)
    if same(a.left, b.left) and same(a.right, b.right):
        return True
    if a.sign == "=" and is_name(a.left) and is_name(b.left) and is_function(a.left) != is_function(b.left):
        return same(a.right, b.right)  # f(x) = 2x and y = 2x
    return None not in (a.difference, b.difference) and proportional(a.difference, b.difference, positive=a.sign in "<≤")


def proportional(a, b, positive):
    """Whether a is b times a constant, which is positive where `positive`."""
    if not (computable(a, b) and a.variables and b.variables):
        return False
    met = False
    for context in contexts(a, b):
        pairs = [*points(a, b, context)]
        for one, other, error in pairs:
            x, y, uncertain = pairs[0]
            if not abs(one * y - other * x) <= (error + uncertain) * (1 + abs(x) + abs(y)):
                return False
            if x == 0 or y == 0 or positive and context.re(x / y) <= 0:
                return False
            met = True
    return met


def as_set(item):
    """The set that a condition on one variable says: the interval (2, ∞) for x > 2; None where it says none."""
    if isinstance(item, Group) and item.kind == "chain":
        first, last = item.items
        if is_name(first.right) and not is_name(first.left) and not is_name(last.right):
            ends = ("[" if first.sign == "≤" else "(") + ("]" if last.sign == "≤" else ")")
            return Group("tuple", [first.left, last.right], ends)
    if isinstance(item, Group) and item.kind == "list":
        parts = [as_set(part) for part in item.items]
        if None in parts or len({*map(subject, item.items)}) > 1:
            return None
        if all(isinstance(part, Relation) and part.sign == "≠" for part in item.items):  # x ≠ 1 and x ≠ 2
            return Group("minus", [parts[0].items[0], Group("set", [hole for part in parts for hole in part.items[1].items])])
        return between(*parts) if len(parts) == 2 else Group("union", parts)
    if not isinstance(item, Relation):
        return None
    if item.sign == "∈":
        return item.right if is_name(item.left) else None
    if item.sign == "=" or is_name(item.left) == is_name(item.right):
        return Group("set", [assigned(item)]) if item.sign == "=" and assigned(item) is not None else None
    if item.sign == "≠":
        return Group("minus", [Group("tuple", [MINUS_INFINITY, INFINITY], "()"),
                               Group("set", [item.right if is_name(item.left) else item.left])])
    closed = item.sign == "≤"
    if is_name(item.left):
        return Group("tuple", [MINUS_INFINITY, item.right], "(]" if closed else "()")
    return Group("tuple", [item.left, INFINITY], "[)" if closed else "()")


def subject(condition):
    """The name that a condition is on."""
    condition = condition.items[0] if isinstance(condition, Group) else condition
    side = condition.left if is_name(condition.left) else condition.right
    return structure(side.tree) if isinstance(side, Quantity) else None


def between(a, b):
    """What two conditions say: x > 1 and x < 5 is one interval; x < 1 and x > 5, which no x meets, are a union."""
    for low, high in ((a, b), (b, a)):
        if is_interval(low) and is_interval(high) and low.items[1] is INFINITY and high.items[0] is MINUS_INFINITY:
            ends = [constant(end) for end in (low.items[0], high.items[1])]
            if None not in ends and ends[0] < ends[1]:
                return Group("tuple", [low.items[0], high.items[1]], low.ends[0] + high.ends[1])
    return Group("union", [a, b])


def is_interval(item):
    return isinstance(item, Group) and item.kind == "tuple" and len(item.items) == 2


def constant(item):
    """The real value of an item without variables; None if it has none."""
    if not isinstance(item, Quantity) or item.variables or not computable(item, item):
        return None
    value = value_at(item, fp, Place(), 0, True)
    return value and float(fp.re(value[0]))


def parts_of(item):
    """The parts of a union, each element of a set for itself; a line without some points is the intervals between them."""
    if isinstance(item, Group) and item.kind == "union":
        return [part for inner in item.items for part in parts_of(inner)]
    if isinstance(item, Group) and item.kind in ("set", "list") and len(item.items) > 1:
        return [Group("set", [member]) for member in item.items]
    if isinstance(item, Group) and item.kind == "minus":
        line, holes = item.items
        values = [constant(hole) for hole in holes.items] if isinstance(holes, Group) and holes.kind == "set" else [None]
        if None not in values and is_interval(line):
            order = sorted(range(len(values)), key=values.__getitem__)
            ends = [line.items[0], *(holes.items[i] for i in order), line.items[1]]
            shapes = [line.ends[0], *["("] * len(order)], [*[")"] * len(order), line.ends[1]]
            return [Group("tuple", [left, right], opener + closer)
                    for left, right, opener, closer in zip(ends, ends[1:], *shapes)]
    return [item]


def same_group(a, b):
    kinds = {a.kind, b.kind}
    if kinds == {"ratio"}:
        return same_sequence(a.items, b.items)
    if kinds & {"union", "minus", "chain"}:
        if a.kind == b.kind in ("minus", "chain") and all(same(x, y) for x, y in zip(a.items, b.items)):
            return True
        sets = [as_set(item) if item.kind == "chain" or item.kind == "list" and not isinstance(item.items[0], Quantity) else item
                for item in (a, b)]
        if None in sets:
            return False
        one, other = map(parts_of, sets)
        return [*one, *other] != [a, b] and same_members(one, other)  # what cannot be taken apart was compared above
    if "matrix" in kinds:
        if a.kind == b.kind:
            return a.ends == b.ends and same_sequence(a.items, b.items)
        matrix, other = (a, b) if a.kind == "matrix" else (b, a)
        rows = matrix.items
        flat = rows[0].items if len(rows) == 1 else [row.items[0] for row in rows if len(row.items) == 1]
        return other.kind == "tuple" and len(flat) == max(len(rows), len(rows[0].items)) and same_sequence(flat, other.items)
    if kinds == {"tuple"}:
        return (a.ends == b.ends or len(a.items) != 2) and same_sequence(a.items, b.items)
    if "tuple" in kinds:
        listed, pair = (a, b) if b.kind == "tuple" else (b, a)
        if listed.kind == "list" and pair.ends in ("()", "[]") and same_sequence(a.items, b.items):
            return True
        said = as_set(listed)
        return said is not None and same_members(parts_of(said), [pair])
    if same_sequence(a.items, b.items):
        return True
    if has_names(a.items) != has_names(b.items):  # x = 1, y = 2 is not 2, 1
        return False
    if "set" in kinds:
        return same_members(a.items, b.items)
    if len(a.items) != len(b.items):
        return False
    left = [*b.items]  # two lists: in any order, each item as often
    for x in a.items:
        i = index_of(x, left)
        if i is None:
            return False
        del left[i]
    return not left


def index_of(x, items):
    """Where the first item stands that is the same as x; None if none is."""
    return next((i for i, y in enumerate(items) if same(x, y)), None)


def has_names(items):
    """Whether they say what each of several names is."""
    return all(isinstance(item, Relation) and item.sign == "=" and isinstance(item.left, Quantity) and is_name(item.left)
               for item in items) and len({structure(item.left.tree) for item in items}) > 1


def same_sequence(a, b):
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))


def same_members(a, b):
    """Whether each item is one of the others'."""
    met = set()
    for x in a:
        i = index_of(x, b)
        if i is None:
            return False
        met.add(i)
    return all(i in met or any(same(x, y) for x in a) for i, y in enumerate(b))


# ---- the vote

def majority(answers, *, same=same_answer, count_unboxed=True):
    """The most frequent answer and its share -> (answer, share); (None, 0.0) if nobody answers.

    answers: strings, or None for an answer without a box, which has no vote but counts in the share (the paper's p: the share
    of all m), or does not with count_unboxed=False. The answer is the first seen of its class, and of equally large classes the
    one seen first wins. Equal strings are counted first, and each different one is then compared with the first of each class;
    of more than 200 different strings only the 200 most frequent are compared, and only they can win.
    """
    counts = Counter(answers)
    unboxed = counts.pop(None, 0)
    if not counts:
        return None, 0.0
    compared = counts
    if len(counts) > MOST_COMPARED:
        compared_as_written["too many"] += 1
        frequent = dict(counts.most_common(MOST_COMPARED))
        compared = [answer for answer in counts if answer in frequent]
    votes, steps = {}, 0

    def alike(a, b):
        nonlocal steps
        if steps > MOST_STEPS_OF_VOTE:
            return written_form(a) == written_form(b)
        Comparison.steps = MOST_STEPS
        result = same(a, b)
        steps += MOST_STEPS - Comparison.steps
        return result

    for answer in compared:
        first = next((seen for seen in votes if alike(seen, answer)), answer)
        votes[first] = votes.get(first, 0) + counts[answer]
    winner = max(votes, key=votes.get)
    return winner, votes[winner] / (len(answers) if count_unboxed else len(answers) - unboxed)
