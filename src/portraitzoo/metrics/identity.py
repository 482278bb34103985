"""Whether all views of a head show the same person."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.metrics.features import FeatureNetwork, needed
from portraitzoo.metrics.ready import ReadyFeatureMetric


def identity_consistency(embeddings: Float[Tensor, "*batch views features"]) -> Float[Tensor, "*batch"]:
    """Mean cosine similarity over all unordered pairs of views, in [-1, 1]; the embeddings need no unit length."""
    unit = torch.nn.functional.normalize(embeddings.double(), dim=-1)
    first, second = zip(*combinations(range(embeddings.shape[-2]), 2), strict=True)
    return (unit[..., first, :] * unit[..., second, :]).sum(-1).mean(-1)


class IdentityConsistency(ReadyFeatureMetric):
    r"""Identity consistency across views and time (PV3D, section 4.1, "ID").

    .. math:: \mathrm{ID} = \frac{1}{N} \sum_n \frac{1}{|P|} \sum_{(i, j) \in P} \cos(e_{ni}, e_{nj})

    where :math:`P` are the unordered pairs of views of one head: 6 for PV3D's four views. PV3D takes 1000 videos and
    ArcFace IR-SE50 on whole frames, without finding or cropping the face.

    As input to ``update`` the metric accepts

    - ``images`` uint8 tensor ``[batch, views, height, width, 3]``, RGB: views of one head in each row

    As output of ``compute`` it returns a float64 scalar in [-1, 1]; higher is better.

    Args:
        network: a face recognition network, usually ``feature_network("arcface-ir-se50")``; ``None`` if only ready
            embeddings will come.
        kwargs: further arguments of :class:`torchmetrics.Metric`.

    Raises:
        ZooError: for fewer than two views, or from ``compute`` without any head.

    Example:
        >>> metric = IdentityConsistency()
        >>> metric.update_features(torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]]))
        >>> metric.compute()
        tensor(0.3333, dtype=torch.float64)
    """

    higher_is_better = True

    total: Tensor
    heads: Tensor

    def __init__(self, network: FeatureNetwork | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = network
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("heads", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, images: UInt8[Tensor, "batch views height width 3"]) -> None:
        """Add heads, each seen in several views."""
        self.update_features(needed(self.network)(images.flatten(0, 1)).unflatten(0, images.shape[:2]))

    def update_features(self, embeddings: Float[Tensor, "batch views features"]) -> None:
        """Add the embeddings of heads, each seen in several views."""
        if embeddings.ndim != 3 or embeddings.shape[1] < 2:
            raise ZooError(f"identity needs embeddings [heads, 2 or more views, size], not {list(embeddings.shape)}")
        self._note_update()
        similarity = identity_consistency(embeddings.detach())
        self.total += similarity.sum().to(self.total)
        self.heads += len(similarity)

    def compute(self) -> Float[Tensor, ""]:
        """Mean over heads, float64."""
        if not self.heads:
            raise ZooError("identity consistency needs at least one head")
        return self.total / self.heads
