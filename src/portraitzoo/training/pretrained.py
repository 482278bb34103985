"""What a training run can start from: an entry of the index, a folder of ours, or another run's checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.download import fetch
from portraitzoo.hub.folders import is_model_folder, read_config, read_tensors
from portraitzoo.hub.index import get_entry
from portraitzoo.hub.loading import read_run

AVERAGED = "generator_ema."
RAW = "generator."


@dataclass(frozen=True)
class Pretrained:
    """Weights under the names of a training module, and the sizes of their networks.

    Attributes:
        source: what the user called it.
        network: fields of the generator's configuration.
        discriminator: those of the discriminators'; None if the source does not tell.
        tensors: weights of the training module's state dict, at least the averaged generator's.
    """

    source: str
    network: Mapping[str, Any]
    discriminator: Mapping[str, Any] | None
    tensors: Mapping[str, Tensor]


def read_pretrained(source: str, family: str) -> Pretrained:
    """Read an entry by name, a folder with ``model.safetensors`` and ``config.json``, or a run (folder or ``.ckpt``).

    Raises:
        CheckpointError: if it is damaged or of another family.
        UnknownEntryError: if it is neither a path nor an entry.
    """
    path = Path(source)
    if is_model_folder(path):
        return _read_folder(source, path)
    if path.exists():
        return _read_run(source, path, family)
    entry = get_entry(source)
    if entry.family != family:
        raise CheckpointError(f"{source} is a {entry.family} model: start {family} training from a {family} entry")
    return _read_folder(source, fetch(entry))


def load_fitting(module: nn.Module, start: Pretrained) -> None:
    """Load what ``start`` has into ``module``; what a generator or its average lacks is taken from the other.

    Raises:
        CheckpointError: if a network of ``start`` is incomplete or of another size; the message names a tensor.
    """
    tensors = dict(start.tensors)
    for have, lack in ((AVERAGED, RAW), (RAW, AVERAGED)):
        tensors = {lack + n.removeprefix(have): t for n, t in tensors.items() if n.startswith(have)} | tensors
    own = module.state_dict()
    for name, tensor in tensors.items():
        if name not in own:
            raise CheckpointError(f"{start.source} has a tensor {name} that this network has not: change `network`")
        if own[name].shape != tensor.shape:
            raise CheckpointError(
                f"{start.source} does not fit: {name} is {list(tensor.shape)}, the configured network wants "
                f"{list(own[name].shape)}; leave `network` out to take its sizes"
            )
    parts = {name.partition(".")[0] for name in tensors}
    missing = [name for name in own if name.partition(".")[0] in parts and name not in tensors]
    if missing:
        raise CheckpointError(f"{start.source} lacks the tensor {missing[0]} of the configured network")
    module.load_state_dict(tensors, strict=False)


def _read_run(source: str, path: Path, family: str) -> Pretrained:
    run = read_run(path)
    if run.family != family:
        raise CheckpointError(f"{source} is a run of {run.family} training, not of {family}")
    networks = {name: tensor for name, tensor in run.checkpoint["state_dict"].items() if "." in name}
    return Pretrained(source, run.config, run.checkpoint["portraitzoo"].get("discriminator"), networks)


def _read_folder(source: str, folder: Path) -> Pretrained:
    averaged = {AVERAGED + name.removeprefix(RAW): tensor for name, tensor in read_tensors(folder).items()}
    rest = read_tensors(folder, "training") if (folder / "training.safetensors").is_file() else {}
    return Pretrained(source, read_config(folder), None, averaged | rest)
