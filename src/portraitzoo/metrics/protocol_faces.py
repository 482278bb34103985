"""The face reconstruction that a protocol names: keypoints, pose and expression of the largest face of a frame.

RetinaFace finds the face, FAN's 68 landmarks are its keypoints, and Deep3DFaceRecon's regressor gives pose and
expression of the face that these landmarks cut out, as Deep3DFaceRecon cuts it out.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from typing import Any, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.faces.alignment import TEMPLATE, coefficient_crop, five_of_68
from portraitzoo.faces.coefficients import SIZES
from portraitzoo.faces.deep3d import Deep3D
from portraitzoo.faces.fan import FAN
from portraitzoo.faces.retinaface import RetinaFace
from portraitzoo.layers.conv_norm import ready_to_measure
from portraitzoo.metrics.features import Weights, feature_module, tensor_checksum, true_float32
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.reconstruction import Quantity

POINTS = 68
NUMBERS = {"keypoints": 2 * POINTS, "pose": SIZES["angles"], "expression": SIZES["expression"]}
REMEMBERED = 8192  # frames whose numbers are kept: measures ask for one quantity after the other
MIDDLE = (0.25, 0.75)
"""Share of the picture that is taken for the face where the networks are random."""


class ProtocolFaces:
    """The networks that a protocol names, loaded at the first frame that has no numbers yet.

    Args:
        protocol: names the index entries.
        weights: ``official``; or ``random``, which cannot find a face: the middle of the picture is then taken for it,
            and the numbers compare with nothing.
        device: where the networks compute.
    """

    def __init__(self, protocol: Protocol, weights: Weights, device: torch.device) -> None:
        self.weights, self.device = weights, device
        self.entries = {
            "detector": protocol.face_detector,
            "landmarks": protocol.face_landmarks,
            "coefficients": protocol.face_coefficients,
        }
        self.checksum = f"{' '.join(self.entries.values())} {weights}"
        self._networks: dict[str, nn.Module] = {}
        self._sums: dict[str, str] = {}
        self._known: OrderedDict[bytes, Float[Tensor, " numbers"]] = OrderedDict()

    def description(self, quantity: Quantity) -> dict[str, Any]:
        """``name``, ``checksum``, ``features`` and ``comparable`` of the networks behind a quantity, for reports.

        Raises:
            WeightsUnavailableError: if official weights are not here and cannot be fetched.
        """
        parts = ["detector", "landmarks"] + ([] if quantity == "keypoints" else ["coefficients"])
        for part in parts:
            self._network(part)
        digest = hashlib.sha256("".join(self._sums[part] for part in parts).encode()).hexdigest()
        official = self.weights == "official"
        name = " + ".join(self.entries[part] for part in parts) + ("" if official else " (random weights)")
        return {"name": name, "checksum": digest, "features": NUMBERS[quantity], "comparable": official}

    def keypoints(self, images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 68 2"]:
        """FAN's landmarks, pixels, x right, y down; NaN for a frame in which no face is found."""
        return self._numbers(images)[:, : 2 * POINTS].unflatten(1, (POINTS, 2))

    def pose(self, images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3"]:
        """Angles about x (nod), y (turn) and z (tilt), degrees; NaN where no face is found."""
        return self._numbers(images)[:, 2 * POINTS : 2 * POINTS + 3] * (180 / math.pi)

    def expression(self, images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 64"]:
        """Expression coefficients of the Basel face model; NaN where no face is found."""
        return self._numbers(images)[:, 2 * POINTS + 3 :]

    def _numbers(self, images: Tensor) -> Float[Tensor, "batch numbers"]:
        rows = []
        for image in images.cpu():
            key = hashlib.blake2b(image.numpy().tobytes() + str(image.shape).encode(), digest_size=16).digest()
            if key not in self._known:
                self._known[key] = self._measured(image)
                if len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
            rows.append(self._known[key])
        return torch.stack(rows)

    def _measured(self, image: UInt8[Tensor, "height width 3"]) -> Float[Tensor, " numbers"]:
        regressor = cast(Deep3D, self._network("coefficients"))
        fan = cast(FAN, self._network("landmarks"))
        with torch.inference_mode(), true_float32(self.device.type):
            try:
                landmarks, five = self._landmarks(fan, image)
                face = coefficient_crop(image, five, "bicubic").image
            except _NoFaceError:
                return torch.full((sum(NUMBERS.values()),), torch.nan, dtype=torch.float64)
            found = regressor((face.permute(2, 0, 1)[None].float() / 255).to(self.device))
            numbers = torch.cat([found.angles[0], found.expression[0]]).double().cpu()
        return torch.cat([landmarks.double().cpu().flatten(), numbers])

    def _landmarks(self, fan: FAN, image: Tensor) -> tuple[Float[Tensor, "68 2"], Float[Tensor, "5 2"]]:
        """Landmarks, and the five of them by which the face is cut out."""
        height, width = image.shape[:2]
        size = torch.tensor([width, height], dtype=torch.float64)
        if self.weights == "random":
            template = torch.tensor(TEMPLATE, dtype=torch.float64)[:, :2] * torch.tensor([1.0, -1.0])
            box = torch.cat([MIDDLE[0] * size, MIDDLE[1] * size])
            return fan.landmarks(image, box), size / 2 + template * float(size.min()) / 3
        detections = cast(RetinaFace, self._network("detector")).detect(image)
        if not len(detections.boxes):
            raise _NoFaceError
        landmarks = fan.landmarks(image, detections.boxes[detections.largest()])
        return landmarks, five_of_68(landmarks)

    def _network(self, part: str) -> nn.Module:
        if part not in self._networks:
            module = feature_module(self.entries[part], self.weights, self.device)
            self._sums[part] = tensor_checksum(module.state_dict())
            self._networks[part] = ready_to_measure(module)
        return self._networks[part]


class _NoFaceError(ZooError):
    """There is no face in the picture."""
