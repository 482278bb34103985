"""What Portrait4D's losses see through ready networks, here with random weights: the wiring, not the numbers."""

import copy

import pytest
import torch

from portraitzoo.errors import UnknownEntryError, ZooError
from portraitzoo.methods.portrait4d.objective import Target, identity_loss, reconstruction_losses
from portraitzoo.methods.portrait4d.perception import Perception
from portraitzoo.metrics.features import feature_module
from portraitzoo.training.frozen import Frozen


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def perception() -> Perception:
    return Perception("random")


class Frame:
    """A frame whose pictures are all the same."""

    def __init__(self, image: torch.Tensor) -> None:
        self.image = self.image_raw = self.foreground = self.background = image
        self.opacity = self.depth = image[:, :1]
        self.foreground_features = self.background_features = image


def test_perceptual_distances_pull_on_frames(perception):
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    target = Target(image, torch.ones(2, 1, 32, 32))
    spoiled = (image + 0.2 * torch.randn_like(image)).requires_grad_()
    same = reconstruction_losses(Frame(image), target, perception.distance)["perceptual"]
    other = reconstruction_losses(Frame(spoiled), target, perception.distance)["perceptual"]
    other.backward()
    assert float(other.detach()) > float(same) and torch.isfinite(spoiled.grad).all() and spoiled.grad.any()


def test_identical_pictures_have_finite_gradients(perception):
    image = torch.full((1, 3, 16, 16), -1.0, requires_grad=True)
    perception.distance(image, image.detach()).sum().backward()
    assert torch.isfinite(image.grad).all()


def test_identity_looks_at_the_face_alone(perception):
    image, landmarks = torch.rand(1, 3, 128, 128) * 2 - 1, torch.zeros(1, 70, 2)
    eyes_nose_mouth = [[50.0, 80.0], [78.0, 80.0], [64.0, 64.0], [53.0, 50.0], [75.0, 50.0]]
    landmarks[0, [68, 69, 30, 48, 54]] = torch.tensor(eyes_nose_mouth)
    other = image.clone().requires_grad_()
    identity_loss(other, torch.rand_like(image) * 2 - 1, landmarks, perception.identity).backward()
    assert other.grad[..., 64, 64].any() and not other.grad[..., :8, :8].any()
    assert float(identity_loss(image, image, landmarks, perception.identity)) == pytest.approx(0, abs=1e-5)


def test_what_is_frozen_has_no_gradients_of_its_own_and_is_never_copied():
    network = torch.nn.Linear(2, 1)
    frozen = Frozen(network)
    point = torch.ones(1, 2, requires_grad=True)
    frozen.on(torch.device("cpu"))(point).sum().backward()
    assert point.grad.any() and network.weight.grad is None and not network.training
    assert copy.deepcopy(frozen) is frozen


def test_only_networks_can_be_looked_through():
    with pytest.raises(UnknownEntryError):
        feature_module("no-such-network")
    with pytest.raises(UnknownEntryError, match="no network"):
        feature_module("genhead-ffhq-shapes")
    with pytest.raises(ZooError, match="choose official or random"):
        feature_module("lpips-vgg", "best")  # type: ignore[arg-type]
