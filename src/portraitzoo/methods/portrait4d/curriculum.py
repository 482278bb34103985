"""What Portrait4D's losses weigh, and from when on each of them counts."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; the defaults are published. A network that only a loss of weight 0 needs is never loaded.

    Attributes:
        perceptual: LPIPS (VGG) of four pairs of pictures.
        l1: mean absolute difference of the same.
        mask: of opacity and mask.
        identity: one minus the cosine of ArcFace embeddings.
        depth: of expected depths (synthesised targets only),
        features: of rendered features,
        planes: and of tri-plane features at points around the head.
        adversarial: that the discriminator takes frames for real.
        density: that densities vary little over short distances.
        multiview: v2's: that frames of new views look like the teacher's.
        r1_image: R1 penalty on image and raw image (its half multiplies the squared gradient),
        r1_correspondence: on the correspondence map,
        r1_segmentation: on the mask.
    """

    perceptual: float = 1.0
    l1: float = 1.0
    mask: float = 0.3
    identity: float = 1.0
    depth: float = 1.0
    features: float = 1.0
    planes: float = 0.1
    adversarial: float = 0.01
    density: float = 0.25
    multiview: float = 1.0
    r1_image: float = 1.0
    r1_correspondence: float = 10.0
    r1_segmentation: float = 1.0


@dataclass(frozen=True)
class Curriculum:
    """When losses begin and end to count and how the volume rendering grows, in images seen.

    The defaults are those of training on synthesised data; v2 goes on from such a network and has everything behind it.

    Attributes:
        geometry_until: until then depth, features and tri-planes are compared with those of the synthesised head.
        identity_from: from then on the identity counts.
        adversarial_from: from then on there is a discriminator.
        render_start: side of the volume rendering at first; None is the network's own.
        render_end: that side after the growth; None is the network's own.
        growth_start: where the growth begins,
        growth_end: and ends.
    """

    geometry_until: int = 400_000
    identity_from: int = 400_000
    adversarial_from: int = 1_000_000
    render_start: int | None = 64
    render_end: int | None = 128
    growth_start: int = 1_000_000
    growth_end: int = 2_000_000

    def weights(self, num_images: int, weights: LossWeights) -> LossWeights:
        """The weights that count now; 0 for what does not.

        Args:
            num_images: seen so far.
            weights: of all losses.
        """
        off: dict[str, float] = {}
        if num_images >= self.geometry_until:
            off |= {"depth": 0.0, "features": 0.0, "planes": 0.0}
        if num_images < self.identity_from:
            off["identity"] = 0.0
        if num_images < self.adversarial_from:
            off["adversarial"] = 0.0
        return replace(weights, **off)

    def render_resolution(self, num_images: int, own: int = 128) -> int:
        """Side of volume-rendered images, growing linearly.

        Args:
            num_images: seen so far.
            own: the network's.
        """
        start, end = (own if side is None else side for side in (self.render_start, self.render_end))
        if num_images >= self.growth_end:
            return end
        share = (num_images - self.growth_start) / (self.growth_end - self.growth_start)
        return round(start + (end - start) * max(share, 0.0))
