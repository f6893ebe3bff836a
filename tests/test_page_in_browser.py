"""The page as a reader has it: in headless Chromium, at the widths of a phone and a desk, in both themes, and printed."""

import re
import zlib

import pytest
from browser import Browser, needs_chromium
from run_folders import age, fail_in_format, write_run
from test_page_states import hostile_run

from report import write_page

pytestmark = [needs_chromium, pytest.mark.slow]


@pytest.fixture(scope="module")
def browser():
    found = Browser()
    yield found
    found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """{name: file} of the pages of runs of all kinds."""
    folder = tmp_path_factory.mktemp("pages")
    runs = {"finished": [write_run(folder / "finished")],
            "compared": [folder / "finished", write_run(folder / "untrained", challenger_steps=0, seed=1)],
            "unfinished": [write_run(folder / "unfinished", until=(2, "challenger", 2))],
            "no held-out": [write_run(folder / "no-held-out", heldout=None)],
            "wrong format": [fail_in_format(folder / "wrong-format")],
            "old": [age(write_run(folder / "old"))], "hostile": [hostile_run(folder / "hostile <b>")]}
    for name, chosen in runs.items():
        write_page(chosen, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in runs}


@pytest.fixture(params=["finished", "compared", "unfinished", "no held-out", "wrong format", "old", "hostile"])
def any_page(request, pages):
    return pages[request.param]


@pytest.mark.parametrize("width, theme", [(400, "light"), (400, "dark"), (1400, "light"), (1400, "dark")])
def test_a_page_is_quiet_asks_for_nothing_and_needs_no_scrolling_sideways(browser, any_page, width, theme):
    browser.look(any_page, width, theme)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("getComputedStyle(document.body).backgroundColor") == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}[theme]
    asked = [event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"]
    assert asked == [any_page.as_uri()]
    said = [event for event in browser.events if event["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")]
    assert said == []


def test_numbers_stay_on_one_line_on_a_phone(browser, pages):
    browser.look(pages["finished"], 400)
    heights = browser.run("[...document.querySelectorAll('section > .wide tbody tr')].map(row => row.offsetHeight)")
    assert len(heights) == 12 and max(heights) < 36


def test_no_text_scripts_the_page(browser, pages):
    browser.look(pages["hostile"])
    title = browser.run("document.title")
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
    browser.run("for (const one of document.querySelectorAll('*')) for (const kind of ['mouseover', 'focus', 'error', 'load', 'click', 'toggle'])"
                " one.dispatchEvent(new Event(kind))")
    browser.run("new Promise(done => setTimeout(done, 200))")
    assert browser.run("window.hacked") is None and browser.run("document.title") == title != "hacked"
    assert browser.run("document.querySelectorAll('script').length") == 1
    assert browser.run("document.querySelectorAll('img, iframe, a, link, object, base').length") == 0
    assert browser.run("[...document.querySelectorAll('p.model')].some(p => p.textContent.includes('</script><script>window.hacked'))")


def test_a_script_that_were_in_the_page_would_not_run(browser, pages, tmp_path):
    """The second wall: the policy lets the page's own script run, and no other."""
    page = tmp_path / "page.html"
    page.write_text(pages["finished"].read_text(encoding="utf-8").replace("</h1>", "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'></h1>", 1),
                    encoding="utf-8")
    browser.look(page)
    assert browser.run("window.hacked") is None and browser.run("typeof tip") == "object"


def column(browser, table, index):
    return browser.run(f"[...[...document.querySelectorAll('table')].at({table}).tBodies[0].rows].map(row => row.cells[{index}].textContent)")


def press_head(browser, table, index):
    x, y = browser.run(f"(() => {{ const head = [...document.querySelectorAll('table')].at({table}).tHead.rows[0].cells[{index}].firstChild;"
                       "head.scrollIntoView({block: 'center'}); const box = head.getBoundingClientRect();"
                       "return [box.x + box.width / 2, box.y + box.height / 2]; })()")
    browser.point(x, y, press=True)


def test_a_press_on_a_head_sorts_by_number_and_another_reverses(browser, pages):
    browser.look(pages["finished"])
    for index, number in ((1, float), (3, lambda cell: int(cell.replace(",", "")))):
        before = column(browser, -1, index)
        assert before != sorted(before, key=number)
        press_head(browser, -1, index)
        assert column(browser, -1, index) == sorted(before, key=number)
        press_head(browser, -1, index)
        assert column(browser, -1, index) == sorted(before, key=number, reverse=True)
    by_text = sorted(set(map(len, column(browser, -1, 3))))
    assert len(by_text) > 1, "a sort by text would pass"
    names = column(browser, -1, 0)
    press_head(browser, -1, 0)
    assert column(browser, -1, 0)[0] == "base" and sorted(names) == sorted(column(browser, -1, 0))
    browser.look(pages["compared"])
    before = column(browser, 0, 0)
    press_head(browser, 0, 0)
    assert column(browser, 0, 0) == sorted(before)


@pytest.mark.parametrize("width", [400, 1400])
def test_the_pointer_shows_a_marks_value_within_the_window(browser, pages, width):
    browser.look(pages["compared"], width)
    count = browser.run("window.marks = [...document.querySelectorAll('.hit, .bar')].filter(one => one.getBoundingClientRect().width > 1 && "
                        "one.getBoundingClientRect().height > 1), marks.length")
    assert count > 300
    seen = set()
    for i in [*range(0, count, count // 25), count - 1]:
        x, y = browser.run(f"(() => {{ marks[{i}].scrollIntoView({{block: 'center'}}); const box = marks[{i}].getBoundingClientRect();"
                           "return [box.x + box.width / 2, box.y + box.height / 2]; })()")
        browser.point(x, y)
        expected, shown, hidden = browser.run(f"[marks[{i}].dataset.tip, tip.textContent, tip.hidden]")
        box = browser.run("(box => [box.left, box.right, box.top, box.bottom])(tip.getBoundingClientRect())")
        assert shown == expected and not hidden
        assert 0 <= box[0] and box[1] <= width and 0 <= box[2] and box[3] <= 900
        seen.add(shown)
    browser.point(1, 1)
    assert len(seen) > 15 and browser.run("tip.hidden")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(browser, pages, theme):
    """At least 4.5 to 1 for words, 3 to 1 for lines and bars, by the formula of WCAG 2."""
    browser.look(pages["finished"], theme=theme)

    def light(colour):
        r, g, b = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
                   for value in (int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)))
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    def colour(name):
        value = browser.run(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()")
        return value if len(value) == 7 else "#" + "".join(2 * digit for digit in value[1:])

    def contrast(one, other):
        low, high = sorted((light(colour(one)), light(colour(other))))
        return (high + 0.05) / (low + 0.05)

    for name in ("ink", "soft", "good", "bad"):
        for behind in ("page", "card"):
            assert contrast(name, behind) >= 4.5, (name, behind)
    for i in range(8):
        assert contrast(f"s{i}", "page") >= 3 and contrast(f"s{i}", "band") >= 2.5, i


def test_no_words_of_a_chart_overlap(browser, any_page):
    browser.look(any_page)
    found = browser.run("""[...document.querySelectorAll('svg')].flatMap(svg => {
      const words = [...svg.querySelectorAll('text')].map(one => [one.textContent, one.getBoundingClientRect()]);
      const frame = svg.getBoundingClientRect();
      const cut = words.filter(([, a]) => a.left < frame.left - 1 || a.right > frame.right + 1).map(([text]) => 'cut: ' + text);
      return [...cut, ...words.flatMap(([text, a], i) => words.slice(i + 1).filter(([, b]) => a.left < b.right - 1 && b.left < a.right - 1
        && a.top + 3 < b.bottom - 3 && b.top + 3 < a.bottom - 3).map(([other]) => text + ' / ' + other))];
    })""")
    assert found == []


def test_print_cuts_no_chart_and_is_on_light_paper(browser, pages):
    browser.look(pages["finished"], 800, "dark")
    browser.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    styles = browser.run("[...document.querySelectorAll('figure, article')].map(one => getComputedStyle(one).breakInside)")
    assert len(styles) > 40 and {*styles} == {"avoid"}
    assert browser.run("getComputedStyle(document.querySelector('.model')).maxHeight") == "none"
    assert browser.run("getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()") == "#1c2128"
    assert browser.run("Math.max(...[...document.querySelectorAll('figure')].map(one => one.getBoundingClientRect().height))") < 900
    browser.call("Emulation.setEmulatedMedia", media="", features=[])
    pdf = browser.print()
    assert pdf.startswith(b"%PDF") and 4 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 30
    drawn = b"".join(zlib.decompress(part) for part in re.findall(rb"FlateDecode[^>]*>>\s*stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
                     if part[:1] == b"\x78")
    assert len(drawn) > 10_000
