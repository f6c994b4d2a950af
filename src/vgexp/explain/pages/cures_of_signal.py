"""Pages of cures in the network: activations, initialisations, norms, skips, time, attention."""

from __future__ import annotations

from vgexp.explain import laws
from vgexp.explain.topic import Cure, Measured, Question, Topic, law, sum_of

_SIGMOID = "+experiment=sigmoid_deep"
_XAVIER = "+experiment=relu_xavier"

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
        paper="Maas, Hannun, Ng 2013; He et al. 2015, Eq. 15 (PReLU)",
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
        paper="Glorot, Bengio 2010, Eq. 12 and 16",
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
        paper="He, Zhang, Ren, Sun 2015, Eq. 10 and 14",
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
    # ------------------------------------------------------------ norms
    Topic(
        id="batch_norm",
        group="norms",
        title="Batch norm: each unit over the batch",
        words=(
            "z minus its mean over its deviation in the batch. It puts z where slopes are large, "
            "lets the scale of weights cancel, and allows higher rates. In deep plain ReLU nets "
            "the gradient grows by 1.2 a layer: it wants skips. Examples of a batch depend on "
            "each other."
        ),
        image="A conductor who brings every voice back to one volume.",
        lines=(
            law("u = (z - mean_B(z)) / sqrt(var_B(z) + eps)"),
            sum_of("1 / 0.0557^0.5", "what makes up for a sigmoid's slope"),
            sum_of("sqrt(3.14159 / (3.14159 - 1))", "plain ReLU: gradient's growth a layer"),
        ),
        own=lambda own: laws.backward(own) + laws.forward(own),
        figure="backward_signal",
        plot=True,
        cures=(
            Cure("model.norm=batch", "in every layer", on=_SIGMOID),
            Cure("model.norm=batch model.skip=residual", "for very deep nets", on=_XAVIER),
        ),
        measured=(
            Measured(
                "train -m +experiment=sigmoid_deep train.steps=500 model.norm=none,batch "
                "seed=0,1,2",
                "factor 0.24 and 1.02 a layer, validation accuracy 0.09 to 0.11 and 0.96 to 0.97.",
            ),
        ),
        paper="Ioffe, Szegedy 2015, Algorithm 1; Yang et al. 2019",
        also=("batchnorm", "normalisation", "normalization"),
        see=("batchnorm_depth", "layer_norm", "residual"),
    ),
    Topic(
        id="layer_norm",
        group="norms",
        title="Layer norm and RMS norm: each example over its units",
        words=(
            "Mean and deviation are taken over the units of one example: no batch, no "
            "difference between training and use. RMS norm leaves out the mean. Both repair "
            "scale and not slope: of sigmoid nets they are no cure."
        ),
        image="Every singer keeps to one volume, whatever the choir does.",
        lines=(
            law("layer: (z - mean(z)) / std(z);  rms: z / sqrt(mean z^2)"),
            sum_of("0.37^19", "sigmoid_deep with layer norm: what is left"),
        ),
        own=lambda own: laws.backward(own) + laws.forward(own),
        figure="forward_signal",
        plot=True,
        cures=(
            Cure("model.norm=layer", "on a net with a wrong scale", on=_XAVIER),
            Cure("model.norm=rms", "without the mean", on=_XAVIER),
        ),
        measured=(
            Measured(
                "train -m +experiment=relu_xavier train.steps=500 model.norm=none,layer seed=0,1,2",
                "0.69 to 0.72 a layer, accuracy 0.07 to 0.10; layer norm 0.98 to 1.01, 0.64 to "
                "0.79.",
            ),
            Measured(
                "signal -m model.depth=50 model.activation=relu model.norm=none,batch,layer,rms",
                "He, 50 layers: 1.00, 1.23, 1.00, 1.01 a layer.",
            ),
        ),
        paper="Ba, Kiros, Hinton 2016; Zhang, Sennrich 2019",
        also=("rms_norm", "layernorm", "rms"),
        see=("batch_norm", "pre_norm", "group_norm"),
    ),
    Topic(
        id="group_norm",
        group="norms",
        title="Group and instance norm: between layer and batch norm",
        words=(
            "Group norm takes mean and deviation over a group of channels of one example, "
            "instance norm over one channel's positions. Neither needs a batch; images with "
            "batches of two are their case."
        ),
        image="Tuning the orchestra by sections.",
        lines=(law("over channels of a group and positions, of one example"),),
        own=laws.backward,
        cures=(
            Cure("model.norm=group model.norm_groups=8", "8 groups", on=_XAVIER),
            Cure("model=cnn model.norm=instance", "images only"),
        ),
        measured=(
            Measured(
                "train -m +experiment=relu_xavier model.norm=none,batch,layer,group,rms",
                "0.71, 1.22, 1.01, 1.09, 1.00 a layer; validation accuracy 0.09, 0.77, 0.79, 0.17, "
                "0.81 (8 groups of 8 units).",
            ),
        ),
        paper="Wu, He 2018; Ulyanov et al. 2016",
        also=("instance_norm", "instance", "group"),
        see=("layer_norm", "batch_norm"),
    ),
    # ------------------------------------------------------------ skips
    Topic(
        id="residual",
        group="skips",
        title="Residual connection: z + f(z)",
        words=(
            "The derivative of z + f(z) is 1 + f'(z). On the identity path nothing is "
            "multiplied, so the gradient of the last layer reaches the first whole. Multiplied "
            "out, L blocks are 2^L paths, of which short ones carry most. Without a norm or a "
            "factor the sum grows: see residual_growth."
        ),
        image="The bypass: traffic that need not go through every town.",
        lines=(
            law("dz_L/dz_1 = prod (1 + f'(z_l)) = 1 + sum f' + ..."),
            sum_of("2^19", "paths through 19 blocks"),
            sum_of("(1 + 0.01)^19", "at 0.01 a branch nothing is lost"),
            sum_of("0.24^19", "without the identity, sigmoid"),
        ),
        own=laws.stream,
        figure="backward_signal",
        plot=True,
        cures=(
            Cure("model.skip=residual", "on a net that loses its signal", on=_SIGMOID),
            Cure("model.skip=residual model.norm=batch", "with a norm in the branch", on=_XAVIER),
        ),
        measured=(
            Measured(
                "train -m +experiment=sigmoid_deep train.steps=500 model.skip=none,residual "
                "seed=0,1,2",
                "0.24 and 1.01 a layer, validation accuracy 0.09 to 0.11 and 0.96 to 0.98.",
            ),
            Measured(
                "train -m +experiment=relu_xavier train.steps=500 model.skip=residual seed=0,1,2",
                "ReLU branches are as large as the stream: 1.22 to 1.26 a layer, 3 of 3 diverge.",
            ),
        ),
        paper="He, Zhang, Ren, Sun 2016 (both papers); Veit, Wilber, Belongie 2016 (paths)",
        also=("skip", "shortcut", "resnet", "skip_connection", "skip_connections"),
        see=("residual_growth", "scaled_residual", "highway", "dense"),
        quiz=(
            Question(
                "What is the derivative of y = F(x) + x, and why does it help?",
                (
                    "F' + 1: the 1 carries the gradient past F",
                    "F' * x: it is larger",
                    "2 F': it is doubled",
                ),
                "The identity path multiplies by nothing.",
            ),
            Question(
                "Residual connections alone, 30 ReLU layers with Xavier. What happens?",
                (
                    "it diverges: each block adds as much as it carries",
                    "it learns to 0.96",
                    "it stays at guessing, as before",
                ),
                "Measured: 1.22 to 1.26 a layer, 3 of 3 diverge. With batch norm it learns.",
            ),
        ),
    ),
    Topic(
        id="scaled_residual",
        group="skips",
        title="Scaled residual: z + f(z) / sqrt(L)",
        words=(
            "L branches of variance 1/L add a variance of 1 in all, at any depth. The variance of "
            "the stream ends at about e = 2.7 times its start. A thousand layers learn in 100 "
            "steps."
        ),
        image="A thousand people add one drop each to the glass.",
        lines=(
            law("(1 + 1/L)^L -> e"),
            sum_of("(1 + 1 / 1000)^1000", "variance after 1,000 blocks"),
        ),
        own=laws.stream,
        figure="forward_signal",
        plot=True,
        cures=(Cure("model.skip=scaled_residual", "the factor 1/sqrt(L)"),),
        measured=(
            Measured(
                "train -m +experiment=thousand_layers model.skip=scaled_residual,none,rezero",
                "validation accuracy 0.97, 0.10, 0.94; attenuation 1.1, 2e-4, 1.0.",
            ),
        ),
        paper="De, Smith 2020; Hayou et al. 2021 (Stable ResNet)",
        see=("rezero", "very_deep"),
    ),
    Topic(
        id="rezero",
        group="skips",
        title="ReZero: z + alpha f(z), alpha from 0",
        words=(
            "At the start each block is the identity: z and the gradient pass unchanged, at any "
            "depth. alpha is learned, one a layer, and lets a branch in when it helps."
        ),
        image="A mixing desk with all faders down at the start.",
        lines=(law("dz_{l+1}/dz_l = 1 + alpha f' = 1 at alpha = 0"), sum_of("1^999", "any depth")),
        own=laws.stream,
        figure="backward_signal",
        plot=True,
        cures=(
            Cure("model.skip=rezero", "alpha = 0 at the start"),
            Cure("model.init=zero_last model.skip=residual", "weights at 0 in its place"),
        ),
        measured=(
            Measured(
                "train -m model.depth=50 model.activation=relu model.init=he_normal "
                "model.skip=residual,rezero train.steps=300 seed=0,1,2",
                "residual: 3 of 3 diverge; rezero: attenuation 1, validation accuracy 0.96 to "
                "0.97.",
            ),
        ),
        paper="Bachlechner et al. 2021; De, Smith 2020 (SkipInit); Goyal et al. 2017",
        also=("zero_last", "fixup", "skipinit"),
        see=("scaled_residual", "residual_growth"),
    ),
    Topic(
        id="highway",
        group="skips",
        title="Highway: a gate between new and old",
        words=(
            "T f(z) + (1 - T) z, with T a sigmoid of z that begins at 0.12 (bias -2). Most of z is "
            "carried on, and the net learns where to change it. Twice the weights of a plain net; "
            "the carried share 0.88 a layer still fades at 50 layers."
        ),
        image="A motorway with exits: leave it only where there is work to do.",
        lines=(
            law("z' = T f(z) + (1 - T) z"),
            sum_of("1 - 1 / (1 + exp(2))", "carried share at bias -2"),
            sum_of("(1 - 1 / (1 + exp(2)))^19", "from layer 20 to 1"),
        ),
        own=laws.backward,
        figure="backward_signal",
        plot=True,
        cures=(Cure("model.skip=highway", "gates", on=_SIGMOID),),
        measured=(
            Measured(
                "train -m model.depth=50 model.activation=relu model.init=he_normal "
                "model.skip=highway train.steps=300 seed=0,1,2",
                "0.89 a layer, attenuation 0.003; still at guessing after 300 steps.",
            ),
            Measured(
                "train +experiment=sigmoid_deep train.steps=500 model.skip=highway",
                "0.87 a layer, validation accuracy 0.21 and rising: slow.",
            ),
        ),
        paper="Srivastava, Greff, Schmidhuber 2015, Eq. 3",
        see=("residual", "lstm"),
    ),
    Topic(
        id="dense",
        group="skips",
        title="Dense: each layer reads all before it",
        words=(
            "Every layer has a direct way to the loss, one weight long. The price is weights: "
            "layer l reads l times as much."
        ),
        image="Everybody in the chain also hears the first speaker.",
        lines=(
            law("h_l = phi(W [h_1, ..., h_{l-1}])"),
            sum_of("50 * 49 / 2", "connections between 50 layers"),
        ),
        own=laws.backward,
        figure="backward_signal",
        plot=True,
        cures=(Cure("model.skip=dense", "direct ways", on=_SIGMOID),),
        measured=(
            Measured(
                "train -m model.depth=50 model.activation=relu model.init=he_normal "
                "model.skip=dense train.steps=300 seed=0,1,2",
                "1.02 a layer, attenuation 0.90 to 1.03, validation accuracy 0.96 to 0.99.",
            ),
        ),
        paper="Huang, Liu, van der Maaten, Weinberger 2017, Eq. 2",
        also=("densenet",),
        see=("residual",),
    ),
    # ------------------------------------------------------------ time and attention
    Topic(
        id="lstm",
        group="time and attention",
        title="LSTM: a cell that is added to",
        words=(
            "c_t = f c_{t-1} + i g: the cell is multiplied by the forget gate alone, and by no "
            "matrix. Where f is near 1 the gradient goes back unchanged. Its bias decides where f "
            "begins; a gate can learn to stay open."
        ),
        image="A conveyor belt: what is put on it travels on until it is taken off.",
        lines=(
            law("dc_t/dc_{t-1} = f_t"),
            sum_of("(1 / (1 + exp(0)))^100", "bias 0: f = 0.5, 100 steps"),
            sum_of("(1 / (1 + exp(-3)))^100", "bias 3: f = 0.95"),
        ),
        own=laws.through_time,
        figure="through_time",
        cures=(
            Cure("model=lstm data=adding", "in place of rnn"),
            Cure("model=lstm data=adding model.forget_bias=3", "an open gate at the start"),
        ),
        measured=(
            Measured(
                "train -m model=rnn,lstm,gru,transformer data=adding data.seq_len=50 "
                "optimizer=adam optimizer.lr=0.003 clip=norm train.steps=1000 train.eval_every=0 "
                "model.depth=1",
                "loss 0.060, 0.0012, 0.0004, 0.0006 (guessing 0.16).",
            ),
            Measured(
                "signal -m model=lstm data=adding data.seq_len=100 model.forget_bias=0.0,1.0,3.0",
                "a step back leaves 0.73, 0.92, 1.01.",
            ),
        ),
        paper="Hochreiter, Schmidhuber 1997; Gers et al. 2000; Jozefowicz et al. 2015",
        also=("forget_bias", "gates"),
        see=("gru", "recurrence_vanishing", "attention"),
        quiz=(
            Question(
                "Why begin an LSTM's forget gate with a positive bias?",
                (
                    "the gate is open at the start, and the gradient survives many steps",
                    "to make it forget faster",
                    "to bound the output",
                ),
                "Over 100 steps: bias 0 leaves 2e-13, bias 1 2e-4, bias 3 0.5 (measured).",
            ),
        ),
    ),
    Topic(
        id="gru",
        group="time and attention",
        title="GRU: one gate mixes old and new",
        words=(
            "h_t = (1 - u) n + u h_{t-1}: the update gate u is the share that is carried on. Two "
            "gates in place of three, and no cell of its own."
        ),
        image="A conveyor belt with one lever.",
        lines=(law("h_t = (1 - u) n_t + u h_{t-1}"), sum_of("0.74^98", "at the start, 98 steps")),
        own=laws.through_time,
        figure="through_time",
        cures=(Cure("model=gru data=adding", "in place of rnn"),),
        measured=(
            Measured(
                "train -m model=rnn,gru data=adding data.seq_len=50 optimizer=adam "
                "optimizer.lr=0.003 clip=norm train.steps=1000 train.eval_every=0 model.depth=1",
                "loss 0.060 and 0.0004. A step back leaves 0.88 and 0.74 at the start, 0.98 and "
                "0.99 at the end: the gates learn it.",
            ),
        ),
        paper="Cho et al. 2014",
        see=("lstm",),
    ),
    Topic(
        id="truncation",
        group="time and attention",
        title="Truncated backpropagation through time",
        words=(
            "Gradients flow back through k steps only. That bounds memory and explosions. What "
            "lies further back cannot be learned from."
        ),
        image="A detective who reads only yesterday's paper.",
        lines=(law("dh_{t-k}/dL = 0"), sum_of("1.1^10", "at 1.1 a step: 10 steps in place of 100")),
        own=laws.through_time,
        figure="through_time",
        cures=(Cure("model=rnn data=adding model.truncation=10", "10 steps back"),),
        measured=(
            Measured(
                "train -m model=rnn data=adding data.seq_len=100 optimizer=adam clip=norm "
                "train.steps=500 train.eval_every=0 model.truncation=null,10",
                "loss 0.16 with both, which is guessing: neither net learns to look that far.",
            ),
        ),
        paper="Williams, Peng 1990",
        see=("recurrence_exploding",),
    ),
    Topic(
        id="attention",
        group="time and attention",
        title="Attention: every position one step from every other",
        words=(
            "A recurrent net needs 100 multiplications to reach 100 steps back. Attention reads "
            "all positions at once: the gradient passes one layer. The price is n^2 products for "
            "n positions."
        ),
        image="A round table in place of the telephone game.",
        lines=(
            law("softmax(Q K^T / sqrt(d)) V"),
            sum_of("0.9^100", "recurrent, 100 steps at 0.9"),
            sum_of("100^2", "products that attention makes for it"),
        ),
        own=laws.backward,
        figure="attention_entropy",
        cures=(Cure("model=transformer data=adding", "in place of rnn"),),
        measured=(
            Measured(
                "train -m model=rnn,transformer data=adding data.seq_len=50 optimizer=adam "
                "optimizer.lr=0.003 clip=norm train.steps=1000 train.eval_every=0 model.depth=1",
                "loss 0.060 and 0.0006 (guessing 0.16).",
            ),
        ),
        paper="Bahdanau, Cho, Bengio 2015; Vaswani et al. 2017, Eq. 1",
        also=("transformer",),
        see=("attention_scaling", "pre_norm", "transformers"),
    ),
    Topic(
        id="attention_scaling",
        group="time and attention",
        title="Why scores are divided by sqrt(d)",
        words=(
            "A product of two random vectors of d numbers has deviation sqrt(d). Without the "
            "division softmax gets numbers like 8 or 20, puts all weight on one position, and "
            "its slope p (1 - p) is next to 0: saturation again."
        ),
        image="A vote in which one shouts so loud that no other is counted.",
        lines=(
            law("Var(q . k) = d;  Var(q . k / sqrt(d)) = 1"),
            sum_of("sqrt(64)", "deviation of a score, d = 64"),
            sum_of("1 / (1 + exp(8))", "p of the smaller of two, 8 apart"),
            sum_of("exp(8) / (1 + exp(8))^2", "slope p (1 - p) there"),
            sum_of("exp(1) / (1 + exp(1))^2", "slope at 1 apart"),
        ),
        figure="attention_entropy",
        cures=(Cure("model=transformer data=adding model.heads=4", "scaled in vgexp always"),),
        paper="Vaswani et al. 2017, section 3.2.1, footnote 4",
        see=("attention", "saturated_units"),
        quiz=(
            Question(
                "Why does attention divide scores by sqrt(d)?",
                (
                    "so that softmax does not saturate",
                    "to save multiplications",
                    "to make weights sum to 1",
                ),
                "Scores have deviation sqrt(d); at 8 apart softmax's slope is 3e-4.",
            ),
        ),
    ),
    Topic(
        id="pre_norm",
        group="time and attention",
        title="Pre-norm: x + f(norm(x))",
        words=(
            "With the norm in the branch the stream itself is a clean identity path from the loss "
            "to the first block. Post-norm puts a norm on that path in every block. Pre-norm nets "
            "train without warm-up."
        ),
        image="Repairs in the side street, so that the main road stays open.",
        lines=(
            law("pre: x + f(norm(x));  post: norm(x + f(x))"),
            sum_of("sqrt(12)", "pre-norm: the stream grows like this over 12 blocks"),
        ),
        own=laws.stream,
        figure="backward_signal",
        plot=True,
        cures=(Cure("model.norm_position=pre", "in front", on="+experiment=post_ln_deep"),),
        measured=(
            Measured(
                "train -m +experiment=post_ln_deep model.norm_position=post,pre seed=0,1,2",
                "loss 2.32 to 2.33 and 0.03 to 0.09; validation accuracy 0.10 and 0.87 to 0.96.",
            ),
        ),
        paper="Xiong et al. 2020, Theorem 1",
        also=("pre_ln", "post_norm"),
        see=("no_warmup", "warmup", "transformers"),
    ),
)
