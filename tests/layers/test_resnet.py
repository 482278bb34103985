"""Residual networks are torchvision's, to the last digit."""

import pytest
import torch

from portraitzoo.hub.state_dicts import converted, resnet_names
from portraitzoo.layers.conv_norm import FixedNorm, fold_batch_norms
from portraitzoo.layers.resnet import ResNet

torchvision = pytest.importorskip("torchvision")


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("resnet18", {"block": "basic", "depths": [2, 2, 2, 2]}),
        ("resnet50", {"block": "bottleneck", "depths": [3, 4, 6, 3]}),
    ],
)
def test_torchvisions_network_converts_and_agrees(name, config):
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    tensors = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    ours = ResNet(**config)
    ours.load_state_dict(converted(tensors, ResNet, config, resnet_names()).tensors["model"])
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        expected = [x := getattr(theirs, f"layer{stage}")(x) for stage in (1, 2, 3, 4)]
        found = ours(image)
        folded = fold_batch_norms(ours)(image)
    assert [list(part.shape) for part in found] == [list(part.shape) for part in expected]
    assert ours.out_channels == [part.shape[1] for part in found]
    for outputs in (found, folded):
        for part, golden in zip(outputs, expected, strict=True):
            assert (part - golden).abs().max() <= 1e-5 * golden.abs().max()
    assert not any(isinstance(module, FixedNorm) for module in ours.modules())
