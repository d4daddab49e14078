"""Tables in four forms, figures, intervals, and the page: complete, escaped, closed tags, nothing from outside."""

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from isogloss.errors import IsoglossError
from isogloss.report import (
    Column,
    Commands,
    Facts,
    Page,
    Paragraph,
    Score,
    Section,
    Series,
    Table,
    Trace,
    bootstrap_mean,
    dot_plot,
    render_page,
    to_csv,
    to_markdown,
    to_rich,
    wilson,
    write_page,
)
from isogloss.report.tables import without_columns

EVIL = '<script>alert("x")</script> & [red]|$a_1$|'
VOID = {"meta", "link", "br", "img", "hr", "input"}
TRACE = Trace("isogloss x --a 'b c'", (1, 2), "bundled:encoder", "f00f", "2026-01-02T03:04:05+00:00", "9.8.7", "set A")


def table() -> Table:
    return Table(
        title=f"Scores {EVIL}",
        columns=[Column("language"), Column("TA", numeric=True), Column("LA <b>", numeric=True, digits=2, note=EVIL)],
        rows=[["Czech", 12.345678, Score(50.125, 40.5, 60.75)], [EVIL, 7.25, None], ["Turkish", 31, float("nan")]],
        footer=[["mean", 19.8, Score(50.125)]],
        notes=["A note.", EVIL],
        trace=TRACE,
    )


def figure(name: str = "one") -> object:
    return dot_plot(
        name,
        EVIL,
        ["Czech", EVIL, "Swahili"],
        [
            Series("TA", {"Czech": 10.0, EVIL: 20.0, "Swahili": Score(30.0, 25.0, 37.0)}),
            Series(EVIL, {"Czech": 15.0}),
        ],
        axis="accuracy, percent",
        alt=f"Swahili is best. {EVIL}",
        references={"majority": 14.0},
        notes=["A figure's note."],
    )


def page() -> Page:
    return Page(
        title=f"A page {EVIL}",
        summary=["In short.", EVIL],
        sections=[
            Section("First", [table(), figure("one"), Paragraph(EVIL)]),
            Section(EVIL, [figure("two"), Facts([("a", EVIL)])]),
            Section("Last", [Commands([("isogloss x <y>", "does it")])]),
        ],
        trace=TRACE,
    )


class Reader(HTMLParser):
    """Checks that tags close in order and collects what the tests ask about."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.refers: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = {key: value or "" for key, value in attrs}
        assert len(values) == len(attrs), f"<{tag}> has an attribute twice"
        self.ids += [values["id"]] if "id" in values else []
        for key in ("aria-labelledby", "aria-describedby"):
            self.refers += values.get(key, "").split()
        self.refers += [values[key][1:] for key in ("href",) if values.get(key, "").startswith("#")]
        self.refers += re.findall(r"url\(#([^)]*)\)", " ".join(values.values()))
        self.links += [values[key] for key in ("href", "src") if key in values and values[key][:1] != "#"]
        self.handlers += [key for key in values if key.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data


def read_html(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_page_is_one_whole_valid_document() -> None:
    text = render_page(page())
    reader = read_html(text)
    assert text.startswith("<!DOCTYPE html>")
    assert len(reader.ids) == len(set(reader.ids))
    assert set(reader.refers) <= set(reader.ids)
    assert reader.tags.count("svg") == 2 and reader.tags.count("table") == 1
    # One script and no event handlers: nothing that came with the data runs.
    assert reader.tags.count("script") == 1 and reader.handlers == []
    assert set(reader.links) == {"data:,"}
    assert not re.search(r"(?:https?:)?//[a-z]", re.sub(r"(?m)^\s*// .*$", "", text))
    assert "@import" not in text and "default-src 'none'" in text


def test_page_shows_every_number_and_markup_as_text() -> None:
    reader = read_html(render_page(page()))
    flat = " ".join(reader.text.split())
    for number in ("12.3", "50.12", "[40.50, 60.75]", "7.2", "31", "19.8", "–"):
        assert number in flat
    for part in (EVIL, "A note.", "A figure's note.", "Swahili is best.", "isogloss x <y>", "does it", "In short."):
        assert part in flat
    for _, value in TRACE.facts():
        assert flat.count(value) >= 2, f"{value} must stand by the table and in the footer"
    assert {"9.8.7", "f00f", "1, 2", "set A"} <= set(re.findall(r"9\.8\.7|f00f|1, 2|set A", flat))


def test_what_a_column_means_is_text_and_no_mere_tooltip() -> None:
    """A phone, paper and the keyboard show no tooltips."""
    table = Table("t", [Column("setting"), Column("gap", note=f"source minus mean {EVIL}")], [["a", "b"]])
    text = read_html(render_page(Page("p", [], [Section("s", [table])], TRACE))).text
    assert "What the columns mean" in text and f"source minus mean {EVIL}" in text
    bare = Table("t", [Column("setting")], [["a"]])
    assert "What the columns mean" not in render_page(Page("p", [], [Section("s", [bare])], TRACE))


def test_sort_values_keep_all_digits() -> None:
    text = render_page(page())
    assert 'data-sort="12.345678"' in text and 'data-sort="50.125"' in text
    assert text.count('data-sort=""') == 2  # None and NaN, which sort last


def test_write_page_leaves_one_file(tmp_path: Path) -> None:
    assert write_page(tmp_path / "a" / "report.html", page()).read_text(encoding="utf-8") == render_page(page())
    assert [item.name for item in (tmp_path / "a").iterdir()] == ["report.html"]


def test_csv_reads_back_to_the_same_numbers() -> None:
    lines = to_csv(table()).splitlines()
    comments = [line for line in lines if line.startswith("# ")]
    assert "# command: isogloss x --a 'b c'" in comments and "# seeds: 1, 2" in comments
    rows = list(csv.reader(io.StringIO("\n".join(lines[len(comments) :]))))
    assert rows[0] == ["language", "TA", "LA <b>", "LA <b> low", "LA <b> high"]
    assert rows[1] == ["Czech", "12.345678", "50.125", "40.5", "60.75"]
    assert rows[2] == [EVIL, "7.25", "", "", ""]
    assert rows[4] == ["mean", "19.8", "50.125", "", ""]


def test_markdown_has_one_cell_a_column_and_escapes_markup() -> None:
    lines = to_markdown(table()).splitlines()
    body = [line for line in lines if line.startswith("|")]
    assert len(body) == 6
    for line in body:
        assert len(re.findall(r"(?<!\\)\|", line)) == 4
    assert "| Czech | 12.3 | 50.12 \\[40.50, 60.75\\] |" in body
    assert "\\<script\\>" in body[3] and "<script>" not in "\n".join(lines)
    assert "slk_Latn" in to_markdown(Table("t", [Column("code")], [["slk_Latn"]]))
    assert "f00f" in lines[-1]


def test_terminal_table_shows_markup_as_text() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(to_rich(table()))
    text = console.export_text()
    assert EVIL in text and "12.3" in text and "±10.12" in text


def test_table_refuses_a_short_row_and_drops_columns() -> None:
    with pytest.raises(IsoglossError, match="has 3 columns, but the row starting with 'a' has 2 values"):
        Table("t", [Column("x"), Column("y"), Column("z")], [["a", 1]])
    narrow = without_columns(table(), ["TA"])
    assert [column.name for column in narrow.columns] == ["language", "LA <b>"]
    assert narrow.rows[1] == [EVIL, None] and narrow.footer[0] == ["mean", Score(50.125)]


def test_dots_stand_where_the_values_are() -> None:
    svg = ElementTree.fromstring(figure("one").svg)
    groups: dict[str, list[tuple[float, float]]] = {}
    for use in svg.iter("use"):
        style = use.get("style", "")
        if found := re.search(r"--series-\d", style):
            groups.setdefault(found[0], []).append((float(use.get("x", "nan")), float(use.get("y", "nan"))))
    (x10, y10), (x20, y20), (x30, y30), _legend = groups["--series-0"]
    assert x20 - x10 == pytest.approx(x30 - x20, abs=1e-3) and x20 > x10
    assert y20 - y10 == pytest.approx(y30 - y20, abs=1e-3) and y20 > y10
    (x15, _), _legend = groups["--series-1"]
    assert x15 == pytest.approx((x10 + x20) / 2, abs=1e-3)


def test_figure_says_itself_in_words_and_keeps_markup_as_text() -> None:
    svg = ElementTree.fromstring(figure("one").svg)
    words = "".join(svg.itertext())
    assert words.count(EVIL) >= 4  # title, alt text, row, legend
    assert svg.get("role") == "img" and svg.find("title").text == EVIL
    assert "#0102" not in figure("one").svg and "currentColor" in figure("one").svg
    assert figure("one").svg == figure("one").svg


def test_figure_refuses_too_many_series() -> None:
    with pytest.raises(IsoglossError, match="at most 8 series"):
        dot_plot("x", "t", ["a"], [Series(str(n), {"a": 1.0}) for n in range(9)], axis="x", alt="x")


@pytest.mark.parametrize(("correct", "count"), [(0, 84), (12, 84), (42, 84), (84, 84), (1, 1)])
def test_wilson_is_scipys(correct: int, count: int) -> None:
    reference = stats.binomtest(correct, count).proportion_ci(0.95, method="wilson")
    assert wilson(correct, count) == pytest.approx((100 * reference.low, 100 * reference.high), abs=1e-6)


def test_bootstrap_is_the_normal_interval_for_many_examples() -> None:
    column = np.random.default_rng(1).random(4000)
    low, high = bootstrap_mean([column], paired=True)
    half = 1.96 * column.std() / np.sqrt(len(column))
    assert (low, high) == pytest.approx((column.mean() - half, column.mean() + half), abs=0.1 * half)


def test_paired_bootstrap_knows_that_translations_are_one_sentence() -> None:
    column = (np.random.default_rng(2).random(400) < 0.4).astype(float)
    same = bootstrap_mean([column] * 4, paired=True)
    assert same == pytest.approx(bootstrap_mean([column], paired=True))
    apart = bootstrap_mean([column] * 4, paired=False)
    # Four independent samples halve the width; four copies of one sample do not.
    assert (apart[1] - apart[0]) / (same[1] - same[0]) == pytest.approx(0.5, abs=0.06)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_sorting_in_a_browser(tmp_path: Path) -> None:
    click = (
        "<script>onerror=(e)=>document.title='WRONG: '+e;document.querySelectorAll('thead button')[1].click()</script>"
    )
    (tmp_path / "page.html").write_text(render_page(page()).replace("</body>", click + "</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    command = ["chromium", *options, (tmp_path / "page.html").as_uri()]
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    body = drawn[drawn.index("<tbody>") : drawn.index("</tbody>")]
    assert re.findall(r'<td class="number" data-sort="([^"]*)">(?:31|12\.3|7\.2)', body) == ["31", "12.345678", "7.25"]
    assert 'aria-sort="descending"' in drawn and "<title>WRONG" not in drawn
