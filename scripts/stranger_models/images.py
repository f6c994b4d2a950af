"""Models of torchvision and timm that classify or segment images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stranger_models.model import IMAGE_SIZE, NUM_CLASSES, NUM_EXAMPLES, Stranger, Update


def _classify(model: nn.Module, size: int) -> tuple[nn.Module, Update]:
    images = torch.randn(NUM_EXAMPLES, 3, size, size)
    labels = torch.arange(NUM_EXAMPLES) % NUM_CLASSES

    def update(net: nn.Module) -> Tensor:
        logits = net(images)
        return F.cross_entropy(getattr(logits, "logits", logits), labels)

    return model, update


def _torchvision(
    arch: str, readout: str, blocks: str = "", size: int = IMAGE_SIZE, **settings: Any
) -> Stranger:
    def make() -> tuple[nn.Module, Update]:
        from torchvision import models

        model = models.get_model(arch, weights=None, num_classes=NUM_CLASSES, **settings)
        return _classify(model, size)

    return Stranger(f"torchvision {arch}", make, blocks, (readout,))


def _timm(arch: str, readout: str, blocks: str = "", **settings: Any) -> Stranger:
    def make() -> tuple[nn.Module, Update]:
        import timm

        model = timm.create_model(arch, pretrained=False, num_classes=NUM_CLASSES, **settings)
        return _classify(model, settings.get("img_size", IMAGE_SIZE))

    return Stranger(f"timm {arch}", make, blocks, (readout,))


def _vision_transformer() -> tuple[nn.Module, Update]:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(
        image_size=32, patch_size=8, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128,
        num_classes=NUM_CLASSES,
    )  # fmt: skip
    return _classify(model, 32)


def _segmentation() -> tuple[nn.Module, Update]:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=NUM_CLASSES)
    images = torch.randn(NUM_EXAMPLES, 3, IMAGE_SIZE, IMAGE_SIZE)
    labels = torch.randint(NUM_CLASSES, (NUM_EXAMPLES, IMAGE_SIZE, IMAGE_SIZE))
    return model, lambda net: F.cross_entropy(net(images)["out"], labels)


TORCHVISION = (
    _torchvision("resnet18", "fc.weight", r"layer\d\.\d"),
    _torchvision("vgg11_bn", "classifier.6.weight"),
    _torchvision("densenet121", "classifier.weight"),
    _torchvision("convnext_tiny", "classifier.2.weight", r"features\.[1357]\.\d"),
    Stranger(
        "torchvision VisionTransformer",
        _vision_transformer,
        r"encoder\.layers\.\w+",
        ("heads.head.weight",),
    ),
    _torchvision("swin_t", "head.weight", r"features\.[1357]\.\d"),
    _torchvision("mobilenet_v3_small", "classifier.3.weight", r"features\.([1-9]|10|11)"),
    _torchvision("efficientnet_b0", "classifier.1.weight", r"features\.[1-7]\.\d"),
    _torchvision("googlenet", "fc.weight", aux_logits=False, init_weights=True),
    Stranger(
        "torchvision lraspp_mobilenet_v3_large",
        _segmentation,
        r"backbone\.([1-9]|1[0-5])",
        ("classifier.low_classifier.weight", "classifier.high_classifier.weight"),
    ),
)

TIMM = (
    _timm("resnet18", "fc.weight", r"layer\d\.\d"),
    _timm("convnext_atto", "head.fc.weight", r"stages\.\d\.blocks\.\d"),
    _timm("vit_tiny_patch16_224", "head.weight", r"blocks\.\d+", img_size=64, depth=6),
    _timm("efficientnet_lite0", "classifier.weight", r"blocks\.[1-6]\.\d"),
    _timm("mixer_s32_224", "head.weight", r"blocks\.\d", img_size=64),
    _timm("resnetv2_50", "head.fc.weight", r"stages\.\d\.blocks\.\d"),
    _timm("swin_tiny_patch4_window7_224", "head.fc.weight", r"layers\.\d\.blocks\.\d", img_size=56),
    _timm("mobilenetv3_small_050", "classifier.weight", r"blocks\.[1-4]\.\d|blocks\.0\.0\.se"),
    _timm("regnetx_002", "head.fc.weight", r"s\d\.b\d+"),
    _timm("cait_xxs24_224", "head.weight", r"blocks\.\d+|blocks_token_only\.\d", img_size=64),
    _timm("poolformer_s12", "head.fc.weight", r"stages\.\d\.blocks\.\d"),
    _timm("gmlp_s16_224", "head.weight", r"blocks\.\d+", img_size=64),
    _timm("nf_resnet26", "head.fc.weight", r"stages\.\d\.\d"),
    _timm("eva02_tiny_patch14_224", "head.weight", r"blocks\.\d+", img_size=56),
    _timm("densenet121", "classifier.weight"),
)
