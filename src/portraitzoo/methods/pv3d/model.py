"""PV3D as its users meet it: seeds, cameras and times in; clips and meshes out."""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Literal

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import to_uint8
from portraitzoo.methods.pv3d.latents import (
    CLIP_FRAMES,
    Seed,
    TimeProgram,
    frame_times,
    latent_codes,
    ray_sampling,
    seeds_of,
    walk,
)
from portraitzoo.methods.pv3d.network import Generator, PV3DConfig, PV3DOutput
from portraitzoo.metrics.path_length import Space, slerp
from portraitzoo.rendering.cameras import LEVEL, Camera, trajectory
from portraitzoo.rendering.normals import normals_from_density, normals_from_position
from portraitzoo.rendering.surfaces import Mesh, extract_mesh
from portraitzoo.rendering.volume import RaySampling

MAPS = ("raw", "depth", "position", "opacity", "normals")
OTHER_END = 2_000_000_011  # seed of the person at the other end of a path, from that at the beginning
SIDE_YAW = math.radians(30)  # the side view of the multi-view protocol


class PV3D(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="portraitzoo",
    tags=["3d-aware", "portrait", "video-generation"],
    repo_url="https://github.com/bytedance/pv3d",
    paper_url="https://arxiv.org/abs/2212.06384",
):
    """Generator of 3D-aware portrait video (Xu et al., ICLR 2023).

    A clip is an appearance code, a motion code, a time in [0, 1] per frame and a camera per frame. One seed gives both
    codes; a ``motion_seed`` takes the motion from elsewhere.

    Args:
        config: sizes of the network; the defaults are those of the three released checkpoints.

    Example:
        >>> import portraitzoo as pz
        >>> generator = pz.load("pv3d-tiny")
        >>> clip = generator.sample(seed=0, num_frames=16, trajectory="orbit", maps=["depth"])
        >>> clip.frames.shape[0], clip.maps["depth"].ndim
        (16, 3)
    """

    def __init__(self, config: PV3DConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = Generator(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are and frames are rendered."""
        return next(self.parameters()).device

    @torch.inference_mode()
    def sample(
        self,
        seed: Seed = 0,
        num_frames: int = CLIP_FRAMES,
        *,
        motion_seed: Seed | None = None,
        trajectory: str | Camera = "front",
        time: TimeProgram | Sequence[float] = "once",
        conditioning: Literal["first", "canonical"] = "first",
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        mix_seed: int | None = None,
        mix_layer: int = 7,
        render_resolution: int | None = None,
        importance: Literal["random", "deterministic"] = "random",
        jitter: bool = False,
        maps: Collection[str] = (),
        normals_from: Literal["depth", "density"] = "depth",
        fps: float = 25.0,
        memory_gb: float = 1.0,
        on_frame: Callable[[int], None] | None = None,
    ) -> Clip:
        """Generate one clip.

        Everything that does not depend on a frame's time or camera (mapping, truncation, mixing) is computed once.
        The same seed, weights and device give the same bytes, whatever ``memory_gb``.

        Args:
            seed: appearance, and motion unless ``motion_seed`` is given. Several seeds: the clip walks from one person
                to the next, linearly in w.
            num_frames: frames of the clip, at least 1.
            motion_seed: seed of the motion code; several: the motion blends from one to the next.
            trajectory: name of a camera trajectory (see ``portraitzoo.rendering.cameras.TRAJECTORIES``), or cameras of
                batch shape [num_frames], or one camera for all frames.
            time: how time runs (``once``, ``loop`` every 16 frames, ``bounce``), or the times in [0, 1] themselves.
            conditioning: camera that the mapping network is told: frame 0's (as for FVD) or the canonical one (as in
                PV3D's orbit and multi-view programs).
            truncation_psi: 1 is the whole distribution (as published), 0 the average person.
            truncation_cutoff: number of w rows that are truncated; None truncates all.
            mix_seed: another person, whose style takes over from row ``mix_layer`` on (style mixing).
            mix_layer: first w row taken from ``mix_seed``.
            render_resolution: side of the volume-rendered image; None takes the configuration's.
            importance: random draws for importance sampling (as published), or evenly spaced ones.
            jitter: jitter the coarse depths too, as in training.
            maps: extra outputs per frame: ``raw`` (the image before super-resolution), ``depth`` (distance along the
                ray), ``position`` (expected world xyz), ``opacity``, ``normals`` (world space).
            normals_from: normals of the rendered surface, or of the density field at it (slower, smoother).
            fps: frame rate that the clip is labelled with.
            memory_gb: how much memory a batch of frames may take beside the weights.
            on_frame: called after each batch with the number of frames finished.

        Raises:
            ZooError: for fewer than one frame, an unknown trajectory or map, cameras or times of another number than
                the frames, or seeds that are not whole numbers.
        """
        self._check(num_frames, maps)
        resolution = render_resolution or self.config.render_resolution
        camera = self._cameras(trajectory, num_frames)
        times = self._times(time, num_frames)
        label = camera[:1].label() if conditioning == "first" else Camera.canonical().label()[None]
        truncation = {"truncation_psi": truncation_psi, "truncation_cutoff": truncation_cutoff}
        ws = self._styles(seeds_of(seed), label, num_frames, **truncation)
        if mix_seed is not None:
            other = self._styles(seeds_of(mix_seed), label, num_frames, **truncation)
            ws = torch.cat([ws[:, :mix_layer], other[:, mix_layer:]], dim=1)
        motion_seeds = seeds_of(seed if motion_seed is None else motion_seed)
        z_motion = walk(torch.cat([latent_codes(s, self.config.z_dim)[1] for s in motion_seeds]), num_frames)

        clip_seed = seeds_of(seed)[0]
        batches: list[dict[str, Tensor]] = []
        for frames in self._frame_batches(num_frames, resolution, memory_gb):
            rows = slice(frames.start, frames.stop)
            sampling = RaySampling()
            if importance == "random":
                samples = (self.config.depth_samples, self.config.importance_samples)
                sampling = ray_sampling(clip_seed, frames, resolution**2, samples, jitter, self.device)
            rows_ws = ws[rows]
            planes = self.generator.planes(rows_ws, z_motion[rows].to(self.device), times[rows].to(self.device))
            output = self.generator.render(
                planes, rows_ws, camera[rows].to(self.device), render_resolution=resolution, sampling=sampling
            )
            values = self._maps(output, maps)
            if "normals" in maps:
                values["normals"] = self._normals(output, planes, normals_from)
            batches.append({name: value.cpu() for name, value in values.items()})
            if on_frame is not None:
                on_frame(frames.stop)
        merged = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        info: dict[str, object] = {
            "family": "pv3d",
            "seed": seed,
            "motion_seed": motion_seed,
            "render_resolution": resolution,
        }
        info |= truncation
        return Clip(frames=merged.pop("frames"), fps=fps, cameras=camera, maps=merged, info=info)

    @torch.inference_mode()
    def multiview(self, seed: int = 0, *, render_resolution: int | None = None, **options: object) -> Clip:
        """Four frames of one person for identity, Chamfer and warping metrics (PV3D's multi-view protocol).

        Two times t0, t1 are drawn with replacement from the 16 frame times; the frames are front at t0, side at t1,
        side at t0, front at t1, where the side camera is turned by 30 degrees and, as published, only it is tilted by
        -0.05. The mapping is conditioned on the canonical camera.

        Args:
            seed: appearance, motion and the two times.
            render_resolution: as in :meth:`sample`.
            options: further options of :meth:`sample`.

        Returns:
            Clip of 4 frames with the maps ``position``, ``depth`` and ``opacity``.
        """
        generator = torch.Generator().manual_seed(seed + 1_000_000_007)
        first, second = (torch.randint(CLIP_FRAMES, (2,), generator=generator) / (CLIP_FRAMES - 1)).tolist()
        front, side = Camera.canonical(), Camera.look_at(SIDE_YAW, LEVEL)
        return self.sample(
            seed,
            4,
            trajectory=Camera.stack([front, side, side, front]),
            time=[first, second, first, second],
            conditioning="canonical",
            render_resolution=render_resolution,
            maps=("position", "depth", "opacity"),
            **options,  # type: ignore[arg-type]
        )

    @torch.inference_mode()
    def path_images(self, seed: int, epsilon: float = 1e-4, space: Space = "w") -> Float[Tensor, "2 3 height width"]:
        """Two pictures a small step apart in latent space, for the perceptual path length.

        They are frame 0 of a person, seen from the front, and the same after a step of ``epsilon`` towards another
        person. Motion, time, camera and the random numbers of the renderer are the same.

        Args:
            seed: both people, and the motion.
            epsilon: length of the step, as a share of the way.
            space: along a straight line between styles (``"w"``), or a great circle between latents (``"z"``).

        Returns:
            Pictures as the network gives them, nominally in [-1, 1], not quantised.
        """
        label = Camera.canonical().label()[None].to(self.device)
        z, z_motion = latent_codes(seed, self.config.z_dim)
        other = latent_codes(seed + OTHER_END, self.config.z_dim)[0]
        if space == "z":
            step = torch.tensor([[0.0], [epsilon]])
            ws = self.generator.mapping(
                slerp(z.expand(2, -1), other.expand(2, -1), step).to(self.device), label.expand(2, -1)
            )
        else:
            start, end = (self.generator.mapping(code.to(self.device), label) for code in (z, other))
            ws = torch.cat([start, torch.lerp(start, end, epsilon)])
        samples = (self.config.depth_samples, self.config.importance_samples)
        resolution = self.config.render_resolution
        drawn = ray_sampling(seed, range(1), resolution**2, samples, False, self.device)
        assert drawn.uniforms is not None
        sampling = RaySampling(uniforms=drawn.uniforms.expand(2, -1, -1))
        planes = self.generator.planes(ws, z_motion.expand(2, -1).to(self.device), torch.zeros(2, device=self.device))
        camera = Camera.canonical().expand(2).to(self.device)
        return self.generator.render(planes, ws, camera, render_resolution=resolution, sampling=sampling).image

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
        """Surface of one person at one time, by marching cubes over the density, coloured per vertex.

        Args:
            seed: appearance and motion.
            motion_seed: seed of the motion code.
            time: moment in [0, 1].
            resolution: samples along each side of the volume.
            level: raw density (before softplus) of the surface; PV3D's figures use 10.
            truncation_psi: as in :meth:`sample`.
            truncation_cutoff: as in :meth:`sample`.

        Raises:
            ZooError: if no surface of that level exists; the message gives the range of densities.
        """
        label = Camera.canonical().label()[None]
        ws = self._styles(seeds_of(seed), label, 1, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        z_motion = latent_codes(seed if motion_seed is None else motion_seed, self.config.z_dim)[1].to(self.device)
        moment = torch.tensor([time], device=self.device)
        planes = self.generator.planes(ws, z_motion, moment)

        def density(points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
            return self.generator.field(points[None].to(self.device), planes)[0][0, :, 0].cpu()

        def color(points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
            features = self.generator.field(points[None].to(self.device), planes)[1]
            image = self.generator.raw_image(features.mT[..., None] * 2 - 1, ws)
            return ((image[0, :, :, 0].mT + 1) / 2).clamp(0, 1).cpu()

        return extract_mesh(density, side=self.config.box_warp, resolution=resolution, level=level, color=color)

    def _check(self, num_frames: int, maps: Collection[str]) -> None:
        if num_frames < 1:
            raise ZooError(f"a clip needs at least 1 frame, not {num_frames}")
        unknown = sorted(set(maps) - set(MAPS))
        if unknown:
            raise ZooError(f"unknown map {unknown[0]!r}: choose from {', '.join(MAPS)}")

    def _cameras(self, choice: str | Camera, num_frames: int) -> Camera:
        camera = trajectory(choice, num_frames) if isinstance(choice, str) else choice
        if not camera.shape:
            return camera.expand(num_frames)
        if tuple(camera.shape) != (num_frames,):
            raise ZooError(f"{num_frames} frames need {num_frames} cameras (or one), not {list(camera.shape)}")
        return camera

    def _times(self, choice: TimeProgram | Sequence[float], num_frames: int) -> Float[Tensor, " time"]:
        if isinstance(choice, str):
            return frame_times(num_frames, choice)
        times = torch.as_tensor(choice, dtype=torch.float32)
        if tuple(times.shape) != (num_frames,) or not ((times >= 0) & (times <= 1)).all():
            raise ZooError(f"{num_frames} frames need {num_frames} times between 0 and 1")
        return times

    def _styles(
        self, seeds: list[int], label: Float[Tensor, "1 25"], num_frames: int, **truncation: float | int | None
    ) -> Float[Tensor, "time num_ws w_dim"]:
        """Styles of every frame. Each seed is mapped on its own: a row must not depend on its neighbours."""
        stops = [
            self.generator.mapping(
                latent_codes(seed, self.config.z_dim)[0].to(self.device), label.to(self.device), **truncation
            )
            for seed in seeds
        ]
        return walk(torch.cat(stops), num_frames)

    def _maps(self, output: PV3DOutput, maps: Collection[str]) -> dict[str, Tensor]:
        """Finished frames and the rendered maps asked for, first axis time."""
        values = {"frames": to_uint8(output.image)}
        if "raw" in maps:
            values["raw"] = to_uint8(output.image_raw)
        if "depth" in maps:
            values["depth"] = output.depth[:, 0]
        if "position" in maps:
            values["position"] = output.position
        if "opacity" in maps:
            values["opacity"] = output.opacity[..., 0]
        return values

    def _normals(
        self, output: PV3DOutput, planes: Tensor, source: Literal["depth", "density"]
    ) -> Float[Tensor, "time height width 3"]:
        if source == "depth":
            return normals_from_position(output.position)
        return normals_from_density(lambda points: self.generator.field(points, planes)[0], output.position)

    def _frame_batches(self, num_frames: int, resolution: int, memory_gb: float) -> list[range]:
        per_frame = 4 * max(
            3 * self.config.widest_activation(),  # input, output and one intermediate of the largest layer, float32
            resolution**2
            * (self.config.depth_samples + self.config.importance_samples)
            * 2
            * self.config.decoder_width,
        )
        size = max(1, int(memory_gb * 2**30 // per_frame))
        return [range(start, min(start + size, num_frames)) for start in range(0, num_frames, size)]
