"""Summary metrics of training: the network, its losses and accuracies, and the process."""

from __future__ import annotations

from functools import partial

from vgexp.quantities.quantity import amount, count, share, text
from vgexp.quantities.reading import Reading

_AVERAGED = "mean over the {} 20 updates (over all where there are fewer)"

_NETWORK = (
    count("num_layers", "hidden weight layers of the main path"),
    count("depth_trained", "num_layers of a healthy net, which learned and still knows it, else 0"),
    amount(
        "fitted_variance_min",
        "model.init=lsuv: smallest variance of a weight's output on the batch that it was fitted "
        "to, the first data.batch_size examples of the training split",
    ),
    amount("fitted_variance_max", "the largest on that batch"),
    count("num_parameters", "trainable numbers in the model"),
)

_training_loss = partial(Reading, "steps", "loss")
_training_accuracy = partial(Reading, "steps", "accuracy")
_loss_of = partial(Reading, "evals", "loss")
_accuracy_of = partial(Reading, "evals", "accuracy")

_LEARNING = (
    count("steps", "updates done"),
    amount("constant_loss", "the best loss of a prediction that ignores the input"),
    amount(
        "loss_first",
        "training loss of the first update",
        null_is_infinite=True,
        reading=_training_loss("first"),
    ),
    amount(
        "loss_last",
        "training loss of the last update",
        null_is_infinite=True,
        reading=_training_loss("last"),
    ),
    amount(
        "loss_best", "lowest finite training loss of an update", reading=_training_loss("lowest")
    ),
    amount(
        "loss_first_mean_20",
        f"training loss, {_AVERAGED.format('first')}",
        null_is_infinite=True,
        reading=_training_loss("first", of_means=True),
    ),
    amount(
        "loss_last_mean_20",
        f"training loss, {_AVERAGED.format('last')}",
        null_is_infinite=True,
        reading=_training_loss("last", of_means=True),
    ),
    amount(
        "loss_best_mean_20",
        "lowest training loss, mean over 20 updates in a row",
        reading=_training_loss("lowest", of_means=True),
    ),
    share(
        "accuracy_first",
        "training accuracy (share) of the first update",
        reading=_training_accuracy("first"),
    ),
    share(
        "accuracy_last",
        "training accuracy (share) of the last update",
        reading=_training_accuracy("last"),
    ),
    share(
        "accuracy_best",
        "highest training accuracy (share) of an update",
        reading=_training_accuracy("highest"),
    ),
    share(
        "accuracy_first_mean_20",
        f"training accuracy, {_AVERAGED.format('first')}",
        reading=_training_accuracy("first", of_means=True),
    ),
    share(
        "accuracy_last_mean_20",
        f"training accuracy, {_AVERAGED.format('last')}",
        reading=_training_accuracy("last", of_means=True),
    ),
    share(
        "accuracy_best_mean_20",
        "highest training accuracy, mean over 20 updates in a row",
        reading=_training_accuracy("highest", of_means=True),
    ),
    count(
        "relapse_step",
        "of a net that learned and lost it: the last of the last 20 updates whose mean training "
        "loss was below 0.9 of constant_loss",
    ),
    share(
        "clip_fraction",
        "share of updates in which clipping changed an entry",
        silent_at_zero=True,
        reading=Reading("steps", "clipped", "mean"),
    ),
    amount(
        "val_loss_last",
        "validation loss at the last evaluation",
        reading=_loss_of("last", split="val"),
    ),
    amount(
        "val_loss_best",
        "lowest finite validation loss",
        reading=_loss_of("lowest", split="val"),
    ),
    amount("test_loss", "test loss at the end", reading=_loss_of("last", split="test")),
    share(
        "val_accuracy_last",
        "validation accuracy (share) at the last evaluation",
        reading=_accuracy_of("last", split="val"),
    ),
    share(
        "val_accuracy_best",
        "highest validation accuracy (share)",
        reading=_accuracy_of("highest", split="val"),
    ),
    share(
        "test_accuracy",
        "test accuracy (share) at the end",
        reading=_accuracy_of("last", split="test"),
    ),
)

_PROCESS = (
    amount("seconds", "wall-clock time from the first update to the end", unit="seconds"),
    amount(
        "processor_seconds_per_step",
        "median processor time of the steps without a measurement; waiting for other processes or"
        " for a GPU is no part of it",
        unit="seconds",
    ),
    amount(
        "probe_overhead", "extra time that measuring took, as a share of the run's time without it"
    ),
    text("dtype", "of the network; in half precision of its forward pass alone"),
    text("device", "where it was trained: cpu, cuda:0"),
    count("seed", "of init, data order, dropout and generated data"),
    text("config_hash", "equal for runs whose tables must be equal"),
    text("host", "the machine's name"),
    count("process", "the process's number"),
)

TRAINING_METRICS = (*_NETWORK, *_LEARNING, *_PROCESS)
