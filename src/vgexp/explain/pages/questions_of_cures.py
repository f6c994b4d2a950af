"""Pages of the questions on what goes wrong and what cures it, answered with measured numbers."""

from __future__ import annotations

from vgexp.explain.pages import laws
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
)
