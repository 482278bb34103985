"""Feature statistics as StyleGAN's metric code pickles them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from portraitzoo.errors import CheckpointError
from portraitzoo.metrics.frechet import FeatureStatistics


def convert(checkpoint: Mapping[str, object]) -> FeatureStatistics:
    """Statistics from the running sums of a ``FeatureStats`` pickle of StyleGAN2-ADA and its descendants.

    With n items: mean = raw_mean / n, covariance = raw_cov / n - outer(mean, mean); that is, ``ddof`` 0.

    Args:
        checkpoint: the pickle's dict: ``raw_mean`` [features], ``raw_cov`` [features, features], ``num_items``.

    Raises:
        CheckpointError: if it is something else.
    """
    total, outer, count = (checkpoint.get(name) for name in ("raw_mean", "raw_cov", "num_items"))
    if not isinstance(total, np.ndarray) or not isinstance(outer, np.ndarray) or not isinstance(count, int):
        raise CheckpointError("this is no file of feature statistics: it lacks raw_mean, raw_cov or num_items")
    if total.ndim != 1 or outer.shape != (len(total), len(total)) or count < 1:
        shapes = f"raw_mean {list(total.shape)}, raw_cov {list(outer.shape)}"
        raise CheckpointError(f"these feature statistics do not fit together: {shapes}, {count} items")
    mean = torch.from_numpy(np.array(total, dtype=np.float64)) / count
    cov = torch.from_numpy(np.array(outer, dtype=np.float64)) / count - torch.outer(mean, mean)
    return FeatureStatistics.from_moments(mean, cov, count, ddof=0)
