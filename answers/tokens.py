r"""Cuts a cleaned text into tokens, and says which runs of letters are commands, words, units or variables."""

import re
from fractions import Fraction

from .clean import GREEK, TEXT
from .items import Unreadable

MOST_TOKENS = 400
COMMA = ("sign", ",")
FUNCTIONS = {name: name.replace("arc", "a") for name in (  # what mpmath calls them
    "sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot arcsec arccsc arcsinh arccosh arctanh "
    "asin acos atan exp abs log").split()} | dict(tg="tan", ctg="cot", arctg="atan", arcctg="acot", ln="log", lg="log")
SYMBOLS = [*GREEK, *("varepsilon vartheta Upsilon varphi ell hbar mho odot aleph nabla partial angle triangle star "
                     "dagger cdots ldots dots").split()]
NAMED = {"inf": r"\infty", "infinity": r"\infty", "oo": r"\infty", "union": r"\cup", "U": r"\cup"} | {
    name: "\\" + name for name in ("pi", "infty", "sqrt", *FUNCTIONS, *SYMBOLS)}  # commands without a backslash

ACCENTS = "overline bar vec hat tilde dot ddot widehat overrightarrow mathcal mathbb mathfrak underline".split()
RELATIONS = {sign: meaning for meaning, signs in {
    "=": r"= \approx \equiv \simeq := ==", "<": r"< \lt", ">": r"> \gt", "≤": r"\le \leq \leqslant <=",
    "≥": r"\ge \geq \geqslant >=", "≠": r"\ne \neq !=", "∈": r"\in"}.items() for sign in signs.split()}
OPENERS = {"(": "(", "[": "[", r"\lbrack": "[", r"\{": "{", r"\lbrace": "{", "{": "", r"\langle": "<"}
CLOSERS = {")": ")", "]": "]", r"\rbrack": "]", r"\}": "}", r"\rbrace": "}", "}": "", r"\rangle": ">"}
NO_FACTORS = {*RELATIONS, *CLOSERS, *(r"\cup \cap \pm \mp \times \cdot \div \ast \rfloor \rceil \rvert \setminus "
                                      r"\backslash \mid \to \cr").split()}

# The names of units; others have their own. Without \text, two or three letters are a unit only if they stand here
UNITS = {alias: unit for unit, aliases in {
    "%": "percent pct percentage", "°": "deg degree", "$": "usd dollar buck", "cent": "¢", "euro": "eur", "pound": "lb",
    "m": "meter metre", "cm": "centimeter centimetre", "mm": "millimeter millimetre", "km": "kilometer kilometre",
    "in": "inch inche", "ft": "foot feet", "yd": "yard", "mi": "mile", "g": "gram", "kg": "kilogram", "mg": "milligram",
    "l": "liter litre", "ml": "milliliter millilitre", "s": "second sec", "min": "minute", "h": "hour hr", "day": "",
    "year": "yr", "mi / h": "mph", "km / h": "kmh kph", "rad": "radian", "2": "square sq", "3": "cubic", "/": "per",
    "oz": "ounce", "mol": "mole", "hz": "hertz", "j": "joule", "n": "newton", "w": "watt", "v": "volt", "k": "kelvin",
    "pa": "pascal", **dict.fromkeys("khz mhz ghz ev kev mev gev kj kw mw nm pm ms ns kpa".split(), ""),
}.items() for alias in (unit, *aliases.split())}

TOKEN = re.compile(
    rf"\s+|\\(?P<text>{TEXT}) ?\{{(?P<content>(?:[^{{}}]|\^\{{-?[0-9]\}})*)\}}"
    r"|\\begin ?\{ ?(?P<begin>[a-zA-Z]+)\*? ?\}(?: ?\{[lcr| ]*\})?|\\end ?\{ ?(?P<end>[a-zA-Z]+)\*? ?\}"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|(?P<letters>[A-Za-z]+)"
    r"|(?P<sign>\\(?:[A-Za-z]+|.)|\*\*|<=|>=|!=|==|:=|.)", re.DOTALL)
UNIT = re.compile(r"[A-Za-z]+(?:\^?-?[0-9])?(?: ?[/ ] ?[A-Za-z]+(?:\^?-?[0-9])?)*")
WORDS = re.compile(r"[A-Za-z][A-Za-z'\". -]*")


def tokens_of(text):
    """The text as a list of (kind, string), kind one of number, letter, word, begin, end, sign."""
    tokens = []
    for token in TOKEN.finditer(text):
        kind, string = token.lastgroup, token[0]
        if kind == "content":
            content = re.sub(r"\{(-?[0-9])\}", r"\1", token["content"]).strip(" ~.")
            is_text = WORDS.fullmatch(content) or tokens and UNIT.fullmatch(content)
            tokens += text_tokens(token["text"], content, not tokens) if is_text else tokens_of(content)
        elif kind == "letters":
            tokens += letter_tokens(string, first=not tokens)
        elif kind and string not in (r"\boxed", r"\fbox"):
            tokens.append((kind, token[kind].replace(";", ",")))
        if len(tokens) > MOST_TOKENS:
            raise Unreadable
    return [token for i, token in enumerate(tokens) if token != COMMA or tokens[i - 1:i] != [COMMA]]  # 1, 2, and 3


def text_tokens(command, content, first):
    r"""What stands in \text{...}, if it is words or a unit. A single letter is a variable, an option or a unit."""
    runs = re.findall(r"[A-Za-z]+|\^?-?[0-9]|/", content)
    bare = {"and", "or"} & {*runs} or len(content) == 1 and (
        first or content in "eid" or command in ("mathbf", "boldsymbol", "operatorname"))
    return [token for run in runs for token in (
        letter_tokens(run, first=run == "U") if run in (*NAMED, "and", "or") or bare and len(run) == 1 else
        [("sign", run) if run == "/" else ("word", run.strip("^"))])]


def letter_tokens(run, first):
    """A run of letters: a function, `and`, a unit (not as the first of all), a word, or a product of variables."""
    if run.lower() in ("and", "or"):
        return [COMMA]
    if run in NAMED and (run != "U" or not first):
        return [("sign", NAMED[run])]
    if run[-1] == "x" and run[:-1] in NAMED:  # sinx
        return [("sign", NAMED[run[:-1]]), ("letter", "x")]
    unit = len(run) > 3 or len(run) > 1 and not first and run.lower() in UNITS
    return [("word", run)] if unit else [("letter", letter) for letter in run]


def number(string):
    """The value of 12, 1.25, .5 or 4.5e33."""
    if len(string.lower().partition("e")[2]) > 4:
        raise Unreadable
    return Fraction(string)


def rounding(string):
    """Half of the last place of a decimal with six digits or more behind the point, and as many that count; else 0."""
    mantissa, _, exponent = string.lower().partition("e")
    places = len(mantissa.partition(".")[2]) - int(exponent or 0)
    return 10.0 ** -places / 2 if 6 <= places <= 300 and len(mantissa.replace(".", "").lstrip("0")) >= 6 else 0.0
