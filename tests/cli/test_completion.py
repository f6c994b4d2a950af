"""What a shell's TAB offers.

Holds: cli/completion.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from vgexp.cli import completion
from vgexp.cli.main import main
from vgexp.cli.verbs import VERBS
from vgexp.config import CHOICES


def test_the_completed_verbs_are_the_verbs() -> None:
    assert completion.candidates("vgexp ") == list(VERBS)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vgexp tr", ["train"]),
        ("vgexp", []),
        ("vgexp list a", ["activations"]),
        ("vgexp list activations r", []),
        ("vgexp list metrics ev", ["evals"]),
        ("vgexp explain residual", ["residual", "residual_growth"]),
        ("vgexp explain qui", ["quiz"]),
        ("vgexp list metrics evals ", []),
        ("vgexp train model.act", ["model.activation="]),
        ("vgexp train exp", ["experiment="]),
        ("vgexp train +exp", ["+experiment="]),
        ("vgexp train experiment=sigmoid_d", ["experiment=sigmoid_deep"]),
        ("vgexp train +experiment=sigmoid_d", ["+experiment=sigmoid_deep"]),
        ("vgexp train experiment=sigmoid_deep model.depth=", ["model.depth=20"]),
        ("vgexp train +experiment=sigmoid_deep model.depth=", ["model.depth=20"]),
        ("vgexp train -m +experiment=sigmoid_deep optimizer=adamw", ["optimizer=adamw"]),
        ("vgexp train -m optimizer=ada", ["optimizer=adam", "optimizer=adamw"]),
        ("vgexp train clip=norm clip.", ["clip.threshold="]),
        ("vgexp train --no-such-flag x model.de", []),
        ("vgexp train hydra.run.", ["hydra.run.dir="]),
    ],
)
def test_the_last_word_is_completed(line: str, expected: list[str]) -> None:
    assert completion.candidates(line) == expected


@pytest.mark.parametrize("verb", ["compare", "resume", "show"])
def test_runs_are_completed_by_their_folders(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("outputs/train/mlp", "outputs/train/lsuv", "other", ".hidden"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "out.csv").touch()
    monkeypatch.chdir(tmp_path)
    for last, expected in {
        "": ["other/", "outputs/"],
        "out": ["outputs/"],
        "outputs/train/": ["outputs/train/lsuv/", "outputs/train/mlp/"],
        "outputs/train/m": ["outputs/train/mlp/"],
        ".": [".hidden/"],
        "nowhere/x": [],
        f"{tmp_path}/oth": [f"{tmp_path}/other/"],
    }.items():
        assert completion.candidates(f"vgexp {verb} {last}") == expected
    assert completion.candidates(f"vgexp {verb} other ou") == ["outputs/"]
    assert completion.candidates("vgexp explain delta out") == ["outputs/"]


@pytest.mark.parametrize(("shell", "separator"), [("bash", " "), ("zsh", " "), ("fish", "\n")])
def test_a_shell_is_answered_in_its_own_way(
    shell: str,
    separator: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COMP_LINE", "vgexp train data=")
    assert main(["-sc", f"query={shell}"]) == 0
    names = sorted(f"data={name}" for name in CHOICES["data"])
    assert capsys.readouterr().out == separator.join(names) + "\n"


def test_what_cannot_be_completed_is_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_LINE", "vgexp train model=[ mo")
    assert main(["-sc", "query=bash"]) == 0
    shown = capsys.readouterr()
    assert not shown.out.strip()
    assert not shown.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_to_install_calls_vgexp(
    shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/vgexp"])
    assert main(["-sc", f"install={shell}"]) == 0
    shown = capsys.readouterr().out
    assert "-sc query=" in shown
    assert shown.rstrip().splitlines()[-1].count("vgexp") == 1
