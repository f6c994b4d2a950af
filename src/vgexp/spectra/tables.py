"""Makes the tables of `vgexp signal` besides `layers.csv`, of one network and one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from vgexp.config import SignalConfig
from vgexp.errors import QuestionError
from vgexp.losses import Loss
from vgexp.models import Network
from vgexp.models.stages import Stage
from vgexp.records import Rows
from vgexp.spectra.frozen import as_input, freeze, run_stages
from vgexp.spectra.jacobians import jacobian_rows
from vgexp.spectra.paths import EXAMPLES as PATH_EXAMPLES
from vgexp.spectra.paths import path_rows
from vgexp.spectra.shattering import shattering_rows


@dataclass(frozen=True)
class Subject:
    """A network whose examples do not mix, and a batch, in float64."""

    stages: Sequence[Stage]
    """The first stage reads `x_B`, which is no token."""
    x_B: Tensor
    origin: str
    """The name of `x_B`: `input`, or that of the module that made it of tokens."""
    y_B: Tensor
    loss: Loss


def _jacobian(of: Subject) -> Rows:
    return jacobian_rows(of.stages, of.x_B)


def _paths(of: Subject) -> Rows:
    y_E = of.y_B[:PATH_EXAMPLES]
    # A mean over targets; the sum over examples is that of each example's own mean.

    def summed_loss(outputs: Tensor) -> Tensor:
        return of.loss.mean(outputs, y_E) * len(y_E)

    return path_rows(of.stages, of.x_B[: len(y_E)], of.origin, summed_loss)


def _shattering(of: Subject) -> Rows:
    return shattering_rows(of.stages, of.x_B, of.origin)


TABLES: Mapping[str, Callable[[Subject], Rows]] = {
    "jacobian": _jacobian,
    "paths": _paths,
    "shattering": _shattering,
}
"""Table, and key of `signal` that asks for it -> the function that makes it."""


def list_asked(config: SignalConfig) -> tuple[str, ...]:
    """Lists the tables that a configuration asks for."""
    return tuple(name for name in TABLES if getattr(config, name))


def require(config: SignalConfig, model: nn.Module, name: str) -> None:
    """Refuses a model of which the asked tables cannot be made.

    Raises:
        QuestionError: it is no chain of layers; or, for paths, nothing is added to a path.
    """
    wanted = list_asked(config)
    stages = model.stages() if isinstance(model, Network) else ()
    if wanted and not stages:
        reason = (
            "it is no chain of layers, each of which reads only what the one before hands on"
            if isinstance(model, Network)
            else "only of vgexp's own models are the layers known as functions of each other"
        )
        raise QuestionError(
            f"signal.{wanted[0]} is true with model={name}\nreason: {reason}\n"
            f"allowed: signal.{wanted[0]}=false, or model=mlp, cnn, resnet, densenet, transformer,"
            " vit"
        )
    if "paths" in wanted and not any(stage.forks for stage in stages):
        raise QuestionError(
            "signal.paths is true, but the model adds no branch to a path that goes on as it is\n"
            "allowed: signal.paths=false, or model.skip=residual, scaled_residual, rezero"
        )


def rows_of(
    config: SignalConfig, model: nn.Module, loss: Loss, batch: tuple[Tensor, Tensor]
) -> Iterator[Rows]:
    """Makes the asked tables of a model that `require` accepts; the model is not changed."""
    wanted = list_asked(config)
    if not wanted:
        return
    assert isinstance(model, Network)
    x_B, y_B = (as_input(part) for part in batch)
    stages = freeze(model, x_B).stages()
    origin = "input"
    if not x_B.is_floating_point():
        (first, *stages), origin = stages, stages[0].name
        x_B = run_stages([first], x_B)[1]
    subject = Subject(stages, x_B, origin, y_B, loss)
    for table in wanted:
        yield TABLES[table](subject)
