"""The plain convolutional net: the perceptron's equations with 3x3 convolutions.

z_1 = W_1 * x + b_1, h_l = phi(norm(z_l)) or norm(phi(z_l)), z_{l+1} as the skip says, its branch
W * h + b with * a convolution with zeros around the image; a mean of h_L over positions; read-out.
Layers fall into stages of equal number; the first of each stage but the first has stride 2 and
doubles the channels. There, what a skip carries is every other row and column of z, with zeros for
the new channels; a gate is a 3x3 convolution of h.

At the border a kernel sees zeros, which no init counts with: far from its ends, a linear net whose
weights have variance 1/fan_in multiplies delta_rms by (1 + 2 cos(pi / (n + 1))) / 3 a layer on
images of n x n: by 0.960 on 8x8, by 0.996 on 28x28.
"""

from __future__ import annotations

from collections.abc import Iterator

from vgexp.config import CnnConfig
from vgexp.models.conv_net import ConvNet, Form
from vgexp.models.convolution import ConvPlan, Joint, require_adding, require_positions
from vgexp.models.families import make
from vgexp.tasks import Task

KERNEL = 3


@make.register
def build(config: CnnConfig, task: Task) -> ConvNet:
    """Makes the plain convolutional net of a configuration; its weights are not drawn yet.

    Raises:
        QuestionError: an unknown name, a skip that concatenates, or a norm that channels or images
            do not allow.
    """
    require_adding(config)
    places = list(plan(config, task.shape[0]))
    num_halvings = sum(place.stride == 2 for place in places)
    require_positions(config, task, [places[-1].out_channels], num_halvings)
    form = Form(preactivation=True, readout_bias=config.bias, num_branches=config.depth)
    return ConvNet(config, places, form, task.num_outputs)


def plan(config: CnnConfig, num_channels: int) -> Iterator[ConvPlan]:
    """Plans its convolutions, for images with `num_channels` channels."""
    num_stages = min(config.stages, config.depth)
    before = 0
    for index in range(config.depth):
        stage = index * num_stages // config.depth
        width, stride = config.width * 2**stage, 2 if stage > before else 1
        joint = Joint(num_channels, width, stride, 1) if index else None
        yield ConvPlan(num_channels, width, KERNEL, stride, joint)
        num_channels, before = width, stage
