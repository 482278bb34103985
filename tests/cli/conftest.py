import signal
from pathlib import Path

import pytest
import torch
from toy_generator import TOY

from portraitzoo.methods.pv3d.model import PV3D

# A shell's background job, which a test run may be, ignores Ctrl-C, and so would the programs to which tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a toy generator."""
    folder = tmp_path_factory.mktemp("toy") / "toy"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        PV3D(TOY).save_pretrained(folder)
    return folder
