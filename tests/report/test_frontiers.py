"""Boundaries of theory over the map of a sweep lie where the predicted figure has their value.

Holds: report/figures/frontiers.py
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from vgexp.quantities import SUMMARY
from vgexp.report.comparing.sweep_grid import Axis, Cell, GridPanel, SweepGrid
from vgexp.report.figures import style
from vgexp.report.figures.frontiers import FRONTIERS, draw_frontiers
from vgexp.report.figures.sweep_maps import draw

FACTOR, VANISHED, EXPLODED = FRONTIERS


def grid_of(factors_YX: list[list[float | None]], *, is_numeric: bool = True) -> SweepGrid:
    """Depth 10 and 20, ... up, gains across; 10 layers a row of the attenuation."""
    num_rows, num_columns = len(factors_YX), len(factors_YX[0])
    xs, ys = [str(i) for i in range(num_columns)], [str(10 * (i + 1)) for i in range(num_rows)]
    cells = {}
    for y, row in zip(ys, factors_YX, strict=True):
        for x, factor in zip(xs, row, strict=True):
            theory = {} if factor is None else {
                FACTOR.metric: factor, VANISHED.metric: factor ** int(y)
            }  # fmt: skip
            cells[x, y] = Cell(1.0, 1, 1, None, theory)
    axis = Axis("gain", xs, is_numeric), Axis("depth", ys, True)
    return SweepGrid(*axis, SUMMARY["attenuation"], [GridPanel("", cells)])


def lines_of(grid: SweepGrid) -> dict[str, np.ndarray]:
    """Label -> points [n, 2] of each boundary that is drawn."""
    figure, [axes] = style.canvas()
    assert isinstance(figure, Figure)
    labels = [str(line.get_label()) for line in draw_frontiers(axes, grid, grid.panels[0].cells)]
    sets = [each for each in axes.collections if isinstance(each, QuadContourSet)]
    return {
        label: np.concatenate([path.vertices for path in contours.get_paths()])
        for label, contours in zip(labels, sets, strict=True)
    }


def test_the_signal_is_kept_where_the_logarithm_of_the_factor_crosses_0() -> None:
    points = lines_of(grid_of([[0.5, 2.0], [0.5, 8.0]]))[FACTOR.words]
    lower, upper = points[points[:, 1] == 0], points[points[:, 1] == 1]
    assert lower[:, 0] == pytest.approx([0.5])
    assert upper[:, 0] == pytest.approx([math.log(2) / (math.log(2) + math.log(8))])


def test_a_boundary_reaches_the_edges_of_the_cells_and_is_seen_half_a_cell_beyond_centres() -> None:
    points = lines_of(grid_of([[1.2, 2.0], [1.2, 2.0]]))[FACTOR.words]
    expected = -math.log(1.2) / (math.log(2.0) - math.log(1.2))
    assert points[:, 0] == pytest.approx([expected] * len(points))
    assert -0.5 < expected < 0
    assert (points[:, 1].min(), points[:, 1].max()) == (-0.5, 1.5)
    assert FACTOR.words not in lines_of(grid_of([[1.5, 2.0], [1.5, 2.0]]))


def test_the_signal_is_lost_where_a_thousandth_is_left_and_explodes_at_a_thousand() -> None:
    lines = lines_of(grid_of([[0.8, 1.25], [0.6, 1.6]]))
    logs = {(0, 0): 10 * math.log(0.8), (0, 1): 20 * math.log(0.6)}
    share = (math.log(1e-3) - logs[0, 0]) / (logs[0, 1] - logs[0, 0])
    left = lines[VANISHED.words]
    assert left[left[:, 0] == 0][:, 1] == pytest.approx([share])
    assert EXPLODED.words in lines


def test_where_nothing_or_everything_is_left_no_line_is_made_up() -> None:
    # 0.7^10 is above 1e-3 and 0.7^20 below: of the attenuation there is a line, to nothing.
    lost = lines_of(grid_of([[0.7, 0.0, 0.0], [0.7, 0.0, 0.0]]))
    assert list(lost) == [VANISHED.words]
    assert lost[VANISHED.words][:, 0].min() == -0.5
    assert lines_of(grid_of([[0.9, 0.0], [0.9, 0.0]])).keys() == {VANISHED.words}
    assert lost[VANISHED.words][:, 0].max() < 1
    assert FACTOR.words not in lines_of(grid_of([[1.6, math.inf], [1.6, math.inf]]))


@pytest.mark.parametrize(
    "grid",
    [
        grid_of([[0.5, 0.6], [0.5, 0.6]], is_numeric=False),
        grid_of([[0.999, 0.999], [0.999, 0.999]]),
        grid_of([[None, None], [None, None]]),
        grid_of([[0.5, 2.0]]),
    ],
)
def test_no_boundary_is_drawn_where_there_is_none(grid: SweepGrid) -> None:
    assert lines_of(grid) == {}


def test_around_what_theory_does_not_know_is_a_gap() -> None:
    points = lines_of(grid_of([[0.5, 2.0], [None, 2.0], [0.5, 2.0]]))[FACTOR.words]
    assert len(points)
    assert not ((points[:, 1] > 0.5) & (points[:, 1] < 1.5)).any()


def test_a_map_names_its_boundaries_below() -> None:
    figure = draw(grid_of([[0.5, 2.0], [0.5, 8.0]]))
    words = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert FACTOR.words in words
