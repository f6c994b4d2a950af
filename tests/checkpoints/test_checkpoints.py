"""Checkpoints that no vgexp wrote are unusable, soon and in little memory, and the run goes on.

Holds: checkpoints/archives.py, checkpoints/likeness.py, checkpoints/pieces.py, checkpoints/saved.py
"""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import vgexp
from vgexp import checkpoints, config, folders
from vgexp.checkpoints import Checkpoint, UnusableError, archives, pieces
from vgexp.checkpoints.likeness import require_like
from vgexp.cli import main
from vgexp.errors import QuestionError

SMALL = config.Config(
    model=config.MlpConfig(depth=2, width=8, norm="batch"),
    data=config.GaussianConfig(num_examples=64, batch_size=8),
    optimizer=config.AdamConfig(),
    train=config.TrainConfig(steps=12),
    run=config.RunConfig(checkpoint_every=4),
    output=config.OutputConfig(quiet=True),
)
EXACT = ("layers.csv", "steps.csv", "evals.csv")
pytestmark = pytest.mark.usefixtures("nothing_hangs")

GOOD = Checkpoint(3, {"x": torch.zeros(3)}, {"layers": (10, 1)}, {"seed": 1}, {"vgexp": "1"})
STEPS = torch.arange(3.0)
PICKLE = "archive/data.pkl"


def write(path: Path, digest: str | None = None, **parts: Any) -> None:
    """A file of `torch.save` as a checkpoint is, with parts of it replaced.

    Args:
        digest: what it says its sum is; None: the right one.
    """
    content = {**vars(GOOD), **parts}
    told = checkpoints.digest(content) if digest is None else digest
    torch.save({"format": checkpoints.FORMAT, "digest": told, **content}, path)


def write_archive(path: Path, pickle: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """An archive with this pickle."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(PICKLE, pickle)


def _holding_itself() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def _doubled(times: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(times):
        found = [found, found]
    return found


STATES: dict[str, tuple[Callable[[], Any], str]] = {
    "40 TB by expanding": (lambda: torch.zeros(1).expand(10**13), "more elements than are stored"),
    "many expanded": (
        lambda: {i: torch.zeros(1).expand(2**24 - i) for i in range(1000)},
        "more elements than are stored",
    ),
    "sparse": (lambda: torch.eye(3).to_sparse(), "_rebuild_sparse_tensor"),
    "compressed rows": (lambda: torch.eye(3).to_sparse_csr(), "_rebuild_sparse_tensor"),
    "meta": (lambda: torch.zeros(10**13, device="meta"), "_rebuild_meta_tensor"),
    "quantized": (
        lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
        "_rebuild_qtensor",
    ),
    "a list that holds itself": (_holding_itself, "deep in one another"),
    "2^40 lists": (lambda: _doubled(40), "values"),
    "bytes": (lambda: b"abc", "_codecs.encode"),
    "a set": (lambda: {1}, "set"),
    "a type": (lambda: torch.float32, "dtype"),
    "a key that is a tuple": (lambda: {(1,): 1}, "a key"),
}
"""What a state holds -> how it is made, and part of the reason."""


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.filterwarnings("ignore:.*quantiz.*:UserWarning", "ignore:.*torch.ao.*")
@pytest.mark.filterwarnings("ignore:.*quantiz.*:DeprecationWarning")
@pytest.mark.parametrize("name", STATES)
def test_a_state_that_no_run_has_is_unusable(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "_MOST_PIECES", 100_000)
    monkeypatch.setattr(pieces, "_MOST_REPEATED_BYTES", 2**26)
    make, reason = STATES[name]
    write(tmp_path / "a.pt", digest="0" * 64, state={"x": make()})
    with pytest.raises(UnusableError, match=reason):
        checkpoints.load(tmp_path / "a.pt")


PARTS: dict[str, dict[str, Any]] = {
    "tables that are a list": {"tables": [1]},
    "three numbers of a table": {"tables": {"layers": (1, 2, 3)}},
    "fewer bytes than none": {"tables": {"layers": (-1, 2)}},
    "more bytes than there are": {"tables": {"layers": (2**70, 2)}},
    "texts of a table": {"tables": {"layers": ("1", "2")}},
    "a step that is a text": {"step": "x"},
    "a step before the first": {"step": -1},
    "a state that is a number": {"state": 3},
    "a state whose names are numbers": {"state": {1: 2}},
    "a configuration that is a text": {"config": "x"},
    "versions that are numbers": {"versions": {"vgexp": 1}},
    "a further part": {"further": 1},
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_a_wrong_type_is_unusable_though_the_sum_is_right(
    name: str, tmp_path: Path
) -> None:
    write(tmp_path / "a.pt", **PARTS[name])
    with pytest.raises(UnusableError, match="it holds something else"):
        checkpoints.load(tmp_path / "a.pt")


PICKLES: dict[str, tuple[bytes, str]] = {
    "no pickle": (b"", "cut short"),
    "no value": (b"\x80\x02.", "cut short"),
    "no list to add to": (b"\x80\x02N]e.", "cut short"),
    "a list as a key": (b"\x80\x02}]Ns.", "a key"),
    "a number whose hash others have": (b"\x80\x02}\x8a\x08" + b"\x7f" * 8 + b"Ns.", "a key"),
    "memory for the asking": (
        b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        "bytearray",
    ),
    "a call": (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "os.system"),
    "a storage that is called": (b"\x80\x02ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85R.", "else"),
    "a dict that is filled by a call": (b"\x80\x02ccollections\nOrderedDict\n]\x85R.", "else"),
    "attributes of a list": (b"\x80\x02]}b.", "else"),
    "another instruction": (b"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00N.", "else"),
    "a far place to remember": (b"\x80\x02]r\xff\xff\xff\xff.", "something else"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_that_asks_for_something_else_is_unusable(name: str, tmp_path: Path) -> None:
    pickle, reason = PICKLES[name]
    write_archive(tmp_path / "a.pt", pickle)
    with pytest.raises(UnusableError, match=reason):
        checkpoints.load(tmp_path / "a.pt")


def test_an_archive_that_unpacks_to_more_than_it_is_is_not_unpacked(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.pt", b"N" * 10_000_000, zipfile.ZIP_DEFLATED)
    assert (tmp_path / "a.pt").stat().st_size < 20_000
    with pytest.raises(UnusableError, match="compressed"):
        checkpoints.load(tmp_path / "a.pt")


def test_records_that_lie_over_one_another_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr(PICKLE, b"N" * 1000)
        for number in range(10):  # the same bytes once more, under a name of its own
            record = archive.infolist()[0]
            again = zipfile.ZipInfo(f"archive/data/{number}")
            for key in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(again, key, getattr(record, key))
            archive.filelist.append(again)
    with pytest.raises(UnusableError, match="longer when unpacked"):
        checkpoints.load(tmp_path / "a.pt")


@pytest.mark.parametrize("limit", ["_MOST_PICKLE_BYTES", "_MOST_INSTRUCTIONS"])
def test_a_pickle_without_end_is_not_read_to_its_end(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, limit, 1000)
    write_archive(tmp_path / "a.pt", b"\x80\x02" + b"N" * 2000 + b".")
    with pytest.raises(UnusableError, match="more values than any checkpoint"):
        checkpoints.load(tmp_path / "a.pt")


def test_a_storage_is_as_long_as_its_record_and_a_tensor_within_its_storage(tmp_path: Path) -> None:
    """Else a tensor would show memory that lies beyond it."""
    write(tmp_path / "a.pt", state={"x": torch.zeros(4, 5)})
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in records if name.endswith("data.pkl"))
    long = b"J" + (10**6).to_bytes(4, "little")
    for place, reason in ((b"K\x14tq", "another size"), (b"K\x04K\x05\x86", "beyond its storage")):
        assert records[name].count(place) == 1
        forged = records[name].replace(place, place.replace(place[:2], long, 1))
        with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
            for record, content in records.items():
                archive.writestr(record, forged if record == name else content)
        with pytest.raises(UnusableError, match=reason):
            checkpoints.load(tmp_path / "b.pt")


def test_numbers_in_another_order_of_bytes_are_not_taken_for_this_machine_s(tmp_path: Path) -> None:
    """The sum, which is of bytes as they lie in memory, is the same there and here."""
    write(tmp_path / "a.pt")
    other = {"little": "big", "big": "little"}[sys.byteorder].encode()
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in records if name.endswith("/byteorder"))
    assert records[name].decode() == sys.byteorder
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        for record, content in {**records, name: other}.items():
            archive.writestr(record, content)
    with pytest.raises(UnusableError, match="another order of bytes"):
        checkpoints.load(tmp_path / "b.pt")


def test_a_file_longer_than_any_of_this_run_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.pt").touch()
    os.truncate(tmp_path / "a.pt", 2**40)
    with pytest.raises(UnusableError, match="1,099,511,627,776 bytes, this run's at most 1,000"):
        checkpoints.load(tmp_path / "a.pt", most_bytes=1000)


# ---------------------------------------------------------------- what a run does with them


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    vgexp.run(SMALL, folder)
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A run that did not come to its end."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "summary.json").unlink()
    return folder


def require_equal(folder: Path, whole: Path) -> None:
    """Requires the same tables."""
    for name in EXACT:
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def changed(found: Checkpoint, change: Callable[[dict[str, Any]], object]) -> Checkpoint:
    """The checkpoint with another state."""
    state = dict(found.state)
    state["training"] = dict(state["training"])
    change(state)
    return Checkpoint(**{**vars(found), "state": state})


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no training": lambda s: s.pop("training"),
    "seconds that are a text": lambda s: s.update(seconds="x"),
    "seconds that are a list": lambda s: s.update(seconds=[1]),
    "a step that is a text": lambda s: s["training"].update(step="x"),
    "a step that is a tensor": lambda s: s["training"].update(step=torch.zeros(1)),
    "a model that is a list": lambda s: s["training"].update(model=[]),
    "a model without weights": lambda s: s["training"].update(model={}),
    "weights of another type": lambda s: s["training"].update(
        model={name: value.double() for name, value in s["training"]["model"].items()}
    ),
    "a generator that is a text": lambda s: s["training"].update(stream=["x"]),
    "a generator that is short": lambda s: s["training"].update(
        stream=[torch.zeros(3, dtype=torch.uint8)]
    ),
    "a generator too many": lambda s: s["training"].update(stream=2 * s["training"]["stream"]),
    "an order of data that is empty": lambda s: s["training"].update(batches={}),
    "an optimizer without groups": lambda s: s["training"].update(
        optimizer={"state": {}, "param_groups": []}
    ),
    "a schedule that is a number": lambda s: s["training"].update(schedule=1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_state_of_another_form_is_unusable_and_the_one_before_is_taken(
    name: str, run: Path, whole: Path
) -> None:
    good = checkpoints.load(run / checkpoints.NEWEST)
    checkpoints.save(run, changed(good, CHANGES[name]))
    said: list[str] = []
    vgexp.resume(run, said.append)
    assert said[0].startswith("checkpoint.pt is of no use: its state")
    assert said[0].endswith(f"going on from step {good.step}")
    require_equal(run, whole)


def test_without_any_of_use_the_run_begins_anew(
    run: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(run / checkpoints.NEWEST, digest="0" * 64, state={"x": torch.zeros(1).expand(10**13)})
    write_archive(run / checkpoints.PREVIOUS, b"N" * 10_000_000, zipfile.ZIP_DEFLATED)
    assert main.main(["resume", str(run)]) == 0
    said = capsys.readouterr().err
    assert "checkpoint.pt is of no use: its tensors have more elements than are stored" in said
    assert "checkpoint.previous.pt is of no use: it is compressed" in said
    assert "going on from the beginning" in said
    require_equal(run, whole)


# ---------------------------------------------------------------- and what vgexp wrote


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool),
        *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16),
        *(torch.complex64, torch.complex128, torch.float8_e5m2),
    ],
)
def test_tensors_of_every_type_come_back_as_they_were(dtype: torch.dtype, tmp_path: Path) -> None:
    whole = torch.arange(24, dtype=torch.float64).reshape(2, 3, 4).to(dtype)
    views = {"whole": whole, "turned": whole.mT, "row": whole[1, 2], "one": whole[1, 2, 3]}
    views |= {"none": whole[:0], "far": whole[:, 1:, ::2], "expanded": whole[0, 0].expand(5, 4)}
    checkpoints.save(tmp_path, Checkpoint(1, views, {}, {}, {}))
    found = checkpoints.load(tmp_path / checkpoints.NEWEST).state
    for name, view in views.items():
        assert found[name].dtype == dtype
        assert found[name].shape == view.shape
        if view.numel():
            assert found[name].stride() == view.stride()
        assert found[name].to(torch.complex128).equal(view.to(torch.complex128))


def test_shared_weights_stay_shared_and_plain_values_keep_their_types(tmp_path: Path) -> None:
    one = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    state = {
        "model": torch.nn.Sequential(one, one).state_dict(),
        "generator": torch.get_rng_state(),
        "plain": [None, True, 3, -7, 2**40, 10**30, 0.1, float("inf"), "\u00e9", (1, 2), {}, []],
        "groups": {0: {"betas": (0.9, 0.999)}, 300: {"lr": 1e-3}, 70_000: {}},
    }
    checkpoints.save(tmp_path, Checkpoint(1, state, {}, {}, {}))
    found = checkpoints.load(tmp_path / checkpoints.NEWEST).state
    weights = [found["model"][f"{i}.0.weight"] for i in (0, 1)]
    assert weights[0].data_ptr() == weights[1].data_ptr()
    assert found["model"]._metadata == state["model"]._metadata  # type: ignore[attr-defined]
    assert found["plain"] == state["plain"]
    assert list(map(type, found["plain"])) == list(map(type, state["plain"]))
    assert found["groups"] == state["groups"]
    assert found["generator"].equal(state["generator"])


class _Own(torch.Tensor):
    """A tensor of a class of somebody's own."""


def _with_attribute() -> torch.Tensor:
    tensor = torch.zeros(2)
    tensor.note = "mine"  # type: ignore[attr-defined]
    return tensor


@pytest.mark.parametrize(
    "strange",
    [
        object(),
        {1, 2},
        {(1, 2): 3},
        {2**40: 3},
        {True: 3},
        torch.eye(2).to_sparse(),
        torch.zeros(2, device="meta"),
        torch.zeros(2).as_subclass(_Own),
        _with_attribute(),
        torch.ones(2, dtype=torch.complex64).conj().imag,
        [STEPS, STEPS.view(torch.int32)],
    ],
)
def test_what_could_not_be_read_back_is_not_written(strange: Any, tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match=r"it h(olds|as) "):
        checkpoints.save(tmp_path, Checkpoint(1, {"x": strange}, {}, {}, {}))
    assert not list(tmp_path.iterdir())


def test_numbers_that_are_stored_are_not_too_many_however_many_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "_MOST_REPEATED_BYTES", 0)
    x = torch.arange(1000.0)
    assert pieces.digest({"whole": x}) == pieces.digest({"whole": x.clone()})
    assert pieces.digest({"a": x[:300], "b": x[300:]})
    with pytest.raises(UnusableError, match="more elements than are stored"):
        pieces.digest({"whole": x, "first": x[:1]})


def test_the_numbers_of_a_parameter_come_back(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    checkpoints.save(tmp_path, Checkpoint(1, {"x": parameter}, {}, {}, {}))
    found = checkpoints.load(tmp_path / checkpoints.NEWEST).state["x"]
    assert torch.equal(found, parameter)


def test_what_torch_reads_of_a_checkpoint_is_what_is_read_here(run: Path) -> None:
    by_torch = torch.load(run / checkpoints.NEWEST, weights_only=True)
    told = by_torch.pop("digest")
    by_torch.pop("format")
    ours = vars(checkpoints.load(run / checkpoints.NEWEST))
    assert pieces.digest(by_torch) == pieces.digest(ours) == told


def test_where_code_of_the_users_has_changed_its_old_state_is_a_question(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To begin anew would not be what somebody wants who changed a line of a model."""
    good = checkpoints.load(run / checkpoints.NEWEST)
    checkpoints.save(run, changed(good, lambda s: s["training"].update(model={})))
    monkeypatch.setattr(config, "targets", lambda _: [("model.target", "mine.Net")])
    with pytest.raises(QuestionError, match=r"state of something else.*\n.*\(mine\.Net\)"):
        vgexp.resume(run, trust=True)
    assert checkpoints.list_present(run)[0].name == checkpoints.NEWEST


# ---------------------------------------------------------------- what is written and what is like


def test_a_checkpoint_is_on_the_disk_before_it_takes_the_place_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save(tmp_path, GOOD)
    newest = tmp_path / folders.CHECKPOINT
    before = newest.read_bytes()
    waited_for: list[tuple[int, bool]] = []

    def sync(path: Path) -> None:
        if path.is_file():
            is_in_place = newest.exists() and newest.read_bytes() == before
            waited_for.append((checkpoints.load(path).step, is_in_place))

    monkeypatch.setattr(folders, "sync", sync)
    checkpoints.save(tmp_path, Checkpoint(4, *list(vars(GOOD).values())[1:]))
    assert waited_for[0] == (4, True)
    assert (tmp_path / folders.PREVIOUS_CHECKPOINT).read_bytes() == before


def is_like(found: object, own: object) -> bool:
    try:
        require_like(found, own)
    except UnusableError:
        return False
    return True


def test_a_state_may_hold_more_than_a_runs_own_but_lack_nothing_of_it() -> None:
    own = {"step": 0, "mean": torch.zeros(3), "kept": {}}
    assert is_like({**own, "more": "words"}, own)
    assert is_like({**own, "kept": {0: "filled since"}}, own)
    assert not is_like({"step": 0, "mean": torch.zeros(3)}, own)
    assert not is_like({**own, "mean": torch.zeros(3, dtype=torch.float64)}, own)
