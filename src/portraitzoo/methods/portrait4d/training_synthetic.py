"""Training Portrait4D and Portrait4D-static on heads that a frozen GenHead makes up as training goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.hub.loading import load
from portraitzoo.methods.genhead.model import GenHead  # the one family that this one may import: it makes the data
from portraitzoo.methods.genhead.motions import MOTION_SIZE
from portraitzoo.methods.genhead.network import Generator
from portraitzoo.methods.portrait4d.cameras import camera_of_label
from portraitzoo.methods.portrait4d.data import Motion
from portraitzoo.methods.portrait4d.imagenet import start_from_imagenet
from portraitzoo.methods.portrait4d.phases import Task
from portraitzoo.methods.portrait4d.pools import EYES, JAW, NECK, HeadBatch
from portraitzoo.methods.portrait4d.synthesis import POINTS, RESOLUTION, TRUNCATION_PSI, Pictured, Synthesiser
from portraitzoo.methods.portrait4d.training import Portrait4DTraining
from portraitzoo.training.frozen import Frozen

HEADS = 24
"""Purpose of the random draws of synthesised heads."""
_LARGEST = 2**31


class SyntheticTraining(Portrait4DTraining):
    """Training on synthesised heads (Deng et al., CVPR 2024, "Portrait4D", section 3.4; its static form for v2).

    Each sample is one head that GenHead makes up, in three views: the photo, a driving frame whose motion is that of
    the target, and the target. All phases of an update share them. Where the head does not move, as in half of the
    samples and in all of a static network, motions are switched off. The parametric head is GenHead's.

    Args:
        genhead: what makes the heads: an entry of the index, a folder in our format, or a run.
        motion: ``embedding``: PD-FGC looks at photo and driving frame (548 numbers, as published); ``head``: the
            head's expression, jaw and gaze (109 numbers).
        truncation_psi: of GenHead.
        synthesis_resolution: side of GenHead's volume rendering.
        imagenet: start the global encoder from ImageNet's ResNet-34, as published; only without ``init_from``.
        init_from: what to start from; None for fresh weights.
        shared: further arguments of :class:`Portrait4DTraining`; ``network`` says whether it is static.

    Raises:
        CheckpointError: if ``init_from`` or ``genhead`` do not fit.
        WeightsUnavailableError: if weights are not on this machine and cannot be fetched.
        ZooError: if a name is unknown.
    """

    def __init__(
        self,
        genhead: str = "genhead-ffhq512",
        motion: Motion = "embedding",
        truncation_psi: float = TRUNCATION_PSI,
        synthesis_resolution: int = RESOLUTION,
        imagenet: bool = False,
        init_from: str | None = None,
        **shared: Any,
    ) -> None:
        maker = load(genhead, "cpu")
        if not isinstance(maker, GenHead):
            raise CheckpointError(f"{genhead} is no GenHead: heads are made up by one")
        super().__init__(head=None if init_from else maker.generator.head, init_from=init_from, **shared)
        if imagenet and not init_from:
            start_from_imagenet(self.generator.global_encoder)
            self.generator_ema.global_encoder.load_state_dict(self.generator.global_encoder.state_dict())
        for item in ("image_resolution", "plane_channels"):
            theirs, ours = getattr(maker.config, item), getattr(self.config, item)
            if theirs != ours:
                raise CheckpointError(f"{genhead} has {item} {theirs}, the network {ours}: they must agree")
        self.genhead_name, self.motion = genhead, motion
        self.truncation_psi, self.synthesis_resolution = truncation_psi, synthesis_resolution
        self.genhead: Frozen[Generator] = Frozen(maker.generator)
        self._tasks: dict[tuple[int, ...], Task] | None = None

    def needs(self) -> dict[str, bool]:
        """PD-FGC too, if it is what drives."""
        return super().needs() | {"motion": self.motion == "embedding"}

    def record(self) -> dict[str, Any]:
        """What made the heads, too."""
        return super().record() | {"genhead": self.genhead_name, "motion": self.motion}

    @contextmanager
    def update_context(self, update: int) -> Iterator[None]:
        """Keep the synthesised pictures for all phases of an update."""
        self._tasks = {}
        try:
            yield
        finally:
            self._tasks = None

    def task(self, batch: HeadBatch, purpose: int) -> Task:
        """Make up heads; the same for all phases of an update."""
        if self._tasks is None:
            return self.synthesise(batch)
        key = tuple(batch.position.tolist())
        if key not in self._tasks:
            self._tasks[key] = self.synthesise(batch)
        return self._tasks[key]

    @torch.no_grad()
    def synthesise(self, batch: HeadBatch) -> Task:
        """Photo, driving frame and target of each head.

        Raises:
            ZooError: if the motions are of another length than the network's.
        """
        maker = self.genhead.on(self.device)
        heads = [_head(batch.shape, batch.motions[:, which]) for which in (0, 1, 1)]
        cameras = [camera_of_label(batch.cameras[:, view]) for view in range(len(heads))]
        codes, places = [], []
        for one in self.generators(HEADS, batch):
            codes.append(torch.randn(maker.config.z_dim, generator=one, device=one.device))
            places.append(torch.randint(_LARGEST, (POINTS, 2), generator=one, device=one.device))
        synthesiser = Synthesiser(maker, self.truncation_psi, self.synthesis_resolution)
        pictures, target = synthesiser.pictures(torch.stack(codes), heads, cameras, torch.stack(places))
        source, drive = (self._motion_of(pictures[which], batch.motions[:, which]) for which in (0, 1))
        if source.shape[1] != self.config.motion_dim:
            raise ZooError(
                f"motions have {source.shape[1]} numbers, the network wants {self.config.motion_dim}: "
                "change motion_dim or `motion`"
            )
        moves = batch.moves & (not self.config.static)
        return Task(
            image=pictures[0].image,
            motion_source=source,
            motion_drive=drive,
            scale=moves.to(source)[:, None, None],
            head=heads[-1],
            camera=cameras[-1],
            composed=cameras[-1],
            target=target,
        )

    def _motion_of(self, picture: Pictured, rows: Tensor) -> Tensor:
        if self.motion == "head":
            return torch.cat([rows[:, : NECK.start], rows[:, JAW:]], dim=1)
        return self.perception.motion(picture.image, picture.landmarks)


def _head(shape: Tensor, rows: Tensor) -> FlameParameters:
    sizes = [NECK.start, EYES.start - NECK.start, MOTION_SIZE - EYES.start]
    return FlameParameters(shape, *rows.split(sizes, dim=1))
