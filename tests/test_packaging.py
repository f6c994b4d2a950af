"""The wheel: presets inside, and a `vgexp` that needs nothing of the repository.

Holds: __main__.py, pyproject.toml
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vgexp.cli import listing

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*build, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("vgexp-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def vgexp(unpacked: Path, folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    command = [sys.executable, "-m", "vgexp", *argv]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_wheel_holds_every_preset_and_the_type_marker(unpacked: Path) -> None:
    in_repository = {path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml")}
    in_wheel = {path.relative_to(unpacked / "vgexp") for path in unpacked.rglob("*.yaml")}
    assert in_repository == in_wheel
    assert (unpacked / "vgexp/py.typed").exists()
    assert (unpacked / "hydra_plugins/_vgexp.py").exists()
    assert not (unpacked / "hydra_plugins/__init__.py").exists(), "other packages are there too"
    assert not list(unpacked.rglob("test_*.py"))


def test_the_console_script_is_the_entry(unpacked: Path) -> None:
    (entry_points,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "vgexp = vgexp.cli.main:entry" in entry_points.read_text()


def test_the_unpacked_wheel_lists_and_composes_its_own_presets(
    unpacked: Path, tmp_path: Path
) -> None:
    listed = vgexp(unpacked, tmp_path, "list", "experiments")
    assert listed.returncode == 0, listed.stderr
    names = [line.split()[0] for line in listed.stdout.splitlines() if line[0] != " "]
    assert names == [name for name, _ in listing.list_experiments()]
    preset = ("train", "+experiment=sigmoid_deep", "--cfg", "job", "-p", "model.activation")
    composed = vgexp(unpacked, tmp_path, *preset)
    assert composed.stdout == "sigmoid\n", composed.stderr
    sources = vgexp(unpacked, tmp_path, "train", "--info", "searchpath")
    assert str(unpacked / "vgexp" / "configs") in sources.stdout
