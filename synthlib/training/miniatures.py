"""Miniatures: small members of the paper's families (ResNet, ViT) for 32 px images and hundreds of them.

They are written in plain torch because importing torchvision or timm costs a notebook about two seconds.
"""

import torch
from torch import nn
from torch.nn.functional import relu, scaled_dot_product_attention

from synthlib.inputs import InputError, parameter


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016, figure 5 left): [B, C, H, W] -> [B, C', H/s, W/s]."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity()
        if stride != 1 or channels_in != channels:
            conv = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = relu(self.bn1(self.conv1(x)), inplace=True)
        return relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """A ResNet of one basic block per stage: [B, 3, H, W] -> logits [B, C]. The stem divides H and W by four.

    The stem and the initial weights are as in He et al. 2016, but for a 5x5 convolution in place of 7x7.
    """

    def __init__(self, n_classes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        stem = nn.Conv2d(3, widths[0], 5, stride=2, padding=2, bias=False)
        pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True), pool)
        blocks = [BasicBlock(widths[max(k - 1, 0)], width, 1 if k == 0 else 2) for k, width in enumerate(widths)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP: [B, T, D] -> [B, T, D] (Dosovitskiy et al. 2021, equations 2 and 3)."""

    def __init__(self, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.project = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(*qkv.unbind(0)).transpose(1, 2).reshape(b, t, d)
        x = x + self.project(attended)
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A vision transformer with a class token and no dropout: [B, 3, S, S] -> logits [B, C].

    Two departures from Dosovitskiy et al. 2021 let it learn from hundreds of images: patches overlap by a quarter on
    each side (Yuan et al. 2021, T2T-ViT), and are layer-normed before and after their projection (Kumar et al. 2023).
    """

    def __init__(
        self, n_classes: int, image_size: int, patch: int, dim: int, depth: int, heads: int, mlp_dim: int
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise InputError(
                f"image size {image_size} does not divide into ViT patches of {patch}; expected a multiple of {patch}: "
                f"set {parameter('image_size')}."
            )
        self.cut = nn.Unfold(patch + 2 * (patch // 4), padding=patch // 4, stride=patch)
        pixels = 3 * (patch + 2 * (patch // 4)) ** 2
        self.embed = nn.Sequential(nn.LayerNorm(pixels), nn.Linear(pixels, dim), nn.LayerNorm(dim))
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(torch.randn(1, (image_size // patch) ** 2 + 1, dim) * 0.2)
        self.blocks = nn.Sequential(*(TransformerBlock(dim, heads, mlp_dim) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, n_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(self.cut(images).transpose(1, 2))
        tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.position
        return self.head(self.norm(self.blocks(tokens)[:, 0]))


def small_resnet(n_classes: int, image_size: int) -> nn.Module:
    """0.08 M parameters with ten classes (ResNet-50: 23.5 M)."""
    return ResNet(n_classes, widths=(16, 32, 64))


def small_vit(n_classes: int, image_size: int) -> nn.Module:
    """0.10 M parameters with ten classes at 32 px (ViT-B: 86 M)."""
    return ViT(n_classes, image_size, patch=8, dim=64, depth=2, heads=4, mlp_dim=128)
