"""Feature networks ready for measuring: loaded, frozen, fast, and known by their checksum."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from portraitzoo.errors import UnknownEntryError, WeightsUnavailableError, ZooError
from portraitzoo.hub.converting import dotted
from portraitzoo.hub.index import get_entry
from portraitzoo.hub.loading import build, load
from portraitzoo.layers.conv_norm import ready_to_measure

Weights = Literal["official", "random"]


class FeatureNetwork:
    """A network that only measures: ``network(uint8 pixels) -> features``.

    It is no ``nn.Module`` on purpose: a Metric that holds it adds nothing to a model's state dict, parameters or DDP
    buckets. It follows its input from device to device, computes in true fp32 (TF32 and autocast are off inside) and
    without gradients.

    Args:
        name: what the network is called in the index.
        module: the network; it is put into eval mode, its batch norms are folded into its convolutions.
        comparable: whether these are the released weights, so that numbers compare with published ones.

    Attributes:
        checksum: sha256 of the tensors as given, before folding; equal weights have equal checksums anywhere.
        num_features: length of one feature vector.
    """

    def __init__(self, name: str, module: nn.Module, *, comparable: bool) -> None:
        self.name = name
        self.checksum = tensor_checksum(module.state_dict())
        self.comparable = comparable
        self.num_features: int = getattr(module, "num_features")  # noqa: B009  (a class constant of each network)
        self.module = ready_to_measure(module)

    def __call__(self, *inputs: Tensor, **options: Any) -> Tensor:
        """Features of a batch; the arguments are those of the network's ``forward``."""
        device = inputs[0].device
        if next(self.module.parameters()).device != device:
            self.module.to(device)
        with torch.inference_mode(), true_float32(device.type):
            return self.module(*inputs, **options)

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureNetwork:
        return self  # it never changes, and a MetricCollection copies its metrics

    def __repr__(self) -> str:
        kind = "official" if self.comparable else "NOT COMPARABLE"
        return f"FeatureNetwork({self.name!r}, {kind}, sha256 {self.checksum[:12]})"


def feature_network(
    name: str, weights: Weights = "official", device: torch.device | str | None = None
) -> FeatureNetwork:
    """The feature network that the index calls ``name``.

    Args:
        name: ``"i3d-videogpt"``, ``"inception-2015-12-05"``, ``"arcface-ir-se50"``, ...
        weights: ``"official"`` from the cache or their origin; ``"random"``: fixed pseudo-random ones, the same on
            every machine, for trying things offline. Numbers from them compare with nothing but each other.
        device: where the network starts out.

    Raises:
        UnknownEntryError: for a name that the index does not know.
        WeightsUnavailableError: if the official weights are not here and cannot be fetched.
    """
    if get_entry(name).task != "features":
        raise UnknownEntryError(f"{name} is no feature network but of the kind {get_entry(name).task!r}")
    module = feature_module(name, weights, device)
    official = weights == "official"
    return FeatureNetwork(name if official else f"{name} (random weights)", module, comparable=official)


def feature_module(name: str, weights: Weights = "official", device: torch.device | str | None = None) -> nn.Module:
    """The module within :func:`feature_network`, through which gradients go.

    Args:
        name: as there.
        weights: as there.
        device: as there.

    Raises:
        UnknownEntryError: for a name that the index does not know, or that is no network.
        WeightsUnavailableError: as there.
    """
    entry = get_entry(name)
    if entry.cls is None:
        raise UnknownEntryError(f"{name} is no network but of the kind {entry.task!r}")
    if weights == "random":
        module = build(cast(type[nn.Module], dotted(entry.cls)), entry.config, name)
        randomise(module, seed=name)
        return module.to(device)
    if weights != "official":
        raise ZooError(f"unknown weights {weights!r}: choose official or random")
    try:
        return load(name, device or "cpu")
    except WeightsUnavailableError as error:
        raise WeightsUnavailableError(
            f"{error} (with network: `zoo download {name}`; with the file: `zoo download {name} --file PATH`; "
            "random features need none, but compare with nothing published)"
        ) from error


def needed(network: FeatureNetwork | None) -> FeatureNetwork:
    """The network of a metric that is asked to look at pixels.

    Raises:
        ZooError: if the metric was made without one.
    """
    if network is None:
        raise ZooError("this metric was made without a feature network: give it one, or use update_features")
    return network


def tensor_checksum(tensors: Mapping[str, Tensor]) -> str:
    """Sha256 over names, shapes, dtypes and bytes of ``tensors`` in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {list(array.shape)} {array.dtype}\n".encode())
        digest.update(array.data if array.ndim else array.tobytes())
    return digest.hexdigest()


def randomise(module: nn.Module, seed: str) -> None:
    """Fill the convolutions and linear layers of ``module`` with He-scaled normal numbers, a pure function of ``seed``.

    Each tensor has its own PCG64 stream keyed by ``seed`` and its name; normalisation layers keep their initial values.
    """
    for path, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear):
            rng = np.random.Generator(np.random.PCG64(zlib.crc32(f"{seed}/{path}".encode())))
            noise = torch.from_numpy(rng.standard_normal(tuple(layer.weight.shape), dtype=np.float32))
            with torch.no_grad():
                layer.weight.copy_(noise * (2 / layer.weight[0].numel()) ** 0.5)
                if layer.bias is not None:
                    layer.bias.zero_()


@contextmanager
def true_float32(device_type: str) -> Iterator[None]:
    """Compute in fp32 proper: no TF32 and no autocast, whatever the surrounding training does."""
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision
