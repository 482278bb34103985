import pytest
import torch
from test_threedvidgen_network import KINDS, SMALL, make
from torch import Tensor

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.conversion import official_name
from portraitzoo.hub.records import Record
from portraitzoo.layers.resampling import binomial_kernel
from portraitzoo.methods.threedvidgen.discriminator import DiscriminatorConfig, ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.threedvidgen.network import ThreeDVidGenConfig
from portraitzoo.methods.threedvidgen.weights import DISCRIMINATOR_TABLE, GENERATOR_TABLE, JUDGES, convert

RENDERER = {"n_ray_samples": SMALL.ray_samples, "n_bg_samples": SMALL.background_samples}
CAMERA = {
    "range_u": [-0.8, 0.8],
    "range_v": list(SMALL.polar_range),
    "range_radius": [1.0, 1.0],
    "depth_range": [0.88, 1.12],
    "fov": 18,
    "bg_start": 0.5,
    "angular_camera": True,
    "ray_align_corner": False,
    "depth_transform": "None",
}


def record(tensors: dict[str, Tensor], attributes: dict[str, dict] | None = None, path: str = "") -> Record:
    """The record that a file's module becomes; ``attributes`` by the path of the module."""
    children: dict[str, dict[str, Tensor]] = {}
    own = {}
    for name, tensor in tensors.items():
        head, dot, rest = name.partition(".")
        if dot:
            children.setdefault(head, {})[rest] = tensor
        else:
            own[head] = tensor
    modules = {name: record(inner, attributes, f"{path}{name}.") for name, inner in children.items()}
    state = {"_parameters": own, "_buffers": {}, "_modules": modules} | (attributes or {}).get(path, {})
    return Record("persistent", "Module", state=state)


def official_tensors(config: ThreeDVidGenConfig = SMALL) -> dict[str, Tensor]:
    tensors = {official_name(name, GENERATOR_TABLE): tensor for name, tensor in make(config).state_dict().items()}
    return tensors | {"synthesis.b16.conv0.resample_filter": binomial_kernel(torch.zeros(()))}


def settings(camera: dict | None = None, as_arguments: bool = False) -> dict[str, dict]:
    told = CAMERA | (camera or {})
    if as_arguments:
        return {
            "synthesis.": {"_init_kwargs": {"camera_kwargs": told, "renderer_kwargs": RENDERER}, "n_reg_samples": 4}
        }
    objects = {"C": Record("persistent", "CameraRay", state=told), "V": Record("persistent", "V", state=RENDERER)}
    return {"synthesis.": objects | {"n_reg_samples": 4}}


def checkpoint(tensors: dict[str, Tensor] | None = None, **options: object) -> dict:
    return {"G_ema": record(official_tensors() if tensors is None else tensors, settings(**options))}


def discriminators() -> dict[str, Tensor]:
    sizes = DiscriminatorConfig.beside(SMALL)
    tensors = {}
    for judge, network in zip(JUDGES, (ImageDiscriminator(sizes), VideoDiscriminator(sizes)), strict=True):
        tensors[f"{judge}.alpha"] = torch.tensor(0.3)
        named = network.state_dict().items()
        tensors |= {f"{judge}.{official_name(name, DISCRIMINATOR_TABLE)}": tensor for name, tensor in named}
    return tensors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("as_arguments", [False, True])
def test_everything_arrives_and_the_sizes_are_read_off(kind: str, as_arguments: bool) -> None:
    config = KINDS[kind]
    conversion = convert(checkpoint(official_tensors(config), as_arguments=as_arguments))
    assert ThreeDVidGenConfig(**conversion.config) == config
    expected = {f"generator.{name}": tensor for name, tensor in make(config).state_dict().items()}
    assert conversion.tensors["model"].keys() == expected.keys() and "training" not in conversion.tensors
    assert all(torch.equal(conversion.tensors["model"][name], tensor) for name, tensor in expected.items())


def test_the_training_networks_come_along() -> None:
    whole = checkpoint() | {"G": record(official_tensors(), settings()), "D": record(discriminators())}
    whole |= {"D_ema": record({"imageD.alpha": torch.zeros(())}), "augment_pipe": None}
    conversion = convert(whole)
    training = conversion.tensors["training"]
    assert {name.partition(".")[0] for name in training} == {"generator", "image_discriminator", "video_discriminator"}
    assert {"D.imageD.alpha", "D_ema.imageD.alpha", "G.synthesis.b16.conv0.resample_filter"} <= set(conversion.dropped)


def test_what_a_file_does_not_tell_is_the_original_s_default() -> None:
    told = settings()
    del told["synthesis."]["C"].state["fov"], told["synthesis."]["V"].state["n_ray_samples"]
    config = convert({"G_ema": record(official_tensors(), told)}).config
    assert config["fov"] == 49.13 and config["ray_samples"] == 14


@pytest.mark.parametrize(
    "name",
    ["synthesis.fg_nerf.blocks.1.weight", "synthesis.bg_nerf.fc_in.bias", "synthesis.b32.conv0.w_avg", "mapping.w_avg"],
)
def test_missing_unexpected_and_misshapen_tensors_are_named(name: str) -> None:
    official = official_tensors()
    pattern = name.replace(".", r"\.")
    with pytest.raises(CheckpointError, match=pattern):
        convert(checkpoint({key: tensor for key, tensor in official.items() if key != name}))
    with pytest.raises(CheckpointError, match=f"unexpected tensor, G_ema.{pattern}x"):
        convert(checkpoint(official | {f"{name}x": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=pattern):
        convert(checkpoint(official | {name: torch.zeros(5, 4, 3)}))


@pytest.mark.parametrize(
    ("camera", "complaint"),
    [
        ({"ray_align_corner": True}, "sets ray_align_corner to True"),
        ({"depth_transform": "LogWarp"}, "sets depth_transform to 'LogWarp'"),
        ({"fov": "wide"}, "sets fov to 'wide'"),
        ({"range_u": [1, 2, 3]}, "sets range_u"),
    ],
)
def test_settings_of_no_released_network_are_refused(camera: dict, complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        convert(checkpoint(camera=camera))


def test_other_files_are_refused() -> None:
    with pytest.raises(CheckpointError, match="not one of 3D-Aware Video Generation"):
        convert({"model": {}})
    with pytest.raises(CheckpointError, match="no synthesis network"):
        convert({"G_ema": record({"mapping.w_avg": torch.zeros(3)})})
    with pytest.raises(CheckpointError, match="not both of G and D"):
        convert(checkpoint() | {"D": record(discriminators())})
    with pytest.raises(CheckpointError, match=r"unexpected tensor, D\.cameraD"):
        convert(checkpoint() | {"G": checkpoint()["G_ema"], "D": record({"cameraD.x": torch.zeros(1)})})
    filtered = official_tensors() | {"synthesis.b16.conv0.resample_filter": torch.ones(4, 4)}
    with pytest.raises(CheckpointError, match="resample_filter"):
        convert(checkpoint(filtered))
