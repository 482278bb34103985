"""From raw pictures to what Portrait4D is driven by: aligned picture, head parameters, motion embedding.

Portrait-4D (Deng et al., CVPR 2024), data preparation: RetinaFace finds the face, H3R's 98 landmarks place it, FAN's
68 cut out what the motion encoder sees, Deep3DFaceRecon's coefficients become FLAME parameters. In a video a face is
looked for around the landmarks of the frame before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.faces.alignment import coefficient_crop, five_of_98, portrait_crop
from portraitzoo.faces.bfm_to_flame import BfmToFlame, flame_label
from portraitzoo.faces.coefficients import FaceCoefficients
from portraitzoo.faces.deep3d import Deep3D
from portraitzoo.faces.fan import FAN
from portraitzoo.faces.h3r import H3R
from portraitzoo.faces.motion_embedding import MotionEncoder, crop_face
from portraitzoo.faces.retinaface import RetinaFace
from portraitzoo.media.images import from_uint8

SIDE = 512
LOOK_AGAIN = 25
"""Frames after which the whole picture is looked at again."""
LOST = 0.3
"""Overlap (intersection over union) with the best detection below which a tracked box is given up."""


@dataclass(frozen=True)
class Found:
    """Where a face is in a picture, in its pixels (x right, y down).

    Attributes:
        box: left, top, right, bottom.
        contour: WFLW's 98 landmarks.
        landmarks: iBUG's 68 landmarks, whole pixels.
    """

    box: Float[Tensor, " 4"]
    contour: Float[Tensor, "98 2"]
    landmarks: Float[Tensor, "68 2"]

    def next_box(self) -> Float[Tensor, " 4"]:
        """The box around the landmarks, in which the next frame's face is looked for."""
        return torch.cat([self.contour.amin(0), self.contour.amax(0)])


@dataclass(frozen=True)
class TrackedFace:
    """What is known of a face; pixels are those of the aligned picture.

    Attributes:
        image: aligned, 512 x 512 pixels.
        contour: WFLW's 98 landmarks.
        landmarks: iBUG's 68 landmarks.
        coefficients: of the Basel face model, one row.
        label: camera and FLAME parameters ("simplified").
        motion: motion embedding.
        found: where the face was.
    """

    image: UInt8[Tensor, "512 512 3"]
    contour: Float[Tensor, "98 2"]
    landmarks: Float[Tensor, "68 2"]
    coefficients: FaceCoefficients
    label: Float[Tensor, " 437"]
    motion: Float[Tensor, " 548"]
    found: Found


class PortraitTracker(nn.Module):
    """The networks that look at a face, and what they do with a picture.

    Args:
        detector: finds faces.
        contour: 98 landmarks.
        landmarks: 68 landmarks.
        regressor: coefficients.
        mapper: coefficients to FLAME parameters.
        motion: embeds motion.
    """

    def __init__(
        self,
        detector: RetinaFace,
        contour: H3R,
        landmarks: FAN,
        regressor: Deep3D,
        mapper: BfmToFlame,
        motion: MotionEncoder,
    ) -> None:
        super().__init__()
        self.detector, self.contour, self.landmarks = detector, contour, landmarks
        self.regressor, self.mapper, self.motion = regressor, mapper, motion

    @property
    def device(self) -> torch.device:
        """Where the networks compute."""
        return next(self.parameters()).device

    def detect(self, image: UInt8[Tensor, "height width 3"]) -> Float[Tensor, " 4"]:
        """Box of the largest face.

        Raises:
            MediaError: if there is none.
            ZooError: for what is no picture.
        """
        found = self.detector.detect(image)
        if not len(found.boxes):
            raise MediaError("no face was found: give a picture in which one is seen from the front, 40 pixels or more")
        return found.boxes[found.largest()]

    def locate(self, image: UInt8[Tensor, "height width 3"], box: Float[Tensor, " 4"], *, detected: bool) -> Found:
        """Landmarks of the face in a box.

        Args:
            image: RGB.
            box: left, top, right, bottom.
            detected: whether a detector drew it, or landmarks of the frame before did, whose boxes are tighter.

        Raises:
            ZooError: for what is no picture, or a box without area in it.
        """
        contour = self.contour.landmarks(image, box, detected=detected)
        return Found(box, contour, self.landmarks.landmarks(image, box))

    @torch.inference_mode()
    def describe(self, image: UInt8[Tensor, "height width 3"], found: Found) -> TrackedFace:
        """What is known of a face whose landmarks are known.

        Raises:
            ZooError: for a face too small or too large to be cut out.
        """
        five = five_of_98(found.contour)
        crop = portrait_crop(image, five, SIDE)
        contour, landmarks = crop.move(found.contour), crop.move(found.landmarks)
        face = coefficient_crop(image, five).image
        coefficients = self.regressor((face.permute(2, 0, 1)[None].float() / 255).to(self.device))
        seen = crop_face(from_uint8(crop.image[None]).to(self.device), landmarks[None].to(self.device))
        return TrackedFace(
            image=crop.image,
            contour=contour,
            landmarks=landmarks,
            coefficients=coefficients,
            label=flame_label(coefficients, self.mapper)[0].cpu(),
            motion=self.motion(seen)[0].cpu(),
            found=found,
        )

    def photo(self, image: UInt8[Tensor, "height width 3"]) -> TrackedFace:
        """The largest face of a photo.

        Raises:
            MediaError: if there is none.
            ZooError: for what is no picture, or a face too small or too large to be cut out.
        """
        return self.describe(image, self.locate(image, self.detect(image), detected=True))

    def frames(
        self, images: Iterable[UInt8[Tensor, "height width 3"]], look_again: int | None = LOOK_AGAIN
    ) -> Iterator[TrackedFace | ZooError]:
        """The face in each frame of a video, or in its place why there is none.

        Args:
            images: frames, however many.
            look_again: frames after which the whole picture is searched again, so that a cut does not leave the tracker
                behind; None follows the first face for ever, as the authors' program does. After a frame without a face
                the next one is searched in any case.
        """
        last: Found | None = None
        for number, image in enumerate(images):
            try:
                box, detected = self._box(image, last, look_again is not None and number % look_again == 0)
                last = self.locate(image, box, detected=detected)
                yield self.describe(image, last)
            except ZooError as error:
                last = None
                yield error

    def _box(self, image: Tensor, last: Found | None, search: bool) -> tuple[Tensor, bool]:
        """Where to look for the face, and whether the detector says so."""
        if last is None:
            return self.detect(image), True
        tracked = last.next_box()
        if search:
            detected = self.detect(image)
            if overlap(tracked, detected) < LOST:
                return detected, True
        return tracked, False


def overlap(first: Float[Tensor, " 4"], second: Float[Tensor, " 4"]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    inner = (torch.minimum(first[2:], second[2:]) - torch.maximum(first[:2], second[:2])).clamp(min=0).prod()
    areas = [(box[2:] - box[:2]).clamp(min=0).prod() for box in (first, second)]
    return float(inner / (areas[0] + areas[1] - inner).clamp(min=1e-9))
