r"""Texts that were made to hang, blow up or break a comparison of answers: pairs, each with a name."""

MB = 1_000_000


def nested(opening, closing, depth, core="1"):
    return opening * depth + core + closing * depth


def pair_nested(opening, closing, depth, *cores):
    return tuple(nested(opening, closing, depth, core) for core in cores)


def tower(base, height):
    return "^{".join([base] * height) + "}" * (height - 1)


HOSTILE = {
    # numbers too large to compute
    "tower": (tower("5", 5), tower("5", 5) + "+1"),
    "tower of powers": ("99**98**97", "99**98**98"),
    "tower in a tower": (tower("9", 60), tower("9", 61)),
    "tower of variables": (tower("x", 12), tower("x", 13)),
    "tower below one": ("2^{-" + tower("9", 6) + "}", "0"),
    "factorial of a power": ("10^{10^{10}}!", "10^{10^{10}}! + 1"),
    "factorials": ("((9!)!)!", "((9!)!)! - 1"),
    "a row of factorials": ("9" + "!" * 300, "9" + "!" * 301),
    "large factorial": ("1000000000!", "1000000001!"),
    "factorial of a variable": ("((n!)!)!", "((n!)!)!+1"),
    "huge binomial": (r"\binom{1000000000}{500000000}", r"\binom{1000000000}{500000001}"),
    "binomial of binomials": (r"\binom{\binom{99}{49}}{\binom{99}{48}}", "1"),
    "exponent of a float": ("1e999999999", "1e999999998"),
    "exponent too long": ("1e" + "9" * 500, "1e" + "9" * 499),
    "exponent of nothing": ("0e999999999", "0"),
    "googolplex": ("10^{10^{100}}", "10^{10^{100}} + 1"),
    "power of a million digits": ("2^{" + "9" * 1000 + "}", "2^{" + "9" * 999 + "8}"),
    "fraction of powers": (r"\frac{2^{99999999}}{2^{99999998}}", "2"),
    "modular": (r"3^{10^{12}} \bmod 7", "4"),
    "exponentials": (r"\exp(\exp(\exp(\exp(100))))", r"\exp(\exp(\exp(\exp(101))))"),
    "hyperbolic": (r"\sinh(\sinh(\sinh(\sinh(10))))", "1"),
    "large sine": (r"\sin(10^{3000})", r"\sin(10^{3000}+1)"),
    "power of a large power": ("((((10^{99})^{99})^{99})^{99})", "1"),
    "root of a tiny degree": (r"\sqrt[1e-300]{x}", r"0+\sqrt[1e-300]{x}"),
    "tangent of a large complex number": (r"\tan((\sinh(z+i))^{-f(\sum_{k=1}^{30} {z})})",
                                          r"\tan((\sinh(z+i))^{-f(\sum_{k=1}^{30} {z})})+0"),
    # sums and products
    "sum of powers of powers": (r"\sum_{k=1}^{20} (3^{k^3})^{k^3}", "1"),
    "sum of large fractions": (r"\sum_{k=1}^{250} \frac{1}{k^{20}+1}", "1"),
    "long sum": (r"\sum_{k=1}^{1000000000000} \frac{1}{k}", "28"),
    "long product": (r"\prod_{k=1}^{10^{12}} k", "1"),
    "sums of sums": (r"\sum_{i=1}^{300} \sum_{j=1}^{300} \sum_{k=1}^{300} ijk", r"\sum_{i=1}^{300} \sum_{j=1}^{300} ij"),
    "sum to a tower": (r"\sum_{k=1}^{" + tower("9", 5) + "} k", "1"),
    "sum to infinity": (r"\sum_{k=1}^{\infty} \frac{1}{k^2}", r"\frac{\pi^2}{6}"),
    "sum to a variable": (r"\sum_{k=1}^{n} k^k", r"\sum_{k=1}^{n} k^k + 1"),
    "sum that shadows itself": (r"\sum_{k=1}^{k} k", r"\sum_{k=k}^{k} k"),
    "costly sum": (r"\sum_{k=1}^{30} \sin(k x) + \cos(k x)", r"\cos(k x) + \sum_{k=1}^{30} \sin(k x)"),
    # depth
    "braces": (nested("{", "}", 10_000), nested("{", "}", 9_999)),
    "some braces": (nested("{", "}", 150), nested("{", "}", 149)),
    "brackets": (nested("(", ")", 150), nested("(", ")", 149)),
    "a million brackets": ("(" * MB, "(" * (MB - 1)),
    "fractions": (nested(r"\frac{1}{1+", "}", 300), nested(r"\frac{1}{1+", "}", 299)),
    "some fractions": (nested(r"\frac{1}{1+", "}", 38), nested(r"\frac{1}{1+", "}", 37)),
    "open fractions": (r"\frac{" * 5000, r"\frac" * 5000),
    "roots": (nested(r"\sqrt{", "}", 300, "2"), nested(r"\sqrt{", "}", 299, "2")),
    "some roots": (nested(r"\sqrt{2+", "}", 35, "2"), nested(r"\sqrt{2+", "}", 34, "2")),
    "roots without braces": (r"\sqrt" * 190 + "2", r"\sqrt" * 189 + "2"),
    "sines": (r"\sin" * 180 + " x", r"\sin" * 179 + " x"),
    "logarithms": (r"\log_2" * 150 + " x", r"\log_3" * 150 + " x"),
    "absolute values": ("|" * 300, "|" * 301),
    "nested absolute values": (nested(r"\lvert ", r"\rvert ", 80, "x"), nested(r"\lvert ", r"\rvert ", 79, "x")),
    "minus signs": ("-" * 350 + "1", "-" * 351 + "1"),
    "plus-minus signs": (r"\pm" * 300 + "1", r"\mp" * 300 + "1"),
    "plus-minus in sets": (nested(r"\{\pm ", r"\}", 30, "1"), nested(r"\{\pm ", r"\}", 29, "1")),
    "powers": ("x" + "^2" * 180, "x" + "^2" * 179),
    "sets": (nested(r"\{", r"\}", 150), nested(r"\{", r"\}", 149)),
    "intervals": (nested("[1,", "]", 90), nested("[1,", "]", 89)),
    "unions": (r"\cup".join(["(0,1)"] * 60), r"\cup".join(["(0,1)"] * 59 + ["(0,2)"])),
    "matrices": (r"\begin{pmatrix}" * 90, r"\begin{pmatrix}" * 89 + r"\end{pmatrix}"),
    "boxes": (r"\boxed{" * 50_000, r"\boxed{" * 50_000 + "}" * 50_000),
    # groups in groups, each of which could be compared in two ways
    "chains in sets": pair_nested(r"1<x<\{2,", r"\}", 13, "1", "2"),
    "conditions in cases": pair_nested(r"\begin{cases}x>1\\", r"\end{cases}", 16, "x<2", "x<3"),
    "unions in sets": pair_nested(r"\{1\}\cup\{2,", r"\}", 17, "1", "2"),
    "differences of sets": pair_nested(r"\mathbb{R}\setminus\{", r"\}", 20, "1", "2"),
    "matrices in sets": pair_nested(r"\{\begin{pmatrix}", r"\end{pmatrix}\}", 30, r"\emptyset", r"\emptyset,1"),
    "equations in sets": pair_nested(r"x=\{1,", r"\}", 17, "1", "2"),
    "cases in cases": pair_nested(r"\begin{cases}1\\", r"\end{cases}", 17, "x", "1"),
    # length
    "digits": ("9" * MB, "9" * (MB - 1) + "8"),
    "digits of a decimal": ("0." + "3" * MB, "1/3"),
    "digits that can be read": ("9" * 1900, "9" * 1899 + "8"),
    "quotient of digits": ("9" * 900 + "/" + "7" * 900, "9" * 900 + "/" + "7" * 899 + "8"),
    "thousands": ("1" + ",234" * 250_000, "1" + ",234" * 249_999),
    "a long list": (",".join(map(str, range(190))), ",".join(map(str, range(190, 0, -1)))),
    "a list of tuples": (",".join(f"({i},{i + 1})" for i in range(60)), ",".join(f"({i},{i + 1})" for i in range(60, 0, -1))),
    "a list of sines": (",".join(rf"\sin({i}x)" for i in range(31)), ",".join(rf"\sin({i}x)" for i in range(31, 0, -1))),
    "a long polynomial": ("+".join(f"{i}x^{i}" for i in range(65)), "+".join(f"{i}x^{i}" for i in range(64, -1, -1))),
    "a large power of a sum": ("(x+y+z+1)^{9999}", "(x+y+z+1)^{9998}"),
    "many variables": ("".join(f"x_{{{i}}}" for i in range(78)), "".join(f"x_{{{i}}}" for i in range(77, -1, -1))),
    "spaces": ("1" + " " * MB + "x", " " * MB),
    "backslashes": ("\\" * 500_000, "\\" * 499_999),
    "dollars": ("$" * 300_000, "$" * 299_999),
    "a list of equations": (",".join(f"x+{i}y=1" for i in range(31)), ",".join(f"x+{i}y=1" for i in range(30, -1, -1))),
    "a list of conditions": (",".join(rf"x \ne \sqrt{i}" for i in range(31)),
                             ",".join(rf"x \ne \sqrt{i}" for i in range(30, -1, -1))),
    "a list of chains": (",".join(f"{i}<x<99" for i in range(31)), ",".join(f"{i}<x<99" for i in range(30, -1, -1))),
    "a set of sines": (r"\{" + ",".join(rf"\sin({i}x)" for i in range(31)) + r"\}",
                       r"\{" + ",".join(rf"\sin({i}x)" for i in range(31, 0, -1)) + r"\}"),
    "commas": ("," * 1900, "," * 1899),
    "words": ("a b " * 480, "b a " * 480),
    "text commands": (r"\text{" * 300, r"\text{}" * 280),
    # broken text
    "NUL": ("\x00" * 1000 + "5", "5\x00"),
    "right-to-left marks": ("\u202e5\u202c", "\u200f5"),
    "lone surrogates": ("\ud800", "\udfff5"),
    "combining marks": ("5" + "\u0301" * 1500, "5"),
    "other digits": ("٥" * 500, "５" * 500),
    "superscripts": ("2" + "⁹" * 900, "2^{" + "9" * 900 + "}"),
    "unbalanced": (r"\frac{1}{2}}}}{{{(([[\}\{", r"\left(\left[\right."),
    "operators": ("+*/^_=<>" * 200, "^_" * 700),
    "nothing": ("", " "),
    "infinities": (r"\infty - \infty", r"\frac{\infty}{\infty}"),
    "division by zero": (r"\frac{1}{0}", r"\frac{1}{1-1}"),
    "zero to the zero": ("0^0", r"0^{-1}"),
    "poles": (r"\tan(\frac{\pi}{2})", r"\frac{1}{x-x}"),
    "base of nothing": ("9_{1}", "9_{99999999999}"),
    "base one million": ("9" * 900 + "_{36}", "1"),
}
