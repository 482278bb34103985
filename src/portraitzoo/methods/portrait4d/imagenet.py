"""What Portrait4D's global encoder starts from: a ResNet-34 that has learned ImageNet's classes, without its norms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.checkpoints import read_checkpoint
from portraitzoo.hub.download import fetch_file
from portraitzoo.hub.index import get_entry
from portraitzoo.methods.portrait4d.encoders import IMAGE_CHANNELS, GlobalEncoder

ENTRY = "resnet34-imagenet"
COLORS = 3


def start_from_imagenet(encoder: GlobalEncoder, path: str | Path | None = None) -> None:
    """Take over the convolutions of torchvision's ResNet-34; its norms and classes have no counterpart.

    The first convolution sees places beside colours: its channels are those of the original in turn, times 3/5.

    Args:
        encoder: of the official size; its pyramid stays as it is.
        path: torchvision's file; None for that of the index, downloaded on first use.

    Raises:
        CheckpointError: if the file is another, or the encoder of another size.
        WeightsUnavailableError: if the file is not here and cannot be fetched.
    """
    content = read_checkpoint(Path(path) if path else fetch_file(get_entry(ENTRY)))
    official = content if isinstance(content, Mapping) else {}
    tensors = {}
    for name, own in encoder.state_dict().items():
        if name.startswith(("pyramid.", "output.")):
            continue
        theirs = name.replace("stem.", "conv1.").replace("stages.", "").replace("shortcut.", "downsample.0.")
        tensor = official.get(theirs)
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path or ENTRY} is no ResNet-34: it lacks the tensor {theirs}")
        if name.startswith("stem."):
            channels = torch.arange(IMAGE_CHANNELS) % COLORS
            tensor = tensor[:, channels] * (COLORS / IMAGE_CHANNELS)
        if tensor.shape != own.shape:
            raise CheckpointError(
                f"{theirs} of {path or ENTRY} is {list(tensor.shape)}, the encoder wants {list(own.shape)}: only the "
                "official size can start from ImageNet"
            )
        tensors[name] = tensor
    encoder.load_state_dict(tensors, strict=False)
