"""What is typed, before Hydra reads it: what it would pass over is refused."""

from __future__ import annotations

import pytest

from vgexp.cli import overrides
from vgexp.errors import QuestionError


@pytest.mark.parametrize(
    ("words", "is_sweep", "said"),
    [
        (
            ["hydra.run.dir=a/b"],
            True,
            "hydra.run.dir is not where a sweep goes\nallowed: hydra.sweep.dir=a/b",
        ),
        (
            ["seed=3", "hydra.sweep.dir='a b'"],
            False,
            "hydra.sweep.dir is not where a single run goes\nallowed: hydra.run.dir='a b'",
        ),
        (["model=5"], False, "unknown model: '5'\nallowed: "),
        (["+model=true"], True, "unknown model: 'true'"),
        (["optimizer=null"], False, "unknown optimizer: 'null'\nallowed: adam"),
        (["optimizer=[adam,sgd]"], False, "optimizer is several choices at once: [adam,sgd]"),
        (["experiment=5"], False, "experiment is 5\nallowed: a name: vgexp list experiments"),
    ],
)
def test_what_hydra_would_pass_over_or_name_in_its_own_words_is_refused(
    words: list[str], is_sweep: bool, said: str
) -> None:
    with pytest.raises(QuestionError) as caught:
        overrides.require_possible(words, is_sweep=is_sweep)
    assert said in str(caught.value)


@pytest.mark.parametrize("is_sweep", [False, True])
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["hydra.run.dir=a", "hydra.sweep.dir=b"],
        ["model=mlp", "clip='norm'", "~scheduler", "optimizer=[adam]"],
        ["optimizer=adam,sgd", "model=choice(mlp)"],
        ["experiment=[sigmoid_deep,lsuv]"],
        ["hydra/launcher=basic", "model.depth=3"],
        ["model=[mlp"],
    ],
)
def test_what_can_be_is_left_to_hydra(words: list[str], is_sweep: bool) -> None:
    overrides.require_possible(words, is_sweep=is_sweep)


def test_each_kind_of_command_keeps_its_own_folder() -> None:
    overrides.require_possible(["hydra.run.dir=a"], is_sweep=False)
    overrides.require_possible(["hydra.sweep.dir=a"], is_sweep=True)
