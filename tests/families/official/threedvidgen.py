"""What the tests of all families need to know about 3D-Aware Video Generation: a fresh tiny model, its official file,
its training set.
"""

import sys
from pathlib import Path

import torch
import yaml

from portraitzoo.files import shipped
from portraitzoo.methods.threedvidgen.discriminator import DiscriminatorConfig, ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.threedvidgen.model import ThreeDVidGen
from portraitzoo.methods.threedvidgen.network import ThreeDVidGenConfig

sys.path.append(str(Path(__file__).resolve().parents[2] / "parity"))  # the writer of pickles lives beside its reader
from threedvidgen_files import official_discriminators, official_generator, write_snapshot

VERB, FRAMES = "sample", 3
OPTIONS = {"num_frames": FRAMES, "trajectory": "yaw"}
ARGUMENTS = ["--frames", "3", "--trajectory", "yaw"]
FIT = ["--config", "threedvidgen/tiny", "--data.batch_size", "2"]
INIT_TELLS_SIZES = True
METRICS = ("fvd", "fid", "identity", "warping")


def fresh(seed: int = 0) -> ThreeDVidGen:
    """An untrained model of the tiny recipe's size."""
    recipe = yaml.safe_load((shipped("configs") / "threedvidgen" / "tiny.yaml").read_text())
    return _seeded(ThreeDVidGenConfig(**recipe["model"]["init_args"]["network"]), seed)


def as_converted(seed: int = 1) -> ThreeDVidGen:
    """A model as conversion leaves it: the file tells everything."""
    return fresh(seed)


def write_official(model: ThreeDVidGen, path: Path) -> Path:
    """``model`` as the original trainer would have saved it, with a raw generator and discriminators."""
    sizes = DiscriminatorConfig.beside(model.config)
    judges = official_discriminators(ImageDiscriminator(sizes), VideoDiscriminator(sizes))
    generators = {"G": official_generator(fresh(2).generator), "G_ema": official_generator(model.generator)}
    return write_snapshot(path, model.config, generators, judges)


def write_training_set(model: ThreeDVidGen, folder: Path, clips: int = 3) -> Path:
    """Clips of the model itself."""
    for seed in range(clips):
        model.sample(seed, 18, trajectory="yaw").save(folder / f"clip{seed}.mp4")
    return folder


def _seeded(config: ThreeDVidGenConfig, seed: int) -> ThreeDVidGen:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ThreeDVidGen(config).eval()
