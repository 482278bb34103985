"""The Basel face model as Deep3DFaceRecon uses it (Paysan et al., AVSS 2009; Deng et al., CVPRW 2019, section 3).

Linear in identity, expression and texture, lit by spherical harmonics, seen by one fixed camera. The unit is a
decimetre, x to the picture's right, y up, z to the viewer. The model's data come under their own licence;
:mod:`portraitzoo.hub.bfm_files` reads them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.faces.coefficients import SIZES, FaceCoefficients
from portraitzoo.faces.model_arrays import check_arrays
from portraitzoo.faces.rotations import euler_rotation
from portraitzoo.rendering.lighting import spherical_harmonics

IMAGE_SIZE, FOCAL, CAMERA_DISTANCE = 224, 1015.0, 10.0
"""Of the camera, pixels and decimetres; it looks at the origin along -z."""
CENTER = (-0.00322627, 0.04506068, 0.75983167)
LANDMARKS, RING = 68, 8
_AMBIENT = 0.8
# Strength of each degree, and the signs of the basis against the usual real spherical harmonics.
_DEGREES = [math.pi] + [2 * math.pi / math.sqrt(3)] * 3 + [2 * math.pi / math.sqrt(8)] * 5
_SIGNS = [1, -1, 1, -1, 1, -1, 1, -1, 1]

Centring = Literal["portrait4d", "mean"]


@dataclass(frozen=True)
class BfmArrays:
    """A face model of this structure; V vertices, F triangles.

    Attributes:
        mean: mean face.
        identity, expression: offsets for each coefficient at 1.
        albedo: mean colour, 0 to 255.
        texture: its offsets.
        triangles: of the mesh.
        rings: up to eight triangles around each vertex, padded with F.
        keypoints: vertices of the 68 landmarks of iBUG's layout.

    Raises:
        ZooError: naming the array that does not fit.
    """

    mean: Float[np.ndarray, "vertices 3"]
    identity: Float[np.ndarray, "vertices 3 80"]
    expression: Float[np.ndarray, "vertices 3 64"]
    albedo: Float[np.ndarray, "vertices 3"]
    texture: Float[np.ndarray, "vertices 3 80"]
    triangles: Int[np.ndarray, "faces 3"]
    rings: Int[np.ndarray, "vertices 8"]
    keypoints: Int[np.ndarray, " 68"]

    def __post_init__(self) -> None:
        vertices, faces = len(self.mean), len(self.triangles)
        shapes: dict[str, tuple[int, ...]] = {
            **{name: (vertices, 3, SIZES[name]) for name in ("identity", "expression", "texture")},
            "mean": (vertices, 3),
            "albedo": (vertices, 3),
            "triangles": (faces, 3),
            "rings": (vertices, RING),
            "keypoints": (LANDMARKS,),
        }
        arrays = {item.name: getattr(self, item.name) for item in fields(self)}
        limits = {"triangles": vertices, "rings": faces + 1, "keypoints": vertices}
        check_arrays("face model", "Deep3DFaceRecon's form of the Basel face model is wanted", arrays, shapes, limits)


class BaselFace(nn.Module):
    """The model; all weights are buffers.

    Args:
        arrays: its data.
        centring: what is subtracted from the mean face: a constant (``portrait4d``), or its own mean (``mean``, as
            Deep3DFaceRecon and 3DFaceShop do). Coefficients belong to one of them.
    """

    mean: Float[Tensor, "vertices 3"]
    shape_basis: Float[Tensor, "144 coordinates"]
    albedo: Float[Tensor, "vertices 3"]
    texture_basis: Float[Tensor, "80 coordinates"]
    triangles: Int[Tensor, "faces 3"]
    rings: Int[Tensor, "vertices 8"]
    keypoints: Int[Tensor, " 68"]
    key_basis: Float[Tensor, "144 key_coordinates"]

    def __init__(self, arrays: BfmArrays, centring: Centring = "portrait4d") -> None:
        super().__init__()
        if centring not in ("portrait4d", "mean"):
            raise ZooError(f"a face model is centred as portrait4d or by its mean, not {centring!r}")
        mean = np.asarray(arrays.mean, dtype=np.float64)
        center = np.array(CENTER) if centring == "portrait4d" else mean.mean(0)
        shapes = np.concatenate([arrays.identity, arrays.expression], axis=2)
        for name, value in {
            "mean": mean - center,
            "shape_basis": shapes.reshape(-1, shapes.shape[2]).T,
            "albedo": arrays.albedo,
            "texture_basis": arrays.texture.reshape(-1, arrays.texture.shape[2]).T,
            "key_basis": shapes[arrays.keypoints].reshape(-1, shapes.shape[2]).T,
        }.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32)))
        for name in ("triangles", "rings", "keypoints"):
            self.register_buffer(name, torch.from_numpy(np.array(getattr(arrays, name), dtype=np.int64)))

    def shape(self, faces: FaceCoefficients) -> Float[Tensor, "batch vertices 3"]:
        """Faces that look straight at the viewer."""
        return self.mean + (_form(faces) @ self.shape_basis).unflatten(1, (-1, 3))

    def posed(self, faces: FaceCoefficients) -> Float[Tensor, "batch vertices 3"]:
        """Faces turned and moved: R v + t with R = Rz Ry Rx."""
        return _moved(self.shape(faces), faces)

    def colours(self, faces: FaceCoefficients) -> Float[Tensor, "batch vertices 3"]:
        """Albedo, RGB, nominally in [0, 1]."""
        return (self.albedo + (faces.texture @ self.texture_basis).unflatten(1, (-1, 3))) / 255

    def normals(self, shape: Float[Tensor, "batch vertices 3"]) -> Float[Tensor, "batch vertices 3"]:
        """Unit normals: the mean of the unit normals of the triangles around each vertex."""
        first, second, third = (shape[:, self.triangles[:, corner]] for corner in range(3))
        of_faces = F.normalize(torch.linalg.cross(first - second, second - third), dim=-1)
        padded = torch.cat([of_faces, torch.zeros_like(of_faces[:, :1])], dim=1)
        return F.normalize(padded[:, self.rings].sum(2), dim=-1)

    def lit_colours(self, faces: FaceCoefficients) -> Float[Tensor, "batch vertices 3"]:
        """Albedo times light; the light's first coefficients are offsets from an even 0.8."""
        turned = self.normals(self.shape(faces)) @ euler_rotation(faces.angles).mT
        light = faces.light.unflatten(1, (3, 9)) + _AMBIENT * F.one_hot(torch.tensor(0), 9).to(faces.light)
        strength = turned.new_tensor(_DEGREES) * turned.new_tensor(_SIGNS)
        return self.colours(faces) * ((spherical_harmonics(turned) * strength) @ light.mT)

    def landmarks(self, faces: FaceCoefficients) -> Float[Tensor, "batch 68 2"]:
        """Where the fixed camera sees the landmarks, pixels of 224, y down; only their vertices are computed."""
        points = self.mean[self.keypoints] + (_form(faces) @ self.key_basis).unflatten(1, (-1, 3))
        return project(in_camera(_moved(points, faces)))


def in_camera(vertices: Float[Tensor, "*batch vertices 3"]) -> Float[Tensor, "*batch vertices 3"]:
    """Points as the fixed camera has them: x right, y up, z the distance from it along its view."""
    return torch.cat([vertices[..., :2], CAMERA_DISTANCE - vertices[..., 2:]], dim=-1)


def project(points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 2"]:
    """Pixels of 224, x right, y down, of points in camera coordinates.

    The image's middle is at x = 112 and, counted from the last row upwards, y = 112.
    """
    seen = FOCAL * points[..., :2] / points[..., 2:] + IMAGE_SIZE / 2
    return torch.stack([seen[..., 0], IMAGE_SIZE - 1 - seen[..., 1]], dim=-1)


def _form(faces: FaceCoefficients) -> Float[Tensor, "batch 144"]:
    return torch.cat([faces.identity, faces.expression], dim=1)


def _moved(points: Tensor, faces: FaceCoefficients) -> Tensor:
    return points @ euler_rotation(faces.angles).mT + faces.translation[:, None]
