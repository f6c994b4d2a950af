"""Pages of causes that lie in the dtype or in the landscape, and of a cause that nobody knows."""

from __future__ import annotations

from vgexp.explain.causes import cause
from vgexp.explain.pages import laws
from vgexp.explain.topic import Cure, Measured, Question, law, sum_of

PAGES = (
    # ------------------------------------------------------------ dtype
    cause(
        "underflow",
        words=(
            "Each dtype has a smallest number. float32 holds normal numbers down to 1.2e-38, "
            "float16 to 6.1e-5. A gradient below becomes coarse and then 0. float64 shows the "
            "true value; it does not make a net learn that gets 1e-40 of its signal."
        ),
        image="A letter scale that shows 0 for every feather.",
        lines=(
            law("depth of underflow = ln(smallest) / ln(factor)"),
            sum_of("ln(1.18 * 10^-38) / ln(0.24)", "float32, sigmoid layers at 0.24"),
            sum_of("ln(6.1 * 10^-5) / ln(0.24)", "float16 without a loss scale"),
        ),
        own=lambda own: laws.smallest(own) + laws.backward(own),
        chart=(
            "layers with underflow, of 60",
            ("float32", "4"),
        ),
        figure="gradient_map",
        plot=True,
        cures=(
            Cure("dtype=float64", "shows the true value", on="+experiment=sigmoid_deep"),
            Cure("model.skip=residual", "cures the cause", on="+experiment=sigmoid_deep"),
            Cure("dtype=bfloat16", "float32's range in 16 bits"),
            Cure("", "a loss scale, with float16", code="torch.amp.GradScaler()"),
        ),
        measured=(
            Measured(
                "train -m +experiment=sigmoid_deep train.steps=300 model.depth=60 "
                "dtype=float32,float64",
                "attenuation 1.6e-37 in both; layers with underflow 4 and 0; loss 2.32 in both.",
            ),
        ),
        paper="Micikevicius et al. 2018 (Mixed Precision Training), section 3.2",
        see=("overflow", "saturating_activation", "optimizer_epsilon"),
        quiz=(
            Question(
                "60 sigmoid layers underflow in float32. Does float64 make them learn?",
                (
                    "no: it shows the true value, 1.6e-37, and the loss is the same",
                    "yes: precision was the cause",
                    "yes, with half the learning rate",
                ),
                "Measured: loss 2.32 in both. The sickness is the factor of 0.24 a layer.",
            ),
        ),
    ),
    cause(
        "overflow",
        words=(
            "float16 ends at 65,504, float32 at 3.4e38. A net that grows by a factor a layer gets "
            "there: z first becomes inf, and inf - inf or 0 times inf is nan. bfloat16 has "
            "float32's range."
        ),
        image="A mileage counter with five digits.",
        lines=(
            law("depth of overflow = ln(largest) / ln(factor)"),
            sum_of("ln(65504) / ln(1.5)", "float16 at 1.5 a layer"),
            sum_of("ln(3.4 * 10^38) / ln(1.5)", "float32"),
        ),
        own=lambda own: laws.largest(own) + laws.stream(own),
        chart=("layers until overflow, 1.5 a layer", ("float16", "27.4"), ("float32", "219")),
        figure="forward_signal",
        cures=(
            Cure("dtype=bfloat16", "a wider range in 16 bits"),
            Cure("model.norm=layer", "keeps z near 1", on="+experiment=exploding"),
            Cure("model.gain=1", "weights of the init's own scale", on="+experiment=exploding"),
        ),
        measured=(
            Measured(
                "train -m +experiment=exploding seed=0,1,2",
                "the loss begins at 4e5 (seed 0) and 3 of 3 are not finite after a step.",
            ),
        ),
        paper="Micikevicius et al. 2018",
        also=("inf",),
        see=("weights_large", "underflow", "nan_from_loss"),
    ),
    # ------------------------------------------------------------ landscape
    cause(
        "flat_landscape",
        words=(
            "The signal arrives in every layer and the step is sound, yet the loss stands: the "
            "loss itself is flat here. That is a plateau or saddle, not a vanishing gradient. "
            "Curvature tells them apart: on a plateau every eigenvalue is far below 2 / lr."
        ),
        image="A plain in fog: the compass works, but nothing slopes.",
        lines=(
            law("flat:  |lambda| << 2 / lr"),
            sum_of("0.0911 / (2 / 0.1)", "flat_landscape: share of the limit"),
        ),
        own=laws.landscape,
        chart=(
            "curvature beside the limit, lr 0.1",
            ("limit 2 / lr", "20"),
            ("largest eigenvalue", "0.091"),
        ),
        figure="curvature",
        cures=(
            Cure("model.gain=1", "start elsewhere", on="+experiment=flat_landscape"),
            Cure("train.steps=1500", "wait: it is left at last", on="+experiment=flat_landscape"),
            Cure("optimizer=adam", "longer steps where gradients are small"),
        ),
        measured=(
            Measured(
                "train +experiment=flat_landscape",
                "attenuation 1.00, largest eigenvalue 0.091 beside a limit of 20, loss 2.303.",
            ),
            Measured(
                "train +experiment=flat_step_too_large",
                "steady signal too, but curvature 9.3 beside a limit of 2: the step is too large.",
            ),
        ),
        paper="Dauphin et al. 2014 (saddle points); Cohen et al. 2021",
        also=("plateau",),
        see=("rate_too_large", "saturating_activation"),
        quiz=(
            Question(
                "A flat loss: how do you tell a plateau from a vanished gradient?",
                (
                    "compare delta_rms of layer 1 and layer L, and the curvature with 2 / lr",
                    "look at the loss curve for longer",
                    "try another seed",
                ),
                "flat_landscape has attenuation 1.00; sigmoid_deep 1.4e-12. Both have a loss of "
                "ln 10.",
            ),
        ),
    ),
    cause(
        "unknown",
        words=(
            "The network does not learn, and none of the causes was found. What was measured is "
            "listed, and so is what could not be checked. Change one thing at a time: a smaller "
            "net, ten examples to learn by heart, another seed."
        ),
        image="A fever without a finding: more tests, not more medicine.",
        lines=(law("loss on ten examples -> 0", "if not, look at the wiring first"),),
        own=lambda own: laws.learning(own) + laws.backward(own),
        figure="overview",
        cures=(
            Cure("model.depth=2", "does a shallow net learn?"),
            Cure("optimizer=adam", "does another optimizer?"),
        ),
        see=("how_to_detect", "which_cure"),
    ),
)
