"""Portrait4D's reconstructor: its two ways of computing agree, gradients flow, sources and frames pair up."""

import pytest
import torch
from portrait4d_faces import SMALL, small_model

from portraitzoo.methods.portrait4d.benchmark import driving_frames
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.network import Portrait4DOutput, Reconstructor


@pytest.fixture(scope="module")
def network() -> Reconstructor:
    return small_model().generator


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(count)) * 2 - 1


def forward(network: Reconstructor, photos: torch.Tensor, count: int = 2) -> tuple[torch.Tensor, Portrait4DOutput]:
    frames = driving_frames(small_model(), count)
    source = network.encode(photos, frames.motion[: len(photos)])
    planes = network.planes(source, frames.motion)
    return planes, network.render(planes, source, frames.camera, network.neck_field(frames.head))


def test_batches_with_gradients_are_frames_without(network):
    planes, output = forward(network, images(2))
    with torch.no_grad():
        one_by_one, expected = forward(network, images(2))
    torch.testing.assert_close(planes.detach(), one_by_one, atol=1e-4 * float(one_by_one.abs().max()), rtol=0)
    torch.testing.assert_close(output.image.detach(), expected.image, atol=2e-3, rtol=0)
    torch.testing.assert_close(output.opacity.detach(), expected.opacity, atol=2e-3, rtol=0)


def test_every_weight_learns():
    network = small_model().generator.requires_grad_(True)
    planes, output = forward(network, images(2))
    loss = output.image.square().mean() + output.opacity.mean() + planes.square().mean()
    loss.backward()
    still = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert still == []
    finite = [name for name, parameter in network.named_parameters() if not torch.isfinite(parameter.grad).all()]
    assert finite == []


@torch.no_grad()
def test_one_photo_serves_all_frames(network):
    shared = forward(network, images(1))[1].image
    each = forward(network, images(1).expand(2, -1, -1, -1))
    frames = driving_frames(small_model(), 2)
    source = network.encode(images(1).expand(2, -1, -1, -1), frames.motion[:1].expand(2, -1))
    planes = network.planes(source, frames.motion)
    again = network.render(planes, source, frames.camera, network.neck_field(frames.head)).image
    torch.testing.assert_close(shared, again, atol=2e-3, rtol=0)
    assert not each[1].image.equal(shared)  # there the second photo has the second frame's motion


@torch.no_grad()
def test_a_scale_of_each_frame(network):
    motion = driving_frames(small_model(), 2).motion
    scale = torch.tensor([0.0, 1.0])[:, None, None]
    mixed = network.planes(network.encode(images(2), motion, scale), motion, scale)
    for row, value in enumerate((0.0, 1.0)):
        rows = slice(row, row + 1)
        alone = network.planes(network.encode(images(2)[rows], motion[rows], value), motion[rows], value)
        torch.testing.assert_close(mixed[rows], alone, atol=1e-4 * float(alone.abs().max()), rtol=0)


@torch.no_grad()
def test_background_is_the_photos_own(network):
    black, white = -torch.ones(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    outputs = [forward(network, photo, 1)[1] for photo in (black, white)]
    assert not outputs[0].background.allclose(outputs[1].background)
    for output in outputs:
        composed = (output.foreground + 1) / 2 + (1 - output.opacity) * (output.background + 1) / 2
        torch.testing.assert_close(output.image_raw, composed * 2 - 1, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"super_resolution_input": 32}, "does not give image_resolution"),
        ({"image_resolution": 72, "super_resolution_input": 18}, "not a multiple of 16"),
    ],
)
def test_sizes_that_do_not_fit(changes, told):
    with pytest.raises(ValueError, match=told):
        Portrait4DConfig(
            **{"super_resolution_channels": SMALL.super_resolution_channels, "image_resolution": 64} | changes
        )
