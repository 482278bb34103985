"""VGG-16, C3D, and networks that come as TorchScript archives: agreement, conversion, refusal."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.hub.checkpoints import read_checkpoint
from portraitzoo.hub.conversion import official_name
from portraitzoo.hub.modules import tensors_of_module
from portraitzoo.metrics import c3d, inception3d, vgg
from portraitzoo.metrics.features import feature_network, randomise


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


class Holder(nn.Module):
    """A module with the given tensors under the given names, as an archive of another project may have them."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        children: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            first, _, rest = name.partition(".")
            if rest:
                children.setdefault(first, {})[rest] = tensor
            elif first.startswith(("running", "num", "mean")):
                self.register_buffer(first, tensor)
            else:
                self.register_parameter(first, nn.Parameter(tensor, requires_grad=False))
        for name, inside in children.items():
            self.add_module(name, Holder(inside))

    def forward(self, x: Tensor) -> Tensor:
        return x


def archived(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors after a journey through a TorchScript archive that is read without running it."""
    torch.jit.save(torch.jit.script(Holder(tensors)), path)
    return tensors_of_module(read_checkpoint(path))


def test_i3d_of_a_torchscript_archive_is_the_network_that_was_put_in(tmp_path: Path) -> None:
    network = inception3d.I3D(bn_eps=1e-3, resize="squash")
    randomise(network, "archive")
    ours = network.state_dict()
    theirs = {official_name(name, inception3d.STYLEGAN_V_NAMES): tensor for name, tensor in ours.items()}
    assert None not in theirs
    theirs |= {
        name.replace("running_mean", "num_batches_tracked"): torch.tensor(7)
        for name in theirs
        if "running_mean" in name
    }
    conversion = inception3d.convert(archived(theirs, tmp_path / "i3d_torchscript.pt"))
    assert conversion.config == {"bn_eps": 1e-3, "resize": "squash"}
    found = conversion.tensors["model"]
    assert found.keys() == ours.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in ours.items())


def c3d_tensors(network: c3d.C3D, mean: Tensor) -> dict[str, Tensor]:
    """Tensors of C3D as the Chainer port orders and names them."""
    tensors = {}
    for name, convolution in network.convolutions.items():
        tensors |= {f"conv{name}.{leaf}": value for leaf, value in convolution.state_dict().items()}
    for name in ("fc6", "fc7", "fc8"):
        tensors |= {f"{name}.{leaf}": value for leaf, value in getattr(network, name).state_dict().items()}
    return {**tensors, "mean": mean}


@pytest.mark.slow
@pytest.mark.parametrize("kept_as", ["mean", "addend"])
def test_c3d_of_a_torchscript_archive_is_the_network_that_was_put_in(tmp_path: Path, kept_as: str) -> None:
    network = c3d.C3D()
    randomise(network, "archive")
    network.mean.normal_(100, 5, generator=torch.Generator().manual_seed(0))
    mean = network.mean[None] if kept_as == "mean" else 128 - network.mean
    tensors = c3d_tensors(network, mean) | {"pre.weight": torch.eye(3).flip(0)[:, :, None, None, None]}
    read = archived(tensors, tmp_path / "c3d_ucf101.pt")
    conversion = c3d.convert(read)
    again = c3d.C3D()
    again.load_state_dict(conversion.tensors["model"])
    assert list(conversion.dropped) == ["pre.weight"]
    clips = noise(1, 16, 20, 24, 3)
    with torch.inference_mode():
        torch.testing.assert_close(again(clips), network(clips), rtol=1e-4, atol=1e-6)
    for change, complaint in (
        (lambda t: t.pop("fc7.weight"), "fc7.weight"),
        (lambda t: t.update({"further": torch.zeros(4, 4)}), "further of shape"),
    ):
        other = dict(read)
        change(other)
        with pytest.raises(CheckpointError, match=complaint):
            c3d.convert(other)


def test_c3d_sees_blue_first_keeps_corners_and_takes_the_mean_away() -> None:
    with torch.device("meta"):
        network = c3d.C3D()
    network.mean = torch.full((3, 16, 112, 112), 100.0)
    clips = noise(2, 16, 30, 50, 3)
    found = network.preprocess(clips)
    assert found.shape == (2, 3, 16, 112, 112)
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        corner = clips[:, :, row, column].flip(-1).transpose(1, 2).float() - 100
        torch.testing.assert_close(found[:, :, :, row, column], corner, rtol=0, atol=1e-3)
    with pytest.raises(ZooError, match="set clip_length"):
        network.preprocess(clips[:, :12])


@pytest.mark.slow
def test_large_entries_of_the_index_are_known_by_their_checksum() -> None:
    network = feature_network("vgg16-fc2", "random")
    assert network.num_features == 4096 and not network.comparable
    assert network.checksum == feature_network("vgg16-fc2", "random").checksum


@pytest.mark.slow
def test_c3d_gives_probabilities() -> None:
    found = feature_network("c3d-ucf101", "random")(noise(2, 16, 20, 20, 3))
    assert found.shape == (2, 101)
    torch.testing.assert_close(found.sum(1), torch.ones(2))


@pytest.mark.slow
def test_vgg_features_agree_with_torch_fidelity(tmp_path: Path) -> None:
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

    network = vgg.VGG16().eval()
    randomise(network, "agreement")
    official = {official_name(name, vgg.NAMES): tensor for name, tensor in network.state_dict().items()}
    official |= {"classifier.6.weight": torch.zeros(1000, 4096), "classifier.6.bias": torch.zeros(1000)}
    conversion = vgg.convert(official)
    assert sorted(conversion.dropped) == ["classifier.6.bias", "classifier.6.weight"]
    torch.save(official, tmp_path / "vgg16.pth")
    theirs = FeatureExtractorVGG16("x", ["fc2_relu"], feature_extractor_weights_path=str(tmp_path / "vgg16.pth"))
    images = noise(2, 70, 90, 3)
    with torch.inference_mode():
        (expected,) = theirs(images.permute(0, 3, 1, 2).contiguous())
        torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-4 * float(expected.max()))
        assert torch.equal(network(images.float()), network(images))  # floats 0..255 that were not rounded are taken
    with pytest.raises(ZooError, match="VGG-16 takes"):
        network(images.permute(0, 3, 1, 2))
