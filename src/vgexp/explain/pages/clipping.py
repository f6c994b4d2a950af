"""Pages of kinds of clipping."""

from __future__ import annotations

from vgexp.explain.pages import laws
from vgexp.explain.topic import Cure, Measured, Question, Topic, law, sum_of

_HOT = "+experiment=relu_he optimizer.lr=0.3"
_KINDS = Measured(
    "train -m +experiment=relu_he optimizer.lr=0.3 clip=none,norm,value,layer,agc,auto seed=0,1,2",
    "validation accuracy over 3 seeds. none: 0.07 to 0.11 (2 diverge); norm: 0.70 to 0.93; value, "
    "layer: 0.09 to 0.19; agc: 0.10 to 0.51; auto at the 10th percentile: 0.10 to 0.69.",
)

PAGES = (
    # ------------------------------------------------------------ clipping
    Topic(
        id="clip_norm",
        group="clipping",
        title="Clipping by norm: the direction is kept, the length is bounded",
        words=(
            "If the norm of the whole gradient is above c, it is scaled to c. One bad batch can "
            "then move the weights by lr c at most. Clipping treats the symptom: a net whose "
            "gradient explodes by its weights is kept finite, but does not learn."
        ),
        image="A bungee cord: you still fall in the same direction, but not to the ground.",
        lines=(
            law("g <- g / max(1, |g| / c)"),
            sum_of("100 / max(1, 100 / 1)", "|g| = 100, c = 1"),
            sum_of("0.5 / max(1, 0.5 / 1)", "|g| = 0.5: unchanged"),
        ),
        own=laws.clip,
        chart=(
            "validation accuracy, lr 0.1, 3 seeds",
            ("not clipped", "0.20 to 0.40"),
            ("clipped", "0.81 to 0.92"),
        ),
        figure="gradient_norms",
        cures=(
            Cure("clip=norm", "threshold 1", on=_HOT),
            Cure("clip=norm clip.threshold=0.5", "another", on=_HOT),
        ),
        measured=(
            Measured(
                "train -m +experiment=relu_he optimizer.lr=0.1,0.3 clip=none,norm seed=0,1,2",
                "a sound net, steps too long: validation accuracy at lr 0.1 0.20 to 0.40, clipped "
                "0.81 to 0.92; at 0.3 2 of 3 diverge, clipped 0.70 to 0.93.",
            ),
            Measured(
                "train -m +experiment=exploding clip=none,norm seed=0,1,2",
                "weights too large: 3 of 3 diverge; clipped none does, loss 793 to 3,500.",
            ),
        ),
        paper="Pascanu, Mikolov, Bengio 2013, Algorithm 1",
        also=("clipping", "gradient_clipping"),
        see=("why_clipping", "clip_value", "clip_throttles"),
        quiz=(
            Question(
                "|g| = 100, clipping by norm at 1. What does the optimizer get?",
                (
                    "the same direction, of length 1",
                    "every entry cut at plus and minus 1",
                    "no update in this step",
                ),
                "g / max(1, |g| / c).",
            ),
        ),
    ),
    Topic(
        id="clip_value",
        group="clipping",
        title="Clipping by value: each entry for itself",
        words=(
            "Each entry is cut at plus and minus c. It is simple and needs no norm, but it turns "
            "the gradient: large entries shrink and small ones do not."
        ),
        image="A hedge trimmed at one height: its shape is gone.",
        lines=(
            law("g_i <- min(max(g_i, -c), c)"),
            sum_of("min(max(10, -1), 1)", "an entry of 10, c = 1"),
            sum_of("min(max(0.1, -1), 1)", "an entry of 0.1: from 1 in 100 to 1 in 10"),
        ),
        own=laws.clip,
        chart=(
            "validation accuracy at lr 0.3, 3 seeds",
            ("none", "0.07 to 0.11"),
            ("norm", "0.70 to 0.93"),
            ("value, layer", "0.09 to 0.19"),
            ("agc", "0.10 to 0.51"),
            ("auto", "0.10 to 0.69"),
        ),
        figure="gradient_norms",
        cures=(Cure("clip=value clip.threshold=1", "each entry", on=_HOT),),
        measured=(_KINDS,),
        see=("clip_norm",),
    ),
    Topic(
        id="clip_layer",
        group="clipping",
        title="Clipping by layer: each tensor by its own norm",
        words=(
            "One layer that explodes does not shrink the step of all others. The direction of the "
            "whole gradient changes, that of each layer does not."
        ),
        image="A fuse in every room in place of one for the house.",
        lines=(
            law("g_l <- g_l / max(1, |g_l| / c)"),
            sum_of("sqrt(31)", "longest gradient, 31 tensors, c = 1"),
        ),
        own=laws.clip,
        chart=(
            "validation accuracy at lr 0.3, 3 seeds",
            ("none", "0.07 to 0.11"),
            ("norm", "0.70 to 0.93"),
            ("value, layer", "0.09 to 0.19"),
            ("agc", "0.10 to 0.51"),
            ("auto", "0.10 to 0.69"),
        ),
        figure="gradient_map",
        cures=(Cure("clip=layer clip.threshold=1", "each tensor", on=_HOT),),
        measured=(_KINDS,),
        see=("clip_norm", "agc"),
    ),
    Topic(
        id="agc",
        group="clipping",
        title="Adaptive clipping: the gradient against its weight",
        words=(
            "A step should be a small share of the weight that it changes. Each row is scaled to "
            "at most lambda times the norm of its weights. The threshold has no unit, so that it "
            "fits layers of any size."
        ),
        image="A speed limit by the width of the road.",
        lines=(
            law("g_i <- g_i min(1, lambda |w_i| / |g_i|)"),
            sum_of("0.01 * 1.4", "longest row gradient at lambda = 0.01, |w| = 1.4"),
        ),
        own=lambda own: laws.clip(own) + laws.update(own),
        chart=(
            "validation accuracy at lr 0.3, 3 seeds",
            ("none", "0.07 to 0.11"),
            ("norm", "0.70 to 0.93"),
            ("value, layer", "0.09 to 0.19"),
            ("agc", "0.10 to 0.51"),
            ("auto", "0.10 to 0.69"),
        ),
        figure="update_ratios",
        cures=(Cure("clip=agc clip.threshold=0.01", "lambda", on=_HOT),),
        measured=(_KINDS,),
        paper="Brock, De, Smith, Simonyan 2021",
        see=("clip_norm", "update_ratio"),
    ),
    Topic(
        id="clip_auto",
        group="clipping",
        title="Automatic clipping: a percentile of the norms seen",
        words=(
            "The threshold is the p-th percentile of the norms so far. It follows the gradient "
            "as training goes on and needs no guess in absolute numbers. At p = 10 it clips "
            "nearly always, at 90 it clips what is unusual."
        ),
        image="A bungee cord that is cut to the height of each bridge.",
        lines=(law("c_t = percentile_p(|g_1|, ..., |g_t|)"),),
        own=laws.clip,
        chart=(
            "validation accuracy at lr 0.3, 3 seeds",
            ("none", "0.07 to 0.11"),
            ("norm", "0.70 to 0.93"),
            ("value, layer", "0.09 to 0.19"),
            ("agc", "0.10 to 0.51"),
            ("auto", "0.10 to 0.69"),
        ),
        figure="gradient_norms",
        cures=(Cure("clip=auto clip.threshold=90", "the largest tenth", on=_HOT),),
        measured=(_KINDS,),
        paper="Seetharaman, Wichern, Pardo, Le Roux 2020",
        see=("clip_norm", "idle_clip"),
    ),
)
