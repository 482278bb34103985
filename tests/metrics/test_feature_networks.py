"""Feature networks: agreement with the public implementations on shared weights, conversion, and their manners."""

import copy
import doctest
import importlib

import lpips as lpips_package
import pytest
import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from portraitzoo.errors import CheckpointError, UnknownEntryError, WeightsUnavailableError, ZooError
from portraitzoo.hub.index import list_models
from portraitzoo.layers.conv_norm import ConvNorm, fold_batch_norms
from portraitzoo.metrics import arcface, features, inception, inception3d, lpips
from portraitzoo.metrics.features import FeatureNetwork, feature_network, randomise, tensor_checksum
from portraitzoo.metrics.resizing import bicubic_clean, bilinear_tensorflow1


def noise_images(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def lively(network: nn.Module, seed: str = "test") -> nn.Module:
    """The network with weights and norm statistics that all matter to its output."""
    randomise(network, seed)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith(("running_mean", "bias")):
                tensor.normal_(0, 0.1, generator=generator)
            elif name.endswith("running_var"):
                tensor.uniform_(0.7, 1.4, generator=generator)
    return network.eval()


def test_inception_agrees_with_torch_fidelity(tmp_path) -> None:
    network = lively(inception.Inception())
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    names = ["64", "192", "768", "2048", "logits_unbiased"]
    theirs = FeatureExtractorInceptionV3("x", names, feature_extractor_weights_path=str(tmp_path / "weights.pth"))
    images = noise_images(2, 70, 90)
    expected = theirs(images.permute(0, 3, 1, 2).contiguous())
    ours = FeatureNetwork("x", network, comparable=False)
    for name, values in zip(names, expected, strict=True):
        torch.testing.assert_close(ours(images, feature=name), values, rtol=1e-3, atol=1e-5 * float(values.abs().max()))


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_agrees_with_its_package(net) -> None:
    theirs = lpips_package.LPIPS(net=net, pnet_rand=True, verbose=False)  # trained linear layers, random backbone
    conversion = lpips.convert(theirs.state_dict())
    network = lpips.LPIPS(**conversion.config)
    network.load_state_dict(conversion.tensors["model"])
    images, others = (torch.rand(2, 3, 64, 72, generator=torch.Generator().manual_seed(s)) * 2 - 1 for s in (0, 1))
    with torch.no_grad():
        torch.testing.assert_close(network(images, others), theirs(images, others).flatten(), rtol=1e-4, atol=1e-7)
        theirs.spatial = True
        torch.testing.assert_close(network(images, others, spatial=True), theirs(images, others), rtol=1e-4, atol=1e-7)
        assert (network(images, images) == 0).all()


def test_lpips_can_be_a_training_loss() -> None:
    network = lpips.LPIPS("alex", smooth_norm=True)
    image = torch.zeros(1, 3, 64, 64, requires_grad=True)
    network(image, torch.zeros(1, 3, 64, 64)).sum().backward()
    assert torch.isfinite(image.grad).all()


def test_tensorflow_resize_reads_at_target_times_ratio() -> None:
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    expected = (torch.arange(20) * 8 / 20).clamp(max=7)
    torch.testing.assert_close(bilinear_tensorflow1(ramp, 8, 20)[0, 0, 3], expected)
    assert torch.equal(bilinear_tensorflow1(ramp, 8, 8), ramp)


def test_clean_resize_is_pillows() -> None:
    image_module = pytest.importorskip("PIL.Image")
    images = noise_images(1, 40, 53)
    for height, width in ((17, 20), (90, 100)):
        channels = [
            torch.frombuffer(
                bytearray(
                    image_module.fromarray(images[0, :, :, c].float().numpy())
                    .resize((width, height), image_module.Resampling.BICUBIC)
                    .tobytes()
                ),
                dtype=torch.float32,
            ).view(height, width)
            for c in range(3)
        ]
        ours = bicubic_clean(images.permute(0, 3, 1, 2).float(), height, width)[0]
        torch.testing.assert_close(ours, torch.stack(channels).clamp(0, 255), rtol=1e-4, atol=1e-3)


def test_i3d_batches_and_lengths() -> None:
    network = FeatureNetwork("i3d", lively(inception3d.I3D()), comparable=False)
    clips = torch.stack([noise_images(9, 30, 40, seed=s) for s in range(2)])
    together = network(clips)
    assert together.shape == (2, 400)
    torch.testing.assert_close(network(clips[1:]), together[1:], rtol=1e-3, atol=1e-4 * float(together.abs().max()))
    with pytest.raises(ZooError, match="at least 9 frames, not 8"):
        network(clips[:, :8])
    assert torch.equal(network(clips.float()), together)
    with pytest.raises(ZooError, match="multiply them by 255"):
        network(clips.float() / 255)
    with pytest.raises(ZooError, match="uint8"):
        network(clips.double())


@pytest.mark.parametrize("sizes", [(16, 14, 15), (9, 7, 8), (5, 3, 28)])
@pytest.mark.parametrize(
    ("kernels", "strides"),
    [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))],
)
def test_flat_poolings_equal_a_solid_one(sizes, kernels, strides) -> None:
    x = torch.rand(2, 5, *sizes, generator=torch.Generator().manual_seed(0))
    padded = nn.functional.pad(x, inception3d.same_padding(sizes, kernels, strides))
    expected = nn.functional.max_pool3d(padded, kernels, strides)
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        assert torch.equal(inception3d.max_pool(x.contiguous(memory_format=layout), kernels, strides), expected)


@pytest.mark.parametrize("build", [lambda: arcface.IResNet((1, 1, 1, 1)), arcface.IRSE50, inception.Inception])
def test_folding_changes_nothing_but_rounding(build) -> None:
    network, images = lively(build()), noise_images(2, 40, 40)
    with torch.inference_mode():
        before = network(images)
        after = fold_batch_norms(copy.deepcopy(network))(images)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=2e-5 * float(before.abs().max()))
    assert not any(isinstance(m, ConvNorm) and m.conv.bias is None for m in fold_batch_norms(network).modules())


def official_iresnet() -> dict[str, Tensor]:
    """A state dict by the names of arcface_torch, one block a stage."""
    widths, state = (64, 64, 128, 256, 512), {}

    def norm(name: str, channels: int) -> None:
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{leaf}"] = torch.ones(channels)
        state[f"{name}.num_batches_tracked"] = torch.tensor(0)

    state["conv1.weight"], state["prelu.weight"] = torch.zeros(64, 3, 3, 3), torch.ones(64)
    norm("bn1", 64)
    for stage in range(1, 5):
        before, after, block = widths[stage - 1], widths[stage], f"layer{stage}.0"
        state[f"{block}.conv1.weight"] = torch.zeros(after, before, 3, 3)
        state[f"{block}.conv2.weight"] = torch.zeros(after, after, 3, 3)
        state[f"{block}.prelu.weight"] = torch.ones(after)
        state[f"{block}.downsample.0.weight"] = torch.zeros(after, before, 1, 1)
        norm(f"{block}.bn1", before)
        for name in ("bn2", "bn3", "downsample.1"):
            norm(f"{block}.{name}", after)
    norm("bn2", 512)
    state["fc.weight"], state["fc.bias"] = torch.zeros(512, 25088), torch.zeros(512)
    norm("features", 512)
    return state


def test_conversion_is_total() -> None:
    official = official_iresnet()
    conversion = arcface.convert_iresnet(official)
    assert conversion.config == {"depths": [1, 1, 1, 1]}
    arcface.IResNet(**conversion.config).load_state_dict(conversion.tensors["model"])
    assert all(name.endswith("num_batches_tracked") for name in conversion.dropped)
    assert len(conversion.tensors["model"]) + len(conversion.dropped) == len(official)
    without = {name: t for name, t in official.items() if not name.endswith("num_batches_tracked")}
    assert arcface.convert_iresnet(without).tensors["model"].keys() == conversion.tensors["model"].keys()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: s.pop("layer3.0.bn3.bias"), "layer3.0.bn3.bias"),
        (lambda s: s.update({"layer2.0.extra.weight": torch.zeros(1)}), "layer2.0.extra.weight"),
        (lambda s: s.update({"fc.weight": torch.zeros(512, 25)}), r"fc.weight.*\[512, 25\]"),
        (lambda s: s.update({"fc.bias": "a string"}), "fc.bias is a str"),
        (lambda s: [s.pop(name) for name in list(s) if name.startswith("layer4")], "layer4"),
    ],
)
def test_other_checkpoints_are_refused_by_the_tensor(change, complaint) -> None:
    official = official_iresnet()
    change(official)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        arcface.convert_iresnet(official)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("convert", [inception3d.convert, inception.convert, arcface.convert_ir_se50, lpips.convert])
def test_a_checkpoint_of_another_network_is_refused(convert) -> None:
    with pytest.raises(CheckpointError):
        convert(official_iresnet())
    with pytest.raises(CheckpointError):
        convert({})


def test_every_entry_of_the_index_builds_and_is_known_by_its_checksum() -> None:
    entries = [entry.name for entry in list_models("metrics") if entry.task == "features"]
    checksums = set()
    large = {"vgg16-fc2", "c3d-ucf101"}  # hundreds of megabytes: the slow tests of classifiers build them
    assert large < set(entries)
    entries = [name for name in entries if name not in large]
    for name in entries:
        network = feature_network(name, weights="random")
        assert not network.comparable and "NOT COMPARABLE" in repr(network) and "random" in network.name
        checksums.add(network.checksum)
    assert len(checksums) == len(entries) >= 7
    assert feature_network(entries[-1], weights="random").checksum in checksums


def test_random_weights_tell_images_apart() -> None:
    network = feature_network("inception-2015-12-05", weights="random")
    sharp = noise_images(2, 64, 64)
    flat = torch.full_like(sharp, 128)
    found = network(torch.cat([sharp, flat]))
    assert torch.isfinite(found).all()
    assert (found[0] - found[2]).norm() > 3 * (found[0] - found[1]).norm() > 0


def test_checksum_is_of_names_shapes_and_values() -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1)}
    base = tensor_checksum(tensors)
    assert tensor_checksum(dict(reversed(tensors.items()))) == base
    assert tensor_checksum({**tensors, "a": tensors["a"].t().contiguous().t()}) == base
    for other in (
        {"c": tensors["a"], "b": tensors["b"]},
        {**tensors, "a": tensors["a"].view(3, 2)},
        {**tensors, "b": torch.tensor(2)},
    ):
        assert tensor_checksum(other) != base


def test_networks_measure_alike_inside_training() -> None:
    network = FeatureNetwork("x", lively(arcface.IResNet((1, 1, 1, 1))), comparable=False)
    images = noise_images(2, 112, 112)
    expected = network(images)
    assert not expected.requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(network(images), expected)


def test_unavailable_weights_tell_how_to_get_them(monkeypatch, tmp_path) -> None:
    def unavailable(name: str, device: object) -> nn.Module:
        raise WeightsUnavailableError("the server is away")

    monkeypatch.setattr(features, "load", unavailable)
    with pytest.raises(WeightsUnavailableError, match=r"zoo download i3d-videogpt --file PATH") as caught:
        feature_network("i3d-videogpt")
    assert "\n" not in str(caught.value)
    with pytest.raises(UnknownEntryError, match="no feature network"):
        feature_network("pv3d-voxceleb512-fvd-stats")
    with pytest.raises(ZooError, match="official or random"):
        feature_network("lpips-alex", weights="invented")


@pytest.mark.parametrize("module", ["frechet", "fvd", "fid", "identity", "chamfer", "warping"])
def test_examples_in_docstrings_run(module) -> None:
    home = importlib.import_module(f"portraitzoo.metrics.{module}")
    result = doctest.testmod(home, extraglobs={"torch": torch})
    assert result.attempted > 0 and result.failed == 0
