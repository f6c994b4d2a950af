"""Pages of cures in the structure: norms and skips."""

from __future__ import annotations

from vgexp.explain.pages import laws
from vgexp.explain.topic import Cure, Measured, Question, Topic, law, sum_of

_SIGMOID = "+experiment=sigmoid_deep"
_XAVIER = "+experiment=relu_xavier"

PAGES = (
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
        chart=(
            "validation accuracy, 20 sigmoid layers",
            ("no norm", "0.09 to 0.11"),
            ("batch norm", "0.96 to 0.97"),
        ),
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
        chart=(
            "attenuation over 1,000 layers",
            ("scaled_residual", "1.1"),
            ("no skip", "2e-4"),
            ("rezero", "1.0"),
        ),
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
        paper="Srivastava, Greff, Schmidhuber 2015",
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
        chart=(
            "validation accuracy, 50 ReLU layers",
            ("dense", "0.96 to 0.99"),
        ),
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
        paper="Huang, Liu, van der Maaten, Weinberger 2017",
        also=("densenet",),
        see=("residual",),
    ),
)
