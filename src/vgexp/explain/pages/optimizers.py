"""Pages of optimizers, schedules, accumulation and memory."""

from __future__ import annotations

from vgexp.explain.pages import laws
from vgexp.explain.topic import Cure, Measured, Topic, law, sum_of

PAGES = (
    # ------------------------------------------------------------ optimizers
    Topic(
        id="momentum",
        group="optimizers",
        title="Momentum: a running sum of gradients",
        words=(
            "Steps in one direction add up, steps to and fro cancel. Along a valley it is up to "
            "1 / (1 - m) times as fast. It does not lift a layer above another: a gradient that "
            "vanished stays vanished."
        ),
        image="A heavy ball rolls over small bumps.",
        lines=(
            law("v <- m v + g;  W <- W - lr v"),
            sum_of("1 / (1 - 0.9)", "steps in one direction: so many times as long"),
        ),
        own=laws.rate,
        chart=(
            "validation accuracy at lr 0.01",
            ("sgd", "0.88"),
            ("momentum", "0.09"),
            ("rmsprop", "0.13"),
            ("adam", "0.09"),
        ),
        figure="update_ratios",
        cures=(Cure("optimizer=momentum optimizer.lr=0.01", "m = 0.9"),),
        measured=(
            Measured(
                "train -m +experiment=tanh_deep optimizer=sgd,momentum,rmsprop,adam "
                "optimizer.lr=0.01",
                "steps of one length do not suit all: validation accuracy 0.88, 0.09, 0.13, 0.09. "
                "Momentum learned to a loss of 0.90 and lost it.",
            ),
        ),
        paper="Polyak 1964",
        see=("adam", "rate_too_large"),
    ),
    Topic(
        id="adam",
        group="optimizers",
        title="Adam and RMSprop: each entry at its own scale",
        words=(
            "The update is a running mean of g over the root of a running mean of g^2: about lr "
            "per entry, whatever the size of g. That evens out layers that differ by a factor of "
            "1e3 or 1e5. Below eps = 1e-8 it does not, and it gives no direction to a gradient "
            "that is noise."
        ),
        image="A hearing aid: it amplifies what is faint, not what is silent.",
        lines=(
            law("W <- W - lr m / (sqrt(v) + eps)"),
            sum_of("10^-6 / (10^-6 + 10^-8)", "g = 1e-6: in units of lr"),
            sum_of("10^-11 / (10^-11 + 10^-8)", "g = 1e-11"),
        ),
        own=lambda own: laws.epsilon(own) + laws.rate(own),
        chart=(
            "validation accuracy, sigmoid, Adam, by depth",
            ("5 layers", "0.91"),
            ("10 layers", "0.19"),
            ("15 layers", "0.09"),
            ("20 layers", "0.09"),
        ),
        figure="update_ratios",
        cures=(
            Cure(
                "optimizer=adam optimizer.lr=0.001",
                "a step of about lr an entry",
                on="+experiment=sigmoid_deep model.depth=5",
            ),
        ),
        measured=(
            Measured(
                "train -m +experiment=adam_rescue optimizer=sgd,adam model.depth=5,10,15,20",
                "sigmoid, validation accuracy: SGD 0.10 at each; Adam 0.91, 0.19, 0.09, 0.09.",
            ),
            Measured(
                "train -m +experiment=relu_xavier train.steps=500 optimizer=adam "
                "optimizer.lr=0.001 seed=0,1,2",
                "0.71 a layer as before, validation accuracy 0.74 to 0.83; SGD 0.07 to 0.10.",
            ),
        ),
        paper="Kingma, Ba 2015, Algorithm 1; Tieleman, Hinton 2012 (RMSprop)",
        also=("adamw", "rmsprop"),
        see=("optimizer_epsilon", "warmup"),
    ),
    Topic(
        id="schedule",
        group="optimizers",
        title="Schedules: long steps first, short ones later",
        words=(
            "Long steps find the valley, short ones settle in it. Step, cosine and plateau "
            "schedules differ in when they shorten. A schedule cures no vanishing gradient: all "
            "layers are scaled alike."
        ),
        image="A golfer: driver first, putter last.",
        lines=(
            law("cosine: lr (1 + cos(pi t / T)) / 2"),
            sum_of("0.1 * 0.1^2", "step schedule: lr 0.1 after two falls by 0.1"),
        ),
        own=laws.schedule,
        chart=(
            "validation accuracy, 3 seeds",
            ("constant", "0.49 to 0.81"),
            ("step", "0.69 to 0.73"),
            ("cosine", "0.84 to 0.89"),
            ("warm-up", "0.81 to 0.87"),
        ),
        figure="learning_curves",
        cures=(
            Cure("scheduler=cosine", "half a cosine"),
            Cure("scheduler=step scheduler.factor=0.1", "falls at thirds"),
            Cure("scheduler=plateau", "when the loss stands"),
        ),
        measured=(
            Measured(
                "train -m model.depth=20 train.steps=300 model.activation=relu optimizer.lr=0.05 "
                "scheduler=constant,step,cosine,warmup_cosine,plateau seed=0,1,2",
                "validation accuracy: constant 0.49 to 0.81, step 0.69 to 0.73, cosine 0.84 to "
                "0.89, warm-up 0.81 to 0.87, plateau as constant.",
            ),
        ),
        paper="Loshchilov, Hutter 2017 (cosine)",
        also=("cosine", "step_schedule", "scheduler"),
        see=("warmup",),
    ),
    Topic(
        id="warmup",
        group="optimizers",
        title="Warm-up: the rate rises over the first steps",
        words=(
            "At the start curvature is high and Adam's estimates rest on a few batches. A rate "
            "that rises linearly lets both settle. Post-norm transformers need it, and so do "
            "large batches."
        ),
        image="Warming up before a sprint.",
        lines=(
            law("lr_t = lr t / T_w for t < T_w"),
            sum_of("0.003 * 10 / 20", "step 10 of 20, lr 0.003"),
        ),
        own=laws.schedule,
        chart=(
            "validation accuracy, 12 post-norm blocks",
            ("constant", "0.10 to 0.11"),
            ("warm-up", "0.20 to 0.91"),
        ),
        figure="learning_curves",
        cures=(Cure("scheduler=warmup_cosine", "10 % of the run", on="+experiment=post_ln_deep"),),
        measured=(
            Measured(
                "train -m +experiment=post_ln_deep scheduler=constant,warmup_cosine seed=0,1,2",
                "loss 2.32 to 2.33 and 0.16 to 2.1; validation accuracy 0.10 to 0.11 and 0.20 to "
                "0.91.",
            ),
        ),
        paper="Goyal et al. 2017, section 2.2; Xiong et al. 2020",
        also=("warmup_cosine", "warm_up"),
        see=("no_warmup", "pre_norm"),
    ),
    Topic(
        id="accumulation",
        group="optimizers",
        title="Gradient accumulation: a large batch in small parts",
        words=(
            "k backward passes are added before one step. The gradient is that of a batch k times "
            "as large, with the memory of a small one. Noise falls as 1/sqrt(k). A vanishing "
            "gradient stays: its mean is small, not its noise large."
        ),
        image="Paying with small coins what a note would pay.",
        lines=(
            law("g = (g_1 + ... + g_k) / k"),
            sum_of("1 / sqrt(4)", "noise with k = 4"),
        ),
        own=lambda own: laws.setting(own, "train.accumulate", "batches a step"),
        cures=(Cure("train.accumulate=4 data.batch_size=16", "like a batch of 64"),),
        measured=(
            Measured(
                "train -m model.depth=10 data.batch_size=16 train.steps=200 train.accumulate=1,4",
                "loss 1.38 and 0.34 after 200 steps. data.batch_size=64 without it: 0.07.",
            ),
        ),
        see=("gradient_kept", "checkpointing"),
    ),
    Topic(
        id="checkpointing",
        group="optimizers",
        title="Activation checkpointing: compute again in place of keeping",
        words=(
            "Only some activations are kept; those between are computed again on the way back. "
            "Memory falls from L to about 2 sqrt(L) layers, for one forward pass more. The "
            "gradient is the same."
        ),
        image="Bread crumbs on every tenth step, in place of every one.",
        lines=(
            law("memory ~ k + L / k, least at k = sqrt(L)"),
            sum_of("2 * sqrt(100)", "layers kept of 100"),
        ),
        own=laws.memory,
        cures=(Cure("train.checkpoint_activations=true", "the same loss, less memory"),),
        measured=(
            Measured(
                "train -m model.depth=20 model.width=64 train.steps=50 "
                "train.checkpoint_activations=false,true",
                "loss 2.23 in both, the tables of steps are equal.",
            ),
        ),
        paper="Chen, Xu, Zhang, Guestrin 2016",
        also=("checkpoint_activations",),
        see=("why_activations_are_stored",),
    ),
    Topic(
        id="dropout",
        group="optimizers",
        title="Dropout: noise against overfitting",
        words=(
            "Each h is set to 0 with probability p and the others are divided by 1 - p. It keeps "
            "the mean and raises the mean square by 1 / (1 - p): in a deep plain net that is a "
            "factor a layer, forward and back."
        ),
        image="A team that trains with two players missing.",
        lines=(
            law("E h^2 -> E h^2 / (1 - p)"),
            sum_of("sqrt(1 / (1 - 0.3))", "a layer at p = 0.3"),
            sum_of("sqrt(1 / (1 - 0.3))^29", "30 layers"),
        ),
        own=laws.backward,
        figure="learning_curves",
        cures=(
            Cure("model.dropout=0.3", "p = 0.3"),
            Cure("model.dropout=0.3 model.gain=0.837", "with weights that make up for it"),
        ),
        measured=(
            Measured(
                "signal -m +experiment=relu_he model.dropout=0.0,0.3 model.gain=1,0.837",
                "gain 1: 0.99 a layer, with dropout 1.20; gain 0.837: 0.83, with dropout 1.01.",
            ),
        ),
        paper="Srivastava et al. 2014",
        see=("overfitting",),
    ),
)
