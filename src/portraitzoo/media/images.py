"""Images in files and in tensors: reading, writing, and the step from network output to 8 bits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from portraitzoo.errors import MediaError
from portraitzoo.files import replacing

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})

QuantisationRule = Literal["pv3d", "stylegan", "threedvidgen", "round"]
Resampling = Literal["bilinear", "bicubic", "lanczos"]

_measured: ContextVar[QuantisationRule | Literal["model"] | None] = ContextVar("measured", default=None)


@contextmanager
def measured_output(rule: QuantisationRule | Literal["model"] = "model") -> Iterator[None]:
    """While network output is being measured: :func:`to_uint8` follows one rule and refuses what is not finite.

    Bytes hide NaN (it becomes some grey level), and so a broken model would get a number.

    Args:
        rule: for every picture, whatever the model would choose; ``model`` leaves that to it.
    """
    before = _measured.set(rule)
    try:
        yield
    finally:
        _measured.reset(before)


def to_uint8(
    image: Float[Tensor, "batch 3 height width"], rule: QuantisationRule = "pv3d"
) -> UInt8[Tensor, "batch height width 3"]:
    """8-bit pictures of network output, by the rule of the system that is being reproduced.

    The rules differ by up to one grey level, which metrics notice; the same one belongs on every side of a comparison.

    Args:
        image: values nominally in [-1, 1]; what lies outside saturates.
        rule: ``pv3d``: truncate ``(x + 1) / 2 * 255``; ``stylegan``: truncate ``x * 127.5 + 128``;
            ``threedvidgen``: truncate ``clamp(x / 2 + 0.5) * 255``; ``round``: nearest of ``(x + 1) / 2 * 255``.

    Raises:
        MediaError: for another rule; within :func:`measured_output` also for NaN or infinity.
    """
    measured = _measured.get()
    if measured is not None and not torch.isfinite(image).all():
        raise MediaError("the network's picture holds NaN or infinite numbers: its weights are broken")
    match rule if measured in (None, "model") else measured:
        case "pv3d":
            grey = (image + 1) / 2 * 255
        case "stylegan":
            grey = image * 127.5 + 128
        case "threedvidgen":
            grey = (image / 2 + 0.5).clamp(0, 1) * 255
        case "round":
            grey = (image + 1) / 2 * 255 + 0.5
        case _:
            raise MediaError(f"unknown 8-bit rule {rule!r}: choose pv3d, stylegan, threedvidgen or round")
    return grey.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def from_uint8(frames: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3 height width"]:
    """Network input in [-1, 1] of 8-bit pictures: ``(x / 255 - 0.5) / 0.5`` in float32."""
    return (frames.permute(0, 3, 1, 2).to(torch.float32) / 255 - 0.5) / 0.5


def check_image(image: Tensor) -> None:
    """Find out whether a tensor is one 8-bit RGB picture.

    Raises:
        MediaError: if it is not uint8 [height, width, 3] with at least one pixel.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise MediaError(f"an image is uint8 [height, width, 3] (RGB), not {image.dtype} {list(image.shape)}")


def resample(
    image: UInt8[Tensor, "_ _ 3"], height: int, width: int, rule: Resampling
) -> UInt8[Tensor, "{height} {width} 3"]:
    """A picture of another size by Pillow's filters, which average over what a new pixel covers; channels in any order.

    Args:
        image: on any device.
        height: of the result, at least 1.
        width: of the result, at least 1.
        rule: name of the filter.
    """
    picture = Image.fromarray(image.cpu().numpy())
    return torch.from_numpy(np.array(picture.resize((width, height), Image.Resampling[rule.upper()])))


def read_image(path: str | Path) -> UInt8[Tensor, "height width 3"]:
    """Read a PNG, JPEG, WebP, BMP or TIFF file as RGB.

    Grey images are repeated to three channels, alpha is dropped (the hidden colour shows), 16 bits are scaled to 8, and
    the orientation that cameras note in JPEG files is applied.

    Raises:
        MediaError: if the file is absent, empty, damaged or no image.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise MediaError(f"cannot read the image {path}: {error.strerror}") from error
    return decode_image(content, str(path))


def decode_image(content: bytes, name: str) -> UInt8[Tensor, "height width 3"]:
    """RGB picture of the bytes of an image file; see :func:`read_image`.

    Raises:
        MediaError: if they are none; the message calls them ``name``.
    """
    if not content:
        raise MediaError(f"the image {name} is empty (0 bytes): copy it again or remove it")
    try:
        pixels = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise MediaError(f"{name} is no image that can be read, or it is damaged: copy it again or remove it")
    return torch.from_numpy(pixels)


def has_alpha(header: bytes) -> bool:
    """Whether the first 26 bytes of a file are those of a PNG with an alpha channel (colour types 4 and 6)."""
    return header.startswith(b"\x89PNG") and header[25:26] in (b"\x04", b"\x06")


def encode_image(image: UInt8[Tensor, "height width 3"], suffix: str = ".png") -> bytes:
    """The bytes of an image file of an RGB picture; ``suffix`` names the format as in :func:`write_image`."""
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix.lower() == ".webp" else []
    return cv2.imencode(suffix, cv2.cvtColor(image.cpu().numpy(), cv2.COLOR_RGB2BGR), options)[1].tobytes()


def write_image(path: str | Path, image: UInt8[Tensor, "height width 3"]) -> Path:
    """Write an RGB image; the suffix names the format (.png, .webp and .tiff without loss, .jpg with).

    Raises:
        MediaError: if the suffix is none of an image format.
        ZooError: if the place cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise MediaError(f"{path.name} names no image format: end it in .png or .jpg")
    with replacing(path) as temporary:
        temporary.write_bytes(encode_image(image, path.suffix))
    return path


def natural_order(path: Path) -> list[tuple[bool, int, str]]:
    """Sorting key by name that counts: ``frame2`` comes before ``frame10``."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"([0-9]+)", path.name)]


def list_images(folder: str | Path) -> list[Path]:
    """Image files directly in ``folder`` (hidden files left out), in natural order; empty if there are none."""
    return sorted(
        (path for path in Path(folder).iterdir() if is_visible(path) and path.suffix.lower() in IMAGE_SUFFIXES),
        key=natural_order,
    )


def is_visible(path: Path) -> bool:
    """Whether a file is meant to be seen: not hidden, so neither a half-written one nor a Finder's resource fork."""
    return not path.name.startswith(".")
