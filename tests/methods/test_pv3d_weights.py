import pytest
import torch
from test_pv3d_network import SMALL
from torch import Tensor

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.conversion import official_name
from portraitzoo.layers.resampling import binomial_kernel
from portraitzoo.methods.pv3d.discriminator import DiscriminatorConfig, ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.pv3d.network import Generator, PV3DConfig
from portraitzoo.methods.pv3d.weights import DISCRIMINATOR_TABLE, GENERATOR_TABLE, convert


@pytest.fixture(scope="module")
def networks() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    sizes = DiscriminatorConfig.beside(SMALL)
    return {
        "generator": Generator(SMALL),
        "generator_ema": Generator(SMALL),
        "img_discriminator": ImageDiscriminator(sizes),
        "vid_discriminator": VideoDiscriminator(sizes),
    }


@pytest.fixture
def official(networks: dict[str, torch.nn.Module]) -> dict[str, Tensor]:
    """What an official checkpoint of these networks would hold."""
    state = {"pl_mean": torch.zeros([])}
    for network, module in networks.items():
        table = GENERATOR_TABLE if network.startswith("generator") else DISCRIMINATOR_TABLE
        for name, tensor in module.state_dict().items():
            theirs = official_name(name, table)
            assert theirs is not None, name
            state[f"{network}.{theirs}"] = tensor
            if theirs.endswith("conv1.bias"):
                layer = theirs.removesuffix(".bias")
                state[f"{network}.{layer}.resample_filter"] = binomial_kernel(tensor)
                if theirs.startswith("superresolution"):
                    resolution = SMALL.image_resolution if "block1" in theirs else SMALL.image_resolution // 2
                    state[f"{network}.{layer}.noise_const"] = torch.zeros(resolution, resolution)
                    state[f"{network}.{layer}.noise_strength"] = torch.zeros([])
    return state


def test_every_tensor_arrives_or_is_dropped_for_a_reason(official, networks) -> None:
    conversion = convert({"model": official, "optimizer": {}, "num_updates": 7})
    assert (
        PV3DConfig(**conversion.config | {"depth_samples": 8, "importance_samples": 8, "render_resolution": 16})
        == SMALL
    )
    ours = {**conversion.tensors["model"]} | {f"training/{n}": t for n, t in conversion.tensors["training"].items()}
    assert len(ours) + len(conversion.dropped) == len(official)
    assert all(conversion.dropped.values())
    for prefix, name in (
        ("generator.", "generator_ema"),
        ("training/generator.", "generator"),
        ("training/image_discriminator.", "img_discriminator"),
        ("training/video_discriminator.", "vid_discriminator"),
    ):
        for key, tensor in networks[name].state_dict().items():
            assert ours.pop(prefix + key) is tensor or torch.equal(ours.get(prefix + key, tensor), tensor)
    assert not ours


def test_forms_that_official_code_accepts(official) -> None:
    expected = convert({"model": official})
    bare = convert(official)
    distributed = convert({"model": {f"module.{name}": tensor for name, tensor in official.items()}})
    older = convert({"model": official | {"generator.deform_field.weight": torch.zeros(3)}})
    for conversion in (bare, distributed, older):
        for file, tensors in expected.tensors.items():
            assert conversion.tensors[file].keys() == tensors.keys()
    assert "deform" in next(name for name in older.dropped if name not in expected.dropped)


def test_a_checkpoint_stripped_to_the_averaged_generator_still_samples(official) -> None:
    conversion = convert({name: tensor for name, tensor in official.items() if name.startswith("generator_ema.")})
    assert list(conversion.tensors) == ["model"]


@pytest.mark.parametrize(
    "name",
    [
        "generator_ema.backbone.synthesis.b8.conv0.weight",
        "generator.to_img_raw.bias",
        "generator_ema.backbone.mapping.w_avg",
        "img_discriminator.b16.skip.weight",
        "vid_discriminator.b4.fc.bias",
    ],
)
def test_missing_unexpected_and_misshapen_tensors_are_named(official, name: str) -> None:
    without = {key: tensor for key, tensor in official.items() if key != name}
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        convert(without)
    with pytest.raises(CheckpointError, match=f"unexpected tensor, {name}x"):
        convert(official | {f"{name}x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        convert(official | {name: torch.zeros(5, 4, 3, 2, 1)})


def test_other_checkpoints_are_refused(official) -> None:
    with pytest.raises(CheckpointError, match="not a PV3D checkpoint"):
        convert({"backbone.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="is not a tensor"):
        convert({"model": {"generator_ema.x": "text"}})
    with pytest.raises(CheckpointError, match="is not a state dict"):
        convert({"model": 3})
    with pytest.raises(CheckpointError, match="lacks the tensors img_discriminator"):
        convert({name: tensor for name, tensor in official.items() if not name.startswith("img_")})
    filtered = next(name for name in official if name.endswith("resample_filter"))
    with pytest.raises(CheckpointError, match=filtered.replace(".", r"\.")):
        convert(official | {filtered: torch.ones(4, 4)})
