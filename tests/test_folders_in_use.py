"""Folders, terminals and environments as people have them, while runs are made in them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from vgexp.errors import QuestionError
from vgexp.report.figures import backend, style
from vgexp.tables import find_runs


def test_matplotlib_is_imported_without_a_backend_that_it_may_not_know(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_folder / "matplotlib.py").write_text(
        "import os\n"
        "assert 'MPLBACKEND' not in os.environ\n"
        "class Known(dict):\n"
        "    def __setitem__(self, key, value):\n"
        "        if value.startswith('module://'):\n"
        "            raise ValueError(value)\n"
        "        super().__setitem__(key, value)\n"
        "rcParams = Known()\n"
    )
    monkeypatch.syspath_prepend(str(own_folder))
    for asked, chosen in (("module://matplotlib_inline.backend_inline", {}), ("svg", "svg")):
        monkeypatch.setenv("MPLBACKEND", asked)
        monkeypatch.delitem(sys.modules, "matplotlib")
        backend.import_matplotlib()
        assert os.environ["MPLBACKEND"] == asked
        found = sys.modules["matplotlib"].rcParams
        assert found == ({"backend": chosen} if chosen else {})


def test_letters_that_the_font_lacks_bring_no_warning(tmp_path: Path) -> None:
    def draw(axes: style.Axes) -> None:
        axes.text(0.5, 0.5, style.label("日本語"))

    for suffix in ("png", "svg"):
        style.write(style.alone(draw, style.label("runs/名前")), tmp_path / f"a.{suffix}")


def test_jobs_in_hidden_folders_are_found_below_their_sweep_alone(tmp_path: Path) -> None:
    jobs = [tmp_path / "sweep" / name for name in (".2", ".10", ".later/a")]
    for job in (*jobs, tmp_path / "others" / ".git"):
        job.mkdir(parents=True)
        (job / "summary.json").write_text("{}")
    (tmp_path / "sweep" / "plan.json").write_text("{}")
    assert find_runs([tmp_path]) == jobs
    with pytest.raises(QuestionError, match="no run"):
        find_runs([tmp_path / "others"])
