"""Fréchet video distance."""

from __future__ import annotations

from jaxtyping import UInt8
from torch import Tensor

from portraitzoo.metrics.features import needed
from portraitzoo.metrics.frechet import FrechetDistance


class FrechetVideoDistance(FrechetDistance):
    r"""Fréchet video distance (Unterthiner et al. 2018): Fréchet distance between the I3D logits of clips.

    .. math:: \mathrm{FVD} = |\mu_r - \mu_g|^2 + \mathrm{tr}(\Sigma_r + \Sigma_g - 2 (\Sigma_r \Sigma_g)^{1/2})

    As input to ``update`` the metric accepts

    - ``videos`` uint8 tensor ``[batch, time, height, width, 3]``, RGB; at least 9 frames, 16 for published numbers
    - ``real`` bool: which side they belong to

    As output of ``compute`` it returns a float64 scalar. The value falls as the number of clips grows: compare only
    equal counts, and only values made with the same network file, frame rate and clip length.

    Args:
        network: an I3D, usually ``feature_network("i3d-videogpt")``; ``None`` if only ready features will come.
        num_features: 400, where there is no network.
        ddof: 0 as PV3D, 3DVidGen and StyleGAN-V, or 1.
        reset_real_features: whether ``reset`` also forgets the real side.
        real_statistics: fixed statistics of the real side.
        kwargs: further arguments of :class:`torchmetrics.Metric`.

    Raises:
        ZooError: see :class:`~portraitzoo.metrics.frechet.FrechetDistance`.

    Example:
        >>> from portraitzoo.metrics.features import feature_network
        >>> metric = FrechetVideoDistance(feature_network("i3d-videogpt", weights="random"))
        >>> videos = torch.randint(0, 256, (2, 9, 32, 32, 3), dtype=torch.uint8)
        >>> metric.update(videos, real=True)
        >>> metric.update(videos, real=False)
        >>> bool(metric.compute() < 1e-6)
        True
    """

    def update(self, videos: UInt8[Tensor, "batch time height width 3"], real: bool) -> None:
        """Add clips of one side."""
        self.update_features(needed(self.network)(videos), real)
