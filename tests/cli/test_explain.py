"""`vgexp explain`: the list, a page with and without a run, the quiz, wrong questions.

Holds: cli/explain.py, cli/one_run.py, explain/quiz.py, report/figures/of_run.py
"""

from __future__ import annotations

import io
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import CONFIG
from trainers import changed

import vgexp
from vgexp import folders
from vgexp.cli import explain
from vgexp.cli.main import main
from vgexp.config import Config, CopyConfig, RnnConfig
from vgexp.diagnosis.findings import Finding
from vgexp.explain import TOPICS, draw_questions


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tanh"
    vgexp.run(changed(CONFIG, probe={"every": 10, "activations_every": 10}), folder)
    return folder


def shown(argv: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["explain", *argv]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_list_has_every_page_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown([], capsys)
    names = [name.strip(" ,") for line in lines if line.startswith("  ") for name in line.split()]
    assert sorted(names) == sorted(TOPICS)
    assert max(map(len, lines)) <= 80


def test_a_page_is_plain_text_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(["saturating_activation"], capsys)
    assert lines[0] == "saturating_activation (depth)"
    assert any(line.startswith("  0.25^10 = 9.54e-07") for line in lines)
    assert "vgexp train +experiment=sigmoid_deep model.skip=residual" in [
        line.strip() for line in lines
    ]
    assert "\x1b" not in "".join(lines)


def test_a_page_with_a_run_has_its_numbers_and_its_plot(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(["delta", str(run)], capsys)
    attenuation = vgexp.load(run).summary["attenuation"]
    assert any(line.startswith(f"  attenuation = {attenuation:.3g}") for line in lines)
    lines = shown(["weights_small", str(run.parent)], capsys)
    assert "Backward signal (delta_rms) against depth, log scale" in lines
    assert f"vgexp train --config-dir {run} --config-name config" in " ".join(
        line.strip(" \\") for line in lines
    )


def test_the_figure_of_a_run_is_drawn_and_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = run / "figures" / "backward_signal.png"
    picture.unlink(missing_ok=True)
    lines = shown(["weights_small", str(run)], capsys)
    place = lines.index("Figure")
    assert lines[place + 1].startswith("  the backward signal (delta_rms) at step 0")
    assert lines[place + 2].startswith("  layer 1 ")
    assert lines[lines.index("  The picture to open:") + 1].strip() == str(picture)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    other = tmp_path / "other.svg"
    assert f"    {other}" in shown(["weights_small", str(run), "-o", str(other)], capsys)
    assert "<svg" in other.read_text()


def test_a_figure_that_a_run_has_no_numbers_for_is_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = " ".join(" ".join(shown(["attention", str(run)], capsys)).split())
    assert "The run has no numbers for it; these are of the page:" in text
    assert "attention_entropy is not drawn: this run has no numbers for" in text
    asked = ["explain", "attention", str(run), "-o", str(tmp_path / "a.png")]
    assert main(asked) == 2
    assert "this run has no numbers for" in capsys.readouterr().err


def test_without_a_run_a_page_says_what_draws_its_figure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = shown(["attenuation"], capsys)
    assert "    vgexp explain attenuation RUN" in lines
    assert any("layer 20" in line and "####" in line for line in lines)


def test_another_family_is_typed_behind_a_run_that_reads_the_same_data(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "rnn")
    folders.write_config(tmp_path / "rnn", Config(model=RnnConfig(), data=CopyConfig()), "")
    for own, is_behind in ((tmp_path / "rnn", True), (run, False)):
        said = " ".join(line.strip(" \\") for line in shown(["lstm", str(own)], capsys))
        assert (f"--config-dir {own} --config-name config model=lstm" in said) == is_behind


def test_symbols_keep_their_case_in_the_glossary(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(shown(["glossary"], capsys))
    for first in ("phi', the slope", "dL/dz: ", "delta_rms of layer 1", "sigma_w^2 = ", "N: "):
        assert f"\n  {first}" in text
    assert "\n  The factor on" in text
    assert "...." not in text


def test_unknown_is_headed_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(["unknown"], capsys)[0] == "unknown (no cause found)"


@pytest.mark.parametrize(
    ("health", "cause", "said"),
    [
        ("healthy", None, "This run is healthy: it has not this cause."),
        ("sick", "dead_units", "This run's cause is dead_units."),
        ("undecided", None, "No cause was found in this run."),
        ("sick", "rate_too_small", None),
    ],
)
def test_a_page_says_that_a_run_has_another_cause(
    health: str,
    cause: str | None,
    said: str | None,
    run: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = vgexp.load(run).diagnose()
    findings = () if cause is None else (Finding(cause, "It was found."),)
    told = replace(found, health=health, cause=cause, rivals=(), findings=findings)
    monkeypatch.setattr("vgexp.past.diagnosing.diagnose_run", lambda _: told)
    lines = shown(["rate_too_small", str(run)], capsys)
    assert [line for line in lines if line.startswith(("This run", "No cause was"))] == (
        [] if said is None else [said]
    )
    assert not any(line.startswith("This run") for line in shown(["delta", str(run)], capsys))


@pytest.mark.parametrize("group", ["glossary", "questions"])
def test_a_group_is_shown_whole(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown([group], capsys)
    ids = [line for line in lines if not line.startswith(" ")]
    assert ids == [topic.id for topic in TOPICS.values() if topic.group == group]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            ["residul"],
            "unknown topic: 'residul'\n  allowed: what vgexp explain lists\n  nearest: residual",
        ),
        (["quizz"], "nearest: quiz"),
        (["delta", "nowhere"], "nowhere"),
        (["quiz", "runs"], "takes no run"),
        (["delta", "--seed", "3"], "--seed is of the quiz"),
        (["delta", "-o", "a.png"], "-o is of the picture of a run"),
        (["delta", "a", "b"], "b"),
    ],
)
@pytest.mark.usefixtures("capsys")
def test_a_wrong_question_is_one_block_and_exit_code_2(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *argv]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.startswith("error: ")
    assert said in captured.err


def test_of_several_runs_the_commands_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for file in ("summary.json", "layers.csv", "config.yaml"):
            (tmp_path / name / file).write_bytes((run / file).read_bytes())
    assert main(["explain", "delta", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "holds 2 runs" in " ".join(told.split())
    assert f"vgexp explain delta {tmp_path / 'a'}" in told


# ---------------------------------------------------------------- the quiz


def test_equal_seeds_draw_equal_questions_and_answers_are_shuffled() -> None:
    assert draw_questions(3, 10) == draw_questions(3, 10)
    assert draw_questions(3, 10) != draw_questions(4, 10)
    every = draw_questions(0, 1000)
    assert len({asked.question.ask for asked in every}) == len(every) >= 30
    assert {asked.right for asked in every} == {"a", "b", "c"}
    for asked in every:
        assert asked.answers["abc".index(asked.right)] == asked.question.answers[0]


def test_without_a_terminal_questions_and_answers_are_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = shown(["quiz", "--seed", "5"], capsys)
    asked = draw_questions(5, 10)
    assert [line[:3] for line in lines if line[:1].isdigit()] == [
        f"{number}."[:3].ljust(3) for number in range(1, 11)
    ]
    answers = [line.strip()[0] for line in lines if line.startswith("   ") and line[4:5] == ":"]
    assert answers == [each.right for each in asked]
    assert lines[-1] == "The same questions again: vgexp explain quiz --seed 5"
    assert max(map(len, lines)) <= 80


class Terminal(io.StringIO):
    """A terminal without one-key input, in which a line of one letter is an answer."""

    def isatty(self) -> bool:
        return True


def answer(keys: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Holds the quiz of seed 5 with these answers, and returns what is shown."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal("".join(f"{key}\n" for key in keys)))
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["explain", "quiz", "--seed", "5"]) == 0
    return screen.getvalue().splitlines()


def test_in_a_terminal_answers_are_counted_and_pages_to_read_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = draw_questions(5, 10)
    right = [each.right for each in asked]
    wrong = next(letter for letter in "abc" if letter != right[0])
    # What is no answer is passed over; capitals count.
    lines = answer("x" + wrong + "".join(right[1:]).upper(), monkeypatch)
    text = "\n".join(lines)
    assert "9 of 10 right" in text
    assert f"Read on (vgexp explain TOPIC): {asked[0].topic.id}" in text


def test_a_quiz_can_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    right = draw_questions(5, 10)[0].right
    assert "1 of 1 right" in "\n".join(answer(right + "q", monkeypatch))
    assert "right" not in "\n".join(answer("", monkeypatch)).replace("right angles", "")


def test_topics_are_completed_with_the_quiz() -> None:
    assert {"quiz", "glossary", "questions", "delta", "phi'"} <= set(explain.list_topics())
