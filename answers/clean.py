r"""Takes off what does not change the value of an answer: $, \left, \dfrac, thin spaces, unicode signs, **bold**."""

import re

LONGEST_READ = 2000  # characters of an answer that is read as mathematics; longer ones are compared as they are written

GREEK = ("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi "
         "omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega").split()
SIGNS = r"""−- –- —- ‐- ‑- ÷/ ∕/ ⁄/ ％% ′' ’' “" ”" ×\times ⋅\cdot ·\cdot ∙\cdot ≤\le ⩽\le ≥\ge ⩾\ge ≠\ne ≈\approx
    ∪\cup ∩\cap ∈\in ∅\emptyset ∞\infty π\pi √\sqrt ∛\sqrt[3] °^\circ º^\circ ℝ\mathbb{R} ½\frac12 ⅓\frac13 ⅔\frac23
    ¼\frac14 ¾\frac34 ⟨\langle ⟩\rangle ⌊\lfloor ⌋\rfloor ⌈\lceil ⌉\rceil""".split()  # each with what it means
UNICODE = str.maketrans(
    {sign: rf"\{name} " for sign, name in zip("αβγδεζηθικλμνξρστυφχψωΓΔΘΛΞΣΦΨΩ", GREEK, strict=True)}
    | {sign[0]: sign[1:] + " " * (sign[1] == "\\") for sign in SIGNS}
    | dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ₀₁₂₃₄₅₆₇₈₉", "0123456789+-n0123456789", strict=True)))

TEXT = r"(?:text(?:bf|it|rm|sf|normal)?|math(?:rm|it|sf)|mbox|emph)"
UNWRAP = re.compile(rf"\\{TEXT} ?\{{([^{{}}]*)\}}")
THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
LOOSE_SPACE = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])|(?<=[A-Za-z]) (?=[0-9])|(?<=[0-9]) (?=[A-Za-z])")

# (what the text must contain, pattern, replacement), in this order. (?![A-Za-z]) ends a command, so \leftarrow stays
SUBSTITUTIONS = [(needed, re.compile(pattern), by) for needed, pattern, by in [
    (",", r"(?:(?<=[1-9])|(?<=[0-9]{2}))(?: ?\{ ?, ?\}|,\\!) ?(?=[0-9]{3}(?![0-9]))", ""),  # 1{,}234, not 0{,}125
    (".", r"(?<![0-9])\.(?=[0-9])", "0."), (r"\!", r"\\!", ""), (r"\,", r"\\,", " "), ("{,}", r"\{,\}", ","),
    ("", r"\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|limits|q?quad|space|bf|rm|small|[lL]arge"
     r"|underline)(?![A-Za-z])\.?|\\[;:> ()\[\]]|~|(?<!\\)\$|\\(?:[hv]space|(?:text)?color) ?\{[^{}]*\}|\bnp\.", " "),
    ("\\", r"\\(?:[dtcs]|nice)(frac|binom)(?![A-Za-z])", r"\\\1"),
    ("\\", r"\\(?:mathbf|boldsymbol|bm|operatorname) ?\{([^{}]*)\}|\\mathrm ?\{([eid])\}", r" \1\2"),
    ("", r"\^ ?(?:(?:\\circ|o)(?![A-Za-z])|\{ ?\\circ ?\})|\\degree(?![A-Za-z])", "°"),
    ("prime", r"\^ ?(?:\\prime(?![A-Za-z])|\{ ?\\prime ?\})", "'"),
    ("nswer", r"(?i)^ *(?:\\text[a-z]* ?\{ ?)?(?:the )?(?:final )?answer(?: is|:)+ ?\}? ?(?=[^} ])", ""),
    ("10", r"(?<![0-9.^_A-Za-z])([0-9]+\.[0-9]+) ?\\(?:times|cdot) ?10 ?\^ ?\{ ?(-?[0-9]{1,3}) ?\}", r"\1e\2"),
    ("llion", r"(?<=[0-9])((?: ?\\text ?\{)?) ?(m|b|tr)illion(?![a-z])",  # 2.5 million
     lambda found: f"e{dict(m=6, b=9, tr=12)[found[2]]}{found[1]}"),
    ("", r"(\\\$|[€£₹]) ?([0-9]+(?:[.,][0-9]+)*(?:e[0-9]+)?)", r"\2\1"),
    ("begin", r"\\begin ?\{ ?(?:[a-zA-Z]*matrix|array)\}(?: ?\{[lcr| ]*\})?", "(("),  # a matrix is a tuple of rows
    ("end", r"(?:\),\( *)?\\end ?\{(?:[a-zA-Z]*matrix|array)\}", "))"),
    ("", r"\\(frac|binom) ?(?:([0-9])|\{ ?([0-9]+) ?\}) ?(?:([0-9])|\{ ?([0-9]+) ?\})", r"\\\1{\2\3}{\4\5}"),
    ("/", r"(?<![0-9.,}\]\^_A-Za-z])(?<![0-9] )([0-9]+) ([0-9]+) ?/ ?([0-9]+)", r"\1\\frac{\2}{\3}"),
    ("frac", r"(?<![0-9.,}\]\^_A-Za-z])([0-9]+) ?\\frac\{([0-9]+)\}\{([0-9]+)\}",  # but 2\frac{3}{2} is a product
     lambda found: f"({found[1]}+{found[2]}/{found[3]})" if int(found[2]) < int(found[3]) else found[0]),
    (".", r"(?<![0-9])([0-9]+\.([0-9]*)) ?\\(?:overline|bar) ?\{ ?([0-9]+) ?\}",  # 0.1\overline{6} as (0.1+6/90)
     lambda found: f"({found[1]}+{found[3]}/{'9' * len(found[3])}{'0' * len(found[2])})"),
    ("m", r"\\(?:pm|mp)(?![A-Za-z])", lambda found: "±" if found[0] == r"\pm" else "∓"),
    ("|", r"\|([^|]*)\|", r"\\lvert \1\\rvert "),
]]


def clean(text):
    r"""The text without its dress: unicode signs become LaTeX ones; $, \left, thin spaces and emphasis go; mixed and
    repeating numbers become sums. Time is linear in the text."""
    text = re.sub("[\0\xad\ufeff\u200b-\u200f\u202a-\u202e\u2060-\u2069]", "", " ".join(text.split()))
    text = re.sub("([⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+)|([₀₁₂₃₄₅₆₇₈₉]+)", lambda run: ("^{" if run[1] else "_{") + run[0] + "}", text)
    text = text.translate(UNICODE)
    if r"\begin" not in text and text.count("=") > 1:
        text = re.sub(r"\\\\(?=\s)|\\q?quad(?![A-Za-z])", ", ", text)  # x = 1 \quad y = 2
    text = text.replace(r"\\", "),(" if r"\begin" in text else "\\")  # ends a row of a matrix, else escaped twice
    for needed, pattern, by in SUBSTITUTIONS:
        if needed in text:
            text = pattern.sub(by, text)
    text = " ".join(text.split()).strip("*_ ").strip('"`').rstrip("\\").removesuffix(",").removesuffix(".").strip()
    return text.replace(" ", "") if re.fullmatch(r"[+-]?[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?", text) else text


def as_written(cleaned):
    """A cleaned text without \\text, braces around one sign, loose spaces and, unless it is a formula, case."""
    unwrapped = re.sub(r"\{([0-9A-Za-z])\}", r" \1 ", UNWRAP.sub(r"\1", cleaned))
    unspaced = LOOSE_SPACE.sub("", " ".join(unwrapped.split()))
    return unspaced if "\\" in unspaced else unspaced.casefold()


def written_form(text):
    """The string that a text is compared by where it is not read: the value of a plain number of any length, else the
    text without dress, case and loose spaces. Time is linear; of a long text only spaces, $ and \\(...\\) go."""
    if len(text) > LONGEST_READ:
        text = "".join(text.split()).replace("$", "").removeprefix(r"\(").removesuffix(r"\)")
    else:
        text = as_written(clean(text))
    text = text.replace(",", "") if "," in text and THOUSANDS.fullmatch(text) else text
    if re.fullmatch(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)", text):
        whole, _, decimals = text.lstrip("+-").partition(".")
        text = "-" * (text[0] == "-") + (f"{whole.lstrip('0')}.{decimals.rstrip('0')}".rstrip(".") or "0")
    return text
