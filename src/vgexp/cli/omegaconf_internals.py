"""The private names of OmegaConf that vgexp uses, so that configurations are composed in less time.

Hydra composes a configuration of hundreds of nodes, which it copies many times, and of files and
interpolations, which are read anew each time. vgexp asks for one minor version of OmegaConf
(`omegaconf<2.4`). Where another one has other names, everything works as before and takes longer.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import lru_cache, partial, wraps
from typing import Any

from omegaconf import (
    AnyNode,
    BooleanNode,
    DictConfig,
    FloatNode,
    IntegerNode,
    ListConfig,
    OmegaConf,
    StringNode,
    base,
)

_VALUES = (AnyNode, StringNode, IntegerNode, FloatNode, BooleanNode)
_CONTAINERS = (DictConfig, ListConfig)
_OF_NODES = {"_metadata", "_parent", "_flags_cache"}
_OF_TYPES = {"ref_type", "object_type", "optional", "key"}
_OF_METADATA = _OF_TYPES | {"flags", "flags_root", "resolver_cache"}
_PARSE = "parse"
_MOST_KEPT = 512
"""The most texts that are kept parsed."""

Copy = Callable[[Any, dict[int, Any]], Any]


def copy_nodes_directly() -> None:
    """Has `copy.deepcopy` copy what nodes hold, in a quarter of the time.

    OmegaConf makes an empty node first, with all checks, and then replaces what that one holds. The
    copies are the same. Nodes of other classes, subclasses too, are copied as before.
    """
    if hasattr(base.Metadata, "__deepcopy__") or not _are_nodes_as_known():
        return

    def copy_metadata(metadata: Any, memo: dict[int, Any]) -> Any:
        del memo
        return _copy_metadata(metadata)

    setattr(base.Metadata, "__deepcopy__", copy_metadata)  # noqa: B010
    for cls in _CONTAINERS:
        setattr(cls, "__deepcopy__", _copier_of(cls, cls.__deepcopy__))  # noqa: B010


def _are_nodes_as_known() -> bool:
    """Whether nodes of this version of OmegaConf hold what is copied here, and no more."""
    of_metadata, of_containers = (
        {field.name for field in fields(cls)} for cls in (base.Metadata, base.ContainerMetadata)
    )
    return (
        of_metadata == _OF_METADATA
        and of_containers == _OF_METADATA | {"key_type", "element_type"}
        and all(vars(cls()).keys() == {*_OF_NODES, "_val"} for cls in _VALUES)
        and all(vars(cls(None)).keys() == {*_OF_NODES, "_content"} for cls in _CONTAINERS)
    )


def _copier_of(cls: type[Any], before: Copy) -> Copy:
    """The `__deepcopy__` of a class of containers; its subclasses keep the one of before."""

    @wraps(before)
    def copy_node(node: Any, memo: dict[int, Any]) -> Any:
        return _copy_container(node, memo) if type(node) is cls else before(node, memo)

    return copy_node


def _copy_metadata(metadata: Any) -> Any:
    copied = object.__new__(type(metadata))
    held = vars(copied)
    held.update(vars(metadata))
    held["flags"] = copy.copy(metadata.flags)
    cache = metadata.resolver_cache
    held["resolver_cache"] = copy.deepcopy(cache) if cache else defaultdict(dict)
    return copied


def _copy_held(node: Any) -> Any:
    """A node that holds the same, with metadata of its own. Like OmegaConf's, it has the parent."""
    copied = object.__new__(type(node))
    held = vars(copied)
    held.update(vars(node))
    held["_metadata"] = _copy_metadata(node._metadata)
    return copied


def _copy_container(node: Any, memo: dict[int, Any]) -> Any:
    copied = _copy_held(node)
    held = vars(copied)
    held["_flags_cache"] = copy.copy(node._flags_cache)
    content = node._content
    if isinstance(content, dict):
        held["_content"] = {k: _copy_child(child, copied, memo) for k, child in content.items()}
    elif isinstance(content, list):
        held["_content"] = [_copy_child(child, copied, memo) for child in content]
    return copied


def _copy_child(child: Any, parent: Any, memo: dict[int, Any]) -> Any:
    copied = memo.get(id(child))
    if copied is None:
        if type(child) in _VALUES:
            copied = _copy_held(child)
            vars(copied)["_flags_cache"] = None
        elif type(child) in _CONTAINERS:
            copied = _copy_container(child, memo)
        else:
            held = vars(child)
            before, held["_parent"] = held["_parent"], None
            try:
                copied = copy.deepcopy(child, memo)
            finally:
                held["_parent"] = before
        memo[id(child)] = copied
    vars(copied)["_parent"] = parent
    return copied


@contextmanager
def parse_texts_once() -> Iterator[None]:
    """Within, a text that was parsed before is not parsed again: of a file, or an interpolation.

    Files are read each time, so a file that has changed is parsed anew. Whoever loads one gets a
    copy. Texts that cannot be parsed raise the same errors as before.
    """
    parse, load = getattr(base, _PARSE, None), vars(OmegaConf)["load"]
    if parse is not None:
        setattr(base, _PARSE, _keep(parse))
    setattr(OmegaConf, "load", staticmethod(partial(_load_copy, OmegaConf.load)))  # noqa: B010
    try:
        yield
    finally:
        setattr(OmegaConf, "load", load)  # noqa: B010
        if parse is not None:
            setattr(base, _PARSE, parse)


@lru_cache(maxsize=1)
def _keep(parse: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which keeps what it made of texts. Trees of a grammar are only read."""
    return lru_cache(maxsize=_MOST_KEPT)(parse)


_LOADED: dict[str, Any] = {}
"""The text of a file -> its configuration, of which others get copies."""


def _load_copy(load: Callable[[Any], Any], file: Any) -> Any:
    if not (hasattr(file, "read") and hasattr(file, "seek")):
        return load(file)
    start = file.tell()
    text = file.read()
    found = _LOADED.get(text) if isinstance(text, str) else None
    if found is None:
        file.seek(start)
        found = load(file)
        if not isinstance(text, str):
            return found
        if len(_LOADED) >= _MOST_KEPT:
            _LOADED.clear()
        _LOADED[text] = found
    return copy.deepcopy(found)
