"""The authors' vision transformers: theirs follow lucidrains' vit-pytorch of 2022, and differ from torchvision's.

Queries, keys and values have no biases; LayerNorm's epsilon is torch's 1e-5; class token and positions start as N(0, 1), linear
layers as torch starts them; there is no dropout. The names of the tensors are theirs, so that their checkpoints load.
"""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

HEAD_DIM = 64  # channels of an attention head


class Attention(nn.Module):
    """Self-attention of several heads (Dosovitskiy et al. 2021, appendix A): [B, T, D] -> [B, T, D]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * heads * HEAD_DIM, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * HEAD_DIM, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.to_qkv(x).unflatten(2, (3, self.heads, HEAD_DIM)).permute(2, 0, 3, 1, 4)
        return self.to_out(scaled_dot_product_attention(*qkv.unbind(0)).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers and a GELU, token by token: [B, T, D] -> [B, T, D]."""

    def __init__(self, dim: int, mlp_dim: int) -> None:
        super().__init__()
        # Identity: where theirs has a dropout of 0, so that the last layer is number 3
        self.net = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Identity(), nn.Linear(mlp_dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Residual(nn.Module):
    """x + fn(LN(x)) (Dosovitskiy et al. 2021, equations 2 and 3): [B, T, D] -> [B, T, D]."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(dim), fn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fn(self.norm(x))


class ViT(nn.Module):
    """A vision transformer that classifies by its class token: [B, 3, S, S] -> logits [B, C]; S a multiple of `patch`."""

    def __init__(
        self, n_classes: int, image_size: int, patch: int, depth: int, heads: int, dim: int, mlp_dim: int
    ) -> None:
        super().__init__()
        self.patch = patch
        # Identity: where theirs cuts the patches, so that the linear layer is number 1
        self.to_patch_embedding = nn.Sequential(nn.Identity(), nn.Linear(3 * patch**2, dim))
        self.pos_embedding = nn.Parameter(torch.randn(1, (image_size // patch) ** 2 + 1, dim))
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        layers = [
            nn.Sequential(Residual(dim, Attention(dim, heads)), Residual(dim, MLP(dim, mlp_dim))) for _ in range(depth)
        ]
        self.transformer = nn.ModuleDict({"layers": nn.Sequential(*layers)})
        self.mlp_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # [B, 3, h * p, w * p] -> [B, h * w, p * p * 3]: a patch's numbers by row, column, channel
        patches = images.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch)).permute(0, 2, 4, 3, 5, 1)
        tokens = self.to_patch_embedding(patches.flatten(3).flatten(1, 2))
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embedding
        return self.mlp_head(self.transformer["layers"](tokens)[:, 0])
