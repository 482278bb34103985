"""The stages of Portrait4D that ``zoo bench`` times, and how fast the original implementation was."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.faces.flame_head import FlameHead
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.motion_embedding import INPUT_SIZE, MotionEncoder
from portraitzoo.methods import original_speed
from portraitzoo.methods.portrait4d import raw_benchmark
from portraitzoo.methods.portrait4d.cameras import FOCAL, frontal
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.model import Portrait4D
from portraitzoo.methods.portrait4d.network import Portrait4DOutput
from portraitzoo.methods.portrait4d.prepared import Frames, Portrait
from portraitzoo.rendering.cameras import pinhole
from portraitzoo.rendering.rays import cast_rays
from portraitzoo.rendering.volume import RAY_CHUNK, DepthRange, RenderedRays, render_rays

HEAD_RADII = (0.25, 0.33, 0.28)
TURN = 0.3


def official() -> Portrait4D:
    """Portrait4D at its published size, with fixed random weights and an ellipsoid for a head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Portrait4D(Portrait4DConfig()).eval().requires_grad_(False)
    shape_ellipsoid(model.generator.head)
    return model


def driving_frames(model: Portrait4D, count: int) -> Frames:
    """Frames of a head that turns from side to side, with motions of no meaning."""
    generator = torch.Generator().manual_seed(0)
    head = FlameParameters.zeros(count)
    turn = TURN * torch.sin(torch.linspace(-math.pi / 2, math.pi / 2, count + 2)[1:-1])
    pose = torch.zeros(count, 6)
    pose[:, 1] = turn if count > 1 else TURN
    head = FlameParameters(head.shape, head.expression, pose, head.eye_pose)
    motion = torch.randn(count, model.config.motion_dim, generator=generator)
    return Frames(frontal(pinhole(FOCAL).expand(count, 3, 3)), head, motion)


def portrait(model: Portrait4D) -> Portrait:
    """A photo of no meaning."""
    side = model.config.image_resolution
    axis = torch.linspace(0, 255, side)
    image = torch.stack([axis.expand(side, -1), axis[:, None].expand(-1, side), axis.flip(0).expand(side, -1)], dim=-1)
    return Portrait(image.to(torch.uint8), driving_frames(model, 1))


def stages(
    model: Portrait4D, *, frames: int, render_resolution: int | None, batch: int, compiled: bool
) -> Iterator[tuple[str, Callable[[], object], int]]:
    """Name, work and number of frames of each stage, in the order in which a clip passes through them; then of raw
    footage, where the network takes it.

    Args:
        model: on any device.
        frames: frames of the whole clip.
        render_resolution: side of the volume-rendered image; None takes the configuration's.
        batch: driving frames that the stages before ``clip`` work on at once.
        compiled: compile the transformers and the super-resolution.
    """
    network, config, device = model.generator, model.config, model.device
    resolution = render_resolution or config.render_resolution
    photo, driving = portrait(model), driving_frames(model, batch).to(device)
    image, motion = photo.pixels().to(device), photo.tracked.motion.to(device)
    parts = (network.transformer, network.plane_generator, network.super_resolution)
    if compiled:
        for part in parts:
            part.compile()
    encoder = MotionEncoder().eval().requires_grad_(False).to(device)
    crops = torch.zeros(batch, 3, INPUT_SIZE, INPUT_SIZE, device=device)
    try:
        with torch.inference_mode():
            source = network.encode(image, motion)
            planes = network.planes(source, driving.motion)
            field = network.neck_field(driving.head)
            output = network.render(planes, source, driving.camera, field, render_resolution=resolution)

        def rays() -> list[RenderedRays]:
            found = []
            for row in (slice(row, row + 1) for row in range(batch)):
                own, camera = None if field is None else field[row], driving.camera[row]
                span = DepthRange.around_origin(
                    camera, config.box_warp, config.depth_samples, config.importance_samples
                )
                found.append(
                    render_rays(
                        lambda points, row=row, own=own: network.field(points, planes[row], own),  # type: ignore[misc]
                        cast_rays(camera, resolution),
                        span,
                        chunk=RAY_CHUNK,
                    )
                )
            return found

        def super_resolution() -> list[Tensor]:
            styles = network.w_avg[None]
            rows = zip(output.image_raw.split(1), output.features.split(1), strict=True)
            return [network.super_resolution(*row, styles) for row in rows]

        def frame() -> Portrait4DOutput:
            seen = network.encode(image, motion)
            made = network.planes(seen, driving.motion)
            turned = network.neck_field(driving.head)
            return network.render(made, seen, driving.camera, turned, render_resolution=resolution)

        yield "motion embedding", lambda: encoder(crops), batch
        yield "source", lambda: network.encode(image, motion), frames
        yield "planes", lambda: network.planes(source, driving.motion), batch
        yield "neck field", lambda: network.neck_field(driving.head), batch
        yield "rays", rays, batch
        yield "super-resolution", super_resolution, batch
        yield "frame", frame, batch
        clip_frames = driving_frames(model, frames)
        with tempfile.TemporaryDirectory() as folder:
            clip = model.animate(photo, clip_frames, render_resolution=resolution)
            yield "encode", lambda: clip.save(Path(folder) / "clip.mp4"), frames
        yield "clip", lambda: model.animate(photo, clip_frames, render_resolution=resolution), frames
        if raw_benchmark.fits(config):
            yield from raw_benchmark.stages(model, photo, render_resolution=resolution)
    finally:
        if compiled:
            for part in parts:
                part._compiled_call_impl = None


def frame(model: Portrait4D, render_resolution: int | None) -> Float[Tensor, "1 3 height width"]:
    """One frame without any randomness, in a range of 2."""
    network, photo = model.generator, portrait(model)
    driving = driving_frames(model, 1).to(model.device)
    dtype = network.w_avg.dtype
    source = network.encode(photo.pixels().to(model.device, dtype), photo.tracked.motion.to(model.device, dtype))
    planes = network.planes(source, driving.motion.to(dtype))
    field = network.neck_field(driving.head)
    return network.render(planes, source, driving.camera, field, render_resolution=render_resolution).image


def original(model: Portrait4D, what: str, frames: int, render_resolution: int | None) -> float | None:
    """Seconds over calibration seconds of the original implementation for a stage, where it was measured."""
    if (model.config.image_resolution, model.config.plane_width) != (512, 1024):
        return None
    resolution = render_resolution or model.config.render_resolution
    return original_speed.recorded_ratio(
        "portraitzoo.methods.portrait4d", what=what, frames=frames, render_resolution=resolution
    )


def shape_ellipsoid(head: FlameHead) -> None:
    """Give the decimated mesh of a head without data the shape of an ellipsoid that turns about the origin."""
    rows = math.isqrt(len(head.coarse_vertices))
    polar, around = torch.linspace(0.05, math.pi - 0.05, rows), torch.linspace(0, 2 * math.pi, rows + 1)[:-1]
    theta, phi = torch.meshgrid(polar, around, indexing="ij")
    points = torch.stack([theta.sin() * phi.sin(), theta.cos(), theta.sin() * phi.cos()], dim=-1).flatten(0, 1)
    head.flame.v_template[: len(points)] = points * torch.tensor(HEAD_RADII)
    head.flame.lbs_weights[:, 1] = 1
    head.coarse_vertices.copy_(torch.arange(len(head.coarse_vertices))[:, None].clamp(max=len(points) - 1))
    head.coarse_weights[:, 0] = 1
    row, column = (axis.flatten() for axis in torch.meshgrid(torch.arange(rows - 1), torch.arange(rows), indexing="ij"))
    beside = (column + 1) % rows
    corner, right, below, opposite = (
        line * rows + place for line, place in ((row, column), (row, beside), (row + 1, column), (row + 1, beside))
    )
    faces = torch.cat([torch.stack([corner, below, right], 1), torch.stack([right, below, opposite], 1)])
    count = len(head.coarse_faces)
    head.coarse_faces.copy_(faces.repeat(count // len(faces) + 1, 1)[:count])
