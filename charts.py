"""What a page is made of: charts as SVG text, tables, notes. Pure functions; they know nothing of a run.

A chart is (markup, height), 360 units wide, which `svg` wraps for a page and `picture` joins into a file. Its classes
are styled by STYLE: c0 .. c7 are the series' colours. What the pointer shows of a mark is in its data-tip."""

import html
import math
import re

import numpy as np

WIDTH, PLOT, LEFT, RIGHT, BOTTOM = 360, 150, 46, 12, 36  # of a chart, and of the plot's height and margins
MOST_POINTS = 400  # of a line

STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --soft: #59636e; --line: #d5dae0; --page: #fff; --card: #f6f7f9;
  --good: #1a7f37; --bad: #c0362c; --band: #fff0c2;
  --s0: #1f6feb; --s1: #d9730d; --s2: #12876f; --s3: #a63fc4; --s4: #8a6d00; --s5: #d1367a; --s6: #5b6b7b;
  --s7: #4a8f1d }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e4e8ed; --soft: #9aa5b1; --line: #3a424c;
  --page: #14181d; --card: #1d2229; --good: #57c26e; --bad: #ff8277; --band: #443a17;
  --s0: #6aa8ff; --s1: #f2a154; --s2: #45c7a8; --s3: #d08ae8; --s4: #d7b94a; --s5: #f27fb0; --s6: #a9b6c4;
  --s7: #93d060 } }
.c0 { --c: var(--s0) } .c1 { --c: var(--s1) } .c2 { --c: var(--s2) } .c3 { --c: var(--s3) }
.c4 { --c: var(--s4) } .c5 { --c: var(--s5) } .c6 { --c: var(--s6) } .c7 { --c: var(--s7) }
svg { font: 11px system-ui, sans-serif; fill: var(--ink); display: block; width: 100% }
svg .title { font-size: 13px; font-weight: 600 } svg .soft { fill: var(--soft) }
svg .grid { stroke: var(--line); stroke-width: 1 } svg .mark { stroke: var(--soft); stroke-dasharray: 2 3 }
svg .line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round } svg .dash { stroke-dasharray: 5 3 }
svg .dot, svg .bar { fill: var(--c) } svg .ci { stroke: var(--c); stroke-width: 1.5 }
svg .hit { fill: transparent } svg .band { fill: var(--band) }
"""


def text(words):
    """What anyone wrote, as HTML or XML: what neither may hold, half of a surrogate pair or a control character, is
    replaced."""
    return html.escape(re.sub("[^\t\n -\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", str(words)))


def label(x, y, words, anchor="start", style=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}">{text(words)}</text>'


def tip(words):
    """The attribute of a mark with what the pointer shows of it."""
    return f' data-tip="{text(words)}"'


def ticks(low, high):
    """Two to six round numbers between two bounds."""
    step = 10 ** math.floor(math.log10((high - low) / 2))
    step *= next(factor for factor in (5, 2, 1, 0.5) if factor == 0.5 or (high - low) / (step * factor) >= 2)
    return [float(step * i) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def legend(names, y):
    """(markup, y below it) of [(name, style, dashed)], in as many rows as it takes."""
    x, parts = LEFT, []
    for name, style, dashed in names:
        if len(name) > 44:
            name = f"{name[:21]}...{name[-20:]}"
        width = 27 + sum(3.7 if letter in "fijlrt .,:()" else 6.8 for letter in name)
        if x > LEFT and x + width > WIDTH:
            x, y = LEFT, y + 15
        parts.append(f'<g class="{style}"><path class="line{" dash" * dashed}" d="M{x} {y - 4}h14"/></g>'
                     + label(x + 18, y, name))
        x += width
    return "".join(parts), y + 10


def axes(title, names, xs, ys, x_label, x_ticks):
    """The frame of a plot -> (markup, x -> its place, y -> its place, height). xs, ys: (low, high). x_ticks: {x:
    name}."""
    above, top = legend(names, 32) if any(name for name, *_ in names) else ("", 28)
    bottom = top + PLOT
    def at_x(x):
        return LEFT + (x - xs[0]) / (xs[1] - xs[0]) * (WIDTH - LEFT - RIGHT)

    def at_y(y):
        return bottom - (y - ys[0]) / (ys[1] - ys[0]) * PLOT

    parts = [label(LEFT - 36, 14, title, style="title"), above]
    for y in ticks(*ys):
        parts.append(f'<path class="grid" d="M{LEFT} {at_y(y):.1f}H{WIDTH - RIGHT}"/>'
                     + label(LEFT - 6, at_y(y) + 4, f"{y:.6g}", "end", "soft"))
    parts += [label(min(at_x(x), WIDTH - 3.1 * len(name)), bottom + 15, name, "middle", "soft")
              for x, name in x_ticks.items()]
    parts.append(label((LEFT + WIDTH - RIGHT) / 2, bottom + 31, x_label, "middle", "soft"))
    return "".join(parts), at_x, at_y, bottom + BOTTOM


def thinned(points):
    """At most MOST_POINTS of the points, evenly spaced, with the last."""
    step = -(-len(points) // MOST_POINTS)
    return points[(len(points) - 1) % step::step] if points else []


def line_chart(title, series, x_label, unit="", names=None, marks=None):
    """A chart of [(name, colour, dashed, [(x, y, half-width of y's interval or 0)])]; None where no point is finite.
    names: {x: name} of ticks that are not the number itself. marks: {x: name} of what begins after x, at a dotted
    line."""
    series = [(name, f"c{colour % 8}", dashed, thinned([p for p in points if np.isfinite(p[1])]))
              for name, colour, dashed, points in series]
    series = [one for one in series if one[3]]
    if not series:
        return None
    points = [point for *_, own in series for point in own]
    xs, ends = [x for x, *_ in points], [y + side * ci for _, y, ci in points for side in (-1, 1)]
    first, last = min(xs), max(xs)
    low, high = (first, last) if first < last else (first - 1, last + 1)
    bottom, top = min(0, *ends), max(0, *ends)
    top = top + 0.06 * (top - bottom) if top > bottom else 1
    names = names or {}
    x_ticks = {x: names.get(x, f"{x:g}") for x in sorted({*ticks(low, high), *names})
               if first <= x <= last and x == int(x)}
    room = max(1, 300 // (8 + 6 * max(map(len, x_ticks.values()))))  # for so many names
    x_ticks = dict([*x_ticks.items()][::-(-len(x_ticks) // room)])
    frame, at_x, at_y, height = axes(title + (f", {unit}" if unit else ""), [(n, c, d) for n, c, d, _ in series],
                                     (low, high), (bottom, top), x_label, x_ticks)
    parts, says = [frame], {}  # {x: what the pointer shows there}
    for x in marks or {}:
        if first < x + 0.5 < last:
            parts.append(f'<path class="mark" d="M{at_x(x + 0.5):.1f} {at_y(top):.1f}V{at_y(bottom):.1f}"/>')
    for i, (name, style, dashed, own) in enumerate(series):
        aside = (i - (len(series) - 1) / 2) * 4 * any(ci for *_, ci in points)  # so that no interval hides another
        path = "L".join(f"{at_x(x) + aside:.1f} {at_y(y):.1f}" for x, y, _ in own)
        parts.append(f'<g class="{style}"><path class="line{" dash" * dashed}" d="M{path}"/>')
        for x, y, ci in own:
            if ci:
                parts.append(f'<path class="ci" d="M{at_x(x) + aside:.1f} {at_y(y - ci):.1f}V{at_y(y + ci):.1f}"/>')
            if len(own) <= 60:
                r = 3 if ci else 2
                parts.append(f'<circle class="dot" cx="{at_x(x) + aside:.1f}" cy="{at_y(y):.1f}" r="{r}"/>')
            interval = f" ± {ci:.2g}" if ci else ""
            says.setdefault(x, []).append(f"{name and name + ': '}{y:.4g}{interval}{unit and ' ' + unit}")
        parts.append("</g>")
    xs = sorted(says)
    edges = [low - 0.5, *((x + after) / 2 for x, after in zip(xs, xs[1:])), high + 0.5]
    for x, left, right in zip(xs, edges, edges[1:]):
        left, right = max(at_x(left), at_x(x) - 20), min(at_x(right), at_x(x) + 20, WIDTH)
        since = [name for mark, name in (marks or {}).items() if mark < x][-1:]
        shown = tip("\n".join([", ".join([f"{x_label}: {names.get(x, f'{x:g}')}", *since]), *says[x]]))
        parts.append(f'<rect class="hit" x="{left:.1f}" y="{at_y(top):.1f}" width="{right - left:.1f}" height="{PLOT}"'
                     f'{shown}/>')
    return "".join(parts), height


def histogram(title, counts, band):
    """Bars of {name: how many questions have p = 0, 0.1 .. 1, or nothing}, in percent of its own; None without any.
    band: (low, high), the p that are kept."""
    style = {name: f"c{i}" for i, name in enumerate(counts)}
    shares = {name: 100 * np.array(own) / sum(own) for name, own in counts.items() if sum(own)}
    if not shares:
        return None
    top = 1.06 * max(own.max() for own in shares.values())
    names = [(name, style[name], False) for name in shares]
    frame, at_x, at_y, height = axes(f"{title}, % of questions", names, (-0.5, 10.5), (0, top), "p",
                                     {i: f"{i / 10:g}" for i in range(0, 11, 2)})
    low, high = math.ceil(10 * band[0] - 1e-9) - 0.5, math.floor(10 * band[1] + 1e-9) + 0.5  # around the kept bars
    parts = [f'<rect class="band" x="{at_x(low):.1f}" y="{at_y(top):.1f}" width="{at_x(high) - at_x(low):.1f}" '
             f'height="{PLOT}"{tip(f"kept: p from {band[0]:g} to {band[1]:g}")}/>', frame]
    width = 24 / len(shares)
    for i, (name, own) in enumerate(shares.items()):
        for p, share in enumerate(own):
            says = f"{name}: {share:.1f} % ({counts[name][p]:.0f}) have p = {p / 10:g}"
            parts.append(f'<rect class="bar {style[name]}" x="{at_x(p) - 12 + i * width:.1f}" y="{at_y(share):.1f}" '
                         f'width="{width - 1:.1f}" height="{at_y(0) - at_y(share):.1f}"{tip(says)}/>')
    return "".join(parts), height


def stacked_bars(title, rows, unit, first=None):
    """A bar for each of [(name, {part: value})], whose parts add up; None where there are none. first: the part that
    comes first in all of them."""
    parts_of = sorted({part: None for _, values in rows for part in values}, key=lambda part: part != first)
    longest = max((sum(values.values()) for _, values in rows), default=0)
    if not longest:
        return None
    style = {part: f"c{i % 8}" for i, part in enumerate(parts_of)}
    above, y = legend([(part, style[part], False) for part in parts_of], 32)
    left, drawn = LEFT + 50, [label(LEFT - 36, 14, f"{title}, {unit}", style="title"), above]
    for name, values in rows:
        x = left
        drawn.append(label(left - 6, y + 14, name, "end", "soft"))
        for part in parts_of:
            width = (WIDTH - RIGHT - left) * values.get(part, 0) / longest
            drawn.append(f'<rect class="bar {style[part]}" x="{x:.1f}" y="{y + 2:.1f}" width="{max(0, width):.1f}" '
                         f'height="16"{tip(f"{name}, {part}: {values.get(part, 0):.4g} {unit}")}/>')
            x += width
        y += 20
    for tick in ticks(0, longest):
        drawn.append(label(left + (WIDTH - RIGHT - left) * tick / longest, y + 14, f"{tick:g}", "middle", "soft"))
    return "".join(drawn), y + 22


def svg(chart):
    """A chart as an element of a page."""
    markup, height = chart
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img">{markup}</svg>'


def note(sentence):
    return f'<p class="note">{sentence}</p>'


def table(head, rows):
    """A table that sorts by the column whose head is pressed; nothing without rows."""
    if not rows:
        return ""
    heads = "".join(f'<th><button type="button">{text(name)}</button></th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def grid(charts, missing):
    """Charts beside one another; a sentence where there are none."""
    drawn = [f"<figure>{svg(chart)}</figure>" for chart in charts if chart]
    return f'<div class="grid">{"".join(drawn)}</div>' if drawn else note(missing)


def picture(charts):
    """Charts beside one another as an SVG file of its own."""
    height, width = max(height for _, height in charts), WIDTH * len(charts)
    drawn = "".join(f'<g transform="translate({i * WIDTH} 0)">{markup}</g>' for i, (markup, _) in enumerate(charts))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" role="img">'
            f'<style>{STYLE}</style><rect width="100%" height="100%" style="fill: var(--page)"/>{drawn}</svg>\n')
