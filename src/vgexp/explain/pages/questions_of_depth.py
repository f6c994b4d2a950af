"""Pages of the questions on depth, scale and cost, answered with measured numbers."""

from __future__ import annotations

from vgexp.explain.pages import laws
from vgexp.explain.topic import Cure, Measured, Question, Topic, law, sum_of

GROUP = "questions"
_SIGMOID = "+experiment=sigmoid_deep"

PAGES = (
    Topic(
        id="why_activations_are_stored",
        group=GROUP,
        title="Why are activations stored in training?",
        words=(
            "dL/dW_l = delta_l h_{l-1}^T needs what the layer read, and phi'(z_l) needs z_l, or "
            "h_l where the slope can be had from it. Both come in the forward pass and are needed "
            "in the backward pass, in the opposite order. So all layers wait: memory grows with "
            "depth times batch size, while weights do not. Checkpointing keeps some and computes "
            "the rest again."
        ),
        image="Keep every receipt until the tax return, which starts with the last one.",
        lines=(
            law("bytes = 4 * L * width * batch"),
            sum_of("4 * 50 * 256 * 4096 / 10^6", "MB: 50 layers of 256, batch 4,096"),
            sum_of("4 * 50 * (256 * 256 + 256) / 10^6", "MB of their weights"),
        ),
        own=laws.memory,
        cures=(Cure("train.checkpoint_activations=true", "less memory, one forward pass more"),),
        measured=(
            Measured(
                "python examples/stored_activations.py",
                "50 layers of 256: weights 13.2 MB; kept 0.8, 13.4, 213.9 MB at batches of 16, "
                "256, 4,096; with 7 checkpoints 0.2, 3.9, 62.9 MB.",
            ),
            Measured(
                "train -m model.depth=20 model.width=64 train.steps=50 "
                "train.checkpoint_activations=false,true",
                "loss 2.23 in both: the gradient is the same.",
            ),
        ),
        see=("checkpointing", "backpropagation"),
        quiz=(
            Question(
                "Which grows with the batch size in training?",
                ("the activations that are kept", "the weights", "Adam's running means"),
                "50 layers of 256: 0.8 MB at a batch of 16, 213.9 MB at 4,096; weights 13.2 MB.",
            ),
        ),
    ),
    Topic(
        id="very_deep",
        group=GROUP,
        title="How do you build a very deep net?",
        words=(
            "Make each block nearly the identity at the start: z + f(z)/sqrt(L), z + alpha f(z) "
            "with alpha from 0, or a norm in the branch. Then the factor is 1 at any depth and a "
            "thousand layers learn in 100 steps.\n\nIt is not that more depth helps here: on "
            "digits five ReLU layers do as well."
        ),
        image="A thousand steps of a millimetre in place of a leap.",
        lines=(
            sum_of("(1 + 1 / 1000)^1000", "variance after 1,000 blocks of 1/sqrt(L)"),
            sum_of("0.993^999", "tanh, Xavier, no skip: by its factor a layer"),
        ),
        own=laws.stream,
        chart=(
            "attenuation over 1,000 layers",
            ("scaled_residual", "1.1"),
            ("no skip", "2e-4"),
            ("rezero", "1.0"),
        ),
        figure="backward_signal",
        plot=True,
        cures=(
            Cure("model.skip=scaled_residual", "1/sqrt(L)", on="+experiment=tanh_deep"),
            Cure("model.skip=rezero", "alpha from 0", on="+experiment=tanh_deep"),
        ),
        measured=(
            Measured(
                "train -m +experiment=thousand_layers model.skip=scaled_residual,none,rezero",
                "1,000 layers, 100 steps: loss 0.19, 2.31, 0.08; validation accuracy 0.97, 0.10, "
                "0.94; attenuation 1.1, 2e-4, 1.0.",
            ),
            Measured(
                "train -m +experiment=shallow_vs_deep",
                "loss at depth 5, 20, 50: sigmoid 2.31 each; tanh 0.05, 0.02, 2.2; ReLU 0.03, "
                "1.4, 2.3.",
            ),
        ),
        paper="He et al. 2016; De, Smith 2020; Bachlechner et al. 2021",
        see=("scaled_residual", "rezero", "three_cures"),
    ),
    Topic(
        id="transformers",
        group=GROUP,
        title="How do transformers avoid vanishing gradients?",
        words=(
            "Four things together: a residual stream from the loss to the first block; a norm in "
            "each branch (pre-norm), so that branches stay small beside the stream; attention in "
            "place of recurrence, one step between any two positions; scores divided by sqrt(d), "
            "so that softmax does not saturate. Warm-up and Adam do the rest; post-norm nets "
            "cannot do without warm-up."
        ),
        image="A motorway (stream), ramps (branches), and no tunnel that all must pass.",
        lines=(
            law("x + attention(norm(x));  x + mlp(norm(x))"),
            sum_of("1.09^11", "12 blocks at the factor measured"),
        ),
        own=laws.stream,
        figure="backward_signal",
        plot=True,
        cures=(
            Cure("model.norm_position=pre", "norm in the branch", on="+experiment=post_ln_deep"),
            Cure("scheduler=warmup_cosine", "for post-norm", on="+experiment=post_ln_deep"),
        ),
        measured=(
            Measured(
                "train -m +experiment=post_ln_deep model.norm_position=post,pre seed=0,1,2",
                "12 blocks: post-norm 0.10 to 0.11, pre-norm 0.87 to 0.96 validation accuracy.",
            ),
            Measured(
                "train +experiment=pre_ln_deep model.norm=none",
                "no norm at all: attenuation 1e8, diverged at step 136.",
            ),
        ),
        paper="Vaswani et al. 2017; Xiong et al. 2020",
        see=("attention", "pre_norm", "attention_scaling", "warmup"),
    ),
    Topic(
        id="all_reduce",
        group=GROUP,
        title="Why is all-reduce a bottleneck?",
        words=(
            "In data-parallel training every worker computes a gradient on its part of the batch, "
            "and all need the sum before the step. A ring all-reduce moves about twice the bytes "
            "of the gradient in and out of each worker, however many there are. Computing is "
            "shared by more workers, moving is not: beyond some number it decides.\n\nCures: hide "
            "it behind the backward pass (last layers first), larger batches or accumulation, "
            "fewer bits, the largest entries only, sharded optimizers."
        ),
        image="Ten cooks, and one door through which every dish must pass.",
        lines=(
            law("seconds = 2 (n - 1) / n * bytes / bandwidth"),
            sum_of("4 * 12742666 / 10^6", "MB of gradient: 12.7 million numbers"),
            sum_of("2 * 4 * 12742666 / (1.25 * 10^9)", "seconds at 10 Gbit/s, many workers"),
            sum_of("6.892 / 60", "seconds of an update on one core, batch 64, as below"),
        ),
        own=laws.parallel,
        cures=(
            Cure("train.accumulate=4", "one all-reduce for four batches"),
            Cure("data.batch_size=256", "more computing for the same bytes"),
        ),
        measured=(
            Measured(
                "train model.depth=4 model.width=2048 train.steps=60 data.batch_size=64 "
                "train.eval_every=0 probe.every=1000 probe.activations_every=1000",
                "12,742,666 parameters, 60 updates in 6.9 s on one core of a shared machine. The "
                "transfer is computed, not measured. A chip that is 100 times as fast would wait "
                "most of the time.",
            ),
        ),
        paper="Sergeev, Del Balso 2018 (ring); Lin et al. 2018 (compression); Seide et al. 2014",
        also=("allreduce", "data_parallel"),
        see=("accumulation",),
        quiz=(
            Question(
                "Twice as many workers, the same batch on each. What of a ring all-reduce?",
                (
                    "bytes in and out of a worker stay about the same",
                    "they double",
                    "they halve",
                ),
                "2 (n - 1) / n times the gradient: it tends to twice the gradient.",
            ),
        ),
    ),
    Topic(
        id="without_backprop",
        group=GROUP,
        title="Can a net be trained without backpropagation?",
        words=(
            "Yes, at a price. Evolution and forward mode take derivatives along random "
            "directions: right in the mean, but one of K directions among P parameters is nearly "
            "at right angles to the gradient, with a cosine of about sqrt(K / P). Local rules "
            "(autoencoders, feedback alignment, forward-forward) give each layer a goal or a "
            "path of its own: nothing has to pass all layers, so nothing vanishes on the way.\n\n"
            "Backpropagation has the whole gradient for about two forward passes. Nothing else "
            "has it so cheaply."
        ),
        image="Finding the valley by tossing stones into the fog, or floor by floor.",
        lines=(
            law("g = (dL along v) v,  v random;  E g = dL/dW"),
            sum_of("sqrt(100 / (100 + 2410))", "cosine: 100 directions, 2,410 parameters"),
            sum_of("sqrt(1000 / (1000 + 2410))", "1,000 directions"),
            sum_of("sqrt(1 / (1 + 83850))", "one direction, the 83,850 of sigmoid_deep"),
        ),
        own=laws.backward,
        cures=(Cure("train.pretrain_steps=200", "layer by layer, each its own goal", on=_SIGMOID),),
        measured=(
            Measured(
                "python examples/without_backpropagation.py",
                "2,410 parameters: cosine 0.07, 0.20, 0.54 for 10, 100, 1,000 directions. 500 "
                "updates with one direction: 0.75 of digits right; backpropagation: 0.90.",
            ),
            Measured(
                "train -m +experiment=sigmoid_deep train.steps=500 train.pretrain_steps=0,200 "
                "seed=0,1,2",
                "layers trained alone first: 0.95 to 0.97 in place of 0.09 to 0.11.",
            ),
        ),
        paper="Salimans et al. 2017; Baydin et al. 2022; Lillicrap et al. 2016; Hinton 2022",
        also=("evolution", "forward_mode", "local_rules"),
        see=("pretraining", "backpropagation"),
        quiz=(
            Question(
                "A derivative along one random direction among P parameters. How near is it to the "
                "gradient?",
                (
                    "cosine about 1 / sqrt(P)",
                    "cosine about 1/2",
                    "it is the gradient",
                ),
                "Measured with 2,410 parameters and 100 directions: 0.20 = sqrt(100 / 2,510).",
            ),
        ),
    ),
    Topic(
        id="does_depth_hurt",
        group=GROUP,
        title="From which depth on does a plain net suffer?",
        words=(
            "It depends on the factor a layer. At 0.24 (sigmoid) five layers are too many. At "
            "0.70 (ReLU with Xavier) 20 suffer and 50 are lost. At 0.97 (tanh with Xavier) 20 are "
            "well and 50 are hard."
        ),
        image="A lamp in fog: how far you see depends on the fog.",
        lines=(
            law("layers until 1e-3 is left = ln(1e-3) / ln(factor)"),
            sum_of("ln(0.001) / ln(0.24)", "sigmoid"),
            sum_of("ln(0.001) / ln(0.7)", "ReLU with Xavier"),
            sum_of("ln(0.001) / ln(0.97)", "at 0.97"),
        ),
        own=laws.backward,
        chart=(
            "validation accuracy at depth 20",
            ("sigmoid", "0.09"),
            ("tanh", "0.96"),
            ("ReLU", "0.30"),
        ),
        figure="backward_signal",
        plot=True,
        cures=(Cure("model.depth=5", "a shallower net", on="+experiment=relu_xavier"),),
        measured=(
            Measured(
                "train -m +experiment=shallow_vs_deep",
                "validation accuracy at depth 2, 5, 10, 20, 50: sigmoid 0.69, then 0.09; tanh "
                "0.97, 0.97, 0.99, 0.96, 0.15; ReLU 0.97, 0.96, 0.95, 0.30, 0.12.",
            ),
        ),
        see=("very_deep", "chi"),
        quiz=(
            Question(
                "Factor 0.7 a layer. After how many layers is a thousandth left?",
                ("about 19", "about 5", "about 700"),
                "ln(0.001) / ln(0.7) = 19.4.",
            ),
        ),
    ),
    Topic(
        id="does_adam_cure",
        group=GROUP,
        title="Does Adam cure a vanishing gradient?",
        words=(
            "It evens out sizes, not what was lost. Where the signal is small but right "
            "(relu_xavier, 4e-5) Adam learns. Where it is below eps or noise (20 sigmoid layers, "
            "1e-12) it does not."
        ),
        image="A hearing aid for somebody who is out of earshot.",
        lines=(
            law("lr g / (|g| + eps), eps = 1e-8"),
            sum_of("5.2 * 10^-14 / (5.2 * 10^-14 + 10^-8)", "layer 1 of sigmoid_deep"),
        ),
        own=laws.epsilon,
        chart=(
            "validation accuracy, sigmoid, by depth",
            ("Adam, 5 layers", "0.91"),
            ("Adam, 10", "0.19"),
            ("Adam, 15 and 20", "0.09"),
            ("SGD, each", "0.10"),
        ),
        figure="update_ratios",
        cures=(
            Cure(
                "optimizer=adam optimizer.lr=0.001", "where it helps", on="+experiment=relu_xavier"
            ),
        ),
        measured=(
            Measured(
                "train -m +experiment=adam_rescue optimizer=sgd,adam model.depth=5,10,15,20",
                "Adam 0.91, 0.19, 0.09, 0.09; SGD 0.10 at each.",
            ),
            Measured(
                "train -m +experiment=relu_xavier train.steps=500 optimizer=adam "
                "optimizer.lr=0.001 seed=0,1,2",
                "0.74 to 0.83; SGD 0.07 to 0.10.",
            ),
        ),
        see=("adam", "optimizer_epsilon"),
    ),
)
