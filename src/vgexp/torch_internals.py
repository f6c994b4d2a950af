"""The private names of torch that vgexp uses: why each is used, and what happens where it is gone.

A name is looked up when this module is imported, and is bound to the function that is called. Where
torch has no such name, another function gives the same numbers, or `LOST_PASSES` says what cannot
be measured.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import import_module
from operator import attrgetter
from typing import Any, Final, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

# ------------------------------------------------------------ forward and backward passes


def _return_minus_one() -> int:
    return -1


def _return_zero(_x: Tensor) -> int:
    return 0


def _do_not_queue(_callback: Callable[[], None]) -> None:
    return None


backward_task: Final[Callable[[], int]] = getattr(
    torch._C, "_current_graph_task_id", _return_minus_one
)
"""Returns autograd's number of the backward pass that is running, or -1 outside of one.

A forward call within a backward pass is one that checkpointing repeats. torch has no public way to
tell the two apart.
"""

_ENGINE = getattr(torch.autograd.Variable, "_execution_engine", None)

call_after_backward: Final[Callable[[Callable[[], None]], None]] = getattr(
    _ENGINE, "queue_callback", _do_not_queue
)
"""Has autograd call a function when the running backward pass ends. There is no public hook."""

_HAS_VERSIONS = hasattr(Tensor, "_version")

version_of: Final[Callable[[Tensor], int]] = (
    attrgetter("_version") if _HAS_VERSIONS else _return_zero
)
"""Returns a number that changes when a tensor is written to in place.

torch documents what the number means, but has no public name for it.
"""


def _find_lost_passes() -> str:
    needed = {
        "the number of the running backward pass": backward_task is not _return_minus_one,
        "when a backward pass ends": call_after_backward is not _do_not_queue,
        "whether a tensor was overwritten in place": _HAS_VERSIONS,
    }
    lost = [what for what, is_there in needed.items() if not is_there]
    return f"torch {torch.__version__} does not show {', '.join(lost)}" if lost else ""


LOST_PASSES: Final = _find_lost_passes()
"""Why nothing can be measured of forward and backward passes; empty where all of it can.

Without one of these names, passes could be counted twice or tensors measured after they changed.
So the columns of z, h and dL/dz stay empty; those of weights and gradients do not need the names.
"""


def _return_none(_x: Tensor) -> None:
    return None


base_of: Final[Callable[[Tensor], Tensor | None]] = (
    attrgetter("_base") if hasattr(Tensor, "_base") else _return_none
)
"""Returns the tensor that a tensor is a view of, or None.

Where it is gone, no tensor is known to be a view: an activation that reads a view of z is not
matched to the weight, and the estimate of a model's memory counts a view as a tensor of its own.
"""


def shape_of_node(node: Any) -> tuple[int, ...] | None:
    """The shape of the first tensor that a node of autograd's graph made; None where torch does not
    say.

    torch has no public name for it. Where it is gone, a loss of somebody's own that broadcasts is
    known by its value alone.
    """
    made = getattr(node, "_input_metadata", None)
    if not made:
        return None
    sizes = tuple(made[0].shape)
    return sizes if all(isinstance(size, int) for size in sizes) else None


def saved_of(node: Any, name: str) -> Any:
    """What a node of autograd's graph saved for its backward pass by this name; None where it saved
    no such thing.

    torch describes these attributes in its notes on autograd, and their names begin with `_saved_`.
    Where they are gone, it is not known whether an activation within a loss function is flat.
    """
    return getattr(node, f"_saved_{name}", None)


def packs_what_is_saved() -> bool:
    """Whether what is saved for the backward pass now is packed by somebody: computed again as in a
    checkpointed segment, or moved to another device. To read it would unpack it. Where torch does
    not say, it may be so.
    """
    try:
        return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None
    except (AttributeError, TypeError):
        return True


# ------------------------------------------------------------ calls of functions


class _NoDispatchMode(nullcontext[None]):
    """Stands for torch's mode where that is gone: it sees no kernel."""


KernelMode: Final[Any] = getattr(
    import_module("torch.utils._python_dispatch"), "TorchDispatchMode", _NoDispatchMode
)
"""A context whose `__torch_dispatch__` sees each call of a kernel, in both passes.

There is no public one. Where it is gone, no kernel is seen, and `vgexp fix` takes a step of every
network to cost the same.
"""

_MODES = getattr(torch.overrides, "_get_current_function_mode_stack", list)
_POP_MODE = getattr(torch.overrides, "_pop_mode", None)


_TORCH_FUNCTIONS_OFF = getattr(torch._C, "DisableTorchFunction", nullcontext)
_NUM_MODES: Callable[[], int] = getattr(torch._C, "_len_torch_function_stack", lambda: 1)


def call_without_modes(do: Callable[..., None], arguments: Sequence[Any]) -> None:
    """Calls a function while no mode on the stack sees what it does.

    Within a mode even `x.shape` is a call through Python. Where torch has no such switch, it is
    slower and gives the same.
    """
    if _NUM_MODES():
        with _TORCH_FUNCTIONS_OFF():
            do(*arguments)
    else:
        do(*arguments)


def enter_mode(mode: TorchFunctionMode) -> None:
    """Puts a mode on top of the stack of modes, as `with mode` does."""
    mode.__enter__()  # type: ignore[no-untyped-call]


def leave_mode(mode: TorchFunctionMode) -> None:
    """Takes a mode off the stack of modes, wherever it is there; does nothing where it is not.

    `mode.__exit__` takes the top one, which is another where the user's forward pass entered one
    that it did not leave, as `torch.set_default_device` does. Where torch does not show the stack,
    the top one is taken to be it.
    """
    if _POP_MODE is None:
        mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        return
    if not any(each is mode for each in _MODES()):
        return
    above: list[TorchFunctionMode] = []
    while (top := _POP_MODE()) is not mode:
        above.append(top)
    for each in reversed(above):
        enter_mode(each)


def is_compiled(module: nn.Module) -> bool:
    """Whether `torch.compile` runs the module's forward pass.

    Where the names are gone it says no, and what is measured by functions is found missing.
    """
    return hasattr(module, "_orig_mod") or (
        getattr(module, "_compiled_call_impl", None) is not None
    )


# ------------------------------------------------------------ loss scales

_SCALER_STEP = getattr(GradScaler.step, "__code__", None)
_MOST_FRAMES = 32
# Wrappers of optimizers stand between a scaler and the optimizer, with three frames each.
_UNKNOWN = object()

LOST_SCALER: Final = (
    ""
    if _SCALER_STEP is not None
    else f"torch {torch.__version__} does not show which GradScaler calls the optimizer; where one"
    " does, pass it as Probe(..., scaler=scaler)"
)
"""Why the `GradScaler` that calls the optimizer cannot be found; empty where it can."""


def find_calling_scaler() -> GradScaler | None:
    """The `GradScaler` that is calling the optimizer, found on the call stack; None: none is.

    dL/dz was taken on the scaled loss, and no argument of an optimizer's hook says by how much.
    """
    frame = sys._getframe(1)
    for _ in range(_MOST_FRAMES):
        if frame.f_back is None:
            return None
        frame = frame.f_back
        # Only a scaler's own frames: to look into the user's would keep its variables alive.
        if frame.f_code is _SCALER_STEP:
            return cast(GradScaler, frame.f_locals["self"])
    return None


def scale_of(scaler: GradScaler) -> Tensor | float:
    """A copy of the loss scale that a scaler multiplies by now; 1 where it has scaled no loss.

    `scaler.get_scale()` would wait for the device, and `scaler.scale(1)` would give a scaler that
    was not used yet its first scale; so the latter is called only where the tensor is not found.
    """
    if not scaler.is_enabled():
        return 1.0
    scale = getattr(scaler, "_scale", _UNKNOWN)
    if scale is _UNKNOWN:
        return scaler.scale(torch.ones(()))
    # A copy: the scaler changes its tensor in place before the rows are read.
    return 1.0 if scale is None else cast(Tensor, scale).clone()


def ask_for_every_step(optimizer: Optimizer) -> bool:
    """Asks `GradScaler` to call the optimizer also for steps whose gradients are not finite.

    The scaler then sets `optimizer.found_inf` and does not wait for the device. Where it no longer
    reads this mark, it leaves such steps out itself.

    Returns:
        Whether the optimizer asked for it already, as fused ones do, which look at `found_inf`.
    """
    asked = bool(getattr(optimizer, "_step_supports_amp_scaling", False))
    optimizer._step_supports_amp_scaling = True  # type: ignore[attr-defined]
    return asked


def mark_as_stepped(optimizer: Optimizer) -> None:
    """Has torch's schedulers take it that the optimizer has made a step.

    They warn where the first step was left out, as `GradScaler` may rightly do. The mark is the one
    that their own wrapper of `optimizer.step` sets. Where they do not read it, it does nothing.
    """
    optimizer._opt_called = True  # type: ignore[attr-defined]


# ------------------------------------------------------------ the compiler

COMPILED_PREFIX: Final = "_orig_mod."
"""What `torch.compile` puts before the names of a module's parameters."""


def compiler_is_loaded() -> bool:
    """Whether anything in this process may be compiled: nothing is before this is imported."""
    return "torch._dynamo" in sys.modules


def compiler_stance() -> object:
    """The stance that `torch.compiler.set_stance` has set, which no public function returns.

    None where it is not shown; then a user's own stance that begins within a measured step and
    ends after it is not told from the probe's.
    """
    return getattr(sys.modules.get("torch._dynamo.eval_frame"), "_stance", None)


def uncompiled(model: nn.Module) -> nn.Module:
    """The module that `torch.compile` was given; the model itself where it returned none.

    Where torch keeps it under another name, the model is taken as it is.
    """
    kind = getattr(sys.modules.get("torch._dynamo.eval_frame"), "OptimizedModule", None)
    while kind is not None and isinstance(model, kind):
        inner = getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            break
        model = inner
    return model


# ------------------------------------------------------------ weights in flat pieces (FSDP1)

_WRAPPED_BY_FSDP = re.compile(r"(?:^|\.)_fsdp_wrapped_module(?=\.|$)")


class FlatPart(NamedTuple):
    """The part that this process holds of a weight, within what it holds of a flat parameter."""

    flat: nn.Parameter
    """In which the gradients of several weights come, one after the other."""
    whole: Tensor
    """This process's entries of the flat parameter."""
    start: int
    length: int
    """0 where it holds none of the weight's entries."""
    original: nn.Parameter | None
    """The weight's own parameter, as the optimizer has it; None: it has the flat one."""


def flat_kind() -> type[nn.Module] | None:
    """`FullyShardedDataParallel`; None where nothing has loaded it, so that there is none."""
    return getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", None)


def without_flat_kind(name: str) -> str:
    """The name of a module or a parameter without what `FullyShardedDataParallel` adds to it."""
    return _WRAPPED_BY_FSDP.sub("", name).lstrip(".")


def is_in_flat(x: Tensor) -> bool:
    """Whether a parameter is a flat one, or one whose entries are part of one.

    Where torch does not mark them, they are taken as what they are: vectors.
    """
    return bool(getattr(x, "_fsdp_flattened", False))


def flat_handles(model: nn.Module) -> list[Any]:
    """What knows the flat parameters of a model, one each. torch has no public way to it."""
    kind = flat_kind()
    wrappers = [m for m in model.modules() if kind is not None and isinstance(m, kind)]
    return [h for m in wrappers if (h := getattr(m, "_handle", None)) is not None]


def weights_in_flat(handle: Any) -> list[tuple[tuple[int, ...], list[tuple[nn.Module, str]]]]:
    """Of each weight in a flat parameter its shape, and the modules that have it with its name
    there.

    Raises:
        AttributeError: this torch does not tell.
    """
    flat = handle.flat_param
    places = [[(info.module, info.param_name)] for info in flat._param_infos]
    first = {(id(module), name): i for i, ((module, name),) in enumerate(places)}
    for info in flat._shared_param_infos:
        place = first[id(info.prim_module), info.prim_param_name]
        places[place].append((info.module, info.param_name))
    return [(tuple(s), at) for s, at in zip(flat._shapes, places, strict=True)]


def part_in_flat(handle: Any, place: int) -> FlatPart:
    """Where the entries of the weight at a place are.

    Raises:
        AttributeError: this torch does not tell.
    """
    flat = handle.flat_param
    info = flat._shard_param_infos[place]
    # Before the first pass, the parameter is what it is between passes.
    whole = getattr(flat, "_local_shard", flat.data)
    start, length = (info.offset_in_shard, info.numel_in_shard) if info.in_shard else (0, 0)
    return FlatPart(flat, whole, start, length, flat._params[place] if flat._params else None)


def gradient_of(p: Tensor) -> Tensor | None:
    """The gradient of a parameter, also where it is put aside while a backward pass goes on.

    Where torch keeps it under another name, a pass before that one counts as thrown away.
    """
    kept = getattr(p, "_saved_grad_shard", None) if p.grad is None else p.grad
    return kept if isinstance(kept, Tensor) else None


def group_of_flat(handle: Any) -> tuple[Any, torch.device] | None:
    """The processes that hold the parts of a flat parameter, and the device on which they exchange;
    None where each holds the whole."""
    return (handle.process_group, handle.device) if handle.uses_sharded_strategy else None


# ------------------------------------------------------------ many tensors at a time


def _concatenate(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([x.reshape(-1) for x in tensors])


def _norm_one_by_one(
    tensors: Sequence[Tensor], order: float = 2, dtype: torch.dtype | None = None
) -> list[Tensor]:
    return [torch.linalg.vector_norm(x, order, dtype=dtype) for x in tensors]


def _multiply_one_by_one(tensors: Sequence[Tensor], factors: Sequence[Tensor | float]) -> None:
    for x, factor in zip(tensors, factors, strict=True):
        x.mul_(factor)


flatten: Final[Callable[[Sequence[Tensor]], Tensor]] = getattr(
    getattr(torch._C, "_nn", None), "flatten_dense_tensors", _concatenate
)
"""Copies the entries of all tensors into one vector, in one call."""

norm_each: Final[Callable[..., list[Tensor]]] = getattr(torch, "_foreach_norm", _norm_one_by_one)
"""Takes the norm of each tensor, of an order and in a dtype: on CUDA, one kernel for all."""

multiply_each: Final[Callable[[Sequence[Tensor], Sequence[Any]], object]] = getattr(
    torch, "_foreach_mul_", _multiply_one_by_one
)
"""Multiplies each tensor in place by its own factor: on CUDA, one kernel for all."""

# ------------------------------------------------------------ kinds of modules

Kinds = tuple[type[nn.Module], ...]
"""Classes, as `isinstance` takes them."""


def _find_kind(module: str, base: str, *public: type[nn.Module]) -> Kinds:
    """The public classes of a kind, and torch's own base class of them, if it is there.

    A user's class may be derived from the base class alone.
    """
    found = getattr(import_module(f"torch.nn.modules.{module}"), base, None)
    return public if found is None else (found, *public)


CONVOLUTIONS: Final = _find_kind(
    "conv",
    "_ConvNd",
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
BATCH_NORMS: Final = _find_kind(
    "batchnorm", "_BatchNorm", nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm
)
BATCH_AND_INSTANCE_NORMS: Final = _find_kind(
    "batchnorm",
    "_NormBase",
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
DROPOUTS: Final = _find_kind(
    "dropout",
    "_DropoutNd",
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout),
)

# ------------------------------------------------------------ hooks of modules

_FORWARD_HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
)


def remove_forward_hook(module: nn.Module, key: int) -> None:
    """Removes the hook with a handle's `id` from the copy of a module, which has no such handle.

    Where torch keeps hooks under other names, it stays.
    """
    for name in _FORWARD_HOOKS:
        getattr(module, name, {}).pop(key, None)


def copy_without_hooks(module: nn.Module) -> nn.Module:
    """A module, and those in it, with attributes of their own and without hooks on their calls.

    What the attributes refer to is the same. Where torch keeps hooks under other names, they stay;
    where it keeps submodules under another, the copy has the module's own.
    """
    made = module.__class__.__new__(module.__class__)
    vars(made).update(vars(module))
    for name in _FORWARD_HOOKS:
        if name in vars(made):
            vars(made)[name] = type(vars(made)[name])()
    inner = vars(made).get("_modules", {})
    copies = {n: m if m is None else copy_without_hooks(m) for n, m in inner.items()}
    vars(made)["_modules"] = copies
    return made


# ------------------------------------------------------------ files

PICKLED_TENSOR: Final = "torch._utils _rebuild_tensor_v2"
"""What a pickle of `torch.save` calls a tensor: a name in the file, which is never called."""
PICKLED_TYPED_TENSOR: Final = "torch._utils _rebuild_tensor_v3"
"""The same for tensors of dtypes that have no storage class of their own."""
PICKLED_PARAMETER: Final = "torch._utils _rebuild_parameter"
"""The same for an `nn.Parameter`."""
