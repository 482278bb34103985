"""A resolution of StyleGAN2's synthesis network in its skip architecture (Karras et al., 2020, section 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers import strips
from portraitzoo.layers.modulation import NoiseMode, SynthesisLayer, ToRGB
from portraitzoo.layers.resampling import upsample2d


class SynthesisBlock(nn.Module):
    """Double the size, refine, and add to the image: ``conv0`` (up), ``conv1``, ``torgb``.

    The first block has no input: it starts from a learned constant and has no ``conv0``.

    Args:
        in_channels: channels of the features that come in; 0 for the first block.
        out_channels: channels of the features that go out.
        w_dim: width of the style vectors.
        resolution: side of the output.
        image_channels: channels of the running image.
        noise: whether the convolutions add noise.
        clamp: largest magnitude of features and of the block's part of the image; None for no limit.

    Attributes:
        low_precision: dtype of the convolutions on a GPU (``torch.float16``, say); None for float32. Needs ``clamp``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        *,
        resolution: int,
        image_channels: int,
        noise: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.low_precision: torch.dtype | None = None
        noise_resolution = resolution if noise else None
        if in_channels:
            self.conv0 = SynthesisLayer(
                in_channels, out_channels, w_dim, up=2, noise_resolution=noise_resolution, clamp=clamp
            )
        else:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, noise_resolution=noise_resolution, clamp=clamp)
        self.torgb = ToRGB(out_channels, image_channels, w_dim, clamp=clamp)
        self.num_convs = 2 if in_channels else 1

    def forward(
        self,
        x: Float[Tensor, "batch in_channels height width"] | None,
        image: Float[Tensor, "batch image_channels height width"] | None,
        ws: Float[Tensor, "batch layers w_dim"],
        *,
        noise: NoiseMode = "const",
        after_first: Callable[[Tensor], Tensor] | None = None,
        keep_features: bool = True,
    ) -> tuple[
        Float[Tensor, "batch out_channels out_height out_width"] | None,
        Float[Tensor, "batch image_channels out_height out_width"],
    ]:
        """Features and image of this resolution.

        Args:
            x: features of the previous block; None for the first.
            image: image of the previous block, float32; None for the first.
            ws: one style vector for each convolution, then one for ``torgb``.
            noise: noise of the convolutions.
            after_first: applied to the features after the block's first convolution.
            keep_features: whether the features are wanted; the last block's are not.
        """
        if after_first is None and strips.pays_off(self, x, noise):
            assert x is not None and image is not None
            return strips.synthesise(self, x, image, ws, noise, keep_features)
        dtype = self.low_precision if self.low_precision and ws.is_cuda else torch.float32
        convs = [self.conv0, self.conv1] if self.num_convs == 2 else [self.conv1]
        if x is None:
            x = self.const.expand(len(ws), -1, -1, -1)
        # Convolutions are fastest with channels innermost, unless rearranging the weights takes longer than the
        # convolution. The layout is kept by all that follows.
        large = self.resolution**2 >= self.conv1.weight.shape[0]
        x = x.to(dtype=dtype, memory_format=torch.channels_last if large else torch.contiguous_format)
        for index, conv in enumerate(convs):
            x = conv(x, ws[:, index], noise)
            if index == 0 and after_first is not None:
                x = after_first(x)
        part = self.torgb(x, ws[:, self.num_convs]).float()
        return (x if keep_features else None), (part if image is None else part + upsample2d(image))


class SynthesisNetwork(nn.Module):
    """StyleGAN2's synthesis: blocks of 4 pixels and up, each of twice the size (Karras et al., 2020, figure 7).

    Style vectors: one per convolution, and each block's ``torgb`` shares that of the next block's first convolution.

    Args:
        w_dim: width of the style vectors.
        image_channels: channels of the image.
        channels: features of each resolution, of 4, 8, ... pixels.
        clamp: largest magnitude of features and of the blocks' parts of the image; None for no limit.
    """

    def __init__(
        self, w_dim: int, image_channels: int, channels: Mapping[int, int], *, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict()
        in_channels = 0
        for resolution, out_channels in channels.items():
            self.blocks[f"b{resolution}"] = SynthesisBlock(
                in_channels, out_channels, w_dim, resolution=resolution, image_channels=image_channels, clamp=clamp
            )
            in_channels = out_channels
        self.num_ws = 2 * len(self.blocks)

    def forward(
        self,
        ws: Float[Tensor, "batch num_ws w_dim"],
        noise: NoiseMode = "const",
        after_first: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ) -> Float[Tensor, "batch image_channels resolution resolution"]:
        """The image.

        Args:
            ws: style vectors.
            noise: noise of the convolutions.
            after_first: by the name of a block, what is applied to its features after its first convolution.
        """
        x: Tensor | None = None
        image: Tensor | None = None
        row = 0
        for name, block in self.blocks.items():
            assert isinstance(block, SynthesisBlock)
            rows = ws[:, row : row + block.num_convs + 1]
            x, image = block(x, image, rows, noise=noise, after_first=(after_first or {}).get(name))
            row += block.num_convs
        assert image is not None
        return image
