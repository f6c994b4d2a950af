"""Names of the user's code: what is found, what it is called with, and what is refused.

Holds: lookup.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vgexp import lookup
from vgexp.errors import QuestionError

MINE = """\
import math

class Net:
    def __init__(self, width, depth=2, *, num_outputs=0, **more):
        self.got = (width, depth, num_outputs, more)

    class Inner:
        pass

def fails(width=3):
    return 1 / 0

def outer():
    fails()

def leaves():
    raise SystemExit(3)

constant = 7
"""


@pytest.fixture(autouse=True)
def code(user_folder: Path) -> Path:
    (user_folder / "mine.py").write_text(MINE)
    (user_folder / "broken.py").write_text("import math\nx = undefined_name\n")
    (user_folder / "typo.py").write_text("x = (\n")
    (user_folder / "asks.py").write_text("import math\n\nimport no_such_thing_at_all\n")
    (user_folder / "package" / "deep").mkdir(parents=True)
    (user_folder / "package" / "__init__.py").write_text("")
    (user_folder / "package" / "deep" / "__init__.py").write_text("")
    (user_folder / "package" / "deep" / "nets.py").write_text("from mine import Net\nhere = 5\n")
    return user_folder


def refused(path: str | None) -> str:
    with pytest.raises(QuestionError) as caught:
        lookup.find("model.target", path)
    return str(caught.value)


def test_modules_of_the_current_folder_packages_and_installed_ones_are_found() -> None:
    net = lookup.find("k", "mine.Net")
    mine = sys.modules["mine"]
    assert net is mine.Net
    assert lookup.find("k", "mine.Net.Inner") is mine.Net.Inner
    assert lookup.find("k", "package.deep.nets.here") == 5
    assert lookup.find("k", "torch.nn.init.xavier_uniform_") is torch.nn.init.xavier_uniform_


def test_afterwards_the_current_folder_comes_last_and_once(user_folder: Path) -> None:
    before = [*sys.path]
    for _ in range(3):
        lookup.find("k", "mine.Net")
    assert sys.path == [*before, str(user_folder)]


def test_a_folder_that_comes_before_pythons_own_stays_there(
    user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(user_folder))
    before = [*sys.path]
    lookup.find("k", "mine.Net")
    assert sys.path == before


def test_pythons_own_modules_come_before_those_of_the_folder_and_installed_ones_after(
    user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each is imported for the first time by what the user's name leads to.
    for name in ("wave", "chunk"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (user_folder / f"{name}.py").write_text("raise RuntimeError('it was imported')\n")
    (user_folder / "helpers").mkdir()
    (user_folder / "helpers" / "__init__.py").write_text("mine = 3\n")
    elsewhere = user_folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "helpers.py").write_text("mine = 4\n")
    (elsewhere / "late.py").write_text("which = 5\n")
    (user_folder / "late.py").write_text("which = 6\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(elsewhere)])
    (user_folder / "asks_more.py").write_text(
        "import wave\nfrom helpers import mine\ndef later():\n    import late\n"
        "    return late.which\n"
    )
    assert lookup.find("k", "asks_more.mine") == 3
    assert lookup.find("k", "asks_more.wave.Wave_read").__module__ == "wave"
    assert lookup.find("k", "asks_more.later")() == 5


def test_a_file_that_has_the_name_of_another_module_is_to_be_renamed(user_folder: Path) -> None:
    (user_folder / "random.py").write_text("class Net: pass\n")
    assert "remedy: rename random.py; Python imports another" in refused("random.Net")
    assert "remedy" not in refused("mine.Nett")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (None, "model.target is null\nallowed: package.module.name"),
        ("Net", "model.target is 'Net'\nallowed: package.module.name"),
        ("mine.", "allowed: package.module.name"),
        ("..mine", "allowed: package.module.name"),
        ("mine.Net()", "allowed: package.module.name"),
        ("mien.Net", "there is no module 'mien'\nallowed: a module in "),
        ("mien.Net", "nearest: mine"),
        ("mine.Nett", "the module mine has no 'Nett'\nallowed: Net, fails, leaves, outer"),
        ("mine.Nett", "nearest: Net"),
        ("mine.Net.Iner", "the type mine.Net has no 'Iner'"),
        ("mine.constant.x", "the int mine.constant has no 'x'"),
        ("package.dep.nets", "the module package has no 'dep'\nallowed: deep\nnearest: deep"),
        ("package.deep.net.here", "the module package.deep has no 'net'\nallowed: nets"),
        ("torch.nn.init.xavier_unifrom_", "nearest: xavier_uniform_"),
    ],
)
def test_what_is_missing_is_named_with_the_nearest(path: str | None, said: str) -> None:
    assert said in refused(path)


@pytest.mark.parametrize(
    ("module", "near"),
    [("numpi", "numpy"), ("torchnets", None), ("codecs2", None), ("packages", "package")],
)
def test_installed_modules_are_near_only_if_they_are_much_alike(
    module: str, near: str | None
) -> None:
    """`codecs` is Python's own, `torch` unlike, and `package` is beside the user's code."""
    told = [line for line in refused(f"{module}.Net").splitlines() if line.startswith("nearest")]
    assert told == ([] if near is None else [f"nearest: {near}"])


@pytest.mark.parametrize(
    ("path", "said", "place"),
    [
        ("broken.x", "NameError: name 'undefined_name' is not defined", "broken.py:2"),
        ("typo.x", "SyntaxError: ", "typo.py:1"),
        ("asks.x", "ModuleNotFoundError: No module named 'no_such_thing_at_all'", "asks.py:3"),
    ],
)
def test_a_module_that_fails_is_told_with_its_line(
    path: str, said: str, place: str, user_folder: Path
) -> None:
    words = refused(path)
    assert f"importing {path[:-2]} raised" in words
    assert said in words
    assert f"at {user_folder / place}\n" in words


def make(
    name: str, given: dict[str, Any] | None = None, offered: dict[str, Any] | None = None
) -> Any:
    return lookup.make("model.target", f"mine.{name}", given, offered or {})


def test_arguments_are_given_and_offered_where_the_signature_names_them() -> None:
    offer = {"num_outputs": 10, "num_inputs": 64, "depth": 5}
    assert make("Net", {"width": 3}, offer).got == (3, 5, 10, {})
    assert make("Net", {"width": 3, "num_outputs": 4}, offer).got == (3, 5, 4, {})
    assert make("Net", {"width": 3, "else": 1}).got == (3, 2, 0, {"else": 1})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: make("Net"), "mine.Net cannot be called with model.kwargs = null: missing a req"),
        (lambda: make("Net"), "allowed: Net(width, depth, num_outputs)"),
        (lambda: make("fails", {"widht": 3}), "got an unexpected keyword argument 'widht'"),
        (lambda: make("fails", {"widht": 3}), "nearest: width"),
        (lambda: make("constant"), "model.target is 'mine.constant', of type int"),
        (lambda: make("outer"), "mine.outer', which raised\nZeroDivisionError: division by zero"),
        (lambda: make("outer"), "mine.py:11\n"),
        (lambda: make("leaves"), "SystemExit: 3"),
        (lambda: make("outer"), "HYDRA_FULL_ERROR=1 shows the traceback"),
    ],
)
def test_what_cannot_be_called_is_a_question(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(QuestionError) as caught:
        call()
    assert said in str(caught.value)


def test_the_line_is_the_users_even_where_something_installed_raised(user_folder: Path) -> None:
    (user_folder / "uses.py").write_text(
        "import torch\n\ndef net():\n    torch.nn.functional.linear(torch.ones(2), torch.ones(3))\n"
    )
    with pytest.raises(QuestionError, match=r"at .*uses\.py:4\n"):
        lookup.make("model.target", "uses.net", None, {})
