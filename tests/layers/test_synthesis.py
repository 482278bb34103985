import pytest
import torch

from portraitzoo.layers import strips
from portraitzoo.layers.synthesis import SynthesisBlock


@pytest.mark.parametrize(("channels", "noise", "clamp"), [((6, 12), True, None), ((4, 100), False, 1.0)])
@pytest.mark.parametrize("rows", [1, 5, 32])
def test_strips_give_the_whole_block(channels, noise, clamp, rows, monkeypatch) -> None:
    torch.manual_seed(0)
    block = SynthesisBlock(*channels, 8, resolution=64, image_channels=3, noise=noise, clamp=clamp)
    if noise:
        block.conv0.noise_strength.data.fill_(0.5)
        block.conv1.noise_strength.data.fill_(0.5)
    x, image, ws = torch.randn(1, channels[0], 32, 32), torch.randn(1, 3, 32, 32), torch.randn(1, 3, 8)
    whole = block(x, image, ws)
    monkeypatch.setattr(strips, "LARGE", 1)
    monkeypatch.setattr(strips, "STRIP_ROWS", rows)
    with torch.no_grad():
        assert strips.pays_off(block, x, "const")
        parts = block(x, image, ws)
        assert block(x, image, ws, keep_features=False)[0] is None
    for part, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-4)


def test_first_block_starts_from_its_constant_and_the_callback_follows_the_first_convolution() -> None:
    torch.manual_seed(0)
    block = SynthesisBlock(0, 6, 8, resolution=4, image_channels=3)
    seen = []
    x, image = block(None, None, torch.randn(2, 2, 8), after_first=lambda y: seen.append(y) or y * 0)
    assert x.shape == (2, 6, 4, 4) and image.shape == (2, 3, 4, 4)
    assert len(seen) == 1 and not x.any()


def test_image_is_upsampled_and_added_to() -> None:
    torch.manual_seed(0)
    block = SynthesisBlock(4, 6, 8, resolution=8, image_channels=3)
    x, ws = torch.randn(2, 4, 4, 4), torch.randn(2, 3, 8)
    _, without = block(x, None, ws)
    _, with_image = block(x, torch.ones(2, 3, 4, 4), ws)
    torch.testing.assert_close((with_image - without)[:, :, 2:-2, 2:-2], torch.ones(2, 3, 4, 4), rtol=1e-4, atol=1e-4)
