"""Translates Hydra's errors: what was asked, what is allowed, and the nearest allowed name."""

from __future__ import annotations

import dataclasses
import difflib
import errno
import re
import shlex
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import (
    HydraException,
    MissingConfigException,
    OverrideParseException,
    SearchPathException,
)
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from vgexp.cli import overrides, plugins
from vgexp.cli.hydra_messages import about_message
from vgexp.cli.keys import list_keys
from vgexp.cli.listing import list_experiments
from vgexp.config import CHOICES, Config
from vgexp.config.kinds import in_words, whole_number_like
from vgexp.errors import QuestionError, unknown

_PACKAGE = "# @package _global_"

_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


def translate(error: BaseException) -> QuestionError | None:
    """The `QuestionError` for an error of composing; None: it is not the user's mistake."""
    if isinstance(error, QuestionError):
        return error
    if isinstance(error, OverrideParseException):
        meant = _meant(str(error.override)) or _quoted(str(error.override))
        return QuestionError(
            f"cannot read the override {error.override!r}\n{_complaint(error.message)}\n"
            "allowed: key=value, group=choice, +experiment=NAME, with -m also key=a,b,c"
            + (f"\nnearest: {', '.join(meant)}" if meant else "")
        )
    if isinstance(error, MissingConfigException):
        return _missing(error)
    for cause in _chain(error):
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return _about_key(cause, str(error))
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in _CLOSED and cause.filename:
            return _about_closed(Path(str(cause.filename)), cause)
    if isinstance(error, SearchPathException):
        return QuestionError(f"{error}\nallowed: a folder that exists")
    if isinstance(error, yaml.YAMLError):
        return QuestionError(f"a configuration file cannot be read\n{error}")
    if isinstance(error, (HydraException, OmegaConfBaseException, ValueError)):
        return about_message(str(error))
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return QuestionError(f"{error.filename} is a file\nallowed: a folder")
    return None


def unknown_key(group: str, key: str, known: Collection[str]) -> QuestionError:
    """The error for a key that a group (at the root: "") lacks; names groups that have it."""
    if not group:
        elsewhere = {**_groups_with(), "experiment": ["+experiment=NAME"], **_described_as(key)}
        return unknown("key", key, known, elsewhere)
    choices = _choices_with(group, key)
    same = {name: whole for name, whole in _groups_with().items() if name == key}
    elsewhere = {} if choices else {**same, **_described_as(key)}
    headline, allowed, *near = str(unknown(f"key of {group}", key, known, elsewhere)).splitlines()
    if not known:
        allowed = f"allowed: none, since the chosen {group} has no keys"
    others = [f"{key} is a key of: {', '.join(choices)}"] if choices else []
    return QuestionError("\n".join([headline, allowed, *near, *others]))


def unknown_flag(flag: str, argv: Sequence[str], known: Iterable[str]) -> QuestionError:
    """The error for a flag that Hydra lacks; suggests `optimizer.lr=0.1` for `--lr 0.1`.

    Args:
        argv: the command line, in which the flag's value may be the next word.
    """
    name, _, value = flag.partition("=")
    after = argv[argv.index(flag) + 1 :][:1] if flag in argv else []
    if not value and after and not after[0].startswith("-") and "=" not in after[0]:
        value = after[0]
    key = name.lstrip("-").replace("-", "_")
    written: dict[str, list[str]] = {"--experiment": ["+experiment"]}
    written |= {f"--{group}": [group] for group in CHOICES}
    written |= {f"--{root}": [root] for root in ("seed", "device", "dtype")}
    for where, whole in (*_groups_with().items(), *_described_as(key).items()):
        written.setdefault(f"--{where.replace('_', '-')}", []).extend(whole)
    typed = {f: [f"{word}={value or 'VALUE'}" for word in words] for f, words in written.items()}
    return unknown("flag", name, known, typed)


def _missing(error: MissingConfigException) -> QuestionError:
    asked = error.missing_cfg_file or ""
    not_installed = plugins.explain_missing(asked)
    if not_installed is not None:
        return not_installed
    group, _, name = asked.rpartition("/")
    options = list(error.options or ())
    if asked.startswith("experiment/"):
        # A preset in a folder below: Hydra takes it for one of a group of its own.
        group, _, name = asked.partition("/")
        options = [*options, *(preset for preset, _ in list_experiments() if preset not in options)]
    if options:
        question = unknown(group, name, options)
        preset = re.match(r"In '(experiment/[^']+)'", str(error))
        return QuestionError(f"{question}\nasked by: {preset[1]}") if preset else question
    headline = f"no configuration file {asked!r}"
    folders = [Path(path) for path in re.findall(r"path=file://(.*)", str(error))]
    if "primary config" not in str(error) or not folders:
        return QuestionError(f"{headline}\n{_first_line(str(error))}")
    names = {path.stem for folder in folders for path in folder.glob("*.yaml")}
    _, *allowed = str(unknown("", asked.removesuffix(".yaml"), names)).splitlines()
    of_run = "a run's own: vgexp train --config-dir RUN --config-name config"
    return QuestionError("\n".join([headline, *allowed, of_run]))


def _about_key(cause: OmegaConfBaseException, message: str) -> QuestionError:
    parent, _, key = str(cause.full_key).rpartition(".")
    place = re.match(r"In '(experiment/[^']+)'", message)
    suffix = f"\nasked by: {place[1]}" if place else ""
    if place and cause.full_key == "experiment":
        return QuestionError(
            f"{place[1]}.yaml does not begin with {_PACKAGE}\n"
            f"allowed: {_PACKAGE} as the first line of a preset; without it its keys are taken for"
            " keys of experiment"
        )
    if parent.endswith(".kwargs"):
        return QuestionError(
            f"{cause.full_key} is not there to be changed{suffix}\n"
            f"allowed: +{cause.full_key}=..., which adds it; {parent}={{{key}: ...}}, which sets"
            " all of them"
        )
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        return QuestionError(f"{unknown_key(parent, key, _known_keys(cause))}{suffix}")
    if isinstance(cause, MissingMandatoryValue):
        allowed = ", ".join(CHOICES.get(key, ())) or "a value"
        return QuestionError(f"{cause.full_key} is missing\nallowed: {allowed}")
    words = _type_in_words(cause.object_type, key)
    if words is None:
        return QuestionError(f"{cause.full_key}: {_first_line(str(cause))}{suffix}")
    asked = {None: "null", True: "true", False: "false"}
    value = cause.value
    shown = asked[value] if value is None or isinstance(value, bool) else repr(value)
    near = whole_number_like(value, words)
    lines = [f"{cause.full_key} is {shown}", f"allowed: {words}"]
    lines += [] if near is None else [f"nearest: {near}"]
    return QuestionError("\n".join(lines) + suffix)


def _about_closed(path: Path, error: OSError) -> QuestionError:
    """The error for a folder that cannot be written; the first file made in it is the log."""
    folder = path.parent if path.suffix else path
    return QuestionError(
        f"cannot write in {folder}: {error.strerror}\n"
        "allowed: a folder that can be written, hydra.run.dir=DIR or hydra.sweep.dir=DIR"
    )


def _known_keys(cause: OmegaConfBaseException) -> list[str]:
    cls = cause.object_type
    if isinstance(cls, type) and dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]
    return [str(key) for key in cause.parent_node or ()]


def _groups_with() -> dict[str, list[str]]:
    """Key -> the key with its group, for every group of which a choice has it."""
    groups: dict[str, list[str]] = {}
    for field in dataclasses.fields(Config):
        classes = CHOICES.get(field.name, {field.name: field.default_factory}).values()
        names = [
            f.name
            for cls in classes
            if dataclasses.is_dataclass(cls)
            for f in dataclasses.fields(cls)
        ]
        for name in dict.fromkeys(names):
            groups.setdefault(name, []).append(f"{field.name}.{name}")
    return groups


def _described_as(words: str) -> dict[str, list[str]]:
    """The keys whose meaning begins with these words: `learning_rate` gives `optimizer.lr`."""
    wanted = words.replace("_", " ").lower()
    found = [
        key.name
        for key in list_keys()
        # A key of this very name is found by its name.
        if len(wanted) > 3
        and key.name.rpartition(".")[2] != words
        and re.match(rf"{re.escape(wanted)}\b", key.meaning.lower())
    ]
    return {words: list(dict.fromkeys(found))} if found else {}


def _meant(word: str) -> list[str]:
    """The overrides that choose the preset or choice whose name a word is, or nearly is."""
    written: dict[str, list[str]] = {}
    for name, _ in list_experiments():
        written.setdefault(name, []).append(f"+experiment={name}")
    for group, choices in CHOICES.items():
        for name in choices:
            written.setdefault(name, []).append(f"{group}={name}")
    nearest = difflib.get_close_matches(word, written, n=1, cutoff=0.75)
    return written[nearest[0]] if nearest else []


def _quoted(word: str) -> list[str]:
    """The override with its value in quotes, which Hydra needs for letters beyond ASCII."""
    key, _, value = word.partition("=")
    if not key.isascii() or value.isascii():
        return []
    return [shlex.quote(overrides.assign(key, value))]


def _choices_with(group: str, key: str) -> list[str]:
    """The choices of a group that have a key."""
    choices: Mapping[str, type] = CHOICES.get(group, {})
    return [n for n, cls in choices.items() if key in {f.name for f in dataclasses.fields(cls)}]


def _type_in_words(cls: Any, key: str) -> str | None:
    """The type of a field in words: `a whole number, or null`."""
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        return None
    words = in_words(cls, key)
    if words is None and dataclasses.is_dataclass(typing.get_type_hints(cls).get(key)):
        return "a group's keys as {key: value}"
    return words


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _complaint(message: str) -> str:
    """The line of a parser's message that says what is wrong."""
    lines = [line for line in message.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Error parsing", "See https"))]
    return (telling or lines or [""])[0]


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0] if message.strip() else ""
