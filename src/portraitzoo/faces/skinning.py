"""Linear blend skinning: a mesh that follows the rotations of a few joints."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def linear_blend_skinning(
    vertices: Float[Tensor, "batch vertices 3"],
    joints: Float[Tensor, "batch joints 3"],
    rotations: Float[Tensor, "batch joints 3 3"],
    parents: list[int],
    weights: Float[Tensor, "vertices joints"],
) -> tuple[Float[Tensor, "batch vertices 3"], Float[Tensor, "batch joints 3"]]:
    """Turn every joint about itself, and with it the joints and vertices that hang on it.

    Args:
        vertices: the mesh at rest.
        joints: positions of the joints at rest.
        rotations: of each joint relative to its parent.
        parents: index of each joint's parent, which comes before it; -1 for the first.
        weights: share of each joint in a vertex; rows sum to 1.

    Returns:
        Vertices and joints in the pose.
    """
    turned, placed = [rotations[:, 0]], [joints[:, 0]]
    for joint in range(1, len(parents)):
        parent = parents[joint]
        arm = joints[:, joint] - joints[:, parent]
        turned.append(turned[parent] @ rotations[:, joint])
        placed.append(placed[parent] + (turned[parent] @ arm[..., None])[..., 0])
    turn, place = torch.stack(turned, dim=1), torch.stack(placed, dim=1)
    shift = place - (turn @ joints[..., None])[..., 0]
    blended = weights @ torch.cat([turn, shift[..., None]], dim=-1).flatten(2)
    blended = blended.unflatten(-1, (3, 4))
    return (blended[..., :3] @ vertices[..., None])[..., 0] + blended[..., 3], place
