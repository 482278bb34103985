"""A family small enough for tests: one linear layer, its config, its training's leftovers and its converter."""

from dataclasses import dataclass

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.conversion import Conversion


@dataclass(frozen=True)
class ToyConfig:
    width: int = 3
    depths: tuple[int, ...] = (1, 2)
    render_resolution: int = 64


class Toy(nn.Module, PyTorchModelHubMixin):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.Linear(config.width, 2)


def convert(checkpoint: dict) -> Conversion:
    weight, bias = checkpoint.get("official.weight"), checkpoint.get("official.bias")
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        raise CheckpointError("the checkpoint lacks the tensor official.weight or official.bias")
    extra = checkpoint.get("critic", weight)
    config = {"width": weight.shape[1], "depths": [1, 2]}
    tensors = {"model": {"layer.weight": weight, "layer.bias": bias}, "training": {"critic": extra}}
    return Conversion(config, tensors, {"official.counter": "counts batches"})
