"""What a text may say: what its LaTeX says, its words, or its text as it is written where it cannot be read."""

import re
from fractions import Fraction
from functools import lru_cache

from .clean import THOUSANDS, UNWRAP, as_written, clean
from .items import Group, Quantity, Relation, Unreadable
from .latex import END, Reader
from .tokens import NAMED, WORDS, tokens_of

# What no name before an equals sign has in it, as P(A|B) = 1/2 has one
NO_NAME = re.compile(r"[=<>!:,;]|\\(?:text|mathrm|mbox|not|equiv|p?mod|le|ge|in)(?![a-z])|(?<![\\A-Za-z])[A-Za-z]{3}")
DECIMAL_COMMA = re.compile(r"[+-]?(?:0,[0-9]+|[0-9]+,(?:[0-9]{2}|[0-9]{4,}))")  # 1,2 is a list, and 1,234 is a number


def read_tokens(tokens):
    """The Quantity, Group or Relation that tokens say."""
    if {("sign", r"\pm"), ("sign", r"\mp")} & {*tokens}:  # read with either sign: what it changes is said twice
        plus, minus = (read_tokens([(kind, signs.get(string, string)) for kind, string in tokens])
                       for signs in ({r"\pm": "+", r"\mp": "-"}, {r"\pm": "-", r"\mp": "+"}))
        if not isinstance(plus, Group) or plus.kind not in ("set", "list"):
            return Group("list", [plus, minus])
        return Group(plus.kind, [*plus.items, *(y for x, y in zip(plus.items, minus.items) if str(x) != str(y))])
    reader = Reader(tokens)
    reader.take("=", r"\approx")
    items = reader.items()
    if reader.peek() != END:
        raise Unreadable
    return items[0] if len(items) == 1 else Group("list", items)


def read(cleaned):
    """What a cleaned text says: a Quantity, Group or Relation, or a string, as it is written, if it cannot be read."""
    try:
        prose = UNWRAP.sub(r"\1", cleaned).lower()
        words = re.findall("[a-z]+", prose) if WORDS.fullmatch(prose) else []
        known = {*NAMED, "and", "or"}
        longer = [word for word in words if len(word) > 1 and not {word, word.removesuffix("x")} & known]
        if len(longer) > 1 or any(len(word) > 3 for word in longer):
            said = [Quantity("words " + part, word=part) for part in re.split(" (?:and|or) ", " ".join(words))]
            return Group("list", said) if len(said) > 1 else said[0]
        return read_tokens(tokens_of(cleaned))
    except (Unreadable, ValueError):  # ValueError: int("2", 1)
        name, sign, value = cleaned.rpartition("=")
        if sign and not NO_NAME.search(re.sub(r"\([^()]*\)", "", name)) and not isinstance(said := read(value), str):
            return Relation("=", Quantity("words " + as_written(name)), said)  # P(A|B) = 1/2
        return as_written(cleaned)


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
