"""The command line under what argparse does from Python 3.14 on, done to Hydra's parser here.

Holds: cli/command_flags.py, cli/groups.py, cli/hydra_internals.py
"""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from vgexp.cli import completion, hydra_internals
from vgexp.cli.main import main

CONTAINER: Any = argparse._ActionsContainer


class LazyText:
    """A help that is text only when somebody shows it, as Hydra has one."""

    def __repr__(self) -> str:
        return "shown"


def check_help(parser: argparse.ArgumentParser, action: argparse.Action) -> None:
    """`_ActionsContainer._check_help` of Python 3.14."""
    if action.help and hasattr(parser, "_get_formatter"):
        try:
            if "%" in action.help:
                parser._get_formatter()._expand_help(action)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError("badly formed help string") from error


@pytest.fixture(autouse=True)
def _python_3_14(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each flag's help is formatted as the flag is added."""
    add = CONTAINER.add_argument

    def add_and_check(self: Any, *names: Any, **how: Any) -> argparse.Action:
        action: argparse.Action = add(self, *names, **how)
        self._check_help(action)
        return action

    monkeypatch.setattr(CONTAINER, "_check_help", check_help, raising=False)
    monkeypatch.setattr(CONTAINER, "add_argument", add_and_check)


def test_the_simulation_refuses_a_help_that_is_no_text() -> None:
    with pytest.raises(ValueError, match="badly formed help string"):
        argparse.ArgumentParser().add_argument("--lazy", help=LazyText())  # type: ignore[arg-type]


def test_hydras_parser_is_made_and_argparse_is_as_before() -> None:
    parser = hydra_internals.make_parser()
    assert parser.parse_known_args(["--multirun", "a=1"])[0].overrides == ["a=1"]
    assert CONTAINER._check_help is check_help
    with pytest.raises(ValueError, match="badly formed help string"):
        parser.add_argument("--other", help="100 %")


def test_within_the_patch_texts_are_checked_and_other_helps_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def make() -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser()
        parser.add_argument("--lazy", help=LazyText())  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="badly formed help string"):
            parser.add_argument("--other", help="100 %")
        return parser

    monkeypatch.setattr("hydra._internal.utils.get_args_parser", make)
    assert hydra_internals.make_parser().parse_args(["--lazy", "x"]).lazy == "x"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--help"], "vgexp train [flags] [overrides]"),
        (["--hydra-help"], "--shell-completion"),
        (["--cfg", "job"], "optimizer:\n"),
        (["--cfg", "job", "-p", "model", "model=rnn"], "recurrent_init"),
        (["--info", "searchpath"], "structured://"),
    ],
)
def test_what_a_flag_asks_for_is_shown(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words]) == 0
    assert said in capsys.readouterr().out


def test_words_are_completed() -> None:
    assert completion.candidates("vgexp train model.act") == ["model.activation="]
