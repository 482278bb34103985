"""How fast this machine is: one number to compare wall times across machines, and the peak that it reaches."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F


def calibrate(device: torch.device | str = "cpu", repeats: int = 7) -> float:
    """Seconds for a fixed float32 workload, the least of ``repeats`` runs after one to warm up.

    The workload is that of the project's record of the original networks' speed: convolutions, a per-ray MLP,
    tri-plane look-ups and attention in about the proportions of an EG3D-style render. Seconds divided by this number
    can be compared between machines (to about 20 %), if both were taken with the same number of threads.
    """
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw).to(device)

    convolutions = [
        (normal(1, channels, side, side), normal(channels, channels, 3, 3)) for channels, side in ((256, 64), (64, 256))
    ]
    planes, places = normal(3, 32, 256, 256), normal(3, 1, 100_000, 2).tanh()
    points, hidden, output = normal(200_000, 32), normal(64, 32), normal(33, 64)
    tokens = normal(1, 4, 2048, 64)

    def workload() -> None:
        for image, kernel in convolutions * 2:
            F.leaky_relu(F.conv2d(image, kernel, padding=1), 0.2)
        F.grid_sample(planes, places, align_corners=False).mean(0)
        F.linear(F.softplus(F.linear(points, hidden)), output).sigmoid()
        F.scaled_dot_product_attention(tokens, tokens, tokens)

    return fastest(workload, device, repeats)


def machine_peak(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """GFLOP/s that ``device`` reaches in ``dtype``: the better of a large convolution and a large matrix product."""
    side = 2048 if torch.device(device).type == "cpu" else 8192
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    image = torch.randn(4, 256, 128, 128, device=device, dtype=dtype)
    kernel = torch.randn(256, 256, 3, 3, device=device, dtype=dtype)
    product = 2 * side**3 / fastest(lambda: matrix @ matrix, device, 5)
    convolution = 2 * image.numel() * kernel[0].numel() / fastest(lambda: F.conv2d(image, kernel, padding=1), device, 5)
    return max(product, convolution) / 1e9


@torch.inference_mode()
def fastest(
    work: Callable[[], object], device: torch.device | str, repeats: int, patience: float = 60.0, warm: bool = False
) -> float:
    """Least wall time of ``work`` in seconds over ``repeats`` runs, after an uncounted one unless it is ``warm``.

    No further run is begun after ``patience`` seconds.
    """
    if not warm:
        timed(work, device)
    seconds = [timed(work, device)]
    while len(seconds) < repeats and sum(seconds) < patience:
        seconds.append(timed(work, device))
    return min(seconds)


def timed(work: Callable[[], object], device: torch.device | str) -> float:
    """Wall time of one run of ``work`` in seconds, to the end of what it started on ``device``."""
    _finish(device)
    started = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - started


def _finish(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
