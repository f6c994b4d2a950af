"""The forms of examples and answers.

Holds: tasks.py
"""

from __future__ import annotations

import pytest

from vgexp.assembly import assemble
from vgexp.config import Config, MlpConfig
from vgexp.errors import QuestionError
from vgexp.tasks import Task, require_kind


def test_a_flattened_image_is_a_vector_of_its_values() -> None:
    flat = Task("image", (3, 4, 5), 10).flattened()
    assert (flat.kind, flat.shape, flat.num_features, flat.num_outputs) == ("vector", (60,), 60, 10)


def test_a_model_that_cannot_read_the_data_says_which_it_can() -> None:
    task = Task("vector", (64,), 10)
    with pytest.raises(QuestionError) as caught:
        require_kind(task, "model=cnn", ("image",), "data=digits")
    assert str(caught.value) == (
        "model=cnn reads image; the data are vectors of 64\nallowed: data=digits"
    )


def test_a_perceptron_reads_the_pixels_of_an_image_in_a_row() -> None:
    trainer = assemble(Config(model=MlpConfig(depth=1, width=3)))
    inputs, _ = trainer.state.batches.next()
    assert inputs.shape == (64, 64)
