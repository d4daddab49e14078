"""The report of a study in Chromium: no errors, figures drawn, tables sorted and filtered, keyboard, phone, paper."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _report_tools import EVIL, example

from isogloss.report.study_page import write_study_report

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    data = example().cells_study(languages=16, examples=30, seeds=2)
    data = replace(data, description=EVIL, scores=[one for one in data.scores if one.task != "ner"])
    return write_study_report(data, tmp_path_factory.mktemp("page") / "report", draws=100).as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=120_000)
        yield opened
        opened.close()


def visit(browser: Any, address: str, width: int = 1200, **given: Any) -> tuple[Any, list[str]]:
    page = browser.new_page(viewport={"width": width, "height": 900}, **given)
    page.set_default_timeout(120_000)
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: None if request.url == address or request.url.startswith("data:") else troubles.append(request.url))  # fmt: skip
    page.on("dialog", lambda dialog: (troubles.append("dialog"), dialog.dismiss()))
    page.goto(address)
    return page, troubles


@pytest.fixture(scope="module")
def desk(browser: Any, address: str) -> tuple[Any, list[str]]:
    return visit(browser, address)


def column(table: Any, place: int) -> list[str]:
    return [
        str(value)
        for value in table.evaluate(
            "(table, place) => [...table.tBodies[0].rows].map((row) => row.cells[place].dataset.sort)", place
        )
    ]


def test_figures_are_drawn_and_nothing_complains(desk: tuple[Any, list[str]]) -> None:
    page, troubles = desk
    drawn = page.locator("section > figure svg").evaluate_all("all => all.map((one) => [one.getBoundingClientRect().width, one.querySelectorAll('path, use').length])")  # fmt: skip
    assert len(drawn) >= 12 and all(width > 400 and shapes > 5 for width, shapes in drawn)
    assert page.locator("body").inner_text().count(EVIL) == 1
    assert troubles == []


def test_sorting_by_mouse_and_by_keyboard(desk: tuple[Any, list[str]]) -> None:
    page, troubles = desk
    table = page.locator("table.sortable", has_text="mean accuracy by setting and group").first
    button = table.locator("thead button").nth(1)
    button.click()
    down = [float(value) for value in column(table, 1)]
    assert down == sorted(down, reverse=True) and len(set(down)) > 3
    assert table.locator("thead th").nth(1).get_attribute("aria-sort") == "descending"
    button.focus()
    page.keyboard.press("Enter")
    assert [float(value) for value in column(table, 1)] == sorted(down)
    assert table.locator("thead th").nth(1).get_attribute("aria-sort") == "ascending"
    table.locator("thead button").nth(0).press("Space")
    names = column(table, 0)
    assert names == sorted(names, key=str.lower)
    assert troubles == []


def test_long_tables_can_be_narrowed(desk: tuple[Any, list[str]]) -> None:
    page, troubles = desk
    details = page.locator("details.more", has_text="All evaluation steps").last
    details.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert details.get_attribute("open") is not None
    details.get_by_label("Only rows with").first.fill("claims lp+ta")
    rows = details.locator("table").first.locator("tbody tr:visible")
    assert rows.count() == 2 and all(re.search("claims.*LP\\+TA", text) for text in rows.all_inner_texts())
    assert troubles == []


def test_everything_can_be_reached_with_the_tab_key(browser: Any, address: str) -> None:
    page, _ = visit(browser, address)
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.tagName + ' ' + document.activeElement.className"))
        shown = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert shown != "none", f"{reached[-1]} does not show that it has the focus"
    assert reached[0] == "A skip" and {"A ", "DIV scroll", "BUTTON ", "SUMMARY "} <= set(reached)
    page.close()


def test_a_phone_needs_no_sideways_scroll(browser: Any, address: str) -> None:
    for scheme in ("light", "dark"):
        page, troubles = visit(browser, address, width=375, color_scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        # Wide things scroll inside their own box, and headings of tables do not.
        assert page.evaluate("[...document.querySelectorAll('caption span')].every((one) => one.getBoundingClientRect().width <= innerWidth)")  # fmt: skip
        size = page.evaluate("parseFloat(getComputedStyle(document.querySelector('td')).fontSize)")
        assert size >= 13 and troubles == []
        page.close()


def test_text_has_contrast_in_both_themes(browser: Any, address: str) -> None:
    ratio = """(names) => {
      const light = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number).map((v) => v / 255)
        .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const back = light(getComputedStyle(document.body).backgroundColor);
      const probe = document.body.appendChild(document.createElement("i"));
      return names.map((name) => {
        probe.style.color = `var(${name})`;
        const ink = light(getComputedStyle(probe).color);
        return (Math.max(ink, back) + 0.05) / (Math.min(ink, back) + 0.05);
      });
    }"""
    for scheme in ("light", "dark"):
        page, _ = visit(browser, address, color_scheme=scheme)
        assert min(page.evaluate(ratio, ["--ink", "--soft", "--link"])) >= 4.5
        assert min(page.evaluate(ratio, [f"--series-{number}" for number in range(8)])) >= 3
        page.close()


def test_paper_has_what_is_folded_on_the_screen(browser: Any, address: str, tmp_path: Path) -> None:
    page, troubles = visit(browser, address)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.more:not([open])").count() == 0
    assert page.locator("nav").is_visible() is False
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.more[open]").count() == 0
    assert (tmp_path / "page.pdf").stat().st_size > 50_000 and troubles == []
    page.close()
