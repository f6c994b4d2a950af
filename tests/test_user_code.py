"""The user's code, from the command line's words to the numbers of a run.

Holds: config/user_code.py, data/user_code.py, models/user_code.py, user_code.py,
assembly/networks.py, data/lazy.py, models/families.py
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_cases.children import contents
from torch import Tensor, nn
from torch.utils.data import Subset, TensorDataset

import vgexp
from vgexp import data, inits
from vgexp.activations import ACTIVATIONS, slope
from vgexp.assembly import assemble
from vgexp.cli.main import main
from vgexp.config import (
    AgcClipConfig,
    Config,
    CustomConfig,
    CustomDataConfig,
    GaussianConfig,
    MlpConfig,
    OutputConfig,
    RunConfig,
    TorchvisionConfig,
    TrainConfig,
)
from vgexp.errors import QuestionError
from vgexp.probe import Probe
from vgexp.quantities import PREDICTION
from vgexp.seeds import generator
from vgexp.training import Trainer

MINE = """\
import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset, DataLoader
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self, width=6, num_outputs=3):
        super().__init__()
        self.first = nn.Linear(5, width)
        self.norm = nn.BatchNorm1d(width)
        self.second = nn.Linear(width, width + 1)
        self.head = nn.Linear(width + 1, num_outputs)

    def forward(self, x):
        h = F.dropout(torch.tanh(self.norm(self.first(x))), 0.2, self.training)
        return self.head(torch.relu(self.second(h)))


class Pair(Net):
    def forward(self, x):
        return super().forward(x), x


class PairInTraining(Net):
    def forward(self, x):
        y = super().forward(x)
        return (y, x) if self.training else y


class Fails(Net):
    def forward(self, x):
        return self.first(x.flatten(1)[:, :2])


class Bare(nn.Module):
    def forward(self, x):
        return x[:, :3]


class Flat(Net):
    def forward(self, x):
        return super().forward(x)[:, 0]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(1, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.cells(x[..., None])[0][:, -1])


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x[:, :3] * self.scale


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(1, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.embed(x[:, :, None])
        return self.head(F.scaled_dot_product_attention(x, x, x).mean(1))


class Lazy(nn.Sequential):
    def __init__(self):
        super().__init__(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(3))


def nothing():
    return 3

made = nn.Linear(5, 3)


def cube(u):
    return u**3

def in_place(u):
    return u.mul_(2)

def random(u):
    return u + torch.rand_like(u)

def sums(u):
    return u.sum()

def cut(u):
    return u.detach()

def tanh():
    return nn.Tanh()

class Tanh(nn.Module):
    def forward(self, u):
        return torch.tanh(u)


def normal(weight):
    return nn.init.normal_(weight)

def no_init(weight):
    return torch.ones_like(weight)

def scaled(weight, scale):
    return weight.fill_(scale)


def cross_entropy(outputs, targets):
    return F.cross_entropy(outputs, targets)

def each(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")

def flat(outputs, targets):
    return torch.ones(())


def no_norm(width):
    return width


class Squares(Dataset):
    def __init__(self, num_examples=40, classes=None, odd=None, item=None, told=None):
        self.x = torch.arange(num_examples * 5.0).reshape(-1, 5).sin()
        self.y = torch.arange(num_examples) % 3
        self.odd, self.item, self.reads = odd, item, 0
        if classes:
            self.classes = [str(number) for number in range(classes)]
        if told is not None:
            self.num_classes = told

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        self.reads += 1
        if i == self.odd:
            return self.x[i, :4], self.y[i]
        return self.item(self.x[i], self.y[i]) if self.item else (self.x[i], int(self.y[i]))


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


def lazy(**options):
    return Squares(**options), Squares(12)

def tensors():
    return tuple(TensorDataset(part.x, part.y) for part in lazy())

def alone():
    return Squares()

def with_test():
    return Squares(), None, Squares(9)

def dataset(item, **options):
    made = Squares(item=item, **options)
    return made, made

def values():
    return dataset(lambda x, y: (x, x.sum()))

def images():
    return dataset(lambda x, y: (x.expand(2, 4, 5), y))

def tokens():
    return dataset(lambda x, y: (torch.arange(5) + y, torch.arange(5) % 2))

def triples():
    return dataset(lambda x, y: (x, y, y))

def noisy():
    return dataset(lambda x, y: (x + torch.randn(5), y))

def texts():
    return dataset(lambda x, y: ("text", y))

def objects():
    return dataset(lambda x, y: (object(), y))

def raises():
    return dataset(lambda x, y: 1 / 0)

def scalars():
    return dataset(lambda x, y: (x[0], y))

def strange_class():
    return Squares(classes=3), dataset(lambda x, y: (x, int(y) + 2))[0]

def empty():
    return Squares(0), Squares()

def stream():
    return Stream(), Stream()

def loader():
    return DataLoader(Squares()), DataLoader(Squares())

def four():
    return (Squares(),) * 4
"""


@pytest.fixture(autouse=True)
def code(user_folder: Path) -> Path:
    (user_folder / "mine.py").write_text(MINE)
    return user_folder


def config(**sections: Any) -> Config:
    base = Config(
        model=CustomConfig(target="mine.Net"),
        data=GaussianConfig(num_examples=80, features=5, num_classes=3, batch_size=8),
        train=TrainConfig(steps=12, eval_every=4),
        output=OutputConfig(quiet=True),
        run=RunConfig(checkpoint_every=5),
    )
    return dataclasses.replace(base, **sections)


def perceptron(**keys: Any) -> Config:
    return config(model=MlpConfig(depth=3, width=6, **keys))


def table(trainer: Trainer, name: str) -> list[dict[str, Any]]:
    """All rows of one table, cell by cell."""
    rows: list[dict[str, Any]] = []
    for batch in trainer.rows():
        if batch.table == name:
            columns = {key: list(values) for key, values in batch.columns.items()}
            rows += [
                dict(zip(columns, cells, strict=True))
                for cells in zip(*columns.values(), strict=False)
            ]
    return rows


def losses(chosen: Config) -> list[float]:
    return [float(row["loss"]) for row in table(assemble(chosen), "steps")]


def refused(chosen: Config) -> str:
    with pytest.raises(QuestionError) as caught:
        assemble(chosen)
    return str(caught.value)


# ---------------------------------------------------------------- custom models


def test_a_model_of_the_users_is_drawn_as_it_draws_itself_from_the_stream_init() -> None:
    before = torch.get_rng_state()
    made = assemble(config(model=CustomConfig(target="mine.Net", kwargs={"width": 4}))).state.model
    assert torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(generator(0, "init/own").get_state())
    expected = type(made)(4)
    torch.set_rng_state(before)
    assert made.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(made.state_dict()[name], value), name


def test_its_rows_have_its_own_names_and_the_numbers_of_a_probe_of_its_own() -> None:
    trainer = assemble(config(train=TrainConfig(steps=1)))
    twin = assemble(config(train=TrainConfig(steps=1)))
    rows = table(trainer, "layers")
    assert [(r["layer"], r["name"], r["kind"]) for r in rows] == [
        (1, "first.weight", "linear"),
        (2, "second.weight", "linear"),
        (3, "head.weight", "readout"),
    ]
    state = twin.state
    x, y = state.batches.next()
    state.stream.begin()
    with Probe(state.model, state.optimizer) as probe:
        nn.functional.cross_entropy(state.model(x), y).backward()
        state.optimizer.step()
    state.stream.end()
    frame = probe.to_frame()
    for column in ("weight_norm", "grad_norm", "preact_std", "delta_rms"):
        assert [float(r[column]) for r in rows] == frame[column].tolist(), column


def test_assembly_moves_no_buffer_and_the_summary_has_its_number_of_layers(tmp_path: Path) -> None:
    model = assemble(config()).state.model
    assert int(model.norm.num_batches_tracked) == 0  # type: ignore[arg-type, union-attr]
    assert not model.norm.running_mean.any()  # type: ignore[union-attr, operator]
    assert model.training
    summary = vgexp.run(config(), tmp_path / "run").summary
    assert summary["num_layers"] == 2
    assert summary["status"] == "completed"
    assert summary["verdict"] in ("undecided", "healthy")


def test_one_seed_gives_one_run_and_what_is_cut_short_ends_the_same(tmp_path: Path) -> None:
    vgexp.run(config(), tmp_path / "one")
    torch.rand(3)
    vgexp.run(config(), tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    (tmp_path / "two" / "summary.json").unlink()
    said: list[str] = []
    vgexp.resume(tmp_path / "two", said.append, trust=True)
    assert said == ["going on from step 10"]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_lazy_modules_get_their_shapes_before_anything_is_trained() -> None:
    trainer = assemble(config(model=CustomConfig(target="mine.Lazy")))
    assert trainer.facts.num_parameters == 5 * 4 + 4 + 4 * 3 + 3
    assert len(table(trainer, "steps")) == 12


def test_the_read_out_is_spared_by_row_clipping() -> None:
    trainer = assemble(config(clip=AgcClipConfig(threshold=1e-6)))
    model = trainer.state.model
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    trainer.state.clip(list(model.parameters()), torch.tensor(10.0, dtype=torch.float64))
    touched = {n for n, p in model.named_parameters() if p.grad is not None and (p.grad != 1).any()}
    assert touched == {"first.weight", "second.weight"}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"kwargs": {"num_outputs": 4}}, "its output is [8, 4] for inputs [8, 5]\nallowed: [8, 3]"),
        ({"target": "mine.Pair"}, "its output is a tuple\nallowed: one tensor [8, 3]"),
        ({"target": "mine.PairInTraining"}, "its output in training is a tuple"),
        ({"target": "mine.Fails"}, "which raised\nRuntimeError: "),
        ({"target": "mine.Fails"}, "mine.py:33\n"),
        ({"target": "mine.Bare"}, "it has no parameter to train"),
        ({"target": "mine.nothing"}, "it returns a int\nallowed: a class of nn.Module"),
        ({"target": "mine.made"}, "it is a module already made"),
        ({"target": "mine.Squares"}, "Squares is no nn.Module"),
        ({"target": "mine.Ney"}, "the module mine has no 'Ney'"),
        ({"target": None}, "model.target is null\nallowed: package.module.name"),
        ({"kwargs": {"wide": 3}}, "allowed: Net(width, num_outputs)"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused(model: dict[str, Any], said: str) -> None:
    assert said in refused(config(model=CustomConfig(**{"target": "mine.Net", **model})))


def test_blocks_of_others_are_not_known_and_cannot_be_recomputed() -> None:
    chosen = config(train=TrainConfig(steps=1, checkpoint_activations=True))
    assert "model=custom does not say what its blocks are" in refused(chosen)


@pytest.mark.parametrize(
    ("name", "layers", "said"),
    [
        ("Recurrent", 1, "no layer of the path has a signal"),
        ("Scale", 0, "no hidden layer has weights that were measured"),
    ],
)
def test_of_what_the_probe_cannot_see_the_summary_says_so(
    name: str, layers: int, said: str, tmp_path: Path
) -> None:
    train = TrainConfig(steps=3)
    chosen = config(model=CustomConfig(target=f"mine.{name}"), train=train)
    summary = vgexp.run(chosen, tmp_path / "run").summary
    assert summary["num_layers"] == layers
    assert said in summary["cause"]
    assert bool(summary["unseen"]) == (name == "Recurrent")


def test_a_weight_that_is_never_called_has_no_layer_and_hides_none_of_the_others(
    tmp_path: Path,
) -> None:
    runs = {}
    for name in ("Net", "Spare"):
        config = Config(
            model=CustomConfig(target=f"user_code.{name}"),
            train=TrainConfig(steps=2),
            output=OutputConfig(quiet=True),
        )
        runs[name] = vgexp.run(config, tmp_path / name)
    plain, spare = runs["Net"], vgexp.load(tmp_path / "Spare")
    unused = spare.layers[spare.layers["name"] == "spare.weight"]
    assert unused["layer"].isna().all()
    assert any(line.startswith("spare.weight") for line in spare.summary["unseen"])
    for figure in ("signal", "attenuation", "layers_left_out", "num_layers", "verdict"):
        assert spare.summary[figure] == plain.summary[figure] is not None
    used = spare.layers.dropna(subset="layer").reset_index(drop=True)
    assert used["delta_rms"].tolist() == plain.layers["delta_rms"].tolist()
    assert main(["compare", str(tmp_path / "Spare"), "--layers", "delta_rms"]) == 0


@pytest.mark.parametrize("value", [3, {"a": object()}, {1: 2}, ["a"], {"a": {"b": torch.ones(1)}}])
def test_arguments_are_plain_values_by_name(value: Any) -> None:
    with pytest.raises(QuestionError, match=r"model\.kwargs is .*\nallowed: \{name: value"):
        CustomConfig(target="mine.Net", kwargs=value)


def test_a_model_that_calls_attention_as_a_function_has_its_table(code: Path) -> None:
    attending = config(model=CustomConfig(target="mine.Attends"), train=TrainConfig(steps=1))
    vgexp.run(attending, code / "attends")
    rows = vgexp.load(code / "attends").attention
    assert rows["step"].tolist() == [0]
    assert 0 < rows["entropy"][0] <= math.log(5)
    assert "attention" not in assemble(config()).facts.tables


def test_what_is_its_own_part_is_no_plain_value() -> None:
    endless: dict[str, Any] = {}
    endless["a"] = [endless]
    with pytest.raises(QuestionError, match=r"model\.kwargs"):
        CustomConfig(target="mine.Net", kwargs=endless)


def test_the_command_line_gives_arguments_whole_and_one_by_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = ["model=custom", "model.target=mine.Net", "data=gaussian", "data.features=5"]
    common += ["data.num_classes=3", "train.steps=2", "output.quiet=true"]
    assert main(["train", *common, "model.kwargs.width=4", "hydra.run.dir=no"]) == 2
    assert "allowed: +model.kwargs.width=..., which adds it" in capsys.readouterr().err
    for words in (["model.kwargs={width:4}"], ["+model.kwargs.width=4"]):
        assert main(["train", *common, *words, f"hydra.run.dir={words[0][:3]}"]) == 0
        assert vgexp.load(words[0][:3]).summary["num_parameters"] == 24 + 8 + 25 + 18
        assert vgexp.load(words[0][:3]).config.model.kwargs == {"width": 4}  # type: ignore[attr-defined]
    capsys.readouterr()
    assert main(["train", *common, "model.kwargs={widht:4}", "hydra.run.dir=no"]) == 2
    shown = capsys.readouterr().err
    assert shown.count("error: ") == 1
    assert "nearest: width" in shown
    assert not Path("no").exists()


# ---------------------------------------------------------------- torchvision


def test_a_classifier_of_torchvision_has_its_own_weights_and_reads_grey_as_three_colours() -> None:
    import torchvision

    trainer = assemble(
        Config(
            model=TorchvisionConfig(arch="squeezenet1_1"),
            data=CustomDataConfig(target="user_pictures.make", batch_size=2),
            train=TrainConfig(steps=1),
        )
    )
    torch.set_rng_state(generator(0, "init/own").get_state())
    expected = torchvision.models.squeezenet1_1(num_classes=3)
    for name, value in expected.state_dict().items():
        assert torch.equal(trainer.state.model.state_dict()[name], value), name
    x_B1HW = torch.randn(2, 1, 24, 24)
    model = trainer.state.model.eval()
    assert torch.equal(model(x_B1HW), expected.eval()(x_B1HW.repeat(1, 3, 1, 1)))
    model.train()
    assert next(row["name"] for row in table(trainer, "layers")) == "features.0.weight"


@pytest.fixture(autouse=True)
def code_of_pictures(user_folder: Path) -> None:
    (user_folder / "user_pictures.py").write_text(
        "import torch\n"
        "from torch.utils.data import TensorDataset\n"
        "def make(channels=1, size=24):\n"
        "    made = TensorDataset(torch.ones(6, channels, size, size), torch.arange(6) % 3)\n"
        "    return made, made\n"
    )


@pytest.mark.parametrize(
    ("arch", "kwargs", "pictures", "said"),
    [
        ("resnet19", None, {}, "nearest: resnet18"),
        ("alexnet", None, {}, "does not fit images of 1 x 24 x 24\nRuntimeError: "),
        ("alexnet", None, {}, "allowed: images of 64 x 64, the least of sizes tried"),
        ("vit_b_32", None, {}, "allowed: images of 32 x 32, the least of sizes tried"),
        ("squeezenet1_1", {"weights": "x"}, {}, "model.kwargs has 'weights'"),
        ("squeezenet1_1", {"depth": 3}, {}, "unexpected keyword argument 'depth'"),
        ("squeezenet1_1", None, {"channels": 2}, "the data are images of 2 x 24 x 24"),
    ],
)
def test_what_torchvision_cannot_do_is_told(
    arch: str, kwargs: Any, pictures: dict[str, int], said: str
) -> None:
    source = CustomDataConfig(target="user_pictures.make", kwargs=pictures or None, batch_size=2)
    words = refused(Config(model=TorchvisionConfig(arch=arch, kwargs=kwargs), data=source))
    assert said in words


# ---------------------------------------------------------------- activations, norms, inits


@pytest.mark.parametrize("name", ["mine.Tanh", "mine.tanh", "torch.tanh", "torch.nn.Tanh"])
def test_an_activation_of_the_users_trains_as_the_same_one_of_ours(name: str) -> None:
    assert losses(perceptron(activation=name)) == losses(perceptron(activation="tanh"))


def test_the_slope_of_a_function_is_its_derivative_and_calls_no_hook() -> None:
    module = ACTIVATIONS["mine.cube"].build(None)
    module.register_forward_hook(lambda *_: pytest.fail("called"))
    u = torch.linspace(-3, 2, 12, dtype=torch.float64).reshape(3, 4)
    with torch.no_grad():
        found = slope("mine.cube", module)
        torch.testing.assert_close(found.derivative(u), 3 * u**2)
    assert found.peak is None
    assert not found.stackable
    mish = ACTIVATIONS["torch.nn.Mish"]
    assert slope("torch.nn.Mish", mish.build(None)).stackable


def test_a_dead_unit_of_an_activation_of_the_users_is_seen() -> None:
    own, ours = (
        table(assemble(perceptron(activation=name)), "layers") for name in ("torch.relu", "relu")
    )
    for column in ("dead_fraction", "act_mean", "delta_rms"):
        assert [row[column] for row in own] == [row[column] for row in ours], column


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"activation": "mine.in_place"}, "it changes its input"),
        ({"activation": "mine.random"}, "it is random"),
        ({"activation": "mine.sums"}, "it makes [] of [2, 3]"),
        ({"activation": "mine.cut"}, "no gradient passes it"),
        ({"activation": "mine.nothing"}, "it returns a int"),
        ({"activation": "mine.made"}, "it is a Linear"),
        ({"activation": "mine.Squares"}, "Squares is no nn.Module"),
        ({"activation": "mine.tahn"}, "nearest: tanh"),
        ({"activation": "relo"}, "nearest: relu\nor your own: package.module.name"),
        ({"norm": "mine.no_norm"}, "called with 6 it returns a int"),
        ({"norm": "mine.nothing"}, "which raised\nTypeError"),
        ({"init": "mine.scaled"}, "it needs more than the weight and a generator"),
        ({"init": "mine.no_init"}, "it leaves 30 of 30 entries of a weight unset or nan"),
        ({"init": "mine.Net"}, "it is a type"),
        ({"init": "torch.nn.init.zeros"}, "nearest: zeros_"),
    ],
)
def test_what_is_none_of_these_is_refused(keys: dict[str, Any], said: str) -> None:
    assert said in refused(perceptron(**keys))


def test_a_norm_of_the_users_is_called_with_the_number_of_features() -> None:
    assert losses(perceptron(norm="torch.nn.LayerNorm")) == losses(perceptron(norm="layer"))


def test_an_init_with_or_without_a_generator_draws_from_the_one_it_is_given() -> None:
    assert inits.INITS["mine.normal"]  # importing it draws
    before = torch.get_rng_state()
    drawn = {}
    for name in ("xavier_uniform", "torch.nn.init.xavier_uniform_", "normal", "mine.normal"):
        source, weight = generator(5, "init"), torch.empty(7, 4, dtype=torch.float64)
        inits.INITS[name].draw(weight, 1.5, source)
        drawn[name] = weight, source.get_state()
    assert torch.equal(torch.get_rng_state(), before)
    for ours, own in list(zip(drawn.values(), list(drawn.values())[1:], strict=False))[::2]:
        torch.testing.assert_close(own[0], ours[0], rtol=1e-12, atol=0)
        assert torch.equal(own[1], ours[1])


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("name", ["mine.cross_entropy", "torch.nn.CrossEntropyLoss"])
def test_a_loss_of_the_users_trains_and_no_verdict_is_given(name: str, tmp_path: Path) -> None:
    ours = vgexp.run(perceptron(), tmp_path / "ours")
    own = perceptron()
    own = dataclasses.replace(own, train=dataclasses.replace(own.train, loss=name))
    done = vgexp.run(own, tmp_path / "own")
    assert done.steps.equals(ours.steps)
    assert done.evals.equals(ours.evals)
    assert done.summary["verdict"] is None
    assert done.summary["constant_loss"] is None
    assert done.summary["depth_trained"] is None
    assert "the loss of a constant guess is not known" in done.summary["cause"]


def test_what_is_right_is_told_only_of_a_logit_for_each_class(user_folder: Path) -> None:
    (user_folder / "binary.py").write_text(
        "from torch.nn.functional import binary_cross_entropy_with_logits as cost\n"
        "def loss(outputs, targets):\n"
        "    return cost(outputs[:, 0], (targets > 0).to(outputs.dtype))\n"
    )
    for num_outputs, is_told in ((1, False), (3, True)):
        model = CustomConfig(target="mine.Net", kwargs={"num_outputs": num_outputs})
        chosen = config(model=model, train=TrainConfig(steps=2, loss="binary.loss"))
        rows = table(assemble(chosen), "steps")
        assert all(("accuracy" in row) == is_told for row in rows)
    flat = dataclasses.replace(chosen, model=CustomConfig(target="mine.Flat"))
    assert "its output is [8] for inputs [8, 5]" in refused(flat)


def test_a_diverged_run_with_a_loss_of_the_users_has_diverged(tmp_path: Path) -> None:
    train = TrainConfig(steps=30, loss="mine.cross_entropy")
    chosen = dataclasses.replace(perceptron(gain=1e20), train=train)
    assert vgexp.run(chosen, tmp_path / "run").summary["verdict"] == "diverged"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine.each", "it returns [8] for outputs [8, 3]"),
        ("mine.flat", "has no gradient with respect to the outputs"),
        ("mine.nothing", "which raised\nTypeError"),
        ("mine.made", "which raised"),
        ("mine.Squares", "Squares is no nn.Module"),
        ("crossentropy", "nearest: cross_entropy"),
    ],
)
def test_what_is_no_loss_is_refused(name: str, said: str) -> None:
    chosen = dataclasses.replace(perceptron(), train=TrainConfig(steps=2, loss=name))
    assert said in refused(chosen)


# ---------------------------------------------------------------- data


def loaded(name: str, dtype: torch.dtype = torch.float64, **keys: Any) -> data.Dataset:
    return data.load(CustomDataConfig(target=f"mine.{name}", **keys), 0, dtype)


def user_data(name: str, **keys: Any) -> Config:
    source = CustomDataConfig(target=f"mine.{name}", batch_size=8, **keys)
    return config(model=MlpConfig(depth=2, width=6), data=source)


def test_data_that_are_read_one_by_one_train_as_the_same_in_memory(tmp_path: Path) -> None:
    one, two = (vgexp.run(user_data(n), tmp_path / n) for n in ("lazy", "tensors"))
    assert one.steps.equals(two.steps)
    assert one.evals.equals(two.evals)
    # What is read one by one is not looked at before: theory has no answer there.
    measured = [name for name in one.layers if not name.startswith(PREDICTION)]
    assert one.layers[measured].equals(two.layers[measured])
    assert set(one.evals["split"]) == {"train", "val"}


def test_what_examples_draw_as_they_are_read_is_the_runs_own_and_goes_on(tmp_path: Path) -> None:
    vgexp.run(user_data("noisy"), tmp_path / "one")
    torch.rand(3)
    vgexp.run(user_data("noisy"), tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    (tmp_path / "two" / "summary.json").unlink()
    vgexp.resume(tmp_path / "two", trust=True)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_inputs_are_as_they_were_given_in_the_runs_dtype() -> None:
    x = torch.arange(200.0).reshape(-1, 5).sin()
    for dtype in (torch.float32, torch.float64):
        split = loaded("lazy", dtype).train
        inputs, targets = split.take(torch.tensor([4, 0, 39]))
        assert torch.equal(inputs, x[[4, 0, 39]].to(dtype))
        assert targets.tolist() == [1, 0, 0]
        assert torch.equal(split.part(3, 5)[0], x[3:5].to(dtype))


def test_examples_are_read_only_when_they_are_asked_for() -> None:
    split = loaded("lazy", kwargs={"num_examples": 50}).train
    reads = split.dataset.reads  # type: ignore[attr-defined]
    assert reads == 1 + 50  # the form of the first, then every target
    split.take(torch.tensor([1, 2]))
    assert split.dataset.reads == reads + 2  # type: ignore[attr-defined]


def test_targets_that_a_data_set_tells_are_not_read_one_by_one(user_folder: Path) -> None:
    (user_folder / "told.py").write_text(
        "from mine import Squares\n"
        "class Told(Squares):\n"
        "    def __init__(self, shift=0):\n"
        "        super().__init__()\n"
        "        self.targets = (self.y + shift).tolist()\n"
        "def make(shift=0):\n"
        "    return Told(shift), Squares(9)\n"
    )
    for shift, reads in ((0, 1 + 3), (1, 1 + 1 + 40)):
        keys = {"target": "told.make", "kwargs": {"shift": shift}}
        split = data.load(CustomDataConfig(**keys), 0, torch.float32).train
        assert split.dataset.reads == reads  # type: ignore[attr-defined]
        assert split.targets.tolist() == [i % 3 for i in range(40)]


def test_one_data_set_is_split_by_the_share_for_validation() -> None:
    found = loaded("alone", val_fraction=0.2)
    splits = (found.train, found.val, found.test)
    assert [len(split) for split in splits] == [24, 8, 8]
    rows = torch.cat([split.part(0, 40)[0] for split in splits])
    assert {*rows[:, 0].tolist()} == {*torch.arange(0, 200.0, 5).sin().tolist()}
    assert [len(split) for split in _splits(loaded("alone", val_fraction=0.0))] == [40, 0, 0]


def _splits(found: data.Dataset) -> list[Any]:
    return [found.train, found.val, found.test]


def test_a_test_split_may_be_given_and_a_validation_split_left_out() -> None:
    assert [len(split) for split in _splits(loaded("with_test"))] == [40, 0, 9]


@pytest.mark.parametrize(
    ("name", "kind", "shape", "outputs", "loss", "per_position"),
    [
        ("lazy", "vector", (5,), 3, "cross_entropy", False),
        ("values", "vector", (5,), 1, "mse", False),
        ("images", "image", (2, 4, 5), 3, "cross_entropy", False),
        ("tokens", "tokens", (5,), 2, "cross_entropy", True),
    ],
)
def test_the_task_is_read_off_the_first_example_and_the_targets(
    name: str, kind: str, shape: tuple[int, ...], outputs: int, loss: str, per_position: bool
) -> None:
    found = loaded(name)
    task = found.task
    assert (task.kind, task.shape, task.num_outputs) == (kind, shape, outputs)
    assert (found.loss, task.per_position) == (loss, per_position)
    assert task.num_tokens == (7 if kind == "tokens" else 0)
    assert found.train.take(torch.tensor([0, 1]))[0].shape == (2, *shape)


def test_batches_of_what_is_read_one_by_one_are_on_the_device_that_was_asked_for() -> None:
    there = loaded("lazy").train.to(torch.device("meta"))
    batch = (*there.take(torch.tensor([0, 1])), *there.part(0, 2))
    assert [part.device.type for part in (there.targets, *batch)] == ["meta"] * 5
    assert [len(part) for part in batch] == [2] * 4


def test_values_are_one_column_and_train_by_their_squares() -> None:
    found = loaded("values")
    assert found.train.targets.shape == (40, 1)
    inputs, targets = found.train.take(torch.tensor([7, 3]))
    torch.testing.assert_close(targets, inputs.sum(1, keepdim=True), rtol=1e-6, atol=0)
    assert len(losses(user_data("values"))) == 12


def test_classes_are_as_many_as_somebody_says() -> None:
    assert loaded("lazy", kwargs={"classes": 7}).task.num_outputs == 7
    assert loaded("lazy", kwargs={"classes": 7}, num_classes=5).task.num_outputs == 5


@pytest.mark.parametrize(("told", "outputs"), [(7, 7), (True, 3), ("seven", 3)])
def test_a_number_of_classes_that_data_tell_of_is_taken_where_it_is_one(
    told: object, outputs: int
) -> None:
    assert loaded("lazy", kwargs={"told": told}).task.num_outputs == outputs


def test_what_is_drawn_as_data_are_made_depends_on_the_seed_alone() -> None:
    first, again, other = (
        data.load(CustomDataConfig(target="user_code.make"), seed, torch.float32).train
        for seed in (0, 0, 1)
    )
    assert torch.equal(first.part(0, 9)[0], again.part(0, 9)[0])
    assert not torch.equal(first.part(0, 9)[0], other.part(0, 9)[0])


@pytest.mark.parametrize("subset", [[3, 1, 8], range(2, 5)])
def test_a_part_of_tensors_is_in_memory_too(subset: Any) -> None:
    from vgexp.data.user_code import _tensors

    x, y = torch.arange(20).reshape(10, 2), torch.arange(10)
    found = _tensors(Subset(TensorDataset(x, y), subset))
    assert found is not None
    assert torch.equal(found[0], x[list(subset)])
    assert torch.equal(found[1], y[list(subset)])


@pytest.mark.parametrize(
    ("name", "keys", "said"),
    [
        ("triples", {}, "example 0 is a tuple of 3\nallowed: examples (input, target)"),
        ("texts", {}, "whose input is a str"),
        ("objects", {}, "whose input is a object"),
        ("raises", {}, "reading example 0 raised\nZeroDivisionError"),
        ("scalars", {}, "gives inputs of shape []\nallowed: [features], [positions, features], ["),
        ("scalars", {}, ", columns], or whole numbers [positions]"),
        ("lazy", {"kwargs": {"odd": 7}}, "example 7 has shapes [4], []; the first example [5], []"),
        ("lazy", {"num_classes": 2}, "with class 2, but there are 2 classes"),
        ("strange_class", {}, "gives validation data with class 4, but there are 3 classes"),
        ("empty", {}, "returns a Squares without examples as the training data"),
        ("stream", {}, "an iterable data set as the training data"),
        ("loader", {}, "returns a DataLoader as the training data"),
        ("four", {}, "returns 4 things"),
        ("nothing", {}, "returns a int as its data"),
        ("no_such", {}, "the module mine has no 'no_such'"),
        ("lazy", {"kwargs": {"num_examples": "x"}}, "which raised\nTypeError"),
    ],
)
def test_what_are_no_data_are_refused(name: str, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(QuestionError) as caught:
        loaded(name, **keys)
    assert said in str(caught.value)


def test_shapes_that_differ_later_are_told_with_their_examples(user_folder: Path) -> None:
    (user_folder / "later.py").write_text(
        "from mine import Squares\n"
        "class Later(Squares):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.targets = self.y\n"
        "def make():\n"
        "    made = Later()\n"
        "    made.odd = 7\n"
        "    return made, Squares(9)\n"
    )
    split = data.load(CustomDataConfig(target="later.make"), 0, torch.float32).train
    with pytest.raises(QuestionError, match=r"\[5\] in example 2, \[4\] in example 7"):
        split.take(torch.tensor([2, 7]))


def test_the_summary_of_what_was_given_is_a_tensor() -> None:
    flat = loaded("images").flattened()
    inputs, _ = flat.train.take(torch.tensor([0]))
    assert isinstance(inputs, Tensor)
    assert inputs.shape == (1, 40)
    assert flat.task.kind == "vector"
