"""What all figures share: logarithmic axes, ticks, legends, names, thin curves, files.

Holds: report/figures/style.py, report/figures/events.py, report/figures/layer_axis.py,
report/figures/legends.py, report/figures/logarithmic.py, report/figures/thinning.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from vgexp.errors import QuestionError
from vgexp.report.figures import events, style
from vgexp.report.figures.layer_axis import choose_evenly, layers_across, layers_down
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.logarithmic import log_format, log_line, log_range, log_scale, log_ticks
from vgexp.report.figures.thinning import choose_points, lower_medians


def panel() -> Axes:
    _, [axes] = style.canvas()
    return axes


def marks(axes: Axes, marker: str) -> list[float]:
    """Where on x the triangles of a kind stand, without what is for the legend alone."""
    found = [line for line in axes.get_lines() if line.get_marker() == marker]
    return [x for line in found for x in np.asarray(line.get_xdata(), float).tolist()]


def test_zeros_and_infinite_values_stand_at_the_edges_and_the_line_breaks_there() -> None:
    axes = panel()
    line = log_line(axes, [0, 1, 2, 3, 4], [1.0, 0.0, 10.0, np.inf, np.nan], label="a")
    np.testing.assert_array_equal(line.get_ydata(), [1, np.nan, 10, np.nan, np.nan])
    assert marks(axes, "v") == [1]
    assert marks(axes, "^") == [3]
    low, high = [
        float(mark.get_ydata()[0])
        for kind in "v^"
        for mark in axes.get_lines()
        if mark.get_marker() == kind and len(mark.get_xdata())
    ]
    assert 0 < low < 0.1
    assert 0.9 < high < 1
    assert axes.get_legend_handles_labels()[1] == ["a", "exactly 0", "not finite"]


def test_the_legend_names_marks_once_and_last() -> None:
    axes = panel()
    for name in ("a", "b"):
        log_line(axes, [0, 1], [0.0, 1.0], label=name)
    legend_below(axes)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "exactly 0"]


def test_a_thousand_zeros_are_shown_by_a_few_marks_over_the_same_range() -> None:
    axes = panel()
    log_line(axes, np.arange(1000), np.zeros(1000))
    found = marks(axes, "v")
    assert len(found) <= 60
    assert found[0] == 0
    assert found[-1] > 950


def test_negative_values_have_no_place_on_a_logarithmic_scale() -> None:
    axes = panel()
    line = log_line(axes, [0, 1], [-1.0, -np.inf])
    assert np.isnan(line.get_ydata()).all()
    assert not marks(axes, "v")
    assert not marks(axes, "^")


@pytest.mark.parametrize(
    "values",
    [[], [3.0], [2.0, 2.0001], [1e-12, 1.0], [5e-324, 1e308], [1e308], [0.0, np.nan, np.inf]],
    ids=str,
)
def test_a_scale_holds_its_values_and_a_decade_at_the_least(values: list[float]) -> None:
    axes = panel()
    log_line(axes, range(len(values)), values)
    log_scale(axes)
    low, high = axes.get_ylim()
    drawn = [v for v in values if np.isfinite(v) and v > 0]
    assert all(low < min(max(value, 1e-300), 1e300) < high for value in drawn)
    assert np.log10(high) - np.log10(low) >= 1 - 1e-9
    axes.figure.draw_without_rendering()


def test_what_is_included_is_on_the_scale_and_marks_have_room_below() -> None:
    axes = panel()
    log_line(axes, [0, 1], [1.0, 10.0])
    log_scale(axes, include=(1e-3,), free_below=0.25)
    low, high = np.log10(axes.get_ylim())
    assert (-3 - low) / (high - low) > 0.2
    ticks = axes.yaxis.get_majorticklocs()
    assert min(ticks) >= 1e-3 * (1 - 1e-9)


@pytest.mark.parametrize("free_below", [0.0, 0.1])
@pytest.mark.parametrize("high", [10.0, 1e40])
def test_zeros_stand_in_a_band_of_their_own_below_every_number(
    high: float, free_below: float
) -> None:
    axes = panel()
    log_line(axes, [0, 1, 2], [1.0, 0.0, high])
    log_scale(axes, free_below=free_below)
    (band,) = axes.patches
    bottom, top = band.get_y(), band.get_y() + band.get_height()
    assert bottom == free_below
    heights = axes.transAxes.inverted().transform(axes.transData.transform([(0, 1.0), (0, high)]))
    assert (heights[:, 1] > top).all()
    (mark,) = [mark for mark in axes.get_lines() if mark.get_marker() == "v" and
               len(mark.get_xdata())]  # fmt: skip
    assert bottom < mark.get_ydata()[0] < top
    named = dict(zip(axes.yaxis.get_majorticklocs(), axes.get_yticklabels(), strict=True))
    assert [text.get_text() for place, text in named.items() if place < 1 - 1e-9] == ["0"]
    place = axes.transAxes.inverted().transform(axes.transData.transform((0, min(named))))[1]
    assert place == pytest.approx((bottom + top) / 2)


def test_without_zeros_there_is_no_band() -> None:
    axes = panel()
    log_line(axes, [0, 1, 2], [1.0, np.inf, 10.0])
    log_scale(axes)
    assert not axes.patches
    assert "0" not in [text.get_text() for text in axes.get_yticklabels()]


@pytest.mark.parametrize(
    ("low", "high", "ticks", "names"),
    [
        (0.3, 3.0, [0.5, 1, 2], ["0.5", "1", "2"]),
        (0.009, 1.1, [0.01, 0.03, 0.1, 0.3, 1], ["0.01", "0.03", "0.1", "0.3", "1"]),
        (9e2, 1e5, [1e3, 3e3, 1e4, 3e4, 1e5], ["1000", "3000", "10000", "30000", "100000"]),
        (1e-4, 9e-4, [1e-4, 2e-4, 5e-4], ["0.0001", "0.0002", "0.0005"]),
        (3e4, 2e5, [5e4, 1e5, 2e5], ["5 × 10⁴", "10⁵", "2 × 10⁵"]),
        (1e-13, 1.0, 10.0 ** np.arange(-12, 1, 2), None),
        (2e14, 2e15, [2e14, 5e14, 1e15, 2e15], ["2 × 10¹⁴", "5 × 10¹⁴", "10¹⁵", "2 × 10¹⁵"]),
        (1e-39, 1e-36, 10.0 ** np.arange(-39, -35), ["10⁻³⁹", "10⁻³⁸", "10⁻³⁷", "10⁻³⁶"]),
    ],
)
def test_ticks_are_few_and_named_in_one_way(
    low: float, high: float, ticks: list[float], names: list[str] | None
) -> None:
    found = log_ticks(low, high)
    np.testing.assert_allclose(found, ticks)
    if names:
        assert [log_format(low, high)(value) for value in found] == names


def test_ticks_of_any_scale_are_at_least_two_and_at_most_ten() -> None:
    for low in 10.0 ** np.arange(-299, 300, 7.3):
        for decades in (1.0, 1.4, 2.2, 2.9, 5, 8.5, 33, 250):
            if low * 1.0 > 10.0 ** (302 - decades):
                continue
            count = len(log_ticks(low, low * 10**decades))
            assert 2 <= count <= 10, (low, decades)


def test_the_range_of_nothing_is_that_of_one() -> None:
    low, high = log_range([])
    assert low * high == pytest.approx(1)
    assert high / low == pytest.approx(10)


@pytest.mark.parametrize("num_layers", [1, 2, 5, 12, 13, 20, 50, 99, 300, 1000])
def test_layers_are_named_from_the_first_to_the_read_out(num_layers: int) -> None:
    axes = panel()
    names = [*map(str, range(1, num_layers + 1)), "readout"]
    layers_across(axes, np.arange(1, num_layers + 2), names)
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert labels[0] == "1"
    assert labels[-1] == "read-out"
    assert 2 <= len(labels) <= 14
    assert axes.get_xlim()[0] > 0 or num_layers > 20
    places = axes.get_xticks()
    assert places[0] == 1
    assert places[-1] == num_layers + 1
    assert all(label == str(int(x)) for label, x in zip(labels[:-1], places[:-1], strict=True))


def test_measured_layers_with_gaps_stand_at_their_numbers() -> None:
    axes = panel()
    layers_across(axes, np.array([3, 7, 11]), ["3", "7", "readout"])
    assert axes.get_xticks().tolist() == [3, 7, 11]
    layers_down(axes, ["3", "7", "readout"])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["3", "7", "read-out"]


@pytest.mark.parametrize(("num", "most"), [(0, 5), (1, 5), (4, 5), (5, 5), (6, 5), (1000, 12)])
def test_evenly_spaced_places_have_both_ends(num: int, most: int) -> None:
    places = choose_evenly(num, most).tolist()
    assert len(places) == min(num, most)
    assert not num or (places[0] == 0 and places[-1] == num - 1)
    gaps = np.diff(places)
    assert not gaps.size or gaps.max() - gaps.min() <= 1


def test_a_thin_curve_keeps_ends_peaks_zeros_and_infinite_values() -> None:
    generator = np.random.default_rng(0)
    y = generator.random(100_003) + 1
    y[777], y[54_321], y[90_000], y[12_345] = 1e9, 0.0, np.inf, -5.0
    places = choose_points(y)
    assert len(places) <= 4100
    assert {0, 777, 54_321, 90_000, 12_345, 100_002} <= set(places.tolist())
    assert (np.diff(places) > 0).all()


def test_a_gap_of_a_long_curve_stays_a_gap() -> None:
    y = np.ones(50_000)
    y[20_000:30_000] = np.nan
    assert np.isnan(y[choose_points(y)]).any()


def test_a_short_curve_is_drawn_whole() -> None:
    np.testing.assert_array_equal(choose_points(np.ones(4000)), np.arange(4000))


def test_a_strip_says_when_and_how_often() -> None:
    axes = panel()
    happened = np.zeros(1000, dtype=bool)
    happened[[3, 4, 5, 900]] = True
    handle = events.draw_strip(axes, np.arange(1000.0), happened, 0, "clipped")
    assert handle.get_label() == "clipped: 0.4 % of steps"
    cells = [path.vertices[:, 0] for path in axes.collections[0].get_paths()]
    covered = [any(x.min() <= step <= x.max() for x in cells) for step in (3, 5, 900, 500)]
    assert covered == [True, True, True, False]
    assert len(cells) <= 4


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.0001, "<0.1 %"),
        (0.004, "0.4 %"),
        (0.37, "37 %"),
        (0.9999, ">99.9 %"),
        (0.996, "99.6 %"),
    ],
)
def test_a_share_is_not_rounded_to_none_or_all(share: float, words: str) -> None:
    assert style.percent(share) == words


def test_lines_that_may_coincide_get_finer_from_first_to_last() -> None:
    looks = [style.choose_nested_look(index, 3) for index in range(3)]
    widths = [look["linewidth"] for look in looks]
    assert widths == sorted(widths, reverse=True)
    assert len({look["color"] for look in looks}) == 3
    assert style.choose_nested_look(0, 1) == looks[2]
    assert [style.choose_nested_look(index, 2) for index in range(2)] == [looks[0], looks[2]]


def _luminance(colour: object) -> float:
    from matplotlib.colors import to_rgb

    return float(np.dot(to_rgb(colour), [0.299, 0.587, 0.114]))  # type: ignore[arg-type]


def test_nested_lines_and_shades_differ_in_grey() -> None:
    nested = [_luminance(style.choose_nested_look(index, 3)["color"]) for index in range(3)]
    assert np.diff(nested).max() < -0.15
    shades = [_luminance(style.choose_shade(x)) for x in np.linspace(0, 1, 20)]
    assert np.diff(shades).min() > 0


def test_names_that_are_not_ours_are_neither_mathematics_nor_lines() -> None:
    axes = panel()
    title = axes.set_title(style.label("a$b$\nc\x1b[31m"))
    axes.figure.draw_without_rendering()
    assert "\n" not in title.get_text()
    assert "\x1b" not in title.get_text()


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_equal_pictures_are_equal_files(tmp_path: Path, kind: str) -> None:
    @style.with_style
    def make() -> object:
        figure, [axes] = style.canvas()
        log_line(axes, [0, 1, 2], [1.0, 0.0, 3.0], label="a")
        log_scale(axes)
        legend_below(axes)
        return figure

    first, again = (style.write(make(), tmp_path / f"{n}.{kind}").read_bytes() for n in "ab")
    assert first == again
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{kind}", f"b.{kind}"]


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    figure, _ = style.canvas()
    with pytest.raises(QuestionError, match="cannot write"):
        style.write(figure, tmp_path / "nowhere" / "a.png")
    with pytest.raises(QuestionError, match="nearest: png"):
        style.write(figure, tmp_path / "a.pgn")
    assert not list(tmp_path.iterdir())


def test_the_style_does_not_reach_beyond_a_figure() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    style.with_style(lambda: style.canvas()[0])()
    assert dict(mpl.rcParams) == before


def test_the_median_of_an_even_number_is_the_lower_of_the_two_and_nan_does_not_count() -> None:
    nan = np.nan
    values = np.array([[4.0, 1.0, 3.0, 2.0, 6.0, 5.0], [nan, 9.0, 7.0, 8.0, nan, nan]])
    np.testing.assert_array_equal(lower_medians(values, 4), [[2.0, 5.0], [8.0, nan]])
    assert lower_medians(values, 1) is values
