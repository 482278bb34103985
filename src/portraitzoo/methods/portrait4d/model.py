"""Portrait4D as its users meet it: a photo and driving frames in, clips and meshes out."""

from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import to_uint8, write_image
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.folders import IMAGES, LabelKind, PreparedFolder, read_portrait
from portraitzoo.methods.portrait4d.network import Portrait4DOutput, Reconstructor
from portraitzoo.methods.portrait4d.prepared import Frames, Portrait, without_turn
from portraitzoo.methods.portrait4d.raw import RawFootage, is_raw
from portraitzoo.methods.portrait4d.session import Background, Session
from portraitzoo.methods.portrait4d.sources import FaceSource, OnBadFrame, check_on_bad_frame
from portraitzoo.methods.portrait4d.views import view
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.surfaces import Mesh
from portraitzoo.rendering.volume import bounded_depth

MAPS = ("raw", "depth", "opacity")


class Portrait4D(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="portraitzoo",
    tags=["3d-aware", "portrait", "reenactment"],
    repo_url="https://github.com/YuDeng/Portrait-4D",
    paper_url="https://arxiv.org/abs/2403.13570",
):
    """One-shot head reenactment (Deng et al., CVPR 2024; ECCV 2024): a photo moves as a driving video does.

    Faces come raw, as photos and videos, which are aligned and tracked on the way
    (:class:`~portraitzoo.methods.portrait4d.raw.RawFootage`), or prepared before
    (:class:`~portraitzoo.methods.portrait4d.folders.PreparedFolder`).

    Args:
        config: sizes of the network; the defaults are those of the three released checkpoints.

    Example:
        >>> import portraitzoo as pz
        >>> model = pz.load("portrait4d-v2-vfhq512")  # doctest: +SKIP
        >>> clip = model.animate("me.jpg", "talking.mp4", trajectory="orbit")  # doctest: +SKIP
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
        source: str | Path | FaceSource | Portrait,
        driving: str | Path | FaceSource | Frames,
        *,
        trajectory: str | Camera = "driving",
        neck: bool = True,
        background: Background = "keep",
        grid: bool = False,
        motion_scale: float | None = None,
        parameters: LabelKind | None = None,
        on_bad_frame: OnBadFrame = "stop",
        render_resolution: int | None = None,
        maps: Collection[str] = (),
        fps: float = 25.0,
        shapes: str | Path | None = None,
        memory_gb: float = 4.0,
        on_frame: Callable[[int], None] | None = None,
    ) -> Clip:
        """Move a photo as driving frames do: shape from the photo, expression, jaw, gaze and pose from the frames.

        What depends on the photo alone is computed once. The same inputs, weights and device give the same bytes,
        whatever ``memory_gb``.

        Args:
            source: photo: a raw picture, a folder of them, whose first is taken, a prepared folder, of which the same
                holds, or a picture in its ``align_images``.
            driving: raw video, a folder of raw pictures, a prepared folder, or tracked frames.
            trajectory: ``driving``: the head turns as in the frames; ``front``: it is seen from the front; ``orbit``:
                the camera circles around it; or cameras of batch shape [time] (or one), which see a straight neck.
            neck: with ``driving``, whether the neck turns before a fixed camera (the shoulders stay), or the camera
                moves.
            background: ``keep`` that of the photo, or a ``white`` one, or ``none`` (black).
            grid: photo, result and driving picture side by side in each frame.
            motion_scale: factor of what motions contribute; None for 1, or 0 of a static network.
            parameters: which head parameters of prepared folders: ``fitted`` to each picture, or ``simplified``; None
                takes fitted ones where there are any.
            on_bad_frame: what to do where a driving frame is missing or damaged: ``stop`` with an error, ``skip`` it,
                or ``repeat`` the one before.
            render_resolution: side of the volume-rendered image; None takes the configuration's.
            maps: extra outputs per frame: ``raw`` (the image before super-resolution), ``depth`` (distance along the
                ray), ``opacity``.
            fps: frame rate that the clip is labelled with.
            shapes: folder that gets the surface of each frame as ``NUMBER.ply`` (see :meth:`mesh`); None for none.
            memory_gb: how much memory a batch of frames may take beside the weights.
            on_frame: called after each batch with the number of frames finished.

        Raises:
            ZooError: for files that are missing or damaged, photos or driving pictures of another size than the
                network's, an unknown trajectory, map or background, or cameras of another number than the frames.
        """
        unknown = sorted(set(maps) - set(MAPS))
        if unknown:
            raise ZooError(f"unknown map {unknown[0]!r}: choose from {', '.join(MAPS)}")
        drive = self._drive(driving, parameters, on_bad_frame, pictures=grid)
        frames, cameras = view(drive.frames, trajectory, neck)
        options = {"motion_scale": motion_scale, "render_resolution": render_resolution, "background": background}
        batches: list[dict[str, Tensor]] = []
        with self.session(source, parameters=parameters, **options) as session:  # type: ignore[arg-type]
            rendering = _render(session, frames, cameras, maps, self._batch(memory_gb), shapes is not None)
            with closing(rendering):
                for rows, values, surfaces in rendering:
                    if grid:
                        beside = [drive.picture(row) for row in range(rows.start, rows.stop)]
                        values["frames"] = _beside(session.portrait, values["frames"], torch.stack(beside))
                    for row, surface in enumerate(surfaces, rows.start):
                        _save_surface(surface, Path(shapes or "."), row)
                    batches.append(values)
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

    def animate_all(
        self,
        source: str | Path | FaceSource,
        driving: str | Path | FaceSource,
        out: str | Path,
        *,
        trajectory: str | Camera = "driving",
        neck: bool = True,
        background: Background = "keep",
        motion_scale: float | None = None,
        parameters: LabelKind | None = None,
        on_bad_frame: OnBadFrame = "stop",
        render_resolution: int | None = None,
        shape: bool = False,
        memory_gb: float = 4.0,
        on_frame: Callable[[int], None] | None = None,
    ) -> list[Path]:
        """Every photo with every driving picture, as the authors' program does it.

        Writes ``out/PHOTO/NUMBER.jpg``: photo, result and driving picture side by side; the number is the driving
        picture's place in its folder.

        Args:
            source: photos: a folder of raw pictures, or a prepared folder.
            driving: driving pictures: raw video, a folder of raw pictures, or a prepared folder.
            out: folder to write to.
            trajectory: as in :meth:`animate`.
            neck: as in :meth:`animate`.
            background: as in :meth:`animate`.
            motion_scale: as in :meth:`animate`.
            parameters: as in :meth:`animate`.
            on_bad_frame: as in :meth:`animate`; a repeated frame is left out too.
            render_resolution: as in :meth:`animate`.
            shape: also write the surfaces, as ``out/PHOTO/shapes/NUMBER.ply``, in world axes.
            memory_gb: as in :meth:`animate`.
            on_frame: called after each batch with the number of pictures written.

        Returns:
            The pictures.

        Raises:
            ZooError: as :meth:`animate`.
        """
        photos = self._faces(source, parameters)
        photos.check_size()
        skipping: OnBadFrame = "skip" if on_bad_frame == "repeat" else on_bad_frame
        drive = self._drive(driving, parameters, skipping, pictures=True)
        frames, cameras = view(drive.frames, trajectory, neck)
        options = {"motion_scale": motion_scale, "render_resolution": render_resolution, "background": background}
        written: list[Path] = []
        for name in photos.names:
            with self.session(photos.portrait(name), **options) as session:  # type: ignore[arg-type]
                rendering = _render(session, frames, cameras, (), self._batch(memory_gb), shape)
                with closing(rendering):
                    for rows, values, surfaces in rendering:
                        for row, image in enumerate(values["frames"], rows.start):
                            place = Path(out) / name / f"{drive.places[row]:05d}.jpg"
                            place.parent.mkdir(parents=True, exist_ok=True)
                            sheet = _beside(session.portrait, image[None], drive.picture(row)[None])[0]
                            written.append(write_image(place, sheet))
                        for row, surface in enumerate(surfaces, rows.start):
                            _save_surface(surface, Path(out) / name / "shapes", drive.places[row])
                        if on_frame is not None:
                            on_frame(len(written))
        return written

    @contextmanager
    def session(
        self,
        source: str | Path | FaceSource | Portrait,
        *,
        motion_scale: float | None = None,
        parameters: LabelKind | None = None,
        render_resolution: int | None = None,
        background: Background = "keep",
        on_bad_frame: OnBadFrame = "stop",
    ) -> Iterator[Session]:
        """A photo that waits for driving frames; it is looked at once.

        Args:
            source: as in :meth:`animate`.
            motion_scale: as in :meth:`animate`.
            parameters: as in :meth:`animate`.
            render_resolution: as in :meth:`animate`.
            background: as in :meth:`animate`.
            on_bad_frame: as in :meth:`animate`.

        Raises:
            ZooError: as :meth:`animate`.

        Example:
            >>> with model.session("me/", on_bad_frame="repeat") as session:  # doctest: +SKIP
            ...     for frame in session.steps(PreparedFolder("clip/").attempts()):
            ...         show(frame)
        """
        portrait = self._portrait(source, parameters)
        session = Session(
            self.generator,
            portrait,
            motion_scale=motion_scale,
            render_resolution=render_resolution,
            background=background,
            on_bad_frame=on_bad_frame,
        )
        with closing(session):
            yield session

    def mesh(
        self,
        source: str | Path | FaceSource | Portrait,
        driving: str | Path | FaceSource | Frames | None = None,
        *,
        neck: bool = True,
        motion_scale: float | None = None,
        parameters: LabelKind | None = None,
        resolution: int = 128,
        level: float | None = None,
    ) -> Mesh:
        """Surface of the head, by marching cubes over the density, coloured per vertex.

        Args:
            source: as in :meth:`animate`.
            driving: as in :meth:`animate`; the first frame gives expression and turn of the neck. None for the photo's
                own expression, looking ahead.
            neck: whether the neck turns as that frame's.
            motion_scale: factor of what motions contribute; None for 1, or 0 of a static network.
            parameters: as in :meth:`animate`.
            resolution: samples along each side of the volume.
            level: raw density (before softplus) of the surface; None takes the configuration's (the authors': 25).

        Raises:
            ZooError: as :meth:`animate`, or if no surface of that level exists; the message gives the range of
                densities.
        """
        with self.session(source, motion_scale=motion_scale, parameters=parameters) as session:
            if driving is None:
                frame = without_turn(session.portrait.tracked)
            else:
                frame = driving if isinstance(driving, Frames) else self._faces(driving, parameters).first()
                frame = frame if neck else without_turn(frame)
            return session.surface(*session.space(frame[:1]), resolution=resolution, level=level)

    def _portrait(self, source: str | Path | FaceSource | Portrait, parameters: LabelKind | None) -> Portrait:
        if isinstance(source, Portrait):
            return source
        if not isinstance(source, FaceSource) and not _is_raw(source):
            return read_portrait(source, parameters=parameters, device=self.device)
        faces = self._faces(source, parameters)
        faces.check_size()
        return faces.portrait(faces.names[0])

    def _faces(
        self, place: str | Path | FaceSource, parameters: LabelKind | None, *, pictures: bool = False
    ) -> FaceSource:
        side = self.config.image_resolution
        if isinstance(place, FaceSource):
            return place
        if _is_raw(place):
            return RawFootage(place, device=self.device, side=side, keep=pictures)
        return PreparedFolder(place, parameters=parameters, device=self.device, side=side)

    def _drive(
        self,
        driving: str | Path | FaceSource | Frames,
        parameters: LabelKind | None,
        on_bad_frame: OnBadFrame,
        *,
        pictures: bool,
    ) -> "_Drive":
        check_on_bad_frame(on_bad_frame)
        if isinstance(driving, Frames):
            return _Drive(driving, list(range(len(driving))), None)
        faces = self._faces(driving, parameters, pictures=pictures)
        faces.check_size()
        places, frames = faces.read(on_bad_frame)
        return _Drive(frames, places, faces)

    def _batch(self, memory_gb: float) -> int:
        """Frames that may be rendered at once."""
        return max(1, int(memory_gb * 2**30 // (4 * 3 * self.config.widest_activation())))


@dataclass(frozen=True)
class _Drive:
    """Driving frames, and where they come from."""

    frames: Frames
    places: list[int]
    faces: FaceSource | None

    def picture(self, row: int) -> UInt8[Tensor, "height width 3"]:
        if self.faces is None:
            raise ZooError("a grid shows the driving pictures: give the video or their folder")
        return self.faces.picture(self.faces.names[self.places[row]])


def _is_raw(place: str | Path) -> bool:
    """Whether faces are yet to be found there; pictures in a prepared folder are not raw."""
    return Path(place).parent.name != IMAGES and is_raw(place)


def _render(
    session: Session, frames: Frames, cameras: Camera, maps: Collection[str], size: int, shapes: bool
) -> Generator[tuple[slice, dict[str, Tensor], list[Mesh]]]:
    """For batches of frames: which ones, the finished ones and their maps on the CPU, and their surfaces."""
    for start in range(0, len(frames), size):
        rows = slice(start, min(start + size, len(frames)))
        planes, field = session.space(frames[rows])
        output = session.render_space(planes, field, cameras[rows])
        values = {"frames": session.finish(output), **_maps(output, maps)}
        surfaces = []
        for row in (slice(row, row + 1) for row in range(len(planes) if shapes else 0)):
            surfaces.append(session.surface(planes[row], None if field is None else field[row]))
        yield rows, {name: value.cpu() for name, value in values.items()}, surfaces


def _beside(
    portrait: Portrait, frames: UInt8[Tensor, "time height width 3"], driving: UInt8[Tensor, "time height width 3"]
) -> UInt8[Tensor, "time height 3*width 3"]:
    return torch.cat([portrait.image.expand_as(frames), frames, driving], dim=2)


def _save_surface(surface: Mesh, folder: Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    surface.save(folder / f"{number:05d}.ply")


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
