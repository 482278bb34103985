"""3D-Aware Video Generation as its users meet it: seeds, cameras and times in; clips and meshes out."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import to_uint8
from portraitzoo.methods.threedvidgen.cameras import (
    check_cameras,
    program,
    random_camera,
    relative_camera,
    still_camera,
)
from portraitzoo.methods.threedvidgen.latents import VIDEO_TEMPERATURE, frame_times, latent_codes
from portraitzoo.methods.threedvidgen.network import Generator, Style, ThreeDVidGenConfig, ThreeDVidGenOutput
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.normals import normals_from_position
from portraitzoo.rendering.surfaces import Mesh, extract_mesh

CLIP_FRAMES = 16
"""Frames of the clips that the released networks were trained on."""
VIDEO_FPS = 8.0
"""Frame rate of the original video command."""
MAPS = ("raw", "depth", "position", "opacity", "normals")
SIDE_YAW = math.radians(30)  # the side view of the multi-view protocol
RANDOM = "random"


@dataclass(frozen=True)
class Person:
    """What seeds decide, computed once for any number of camera paths and lengths (see :meth:`ThreeDVidGen.person`).

    Attributes:
        seed: of appearance and background.
        motion_seed: of the motion.
        ws: style vectors.
        motion: motion code.
        background: background code.
        style: the networks with their weights modulated.
    """

    seed: int
    motion_seed: int | None
    ws: Float[Tensor, "1 num_ws w_dim"]
    motion: Float[Tensor, "1 motion_dim"]
    background: Float[Tensor, "1 background_dim"]
    style: Style


class ThreeDVidGen(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="portraitzoo",
    tags=["3d-aware", "portrait", "video-generation"],
    repo_url="https://github.com/sherwinbahmani/3dvideogeneration",
    paper_url="https://arxiv.org/abs/2206.14797",
):
    """Generator of 3D-aware video (Bahmani et al., TMLR 2023).

    A clip is an appearance, a motion and a background code, a time in [0, 1] and a camera for each frame. One seed
    gives all codes; a ``motion_seed`` takes the motion from elsewhere. The background stands still.

    Args:
        config: sizes of the network; the defaults are those of the FaceForensics checkpoint.

    Example:
        >>> from portraitzoo.methods.threedvidgen.model import ThreeDVidGen
        >>> from portraitzoo.methods.threedvidgen.network import ThreeDVidGenConfig
        >>> generator = ThreeDVidGen(ThreeDVidGenConfig(image_resolution=64)).eval()
        >>> generator.sample(seed=0, num_frames=2, trajectory="yaw").frames.shape
        torch.Size([2, 64, 64, 3])
    """

    def __init__(self, config: ThreeDVidGenConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = Generator(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are and frames are rendered."""
        return next(self.parameters()).device

    @torch.inference_mode()
    def person(
        self,
        seed: int,
        motion_seed: int | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        background_temperature: float = VIDEO_TEMPERATURE,
    ) -> Person:
        """Who and what a seed shows, for several calls of :meth:`sample` with other cameras.

        Args:
            seed: appearance and background, and motion unless ``motion_seed`` is given.
            motion_seed: seed of the motion code.
            truncation_psi: as in :meth:`sample`.
            truncation_cutoff: as in :meth:`sample`.
            background_temperature: as in :meth:`sample`.

        Raises:
            ZooError: for a seed that is no whole number.
        """
        codes = latent_codes(seed, motion_seed, self.config, background_temperature)
        truncation = {"truncation_psi": truncation_psi, "truncation_cutoff": truncation_cutoff}
        ws = self.generator.mapping(codes.appearance.to(self.device), **truncation)
        motion, background = codes.motion.to(self.device), codes.background.to(self.device)
        return Person(seed, motion_seed, ws, motion, background, self.generator.style(ws))

    @torch.inference_mode()
    def sample(
        self,
        seed: int | Person = 0,
        num_frames: int = CLIP_FRAMES,
        *,
        motion_seed: int | None = None,
        trajectory: str | Camera = "front",
        time: Sequence[float] | None = None,
        time_steps: int | None = None,
        view_steps: int | None = None,
        reach: float = 1.0,
        fov: float | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        background_temperature: float = VIDEO_TEMPERATURE,
        freeze_background: bool = False,
        with_background: bool = True,
        ray_samples: int | None = None,
        maps: Collection[str] = (),
        fps: float = VIDEO_FPS,
        memory_gb: float = 1.0,
        on_frame: Callable[[int], None] | None = None,
    ) -> Clip:
        """Generate one clip.

        The same seed, weights and device give the same bytes, whatever ``memory_gb``. The original video command gives
        the same frames for the same seeds: frame i shows time i of ``time_steps`` and camera i of ``view_steps``.

        Args:
            seed: appearance and background, and motion unless ``motion_seed`` is given; or a :meth:`person`, whose
                seeds, truncation and background then hold.
            num_frames: frames of the clip, at least 1.
            motion_seed: seed of the motion code.
            trajectory: camera path: ``front``, ``yaw``, ``yaw-inverse``, ``pitch``, ``yaw-pitch``, ``front-zoom`` (or
                by their original names, ``rotation_camera_yaw`` ...), ``random`` (one camera, drawn by the seed as in
                training and in the FVD protocol); or cameras of batch shape [num_frames], or one for all frames.
            time: the times in [0, 1] themselves.
            time_steps: steps into which the motion is divided; None takes one for each frame.
            view_steps: steps into which the camera path is divided; None takes one for each frame.
            reach: factor of the extent of the camera's movement.
            fov: field of view in degrees for the named paths; None takes the configuration's.
            truncation_psi: 1 is the whole distribution (as published), 0 the average appearance.
            truncation_cutoff: number of w rows that are truncated; None truncates all.
            background_temperature: scale of the background code; 0.65 in the original's videos, 1 in its evaluation.
            freeze_background: show the background as a still camera sees it.
            with_background: False shows the foreground alone.
            ray_samples: coarse samples of a ray, and as many importance samples; None takes the configuration's.
            maps: extra outputs per frame at the volume's resolution: ``raw`` (the image before the upsampler),
                ``depth`` (of the foreground, along the optical axis), ``position`` (its world xyz), ``opacity`` (light
                that the foreground stops), ``normals`` (world space, from the positions).
            fps: frame rate that the clip is labelled with.
            memory_gb: how much memory a batch of frames may take beside the weights, on a GPU.
            on_frame: called after each batch with the number of frames finished.

        Raises:
            ZooError: for fewer than one frame, fewer steps than frames, an unknown trajectory or map, a camera that
                cannot see the head, times outside [0, 1], or a seed that is no whole number.
        """
        self._check(num_frames, maps, ray_samples)
        person = (
            seed
            if isinstance(seed, Person)
            else self.person(
                seed,
                motion_seed,
                truncation_psi=truncation_psi,
                truncation_cutoff=truncation_cutoff,
                background_temperature=background_temperature,
            )
        )
        camera = self._cameras(trajectory, num_frames, view_steps, reach, fov, person.seed).to(self.device)
        times = self._times(time, num_frames, time_steps).to(self.device)
        still = still_camera(self.config).expand(1, 1).to(self.device)
        batches: list[dict[str, Tensor]] = []
        for frames in self._frame_batches(num_frames, memory_gb):
            rows = slice(frames.start, frames.stop)
            output = self.generator.synthesis(
                person.ws,
                person.motion,
                times[None, rows],
                Camera(camera.cam2world[None, rows], camera.intrinsics[None, rows]),
                person.background,
                samples=ray_samples,
                with_background=with_background,
                background_camera=still if freeze_background else None,
                style=person.style,
            )
            batches.append({name: value.cpu() for name, value in self._maps(output, maps).items()})
            if on_frame is not None:
                on_frame(frames.stop)
        merged = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        info: dict[str, object] = {
            "family": "threedvidgen",
            "seed": person.seed,
            "motion_seed": person.motion_seed,
            "trajectory": trajectory if isinstance(trajectory, str) else "cameras",
            "truncation_psi": truncation_psi,
            "background_temperature": background_temperature,
        }
        return Clip(frames=merged.pop("frames"), fps=fps, cameras=camera.to("cpu"), maps=merged, info=info)

    @torch.inference_mode()
    def multiview(self, seed: int = 0, **options: object) -> Clip:
        """Four frames of one person for identity, Chamfer and warping metrics (PV3D's multi-view protocol).

        Two times t0, t1 are drawn with replacement from the 16 frame times; the frames are front at t0, side at t1,
        side at t0, front at t1, where the side camera is turned by 30 degrees.

        Args:
            seed: appearance, motion and the two times.
            options: further options of :meth:`sample`.

        Returns:
            Clip of 4 frames with the maps ``position``, ``depth`` (here the distance along the ray) and ``opacity``.
        """
        generator = torch.Generator().manual_seed(seed + 1_000_000_007)
        first, second = (torch.randint(CLIP_FRAMES, (2,), generator=generator) / (CLIP_FRAMES - 1)).tolist()
        low, high = self.config.yaw_range
        front, side = relative_camera(self.config, 0.5), relative_camera(self.config, 0.5 + SIDE_YAW / (high - low))
        cameras = Camera.stack([front, side, side, front])
        clip = self.sample(
            seed,
            4,
            trajectory=cameras,
            time=[first, second, first, second],
            maps=("position", "opacity"),
            **options,  # type: ignore[arg-type]
        )
        centres = cameras.cam2world[:, None, None, :3, 3]
        return replace(clip, maps=clip.maps | {"depth": (clip.maps["position"] - centres).norm(dim=-1)})

    @torch.inference_mode()
    def mesh(
        self,
        seed: int = 0,
        *,
        motion_seed: int | None = None,
        time: float = 0.0,
        resolution: int = 128,
        level: float = 10.0,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Mesh:
        """Surface of the foreground at one time, by marching cubes over the density, coloured per vertex.

        The volume is the cube around the origin that the frontal camera just shows. Colours are those of the volume,
        seen from the front.

        Args:
            seed: appearance and motion.
            motion_seed: seed of the motion code.
            time: moment in [0, 1].
            resolution: samples along each side of the volume.
            level: raw density (before its ReLU) of the surface.
            truncation_psi: as in :meth:`sample`.
            truncation_cutoff: as in :meth:`sample`.

        Raises:
            ZooError: if no surface of that level exists; the message gives the range of densities.
        """
        person = self.person(seed, motion_seed, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        field = person.style.field
        motion = self.generator.field.motion(person.motion, torch.tensor([[time]], device=self.device))
        ahead = torch.tensor([0.0, 0.0, -1.0], device=self.device)

        def hidden(points: Float[Tensor, "points 3"]) -> Float[Tensor, "1 1 points width"]:
            return field.hidden(points[None, None].to(self.device), motion)

        def density(points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
            return field.raw_density(hidden(points))[0, 0].cpu()

        def color(points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
            features = field.feature(hidden(points))
            return ((field.color(field.before_color(features, field.view(ahead)))[0, 0] + 1) / 2).clamp(0, 1).cpu()

        distance = sum(self.config.radius_range) / 2
        side = 2 * distance * math.tan(math.radians(self.config.fov) / 2)
        return extract_mesh(density, side=side, resolution=resolution, level=level, color=color)

    def _check(self, num_frames: int, maps: Collection[str], ray_samples: int | None) -> None:
        if num_frames < 1:
            raise ZooError(f"a clip needs at least 1 frame, not {num_frames}")
        if ray_samples is not None and ray_samples < 4:
            raise ZooError(f"a ray needs at least 4 samples, not {ray_samples}")
        unknown = sorted(set(maps) - set(MAPS))
        if unknown:
            raise ZooError(f"unknown map {unknown[0]!r}: choose from {', '.join(MAPS)}")

    def _cameras(
        self,
        choice: str | Camera,
        num_frames: int,
        view_steps: int | None,
        reach: float,
        fov: float | None,
        seed: int,
    ) -> Camera:
        if choice == RANDOM:
            camera = random_camera(self.config, torch.Generator().manual_seed(seed + 1_000_000_009)).expand(num_frames)
        elif isinstance(choice, str):
            views = num_frames if view_steps is None else view_steps
            if views < num_frames:
                raise ZooError(f"{num_frames} frames need at least as many view steps, not {views}")
            if fov is not None and not 0 < fov < 180:
                raise ZooError(f"a field of view lies between 0 and 180 degrees, not {fov:g}")
            config = self.config if fov is None else replace(self.config, fov=fov)
            camera = program(choice, config, views, reach)[:num_frames]
        else:
            camera = choice if choice.shape else choice.expand(num_frames)
            if tuple(camera.shape) != (num_frames,):
                raise ZooError(f"{num_frames} frames need {num_frames} cameras (or one), not {list(camera.shape)}")
        check_cameras(camera, self.config)
        return camera

    def _times(self, choice: Sequence[float] | None, num_frames: int, time_steps: int | None) -> Float[Tensor, " time"]:
        if choice is None:
            return frame_times(num_frames, time_steps)
        times = torch.empty(0) if isinstance(choice, str) else torch.as_tensor(choice, dtype=torch.float32)
        if tuple(times.shape) != (num_frames,) or not ((times >= 0) & (times <= 1)).all():
            raise ZooError(f"{num_frames} frames need {num_frames} times between 0 and 1")
        return times

    def _maps(self, output: ThreeDVidGenOutput, maps: Collection[str]) -> dict[str, Tensor]:
        """Finished frames and the rendered maps asked for, first axis time."""
        values = {"frames": to_uint8(output.image, "round")}
        if "raw" in maps:
            values["raw"] = to_uint8(output.image_raw, "round")
        side = self.config.render_resolution
        opacity = output.weights.sum(dim=-1)
        # Where nothing is stopped, the far end of what was sampled.
        depth = (output.weights * output.depths).sum(dim=-1) + (1 - opacity) * self.config.depth_far
        position = output.origins + depth[..., None] * output.directions
        found = {"depth": depth, "opacity": opacity, "position": position}
        values |= {name: value.unflatten(1, (side, side)) for name, value in found.items() if name in maps}
        if "normals" in maps:
            values["normals"] = normals_from_position(position.unflatten(1, (side, side)))
        return values

    def _frame_batches(self, num_frames: int, memory_gb: float) -> list[range]:
        config = self.config
        points = config.render_resolution**2 * 2 * config.ray_samples
        largest = max(resolution**2 * config.channels(resolution) for resolution in config.resolutions)
        per_frame = 4 * 3 * max(points * (config.field_width + config.feature_channels), largest)
        size = max(1, int(memory_gb * 2**30 // per_frame))
        return [range(start, min(start + size, num_frames)) for start in range(0, num_frames, size)]
