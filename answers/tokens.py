r"""Cuts a text into tokens: numbers, letters, signs, commands such as \frac, words. A word starts with a space."""

import re

from .clean import GREEK, TEXT, UNWRAP
from .items import Unreadable

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
