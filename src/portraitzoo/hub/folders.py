"""Our own format: a folder with ``config.json``, ``model.safetensors`` and perhaps ``training.safetensors``.

``config.json`` holds exactly the arguments (or the fields of the config dataclass) of the class that the weights
belong to, as ``PyTorchModelHubMixin`` writes and reads it; the class itself stands in the metadata of
``model.safetensors``.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from portraitzoo.errors import CheckpointError
from portraitzoo.files import replacing

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CLASS = "class"


def is_model_folder(path: str | Path) -> bool:
    """Whether ``path`` is a folder in our format."""
    return (Path(path) / WEIGHTS).is_file() and (Path(path) / CONFIG).is_file()


def write_folder(
    folder: str | Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    *,
    cls: str | None,
    further: Mapping[str, str] | None = None,
) -> None:
    """Write a folder in our format: all of it or nothing.

    Args:
        folder: what to write; an existing folder there is replaced as a whole.
        config: what ``config.json`` holds.
        tensors: file stem (``model``, ``training``) -> name -> tensor; tensors may share memory.
        cls: dotted path of the class that ``model`` belongs to; None for data that is no network.
        further: further text files: name -> content.

    Raises:
        ZooError: if the disk is full or the place cannot be written.
    """
    metadata = {"format": "pt"} | ({CLASS: cls} if cls else {})
    with replacing(folder) as temporary:
        temporary.mkdir()
        for stem, named in tensors.items():
            path = temporary / f"{stem}.safetensors"
            save_file(_separate(named), path, metadata=metadata)
            path.chmod(0o644)  # safetensors lets only the owner read it, but caches and checkouts are shared
        (temporary / CONFIG).write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")
        for name, content in (further or {}).items():
            (temporary / name).write_text(content, encoding="utf-8")


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each contiguous and alone in its storage, as safetensors wants them; copied where needed."""
    separate: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().contiguous()
        storage = own.untyped_storage()
        if storage.data_ptr() in taken or storage.nbytes() != own.nbytes:
            own = own.clone()
        taken.add(own.untyped_storage().data_ptr())
        separate[name] = own
    return separate


def read_config(folder: str | Path) -> dict[str, Any]:
    """Content of ``config.json``.

    Raises:
        CheckpointError: if it is missing, or is not a JSON object.
    """
    path = Path(folder) / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"cannot read {path}: it is not a JSON object of settings")
    return config


def read_tensors(folder: str | Path, stem: str = "model") -> dict[str, Tensor]:
    """Tensors of ``<stem>.safetensors``, on the CPU.

    Raises:
        CheckpointError: if the file is missing, damaged or cut short.
    """
    path = Path(folder) / f"{stem}.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {path.name}: it is not a complete model folder")
    try:
        return load_file(os.fspath(path))
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot read {path}: the file is damaged or cut short ({error})") from error


def class_of(folder: str | Path) -> str | None:
    """Dotted path of the class that the folder's weights belong to; None where the folder does not tell.

    Raises:
        CheckpointError: if ``model.safetensors`` is damaged or cut short.
    """
    path = Path(folder) / WEIGHTS
    try:
        with safetensors.safe_open(os.fspath(path), framework="pt") as file:
            return (file.metadata() or {}).get(CLASS)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot read {path}: the file is damaged or cut short ({error})") from error
