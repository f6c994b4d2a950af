"""Mean-field theory, which predicts the columns of `layers.csv` of a net at initialisation."""

from vgexp.theory.forecast import Explanation, Forecast, ForecastRow
from vgexp.theory.function import Function, function
from vgexp.theory.maps import FixedPoint, Plain, critical_weight_variance, fixed_point
from vgexp.theory.perceptron import predict
from vgexp.theory.phase import Phase, critical_gain, phase, plain_layer
from vgexp.theory.sample import Sample

__all__ = [
    "Explanation",
    "FixedPoint",
    "Forecast",
    "ForecastRow",
    "Function",
    "Phase",
    "Plain",
    "Sample",
    "critical_gain",
    "critical_weight_variance",
    "fixed_point",
    "function",
    "phase",
    "plain_layer",
    "predict",
]
