r"""Takes off what does not change the value of an answer: $, \left, \dfrac, thin spaces, unicode dress, **bold**."""

import re

LONGEST_READ = 2000  # characters of an answer that is read as mathematics; longer ones are compared as they are written

GREEK = ("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi "
         "omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega").split()
SIGNS = dict(zip("αβγδεζηθικλμνξρστυφχψωΓΔΘΛΞΣΦΨΩ", (rf"\{name} " for name in GREEK), strict=True)) | {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "∙": r"\cdot ",
    "÷": "/", "∕": "/", "⁄": "/", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ",
    "≈": r"\approx ", "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ",
    "∞": r"\infty ", "π": r"\pi ", "√": r"\sqrt ", "∛": r"\sqrt[3] ", "°": r"^\circ ", "º": r"^\circ ", "′": "'",
    "’": "'", "“": '"', "”": '"', "ℝ": r"\mathbb{R}", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}",
    "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ",
    "⌈": r"\lceil ", "⌉": r"\rceil ", "％": "%", "\N{NO-BREAK SPACE}": " ",
    "\N{NARROW NO-BREAK SPACE}": " ", "\N{THIN SPACE}": " "}
INVISIBLE = [0, 0xAD, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A)]
UNICODE = str.maketrans(SIGNS | dict.fromkeys(map(chr, INVISIBLE), "") | dict(
    zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ₀₁₂₃₄₅₆₇₈₉", "0123456789+-n0123456789", strict=True)))
CURRENCIES = {r"\$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee"}
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}

TEXT = r"(?:text(?:bf|it|rm|sf|normal)?|math(?:rm|bf|it|sf)|mbox|hbox|operatorname|emph|boldsymbol|bm|rm|bf)\*?"
UNWRAP = re.compile(rf"\\{TEXT} ?\{{([^{{}}]*)\}}")
THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
PLAIN_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
LOOSE_SPACE = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])|(?<=[A-Za-z]) (?=[0-9])|(?<=[0-9]) (?=[A-Za-z])")


def mixed(found):
    r"""1\frac{2}{3} and 1 2/3 as \frac{5}{3}; 2\frac{3}{2} stays, for it is a product."""
    whole, top, bottom = (int(part) for part in found.groups() if part)
    return rf"\frac{{{whole * bottom + top}}}{{{bottom}}}" if 0 < top < bottom else found[0]


def repeating(found):
    r"""0.1\overline{6} as \frac{15}{90}."""
    whole, first, period = found.groups()
    return rf"\frac{{{int(whole + first + period) - int(whole + first)}}}{{{'9' * len(period) + '0' * len(first)}}}"


# (what the text must contain, pattern, replacement), in this order. (?![A-Za-z]) ends a command, so \leftarrow stays
SUBSTITUTIONS = [(needed, re.compile(pattern), by) for needed, pattern, by in [
    (",", r"(?<![0-9.])[1-9][0-9]{0,2}(?:(?: ?\{ ?, ?\}|,\\!) ?[0-9]{3})+(?![0-9])",  # 1{,}234
     lambda found: re.sub("[^0-9]", "", found[0])),
    (r"\!", r"\\!", ""), (r"\,", r"\\,", " "), ("{,}", r"\{,\}", ","),
    ("choose", r"\{([^{}\\]*)\\choose(?![a-z])([^{}\\]*)\}", r"\\binom{\1}{\2}"),
    ("over", r"\{([^{}\\]*)\\over(?![a-z])([^{}\\]*)\}", r"\\frac{\1}{\2}"),
    ("", r"\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|quad|qquad|hfill|strut|space"
     r"|big|bf|rm|it|tiny|small|large|Large|LARGE|huge|Huge|underline|ensuremath|checkmark)(?![A-Za-z])\.?"
     r"|\\[;:> ()\[\]]|~|(?<!\\)\$|\\(?:hspace\*?|v?phantom|label|color|textcolor) ?\{[^{}]*\}|\bnp\.", " "),
    ("\\", r"\\(?:[dtcs]|nice)(frac|binom)(?![A-Za-z])", r"\\\1"),
    ("circ", r"\^ ?(?:\\circ|\{ ?\\circ ?\}) ?(?:\\(?:text|mathrm) ?\{ ?([CF]) ?\}|([CF])(?![A-Za-z]))",
     r"\\text{degrees \1\2}"),
    ("", r"\^ ?(?:\\circ|o(?![A-Za-z])|\{ ?(?:\\circ|o) ?\})|\\degree(?![A-Za-z])|\\circ$", "°"),
    ("prime", r"\^ ?(?:\\prime|\{ ?\\prime ?\})", "'"), ("prime", r"\^ ?\{ ?\\prime ?\\prime ?\}", "''"),
    ("", r"([0-9]) ?(?:\^ ?\{? ?)?(?:\\text ?\{)?(?:st|nd|rd|th)(?![A-Za-z])\}{0,2}", r"\1"),  # 5^{th}
    ("^", r"^ *([0-9.,]+) ?([cdk]?m|ft|in)\^ ?\{?([23])\}? *$", r"\1\\text{ \2}^\3"),  # 25m², where m is no variable
    ("nswer", r"(?i)^ *(?:\\text(?:bf|rm|it)? ?\{ ?)?(?:the )?(?:final )?answer"
     r"(?:(?: is:?|:) ?\}? ?(?=[^} ])| +(?=[^A-Za-z} ]))", ""),
    ("eal", r"(?i)^ *(?:\\text ?\{ ?)?(?:all real numbers|all reals|real numbers) ?\}?$", r"\\mathbb{R}"),
    ("olution", r"(?i)^ *(?:\\text ?\{ ?)?no (?:real )?solutions? ?\}?$", r"\\emptyset"),
    ("mpty", r"(?i)^ *(?:\\text ?\{ ?)?(?:the )?empty set ?\}?$", r"\\emptyset"),
    (r"\mu", r"\\mu ?\\(?:text|mathrm) ?\{ ?", r"\\text{micro"),
    ("\\", r"(?<=[0-9}) ])\\(Omega|AA) *$", r"\\text{ \1s}"),
    ("_", r"\(([0-9]+)\) ?_", r"\1_"),  # (101)_2
    ("_", r"^ *(?=[A-F]*[0-9])([0-9]*[A-F][0-9A-F]*) ?_ ?\{?16\}? *$", lambda found: str(int(found[1], 16))),  # 2A_{16}
    ("10", r"(?<![0-9.\^_A-Za-z])([0-9.]+) ?(?:\\times|\\cdot|\*) ?10 ?\^ ?"
     r"(?:\{ ?([+-]?[0-9]{1,5}) ?\}|([+-]?[0-9]{1,5})(?![0-9]))", r"\1e\2\3"),
    ("", r"(?<=[0-9])((?: ?\\text ?\{)?) ?(hundred|thousand|million|billion|trillion)(?![a-z])",
     lambda found: f"e{SCALES[found[2]]}{found[1]}"),
    ("", r"(\\\$|[€£¥₹]) ?([0-9]+(?:[.,][0-9]+)*(?:e[0-9]+)?)|(?<![0-9.])([0-9.]+) ?(\\\$|[€£¥₹])",
     lambda found: rf"{found[2] or found[3]}\text{{ {CURRENCIES[found[1] or found[4]]}}}"),
    ("frac", r"(?<![0-9.,}\]\^_A-Za-z])([0-9]+) ?\\frac ?(?:\{ ?([0-9]+) ?\}|([0-9])) ?(?:\{ ?([0-9]+) ?\}|([0-9]))",
     mixed),
    ("/", r"(?<![0-9.,}\]\^_A-Za-z])(?<![0-9] )([0-9]+) ([0-9]+) ?/ ?([0-9]+)", mixed),
    (".", r"(?<![0-9])([0-9]+)\.([0-9]*) ?\\(?:overline|bar) ?\{ ?([0-9]+) ?\}", repeating),
    (r"\in", r"(?<=[^ ,(]),? *\(?(?:\\text ?\{[a-z ]*\})? ?[a-z] ?\\in ?\\mathbb ?\{? ?[ZN] ?\}?(?:\^\+)? ?\)? *$", ""),
]]

def clean(text):
    r"""The text without its dress: unicode signs become LaTeX ones, $, \left, thin spaces and emphasis go,
    fractions are all \frac, mixed and repeating numbers too. Time is linear in the text."""
    text = re.sub("([⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+)|([₀₁₂₃₄₅₆₇₈₉]+)", lambda run: ("^{" if run[1] else "_{") + run[0] + "}", text)
    text = text.translate(UNICODE)
    # A doubled backslash ends a row of a matrix, and becomes \cr there; elsewhere it was escaped twice
    if re.search(r"(?<!\\)\\\\begin", text) or r"\\\\" in text:
        text = text.replace(r"\\", "\\")
    if r"\begin" not in text and text.count("=") > 1:
        text = re.sub(r"\\\\(?=\s)|\\q?quad(?![A-Za-z])", ", ", text)  # x = 1 \quad y = 2
    text = re.sub(r"(\\\\)\[-?[0-9.]+ ?[a-z]{2}\]", r"\1", text)  # \\[2pt]
    text = text.replace(r"\\", r"\cr " if r"\begin" in text else "\\")
    for needed, pattern, by in SUBSTITUTIONS:
        if needed in text:
            text = pattern.sub(by, text)
    if re.match(r" *\\\{ *\\begin", text) and r"\}" not in text:  # \left\{ \begin{array} ... \right.
        text = text.replace(r"\{", "").replace("{array}", "{cases}")
    text = " ".join(text.split()).strip("*_ ").strip('"`').rstrip("\\").removesuffix(",").removesuffix(";")
    text = text.removesuffix(".").strip()
    return text.replace(" ", "") if re.fullmatch(r"[+-]?[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?", text) else text


def as_written(cleaned):
    """A cleaned text without \\text, braces around one sign, loose spaces and, unless it is a formula, case."""
    unwrapped = re.sub(r"\{([0-9A-Za-z])\}", r" \1 ", UNWRAP.sub(r"\1", cleaned))
    unspaced = LOOSE_SPACE.sub("", " ".join(unwrapped.split()))
    return unspaced if "\\" in unspaced else unspaced.casefold()


def written_form(text):
    """The string that a text is compared by where it is not read: the value of a plain number of any length, else the
    text without dress, case and loose spaces. Time is linear; of a long text only the outermost dress goes."""
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
