"""Sizes that cannot be: refused at once, with what is needed and what there is.

Holds: data/sizes.py, config/ranges.py, models/memory.py, models/rehearsal.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from vgexp import data, machine
from vgexp.assembly import assemble
from vgexp.cli import error_blocks
from vgexp.cli.main import main
from vgexp.config import (
    AddingConfig,
    CnnConfig,
    Config,
    CopyConfig,
    CustomConfig,
    DataConfig,
    DensenetConfig,
    DigitsConfig,
    GaussianConfig,
    GruConfig,
    LstmConfig,
    MlpConfig,
    ModelConfig,
    RnnConfig,
    RowsConfig,
    RunConfig,
    SpiralsConfig,
    TrainConfig,
    TransformerConfig,
    VitConfig,
)
from vgexp.config.ranges import MOST
from vgexp.data import sizes
from vgexp.errors import QuestionError
from vgexp.models import memory, rehearsal
from vgexp.norms import NORMS
from vgexp.tasks import Task

IMAGES = Task("image", (3, 16, 16), 10)
TOKENS = Task("tokens", (13,), 7, 7, per_position=True)
CPU = torch.device("cpu")


def sequences(num_steps: int) -> Task:
    return Task("sequence", (num_steps, 5), 3)


# ---------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("config", "task"),
    [
        (CnnConfig(depth=10, width=3, stages=3), IMAGES),
        (CnnConfig(depth=11, width=3, stages=2, skip="residual", norm="batch"), IMAGES),
        (CnnConfig(depth=17, width=2, stages=4, norm="layer", norm_position="post"), IMAGES),
        (DensenetConfig(depth=3 * 15 + 4, width=5, growth_rate=3), IMAGES),
        (DensenetConfig(depth=6 * 14 + 4, bottleneck=True, compression=0.5, width=6), IMAGES),
        (RnnConfig(depth=5, width=6, norm="layer"), sequences(11)),
        (LstmConfig(depth=4, width=6, dropout=0.1, skip="residual"), sequences(12)),
        (GruConfig(depth=1, width=6, truncation=3), sequences(13)),
        (GruConfig(depth=5, width=6, truncation=4, bias=False), TOKENS),
        (LstmConfig(depth=6, width=4, truncation=1, norm="rms"), sequences(9)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_need_told_from_small_networks_is_that_of_the_whole_one(
    config: ModelConfig, task: Task
) -> None:
    assert rehearsal.estimate(config, task, 6) == rehearsal.rehearse(config, task, 6)


@pytest.mark.parametrize(
    ("config", "task"),
    [
        (GruConfig(depth=10**9), sequences(50)),
        (LstmConfig(depth=10**18, truncation=3), sequences(10**9)),
        (RnnConfig(depth=10**6, norm="layer"), sequences(10**6)),
        (CnnConfig(depth=10_000, width=2**16, norm="batch", skip="residual"), IMAGES),
        (DensenetConfig(depth=3 * 3000 + 4, norm="batch"), IMAGES),
        (MlpConfig(depth=10**9, width=10**9, norm="group", norm_groups=10**6), sequences(2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_size_makes_the_estimate_build_more_modules(
    config: ModelConfig, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_built = [0]
    begin = nn.Module.__init__

    def counted(module: nn.Module, *args: Any, **kwargs: Any) -> None:
        num_built[0] += 1
        begin(module, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "__init__", counted)
    needed = memory.need(config, task, 64)
    assert needed.num_bytes(torch.float32, 0) > 2**36
    assert 0 < num_built[0] < 1000


@pytest.mark.parametrize(
    "config",
    [
        Config(model=GruConfig(width=10**9), data=RowsConfig()),
        Config(model=RnnConfig(width=10**18, norm="layer"), data=RowsConfig()),
        Config(model=VitConfig(heads=10**9, width=10**9)),
        Config(model=VitConfig(mlp_ratio=10**18)),
        Config(model=TransformerConfig(width=10**12), data=CopyConfig()),
        Config(model=MlpConfig(width=10**12, skip="highway")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_tensor_larger_than_any_can_be_is_refused_like_the_others(config: Config) -> None:
    with pytest.raises(QuestionError) as caught:
        assemble(config)
    asked, allowed, remedy = str(caught.value).splitlines()
    assert "needs at least 9,223,372,036,854,775,808 bytes" in asked
    assert allowed.startswith("allowed: ")
    assert allowed.endswith("available on cpu")
    assert "model.width" in remedy


def test_a_part_of_the_users_own_hides_no_impossible_depth() -> None:
    config = Config(model=MlpConfig(depth=10**9, activation="torch.relu"))
    with pytest.raises(QuestionError, match="its training needs"):
        assemble(config)


def test_of_a_model_of_the_users_own_nothing_is_reckoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "need", lambda *_: pytest.fail("reckoned"))
    config = Config(
        model=CustomConfig(target="torch.nn.LazyLinear", kwargs={"out_features": 10}),
        data=GaussianConfig(num_examples=100, features=3),
    )
    assemble(config)


def test_the_divisors_of_a_huge_width_are_not_counted_out() -> None:
    with pytest.raises(QuestionError, match=r"1, 2, 4, .*, 4096, \.\.\.\nnearest: 4096"):
        VitConfig(width=2**60, heads=10**6 + 1)
    config = MlpConfig(width=2**40, norm="group", norm_groups=3)
    with pytest.raises(QuestionError, match="nearest: 1, 2, 4"):
        NORMS["group"](2**40, config)


# ---------------------------------------------------------------- data


DRAWN: list[DataConfig] = [
    GaussianConfig(num_examples=700, features=31),
    SpiralsConfig(num_examples=900),
    AddingConfig(num_examples=300, seq_len=17),
    CopyConfig(num_examples=200, seq_len=9, copy_len=3),
]


@pytest.mark.parametrize("config", DRAWN, ids=str)
def test_the_numbers_of_drawn_data_are_those_that_are_drawn(config: DataConfig) -> None:
    loaded = data.load(config, 0, torch.float32)
    size = sizes.size_of(config)
    assert size is not None
    splits = (loaded.train, loaded.val, loaded.test)
    assert size.num_inputs == sum(split.part(0, 10**6)[0].numel() for split in splits)
    assert size.num_targets == sum(split.targets.numel() for split in splits)


@pytest.mark.parametrize("config", DRAWN, ids=str)
def test_drawn_data_need_what_is_there_to_the_byte(
    config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sizes.size_of(config)
    assert size is not None
    there = {"cpu": size.drawn_bytes, "meta": size.kept_bytes(torch.float32)}
    monkeypatch.setattr(machine, "available_bytes", lambda device: there[device.type])
    device = torch.device("meta")
    sizes.require_memory(config, torch.float32, device)
    for place in there:
        there[place] -= 1
        with pytest.raises(QuestionError, match=f"available on {place}"):
            sizes.require_memory(config, torch.float32, device)
        there[place] += 1


class Holding(TorchDispatchMode):
    """Counts the bytes of all tensors that are made within and there at once."""

    def __init__(self) -> None:
        super().__init__()
        self.most_bytes = 0
        self._held: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, torch.Tensor):
                storage = each.untyped_storage()
                self._held[StorageWeakRef(storage)] = storage.nbytes()
        self._held = {held: size for held, size in self._held.items() if not held.expired()}
        self.most_bytes = max(self.most_bytes, sum(self._held.values()))
        return made


LARGER: list[DataConfig] = [
    GaussianConfig(num_examples=60_000, features=4),
    SpiralsConfig(num_examples=60_000),
    AddingConfig(num_examples=60_000, seq_len=8),
    CopyConfig(num_examples=60_000, seq_len=9, copy_len=3),
]
"""Beside which the examples that are standardised at a time are few."""


@pytest.mark.parametrize("config", LARGER, ids=lambda config: type(config).__name__)
def test_what_drawn_data_are_said_to_need_is_what_is_there_at_the_worst_moment(
    config: DataConfig,
) -> None:
    with Holding() as holding:
        data.load(config, 0, torch.float64)
    size = sizes.size_of(config)
    assert size is not None
    assert 0.85 < holding.most_bytes / size.drawn_bytes < 1.05


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        (GaussianConfig(features=10**9), "data.num_examples or data.features"),
        (GaussianConfig(num_examples=10**18), "data.num_examples or data.features"),
        (SpiralsConfig(num_examples=2 * 10**9), "data.num_examples"),
        (AddingConfig(seq_len=10**9), "data.num_examples or data.seq_len"),
        (CopyConfig(copy_len=MOST), "data.num_examples, data.seq_len or data.copy_len"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_data_that_cannot_fit_are_refused_before_they_are_drawn(
    config: DataConfig, keys: str
) -> None:
    with pytest.raises(QuestionError) as caught:
        data.load(config, 0, torch.float32)
    asked, allowed, remedy = str(caught.value).splitlines()
    size = sizes.size_of(config)
    assert size is not None
    assert f"needs {size.drawn_bytes:,} bytes" in asked
    assert "available on cpu" in allowed
    assert remedy == f"remedy: a smaller {keys}"


def test_no_folder_is_left_of_data_that_cannot_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    words = ["data=gaussian", "data.features=1000000000", f"hydra.run.dir={folder}"]
    assert main(["train", *words]) == 2
    assert not folder.exists()
    shown = capsys.readouterr().err
    assert shown.startswith("error: data=gaussian has inputs of 4,096,000,000,000 numbers")
    assert "resume" not in shown


def test_files_have_a_size_of_their_own() -> None:
    assert sizes.size_of(DigitsConfig()) is None


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("threads", [0, 1025, 10**6, 10**20])
def test_threads_have_a_bound(threads: int) -> None:
    with pytest.raises(QuestionError, match="at least 1 and below 1025"):
        RunConfig(threads=threads)
    assert RunConfig(threads=1024).threads == 1024
    assert RunConfig(threads=None).threads is None


@pytest.mark.parametrize("make", [lambda n: TrainConfig(steps=n), lambda n: MlpConfig(depth=n)])
def test_a_whole_number_beyond_64_bits_is_out_of_range(make: Any) -> None:
    make(MOST)
    with pytest.raises(QuestionError, match=f"at least 1 and at most {2**63 - 1}"):
        make(2**63)


# ---------------------------------------------------------------- what is offered


@pytest.mark.parametrize(
    ("tables", "is_offered"),
    [
        ({}, False),
        ({"steps.csv": "step,loss\n", "evals.csv": "step\n0\n"}, False),
        ({"steps.csv": "step,loss\n0,1.5\n"}, True),
        ({"layers.csv": "step,layer\n"}, False),
        ({"layers.csv": "step,layer\n0,1\n"}, True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_going_on_is_offered_where_something_was_recorded(
    tables: dict[str, str], is_offered: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "summary.json").write_text('{"status": "failed"}')
    for name, text in tables.items():
        (tmp_path / name).write_text(text)
    assert error_blocks.show_failure(MemoryError(), folder=tmp_path) == 1
    assert ("go on: vgexp resume" in capsys.readouterr().err) == is_offered
