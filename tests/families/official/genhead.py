"""What the tests of all families need to know about GenHead: a fresh tiny model (around a made-up head, so that neither
FLAME nor the free head is needed), its official file, its training set.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import yaml

# The writer of pickles and the made-up head live beside their own tests.
sys.path.append(str(Path(__file__).resolve().parents[2] / "parity"))
sys.path.append(str(Path(__file__).resolve().parents[2] / "faces"))
import persistence_pickles
from official.eg3d_release import released
from toy_head import toy_arrays

from portraitzoo.faces.flame_head import FlameHead, HeadSizes
from portraitzoo.files import shipped
from portraitzoo.hub.conversion import official_name
from portraitzoo.hub.eg3d_tensors import DISCRIMINATOR_TABLE
from portraitzoo.media.portrait_lmdb import PortraitRecord, write_portraits
from portraitzoo.methods.genhead.cameras import frontal, label_of
from portraitzoo.methods.genhead.discriminator import Discriminator, DiscriminatorConfig
from portraitzoo.methods.genhead.model import GenHead
from portraitzoo.methods.genhead.motions import identity_shape, motion_rows
from portraitzoo.methods.genhead.network import Generator, GenHeadConfig
from portraitzoo.methods.genhead.weights import GENERATOR_TABLE, HEAD

VERB, FRAMES = "sample", 3
OPTIONS = {"num_frames": FRAMES, "motion": "random"}
ARGUMENTS = ["--frames", "3", "--motion", "random"]
FIT = [
    "--config",
    "genhead/tiny",
    "--data.batch_size",
    "2",
    "--model.init_from",
    "genhead-tiny",
    "--model.head",
    "null",
]
FIT += ["--model.network", "null", "--model.discriminator", "null"]
INIT_TELLS_SIZES = True
METRICS = ("fid", "identity", "warping")  # its data are photos


def fresh(seed: int = 0) -> GenHead:
    """An untrained model of the tiny recipe's size."""
    recipe = yaml.safe_load((shipped("configs") / "genhead" / "tiny.yaml").read_text())
    head = FlameHead.from_arrays(toy_arrays())
    config = GenHeadConfig(**recipe["model"]["init_args"]["network"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GenHead(replace(config, head=HeadSizes.of_arrays(toy_arrays()))).eval()
    model.generator.head.load_state_dict(head.state_dict())
    return model


def as_converted(seed: int = 1) -> GenHead:
    """A model as conversion leaves it: the file tells everything but how shapes are drawn."""
    model, default = fresh(seed), GenHeadConfig()
    model.config = replace(model.config, random_shapes=default.random_shapes, shape_spread=default.shape_spread)
    return model


def write_official(model: GenHead, path: Path) -> Path:
    """``model`` as the original trainer would have saved it, with a raw generator and a discriminator."""
    judge = Discriminator(DiscriminatorConfig.beside(model.config)).state_dict()
    official = {str(official_name(name, DISCRIMINATOR_TABLE)): tensor for name, tensor in judge.items()}
    networks = {"G": _released(fresh(2).generator), "D": persistence_pickles.module("D", official, {})}
    return persistence_pickles.write(path, networks | {"G_ema": _released(model.generator)})


def write_training_set(model: GenHead, folder: Path, clips: int = 3) -> Path:
    """Images of the model itself, all of them head."""

    def records():
        for seed in range(clips):
            image = model.sample(seed, 1, motion="random").frames[0]
            label = torch.cat([label_of(frontal()), identity_shape(seed)[0], motion_rows("random", seed, 1)[0]])
            yield PortraitRecord(image, torch.full_like(image, 255), label, None)

    return write_portraits(folder, "heads", model.config.image_resolution, records())


def _released(generator: Generator) -> persistence_pickles.Persistent:
    config = generator.config
    settings = {"depth_resolution": config.samples, "depth_resolution_importance": config.samples}
    settings |= {"box_warp": config.box_warp, "superresolution_noise_mode": "none"}
    return released(generator, GENERATOR_TABLE, "PartTriPlaneGeneratorDeform", HEAD, settings)
