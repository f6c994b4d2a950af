"""Pages of causes that lie in training: optimizer, dtype, landscape; and of notes."""

from __future__ import annotations

from vgexp.explain import laws
from vgexp.explain.causes import cause
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
    # ------------------------------------------------------------ notes
    cause(
        "overfitting",
        words=(
            "The training loss falls on and the validation loss turns up. Gradients are well; the "
            "net learns what only these examples have in common."
        ),
        image="Learning the exam questions of last year by heart.",
        lines=(law("gap = validation loss - training loss"),),
        own=laws.splits,
        figure="learning_curves",
        cures=(
            Cure("model.dropout=0.3", "units that cannot rely on each other"),
            Cure("optimizer.weight_decay=0.001", "small weights"),
            Cure("train.steps=300", "stop sooner"),
        ),
        see=("labels_unlearnable", "dropout"),
    ),
    cause(
        "idle_clip",
        words=(
            "The threshold was never reached: the run is bit for bit the one without clipping. "
            "That is no fault. It is worth knowing before clipping is praised for the result."
        ),
        image="A bungee cord that is longer than the bridge is high.",
        lines=(law("clip_fraction = 0"),),
        own=laws.clip,
        figure="gradient_norms",
        cures=(Cure("clip=auto", "a threshold from the norms seen so far"),),
        measured=(
            Measured(
                "train +experiment=relu_he clip=norm clip.threshold=1e6",
                "0 of 500 updates were clipped.",
            ),
        ),
        see=("clip_norm", "clip_throttles"),
    ),
    cause(
        "hidden_by_weights",
        words=(
            "dL/dW is delta times what the layer reads. In a ReLU net whose weights are too small "
            "delta shrinks towards layer 1, and h shrinks towards layer L: the product is the "
            "same in all layers. Somebody who looks at gradient norms of weights sees nothing. "
            "delta_rms shows it."
        ),
        image="A fast train and a slow one, each with half of the way left to go.",
        lines=(
            law("dL/dW_l = delta_l h_{l-1}^T"),
            law("delta_l ~ g^(L - l),  h_{l-1} ~ g^(l - 1)", "product: g^(L - 1) in every layer"),
            sum_of("0.5^19", "delta: layer 1 over layer 20 at g = 0.5"),
        ),
        own=laws.hidden,
        chart=(
            "layer 1 over layer 20, gain 0.5",
            ("dL/dz: attenuation", "1.9e-6"),
            ("weights' gradients", "0.97"),
        ),
        figure="backward_signal",
        plot=True,
        cures=(Cure("model.gain=1", "cures what is hidden", on="model.depth=20 model.gain=0.5"),),
        measured=(
            Measured(
                "signal -m model.depth=20 model.width=128 model.gain=0.5,1.5",
                "attenuation 1.9e-6 and 2.4e3; the weights' gradients: 0.97 and 0.31.",
            ),
        ),
        see=("delta", "how_to_detect", "weights_small"),
        quiz=(
            Question(
                "Gradient norms of all weights are alike. Is the signal sound?",
                (
                    "not necessarily: delta may fade while h grows towards layer 1",
                    "yes",
                    "only with Adam",
                ),
                "20 ReLU layers at gain 0.5: ratio of weights' gradients 0.97, of delta 1.9e-6.",
            ),
        ),
    ),
    cause(
        "relapsed",
        words=(
            "The loss was well below guessing and came back up. Steps that are too long for a "
            "landscape that sharpens, or one batch with a huge gradient, undo what was learned."
        ),
        image="A climber who slips back to the foot of the wall.",
        lines=(
            law("best mean over 20 < 0.9 of guessing <= last mean over 20"),
            sum_of("0.9 * 2.302", "the limit with 10 classes"),
        ),
        own=laws.learning,
        figure="learning_curves",
        cures=(
            Cure("scheduler=cosine", "shorter steps towards the end"),
            Cure("clip=norm", "bounds the one bad step"),
            Cure("optimizer.lr=0.03", "shorter steps"),
        ),
        see=("rate_too_large", "clip_norm"),
    ),
    cause(
        "unused_parameters",
        words=(
            "Parameters that no forward pass uses get no gradient. They cost memory, and in data-"
            "parallel training they stop the all-reduce. Often it is a layer that was left over."
        ),
        image="Screws left on the table when the shelf stands.",
        lines=(law("gradient: none"),),
        own=laws.wiring,
        cures=(Cure("", "remove the layer, or call it", code="del model.old_head"),),
        see=("frozen", "idle_layers"),
    ),
    cause(
        "idle_layers",
        words=(
            "The net learned, but some layers got no gradient at all: others did the work. A "
            "shallower net would do as well, or these layers are waiting to be cured."
        ),
        image="Oars that never touch the water, in a boat that moves.",
        lines=(law("grad_norm = 0 in a layer, loss below guessing"),),
        own=lambda own: laws.dead(own) + laws.backward(own),
        figure="gradient_map",
        cures=(
            Cure("model.skip=residual model.norm=batch", "a path to every layer"),
            Cure("model.depth=5", "fewer layers"),
        ),
        see=("dead_units", "saturating_activation"),
    ),
)
