"""What the tests of evaluation measure: networks of a few weights, clips of a few pixels, a model of one parameter."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from portraitzoo.media.clip import Clip
from portraitzoo.metrics.folders import FootageSource

NETWORKS = {
    "video_network": "tiny-video",
    "image_network": "tiny-image",
    "identity_network": "tiny-image",
    "manifold_network": "tiny-image",
    "action_network": "tiny-actions",
}
FEATURES = 6

INDEX = """
family: tiny
defaults:
  task: features
  description: a network of a few weights
  licence: Apache-2.0
  licence_url: https://www.apache.org/licenses/LICENSE-2.0
  origins: [{kind: embedded, filename: none, format: portraitzoo}]
entries:
  tiny-video: {cls: evaluation_cases.TinyVideo}
  tiny-image: {cls: evaluation_cases.TinyImage}
  other-video: {cls: evaluation_cases.TinyVideo}
  tiny-frames: {cls: evaluation_cases.TinyFrames}
  tiny-actions: {cls: evaluation_cases.TinyActions}
"""


class TinyImage(nn.Module):
    """uint8 [batch, height, width, 3] to six features; counts the images it has seen."""

    num_features = FEATURES
    seen = 0

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(3 * 4 * 4, FEATURES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        type(self).seen += len(images)
        pixels = images.permute(0, 3, 1, 2).float() / 255
        return self.project(nn.functional.adaptive_avg_pool2d(pixels, 4).flatten(1))

    def unbiased_logits(self, features: torch.Tensor) -> torch.Tensor:
        return 3 * features


class TinyFrames(nn.Module):
    """uint8 [batch, height, width, 3] to three features, and no classes."""

    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * images.float().mean((1, 2))


class TinyVideo(nn.Module):
    """uint8 [batch, time, height, width, 3] to six features; counts the clips it has seen, and may fail on request."""

    num_features = FEATURES
    seen = 0
    interrupt_after: int | None = None
    spoil = False

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(3 * 4 * 4, FEATURES)

    def forward(self, videos: torch.Tensor) -> torch.Tensor:
        cls = type(self)
        cls.seen += len(videos)
        if cls.interrupt_after is not None and cls.seen > cls.interrupt_after:
            raise KeyboardInterrupt
        pixels = videos.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        frames = nn.functional.adaptive_avg_pool2d(pixels, 4).flatten(1).unflatten(0, videos.shape[:2])
        weights = torch.linspace(0.5, 1.5, frames.shape[1])[:, None]
        features = self.project((frames * weights).mean(1))
        return features * torch.nan if cls.spoil else features


class TinyActions(TinyVideo):
    """uint8 [batch, time, height, width, 3] to the probabilities of six classes."""

    def forward(self, videos: torch.Tensor) -> torch.Tensor:
        return super().forward(videos).softmax(1)


class TinyFaces:
    """A face reconstruction that takes means of pixels for keypoints, pose and expression."""

    checksum = "tiny"

    def keypoints(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :4, :, :2].float().mean(2)

    def pose(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((1, 2))

    def expression(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(3).flatten(1)


class ToyModel(nn.Module):
    """Draws clips and heads; remembers with what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.asked: list[dict] = []

    def sample(self, seed: int = 0, num_frames: int = 16, **options: object) -> Clip:
        self.asked.append({"seed": seed, **options})
        return make_clip(seed, num_frames)

    def multiview(self, seed: int = 0) -> Clip:
        generator = torch.Generator().manual_seed(seed)
        position = torch.rand(4, 8, 8, 3, generator=generator)
        depth = 2.6 + 0.05 * torch.rand(4, 8, 8, generator=generator)
        opacity = torch.rand(4, 8, 8, generator=generator)
        maps = {"position": position, "depth": depth, "opacity": opacity}
        return Clip(make_clip(seed, 4).frames, maps=maps)


def make_clip(seed: int, num_frames: int = 16, height: int = 24, width: int = 24, grey: bool = False) -> Clip:
    """Smooth coloured noise, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num_frames, 1 if grey else 3, 3, 3, generator=generator)
    frames = nn.functional.interpolate(coarse, (height, width), mode="bilinear").expand(-1, 3, -1, -1)
    return Clip((frames * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous())


def make_clips(count: int, first: int = 0, num_frames: int = 16) -> list[Clip]:
    return [make_clip(seed, num_frames) for seed in range(first, first + count)]


def save_videos(folder: Path, clips: list[Clip]) -> Path:
    """Each clip as an .mp4."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, clip in enumerate(clips):
        clip.save(folder / f"clip_{index:02d}.mp4")
    return folder


def save_frames(folder: Path, clips: list[Clip]) -> Path:
    """Each clip as a folder of PNG frames."""
    for index, clip in enumerate(clips):
        clip.save(folder / f"clip_{index:02d}")
    return folder


def install_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tiny networks entries of the index."""
    folder.mkdir()
    (folder / "tiny.yaml").write_text(INDEX)
    monkeypatch.setenv("PORTRAITZOO_INDEX", str(folder))
    for name, value in (("seen", 0), ("interrupt_after", None), ("spoil", False)):
        monkeypatch.setattr(TinyVideo, name, value)
    monkeypatch.setattr(TinyImage, "seen", 0)


class WaitingSource(FootageSource):
    """A folder that this process is slow with, so that worker processes get to see it; they leave a file behind."""

    loaded_here = 0
    elsewhere = False

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state
        self.elsewhere = True
        Path(os.environ["EVALUATION_WORKERS"]).touch()

    def load(self, item, need, protocol, maps) -> Clip:
        if not self.elsewhere:
            while not Path(os.environ["EVALUATION_WORKERS"]).exists():
                time.sleep(0.05)
            time.sleep(0.2)
            self.loaded_here += 1
        return super().load(item, need, protocol, maps)


class CrashingSource(WaitingSource):
    """The same, with a last file that makes the decoder crash, and with it its process."""

    def load(self, item, need, protocol, maps) -> Clip:
        if item.place == len(self.footage.names) - 1:
            assert self.elsewhere
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load(item, need, protocol, maps)
