"""Folders that somebody else made: what lies there is not followed, not waited for, not told.

Holds: cli/logs.py, files.py, folders.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_cases.children import is_one_block

import vgexp
from vgexp import checkpoints, config, files, folders
from vgexp.cli import error_blocks, main, schema
from vgexp.cli.logs import RegularFileHandler
from vgexp.errors import QuestionError
from vgexp.folders import Prefix
from vgexp.report import figures
from vgexp.sinks.csv_files import CsvFiles
from vgexp.sweep import plan, plan_file

pytestmark = pytest.mark.usefixtures("nothing_hangs")

SMALL = config.Config(
    model=config.MlpConfig(depth=2, width=8),
    data=config.GaussianConfig(num_examples=64, batch_size=8),
    train=config.TrainConfig(steps=12),
    run=config.RunConfig(checkpoint_every=4),
    output=config.OutputConfig(quiet=True),
)
TINY = (
    *("data=gaussian", "data.num_examples=64", "data.batch_size=8", "device=cpu"),
    *("model.depth=2", "model.width=8", "train.steps=2", "output.quiet=true"),
)
OWN_FILES = (
    *("layers.csv", "steps.csv", "evals.csv", "timing.csv", "histograms.csv"),
    *("summary.json", "config.yaml", "train.log", "checkpoint.pt", "checkpoint.previous.pt"),
)
WRITTEN_BY_HYDRA = ("train.log", "signal.log", ".hydra", ".hydra/config.yaml")
OWN_FOLDERS = ("figures", ".hydra")
TEMPORARIES = (".summary.json.new", ".checkpoint.pt.new", ".config.yaml.new")
SECRET = "the words of a file of the user's"

Lay = Callable[[Path, Path], None]
"""Puts something that leads to a victim, or nowhere, under a name."""


def _lay_link(name: Path, victim: Path) -> None:
    name.symlink_to(victim)


def _lay_link_to_nowhere(name: Path, victim: Path) -> None:
    name.symlink_to(victim.with_name("nowhere"))


def _lay_endless_link(name: Path, _: Path) -> None:
    name.symlink_to("/dev/zero")


def _lay_pipe(name: Path, _: Path) -> None:
    os.mkfifo(name)


def _lay_folder(name: Path, _: Path) -> None:
    name.mkdir()
    (name / "inside").write_text(SECRET)


LAYS: dict[str, tuple[Lay, str]] = {
    "link": (_lay_link, "a link"),
    "link to nowhere": (_lay_link_to_nowhere, "a link"),
    "link to a device": (_lay_endless_link, "a link"),
    "named pipe": (_lay_pipe, "a named pipe"),
    "folder": (_lay_folder, "a folder"),
}
"""What may lie under a name -> how it is put there, and what it is called."""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that came to its end."""
    folder = tmp_path_factory.mktemp("ended") / "run"
    vgexp.run(SMALL, folder)
    return folder


@pytest.fixture
def run(ended: Path, tmp_path: Path) -> Path:
    """A run that did not come to its end, to be changed."""
    folder = tmp_path / "run"
    shutil.copytree(ended, folder)
    (folder / "summary.json").write_text('{"status": "interrupted"}')
    return folder


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that is none of the run's."""
    path = tmp_path / "victim"
    path.write_text(f"# {SECRET}\n" * 60)
    return path


def state_of(folder: Path) -> dict[str, Any]:
    """Every name below a folder, what it is, and what is in it."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        is_file = path.is_file() and not path.is_symlink()
        content = path.read_bytes() if is_file else None
        found[path.relative_to(folder).as_posix()] = (path.lstat().st_mode, content)
    return found


def lay(name: Path, kind: str, victim: Path) -> str:
    """Puts something under a name; what it is called."""
    if name.is_dir():
        shutil.rmtree(name)
    name.unlink(missing_ok=True)
    put, called = LAYS[kind]
    put(name, victim)
    return called


# ---------------------------------------------------------------- a run's own files


@pytest.mark.parametrize("kind", LAYS)
@pytest.mark.parametrize("name", OWN_FILES)
def test_resume_refuses_what_is_no_regular_file_and_changes_nothing(
    name: str, kind: str, run: Path, victim: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called = lay(run / name, kind, victim)
    before = state_of(run.parent)
    assert main.main(["resume", str(run)]) == 2
    said = capsys.readouterr().err
    assert is_one_block(said)
    assert f"{name} is {called}" in " ".join(said.split())
    assert state_of(run.parent) == before


@pytest.mark.parametrize("name", OWN_FOLDERS)
def test_resume_writes_into_no_folder_through_a_link(name: str, run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (run / name).symlink_to(elsewhere)
    before = state_of(tmp_path)
    with pytest.raises(QuestionError, match=f"{name} is a link\nallowed: a folder"):
        vgexp.resume(run)
    assert state_of(tmp_path) == before


@pytest.mark.parametrize("name", TEMPORARIES)
def test_a_folder_in_the_place_of_a_temporary_file_is_refused_before_training(
    name: str, run: Path
) -> None:
    _lay_folder(run / name, run)
    before = state_of(run)
    with pytest.raises(QuestionError, match=r"\.new is a folder"):
        vgexp.resume(run)
    assert state_of(run) == before


@pytest.mark.parametrize("name", [*OWN_FILES, *OWN_FOLDERS, ".hydra/config.yaml", "signal.log"])
def test_training_into_a_folder_writes_through_no_link(
    name: str, tmp_path: Path, victim: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).symlink_to(victim)
    before = state_of(tmp_path)
    with pytest.raises(QuestionError, match="is a link"):
        vgexp.run(SMALL, folder)
    assert state_of(tmp_path) == before
    if name in WRITTEN_BY_HYDRA:  # of which the command line alone knows
        verb = "signal" if name == "signal.log" else "train"
        assert main.main([verb, *TINY, f"hydra.run.dir={folder}"]) == 2
        assert is_one_block(capsys.readouterr().err)
        assert state_of(tmp_path) == before


def test_a_run_folder_that_the_user_names_may_be_a_link(
    run: Path, ended: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(run)
    vgexp.resume(tmp_path / "link")
    assert (run / "layers.csv").read_bytes() == (ended / "layers.csv").read_bytes()


@pytest.mark.parametrize("kind", LAYS)
@pytest.mark.parametrize("name", ["layers.csv", "steps.csv", "summary.json", "config.yaml"])
def test_what_reads_a_folder_follows_no_link_and_waits_for_nothing(
    name: str, kind: str, ended: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The link leads to a whole file of the same kind, so that to follow it would go well.
    shutil.copytree(ended, tmp_path / "a")
    called = lay(tmp_path / "a" / name, kind, ended / name)
    for argv in (["show"], ["compare"], ["compare", "--layers"]):
        code = main.main([argv[0], str(tmp_path / "a"), *argv[1:]])
        said = capsys.readouterr()
        assert code == 0 or (code == 2 and is_one_block(said.err))
        if argv == ["show"]:
            assert f"{name} is {called}" in " ".join((said.out + said.err).split())
            assert "Go on:" not in said.out
    done = vgexp.load(tmp_path / "a")
    kinds: dict[str, Callable[[], Any]] = {
        "layers.csv": lambda: done.layers,
        "steps.csv": lambda: done.steps,
        "summary.json": lambda: done.summary,
        "config.yaml": lambda: done.config,
    }
    with pytest.raises(QuestionError, match=rf"{name} is {called}\nallowed"):
        kinds[name]()


@pytest.mark.parametrize("kind", LAYS)
@pytest.mark.parametrize("name", ["steps.csv", "mine.csv"])
def test_a_failure_is_told_without_waiting_for_what_lies_in_its_folder(
    name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = tmp_path / "victim.csv"
    victim.write_text("step,loss\n0,1.5\n")
    folder = tmp_path / "run"
    folder.mkdir()
    folders.write_config(folder, SMALL, "")
    LAYS[kind][0](folder / name, victim)
    assert error_blocks.show_failure(MemoryError(), folder=folder) == 1
    assert "go on" not in capsys.readouterr().err


def test_figures_are_drawn_through_no_link_and_none_is_removed_through_one(
    ended: Path, tmp_path: Path
) -> None:
    shutil.copytree(ended, tmp_path / "a", ignore=shutil.ignore_patterns("figures", "*.csv"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "gradient_map.png").write_text(SECRET)
    (tmp_path / "a" / "figures").symlink_to(elsewhere)
    before = state_of(tmp_path)
    with pytest.raises(QuestionError, match="figures is a link"):
        figures.draw(tmp_path / "a")
    assert state_of(tmp_path) == before


def test_a_table_is_cut_only_after_its_header_was_checked(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sum of one known byte of a file was once enough to have all the rest cut off."""
    (run / "layers.csv").write_text(f"# {SECRET}\n" * 60)
    found = checkpoints.load(run / checkpoints.NEWEST)
    short = {**found.tables, "layers": (1, zlib.crc32(b"#"))}
    for _ in range(2):  # the newest, and the one before
        checkpoints.save(run, checkpoints.Checkpoint(**{**vars(found), "tables": short}))
    before = state_of(run)
    assert main.main(["resume", str(run)]) == 2
    assert "does not begin as layers.csv does" in capsys.readouterr().err
    assert state_of(run) == before


@pytest.mark.parametrize("num_bytes", [1, 10, 1000])
def test_no_table_is_cut_where_one_of_them_is_no_table(num_bytes: int, tmp_path: Path) -> None:
    whole = CsvFiles(tmp_path, ["steps"])
    whole.close()
    header = (tmp_path / "steps.csv").read_bytes()
    (tmp_path / "steps.csv").write_bytes(header + b"0,0\n")
    (tmp_path / "evals.csv").write_text(f"# {SECRET}\n" * 60)
    content = (tmp_path / "evals.csv").read_bytes()[:num_bytes]
    prefixes = {
        "steps": Prefix(len(header), zlib.crc32(header)),
        "evals": Prefix(num_bytes, zlib.crc32(content)),
    }
    before = state_of(tmp_path)
    with pytest.raises(QuestionError, match="does not begin with the columns"):
        CsvFiles(tmp_path, ["steps", "evals"], prefixes)
    assert state_of(tmp_path) == before


def test_a_log_is_never_appended_to_through_a_link(tmp_path: Path, victim: Path) -> None:
    before = victim.read_text()
    (tmp_path / "train.log").symlink_to(victim)
    with pytest.raises(QuestionError, match="is a link"):
        RegularFileHandler(tmp_path / "train.log", encoding="utf-8")
    assert victim.read_text() == before
    ours = f"{RegularFileHandler.__module__}.{RegularFileHandler.__qualname__}"
    assert f"'class': '{ours}'" in str(schema._FILE_LOG)


def test_a_file_that_becomes_a_link_after_it_was_looked_at_is_not_opened(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").symlink_to(victim)
    os.mkfifo(tmp_path / "b")
    monkeypatch.setattr(files, "require_regular", lambda _: None)
    with pytest.raises((QuestionError, OSError)):
        files.open_to_read(tmp_path / "a")
    with pytest.raises(QuestionError, match="a named pipe"):
        files.open_to_read(tmp_path / "b")


def test_documents_longer_than_vgexp_writes_them_are_not_read(
    ended: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ended, tmp_path / "a")
    for name in ("summary.json", "config.yaml"):
        os.truncate(tmp_path / "a" / name, 2**40)
    assert folders.summary_of(tmp_path / "a") == {}
    assert main.main(["compare", str(tmp_path / "a")]) == 2
    assert "bytes" in capsys.readouterr().err
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / plan.FILE).touch()
    os.truncate(tmp_path / "s" / plan.FILE, 2**40)
    assert main.main(["resume", str(tmp_path / "s")]) == 2
    assert "has 1,099,511,627,776 bytes" in capsys.readouterr().err


def test_a_table_that_is_one_endless_line_is_not_read_to_its_end(
    ended: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ended, tmp_path / "a")
    os.truncate(tmp_path / "a" / "layers.csv", 2**40)
    with pytest.raises(QuestionError, match="a line of more than"):
        _ = vgexp.load(tmp_path / "a").layers
    assert main.main(["compare", str(tmp_path / "a"), "--layers"]) == 2
    assert is_one_block(capsys.readouterr().err)


@pytest.mark.parametrize("table", ["layers", "steps", "evals", "timing", "histograms"])
@pytest.mark.parametrize("number", ["1e300", "9223372036854775808", "-1e19", "9" * 30])
def test_a_whole_number_of_more_than_64_bits_is_named(
    table: str, number: str, ended: Path, tmp_path: Path
) -> None:
    header, first, *_ = (ended / f"{table}.csv").read_text().splitlines()
    cells = [*first.split(",")[:1], *[number] * header.count(",")]
    (tmp_path / f"{table}.csv").write_text("\n".join([header, first, ",".join(cells), ""]))
    if table == "timing":  # it has no whole number but the step
        assert len(vgexp.runs.Run(tmp_path).table(table)) == 2
        return
    with pytest.raises(QuestionError, match=r"has a cell in column .* that is no number"):
        vgexp.runs.Run(tmp_path).table(table)


@pytest.mark.parametrize("key", ["seed", "depth", "activation", "loss", "device"])
def test_an_interpolation_in_a_recorded_configuration_is_no_value(
    key: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OF_THE_USER", SECRET)
    path = run / "config.yaml"
    asked = rf"\1{key}: ${{oc.env:OF_THE_USER}}"
    path.write_text(re.sub(rf"(?m)^( *){key}: .*$", asked, path.read_text()))
    before = state_of(run)
    assert main.main(["resume", str(run)]) == 2
    assert SECRET not in capsys.readouterr().err
    assert state_of(run) == before


# ---------------------------------------------------------------- sweeps


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of one job."""
    folder = tmp_path_factory.mktemp("swept") / "s"
    assert main.main(["train", "-m", *TINY, "seed=1", f"hydra.sweep.dir={folder}"]) == 0
    return folder


@pytest.fixture
def sweep(swept: Path, tmp_path: Path) -> Path:
    """The sweep, its job not ended, to be changed."""
    folder = tmp_path / "s"
    shutil.copytree(swept, folder)
    (folder / "0" / "summary.json").unlink()
    return folder


def change_plan(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Writes a plan with a digest that is right, as somebody would who means harm."""
    content = json.loads((folder / plan.FILE).read_bytes())
    content.pop("digest")
    head = {"format": content.pop("format")}
    change(content)
    text = json.dumps({**head, "digest": plan_file._digest(content), **content})
    (folder / plan.FILE).write_text(text)


@pytest.mark.parametrize("kind", LAYS)
@pytest.mark.parametrize(
    "name", ["plan.json", "sweep.csv", "multirun.yaml", "0/layers.csv", "0/train.log"]
)
def test_a_sweep_is_gone_on_with_through_no_link(
    name: str, kind: str, sweep: Path, victim: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay(sweep / name, kind, victim)
    before = state_of(sweep.parent)
    typed = ["train", "-m", *TINY, "seed=1", f"hydra.sweep.dir={sweep}"]
    for argv in (["resume", str(sweep)], *([typed] if kind == "link" else [])):
        assert main.main(argv) == 2
        assert is_one_block(capsys.readouterr().err)
        assert state_of(sweep.parent) == before


def test_a_plan_that_was_lost_is_found_through_no_link(sweep: Path, victim: Path) -> None:
    (sweep / plan.FILE).unlink()
    lay(sweep / "0" / ".hydra" / "overrides.yaml", "named pipe", victim)
    with pytest.raises(QuestionError, match="a named pipe"):
        plan_file.rebuild(sweep)


@pytest.mark.parametrize(
    "word",
    [
        "probe.layers=${oc.env:OF_THE_USER}",
        r"probe.layers=$\{oc.env\:OF_THE_USER\}",
        "probe.layers='${oc.env:OF_THE_USER}'",
        'train.stop_on=[a,"${oc.env:OF_THE_USER}"]',
        "probe.layers=choice(a,${oc.env:OF_THE_USER})",
        "hydra.sweep.subdir=${oc.env:OF_THE_USER}",
        "data.root=${oc.select:hydra.runtime.cwd}",
        "seed=${now:%s}",
    ],
)
def test_words_with_an_interpolation_are_shown_and_not_typed(
    word: str, sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OF_THE_USER", SECRET.replace(" ", "_"))
    shutil.copytree(sweep, sweep.with_name("t"))
    (sweep / "0" / "summary.json").write_text('{"status": "completed"}')
    change_plan(sweep, lambda p: p.update(pending=[["train", "-m", *TINY, word, "seed=4,5"]]))
    assert main.main(["resume", str(sweep)]) == 1
    said = capsys.readouterr()
    assert "if you trust it: vgexp train" in said.err
    assert "OF_THE_USER" in said.err or "oc.env" not in word
    assert SECRET.replace(" ", "_") not in said.out + said.err
    kept = {path.name for path in sweep.iterdir()}
    assert kept == {"0", "plan.json", "sweep.csv", "multirun.yaml"}
    written = [path.read_bytes() for path in sweep.rglob("*") if path.is_file()]
    assert not any(SECRET.replace(" ", "_").encode() in content for content in written)


def _first_job(plan: dict[str, Any]) -> dict[str, Any]:
    job: dict[str, Any] = plan["jobs"][0]
    return job


def _deep(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


ODD_PLANS: dict[str, Callable[[dict[str, Any]], object]] = {
    "an empty command": lambda p: p.update(pending=[[]], commands=[[]]),
    "a command that is a word": lambda p: p.update(commands=["train"]),
    "words that are numbers": lambda p: p.update(pending=[["train", 1]]),
    "commands that are a mapping": lambda p: p.update(commands={"train": 1}),
    "no commands": lambda p: p.pop("commands"),
    "jobs that are a mapping": lambda p: p.update(jobs={"0": 1}),
    "a job that is a list": lambda p: p.update(jobs=[[]]),
    "a job that is null": lambda p: p.update(jobs=[None]),
    "overrides that are a word": lambda p: _first_job(p).update(overrides="seed=1"),
    "overrides that are numbers": lambda p: _first_job(p).update(overrides=[1]),
    "a job number that is a text": lambda p: _first_job(p).update(job="0"),
    "a job number without end": lambda p: _first_job(p).update(job=10**40),
    "values that are a list": lambda p: _first_job(p).update(values=[]),
    "choices that are a text": lambda p: _first_job(p).update(choices="mlp"),
    "an identity that is null": lambda p: _first_job(p).update(identity=None),
    "a folder of the environment": lambda p: _first_job(p).update(folder="${oc.env:HOME}"),
    "a folder above, by the environment": lambda p: _first_job(p).update(
        folder="${oc.env:NO,.}${oc.env:NO,.}/victim"
    ),
    "a folder of 300 letters": lambda p: _first_job(p).update(folder="x" * 300),
    "a folder in another spelling": lambda p: _first_job(p).update(folder="./0"),
    "a folder above": lambda p: _first_job(p).update(folder="a/../../victim"),
    "a folder at the root": lambda p: _first_job(p).update(folder="/tmp/x"),
    "a folder that is a number": lambda p: _first_job(p).update(folder=0),
    "a folder without a name": lambda p: _first_job(p).update(folder="."),
    "a further key": lambda p: _first_job(p).update(further=1),
}


@pytest.mark.parametrize("odd", ODD_PLANS)
def test_an_odd_plan_is_refused_in_one_block(
    odd: str, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_plan(sweep, ODD_PLANS[odd])
    before = state_of(sweep.parent)
    assert main.main(["resume", str(sweep)]) == 2
    said = capsys.readouterr().err
    assert is_one_block(said)
    assert "plan.json is damaged" in " ".join(said.split())
    assert state_of(sweep.parent) == before


@pytest.mark.parametrize(
    "values", [{"seed": "x"}, {"model": 3}, {"model": {"depth": [1]}}, {"model": _deep(300)}]
)
def test_a_job_whose_values_are_no_configuration_fails_and_says_so(
    values: dict[str, Any], sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_plan(sweep, lambda p: _first_job(p)["values"].update(values))
    assert main.main(["resume", str(sweep)]) == 1
    assert "1 of 1 job failed" in capsys.readouterr().err


def test_a_sweep_below_a_folder_with_an_interpolation_in_its_name_is_refused(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    below = sweep.with_name("${oc.env:HOME}")
    below.mkdir()
    sweep.rename(below / "s")
    monkeypatch.chdir(below)
    assert main.main(["resume", "s"]) == 2
    assert "allowed: a name without ${" in capsys.readouterr().err
