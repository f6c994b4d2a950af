"""Pages of causes that lie in code or data: wiring, loss, data."""

from __future__ import annotations

from vgexp.explain.causes import cause
from vgexp.explain.pages import laws
from vgexp.explain.topic import Cure, Question, law, sum_of

_LOGITS = "return logits  # without nn.Softmax"
_JOINED = "h = encoder(x)  # not encoder(x).detach(); of sign: x + (x.sign() - x).detach()"
_ROOT = "(square + 1e-6).sqrt()  # torch.autograd.set_detect_anomaly(True) names the operation"

PAGES = (
    # ------------------------------------------------------------ wiring
    cause(
        "no_update",
        words=(
            "A weight changes only when the optimizer makes a step with a learning rate above 0. "
            "Without it the loss moves from batch to batch, because batches differ, but it does "
            "not fall.\n\nCheck it first: it takes one line. Compare the weights before and after "
            "a step."
        ),
        image="A rowing boat that is still tied to the pier.",
        lines=(
            law("W_{t+1} = W_t - lr g_t"),
            sum_of("0 * 0.7 / 8", "lr |g| / |W| at lr 0: no weight moves"),
        ),
        own=lambda own: laws.wiring(own) + laws.rate(own),
        figure="update_ratios",
        cures=(
            Cure(
                "optimizer.lr=0.01",
                "a rate above 0",
                code="optimizer.step()   # after loss.backward()",
            ),
        ),
        quiz=(
            Question(
                "Gradients are finite and not 0, but no weight changes. What do you check first?",
                (
                    "that optimizer.step() runs, with a rate above 0",
                    "the initialisation",
                    "the depth",
                ),
                "A gradient alone changes nothing: the optimizer's step does.",
            ),
        ),
        see=("not_in_optimizer", "update_ratio"),
    ),
    cause(
        "not_in_optimizer",
        words=(
            "The optimizer changes the parameters that it was given, and no others. Layers that "
            "were added or replaced after the optimizer was made get gradients and never move.\n\n"
            "The layers that the optimizer holds still learn, so the loss may fall a little."
        ),
        image="A post office that delivers to last year's addresses.",
        lines=(law("W in optimizer: W - lr g;   W not in it: W"),),
        own=laws.wiring,
        figure="update_ratios",
        cures=(
            Cure(
                "",
                "make the optimizer when the model is complete",
                code="optimizer = torch.optim.Adam(model.parameters())",
            ),
        ),
        see=("not_registered", "no_update"),
    ),
    cause(
        "not_registered",
        words=(
            "PyTorch finds a module's parameters by its attributes. A plain Python list or dict "
            "of layers hides them: model.parameters() leaves them out, .to(device) does not move "
            "them, and the optimizer never gets them. The forward pass runs all the same."
        ),
        image="Players who run on the field but are on no team list.",
        lines=(law("sum(p.numel() for p in model.parameters())", "is too small"),),
        own=laws.wiring,
        cures=(
            Cure(
                "",
                "a list that PyTorch knows",
                code="self.hidden = nn.ModuleList(layers)",
            ),
        ),
        see=("not_in_optimizer",),
    ),
    cause(
        "frozen",
        words=(
            "A parameter with requires_grad=False gets no gradient and stays as it is. That is "
            "meant in fine-tuning, where only the head learns. It is a fault where the frozen "
            "part still has its random start: the head then learns from random features."
        ),
        image="A choir in which the front rows are told to keep silent.",
        lines=(law("requires_grad = False:  dL/dW is not computed"),),
        own=laws.wiring,
        figure="update_ratios",
        cures=(Cure("", "let it learn", code="model.requires_grad_(True)"),),
        see=("graph_cut",),
    ),
    cause(
        "graph_cut",
        words=(
            "Backpropagation follows the record of operations from the loss to the weights. "
            ".detach(), torch.no_grad() and .item() end that record. sign, round and argmax keep "
            "it, but their derivative is 0 nearly everywhere.\n\nAll layers in front of the cut "
            "get no gradient or zeros; those behind it learn."
        ),
        image="A bridge is out: no message reaches the villages behind it.",
        lines=(
            law("d sign(z)/dz = 0,  d round(z)/dz = 0", "nearly everywhere"),
            sum_of("0 * 0.3", "whatever comes back, 0 is passed on"),
        ),
        own=laws.wiring,
        figure="gradient_map",
        cures=(
            Cure(
                "",
                "no detach on the way; for sign or round a straight-through estimator",
                code=_JOINED,
            ),
        ),
        paper="Bengio, Léonard, Courville 2013 (straight-through estimator)",
        see=("frozen", "saturating_activation"),
        quiz=(
            Question(
                "Layers 1 to 5 have a gradient of exactly 0, layers 6 to 10 a normal one. What is "
                "likely?",
                (
                    "the graph is cut, or all units of a layer are dead, between 5 and 6",
                    "the learning rate is too small",
                    "the sigmoid's slope is below 1",
                ),
                "Slopes below 1 fade gradually. A jump to exactly 0 is a cut or a dead layer.",
            ),
        ),
    ),
    cause(
        "gradient_cleared",
        words=(
            "optimizer.zero_grad() belongs before loss.backward(). Between backward() and step() "
            "it throws away what was just computed, so the optimizer steps with nothing."
        ),
        image="A letter that is shredded before it is read.",
        lines=(law("zero_grad -> backward -> step", "not: backward -> zero_grad -> step"),),
        own=laws.wiring,
        cures=(
            Cure(
                "",
                "the right order",
                code="optimizer.zero_grad(); loss.backward(); optimizer.step()",
            ),
        ),
        see=("no_update", "gradient_kept"),
    ),
    cause(
        "gradient_kept",
        words=(
            "loss.backward() adds to .grad. Without zero_grad() every update is made with the sum "
            "of all gradients so far. That acts like momentum without a brake: steps grow with "
            "the number of updates."
        ),
        image="A shopping bill on which every earlier purchase is charged again.",
        lines=(
            law("g_t = dL_1/dW + ... + dL_t/dW"),
            sum_of("100 * 0.1", "after 100 like gradients rate 0.1 acts like this"),
        ),
        own=laws.wiring,
        figure="gradient_norms",
        cures=(
            Cure(
                "",
                "clear them; to add on purpose use train.accumulate",
                code="optimizer.zero_grad()",
            ),
            Cure("train.accumulate=4", "adds four batches on purpose, then clears"),
        ),
        see=("accumulation", "momentum"),
    ),
    # ------------------------------------------------------------ loss
    cause(
        "double_softmax",
        words=(
            "nn.CrossEntropyLoss applies log-softmax by itself. A softmax in the model before it "
            "squeezes the outputs into 0 to 1, so that the second softmax can never be sure: with "
            "10 classes it stops at a probability of 0.23, and the loss at 1.46. Gradients get "
            "small, because they pass the slope of a softmax once more."
        ),
        image="A whisper is recorded through two closed doors.",
        lines=(
            law("softmax(softmax(z))"),
            sum_of("exp(1) / (exp(1) + 9)", "the surest that it can be, of 10 classes"),
            sum_of("-ln(exp(1) / (exp(1) + 9))", "so the loss cannot fall below this"),
        ),
        own=lambda own: laws.readout(own) + laws.learning(own),
        figure="learning_curves",
        cures=(Cure("", "give the loss logits", code=_LOGITS),),
        see=("saturated_loss", "logits"),
        quiz=(
            Question(
                "A ten-class net with a softmax and CrossEntropyLoss stops at a loss of 1.46. Why?",
                (
                    "softmax is applied twice, and 1.46 is then the lowest loss",
                    "the learning rate is too large",
                    "ten classes need a wider net",
                ),
                "-ln(e / (e + 9)) = 1.46: the second softmax sees inputs from 0 to 1 only.",
            ),
        ),
    ),
    cause(
        "target_shape",
        words=(
            "Output [N, 1] minus target [N] is not N differences but N times N: each output is "
            "compared with every target. The best answer to that is the mean of the targets, "
            "which the net soon gives, and there it stays."
        ),
        image="Everybody in a class is marked against everybody else's solutions.",
        lines=(
            law("[N, 1] - [N] -> [N, N]"),
            sum_of("64 * 64", "differences instead of 64"),
        ),
        own=laws.learning,
        figure="learning_curves",
        cures=(Cure("", "equal shapes", code="loss_fn(output.squeeze(1), target)"),),
        see=("double_softmax",),
    ),
    cause(
        "output_range",
        words=(
            "A sigmoid gives 0 to 1, a tanh -1 to 1, a ReLU nothing below 0. Targets outside "
            "cannot be reached. The net drives the last layer to the end of its range, where its "
            "slope is 0, and stops."
        ),
        image="A scale that ends at 100 kg, and a person of 120 kg.",
        lines=(
            law("|y - target| >= distance from target to the range"),
            sum_of("(5 - 1)^2", "squared error left, target 5 behind a tanh"),
        ),
        own=laws.learning,
        cures=(
            Cure(
                "",
                "no activation on the last layer",
                code="return self.readout(h)  # without an activation",
            ),
        ),
        see=("saturated_loss", "saturated_units"),
    ),
    cause(
        "nan_from_loss",
        words=(
            "The outputs are finite and the loss is not: log(0), a division by 0, exp of a large "
            "number. One such value makes every weight nan at the next step."
        ),
        image="One drop of ink in a tank: after one stir no water is clear.",
        lines=(
            law("ln(0) = -inf,  0 * ln(0) = nan"),
            sum_of("-ln(10^-8)", "the loss of a probability of 1e-8 with eps 1e-8"),
        ),
        own=laws.largest,
        figure="learning_curves",
        cures=(
            Cure(
                "",
                "a loss that works on logits, or an eps inside the logarithm",
                code="torch.log(p.clamp_min(1e-7)), or a loss that takes logits",
            ),
        ),
        also=("nan",),
        see=("nan_in_backward", "overflow"),
    ),
    cause(
        "nan_in_backward",
        words=(
            "The loss is finite and its gradient is not. The slope of sqrt at 0 is infinite, and "
            "infinity times 0 is nan. torch.where does not help when the branch that was not "
            "taken divides by 0: its gradient is nan, and nan times 0 is nan."
        ),
        image="The way up a ladder holds; the way down misses a rung.",
        lines=(
            law("d sqrt(x)/dx = 1 / (2 sqrt(x))", "infinite at 0"),
            sum_of("1 / (2 * sqrt(10^-12))", "with eps = 1e-12 it is large and finite"),
        ),
        own=laws.largest,
        figure="gradient_norms",
        cures=(Cure("", "an eps inside the root; clamp before, not after", code=_ROOT),),
        see=("nan_from_loss",),
    ),
    cause(
        "saturated_loss",
        words=(
            "The last sigmoid or softmax is so sure that its slope is 0 in float32, and the loss "
            "does not undo it. If it is sure of the wrong answer, nothing is sent back and "
            "nothing can be corrected. The generator of a GAN meets it when its discriminator is "
            "sure."
        ),
        image="A judge who has made up his mind and hears no witness.",
        lines=(
            law("phi' = p (1 - p)"),
            sum_of("0.5 * (1 - 0.5)", "an open mind"),
            sum_of("1 / (1 + exp(20)) * (1 - 1 / (1 + exp(20)))", "at z = -20"),
        ),
        own=laws.readout,
        cures=(
            Cure(
                "",
                "logits and a loss that undoes the sigmoid",
                code="nn.BCEWithLogitsLoss()(logits, y)  # instead of nn.Sigmoid and nn.BCELoss",
            ),
        ),
        paper="Goodfellow et al. 2014, section 3 (the generator's loss)",
        see=("double_softmax", "saturated_units"),
    ),
    # ------------------------------------------------------------ data
    cause(
        "inputs_unscaled",
        words=(
            "dL/dW is delta times the input. Inputs of size 100 make the first layer's z and its "
            "gradient 100 times larger than the initialisation reckons with. Sigmoid and tanh "
            "units saturate at once, ReLU nets take steps that are too long."
        ),
        image="A microphone set for whispers, and somebody shouts into it.",
        lines=(
            law("dL/dW_1 = delta_1 x^T"),
            sum_of("tanh(1)", "h where z = 1"),
            sum_of("1 - tanh(30)^2", "slope where z = 30: in float32 exactly 0"),
        ),
        own=lambda own: laws.inputs(own) + laws.saturated(own),
        figure="forward_signal",
        cures=(
            Cure(
                "",
                "mean 0 and deviation 1, of the training split",
                code="x = (x - x_train.mean(0)) / x_train.std(0)",
            ),
            Cure("model.norm=batch", "scales z in every layer, the first too"),
        ),
        paper="LeCun, Bottou, Orr, Müller 1998 (Efficient BackProp), section 4.3",
        see=("weights_large", "saturated_units"),
    ),
    cause(
        "inputs_not_finite",
        words=(
            "A nan in one input makes the outputs, the loss and every gradient nan, and after one "
            "step all weights. Missing values in a table, a division by a deviation of 0 in "
            "standardising, and broken files are the usual sources."
        ),
        image="One torn page, and the copying machine jams for all.",
        lines=(
            law("nan * w + b = nan"),
            law("(x - mean) / 0", "a constant feature, standardised"),
        ),
        own=laws.largest,
        cures=(Cure("", "look before training", code="assert torch.isfinite(x).all()"),),
        see=("nan_from_loss",),
    ),
    cause(
        "labels_unlearnable",
        words=(
            "Where labels do not depend on inputs (shuffled, or joined to the wrong rows), the "
            "best that a net can do on new data is guessing. A large net learns the training "
            "labels by heart all the same; then the training loss falls and the validation loss "
            "rises above guessing."
        ),
        image="Learning the answers of a lottery.",
        lines=(
            law("best validation loss = ln K", "K equally frequent classes"),
            sum_of("ln(10)", "10 classes"),
        ),
        own=laws.splits,
        figure="learning_curves",
        cures=(Cure("", "look at ten examples with their labels", code="print(x[0], y[0])"),),
        paper="Zhang, Bengio, Hardt, Recht, Vinyals 2017 (random labels are fitted)",
        see=("overfitting", "flat_landscape"),
    ),
)
