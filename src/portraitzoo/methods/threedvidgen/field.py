"""The moving foreground: a style-modulated field of density, features and colour (Bahmani et al., section 3).

Everything is a product over points, so points need no image: they are ``[videos, points, channels]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.encoding import frequency_encoding
from portraitzoo.layers.linear import FullyConnected
from portraitzoo.layers.modulation import ModulatedLinear

POSITION_BANDS = 10
VIEW_BANDS = 4
SLIGHT_SLOPE = 0.01
"""Slope of the leaky ReLUs, without gain, of the motion embedding and the colour head."""


def field_axes(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Vectors of the zoo's world (y up, face toward +z) in the axes that the weights were trained in (z up, face
    toward +x).
    """
    return torch.stack([vectors[..., 2], vectors[..., 0], vectors[..., 1]], dim=-1)


class MotionNetwork(nn.Module):
    """From motion code and time to what is added to the field's first features (Bahmani et al., section 3.2).

    Time multiplies the embedded code, so that at t = 0 all motion codes give the same.

    Args:
        motion_dim: width of the motion code.
        width: width of the hidden layers.
        out_features: width of the field.
    """

    def __init__(self, motion_dim: int, width: int, out_features: int) -> None:
        super().__init__()
        self.affine = FullyConnected(motion_dim, width)
        self.mlp = nn.Sequential(FullyConnected(width, width, activation="lrelu"), FullyConnected(width, out_features))

    def forward(
        self, z_motion: Float[Tensor, "videos motion_dim"], times: Float[Tensor, "videos frames"]
    ) -> Float[Tensor, "videos frames out_features"]:
        """Motion of each frame."""
        embedded = self.affine(z_motion)[:, None] * times[..., None]
        return self.mlp(F.leaky_relu(embedded, SLIGHT_SLOPE))


class ForegroundField(nn.Module):
    """Weights of the field; :meth:`styled` gives the field of some people.

    Args:
        w_dim: width of the style vectors.
        width: width of the hidden layers.
        layers: hidden layers, the first one included.
        feature_channels: width of the features.
        view_dependent: whether the colour (never the features) depends on the direction of view.
        motion_dim: width of the motion code.
        motion_width: hidden width of the motion network.
    """

    def __init__(
        self,
        w_dim: int,
        *,
        width: int,
        layers: int,
        feature_channels: int,
        view_dependent: bool,
        motion_dim: int,
        motion_width: int,
    ) -> None:
        super().__init__()
        self.num_ws = layers + 2
        self.fc_in = ModulatedLinear(6 * POSITION_BANDS, width, w_dim, activation="lrelu")
        self.blocks = nn.ModuleList(ModulatedLinear(width, width, w_dim, activation="lrelu") for _ in range(layers - 1))
        self.sigma_out = ModulatedLinear(width, 1, w_dim, demodulate=False)
        self.feat_out = ModulatedLinear(width, feature_channels, w_dim, demodulate=False)
        self.from_ray = FullyConnected(6 * VIEW_BANDS, feature_channels) if view_dependent else None
        self.to_rgb = FullyConnected(feature_channels, 3)
        self.motion = MotionNetwork(motion_dim, motion_width, width)

    def styled(self, ws: Float[Tensor, "videos num_ws w_dim"]) -> StyledField:
        """The fields of some style vectors, their weights modulated once for all points and frames."""
        hidden = [self.fc_in, *self.blocks]
        layers = [layer.effective(ws[:, row]) for row, layer in enumerate(hidden)]
        density = self.sigma_out.effective(ws[:, len(hidden)])
        features = self.feat_out.effective(ws[:, len(hidden) + 1])
        return StyledField(self, layers, density, features)


Product = tuple[Float[Tensor, "videos in_features out_features"], Float[Tensor, " out_features"]]


@dataclass(frozen=True)
class StyledField:
    """The fields of some people, one for each video.

    Attributes:
        network: where the layers without style are.
        layers: effective weights of the hidden layers.
        density: those of the density.
        features: those of the features.
    """

    network: ForegroundField
    layers: list[Product]
    density: Product
    features: Product

    def hidden(
        self,
        points: Float[Tensor, "videos frames points 3"],
        motion: Float[Tensor, "videos frames width"],
    ) -> Float[Tensor, "videos frames points width"]:
        """Last hidden features of world points, from which all else is read.

        Args:
            points: world points.
            motion: from :class:`MotionNetwork`.
        """
        x = frequency_encoding(field_axes(points), POSITION_BANDS)
        frames = x.shape[1:3]
        activate = self.network.fc_in.activate
        x = activate(_product(x.flatten(1, 2), self.layers[0])).unflatten(1, frames)
        x = (x + motion[:, :, None]).flatten(1, 2)
        for layer in self.layers[1:]:
            x = activate(_product(x, layer))
        return x.unflatten(1, frames)

    def raw_density(self, hidden: Float[Tensor, "videos frames points width"]) -> Float[Tensor, "videos frames points"]:
        """Density before its ReLU."""
        return _product(hidden.flatten(1, 2), self.density).squeeze(-1).unflatten(1, hidden.shape[1:3])

    def feature(
        self, hidden: Float[Tensor, "videos frames points width"]
    ) -> Float[Tensor, "videos frames points channels"]:
        """Features, linear in ``hidden``."""
        return _product(hidden.flatten(1, 2), self.features).unflatten(1, hidden.shape[1:3])

    def view(self, directions: Float[Tensor, "*rays 3"]) -> Float[Tensor, "*rays channels"] | None:
        """What the direction of view adds to the features before the colour is read; None if nothing."""
        if self.network.from_ray is None:
            return None
        return self.network.from_ray(frequency_encoding(field_axes(F.normalize(directions, dim=-1)), VIEW_BANDS))

    def before_color(
        self,
        features: Float[Tensor, "*points channels"],
        view: Float[Tensor, "*points channels"] | None,
    ) -> Float[Tensor, "*points channels"]:
        """What the colour is linear in.

        Args:
            features: from :meth:`feature`.
            view: from :meth:`view`, for the ray of each point.
        """
        return features if view is None else F.leaky_relu(features + view, SLIGHT_SLOPE)

    def color(self, before: Float[Tensor, "*points channels"]) -> Float[Tensor, "*points 3"]:
        """Colour, about [-1, 1]."""
        return self.network.to_rgb(before)


def _product(x: Float[Tensor, "videos points in_features"], layer: Product) -> Float[Tensor, "videos points out"]:
    weight, bias = layer
    if len(x) == 1:
        return torch.addmm(bias, x[0], weight[0])[None]
    return torch.baddbmm(bias, x, weight)
