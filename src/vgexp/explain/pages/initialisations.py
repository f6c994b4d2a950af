"""Pages of initialisations."""

from __future__ import annotations

from vgexp.explain.pages import laws
from vgexp.explain.topic import Cure, Measured, Question, Topic, law, sum_of

_SIGMOID = "+experiment=sigmoid_deep"
_XAVIER = "+experiment=relu_xavier"

PAGES = (
    # ------------------------------------------------------------ initialisations
    Topic(
        id="xavier",
        group="initialisations",
        title="Xavier (Glorot): variance 2 / (fan_in + fan_out)",
        words=(
            "A sum of n products has n times the variance of one. Var(W) = 1/n keeps z forward, "
            "1/n_out keeps delta backward; Xavier takes the mean of both. It reckons with slope "
            "1, which holds for linear and small tanh units."
        ),
        image="Everybody in the chain repeats exactly as loud as what was heard.",
        lines=(
            law("Var(W) = 2 / (fan_in + fan_out)"),
            sum_of("sqrt(2 / (64 + 64))", "std of a 64 x 64 matrix"),
            sum_of("64 * 2 / (64 + 64)", "sigma_w^2 = n Var(W)"),
        ),
        own=laws.initialisation,
        chart=("factor a layer, 50 layers, Xavier", ("tanh", "0.97"), ("ReLU", "0.70")),
        figure="backward_signal",
        plot=True,
        cures=(
            Cure("model.activation=tanh model.init=xavier_normal", "with tanh", on=_SIGMOID),
            Cure("model.init=xavier_uniform", "uniform, the same variance"),
        ),
        measured=(
            Measured(
                "signal -m model.activation=tanh,relu model.init=xavier_normal model.depth=50",
                "tanh 0.97, ReLU 0.70 a layer.",
            ),
        ),
        paper="Glorot, Bengio 2010, Eq. 16",
        also=("glorot", "xavier_normal", "xavier_uniform", "xavier_init", "glorot_init"),
        see=("he", "lecun", "tanh_xavier_relu_he"),
    ),
    Topic(
        id="he",
        group="initialisations",
        title="He (Kaiming): variance 2 / fan_in",
        words=(
            "ReLU passes half of the mean square. Twice 1/n makes up for it exactly, at every "
            "depth and every size of z: the factor is 1 in the mean. Single nets still scatter, "
            "the more the deeper and the narrower they are."
        ),
        image="Speaking twice as loud where half of the listeners are asleep.",
        lines=(
            law("(1/2) n Var(W) = 1"),
            sum_of("sqrt(2 / 64)", "std of a 64 x 64 matrix"),
            sum_of("sqrt(64 * (2 / 64) * 0.5)", "factor a layer"),
        ),
        own=laws.initialisation,
        chart=(
            "validation accuracy, 30 ReLU layers",
            ("Xavier", "0.07 to 0.10"),
            ("He", "0.73 to 0.84"),
        ),
        figure="backward_signal",
        plot=True,
        cures=(Cure("model.init=he_normal", "for ReLU", on=_XAVIER),),
        measured=(
            Measured(
                "signal -m model.activation=relu model.init=he_normal model.depth=10,50,200",
                "1.003, 0.997, 0.988 a layer (geometric mean of 10 nets of width 64).",
            ),
            Measured(
                "train -m +experiment=relu_xavier model.init=xavier_normal,he_normal seed=0,1,2",
                "validation accuracy 0.07 to 0.10 and 0.73 to 0.84.",
            ),
        ),
        paper="He, Zhang, Ren, Sun 2015, Section 2.2",
        also=("kaiming", "he_normal", "he_uniform", "he_init"),
        see=("relu", "xavier", "lsuv", "chi"),
        quiz=(
            Question(
                "A ReLU layer reads 512 units. Which std do He's weights have?",
                ("sqrt(2/512) = 0.0625", "1/512 = 0.002", "sqrt(1/512) = 0.044"),
                "Var(W) = 2 / fan_in.",
            ),
        ),
    ),
    Topic(
        id="lecun",
        group="initialisations",
        title="LeCun: variance 1 / fan_in",
        words=(
            "Keeps the variance of z forward where slopes are about 1. SELU is built for it; "
            "between layers of equal width it is Xavier."
        ),
        image="The same volume from speaker to speaker.",
        lines=(law("Var(W) = 1 / fan_in"), sum_of("sqrt(1 / 64)", "std, 64 inputs")),
        own=laws.initialisation,
        cures=(Cure("model.init=lecun_normal", "with selu", on="+experiment=selu"),),
        paper="LeCun, Bottou, Orr, Müller 1998, section 4.6",
        also=("lecun_normal", "lecun_uniform"),
        see=("selu", "xavier"),
    ),
    Topic(
        id="orthogonal",
        group="initialisations",
        title="Orthogonal: a matrix that changes no length",
        words=(
            "Gaussian matrices keep lengths in the mean only: some directions grow, most fade, "
            "and a product of many has a few large and many tiny singular values. An orthogonal "
            "matrix keeps every one. In deep linear nets the time to learn then does not depend "
            "on depth."
        ),
        image="Turning a map: no distance on it changes.",
        lines=(
            law("W^T W = 1,  |W x| = |x|"),
            sum_of("1^60", "largest singular value of 60 of them"),
        ),
        own=laws.initialisation,
        chart=("attenuation over 50 tanh layers", ("Xavier", "0.11"), ("orthogonal", "0.12")),
        figure="jacobian",
        cures=(
            Cure("model.init=orthogonal model.activation=tanh", "for tanh", on=_SIGMOID),
            Cure("model.init=orthogonal model.gain=1.414", "for ReLU: gain sqrt(2)"),
        ),
        measured=(
            Measured(
                "signal -m model.depth=50 model.activation=tanh "
                "model.init=xavier_normal,orthogonal",
                "attenuation 0.11 and 0.12: with tanh little is won in the mean.",
            ),
        ),
        paper="Saxe, McClelland, Ganguli 2014",
        also=("delta_orthogonal",),
        see=("xavier", "jacobian"),
    ),
    Topic(
        id="lsuv",
        group="initialisations",
        title="LSUV: the scale is measured, layer by layer",
        words=(
            "Orthogonal weights, then each layer's output is measured on a batch and its weights "
            "divided by the deviation. It needs no theory of the activation. It repairs the "
            "scale, not the slope: sigmoid nets stay sick."
        ),
        image="Tuning each string by ear in place of by table.",
        lines=(
            law("W <- W / std(z) on a batch, until Var(z) = 1"),
            sum_of("0.395^19", "sigmoid_deep with LSUV: what is left"),
        ),
        own=lambda own: laws.forward(own) + laws.backward(own),
        figure="forward_signal",
        plot=True,
        cures=(Cure("model.init=lsuv", "on a net with a wrong scale", on=_XAVIER),),
        measured=(
            Measured(
                "train -m +experiment=relu_xavier train.steps=500 "
                "model.init=xavier_normal,lsuv seed=0,1,2",
                "0.69 to 0.72 a layer, accuracy 0.07 to 0.10; LSUV: 1.01 to 1.03, 0.93 to 0.95.",
            ),
            Measured(
                "train -m +experiment=sigmoid_deep train.steps=500 model.init=lsuv seed=0,1,2",
                "0.39 to 0.40 a layer, accuracy 0.09 to 0.11: no cure.",
            ),
        ),
        paper="Mishkin, Matas 2016, Algorithm 1",
        see=("he", "orthogonal", "batch_norm"),
        quiz=(
            Question(
                "LSUV cures relu_xavier and not sigmoid_deep. Why?",
                (
                    "it repairs the scale; the sigmoid's slope stays below 1/4",
                    "it is random",
                    "it needs more steps",
                ),
                "Measured: 0.71 becomes 1.02 a layer with ReLU; 0.24 becomes 0.40 with sigmoid.",
            ),
        ),
    ),
    Topic(
        id="pretraining",
        group="initialisations",
        title="Greedy layer-wise pretraining: how deep nets began",
        words=(
            "Each layer is first trained alone, to rebuild what it reads (an autoencoder). Then "
            "the whole net is trained. No gradient has to pass more than one layer in the first "
            "part, and the second starts from weights that carry a signal."
        ),
        image="Building a tower floor by floor, each tested before the next.",
        lines=(law("layer l:  min |h_{l-1} - decode(h_l)|^2"), sum_of("0.97^19", "afterwards")),
        own=laws.backward,
        figure="backward_signal",
        plot=True,
        cures=(Cure("train.pretrain_steps=200", "200 steps a layer", on=_SIGMOID),),
        measured=(
            Measured(
                "train -m +experiment=sigmoid_deep train.steps=500 train.pretrain_steps=200 "
                "seed=0,1,2",
                "0.97 a layer, validation accuracy 0.95 to 0.97; without 0.24 and 0.09 to 0.11.",
            ),
        ),
        paper="Hinton, Osindero, Teh 2006; Bengio et al. 2007",
        also=("greedy",),
        see=("history", "without_backprop"),
    ),
)
