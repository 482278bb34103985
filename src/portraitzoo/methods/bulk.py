"""Bulk sampling: one file for each seed, over any number of processes, going on where it stopped.

Lightning splits the seeds (``Trainer.predict``). A seed is finished when its file is there, files appear whole or not
at all, and a seed draws the same clip whoever draws it; so neither interruptions nor the number of processes matter.
"""

from __future__ import annotations

import logging
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Int
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.media.video import DEFAULT_QUALITY
from portraitzoo.methods.bulk_layouts import SEED_NAMES, ClipFiles, Layout, MultiviewFiles
from portraitzoo.methods.run_record import claim, described, identity
from portraitzoo.rendering.camera_files import draw_cameras
from portraitzoo.rendering.cameras import Camera


class Drawer(Protocol):
    """What draws the clip of a seed: a model's ``sample`` or ``multiview``."""

    def __call__(self, *, seed: int, **options: Any) -> Clip:
        """Draw a clip; equal arguments give an equal clip."""


@dataclass(frozen=True)
class Summary:
    """What a bulk run did.

    Attributes:
        folder: where the files and the run file are.
        written: files of this run, over all processes.
        kept: files that were there before.
        seconds: wall-clock time.
    """

    folder: Path
    written: int
    kept: int
    seconds: float


def sample_many(
    model: nn.Module,
    seeds: Sequence[int],
    out: str | Path,
    *,
    names: str = SEED_NAMES,
    suffix: str = ".mp4",
    quality: float = DEFAULT_QUALITY,
    camera_tracks: Sequence[Camera] | None = None,
    resume: bool = True,
    on_clip: Callable[[int], None] | None = None,
    devices: int | list[int] = 1,
    num_nodes: int = 1,
    strategy: str = "auto",
    **options: Any,
) -> Summary:
    """Draw a clip for each seed into a folder.

    ``sampling.json`` beside the clips records the model, a checksum of its weights and the options. Run again, finished
    clips are kept; other seeds may join, but not clips of other weights or options. Interrupted at any moment, the
    folder holds whole clips only. With several ``devices`` or ``num_nodes`` (started by Lightning, torchrun or SLURM)
    the seeds are split over the processes; the files are the same as from one.

    Args:
        model: has ``sample(seed=..., **options) -> Clip``; it stays on its device.
        seeds: whole numbers, each once.
        out: folder, made if need be.
        names: names of the clips below ``out`` (``PV3D_NAMES`` for PV3D's own evaluation layout).
        suffix: ``.mp4``, ``.npz``, ``.png`` (contact sheet) or empty (folder of PNG frames).
        quality: of .mp4, 0 to 10 (see :func:`portraitzoo.media.video.write_video`).
        camera_tracks: cameras of real clips, each [time]; each seed films with a part of one that it chooses, as in
            PV3D's evaluation. None leaves the choice to ``options``.
        resume: keep finished clips; False draws them again.
        on_clip: called in the first process after each clip with about how many of all are finished.
        devices: processes on each machine, or numbers of the GPUs to use.
        num_nodes: machines.
        strategy: Lightning's way of running several processes; ``auto`` is distributed data parallel.
        options: further arguments of ``model.sample``; recorded, so plain values, tensors or cameras.

    Raises:
        ZooError: if seeds repeat, the folder holds clips of another run, or an option cannot be recorded; and what
            ``model.sample`` raises.
        KeyboardInterrupt: on Ctrl-C, after the clip being written is whole.
    """
    layout = ClipFiles(Path(out), names, suffix, quality)
    record = {"options": described(options)}
    if camera_tracks is not None:
        record["camera_tracks"] = described([track.label() for track in camera_tracks])
    draw: Drawer = model.sample  # type: ignore[assignment]
    if camera_tracks is not None:
        draw = _WithTracks(draw, camera_tracks)
    launch = _Launch(devices, num_nodes, strategy)
    return _run(_Drawing(model, draw, options, layout, resume), seeds, record, on_clip, launch)


def multiview_many(
    model: nn.Module,
    seeds: Sequence[int],
    out: str | Path,
    *,
    resume: bool = True,
    on_clip: Callable[[int], None] | None = None,
    devices: int | list[int] = 1,
    num_nodes: int = 1,
    strategy: str = "auto",
    **options: Any,
) -> Summary:
    """Draw the four multi-view frames of each seed for the identity, Chamfer and warping metrics.

    Files as in :class:`MultiviewFiles`; everything else as in :func:`sample_many`.

    Args:
        model: has ``multiview(seed=..., **options) -> Clip`` of 4 frames with ``position``, ``depth`` and ``opacity``.
        seeds: whole numbers, each once.
        out: folder that gets a folder ``multi``.
        resume: as in :func:`sample_many`.
        on_clip: as in :func:`sample_many`.
        devices: as in :func:`sample_many`.
        num_nodes: as in :func:`sample_many`.
        strategy: as in :func:`sample_many`.
        options: further arguments of ``model.multiview``.

    Raises:
        ZooError: as in :func:`sample_many`, or if the model cannot show one head from several sides.
    """
    if not callable(getattr(model, "multiview", None)):
        raise ZooError(f"{type(model).__name__} cannot show one head from several sides: it has no multiview()")
    drawing = _Drawing(model, model.multiview, options, MultiviewFiles(Path(out)), resume)  # type: ignore[arg-type]
    record = {"options": described(options)}
    return _run(drawing, seeds, record, on_clip, _Launch(devices, num_nodes, strategy))


# ---------------------------------------------------------------------------------------------------------------------
# Under Lightning


class Seeds(Dataset[int]):
    """The seeds of a run."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = seeds

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> int:
        return self.seeds[index]


@dataclass(frozen=True)
class _WithTracks:
    """Drawing with the cameras of real clips."""

    draw: Drawer
    tracks: Sequence[Camera]

    def __call__(self, *, seed: int, num_frames: int = 16, **options: Any) -> Clip:
        cameras = draw_cameras(self.tracks, num_frames, seed)
        return self.draw(seed=seed, num_frames=num_frames, trajectory=cameras, **options)


@dataclass(frozen=True)
class _Launch:
    """How many processes, and where."""

    devices: int | list[int]
    num_nodes: int
    strategy: str

    def trainer(self, device: torch.device, callbacks: list[BasePredictionWriter]) -> Trainer:
        chosen = self.devices
        if chosen == 1 and device.type == "cuda":
            chosen = [device.index or 0]
        return Trainer(
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=chosen,
            num_nodes=self.num_nodes,
            strategy=self.strategy,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )


class _Drawing(LightningModule):
    """Draws the clips of this process's seeds."""

    def __init__(
        self, model: nn.Module, draw: Drawer, options: Mapping[str, Any], layout: Layout, resume: bool
    ) -> None:
        super().__init__()
        self.model, self.draw, self.options, self.layout, self.resume = model, draw, options, layout, resume

    def predict_step(self, batch: Int[Tensor, 1], batch_idx: int) -> tuple[int, Clip | None]:
        """A seed and its clip, or None for the clip if it is finished."""
        seed = int(batch)
        # Every process asks the disk, rather than sharing out what is missing: a restart may find another number of
        # processes, and machines may not see each other's disks.
        if self.resume and self.layout.finished(seed):
            return seed, None
        return seed, self.draw(seed=seed, **self.options)

    def on_predict_end(self) -> None:
        """Wait for the other processes, so that the run is over when it returns."""
        self.trainer.strategy.barrier("sampled")


class _Writer(BasePredictionWriter):
    """Writes clips beside the drawing of the next one; at most one waits, so memory stays bounded."""

    def __init__(self, layout: Layout, total: int, on_clip: Callable[[int], None] | None) -> None:
        super().__init__("batch")
        self._layout, self._total, self._on_clip = layout, total, on_clip
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: tuple[int, Clip | None],
        batch_indices: Sequence[int] | None,
        batch: Int[Tensor, 1],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Take over a clip once the one before it is written."""
        seed, clip = prediction
        if clip is not None:
            self._wait()
            self._pending = self._thread.submit(self._layout.write, seed, clip)
        if self._on_clip is not None and trainer.is_global_zero:
            self._on_clip(min(self._total, (batch_idx + 1) * trainer.world_size))

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the last clip."""
        self._wait()
        self._thread.shutdown()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let the clip in hand become whole."""
        self._thread.shutdown(wait=True)

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()


def _run(
    drawing: _Drawing,
    seeds: Sequence[int],
    record: dict[str, object],
    on_clip: Callable[[int], None] | None,
    launch: _Launch,
) -> Summary:
    if len(set(seeds)) != len(seeds):
        raise ZooError("a seed is there twice: every seed makes one file")
    started = time.perf_counter()
    model, layout = drawing.model, drawing.layout
    claim(layout.folder, identity(model) | layout.describe() | record, any(map(layout.finished, seeds)))
    before = sum(map(layout.finished, seeds))
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    on_interrupt = signal.getsignal(signal.SIGINT)
    trainer: Trainer | None = None
    try:
        with _quiet():
            trainer = launch.trainer(device, [_Writer(layout, len(seeds), on_clip)])
            # A generator of its own, for a loader without one draws from the global generator.
            loader = DataLoader(Seeds(seeds), batch_size=1, generator=torch.Generator())
            trainer.predict(drawing, loader, return_predictions=False)
    except SystemExit as error:
        # Lightning answers Ctrl-C by leaving the interpreter with status 1; that choice belongs to the caller.
        if trainer is not None and trainer.interrupted:
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from error
        raise
    finally:
        model.to(device)  # Lightning moves what it ran to the CPU when it is done
    kept = before if drawing.resume else 0
    return Summary(layout.folder, sum(map(layout.finished, seeds)) - kept, kept, time.perf_counter() - started)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's remarks about devices, workers and a graceful shutdown from the user's terminal."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            warnings.filterwarnings("ignore", message=".*LeafSpec", module="lightning")
            yield
    finally:
        logger.setLevel(level)
