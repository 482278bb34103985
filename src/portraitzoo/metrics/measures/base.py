"""What every measure is: its needs, its feature rows, and its value from the rows of both sides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float32

from portraitzoo.media.clip import Clip
from portraitzoo.metrics.features import FeatureNetwork, Weights, feature_network
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.results import Gathered, Result
from portraitzoo.metrics.sources import Need


class Measure(ABC):
    """One metric under one protocol.

    Attributes:
        name: as given to ``evaluate``.
        title: name in tables.
        need: what the sources must give.
        maps: maps that subjects must have.
        two_sided: whether the real side matters.
        finite: whether rows that are not finite are an error (else they are pairs that see nothing).
        higher_is_better: direction.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    need: ClassVar[Need]
    maps: ClassVar[tuple[str, ...]] = ()
    two_sided: ClassVar[bool] = False
    finite: ClassVar[bool] = True
    higher_is_better: ClassVar[bool] = False

    def __init__(self, protocol: Protocol, weights: Weights, device: torch.device, batch_size: int) -> None:
        self.protocol = protocol
        self.device = device
        self.batch_size = batch_size
        name = self.network_name(protocol)
        self.network: FeatureNetwork | None = None if name is None else feature_network(name, weights, device)

    @classmethod
    def network_name(cls, protocol: Protocol) -> str | None:
        """Index entry of the feature network; None if the metric needs none."""
        return None

    @property
    def key(self) -> dict[str, object]:
        """What the rows depend on beside the clips: part of the cache's key."""
        network = None if self.network is None else self.network.checksum
        return {"measure": self.name, "network": network, "device": self.device.type}

    def gatherer(self) -> Gathered:
        """An empty collection of this measure's rows."""
        return Gathered(None)

    @abstractmethod
    def rows(self, clips: Sequence[Clip]) -> list[Float32[np.ndarray, "rows features"]]:
        """Feature rows of each clip; the clips have one shape."""

    @abstractmethod
    def result(self, generated: Gathered, real: Gathered | None) -> Result:
        """The value, from the rows of both sides."""

    def _described(self, result: Result) -> Result:
        if self.network is not None:
            result.network = {
                "name": self.network.name,
                "checksum": self.network.checksum,
                "features": self.network.num_features,
                "comparable": self.network.comparable,
            }
            if not self.network.comparable:
                result.notes.insert(0, "not comparable")
        return result
