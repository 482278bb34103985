"""Making a clip worse on purpose: what a metric must notice."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from portraitzoo.errors import MediaError
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import decode_image
from portraitzoo.media.video import VideoReader, write_video


def degrade(clip: Clip, blur: float = 1.5, quality: float = 1.0) -> Clip:
    """The clip as a bad lens and a thin line would bring it: blurred, then coded at a low bit rate.

    Args:
        clip: any clip; only its frames change.
        blur: standard deviation of a Gaussian in pixels; 0 leaves the picture sharp.
        quality: of the H.264 coding, 0 (worst) to 10 (almost as it was).

    Raises:
        MediaError: for a negative blur or an impossible quality.
    """
    if not 0 <= blur < float("inf"):
        raise MediaError(f"a blur is 0 or a positive number of pixels, not {blur}")
    frames = clip.frames
    if blur > 0:
        frames = torch.from_numpy(np.stack([cv2.GaussianBlur(frame, (0, 0), blur) for frame in frames.numpy()]))
    with tempfile.TemporaryDirectory() as folder:
        coded = write_video(Path(folder) / "coded.mp4", frames, clip.fps, quality)
        with VideoReader(coded) as reader:
            # The coder grows odd sizes by a line, which was not in the clip.
            frames = reader.read()[:, : clip.frames.shape[1], : clip.frames.shape[2]].contiguous()
    return replace(clip, frames=frames, info={**clip.info, "degraded": {"blur": blur, "quality": quality}})


def jpeg_coded(clip: Clip, quality: int = 75) -> Clip:
    """The clip with every frame coded as a JPEG file (4:2:0 chroma) and read again.

    Args:
        clip: any clip; only its frames change.
        quality: of libjpeg, 1 to 100. Pillow's default, and so 3DVidGen's and 3DFaceShop's, is 75.

    Raises:
        MediaError: for an impossible quality.
    """
    if not 1 <= quality <= 100:
        raise MediaError(f"a JPEG quality is 1 to 100, not {quality}")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    coded = [
        cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)[1].tobytes()
        for frame in clip.frames.numpy()
    ]
    return replace(clip, frames=torch.stack([decode_image(content, "the frame") for content in coded]))
