"""Pages of cures for time, and of attention."""

from __future__ import annotations

from vgexp.explain.pages import laws
from vgexp.explain.topic import Cure, Measured, Question, Topic, law, sum_of

PAGES = (
    # ------------------------------------------------------------ time and attention
    Topic(
        id="lstm",
        group="time and attention",
        title="LSTM: a cell that is added to",
        words=(
            "c_t = f c_{t-1} + i g: the cell is multiplied by the forget gate alone, and by no "
            "matrix. Where f is near 1 the gradient goes back unchanged. Its bias decides where f "
            "begins; a gate can learn to stay open."
        ),
        image="A conveyor belt: what is put on it travels on until it is taken off.",
        lines=(
            law("dc_t/dc_{t-1} = f_t"),
            sum_of("(1 / (1 + exp(0)))^100", "bias 0: f = 0.5, 100 steps"),
            sum_of("(1 / (1 + exp(-3)))^100", "bias 3: f = 0.95"),
        ),
        own=laws.through_time,
        chart=(
            "training loss over 50 steps, guessing 0.16",
            ("rnn", "0.060"),
            ("lstm", "0.0012"),
            ("gru", "0.0004"),
            ("transformer", "0.0006"),
        ),
        figure="through_time",
        cures=(
            Cure("model=lstm data=adding", "in place of rnn"),
            Cure("model=lstm data=adding model.forget_bias=3", "an open gate at the start"),
        ),
        measured=(
            Measured(
                "train -m model=rnn,lstm,gru,transformer data=adding data.seq_len=50 "
                "optimizer=adam optimizer.lr=0.003 clip=norm train.steps=1000 train.eval_every=0 "
                "model.depth=1",
                "loss 0.060, 0.0012, 0.0004, 0.0006 (guessing 0.16).",
            ),
            Measured(
                "signal -m model=lstm data=adding data.seq_len=100 model.forget_bias=0.0,1.0,3.0",
                "a step back leaves 0.73, 0.92, 1.01.",
            ),
        ),
        paper="Hochreiter, Schmidhuber 1997; Gers et al. 2000; Jozefowicz et al. 2015",
        also=("forget_bias", "gates"),
        see=("gru", "recurrence_vanishing", "attention"),
        quiz=(
            Question(
                "Why begin an LSTM's forget gate with a positive bias?",
                (
                    "the gate is open at the start, and the gradient survives many steps",
                    "to make it forget faster",
                    "to bound the output",
                ),
                "Over 100 steps: bias 0 leaves 2e-13, bias 1 2e-4, bias 3 0.5 (measured).",
            ),
        ),
    ),
    Topic(
        id="gru",
        group="time and attention",
        title="GRU: one gate mixes old and new",
        words=(
            "h_t = (1 - u) n + u h_{t-1}: the update gate u is the share that is carried on. Two "
            "gates in place of three, and no cell of its own."
        ),
        image="A conveyor belt with one lever.",
        lines=(law("h_t = (1 - u) n_t + u h_{t-1}"), sum_of("0.74^98", "at the start, 98 steps")),
        own=laws.through_time,
        chart=(
            "share of the signal a step back",
            ("start, rnn", "0.88"),
            ("start, gru", "0.74"),
            ("end, rnn", "0.98"),
            ("end, gru", "0.99"),
        ),
        figure="through_time",
        cures=(Cure("model=gru data=adding", "in place of rnn"),),
        measured=(
            Measured(
                "train -m model=rnn,gru data=adding data.seq_len=50 optimizer=adam "
                "optimizer.lr=0.003 clip=norm train.steps=1000 train.eval_every=0 model.depth=1",
                "loss 0.060 and 0.0004. A step back leaves 0.88 and 0.74 at the start, 0.98 and "
                "0.99 at the end: the gates learn it.",
            ),
        ),
        paper="Cho et al. 2014",
        see=("lstm",),
    ),
    Topic(
        id="truncation",
        group="time and attention",
        title="Truncated backpropagation through time",
        words=(
            "Gradients flow back through k steps only. That bounds memory and explosions. What "
            "lies further back cannot be learned from."
        ),
        image="A detective who reads only yesterday's paper.",
        lines=(law("dh_{t-k}/dL = 0"), sum_of("1.1^10", "at 1.1 a step: 10 steps in place of 100")),
        own=laws.through_time,
        figure="through_time",
        cures=(Cure("model=rnn data=adding model.truncation=10", "10 steps back"),),
        measured=(
            Measured(
                "train -m model=rnn data=adding data.seq_len=100 optimizer=adam clip=norm "
                "train.steps=500 train.eval_every=0 model.truncation=null,10",
                "loss 0.16 with both, which is guessing: neither net learns to look that far.",
            ),
        ),
        paper="Williams, Peng 1990",
        see=("recurrence_exploding",),
    ),
    Topic(
        id="attention",
        group="time and attention",
        title="Attention: every position one step from every other",
        words=(
            "A recurrent net needs 100 multiplications to reach 100 steps back. Attention reads "
            "all positions at once: the gradient passes one layer. The price is n^2 products for "
            "n positions."
        ),
        image="A round table in place of the telephone game.",
        lines=(
            law("softmax(Q K^T / sqrt(d)) V"),
            sum_of("0.9^100", "recurrent, 100 steps at 0.9"),
            sum_of("100^2", "products that attention makes for it"),
        ),
        own=laws.backward,
        chart=(
            "training loss over 50 steps, guessing 0.16",
            ("rnn", "0.060"),
            ("transformer", "0.0006"),
        ),
        figure="attention_entropy",
        cures=(Cure("model=transformer data=adding", "in place of rnn"),),
        measured=(
            Measured(
                "train -m model=rnn,transformer data=adding data.seq_len=50 optimizer=adam "
                "optimizer.lr=0.003 clip=norm train.steps=1000 train.eval_every=0 model.depth=1",
                "loss 0.060 and 0.0006 (guessing 0.16).",
            ),
        ),
        paper="Bahdanau, Cho, Bengio 2015; Vaswani et al. 2017, Eq. 1",
        also=("transformer",),
        see=("attention_scaling", "pre_norm", "transformers"),
    ),
    Topic(
        id="attention_scaling",
        group="time and attention",
        title="Why scores are divided by sqrt(d)",
        words=(
            "A product of two random vectors of d numbers has deviation sqrt(d). Without the "
            "division softmax gets numbers like 8 or 20, puts all weight on one position, and "
            "its slope p (1 - p) is next to 0: saturation again."
        ),
        image="A vote in which one shouts so loud that no other is counted.",
        lines=(
            law("Var(q . k) = d;  Var(q . k / sqrt(d)) = 1"),
            sum_of("sqrt(64)", "deviation of a score, d = 64"),
            sum_of("1 / (1 + exp(8))", "p of the smaller of two, 8 apart"),
            sum_of("exp(8) / (1 + exp(8))^2", "slope p (1 - p) there"),
            sum_of("exp(1) / (1 + exp(1))^2", "slope at 1 apart"),
        ),
        chart=("slope of softmax, d = 64", ("q . k", "0.000335"), ("q . k / sqrt(d)", "0.197")),
        figure="attention_entropy",
        cures=(Cure("model=transformer data=adding model.heads=4", "scaled in vgexp always"),),
        paper="Vaswani et al. 2017, section 3.2.1, footnote 4",
        see=("attention", "saturated_units"),
        quiz=(
            Question(
                "Why does attention divide scores by sqrt(d)?",
                (
                    "so that softmax does not saturate",
                    "to save multiplications",
                    "to make weights sum to 1",
                ),
                "Scores have deviation sqrt(d); at 8 apart softmax's slope is 3e-4.",
            ),
        ),
    ),
    Topic(
        id="pre_norm",
        group="time and attention",
        title="Pre-norm: x + f(norm(x))",
        words=(
            "With the norm in the branch the stream itself is a clean identity path from the loss "
            "to the first block. Post-norm puts a norm on that path in every block. Pre-norm nets "
            "train without warm-up."
        ),
        image="Repairs in the side street, so that the main road stays open.",
        lines=(
            law("pre: x + f(norm(x));  post: norm(x + f(x))"),
            sum_of("sqrt(12)", "pre-norm: the stream grows like this over 12 blocks"),
        ),
        own=laws.stream,
        chart=(
            "validation accuracy, 12 blocks",
            ("post-norm", "0.10"),
            ("pre-norm", "0.87 to 0.96"),
        ),
        figure="backward_signal",
        plot=True,
        cures=(Cure("model.norm_position=pre", "in front", on="+experiment=post_ln_deep"),),
        measured=(
            Measured(
                "train -m +experiment=post_ln_deep model.norm_position=post,pre seed=0,1,2",
                "loss 2.32 to 2.33 and 0.03 to 0.09; validation accuracy 0.10 and 0.87 to 0.96.",
            ),
        ),
        paper="Xiong et al. 2020",
        also=("pre_ln", "post_norm"),
        see=("no_warmup", "warmup", "transformers"),
    ),
)
