"""Pictures of a FLAME head that generators are told by: masks of its parts, correspondence maps, landmarks, flows."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from portraitzoo.faces.flame_head import FlameHead, Part
from portraitzoo.rendering.cameras import Camera, pinhole
from portraitzoo.rendering.rasterisation import (
    Fragments,
    interpolate,
    project,
    rasterise,
    rasterise_orthographic,
)
from portraitzoo.rendering.visibility import Backend

MAP_SCALE = 0.6
EYE_SHIFT = 0.5
FIELD_OF_VIEW = 12.0
"""Degrees; maps are drawn with it whatever the camera's own intrinsics say (all released data have it)."""


def map_camera(camera: Camera) -> Camera:
    """The camera in its place with the field of view that maps are drawn with."""
    lens = pinhole(0.5 / math.tan(math.radians(FIELD_OF_VIEW / 2))).to(camera.intrinsics)
    return Camera(camera.cam2world, lens.expand_as(camera.intrinsics))


def part_mask(
    head: FlameHead,
    vertices: Float[Tensor, "batch vertices 3"],
    camera: Camera,
    resolution: int,
    part: Part,
    *,
    backend: Backend = "torch",
) -> Bool[Tensor, "batch height width"]:
    """Where the outside of a part is seen, were the rest of the head not there.

    Args:
        head: whose mesh this is.
        vertices: posed heads.
        camera: one for each; see :func:`map_camera`.
        resolution: side of the picture in pixels.
        part: of the mesh.
        backend: of the rasteriser.
    """
    return rasterise(vertices, head.part_faces(part), map_camera(camera), resolution, backend=backend).covered


def coarse_fragments(
    head: FlameHead,
    vertices: Float[Tensor, "batch vertices 3"],
    camera: Camera,
    resolution: int,
    *,
    cull_backfaces: bool = True,
    backend: Backend = "torch",
) -> Fragments:
    """The decimated head as pixels see it; arguments as in :func:`part_mask`."""
    return rasterise(
        head.coarse(vertices),
        head.coarse_faces,
        map_camera(camera),
        resolution,
        cull_backfaces=cull_backfaces,
        backend=backend,
    )


def correspondence_map(
    head: FlameHead,
    vertices: Float[Tensor, "batch vertices 3"],
    camera: Camera,
    resolution: int,
    *,
    backend: Backend = "torch",
) -> tuple[Float[Tensor, "batch 3 height width"], Fragments]:
    """Where on the canonical head each pixel's point of face or eyeballs lies: its coordinates over 0.6, about [-1, 1],
    with the eyeballs moved back by 0.5 to tell them from the lids; 0 where there is neither.

    Arguments as in :func:`part_mask`.
    """
    faces = head.part_faces("face_and_eyes")
    fragments = rasterise(vertices, faces, map_camera(camera), resolution, backend=backend)
    place = head.canonical / MAP_SCALE
    place[head.eyes, 2] -= EYE_SHIFT
    return interpolate(fragments, faces, place.expand(len(vertices), -1, -1)).permute(0, 3, 1, 2), fragments


def landmarks_in_image(
    head: FlameHead, vertices: Float[Tensor, "batch vertices 3"], camera: Camera
) -> Float[Tensor, "batch 70 2"]:
    """The 70 landmarks in units of the image size from the upper left corner, by the camera's own intrinsics."""
    return project(head.flame.landmarks(vertices), camera)[0]


def with_eyelids(
    head: FlameHead,
    vertices: Float[Tensor, "batch vertices 3"],
    blinking: Float[Tensor, "batch vertices 3"],
) -> Float[Tensor, "batch vertices 3"]:
    """Heads with the eyelids of others, which lower them, say."""
    return vertices.index_copy(1, head.eyelids, blinking[:, head.eyelids])


def flow_maps(
    head: FlameHead,
    source: Float[Tensor, "batch vertices 3"],
    target: Float[Tensor, "batch vertices 3"],
    resolution: int,
    *,
    half_side: float,
) -> tuple[Float[Tensor, "batch 3 2 height width"], Bool[Tensor, "batch 3 height width"]]:
    """Where the surface of one head moves to become another, laid out like the planes of a tri-plane.

    Args:
        head: whose mesh both are.
        source: heads that are drawn, each plane seeing their half above it.
        target: the same vertices elsewhere.
        resolution: side of the planes in pixels; rows follow the plane's second axis upwards.
        half_side: coordinate at the borders of the planes.

    Returns:
        Offsets along the axes of the planes (x, y), (y, z), (z, x) in units of ``half_side``, and where there are any.
    """
    offset, flows, masks = (target - source) / half_side, [], []
    for axes in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):
        fragments = rasterise_orthographic(source[..., axes], head.flame.faces, resolution, half_side=half_side)
        flow = interpolate(fragments, head.flame.faces, offset[..., axes[:2]])
        flows.append(flow.flip(1).permute(0, 3, 1, 2))
        masks.append(fragments.covered.flip(1))
    return torch.stack(flows, dim=1), torch.stack(masks, dim=1)
