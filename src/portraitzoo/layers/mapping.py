"""The mapping network of StyleGAN2 and EG3D: latent code, and a camera label if there is one, to style vectors."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.linear import FullyConnected, normalise_second_moment

MAPPING_LR_MULTIPLIER = 0.01
AVERAGE_DECAY = 0.998


class LabelMapping(nn.Module):
    """From a label to the vector a discriminator's output is projected on (Chan et al., 2022, "EG3D", section 4.3).

    ``embed``, normalisation, then ``num_layers`` fully connected layers with leaky ReLU.

    Args:
        label_dim: width of the label.
        width: width of everything else.
        num_layers: number of layers after the embedding.
    """

    def __init__(self, label_dim: int, width: int, num_layers: int = 8) -> None:
        super().__init__()
        self.embed = FullyConnected(label_dim, width)
        self.layers = mapping_layers(width, width, num_layers)

    def forward(self, label: Float[Tensor, "batch label_dim"]) -> Float[Tensor, "batch width"]:
        """Map the labels."""
        return self.layers(normalise_second_moment(self.embed(label)))


def mapping_layers(in_features: int, width: int, count: int) -> nn.Sequential:
    """``count`` slowly learning fully connected layers with leaky ReLU."""
    widths = [in_features, *(width for _ in range(count))]
    return nn.Sequential(
        *(
            FullyConnected(before, after, activation="lrelu", lr_multiplier=MAPPING_LR_MULTIPLIER)
            for before, after in pairwise(widths)
        )
    )


class MappingNetwork(nn.Module):
    """From a latent code and a camera label to one style vector per layer of the synthesis network.

    Code and embedded label are normalised, joined, and pass through ``num_layers`` fully connected layers. A running
    average of w serves truncation (Karras et al., 2019, appendix B).

    Args:
        z_dim: width of the latent code.
        label_dim: width of the label; 0 for a network without labels.
        w_dim: width of the style vectors.
        num_ws: number of style vectors, all equal before truncation.
        num_layers: number of fully connected layers.
        average_decay: share of the running average of w that an update keeps.
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        label_dim: int,
        w_dim: int,
        *,
        num_ws: int,
        num_layers: int,
        average_decay: float = AVERAGE_DECAY,
    ) -> None:
        super().__init__()
        self.num_ws, self.average_decay = num_ws, average_decay
        self.embed = FullyConnected(label_dim, w_dim) if label_dim else None
        self.layers = mapping_layers(z_dim + (w_dim if label_dim else 0), w_dim, num_layers)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Float[Tensor, "batch z_dim"],
        label: Float[Tensor, "batch label_dim"] | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_average: bool = False,
    ) -> Float[Tensor, "batch num_ws w_dim"]:
        """Style vectors.

        Args:
            z: latent codes, N(0, I).
            label: labels, where the network has them.
            truncation_psi: 1 keeps w, 0 replaces it by the average.
            truncation_cutoff: number of leading style vectors that are truncated; None for all.
            update_average: move the running average towards the mean w of this batch.
        """
        x = normalise_second_moment(z)
        if self.embed is not None:
            x = torch.cat([x, normalise_second_moment(self.embed(label))], dim=1)
        w = self.layers(x)
        if update_average:
            self.w_avg.copy_(w.detach().mean(dim=0).lerp(self.w_avg, self.average_decay))
        ws = w[:, None].repeat(1, self.num_ws, 1)
        if truncation_psi == 1:
            return ws
        cutoff = self.num_ws if truncation_cutoff is None else truncation_cutoff
        return torch.cat([torch.lerp(self.w_avg, ws[:, :cutoff], truncation_psi), ws[:, cutoff:]], dim=1)
