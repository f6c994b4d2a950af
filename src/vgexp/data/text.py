"""Text as tokens, one a character.

Axes: N pieces of the text, T positions in time, P = T + 1 characters of a piece.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vgexp.config import TextConfig
from vgexp.data import sources
from vgexp.data.examples import Examples, Pair, num_held
from vgexp.errors import QuestionError
from vgexp.origin import resolve_path
from vgexp.tasks import Task


@sources.read.register
def read(config: TextConfig, _seed: int) -> Examples:
    """A text, cut into pieces of T + 1 characters; each but the last is asked for its next.

    Pieces do not overlap. The first are for training, then come those for validation, then those
    for the test: three stretches of the text, so that nothing of one is in another. What is left
    over at the end is dropped.

    A token is a character of the training text, numbered in Unicode's order; one more stands for
    every character that is not in it. As many answers. A prediction that ignores the input costs
    about the entropy of single characters, near 3 nats in English.

    Without `data.path`: the topics of Python's `help()`, some 470,000 characters of technical
    English with tables and code. Versions of Python differ in it, so tables are equal for equal
    versions only.

    Raises:
        QuestionError: the file cannot be read as UTF-8, or holds too few characters.
    """
    piece = config.seq_len + 1
    limit = None if config.num_examples is None else config.num_examples * piece
    text = _english(config) if config.path is None else _in_file(config, config.path)
    text = text[:limit]
    num_pieces = len(text) // piece
    if num_pieces < 2:
        raise _unreadable(
            config,
            f"it has {len(text)} characters, and a piece of data.seq_len={config.seq_len} takes"
            f" {piece}",
            "a text of two pieces at least, or a smaller data.seq_len",
        )
    held = num_held(config.val_fraction, num_pieces, num_splits=2)
    code_NP = _codes(text[: num_pieces * piece]).reshape(num_pieces, piece)
    train_NP, val_NP, test_NP = np.split(code_NP, (num_pieces - 2 * held, num_pieces - held))
    known = np.unique(train_NP)
    num_tokens = len(known) + 1
    task = Task("tokens", (config.seq_len,), num_tokens, num_tokens, per_position=True)
    inputs, targets = _shifted(_tokens(train_NP, known))
    val, test = (_shifted(_tokens(part_NP, known)) for part_NP in (val_NP, test_NP))
    return Examples(inputs, targets, task, val=val, test=test)


def _english(config: TextConfig) -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise _unreadable(
            config, "this Python comes without its help text", "a text file in UTF-8"
        ) from None
    return "\n".join(topics[name] for name in sorted(topics))


def _in_file(config: TextConfig, path: str) -> str:
    """The file's characters, ends of lines as \\n, without a byte order mark."""
    allowed = "a text file in UTF-8, or data.path=null for the English that comes with Python"
    file = resolve_path(path)
    try:
        if file.exists() and not file.is_file():
            raise _unreadable(config, "that is no file", allowed)
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        why = f"it is not UTF-8: {error.reason} at byte {error.start}"
        raise _unreadable(config, why, allowed) from None
    except OSError as error:
        raise _unreadable(config, (error.strerror or str(error)).lower(), allowed) from None
    except ValueError:  # a zero byte within the name
        raise _unreadable(config, "that cannot be a name", allowed) from None


def _unreadable(config: TextConfig, why: str, allowed: str) -> QuestionError:
    asked = "null" if config.path is None else repr(config.path)
    return QuestionError(f"data.path is {asked}: {why}\nallowed: {allowed}")


def _codes(text: str) -> np.ndarray:
    """Unicode's number of each character."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def _tokens(codes: np.ndarray, known: np.ndarray) -> Tensor:
    """Each code's place among the known, which are sorted; their number where it is none."""
    place = np.searchsorted(known, codes)
    is_known = known[np.minimum(place, len(known) - 1)] == codes
    return torch.from_numpy(np.where(is_known, place, len(known)))


def _shifted(token_NP: Tensor) -> Pair:
    """What is read, and what comes next."""
    return token_NP[:, :-1].contiguous(), token_NP[:, 1:].contiguous()
