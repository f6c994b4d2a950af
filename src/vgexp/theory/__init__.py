"""Mean-field theory: what a net's `layers.csv` should say before it has learned anything."""

from vgexp.theory.function import Function, function
from vgexp.theory.maps import FixedPoint, Plain, critical_weight_variance, fixed_point
from vgexp.theory.perceptron import Explanation, Forecast, Prediction, predict
from vgexp.theory.phase import Phase, critical_gain, phase, plain_layer
from vgexp.theory.sample import Sample

__all__ = [
    "Explanation",
    "FixedPoint",
    "Forecast",
    "Function",
    "Phase",
    "Plain",
    "Prediction",
    "Sample",
    "critical_gain",
    "critical_weight_variance",
    "fixed_point",
    "function",
    "phase",
    "plain_layer",
    "predict",
]
