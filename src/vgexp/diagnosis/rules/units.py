"""Rules about units that died or saturated after the start."""

from __future__ import annotations

from vgexp.diagnosis.depths import NEARLY_ALL, are_dead, rows_at, silent_readouts, values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.rules.updates import rate_remedy


@cause_rule(
    "dead_units",
    "layers.csv",
    limit=NEARLY_ALL,
    source="Lu et al. 2020",
    reason="usual networks have some dead units; a layer with nine of ten passes nothing",
)
def dead_units(evidence: Evidence) -> Finding | None:
    """Whether nearly all units of a layer died after the start, or all those of a read-out that has
    an activation of its own, for good."""
    return _units(
        evidence,
        "dead_units",
        "dead_fraction",
        "give 0 on every example",
        (
            Remedy(
                "Use leaky ReLU.",
                "Its slope below 0 is not 0, so that no unit is dead.",
                "model.activation=leaky_relu",
                "nn.LeakyReLU(0.01)",
                "Maas et al. 2013",
            ),
            rate_remedy(evidence, 0.1, "Long steps push units below 0."),
        ),
    )


@cause_rule(
    "saturated_units",
    "layers.csv",
    limit=NEARLY_ALL,
    source="Glorot & Bengio 2010",
    reason="a trained network uses flat ends; where nine of ten entries are there, a layer"
    " passes next to nothing",
)
def saturated_units(evidence: Evidence) -> Finding | None:
    """Whether nearly all units of a hidden layer are at the flat ends."""
    return _units(
        evidence,
        "saturated_units",
        "saturated_fraction",
        "are at the flat ends",
        (
            Remedy(
                "Use ReLU with He's init.",
                "It has no flat end above 0.",
                "model.activation=relu model.init=he_normal",
                "nn.ReLU()",
                "Glorot et al. 2011",
            ),
            rate_remedy(evidence, 0.1, "Long steps push units to the flat ends."),
        ),
    )


def _units(
    evidence: Evidence, cause: str, column: str, do: str, remedies: tuple[Remedy, ...]
) -> Finding | None:
    layers = evidence.tables["layers"]
    is_bad = (values_of(layers, column) >= NEARLY_ALL) & (values_of(layers, "step") > 0)
    is_of_dead = column == "dead_fraction"
    for step in sorted(layers.loc[is_bad, "step"].unique()):
        rows = rows_at(evidence, int(step))
        bad = rows[are_dead(rows) if is_of_dead else values_of(rows, column) >= NEARLY_ALL]
        if not len(bad) and is_of_dead:
            bad = silent_readouts(evidence, int(step))
        if len(bad):
            share = float(values_of(bad, column)[0])
            return Finding(
                cause,
                f"At step {int(step)} {share:.0%} of the units of {bad['name'].iloc[0]} {do}.",
                step=int(step),
                layers=tuple(str(name) for name in bad["name"]),
                numbers={column: Number(share, NEARLY_ALL)},
                remedies=remedies,
            )
    return None


RULES = (
    dead_units,
    saturated_units,
)
