"""The glossary: a short page for each word, and the history."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vgexp.explain.pages import laws
from vgexp.explain.topic import Line, Question, Topic, law, sum_of

if TYPE_CHECKING:
    from vgexp.explain.own import Own

GROUP = "glossary"


def _word(
    id: str,
    title: str,
    words: str,
    *lines: Line,
    own: Callable[[Own], list[Line]] | None = None,
    figure: str = "",
    also: tuple[str, ...] = (),
    see: tuple[str, ...] = (),
    quiz: tuple[Question, ...] = (),
) -> Topic:
    return Topic(
        id=id,
        group=GROUP,
        title=title,
        words=words,
        lines=lines,
        own=own,
        figure=figure,
        also=also,
        see=see,
        quiz=quiz,
    )


PAGES = (
    _word(
        "z",
        "what a layer hands on before its activation: W h + b",
        "Also called pre-activation. With an adding skip it is the sum. Columns preact_mean and "
        "preact_std.",
        law("z_{l+1} = W_{l+1} h_l + b"),
        own=laws.forward,
        figure="forward_signal",
        also=("preactivation", "preact"),
        see=("h", "delta"),
    ),
    _word(
        "h",
        "what a layer hands on: phi(z)",
        "Also called activation or output of the layer. Columns act_mean and act_std.",
        law("h_l = phi(z_l)"),
        figure="distributions",
        also=("activation",),
        see=("z", "phi"),
    ),
    _word(
        "phi",
        "the activation: sigmoid, tanh, ReLU, ...",
        "A function of one number, applied to every z. Without it a deep net is one linear map.",
        law("h = phi(z)"),
        see=("phi_prime", "relu"),
    ),
    _word(
        "phi_prime",
        "phi', the slope of the activation at z",
        "The factor that a unit puts on what comes back. Sigmoid: 1/4 at most; tanh: 1 at most; "
        "ReLU: 1 or 0. What counts over a layer is the mean of its square.",
        law("E phi'^2 over the units and examples of a layer"),
        sum_of("0.25^2", "the most for a sigmoid"),
        sum_of("0.5 * 1^2 + 0.5 * 0^2", "ReLU, half of the units active"),
        own=laws.chi,
        also=("phi'", "slope", "derivative"),
        see=("chi", "phi"),
    ),
    _word(
        "delta",
        "dL/dz: the gradient signal at a layer",
        "How the loss changes with a layer's z. It comes back from the loss by W^T and phi'. "
        "delta_rms is its root mean square over examples, units and positions, times N, so that "
        "the batch size cancels. vgexp goes by it, not by dL/dW.",
        law("delta_l = (W_{l+1}^T delta_{l+1}) * phi'(z_l)"),
        law("dL/dW_l = delta_l h_{l-1}^T"),
        own=laws.backward,
        figure="backward_signal",
        also=("delta_rms", "backward_signal"),
        see=("attenuation", "hidden_by_weights", "n"),
        quiz=(
            Question(
                "What is the gradient of a weight matrix made of?",
                (
                    "delta of its layer times what the layer reads",
                    "delta of the layer below times W",
                    "the loss times the weight",
                ),
                "dL/dW_l = delta_l h_{l-1}^T.",
            ),
        ),
    ),
    _word(
        "n",
        "N: examples of an update",
        "The loss is a mean over N examples, so dL/dz of one example carries 1/N. delta_rms is "
        "multiplied by N: it does not depend on the batch size.",
        law("delta_rms = rms(N dL/dz)"),
        own=lambda own: laws.setting(own, "data.batch_size", "examples of a batch"),
        also=("batch_size",),
        see=("delta",),
    ),
    _word(
        "gain",
        "the factor on the weights' standard deviation",
        "model.gain multiplies the initialisation's std. backward_gain is another thing: the "
        "share of the next layer's signal that reaches this one.",
        law("std(W) = gain * std(init)"),
        sum_of("0.5 * sqrt(2 / 64)", "He, gain 0.5, 64 units"),
        own=lambda own: [*laws.setting(own, "model.gain", "of this run"), *laws.weights(own)],
        see=("sigma_w", "chi", "backward_gain"),
    ),
    _word(
        "sigma_w",
        "sigma_w^2 = n Var(W): what weights do to a mean square",
        "n numbers of mean square q, weighted and summed, have the mean square sigma_w^2 q. "
        "LeCun: 1, He: 2.",
        law("q_{l+1} = sigma_w^2 E phi(z_l)^2"),
        sum_of("64 * 2 / 64", "He, 64 units"),
        own=laws.weights,
        see=("chi", "gain"),
    ),
    _word(
        "chi",
        "the mean-square factor of delta a layer",
        "Below 1 the gradient vanishes, above 1 it explodes, at 1 it is critical. Its root is "
        "the factor of delta_rms. The critical gain makes it 1 (signal.critical=true).",
        law("chi = sigma_w^2 E phi'^2"),
        sum_of("1 * 0.5", "Xavier and ReLU"),
        sum_of("sqrt(1 * 0.5)", "its root: the factor of delta_rms"),
        sum_of("2 * 0.5", "He and ReLU"),
        own=laws.chi,
        figure="at_start",
        see=("sigma_w", "phi_prime", "attenuation"),
        quiz=(
            Question(
                "chi = 0.25. By which factor does the gradient (rms) fall a layer?",
                ("0.5", "0.25", "0.0625"),
                "chi is of the mean square; the rms factor is its root.",
            ),
        ),
    ),
    _word(
        "attenuation",
        "delta_rms of layer 1 over that of the last hidden layer",
        "What is left of the signal over the whole depth. vgexp calls a signal vanishing below "
        "1e-3, exploding above 1e3, steady between.",
        law("attenuation = delta_rms(1) / delta_rms(L)"),
        sum_of("0.24^19", "20 layers at 0.24"),
        own=laws.backward,
        figure="backward_signal",
        see=("backward_factor", "delta"),
        quiz=(
            Question(
                "Twenty layers, attenuation 1e-10. Which factor a layer is that?",
                ("1e-10^(1/19), about 0.3", "1e-10 / 20", "0.9"),
                "19 factors from layer 20 to layer 1: 0.298^19 = 1e-10.",
            ),
        ),
    ),
    _word(
        "backward_factor",
        "the fitted factor of delta_rms a layer",
        "The slope of a straight line through ln delta_rms against depth. One number for the "
        "whole net: backward_factor_per_layer.",
        law("factor = exp(-slope of ln delta_rms over l)"),
        own=laws.backward,
        also=("factor", "backward_factor_per_layer"),
        see=("attenuation", "backward_gain"),
    ),
    _word(
        "backward_gain",
        "delta_rms here over that of the next layer",
        "Below 1 the signal shrinks in this step back, above 1 it grows. It is the column of "
        "layers.csv that shows which layer is to blame.",
        law("backward_gain_l = delta_rms(l) / delta_rms(l + 1)"),
        own=laws.backward,
        see=("backward_factor", "gain"),
    ),
    _word(
        "update_ratio",
        "the change of a weight in a step over its norm",
        "About 1e-3 is usual. 1e-6 is standing still, 1e-1 is tearing apart.",
        law("|W_{t+1} - W_t| / |W_t|", "plain SGD: lr |g| / |W|"),
        sum_of("0.1 * 0.08 / 8", "lr 0.1, |g| 0.08, |W| 8"),
        own=laws.update,
        figure="update_ratios",
        see=("rate_too_small", "rate_too_large"),
    ),
    _word(
        "dead_fraction",
        "the share of units whose slope is 0 on every example",
        "A dead unit gets no gradient. Half of a ReLU's values are 0 as a rule; dead is a unit "
        "that is 0 on all examples of the update.",
        own=laws.dead,
        figure="shares",
        also=("dead",),
        see=("dead_units",),
    ),
    _word(
        "saturated_fraction",
        "the share of entries at the flat ends of the activation",
        "Where |phi'| is below 5 % of its largest value: a sigmoid beyond about 4.4, a tanh "
        "beyond about 2.2.",
        sum_of("1 / (1 + exp(-4.357)) * (1 - 1 / (1 + exp(-4.357))) / 0.25", "sigmoid' there"),
        sum_of("1 - tanh(2.178)^2", "tanh' there"),
        own=laws.saturated,
        figure="shares",
        also=("saturated",),
        see=("saturated_units",),
    ),
    _word(
        "jacobian",
        "the matrix of derivatives of a layer's output by its input",
        "J_l = D_l W_l, with D the slopes. Backpropagation multiplies one a layer. Its largest "
        "singular value bounds, its mean square tells what happens on average.",
        law("|delta_1| <= prod |J_l| |delta_L|"),
        sum_of("0.95^30", "30 layers at 0.95"),
        sum_of("1.5^10", "10 layers at 1.5"),
        own=laws.backward,
        figure="jacobian",
        see=("orthogonal", "chi"),
    ),
    _word(
        "fan_in",
        "how many numbers a unit reads",
        "n_in of a linear layer; channels times kernel area of a convolution. fan_out: how many "
        "units read it.",
        sum_of("64 * 3 * 3", "a 3 x 3 kernel over 64 channels"),
        also=("fan_out",),
        see=("xavier", "he"),
    ),
    _word(
        "logits",
        "outputs before softmax",
        "Any real numbers. CrossEntropyLoss wants them, not probabilities.",
        law("p = softmax(z);  dL/dz = p - y"),
        sum_of("sqrt(10 - 1) / 10", "its rms at guessing, 10 classes"),
        own=laws.readout,
        also=("softmax",),
        see=("double_softmax",),
    ),
    _word(
        "guessing",
        "the best loss of an answer that ignores the input",
        "ln K with K classes equally frequent. vgexp says that a net learned when its loss, mean "
        "over 20 steps, was below 0.9 of it.",
        sum_of("ln(10)", "10 classes"),
        sum_of("0.9 * ln(10)", "learned: below this"),
        own=laws.learning,
        also=("constant_loss", "chance"),
        see=("verdict",),
    ),
    _word(
        "signal",
        "vanishing, exploding or steady, by the attenuation at step 0",
        "It speaks of the start of training; signal_last of the end. It does not say whether the "
        "net learned.",
        law("vanishing < 1e-3 <= steady <= 1e3 < exploding"),
        own=laws.backward,
        see=("attenuation", "verdict"),
    ),
    _word(
        "verdict",
        "what came of a run, in a word",
        "diverged if it became non-finite; healthy if it learned and still knows it; relapsed if "
        "it learned and lost it; else the signal if it vanishes or explodes; else undecided while "
        "the run is too short to tell, and stalled. `vgexp list verdicts` has the rules in full.",
        own=laws.learning,
        see=("signal", "guessing"),
    ),
    _word(
        "sharpness",
        "the largest eigenvalue of the Hessian",
        "How strongly the loss is curved in its steepest direction. Plain gradient descent "
        "overshoots beyond 2 / lr.",
        sum_of("2 / 0.1", "the limit at lr 0.1"),
        own=laws.landscape,
        figure="curvature",
        also=("curvature", "hessian"),
        see=("rate_too_large", "flat_landscape"),
    ),
    _word(
        "readout",
        "the last weight layer, from h_L to the outputs",
        "Layer L + 1. It learns even where the gradient vanishes below, so its gradient norm "
        "says nothing about the rest.",
        law("outputs = W h_L + b"),
        own=laws.readout,
        see=("delta",),
    ),
    _word(
        "symmetry",
        "units that begin alike stay alike",
        "Equal weights give equal h and equal gradients. Random initialisation breaks it.",
        see=("zero_weights",),
    ),
    _word(
        "backpropagation",
        "the chain rule from the loss back to every weight",
        "One pass forward that keeps z and h, one pass back that carries delta. Its cost is "
        "about two forward passes, for all weights at once.",
        law("delta_l = (W_{l+1}^T delta_{l+1}) * phi'(z_l)"),
        law("dL/dW_l = delta_l h_{l-1}^T"),
        also=("backprop",),
        see=("delta", "why_activations_are_stored", "without_backprop"),
    ),
    Topic(
        id="history",
        group=GROUP,
        title="Vanishing gradients in four sentences",
        words=(
            "Rumelhart, Hinton and Williams made backpropagation known in 1986; Hochreiter in 1991 "
            "and Bengio, Simard and Frasconi in 1994 showed that its signal fades or grows "
            "geometrically with depth and time.\n\nThe LSTM (Hochreiter, Schmidhuber 1997) "
            "gave recurrent nets a path on which nothing is multiplied away, and greedy "
            "pretraining (Hinton, Osindero, Teh 2006) trained the first deep nets layer by "
            "layer.\n\nBetween 2010 and 2013 Glorot and Bengio found the scale of weights, ReLU "
            "took the place of sigmoids, and Pascanu, Mikolov and Bengio bounded explosions by "
            "clipping.\n\nHe's initialisation, batch norm (Ioffe, Szegedy) and residual nets (He "
            "and others), all in 2015, made hundreds of layers trainable, and the Transformer "
            "(Vaswani and others 2017) joined residual paths, norms and attention to the nets of "
            "today."
        ),
        see=("pretraining", "lstm", "residual", "attention"),
        quiz=(
            Question(
                "Which cure came first?",
                ("the LSTM, 1997", "batch norm", "residual networks"),
                "LSTM 1997; batch norm and residual networks 2015.",
            ),
        ),
    ),
)
