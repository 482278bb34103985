"""The stages of PV3D that ``zoo bench`` times, and how fast the original implementation was."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.methods import original_speed
from portraitzoo.methods.pv3d.latents import latent_codes
from portraitzoo.methods.pv3d.model import PV3D
from portraitzoo.methods.pv3d.network import PV3DConfig, PV3DOutput
from portraitzoo.rendering.cameras import Camera, trajectory
from portraitzoo.rendering.rays import cast_rays
from portraitzoo.rendering.volume import RAY_CHUNK, RenderedRays, render_rays


def official() -> PV3D:
    """PV3D at its published size, with fixed random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PV3D(PV3DConfig()).eval().requires_grad_(False)


def stages(
    model: PV3D, *, frames: int, render_resolution: int | None, batch: int, compiled: bool
) -> Iterator[tuple[str, Callable[[], object], int]]:
    """Name, work and number of frames of each stage, in the order in which a clip passes through them.

    Args:
        model: on any device.
        frames: frames of the whole clip, which is the last stage.
        render_resolution: side of the volume-rendered image; None takes the configuration's.
        batch: frames that the stages before ``clip`` work on at once.
        compiled: compile the backbone and the super-resolution.
    """
    generator, config, device = model.generator, model.config, model.device
    resolution = render_resolution or config.render_resolution
    camera = trajectory("orbit", batch).to(device)
    z, z_motion = (code.to(device) for code in latent_codes(0, config.z_dim))
    time = torch.linspace(0, 1, batch, device=device)
    if compiled:
        generator.backbone.compile()
        generator.super_resolution.compile()
    try:
        with torch.inference_mode():
            ws = generator.mapping(z, camera[:1].label()).expand(batch, -1, -1)
            z_motion = z_motion.expand(batch, -1)
            planes = generator.planes(ws, z_motion, time)
            output = generator.render(planes, ws, camera, render_resolution=resolution)

        def rays() -> list[RenderedRays]:
            return [
                render_rays(
                    lambda points, row=row: generator.field(points, planes[row : row + 1]),  # type: ignore[misc]
                    cast_rays(camera[row : row + 1], resolution),
                    config.depth_range,
                    chunk=RAY_CHUNK,
                )
                for row in range(batch)
            ]

        def super_resolution() -> list[Tensor]:
            rows = zip(output.image_raw.split(1), output.features.split(1), ws[:, -1].split(1), strict=True)
            return [generator.super_resolution(*row) for row in rows]

        def frame() -> PV3DOutput:
            styles = generator.mapping(z, camera[:1].label()).expand(batch, -1, -1)
            return generator.synthesis(styles, z_motion, time, camera, render_resolution=resolution)

        yield "mapping", lambda: generator.mapping(z, camera[:1].label()), frames
        yield "planes", lambda: generator.planes(ws, z_motion, time), batch
        yield "rays", rays, batch
        yield "super-resolution", super_resolution, batch
        yield "frame", frame, batch
        with tempfile.TemporaryDirectory() as folder:
            clip = model.sample(0, frames, trajectory="orbit", render_resolution=resolution)
            yield "encode", lambda: clip.save(Path(folder) / "clip.mp4"), frames
        yield "clip", lambda: model.sample(0, frames, trajectory="orbit", render_resolution=resolution), frames
    finally:
        if compiled:
            for part in (generator.backbone, generator.super_resolution):
                part._compiled_call_impl = None


def frame(model: PV3D, render_resolution: int | None) -> Float[Tensor, "1 3 height width"]:
    """One frame without any randomness, in a range of 2."""
    z, z_motion = (code.to(model.device) for code in latent_codes(0, model.config.z_dim))
    camera = Camera.canonical().expand(1).to(model.device)
    ws = model.generator.mapping(z, camera.label())
    time = torch.full((1,), 0.5, device=model.device)
    return model.generator.synthesis(ws, z_motion, time, camera, render_resolution=render_resolution).image


def original(model: PV3D, what: str, frames: int, render_resolution: int | None) -> float | None:
    """Seconds over calibration seconds of the original implementation for a stage, where it was measured."""
    if (model.config.image_resolution, model.config.plane_resolution) != (512, 256):
        return None
    resolution = render_resolution or model.config.render_resolution
    return original_speed.recorded_ratio(
        "portraitzoo.methods.pv3d", what=what, frames=frames, render_resolution=resolution
    )
