"""The still background, a small field outside the unit sphere (StyleNeRF, section 3.3; NeRF++)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.encoding import frequency_encoding
from portraitzoo.layers.linear import FullyConnected
from portraitzoo.methods.threedvidgen.field import POSITION_BANDS, field_axes


class BackgroundField(nn.Module):
    """Density, features and colour outside the unit sphere; it knows neither style, time nor motion.

    Args:
        latent_dim: width of the background code.
        width: width of the hidden layers.
        layers: hidden layers.
        feature_channels: width of the features.
    """

    def __init__(self, latent_dim: int, *, width: int, layers: int, feature_channels: int) -> None:
        super().__init__()
        self.fc_in = nn.Linear(8 * POSITION_BANDS + latent_dim, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))
        self.sigma_out = nn.Linear(width, 1)
        self.feat_out = nn.Linear(width, feature_channels)
        self.to_rgb = FullyConnected(feature_channels, 3)

    def hidden(
        self, points: Float[Tensor, "*batch 4"], code: Float[Tensor, "*batch latent_dim"]
    ) -> Float[Tensor, "*batch width"]:
        """Last hidden features.

        Args:
            points: of :func:`~portraitzoo.rendering.inverted_sphere.inverted_sphere`.
            code: background code of each point.
        """
        place = torch.cat([field_axes(points[..., :3]), points[..., 3:]], dim=-1)
        x = torch.cat([frequency_encoding(place, POSITION_BANDS), code], dim=-1)
        for layer in (self.fc_in, *self.blocks):
            x = F.relu(layer(x))
        return x
