"""What the tests of all families need to know about Portrait4D: a fresh tiny model (around a made-up head, so that
neither FLAME nor the free head is needed), its official file, its training set, and a prepared face to animate.
"""

import atexit
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import yaml

# The writer of pickles, the made-up head and the clips live beside their own tests.
sys.path.append(str(Path(__file__).resolve().parents[2] / "parity"))
sys.path.append(str(Path(__file__).resolve().parents[2] / "faces"))
sys.path.append(str(Path(__file__).resolve().parents[2] / "methods"))
import persistence_pickles
from official.eg3d_release import released
from portrait4d_clips import clip, write_set
from toy_head import toy_arrays

from portraitzoo.faces.flame_head import FlameHead, HeadSizes
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.files import shipped
from portraitzoo.hub.conversion import official_name
from portraitzoo.hub.eg3d_tensors import DISCRIMINATOR_TABLE
from portraitzoo.media.images import write_image
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.discriminator import Discriminator, DiscriminatorConfig
from portraitzoo.methods.portrait4d.folders import IMAGES, write_frames
from portraitzoo.methods.portrait4d.model import Portrait4D
from portraitzoo.methods.portrait4d.network import Reconstructor
from portraitzoo.methods.portrait4d.prepared import Frames
from portraitzoo.methods.portrait4d.weights import HEAD, RECONSTRUCTOR_TABLE
from portraitzoo.rendering.cameras import LABEL_SIZE

SIZE = 64


def _prepared(frames: int) -> str:
    """A prepared folder of a toy clip, gone when the tests are over."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shown = clip(0, SIZE, frames)
    names = [f"{frame:05d}" for frame in range(frames)]
    write_frames(
        folder,
        Frames.from_labels(shown.labels, FlameParameters.from_label(shown.labels[:, LABEL_SIZE:]).motion()),
        names,
    )
    (folder / IMAGES).mkdir()
    for name, image in zip(names, shown.images, strict=True):
        write_image(folder / IMAGES / f"{name}.png", image)
    return str(folder)


VERB, FRAMES = "animate", 3
FACE = _prepared(FRAMES)
OPTIONS = {"source": FACE, "driving": FACE, "trajectory": "orbit"}
ARGUMENTS = ["--source", FACE, "--driving", FACE, "--trajectory", "orbit"]
FIT = ["--config", "portrait4d/tiny", "--data.batch_size", "2", "--model.init_from", "portrait4d-tiny"]
FIT += ["--model.network", "null", "--model.discriminator", "null"]
INIT_TELLS_SIZES = True
METRICS = ()


def fresh(seed: int = 0) -> Portrait4D:
    """An untrained model of the tiny recipe's size."""
    recipe = yaml.safe_load((shipped("configs") / "portrait4d" / "tiny.yaml").read_text())
    head = FlameHead.from_arrays(toy_arrays())
    config = Portrait4DConfig(**recipe["model"]["init_args"]["network"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Portrait4D(replace(config, head=HeadSizes.of_arrays(toy_arrays()))).eval()
    model.generator.head.load_state_dict(head.state_dict())
    return model


def as_converted(seed: int = 1) -> Portrait4D:
    """A model with everything that a checkpoint cannot tell at its default, as conversion leaves it."""
    model, default = fresh(seed), Portrait4DConfig()
    untold = ("atrous_rates", "canonical_heads", "plane_heads", "render_resolution", "surface_level")
    model.config = replace(model.config, **{name: getattr(default, name) for name in untold})
    return model


def write_official(model: Portrait4D, path: Path) -> Path:
    """``model`` as the original trainer would have saved it, with a raw reconstructor and a discriminator."""
    judge = Discriminator(DiscriminatorConfig(image_resolution=SIZE, channel_base=512, channel_max=16)).state_dict()
    official = {str(official_name(name, DISCRIMINATOR_TABLE)): tensor for name, tensor in judge.items()}
    networks = {"G": _released(fresh(2).generator), "D": persistence_pickles.module("D", official, {})}
    return persistence_pickles.write(path, networks | {"G_ema": _released(model.generator)})


def write_training_set(model: Portrait4D, folder: Path, clips: int = 3) -> Path:
    """Clips of blobs."""
    return write_set(folder, clips, SIZE)


def _released(network: Reconstructor) -> persistence_pickles.Persistent:
    config = network.config
    settings = {
        "depth_resolution": config.depth_samples,
        "depth_resolution_importance": config.importance_samples,
        "box_warp": config.box_warp,
    }
    return released(network, RECONSTRUCTOR_TABLE, "TriPlaneReconstructorNeutralize", HEAD, settings)
