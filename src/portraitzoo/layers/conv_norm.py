"""Batch norm and convolution of networks that only measure."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from portraitzoo.layers.convolution import convolve


class FixedNorm(nn.Module):
    """Batch norm by its stored statistics, always.

    There is no training mode to forget, which is a known way to wrong metric values, and no counter of batches.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, scale: float = 1.0) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.full((channels,), scale))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, *space] -> the same shape."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


class ConvNorm(nn.Module):
    """Convolution, then batch norm whose weights begin at ``scale``."""

    def __init__(self, conv: nn.Conv2d | nn.Conv3d, eps: float = 1e-5, scale: float = 1.0) -> None:
        super().__init__()
        self.conv = conv
        self.bn: FixedNorm | nn.Identity = FixedNorm(conv.out_channels, eps, scale)
        self.keeps_size = isinstance(conv, nn.Conv2d) and _keeps_size(conv)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, *space] -> [batch, out_channels, *out_space]."""
        conv = self.conv
        return self.bn(convolve(x, conv.weight, conv.bias) if self.keeps_size else conv(x))

    def fold(self) -> None:
        """Merge the norm into the convolution, in place: the same output up to rounding, by one pass less."""
        if isinstance(self.bn, FixedNorm):
            norm = self.bn
            self.conv.weight, self.conv.bias = fuse_conv_bn_weights(
                self.conv.weight, self.conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            self.bn = nn.Identity()


def _keeps_size(conv: nn.Conv2d) -> bool:
    """Whether this is a convolution as :func:`~portraitzoo.layers.convolution.convolve` does it."""
    kernel = conv.kernel_size[0]
    ordinary = conv.stride == conv.dilation == (1, 1) and conv.groups == 1 and conv.padding_mode == "zeros"
    return ordinary and kernel % 2 == 1 and conv.kernel_size == (kernel, kernel) and conv.padding == (kernel // 2,) * 2


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Fold every :class:`ConvNorm` of ``network``; it then no longer takes unfolded tensors."""
    for unit in network.modules():
        if isinstance(unit, ConvNorm):
            unit.fold()
    return network


def ready_to_measure(network: nn.Module) -> nn.Module:
    """A network that will never learn again, made fast in place: eval mode, no gradients of its weights, norms folded
    into convolutions, channels innermost. It is not to be saved then."""
    fold_batch_norms(network.eval().requires_grad_(False))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            layout = torch.channels_last if isinstance(layer, nn.Conv2d) else torch.channels_last_3d
            layer.weight.data = layer.weight.data.contiguous(memory_format=layout)
    return network
