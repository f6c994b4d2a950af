"""Reproduces the papers: runs, figures, and docs/papers.md. A module each in `reproductions`.

`make papers`, or `python scripts/papers.py NAME...` for some of them. Runs go below outputs/papers;
those that have ended are not made again.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import reproductions
from reproductions.paper import Paper

from vgexp.cli.main import main as vgexp_main
from vgexp.errors import QuestionError, unknown
from vgexp.report.figures import style

RUNS = Path("outputs/papers")
PICTURES = Path("docs/papers")
PAGE = Path("docs/papers.md")
HEAD = """\
# Papers, reproduced

What papers on vanishing and exploding gradients say, what theory says of the nets that vgexp
builds, and what vgexp measures on them. All of it is made by `make papers`, offline: the last two
columns of the tables and the figures are computed from the runs of the commands above them, or
from the networks that these start, where the text says so.
Networks and data are small (a few minutes a paper on two cores); where that or anything else makes
a difference, the text below the figure says so. `a to b` is the range over seeds.
"""

_MARK = '<a id="{}"></a>\n'
_MARKED = re.compile(r'^<a id="(\w+)"></a>\n', re.MULTILINE)


def main(names: Sequence[str]) -> int:
    """Brings the runs of the papers (of all, without names) to their end, and writes them down."""
    papers = discovered()
    for name in names:
        if name not in papers:
            print(unknown("paper", name, papers), file=sys.stderr)
            return 2
    chosen = [papers[name] for name in dict.fromkeys(names)] or list(papers.values())
    PICTURES.mkdir(parents=True, exist_ok=True)
    for paper in chosen:
        for folder, words in paper.commands.items():
            make(words, RUNS / paper.name / folder)
        print(f"drawing {paper.name}", flush=True)
        style.write(paper.draw(RUNS / paper.name), PICTURES / f"{paper.name}.png")
        there = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        made = {**sections(there), paper.name: section(paper, RUNS / paper.name)}
        PAGE.write_text(page(papers, made), encoding="utf-8")
    return 0


def discovered() -> dict[str, Paper]:
    """Every `PAPER` of the package, by name, in order of its year."""
    names = [module.name for module in pkgutil.iter_modules(reproductions.__path__)]
    modules = [importlib.import_module(f"reproductions.{name}") for name in names]
    papers = [module.PAPER for module in modules if hasattr(module, "PAPER")]
    papers.sort(key=lambda paper: (paper.name.rpartition("_")[2], paper.name))
    return {paper.name: paper for paper in papers}


def is_sweep(words: str) -> bool:
    return "-m" in shlex.split(words)


def into(words: str, folder: Path) -> list[str]:
    """A command with its folder."""
    key = "hydra.sweep.dir" if is_sweep(words) else "hydra.run.dir"
    return [*shlex.split(words), f"{key}={folder}"]


def make(words: str, folder: Path) -> None:
    """Brings a run or a sweep to its end, from wherever it is."""
    print(shlex.join(["vgexp", *into(words, folder)]), flush=True)
    # A sweep that is typed again goes on by itself.
    there = (folder / "config.yaml").exists() and not is_sweep(words)
    quiet = [] if is_sweep(words) else ["output.quiet=true"]
    typed = ["resume", str(folder)] if there else [*into(words, folder), *_SILENT, *quiet]
    if vgexp_main(typed) != 0:
        sys.exit(f"{folder} did not come to its end")


_SILENT = ("output.figures=false",)


def section(paper: Paper, folder: Path) -> str:
    """What the page says of a paper, from its runs."""
    commands = "\n".join(
        shlex.join(["vgexp", *into(words, Path("runs") / paper.name / name)])
        for name, words in paper.commands.items()
    )
    rows = [
        (claim.statement, claim.paper, claim.theory, claim.measured)
        for claim in paper.claims(folder)
    ]
    table = "\n".join(
        [_row(("", "the paper says", "theory says", "vgexp measures")), "|---|---|---|---|"]
        + [_row(row) for row in rows]
    )
    return (
        f"## {title(paper)}\n\n{paper.citation}\n\n{paper.question}\n\n```sh\n{commands}\n```\n\n"
        f"{table}\n\n![{title(paper)}](papers/{paper.name}.png)\n\n{paper.verdict(folder)}\n"
    )


def title(paper: Paper) -> str:
    """`glorot_2010`: Glorot 2010."""
    return paper.name.replace("_", " ").title()


def page(papers: Mapping[str, Paper], made: Mapping[str, str]) -> str:
    """docs/papers.md, of those papers of which there is a section."""
    there = [paper for paper in papers.values() if paper.name in made]
    contents = "\n".join(f"- [{title(paper)}](#{paper.name}): {paper.citation}" for paper in there)
    parts = [_MARK.format(paper.name) + made[paper.name].strip() + "\n" for paper in there]
    return "\n".join([HEAD, f"{contents}\n", *parts])


def sections(text: str) -> dict[str, str]:
    """The sections of a page that was written before, by the name of their paper."""
    _, *parts = _MARKED.split(text)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _row(cells: Sequence[str]) -> str:
    shown = (cell.replace("|", r"\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(shown)} |"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except QuestionError as error:
        sys.exit(str(error))
