"""The columns of `layers.csv` by what they are measured from, read off their declarations."""

from vgexp.quantities import LAYERS

WEIGHT_COLUMNS = tuple(column.name for column in LAYERS if column.asked_by == "probe.every")
ACTIVATION_COLUMNS = tuple(
    column.name for column in LAYERS if column.asked_by == "probe.activations_every"
)
