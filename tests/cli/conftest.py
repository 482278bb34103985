from pathlib import Path

import pytest
import torch
from toy_generator import TOY

from portraitzoo.methods.pv3d.model import PV3D


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a toy generator."""
    folder = tmp_path_factory.mktemp("toy") / "toy"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        PV3D(TOY).save_pretrained(folder)
    return folder
