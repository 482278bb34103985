import pytest
import torch

from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.faces.parsing import BiSeNet, normalise
from portraitzoo.hub.faces.parsing import convert
from portraitzoo.layers.conv_norm import fold_batch_norms

torch.set_num_threads(1)
SMALL = {
    "depths": [1, 1, 1, 1],
    "widths": [8, 8, 12, 16],
    "stem": 8,
    "context": 8,
    "fused": 8,
    "auxiliary": 4,
    "classes": 5,
}


def network() -> BiSeNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BiSeNet(**SMALL).eval()


def pictures(batch: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(batch, 3, 6, 6, generator=generator) * 255
    grown = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return grown.permute(0, 2, 3, 1).to(torch.uint8)


def test_every_pixel_of_pictures_of_any_size_gets_a_label():
    labels = network().labels(pictures(2, 70, 90))
    assert labels.shape == (2, 70, 90) and labels.dtype == torch.int64
    assert int(labels.min()) >= 0 and int(labels.max()) < 5 and len(labels.unique()) > 1
    assert network().labels(pictures(2, 70, 90)[:0]).shape == (0, 70, 90)


def test_labels_do_not_depend_on_the_batch_or_on_folding():
    images = pictures(3, 64, 64)
    whole = network().labels(images)
    assert network().labels(images[1:2]).equal(whole[1:2])
    assert float((fold_batch_norms(network()).labels(images) == whole).double().mean()) > 0.999


def test_a_picture_and_the_same_one_enlarged_are_labelled_alike():
    large = pictures(1, 1024, 1024)
    small = large.reshape(1, 512, 2, 512, 2, 3).double().mean((2, 4)).to(torch.uint8)
    labels = network().labels(large)
    assert float((labels[:, ::2, ::2] == network().labels(small)).double().mean()) > 0.97


def test_gradients_reach_the_pictures():
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    logits = network()(normalise(images))
    assert logits.shape == (1, 5, 64, 64)
    logits.square().sum().backward()
    assert images.grad is not None and float(images.grad.abs().sum()) > 0


@pytest.mark.parametrize(
    "images", [torch.zeros(4, 4, 3), torch.zeros(1, 0, 4, 3).byte(), torch.zeros(1, 4, 4, 4).byte()]
)
def test_what_is_no_picture_is_told(images):
    with pytest.raises(ZooError, match="face parsing takes uint8 images"):
        network().labels(images)


def test_another_checkpoint_is_told():
    with pytest.raises(CheckpointError, match=r"cp\.resnet\.layer1"):
        convert({"x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"lacks the tensor cp\.resnet\.conv1\.weight"):
        convert({"cp.resnet.layer1.0.conv1.weight": torch.zeros(8, 8, 3, 3)})
