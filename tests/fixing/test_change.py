"""Changes: how overrides are filled in, composed, sized, and left out.

Holds: fixing/candidates.py, fixing/change.py
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from small_runs import CONFIG
from trainers import changed

from vgexp.config import Config, NormClipConfig, flatten
from vgexp.diagnosis import CAUSES, Diagnosis, Finding, Remedy
from vgexp.errors import QuestionError
from vgexp.fixing.candidates import GENERAL, OVERRIDES, list_general_words, list_words
from vgexp.fixing.change import Change, compose_changes, find_kept, require_keys

SETTINGS = flatten(CONFIG)


def compose(words: Sequence[str]) -> Config:
    """A stand-in for the command line's: a few keys of `CONFIG`."""
    made = CONFIG
    for word in words:
        key, _, value = word.partition("=")
        if word == "clip=norm":
            made = changed(made, clip=NormClipConfig())
        elif key in ("model.activation", "model.init", "model.skip"):
            made = changed(made, model={key.partition(".")[2]: value})
        elif key in ("model.gain", "optimizer.lr"):
            section, _, name = key.partition(".")
            made = changed(made, **{section: {name: float(value)}})
        elif key != "clip.threshold":
            raise QuestionError(f"unknown key: {key!r}\nallowed: others")
    return made


def overrides_of(changes: Sequence[Change]) -> list[str]:
    return [change.override for change in changes]


def diagnosis_of(cause: str, *findings: Finding, rivals: tuple[str, ...] = ()) -> Diagnosis:
    return Diagnosis(0, 1, None, None, "", findings, {}, "sick", cause, rivals=rivals)


def test_every_cause_of_the_table_is_one() -> None:
    assert set(OVERRIDES) <= set(CAUSES)


def test_remedies_come_first_then_the_table_then_rivals() -> None:
    findings = (
        Finding("rate_too_small", "", remedies=(Remedy("", "", "optimizer.lr=7"), Remedy("", ""))),
        Finding("clip_throttles", "", remedies=(Remedy("", "", "clip.threshold=8"),)),
        Finding("dead_units", "", remedies=(Remedy("", "", "model.activation=elu"),)),
    )
    diagnosis = diagnosis_of("rate_too_small", *findings, rivals=("clip_throttles",))
    own, table, rivals = list_words(diagnosis, {"optimizer.lr": 0.1, "clip.threshold": 0.5})
    assert own == [("optimizer.lr=7",)]
    assert table == [
        *(("optimizer.lr=0.3",), ("optimizer.lr=1",), ("optimizer.lr=10",)),
        ("scheduler=constant",),
    ]
    assert rivals[:2] == [("clip.threshold=8",), ("clip.threshold=5",)]


def test_what_multiplies_needs_a_number() -> None:
    assert ("optimizer.lr=0.01",) in list_general_words({"optimizer.lr": 0.1})
    assert not any(
        w[0].startswith("optimizer.lr=") for w in list_general_words({"optimizer.lr": 0})
    )
    assert len(list_general_words({"optimizer.lr": 0.1})) == len(GENERAL)
    (_, table, _) = list_words(diagnosis_of("dead_at_start"), {"model.width": 8})
    assert ("model.width=32",) in table  # a whole number stays one


def test_a_narrow_network_may_be_made_wider_whatever_its_cause() -> None:
    for width, is_there in ((1, True), (8, False), (None, False)):
        (_, table, _) = list_words(diagnosis_of("weights_small"), {"model.width": width})
        assert (("model.width=8",) in table) == is_there
    assert not any(list_words(diagnosis_of("graph_cut"), {"model.width": 1}))


def test_a_word_that_the_others_imply_is_not_typed() -> None:
    def compose_two(words: Sequence[str]) -> Config:
        """`model.skip=residual` brings the gain of 1 with it."""
        return compose([word for word in words if word != "model.gain=1.0"])

    (change,), _ = compose_changes(
        [["model.skip=residual", "model.gain=1.0"]],
        changed(CONFIG, model={"gain": 2.0}),
        compose_two,
    )
    assert change.words == ("model.skip=residual",)


def test_a_cause_of_the_code_is_touched_by_no_override() -> None:
    for cause in ("graph_cut", "double_softmax", "labels_unlearnable", "nan_from_loss"):
        assert not any(list_words(diagnosis_of(cause), SETTINGS))
    assert any(list_words(diagnosis_of("graph_cut", rivals=("dead_units",)), SETTINGS))


def test_the_smallest_change_comes_first() -> None:
    asked = [
        ["model.activation=relu", "model.init=xavier_normal"],
        ["clip=norm", "clip.threshold=1"],
        ["model.skip=residual"],
        ["optimizer.lr=1"],
        ["optimizer.lr=0.05"],
    ]
    changes, left_out = compose_changes(asked, CONFIG, compose)
    assert overrides_of(sorted(changes, key=lambda change: change.size)) == [
        "optimizer.lr=0.05",
        "optimizer.lr=1",
        "clip=norm",  # whose threshold is 1
        "model.skip=residual",
        "model.activation=relu model.init=xavier_normal",
    ]
    assert not left_out


def test_words_that_change_nothing_are_not_typed() -> None:
    asked = [
        ["model.activation=relu", f"model.init={CONFIG.model.init}", "model.gain=1"],  # type: ignore[attr-defined]
        ["model.activation=tanh"],
        ["model.activation=relu"],
    ]
    changes, _ = compose_changes(asked, CONFIG, compose)
    assert overrides_of(changes) == ["model.activation=relu"]


def test_what_does_not_fit_or_is_kept_is_left_out_with_the_reason() -> None:
    asked = [["model.forget_bias=1"], ["model.activation=relu"], ["model.skip=residual"]]
    changes, left_out = compose_changes(asked, CONFIG, compose, ["model.activation"])
    assert overrides_of(changes) == ["model.skip=residual"]
    assert [each.why for each in left_out] == [
        "not possible: unknown key: 'model.forget_bias'",
        "fix.keep: it changes model.activation",
    ]


def test_a_section_is_kept_as_a_whole_and_so_is_a_key_that_would_go() -> None:
    before = {"model": "rnn", "model.activation": "tanh", "optimizer.lr": 1.0}
    after = {"model": "lstm", "optimizer.lr": 1.0}
    assert find_kept(before, after, ["model"]) == ["model", "model.activation"]
    assert find_kept(before, after, ["model.activation"]) == ["model.activation"]
    assert find_kept(before, after, ["optimizer.lr", "mod"]) == []


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("model.activatoin", "nearest: model.activation"),
        ("activation", "nearest: model.activation"),
        ("modle", "nearest: model"),
    ],
)
def test_an_unknown_key_to_keep_is_an_error_with_the_nearest(asked: str, nearest: str) -> None:
    require_keys(["model.activation", "optimizer", "seed"], CONFIG)
    with pytest.raises(QuestionError, match=r"unknown key in fix\.keep") as error:
        require_keys([asked], CONFIG)
    assert str(error.value).splitlines()[-1] == nearest
