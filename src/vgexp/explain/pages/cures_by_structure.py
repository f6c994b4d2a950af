"""Pages of cures in the structure: norms, skips, time, attention."""

from __future__ import annotations

from vgexp.explain import laws
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
        chart=(
            "training loss over 50 steps, guessing 0.16",
            ("rnn", "0.060"),
            ("lstm", "0.0012"),
            ("gru", "0.0004"),
            ("transformer", "0.0006"),
        ),
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
        chart=(
            "share of the signal a step back",
            ("start, rnn", "0.88"),
            ("start, gru", "0.74"),
            ("end, rnn", "0.98"),
            ("end, gru", "0.99"),
        ),
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
        chart=(
            "training loss over 50 steps, guessing 0.16",
            ("rnn", "0.060"),
            ("transformer", "0.0006"),
        ),
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
        chart=("slope of softmax, d = 64", ("q . k", "0.000335"), ("q . k / sqrt(d)", "0.197")),
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
        chart=(
            "validation accuracy, 12 blocks",
            ("post-norm", "0.10"),
            ("pre-norm", "0.87 to 0.96"),
        ),
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
