"""GenHead as its users meet it: seeds, FLAME's parameters and cameras in; clips and meshes out."""

import math
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import to_uint8
from portraitzoo.methods.genhead.cameras import DISTANCE, FOCAL, frontal, placed
from portraitzoo.methods.genhead.composition import PartPlanes
from portraitzoo.methods.genhead.deformer import FIELD_SIDE
from portraitzoo.methods.genhead.masks import opening
from portraitzoo.methods.genhead.motions import (
    CLIP_FRAMES,
    MOTION_SIZE,
    SHAPE_ROW,
    identity_shape,
    latent_code,
    load_rows,
    motion_rows,
    with_motion,
)
from portraitzoo.methods.genhead.network import Generator, GenHeadConfig, GenHeadOutput, resize_plainly
from portraitzoo.rendering.cameras import Camera, trajectory
from portraitzoo.rendering.normals import normals_from_position
from portraitzoo.rendering.surfaces import Mesh, extract_mesh

MAPS = ("raw", "depth", "position", "opacity", "normals", "parts")
HEAD, EYES, MOUTH = 85, 170, 255
"""Values of the map ``parts``; the background is 0."""
TRUNCATION_PSI, TRUNCATION_CUTOFF = 0.7, 14
"""Of the authors' image program."""
SIDE_YAW = math.radians(30)  # the side view of the multi-view protocol


@dataclass(frozen=True)
class Identity:
    """Who a seed shows, for any number of poses and views (see :meth:`GenHead.identity`).

    Attributes:
        seed: of head and background.
        shape: FLAME's shape.
        planes: tri-planes.
        backdrop: features of the background.
    """

    seed: int
    shape: Float[Tensor, "1 300"]
    planes: PartPlanes
    backdrop: Float[Tensor, "1 channels size size"]


class GenHead(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="portraitzoo",
    tags=["3d-aware", "portrait", "head", "animatable"],
    repo_url="https://github.com/YuDeng/Portrait-4D",
    paper_url="https://arxiv.org/abs/2311.18729",
):
    """Generator of animatable heads (Deng et al., CVPR 2024, "Portrait4D", section 3.2).

    An identity is a latent code and FLAME's shape. FLAME's expression, jaw, neck and gaze move it, cameras look at it;
    tri-planes and background are computed once for all poses and views.

    Args:
        config: sizes of the network; the defaults are those of the released checkpoint.

    Example:
        >>> import portraitzoo as pz
        >>> generator = pz.load("genhead-ffhq512")  # doctest: +SKIP
        >>> someone = generator.identity(seed=0)  # doctest: +SKIP
        >>> clip = generator.sample(someone, num_frames=16, motion="random", maps=["parts"])  # doctest: +SKIP
    """

    def __init__(self, config: GenHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = Generator(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are and frames are rendered."""
        return next(self.parameters()).device

    @torch.inference_mode()
    def identity(
        self,
        seed: int = 0,
        *,
        shape: Float[Tensor, "1 300"] | None = None,
        shapes: str | Path | None = None,
        truncation_psi: float = TRUNCATION_PSI,
        truncation_cutoff: int | None = TRUNCATION_CUTOFF,
    ) -> Identity:
        """Who a seed shows, for several calls of :meth:`sample` with other poses and views.

        Args:
            seed: of the latent code of head and background, the same as in the authors' programs, and of the shape.
            shape: FLAME's shape; None takes it from ``shapes``.
            shapes: ``ffhq`` or ``vfhq``, the authors' fits (downloaded on first use), or a file (.npy) of rows of
                camera and shape, of which row ``seed`` is taken; None draws the shape.
            truncation_psi: as in :meth:`sample`.
            truncation_cutoff: as in :meth:`sample`.

        Raises:
            ZooError: for a seed that is no whole number of 0 to 2^32 - 1, a shape of another length or with NaN, or a
                file that holds something else.
        """
        z = latent_code(seed, self.config.z_dim).to(self.device)
        if shape is None:
            rows = None if shapes is None else load_rows(shapes, SHAPE_ROW)
            shape = identity_shape(seed, rows, count=self.config.random_shapes, spread=self.config.shape_spread)
        shape = with_motion(shape, torch.zeros(1, MOTION_SIZE)).shape.to(self.device)
        ws = self.generator.mapping(
            z,
            Camera.stack([frontal()]).to(self.device),
            shape,
            truncation_psi=truncation_psi,
            truncation_cutoff=truncation_cutoff,
        )
        return Identity(seed, shape, self.generator.planes(ws), self.generator.backdrop(z))

    @torch.inference_mode()
    def sample(
        self,
        seed: int | Identity = 0,
        num_frames: int = CLIP_FRAMES,
        *,
        motion: str | Float[Tensor, "time 112"] = "turn",
        motion_seed: int | None = None,
        motions: str | Path | None = None,
        flame: FlameParameters | None = None,
        shape: Float[Tensor, "1 300"] | None = None,
        shapes: str | Path | None = None,
        trajectory: str | Camera = "front",
        truncation_psi: float = TRUNCATION_PSI,
        truncation_cutoff: int | None = TRUNCATION_CUTOFF,
        render_resolution: int | None = None,
        maps: Collection[str] = (),
        fps: float = 25.0,
        memory_gb: float = 1.0,
        on_frame: Callable[[int], None] | None = None,
    ) -> Clip:
        """Generate one clip.

        The same seed, weights and device give the same bytes, whatever ``memory_gb``. The rays are sampled evenly.

        Args:
            seed: of the identity; or an :meth:`identity`, whose seed, shape and truncation then hold.
            num_frames: frames of the clip, at least 1.
            motion: ``turn`` (the authors' program: the neck turns once around), ``random`` (from one random
                expression, pose and gaze to the next), ``still``; or the numbers themselves: expression 100, neck 3,
                jaw 3, eyes 6 of each frame, angles in radians.
            motion_seed: seed of the motion; None takes that of the identity.
            motions: ``ffhq`` or ``vfhq``, the authors' fits (downloaded on first use), or a file (.npy) of rows of such
                numbers, that motions are made of; None draws them.
            flame: FLAME's parameters of each frame, or of one for all, instead of ``motion``; with another shape than
                the identity's the same person has another head.
            shape: FLAME's shape, as in :meth:`identity`.
            shapes: as in :meth:`identity`.
            trajectory: name of a camera trajectory (see ``portraitzoo.rendering.cameras.TRAJECTORIES``; they are taken
                to GenHead's distance and lens), or cameras of batch shape [num_frames], or one camera for all frames.
            truncation_psi: 1 is the whole distribution, 0 the average head; the authors' images are at 0.7.
            truncation_cutoff: number of w rows that are truncated; None truncates all.
            render_resolution: side of the volume-rendered image; None takes the configuration's.
            maps: extra outputs per frame: ``raw`` (the image before super-resolution), ``depth`` (distance along the
                ray), ``position`` (expected world xyz), ``opacity`` (head against background), ``normals`` (world
                space), ``parts`` (0 background, 85 head, 170 eyes, 255 mouth, at the size of the image).
            fps: frame rate that the clip is labelled with.
            memory_gb: how much memory a batch of frames may take beside the weights, on a GPU.
            on_frame: called after each batch with the number of frames finished.

        Raises:
            ZooError: for fewer than one frame, an unknown motion, trajectory or map, parameters of another length or
                with NaN, cameras or parameters of another number than the frames, a camera inside the head or turned
                away from it, or a seed that is no whole number.
        """
        self._check(num_frames, maps, render_resolution)
        camera = self._cameras(trajectory, num_frames)
        someone = seed
        if not isinstance(someone, Identity):
            truncation = {"truncation_psi": truncation_psi, "truncation_cutoff": truncation_cutoff}
            someone = self.identity(someone, shape=shape, shapes=shapes, **truncation)  # type: ignore[arg-type]
        moving = someone.seed if motion_seed is None else motion_seed
        heads = self._heads(someone, num_frames, motion, moving, motions, flame)

        resolution = render_resolution or self.config.render_resolution
        batches: list[dict[str, Tensor]] = []
        for frames in self._frame_batches(num_frames, resolution, memory_gb):
            rows, count = slice(frames.start, frames.stop), len(frames)
            posed = self.generator.pose(heads[rows].to(self.device))
            inner, outer = (planes.expand(count, -1, -1, -1, -1) for planes in someone.planes)
            output = self.generator.render(
                (inner, outer),
                someone.backdrop.expand(count, -1, -1, -1),
                posed,
                camera[rows].to(self.device),
                render_resolution=resolution,
            )
            batches.append({name: value.cpu() for name, value in self._maps(output, maps).items()})
            if on_frame is not None:
                on_frame(frames.stop)
        merged = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        info: dict[str, object] = {
            "family": "genhead",
            "seed": someone.seed,
            "motion": motion if isinstance(motion, str) and flame is None else "given",
            "motion_seed": moving,
            "render_resolution": resolution,
        }
        return Clip(frames=merged.pop("frames"), fps=fps, cameras=camera, maps=merged, info=info)

    @torch.inference_mode()
    def multiview(self, seed: int = 0, *, render_resolution: int | None = None, **options: object) -> Clip:
        """Four frames of one head for identity, Chamfer and warping metrics: front and side of two random poses.

        The frames are front at the first pose, side at the second, side at the first, front at the second; the side
        camera is turned by 30 degrees.

        Args:
            seed: of identity and poses.
            render_resolution: as in :meth:`sample`.
            options: further options of :meth:`sample`.

        Returns:
            Clip of 4 frames with the maps ``position``, ``depth`` and ``opacity``.
        """
        first, second = motion_rows("random", seed, 2 * CLIP_FRAMES)[[0, CLIP_FRAMES]]
        side = placed(Camera.look_at(SIDE_YAW, 0.0))
        return self.sample(
            seed,
            4,
            motion=torch.stack([first, second, first, second]),
            trajectory=Camera.stack([frontal(), side, side, frontal()]),
            render_resolution=render_resolution,
            maps=("position", "depth", "opacity"),
            **options,  # type: ignore[arg-type]
        )

    @torch.inference_mode()
    def mesh(
        self,
        seed: int | Identity = 0,
        *,
        surface: Literal["field", "flame"] = "field",
        motion: str | Float[Tensor, "time 112"] = "still",
        motion_seed: int | None = None,
        motions: str | Path | None = None,
        flame: FlameParameters | None = None,
        shapes: str | Path | None = None,
        resolution: int = 128,
        level: float | None = None,
        truncation_psi: float = TRUNCATION_PSI,
        truncation_cutoff: int | None = TRUNCATION_CUTOFF,
    ) -> Mesh:
        """Surface of one head in one pose, in world coordinates.

        Args:
            seed: as in :meth:`sample`.
            surface: ``field``: by marching cubes over the density of the deformed field, with vertex colours;
                ``flame``: the mesh of the FLAME head that drives it.
            motion: as in :meth:`sample`; the first frame counts.
            motion_seed: as in :meth:`sample`.
            motions: as in :meth:`sample`.
            flame: as in :meth:`sample`.
            shapes: as in :meth:`identity`.
            resolution: samples along each side of the volume.
            level: raw density (before softplus) of the surface; None takes the configuration's.
            truncation_psi: as in :meth:`sample`.
            truncation_cutoff: as in :meth:`sample`.

        Raises:
            ZooError: if no surface of that level exists (the message gives the range of densities), or as
                :meth:`sample` does.
        """
        someone = seed
        if not isinstance(someone, Identity):
            truncation = {"truncation_psi": truncation_psi, "truncation_cutoff": truncation_cutoff}
            someone = self.identity(someone, shapes=shapes, **truncation)  # type: ignore[arg-type]
        moving = someone.seed if motion_seed is None else motion_seed
        heads = self._heads(someone, 1, motion, moving, motions, flame)
        (head,) = self.generator.pose(heads.to(self.device))
        if surface == "flame":
            return Mesh(head.vertices.cpu(), self.generator.head.flame.faces.cpu())
        field = self.generator.field(someone.planes)

        def density(points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
            return field.around(head, points.to(self.device))[0].cpu()

        def color(points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
            return field.around(head, points.to(self.device))[1][:, :3].clamp(0, 1).cpu()

        level = self.config.surface_level if level is None else level
        return extract_mesh(density, side=FIELD_SIDE, resolution=resolution, level=level, color=color)

    def _check(self, num_frames: int, maps: Collection[str], render_resolution: int | None) -> None:
        if num_frames < 1:
            raise ZooError(f"a clip needs at least 1 frame, not {num_frames}")
        if render_resolution is not None and not 1 <= render_resolution <= self.config.image_resolution:
            raise ZooError(
                f"the volume is rendered at 1 to {self.config.image_resolution} pixels, not {render_resolution}"
            )
        unknown = sorted(set(maps) - set(MAPS))
        if unknown:
            raise ZooError(f"unknown map {unknown[0]!r}: choose from {', '.join(MAPS)}")

    def _cameras(self, choice: str | Camera, num_frames: int) -> Camera:
        camera = placed(trajectory(choice, num_frames)) if isinstance(choice, str) else choice
        if not camera.shape:
            camera = camera.expand(num_frames)
        if tuple(camera.shape) != (num_frames,):
            raise ZooError(f"{num_frames} frames need {num_frames} cameras (or one), not {list(camera.shape)}")
        position, forward = camera.cam2world[:, :3, 3], camera.cam2world[:, :3, 2]
        depth = -(position * forward).sum(-1)
        for frame, (away, ahead) in enumerate(zip(position.norm(dim=-1).tolist(), depth.tolist(), strict=True)):
            if away <= FIELD_SIDE / 2:
                raise ZooError(
                    f"the camera of frame {frame} is inside the head, {away:.2f} from the neck joint: "
                    f"keep it more than {FIELD_SIDE / 2} away ({DISTANCE:g} is usual)"
                )
            if ahead <= FIELD_SIDE / 2:
                raise ZooError(f"the camera of frame {frame} looks past the head: turn it towards the neck joint")
        if not torch.allclose(camera.intrinsics[:, 0, 0], torch.tensor(FOCAL), rtol=0.02):
            warnings.warn(
                f"GenHead draws the masks of eyes and mouth with a focal length of {FOCAL:.3f} whatever the camera's: "
                "move the camera rather than change its lens",
                stacklevel=3,
            )
        return camera

    def _heads(
        self,
        someone: Identity,
        num_frames: int,
        motion: str | Tensor,
        motion_seed: int,
        motions: str | Path | None,
        flame: FlameParameters | None,
    ) -> FlameParameters:
        """Heads of all frames."""
        if flame is None:
            if isinstance(motion, str):
                rows = None if motions is None else load_rows(motions, MOTION_SIZE)
                motion = motion_rows(motion, motion_seed, num_frames, rows)
            flame = with_motion(someone.shape.cpu(), motion)
        if len(flame) not in (1, num_frames):
            raise ZooError(f"{num_frames} frames need parameters of {num_frames} heads (or one), not {len(flame)}")
        return flame if len(flame) == num_frames else FlameParameters(*(v.expand(num_frames, -1) for v in flame))

    def _maps(self, output: GenHeadOutput, maps: Collection[str]) -> dict[str, Tensor]:
        """Finished frames and the rendered maps asked for, first axis time."""
        values = {"frames": to_uint8(output.image)}
        if "raw" in maps:
            values["raw"] = to_uint8(output.image_raw)
        if "depth" in maps:
            values["depth"] = output.depth[:, 0]
        if "position" in maps:
            values["position"] = output.position
        if "opacity" in maps:
            values["opacity"] = output.opacity[:, 0]
        if "normals" in maps:
            values["normals"] = normals_from_position(output.position)
        if "parts" in maps:
            values["parts"] = parts_map(output)
        return values

    def _frame_batches(self, num_frames: int, resolution: int, memory_gb: float) -> list[range]:
        size = 1  # on a CPU a frame must not depend on its batch, and batches are no faster
        if self.device.type != "cpu":
            points = 2 * resolution**2 * self.config.samples * 2 * self.config.decoder_width
            per_frame = 4 * max(3 * self.config.widest_activation(), points)
            size = max(1, int(memory_gb * 2**30 // per_frame))
        return [range(start, min(start + size, num_frames)) for start in range(0, num_frames, size)]


def parts_map(output: GenHeadOutput) -> Tensor:
    """Parts at the size of the image [time, height, width], uint8: 0 background, 85 head, 170 eyes, 255 mouth."""
    side = output.image.shape[-1]
    parts = torch.where(resize_plainly(output.opacity, side) > 0.5, HEAD, 0)
    parts = torch.where(opening(output.masks.mouth_full) > 0, MOUTH, parts)
    return torch.where(output.masks.eyes_full > 0, EYES, parts)[:, 0].to(torch.uint8)
