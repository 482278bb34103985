"""What happens to frames before a network sees them, against the tools whose rules these are."""

import io

import cv2
import numpy as np
import pytest
import torch
from evaluation_cases import make_clip
from PIL import Image
from torch import nn

from portraitzoo.errors import MediaError
from portraitzoo.media.clip import Clip
from portraitzoo.media.degrade import jpeg_coded
from portraitzoo.media.images import measured_output, to_uint8
from portraitzoo.metrics.preparation import fitted
from portraitzoo.metrics.protocols import Protocol


def noisy_clip(height: int, width: int, num_frames: int = 2) -> Clip:
    generator = torch.Generator().manual_seed(height * width)
    return Clip(torch.randint(0, 256, (num_frames, height, width, 3), generator=generator, dtype=torch.uint8))


@pytest.mark.parametrize(("height", "width"), [(50, 36), (37, 60), (16, 16)])
def test_centre_crop_and_float_resize_are_those_of_3dvidgen(height: int, width: int):
    clip = noisy_clip(height, width)
    protocol = Protocol("p", crop="centre", size=16, resize="torch", resized="floats")
    side, top, left = min(height, width), max(height - width, 0) // 2, max(width - height, 0) // 2
    square = clip.frames[:, top : top + side, left : left + side].permute(0, 3, 1, 2).float()
    expected = nn.functional.interpolate(square, (16, 16), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    torch.testing.assert_close(fitted(clip.frames, protocol).float(), expected, rtol=0, atol=0)
    rounded = fitted(clip.frames, Protocol("p", crop="centre", size=16, resize="torch"))
    assert rounded.dtype == torch.uint8
    assert (rounded.float() - expected).abs().max() <= 0.5


def test_resizing_follows_the_tool_that_the_protocol_names():
    clip = noisy_clip(40, 30)
    pictures = clip.frames.numpy()

    def resized(rule: str) -> np.ndarray:
        return fitted(clip.frames, Protocol("p", size=20, resize=rule)).numpy()

    lanczos = [np.asarray(Image.fromarray(p).resize((20, 20), Image.Resampling.LANCZOS)) for p in pictures]
    assert np.array_equal(resized("lanczos"), np.stack(lanczos))
    bilinear = [cv2.resize(picture, (20, 20), interpolation=cv2.INTER_LINEAR) for picture in pictures]
    assert np.array_equal(resized("opencv"), np.stack(bilinear))
    columns = np.arange(20) * 3 // 2
    assert np.array_equal(resized("nearest"), pictures[:, ::2][:, :, columns])


def test_frames_that_fit_are_not_touched():
    frames = noisy_clip(16, 16).frames
    for rule in ("opencv", "torch", "lanczos", "nearest"):
        assert fitted(frames, Protocol("p", size=16, resize=rule)) is frames
    assert fitted(frames, Protocol("p")) is frames


def test_jpeg_is_pillows_of_quality_75():
    clip = make_clip(0, 3, height=33, width=50)
    coded = jpeg_coded(clip)
    for frame, found in zip(clip.frames.numpy(), coded.frames.numpy(), strict=True):
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG")
        assert np.array_equal(np.asarray(Image.open(file)), found)
    with pytest.raises(MediaError, match="1 to 100"):
        jpeg_coded(clip, quality=0)


def test_measured_output_follows_one_rule_and_refuses_what_is_not_finite():
    image = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)
    with measured_output("stylegan"):
        assert torch.equal(to_uint8(image, "pv3d"), to_uint8(image, "stylegan"))
    with measured_output():
        assert torch.equal(to_uint8(image, "round"), to_uint8(image, "round"))
        with pytest.raises(MediaError, match="NaN"):
            to_uint8(image * torch.nan)
    assert to_uint8(image * torch.nan).shape == (1, 4, 4, 3)
    assert not torch.equal(to_uint8(image, "stylegan"), to_uint8(image, "pv3d"))
