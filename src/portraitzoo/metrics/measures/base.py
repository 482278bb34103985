"""What every measure is: the stage whose rows it reads, and its value from the rows of both sides.

A stage looks at items (clips, images, heads, pairs, paths) and gives rows of numbers. It is where the networks run, and
so what is cached, split over processes and shared: FID, KID and the Inception Score read the rows of one stage, and an
item passes through Inception once for all three.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float32

from portraitzoo.media.clip import Clip
from portraitzoo.metrics.features import FeatureNetwork, Weights, feature_network
from portraitzoo.metrics.protocol_faces import ProtocolFaces
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.reconstruction import FaceReconstruction
from portraitzoo.metrics.results import Gathered, Result
from portraitzoo.metrics.sources import Need

NOT_COMPARABLE = "not comparable"
"""Note beside numbers of networks with random weights."""


class Networks:
    """The feature networks of one evaluation, each built once however many stages look through it.

    Args:
        weights: ``official`` or ``random``.
        device: where they run.
        batch_size: clips to a forward pass.
        reconstruction: reads keypoints, pose and expression off frames; None for the one that the protocol names.
    """

    def __init__(
        self,
        weights: Weights,
        device: torch.device,
        batch_size: int,
        reconstruction: FaceReconstruction | None = None,
    ) -> None:
        self.weights = weights
        self.device = device
        self.batch_size = batch_size
        self.reconstruction = reconstruction
        self._built: dict[str, FeatureNetwork] = {}

    def faces(self, protocol: Protocol) -> FaceReconstruction:
        """What reads keypoints, pose and expression off frames."""
        if self.reconstruction is None:
            self.reconstruction = ProtocolFaces(protocol, self.weights, self.device)
        return self.reconstruction

    def __getitem__(self, name: str) -> FeatureNetwork:
        """The network that the index calls ``name``; see :func:`~portraitzoo.metrics.features.feature_network`."""
        if name not in self._built:
            self._built[name] = feature_network(name, self.weights, self.device)
        return self._built[name]


class Stage(ABC):
    """Rows of numbers taken from each item, once for all measures that read them.

    Attributes:
        name: part of the cache's key.
        need: what the sources must give.
        maps: maps that items must have, or for pairs may have.
        finite: whether rows that are not finite are an error (else they mark what could not be measured).
    """

    name: ClassVar[str]
    need: ClassVar[Need]
    maps: ClassVar[tuple[str, ...]] = ()
    finite: ClassVar[bool] = True

    def __init__(self, protocol: Protocol, networks: Networks) -> None:
        self.protocol = protocol
        self.device = networks.device
        self.batch_size = networks.batch_size
        name = self.network_name(protocol)
        self.network: FeatureNetwork | None = None if name is None else networks[name]

    @classmethod
    def network_name(cls, protocol: Protocol) -> str | None:
        """Index entry of the feature network; None if the stage needs none."""
        return None

    @property
    def key(self) -> dict[str, object]:
        """What the rows depend on beside the items: part of the cache's key."""
        network = None if self.network is None else self.network.checksum
        return {"stage": self.name, "network": network, "device": self.device.type}

    @abstractmethod
    def rows(self, clips: Sequence[Clip]) -> list[Float32[np.ndarray, "rows features"]]:
        """Rows of each item; the items have one shape."""


class Measure(ABC):
    """One metric under one protocol.

    Attributes:
        name: as given to ``evaluate``.
        title: name in tables.
        stage_type: where its rows come from.
        stage: that stage, shared with other measures.
        two_sided: whether each side's rows matter (a pair's rows know both sides already).
        paired: whether items of both sides are compared one by one.
        by_reference: whether a pair's reference, where there is one, stands in for its target.
        higher_is_better: direction.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    stage_type: ClassVar[type[Stage]]
    two_sided: ClassVar[bool] = False
    paired: ClassVar[bool] = False
    by_reference: ClassVar[bool] = False
    higher_is_better: ClassVar[bool] = False

    def __init__(self, protocol: Protocol, stage: Stage) -> None:
        self.protocol = protocol
        self.stage = stage

    @property
    def network(self) -> FeatureNetwork | None:
        """The feature network of its stage."""
        return self.stage.network

    def gatherer(self) -> Gathered:
        """An empty collection of this measure's rows."""
        return Gathered(None)

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
                result.notes.insert(0, NOT_COMPARABLE)
        return result


def prepared(
    classes: Sequence[type[Measure]],
    protocol: Protocol,
    weights: Weights,
    device: torch.device,
    batch_size: int,
    reconstruction: FaceReconstruction | None = None,
) -> list[Measure]:
    """Measures of these classes, ready to run; those that read the same rows share a stage.

    Raises:
        ZooError: if the protocol cannot serve a measure.
        WeightsUnavailableError: if official network weights are not here and cannot be fetched.
    """
    networks = Networks(weights, device, batch_size, reconstruction)
    stages = {kind: kind(protocol, networks) for kind in dict.fromkeys(cls.stage_type for cls in classes)}
    return [cls(protocol, stages[cls.stage_type]) for cls in classes]
