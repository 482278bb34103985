"""What a discriminator that knows the parametric head is shown, and its R1 penalty (EG3D, 4.3; Portrait4D, 3.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from portraitzoo.layers.conditional_discriminator import DualDiscriminator
from portraitzoo.training.phases import PhaseLoss
from portraitzoo.training.regularisers import gradient_penalty


@dataclass(frozen=True)
class Judged:
    """A batch of pictures, real or generated, with what stands beside them.

    Attributes:
        image: about [-1, 1].
        image_raw: before super-resolution, or what is to be compared with that.
        label: of the cameras that hold the whole pose of the heads.
        correspondence: where on the canonical head each pixel's point lies.
        segmentation: 1 on the head, -1 beside it.
    """

    image: Float[Tensor, "batch 3 height width"]
    image_raw: Float[Tensor, "batch 3 raw raw"]
    label: Float[Tensor, "batch 25"]
    correspondence: Float[Tensor, "batch 3 height width"]
    segmentation: Float[Tensor, "batch 1 raw raw"]

    def detached(self, *, differentiable: bool = False) -> Judged:
        """Cut off what made them; with ``differentiable`` the pictures require gradients, for R1."""
        pictures = ("image", "image_raw", "correspondence", "segmentation")
        return replace(self, **{name: getattr(self, name).detach().requires_grad_(differentiable) for name in pictures})

    def scores(self, discriminator: DualDiscriminator) -> Float[Tensor, "batch 1"]:
        """What a discriminator makes of them."""
        return discriminator(self.image, self.image_raw, self.label, self.correspondence, self.segmentation)


def r1(
    discriminator: DualDiscriminator,
    real: Judged,
    *,
    image: float,
    correspondence: float,
    segmentation: float,
    interval: int,
) -> PhaseLoss:
    """R1 on real pictures, times its interval: half the squared gradient of the scores.

    Args:
        discriminator: in training.
        real: as the discriminator is to see them.
        image: weight of the gradient with respect to image and raw image,
        correspondence: to the correspondence map,
        segmentation: and to the segmentation.
        interval: updates per regularisation.
    """
    seen = real.detached(differentiable=True)
    scores = seen.scores(discriminator)
    penalties = {
        "image": (image, [seen.image, seen.image_raw]),
        "correspondence": (correspondence, [seen.correspondence]),
        "segmentation": (segmentation, [seen.segmentation]),
    }
    parts, observed = {}, {"real": scores.detach()}
    for name, (weight, inputs) in penalties.items():
        penalty = gradient_penalty(scores, inputs)
        parts[name] = interval * weight / 2 * penalty.mean()
        observed[f"{name}_penalty"] = penalty.detach()
    return PhaseLoss(parts, observed)
