"""Pages of the questions that courses and interviews ask, answered with measured numbers."""

from __future__ import annotations

from vgexp.explain import laws
from vgexp.explain.topic import Cure, Measured, Question, Topic, law, sum_of

GROUP = "questions"
_SIGMOID = "+experiment=sigmoid_deep"

PAGES = (
    Topic(
        id="how_to_detect",
        group=GROUP,
        title="How do you detect a vanishing or exploding gradient?",
        words=(
            "Compare layers, not runs. Measure delta (dL/dz) at layer 1 and at the last hidden "
            "layer; the ratio is the attenuation, its (L - 1)-th root the factor a layer. A "
            "factor off 1 that is alike in all layers is the sign of the disease; a jump at one "
            "layer is a fault there.\n\nSecond signs: a loss that stays where guessing is, update "
            "ratios that fall towards layer 1, norms in spikes, nan. Gradient norms of weights "
            "alone may hide it.\n\nA flat loss with an attenuation near 1 is another disease: see "
            "flat_landscape."
        ),
        image="A doctor takes the pulse at the wrist and at the ankle.",
        lines=(
            law("factor = attenuation^(1 / (L - 1))"),
            sum_of("(1.394 * 10^-12)^(1 / 19)", "sigmoid_deep, 20 layers"),
        ),
        own=lambda own: laws.backward(own) + laws.hidden(own)[:1] + laws.learning(own),
        chart=("attenuation, 20 layers", ("sigmoid_deep", "1.4e-12"), ("residual_rescue", "1.25")),
        figure="backward_signal",
        plot=True,
        measured=(
            Measured(
                "train +experiment=sigmoid_deep",
                "attenuation 1.4e-12, 0.24 a layer; loss 2.31 after 1,000 steps, guessing 2.30.",
            ),
            Measured(
                "train +experiment=residual_rescue",
                "attenuation 1.25, 1.01 a layer; loss 0.035, validation accuracy 0.96.",
            ),
            Measured(
                "signal model.depth=20 model.width=128 model.gain=0.5",
                "attenuation 1.9e-6, but the ratio of the weights' gradients is 0.97.",
            ),
        ),
        also=(
            "vanishing",
            "vanishing_gradient",
            "vanishing_gradients",
            "exploding",
            "exploding_gradient",
            "exploding_gradients",
        ),
        see=("attenuation", "hidden_by_weights", "flat_landscape"),
    ),
    Topic(
        id="what_fixes",
        group=GROUP,
        title="What fixes a vanishing gradient?",
        words=(
            "Whatever brings the factor a layer to 1: a path on which nothing is multiplied "
            "(residual, dense, gates), a slope of 1 (ReLU) with weights to match (He), a norm "
            "that makes up for the slope (batch norm), or a better start (pretraining). A larger "
            "rate does not: it scales all layers alike."
        ),
        image="A bypass, a wider road, or a pump in every village.",
        lines=(
            sum_of("0.24^19", "sigmoid: what is left"),
            sum_of("1.01^19", "with residual connections"),
        ),
        own=laws.backward,
        figure="backward_signal",
        plot=True,
        cures=(
            Cure("model.skip=residual", "first choice", on=_SIGMOID),
            Cure("model.norm=batch", "second", on=_SIGMOID),
            Cure("train.pretrain_steps=200", "the historical one", on=_SIGMOID),
        ),
        measured=(
            Measured(
                "train -m +experiment=sigmoid_deep train.steps=500 seed=0,1,2 "
                "model.skip=none,residual",
                "0.09 to 0.11 and 0.96 to 0.98 validation accuracy.",
            ),
            Measured(
                "train -m +experiment=sigmoid_deep train.steps=500 seed=0,1,2 "
                "model.norm=none,layer,batch",
                "none and layer norm 0.09 to 0.11, batch norm 0.96 to 0.97.",
            ),
            Measured(
                "train -m +experiment=sigmoid_deep train.steps=500 seed=0,1,2 "
                "train.pretrain_steps=0,200",
                "0.09 to 0.11 and 0.95 to 0.97.",
            ),
            Measured(
                "train -m +experiment=sigmoid_deep train.steps=300 optimizer.lr=0.1,1.0,10.0",
                "loss 2.32, 2.32, 2.41: no rate helps.",
            ),
        ),
        see=("which_cure", "residual", "batch_norm"),
    ),
    Topic(
        id="why_clipping",
        group=GROUP,
        title="Why clip gradients, and when?",
        words=(
            "When the net is sound and a step now and then is far too long: recurrent nets, high "
            "rates, rare batches. Clipping keeps direction and bounds length.\n\nNot when every "
            "gradient is huge because the weights are: the run stays finite, every step is "
            "clipped, and nothing is learned. Then mend the scale. And never against vanishing: "
            "clipping makes nothing longer."
        ),
        image="A bungee cord saves the one who falls; it does not mend the bridge.",
        lines=(
            law("g <- g / max(1, |g| / c)"),
            sum_of("1000 / max(1, 1000 / 1)", "a spike of 1,000 at c = 1"),
            sum_of("0.001 / max(1, 0.001 / 1)", "a vanished gradient: unchanged"),
        ),
        own=laws.clip,
        chart=(
            "validation accuracy, lr 0.1, 3 seeds",
            ("sound net", "0.20 to 0.40"),
            ("clipped", "0.81 to 0.92"),
            ("at lr 0.3, clipped", "0.70 to 0.93"),
        ),
        figure="gradient_norms",
        cures=(
            Cure("clip=norm", "a sound net, steps too long", on="+experiment=relu_he"),
            Cure("clip=norm", "a recurrent net", on="+experiment=papers/pascanu_2013"),
        ),
        measured=(
            Measured(
                "train -m +experiment=relu_he optimizer.lr=0.1,0.3 clip=none,norm seed=0,1,2",
                "sound net: at lr 0.1 validation accuracy 0.20 to 0.40, clipped 0.81 to 0.92; at "
                "0.3 2 of 3 diverge, clipped 0.70 to 0.93.",
            ),
            Measured(
                "train -m +experiment=exploding clip=none,norm seed=0,1,2",
                "weights 1.5 times He's: 3 of 3 diverge; clipped 3 of 3 finite, loss 793 to 3,500.",
            ),
            Measured(
                "train -m +experiment=sigmoid_deep train.steps=500 clip=norm seed=0,1,2",
                "vanishing: 0.09 to 0.11 as before.",
            ),
        ),
        see=("clip_norm", "clip_throttles", "recurrence_exploding"),
        quiz=(
            Question(
                "For which of these is clipping the right tool?",
                (
                    "a sound net in which one batch in a hundred has a huge gradient",
                    "weights that are 1.5 times too large",
                    "a sigmoid net of 20 layers",
                ),
                "relu_he at lr 0.3: 2 of 3 diverge, clipped 0.70 to 0.93. The others stay sick.",
            ),
        ),
    ),
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
        id="tanh_xavier_relu_he",
        group=GROUP,
        title="Why does tanh lose with Xavier, while ReLU with He does not?",
        words=(
            "Xavier sets sigma_w^2 = 1, for a slope of 1. tanh has slope 1 at 0 only: wherever z "
            "is not 0, E phi'^2 is below 1, so that chi is below 1. As z shrinks with depth the "
            "slope comes nearer to 1: the loss is a power of depth, not geometric.\n\nReLU's "
            "slopes are 1 and 0, half and half, at any size of z: E phi'^2 is 1/2 exactly, and "
            "He's sigma_w^2 = 2 makes chi exactly 1. What is lost in single nets is chance, which "
            "grows with depth over width.\n\nA tanh with He's weights explodes, a ReLU with "
            "Xavier's vanishes."
        ),
        image="A spring needs a little more than its own length; a valve needs exactly double.",
        lines=(
            law("chi = sigma_w^2 E phi'^2"),
            law("tanh, Xavier: 1 * E(1 - tanh^2)^2 < 1"),
            sum_of("1 * (1 - tanh(0.5)^2)^2", "if every z were 0.5"),
            sum_of("2 * 0.5", "ReLU, He: at any z"),
            sum_of("1 * 0.5", "ReLU, Xavier"),
        ),
        own=laws.chi,
        chart=(
            "factor a layer over 50 layers",
            ("tanh, Xavier", "0.968"),
            ("ReLU, He", "0.997"),
            ("tanh, He", "1.05"),
            ("ReLU, Xavier", "0.70"),
        ),
        figure="at_start",
        plot=True,
        cures=(
            Cure("model.activation=relu model.init=he_normal", "exact", on=_SIGMOID),
            Cure("model.activation=tanh model.init=xavier_normal", "nearly", on=_SIGMOID),
        ),
        measured=(
            Measured(
                "signal -m model.activation=tanh,relu model.init=xavier_normal,he_normal "
                "model.depth=10,50,200",
                "a layer at depth 10, 50, 200: tanh Xavier 0.884, 0.968, 0.986; ReLU He 1.003, "
                "0.997, 0.988; tanh He 1.02, 1.05, 1.05; ReLU Xavier 0.71, 0.70, 0.70.",
            ),
            Measured(
                "signal -m model.activation=tanh model.init=xavier_normal model.depth=10,50,200",
                "attenuation 0.29, 0.11, 0.025. ReLU, He: 1.03, 0.79, 0.09.",
            ),
        ),
        paper="Glorot, Bengio 2010; He et al. 2015; Schoenholz et al. 2017",
        see=("chi", "he", "xavier", "tanh"),
        quiz=(
            Question(
                "tanh with Xavier, twice as deep. How does the attenuation change?",
                (
                    "by a power of depth: less than a factor of 10 from 10 to 50 layers",
                    "it is squared",
                    "not at all",
                ),
                "Measured: 0.29 at 10 layers, 0.11 at 50, 0.025 at 200.",
            ),
        ),
    ),
    Topic(
        id="which_cure",
        group=GROUP,
        title="Which cure for which disease?",
        words=(
            "Slope too small: skips or batch norm. Scale too small or too large: He, LSUV, layer "
            "norm; a skip alone makes it worse. Steps too long: a smaller rate, clipping. Units "
            "that die: the rate first. No cure heals all four."
        ),
        image="A splint for a break, a pill for a fever: not the other way round.",
        table=(
            "Validation accuracy, 3 seeds (guessing: 0.10)",
            "                sigmoid_deep  relu_xavier  exploding  dying_relu",
            "nothing            0.09-0.11    0.07-0.10   diverges   0.07-0.11",
            "init=lsuv          0.09-0.11    0.93-0.95  0.87-0.94   0.07-0.10",
            "norm=layer         0.09-0.11    0.64-0.79  0.64-0.85   0.07-0.10",
            "norm=batch         0.96-0.97    0.77-0.82  0.40-0.51   0.95-0.97",
            "skip=residual      0.96-0.98     diverges   diverges   0.07-0.10",
            "clip=norm          0.09-0.11    0.07-0.10  0.22-0.30   0.07-0.10",
            "Adam, lr 0.001     0.07-0.10    0.74-0.83  0.17-0.26   0.94-0.96",
        ),
        own=lambda own: laws.backward(own) + laws.learning(own),
        chart=(
            "validation accuracy, sigmoid_deep, 3 seeds",
            ("nothing", "0.09-0.11"),
            ("init=lsuv", "0.09-0.11"),
            ("norm=layer", "0.09-0.11"),
            ("norm=batch", "0.96-0.97"),
            ("skip=residual", "0.96-0.98"),
        ),
        figure="overview",
        cures=(
            Cure("model.skip=residual", "slope: sigmoid_deep", on=_SIGMOID),
            Cure("model.init=lsuv", "scale: relu_xavier, exploding", on="+experiment=relu_xavier"),
            Cure("optimizer.lr=0.001", "step: dying_relu", on="+experiment=dying_relu"),
        ),
        measured=(
            Measured(
                "train -m +experiment=sigmoid_deep train.steps=500 seed=0,1,2 "
                "model.norm=none,layer,batch",
                "one row of the table for one disease; the others alike: relu_xavier and "
                "exploding over 500 steps, dying_relu as it is.",
            ),
        ),
        see=("what_fixes", "three_cures", "why_clipping"),
        quiz=(
            Question(
                "Which single change learned in none of 3 seeds of sigmoid_deep?",
                ("layer norm", "batch norm", "residual connections"),
                "Layer norm 0.09 to 0.11; batch norm 0.96 to 0.97; residual 0.96 to 0.98.",
            ),
            Question(
                "Weights 1.5 times too large (exploding). Which one learned best?",
                ("LSUV, 0.87 to 0.94", "clipping by norm", "residual connections"),
                "Clipping 0.22 to 0.30, residual connections diverge.",
            ),
        ),
    ),
    Topic(
        id="three_cures",
        group=GROUP,
        title="How do three cures work together?",
        words=(
            "Fifty ReLU layers. He's weights bring the factor to 1, but at this depth and rate 2 "
            "of 3 nets diverge. Batch norm alone grows by 1.23 a layer. A skip alone doubles the "
            "stream: 3 of 3 diverge. Skip and batch norm together: the norm keeps each branch at "
            "1 while the stream grows, so a branch brings an ever smaller share, and 1.04 a layer "
            "is left. With them the initialisation hardly matters.\n\nSo measure combinations, "
            "not single cures: two changes that fail alone may be the cure together."
        ),
        image="A rope, a harness and a belayer: each alone does not hold.",
        table=(
            "Factor of the gradient a layer, validation accuracy, 3 seeds",
            "init    norm   skip      factor  accuracy",
            "xavier  none   none       0.70   0.07-0.12",
            "xavier  none   residual   1.23   3 of 3 diverge",
            "xavier  batch  none       1.23   0.17-0.20",
            "xavier  batch  residual   1.04   0.96-0.99",
            "he      none   none       1.00   2 of 3 diverge",
            "he      none   residual   1.41   3 of 3 diverge",
            "he      batch  none       1.23   0.21-0.25",
            "he      batch  residual   1.04   0.97-0.98",
        ),
        own=laws.stream,
        chart=(
            "validation accuracy, Xavier, 50 ReLU layers",
            ("none", "0.07-0.12"),
            ("batch norm", "0.17-0.20"),
            ("batch norm, residual", "0.96-0.99"),
        ),
        figure="backward_signal",
        plot=True,
        cures=(
            Cure(
                "model.norm=batch model.skip=residual",
                "both",
                on="model.depth=50 model.activation=relu",
            ),
        ),
        measured=(
            Measured(
                "train -m model.depth=50 model.activation=relu model.init=xavier_normal,he_normal "
                "model.norm=none,batch model.skip=none,residual train.steps=300 seed=0,1,2",
                "the table above.",
            ),
        ),
        paper="De, Smith 2020; Yang et al. 2019",
        see=("residual_growth", "batchnorm_depth", "very_deep"),
        quiz=(
            Question(
                "50 ReLU layers: batch norm alone 0.17 to 0.20, residual alone diverges. Both?",
                ("0.96 to 0.99", "diverges", "0.17 to 0.20"),
                "The norm keeps branches small beside the stream: 1.04 a layer.",
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
