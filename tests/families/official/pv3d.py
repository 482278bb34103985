"""What the tests of all families need to know about PV3D: a fresh tiny model, its official file, its training set."""

from dataclasses import replace
from pathlib import Path

import torch
import yaml
from torch import nn

from portraitzoo.files import shipped
from portraitzoo.hub.conversion import official_name
from portraitzoo.layers.resampling import binomial_kernel
from portraitzoo.methods.pv3d.discriminator import DiscriminatorConfig, ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.pv3d.model import PV3D
from portraitzoo.methods.pv3d.network import PV3DConfig
from portraitzoo.methods.pv3d.weights import DISCRIMINATOR_TABLE, GENERATOR_TABLE
from portraitzoo.rendering.camera_files import save_cameras

VERB, FRAMES = "sample", 3
OPTIONS = {"num_frames": FRAMES, "trajectory": "orbit"}
ARGUMENTS = ["--frames", "3", "--trajectory", "orbit"]
FIT = ["--config", "pv3d/tiny", "--data.batch_size", "2"]
INIT_TELLS_SIZES = True
METRICS = ("fvd", "fid", "identity", "warping")


def fresh(seed: int = 0) -> PV3D:
    """An untrained model of the tiny recipe's size."""
    recipe = yaml.safe_load((shipped("configs") / "pv3d" / "tiny.yaml").read_text())
    return _seeded(PV3DConfig(**recipe["model"]["init_args"]["network"]), seed)


def as_converted(seed: int = 1) -> PV3D:
    """A model with everything that a checkpoint cannot tell at its default, as conversion leaves it."""
    default = PV3DConfig()
    untold = ("depth_samples", "importance_samples", "ray_start", "ray_end", "box_warp", "render_resolution")
    return _seeded(replace(fresh().config, **{name: getattr(default, name) for name in untold}), seed)


def write_official(model: PV3D, path: Path) -> Path:
    """``model`` as PV3D's own trainer would have saved it: all four networks under the key ``model``."""
    sizes = DiscriminatorConfig.beside(model.config)
    networks: list[tuple[str, nn.Module, tuple]] = [
        ("generator", _seeded(model.config, 2).generator, GENERATOR_TABLE),
        ("img_discriminator", ImageDiscriminator(sizes), DISCRIMINATOR_TABLE),
        ("vid_discriminator", VideoDiscriminator(sizes), DISCRIMINATOR_TABLE),
        ("generator_ema", model.generator, GENERATOR_TABLE),
    ]
    state = {"pl_mean": torch.zeros(())}
    for network, module, table in networks:
        for name, tensor in module.state_dict().items():
            state[f"{network}.{official_name(name, table)}"] = tensor
    for network in ("generator", "generator_ema"):
        state[f"{network}.backbone.synthesis.b4.resample_filter"] = binomial_kernel(torch.zeros(()))
        for block in range(len(model.config.super_resolution_channels)):
            side = model.config.super_resolution_input << (block + 1)
            for layer in ("conv0", "conv1"):
                place = f"{network}.superresolution.block{block}.{layer}"
                state[f"{place}.noise_const"] = torch.zeros(side, side)
                state[f"{place}.noise_strength"] = torch.zeros(())
    torch.save({"model": state, "num_updates": 3, "config": {"training": {"batch_size": 16}}}, path)
    return path


def write_training_set(model: PV3D, folder: Path, clips: int = 3) -> Path:
    """Clips of the model itself with the cameras that took them."""
    for seed in range(clips):
        clip = model.sample(seed, 18, trajectory="yaw", render_resolution=16)
        clip.save(folder / f"clip{seed}.mp4")
        save_cameras(folder / f"clip{seed}.json", clip.cameras)
    return folder


def _seeded(config: PV3DConfig, seed: int) -> PV3D:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PV3D(config).eval()
