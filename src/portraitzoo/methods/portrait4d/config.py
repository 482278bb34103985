"""Sizes of Portrait4D's networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from portraitzoo.faces.flame_head import HeadSizes


@dataclass(frozen=True)
class Portrait4DConfig:
    """Sizes of the reconstructor; the defaults are those of all three released checkpoints.

    Attributes:
        image_resolution: side of photo and finished image, pixels; planes have half of it.
        static: whether the face keeps the motion of the photo, whatever the driving motion (Portrait4D-static).
        motion_dim: width of a motion embedding.
        motion_width: width of the layers that map it.
        motion_layers: their number.
        motion_tokens: tokens it becomes.
        w_dim: width of the super-resolution's style.
        global_stem: channels of the global encoder's first convolution,
        global_widths: of its four stages,
        global_depths: whose numbers of residual blocks these are,
        global_channels: and of its result.
        atrous_rates: dilations of its pyramid.
        detail_channels: of the detail encoder's first and other convolutions.
        canonical_width: width of the motion transformer's tokens,
        canonical_heads: heads,
        canonical_mlp_ratio: and how much wider its feed-forward networks are.
        neutral_blocks: its blocks that see the photo's motion.
        motion_blocks: its blocks that see the driving motion.
        canonical_channels: of the convolutions behind it.
        plane_inputs: channels of the convolutions before the plane transformer.
        plane_width: width of its tokens,
        plane_heads: heads,
        plane_mlp_ratio: how much wider its feed-forward networks are,
        plane_reduction: side of the squares of tokens that share a key,
        plane_blocks: and its blocks.
        plane_outputs: channels of the convolutions behind it.
        plane_channels: channels of each plane, and of the rendered features.
        background_widths: channels of the background network at each size.
        decoder_width: hidden width of the decoder.
        super_resolution_input: side of the features that enter the super-resolution.
        super_resolution_channels: channels of its blocks, each of which doubles the size.
        depth_samples: coarse samples per ray.
        importance_samples: importance samples per ray.
        box_warp: side of the cube that planes cover and rays cross, world units.
        render_resolution: side of the volume-rendered image unless told otherwise; no weight depends on it.
        surface_level: raw density (before softplus) of meshes unless told otherwise; the authors take 25.
        head: sizes of the parametric head, whose tables come with the weights.
    """

    image_resolution: int = 512
    static: bool = False
    motion_dim: int = 548
    motion_width: int = 512
    motion_layers: int = 2
    motion_tokens: int = 64
    w_dim: int = 512
    global_stem: int = 64
    global_widths: tuple[int, ...] = (64, 128, 256, 512)
    global_depths: tuple[int, ...] = (3, 4, 6, 3)
    global_channels: int = 256
    atrous_rates: tuple[int, ...] = (12, 24, 36)
    detail_channels: tuple[int, int] = (64, 96)
    canonical_width: int = 1024
    canonical_heads: int = 4
    canonical_mlp_ratio: int = 2
    neutral_blocks: int = 4
    motion_blocks: int = 4
    canonical_channels: tuple[int, int, int] = (128, 128, 96)
    plane_inputs: tuple[int, int] = (256, 128)
    plane_width: int = 1024
    plane_heads: int = 2
    plane_mlp_ratio: int = 2
    plane_reduction: int = 2
    plane_blocks: int = 1
    plane_outputs: tuple[int, int, int] = (256, 128, 128)
    plane_channels: int = 32
    background_widths: tuple[int, ...] = (64, 128, 256, 512)
    decoder_width: int = 64
    super_resolution_input: int = 128
    super_resolution_channels: tuple[int, ...] = (256, 128)
    depth_samples: int = 48
    importance_samples: int = 48
    box_warp: float = 1.3
    render_resolution: int = 128
    surface_level: float = 25.0
    head: HeadSizes = field(default_factory=HeadSizes)

    def __post_init__(self) -> None:
        # A config read from JSON has lists and dicts.
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, list):
                object.__setattr__(self, item.name, tuple(value))
        if isinstance(self.head, Mapping):
            object.__setattr__(self, "head", HeadSizes(**self.head))
        doublings = len(self.super_resolution_channels)
        if self.super_resolution_input * 2**doublings != self.image_resolution:
            raise ValueError(
                f"super-resolution doubles {self.super_resolution_input} pixels {doublings} times, "
                f"which does not give image_resolution {self.image_resolution}"
            )
        if self.image_resolution % 16:
            raise ValueError(f"image_resolution {self.image_resolution} is not a multiple of 16, the side of a token")

    def widest_activation(self) -> int:
        """Numbers in the largest feature map of one frame."""
        half = self.image_resolution // 2
        planes = half**2 * max(*self.plane_inputs, *self.plane_outputs)
        tokens = (half // 2) ** 2 * self.plane_width * self.plane_mlp_ratio
        sizes = [self.super_resolution_input << level for level in range(1, len(self.super_resolution_channels) + 1)]
        finest = max(size**2 * count for size, count in zip(sizes, self.super_resolution_channels, strict=True))
        return max(planes, tokens, finest)
