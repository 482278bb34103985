"""The stages of 3D-Aware Video Generation that ``zoo bench`` times, and how fast the original implementation was."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.methods import original_speed
from portraitzoo.methods.threedvidgen.cameras import program
from portraitzoo.methods.threedvidgen.latents import latent_codes
from portraitzoo.methods.threedvidgen.model import Person, ThreeDVidGen
from portraitzoo.methods.threedvidgen.network import ThreeDVidGenConfig, ThreeDVidGenOutput
from portraitzoo.rendering.cameras import Camera

FACES = ThreeDVidGenConfig()
BODIES = replace(FACES, image_resolution=128, feature_channels=128)
"""The configuration of the TaiChi checkpoint, the other one at which the original was timed."""


def official() -> ThreeDVidGen:
    """The network of the FaceForensics checkpoint, with fixed random weights and a density that fills the picture."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ThreeDVidGen(FACES).eval().requires_grad_(False)
    model.generator.alpha.zero_()
    model.generator.field.sigma_out.bias.fill_(3.0)
    return model


def stages(
    model: ThreeDVidGen, *, frames: int, render_resolution: int | None, batch: int, compiled: bool
) -> Iterator[tuple[str, Callable[[], object], int]]:
    """Name, work and number of frames of each stage, in the order in which a clip passes through them.

    Args:
        model: on any device.
        frames: frames of the whole clip, which is the last stage.
        render_resolution: None, or the configuration's, which the upsampler needs.
        batch: frames that the stage before ``clip`` works on at once.
        compiled: compile the upsampler's blocks.

    Raises:
        ZooError: for another ``render_resolution``.
    """
    _check(model, render_resolution)
    generator, config, device = model.generator, model.config, model.device
    z = latent_codes(0, None, config).appearance.to(device)
    person = model.person(0)
    blocks = list(generator.upsampler.values()) if compiled else []
    for block in blocks:
        block.compile()
    try:
        with torch.inference_mode():
            ws = generator.mapping(z)

        yield "mapping", lambda: generator.mapping(z), frames
        yield "style", lambda: generator.style(ws), frames
        yield "frame", lambda: _frames(model, person, batch), batch
        with tempfile.TemporaryDirectory() as folder:
            clip = model.sample(0, frames)
            yield "encode", lambda: clip.save(Path(folder) / "clip.mp4"), frames
        yield "clip", lambda: model.sample(0, frames), frames
    finally:
        for block in blocks:
            block._compiled_call_impl = None


def frame(model: ThreeDVidGen, render_resolution: int | None) -> Float[Tensor, "1 3 height width"]:
    """One frame, in a range of 2."""
    _check(model, render_resolution)
    return _frames(model, model.person(0), 1).image


def original(model: ThreeDVidGen, what: str, frames: int, render_resolution: int | None) -> float | None:
    """Seconds over calibration seconds of the original implementation for a stage, where it was measured."""
    if model.config not in (FACES, BODIES):
        return None
    side = model.config.image_resolution
    return original_speed.recorded_ratio(
        "portraitzoo.methods.threedvidgen", what=what, frames=frames, image_resolution=side
    )


def _frames(model: ThreeDVidGen, person: Person, count: int) -> ThreeDVidGenOutput:
    """Frames from the front, their motion half over."""
    camera = program("front", model.config, count).to(model.device)
    times = torch.full((1, count), 0.5, device=model.device)
    cameras = Camera(camera.cam2world[None], camera.intrinsics[None])
    return model.generator.synthesis(person.ws, person.motion, times, cameras, person.background, style=person.style)


def _check(model: ThreeDVidGen, render_resolution: int | None) -> None:
    own = model.config.render_resolution
    if render_resolution not in (None, own):
        raise ZooError(
            f"the upsampler of {type(model).__name__} takes {own} rendered pixels a side, not {render_resolution}"
        )
