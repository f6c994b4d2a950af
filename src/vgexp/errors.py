"""What a user did wrong, in one readable block: what was asked, what is allowed, the nearest.

And what may be shown of words that are not ours: names, values, reasons, from files or typed.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping, Sequence

_SHORT_WORD = 5
"""Letters up to which a word has to be nearer to be taken for a mistyped one."""
_LONGEST_NAME = 200
"""Characters of a name that are told; the time to find the nearest grows with its square."""
# What a file holds can be deep, or long without end.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100


class QuestionError(ValueError):
    """The question was wrong: an unknown name, an impossible value, a missing file. Exit code 2."""


class LostError(RuntimeError):
    """What a run writes into was removed or replaced meanwhile. Exit code 1, and no traceback."""


def one_line(text: str) -> str:
    """What can be shown of a text, its ends of lines too, in a line."""
    return printable(text).replace("\n", "\\n")


def printable(text: str) -> str:
    """The text with everything that a terminal obeys written as escapes; line ends stay.

    Control characters, marks that turn the direction of writing, halves of characters.
    """
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def reason(error: BaseException) -> str:
    """Why the work failed, in one line: what summaries and tables of sweeps say."""
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
    """The error for a name that does not exist, with the allowed names and the nearest of them.

    Args:
        elsewhere: names that are allowed in other places, and how they are written here.
    """
    names, asked = sorted(allowed), _shortened(str(asked))
    written = {name: [name] for name in names}
    for name, whole in (elsewhere or {}).items():
        written.setdefault(name, []).extend(whole)
    lines = [f"unknown {kind}: {asked!r}", f"allowed: {', '.join(names) or '(none)'}"]
    near = nearest(asked, written)
    if near:
        lines.append(f"nearest: {', '.join(written[near])}")
    return QuestionError("\n".join(lines))


def nearest(asked: str, names: Iterable[str]) -> str | None:
    """The name that was meant; of a short word, one that is half like it was not."""
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
    """A name without what people write differently: `LeakyReLU`, `leaky-relu`, `--leaky_relu`."""
    return name.lstrip("-").casefold().replace("_", "").replace("-", "")


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


def impossible(key: str, asked: object, allowed: str) -> QuestionError:
    """The error for a value outside its range: `key` was `asked`, but must be `allowed`."""
    return QuestionError(f"{key} is {_SHORT.repr(asked)}\nallowed: {allowed}")
