"""Pages of causes that lie in the depth of a network, or in the length of a sequence."""

from __future__ import annotations

from vgexp.explain.causes import cause
from vgexp.explain.pages import laws
from vgexp.explain.topic import Cure, Measured, Question, law, sum_of

_SIGMOID = "+experiment=sigmoid_deep"

PAGES = (
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
        paper="Xiong et al. 2020; Goyal et al. 2017 (warm-up)",
        see=("warmup", "pre_norm", "adam"),
        quiz=(
            Question(
                "Twelve post-norm attention blocks stay at guessing with Adam. Cheapest cure?",
                ("pre-norm, or warm-up", "more blocks", "clipping at 1e-6"),
                "Measured: pre-norm 0.87 to 0.96 accuracy, warm-up 0.20 to 0.91, neither 0.10.",
            ),
        ),
    ),
)
