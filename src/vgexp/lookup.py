"""What is the user's own: code that a configuration names as `package.module.name`.

To look a name up is to run code: importing a module runs it. So nothing is looked up but for a
run that somebody asked for.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from vgexp.errors import QuestionError, nearest, one_line, unknown
from vgexp.origin import origin

FORM = "package.module.name, such as mymodels.Net for the class Net in mymodels.py"
_MOST_NAMES = 12
"""Names that are listed; of a module with more the nearest alone is told."""
_HERE = str(Path(__file__).parent)
_INSTALLED = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib"))


def is_dotted(name: object) -> bool:
    """Whether a value names something of the user's own, not one of our entries."""
    return isinstance(name, str) and "." in name


def find(key: str, path: str | None) -> Any:
    """What `path` names, looked for in the current folder first and then among what is installed.

    Modules of Python itself come before both: a `random.py` in the folder takes the place of none
    that some library imports. What is imported later finds the folder last of all.

    Args:
        key: the key of the configuration that asks: `model.target`.

    Raises:
        QuestionError: there is no such package, module or name, or importing it raised something.
    """
    parts = (path or "").split(".")
    if path is None or len(parts) < 2 or not all(part.isidentifier() for part in parts):
        shown = "null" if path is None else repr(path)
        raise QuestionError(f"{key} is {shown}\nallowed: {FORM}")
    with _importable(str(origin())):
        importlib.invalidate_caches()
        found: Any = _imported(key, path, parts[0], None)
        for position, name in enumerate(parts[1:], start=1):
            if not hasattr(found, name):
                found = _imported(key, path, ".".join(parts[: position + 1]), found)
            else:
                found = getattr(found, name)
    return found


@contextmanager
def _importable(here: str) -> Iterator[None]:
    """Within, a folder's modules are found after Python's own and before installed ones.

    Afterwards they are found last. A folder that comes before Python's own modules already
    (`PYTHONPATH`, `python -m`) stays there: that is what the user asked for.
    """
    end = _end_of_standard_library()
    if here in sys.path[:end]:
        yield
        return
    sys.path[:] = [*sys.path[:end], here, *(folder for folder in sys.path[end:] if folder != here)]
    try:
        yield
    finally:
        sys.path[:] = [*(folder for folder in sys.path if folder != here), here]


def _end_of_standard_library() -> int:
    """The position on the import path after the last folder of Python's own; 0: there is none."""
    own = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    own |= {str(Path(folder) / "lib-dynload") for folder in own}
    return 1 + max((i for i, folder in enumerate(sys.path) if folder in own), default=-1)


def call(key: str, path: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function of the user's returns.

    Raises:
        QuestionError: what it raised, with its place in the user's code.
    """
    try:
        return function(*args, **kwargs)
    except QuestionError:
        raise
    except (Exception, SystemExit) as error:
        raise raised(f"{key} is {path!r}, which raised", error) from error


def make(
    key: str, path: str | None, given: Mapping[str, Any] | None, offered: Mapping[str, Any]
) -> Any:
    """What the class or function of a path returns, given keyword arguments.

    Args:
        key: the key of the path; that of the arguments ends in `kwargs` instead.
        given: the arguments that the user chose.
        offered: more of them, which it gets if it names them and the user did not.

    Raises:
        QuestionError: there is no such thing, it cannot be called so, or it raised something.
    """
    function = find(key, path)
    assert path is not None
    if not callable(function):
        raise QuestionError(
            f"{key} is {path!r}, of type {type(function).__name__}\nallowed: a class or a function"
        )
    kwargs = dict(given or {})
    names = parameters(function)
    if names is not None:
        more = {k: v for k, v in offered.items() if k in names and k not in kwargs}
        kwargs = {**kwargs, **more}
        _require_arguments(key, path, function, kwargs)
    return call(key, path, function, **kwargs)


def parameters(function: Callable[..., Any]) -> list[str] | None:
    """Names that a function takes as keywords; None where that cannot be known."""
    try:
        known = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some that are written in C
        return None
    return [p.name for p in known if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def num_required(function: Callable[..., Any]) -> int | None:
    """How many arguments a function has to be given; None where that cannot be known."""
    try:
        known = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    no_need = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return sum(p.default is p.empty and p.kind not in no_need for p in known)


def raised(headline: str, error: BaseException) -> QuestionError:
    """The error for what the user's code raised: type, message, and the line of that code."""
    text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    lines = [headline, f"{type(error).__name__}: {text}" if text else type(error).__name__]
    place = _place(error)
    return QuestionError("\n".join([*lines, *([f"at {place}"] if place else []), _TRACEBACK]))


_TRACEBACK = "HYDRA_FULL_ERROR=1 shows the traceback"


def _imported(key: str, path: str, name: str, above: Any) -> Any:
    """The module of that name; refuses what is none, `above` being where it was looked for."""
    if above is not None and not hasattr(above, "__path__"):
        _refuse_name(key, path, name, above)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # something else, which the module itself asked for
            raise raised(f"{key} is {path!r}: importing {name} raised", error) from error
    except (Exception, SystemExit) as error:
        raise raised(f"{key} is {path!r}: importing {name} raised", error) from error
    if above is not None:
        _refuse_name(key, path, name, above)
    near = nearest(name, {module.name for module in pkgutil.iter_modules()})
    raise QuestionError(
        f"{key} is {path!r}, but there is no module {name!r}\n"
        f"allowed: a module in {one_line(str(origin()))}, or one that is installed"
        + (f"\nnearest: {near}" if near else "")
    )


def _refuse_name(key: str, path: str, name: str, above: Any) -> NoReturn:
    owner, _, last = name.rpartition(".")
    what = "module" if isinstance(above, ModuleType) else type(above).__name__
    names = sorted(_names_in(above))
    lines = [f"{key} is {path!r}, but the {what} {owner} has no {last!r}"]
    if len(names) <= _MOST_NAMES:
        lines += str(unknown("", last, names)).splitlines()[1:]
    else:
        near = nearest(last, names)
        lines.append(f"allowed: one of its {len(names)} names")
        lines += [f"nearest: {near}"] if near else []
    own = origin() / f"{owner}.py"
    if isinstance(above, ModuleType) and own.is_file() and not _is_file_of(above, own):
        lines.append(f"remedy: rename {own.name}; Python imports another module of that name")
    raise QuestionError("\n".join(lines))


def _is_file_of(module: ModuleType, file: Path) -> bool:
    """Whether a module was imported from a file."""
    imported = getattr(module, "__file__", None)
    return imported is not None and Path(imported).resolve() == file.resolve()


def _names_in(above: Any) -> Iterator[str]:
    """Public names that a module itself defines, and those of its modules."""
    for name, value in vars(above).items() if hasattr(above, "__dict__") else ():
        owner = getattr(value, "__module__", None)
        is_own = not isinstance(value, ModuleType) and owner == getattr(above, "__name__", owner)
        if is_own and not name.startswith("_"):
            yield name
    yield from (module.name for module in pkgutil.iter_modules(getattr(above, "__path__", ())))


def _require_arguments(
    key: str, path: str, function: Callable[..., Any], kwargs: Mapping[str, Any]
) -> None:
    signature, own = inspect.signature(function), f"{key.rpartition('.')[0]}.kwargs"
    try:
        signature.bind(**kwargs)
        return
    except TypeError as error:
        complaint = str(error)
    names = parameters(function) or []
    strange = [name for name in kwargs if name not in names]
    near = nearest(strange[0], names) if strange else None
    raise QuestionError(
        f"{path} cannot be called with {own} = {_shown(kwargs)}: {complaint}\n"
        f"allowed: {path.rpartition('.')[2]}({', '.join(names)})"
        + (f"\nnearest: {near}" if near else "")
    )


def _shown(kwargs: Mapping[str, Any]) -> str:
    return f"{{{', '.join(kwargs)}}}" if kwargs else "null"


def _place(error: BaseException) -> str:
    """`file:line` of the innermost line that is the user's; else of the innermost of all."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_HERE, "<"))
    ]
    own = [frame for frame in frames if not _is_installed(frame.filename)]
    last = (own or frames)[-1:]
    return f"{last[0].filename}:{last[0].lineno}" if last else ""


def _is_installed(file: str) -> bool:
    """Whether a file belongs to Python or to a package, of whichever environment below this one."""
    parts = Path(file).parts
    return file.startswith(_INSTALLED) or "site-packages" in parts or "dist-packages" in parts
