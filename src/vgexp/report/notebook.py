"""Shows a run in a notebook: verdict, diagnosis, metrics and the overview, as HTML."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgexp.diagnosis import sentence
from vgexp.errors import QuestionError, printable
from vgexp.past import PastRun
from vgexp.quantities import SUMMARY
from vgexp.report.selection import ON_CARD
from vgexp.report.terminal.layout import number


def as_html(folder: Path) -> str:
    """Makes the HTML for a run folder; says what cannot be read or drawn.

    It refers to nothing outside itself, and has nothing in it but text and pictures.
    """
    parts = [f"<h3>{_text(folder)}</h3>"]
    run = PastRun(folder, is_strict=False)
    try:
        summary = run.require_summary()
    except QuestionError as error:
        parts.append(f"<p>{_text(error)}</p>")
    else:
        parts.append(f"<p><b>{_text(summary.get('verdict') or summary.get('status'))}</b></p>")
        parts += [_words(run, summary), _metrics(summary)]
    return f"<div>{''.join(parts)}{_overview(folder)}</div>"


def _words(run: PastRun, summary: Mapping[str, Any]) -> str:
    try:
        return f"<p>{_text(sentence(summary, run.tables(), run.config))}</p>"
    except (KeyError, TypeError, ValueError):  # it has no metrics, or somebody changed them
        return f"<p>{_text(summary.get('reason', ''))}</p>"


def _metrics(summary: Mapping[str, Any]) -> str:
    rows = [
        f'<tr><td title="{_text(SUMMARY[name].meaning)}">{name}</td>'
        f"<td>{_text(_short(value))}</td></tr>"
        for name in ON_CARD
        if (value := summary.get(name)) is not None
    ]
    return f"<table>{''.join(rows)}</table>" if rows else ""


def _overview(folder: Path) -> str:
    from vgexp.report import figures

    picture = io.BytesIO()
    try:
        figures.run_figure(folder).savefig(picture, format="png")
    except QuestionError as error:
        return f"<p>{_text(error)}</p>"
    encoded = base64.b64encode(picture.getvalue()).decode()
    return f'<img alt="overview of the run" src="data:image/png;base64,{encoded}">'


def _short(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _text(value: object) -> str:
    return html.escape(printable(str(value)))
