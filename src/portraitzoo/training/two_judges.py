"""Losses of a generator against two discriminators, one of frames and one of videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from portraitzoo.training.adversarial import discriminator_loss, generator_loss
from portraitzoo.training.phases import PhaseLoss
from portraitzoo.training.regularisers import gradient_penalty


class Judged(Protocol):
    """Logits of both discriminators; positive means real."""

    @property
    def image(self) -> Float[Tensor, "frames 1"]:
        """Of every frame."""
        ...

    @property
    def video(self) -> Float[Tensor, "batch 1"]:
        """Of every video."""
        ...


class JudgeWeights(Protocol):
    """What each discriminator counts."""

    @property
    def image(self) -> float:
        """The image discriminator."""
        ...

    @property
    def video(self) -> float:
        """The video discriminator."""
        ...


def fooled(fake: Judged, weights: JudgeWeights) -> PhaseLoss:
    """Non-saturating loss of the generator: both discriminators should take its videos for real."""
    return PhaseLoss(
        parts={
            "image": weights.image * generator_loss(fake.image),
            "video": weights.video * generator_loss(fake.video),
        },
        observed={"fake_image": fake.image.detach(), "fake_video": fake.video.detach()},
    )


def told_apart(fake: Judged, real: Judged, weights: JudgeWeights) -> PhaseLoss:
    """Logistic loss of the discriminators: they should tell generated videos from real ones."""
    return PhaseLoss(
        parts={
            "image": weights.image * discriminator_loss(fake.image, real.image),
            "video": weights.video * discriminator_loss(fake.video, real.video),
        },
        observed={
            "fake_image": fake.image.detach(),
            "fake_video": fake.video.detach(),
            "real_image": real.image.detach(),
            "real_video": real.video.detach(),
        },
    )


def flattened(
    real: Judged,
    image_inputs: Sequence[Float[Tensor, "frames channels height width"]],
    video_inputs: Sequence[Float[Tensor, "batch channels height width"]],
    image_weight: float,
    video_weight: float,
) -> PhaseLoss:
    """R1 of both discriminators: their logits should be flat around real samples.

    Args:
        real: logits of real samples.
        image_inputs: what those of frames are differentiated by.
        video_inputs: what those of videos are differentiated by.
        image_weight: of the frames' mean squared gradient.
        video_weight: of the videos'.
    """
    image, video = gradient_penalty(real.image, image_inputs), gradient_penalty(real.video, video_inputs)
    return PhaseLoss(
        parts={"image": image_weight * image.mean(), "video": video_weight * video.mean()},
        observed={"image_penalty": image.detach(), "video_penalty": video.detach()},
    )
