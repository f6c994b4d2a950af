"""Pages of activations."""

from __future__ import annotations

from vgexp.explain.pages import laws
from vgexp.explain.topic import Cure, Measured, Question, Topic, law, sum_of

_SIGMOID = "+experiment=sigmoid_deep"

PAGES = (
    # ------------------------------------------------------------ activations
    Topic(
        id="relu",
        group="activations",
        title="ReLU: slope 1 where active, 0 elsewhere",
        words=(
            "max(0, z) does not saturate above 0: its slope there is exactly 1, at any z. Half of "
            "the units are active in the mean, so E phi'^2 is 1/2 and the weights' variance has "
            "to be doubled: that is He's initialisation. With Xavier's it fades by 0.71 a layer. "
            "Units can die."
        ),
        image="A one-way valve: open, or shut, and nothing between.",
        lines=(
            law("phi' = 1 for z > 0, else 0;  E phi'^2 = 1/2"),
            sum_of("sqrt(2 * 0.5)", "with He, a layer"),
            sum_of("sqrt(1 * 0.5)", "with Xavier, a layer"),
        ),
        own=lambda own: laws.chi(own) + laws.dead(own),
        chart=("factor a layer, 50 layers", ("LeCun", "0.70"), ("He", "1.00")),
        figure="backward_signal",
        plot=True,
        cures=(Cure("model.activation=relu model.init=he_normal", "the pair", on=_SIGMOID),),
        measured=(
            Measured(
                "signal -m model.depth=50 model.activation=relu model.init=lecun_normal,he_normal",
                "0.70 and 1.00 a layer.",
            ),
            Measured(
                "train -m +experiment=sigmoid_deep train.steps=500 model.activation=sigmoid,relu "
                "seed=0,1,2",
                "validation accuracy 0.09 to 0.11 and 0.33 to 0.50 (ReLU with Xavier still).",
            ),
        ),
        paper="Nair, Hinton 2010; Glorot, Bordes, Bengio 2011",
        see=("he", "leaky_relu", "dead_units"),
        quiz=(
            Question(
                "Why does ReLU need twice Xavier's variance?",
                (
                    "half of its units pass nothing: E phi'^2 = 1/2",
                    "its output is larger",
                    "it saturates",
                ),
                "chi = sigma_w^2 E phi'^2 = 2 * 1/2 = 1 with He.",
            ),
        ),
    ),
    Topic(
        id="leaky_relu",
        group="activations",
        title="Leaky ReLU and PReLU: a small slope below 0",
        words=(
            "Below 0 the slope is 0.01 (leaky) or is learned (PReLU, from 0.25). No unit is ever "
            "cut off. The scale changes little: E phi'^2 is (1 + a^2) / 2."
        ),
        image="A dam with a pipe at its foot.",
        lines=(
            law("E phi'^2 = (1 + a^2) / 2", "a the slope below 0"),
            sum_of("(1 + 0.01^2) / 2", "leaky"),
            sum_of("2 / (1 + 0.25^2)", "sigma_w^2 that keeps the signal, a = 0.25"),
        ),
        own=lambda own: laws.chi(own) + laws.dead(own),
        chart=("factor a layer, 50 layers", ("LeCun", "0.70"), ("He", "1.00")),
        figure="shares",
        cures=(
            Cure("model.activation=leaky_relu", "slope 0.01"),
            Cure("model.activation=leaky_relu model.negative_slope=0.2", "another slope"),
            Cure("model.activation=prelu", "a slope that is learned"),
        ),
        measured=(
            Measured(
                "signal -m model.depth=50 model.activation=leaky_relu "
                "model.init=lecun_normal,he_normal",
                "0.70 and 1.00 a layer, as ReLU.",
            ),
        ),
        paper="Maas, Hannun, Ng 2013; He et al. 2015 (PReLU)",
        also=("prelu",),
        see=("relu", "dead_units"),
    ),
    Topic(
        id="elu",
        group="activations",
        title="ELU: smooth below 0, mean near 0",
        words=(
            "e^z - 1 below 0 brings the mean of h near 0, so that the next layer's z is not "
            "shifted. Slopes are 1 above 0 and fall to 0 far below. Deep nets come near chi = 1 "
            "by themselves, where little is lost a layer."
        ),
        image="A valve that closes softly.",
        lines=(
            law("phi' = 1 for z > 0, e^z below"),
            sum_of("exp(-1)", "slope at z = -1"),
        ),
        own=laws.chi,
        chart=("factor a layer, 50 layers", ("LeCun", "0.95"), ("He", "1.06")),
        figure="backward_signal",
        plot=True,
        cures=(Cure("model.activation=elu model.init=he_normal", "in place of ReLU"),),
        measured=(
            Measured(
                "signal -m model.depth=50 model.activation=elu model.init=lecun_normal,he_normal",
                "0.95 and 1.06 a layer.",
            ),
        ),
        paper="Clevert, Unterthiner, Hochreiter 2016",
        see=("selu", "relu"),
    ),
    Topic(
        id="selu",
        group="activations",
        title="SELU: an ELU scaled to keep mean 0 and variance 1",
        words=(
            "Two constants are chosen so that mean 0 and variance 1 map to themselves, and nets "
            "are drawn there. With LeCun's variance z stays at 1 without a norm. The gradient "
            "grows a little a layer."
        ),
        image="A thermostat in every layer.",
        lines=(
            law("phi(z) = 1.0507 z,  below 0: 1.0507 * 1.6733 (e^z - 1)"),
            sum_of("1.0507 * 1.6733", "slope just below 0"),
            sum_of("sqrt(1.0716)", "theory for LeCun: a layer"),
        ),
        own=lambda own: laws.chi(own) + laws.forward(own),
        chart=("factor a layer, 50 layers", ("LeCun", "1.04"), ("He", "1.11")),
        figure="forward_signal",
        cures=(Cure("model.activation=selu model.init=lecun_normal", "the pair", on=_SIGMOID),),
        measured=(
            Measured(
                "signal -m model.depth=50 model.activation=selu model.init=lecun_normal,he_normal",
                "1.04 and 1.11 a layer.",
            ),
            Measured(
                "train -m +experiment=selu model.activation=selu,tanh seed=0,1,2",
                "validation accuracy 0.94 to 0.95 and 0.83 to 0.91 after 500 steps.",
            ),
        ),
        paper="Klambauer, Unterthiner, Mayr, Hochreiter 2017",
        see=("elu", "lecun"),
    ),
    Topic(
        id="gelu",
        group="activations",
        title="GELU, SiLU, softplus: smooth relatives of ReLU",
        words=(
            "They are smooth and pass a little below 0. In transformers, with norms and skips, "
            "that is all one asks. In deep plain nets the signal dies: near 0 their slope is 1/2, "
            "z shrinks towards 0, and then chi is sigma_w^2 / 4."
        ),
        image="A dimmer in place of a switch.",
        lines=(
            law("gelu = z Phi(z);  silu = z sigmoid(z);  slope 1/2 at 0"),
            sum_of("sqrt(1 * 0.25)", "near z = 0 with LeCun, a layer"),
            sum_of("sqrt(2 * 0.25)", "near z = 0 with He, a layer"),
        ),
        own=laws.chi,
        chart=(
            "factor a layer, 50 layers, He",
            ("gelu", "0.83"),
            ("silu", "0.72"),
            ("softplus", "0.92"),
        ),
        figure="backward_signal",
        plot=True,
        cures=(
            Cure("model.activation=gelu model.norm=layer model.skip=residual", "with norm, skip"),
            Cure("model.activation=silu model.norm=layer model.skip=residual", "the same"),
        ),
        measured=(
            Measured(
                "signal -m model.depth=50 model.activation=gelu,silu,softplus "
                "model.init=lecun_normal,he_normal",
                "gelu 0.50 and 0.83, silu 0.50 and 0.72, softplus 0.53 and 0.92 a layer.",
            ),
        ),
        paper="Hendrycks, Gimpel 2016; Ramachandran et al. 2017",
        also=("silu", "softplus", "swish"),
        see=("relu", "pre_norm"),
    ),
    Topic(
        id="tanh",
        group="activations",
        title="tanh: slope 1 at 0, and 0 at the ends",
        words=(
            "Near 0 a tanh is the identity. With Xavier's scale z shrinks slowly with depth, "
            "slopes come nearer to 1, and the gradient falls by a power of depth, not "
            "geometrically. Larger weights push units to the flat ends."
        ),
        image="A spring: true for small pulls, stiff for large ones.",
        lines=(
            law("tanh' = 1 - tanh^2"),
            sum_of("1 - tanh(0.5)^2", "at z = 0.5"),
            sum_of("1 - tanh(2)^2", "at z = 2"),
        ),
        own=lambda own: laws.bound(own) + laws.saturated(own),
        chart=(
            "attenuation, Xavier, by depth",
            ("10 layers", "0.29"),
            ("50 layers", "0.11"),
            ("200 layers", "0.025"),
        ),
        figure="backward_signal",
        plot=True,
        cures=(
            Cure("model.activation=tanh model.init=xavier_normal", "the pair", on=_SIGMOID),
            Cure("model.activation=tanh model.init=orthogonal", "less spread", on=_SIGMOID),
        ),
        measured=(
            Measured(
                "signal -m model.activation=tanh model.init=xavier_normal model.depth=10,50,200",
                "attenuation 0.29, 0.11, 0.025: a power of depth.",
            ),
        ),
        paper="Glorot, Bengio 2010; Schoenholz et al. 2017",
        also=("hardtanh",),
        see=("xavier", "tanh_xavier_relu_he", "saturated_units"),
    ),
    Topic(
        id="sigmoid",
        group="activations",
        title="sigmoid: slope 1/4 at most",
        words=(
            "The sigmoid's largest slope is 1/4, at 0. With weights that keep variance a layer "
            "passes on less than a quarter. To make chi 1 the weights would have to be ten times "
            "as large. Keep it for gates and for a last layer that gives a probability."
        ),
        image="The telephone game with a cushion over the mouth.",
        lines=(
            law("sigmoid' = s (1 - s) <= 1/4"),
            sum_of("0.25^19", "at most, from layer 20 to layer 1"),
            sum_of("sqrt(0.0557)", "theory far down, Xavier: a layer"),
        ),
        own=laws.bound,
        figure="backward_signal",
        plot=True,
        cures=(
            Cure("model.skip=residual", "a path beside it", on=_SIGMOID),
            Cure("model.activation=tanh", "slope 1 at 0", on=_SIGMOID),
        ),
        measured=(
            Measured(
                "signal -m model.depth=50 model.activation=sigmoid "
                "model.init=lecun_normal,he_normal",
                "0.23 and 0.32 a layer; the gain that makes chi 1 is 10.1 and 7.2.",
            ),
        ),
        paper="Glorot, Bengio 2010, section 3.1",
        see=("saturating_activation", "tanh"),
    ),
)
