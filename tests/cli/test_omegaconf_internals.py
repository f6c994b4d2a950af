"""Configurations are copied and parsed in less time, and come out as OmegaConf's own.

Holds: cli/omegaconf_internals.py
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf, base, flag_override

from vgexp.cli import omegaconf_internals, schema
from vgexp.cli.omegaconf_internals import copy_nodes_directly, parse_texts_once


class Colour(Enum):
    RED = 1


@dataclass
class Inner:
    some: list[int] = field(default_factory=lambda: [1, 2])
    either: int | float = 0.5
    there: Path = Path("there")


@dataclass
class Outer:
    colour: Colour = Colour.RED
    inner: Inner = field(default_factory=Inner)
    nothing: Inner | None = None
    name: str = "???"
    table: dict[str, Inner] = field(default_factory=lambda: {"a": Inner()})
    half: float = 0.5
    on: bool = True
    raw: bytes = b"raw"


def make_large() -> DictConfig:
    config = OmegaConf.create(
        {"plain": [{"x": 1}, None, ["deep"]], "same": "${plain.0.x}", "missing": "???"}
    )
    config.typed = OmegaConf.structured(Outer)
    config.gone = None
    config.refers = "${typed}"
    OmegaConf.set_struct(config.typed, True)
    OmegaConf.set_readonly(config.plain, True)
    for node in (config.plain[0], config.plain[0]._get_node("x")):
        assert node._get_flag("readonly")  # inherited, which the node notes
    OmegaConf.set_cache(config, {"now": {"%Y": "2020"}})
    return config


def describe(node: Any) -> Any:
    """All that a node holds, but for who its parent is."""
    held = dict(vars(node))
    parent, content = held.pop("_parent"), held.pop("_content", None)
    metadata = (type(held["_metadata"]), vars(held.pop("_metadata")))
    if isinstance(content, dict):
        content = {key: describe(child) for key, child in content.items()}
    elif isinstance(content, list):
        content = [describe(child) for child in content]
    elif isinstance(content, base.Node):
        content = describe(content)
    return type(node), metadata, parent is not None, held, content


def parts(node: Any) -> list[Any]:
    """A node, its metadata and what can be changed in it, and the same of all below it."""
    content = vars(node).get("_content")
    children = content.values() if isinstance(content, dict) else content
    if not isinstance(content, dict | list):
        children = [content] if isinstance(content, base.Node) else []
    metadata = vars(node)["_metadata"]
    own = [node, metadata, metadata.flags, metadata.resolver_cache, vars(node)["_flags_cache"]]
    return own + [part for child in children for part in parts(child)]


def own_copy(config: Any) -> Any:
    """The copy that OmegaConf makes by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(base.Metadata, "__deepcopy__", raising=False)
        for cls in (DictConfig, ListConfig):
            patch.setattr(cls, "__deepcopy__", inspect.unwrap(cls.__deepcopy__))
        return copy.deepcopy(config)


@pytest.mark.parametrize("make", [make_large, schema.make_schema])
def test_a_copy_holds_what_omegaconfs_own_copy_holds(make: Callable[[], DictConfig]) -> None:
    copy_nodes_directly()
    config = make()
    before = describe(config)
    copied = copy.deepcopy(config)
    assert describe(copied) == describe(own_copy(config))
    assert describe(config) == before
    assert OmegaConf.to_yaml(copied) == OmegaConf.to_yaml(config)


def test_a_copy_shares_nothing_with_its_original() -> None:
    copy_nodes_directly()
    config = make_large()
    copied = copy.deepcopy(config)
    theirs = {id(part) for part in parts(config)}
    assert not [part for part in parts(copied) if id(part) in theirs and part is not None]
    copied.typed.inner.some.append(3)
    copied.typed.name = "mine"
    assert config.typed.inner.some == [1, 2]
    assert OmegaConf.is_missing(config.typed, "name")


def test_a_section_is_copied_below_the_same_parent_and_its_own_nodes_below_itself() -> None:
    copy_nodes_directly()
    config = make_large()
    for section in (copy.deepcopy(config.typed), own_copy(config.typed)):
        assert section._get_parent() is config
        assert section.inner._get_parent() is section
        assert section.inner.some._get_node(0)._get_parent() is section.inner.some


def test_a_copy_of_several_configurations_has_each_once() -> None:
    copy_nodes_directly()
    config = make_large()
    first, second, section = copy.deepcopy([config, config, config.typed])
    assert first is second
    assert section is first.typed


def test_a_subclass_is_copied_as_before() -> None:
    copy_nodes_directly()

    class Mine(DictConfig):
        pass

    config = OmegaConf.create({})
    config._set_flag("no_deepcopy_set_nodes", True)
    config.mine = Mine({"a": {"b": 1}})
    assert describe(copy.deepcopy(config)) == describe(own_copy(config))


@pytest.mark.parametrize("change", ["a field of metadata", "an attribute of nodes"])
def test_nodes_that_hold_something_else_copy_themselves(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_nodes_directly()
    monkeypatch.delattr(base.Metadata, "__deepcopy__")
    monkeypatch.setattr(DictConfig, "__deepcopy__", own := inspect.unwrap(DictConfig.__deepcopy__))
    name = "_OF_METADATA" if change == "a field of metadata" else "_OF_NODES"
    known = getattr(omegaconf_internals, name)
    monkeypatch.setattr(omegaconf_internals, name, known - {sorted(known)[0]})
    copy_nodes_directly()
    assert not hasattr(base.Metadata, "__deepcopy__")
    assert DictConfig.__deepcopy__ is own


def load(path: Path) -> Any:
    with path.open(encoding="utf-8") as file:
        assert file.read(2) == path.read_text(encoding="utf-8")[:2]
        file.seek(0)
        return OmegaConf.load(file)


def test_a_file_is_parsed_once_and_anew_when_its_text_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: {b: 1}\n# of this test\n")
    parse, parsed = yaml.load, list[None]()

    def count(*args: Any, **keywords: Any) -> Any:
        parsed.append(None)
        return parse(*args, **keywords)

    monkeypatch.setattr(yaml, "load", count)
    with parse_texts_once():
        first, second = load(path), load(path)
        assert len(parsed) == 1
        first.a.b = 5
        assert second == load(path) == {"a": {"b": 1}}
        path.write_text("a: {b: 2}\n# of this test\n")  # of the same length, at once
        assert load(path) == {"a": {"b": 2}}
        assert OmegaConf.load(path) == {"a": {"b": 2}}
        assert len(parsed) == 3
    assert load(path) == {"a": {"b": 2}}
    assert len(parsed) == 4


def test_a_file_that_is_no_yaml_is_named_each_time(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("a: [1\n# of this test")
    for _ in range(2):
        with parse_texts_once(), pytest.raises(yaml.YAMLError, match=r"wrong\.yaml"):
            load(path)


def test_the_grammar_of_an_interpolation_is_worked_out_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parse, parsed = base.parse, list[str]()

    def note(text: str) -> Any:
        parsed.append(text)
        return parse(text)

    monkeypatch.setattr(base, "parse", note)
    config = OmegaConf.create({"a": 1, "b": "${a}"})
    with parse_texts_once():
        assert (config.b, config.b) == (1, 1)
        config.a = 2
        assert config.b == 2
    assert parsed == ["${a}"]
    assert base.parse is note


def test_files_are_loaded_where_omegaconf_has_no_such_grammar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text("a: 1")
    monkeypatch.delattr(base, "parse")
    with parse_texts_once():
        assert load(tmp_path / "a.yaml") == {"a": 1}
    assert not hasattr(base, "parse")


def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(omegaconf_internals, "_MOST_KEPT", 3)
    monkeypatch.setattr(omegaconf_internals, "_LOADED", {})
    with parse_texts_once():
        for number in range(10):
            (tmp_path / "a.yaml").write_text(f"a: {number}")
            assert load(tmp_path / "a.yaml") == {"a": number}
            assert len(omegaconf_internals._LOADED) <= 3


def test_flags_that_nodes_have_noted_do_not_outlive_a_change() -> None:
    copy_nodes_directly()
    config = make_large()
    copied = copy.deepcopy(config)
    with flag_override(copied, "readonly", True):
        assert OmegaConf.is_readonly(copied.typed.inner)
    assert not OmegaConf.is_readonly(copied.typed.inner)
