"""Formulas with the numbers of a run, which several pages share.

A formula in numbers is computed from the digits that are shown, so that a reader can repeat it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vgexp.explain.pages.slopes import PEAKS
from vgexp.explain.sums import show, show_base
from vgexp.explain.topic import Line, sum_of

if TYPE_CHECKING:
    from vgexp.explain.own import Own

LARGEST: Mapping[str, float] = {"float16": 65504.0, "float32": 3.4028235e38}
"""dtype -> the largest number that it holds."""
ADAM_EPSILON = 1e-8
_ALIKE = 1.5
"""Largest ratio of the norms of weights of one size and one init."""

Lines = list[Line]


def reading(own: Own, metric: str, words: str) -> Lines:
    """A number of the summary."""
    value = own.number(metric)
    return [] if value is None else [Line(metric, value, words)]


def setting(own: Own, key: str, words: str) -> Lines:
    """A number of the configuration."""
    value = own.setting(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return [Line(key, float(value), words)] if is_number else []


def backward(own: Own) -> Lines:
    """The factor per layer, what it comes to over the depth, and what was measured."""
    factor, depth = own.number("backward_factor_per_layer"), own.num_layers
    lines = reading(own, "backward_factor_per_layer", "fitted factor a layer at step 0")
    if factor is not None and depth is not None and depth > 1:
        product = f"{show_base(factor, depth)}^{depth - 1}"
        lines.append(sum_of(product, f"from layer {depth} to layer 1"))
    lines += reading(own, "attenuation", "measured: layer 1 over the last hidden layer")
    return lines + reading(own, "attenuation_last", "the same at the last measured step")


def bound(own: Own) -> Lines:
    """The product of the largest slopes and of the weights' gain, beside what was measured."""
    peak, depth = PEAKS.get(str(own.setting("model.activation"))), own.num_layers
    gain = weight_gain(own)
    if peak is None or gain is None or depth is None or depth < 2:
        return backward(own)
    base = f"({show_base(gain, depth)} * {show(peak)})"
    words = "about the most: weights' gain times the largest slope"
    return [sum_of(f"{base}^{depth - 1}", words), *backward(own)]


def weight_gain(own: Own) -> float | None:
    """sqrt(n Var W) of the middle hidden layer at step 0: its norm / sqrt(n).

    None where hidden layers differ in their norms, as those of different widths or uses do.
    """
    width, norms = own.setting("model.width"), own.layers("weight_norm")
    hidden = [norms[layer] for layer in sorted(norms)[1:]]
    if width is None or not hidden or min(hidden) <= 0 or max(hidden) > _ALIKE * min(hidden):
        return None
    middle = sorted(norms)[len(norms) // 2]
    return norms[middle] / math.sqrt(width)


def chi(own: Own) -> Lines:
    """sigma_w^2 E phi'^2 of the middle layer, beside the factor that was measured there."""
    gain, factors = weight_gain(own), own.layers("backward_gain")
    if gain is None or len(factors) < 3:
        return backward(own)
    middle = sorted(factors)[len(factors) // 2]
    predicted = own.layers("predicted_backward_gain").get(middle)
    lines = [sum_of(f"{show(gain, 5)}^2", "sigma_w^2 = n Var(W) of the middle layer")]
    if own.setting("model.norm") == "none" and own.setting("model.skip") == "none":
        slope = f"({show(factors[middle], 5)} / {show(gain, 5)})^2"
        lines.append(sum_of(slope, "so E phi'^2 is, by what was measured"))
        lines.append(sum_of(f"{show(factors[middle], 5)}^2", "chi = sigma_w^2 E phi'^2"))
    lines.append(Line("backward_gain", factors[middle], f"measured at layer {middle}: sqrt(chi)"))
    if predicted is not None:
        lines.append(Line("predicted_backward_gain", predicted, "what theory says of it"))
    return lines + backward(own)


def forward(own: Own) -> Lines:
    """How the spread of z grows with depth."""
    spread = own.layers("preact_std")
    if len(spread) < 2:
        return []
    first, last = min(spread), max(spread)
    lines = [Line("preact_std", spread[layer], f"of z in layer {layer}") for layer in (first, last)]
    if spread[first] > 0:
        ratio = f"({show(spread[last], 4)} / {show(spread[first], 4)})^(1 / {last - first})"
        lines.append(sum_of(ratio, "factor of the spread of z a layer"))
    return lines


def units(own: Own, column: str) -> Lines:
    """The share of units at the first and the last measured step: mean and worst layer."""
    lines: Lines = []
    for last in (False, True):
        shares, step = own.layers(column, last=last), own.step_of(column, last=last)
        if not shares or (last and step == own.step_of(column)):
            continue
        worst = max(shares, key=lambda layer: shares[layer])
        mean = statistics.fmean(shares.values())
        lines.append(Line(column, mean, f"step {step}, mean over hidden layers"))
        lines.append(Line(column, shares[worst], f"step {step}, layer {worst}, the highest"))
    return lines


def dead(own: Own) -> Lines:
    """The share of units whose phi' is 0 on every example."""
    return units(own, "dead_fraction")


def saturated(own: Own) -> Lines:
    """The share of entries at the flat ends of the activation."""
    return units(own, "saturated_fraction")


def update(own: Own) -> Lines:
    """lr |g| / |W| at the last measured step, of the first and the last hidden layer."""
    norms = own.layers("weight_norm", last=True)
    gradients = own.layers("grad_norm_clipped", last=True)
    ratios, step = own.layers("update_ratio", last=True), own.step_of("update_ratio", last=True)
    rates = own.steps("lr")
    lines: Lines = []
    for layer in sorted({*list(ratios)[:1], *list(ratios)[-1:]}):
        plain = (
            rates[-1] * gradients.get(layer, 0.0) / norms[layer] if rates and norms[layer] else 0
        )
        if abs(plain - ratios[layer]) < 0.01 * ratios[layer]:  # as plain gradient descent makes it
            ratio = f"{show(rates[-1], 4)} * {show(gradients[layer], 4)} / {show(norms[layer], 4)}"
            lines.append(sum_of(ratio, f"lr |g| / |W|, layer {layer}, step {step}"))
        lines.append(Line("update_ratio", ratios[layer], f"measured, layer {layer}, step {step}"))
    return lines


def rate(own: Own) -> Lines:
    """Learning rate, update ratio and losses."""
    return [*setting(own, "optimizer.lr", "the learning rate"), *update(own), *learning(own)]


def learning(own: Own) -> Lines:
    """Losses, beside what guessing gives."""
    return [
        *reading(own, "loss_first", "training loss of the first update"),
        *reading(own, "loss_best_mean_20", "lowest mean over 20 updates"),
        *reading(own, "loss_last_mean_20", "mean over the last 20 updates"),
        *reading(own, "constant_loss", "what guessing gives"),
    ]


def splits(own: Own) -> Lines:
    """Training beside validation."""
    return [
        *reading(own, "loss_last_mean_20", "training loss, last 20 updates"),
        *reading(own, "val_loss_best", "lowest validation loss"),
        *reading(own, "val_loss_last", "validation loss at the end"),
        *reading(own, "constant_loss", "what guessing gives"),
    ]


def clip(own: Own) -> Lines:
    """The threshold beside the gradient's norms, and how far clipping shortened them."""
    before, after = own.steps("grad_norm"), own.steps("grad_norm_clipped")
    lines = setting(own, "clip.threshold", f"clip={own.choice('clip')}")
    if before:
        lines.append(Line("median grad_norm", statistics.median(before), "over all updates"))
        lines.append(Line("largest grad_norm", max(before), "over all updates"))
    shares = [b / a for a, b in zip(before, after, strict=False) if a > 0]
    if own.choice("clip") not in (None, "none") and shares:
        words = "median share of the norm that is left"
        lines.append(Line("clipped / grad_norm", statistics.median(shares), words))
    return lines + reading(own, "clip_fraction", "share of updates that were clipped")


def epsilon(own: Own) -> Lines:
    """Adam's first update g / (|g| + eps), of the largest entry of layer 1."""
    largest = own.layers("grad_max")
    if not largest:
        return []
    layer = min(largest)
    words = f"largest gradient entry of layer {layer}, step 0"
    lines = [Line("grad_max", largest[layer], words)]
    if largest[layer] > 0:
        size = show(largest[layer], 4)
        words = "the first update that Adam makes of it, in units of lr"
        lines.append(sum_of(f"{size} / ({size} + {show(ADAM_EPSILON)})", words))
    return lines


def smallest(own: Own) -> Lines:
    """The smallest backward signal beside the smallest number of the dtype."""
    from vgexp.diagnosis.signal import SMALLEST_NORMAL  # pandas, which other pages do without

    signal, least = own.layers("delta_rms"), SMALLEST_NORMAL.get(str(own.dtype))
    lines: Lines = []
    if least is not None:
        lines.append(Line("smallest normal", least, f"of {own.dtype}"))
    if signal:
        layer = min(signal, key=lambda each: signal[each])
        lines.append(Line("delta_rms", signal[layer], f"the smallest at step 0: layer {layer}"))
    factor = own.number("backward_factor_per_layer")
    if factor is not None and least is not None and 0 < factor < 0.999:
        depth = f"ln({show(least)}) / ln({show(factor, 5)})"
        lines.append(sum_of(depth, "layers after which a signal of 1 underflows"))
    return [*lines, *reading(own, "underflow", "layers whose signal underflowed at any step")]


def largest(own: Own) -> Lines:
    """The largest loss and gradient beside the largest number of the dtype."""
    lines: Lines = []
    if str(own.dtype) in LARGEST:
        lines.append(Line("largest number", LARGEST[str(own.dtype)], f"of {own.dtype}"))
    for column in ("loss", "grad_norm"):
        if values := own.steps(column):
            lines.append(Line(f"largest {column}", max(values), "over all updates, if finite"))
    return lines + reading(own, "steps", "updates done")


def through_time(own: Own) -> Lines:
    """The factor per step back in time, and what it comes to over the watched times."""
    length = own.setting("data.seq_len")
    factor = own.number("backward_factor_per_time_step")
    lines = reading(own, "backward_factor_per_time_step", "fitted factor a step back in time")
    if factor is not None and isinstance(length, int) and length > 1:
        words = f"over a sequence of {length} steps"
        lines.append(sum_of(f"{show_base(factor, length)}^{length - 1}", words))
    lines += reading(own, "time_attenuation", "measured: first watched time over the last")
    return lines + reading(own, "time_attenuation_last", "the same at the last measured step")


def readout(own: Own) -> Lines:
    """The read-out's signal beside that of a softmax which guesses."""
    guess, signal = own.number("constant_loss"), own.readout("delta_rms")
    lines = [] if signal is None else [Line("delta_rms", signal, "of the read-out at step 0")]
    num_classes = own.setting("data.num_classes")
    if guess is not None:
        count = num_classes if isinstance(num_classes, int) else round(math.exp(guess))
        if count > 1 and abs(math.log(count) - guess) < 0.02:
            words = f"softmax that guesses among K = {count} classes"
            lines.append(sum_of(f"sqrt({count} - 1) / {count}", words))
    return lines


def wiring(own: Own) -> Lines:
    """How many parameters require a gradient, are in the optimizer, got one, and changed."""
    lines: Lines = []
    if names := own.wiring("requires_grad"):
        lines.append(Line("parameters", float(len(names)), "tensors in wiring.csv, last step"))
    for column, words in (
        ("requires_grad", "require a gradient"),
        ("in_optimizer", "are in the optimizer"),
        ("gradient_kept", "kept the gradient of the update before"),
        ("updated", "changed in the update"),
    ):
        values = [value for value in own.wiring(column) if value in (0, 1)]
        if values:
            lines.append(Line(column, float(sum(values)), words))
    if gradients := own.wiring("gradient"):
        without = sum(value in ("none", "zero") for value in gradients)
        lines.append(Line("gradient", float(without), "got none, or zeros"))
    return lines


def weights(own: Own) -> Lines:
    """The smallest and the largest weight norm at step 0, and the weights' gain."""
    norms, gain = own.layers("weight_norm"), weight_gain(own)
    lines = [
        Line("weight_norm", norms[layer], f"layer {layer} at step 0, the {which}")
        for which, pick in (("smallest", min), ("largest", max))
        if norms
        for layer in [pick(norms, key=lambda each: norms[each])]
    ]
    if gain is not None:
        words = "sqrt(n Var W) of the middle layer: its norm / sqrt(n)"
        lines.append(Line("sigma_w", gain, words))
    return lines + backward(own)


def inputs(own: Own) -> Lines:
    """The spread of z in layer 1, which inputs of spread 1 and kept variance leave near 1."""
    spread = own.layers("preact_std")
    first = [Line("preact_std", spread[1], "of z in layer 1 at step 0")] if 1 in spread else []
    return first + reading(own, "loss_first", "training loss of the first update")


def landscape(own: Own) -> Lines:
    """The largest curvature beside the limit of the step."""
    lines = reading(own, "sharpness_first", "largest Hessian eigenvalue at the first step")
    lines += reading(own, "sharpness_last", "the same at the last step")
    rate_set = own.setting("optimizer.lr")
    if lines and rate_set:
        words = "the limit of stability of plain gradient descent, 2 / lr"
        lines.append(sum_of(f"2 / {show(rate_set)}", words))
    lines += reading(own, "curvature_over_limit_max", "largest |eigenvalue| over the limit")
    return lines + reading(own, "attenuation", "the signal: layer 1 over the last")


def hidden(own: Own) -> Lines:
    """The ratio of the weights' gradients beside that of the signal."""
    return [
        *reading(own, "weight_gradient_ratio", "grad_norm: layer 1 over the last hidden"),
        *reading(own, "attenuation", "delta_rms: layer 1 over the last hidden"),
    ]


def schedule(own: Own) -> Lines:
    """The learning rate at the start, at its highest and at the end."""
    rates = own.steps("lr")
    if not rates:
        return []
    lines = [
        Line("lr", rates[0], "at step 0"),
        Line("lr", max(rates), f"the highest, at step {rates.index(max(rates))}"),
        Line("lr", rates[-1], "at the last step"),
    ]
    return lines + learning(own)


def memory(own: Own) -> Lines:
    """The numbers that must wait for the backward pass: one h and one z for a unit and example."""
    count, width = own.num_layers, own.setting("model.width")
    batch = own.setting("data.batch_size")
    if weight_gain(own) is None or count is None or not width or not batch:
        return []
    return [
        sum_of(f"{count} * {width} * {batch}", "units of all layers and examples of a batch"),
        *reading(own, "num_parameters", "trainable numbers, for comparison"),
    ]


def parallel(own: Own) -> Lines:
    """The bytes that an all-reduce of the gradient moves."""
    count = own.number("num_parameters")
    if count is None:
        return []
    return [
        *reading(own, "num_parameters", "trainable numbers"),
        sum_of(f"2 * 4 * {count:.0f} / 10^6", "MB in and out of each worker an update"),
    ]


def initialisation(own: Own) -> Lines:
    """chi where the weights' gain is known, else their norms."""
    return weights(own) if weight_gain(own) is None else chi(own)


def stream(own: Own) -> Lines:
    """Growth of the stream forward, and of the signal backward."""
    return forward(own) + backward(own)
