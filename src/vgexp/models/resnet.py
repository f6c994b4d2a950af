"""Residual nets as for CIFAR (He 2015, section 4.2; He 2016), and their plain twins.

A 3x3 convolution to `width` channels; three stages of n blocks with 1, 2 and 4 times as many, the
first block of the later two with stride 2; a mean over positions; read-out. Blocks on a path x:

    basic, post-activation        x <- phi(s(x) + norm(W_2 * phi(norm(W_1 * x))))
    basic, pre-activation         x <- s(x) + W_2 * phi(norm(W_1 * phi(norm(x))))

a bottleneck's branch has W_1 (1x1), W_2 (3x3, the stride), W_3 (1x1, to four times the channels).
s(x) is x, or where the shape changes zeros or a 1x1 convolution (with a norm, where the branch ends
with one). The sum is what `model.skip` makes of s(x) and the branch; `scaled_residual` divides by
the root of the number of blocks; a gate reads what the branch reads. Without a skip: the
convolutions alone, the same with and without pre-activation.
"""

from __future__ import annotations

from collections.abc import Iterator

from vgexp.config import ResnetConfig
from vgexp.models import families
from vgexp.models.conv_net import ConvNet, Form
from vgexp.models.convolution import ConvPlan, Joint, require_adding, require_positions
from vgexp.tasks import Task

STAGES = 3
EXPANSION = 4
"""Number of channels at a bottleneck's end, divided by that in its middle."""


@families.make.register
def build(config: ResnetConfig, task: Task) -> ConvNet:
    """Makes the residual net of a configuration; its weights are not drawn yet.

    Raises:
        QuestionError: an unknown name, a skip that concatenates, or a norm that channels or images
            do not allow.
    """
    require_adding(config)
    places = list(_places(config, task.shape[0]))
    last = [place.out_channels for place in places[-config.block_layers :]]
    require_positions(config, task, last, STAGES - 1)
    form = Form(
        preactivation=config.preactivation,
        projects=config.shortcut == "projection",
        num_branches=STAGES * config.blocks_per_stage,
    )
    return ConvNet(config, places, form, task.num_outputs)


def _places(config: ResnetConfig, num_channels: int) -> Iterator[ConvPlan]:
    yield ConvPlan(num_channels, config.width, 3)
    num_channels = config.width
    for stage in range(STAGES):
        inner = config.width * 2**stage
        outer = inner * (EXPANSION if config.bottleneck else 1)
        for index in range(config.blocks_per_stage):
            stride = 2 if stage and not index else 1
            joint = Joint(num_channels, outer, stride, config.block_layers)
            if config.bottleneck:
                yield ConvPlan(num_channels, inner, 1)
                yield ConvPlan(inner, inner, 3, stride)
                yield ConvPlan(inner, outer, 1, ends=joint)
            else:
                yield ConvPlan(num_channels, inner, 3, stride)
                yield ConvPlan(inner, outer, 3, ends=joint)
            num_channels = outer
