"""The floors of the house: imports point strictly down, heavy libraries stay in their rooms.

Holds: __init__.py, docs/architecture.md
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "vgexp"
TESTS = ROOT / "tests"

FLOORS: tuple[frozenset[str], ...] = tuple(
    frozenset(rooms.split())
    for rooms in (
        "cli __main__ integrations",
        "guests fixing",
        "runs sweep",
        "assembly sinks summaries",
        "training report spectra explain",
        "past",
        "models data probe theory diagnosis resuming",
        "activations inits norms skips losses optimizers schedulers clips noise tables checkpoints",
        "metrics watch seeds tasks folders user_code machine",
        "registry config quantities records interrupts lookup location origin files unseen"
        " known_facts",
        "errors torch_internals",
    )
)
"""From the roof down. A room imports rooms of lower floors, and itself, and no other."""

SIBLINGS: frozenset[tuple[str, str]] = frozenset(
    {("config", "registry"), ("__main__", "cli"), ("lookup", "origin")}
)
"""Imports within a floor that are allowed nevertheless."""

TABLE_SIDE = frozenset({"tables", "diagnosis", "past", "report", "explain"})
TORCH_SIDE = frozenset(
    {
        "assembly",
        "training",
        "spectra",
        "models",
        "data",
        "probe",
        "activations",
        "inits",
        "norms",
        "skips",
    }
    | {
        "optimizers",
        "schedulers",
        "clips",
        "noise",
        "metrics",
        "watch",
        "seeds",
        "checkpoints",
        "losses",
        "tasks",
        "user_code",
        "theory",
        "machine",
        "torch_internals",
    }
)

LIBRARIES: dict[str, frozenset[str]] = {
    "hydra": frozenset({"cli"}),
    "omegaconf": frozenset({"cli"}),
    "rich": frozenset({"report", "cli"}),
    "matplotlib": frozenset({"report", "runs"}),
    "pandas": frozenset(
        {
            "tables",
            "diagnosis",
            "past",
            "report",
            "cli.compare",
            "runs",
            "summaries",
            "probe",
            "guests",
        }
    ),
    "torch": TORCH_SIDE | {"summaries", "sinks", "guests", "integrations"},
    "torchvision": frozenset({"data", "models"}),
}
"""Library -> the rooms (or modules) that may import it."""

LATE: frozenset[tuple[str, str]] = frozenset(
    {
        ("runs", "pandas"),
        ("runs", "matplotlib"),
        ("probe", "pandas"),
        ("guests", "pandas"),
        ("sinks", "torch"),
        ("summaries", "torch"),
        ("data", "torchvision"),
        ("models", "torchvision"),
    }
)
"""Imports that may stand in functions only, so that the module itself stays light."""

HEAVY = frozenset(
    {"torch", "numpy", "pandas", "rich", "hydra", "omegaconf", "sklearn", "yaml", "matplotlib"}
)


PRIVATE_NAMES = frozenset({"torch_internals", "cli.hydra_internals", "cli.omegaconf_internals"})
"""The modules that may use private names of other packages, each with its reason and a fallback."""

PYTHONS_NAMES = frozenset({"_replace", "_asdict", "_fields", "_option_string_actions"})
"""Of named tuples, where the underscore keeps a public name apart from fields, and of argparse."""

PRIVATE = re.compile(r"_[^_]\w*")
PRIVATE_PATH = re.compile(r"\b(torch|hydra|omegaconf)(\.\w+)*[. ]_[^_]\w*")
BY_NAME = frozenset({"getattr", "hasattr", "setattr", "delattr"})

HOLDS = "Holds: "
"""Begins the last paragraph at the head of a test file: what that file fails for, separated by
commas. Modules are written from `src/vgexp`, all else from the root of the repository."""

NAMED = re.compile(
    r"\bfrom (vgexp[\w.]*) import (\([^)]*\)|.*)|\bimport (vgexp[\w.]*)|[\"'](vgexp\.[\w.]+)"
)
HELPER = re.compile(r"^(?:from|import) (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Import:
    """One import statement's target, as a dotted name."""

    module: str
    target: str
    late: bool
    typing_only: bool

    @property
    def room(self) -> str:
        return self.module.split(".")[0]


@cache
def modules() -> dict[str, Path]:
    """Dotted name below vgexp -> file; packages by their `__init__.py`, the root as ''."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = list(path.relative_to(SOURCE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(module: str) -> tuple[Import, ...]:
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    return tuple(_walk(module, tree, late=False, typing_only=False))


def _walk(module: str, node: ast.AST, *, late: bool, typing_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        is_typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        for target in _targets(child):
            yield Import(module, target, late, typing_only)
        inner = {"late": late or is_function, "typing_only": typing_only or is_typing}
        yield from _walk(module, child, **inner)


def _targets(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        for alias in node.names:
            inner = f"{node.module}.{alias.name}".removeprefix("vgexp.")
            is_module = str(node.module).startswith("vgexp") and inner in modules()
            yield f"vgexp.{inner}" if is_module else str(node.module)


def all_imports() -> list[Import]:
    return [found for module in modules() if module for found in imports(module)]


def floor(room: str) -> int:
    """Counted from the roof."""
    (number,) = [i for i, rooms in enumerate(FLOORS) if room in rooms]
    return number


def inner_room(target: str) -> str | None:
    """The room of ours that a target lies in; None for libraries and for vgexp itself."""
    parts = target.split(".")
    return parts[1] if parts[0] == "vgexp" and len(parts) > 1 else None


def test_every_room_has_a_floor() -> None:
    rooms = {module.split(".")[0] for module in modules() if module}
    assert rooms <= frozenset().union(*FLOORS), "say in FLOORS where the new room lies"


def test_imports_point_strictly_down() -> None:
    wrong = [
        f"{found.module} -> {found.target}"
        for found in all_imports()
        if (to := inner_room(found.target)) is not None
        and to != found.room
        and (found.room, to) not in SIBLINGS
        and floor(to) <= floor(found.room)
    ]
    assert not wrong


def test_the_table_side_and_the_torch_side_do_not_meet() -> None:
    wrong = [
        f"{found.module} -> {found.target}"
        for found in all_imports()
        for one, other in ((TABLE_SIDE, TORCH_SIDE), (TORCH_SIDE, TABLE_SIDE))
        if found.room in one and inner_room(found.target) in other
    ]
    assert not wrong


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_appears_only_where_the_plan_says(library: str) -> None:
    allowed = LIBRARIES[library]
    wrong = [
        f"{found.module} -> {found.target}"
        for found in all_imports()
        if found.target.split(".")[0] == library
        and found.room not in allowed
        and found.module not in allowed
    ]
    assert not wrong


def test_what_may_be_imported_late_only_is() -> None:
    wrong = [
        f"{found.module} -> {found.target}"
        for found in all_imports()
        if (found.room, found.target.split(".")[0]) in LATE
        and not (found.late or found.typing_only)
    ]
    assert not wrong


@pytest.mark.parametrize("start", ["", "cli.main"])
def test_nothing_heavy_is_reachable_from_the_entry(start: str) -> None:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module in seen or module not in modules():
            continue
        seen.add(module)
        for found in imports(module):
            if found.late or found.typing_only:
                continue
            top = found.target.split(".")[0]
            assert top not in HEAVY, f"{module} imports {found.target}"
            if top == "vgexp":
                parts = found.target.split(".")[1:]
                waiting += [".".join(parts[:i]) for i in range(1, len(parts) + 1)]
    assert start in seen


@pytest.mark.parametrize(
    ("argv", "absent"),
    [
        (["--help"], {"torch", "pandas", "numpy", "rich", "hydra", "omegaconf", "sklearn"}),
        (["train", "--help"], {"torch", "pandas", "numpy", "rich", "sklearn"}),
        (["list", "optimizers"], {"torch", "pandas", "numpy", "hydra"}),
    ],
)
def test_help_imports_nothing_heavy(argv: list[str], absent: set[str]) -> None:
    code = (
        "import sys; from vgexp.cli.main import main; "
        f"code = main({argv!r}); "
        f"loaded = sorted({absent!r} & set(sys.modules)); "
        "sys.exit(f'loaded: {loaded}' if loaded or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_stub_of_the_package_has_the_names_that_it_hands_out() -> None:
    stub = ast.parse((SOURCE / "__init__.pyi").read_text(encoding="utf-8"))
    imported = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.asname: node.module for node in imported for alias in node.names}
    import vgexp

    assert homes == {**vgexp._HOMES, **dict.fromkeys(vgexp._PACKAGES, "vgexp")}
    assert {*homes, "__version__"} == set(vgexp.__all__)


@cache
def walked(tree: ast.AST) -> tuple[ast.AST, ...]:
    """The nodes of a tree, looked for once."""
    return tuple(ast.walk(tree))


@cache
def own_names(tree: ast.AST) -> set[str]:
    """Private names that a module defines: functions, classes, variables, attributes of `self`."""
    found = set()
    for node in walked(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and of_self(node):
            found.add(node.attr)
    return {name for name in found if PRIVATE.fullmatch(name)}


def of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def others_names(tree: ast.AST, inherited: set[str]) -> list[str]:
    """Private names of other packages that a module uses.

    An attribute of `self` may be defined in any module of ours, another attribute in this one only.
    """
    own = own_names(tree) | PYTHONS_NAMES
    known = own | inherited
    texts = [node.value for node in walked(tree) if isinstance(node, ast.Expr)]
    found = []
    for node in walked(tree):
        if isinstance(node, ast.Attribute) and PRIVATE.fullmatch(node.attr):
            if node.attr not in (known if of_self(node) else own):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Import):
            found += [each.name for each in node.names if "._" in each.name]
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            parts = [*str(node.module).split("."), *(each.name for each in node.names)]
            if any(PRIVATE.fullmatch(part) for part in parts) and parts[0] != "hydra_plugins":
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if PRIVATE_PATH.search(node.value) and node not in texts:
                found.append(repr(node.value))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.args[1] if node.func.id in BY_NAME and len(node.args) > 1 else None
            if isinstance(name, ast.Constant) and PRIVATE.fullmatch(str(name.value)):
                found.append(ast.unparse(node))
    return found


@cache
def all_trees() -> dict[str, ast.AST]:
    paths = {**modules(), "hydra_plugins": ROOT / "src" / "hydra_plugins" / "_vgexp.py"}
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in paths.items()}


def test_private_names_of_other_packages_stand_in_modules_for_them_only() -> None:
    inherited = set().union(*map(own_names, all_trees().values()))
    wrong = {name: others_names(tree, inherited) for name, tree in all_trees().items()}
    assert {name for name, found in wrong.items() if found} == PRIVATE_NAMES, wrong


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch._C",
        "def f(x):\n    return x._version",
        "optimizer._opt_called = True",
        "class M(nn.Module):\n    def f(self):\n        return self._buffers",
        "from torch.nn.modules.conv import _ConvNd",
        "from hydra._internal.utils import run_and_report",
        "import hydra._internal.utils",
        "NAME = 'hydra._internal.core_plugins.basic_sweeper.BasicSweeper'",
        "NAMES = {'torch._utils _rebuild_tensor_v2': 1}",
        "f = getattr(scaler, '_scale', None)",
    ],
)
def test_a_private_name_of_another_package_is_found(code: str) -> None:
    assert others_names(ast.parse(code), set())


@pytest.mark.parametrize(
    "code",
    [
        "class A:\n    def f(self, b):\n        self._x = b._x",
        "row = row._replace(step=1)",
        "def f(x):\n    return x.__dict__",
        '"""It never imports torch._dynamo."""',
    ],
)
def test_a_private_name_of_our_own_is_allowed(code: str) -> None:
    assert others_names(ast.parse(code), set()) == []


def held(text: str) -> list[str]:
    """What a test file says at its head that it holds; nothing where it does not say."""
    head = text.removeprefix('"""').split('"""')[0] if text.startswith('"""') else ""
    last = head.strip().split("\n\n")[-1]
    return re.split(r",\s+", last.removeprefix(HOLDS)) if last.startswith(HOLDS) else []


@cache
def holders() -> dict[Path, list[str]]:
    """Test file -> what it holds."""
    return {path: held(path.read_text(encoding="utf-8")) for path in TESTS.rglob("test_*.py")}


def has_code(tree: ast.Module) -> bool:
    """Whether a module does more than import."""
    return not all(
        isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets) == "__all__")
        for node in tree.body
    )


@cache
def named(path: Path) -> frozenset[str]:
    """The modules of vgexp that a file imports, or names in a string, as written in `modules`.

    What a package imports by itself counts as named: all of it (`import_modules`), or one of its
    modules (`f"vgexp.cli.{verb}"`). A test file names what its modules of `support` do.
    """
    text = path.read_text(encoding="utf-8")
    found = {name for groups in NAMED.findall(text) for name in dotted(*groups)}
    if "import_modules(__name__" in text:
        found |= {module for module in modules() if modules()[module].is_relative_to(path.parent)}
    if '"-m", "vgexp"' in text:
        found.add("__main__")
    for helper in HELPER.findall(text) if path.is_relative_to(TESTS) else ():
        support = TESTS / "support" / f"{helper}.py"
        found |= named(support) if support.exists() else set()
    return frozenset(found)


def dotted(package: str, names: str, whole: str, quoted: str) -> Iterator[str]:
    """The modules in one match of `NAMED`, with the packages that they lie in, but vgexp itself."""
    names = re.sub(r"#.*| as \w+", "", names)
    for name in re.findall(r"[\w*]+", names) if package else [whole or quoted]:
        full = f"{package}.{name}" if package else name
        parts = full.split(".")[1:]
        if parts and not parts[-1]:
            yield from (inside for inside in modules() if inside.startswith(".".join(parts)))
        packages = {".".join(parts[:i]) for i in range(1, len(parts) + 1)} if parts else {""}
        yield from packages & set(modules())


def reached(path: Path) -> set[str]:
    """The modules that a test file names, and those that these name, and so on."""
    seen: set[str] = set()
    waiting = [*named(path)]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += named(modules()[module])
    return seen


def test_every_test_file_says_what_it_holds() -> None:
    silent = [str(path.relative_to(TESTS)) for path, names in holders().items() if not names]
    assert not silent, f"end the head of each with a paragraph: {HOLDS}ROOM/MODULE.py, ..."


def test_every_module_with_code_is_held_by_a_test_file() -> None:
    names = {name for held_here in holders().values() for name in held_here}
    trees = all_trees()
    needed = {
        path.relative_to(SOURCE).as_posix() for m, path in modules().items() if has_code(trees[m])
    }
    without = sorted(needed - names)
    assert not without, f"say after {HOLDS!r} at the head of a test file that it holds them"


def test_what_is_held_is_there_and_is_reached_by_the_test_file() -> None:
    by_file = {path.relative_to(SOURCE).as_posix(): module for module, path in modules().items()}
    for path, names in holders().items():
        away = {name for name in names if name not in by_file and not (ROOT / name).exists()}
        assert not away, f"{path.name} holds what is not there"
        modules_held = {by_file[name] for name in names if name in by_file}
        assert modules_held <= reached(path), f"{path.name} imports nothing that imports them"
        assert len(names) == len(set(names)), f"{path.name} names one of them twice"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"""Clips.\n\nHolds: clips.py\n"""\n', ["clips.py"]),
        ('"""Clips.\n\nHolds: a.py, b/c.py,\nd.py\n"""\n', ["a.py", "b/c.py", "d.py"]),
        ('"""Clips.\n\nHolds: clips.py\n\nAxes: B examples.\n"""\n', []),
        ('"""Clips."""\n\nHolds: clips.py\n', []),
        ("import vgexp\n", []),
    ],
)
def test_the_head_of_a_test_file_is_read(text: str, expected: list[str]) -> None:
    assert held(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from vgexp import clips, inits as i", {"clips", "inits"}),
        ("from vgexp.clips import (\n    build,  # a note\n    Clip,\n)", {"clips"}),
        ("    import vgexp.cli.main", {"cli", "cli.main"}),
        ("import vgexp", {""}),
        ("from vgexp.config.data import *", {"config", "config.data"}),
        ('"vgexp.cli.logs.RegularFileHandler"', {"cli", "cli.logs"}),
        ("# vgexp.clips", set()),
    ],
)
def test_the_modules_that_a_file_names_are_found(
    text: str, expected: set[str], tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_text(text, encoding="utf-8")
    assert named(tmp_path / "a.py") == expected


def test_a_package_that_imports_by_itself_names_its_modules() -> None:
    assert "models.cnn" in named(modules()["models"])
    assert "cli.show" in named(modules()["cli.verbs"])
    assert "report.grid" not in reached(TESTS / "test_clips.py")
