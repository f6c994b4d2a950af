"""The pages of `vgexp explain`: each cause has one, sums are right, what is to be typed composes.

Holds: explain/causes.py, explain/page.py, explain/pages/activations.py,
explain/pages/causes_of_code.py, explain/pages/causes_of_depth.py,
explain/pages/causes_of_numbers.py, explain/pages/causes_of_start.py,
explain/pages/causes_of_steps.py, explain/pages/causes_of_units.py, explain/pages/clipping.py,
explain/pages/glossary.py, explain/pages/initialisations.py, explain/pages/norms_and_skips.py,
explain/pages/notes.py, explain/pages/optimizers.py, explain/pages/questions_of_cures.py,
explain/pages/questions_of_depth.py, explain/pages/time_and_attention.py, explain/sums.py,
explain/topic.py, explain/topics.py, docs/explain.md
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from explain_page import PAGE, make_page
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from vgexp.activations import ACTIVATIONS
from vgexp.cli import schema
from vgexp.cli.actions import find_work
from vgexp.cli.composing import Composer
from vgexp.cli.listing import find_configs
from vgexp.cli.typed_config import to_config
from vgexp.config import CHOICES
from vgexp.diagnosis.causes import CAUSES
from vgexp.errors import QuestionError
from vgexp.explain import GROUPS, TOPICS, find_topic
from vgexp.explain.page import WIDTH, format_command, lay_out
from vgexp.explain.sums import evaluate, show, show_base
from vgexp.explain.topics import is_cause
from vgexp.inits import INITS
from vgexp.report.figures import FIGURES, OVERVIEW
from vgexp.skips import SKIPS

ROOT = Path(__file__).parents[2]
PYTHONS = {
    **{name: getattr(math, name) for name in ("sqrt", "log10", "exp", "tanh")},
    "ln": math.log,
    "min": min,
    "max": max,
}

Compose = Callable[[str, list[str]], object]


def all_commands() -> Iterator[tuple[str, str]]:
    """Whose page, and all words behind `vgexp`, of every command that pages show."""
    for topic in TOPICS.values():
        for each in topic.measured:
            if not each.command.startswith("python "):
                yield topic.id, each.command
        for cure in topic.cures:
            if cure.override:
                yield topic.id, " ".join(f"train {cure.on} {cure.override}".split())


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    """Composes the configuration of a job as `vgexp train` and `vgexp signal` do."""
    composers: dict[str, Composer] = {}

    def make(verb: str, words: list[str]) -> object:
        if verb not in composers:
            schema.register(find_work(verb))
            with initialize_config_dir(str(find_configs()), job_name=verb, version_base="1.3"):
                loader = GlobalHydra.instance().config_loader()
                master = loader.load_configuration(schema.PRIMARY, ["seed=1,2"], RunMode.MULTIRUN)
            composers[verb] = Composer(loader, master)
        with composers[verb].compose(words, 0) as composed:
            return to_config(composed)

    yield make
    GlobalHydra.instance().clear()


# ---------------------------------------------------------------- what there is


def test_every_cause_has_a_page_with_its_definition_in_its_group() -> None:
    for id, known in CAUSES.items():
        page = TOPICS[id]
        assert page.title.casefold() == known.summary.casefold()
        assert (page.group, is_cause(page)) == (known.group, True)
        assert page.image, id
        assert page.own, id
        assert page.lines, id
        assert page.cures, id
    assert {topic.id for topic in TOPICS.values() if is_cause(topic)} == set(CAUSES)


def test_every_choice_that_is_a_cure_is_found_by_its_name() -> None:
    names = [*ACTIVATIONS, *SKIPS, *CHOICES["optimizer"], "lstm", "gru", "transformer", "densenet"]
    others = {"linear", "none", "sgd", "normal", "uniform", "torch_default"}
    for name in (*names, *INITS):
        assert name in others or find_topic(name), name


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("phi'", "phi_prime"),
        ("Pre-LN", "pre_norm"),
        ("N", "n"),
        ("vanishing", "how_to_detect"),
        ("exploding gradients", "how_to_detect"),
        ("learning_rate", "rate_too_large"),
        ("nan", "nan_from_loss"),
        ("he_init", "he"),
    ],
)
def test_a_page_is_found_by_other_spellings(name: str, id: str) -> None:
    assert find_topic(name).id == id


def test_an_unknown_topic_names_the_nearest() -> None:
    with pytest.raises(QuestionError, match=r"nearest: residual$"):
        find_topic("residul")


@pytest.mark.parametrize("name", ["exploder", "learning curves", "colour", "hedge"])
def test_what_looks_like_no_topic_has_no_nearest(name: str) -> None:
    with pytest.raises(QuestionError) as raised:
        find_topic(name)
    assert "nearest" not in str(raised.value)


def test_pages_lead_to_pages_and_to_figures_that_exist() -> None:
    for topic in TOPICS.values():
        assert all(name in TOPICS for name in topic.see), topic.id
        assert topic.figure in ("", OVERVIEW, *FIGURES), topic.id
        assert topic.id not in topic.see, topic.id


def test_no_name_is_that_of_two_pages() -> None:
    names = [name for topic in TOPICS.values() for name in (topic.id, *topic.also)]
    assert sorted(names) == sorted(set(names))
    assert [topic for topics in GROUPS.values() for topic in topics] != []
    assert sum(map(len, GROUPS.values())) == len(TOPICS)


def test_history_has_four_sentences() -> None:
    assert len(re.findall(r"\.(?:\s|$)", TOPICS["history"].words)) == 4


def test_each_question_of_the_quiz_has_three_different_answers() -> None:
    for topic in TOPICS.values():
        for question in topic.quiz:
            assert len(question.answers) == len(set(question.answers)) == 3, question.ask
            assert question.because


# ---------------------------------------------------------------- numbers


def test_every_sum_of_a_page_is_what_python_makes_of_it() -> None:
    sums = [line for topic in TOPICS.values() for line in topic.lines if line.value is not None]
    assert len(sums) > 100
    for line in sums:
        expected = eval(line.formula.replace("^", "**"), {"__builtins__": {}}, PYTHONS)
        assert line.value == pytest.approx(expected, rel=1e-12), line.formula


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("0.25^10", 9.5367431640625e-07),
        ("-2^2", -4.0),
        ("2 * 3 - 4 / 8", 5.5),
        ("10^400", math.inf),
        ("max(1, 3) + min(2, 5)", 5.0),
    ],
)
def test_a_sum_is_computed(formula: str, expected: float) -> None:
    assert evaluate(formula) == expected


def test_a_sum_without_a_value_is_nan_and_another_expression_is_none() -> None:
    assert math.isnan(evaluate("1 / 0"))
    with pytest.raises(AssertionError, match="no sum"):
        evaluate("open")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (4096.0, "4096"),
        (0.2387, "0.239"),
        (1.394e-12, "1.39e-12"),
        (math.inf, "inf"),
        (3e7, "3e+07"),
    ],
)
def test_numbers_are_short(value: float, expected: str) -> None:
    assert show(value) == expected


@pytest.mark.parametrize(("factor", "times"), [(0.2387729668, 19), (0.99317, 999), (1.2262, 9999)])
def test_a_shown_factor_has_the_digits_that_its_power_needs(factor: float, times: int) -> None:
    shown = evaluate(f"{show_base(factor, times)}^{times}")
    assert shown == pytest.approx(evaluate(f"{factor!r}^{times}"), rel=0.005)


# ---------------------------------------------------------------- what is typed


def test_everything_to_be_typed_composes(compose: Compose) -> None:
    """Of a sweep the job with the first value of each key, and the one with the last."""
    tried: set[tuple[str, tuple[str, ...]]] = set()
    for id, command in all_commands():
        verb, *words = [word for word in shlex.split(command) if word != "-m"]
        for place in (0, -1):
            job = tuple(
                f"{key.lstrip('+')}={value.split(',')[place]}"
                for key, value in (word.split("=", 1) for word in words)
            )
            if (verb, job) not in tried:
                tried.add((verb, job))
                assert compose(verb, list(job)), (id, job)
    assert len(tried) > 100


def test_a_sweep_is_typed_with_m_and_nothing_else_is() -> None:
    for id, command in all_commands():
        _, *words = command.split()
        is_sweep = any("," in word for word in words) or any(
            f"+experiment={name}" in words for name in ("shallow_vs_deep", "adam_rescue")
        )
        assert ("-m" in words) == is_sweep, (id, command)


def test_scripts_that_pages_name_exist() -> None:
    for topic in TOPICS.values():
        for each in topic.measured:
            if each.command.startswith("python "):
                assert (ROOT / each.command.split()[1]).is_file(), topic.id


# ---------------------------------------------------------------- form


@pytest.mark.parametrize("id", TOPICS)
def test_no_line_of_a_page_is_wider_than_a_terminal(id: str) -> None:
    for section in lay_out(TOPICS[id]):
        assert all(len(line) <= WIDTH for line in section.lines), section


def test_a_long_command_goes_on_after_a_backslash_and_is_the_same_to_a_shell() -> None:
    command = f"vgexp train --config-dir '/a b/{'c' * 60}' --config-name config " + "x.y=1 " * 12
    lines = format_command(command.strip())
    assert len(lines) > 2
    assert shlex.split("\n".join(lines).replace("\\\n", " ")) == shlex.split(command)


def test_the_docs_have_these_pages() -> None:
    told = "run python scripts/explain_page.py"
    assert PAGE.read_text(encoding="utf-8") == make_page(), told


def test_pictures_that_the_docs_show_are_in_the_repository() -> None:
    shown = re.findall(r"!\[(\w+)\]\(([\w/.]+)\)", make_page())
    assert {id for id, _ in shown} <= set(TOPICS)
    assert len(shown) > 60
    assert [place for _, place in shown if not (PAGE.parent / place).is_file()] == []
