"""Short runs of a family's training, for its tests."""

from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer

from portraitzoo.training.history import History


def trainer(root: Path, steps: int, **options: object) -> Trainer:
    """A quiet trainer on the CPU that logs every update."""
    return Trainer(
        **{
            "max_steps": steps,
            "accelerator": "cpu",
            "devices": 1,
            "default_root_dir": root,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "callbacks": [History()],
        }
        | options
    )


def weights_of(training: LightningModule) -> dict[str, torch.Tensor]:
    """Copies of all tensors of a module."""
    return {name: tensor.clone() for name, tensor in training.state_dict().items()}
