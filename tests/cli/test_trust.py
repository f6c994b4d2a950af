"""Code that a recorded configuration names is executed only where somebody says so.

Holds: cli/resume.py, cli/resume_sweep.py
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import vgexp
from vgexp import config as configuration
from vgexp.cli import resume_sweep
from vgexp.cli.main import main
from vgexp.errors import QuestionError
from vgexp.sweep import plan, plan_file

MINE = """\
from pathlib import Path
import torch

Path("executed").touch()

from user_code import Net, make

def loss(outputs, targets):
    return torch.nn.functional.cross_entropy(outputs, targets)

def fill(weight):
    return torch.nn.init.normal_(weight)

class Norm(torch.nn.LayerNorm):
    pass

class Keep:
    def __call__(self, rows):
        pass
"""
SMALL = ("data=gaussian", "data.num_examples=64", "data.features=5", "data.num_classes=4")
SMALL = (*SMALL, "data.batch_size=8", "train.steps=12", "run.checkpoint_every=5")
SMALL = (*SMALL, "output.quiet=true")
NAMED = {
    "model.target": ("model=custom", "model.target=mine.Net"),
    "data.target": ("data=custom", "data.target=mine.make", "model.width=4", "model.depth=2"),
    "train.loss": ("train.loss=mine.loss", "model.width=4", "model.depth=2"),
    "model.activation": ("model.activation=torch.tanh", "model.width=4", "model.depth=2"),
    "model.init": ("model.init=mine.fill", "model.width=4", "model.depth=2"),
    "model.norm": ("model.norm=mine.Norm", "model.width=4", "model.depth=2"),
    "output.sinks": ("output.sinks=[csv,mine.Keep]", "model.width=4", "model.depth=2"),
}


@pytest.fixture(autouse=True)
def code(user_folder: Path) -> None:
    (user_folder / "mine.py").write_text(MINE)


def words(key: str) -> list[str]:
    """What trains with a name of this key."""
    small = [w for w in SMALL if not (key == "data.target" and w.startswith("data"))]
    return [*small, *NAMED[key]]


def cut_short(key: str) -> Path:
    """A run with a name of this key that was killed; as if somebody else had made it."""
    import sys

    assert main(["train", *words(key), "hydra.run.dir=run"]) == 0
    Path("run/summary.json").unlink()
    Path("executed").unlink(missing_ok=True)
    sys.modules.pop("mine", None)
    return Path("run")


def test_every_key_that_names_code_is_known() -> None:
    assert set(NAMED) == set(configuration.TARGETS)


@pytest.mark.parametrize("key", NAMED)
def test_a_run_that_names_code_is_gone_on_with_only_where_it_is_trusted(
    key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = cut_short(key)
    capsys.readouterr()
    assert main(["resume", str(folder)]) == 2
    shown = capsys.readouterr().err
    assert shown.count("error: ") == 1
    assert f"  {key}: " in shown
    assert "vgexp resume run --trust\n" in shown
    with pytest.raises(QuestionError, match="names code"):
        vgexp.resume(folder)
    done = vgexp.load(folder)
    assert key in dict(configuration.targets(done.config))
    assert len(done.steps)
    assert main(["compare", str(folder)]) == 0
    assert main(["compare", str(folder), "--layers", "delta_rms"]) == 0
    assert not Path("executed").exists()
    assert main(["resume", str(folder), "--trust"]) == 0
    assert vgexp.load(folder).summary["status"] == "completed"
    assert Path("executed").exists() == (key != "model.activation")


def test_what_has_ended_is_told_without_trust() -> None:
    folder = cut_short("model.target")
    vgexp.resume(folder, trust=True)
    Path("executed").unlink()
    assert vgexp.resume(folder).summary["status"] == "completed"
    assert not Path("executed").exists()


def test_names_of_our_own_need_no_trust() -> None:
    assert main(["train", *SMALL, "model.depth=2", "hydra.run.dir=run"]) == 0
    Path("run/summary.json").unlink()
    assert main(["resume", "run"]) == 0


def test_a_config_that_is_typed_is_trusted() -> None:
    folder = cut_short("model.target")
    again = ["train", "--config-dir", str(folder), "--config-name", "config", "hydra.run.dir=two"]
    assert main(again) == 0
    assert Path("executed").exists()


@pytest.fixture
def swept() -> Path:
    """A sweep over a model of the user's with one job that did not end."""
    import sys

    sweep = ["+model.kwargs.width=2,3", "hydra.sweep.dir=s"]
    assert main(["train", "-m", *words("model.target"), *sweep]) == 0
    Path("s/1/summary.json").unlink()
    Path("executed").unlink()
    sys.modules.pop("mine", None)
    return Path("s")


def test_a_sweep_that_names_code_is_gone_on_with_only_where_it_is_trusted(
    swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["resume", str(swept)]) == 2
    shown = capsys.readouterr().err
    assert "model.target: mine.Net" in shown
    assert "vgexp resume s --trust\n" in shown
    assert not Path("executed").exists()
    assert not (swept / "1" / "summary.json").exists()
    assert main(["resume", str(swept), "--trust"]) == 0
    assert json.loads((swept / "1" / "summary.json").read_text())["status"] == "completed"


def test_typing_a_sweep_again_is_trust(swept: Path) -> None:
    again = ["+model.kwargs.width=2,3", f"hydra.sweep.dir={swept}"]
    assert main(["train", "-m", *words("model.target"), *again]) == 0
    assert json.loads((swept / "1" / "summary.json").read_text())["status"] == "completed"


def test_a_sweep_whose_jobs_have_all_ended_needs_no_trust(swept: Path) -> None:
    assert main(["resume", str(swept), "--trust"]) == 0
    Path("executed").unlink()
    assert main(["resume", str(swept)]) == 0
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("word", "is_harmless", "is_with_trust"),
    [
        ("model.activation=relu,tanh", True, True),
        ("train.loss=mse", True, True),
        ("model.activation=relu,os.system", False, True),
        ("model.norm=os.system", False, True),
        ("model.init=${oc.env:HOME}", False, True),
        ("+model.target=os.system", False, True),
        ("++model.target=os.system", False, False),
        ("data.target=choice(os.system)", False, True),
        ("hydra.launcher._target_=os.system", False, False),
        ("--config-dir=x", False, False),
    ],
)
def test_a_recorded_command_is_repeated_only_if_it_names_no_code_or_is_trusted(
    word: str, is_harmless: bool, is_with_trust: bool
) -> None:
    command = ("train", "-m", "model=custom", word)
    assert resume_sweep.is_harmless(command) == is_harmless
    assert resume_sweep.is_harmless(command, trusts=True) == is_with_trust


def test_a_command_of_a_sweep_with_code_is_typed_again_only_with_trust(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path("s")
    folder.mkdir()
    command = ("train", "-m", *words("model.target"), "+model.kwargs.width=2,3")
    plan_file.write(folder, plan.Plan().add_command(command))
    assert main(["resume", str(folder)]) == 1
    assert "its command could execute something" in " ".join(capsys.readouterr().err.split())
    assert not Path("executed").exists()
    assert main(["resume", str(folder), "--trust"]) == 0
    assert Path("s/1/summary.json").exists()


def _config(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / "config.yaml"
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("activation: relu", "activation: mine.Norm"),
        lambda text: text.replace("- model: mlp", "- model: custom").replace(
            "model:\n", "model:\n  target: mine.Net\n", 1
        ),
        lambda text: text.replace("loss: null", "loss: mine.loss"),
    ],
)
def test_a_run_into_which_somebody_wrote_a_name_executes_nothing(
    change: Callable[[str], str], tmp_path: Path
) -> None:
    assert main(["train", *SMALL, "model.depth=2", "hydra.run.dir=whole"]) == 0
    for name in ("checkpoint.pt", "layers.csv"):
        folder = tmp_path / name
        shutil.copytree("whole", folder)
        (folder / "summary.json").unlink()
        (folder / name).unlink(missing_ok=True)
        _config(folder, change)
        assert main(["resume", str(folder)]) == 2
        assert main(["compare", str(folder)]) in (0, 2)
        assert not Path("executed").exists()


def test_a_name_that_a_terminal_would_obey_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    folder = cut_short("train.loss")
    _config(folder, lambda text: text.replace("mine.loss", '"mine.\\e[31m\\u202eloss"'))
    capsys.readouterr()
    assert main(["resume", str(folder)]) == 2
    shown = capsys.readouterr().err
    assert "mine.\\x1b[31m\\u202eloss" in shown
    assert all(c.isprintable() or c == "\n" for c in shown)
