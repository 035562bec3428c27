"""The report's parts by hand: markup that cannot be broken out of, fronts, colours, words."""

from __future__ import annotations

import json

import pytest

from crack_sweeps.leaderboard.report.markup import Html, joined, script_json, tag
from crack_sweeps.leaderboard.report.plots import hover, limits, shade
from crack_sweeps.leaderboard.report.result_plots import pareto
from crack_sweeps.leaderboard.report.words import counted, likelihood, setting, settings_lines, signed


def test_text_is_escaped_and_markup_is_not() -> None:
    assert tag("p", "a < b & c", tag("b", "d")) == "<p>a &lt; b &amp; c<b>d</b></p>"
    assert joined(["<", Html("<br>")]) == "&lt;<br>"


def test_attributes_are_escaped_and_may_be_left_out() -> None:
    drawn = tag("td", "x", class_="a", data_value='"><script>', title=None, hidden=False, open=True)
    assert drawn == '<td class="a" data-value="&quot;&gt;&lt;script&gt;" open>x</td>'
    assert tag("img", alt="a") == '<img alt="a">'


def test_json_cannot_end_its_script_and_reads_back_the_same() -> None:
    value = {"</script><!--": "a & b\u2028"}
    text = script_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


def test_a_figure_that_is_not_a_number_is_an_error_and_no_broken_page() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json([float("nan")])


def test_lines_beside_the_pointer_hold_no_markup_but_their_own() -> None:
    assert hover("a<b", "", "c&d") == "<b>a&lt;b</b><br>c&amp;d"


@pytest.mark.parametrize(
    ("goods", "front"),
    [
        ([], set()),
        ([(1, 1)], {0}),
        ([(1, 3), (2, 2), (3, 1)], {0, 1, 2}),
        ([(1, 1), (2, 2)], {1}),
        ([(2, 1), (2, 2)], {1}),  # as good in one, worse in the other
        ([(1, 2), (2, 2)], {1}),
        ([(1, 1), (1, 1)], {0, 1}),  # neither beats the other
        ([(2, 2), (1, 3), (1, 3), (1, 2)], {0, 1, 2}),
    ],
)
def test_the_front_holds_what_nothing_beats_in_both(goods: list[tuple[float, float]], front: set[int]) -> None:
    assert pareto(goods) == front


def test_a_shade_leads_from_grey_to_the_colour() -> None:
    assert shade("#0072B2", 0) == "#dedee2"
    assert shade("#0072B2", 1) == "#0072b2"


def test_limits_leave_air_also_around_a_single_value() -> None:
    assert limits([0.0, 1.0], 0.1) == [-0.1, 1.1]
    assert limits([2.0], 0.1) == [1.8, 2.2]
    assert limits([0.0], 0.1) == [-0.1, 0.1]


def test_words() -> None:
    assert (counted(1, "trial"), counted(2, "trial"), counted(0, "was", "were")) == ("1 trial", "2 trials", "0 were")
    assert (signed(-0.0471), signed(0.1)) == ("−0.047", "0.100")
    assert (likelihood(0.0004), likelihood(0.0131)) == ("p < 0.001", "p 0.013")
    assert [setting(v) for v in (None, True, 0.00123456, (16, 8), "tiny")] == [
        *("null", "true", "0.001235", "[16, 8]", "tiny"),
    ]


def test_many_settings_are_cut_short_and_say_so() -> None:
    lines = settings_lines({f"key_{number}": number for number in range(20)})
    assert len(lines) == 15
    assert lines[-1] == "and 6 more"
    assert settings_lines({"a.b": "x" * 100}) == ["b = " + "x" * 39 + "…"]
