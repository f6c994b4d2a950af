"""What is known of activations that are called as functions, and of modules that are formulas.

The functions of torch that are activations; which weight's output a tensor is computed from; and
whether what a module does is elementwise. The last two are read off the autograd graph.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp import user_code
from vgexp.activations import DERIVATIVES
from vgexp.probe import graph
from vgexp.probe.functions import FunctionCall
from vgexp.torch_internals import base_of, copy_without_hooks, is_in_flat
from vgexp.watch import Slope

# ---------------------------------------------------------------- functions of torch


class _Parameter(NamedTuple):
    """An argument of a function that phi' depends on."""

    name: str
    position: int | None
    """None: it is given by name only."""
    default: Any


_Functions = tuple[Callable[..., Any], ...]

_TABLE: tuple[tuple[type[nn.Module], _Functions, tuple[_Parameter, ...]], ...] = (
    (nn.ReLU, (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), ()),
    (
        nn.Sigmoid,
        (
            *(F.sigmoid, torch.sigmoid, torch.sigmoid_, torch.special.expit),
            *(Tensor.sigmoid, Tensor.sigmoid_),
        ),
        (),
    ),
    (nn.Tanh, (F.tanh, torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_), ()),
    (nn.GELU, (F.gelu,), (_Parameter("approximate", None, "none"),)),
    (nn.SiLU, (F.silu,), ()),
    (nn.Mish, (F.mish,), ()),
    (
        nn.LeakyReLU,
        (F.leaky_relu, F.leaky_relu_),
        (_Parameter("negative_slope", 1, 0.01),),
    ),
    (nn.PReLU, (F.prelu, torch.prelu, Tensor.prelu), (_Parameter("weight", 1, None),)),
    (nn.ELU, (F.elu, F.elu_), (_Parameter("alpha", 1, 1.0),)),
    (nn.CELU, (F.celu, F.celu_, torch.celu, torch.celu_), (_Parameter("alpha", 1, 1.0),)),
    (nn.SELU, (F.selu, F.selu_, torch.selu, torch.selu_), ()),
    (
        nn.Softplus,
        (F.softplus,),
        (_Parameter("beta", 1, 1.0), _Parameter("threshold", 2, 20.0)),
    ),
    (
        nn.Hardtanh,
        (F.hardtanh, F.hardtanh_),
        (_Parameter("min_val", 1, -1.0), _Parameter("max_val", 2, 1.0)),
    ),
    (nn.Hardswish, (F.hardswish,), ()),
    (nn.Hardsigmoid, (F.hardsigmoid,), ()),
    (nn.Hardshrink, (F.hardshrink, Tensor.hardshrink), (_Parameter("lambd", 1, 0.5),)),
    (nn.Softshrink, (F.softshrink,), (_Parameter("lambd", 1, 0.5),)),
    (nn.LogSigmoid, (F.logsigmoid,), ()),
    (nn.Softsign, (F.softsign,), ()),
    (nn.Tanhshrink, (F.tanhshrink,), ()),
    (
        nn.Threshold,
        (F.threshold, torch.threshold, torch.threshold_),
        (_Parameter("threshold", 1, None),),
    ),
)

_Slopes = Callable[[tuple[Any, ...], dict[str, Any]], Slope | None]


def _with_parameters(cls: type[nn.Module], parameters: tuple[_Parameter, ...]) -> _Slopes:
    derivative = DERIVATIVES[cls]

    def slope(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
        values = tuple(
            kwargs.get(p.name, p.default)
            if p.position is None or p.position >= len(args)
            else args[p.position]
            for p in parameters
        )
        return derivative.slope_with(values)

    return slope


def _of_relu6(_args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Slope:
    return DERIVATIVES[nn.ReLU6].slope_with((0.0, 6.0))


def _of_clamp(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope | None:
    """A relu where what is cut off is below 0, and nothing else is."""
    low = args[1] if len(args) > 1 else kwargs.get("min")
    high = args[2] if len(args) > 2 else kwargs.get("max")
    is_relu = isinstance(low, int | float) and low == 0 and high is None
    return DERIVATIVES[nn.ReLU].slope_with(()) if is_relu else None


_CLAMPS: _Functions = (
    *(torch.clamp, torch.clamp_min, Tensor.clamp, Tensor.clamp_, Tensor.clamp_min),
    *(torch.clip, Tensor.clip),
)
FUNCTIONS: Mapping[Callable[..., Any], _Slopes] = {
    **{f: _with_parameters(cls, p) for cls, functions, p in _TABLE for f in functions},
    F.relu6: _of_relu6,
    **dict.fromkeys(_CLAMPS, _of_clamp),
}
"""Function -> what makes phi' of the arguments of a call; None: the call is no activation."""
PRODUCTS: _Functions = (torch.mul, torch.multiply, Tensor.mul, Tensor.mul_, Tensor.multiply)
WEIGHT_USES: _Functions = (
    *(F.linear, F.bilinear, F.embedding, F.conv1d, F.conv2d, F.conv3d),
    *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
    *(torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__),
)
"""Functions whose second argument, or for `bilinear` the third, is a weight."""
SIGMOID = DERIVATIVES[nn.Sigmoid].slope_with(())
SILU = DERIVATIVES[nn.SiLU].slope_with(())
UNKNOWN = Slope(torch.ones_like)
"""The slope of what is not known yet to be an activation."""


def slope_of_call(call: FunctionCall) -> Slope | None:
    """phi' of a call; None where it is no activation."""
    make = FUNCTIONS.get(call.function)
    return None if make is None else make(call.args, call.kwargs)


def input_of(call: FunctionCall) -> Tensor | None:
    """u of a call of an activation."""
    u = call.args[0] if call.args else call.kwargs.get("input")
    return u if isinstance(u, Tensor) and u.is_floating_point() else None


def is_in_place(call: FunctionCall) -> bool:
    """Whether a call of an activation writes into its input."""
    name: str = getattr(call.function, "__name__", "")
    flags = (*call.args[1:], call.kwargs.get("inplace"))
    return name.endswith("_") or any(flag is True for flag in flags)


def weight_of(call: FunctionCall) -> nn.Parameter | None:
    """The weight of a call of `WEIGHT_USES`, as it is or as a view such as `weight.t()`; None where
    it is no parameter of anything."""
    position = 2 if call.function is F.bilinear else 1
    weight = call.args[position] if len(call.args) > position else call.kwargs.get("weight")
    if not isinstance(weight, Tensor) or isinstance(weight, nn.Parameter):
        return weight
    base = base_of(weight)
    return base if type(base) is nn.Parameter and not is_in_flat(base) else None


# ---------------------------------------------------------------- whose output it is

_TAG = "vgexp"
_MOST_NODES = 64
_ENDS = re.compile("Softmax|Checkpoint|AccumulateGrad")
"""Nodes beyond which, as beyond another weight, a tensor is no function of one weight's output."""
_REDUCTIONS = re.compile("Mean|Sum|Var|Std|Norm")


class _Kind(NamedTuple):
    """What the name of a node says: whether no walk goes beyond it, and whether it takes means."""

    ends: bool
    reduces: bool


@lru_cache(maxsize=1024)
def _kind_of(name: str) -> _Kind:
    is_end = graph.is_mixing(name) or _ENDS.search(name) is not None
    return _Kind(is_end, _REDUCTIONS.search(name) is not None)


class Tag(NamedTuple):
    """What a node of the autograd graph that made a z carries."""

    of_pass: object
    order: int
    row: int


def tag(z: Tensor, of_pass: object, order: int, row: int) -> None:
    """Marks the node that made a z with its row. The mark goes with the graph."""
    if z.grad_fn is not None:
        _metadata(z.grad_fn)[_TAG] = Tag(of_pass, order, row)


def _metadata(node: Any) -> dict[str, Any]:
    """What anybody may attach to a node; torch's types have it as a method."""
    found: dict[str, Any] = node.metadata
    return found


def find_row(x: Tensor, of_pass: object) -> int | None:
    """The row whose z a tensor is computed from, through norms, sums, views and the like.

    Where it is computed from several, the one that was called last. None where there is none, and
    where z enters in several ways without a mean or a sum, as the norms take it: then x is part of
    a formula (the polynomial within a gelu, the state of a cell), and not an activation's input.
    """
    if x.grad_fn is None:
        return None
    queue, known = [x.grad_fn], {x.grad_fn}
    best: Tag | None = None
    is_formula = is_norm = False
    for node in queue:
        mark = _metadata(node).get(_TAG)
        if mark is not None:
            if mark.of_pass is of_pass and (best is None or mark.order > best.order):
                best = mark
            continue
        kind = _kind_of(node.name())
        if kind.ends:
            continue
        is_norm = is_norm or kind.reduces
        for following, _ in node.next_functions:
            if following is None:
                continue
            if following in known:
                is_formula = is_formula or "AccumulateGrad" not in following.name()
            elif len(queue) < _MOST_NODES:
                known.add(following)
                queue.append(following)
    return None if best is None or (is_formula and not is_norm) else best.row


# ---------------------------------------------------------------- formulas

_ELEMENTWISE = re.compile(
    "(Add|Sub|Rsub|Neg|Mul|Div|Pow|Exp|Expm1|Exp2|Log|Log1P|Log2|Sqrt|Rsqrt|Reciprocal|Abs|Tanh"
    "|Sigmoid|Relu|LeakyRelu|Elu|Gelu|Silu|Mish|Softplus|Hardtanh|Hardswish|Hardsigmoid|Softshrink"
    "|Hardshrink|LogSigmoid|Threshold|Clamp|ClampMin|ClampMax|Maximum|Minimum|Where|Erf|Erfc|Sin"
    "|Cos|Tan|Atan|Asinh|Sinh|Cosh|ToCopy|Clone|Alias|MaskedFill|Lerp|Addcmul)Backward[0-9]*"
)
_LINEAR = re.compile("(Add|Sub|Rsub|Neg|Mul|Div|ToCopy|Clone|Alias|MaskedFill)Backward[0-9]*")
_FACTORS = re.compile("(Mul|Div)Backward[0-9]*")


def is_elementwise(y: Tensor, u_node: Any) -> bool:
    """Whether y is a nonlinear function, entry by entry, of the output of a node and of nothing
    else that has a gradient.

    What is random and linear, such as dropout, is not.
    """
    if y.grad_fn is None or y.grad_fn is u_node:
        return False
    queue, known = [y.grad_fn], {y.grad_fn}
    is_nonlinear = reaches = False
    for node in queue:
        if node is u_node:
            reaches = True
            continue
        name = node.name()
        if not _ELEMENTWISE.fullmatch(name) or len(queue) > _MOST_NODES:
            return False
        following = [each for each, _ in node.next_functions if each is not None]
        is_product = len(following) > 1 and _FACTORS.fullmatch(name)
        is_nonlinear = is_nonlinear or bool(is_product) or not _LINEAR.fullmatch(name)
        for each in following:
            if each not in known:
                known.add(each)
                queue.append(each)
    return is_nonlinear and reaches


def node_of(u: Tensor) -> Any:
    """The node that gets a tensor's gradient; None where it needs none."""
    if not u.requires_grad:
        return None
    # A leaf's own node is the one that a view of it leads to.
    return u.grad_fn if u.grad_fn is not None else u.view_as(u).grad_fn.next_functions[0][0]  # type: ignore[union-attr]


def says_the_same_again(module: nn.Module, u: Tensor, y: Tensor) -> bool:
    """Whether a module makes y of u once more, with the next random numbers and no hook.

    One that keeps a state between calls says something else, and is no formula.
    """
    with _lent_generators(u), torch.no_grad():
        again = copy_without_hooks(module).forward(u.detach().clone())
    return torch.equal(again.nan_to_num(), y.detach().nan_to_num())


def slope_of_formula(module: nn.Module) -> Slope:
    """phi' of an elementwise module, by autograd."""
    return Slope(partial(_derivative, module), stackable=False)


def _derivative(module: nn.Module, u: Tensor) -> Tensor:
    with _lent_generators(u):
        return user_code.derivative(copy_without_hooks(module), u)


@contextmanager
def _lent_generators(u: Tensor) -> Iterator[None]:
    """The global generators of torch, Python and numpy have their state back afterwards."""
    devices, kind = ([], "cuda") if u.is_cpu else ([u.device], u.device.type)
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=devices, device_type=kind):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


def formulas_of(model: nn.Module) -> Iterator[nn.Module]:
    """Modules of a model that may be activations by a formula.

    They are not torch's own, and neither they nor any module in them has parameters or buffers.
    """
    for module in model.modules():
        if type(module).__module__.partition(".")[0] == "torch" or module is model:
            continue
        if not any(True for _ in (*module.parameters(), *module.buffers())):
            yield module
