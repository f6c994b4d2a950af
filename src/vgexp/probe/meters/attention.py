"""`attention.csv` of anybody's model that calls torch's attention.

Seen are `torch.nn.functional.scaled_dot_product_attention` and `nn.MultiheadAttention`, whichever
module calls them. The weights softmax(q k^T / sqrt(D)) are computed once more as a call is made.

Axes: B examples, H heads, T query positions, S key positions, D units of a head, E units.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp.probe.flat import Members
from vgexp.probe.functions import FunctionCall
from vgexp.probe.meters.passes import OfPasses, Unseen
from vgexp.probe.plan import PlanRow
from vgexp.probe.taps import Taps
from vgexp.records import Floats, Rows

MOST_ENTRIES = 2**15
"""Number of attention weights of a call that are measured; of more, those of fewer queries."""
LEAST_QUERIES = 16
"""Number of queries of an example that are measured all the same, if there are as many."""

NOT_CALLED = "attention.csv: no call of torch's attention was seen in it"
OTHER_HEADS = "attention.csv: its calls have different numbers of heads; the first is measured"
NOT_STRIDED = "attention.csv: nested and sparse tensors are not measured"


class _Measured(NamedTuple):
    """Of one call, sums over its examples and measured queries."""

    name: str
    entropy_H: Tensor
    largest_H: Tensor
    ceiling: Tensor
    """Of the largest entropies that the queries can have, 0-d."""
    num_queries: Tensor
    """Of those that see a key at all, 0-d."""


class _Given(NamedTuple):
    """What a call was given, of the examples and the T queries that are measured."""

    q_BHTD: Tensor
    k_BHSD: Tensor
    mask: Tensor | None
    """Broadcasts to [B, H, T, S]."""
    index_T: Tensor
    """The places of the queries in their sequence."""
    is_causal: bool = False
    scale: float | None = None


class TorchAttentionMeter:
    """Measures every head of torch's attention at the steps at which it is armed.

    A call with more weights than `MOST_ENTRIES` is measured at equally spaced queries, the last of
    them included, and where `LEAST_QUERIES` of each example are too many, in the first examples,
    one at least. Entropy is a mean over the queries that see a key; of those the largest possible
    is ln of the number of keys that they see, by the mask. A mask of floats hides a key where it is
    below half of its dtype's lowest number, and is otherwise added to the logits; `logit_max` is
    without it. Dropout is left out.

    After the first update that is measured, only the modules are looked at that called attention in
    it, and a model without any is left alone.
    """

    table = "attention"

    def __init__(
        self,
        model: nn.Module,
        taps: Taps,
        rows: Sequence[PlanRow],
        unseen: Unseen,
    ) -> None:
        modules = {id(m): (name, m) for name, m in Members(model).modules()}
        self._names = {key: name or type(m).__name__ for key, (name, m) in modules.items()}
        self._expected = [
            name or type(module).__name__
            for name, module in modules.values()
            if isinstance(module, nn.MultiheadAttention)
        ]
        self._passes: OfPasses[_Measured] = OfPasses(taps)
        self._taps = taps
        self._rows_of_plan = rows
        self._unseen = unseen
        self._heads: dict[str, int] = {}
        self._is_armed = False
        taps.functions.watch([F.scaled_dot_product_attention], self._see_dot_product)
        taps.functions.watch([F.multi_head_attention_forward], self._see_multi_head)

    @property
    def has_sites(self) -> bool:
        """Whether the model has modules of torch's attention, or called it."""
        return bool(self._expected or self._heads)

    def arm(self) -> None:
        self._passes.forget()
        self._is_armed = True

    def disarm(self) -> None:
        self._passes.forget()
        self._is_armed = False

    def take(
        self,
        step: int,
        num_examples: float,  # noqa: ARG002
        loss_scale: Tensor | float,  # noqa: ARG002
    ) -> Callable[[], Rows] | None:
        found = self._passes.of_update()
        self._passes.forget()
        if self._taps.has_counted:
            self._end_learning()
        for name in self._expected:
            if name not in self._heads:
                self._unseen(name, NOT_CALLED)
        if not found:
            return None
        layers = {one.name: self._layer_of(one.name) for one in found}
        return partial(_rows, step, found, layers)

    def _end_learning(self) -> None:
        """Leaves modules alone that called no attention in the first update: it costs time."""
        functions = self._taps.functions
        if not self.has_sites:
            functions.unwatch(self._see_dot_product)
            functions.unwatch(self._see_multi_head)
        functions.learn()

    def _layer_of(self, name: str) -> int | None:
        """The first layer of a weight of the module."""
        of_module = (row for row in self._rows_of_plan if row.name.startswith(f"{name}."))
        return min((row.layer for row in of_module if row.layer is not None), default=None)

    # ------------------------------------------------------------ calls

    def _see_dot_product(self, call: FunctionCall) -> None:
        given = _DOT_PRODUCT | dict(zip(_DOT_PRODUCT, call.args, strict=False)) | call.kwargs
        self._measure(call.module, partial(_of_dot_product, given))

    def _see_multi_head(self, call: FunctionCall) -> None:
        given = _MULTI_HEAD.bind(*call.args, **call.kwargs)
        given.apply_defaults()
        self._measure(call.module, partial(_of_multi_head, given.arguments))

    def _measure(self, module: nn.Module, read: Callable[[], _Given | None]) -> None:
        current, name = self._passes.current(), self._names.get(id(module))
        if not self._is_armed or current is None or name is None:
            return
        given = read()
        if given is None:
            self._unseen(name, NOT_STRIDED)
            return
        num_heads = given.q_BHTD.shape[1]
        if self._heads.setdefault(name, num_heads) != num_heads:
            self._unseen(name, OTHER_HEADS)
            return
        # Whatever autocast says, the logits of half precision are measured in float32.
        with torch.autocast(given.q_BHTD.device.type, enabled=False):
            self._passes.keep(current, _Measured(name, *_numbers(given)))


_DOT_PRODUCT: dict[str, Any] = dict.fromkeys(("query", "key", "value", "attn_mask", "dropout_p"))
_DOT_PRODUCT |= {"is_causal": False, "scale": None, "enable_gqa": False}
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


def _four_axes(x: Tensor) -> Tensor:
    """[B, H, T, D] of a tensor with heads in the third axis from the end; one head without it."""
    while x.ndim < 4:
        x = x.unsqueeze(-3) if x.ndim < 3 else x.unsqueeze(1)
    return x.flatten(0, -4) if x.ndim > 4 else x


def _of_dot_product(given: Mapping[str, Any]) -> _Given | None:
    """What `F.scaled_dot_product_attention` is given; None where that is not measured."""
    q, k, mask = given["query"], given["key"], given["attn_mask"]
    if not (_is_measurable(q) and _is_measurable(k)):
        return None
    q_BHTD, k_BHSD = _four_axes(q), _four_axes(k)
    num_examples, num_heads, num_queries, _ = q_BHTD.shape
    most, index_T = _chosen(num_examples, num_heads, num_queries, k_BHSD.shape[2], q.device)
    if mask is not None:
        mask = _of_chosen(mask, most, index_T)
    q_BHTD = q_BHTD[:most, :, index_T]
    return _Given(q_BHTD, k_BHSD[:most], mask, index_T, given["is_causal"], given["scale"])


def _of_multi_head(given: Mapping[str, Any]) -> _Given | None:
    """What `F.multi_head_attention_forward` attends with; None where that is not measured.

    It is told before its projections, of which those are made again that are measured.
    """
    query, key = given["query"], given["key"]
    if not (_is_measurable(query) and _is_measurable(key)):
        return None
    if query.ndim == 2:
        query, key = query.unsqueeze(1), key.unsqueeze(1)
    num_heads, fixed = given["num_heads"], given["static_k"]
    num_added = (given["bias_k"] is not None) + bool(given["add_zero_attn"])
    num_keys = (key.shape[0] if fixed is None else fixed.shape[1]) + num_added
    num_queries, num_examples, _ = query.shape
    most, index_T = _chosen(num_examples, num_heads, num_queries, num_keys, query.device)
    if given["use_separate_proj_weight"]:
        w_q, w_k = given["q_proj_weight"], given["k_proj_weight"]
    else:
        w_q, w_k, _ = given["in_proj_weight"].chunk(3)
    b_q = b_k = None
    if given["in_proj_bias"] is not None:
        b_q, b_k, _ = given["in_proj_bias"].chunk(3)
    q_BHTD = _in_heads(F.linear(query[index_T, :most], w_q, b_q), num_heads)
    if fixed is None:
        k_SBE = F.linear(key[:, :most], w_k, b_k)
        if given["bias_k"] is not None:
            k_SBE = torch.cat([k_SBE, given["bias_k"].expand(1, k_SBE.shape[1], -1)])
        k_BHSD = _in_heads(k_SBE, num_heads)
    else:
        k_BHSD = _by_examples(fixed, num_heads)[:most]
    if given["add_zero_attn"]:
        k_BHSD = torch.cat([k_BHSD, torch.zeros_like(k_BHSD[:, :, :1])], 2)
    mask = _as_floats(given["attn_mask"], q_BHTD)
    if mask is not None and mask.ndim == 3:
        mask = _by_examples(mask, num_heads)
    padding = _as_floats(given["key_padding_mask"], q_BHTD)
    if mask is not None:
        mask = _of_chosen(mask, most, index_T)
    if padding is not None:
        padding = padding.view(-1, 1, 1, padding.shape[-1])[:most]
        mask = padding if mask is None else mask + padding
    if mask is not None and num_added:
        mask = F.pad(mask, (0, num_added))
    return _Given(q_BHTD, k_BHSD, mask, index_T)


def _is_measurable(x: Tensor) -> bool:
    return not x.is_nested and x.layout is torch.strided and x.numel() > 0


def _in_heads(x_TBE: Tensor, num_heads: int) -> Tensor:
    """[B, H, T, D]."""
    num_positions, num_examples, _ = x_TBE.shape
    return x_TBE.reshape(num_positions, num_examples, num_heads, -1).permute(1, 2, 0, 3)


def _by_examples(x: Tensor, num_heads: int) -> Tensor:
    """[B, H, T, ..] of [B x H, T, ..]."""
    return x.reshape(-1, num_heads, *x.shape[1:])


def _as_floats(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """A mask of `nn.MultiheadAttention`, where True hides a key, as what is added to the logits."""
    if mask is None or mask.is_floating_point():
        return mask
    return torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill_(
        mask, -math.inf
    )


# ---------------------------------------------------------------- numbers


def _chosen(
    num_examples: int, num_heads: int, num_queries: int, num_keys: int, device: torch.device
) -> tuple[int, Tensor]:
    """How many examples to measure, and which queries: all, or equally spaced ones with the last
    of them."""
    entries_of_one = num_examples * num_heads * num_keys
    points = min(num_queries, max(LEAST_QUERIES, MOST_ENTRIES // entries_of_one))
    asked = [k * num_queries // points - 1 for k in range(1, points + 1)]
    most = max(1, MOST_ENTRIES // (num_heads * points * num_keys))
    return min(num_examples, most), torch.tensor(asked, device=device)


def _of_chosen(mask: Tensor, most: int, index_T: Tensor) -> Tensor:
    """Of a mask those examples and queries, where it tells them apart."""
    mask = mask[(None,) * (4 - mask.ndim)]
    if mask.shape[0] > 1:
        mask = mask[:most]
    return mask[:, :, index_T] if mask.shape[2] > 1 else mask


def _numbers(given: _Given) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums over examples and queries of entropies [H], largest logits [H], sum of the largest
    entropies, and number of queries."""
    q_BHTD, k_BHSD, mask = _real(given.q_BHTD), _real(given.k_BHSD), given.mask
    num_heads, num_units = q_BHTD.shape[1], q_BHTD.shape[3]
    if k_BHSD.shape[1] != num_heads:
        k_BHSD = k_BHSD.repeat_interleave(num_heads // k_BHSD.shape[1], 1)
    factor = 1 / math.sqrt(num_units) if given.scale is None else given.scale
    logits_BHTS = (q_BHTD * factor) @ k_BHSD.transpose(2, 3)
    hidden = _hidden(mask, given.index_T, k_BHSD.shape[2], is_causal=given.is_causal)
    size_BHTS = logits_BHTS.abs()
    if hidden is not None:
        size_BHTS.masked_fill_(hidden, 0.0)
    largest_H = size_BHTS.amax((0, 2, 3))
    if mask is not None and mask.dtype is not torch.bool:
        logits_BHTS += mask.to(logits_BHTS.dtype)
    return _entropies(logits_BHTS, hidden), largest_H, *_ceilings(hidden, logits_BHTS)


def _hidden(
    mask: Tensor | None, index_T: Tensor, num_keys: int, *, is_causal: bool
) -> Tensor | None:
    """Which keys a query does not see, of a shape that broadcasts to [B, H, T, S]."""
    hidden = None
    if mask is not None:
        is_bool = mask.dtype is torch.bool
        hidden = ~mask if is_bool else mask <= torch.finfo(mask.dtype).min / 2
        hidden = hidden.expand(*hidden.shape[:-1], num_keys)
    if is_causal:
        later_TS = torch.arange(num_keys, device=index_T.device) > index_T[:, None]
        hidden = later_TS if hidden is None else hidden | later_TS
    return hidden


def _entropies(logits_BHTS: Tensor, hidden: Tensor | None) -> Tensor:
    """[H]: sums over examples and queries of -sum p ln p. Writes into the logits."""
    if hidden is not None:
        # Far below what is seen, and finite: p ln p is 0 there, and not nan.
        logits_BHTS.masked_fill_(hidden, torch.finfo(logits_BHTS.dtype).min / 4)
    log_p_BHTS = torch.log_softmax(logits_BHTS, 3)
    # Not exp of ln p: on CPU that takes ten times as long where keys are hidden, since it
    # underflows there.
    minus_entropy_BHT = torch.softmax(logits_BHTS, 3).mul_(log_p_BHTS).sum(3)
    if hidden is not None:
        # Of a query that sees no key, p is the same for all of them.
        minus_entropy_BHT.masked_fill_(hidden.all(-1), 0.0)
    return -minus_entropy_BHT.sum((0, 2))


def _ceilings(hidden: Tensor | None, logits_BHTS: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over queries, averaged over heads, of ln of the keys that a query sees; the number
    of those that see any."""
    num_examples, num_heads, num_queries, num_keys = logits_BHTS.shape
    if hidden is None:
        total = num_examples * num_queries
        return (
            torch.tensor(total * math.log(num_keys), dtype=torch.float64),
            torch.tensor(float(total), dtype=torch.float64),
        )
    seen_BHT = (~hidden).sum(-1).expand(num_examples, num_heads, num_queries).double()
    return seen_BHT.clamp(min=1).log().sum() / num_heads, (seen_BHT > 0).double().sum() / num_heads


def _real(x: Tensor) -> Tensor:
    return x.detach() if x.dtype is torch.float64 else x.detach().float()


def _rows(step: int, found: Sequence[_Measured], layers: Mapping[str, int | None]) -> Rows:
    """One row for each head, in the order of the calls; waits for the device."""
    columns: dict[str, list[Any]] = {
        name: []
        for name in ("step", "layer", "name", "head", "entropy", "entropy_fraction", "logit_max")
    }
    for name, layer in layers.items():
        own = [one for one in found if one.name == name]
        count = sum(float(one.num_queries) for one in own)
        most = sum(float(one.ceiling) for one in own) / count if count else 0.0
        entropy_H = np.sum([one.entropy_H.cpu().double().numpy() for one in own], axis=0)
        largest_H = np.max([one.largest_H.cpu().numpy() for one in own], axis=0)
        dtype = largest_H.dtype
        for head, (total, largest) in enumerate(zip(entropy_H, largest_H, strict=True)):
            entropy = total / count if count else math.nan
            columns["step"].append(step)
            columns["layer"].append(layer)
            columns["name"].append(name)
            columns["head"].append(head)
            columns["entropy"].append(dtype.type(entropy))
            columns["entropy_fraction"].append(dtype.type(entropy / most) if most > 0 else None)
            columns["logit_max"].append(largest)
    floats = {
        name: Floats(
            np.array([0 if v is None else v for v in columns[name]]),
            np.array([v is not None for v in columns[name]]),
        )
        for name in ("entropy", "entropy_fraction", "logit_max")
    }
    return Rows("attention", {**columns, **floats})
