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

from vgexp.probe.functions import FunctionCall
from vgexp.probe.guests.passes import OfPasses, Unseen
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


class GuestAttentionMeter:
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
        self._names = {id(m): name or type(model).__name__ for name, m in model.named_modules()}
        self._expected = [
            name or type(model).__name__
            for name, module in model.named_modules()
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
        q, k = given["query"], given["key"]
        mask = given["attn_mask"]
        self._measure(call.module, q, k, mask, is_causal=given["is_causal"], scale=given["scale"])

    def _see_multi_head(self, call: FunctionCall) -> None:
        given = _MULTI_HEAD.bind(*call.args, **call.kwargs)
        given.apply_defaults()
        q_BHTD, k_BHSD, mask = _projected(given.arguments)
        self._measure(call.module, q_BHTD, k_BHSD, mask, is_causal=False, scale=None)

    def _measure(
        self,
        module: nn.Module,
        q: Tensor,
        k: Tensor,
        mask: Tensor | None,
        *,
        is_causal: bool,
        scale: float | None,
    ) -> None:
        current, name = self._passes.current(), self._names.get(id(module))
        if not self._is_armed or current is None or name is None:
            return
        if q.is_nested or q.layout is not torch.strided or q.numel() == 0 or k.numel() == 0:
            self._unseen(name, NOT_STRIDED)
            return
        q_BHTD, k_BHSD = _four_axes(q), _four_axes(k)
        if self._heads.setdefault(name, q_BHTD.shape[1]) != q_BHTD.shape[1]:
            self._unseen(name, OTHER_HEADS)
            return
        # Whatever autocast says, the logits of half precision are measured in float32.
        with torch.autocast(q.device.type, enabled=False):
            numbers = _numbers(q_BHTD, k_BHSD, mask, is_causal=is_causal, scale=scale)
        self._passes.keep(current, _Measured(name, *numbers))


_DOT_PRODUCT: dict[str, Any] = dict.fromkeys(("query", "key", "value", "attn_mask", "dropout_p"))
_DOT_PRODUCT |= {"is_causal": False, "scale": None, "enable_gqa": False}
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


def _four_axes(x: Tensor) -> Tensor:
    """[B, H, T, D] of a tensor with heads in the third axis from the end; one head without it."""
    while x.ndim < 4:
        x = x.unsqueeze(-3) if x.ndim < 3 else x.unsqueeze(1)
    return x.flatten(0, -4) if x.ndim > 4 else x


def _projected(given: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor | None]:
    """q, k, and the mask as floats, of the arguments of `F.multi_head_attention_forward`."""
    query, key = given["query"], given["key"]
    if query.ndim == 2:
        query, key = query.unsqueeze(1), key.unsqueeze(1)
    if given["use_separate_proj_weight"]:
        w_q, w_k = given["q_proj_weight"], given["k_proj_weight"]
    else:
        w_q, w_k, _ = given["in_proj_weight"].chunk(3)
    b_q = b_k = None
    if given["in_proj_bias"] is not None:
        b_q, b_k, _ = given["in_proj_bias"].chunk(3)
    q_TBE, k_SBE = F.linear(query, w_q, b_q), F.linear(key, w_k, b_k)
    num_added = 0
    if given["bias_k"] is not None:
        k_SBE = torch.cat([k_SBE, given["bias_k"].expand(1, k_SBE.shape[1], -1)])
        num_added += 1
    num_heads = given["num_heads"]
    q_BHTD = _in_heads(q_TBE, num_heads)
    if given["static_k"] is None:
        k_BHSD = _in_heads(k_SBE, num_heads)
    else:
        k_BHSD = _by_examples(given["static_k"], num_heads)
    if given["add_zero_attn"]:
        k_BHSD = torch.cat([k_BHSD, torch.zeros_like(k_BHSD[:, :, :1])], 2)
        num_added += 1
    mask = _as_floats(given["attn_mask"], q_BHTD)
    if mask is not None and mask.ndim == 3:
        mask = _by_examples(mask, num_heads)
    padding = _as_floats(given["key_padding_mask"], q_BHTD)
    if padding is not None:
        padding = padding.view(-1, 1, 1, padding.shape[-1])
        mask = padding if mask is None else mask + padding
    if mask is not None and num_added:
        mask = F.pad(mask, (0, num_added))
    return q_BHTD, k_BHSD, mask


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


def _numbers(
    q_BHTD: Tensor, k_BHSD: Tensor, mask: Tensor | None, *, is_causal: bool, scale: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums over examples and queries of entropies [H], largest logits [H], sum of the largest
    entropies, and number of queries."""
    num_examples, num_heads, num_queries, num_units = q_BHTD.shape
    num_keys = k_BHSD.shape[2]
    asked = _queries(num_examples * num_heads * num_keys, num_queries)
    most = max(1, MOST_ENTRIES // (num_heads * len(asked) * num_keys))
    index_T = torch.tensor(asked, device=q_BHTD.device)
    if mask is not None:
        mask = mask.expand(num_examples, num_heads, num_queries, num_keys)[:most]
        mask = mask if len(asked) == num_queries else mask[:, :, index_T]
    q_BHTD = q_BHTD[:most] if len(asked) == num_queries else q_BHTD[:most, :, index_T]
    q_BHTD, k_BHSD = _real(q_BHTD), _real(k_BHSD[:most])
    if k_BHSD.shape[1] != num_heads:
        k_BHSD = k_BHSD.repeat_interleave(num_heads // k_BHSD.shape[1], 1)
    factor = 1 / math.sqrt(num_units) if scale is None else scale
    logits_BHTS = (q_BHTD * factor) @ k_BHSD.transpose(2, 3)
    hidden = _hidden(mask, index_T, num_keys, is_causal=is_causal)
    size_BHTS = logits_BHTS.abs()
    if hidden is None:
        largest_H = size_BHTS.amax((0, 2, 3))
    else:
        largest_H = size_BHTS.masked_fill_(hidden, 0.0).amax((0, 2, 3))
    if mask is not None and mask.dtype is not torch.bool:
        logits_BHTS += mask.to(logits_BHTS.dtype)
    return _entropies(logits_BHTS, hidden), largest_H, *_ceilings(hidden, logits_BHTS)


def _queries(entries_of_one: int, num_queries: int) -> list[int]:
    """The queries to measure: all, or equally spaced ones with the last of them."""
    points = min(num_queries, max(LEAST_QUERIES, MOST_ENTRIES // entries_of_one))
    return [k * num_queries // points - 1 for k in range(1, points + 1)]


def _hidden(
    mask: Tensor | None, index_T: Tensor, num_keys: int, *, is_causal: bool
) -> Tensor | None:
    """Which keys a query does not see, of a shape that broadcasts to [B, H, T, S]."""
    hidden = None
    if mask is not None:
        is_bool = mask.dtype is torch.bool
        hidden = ~mask if is_bool else mask <= torch.finfo(mask.dtype).min / 2
    if is_causal:
        later_TS = torch.arange(num_keys, device=index_T.device) > index_T[:, None]
        hidden = later_TS if hidden is None else hidden | later_TS
    return hidden


def _entropies(logits_BHTS: Tensor, hidden: Tensor | None) -> Tensor:
    """[H]: sums over examples and queries of -sum p ln p."""
    if hidden is not None:
        # Far below what is seen, and finite: a query that sees no key gives no nan.
        lowest = torch.finfo(logits_BHTS.dtype).min / 4
        logits_BHTS = logits_BHTS.masked_fill(hidden, lowest)
    log_p_BHTS = torch.log_softmax(logits_BHTS, 3)
    minus_entropy_BHTS = log_p_BHTS.exp().mul_(log_p_BHTS)
    if hidden is not None:
        minus_entropy_BHTS.masked_fill_(hidden, 0.0)
    return -minus_entropy_BHTS.sum((0, 2, 3))


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
