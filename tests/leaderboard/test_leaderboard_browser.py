"""The report in headless Chromium: it opens from disk without a network, its figures are drawn, its tables sort."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crack_sweeps.leaderboard.report.write import write_report

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from browser import Browser, find_chromium
from reported_study import ReportedStudy

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed; CHROMIUM=/path/to/it names one"),
]
READY = "document.documentElement.dataset.drawn"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("browser"))
        study = ReportedStudy.begun()
        study.search(14)
        study.finalists()
        study.floors()
        study.end()
        return write_report(study.folder).absolute()


@pytest.fixture
def tab(report: Path, tmp_path: Path) -> Iterator[Browser]:
    """The report, open and drawn."""
    with Browser(tmp_path / "profile") as browser:
        browser.open(report.as_uri())
        browser.wait(READY)
        yield browser


def order(tab: Browser, table: str, column: int, group: int = 0) -> list[str]:
    """A column of a group of rows, from top to bottom, without the small print."""
    return list(
        tab.ask(
            f"[...document.querySelector('#{table}').tBodies[{group}].rows]"
            f".map(row => row.cells[{column}].firstChild.nodeValue ?? row.cells[{column}].innerText)"
        )
    )


def click(tab: Browser, table: str, title: str) -> None:
    tab.ask(
        f"[...document.querySelectorAll('#{table} th button')].find(b => b.innerText === {title!r}).click()",
    )


def test_it_opens_from_disk_without_network_and_without_errors(tab: Browser, report: Path) -> None:
    assert [address for address in tab.requests if not address.startswith("data:image/")] == [report.as_uri()]
    assert tab.errors == []


def test_every_figure_is_drawn(tab: Browser) -> None:
    num_plots = tab.ask("document.querySelectorAll('.plot').length")
    assert num_plots == 5 + 3 * 3
    assert tab.ask(READY) == str(num_plots)
    drawn = (
        "[...document.querySelectorAll('.plot')].filter(p => p.querySelector('svg.main-svg path, svg.main-svg text'))"
    )
    assert tab.ask(f"{drawn}.length") == num_plots
    marks = "[...document.querySelectorAll('.plot')].map(p => p.querySelectorAll('.trace').length)"
    assert min(tab.ask(marks)) >= 1
    pictures = "[...document.querySelectorAll('.photos img')].every(i => i.complete && i.naturalWidth > 0)"
    assert tab.ask(pictures) is True
    assert tab.ask("document.querySelectorAll('.photos img').length") == 15


def test_no_button_of_a_figure_sends_its_data_anywhere(tab: Browser) -> None:
    """Plotly's own bar has one that does."""
    titles = tab.ask("[...new Set([...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title))]")
    assert sorted(title.split()[0] for title in titles) == ["Download", "Pan", "Reset", "Zoom"]


def test_a_script_could_not_reach_the_network_if_it_tried(tab: Browser) -> None:
    asked = "fetch('http://127.0.0.1:9/').then(() => 'reached', error => String(error))"
    assert "TypeError" in tab.ask(asked)
    assert any("Content Security Policy" in error for error in tab.errors)


def test_a_click_on_a_title_sorts_and_a_second_one_turns_the_order(tab: Browser) -> None:
    click(tab, "ranking", "crack IoU")
    falling = order(tab, "ranking", 2)
    assert falling == sorted(falling, reverse=True)
    assert len(set(falling)) == 3
    click(tab, "ranking", "crack IoU")
    assert order(tab, "ranking", 2) == falling[::-1]
    assert tab.ask("document.querySelector('#ranking th[aria-sort]').ariaSort") == "ascending"
    click(tab, "ranking", "arm")
    arms = ["deeplabv3plus_resnet50", "unet_resnet50", "unet_small"]
    assert tab.ask("[...document.querySelector('#ranking').tBodies[0].rows].map(r => r.cells[1].dataset.value)") == arms
    assert len(order(tab, "ranking", 2, group=1)) == 2, "what is below the line stays there"


def test_numbers_are_sorted_as_numbers_and_what_is_missing_stays_last(tab: Browser) -> None:
    tab.ask("document.querySelectorAll('details').forEach(d => { d.open = true })")
    for turned in (False, True):
        click(tab, "all-trials", "value")
        values = order(tab, "all-trials", 3)
        known = [float(value) for value in values if value != "–"]
        assert known == sorted(known, reverse=not turned)
        assert set(values[len(known) :]) == {"–"}, "the last are those without a value"
    click(tab, "all-trials", "epochs")
    epochs = [int(value) for value in order(tab, "all-trials", 4)]
    assert epochs == sorted(epochs, reverse=True)


def test_a_photo_is_enlarged_and_put_back(tab: Browser) -> None:
    tab.ask("document.querySelector('.photos img').click()")
    assert tab.ask("document.getElementById('enlarged').open") is True
    assert tab.ask("document.querySelector('#enlarged img').naturalWidth") > 0
    tab.ask("document.getElementById('enlarged').click()")
    assert tab.ask("document.getElementById('enlarged').open") is False


def test_the_page_is_never_wider_than_its_window(tab: Browser) -> None:
    assert tab.ask("document.documentElement.scrollWidth <= innerWidth")


def test_it_can_be_printed_with_its_figures_on_the_paper(tab: Browser, tmp_path: Path) -> None:
    printed = tab.print_to(tmp_path / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert 5 <= printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page/") + printed.count(b"/Type /Page ") <= 40
    assert tab.errors == []
    width = tab.ask("Math.round(document.querySelector('.plot').getBoundingClientRect().width)")
    drawn = tab.ask("document.querySelector('.plot svg.main-svg').getBoundingClientRect().width")
    assert abs(width - drawn) <= 1, "after printing the figures fit the window again"


def test_a_figure_answers_the_pointer(tab: Browser) -> None:
    tab.ask("document.getElementById('trade-offs').scrollIntoView()")
    x, y = tab.ask(
        "(() => { const plot = document.getElementById('trade-offs'), { xaxis, yaxis } = plot._fullLayout;"
        " const { x, y } = plot.data.find(trace => trace.mode === 'markers'), box = plot.getBoundingClientRect();"
        " const place = (axis, value) => axis._offset + axis.c2p(value);"
        " return [box.left + place(xaxis, x[0]), box.top + place(yaxis, y[0])]; })()"
    )
    tab.move_to(x, y)
    told = tab.wait("document.querySelector('#trade-offs .hovertext')?.textContent")
    assert "GiB at its peak" in told
    assert "learning_rate = " in told
