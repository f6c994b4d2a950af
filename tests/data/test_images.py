"""Image sets in files: read by torchvision from tiny ones of the real formats.

Holds: data/images.py, data/idx.py, data/loading.py, data/rows.py, data/scale.py, data/stored.py
"""

from __future__ import annotations

import gzip
import http.client
import socket
import statistics
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import image_files
import numpy as np
import pytest
import torch

from vgexp import data
from vgexp.cli.main import main
from vgexp.config import Cifar10Config, FashionMnistConfig, ImagesConfig, MnistConfig, RowsConfig
from vgexp.config import identity as identity_of
from vgexp.config.tree import Config
from vgexp.data import loading, scale, stored
from vgexp.errors import QuestionError
from vgexp.seeds import generator

SETS: dict[str, type[ImagesConfig]] = {
    "mnist": MnistConfig,
    "fashion_mnist": FashionMnistConfig,
    "cifar10": Cifar10Config,
}
SHAPES = {"mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
STORED = {"mnist": stored.MNIST, "fashion_mnist": stored.FASHION_MNIST, "cifar10": stored.CIFAR10}
NUM_TRAIN, NUM_TEST = 43, 12
LABELS = "train-labels-idx1-ubyte"


def written(which: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a tiny set and returns its training and test images as they were drawn."""
    train = image_files.drawn(NUM_TRAIN, SHAPES[which], 1)
    test = image_files.drawn(NUM_TEST, SHAPES[which], 2)
    if which == "cifar10":
        image_files.write_cifar(root, train, test, monkeypatch)
    else:
        image_files.write_idx(root, which, train, test)
    return train, test


@pytest.mark.parametrize("which", SETS)
def test_images_come_out_as_they_lie_in_the_files(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = written(which, tmp_path, monkeypatch)
    found = data.read(SETS[which](root=str(tmp_path)), 0)
    assert found.test is not None
    for (images, labels), expected in (
        ((found.inputs, found.targets), train),
        (found.test, test),
    ):
        assert images.dtype == torch.uint8
        np.testing.assert_array_equal(images.numpy(), expected[0])
        np.testing.assert_array_equal(labels.numpy(), expected[1])
    assert found.task.shape == SHAPES[which]
    assert (found.task.kind, found.task.num_outputs) == ("image", 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("which", SETS)
def test_each_channel_has_mean_0_and_deviation_1_over_the_training_split(
    which: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = written(which, tmp_path, monkeypatch)
    monkeypatch.setattr(scale, "CHUNK", 5)
    dataset = data.load(SETS[which](root=str(tmp_path), val_fraction=0.3), 4, dtype)
    order = torch.randperm(NUM_TRAIN, generator=generator(4, "split")).tolist()
    held = round(0.3 * NUM_TRAIN)
    rows = {"val": order[:held], "train": order[held:]}
    assert [len(s) for s in (dataset.train, dataset.val, dataset.test)] == [30, 13, NUM_TEST]
    raw = {
        "train": (train[0][rows["train"]], train[1][rows["train"]]),
        "val": (train[0][rows["val"]], train[1][rows["val"]]),
        "test": test,
    }
    for channel in range(SHAPES[which][0]):
        values = raw["train"][0][:, channel].flatten().tolist()
        mean, std = statistics.fmean(values), statistics.pstdev(values)
        for split, (images, labels) in raw.items():
            got = getattr(dataset, split)
            expected = (images[:, channel].astype(np.float64) - mean) / std
            tolerance = 1e-12 if dtype == torch.float64 else 1e-6
            np.testing.assert_allclose(got.inputs[:, channel], expected, rtol=0, atol=tolerance)
            np.testing.assert_array_equal(got.targets, labels)
            assert got.inputs.dtype == dtype


def test_moments_of_bytes_are_those_of_their_floats() -> None:
    images = torch.from_numpy(image_files.drawn(900, (3, 5, 7), 3)[0])
    images[:, 1] = 9
    of_bytes, of_floats = scale.InputScale(images, 1), scale.InputScale(images.double(), 1)
    one, other = of_bytes(images, torch.float64), of_floats(images.double(), torch.float64)
    torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)
    assert float(one[:, 1].abs().max()) == 0.0


def test_moments_of_as_many_bytes_as_a_real_set_has_are_exact() -> None:
    # All but one are 255: squares sum to more than 32 bits hold, times N to more than 64.
    num = 2**22
    images = torch.full((num, 1, 2, 2), 255, dtype=torch.uint8)
    images[0] = 0
    mean, std = scale._byte_moments(images.movedim(1, 0).flatten(1))
    share = 1 / num
    assert float(mean) == pytest.approx(255 * (1 - share), rel=1e-15)
    assert float(std) == pytest.approx(255 * (share * (1 - share)) ** 0.5, rel=1e-14)


@pytest.mark.parametrize("which", ["mnist", "fashion_mnist"])
def test_packed_files_are_read_and_nothing_is_written_beside_them(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = written(which, tmp_path / "raw", monkeypatch)
    folder = image_files.write_idx(tmp_path / "packed", which, train, test, packed=True)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(image_files.idx(test[1]))
    before = sorted(tmp_path.rglob("*"))
    raw, packed = (
        data.read(SETS[which](root=str(tmp_path / kind)), 0) for kind in ("raw", "packed")
    )
    assert torch.equal(raw.inputs, packed.inputs)
    assert torch.equal(raw.targets, packed.targets)
    assert raw.test is not None
    assert packed.test is not None
    assert torch.equal(raw.test[0], packed.test[0])
    assert sorted(tmp_path.rglob("*")) == before


def test_so_many_examples_are_drawn_from_both_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = written("mnist", tmp_path, monkeypatch)
    config = MnistConfig(root=str(tmp_path), num_examples=11, val_fraction=0.2)
    found = [data.read(config, seed) for seed in (3, 3, 4)]
    dataset = data.load(config, 3, torch.float32)
    assert [len(s) for s in (dataset.train, dataset.val, dataset.test)] == [9, 2, 11]
    for split, (images, labels) in (
        ((found[0].inputs, found[0].targets), train),
        (found[0].test, test),
    ):
        place = {image.tobytes(): i for i, image in enumerate(images)}
        rows = [place[image.numpy().tobytes()] for image in split[0]]
        assert len(set(rows)) == 11
        assert rows != sorted(rows)
        np.testing.assert_array_equal(split[1].numpy(), labels[rows])
    assert torch.equal(found[0].inputs, found[1].inputs)
    assert not torch.equal(found[0].inputs, found[2].inputs)
    with pytest.raises(QuestionError, match=r"data\.num_examples is 44\nallowed: at most 43"):
        data.load(MnistConfig(root=str(tmp_path), num_examples=44), 3, torch.float32)


@pytest.mark.parametrize("reading", ["row", "pixel"])
@pytest.mark.parametrize("which", SETS)
def test_images_read_over_time_have_the_pixels_and_the_scale_of_the_images(
    which: str, reading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(which, tmp_path, monkeypatch)
    images = data.load(SETS[which](root=str(tmp_path)), 2, torch.float64)
    config = RowsConfig(root=str(tmp_path), source=which, reading=reading)
    over_time = data.load(config, 2, torch.float64)
    channels, height, width = SHAPES[which]
    assert over_time.task.kind == "sequence"
    for split in ("train", "val", "test"):
        one, other = getattr(over_time, split), getattr(images, split)
        assert torch.equal(one.targets, other.targets)
        for c, h, w in [(0, 0, 0), (channels - 1, 3, 5), (0, height - 1, 2), (channels - 1, 1, 9)]:
            place = (h, c * width + w) if reading == "row" else (h * width + w, c)
            assert torch.equal(one.inputs[:, *place], other.inputs[:, c, h, w])
        assert one.inputs.flatten().sort().values.equal(other.inputs.flatten().sort().values)


def test_rows_of_digits_take_so_many_too() -> None:
    dataset = data.load(RowsConfig(num_examples=100), 2, torch.float32)
    assert [len(s) for s in (dataset.train, dataset.val, dataset.test)] == [70, 15, 15]


# ---------------------------------------------------------------- what can be wrong


@pytest.mark.parametrize("which", SETS)
def test_the_files_looked_for_are_those_of_torchvision(which: str) -> None:
    from torchvision import datasets

    cls = getattr(datasets, STORED[which].class_name)
    if which == "cifar10":
        names = {name for name, _ in cls.train_list + cls.test_list} | {cls.meta["filename"]}
        folder = cls.base_folder
    else:
        names = {name.removesuffix(".gz") for name, _ in cls.resources}
        unread = cls.__new__(cls)
        unread.root = ""
        folder = unread.raw_folder
    assert set(STORED[which].files) == names
    assert STORED[which].folder == folder


@pytest.mark.parametrize("which", SETS)
def test_missing_files_are_one_block_at_once(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", f"data={which}"]) == 2
    shown = capsys.readouterr().err
    words = " ".join(shown.split())
    assert f"error: data.root is 'data', but files of {which} are missing there" in words
    assert str(tmp_path / "data" / image_files.FOLDERS[which]) in words
    assert next(iter(STORED[which].files)) in words
    assert "data.download=true" in words
    assert "Traceback" not in shown
    assert not list(tmp_path.rglob("*idx*"))


def test_only_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written("mnist", tmp_path, monkeypatch)
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(QuestionError, match=r"\nmissing: t10k-labels-idx1-ubyte\n"):
        data.load(MnistConfig(root=str(tmp_path)), 0, torch.float32)


def test_missing_files_are_said_before_torchvision_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(QuestionError, match="missing: data_batch_1, data_batch_2"):
        data.load(Cifar10Config(root=str(tmp_path)), 0, torch.float32)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def spoil_header(path: Path) -> None:
    path.write_bytes(b"\0\0\x0d\x03" + path.read_bytes()[4:])


def cut_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:10])


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


def without_examples(path: Path) -> None:
    path.write_bytes(image_files.idx(np.zeros((0, 28, 28))))


def of_other_size(path: Path) -> None:
    path.write_bytes(image_files.idx(np.zeros((3, 27, 28))))


def fewer(path: Path) -> None:
    path.write_bytes(image_files.idx(np.zeros((3, 28, 28))))


def other_labels(path: Path) -> None:
    path.with_name(LABELS).write_bytes(image_files.idx(np.full(NUM_TRAIN, 10)))


DAMAGES: dict[Callable[[Path], None], str] = {
    cut: "its header promises 33,712 bytes, it holds 33,612",
    spoil_header: "it begins with 00000d03, not with 00000803",
    cut_header: "it ends within its header",
    make_empty: "it begins with nothing",
    without_examples: "it holds no example",
    of_other_size: "an example is 27 x 28, not 28 x 28",
    fewer: "it holds 43 labels for 3 images",
    other_labels: "a label is 10, and classes are 0 to 9",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_what_is_wrong(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written("mnist", tmp_path, monkeypatch)
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    damage(path)
    with pytest.raises(QuestionError) as caught:
        data.load(MnistConfig(root=str(tmp_path)), 0, torch.float32)
    named = path if damage not in (fewer, other_labels) else path.with_name(LABELS)
    said = f"{named} is not as it should be: {DAMAGES[damage]}"
    assert str(caught.value).splitlines()[0].startswith(said)


def test_at_the_command_line_damage_is_a_wrong_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written("mnist", tmp_path, monkeypatch)
    cut_header(tmp_path / "MNIST/raw" / LABELS)
    assert main(["train", "data=mnist", f"data.root={tmp_path}"]) == 2
    shown = capsys.readouterr().err
    words = " ".join(shown.split())
    assert f"{LABELS} is not as it should be: its header promises 43 bytes, it holds 2" in words
    assert shown.startswith("error: ")
    assert "Traceback" not in shown


@pytest.mark.parametrize("kind", ["cut", "no gz"])
def test_a_damaged_packed_file_is_named_as_it_lies_there(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = written("mnist", tmp_path / "raw", monkeypatch)
    folder = image_files.write_idx(tmp_path, "mnist", train, test, packed=True)
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:900] if kind == "cut" else b"<html>404</html>")
    with pytest.raises(QuestionError) as caught:
        data.load(MnistConfig(root=str(tmp_path)), 0, torch.float32)
    assert str(caught.value).startswith(f"{path} is not as it should be: ")
    said = {"cut": "compressed file ended before", "no gz": "not a gzipped file"}[kind]
    assert said in str(caught.value)
    whole = image_files.idx(test[0][:, 0])
    path.write_bytes(gzip.compress(whole[:99]))
    with pytest.raises(
        QuestionError, match=r"images-idx3-ubyte\.gz is not .*: its header promises"
    ):
        data.load(MnistConfig(root=str(tmp_path)), 0, torch.float32)


@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_a_changed_pickle_is_not_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written("cifar10", tmp_path, monkeypatch)
    path = tmp_path / "cifar-10-batches-py" / name
    ran = tmp_path / "ran"
    path.write_bytes(f"cpathlib\nPath.touch\n(cpathlib\nPath\n(V{ran}\ntRtR.".encode())
    with pytest.raises(QuestionError, match=rf"{name} is not .*: its MD5 is [0-9a-f]{{32}}, of"):
        data.load(Cifar10Config(root=str(tmp_path)), 0, torch.float32)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (
            {"data": np.zeros((9, 3072), np.uint8), "labels": [0] * 8},
            "it holds 42 labels for 43 images",
        ),
        ({"data": np.zeros((9, 3072), np.uint8), "labels": [-1] * 9}, "a label is -1"),
        ({"data": np.zeros((9, 3072)), "labels": [0] * 9}, "of torch.float64"),
        ({"data": np.zeros((9, 3071), np.uint8), "labels": [0] * 9}, "torchvision cannot read"),
        ({"labels": [0] * 9}, "torchvision cannot read them: KeyError"),
        ([1, 2], "torchvision cannot read them: TypeError"),
    ],
)
def test_a_pickle_of_the_right_sum_and_the_wrong_content_is_one_block(
    batch: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    written("cifar10", tmp_path, monkeypatch)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    image_files.tell_sums(
        {"data_batch_2": image_files.write_pickle(path, batch)}, monkeypatch, CIFAR10
    )
    with pytest.raises(QuestionError, match=said):
        data.load(Cifar10Config(root=str(tmp_path)), 0, torch.float32)


def test_a_file_that_may_not_be_read_is_one_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written("mnist", tmp_path, monkeypatch)

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "some/file")

    monkeypatch.setattr(loading.idx, "fault", refused)
    with pytest.raises(QuestionError, match=r"MNIST/raw is not .*Permission denied: 'some/file'"):
        data.load(MnistConfig(root=str(tmp_path)), 0, torch.float32)


# ---------------------------------------------------------------- the network


def no_name(*_: object, **__: object) -> None:
    raise urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))


def silent(*_: object, **__: object) -> None:
    assert socket.getdefaulttimeout() == loading.TIMEOUT_SECONDS
    raise TimeoutError("timed out")


def garbled(*_: object, **__: object) -> None:
    raise http.client.IncompleteRead(b"")


@pytest.mark.parametrize("network", [no_name, silent, garbled])
@pytest.mark.parametrize("which", SETS)
def test_without_a_network_a_download_is_one_block(
    which: str, network: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", network)
    config = SETS[which](root=str(tmp_path / "new"), download=True)
    with pytest.raises(QuestionError) as caught:
        data.load(config, 0, torch.float32)
    first, allowed = str(caught.value).splitlines()
    assert first.startswith(f"{which} could not be fetched: ")
    assert str(tmp_path / "new" / image_files.FOLDERS[which]) in allowed
    assert socket.getdefaulttimeout() is None


def test_a_network_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{deaf.getsockname()[1]}/x.tar.gz")
        monkeypatch.setattr(loading, "TIMEOUT_SECONDS", 0.2)
        for key in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(key, raising=False)
        with pytest.raises(QuestionError, match=r"could not be fetched: .*timed out"):
            data.load(Cifar10Config(root=str(tmp_path), download=True), 0, torch.float32)


def test_what_is_there_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", no_name)
    for which, cls in SETS.items():
        train, _ = written(which, tmp_path, monkeypatch)
        found = data.read(cls(root=str(tmp_path), download=True), 0)
        np.testing.assert_array_equal(found.inputs.numpy(), train[0])


def test_a_damaged_file_is_named_with_the_download_on_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", no_name)
    written("mnist", tmp_path, monkeypatch)
    cut(tmp_path / "MNIST/raw/train-images-idx3-ubyte")
    with pytest.raises(QuestionError, match=r"train-images-idx3-ubyte is not as it should be"):
        data.load(MnistConfig(root=str(tmp_path), download=True), 0, torch.float32)


def test_what_is_fetched_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import MNIST, mnist

    train, test = written("mnist", tmp_path / "there", monkeypatch)
    asked = []

    def fetched(url: str, download_root: str, filename: str, md5: str) -> None:
        asked.append((url.rsplit("/")[-1], md5))
        name = filename.removesuffix(".gz")
        source = tmp_path / "there" / "MNIST/raw" / name
        (Path(download_root) / name).write_bytes(source.read_bytes())

    monkeypatch.setattr(mnist, "download_and_extract_archive", fetched)
    found = data.read(MnistConfig(root=str(tmp_path / "new"), download=True), 0)
    np.testing.assert_array_equal(found.inputs.numpy(), train[0])
    assert found.test is not None
    np.testing.assert_array_equal(found.test[1].numpy(), test[1])
    assert asked == MNIST.resources


def test_whether_files_are_fetched_changes_no_table() -> None:
    configs = [
        Config(data=MnistConfig(download=download, num_examples=num))
        for download, num in ((False, None), (True, None), (False, 100))
    ]
    one, fetched, fewer_examples = map(identity_of, configs)
    assert one == fetched
    assert one != fewer_examples


# ---------------------------------------------------------------- torchvision itself


def test_without_torchvision_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written("mnist", tmp_path, monkeypatch)
    monkeypatch.setattr(loading, "find_spec", lambda _name: None)
    with pytest.raises(QuestionError, match=r"needs torchvision.*\nallowed: pip install torchvis"):
        data.load(MnistConfig(root=str(tmp_path)), 0, torch.float32)


def test_a_torchvision_that_does_not_fit_torch_is_one_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written("mnist", tmp_path, monkeypatch)
    package = tmp_path / "packages" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(package.parent)
    with pytest.raises(QuestionError) as caught:
        data.load(MnistConfig(root=str(tmp_path)), 0, torch.float32)
    first, allowed = str(caught.value).splitlines()
    assert (
        f"torchvision does not go with torch {torch.__version__}: RuntimeError: operator torchvis"
        in first
    )
    assert "pip install --upgrade torch torchvision" in allowed


def test_warnings_of_torchvision_are_kept_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import mnist

    written("mnist", tmp_path, monkeypatch)
    real = mnist.read_image_file

    def warned(path: str) -> torch.Tensor:
        import warnings

        warnings.warn("of a library", stacklevel=2)
        return real(path)

    monkeypatch.setattr(mnist, "read_image_file", warned)
    assert len(data.read(MnistConfig(root=str(tmp_path)), 0).targets) == NUM_TRAIN


def test_a_perceptron_trains_on_images_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written("cifar10", tmp_path, monkeypatch)
    words = ["train.steps=2", "model.depth=2", "model.width=8", "data.batch_size=8"]
    words += [f"data.root={tmp_path}", f"hydra.run.dir={tmp_path}/run"]
    assert main(["train", "data=cifar10", *words]) == 0
    assert "test" in (tmp_path / "run" / "evals.csv").read_text()
