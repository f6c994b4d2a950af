"""Pages of causes that lie in the network: initialisation, depth, units."""

from __future__ import annotations

from vgexp.explain import laws
from vgexp.explain.causes import cause
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
        paper="He, Zhang, Ren, Sun 2015, Eq. 14; Poole et al. 2016",
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
        paper="Lu, Shin, Su, Karniadakis 2019, Theorem 3.3",
        see=("dead_units", "leaky_relu"),
    ),
    # ------------------------------------------------------------ depth
    cause(
        "saturating_activation",
        words=(
            "Backpropagation multiplies by phi'(z) in every layer. The sigmoid's slope is 0.25 at "
            "most, the tanh's 1 at most. A product of many numbers below 1 is next to nothing: "
            "the first layers get no gradient and stay random, so that the last ones have nothing "
            "to read. The loss stays at guessing."
        ),
        image=(
            "The telephone game: each player passes on a quarter of what was heard, and the "
            "twentieth hears nothing."
        ),
        lines=(
            law("delta_l = (W_{l+1}^T delta_{l+1}) * phi'(z_l)"),
            law("sigmoid' = s (1 - s) <= 0.25;  tanh' = 1 - tanh^2 <= 1"),
            sum_of("0.25^10", "ten sigmoid layers pass at most this"),
            sum_of("0.25^19", "twenty layers: from layer 20 to layer 1"),
            sum_of("1 - tanh(2)^2", "tanh' at z = 2"),
        ),
        own=laws.bound,
        figure="backward_signal",
        plot=True,
        cures=(
            Cure("model.skip=residual", "a path on which nothing is multiplied", on=_SIGMOID),
            Cure("model.norm=batch", "scales z so that the slope is made up for", on=_SIGMOID),
            Cure("model.activation=relu model.init=he_normal", "slope 1 where active", on=_SIGMOID),
            Cure("train.pretrain_steps=200", "layer by layer first (2006)", on=_SIGMOID),
        ),
        measured=(
            Measured(
                "train -m +experiment=sigmoid_deep train.steps=500 model.skip=none,residual "
                "seed=0,1,2",
                "no skip: 0.23 to 0.24 a layer, validation accuracy 0.09 to 0.11; residual: 1.01, "
                "0.96 to 0.98.",
            ),
        ),
        paper="Hochreiter 1991; Bengio, Simard, Frasconi 1994; Glorot, Bengio 2010",
        see=("residual", "batch_norm", "relu", "attenuation", "how_to_detect"),
        quiz=(
            Question(
                "What do ten sigmoid layers pass of the gradient at most, with weights that keep "
                "its size?",
                ("0.25^10, about 1e-6", "10 * 0.25, so 2.5", "1/10"),
                "Slopes multiply: 0.25^10 = 9.5e-7.",
            ),
            Question(
                "Twenty sigmoid layers do not learn. Which change alone does not help?",
                ("a learning rate ten times as large", "residual connections", "batch norm"),
                "The rate multiplies all layers alike; layer 1 gets 1e-12 of layer 20's signal.",
            ),
        ),
    ),
    cause(
        "residual_growth",
        words=(
            "z + f(z) adds the variance of the branch to that of the stream in every block. With "
            "He's weights the branch is as large as the stream: the variance doubles a block, "
            "the gradient does too on its way back, and 50 blocks explode. A norm in the branch "
            "or a small factor on it keeps growth slow."
        ),
        image="A savings account at 100 % interest a year.",
        lines=(
            law("Var(z_{l+1}) = Var(z_l) + Var(f(z_l))"),
            sum_of("sqrt(2)^49", "50 blocks, He: z and gradient, rms"),
            sum_of("sqrt(1 + 1 / 50)^49", "the same with 1/sqrt(L) on the branch"),
            sum_of("sqrt(50)", "with a norm in the branch: growth by a power"),
        ),
        own=laws.stream,
        figure="forward_signal",
        plot=True,
        cures=(
            Cure("model.skip=scaled_residual", "1/sqrt(L) on each branch"),
            Cure("model.skip=rezero", "a factor that begins at 0"),
            Cure("model.skip=residual model.norm=batch", "a norm in the branch"),
        ),
        measured=(
            Measured(
                "train -m model.depth=50 model.activation=relu model.init=he_normal "
                "model.skip=residual,scaled_residual,rezero train.steps=300 seed=0,1,2",
                "residual: 3 of 3 diverge (1.38 to 1.45 a layer); scaled_residual: 1.01, "
                "validation accuracy 0.96 to 0.98; rezero: 1.00, 0.96 to 0.97.",
            ),
        ),
        paper="De, Smith 2020, section 3; Zhang, Dauphin, Ma 2019 (Fixup)",
        see=("scaled_residual", "rezero", "residual", "batch_norm"),
    ),
    cause(
        "batchnorm_depth",
        words=(
            "Batch norm divides by the batch's deviation in every layer. Forward that keeps z at "
            "1. Backward, in a plain ReLU net, it multiplies the gradient by about 1.21 a layer: "
            "exactly sqrt(pi / (pi - 1)) in wide nets. At 50 layers that is 1e4, at 100 it is "
            "1e8. With skips the branch brings only a small part, and the growth is gone."
        ),
        image="A public address system that feeds back: each round a fifth louder.",
        lines=(
            law("factor = sqrt(pi / (pi - 1))", "plain ReLU net, wide, batch norm"),
            sum_of("sqrt(3.14159 / (3.14159 - 1))", "a layer"),
            sum_of("1.211^49", "50 layers"),
            sum_of("1.211^99", "100 layers"),
        ),
        own=laws.backward,
        figure="backward_signal",
        plot=True,
        cures=(
            Cure(
                "model.skip=residual",
                "skips around normalised branches",
                on="model.depth=50 model.activation=relu model.norm=batch",
            ),
            Cure("model.norm=layer", "does not mix examples", on="+experiment=relu_he"),
        ),
        measured=(
            Measured(
                "train -m model.depth=50 model.activation=relu model.init=xavier_normal "
                "model.norm=batch model.skip=none,residual train.steps=300 seed=0,1,2",
                "no skip: factor 1.23 a layer, attenuation 2e4, validation accuracy 0.17 to 0.20; "
                "residual: 1.04, 15, 0.96 to 0.99.",
            ),
        ),
        paper="Yang, Pennington, Rao, Sohl-Dickstein, Schoenholz 2019",
        see=("batch_norm", "residual", "three_cures"),
        quiz=(
            Question(
                "What does batch norm do to the gradient of a deep plain ReLU net?",
                (
                    "it grows by about 1.2 a layer towards layer 1",
                    "it is kept exactly",
                    "it fades by 0.7 a layer",
                ),
                "sqrt(pi / (pi - 1)) = 1.21 a layer (Yang 2019); measured 1.23 at width 64.",
            ),
        ),
    ),
    cause(
        "recurrence_vanishing",
        words=(
            "A recurrent net multiplies by the same matrix and by phi' at each step back in time. "
            "Where that is below 1, what happened 100 steps ago gets no gradient: the net cannot "
            "learn to remember it, though it learns what is near."
        ),
        image="The telephone game again, in time: the same player, a hundred times.",
        lines=(
            law("dL/dh_t = W^T diag(phi'(u_{t+1})) dL/dh_{t+1}"),
            sum_of("0.9^100", "100 steps at 0.9"),
            sum_of("0.5^100", "a forget gate at sigmoid(0), 100 steps"),
        ),
        own=laws.through_time,
        figure="through_time",
        cures=(
            Cure(
                "model=lstm model.forget_bias=1",
                "a cell that is added to, not multiplied",
                on="data=adding",
            ),
            Cure("model=lstm data=adding model.forget_bias=3", "gates that begin open"),
            Cure("model=gru data=adding", "the same with two gates"),
            Cure("model=transformer data=adding", "every position one step from every other"),
        ),
        measured=(
            Measured(
                "signal -m model=rnn,gru data=adding data.seq_len=100",
                "a step back leaves 0.86 (rnn), 0.74 (gru) at the start; over the sequence 2e-6, "
                "2e-12.",
            ),
            Measured(
                "signal -m model=lstm data=adding data.seq_len=100 model.forget_bias=0.0,1.0,3.0",
                "0.73, 0.92, 1.01 a step; over the sequence 2e-13, 2e-4, 0.5.",
            ),
        ),
        paper="Hochreiter 1991; Bengio et al. 1994; Pascanu, Mikolov, Bengio 2013, section 2.1",
        see=("lstm", "gru", "attention", "recurrence_exploding"),
    ),
    cause(
        "recurrence_exploding",
        words=(
            "With a recurrent matrix of spectral radius above 1 the gradient grows with each step "
            "back in time. Mostly it is moderate; now and then one sequence makes a step that "
            "throws the weights far away. Here clipping is the right tool: the direction is good, "
            "only the length is not."
        ),
        image="An avalanche that starts on one day in a hundred.",
        lines=(
            law("radius > 1 is needed, not sufficient: phi' takes its share"),
            sum_of("1.1^100", "100 steps at 1.1"),
            sum_of("1.5^100", "100 steps at 1.5, linear"),
        ),
        own=lambda own: laws.through_time(own) + laws.clip(own),
        figure="through_time",
        cures=(
            Cure(
                "clip=norm clip.threshold=1",
                "bounds the step",
                on="+experiment=papers/pascanu_2013",
            ),
            Cure("model=lstm data=adding", "gates bound the state"),
            Cure("model=rnn data=adding model.spectral_radius=1", "a radius that keeps it"),
            Cure("model=rnn data=adding model.truncation=20", "fewer steps back"),
        ),
        measured=(
            Measured(
                "train -m +experiment=papers/pascanu_2013 clip=none,norm model.spectral_radius=1.5",
                "no clipping: diverged at step 157. clip=norm: none, loss 0.22 after 300 updates "
                "(guessing 0.17): kept, not cured.",
            ),
        ),
        paper="Pascanu, Mikolov, Bengio 2013, Algorithm 1",
        see=("clip_norm", "recurrence_vanishing", "why_clipping"),
    ),
    cause(
        "no_warmup",
        words=(
            "With the norm behind the addition (post-norm), gradients of the last blocks are "
            "large at the start, and Adam's first steps are all of full length, since its "
            "estimate of their size rests on one batch. At full rate the net is thrown to a place "
            "where it only guesses. A rate that rises over the first steps avoids it; so does "
            "the norm inside the branch (pre-norm)."
        ),
        image="A cold engine at full throttle.",
        lines=(
            law("post: x = norm(x + f(x));  pre: x = x + f(norm(x))"),
            law("Adam, step 1: lr g / (|g| + eps) = lr", "whatever g is"),
            sum_of("0.003 * 0.003 / (0.003 + 10^-8)", "a first update at g = 0.003, lr = 0.003"),
        ),
        own=lambda own: laws.schedule(own) + laws.backward(own),
        chart=(
            "validation accuracy, 12 post-norm blocks",
            ("constant rate", "0.10 to 0.11"),
            ("warm-up", "0.20 to 0.91"),
            ("pre-norm", "0.87 to 0.96"),
        ),
        figure="learning_curves",
        cures=(
            Cure("scheduler=warmup_cosine", "rises first", on="+experiment=post_ln_deep"),
            Cure("model.norm_position=pre", "the norm in front", on="+experiment=post_ln_deep"),
        ),
        measured=(
            Measured(
                "train -m +experiment=post_ln_deep scheduler=constant,warmup_cosine seed=0,1,2",
                "constant: loss 2.32 to 2.33, validation accuracy 0.10 to 0.11; warm-up: 0.16 to "
                "2.1, 0.20 to 0.91.",
            ),
            Measured(
                "train -m +experiment=pre_ln_deep seed=0,1,2",
                "pre-norm without warm-up: 0.03 to 0.09, 0.87 to 0.96.",
            ),
        ),
        paper="Xiong et al. 2020, Theorem 1; Goyal et al. 2017 (warm-up)",
        see=("warmup", "pre_norm", "adam"),
        quiz=(
            Question(
                "Twelve post-norm attention blocks stay at guessing with Adam. Cheapest cure?",
                ("pre-norm, or warm-up", "more blocks", "clipping at 1e-6"),
                "Measured: pre-norm 0.87 to 0.96 accuracy, warm-up 0.20 to 0.91, neither 0.10.",
            ),
        ),
    ),
    # ------------------------------------------------------------ units
    cause(
        "dead_units",
        words=(
            "A ReLU unit that is below 0 on every example has slope 0: no gradient, no way back. "
            "One step that is too long can push the biases of a whole layer below 0. As a cause "
            "it counts only where nothing before explains it; mostly the step is to blame."
        ),
        image="Dams: a unit that is shut lets nothing through, up or down.",
        lines=(
            law("phi'(z) = 0 for z < 0"),
            sum_of("0.5^10", "ten layers at 50 % dead, on a single path"),
        ),
        own=lambda own: laws.dead(own) + laws.rate(own),
        chart=("validation accuracy", ("lr 0.1", "0.07 to 0.11"), ("lr 0.001", "0.94 to 0.96")),
        figure="shares",
        cures=(
            Cure(
                "model.activation=leaky_relu",
                "a slope below 0, where the step is not too long",
                on="+experiment=dying_relu optimizer.lr=0.001",
            ),
            Cure("optimizer.lr=0.001", "a shorter step", on="+experiment=dying_relu"),
            Cure("scheduler=warmup_cosine optimizer.lr=0.003", "short first steps"),
        ),
        measured=(
            Measured(
                "train -m +experiment=dying_relu optimizer.lr=0.1,0.001 seed=0,1,2",
                "lr 0.1: loss 2.31, validation accuracy 0.07 to 0.11; lr 0.001: 0.002 to 0.005, "
                "0.94 to 0.96.",
            ),
            Measured(
                "train -m +experiment=dying_relu model.activation=leaky_relu,gelu seed=0,1,2",
                "at lr 0.1 no activation helps: leaky_relu ends at a loss of 158 and more, gelu "
                "at 2.30 to 2.31. The step is the cause.",
            ),
        ),
        paper="Maas, Hannun, Ng 2013; Lu et al. 2019",
        also=("dying_relu", "dead_relu"),
        see=("rate_too_large", "leaky_relu", "dead_at_start"),
        quiz=(
            Question(
                "dying_relu (Adam at lr 0.1) is given leaky_relu instead. What happens?",
                (
                    "its weights run away: the step is the cause",
                    "it learns to 0.95",
                    "it stays bit for bit the same",
                ),
                "Measured: loss 158 and more. Dead units were the consequence.",
            ),
        ),
    ),
    cause(
        "saturated_units",
        words=(
            "A sigmoid near 0 or 1, a tanh near -1 or 1, has a slope near 0. Such a unit passes "
            "nothing back and hardly changes. Weights that are too large, inputs that are not "
            "scaled, and steps that are too long drive units there."
        ),
        image="A door that is already pushed against the wall.",
        lines=(
            law("sigmoid' = s (1 - s),  tanh' = 1 - tanh^2"),
            sum_of("0.99 * (1 - 0.99)", "a sigmoid at 0.99"),
            sum_of("1 - tanh(3)^2", "a tanh at z = 3"),
        ),
        own=lambda own: laws.saturated(own) + laws.backward(own),
        chart=("saturated share, mean over layers", ("step 0", "0.39"), ("step 20", "0.82")),
        figure="shares",
        cures=(
            Cure(
                "model.activation=relu model.init=he_normal",
                "has no flat end above 0",
                on="+experiment=large_init model.gain=1",
            ),
            Cure("model.gain=1", "weights of the init's own scale", on="+experiment=large_init"),
            Cure("model.norm=layer", "keeps z near 1", on="+experiment=large_init"),
        ),
        measured=(
            Measured(
                "train +experiment=large_init",
                "saturated share, mean over layers: 0.39 at step 0, 0.82 at step 20, one layer at "
                "1; gradient of layer 1: 4e6 at step 0, exactly 0 at step 20.",
            ),
        ),
        paper="Glorot, Bengio 2010, section 3",
        also=("saturation",),
        see=("weights_large", "inputs_unscaled", "saturating_activation"),
    ),
)
