"""From a configuration to its parts.

Holds: assembly/networks.py, assembly/whole.py, config/groups.py, data/sources.py
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import image_files
import pytest
import torch
from short_evaluations import evaluate_few
from torch import nn
from trainers import BASE, changed

from vgexp import clips, data, models, optimizers, schedulers
from vgexp import config as configuration
from vgexp.assembly import assemble, device_of
from vgexp.config import Config
from vgexp.errors import QuestionError
from vgexp.tasks import Task

USER_CODE = {"model": "user_code.Net", "data": "user_code.make"}


def test_auto_is_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == device_of("cpu") == torch.device("cpu")
    with pytest.raises(QuestionError, match=r"device is 'cuda'\nallowed here: auto, cpu$"):
        device_of("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of("auto") == device_of("cuda") == torch.device("cuda")
    assert device_of("cuda:1") == torch.device("cuda:1")
    with pytest.raises(QuestionError, match=r"allowed here: auto, cpu, cuda, cuda:0, cuda:1$"):
        device_of("cuda:2")


def small(cls: type[configuration.DataConfig]) -> configuration.DataConfig:
    """A data set of 100 examples, where that can be asked for."""
    named = {field.name for field in dataclasses.fields(cls)}
    return cls(**({"num_examples": 100} if "num_examples" in named else {}))


@pytest.mark.parametrize("group", configuration.CHOICES)
def test_every_choice_of_every_group_assembles_and_takes_two_steps(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate_few(monkeypatch)
    image_files.write_all(tmp_path / "data", 100, monkeypatch)
    for cls in configuration.CHOICES[group].values():
        is_custom = "Custom" in cls.__name__
        chosen: dict[str, Any] = {group: cls(target=USER_CODE[group]) if is_custom else cls()}
        if group == "model" and cls.reads:
            sets = configuration.CHOICES["data"].values()
            chosen["data"] = next(small(c) for c in sets if c.gives in cls.reads)
        if group == "data" and cls.gives:
            chosen["data"] = small(cls)
            families = configuration.CHOICES["model"].values()
            chosen["model"] = next(c() for c in families if cls.gives in c.reads)
        trainer = assemble(changed(Config(), **chosen, train={"steps": 2}))
        assert trainer.facts.device == device_of("auto")
        assert sum(1 for rows in trainer.rows() if rows.table == "steps") >= 1
        assert trainer.state.step == 2
        assert trainer.divergence is None


MAKERS: dict[str, Any] = {
    "model": models.make,
    "data": data.read,
    "optimizer": optimizers.build,
    "scheduler": schedulers.build,
    "clip": clips.build,
}


@pytest.mark.parametrize("group", configuration.CHOICES)
def test_each_choice_has_a_maker_that_is_not_that_of_another_choice(group: str) -> None:
    made_by = MAKERS[group].registry
    choices = configuration.CHOICES[group].values()
    for cls in choices:
        nearest = next(base for base in cls.__mro__ if base in made_by)
        assert nearest is not object, f"nothing makes {cls.__name__}"
        assert nearest is cls or nearest not in choices, f"{cls.__name__} is made as its base is"


def test_a_family_is_added_by_its_configuration_and_what_makes_it_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    families = configuration.CHOICES["model"]
    monkeypatch.setattr(families, "_entries", dict(families.items()))

    @dataclasses.dataclass
    class OneWeightConfig(configuration.ModelConfig, choice="one_weight"):
        reads: ClassVar[tuple[str, ...]] = ("vector", "image")

    def one_weight(_config: OneWeightConfig, task: Task) -> nn.Module:
        return nn.Linear(task.num_features, task.num_outputs)

    models.make.register(OneWeightConfig, one_weight)
    config = changed(BASE, model=OneWeightConfig(), train={"steps": 1})
    assert configuration.flatten(config)["model"] == "one_weight"
    values, chosen = configuration.to_dict(config), configuration.choices(config)
    assert configuration.from_dict(values, chosen) == config
    trainer = assemble(config)
    list(trainer.rows())
    assert isinstance(trainer.state.model, nn.Linear)
    assert trainer.state.step == 1


def test_a_configuration_of_no_choice_is_a_question() -> None:
    for group, make in MAKERS.items():
        base = next(iter(configuration.CHOICES[group].values())).__mro__[1]
        message = f"unknown {group} configuration: '{base.__name__}'"
        with pytest.raises(QuestionError, match=message):
            make(base(), None, *([None] if group == "scheduler" else []))


@pytest.mark.parametrize("dtype", configuration.DTYPES)
def test_the_whole_network_has_the_dtype_or_in_half_precision_float32(dtype: str) -> None:
    held = torch.float32 if dtype in configuration.HALF_DTYPES else getattr(torch, dtype)
    trainer = assemble(changed(BASE, dtype=dtype, model={"norm": "batch", "skip": "highway"}))
    kinds = {p.dtype for p in trainer.state.model.parameters()}
    assert kinds == {held}
    assert trainer.state.batches.next()[0].dtype == held


def test_the_number_of_threads_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    assemble(changed(BASE, run={"threads": 3}))
    assemble(changed(BASE, run={"threads": None}))
    assert asked == [3]


def test_nothing_but_the_read_out_is_spared_by_row_clipping() -> None:
    config = changed(BASE, clip=configuration.AgcClipConfig(threshold=1e-6))
    trainer = assemble(config)
    model, clip = trainer.state.model, trainer.state.clip
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    clip(parameters, torch.tensor(10.0, dtype=torch.float64))
    touched = {n for n, p in model.named_parameters() if p.grad is not None and (p.grad != 1).any()}
    assert touched == {f"layers.{i}.linear.weight" for i in range(BASE.model.depth)}  # type: ignore[attr-defined]


def test_a_schedule_that_hears_evaluations_is_refused_where_there_are_none() -> None:
    plateau = configuration.PlateauConfig()
    with pytest.raises(
        QuestionError, match=r"plateau follows .* train\.eval_every is 0: .*\n.*100"
    ):
        assemble(changed(BASE, scheduler=plateau, train={"eval_every": 0}))
    assemble(changed(BASE, scheduler=plateau, train={"eval_every": 1}))
    assemble(changed(BASE, train={"eval_every": 0}))
