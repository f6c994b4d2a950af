"""Figures that are given another table than theirs, and the page of a table of layers alone.

Holds: report/figures/wanted.py, report/__init__.py, report/figures/catalogue.py,
report/figures/overview.py
"""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vgexp import diagnose
from vgexp.errors import QuestionError
from vgexp.quantities import KEYS, SEED, TABLES
from vgexp.report import figures
from vgexp.report.figures import FIGURES, RunFigure


def frame(table: str, *more: str) -> pd.DataFrame:
    """Two rows of a table, each cell 1 or `a`."""
    values = {"int": [1, 1], "float": [1.0, 1.0], "text": ["a", "a"]}
    cells = {column.name: values[column.kind] for column in TABLES[table]}
    return pd.DataFrame({**cells, **{name: [1, 2] for name in more}})


def layers(*, has_activations: bool = True) -> pd.DataFrame:
    """Three sigmoid layers and a read-out at two steps, as a probe measures them."""
    rows = [
        {
            "step": step,
            "layer": layer,
            "name": f"{layer}.weight",
            "kind": "readout" if layer == 4 else "linear",
            "grad_norm": 10.0**layer,
            "grad_max": 10.0**layer / 2,
            "update_ratio": 1e-3,
            "preact_std": 1.0,
            "delta_rms": 10.0 ** (layer - 4),
            "saturated_fraction": 0.25 if has_activations and layer < 4 else np.nan,
        }
        for step in (0, 20)
        for layer in (1, 2, 3, 4)
    ]
    return pd.DataFrame(rows).reindex(columns=[column.name for column in TABLES["layers"]])


def panels(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}


@pytest.mark.parametrize("picture", [FIGURES[name] for name in FIGURES], ids=list(FIGURES))
@pytest.mark.parametrize("table", list(TABLES))
def test_a_figure_draws_its_own_table_and_refuses_every_other(
    table: str, picture: RunFigure
) -> None:
    has_seeds = SEED.name in picture.columns[picture.table]
    given = frame(table, *([SEED.name] if has_seeds else []))
    is_flight = (table, picture.table) == ("flight", "layers")  # layers at other steps
    if table == picture.table or is_flight:
        rest = [frame(other) for other in list(picture.columns)[1:]]
        assert isinstance(picture.make(given, *rest), Figure)
        return
    with pytest.raises(QuestionError) as raised:
        picture.make(given)
    message = str(raised.value)
    assert f"draws the table {picture.table}, but the frame" in message
    assert f"rows of {picture.table}.csv" in message


def test_the_refusal_names_the_table_that_was_given() -> None:
    with pytest.raises(QuestionError, match="has a column layer; its columns are those of layers"):
        figures.gradient_norms(frame("layers"))


def test_the_second_table_is_looked_at_too() -> None:
    with pytest.raises(QuestionError, match="learning_curves draws the table evals"):
        figures.learning_curves(frame("steps"), frame("layers"))


@pytest.mark.parametrize("name", list(FIGURES))
def test_what_is_no_frame_is_refused(name: str) -> None:
    with pytest.raises(QuestionError, match="was given a str\nallowed: a DataFrame"):
        FIGURES[name].make("layers.csv")


@pytest.mark.parametrize(
    "name", [name for name in FIGURES if FIGURES[name].table == "layers" and name != "at_start"]
)
def test_a_figure_of_one_network_refuses_the_rows_of_several_seeds(name: str) -> None:
    with pytest.raises(QuestionError, match="2 seeds\nallowed: the rows of one seed; at_start"):
        FIGURES[name].make(frame("layers", SEED.name))


def test_columns_of_the_users_own_do_no_harm() -> None:
    ours = frame("layers").assign(run="mine", note=1.0)
    assert isinstance(figures.backward_signal(layers=ours), Figure)


def test_keys_are_declared_for_every_table_and_are_its_columns() -> None:
    assert list(KEYS) == list(TABLES)
    for table, keys in KEYS.items():
        assert set(keys) <= {column.name for column in TABLES[table]}


def test_the_overview_of_a_frame_has_a_panel_for_all_that_was_measured() -> None:
    figure = figures.overview(layers())
    found = panels(figure)
    assert list(found) == [
        "Gradient norm of each layer",
        "Backward signal",
        "Forward signal",
        "Update ratio",
        "Saturated entries",
    ]
    assert figure.get_suptitle().replace("\n", " ") == diagnose(layers()).sentence
    np.testing.assert_allclose(
        found["Backward signal"].get_lines()[0].get_ydata(), [1e-3, 1e-2, 1e-1, 1.0]
    )


def test_the_overview_of_a_frame_without_activations_has_four_panels() -> None:
    assert len(panels(figures.overview(layers(has_activations=False)))) == 4


def test_the_overview_of_a_frame_without_a_signal_says_why_there_is_no_verdict() -> None:
    figure = figures.overview(layers().assign(delta_rms=np.nan))
    assert "no row of the table has a backward signal" in figure.get_suptitle().replace("\n", " ")


@pytest.mark.parametrize("given", ["layers.csv", None, frame("steps")])
def test_the_overview_refuses_what_it_cannot_draw(given: object) -> None:
    with pytest.raises(QuestionError, match=r"rows of layers\.csv"):
        figures.overview(given)  # type: ignore[arg-type]


def test_every_exported_figure_of_a_table_is_checked() -> None:
    made = {name for name in figures.__all__ if inspect.isfunction(getattr(figures, name))}
    others = {"overview", "draw", "run_figure", "side_by_side", "before_after", "read_beside"}
    others |= {"draw_instead", "write_beside"}
    assert made - others == set(FIGURES)


def test_figures_are_reached_through_the_package_alone() -> None:
    code = (
        "import vgexp, sys; assert 'matplotlib' not in sys.modules; "
        "vgexp.report.figures.gradient_map; vgexp.theory.predict"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
