import pytest
import torch

from portraitzoo.errors import CheckpointError
from portraitzoo.faces.deep3d import Deep3D
from portraitzoo.hub.conversion import official_name
from portraitzoo.hub.faces.deep3d import TABLE, convert
from portraitzoo.layers.conv_norm import fold_batch_norms


def small() -> Deep3D:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Deep3D((1, 1, 2, 1), (4, 4, 8, 8)).eval()


IMAGES = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def official() -> dict[str, torch.Tensor]:
    return {official_name(name, TABLE) or "": tensor for name, tensor in small().state_dict().items()}


@pytest.mark.parametrize("wrap", [lambda tensors: {"net_recon": tensors, "opt_00": {}}, dict], ids=["training", "flat"])
def test_a_released_file_becomes_the_network_of_its_size(wrap):
    conversion = convert(wrap(official()))
    network = Deep3D(**conversion.config).eval()
    network.load_state_dict(conversion.tensors["model"])
    with torch.no_grad():
        assert network(IMAGES).vector().equal(small()(IMAGES).vector())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: tensors.pop("final_layers.6.bias"), "final_layers.6.bias"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "extra"),
        (lambda tensors: tensors.clear(), "residual network"),
        (lambda tensors: tensors.update({"layer9.0.conv1.weight": "text"}), "text|str"),
        (lambda tensors: tensors.update(net_recon=3), "net_recon is a int"),
    ],
)
def test_other_files_are_refused(change, says):
    tensors = official()
    change(tensors)
    with pytest.raises(CheckpointError, match=says):
        convert(tensors)


def test_gradients_reach_the_picture():
    images = IMAGES.clone().requires_grad_()
    small()(images).angles.square().sum().backward()
    assert images.grad is not None and float(images.grad.abs().max()) > 0


@torch.no_grad()
def test_faces_do_not_depend_on_their_batch_nor_on_folded_norms():
    network = small()
    both = network(IMAGES).vector()
    torch.testing.assert_close(network(IMAGES[1:]).vector(), both[1:])
    torch.testing.assert_close(fold_batch_norms(network)(IMAGES).vector(), both, atol=1e-5, rtol=1e-4)
