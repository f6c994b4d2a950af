"""Pages of causes that lie in the weights that a network starts with."""

from __future__ import annotations

from vgexp.explain.causes import cause
from vgexp.explain.pages import laws
from vgexp.explain.topic import Cure, Measured, Question, law, sum_of

_SIGMOID = "+experiment=sigmoid_deep"

PAGES = (
    # ------------------------------------------------------------ initialisation
    cause(
        "zero_weights",
        words=(
            "With W = 0 nothing comes back: delta_l = W^T delta_{l+1} is 0. With all weights of a "
            "layer alike, its units compute the same, get the same gradient and stay alike for "
            "ever: a layer of 64 units is then a layer of one. Random weights break the symmetry. "
            "Biases may begin at 0."
        ),
        image="A parliament in which everybody votes alike: one seat would do.",
        lines=(
            law("delta_l = (W_{l+1}^T delta_{l+1}) * phi'(z_l)", "0 where W is 0"),
            sum_of("0 * 0.3", "whatever comes back"),
        ),
        own=laws.weights,
        figure="gradient_map",
        cures=(
            Cure("model.init=he_normal model.gain=1", "random weights of a scale", on=_SIGMOID),
        ),
        measured=(
            Measured(
                "train model.gain=0 train.steps=300",
                "10 ReLU layers from weights of 0: loss 2.30, which is guessing.",
            ),
        ),
        quiz=(
            Question(
                "All weights begin at 0.5, biases at 0. What happens?",
                (
                    "units of a layer stay alike for ever",
                    "it learns, only more slowly",
                    "the loss is nan at once",
                ),
                "Equal units get equal gradients: nothing tells them apart.",
            ),
        ),
        see=("he", "xavier", "symmetry"),
    ),
    cause(
        "weights_small",
        words=(
            "Each layer multiplies the signal by sigma_w sqrt(E phi'^2), forward and back. Below "
            "1 it shrinks geometrically. Halving the weights of a net that kept its signal halves "
            "the factor of every layer."
        ),
        image="The telephone game with everybody speaking at half volume.",
        lines=(
            law("chi = sigma_w^2 E phi'^2,  sigma_w^2 = n Var(W)", "signal: sqrt(chi) a layer"),
            sum_of("sqrt(1 * 0.5)", "Xavier and ReLU, a layer"),
            sum_of("sqrt(1 * 0.5)^29", "30 layers of them"),
            sum_of("0.5^49", "50 layers at half the weights that keep it"),
        ),
        own=laws.chi,
        figure="backward_signal",
        plot=True,
        cures=(
            Cure(
                "model.init=he_normal model.gain=1",
                "twice the variance, for ReLU",
                on="+experiment=relu_xavier",
            ),
            Cure("model.init=lsuv", "measures the scale", on="+experiment=relu_xavier"),
            Cure("model.gain=1", "back to the init's own scale", on="+experiment=small_init"),
            Cure(
                "model.norm=layer",
                "brings z back to scale in every layer",
                on="+experiment=relu_xavier",
            ),
        ),
        measured=(
            Measured(
                "train -m +experiment=relu_xavier model.init=xavier_normal,he_normal seed=0,1,2",
                "factor 0.69 to 0.72, validation accuracy 0.07 to 0.10 with Xavier; 0.98 to 1.02, "
                "0.73 to 0.84 with He.",
            ),
        ),
        paper="He, Zhang, Ren, Sun 2015, Section 2.2; Poole et al. 2016",
        see=("he", "xavier", "lsuv", "chi", "weights_large"),
    ),
    cause(
        "weights_large",
        words=(
            "A factor above 1 grows geometrically. ReLU nets then diverge after a step or two. "
            "Tanh and sigmoid nets cannot grow: their units go to the flat ends instead, and the "
            "gradient that exploded at the start is gone 20 steps later."
        ),
        image="An avalanche: each metre of slope adds snow to what comes down.",
        lines=(
            law("chi = sigma_w^2 E phi'^2 > 1"),
            sum_of("1.5^29", "30 layers at 1.5 a layer"),
            sum_of("1.5^10", "ten layers"),
        ),
        own=laws.chi,
        figure="backward_signal",
        plot=True,
        cures=(
            Cure(
                "model.init=he_normal model.gain=1",
                "He's init, at its own scale",
                on="+experiment=exploding",
            ),
            Cure("model.gain=1", "the init's own scale", on="+experiment=exploding"),
            Cure("model.init=lsuv", "measures the scale", on="+experiment=exploding"),
            Cure("model.norm=layer", "brings z back to scale", on="+experiment=exploding"),
        ),
        measured=(
            Measured(
                "train -m +experiment=exploding train.steps=500 model.norm=none,layer seed=0,1,2",
                "no norm: 3 of 3 diverge (factor 1.47 to 1.52). Layer norm: 3 of 3 learn, factor "
                "0.98 to 1.01, validation accuracy 0.64 to 0.85.",
            ),
            Measured(
                "train -m +experiment=exploding clip=norm seed=0,1,2",
                "none diverges and none learns: loss 793 to 3,500, every update clipped.",
            ),
        ),
        paper="He, Zhang, Ren, Sun 2015; Poole et al. 2016",
        see=("clip_norm", "he", "layer_norm", "weights_small"),
        quiz=(
            Question(
                "30 ReLU layers, weights 1.5 times He's: the loss is nan after one step. What "
                "cures it?",
                ("the scale: gain 1 or LSUV", "clipping by norm", "a learning rate / 10"),
                "Clipping kept 3 of 3 runs finite, with a loss of 793 and more. LSUV learned in "
                "all 3; a rate of 0.001 diverged in all 3.",
            ),
        ),
    ),
    cause(
        "dead_at_start",
        words=(
            "A ReLU unit whose z is below 0 on every example gives 0, and its slope is 0: it gets "
            "no gradient and cannot come back. If all units of one layer are dead, everything "
            "below it is cut off. Narrow and deep nets meet that by chance at the start; biases "
            "far below 0 make it certain."
        ),
        image="Dams: one layer that is shut keeps the river from all below.",
        lines=(
            law("P(a layer is dead) about 2^-n,  n units", "at symmetric weights, one example"),
            sum_of("1 - (1 - 2^(-2))^20", "20 layers of 2 units: some layer dead"),
            sum_of("20 * 2^(-64)", "20 layers of 64 units, nearly"),
        ),
        own=laws.dead,
        chart=(
            "nets of 40 with a layer that is dead",
            ("2 units a layer", "40"),
            ("5 units", "24"),
        ),
        figure="shares",
        cures=(
            Cure("model.activation=leaky_relu", "a slope of 0.01 below 0 lets the gradient pass"),
            Cure("model.width=64", "wider layers hardly ever die"),
            Cure("model.norm=batch", "half of each unit's z are above its mean"),
        ),
        measured=(
            Measured(
                "signal -m model.depth=40 model.width=2,5,64 signal.seeds=40",
                "nets with a layer that is dead on the whole batch: 40 of 40 with 2 units, 24 with "
                "5, none with 64.",
            ),
        ),
        paper="Lu, Shin, Su, Karniadakis 2019",
        see=("dead_units", "leaky_relu"),
    ),
)
