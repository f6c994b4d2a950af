"""A small configuration of each family."""

from __future__ import annotations

from trainers import BASE, changed

from vgexp.config import (
    AddingConfig,
    CnnConfig,
    Config,
    CopyConfig,
    DensenetConfig,
    DigitsConfig,
    LstmConfig,
    ResnetConfig,
    TransformerConfig,
)

DIGITS = DigitsConfig(batch_size=8)

MODELS: dict[str, Config] = {
    "tanh": BASE,
    "sigmoid": changed(BASE, model={"activation": "sigmoid"}, dtype="float32"),
    "relu, residual, batch": changed(
        BASE, model={"activation": "relu", "skip": "residual", "norm": "batch"}
    ),
    "gelu, post": changed(
        BASE, model={"activation": "gelu", "norm": "layer", "norm_position": "post"}
    ),
    "dense": changed(BASE, model={"activation": "prelu", "skip": "dense"}),
    "recomputed": changed(BASE, train={"checkpoint_activations": True}),
    "half": changed(BASE, dtype="bfloat16"),
    "cnn": changed(BASE, model=CnnConfig(depth=3, width=4), data=DIGITS),
    "resnet": changed(BASE, model=ResnetConfig(depth=8, width=4), data=DIGITS),
    "densenet": changed(BASE, model=DensenetConfig(depth=7), data=DIGITS),
    "transformer": changed(
        BASE,
        model=TransformerConfig(depth=2, width=8, heads=2),
        data=CopyConfig(num_examples=40, batch_size=4),
    ),
    "lstm": changed(
        BASE,
        model=LstmConfig(depth=2, width=6),
        data=AddingConfig(num_examples=40, batch_size=4, seq_len=7),
    ),
}
