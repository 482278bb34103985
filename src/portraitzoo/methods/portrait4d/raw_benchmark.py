"""What ``zoo bench`` times of raw footage: finding and tracking a face, and the whole way from video to video."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from portraitzoo.faces.alignment import FIVE_OF_98, TEMPLATE
from portraitzoo.faces.bfm_to_flame import BfmToFlame
from portraitzoo.faces.deep3d import Deep3D
from portraitzoo.faces.fan import FAN
from portraitzoo.faces.h3r import H3R
from portraitzoo.faces.motion_embedding import LANDMARK_GROUPS, MotionEncoder
from portraitzoo.faces.portrait_tracker import SIDE, Found, PortraitTracker, TrackedFace
from portraitzoo.faces.retinaface import RetinaFace, prepare
from portraitzoo.layers.conv_norm import ready_to_measure
from portraitzoo.media.video import VideoReader, write_video
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.model import Portrait4D
from portraitzoo.methods.portrait4d.prepared import Portrait
from portraitzoo.methods.portrait4d.raw import frames_of
from portraitzoo.methods.portrait4d.session import Session
from portraitzoo.metrics.features import randomise

HEIGHT, WIDTH = 720, 1280
DETECTED_HEIGHT = 640
MIDDLE, UNIT = (640.0, 330.0), 150.0
"""Where the face is said to be, and pixels per unit of the template of an average face."""
MOTION = 548
FRAMES = 4
"""Of the raw video; the stream knows no length, so that a few tell the speed of many."""


def fits(config: Portrait4DConfig) -> bool:
    """Whether a network takes what the tracker gives."""
    return (config.image_resolution, config.motion_dim) == (SIDE, MOTION)


def random_tracker(device: torch.device) -> PortraitTracker:
    """The tracker at its published size, with fixed random weights."""
    tracker = PortraitTracker(RetinaFace(), H3R(), FAN(), Deep3D(), BfmToFlame(), MotionEncoder())
    randomise(tracker, "portrait tracker")
    ready_to_measure(tracker)
    return tracker.to(device)


def known_face() -> Found:
    """Where the face is said to be: random weights find none."""
    middle = torch.tensor(MIDDLE, dtype=torch.float64)
    five = middle + UNIT * torch.tensor(TEMPLATE, dtype=torch.float64)[:, :2] * torch.tensor([1.0, -1.0])
    contour, landmarks = middle.repeat(98, 1), middle.repeat(68, 1)
    contour[list(FIVE_OF_98)] = five
    for group, points in zip(LANDMARK_GROUPS, (five[0], five[1], five[3:].mean(0)), strict=True):
        landmarks[group] = points
    return Found(torch.cat([middle - UNIT, middle + UNIT]), contour, landmarks)


def stages(
    model: Portrait4D, photo: Portrait, *, render_resolution: int
) -> Iterator[tuple[str, Callable[[], object], int]]:
    """Name, work and number of frames of each stage.

    Args:
        model: that takes what the tracker gives.
        photo: to animate; it is looked at before.
        render_resolution: side of the volume-rendered image.
    """
    tracker, found, device = random_tracker(model.device), known_face(), model.device
    image = _frame(0)

    def track(frame: UInt8[Tensor, "height width 3"]) -> TrackedFace:
        tracker.locate(frame, found.box, detected=False)
        return tracker.describe(frame, found)

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_video(place / "driving.mp4", (_frame(number) for number in range(FRAMES)), fps=25.0)

        def clip(session: Session) -> None:
            with VideoReader(place / "driving.mp4") as reader:
                tracked = (frames_of(track(frame)) for frame in reader.stream())
                write_video(place / "made.mp4", session.steps(tracked), fps=25.0)

        yield "detection", lambda: tracker.detector(prepare(image, DETECTED_HEIGHT).to(device)), 1
        yield "tracking", lambda: track(image), 1
        with model.session(photo, render_resolution=render_resolution) as session:
            yield "raw clip", lambda: clip(session), FRAMES


def _frame(number: int) -> UInt8[Tensor, "720 1280 3"]:
    """A picture of no meaning, another one for each number."""
    rows, columns = torch.linspace(0, 255, HEIGHT)[:, None], torch.linspace(0, 255, WIDTH)
    channels = (rows + number * 3, columns.expand(HEIGHT, -1) + rows / 2, 255 - columns.expand(HEIGHT, -1))
    return torch.stack([channel.expand(HEIGHT, WIDTH) % 256 for channel in channels], dim=-1).to(torch.uint8)
