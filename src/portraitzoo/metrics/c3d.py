"""C3D tuned on UCF-101, the classifier behind the video Inception Score (Tran et al. 2015, section 3.3).

The released network is TGANv2's, which 3DVidGen and StyleGAN-V use as the TorchScript archive ``c3d_ucf101.pt``: frames
squashed to 112 x 112, blue first, less the mean clip of the training set.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.hub.conversion import Conversion
from portraitzoo.metrics.resizing import channels_first, check_pixels

NUM_FRAMES = 16
INPUT_SIZE = 112
CLASSES = 101
WIDTHS = {"1a": 64, "2a": 128, "3a": 256, "3b": 256, "4a": 512, "4b": 512, "5a": 512, "5b": 512}
_POOLED = ("1a", "2a", "3b", "4b", "5b")  # convolutions with a pooling behind them


class C3D(nn.Module):
    """Clips of 16 frames to the probabilities of UCF-101's 101 classes."""

    num_features = CLASSES
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        width = 3
        self.convolutions = nn.ModuleDict()
        for name, out in WIDTHS.items():
            self.convolutions[name] = nn.Conv3d(width, out, 3, padding=1)
            width = out
        self.fc6 = nn.Linear(width * 4 * 4, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, CLASSES)
        self.register_buffer("mean", torch.full((3, NUM_FRAMES, INPUT_SIZE, INPUT_SIZE), 100.0))

    def forward(self, videos: UInt8[Tensor, "batch 16 height width 3"]) -> Float[Tensor, "batch 101"]:
        """RGB clips -> probabilities.

        Raises:
            ZooError: for other shapes or types, or another number of frames.
        """
        return self.classify(self.preprocess(videos)).softmax(1)

    def preprocess(self, videos: UInt8[Tensor, "batch 16 height width 3"]) -> Float[Tensor, "batch 3 16 112 112"]:
        """Network input: BGR, about [-128, 155]."""
        check_pixels(videos, "batch time height width 3", "C3D")
        if videos.shape[1] != NUM_FRAMES:
            raise ZooError(
                f"C3D takes clips of {NUM_FRAMES} frames, not {videos.shape[1]}: set clip_length to {NUM_FRAMES}"
            )
        frames = channels_first(videos).flip(1)
        # Corner pixels keep their places in this resizing (Chainer's), unlike in every other one of the zoo.
        frames = F.interpolate(frames, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=True)
        return frames.unflatten(0, videos.shape[:2]).transpose(1, 2) - self.mean

    def classify(self, clips: Float[Tensor, "batch 3 16 112 112"]) -> Float[Tensor, "batch 101"]:
        """Logits of preprocessed clips."""
        x = clips
        for name, convolution in self.convolutions.items():
            x = F.relu(convolution(x))
            if name in _POOLED:
                x = F.max_pool3d(x, (1, 2, 2) if name == "1a" else 2, ceil_mode=True)
        return self.fc8(F.relu(self.fc7(F.relu(self.fc6(x.flatten(1))))))


def convert(checkpoint: Mapping[str, object]) -> Conversion:
    """Weights of ``c3d_ucf101.pt``.

    The names inside that archive are documented nowhere, so its tensors are told by their order and shapes, which leave
    no choice. The mean clip may be kept as such or as what is added (128 less the mean).

    Raises:
        CheckpointError: naming a tensor that is left over, or ours that is missing.
    """
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in C3D().state_dict().items()}
    left = {name: value for name, value in checkpoint.items() if isinstance(value, Tensor)}
    found: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    for ours, shape in expected.items():
        theirs = next((name for name, value in left.items() if _bare(value) == shape), None)
        if theirs is None:
            raise CheckpointError(f"no tensor has the shape {list(shape)} of our {ours}: this is not C3D on UCF-101")
        found[ours] = left.pop(theirs).float().reshape(shape)
    for name, value in left.items():
        if value.numel() > 9:
            raise CheckpointError(f"{name} of shape {list(value.shape)} is no part of C3D")
        dropped[name] = "the exchange of red and blue, which our preprocessing does"
    if found["mean"].mean() < 64:
        found["mean"] = 128 - found["mean"]
    return Conversion({}, {"model": found}, dropped)


def _bare(tensor: Tensor) -> torch.Size:
    """Shape without leading ones."""
    shape = list(tensor.shape)
    while len(shape) > 1 and shape[0] == 1:
        shape.pop(0)
    return torch.Size(shape)
