"""A photo that waits for driving frames: looked at once, moved frame by frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.neck_field import NeckField
from portraitzoo.media.images import to_uint8
from portraitzoo.methods.portrait4d.cameras import frontal
from portraitzoo.methods.portrait4d.network import Portrait4DOutput, Reconstructor, SourceFeatures
from portraitzoo.methods.portrait4d.prepared import Frames, Portrait
from portraitzoo.methods.portrait4d.sources import OnBadFrame, check_on_bad_frame
from portraitzoo.methods.portrait4d.views import cameras_of
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.surfaces import Mesh, extract_mesh
from portraitzoo.rendering.volume import RaySampling

Background = Literal["keep", "white", "none"]
BACKGROUNDS = ("keep", "white", "none")
AHEAD = 2
"""Frames that tracking may be ahead of the network."""
MIDDLE = 0.5  # of its interval, where training has a coarse sample on average

Item = TypeVar("Item")


class Session:
    """A photo whose features are known, and the network that moves it. Memory does not grow with the frames.

    Args:
        network: the reconstructor.
        portrait: the photo.
        motion_scale: factor of what motions contribute; None for 1, or 0 of a static network.
        render_resolution: side of the volume-rendered image; None takes the configuration's.
        background: ``keep`` that of the photo, or a ``white`` one, or ``none`` (black).
        on_bad_frame: what to do with a frame that is missing or damaged: ``stop`` with an error, ``skip`` it, or
            ``repeat`` the last finished one.

    Raises:
        ZooError: if the photo is of another size than the network's, its motion embedding of another length, or an
            option unknown.
    """

    def __init__(
        self,
        network: Reconstructor,
        portrait: Portrait,
        *,
        motion_scale: float | None = None,
        render_resolution: int | None = None,
        background: Background = "keep",
        on_bad_frame: OnBadFrame = "stop",
    ) -> None:
        self.network, self.portrait, self.config = network, portrait, network.config
        self.background, self.on_bad_frame = background, on_bad_frame
        if background not in BACKGROUNDS:
            raise ZooError(f"unknown background {background!r}: choose keep, white or none")
        check_on_bad_frame(on_bad_frame)
        side = self.config.image_resolution
        if tuple(portrait.image.shape) != (side, side, 3):
            height, width = portrait.image.shape[:2]
            raise ZooError(f"the photo has {width} x {height} pixels, the network wants {side} squared: align it first")
        self.scale = (0.0 if self.config.static else 1.0) if motion_scale is None else motion_scale
        self.resolution = render_resolution or self.config.render_resolution
        self.check(portrait.tracked)
        with torch.inference_mode():
            self.features: SourceFeatures = network.encode(
                portrait.pixels().to(network.w_avg), portrait.tracked.motion.to(network.w_avg), self.scale
            )
        self._still: Tensor | None = None
        self._last: Tensor | None = None
        self._workers = ExitStack()

    @property
    def device(self) -> torch.device:
        """Where frames are rendered."""
        return self.network.w_avg.device

    def close(self) -> None:
        """End the workers of :meth:`steps`, once what they are at is done."""
        self._workers.close()

    def check(self, frames: Frames) -> None:
        """Refuse frames that the network cannot take.

        Raises:
            ZooError: if their motion embeddings are of another length.
        """
        wanted = self.config.motion_dim
        if frames.motion.shape[1] != wanted:
            raise ZooError(f"the motion embeddings have {frames.motion.shape[1]} numbers, the network wants {wanted}")

    def render(self, frames: Frames, cameras: Camera) -> Portrait4DOutput:
        """Frames of the photo.

        Args:
            frames: whose motion, expression, jaw, gaze and neck it takes.
            cameras: one for each.
        """
        return self.render_space(*self.space(frames), cameras)

    @torch.inference_mode()
    def render_space(self, planes: Tensor, field: NeckField | None, cameras: Camera) -> Portrait4DOutput:
        """Frames of what :meth:`space` gives.

        Args:
            planes: tri-planes of each frame.
            field: that straightens their necks.
            cameras: one for each.
        """
        jitter = torch.full((1, 1, 1), MIDDLE, device=self.device)
        jitter = jitter.expand(len(planes), self.resolution**2, self.config.depth_samples)
        return self.network.render(
            planes,
            self.features,
            cameras.to(self.device),
            field,
            render_resolution=self.resolution,
            sampling=RaySampling(jitter),
        )

    def finish(self, output: Portrait4DOutput) -> UInt8[Tensor, "time height width 3"]:
        """Finished pictures before the background that was chosen, on the network's device."""
        image = output.image
        if self.background != "keep":
            # The super-resolution knows no other background: it is exchanged behind it.
            size = image.shape[-2:]
            share = F.interpolate(output.opacity, size, mode="bilinear", align_corners=False).clamp(0, 1)
            image = image * share + (1 - share) * (1.0 if self.background == "white" else -1.0)
        return to_uint8(image)

    def step(self, frame: Frames | ZooError, camera: Camera | None = None) -> UInt8[Tensor, "height width 3"] | None:
        """One finished frame, on the CPU.

        Args:
            frame: one driving frame, or why there is none.
            camera: that sees it; None for the one straight in front.

        Returns:
            The frame. Of a bad one, None (``on_bad_frame="skip"``) or the frame before (``"repeat"``; None where there
            was none yet).

        Raises:
            ZooError: for a bad frame if ``on_bad_frame`` is ``"stop"``; for several frames at once.
        """
        try:
            if isinstance(frame, ZooError):
                raise frame
            self.check(frame)
        except ZooError:
            if self.on_bad_frame == "stop":
                raise
            return self._last if self.on_bad_frame == "repeat" else None
        if len(frame) != 1:
            raise ZooError(f"a step takes 1 driving frame, not {len(frame)}")
        camera = frontal(frame.camera.intrinsics) if camera is None else cameras_of(camera, 1)
        self._last = self.finish(self.render(frame, camera))[0].cpu()
        return self._last

    def steps(self, frames: Iterable[Frames | ZooError]) -> Iterator[UInt8[Tensor, "height width 3"]]:
        """Finished frames of driving frames as they come, however many, seen straight from the front.

        Driving frames are made (read, tracked) in a thread of their own, at most two ahead. Leaving the session ends
        it as soon as the frame that it is at is made.

        Args:
            frames: driving frames, or in the place of a bad one why there is none.

        Raises:
            ZooError: as :meth:`step`.
        """
        return self._finished(self._workers.enter_context(closing(_ahead(frames))))

    def _finished(self, frames: Generator[Frames | ZooError]) -> Iterator[Tensor]:
        with closing(frames):
            for frame in frames:
                image = self.step(frame)
                if image is not None:
                    yield image

    @torch.inference_mode()
    def space(self, frames: Frames) -> tuple[Tensor, NeckField | None]:
        """Tri-planes of the frames, and the field that straightens their necks.

        Raises:
            ZooError: as :meth:`check`.
        """
        self.check(frames)
        if self.scale == 0:
            # Nothing of the driving motion counts: the planes are the photo's own.
            if self._still is None:
                self._still = self.network.planes(self.features, frames.motion[:1].to(self.network.w_avg), 0.0)
            planes = self._still.expand(len(frames), *self._still.shape[1:])
        else:
            planes = self.network.planes(self.features, frames.motion.to(self.network.w_avg), self.scale)
        shape = self.portrait.tracked.head.shape.expand(len(frames), -1)
        head = FlameParameters(shape, frames.head.expression, frames.head.pose, frames.head.eye_pose)
        return planes, self.network.neck_field(head.to(self.device))

    @torch.inference_mode()
    def surface(
        self, planes: Tensor, field: NeckField | None, *, resolution: int = 128, level: float | None = None
    ) -> Mesh:
        """Surface of one head, by marching cubes over the density, coloured per vertex.

        Args:
            planes: tri-planes of one frame, from :meth:`space`.
            field: that straightens its neck.
            resolution: samples along each side of the volume.
            level: raw density (before softplus) of the surface; None takes the configuration's.

        Raises:
            ZooError: if no surface of that level exists; the message gives the range of densities.
        """

        def look(points: Tensor) -> tuple[Tensor, Tensor]:
            return self.network.field(points[None].to(self.device), planes, field)

        return extract_mesh(
            lambda points: look(points)[0][0, :, 0].cpu(),
            side=self.config.box_warp,
            resolution=resolution,
            level=self.config.surface_level if level is None else level,
            color=lambda points: look(points)[1][0, :, :3].clamp(0, 1).cpu(),
        )


def _ahead(items: Iterable[Item]) -> Generator[Item]:
    """The items, the next ones of which a thread makes meanwhile."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1) as worker:
        coming: deque[Future[object]] = deque(worker.submit(next, source, end) for _ in range(AHEAD))
        try:
            while (item := coming.popleft().result()) is not end:
                coming.append(worker.submit(next, source, end))
                yield item  # type: ignore[misc]
        finally:
            for future in coming:
                future.cancel()
