"""Files that changed on the disk, files that somebody made with intent, and names that bite."""

from __future__ import annotations

import csv
import itertools
import json
import os
import pickle
import random
import re
import shutil
import signal
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from fault_cases.children import EXACT, Result, contents, forked, is_one_block, said_by, train

FILES = (
    *("checkpoint.pt", "checkpoint.previous.pt", "config.yaml", "summary.json"),
    *("layers.csv", "steps.csv", "evals.csv", "timing.csv"),
)
_STEPS = 30
_OVERRIDES = (f"train.steps={_STEPS}", "train.eval_every=10", "run.checkpoint_every=7")
_OVERRIDES += ("optimizer=momentum", "output.quiet=true", "probe.every=6", "output.figures=false")
NAMES = (
    *("[red]x[/red]", "\x1b[31mred", "\x1b]0;title\x07", "a\nb", "a\rb", "\u202egnp", 'say "a, b"'),
    *("-rf", "=1+1", "$(touch executed)", "caf\u00e9", "\udcff"),
)
"""Names of folders: markup, escapes, line ends, writing from right to left, what shells obey."""


def damaged(work: Path, rng: random.Random, num_cases: int) -> list[Result]:
    """Bytes changed, lost and added anywhere in a run's folder. Use it in a fork.

    The cases are the same on every machine and at every speed: each has random numbers of its own,
    damages a file at a share of its length, and finds the same times in the tables.
    """
    stopped, whole = two_runs(work)
    expected, seed = contents(whole), rng.random()
    resumed, shown = Result("damaged files, resumed"), Result("damaged files, loaded and compared")
    seen = Counter[str]()
    for index in range(num_cases):
        name = FILES[index % len(FILES)]
        what = f"{index} {name}"
        rng = random.Random(f"{seed} {index}")
        folder = work / "damaged"
        shutil.copytree(stopped, folder)
        intact = (folder / name).read_bytes()
        (folder / name).write_bytes(_damage(intact, rng))
        code, words = said_by(["resume", str(folder)])
        resumed.num_cases += 1
        ending = _judge(folder, code, words, expected, resumed, what)
        seen[ending] += 1
        if ending == "refused" and rng.random() < 0.2:
            (folder / name).write_bytes(intact)
            code, words = said_by(["resume", str(folder)])
            is_right = code == 0 and contents(folder) == expected
            resumed.require(is_right, f"{what}: refused, and then something was lost: {words}")
        shutil.rmtree(folder)
        _shown(whole, name, rng, work, shown, what)
    resumed.note = ", ".join(f"{count} {ending}" for ending, count in sorted(seen.items()))
    return [resumed, shown]


def two_runs(work: Path) -> tuple[Path, Path]:
    """A run whose process was killed between its last checkpoint and its end, and a whole one.

    Their files hold no time that was measured, no number of a process and no name of the folder
    above them.
    """
    stopped, whole = work / "stopped", work / "whole"
    child = forked(train(_OVERRIDES, whole), work / "said", _count_time)
    child.wait()
    assert child.code == 0, child.words
    child = forked(
        train([*_OVERRIDES, "probe.layers=null"], stopped), work / "said", _killed_at(_STEPS - 1)
    )
    child.wait()
    assert child.code == -signal.SIGKILL, child.words
    (stopped / "summary.json").write_text(json.dumps({"status": "interrupted", "steps": 28}))
    for path in (stopped / "config.yaml", whole / "config.yaml", whole / "summary.json"):
        text = path.read_text().replace(str(work), "work")
        path.write_text(re.sub(r'("process": )\d+', r"\g<1>1", text))
    return stopped, whole


def _count_time() -> None:
    """Has a clock that goes on by a millisecond each time that somebody looks at it."""
    numbers = itertools.count()
    time.perf_counter = lambda: next(numbers) / 1000


def _killed_at(step: int) -> Any:
    def begin() -> None:
        _count_time()
        from vgexp.sinks.csv_files import CsvFiles

        write = CsvFiles.__call__

        def written(self: CsvFiles, rows: Any) -> None:
            write(self, rows)
            if rows.table == "steps" and step in rows.columns["step"]:
                os.kill(os.getpid(), signal.SIGKILL)

        CsvFiles.__call__ = written  # type: ignore[method-assign]

    return begin


def _damage(content: bytes, rng: random.Random) -> bytes:
    """The content with something wrong."""
    place = int(rng.random() * (len(content) + 1))
    end = min(len(content), place + rng.choice((1, 1, 1, 4, 100, 4096)))
    kind = rng.choice(("flip", "flip", "digit", "insert", "delete", "zero", "cut", "add", "twice"))
    piece = content[place:end]
    if kind == "cut":
        return content[:place]
    if kind == "add":
        return content + rng.randbytes(rng.randrange(1, 200))
    if kind == "digit":
        digits = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
        place = digits[int(rng.random() * len(digits))]
        return content[:place] + str(rng.randrange(10)).encode() + content[place + 1 :]
    new = {
        "flip": bytes(byte ^ (1 << rng.randrange(8)) for byte in piece),
        "insert": rng.randbytes(rng.randrange(1, 20)) + piece,
        "delete": b"",
        "zero": bytes(len(piece)),
        "twice": piece + piece,
    }[kind]
    return content[:place] + new + content[end:]


def _judge(
    folder: Path, code: int, words: str, expected: dict[str, bytes], r: Result, what: str
) -> str:
    if code == 2:
        r.require(is_one_block(words), f"{what}: said {words!r}")
        return "refused"
    is_right = code == 0 and contents(folder) == expected
    if not is_right and "has ended" in words:
        r.require(False, f"{what}: taken for a run that has ended")
    r.require(is_right, f"{what}: ended with {code}, or other tables: {words[-400:]}")
    return "the right tables"


def _shown(
    whole: Path, name: str, rng: random.Random, work: Path, result: Result, what: str
) -> None:
    """What reads a damaged folder shows it, or says in one block what is wrong."""
    import vgexp
    from vgexp.errors import QuestionError

    folder = work / "shown"
    shutil.copytree(whole, folder)
    (folder / name).write_bytes(_damage((folder / name).read_bytes(), rng))
    for argv in (["compare", str(folder)], ["compare", str(folder), "--layers"]):
        code, words = said_by(argv)
        is_well = code == 0 or (code == 2 and is_one_block(words))
        result.require(is_well, f"{what}: {argv[0]} ended with {code}: {words[-400:]}")
        result.require(_is_plain(words), f"{what}: control characters in {words!r}")
        result.num_cases += 1
    try:
        run = vgexp.load(folder)
        assert len(run.layers) >= 0
        assert len(run.steps) >= 0
        assert len(run.evals) >= 0
        assert run.summary is not None
        assert run.config is not None
    except QuestionError:
        pass
    except Exception as error:
        result.require(False, f"{what}: vgexp.load raised {error!r}")
    result.num_cases += 1
    shutil.rmtree(folder)


def _is_plain(words: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in words)


# ---------------------------------------------------------------- made with intent


def hostile(work: Path, every: int = 1) -> Result:
    """Files that would run something if anything in them were run. Use it in a fork.

    Args:
        every: 3 tries every third file.
    """
    result = Result("files made to execute something, or to choke on")
    whole = two_runs(work)[1]
    mark = work / "executed"
    sys.path.insert(0, _with_evil(work, mark))
    for name, content in islice(_hostile_files(whole, mark), 0, None, every):
        for ended in (False, True):
            folder = work / "hostile"
            shutil.copytree(whole, folder)
            if not ended:
                (folder / "summary.json").unlink()
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_bytes(content)
            for argv in (["resume"], ["compare"], ["compare", "--layers", "delta_rms"]):
                code, words = said_by([argv[0], str(folder), *argv[1:]])
                what = f"{argv[0]} with {name} {content[:40]!r}"
                is_well = code == 0 or (code == 2 and is_one_block(words))
                result.require(is_well, f"{what}: ended with {code}: {words[-300:]}")
                result.require(_is_plain(words), f"{what}: control characters in {words!r}")
                result.require(not mark.exists(), f"{what}: something was executed")
                mark.unlink(missing_ok=True)
                result.num_cases += 1
            shutil.rmtree(folder)
    sys.path.remove(str(work))
    return result


def planted(work: Path, every: int = 1) -> Result:
    """Links, named pipes, devices and folders under the names of a run's files.

    Use it in a fork, in a folder where `two_runs` were made.

    Args:
        every: 3 tries every third.
    """
    result = Result("links, pipes and folders in the place of files")
    stopped, whole = work / "stopped", work / "whole"
    victim = work / "victim"
    victim.write_text("not a file of the run\n" * 100)
    names = (*FILES, "histograms.csv", "train.log", "figures", ".hydra", ".checkpoint.pt.new")
    cases = ((name, kind, base) for base in (stopped, whole) for name in names for kind in _KINDS)
    for name, kind, base in islice(cases, 0, None, every):
        folder, what = work / "planted", f"{kind} as {name}"
        shutil.copytree(base, folder)
        _plant(folder / name, kind, victim)
        before, of_victim = _names_of(folder), victim.read_bytes()
        for argv in (["resume"], ["show"], ["compare"], ["compare", "--layers"]):
            code, words = said_by([argv[0], str(folder), *argv[1:]])
            is_well = code == 0 or (code == 2 and is_one_block(words))
            result.require(is_well, f"{argv[0]} with {what}: ended with {code}: {words[-300:]}")
            result.require(
                victim.read_bytes() == of_victim, f"{argv[0]} with {what}: it was written"
            )
            if argv == ["resume"] and code == 2:
                result.require(_names_of(folder) == before, f"{what}: refused, and changed")
            result.num_cases += 1
        shutil.rmtree(folder)
    return result


_KINDS: dict[str, Callable[[Path, Path], object]] = {
    "a link": lambda name, victim: name.symlink_to(victim),
    "a link to nowhere": lambda name, victim: name.symlink_to(victim.with_name("nowhere")),
    "a link to a device": lambda name, _: name.symlink_to("/dev/zero"),
    "a named pipe": lambda name, _: os.mkfifo(name),
    "a folder": lambda name, _: (name / "inside").mkdir(parents=True),
}
"""What is put under a name -> how."""


def _plant(name: Path, kind: str, victim: Path) -> None:
    if name.is_dir():
        shutil.rmtree(name)
    name.unlink(missing_ok=True)
    _KINDS[kind](name, victim)


def _names_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Name -> what kind of thing it is, and how long."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {str(path): (state.st_mode, state.st_size) for path, state in found.items()}


def _with_evil(work: Path, mark: Path) -> str:
    """The folder, with a module in it that leaves a mark where it is imported or called."""
    (work / "evil.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
        f"def run(*_, **__):\n    Path({str(mark)!r}).touch()\n"
    )
    return str(work)


class _Malice:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.mark}'",)


def _hostile_files(whole: Path, mark: Path) -> Iterator[tuple[str, bytes]]:
    import torch

    yield "checkpoint.pt", pickle.dumps(_Malice(mark))
    torch.save({"format": 2, "state": _Malice(mark)}, whole.parent / "malice.pt")
    yield "checkpoint.pt", (whole.parent / "malice.pt").read_bytes()
    with zipfile.ZipFile(whole.parent / "malice.zip", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Malice(mark)))
        archive.writestr("archive/version", "3\n")
    yield "checkpoint.pt", (whole.parent / "malice.zip").read_bytes()
    yield from (("checkpoint.pt", content) for content in _hostile_checkpoints(whole))
    config = (whole / "config.yaml").read_text()
    touch = f"touch '{mark}'"
    for line in (
        f'seed: !!python/object/apply:os.system ["{touch}"]',
        f'_target_: os.system\ncommand: "{touch}"',
        f'target: os.system\nkwargs: {{command: "{touch}"}}',
        f'hydra: {{callbacks: {{a: {{_target_: os.system, command: "{touch}"}}}}}}',
        "seed: ${oc.env:HOME}",
        "seed: !!int x",
        "seed: 2001-99-99",
        "seed: " + "[" * 10_000,
        "seed: " + "9" * 5_000,
        "\x1b[31m: [red]",
        'dtype: "\\e[31m\\a\\u202e[red]"',
    ):
        yield "config.yaml", f"{config}\n{line}\n".encode()
        yield "config.yaml", config.replace("seed: 0", line).encode()
    for key in ("activation", "init", "norm", "loss"):
        yield "config.yaml", re.sub(rf"(?m)^  {key}: .*$", f"  {key}: evil.run", config).encode()
    for group in ("model", "data"):
        custom = re.sub(rf"(?m)^- {group}: .*$", f"- {group}: custom", config)
        for value in ("os.system", "evil.run", "evil", "&a [*a]", "[" * 1_000):
            keys = f'{group}: {{target: {value}, kwargs: {{command: "{touch}"}}}}'
            yield "config.yaml", re.sub(rf"(?m)^{group}:\n(  .*\n)*", f"{keys}\n", custom).encode()
        endless = f"{group}: {{target: evil.run, kwargs: &a {{a: *a}}}}"
        yield "config.yaml", re.sub(rf"(?m)^{group}:\n(  .*\n)*", f"{endless}\n", custom).encode()
    for value in (
        "[" * 10_000,
        "9" * 5_000,
        "1e999",
        '{"a": [{}]}',
        '"\\u001b[31m\\u202e"',
        "null",
    ):
        for key in ("status", "verdict", "reason", "attenuation", "loss_last_mean_20"):
            yield "summary.json", f'{{"status": "failed", "{key}": {value}}}'.encode()
    for table in EXACT:
        yield table, b"\0" * 100
        yield table, b'"' * 200_000
        yield table, (whole / table).read_bytes() + b"9" * 5_000 + b"\n"
        head, _, rest = (whole / table).read_bytes().partition(b"\n")
        yield table, head + b"\n" + rest.replace(b"0,", b"9" * 30 + b",", 1)


def _hostile_checkpoints(whole: Path) -> Iterator[bytes]:
    """Checkpoints that would take all time or memory, or hold what no run has."""
    import torch

    from vgexp import checkpoints

    good = vars(checkpoints.load(whole / checkpoints.NEWEST))
    path = whole.parent / "made.pt"
    itself: list[Any] = []
    itself.append(itself)
    shared: list[Any] = []
    for _ in range(40):
        shared = [shared, shared]
    states = (torch.zeros(1).expand(10**13), torch.eye(3).to_sparse(), itself, shared)
    for state in (*states, torch.zeros(10**13, device="meta")):
        torch.save({"format": 2, "digest": "0" * 64, **good, "state": {"x": state}}, path)
        yield path.read_bytes()
    odd: tuple[dict[str, Any], ...] = (
        *({"tables": value} for value in ([1], {"layers": (1, 2, 3)}, {"layers": "x"}, None)),
        *({"state": {**good["state"], **value}} for value in ({"seconds": "x"}, {"training": 1})),
        *({"step": "x"}, {"versions": 1}),
    )
    for parts in odd:
        content = {**good, **parts}
        torch.save({"format": 2, "digest": checkpoints.digest(content), **content}, path)
        yield path.read_bytes()
    for pickled in (b"N" * 200_000_000, b"\x80\x02]r\xff\xff\xff\xff.", b"(" * 1000):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", pickled)
        yield path.read_bytes()


def names(work: Path) -> Result:
    """Names that a terminal, a table or a shell would obey. Use it in a fork."""
    result = Result("names that a terminal, a table or a shell obeys")
    whole = work / "whole"
    many = work / "many"
    for index, name in enumerate(NAMES):
        with suppress(OSError, UnicodeError):
            shutil.copytree(whole, many / name)
            if index % 2:
                told = {"status": "failed", "reason": name, "verdict": name}
                (many / name / "summary.json").write_text(json.dumps(told))
    table = work / "table.csv"
    for argv in (
        ["compare", str(many), "--csv", str(table)],
        ["compare", str(many), "--layers"],
        ["resume", str(many)],
        *(["resume", str(many / name)] for name in NAMES),
        *(["compare", str(many / f"{name}x")] for name in NAMES),
        *(["train", f"model.activation={name}"] for name in NAMES),
        *(["train", f"+experiment={name}"] for name in NAMES),
        *(["list", name] for name in NAMES),
        *([name] for name in NAMES),
        ["list", "experiments"],
    ):
        _, words = said_by(argv)
        result.num_cases += 1
        result.require(_is_plain(words), f"{argv}: control characters in {words!r}")
        result.require("Traceback" not in words, f"{argv}: {words[-500:]}")
        if argv[-1] == str(table):
            with table.open(newline="", encoding="utf-8") as file:
                widths = {len(row) for row in csv.reader(file)}
            result.require(len(widths) == 1, f"rows of {widths} cells in the CSV of compare")
    return result
