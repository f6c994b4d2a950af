"""Private names of Hydra taken away one by one: another way to the same, or an error that helps.

Holds: cli/hydra_internals.py
"""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal import utils
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins import basic_sweeper
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore

from vgexp import sweep
from vgexp.cli import composing, hydra_internals, schema
from vgexp.cli.actions import find_work
from vgexp.cli.main import main
from vgexp.config import Config, CopyConfig, RnnConfig
from vgexp.folders import write_config

SMALL = ("data=gaussian", "data.num_examples=128", "data.batch_size=16", "train.steps=2")


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["_run_hydra", "get_args_parser"])
def test_a_version_of_hydra_that_lacks_the_entry_is_named_with_the_one_that_has_it(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(utils, name)
    assert main(["train", *SMALL]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"has no hydra._internal.utils.{name}" in said
    assert "hydra-core>=1.3.2,<1.4" in said


def test_hydras_own_sweeper_is_found_by_the_name_that_configurations_give_it() -> None:
    assert hydra_internals.find_grid() is basic_sweeper.BasicSweeper


@pytest.mark.parametrize("name", ["BasicSweeper", None])
def test_there_is_no_grid_where_its_class_or_module_is_gone(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name is None:
        monkeypatch.setattr(hydra_internals, "GRID", "hydra._internal.no_such.BasicSweeper")
    else:
        monkeypatch.delattr(basic_sweeper, name)
    assert hydra_internals.find_grid() is None


def test_a_sweep_is_run_where_hydra_cannot_be_asked_for_its_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []

    def find_none(*_: Any) -> None:
        made.append(None)

    words = [*SMALL, "model.depth=2,3", "+experiment=sigmoid_deep"]
    assert main(["train", "-m", *words, "hydra.sweep.dir=with"]) == 0
    monkeypatch.setattr(composing.hydra_internals, "find_parts", find_none)
    assert main(["train", "-m", *words, "hydra.sweep.dir=without"]) == 0
    assert made
    for job in ("0", "1"):
        with_parts, without = (Path(folder, job, "layers.csv") for folder in ("with", "without"))
        assert with_parts.read_bytes() == without.read_bytes()
    assert [row["model.depth"] for row in sweep.read(Path("without"))] == ["2", "3"]


@pytest.mark.parametrize(
    ("words", "num_composed"),
    [
        (["seed=1"], 1),
        (["hydra.run.dir=here"], 1),
        (["hydra.job.name=mine"], 2),
        (["experiment=relu_he"], 2),
        (["+experiment=relu_he"], 1),
        (["+experiment=relu_he", "hydra.job.name=mine"], 2),
    ],
)
def test_all_is_composed_once_where_only_a_flag_can_ask_for_a_sweep(
    words: list[str], num_composed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, composed = ConfigLoaderImpl.load_configuration, list[None]()

    def counted(*args: Any, **keywords: Any) -> Any:
        composed.append(None)
        return load(*args, **keywords)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    monkeypatch.setattr("vgexp.cli.job.Job.__call__", lambda *_: None)
    assert main(["train", *SMALL, *words]) == 0
    assert len(composed) == num_composed


def test_an_override_can_ask_for_a_sweep() -> None:
    assert main(["train", *SMALL, "hydra.mode=MULTIRUN", "seed=1", "hydra.sweep.dir=s"]) == 0
    assert [row["seed"] for row in sweep.read(Path("s"))] == ["1"]


def test_nothing_is_changed_where_hydra_cannot_be_asked_for_its_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(Hydra, "get_mode")
    with hydra_internals._without_mode():
        assert not hasattr(Hydra, "get_mode")


def test_a_sweep_is_run_where_hydra_has_made_its_sweeper_anew() -> None:
    assert main(["train", "-m", *SMALL, "seed=1", "hydra.sweep.dir=before"]) == 0
    importlib.reload(basic_sweeper)
    assert main(["train", "-m", *SMALL, "seed=1", "hydra.sweep.dir=after"]) == 0


def test_a_loader_that_cannot_make_a_repository_has_no_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(ConfigLoaderImpl, "_parse_overrides_and_create_caching_repo")
    loader: Any = object.__new__(ConfigLoaderImpl)
    master: Any = None
    assert hydra_internals.find_parts(loader, master) is None


def test_a_store_that_says_how_it_is_copied_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def copy_store(store: ConfigStore, memo: dict[int, Any]) -> str:
        del store, memo
        return "its own"

    monkeypatch.setattr(ConfigStore, "__deepcopy__", copy_store, raising=False)
    hydra_internals.share_store()
    assert ConfigStore.__deepcopy__ is copy_store  # type: ignore[attr-defined]


def test_a_copy_of_the_store_is_the_store() -> None:
    schema.register(find_work("train"))
    store = ConfigStore.instance()
    assert copy.deepcopy(store) is store


def test_a_choice_that_replaces_a_files_own_is_refused_where_hydra_cannot_be_asked_to_trim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    write_config(folder, Config(model=RnnConfig(), data=CopyConfig()), "")
    shown = ["train", "-c", "job", "--config-dir", str(folder), "--config-name", "config"]
    assert main([*shown, "model=gru"]) == 0
    name = "_compose_config_from_defaults_list"
    trimming: Any = ConfigLoaderImpl.__dict__[name]
    with monkeypatch.context() as patch:
        patch.setattr(ConfigLoaderImpl, name, trimming._compose)
        patch.setattr(hydra_internals, "_COMPOSE", "no_such_function")
        assert main([*shown, "model=gru"]) == 2
        assert "unknown key of model: 'activation'" in capsys.readouterr().err
    hydra_internals.trim_sections()
    assert ConfigLoaderImpl.__dict__[name] is trimming  # not wrapped twice


def compose_here(folder: Path, words: list[str]) -> Any:
    """What Hydra composes of `main.yaml` in a folder."""
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose("main", words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], "of one"), (["a=two"], "of two"), (["b=plain"], "plain"), (["b=for_${a}"], "of one")],
)
def test_a_defaults_list_that_refers_to_a_choice_is_composed_as_before(
    words: list[str], expected: str, tmp_path: Path
) -> None:
    files = {
        "main": "defaults: [{a: one}, {b: 'for_${a}'}, other, _self_]",
        "other": "defaults: [{c: [first, second]}]",
        "a/one": "x: 1",
        "a/two": "x: 2",
        "b/for_one": "says: of one",
        "b/for_two": "says: of two",
        "b/plain": "says: plain",
        "c/first": "first: 1",
        "c/second": "second: 2",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    before = compose_here(tmp_path, words)
    with hydra_internals._without_needless_choices():
        assert compose_here(tmp_path, words) == before
    assert before.b.says == expected
    assert before.c == {"first": 1, "second": 2}


def test_a_run_is_composed_where_hydra_does_not_list_its_choices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hydra_internals, "_LIST_CHOICES", "no_such_function")
    monkeypatch.setattr("vgexp.cli.job.Job.__call__", lambda *_: None)
    assert main(["train", *SMALL]) == 0
