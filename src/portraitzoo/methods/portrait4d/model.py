"""Portrait4D as its users meet it: a photo and driving frames in, clips and meshes out."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.neck_field import NeckField
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import to_uint8
from portraitzoo.methods.portrait4d.cameras import around_head, frontal
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.network import Portrait4DOutput, Reconstructor, SourceFeatures
from portraitzoo.methods.portrait4d.prepared import (
    Frames,
    LabelKind,
    Portrait,
    read_frames,
    read_portrait,
    without_turn,
)
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.surfaces import Mesh, extract_mesh
from portraitzoo.rendering.volume import RaySampling, bounded_depth

MAPS = ("raw", "depth", "opacity")
PROGRAMS = ("driving", "front", "orbit")
Background = Literal["keep", "white", "none"]
ORBIT_YAW, ORBIT_PITCH, ORBIT_RADIUS = 0.35, 0.25, 4.2
PIVOT = (0.0, 0.0, 0.09)
SURFACE_LEVEL = 25.0
MIDDLE = 0.5  # of its interval, where training has a coarse sample on average


class Portrait4D(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="portraitzoo",
    tags=["3d-aware", "portrait", "reenactment"],
    repo_url="https://github.com/YuDeng/Portrait-4D",
    paper_url="https://arxiv.org/abs/2403.13570",
):
    """One-shot head reenactment (Deng et al., CVPR 2024; ECCV 2024): a photo moves as a driving video does.

    Faces come prepared: photos aligned, heads and motions tracked (see
    :mod:`portraitzoo.methods.portrait4d.prepared`).

    Args:
        config: sizes of the network; the defaults are those of the three released checkpoints.

    Example:
        >>> import portraitzoo as pz
        >>> model = pz.load("portrait4d-v2-vfhq512")  # doctest: +SKIP
        >>> clip = model.animate("me/", "clip/", trajectory="orbit")  # doctest: +SKIP
    """

    def __init__(self, config: Portrait4DConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = Reconstructor(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are and frames are rendered."""
        return next(self.parameters()).device

    def animate(
        self,
        source: str | Path | Portrait,
        driving: str | Path | Frames,
        *,
        trajectory: str | Camera = "driving",
        neck: bool = True,
        background: Background = "keep",
        motion_scale: float | None = None,
        parameters: LabelKind = "fitted",
        render_resolution: int | None = None,
        maps: Collection[str] = (),
        fps: float = 25.0,
        memory_gb: float = 4.0,
        on_frame: Callable[[int], None] | None = None,
    ) -> Clip:
        """Move a photo as driving frames do: shape from the photo, expression, jaw, gaze and pose from the frames.

        What depends on the photo alone is computed once. The same inputs, weights and device give the same bytes,
        whatever ``memory_gb``.

        Args:
            source: photo, or a prepared folder, whose first photo is taken.
            driving: tracked frames, or a prepared folder.
            trajectory: ``driving``: the head turns as in the frames; ``front``: it is seen from the front; ``orbit``:
                the camera circles around it; or cameras of batch shape [time] (or one), which see a straight neck.
            neck: with ``driving``, whether the neck turns before a fixed camera (the shoulders stay), or the camera
                moves.
            background: ``keep`` that of the photo, or a ``white`` one, or ``none`` (black).
            motion_scale: factor of what motions contribute; None for 1, or 0 of a static network.
            parameters: which head parameters of prepared folders: ``fitted`` to each picture, or ``simplified``.
            render_resolution: side of the volume-rendered image; None takes the configuration's.
            maps: extra outputs per frame: ``raw`` (the image before super-resolution), ``depth`` (distance along the
                ray), ``opacity``.
            fps: frame rate that the clip is labelled with.
            memory_gb: how much memory a batch of frames may take beside the weights.
            on_frame: called after each batch with the number of frames finished.

        Raises:
            ZooError: for files that are missing or damaged, photos of another size than the network's, an unknown
                trajectory, map or background, or cameras of another number than the frames.
        """
        _check(background, maps)
        frames = driving if isinstance(driving, Frames) else read_frames(driving, parameters=parameters)
        if trajectory == "driving":
            cameras = _cameras(frontal(frames.camera.intrinsics) if neck else frames.camera, len(frames))
            frames = frames if neck else without_turn(frames)
        else:
            cameras = self._cameras(trajectory, frames)
            frames = without_turn(frames)
        size = max(1, int(memory_gb * 2**30 // (4 * 3 * self.config.widest_activation())))
        batches: list[dict[str, Tensor]] = []
        with self.session(
            source, motion_scale=motion_scale, parameters=parameters, render_resolution=render_resolution
        ) as session:
            for start in range(0, len(frames), size):
                rows = slice(start, min(start + size, len(frames)))
                output = session.render(frames[rows], cameras[rows])
                values = {"frames": _finished(output, background), **_maps(output, maps)}
                batches.append({name: value.cpu() for name, value in values.items()})
                if on_frame is not None:
                    on_frame(rows.stop)
        merged = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        info: dict[str, object] = {
            "family": "portrait4d",
            "trajectory": trajectory if isinstance(trajectory, str) else "cameras",
            "neck": neck,
            "background": background,
        }
        return Clip(frames=merged.pop("frames"), fps=fps, cameras=cameras, maps=merged, info=info)

    @contextmanager
    def session(
        self,
        source: str | Path | Portrait,
        *,
        motion_scale: float | None = None,
        parameters: LabelKind = "fitted",
        render_resolution: int | None = None,
    ) -> "Iterator[Session]":
        """A photo that waits for driving frames; it is looked at once.

        Args:
            source: photo, or a prepared folder, whose first photo is taken.
            motion_scale: as in :meth:`animate`.
            parameters: as in :meth:`animate`.
            render_resolution: as in :meth:`animate`.

        Raises:
            ZooError: as :meth:`animate`.
        """
        portrait = source if isinstance(source, Portrait) else read_portrait(source, parameters=parameters)
        yield Session(self, portrait, motion_scale, render_resolution)

    def mesh(
        self,
        source: str | Path | Portrait,
        driving: str | Path | Frames | None = None,
        *,
        motion_scale: float | None = None,
        resolution: int = 128,
        level: float = SURFACE_LEVEL,
    ) -> Mesh:
        """Surface of the head, by marching cubes over the density, coloured per vertex.

        Args:
            source: photo, or a prepared folder, whose first photo is taken.
            driving: frames, or a prepared folder, of which the first gives expression and turn of the neck; None for
                the photo's own expression, looking ahead.
            motion_scale: factor of what motions contribute; None for 1, or 0 of a static network.
            resolution: samples along each side of the volume.
            level: raw density (before softplus) of the surface; the authors take 25.

        Raises:
            ZooError: as :meth:`animate`, or if no surface of that level exists; the message gives the range of
                densities.
        """
        with self.session(source, motion_scale=motion_scale) as session, torch.inference_mode():
            frame = without_turn(session.portrait.tracked)
            if driving is not None:
                frame = driving if isinstance(driving, Frames) else read_frames(driving)
            planes, field = session.space(frame[:1])

            def look(points: Tensor) -> tuple[Tensor, Tensor]:
                return self.generator.field(points[None].to(self.device), planes, field)

            return extract_mesh(
                lambda points: look(points)[0][0, :, 0].cpu(),
                side=self.config.box_warp,
                resolution=resolution,
                level=level,
                color=lambda points: look(points)[1][0, :, :3].clamp(0, 1).cpu(),
            )

    def _cameras(self, choice: str | Camera, frames: Frames) -> Camera:
        if isinstance(choice, Camera):
            return _cameras(choice, len(frames))
        intrinsics = frames.camera.intrinsics
        if choice == "front":
            return frontal(intrinsics)
        if choice == "orbit":
            return Camera(orbit(len(frames)).cam2world, intrinsics)
        raise ZooError(f"unknown trajectory {choice!r}: choose one of {', '.join(PROGRAMS)}")


class Session:
    """A photo whose features are known, and the network that moves it. Memory does not grow with the frames.

    Args:
        model: the network.
        portrait: the photo.
        motion_scale: as in :meth:`Portrait4D.animate`.
        render_resolution: as in :meth:`Portrait4D.animate`.

    Raises:
        ZooError: if the photo is of another size than the network's, or its motion embedding of another length.
    """

    def __init__(
        self, model: Portrait4D, portrait: Portrait, motion_scale: float | None, render_resolution: int | None
    ) -> None:
        self.model, self.portrait = model, portrait
        config = model.config
        side = config.image_resolution
        if tuple(portrait.image.shape) != (side, side, 3):
            height, width = portrait.image.shape[:2]
            raise ZooError(f"the photo has {width} x {height} pixels, the network wants {side} squared: align it first")
        self.scale = (0.0 if config.static else 1.0) if motion_scale is None else motion_scale
        self.resolution = render_resolution or config.render_resolution
        self._check_motion(portrait.tracked)
        with torch.inference_mode():
            self.features: SourceFeatures = model.generator.encode(
                portrait.pixels().to(model.device), portrait.tracked.motion.to(model.device), self.scale
            )
        self._still: Tensor | None = None

    def render(self, frames: Frames, cameras: Camera) -> Portrait4DOutput:
        """Frames of the photo.

        Args:
            frames: whose motion, expression, jaw, gaze and neck it takes.
            cameras: one for each.
        """
        network, device = self.model.generator, self.model.device
        rays = self.resolution**2
        jitter = torch.full((1, 1, 1), MIDDLE, device=device)
        jitter = jitter.expand(len(frames), rays, self.model.config.depth_samples)
        with torch.inference_mode():
            planes, field = self.space(frames)
            return network.render(
                planes,
                self.features,
                cameras.to(device),
                field,
                render_resolution=self.resolution,
                sampling=RaySampling(jitter),
            )

    def step(self, frame: Frames, camera: Camera | None = None) -> Tensor:
        """One finished frame, uint8 [height, width, 3] on the CPU.

        Args:
            frame: one driving frame.
            camera: that sees it; None for the one straight in front.
        """
        camera = frontal(frame.camera.intrinsics) if camera is None else _cameras(camera, 1)
        return to_uint8(self.render(frame, camera).image)[0].cpu()

    def steps(self, frames: Iterable[Frames]) -> Iterator[Tensor]:
        """Finished frames of driving frames as they come, however many."""
        for frame in frames:
            yield self.step(frame)

    def space(self, frames: Frames) -> tuple[Tensor, NeckField | None]:
        """Tri-planes of the frames, and the field that straightens their necks."""
        self._check_motion(frames)
        network, device = self.model.generator, self.model.device
        if self.scale == 0:
            # Nothing of the driving motion counts: the planes are the photo's own.
            if self._still is None:
                self._still = network.planes(self.features, frames.motion[:1].to(device), 0.0)
            planes = self._still.expand(len(frames), *self._still.shape[1:])
        else:
            planes = network.planes(self.features, frames.motion.to(device), self.scale)
        shape = self.portrait.tracked.head.shape.expand(len(frames), -1)
        head = FlameParameters(shape, frames.head.expression, frames.head.pose, frames.head.eye_pose)
        return planes, network.neck_field(head.to(device))

    def _check_motion(self, frames: Frames) -> None:
        wanted = self.model.config.motion_dim
        if frames.motion.shape[1] != wanted:
            raise ZooError(f"the motion embeddings have {frames.motion.shape[1]} numbers, the network wants {wanted}")


def orbit(num_frames: int) -> Camera:
    """One turn on an ellipse around the frontal view: yaw by sine, pitch by cosine."""
    phase = 2 * math.pi * torch.arange(num_frames) / num_frames
    pivot = torch.tensor(PIVOT).expand(num_frames, 3)
    radius = torch.full((num_frames,), ORBIT_RADIUS)
    return around_head(ORBIT_YAW * phase.sin(), ORBIT_PITCH * phase.cos(), torch.zeros(num_frames), pivot, radius)


def _cameras(camera: Camera, count: int) -> Camera:
    if not camera.shape:
        return camera.expand(count)
    if tuple(camera.shape) != (count,):
        raise ZooError(f"{count} frames need {count} cameras (or one), not {list(camera.shape)}")
    return camera


def _check(background: str, maps: Collection[str]) -> None:
    if background not in ("keep", "white", "none"):
        raise ZooError(f"unknown background {background!r}: choose keep, white or none")
    unknown = sorted(set(maps) - set(MAPS))
    if unknown:
        raise ZooError(f"unknown map {unknown[0]!r}: choose from {', '.join(MAPS)}")


def _finished(output: Portrait4DOutput, background: Background) -> Tensor:
    image = output.image
    if background != "keep":
        # The super-resolution knows no other background: it is exchanged behind it.
        share = F.interpolate(output.opacity, image.shape[-2:], mode="bilinear", align_corners=False).clamp(0, 1)
        image = image * share + (1 - share) * (1.0 if background == "white" else -1.0)
    return to_uint8(image)


def _maps(output: Portrait4DOutput, maps: Collection[str]) -> dict[str, Float[Tensor, "time ..."]]:
    values: dict[str, Tensor] = {}
    if "raw" in maps:
        values["raw"] = to_uint8(output.image_raw)
    if "depth" in maps:
        # Frame by frame: a frame must not depend on its neighbours.
        rows = zip(output.rays.depth.split(1), output.rays.depths.split(1), strict=True)
        depth = torch.cat([bounded_depth(*row) for row in rows])
        values["depth"] = depth.mT.unflatten(2, tuple(output.depth.shape[-2:]))[:, 0]
    if "opacity" in maps:
        values["opacity"] = output.opacity[:, 0]
    return values
