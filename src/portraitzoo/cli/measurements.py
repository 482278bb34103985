"""Measuring the stages of a model: time, memory and arithmetic.

A family joins by a module ``benchmark`` beside its ``model`` with the functions of :class:`Benchmark`.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import importlib
import itertools
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from portraitzoo.cli.calibration import calibrate, fastest, machine_peak
from portraitzoo.cli.device import DTYPES
from portraitzoo.errors import ZooError

ENOUGH_SECONDS = 30.0


@dataclass(frozen=True)
class Measurement:
    """What was measured of one stage.

    Attributes:
        what: the stage.
        seconds: least wall time of a run.
        frames: frames that a run makes.
        ms_per_frame: milliseconds for each of them.
        frames_per_second: the same, turned over.
        peak_memory_gb: most memory during a run, weights included, in units of 10^9 bytes: resident set of the process
            on a CPU, memory allocated by torch on a GPU.
        gflop: 10^9 floating point operations of a run, two per multiply-add, over matrix products, convolutions and
            attention (``torch.utils.flop_counter``).
        share_of_peak: ``gflop / seconds`` relative to the peak that the machine reached in the same process.
        device: cpu, or name of the GPU.
        dtype: number format of the arithmetic.
        batch: frames computed at once.
        compiled: whether ``torch.compile`` was applied.
        threads: CPU threads.
        calibration_seconds: the fixed workload on the same device, mean of before and after.
        speedup: how many times as fast as the original implementation, by seconds over calibration; None where the
            original was not measured in this setting.
        error: largest absolute difference of the image to float32 on the CPU, of a range of 2; None where not compared.
    """

    what: str
    seconds: float
    frames: int
    ms_per_frame: float
    frames_per_second: float
    peak_memory_gb: float
    gflop: float
    share_of_peak: float
    device: str
    dtype: str
    batch: int
    compiled: bool
    threads: int
    calibration_seconds: float
    speedup: float | None = None
    error: float | None = None


class Benchmark(Protocol):
    """What a family's module ``benchmark`` offers."""

    def official(self) -> nn.Module:
        """The network at its published size, with random weights."""

    def stages(
        self, model: nn.Module, *, frames: int, render_resolution: int | None, batch: int, compiled: bool
    ) -> Iterator[tuple[str, Callable[[], object], int]]:
        """Name, work and number of frames of each stage, whole clips at the end."""

    def frame(self, model: nn.Module, render_resolution: int | None) -> Float[Tensor, "1 3 height width"]:
        """One frame without any randomness, in a range of 2, to compare number formats by."""

    def original(self, model: nn.Module, what: str, frames: int, render_resolution: int | None) -> float | None:
        """Seconds over calibration of the original implementation for a stage, where it was measured."""


def benchmark_of(cls: type) -> Benchmark:
    """The ``benchmark`` module of a model class's family."""
    return cast(Benchmark, importlib.import_module(cls.__module__.rpartition(".")[0] + ".benchmark"))


def measure(
    model: nn.Module,
    *,
    frames: int = 16,
    render_resolution: int | None = None,
    dtypes: tuple[str, ...] = (),
    batches: tuple[int, ...] = (),
    compiled: bool | None = None,
    repeats: int = 3,
    threads: int | None = None,
) -> Iterator[Measurement]:
    """Measure every stage that the model's family tells of, whole clips at the end, in every setting asked for.

    Args:
        model: on the device to be measured.
        frames: frames of the whole clip.
        render_resolution: side of the volume-rendered image; None takes the model's.
        dtypes: float32, bfloat16, float16 by autocast (default: float32; on a GPU all three).
        batches: frames computed at once (default: 1; on a GPU 1, 4 and 16).
        compiled: apply torch.compile (default: no; on a GPU both without and with).
        repeats: runs of which the fastest counts; fewer where one takes long.
        threads: CPU threads (default: what torch chooses).

    Raises:
        ZooError: for an unknown number format.
    """
    if threads:
        torch.set_num_threads(threads)
    device = next(model.parameters()).device
    gpu = device.type == "cuda"
    compilings = (False, True) if gpu and compiled is None else (bool(compiled),)
    formats = dtypes or (("float32", "bfloat16", "float16") if gpu else ("float32",))
    for name in formats:
        if name not in DTYPES:
            raise ZooError(f"unknown number format {name!r}: choose from {', '.join(DTYPES)}")
    for is_compiled, name, batch in itertools.product(compilings, formats, batches or ((1, 4, 16) if gpu else (1,))):
        bench = _Bench(model, device, getattr(torch, name), batch, is_compiled, render_resolution, repeats)
        yield from bench.run(frames)


@dataclass(frozen=True)
class _Bench:
    """One setting in which all stages are measured."""

    model: nn.Module
    device: torch.device
    dtype: torch.dtype
    batch: int
    compiled: bool
    render_resolution: int | None
    repeats: int

    def run(self, frames: int) -> Iterator[Measurement]:
        family = benchmark_of(type(self.model))
        peak = machine_peak(self.device, self.dtype)
        stages = family.stages(
            self.model,
            frames=frames,
            render_resolution=self.render_resolution,
            batch=self.batch,
            compiled=self.compiled,
        )
        after = calibrate(self.device)
        for what, work, made in stages:
            gflop = 0.0 if self.compiled else self._gflop(work)  # compiled kernels hide their operations
            seconds, memory = self._time_and_memory(work)
            before, after = after, calibrate(self.device)
            calibration = (before + after) / 2
            comparable = self.device.type == "cpu" and self.dtype == torch.float32
            original = family.original(self.model, what, made, self.render_resolution) if comparable else None
            yield Measurement(
                what=what,
                seconds=seconds,
                frames=made,
                ms_per_frame=1000 * seconds / made,
                frames_per_second=made / seconds,
                peak_memory_gb=memory,
                gflop=gflop,
                share_of_peak=gflop / seconds / peak,
                device=torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
                dtype=str(self.dtype).removeprefix("torch."),
                batch=self.batch,
                compiled=self.compiled,
                threads=torch.get_num_threads(),
                calibration_seconds=calibration,
                speedup=None if original is None else original / (seconds / calibration),
                error=self._error(family) if what == "frame" else None,
            )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _gflop(self, work: Callable[[], object]) -> float:
        with torch.inference_mode(), self._autocast(), FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops() / 1e9

    def _time_and_memory(self, work: Callable[[], object]) -> tuple[float, float]:
        """Least seconds of a run and the most memory during the runs, in units of 10^9 bytes."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            _forget_peak()
        with self._autocast():
            seconds = fastest(work, self.device, self.repeats, ENOUGH_SECONDS, warm=not self.compiled)
        if self.device.type == "cuda":
            return seconds, torch.cuda.max_memory_allocated(self.device) / 1e9
        return seconds, _peak_resident_bytes() / 1e9

    def _error(self, family: Benchmark) -> float | None:
        """Largest difference of a frame to the same one in float32 on the CPU; None where it is that one."""
        if self.device.type == "cpu" and self.dtype == torch.float32 and not self.compiled:
            return None
        with torch.inference_mode():
            exact = family.frame(copy.deepcopy(self.model).float().cpu(), self.render_resolution)
            with self._autocast():
                image = family.frame(self.model, self.render_resolution)
        return (image.float().cpu() - exact).abs().max().item()


def _forget_peak() -> None:
    """Set the process's peak resident set back to what it holds now, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_resident_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
