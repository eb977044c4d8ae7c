# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a drill, in a real browser: it fits, is legible, asks for nothing, and runs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.plugin_utils.charts import BYTES, SECONDS, Reading, chart
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_report import DrillReport
from ansible_collections.papermerge.backup.plugins.plugin_utils.report_page import (
    duration,
    history_charts,
    moment,
    report_page,
    size,
    visible,
)
from tests.support.browser import Browser
from tests.support.drill_reports import drill_report, failed_report, past_drills
from tests.unit.test_evidence import HOSTILE, hostile_report

LOOKS = [(1280, False), (1280, True), (390, False), (390, True)]
PAGES = {
    "passed, first drill": drill_report(),
    "failed, second drill": failed_report(history=past_drills(1)),
    "30 drills": drill_report(history=past_drills(29)),
    "400 drills": failed_report(history=past_drills(400)),
    "hostile names": hostile_report(),
    "nothing done": drill_report(snapshot=None, checks=[], twin=[], sample=[], phases=[]),
}

# Of every text that is shown: its colour against what lies behind it. Canvas turns any colour into numbers.
CONTRAST = """
(() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = colour => {
    const [r, g, b] = colour.slice(0, 3).map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, two) => {
    const [a, b] = [luminance(one), luminance(two)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const behind = (element) => {
    if (element instanceof SVGTextElement && element.closest('.phases')) {
      const box = element.getBoundingClientRect(), middle = box.left + box.width / 2;
      for (const bar of element.closest('svg').querySelectorAll('rect')) {
        const other = bar.getBoundingClientRect();
        if (other.left <= middle && middle <= other.right) return numbers(getComputedStyle(bar).fill);
      }
    }
    for (let place = element; place; place = place.parentElement) {
      const colour = numbers(getComputedStyle(place).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    if (['title', 'desc'].includes(element.tagName.toLowerCase())) continue;
    const style = getComputedStyle(element);
    const ink = numbers(element instanceof SVGElement ? style.fill : style.color);
    found.push([walker.currentNode.textContent.trim().slice(0, 40), ratio(ink, behind(element))]);
  }
  return found;
})()
"""
CLIPPED = """
[...document.querySelectorAll('main *')].filter(element => {
  if (!element.checkVisibility() || element.closest('thead')) return false;
  const box = element.getBoundingClientRect();
  return box.width && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map(element => element.outerHTML.slice(0, 80))
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser.started(tmp_path_factory.mktemp("browser")) as started:
        yield started


def written(place: Path, report: DrillReport, damaged: list[str] | None = None) -> str:
    """Write a page and return its URL."""
    path = place / "report.html"
    path.write_text(report_page(report, damaged or []), "utf-8")
    return path.as_uri()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_and_is_legible_on_desktop_and_phone_by_day_and_night(
    browser: Browser, tmp_path: Path, name: str
) -> None:
    url = written(tmp_path, PAGES[name], ["20261101T000000Z-000001: drill.json is not JSON"])
    paper = []
    for width, dark in LOOKS:
        browser.show(url, width, 800, dark=dark)
        assert browser.requests == [url]
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate(CLIPPED) == []
        texts: list[tuple[str, float]] = browser.evaluate(CONTRAST)
        assert len(texts) > 30
        assert [text for text in texts if text[1] < 4.5] == []
        paper.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert paper[0] == paper[2] != paper[1] == paper[3]


def test_the_contrast_measured_is_real(browser: Browser, tmp_path: Path) -> None:
    url = written(tmp_path, drill_report())
    path = tmp_path / "report.html"
    path.write_text(path.read_text("utf-8").replace("--aside: #55606d", "--aside: #aab2bb"), "utf-8")
    browser.show(url, 1280, 800)
    assert [text for text in browser.evaluate(CONTRAST) if text[1] < 4.5]


def test_all_figures_open_and_fit_without_a_script(browser: Browser, tmp_path: Path) -> None:
    url = written(tmp_path, drill_report(history=past_drills(30)))
    browser.show(url, 390, 800)
    closed = browser.evaluate("document.documentElement.scrollHeight")
    browser.evaluate("document.querySelector('summary').click()")
    assert browser.evaluate("document.documentElement.scrollHeight") > closed + 1000
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    assert browser.evaluate("document.querySelectorAll('details tbody tr').length") == 31


def test_a_page_prints_dark_on_white(browser: Browser, tmp_path: Path) -> None:
    browser.show(written(tmp_path, failed_report()), 800, 1100, dark=True, media="print")
    assert [text for text in browser.evaluate(CONTRAST) if text[1] < 4.5] == []
    browser.pdf(tmp_path / "report.pdf")
    pages = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "report.pdf").read_bytes()))
    assert 1 <= pages <= 4


def test_hostile_names_run_nothing_and_are_shown_as_they_are(browser: Browser, tmp_path: Path) -> None:
    text = report_page(hostile_report(), [HOSTILE[0]])
    assert "<script" not in text.lower()
    assert "onerror='" not in text
    assert "\u202e" not in text
    browser.show(written(tmp_path, hostile_report(), [HOSTILE[0]]), 1280, 800)
    assert browser.evaluate("document.querySelectorAll('script, img, iframe, object, link').length") == 0
    shown = browser.evaluate("document.body.innerText")
    for part in (
        HOSTILE[0],
        HOSTILE[1],
        "invoice\\u202efdp.exe",
        "scan-\\udcff\\udcfe.pdf",
        HOSTILE[5],
        "a]]>b &amp; &",
    ):
        assert part in shown


def test_even_a_script_that_got_in_would_not_run(browser: Browser, tmp_path: Path) -> None:
    url = written(tmp_path, drill_report())
    path = tmp_path / "report.html"
    evil = "<script>document.title = 'ran'</script><img src='http://127.0.0.1:9/x'></body>"
    path.write_text(path.read_text("utf-8").replace("</body>", evil), "utf-8")
    browser.show(url, 1280, 800)
    assert browser.evaluate("document.title").startswith("Passed")
    assert browser.evaluate("document.images[0].naturalWidth") == 0


class Outline(HTMLParser):
    """What a screen reader goes by."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.labels: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag in ("h1", "h2", "h3"):
            self.headings.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.labels += (attributes.get("aria-labelledby") or "").split()
        if tag == "svg":
            self.images.append(attributes)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_an_outline_and_its_drawings_have_titles(name: str) -> None:
    text = report_page(PAGES[name], [])
    outline = Outline(text)
    assert outline.headings[0] == "h1"
    assert outline.headings.count("h1") == 1
    assert len(outline.ids) == len(set(outline.ids))
    assert set(outline.labels) <= set(outline.ids)
    assert outline.images
    for image in outline.images:
        assert image["role"] == "img"
        assert image["aria-labelledby"]
    assert 'lang="en"' in text


def test_no_meaning_is_in_colour_alone() -> None:
    text = report_page(failed_report(history=past_drills(30)), [])
    words = re.findall(r'class="verdict (\w+)"><span aria-hidden="true">(.)</span> ([\w ]+)', text)
    assert {"passed", "failed", "skipped"} <= {found[0] for found in words}
    assert {(found[0], found[1]) for found in words} == {("passed", "✓"), ("failed", "✕"), ("skipped", "\N{EN DASH}")}
    assert '<path class="cross"' in text
    assert ", failed</title>" in text


@pytest.mark.parametrize("count", [1, 2, 30, 400])
def test_charts_stay_within_their_frame_and_mark_every_failure(count: int) -> None:
    past = past_drills(count)
    for drawn in history_charts(past, drill_report()):
        assert len(drawn.marks) == sum(drill.verdict == "failed" for drill in past)
        for mark in [*drawn.dots, *drawn.marks]:
            assert drawn.left <= mark.x <= drawn.right
            assert 0 < mark.y <= drawn.bottom
        assert 2 <= len(drawn.grid) <= 5
        assert len(drawn.dates) == (1 if count == 1 else 2)
        assert len(drawn.dots) <= 60


def test_a_line_is_interrupted_where_nothing_was_measured() -> None:
    readings = [Reading(str(number), number == 1, (None if number == 1 else 10.0,)) for number in range(4)]
    drawn = chart("Time", readings, SECONDS, duration)
    assert drawn.lines[0].count("M") == 2
    assert drawn.marks[0].y == drawn.bottom
    assert "not measured, failed" in drawn.marks[0].title


@pytest.mark.parametrize("value", [0.0, 0.01, 59.0, 1e4, 1e7, 1e10, -5.0])
def test_charts_take_any_size(value: float) -> None:
    for steps, shown in ((SECONDS, duration), (BYTES, size)):
        drawn = chart("Any", [Reading("1", False, (value,)), Reading("2", False, (value,))], steps, shown)
        assert 1 <= len(drawn.grid) <= 6
        assert len({label.text for label in drawn.grid}) == len(drawn.grid)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.04, "0 s"), (12.34, "12.3 s"), (59.96, "1 min"), (64, "1 min 4 s"), (3600, "1 h"),
     (50580, "14 h 3 min"), (86400, "1 d"), (183600, "2 d 3 h"), (-90, "-1 min 30 s"), (None, "\N{EN DASH}")],
)  # fmt: skip
def test_durations_are_told_in_two_units(seconds: float | None, text: str) -> None:
    assert duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == text


def test_times_are_told_in_utc() -> None:
    assert moment("2026-11-22T02:30:04.5+02:00") == "22 Nov 2026, 00:30:04 UTC"
    assert moment("<b>") == "<b>"


def test_marks_of_direction_and_bytes_that_are_no_text_are_shown_by_number() -> None:
    texts: list[Any] = ["a\u202eb", "\udcff", "\x1b[0m", "plain é 漢", 7]
    assert [visible(text) for text in texts] == [r"a\u202eb", r"\udcff", r"\u001b[0m", "plain é 漢", 7]
