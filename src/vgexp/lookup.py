"""Finds and calls the user's own code, which a configuration names as `package.module.name`.

To find a name, its module is imported, and that runs code. So names are looked up only for a run
that the user asked for.
"""

from __future__ import annotations

import difflib
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
_ALIKE = 0.8
"""How alike the name of an installed module must be to a mistyped one, from 0 to 1."""
_MOST_NAMES = 12
"""The most names that are listed; of a module with more, only the nearest is shown."""
_HERE = str(Path(__file__).parent)
_INSTALLED = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib"))


def is_dotted(name: object) -> bool:
    """Whether a value names the user's code and not an entry of vgexp's."""
    return isinstance(name, str) and "." in name


def find(key: str, path: str | None) -> Any:
    """Finds what `path` names: first in the current folder, then among installed packages.

    Modules of Python itself come before both, so that a `random.py` in the folder does not replace
    the one that libraries import. Later imports search the folder last.

    Args:
        key: the key of the configuration that asks: `model.target`.

    Raises:
        QuestionError: there is no such package, module or name, or importing it raised something.
    """
    parts = (path or "").split(".")
    if path is None or len(parts) < 2 or not all(part.isidentifier() for part in parts):
        shown = "null" if path is None else repr(path)
        raise QuestionError(f"{key} is {shown}\nallowed: {FORM}")
    with _search_folder(str(origin())):
        importlib.invalidate_caches()
        found: Any = _import(key, path, parts[0], None)
        for position, name in enumerate(parts[1:], start=1):
            if not hasattr(found, name):
                found = _import(key, path, ".".join(parts[: position + 1]), found)
            else:
                found = getattr(found, name)
    return found


@contextmanager
def _search_folder(here: str) -> Iterator[None]:
    """Within, Python searches a folder for modules after its own and before installed ones.

    Afterwards it searches the folder last. A folder that comes before Python's own modules already
    (`PYTHONPATH`, `python -m`) stays there, since the user asked for it.
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
    """The position on the import path after the last of Python's own folders; 0: none."""
    standard = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    standard |= {str(Path(folder) / "lib-dynload") for folder in standard}
    return 1 + max((i for i, folder in enumerate(sys.path) if folder in standard), default=-1)


def call(key: str, path: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a function of the user's and returns its result.

    Raises:
        QuestionError: it raised an error, which is shown with its place in the user's code.
    """
    try:
        return function(*args, **kwargs)
    except QuestionError:
        raise
    except (Exception, SystemExit) as error:
        raise explain_error(f"{key} is {path!r}, which raised", error) from error


def make(
    key: str, path: str | None, given: Mapping[str, Any] | None, offered: Mapping[str, Any]
) -> Any:
    """Finds a class or function and calls it with keyword arguments.

    Args:
        key: the key of the path; that of the arguments ends in `kwargs` instead.
        given: the arguments that the user chose.
        offered: further arguments, which are passed if it takes them and the user chose none.

    Raises:
        QuestionError: it does not exist, cannot be called like this, or raised an error.
    """
    function = find(key, path)
    assert path is not None
    if not callable(function):
        raise QuestionError(
            f"{key} is {path!r}, of type {type(function).__name__}\nallowed: a class or a function"
        )
    kwargs = dict(given or {})
    names = list_parameters(function)
    if names is not None:
        more = {k: v for k, v in offered.items() if k in names and k not in kwargs}
        kwargs = {**kwargs, **more}
        _require_arguments(key, path, function, kwargs)
    return call(key, path, function, **kwargs)


def list_parameters(function: Callable[..., Any]) -> list[str] | None:
    """Lists the keywords that a function takes; None where this cannot be known."""
    try:
        known = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some that are written in C
        return None
    return [p.name for p in known if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def count_required(function: Callable[..., Any]) -> int | None:
    """Counts the arguments that a function requires; None where this cannot be known."""
    try:
        known = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    no_need = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return sum(p.default is p.empty and p.kind not in no_need for p in known)


def explain_error(headline: str, error: BaseException) -> QuestionError:
    """Makes the error for one that the user's code raised: its type, message, and line."""
    text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    lines = [headline, f"{type(error).__name__}: {text}" if text else type(error).__name__]
    place = _place(error)
    return QuestionError("\n".join([*lines, *([f"at {place}"] if place else []), _TRACEBACK]))


_TRACEBACK = "HYDRA_FULL_ERROR=1 shows the traceback"


def _import(key: str, path: str, name: str, above: Any) -> Any:
    """Imports a module by its name; `above` is the package that was searched for it."""
    if above is not None and not hasattr(above, "__path__"):
        _refuse_name(key, path, name, above)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # something else, which the module itself asked for
            raise explain_error(f"{key} is {path!r}: importing {name} raised", error) from error
    except (Exception, SystemExit) as error:
        raise explain_error(f"{key} is {path!r}: importing {name} raised", error) from error
    if above is not None:
        _refuse_name(key, path, name, above)
    near = _nearest_module(name)
    raise QuestionError(
        f"{key} is {path!r}, but there is no module {name!r}\n"
        f"allowed: a module in {one_line(str(origin()))}, or one that is installed"
        + (f"\nnearest: {near}" if near else "")
    )


def _nearest_module(name: str) -> str | None:
    """The module that was probably meant: one beside the user's code, or an installed one.

    A name of the user's that is unlike any of theirs is like some installed module's by chance, so
    that one has to be more alike; Python's own modules hold no model.
    """
    near = nearest(name, {module.name for module in pkgutil.iter_modules([str(origin())])})
    if near:
        return near
    installed = {module.name for module in pkgutil.iter_modules()} - sys.stdlib_module_names
    found = difflib.get_close_matches(name, installed, n=1, cutoff=_ALIKE)
    return found[0] if found else None


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
    file = origin() / f"{owner}.py"
    if isinstance(above, ModuleType) and file.is_file() and not _is_file_of(above, file):
        lines.append(f"remedy: rename {file.name}; Python imports another module of that name")
    raise QuestionError("\n".join(lines))


def _is_file_of(module: ModuleType, file: Path) -> bool:
    """Whether a module was imported from a file."""
    imported = getattr(module, "__file__", None)
    return imported is not None and Path(imported).resolve() == file.resolve()


def _names_in(above: Any) -> Iterator[str]:
    """The public names that a module defines itself, and those of its modules."""
    for name, value in vars(above).items() if hasattr(above, "__dict__") else ():
        owner = getattr(value, "__module__", None)
        is_defined_here = owner == getattr(above, "__name__", owner)
        if is_defined_here and not isinstance(value, ModuleType) and not name.startswith("_"):
            yield name
    yield from (module.name for module in pkgutil.iter_modules(getattr(above, "__path__", ())))


def _require_arguments(
    key: str, path: str, function: Callable[..., Any], kwargs: Mapping[str, Any]
) -> None:
    signature, keywords = inspect.signature(function), f"{key.rpartition('.')[0]}.kwargs"
    try:
        signature.bind(**kwargs)
        return
    except TypeError as error:
        complaint = str(error)
    names = list_parameters(function) or []
    strange = [name for name in kwargs if name not in names]
    near = nearest(strange[0], names) if strange else None
    raise QuestionError(
        f"{path} cannot be called with {keywords} = {_shown(kwargs)}: {complaint}\n"
        f"allowed: {path.rpartition('.')[2]}({', '.join(names)})"
        + (f"\nnearest: {near}" if near else "")
    )


def _shown(kwargs: Mapping[str, Any]) -> str:
    return f"{{{', '.join(kwargs)}}}" if kwargs else "null"


def _place(error: BaseException) -> str:
    """`file:line` of the innermost line of the user's code, or of all code where none is theirs."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_HERE, "<"))
    ]
    of_user = [frame for frame in frames if not _is_installed(frame.filename)]
    last = (of_user or frames)[-1:]
    return f"{last[0].filename}:{last[0].lineno}" if last else ""


def _is_installed(file: str) -> bool:
    """Whether a file belongs to Python or to an installed package, of any environment."""
    parts = Path(file).parts
    return file.startswith(_INSTALLED) or "site-packages" in parts or "dist-packages" in parts
