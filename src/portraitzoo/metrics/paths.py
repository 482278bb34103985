"""Small steps through the latent space of a generator, for its perceptual path length."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import to_uint8
from portraitzoo.metrics import protocols
from portraitzoo.metrics.path_length import Space
from portraitzoo.metrics.sources import Item, Listing, ModelSource, Need, Source, evaluating

START, END = "start", "end"
"""Maps of a step: its two pictures, [1, 3, height, width] in float, nominally in [-1, 1]."""


@runtime_checkable
class PathModel(Protocol):
    """A generator that has a path length."""

    def path_images(self, seed: int, epsilon: float, space: Space) -> Float[Tensor, "2 3 height width"]:
        """Pictures at 0 and at ``epsilon`` on the way between two people, nominally in [-1, 1], not quantised.

        Nothing but the latent may move: noise and the draws of a renderer are the same in both. The way is a straight
        line between styles (``"w"``, :func:`torch.lerp`) or a great circle between latents (``"z"``,
        :func:`~portraitzoo.metrics.path_length.slerp`).

        Args:
            seed: of both people.
            epsilon: length of the step, as a share of the way.
            space: where the way lies.
        """


class PathSource:
    """Steps of a model, one seed each.

    Raises:
        ZooError: if the source is no model, or one without a path length.
    """

    kind = "paths"
    threaded = False
    portable = False

    def __init__(self, source: Source) -> None:
        model = source.model if isinstance(source, ModelSource) else None
        if model is None or not isinstance(model, PathModel):
            raise ZooError(
                f"{source.label} has no perceptual path length: that needs a model which moves its latents, with a "
                "method path_images(seed, epsilon, space)"
            )
        self.label, self.detail = source.label, source.detail
        self._source, self._model = source, model

    def fingerprint(self) -> str:
        """Digest of the model."""
        return self._source.fingerprint()

    def listing(self, need: Need, protocol: protocols.Protocol, limit: int) -> Listing:
        """``limit`` seeds from ``protocol.first_seed`` on."""
        seeds = range(protocol.first_seed, protocol.first_seed + limit)
        return Listing([Item(f"{self.label}, seed {seed}", seed) for seed in seeds])

    def load(self, item: Item, need: Need, protocol: protocols.Protocol, maps: Collection[str]) -> Clip:
        """The two pictures of a step, as maps of a clip of one frame.

        Raises:
            MediaError: if they hold NaN or infinity, or are no two pictures.
        """
        space: Space = "z" if need == "paths-z" else "w"
        with evaluating(self._model), torch.inference_mode():
            images = self._model.path_images(item.place, protocol.path_epsilon, space).detach().float().cpu()
        if images.ndim != 4 or tuple(images.shape[:2]) != (2, 3):
            raise MediaError(f"{item.name} gives {list(images.shape)} where a path needs [2, 3, height, width]")
        if not torch.isfinite(images).all():
            raise MediaError(f"{item.name} gives pictures with NaN or infinity: its weights are damaged")
        return Clip(frames=to_uint8(images[:1]), maps={START: images[:1], END: images[1:]})
