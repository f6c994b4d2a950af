"""Pages of notes: what is odd in a network and keeps it from nothing."""

from __future__ import annotations

from vgexp.explain.causes import cause
from vgexp.explain.pages import laws
from vgexp.explain.topic import Cure, Measured, Question, law, sum_of

PAGES = (
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
