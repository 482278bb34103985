"""A small set of clips for the tests of Portrait4D's training: blobs that open a mouth while they turn."""

from pathlib import Path

import torch

from portraitzoo.media.portrait_lmdb import ClipRecord, write_clips
from portraitzoo.methods.portrait4d.cameras import FOCAL, around_head, label_of_camera
from portraitzoo.rendering.cameras import Camera, pinhole


def clip(number: int, size: int, frames: int = 4, motions: int = 548) -> ClipRecord:
    """A blob of its own colour on a background of its own; the mouth is as open as the jaw."""
    generator = torch.Generator().manual_seed(number)
    axis = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    color, behind = torch.rand(2, 3, generator=generator)
    jaw = torch.linspace(0, 0.3, frames)
    images, masks = [], []
    for opened in jaw.tolist():
        blob = (x / 0.6) ** 2 + (y / 0.8) ** 2 < 1
        mouth = (x / 0.3) ** 2 + ((y - 0.4) / (opened + 0.02)) ** 2 < 1
        image = torch.where(blob[..., None], color, behind)
        images.append((torch.where(mouth[..., None], torch.zeros(3), image) * 255).to(torch.uint8))
        masks.append((blob[..., None].expand(-1, -1, 3) * 255).to(torch.uint8))
    zero = torch.zeros(frames)
    view = around_head(torch.linspace(-0.2, 0.2, frames), zero, zero, torch.zeros(frames, 3), zero + 4.2)
    camera = Camera(view.cam2world, pinhole(FOCAL).expand(frames, 3, 3))
    labels = torch.zeros(frames, 437)
    labels[:, :25] = label_of_camera(camera)
    labels[:, 25:125] = torch.randn(100, generator=generator) * 0.3
    labels[:, 426] = torch.linspace(-0.2, 0.2, frames)
    labels[:, 428] = jaw
    motion = torch.randn(frames, motions, generator=generator)
    return ClipRecord(torch.stack(images), torch.stack(masks), labels, motion)


def write_set(folder: Path, clips: int = 4, size: int = 64, motions: int = 548) -> Path:
    """An LMDB folder of such clips."""
    return write_clips(folder, "toy", size, (clip(number, size, motions=motions) for number in range(clips)))
