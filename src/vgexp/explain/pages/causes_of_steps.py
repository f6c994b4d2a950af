"""Pages of causes that lie in the optimizer."""

from __future__ import annotations

from vgexp.explain.causes import cause
from vgexp.explain.pages import laws
from vgexp.explain.topic import Cure, Measured, Question, law, sum_of

PAGES = (
    # ------------------------------------------------------------ optimizer
    cause(
        "rate_too_small",
        words=(
            "The net is sound, but a step changes weights by so small a share that the run ends "
            "before anything has happened. Look at the update ratio: about 1e-3 of a weight's "
            "norm a step is usual, 1e-6 is standing still."
        ),
        image="Crossing a country in steps of a millimetre.",
        lines=(
            law("update ratio = lr |g| / |W|", "plain SGD"),
            sum_of("0.0001 * 0.5 / 8", "lr 0.0001: of a weight's norm a step"),
            sum_of("1 / (0.0001 * 0.5 / 8)", "steps to change it once by its own size"),
        ),
        own=laws.rate,
        chart=("validation accuracy after 300 steps", ("lr 0.0001", "0.12"), ("lr 0.1", "0.97")),
        figure="update_ratios",
        cures=(Cure("optimizer.lr=0.1", "a longer step"),),
        measured=(
            Measured(
                "train -m model.depth=5 optimizer.lr=0.0001,0.1,1.0 train.steps=300",
                "lr 0.0001: loss 2.48, validation accuracy 0.12; lr 0.1: 0.010, 0.97; lr 1: "
                "diverged.",
            ),
        ),
        see=("update_ratio", "rate_too_large", "saturating_activation"),
    ),
    cause(
        "rate_too_large",
        words=(
            "A step is good as far as the loss is about a parabola. Beyond 2 / lr of curvature "
            "each step overshoots by more than the last. The loss jumps, units die or saturate, "
            "or everything becomes nan. Afterwards it may look like vanishing: dead units send "
            "nothing back."
        ),
        image="Running down a valley in strides that land higher on the other side each time.",
        lines=(
            law("stable while  lambda_max < 2 / lr", "plain gradient descent"),
            sum_of("2 / 0.1", "the limit at lr 0.1"),
            sum_of("1 - 0.1 * 25", "error's factor a step at lambda 25, lr 0.1"),
        ),
        own=lambda own: laws.rate(own) + laws.landscape(own),
        chart=("curvature beside the limit, lr 1", ("limit 2 / lr", "2"), ("curvature", "9.3")),
        figure="curvature",
        cures=(
            Cure("optimizer.lr=0.001", "a shorter step", on="+experiment=dying_relu"),
            Cure("optimizer.lr=0.3", "below the limit", on="+experiment=flat_step_too_large"),
            Cure("scheduler=warmup_cosine", "short first steps"),
            Cure("clip=norm", "bounds a step", on="+experiment=relu_he optimizer.lr=0.1"),
        ),
        measured=(
            Measured(
                "train +experiment=flat_step_too_large",
                "lr 1, limit 2 / lr = 2, curvature 9.3 at the start: loss from 2.5 up to 18.",
            ),
            Measured(
                "train -m +experiment=relu_he optimizer.lr=0.1,0.3 clip=none,norm seed=0,1,2",
                "lr 0.1: validation accuracy 0.20 to 0.40, one diverged; clipped 0.81 to 0.92. lr "
                "0.3: 2 of 3 diverge; clipped 0.70 to 0.93.",
            ),
        ),
        paper="Cohen, Kaur, Li, Kolter, Talwalkar 2021",
        also=("learning_rate", "lr", "diverged"),
        see=("dead_units", "warmup", "clip_norm"),
        quiz=(
            Question(
                "lr = 0.1. Above which curvature (largest Hessian eigenvalue) does plain gradient "
                "descent overshoot?",
                ("2 / lr = 20", "lr / 2 = 0.05", "1"),
                "On a parabola the error is multiplied by 1 - lr lambda, below -1 from 2 / lr on.",
            ),
        ),
    ),
    cause(
        "clip_throttles",
        words=(
            "Clipping is for the exception. With a threshold far below the usual norm every "
            "update is clipped: the length of a step is then lr times the threshold, whatever the "
            "gradient says, and the net crawls."
        ),
        image="A speed limiter set to walking pace, on a motorway.",
        lines=(
            law("step = lr c", "where |g| > c always"),
            sum_of("0.01 * 0.0001", "lr 0.01, c 1e-4: length of every step"),
        ),
        own=laws.clip,
        chart=(
            "training loss",
            ("first step", "2.84"),
            ("after 500 clipped", "2.73"),
            ("without clipping", "0.40"),
        ),
        figure="gradient_norms",
        cures=(
            Cure(
                "clip.threshold=1",
                "a threshold above the usual norm",
                on="+experiment=relu_he clip=norm clip.threshold=0.0001",
            ),
            Cure("clip=auto clip.threshold=90", "clips the largest tenth of norms"),
            Cure("clip=none", "none at all"),
        ),
        measured=(
            Measured(
                "train +experiment=relu_he clip=norm clip.threshold=0.0001",
                "median norm 9.3; every update is clipped; loss 2.84 to 2.73 in 500 updates. "
                "Without clipping 0.40.",
            ),
        ),
        paper="Pascanu, Mikolov, Bengio 2013; Seetharaman et al. 2020 (auto)",
        see=("clip_norm", "idle_clip", "rate_too_small"),
    ),
    cause(
        "optimizer_epsilon",
        words=(
            "Adam divides by sqrt(v) + eps, with eps = 1e-8. Gradients far below eps are not "
            "brought to the length lr but stay small: Adam is then no cure for a gradient that "
            "vanished. In float16 1e-8 is rounded to 0, and 0 / 0 is nan."
        ),
        image="A hearing aid with a floor of noise: what is below it stays unheard.",
        lines=(
            law("update = lr m / (sqrt(v) + eps)"),
            sum_of("10^-4 / (10^-4 + 10^-8)", "g = 1e-4: full length"),
            sum_of("10^-10 / (10^-10 + 10^-8)", "g = 1e-10: a hundredth"),
            sum_of("2^(-24)", "the smallest float16 above 0; 1e-8 is below half"),
        ),
        own=lambda own: laws.epsilon(own) + laws.update(own),
        chart=(
            "validation accuracy, Adam, by depth",
            ("5 layers", "0.91"),
            ("10 layers", "0.19"),
            ("15 layers", "0.09"),
            ("20 layers", "0.09"),
        ),
        figure="update_ratios",
        cures=(
            Cure(
                "",
                "a smaller eps in float32, 1e-4 in float16; or float32 weights and autocast",
                code="torch.optim.Adam(model.parameters(), eps=1e-15)",
            ),
            Cure("dtype=bfloat16", "autocast: weights and Adam stay in float32"),
        ),
        measured=(
            Measured(
                "train -m +experiment=adam_rescue optimizer=adam model.depth=5,10,15,20",
                "validation accuracy 0.91, 0.19, 0.09, 0.09: Adam helps a little way down.",
            ),
        ),
        paper="Kingma, Ba 2015, Algorithm 1",
        see=("adam", "underflow"),
        quiz=(
            Question(
                "Adam divides out the gradient's size. Why does it not cure 20 sigmoid layers?",
                (
                    "layer 1's gradient is far below eps = 1e-8, and points nowhere useful",
                    "Adam cannot train sigmoids",
                    "Adam needs momentum",
                ),
                "Measured at depth 20: accuracy 0.09, with SGD 0.10. At depth 5 Adam gives 0.91.",
            ),
        ),
    ),
)
