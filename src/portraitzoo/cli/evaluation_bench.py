"""``zoo bench eval``: feature extraction beside the usual programs, on the same inputs, in one process, in turns.

* FID: torch-fidelity's Inception on the same images, in memory.
* FVD: the way of the original scripts on the same files: clips decoded one after another with OpenCV, resized, stacked,
  and put through I3D as its graph is drawn (zero padding, convolution, batch norm, solid pooling). Ours decodes ahead
  in other threads, and folds, orders memory and pools as measured fastest.

Both sides have the same random weights: the released ones take the same time, and their features must agree here too.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from portraitzoo.cli.calibration import timed
from portraitzoo.cli.options import add_options, given, parser
from portraitzoo.errors import ZooError
from portraitzoo.extras import import_extra
from portraitzoo.media.clip import Clip
from portraitzoo.media.video import VideoReader, find_videos
from portraitzoo.metrics.evaluation import evaluate
from portraitzoo.metrics.features import FeatureNetwork, feature_network, randomise
from portraitzoo.metrics.frechet import FeatureStatistics, frechet_distance
from portraitzoo.metrics.inception import Inception
from portraitzoo.metrics.inception3d import I3D, Mixed, Unit3D, same_padding

CLIP_LENGTH = 16
HEADINGS = ("WHAT", "BESIDE", "ITEMS", "OURS, S", "THEIRS, S", "RATIO", "CPU RATIO", "DIFFERENCE")


@dataclass(frozen=True)
class Contest:
    """One piece of work done by both sides.

    Attributes:
        what: the work.
        beside: whose way of doing it the other one is.
        items: images or clips.
        ours: least seconds of a run.
        theirs: the same of the other side.
        ours_cpu: least processor seconds of a run, over all threads and processes: what a busy machine does not change.
        theirs_cpu: the same of the other side.
        difference: largest difference of the features (or of the distance made from them), relative to the largest.
        device: where networks ran.
        threads: CPU threads.
    """

    what: str
    beside: str
    items: int
    ours: float
    theirs: float
    ours_cpu: float
    theirs_cpu: float
    difference: float | None
    device: str
    threads: int

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return self.theirs / self.ours

    @property
    def cpu_ratio(self) -> float:
        """How many times as much processor time the other side takes."""
        return self.theirs_cpu / self.ours_cpu


def bench_evaluation(arguments: list[str]) -> None:
    """Run ``zoo bench eval``: a table, or with ``--json`` a list of objects."""
    options = parser(
        "bench eval", "Time the evaluation's feature extraction beside torch-fidelity and the original way."
    )
    options.add_argument("--json", action="store_true", help="print a JSON list")
    settings = add_options(options, contests)
    chosen = options.parse_args(arguments)
    found = []
    for contest in contests(**given(chosen, settings)):
        found.append(contest)
        if not chosen.json:
            if len(found) == 1:
                print(_row(HEADINGS))
            print(_row(_cells(contest)), flush=True)
    if chosen.json:
        print(
            json.dumps(
                [
                    dataclasses.asdict(contest) | {"ratio": contest.ratio, "cpu_ratio": contest.cpu_ratio}
                    for contest in found
                ],
                indent=2,
            )
        )
    else:
        print(f"{found[0].device}, {found[0].threads} threads")


def contests(
    *,
    data: str | Path | None = None,
    device: str = "cpu",
    images: int = 16,
    clips: int = 16,
    size: int = 256,
    batch_size: int = 4,
    workers: int = 2,
    repeats: int = 3,
    threads: int | None = None,
) -> Iterator[Contest]:
    """Time both sides in turns, so that a busy machine slows both.

    Args:
        data: folder of videos; without it, synthetic ones are written to a temporary folder.
        device: where the networks run: cpu, cuda.
        images: images in memory for FID.
        clips: clips for FVD; fewer if the folder holds fewer.
        size: side of the synthetic images and clips in pixels.
        batch_size: clips to a forward pass, on both sides.
        workers: processes or threads in which ours decodes.
        repeats: runs of each side, of which the fastest counts.
        threads: CPU threads (default: what torch chooses).

    Raises:
        ZooError: if torch-fidelity is not installed, or the folder holds no videos.
    """
    if threads:
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        yield _fid(Path(folder), torch.device(device), images, size, repeats)
        place = Path(data) if data is not None else _synthetic(Path(folder) / "videos", clips, size)
        yield from _fvd(place, torch.device(device), clips, batch_size, workers, repeats)


def _contest(
    what: str,
    beside: str,
    items: int,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    device: torch.device,
    repeats: int,
) -> Contest:
    """Least seconds of both after one uncounted run of each, taken in turns."""
    sides = (ours, theirs)
    with torch.inference_mode():
        for side in sides:
            side()
        times = [[_times(side, device) for side in sides] for _ in range(repeats)]
    (here, here_cpu), (there, there_cpu) = np.min(times, axis=0).tolist()
    threads = torch.get_num_threads()
    return Contest(what, beside, items, here, there, here_cpu, there_cpu, None, str(device), threads)


def _times(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    started = _processor_seconds()
    seconds = timed(work, device)
    return seconds, _processor_seconds() - started


def _processor_seconds() -> float:
    """Of this process and of those that it started and that have ended (which decode)."""
    return sum(os.times()[:4])


def _fid(folder: Path, device: torch.device, count: int, size: int, repeats: int) -> Contest:
    fidelity = import_extra("torch_fidelity.feature_extractor_inceptionv3", "dev")
    network = Inception()
    randomise(network, seed="bench")
    torch.save(network.state_dict(), folder / "weights.pth")
    other = fidelity.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(folder / "weights.pth")
    ).to(device)
    ours = FeatureNetwork("bench", network, comparable=False)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(256, size=(count, size, size, 3), dtype=np.uint8))
    here, planar = pixels.to(device), pixels.permute(0, 3, 1, 2).contiguous().to(device)
    with torch.inference_mode():
        difference = _relative(ours(here), other(planar)[0])
    name = f"FID features, {size} x {size}"
    found = _contest(name, "torch-fidelity", count, lambda: ours(here), lambda: other(planar), device, repeats)
    return dataclasses.replace(found, difference=difference)


def _fvd(
    folder: Path, device: torch.device, most: int, batch_size: int, workers: int, repeats: int
) -> Iterator[Contest]:
    videos = find_videos(folder)[:most]
    plain = _plain_i3d(device)
    ready = feature_network("i3d-videogpt", "random", device)
    fixed = FeatureStatistics.from_moments(
        torch.linspace(-1, 1, ready.num_features),
        torch.eye(ready.num_features),
        ready.num_features + 1,
        info={"checksum": ready.checksum},
    )
    values: dict[str, float] = {}

    def ours() -> None:
        report = evaluate(
            folder,
            fixed,
            num_clips=len(videos),
            overrides={"windows": "first"},
            features="random",
            use_cache=False,
            device=device,
            batch_size=batch_size,
            workers=workers,
        )
        values["ours"] = report.values["fvd"]

    def theirs() -> None:
        network = _plain_i3d(device)  # both sides begin with reading the weights
        clips = torch.stack([_read_by_opencv(video) for video in videos])
        rows = torch.cat([network(part.to(device)).cpu() for part in clips.split(batch_size)])
        gathered = FeatureStatistics(ready.num_features)
        gathered.append(rows)
        values["theirs"] = float(frechet_distance(gathered, fixed))

    found = _contest("FVD from files", "the original way", len(videos), ours, theirs, device, repeats)
    yield dataclasses.replace(found, difference=abs(values["ours"] - values["theirs"]) / values["theirs"])

    decoded = torch.stack([VideoReader(video).read(0, CLIP_LENGTH) for video in videos]).to(device)
    batches = decoded.split(batch_size)
    with torch.inference_mode():
        difference = _relative(ready(batches[0]), plain(batches[0]))
    found = _contest(
        "of which I3D",
        "its graph as drawn",
        len(videos),
        lambda: [ready(batch) for batch in batches],
        lambda: [plain(batch) for batch in batches],
        device,
        repeats,
    )
    yield dataclasses.replace(found, difference=difference)

    yield _contest(
        "of which decoding",
        "OpenCV",
        len(videos),
        lambda: [VideoReader(video).read(0, CLIP_LENGTH) for video in videos],
        lambda: [_read_by_opencv(video) for video in videos],
        device,
        repeats,
    )


def _plain_i3d(device: torch.device) -> PlainI3D:
    network = I3D()
    randomise(network, seed="i3d-videogpt")  # as the index's network is with random weights
    return PlainI3D(network).to(device).eval()


def _relative(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max() / second.abs().max())


def _read_by_opencv(path: Path) -> UInt8[Tensor, "time height width 3"]:
    """All frames of a video, one after another, as the scripts read them; the first 16 are the clip."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        found, frame = capture.read()
        if not found:
            break
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    capture.release()
    if len(frames) < CLIP_LENGTH:
        raise ZooError(f"{path} has {len(frames)} frames, fewer than the {CLIP_LENGTH} of a clip")
    return torch.from_numpy(np.stack(frames[:CLIP_LENGTH]))


def _synthetic(folder: Path, count: int, size: int) -> Path:
    """Clips of moving coloured noise."""
    folder.mkdir()
    for number in range(count):
        draw = torch.Generator().manual_seed(number)
        coarse = torch.rand(1, 3, CLIP_LENGTH // 4, size // 16, size // 16, generator=draw)
        frames = F.interpolate(coarse, (CLIP_LENGTH, size, size), mode="trilinear")[0]
        Clip((frames * 255).to(torch.uint8).permute(1, 2, 3, 0).contiguous()).save(folder / f"{number:04d}.mp4")
    return folder


class PlainI3D(nn.Module):
    """I3D run as its graph is drawn, with the layers of ``network``: what a port written down from the paper does."""

    def __init__(self, network: I3D) -> None:
        super().__init__()
        self.network = network

    def forward(self, videos: UInt8[Tensor, "batch time height width 3"]) -> Float[Tensor, "batch 400"]:
        """Logits of clips."""
        net = self.network
        x = net.preprocess(videos).contiguous()
        x = _solid_pool(self._unit(net.conv_1a, x), (1, 3, 3), (1, 2, 2))
        x = _solid_pool(self._unit(net.conv_2c, self._unit(net.conv_2b, x)), (1, 3, 3), (1, 2, 2))
        x = _solid_pool(self._mixed(net.mixed_3c, self._mixed(net.mixed_3b, x)), (3, 3, 3), (2, 2, 2))
        for block in (net.mixed_4b, net.mixed_4c, net.mixed_4d, net.mixed_4e, net.mixed_4f):
            x = self._mixed(block, x)
        x = _solid_pool(x, (2, 2, 2), (2, 2, 2))
        x = self._mixed(net.mixed_5c, self._mixed(net.mixed_5b, x))
        return net.logits(net.pool(x)).flatten(2).mean(2)

    def _unit(self, layer: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(layer, Unit3D)
        x = F.pad(x, same_padding(tuple(x.shape[2:]), (layer.kernel,) * 3, (layer.stride,) * 3))
        return F.relu(layer.unit.bn(F.conv3d(x, layer.unit.conv.weight, stride=layer.stride)))

    def _mixed(self, block: Mixed, x: Tensor) -> Tensor:
        deep = [self._unit(branch[1], self._unit(branch[0], x)) for branch in (block.branch1, block.branch2)]
        pooled = _solid_pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self._unit(block.branch0, x), *deep, self._unit(block.branch3, pooled)], dim=1)


def _solid_pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    return F.max_pool3d(F.pad(x, same_padding(tuple(x.shape[2:]), kernel, stride)), kernel, stride)


def _cells(found: Contest) -> tuple[str, ...]:
    return (
        found.what,
        found.beside,
        str(found.items),
        f"{found.ours:.3f}",
        f"{found.theirs:.3f}",
        f"{found.ratio:.2f}x",
        f"{found.cpu_ratio:.2f}x",
        "" if found.difference is None else f"{found.difference:.1e}",
    )


def _row(cells: tuple[str, ...]) -> str:
    return f"{cells[0]:<26}{cells[1]:<22}" + "".join(f"{cell:>12}" for cell in cells[2:])
