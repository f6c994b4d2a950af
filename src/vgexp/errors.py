"""Errors of the user: what was asked, what is allowed, and the nearest allowed name.

It also makes text from other sources safe to show: names, values and reasons from files or typed.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping, Sequence

_SHORT_WORD = 5
"""A word of at most so many letters must be more alike to count as mistyped."""
_LONGEST_NAME = 200
"""The most characters of a name that are shown; the time of a search grows with their square."""
# What a file holds can be deep, or long without end.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100


class QuestionError(ValueError):
    """A mistake of the user: an unknown name, an impossible value, a missing file. Exit code 2."""


class LostError(RuntimeError):
    """A run's folder or file was removed or replaced while it was written. Exit code 1."""


def one_line(text: str) -> str:
    """Makes a text safe to show in one line: control characters and line ends are escaped."""
    return printable(text).replace("\n", "\\n")


def printable(text: str) -> str:
    """Makes a text safe to show in a terminal: escapes all that is not printable but line ends.

    These are control characters, marks that reverse the direction of text, and lone surrogates.
    """
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def reason(error: BaseException) -> str:
    """Says in one line why the work failed, for summaries and tables of sweeps."""
    text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if isinstance(error, QuestionError | LostError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def unknown(
    kind: str,
    asked: object,
    allowed: Iterable[str],
    elsewhere: Mapping[str, Sequence[str]] | None = None,
) -> QuestionError:
    """Makes the error for an unknown name, with the allowed names and the nearest of them.

    Args:
        elsewhere: names that are allowed in other places, and how they are written here.
    """
    names, asked = sorted(allowed), _shorten(str(asked))
    written = {name: [name] for name in names}
    for name, whole in (elsewhere or {}).items():
        written.setdefault(name, []).extend(whole)
    lines = [f"unknown {kind}: {asked!r}", f"allowed: {', '.join(names) or '(none)'}"]
    near = nearest(asked, written)
    if near:
        lines.append(f"nearest: {', '.join(written[near])}")
    return QuestionError("\n".join(lines))


def nearest(asked: str, names: Iterable[str]) -> str | None:
    """Finds the name that was probably meant; a short word must be more alike than a long one."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_spelling(name), []).append(name)
    word = _spelling(asked)
    for found in difflib.get_close_matches(word, alike, n=1, cutoff=0.5):
        ratio = difflib.SequenceMatcher(None, found, word).ratio()
        if len(word) > _SHORT_WORD or ratio >= 0.7 or sorted(word) == sorted(found):
            return max(alike[found], key=lambda name: _likeness(name, asked))
    return None


def _likeness(name: str, asked: str) -> float:
    return difflib.SequenceMatcher(None, name, asked).ratio()


def _spelling(name: str) -> str:
    """Makes spellings of one name equal: `LeakyReLU`, `leaky-relu`, `--leaky_relu`."""
    return name.lstrip("-").casefold().replace("_", "").replace("-", "")


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


def impossible(key: str, asked: object, allowed: str) -> QuestionError:
    """Makes the error for a value outside its range: `key` is `asked`, but must be `allowed`."""
    return QuestionError(f"{key} is {_SHORT.repr(asked)}\nallowed: {allowed}")
