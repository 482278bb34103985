"""Fréchet inception distance."""

from __future__ import annotations

from jaxtyping import UInt8
from torch import Tensor

from portraitzoo.metrics.features import needed
from portraitzoo.metrics.frechet import FrechetDistance


class FrechetInceptionDistance(FrechetDistance):
    r"""Fréchet inception distance (Heusel et al. 2017): Fréchet distance between Inception features of images.

    .. math:: \mathrm{FID} = |\mu_r - \mu_g|^2 + \mathrm{tr}(\Sigma_r + \Sigma_g - 2 (\Sigma_r \Sigma_g)^{1/2})

    As input to ``update`` the metric accepts

    - ``images`` uint8 tensor ``[batch, height, width, 3]``, RGB
    - ``real`` bool: which side they belong to

    As output of ``compute`` it returns a float64 scalar. The value falls as the number of images grows (50,000 is the
    custom) and depends on how images are resized, see :class:`~portraitzoo.metrics.inception.Inception`.

    Args:
        network: the Inception of 2015, usually ``feature_network("inception-2015-12-05")``; ``None`` if only ready
            features will come.
        num_features: 2048, where there is no network.
        ddof: 0 as the StyleGAN family, or 1 as pytorch-fid, torch-fidelity and torchmetrics.
        reset_real_features: whether ``reset`` also forgets the real side.
        real_statistics: fixed statistics of the real side.
        kwargs: further arguments of :class:`torchmetrics.Metric`.

    Raises:
        ZooError: see :class:`~portraitzoo.metrics.frechet.FrechetDistance`.

    Example:
        >>> from portraitzoo.metrics.features import feature_network
        >>> metric = FrechetInceptionDistance(feature_network("inception-2015-12-05", weights="random"))
        >>> images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
        >>> metric.update(images, real=True)
        >>> metric.update(images, real=False)
        >>> metric.statistics(real=False).num_items  # far fewer than 2048: compute() would be mostly bias
        2
    """

    def update(self, images: UInt8[Tensor, "batch height width 3"], real: bool) -> None:
        """Add images of one side."""
        self.update_features(needed(self.network)(images), real)
