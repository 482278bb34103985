"""FLAME, the parametric head model of Li et al. (SIGGRAPH Asia 2017): identity, expression, neck, jaw and eyes.

A :class:`FLAME` is in the scale of the generators that it drives: three times FLAME's metres, with the origin at the
neck joint of the canonical head (mean identity, no expression, jaw open by 0.3 radians). FLAME's data come under their
own licence; :mod:`portraitzoo.hub.flame_files` reads them, :mod:`portraitzoo.faces.free_flame` makes a free stand-in.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.faces.flame_arrays import (
    CONTOUR_POINTS,
    CONTOUR_ROWS,
    LANDMARKS,
    NUM_EXPRESSION,
    NUM_JOINTS,
    NUM_SHAPE,
    PARENTS,
    STATIC_LANDMARKS,
    FlameArrays,
)
from portraitzoo.faces.flame_parameters import SIZES
from portraitzoo.faces.rotations import rotation_matrix
from portraitzoo.faces.skinning import linear_blend_skinning

SCALE = 3.0
CANONICAL_JAW = 0.3
NECK, JAW, LEFT_EYE, RIGHT_EYE = range(1, NUM_JOINTS)


class FLAME(nn.Module):
    """The model; computes in float32 whatever autocast or the parameters' dtype says, for bf16 would move the skin by
    millimetres. All weights are buffers.

    Args:
        num_vertices: V, 5023 for FLAME itself.
        num_faces: F, 9976 for FLAME itself.
    """

    v_template: Float[Tensor, "vertices 3"]
    shapedirs: Float[Tensor, "vertices 3 400"]
    posedirs: Float[Tensor, "36 coordinates"]
    J_regressor: Float[Tensor, "5 vertices"]
    lbs_weights: Float[Tensor, "vertices 5"]
    faces: Int[Tensor, "faces 3"]
    static_faces: Int[Tensor, " 53"]
    static_barycentric: Float[Tensor, "53 3"]
    contour_faces: Int[Tensor, "79 17"]
    contour_barycentric: Float[Tensor, "79 17 3"]
    full_faces: Int[Tensor, " 70"]
    full_barycentric: Float[Tensor, "70 3"]

    def __init__(self, num_vertices: int = 5023, num_faces: int = 9976) -> None:
        super().__init__()
        directions = NUM_SHAPE + NUM_EXPRESSION
        for name, shape in {
            "v_template": (num_vertices, 3),
            "shapedirs": (num_vertices, 3, directions),
            "posedirs": (9 * (NUM_JOINTS - 1), 3 * num_vertices),
            "J_regressor": (NUM_JOINTS, num_vertices),
            "lbs_weights": (num_vertices, NUM_JOINTS),
            "static_barycentric": (STATIC_LANDMARKS, 3),
            "contour_barycentric": (CONTOUR_ROWS, CONTOUR_POINTS, 3),
            "full_barycentric": (LANDMARKS, 3),
        }.items():
            self.register_buffer(name, torch.zeros(shape))
        for name, shape in {
            "faces": (num_faces, 3),
            "static_faces": (STATIC_LANDMARKS,),
            "contour_faces": (CONTOUR_ROWS, CONTOUR_POINTS),
            "full_faces": (LANDMARKS,),
        }.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int64))

    @classmethod
    def from_arrays(cls, arrays: FlameArrays) -> FLAME:
        """The model of these arrays, scaled by 3 and moved to the neck joint of its canonical head."""
        flame = cls(len(arrays.v_template), len(arrays.faces))
        for name, buffer in flame.named_buffers():
            value = torch.from_numpy(np.array(getattr(arrays, name))).to(buffer.dtype)
            if name == "posedirs":
                value = value.reshape(-1, value.shape[-1]).T
            buffer.copy_(value * SCALE if name in ("v_template", "shapedirs", "posedirs") else value)
        _, joints = flame.posed(*flame.canonical_parameters())
        flame.v_template -= joints[0, NECK]
        return flame

    def canonical_parameters(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Shape, expression, pose and eye pose [1, n] of the canonical head: all zero but the jaw, open by 0.3."""
        zeros = [torch.zeros(1, size, device=self.v_template.device) for size in SIZES.values()]
        zeros[2][:, 3] = CANONICAL_JAW
        return zeros[0], zeros[1], zeros[2], zeros[3]

    def forward(
        self,
        shape: Float[Tensor, "batch 300"],
        expression: Float[Tensor, "batch 100"],
        pose: Float[Tensor, "batch 6"],
        eye_pose: Float[Tensor, "batch 6"] | None = None,
    ) -> Float[Tensor, "batch vertices 3"]:
        """Vertices of heads.

        Args:
            shape: identity coefficients.
            expression: expression coefficients.
            pose: axis-angles in radians of neck and jaw.
            eye_pose: of the left and the right eyeball; looking straight ahead where None.

        Raises:
            ZooError: if a length is wrong.
        """
        return self.posed(shape, expression, pose, eye_pose)[0]

    def posed(
        self,
        shape: Float[Tensor, "batch 300"],
        expression: Float[Tensor, "batch 100"],
        pose: Float[Tensor, "batch 6"],
        eye_pose: Float[Tensor, "batch 6"] | None = None,
    ) -> tuple[Float[Tensor, "batch vertices 3"], Float[Tensor, "batch 5 3"]]:
        """Vertices, and the joints (root, neck, jaw, left eye, right eye), of heads; arguments as in :meth:`forward`.

        The offsets that correct the skin for the pose pass no gradient to it (as in the code that released parameters
        were fitted with); the skinning does.
        """
        eye_pose = torch.zeros_like(pose) if eye_pose is None else eye_pose
        for (name, size), value in zip(SIZES.items(), (shape, expression, pose, eye_pose), strict=True):
            if value.ndim != 2 or value.shape[1] != size:
                raise ZooError(f"FLAME's {name} needs [batch, {size}] numbers, not {list(value.shape)}")
        with torch.autocast(pose.device.type, enabled=False):
            coefficients = torch.cat([shape, expression], dim=1).float()
            directions = self.shapedirs.flatten(0, 1).float()
            shaped = self.v_template.float() + (coefficients @ directions.T).unflatten(1, (-1, 3))
            joints = self.J_regressor.float() @ shaped
            turns = torch.cat([torch.zeros_like(pose[:, :3]), pose, eye_pose], dim=1).float()
            rotations = rotation_matrix(turns.unflatten(1, (NUM_JOINTS, 3)))
            features = (rotations[:, 1:] - torch.eye(3).to(rotations)).flatten(1).detach()
            corrected = shaped + (features @ self.posedirs.float()).unflatten(1, (-1, 3))
            return linear_blend_skinning(corrected, joints, rotations, list(PARENTS), self.lbs_weights.float())

    @property
    def triangles(self) -> Int[Tensor, "faces 3"]:
        """Faces of the mesh."""
        return self.faces

    @property
    def uv(self) -> Float[Tensor, "vertices 2"]:
        """The template unrolled from a cylinder: u around the vertical axis (0.5 in front), v upwards, in [0, 1]."""
        low, high = self.v_template.amin(0), self.v_template.amax(0)
        x, y, z = (self.v_template - (low + high) / 2).unbind(-1)
        return torch.stack([0.5 + torch.atan2(x, z) / (2 * math.pi), 0.5 + y / (high - low)[1]], dim=-1)

    @property
    def identity_basis(self) -> Float[Tensor, "vertices 3 300"]:
        """Offset of the vertices for each identity coefficient at 1."""
        return self.shapedirs[..., :NUM_SHAPE]

    @property
    def expression_basis(self) -> Float[Tensor, "vertices 3 100"]:
        """Offset of the vertices for each expression coefficient at 1."""
        return self.shapedirs[..., NUM_SHAPE:]

    def landmarks(self, vertices: Float[Tensor, "batch vertices 3"]) -> Float[Tensor, "batch 70 3"]:
        """The 68 landmarks of the iBUG layout at fixed places of the skin, then the pupils."""
        return self._on_surface(vertices, self.full_faces, self.full_barycentric)

    def contour_landmarks(
        self, vertices: Float[Tensor, "batch vertices 3"], pose: Float[Tensor, "batch 6"]
    ) -> Float[Tensor, "batch 70 3"]:
        """Like :meth:`landmarks`, with the 17 of the jaw line where the skin ends for a viewer straight in front.

        Args:
            vertices: heads in that pose.
            pose: of which the neck counts.
        """
        row = contour_row(pose[:, :3])
        contour = self._on_surface(vertices, self.contour_faces[row], self.contour_barycentric[row])
        return torch.cat([contour, self._on_surface(vertices, self.static_faces, self.static_barycentric)], dim=1)

    def _on_surface(self, vertices: Tensor, faces: Tensor, barycentric: Tensor) -> Tensor:
        corners = self.faces[faces.expand(len(vertices), -1)]
        batch = torch.arange(len(vertices), device=vertices.device)[:, None, None]
        return (vertices[batch, corners] * barycentric.to(vertices)[..., None]).sum(-2)


def contour_row(neck: Float[Tensor, "batch 3"]) -> Int[Tensor, " batch"]:
    """Row of the contour table for a neck rotation: 0 to 39 for yaws of 0 to 39 degrees and more, 40 to 78 for -1 to
    -39 and less.

    Args:
        neck: axis-angle in radians.
    """
    turn = rotation_matrix(neck.float())
    yaw = torch.atan2(-turn[:, 2, 0], (turn[:, 0, 0].square() + turn[:, 1, 0].square()).sqrt()) * (180 / math.pi)
    degrees = yaw.clamp(max=39).round().long()
    return torch.where(degrees >= 0, degrees, 39 - degrees.clamp(min=-39))
