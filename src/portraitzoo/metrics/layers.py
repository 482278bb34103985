"""Convolution and batch norm as one, and merging them once a network only measures."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm."""

    def __init__(self, conv: nn.Conv2d | nn.Conv3d, eps: float = 1e-5) -> None:
        super().__init__()
        norm = nn.BatchNorm3d if isinstance(conv, nn.Conv3d) else nn.BatchNorm2d
        self.conv = conv
        self.bn: nn.Module = norm(conv.out_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, *space] -> [batch, out_channels, *out_space]."""
        return self.bn(self.conv(x))


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Merge the batch norm of every :class:`ConvNorm` of ``network`` into its convolution, in place.

    Outputs stay the same up to rounding; the network can no longer be trained, nor loaded with unfolded tensors.
    """
    for unit in network.modules():
        if isinstance(unit, ConvNorm) and not isinstance(unit.bn, nn.Identity):
            unit.conv = fuse_conv_bn_eval(unit.conv, unit.bn)
            unit.bn = nn.Identity()
    return network
