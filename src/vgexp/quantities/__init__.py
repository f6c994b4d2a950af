"""What a run records: each column and each summary metric is declared once, here.

Whoever shows, averages or reads a quantity asks its declaration how. Nothing heavy is imported, so
that a name can be checked before anything is computed.
"""

from vgexp.quantities.initialisation import JACOBIAN, PATHS, SHATTERING
from vgexp.quantities.layers import LAYERS, PREDICTED, READOUT, SEED
from vgexp.quantities.networks import ATTENTION, HISTOGRAMS, PREDICTED_IN_TIME, RECURRENCE, TIME
from vgexp.quantities.parameters import PARAMETERS, WIRING
from vgexp.quantities.quantity import FIRST_VERSION, PREDICTION, Measure, Quantity
from vgexp.quantities.reading import NUM_STEPS_AVERAGED, Reading
from vgexp.quantities.summary import NUMBERS, SUMMARY, metric_of, require_number
from vgexp.quantities.tables import (
    COMMON,
    KEYS,
    LATER_TABLES,
    TABLES,
    absence,
    column_of,
    is_header,
    lacking_columns,
)
from vgexp.quantities.training import CURVATURE, EVALS, LOSS, PRETRAINING, STEPS, TIMING
from vgexp.quantities.verdicts import VERDICTS

__all__ = [
    "ATTENTION",
    "COMMON",
    "CURVATURE",
    "EVALS",
    "FIRST_VERSION",
    "HISTOGRAMS",
    "JACOBIAN",
    "KEYS",
    "LATER_TABLES",
    "LAYERS",
    "LOSS",
    "NUMBERS",
    "NUM_STEPS_AVERAGED",
    "PARAMETERS",
    "PATHS",
    "PREDICTED",
    "PREDICTED_IN_TIME",
    "PREDICTION",
    "PRETRAINING",
    "READOUT",
    "RECURRENCE",
    "SEED",
    "SHATTERING",
    "STEPS",
    "SUMMARY",
    "TABLES",
    "TIME",
    "TIMING",
    "VERDICTS",
    "WIRING",
    "Measure",
    "Quantity",
    "Reading",
    "absence",
    "column_of",
    "is_header",
    "lacking_columns",
    "metric_of",
    "require_number",
]
