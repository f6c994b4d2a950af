"""Pages of causes that lie in units which died or saturated."""

from __future__ import annotations

from vgexp.explain.causes import cause
from vgexp.explain.pages import laws
from vgexp.explain.topic import Cure, Measured, Question, law, sum_of

PAGES = (
    # ------------------------------------------------------------ units
    cause(
        "dead_units",
        words=(
            "A ReLU unit that is below 0 on every example has slope 0: no gradient, no way back. "
            "One step that is too long can push the biases of a whole layer below 0. As a cause "
            "it counts only where nothing before explains it; mostly the step is to blame."
        ),
        image="Dams: a unit that is shut lets nothing through, up or down.",
        lines=(
            law("phi'(z) = 0 for z < 0"),
            sum_of("0.5^10", "ten layers at 50 % dead, on a single path"),
        ),
        own=lambda own: laws.dead(own) + laws.rate(own),
        chart=("validation accuracy", ("lr 0.1", "0.07 to 0.11"), ("lr 0.001", "0.94 to 0.96")),
        figure="shares",
        cures=(
            Cure(
                "model.activation=leaky_relu",
                "a slope below 0, where the step is not too long",
                on="+experiment=dying_relu optimizer.lr=0.001",
            ),
            Cure("optimizer.lr=0.001", "a shorter step", on="+experiment=dying_relu"),
            Cure("scheduler=warmup_cosine optimizer.lr=0.003", "short first steps"),
        ),
        measured=(
            Measured(
                "train -m +experiment=dying_relu optimizer.lr=0.1,0.001 seed=0,1,2",
                "lr 0.1: loss 2.31, validation accuracy 0.07 to 0.11; lr 0.001: 0.002 to 0.005, "
                "0.94 to 0.96.",
            ),
            Measured(
                "train -m +experiment=dying_relu model.activation=leaky_relu,gelu seed=0,1,2",
                "at lr 0.1 no activation helps: leaky_relu ends at a loss of 158 and more, gelu "
                "at 2.30 to 2.31. The step is the cause.",
            ),
        ),
        paper="Maas, Hannun, Ng 2013; Lu et al. 2019",
        also=("dying_relu", "dead_relu"),
        see=("rate_too_large", "leaky_relu", "dead_at_start"),
        quiz=(
            Question(
                "dying_relu (Adam at lr 0.1) is given leaky_relu instead. What happens?",
                (
                    "its weights run away: the step is the cause",
                    "it learns to 0.95",
                    "it stays bit for bit the same",
                ),
                "Measured: loss 158 and more. Dead units were the consequence.",
            ),
        ),
    ),
    cause(
        "saturated_units",
        words=(
            "A sigmoid near 0 or 1, a tanh near -1 or 1, has a slope near 0. Such a unit passes "
            "nothing back and hardly changes. Weights that are too large, inputs that are not "
            "scaled, and steps that are too long drive units there."
        ),
        image="A door that is already pushed against the wall.",
        lines=(
            law("sigmoid' = s (1 - s),  tanh' = 1 - tanh^2"),
            sum_of("0.99 * (1 - 0.99)", "a sigmoid at 0.99"),
            sum_of("1 - tanh(3)^2", "a tanh at z = 3"),
        ),
        own=lambda own: laws.saturated(own) + laws.backward(own),
        chart=("saturated share, mean over layers", ("step 0", "0.39"), ("step 20", "0.82")),
        figure="shares",
        cures=(
            Cure(
                "model.activation=relu model.init=he_normal",
                "has no flat end above 0",
                on="+experiment=large_init model.gain=1",
            ),
            Cure("model.gain=1", "weights of the init's own scale", on="+experiment=large_init"),
            Cure("model.norm=layer", "keeps z near 1", on="+experiment=large_init"),
        ),
        measured=(
            Measured(
                "train +experiment=large_init",
                "saturated share, mean over layers: 0.39 at step 0, 0.82 at step 20, one layer at "
                "1; gradient of layer 1: 4e6 at step 0, exactly 0 at step 20.",
            ),
        ),
        paper="Glorot, Bengio 2010, section 3",
        also=("saturation",),
        see=("weights_large", "inputs_unscaled", "saturating_activation"),
    ),
)
