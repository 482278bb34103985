"""``portraitzoo.load``: from a name or a path to a network that is ready to use."""

import dataclasses
import inspect
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from portraitzoo.errors import CheckpointError, UnknownEntryError, ZooError
from portraitzoo.hub.checkpoints import read_checkpoint
from portraitzoo.hub.converting import dotted
from portraitzoo.hub.download import fetch
from portraitzoo.hub.folders import class_of, is_model_folder, read_config, read_tensors
from portraitzoo.hub.index import get_entry, list_models

LAST_CHECKPOINT = Path("checkpoints") / "last.ckpt"
_AVERAGE = "_ema"
_PATH_SUFFIXES = {".ckpt", ".pt", ".pth", ".pkl", ".safetensors", ".tar"}


def load(
    name_or_path: str | os.PathLike[str],
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """A network with its weights, in eval mode.

    Args:
        name_or_path: the name of an entry (``zoo list``), fetched and converted on first use; or a folder in our format
            (from ``zoo convert``, ``zoo publish`` or ``save_pretrained``); or a training run's folder or checkpoint,
            whose averaged generator is taken. A folder in our format wins over an entry of the same name.
        device: where to put it; None for the best that works here (CUDA, else Apple's GPU, else CPU).
        dtype: floating-point type of its weights; None leaves them as stored (float32).

    Raises:
        UnknownEntryError: if it is neither an entry nor a path.
        WeightsUnavailableError: if the weights are not on this machine and cannot be fetched.
        CheckpointError: if the files are damaged, incomplete, or do not fit the class.
        ZooError: if the device does not exist here.
    """
    module = _load(name_or_path).eval().requires_grad_(False)
    try:
        return module.to(device=best_device() if device is None else torch.device(device), dtype=dtype)
    except (RuntimeError, AssertionError) as error:
        raise ZooError(f"cannot use the device {device}: {str(error).splitlines()[0]}") from error


def best_device() -> torch.device:
    """CUDA if there is one, else Apple's GPU if it computes, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        try:
            torch.ones(1, device="mps").add(1)
        except RuntimeError:
            return torch.device("cpu")
        return torch.device("mps")
    return torch.device("cpu")


def build(cls: type[nn.Module], config: Mapping[str, Any], origin: str) -> nn.Module:
    """An instance of ``cls`` from the plain values of a ``config.json``; the global random state is left as it was.

    Args:
        cls: a class whose constructor takes these values, or one ``config`` dataclass of them.
        config: the values; lists become tuples.
        origin: where they come from, for the message.

    Raises:
        CheckpointError: if the values are not those that the class takes.
    """
    values = {name: _tuples(value) for name, value in config.items()}
    settings = _config_class(cls)
    try:
        with torch.random.fork_rng(devices=[]):
            return cls(settings(**values)) if settings else cls(**values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the settings of {origin} do not fit {cls.__name__}: {error}") from error


def fill(module: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> nn.Module:
    """Load ``tensors`` into ``module``: exactly its own names and shapes.

    Raises:
        CheckpointError: naming tensors that are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    wrong = [
        f"{name} is {list(tensors[name].shape)}, not {list(own[name].shape)}"
        for name in own.keys() & tensors.keys()
        if own[name].shape != tensors[name].shape
    ]
    problems = {
        "missing tensors": [name for name in own if name not in tensors],
        "unexpected tensors": [name for name in tensors if name not in own],
        "wrong shapes": sorted(wrong),
    }
    for problem, names in problems.items():
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(
                f"{origin} does not fit {type(module).__name__}: {problem}: {', '.join(names[:3])}{more}"
            )
    module.load_state_dict(dict(tensors))
    return module


@dataclasses.dataclass(frozen=True)
class Run:
    """What a training run's checkpoint holds of the model that it trains.

    Attributes:
        family: ``pv3d`` ...
        cls: dotted path of the model's class.
        config: its settings.
        tensors: the training module's tensors; where the run keeps an average of a network (``generator_ema``), that
            stands in the network's place.
        checkpoint: everything in the file.
        path: the file.
    """

    family: str
    cls: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    checkpoint: Mapping[str, Any]
    path: Path

    def model_tensors(self) -> dict[str, Tensor]:
        """The tensors of the model alone, without what only training needs (discriminators, counters).

        Raises:
            CheckpointError: if the settings do not fit the class.
        """
        module = build(_model_class(self.cls), self.config, str(self.path))
        parts = {name.partition(".")[0] for name in module.state_dict()}
        return {name: tensor for name, tensor in self.tensors.items() if name.partition(".")[0] in parts}

    def training_tensors(self) -> dict[str, Tensor]:
        """The networks as they are in training, from which it can go on; without counters, averages and what a network
        has in common with its average (tables, constants).
        """
        state, kept = self.checkpoint["state_dict"], {}
        for name, tensor in state.items():
            network, _, rest = name.partition(".")
            average = state.get(f"{network}{_AVERAGE}.{rest}")
            if rest and not network.endswith(_AVERAGE) and (average is None or not torch.equal(average, tensor)):
                kept[name] = tensor
        return kept


def read_run(path: str | Path) -> Run:
    """Read a training run's checkpoint without running anything in it.

    Args:
        path: a Lightning checkpoint of ours (``state_dict``, and ``portraitzoo`` with ``family``, ``network`` and
            ``init_from``), or the run's folder.

    Raises:
        CheckpointError: if it is damaged or no run's checkpoint.
    """
    path = Path(path)
    path = path / LAST_CHECKPOINT if path.is_dir() else path
    content = read_checkpoint(path)
    checkpoint: dict[str, Any] = content if isinstance(content, dict) else {}
    record, tensors = checkpoint.get("portraitzoo"), checkpoint.get("state_dict")
    if not isinstance(record, dict) or not isinstance(tensors, dict) or not all(isinstance(n, str) for n in tensors):
        raise CheckpointError(
            f"{path} is no checkpoint of a portraitzoo run: an official file is first converted with "
            f"`zoo convert FAMILY {path.name} --out DIR`"
        )
    family, config = str(record.get("family")), record.get("network")
    classes = {entry.cls for entry in list_models(family) if entry.cls}
    if not isinstance(config, dict) or len(classes) != 1:
        raise CheckpointError(f"{path} does not tell its network's sizes: it was written by another version")
    parts = {name.partition(".")[0] for name in tensors}
    chosen = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {name} is no tensor")
        part, _, rest = name.partition(".")
        if part.endswith(_AVERAGE):
            chosen[f"{part.removesuffix(_AVERAGE)}.{rest}"] = tensor
        elif part + _AVERAGE not in parts:
            chosen[name] = tensor
    return Run(family, classes.pop(), config, chosen, checkpoint, path)


def assemble(cls: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], origin: str) -> nn.Module:
    """The network of a class of the index, with its weights.

    Args:
        cls: dotted path.
        config: plain values of its settings.
        tensors: its state dict.
        origin: where they come from, for messages.

    Raises:
        CheckpointError: if the index has no such class, or settings or tensors do not fit it.
    """
    return fill(build(_model_class(cls), config, origin), tensors, origin)


def _load(name_or_path: str | os.PathLike[str]) -> nn.Module:
    path = Path(name_or_path)
    if is_model_folder(path):
        return _load_folder(path)
    if path.is_file() or (path / LAST_CHECKPOINT).is_file():
        run = read_run(path)
        return assemble(run.cls, run.config, run.model_tensors(), str(path))
    name = os.fspath(name_or_path)
    if path.is_dir() and os.sep in name:
        raise CheckpointError(f"{path} holds neither model.safetensors and config.json nor {LAST_CHECKPOINT}")
    if os.sep in name or path.suffix in _PATH_SUFFIXES:
        raise UnknownEntryError(f"there is no file or folder {path}")
    entry = get_entry(name)
    if entry.cls is None:
        use = "`zoo eval`" if entry.task == "statistics" else f"options of {entry.family}'s models"
        raise UnknownEntryError(f"{name} is no network but {entry.task}: it is used by name in {use}")
    return _load_folder(fetch(entry), entry.cls)


def _load_folder(folder: Path, cls: str | None = None) -> nn.Module:
    config = read_config(folder)
    return assemble(cls or class_of(folder) or _class_with(config, folder), config, read_tensors(folder), str(folder))


def family_of(model: nn.Module) -> str | None:
    """The family that a model's class belongs to in the index, or None."""
    path = f"{type(model).__module__}.{type(model).__qualname__}"
    return next((entry.family for entry in list_models() if entry.cls == path), None)


def _model_class(path: str) -> type[nn.Module]:
    # The path may come out of a downloaded file, so only classes that the index names are imported.
    if path not in {entry.cls for entry in list_models()}:
        raise CheckpointError(f"the class {path!r} is not one of the index: is it of a newer version?")
    return typing.cast(type[nn.Module], dotted(path))


def _class_with(config: Mapping[str, Any], folder: Path) -> str:
    """The class whose config dataclass has these very fields (``save_pretrained`` does not name the class)."""
    fitting = []
    for path in dict.fromkeys(entry.cls for entry in list_models() if entry.cls):
        settings = _config_class(_model_class(path))
        if settings is not None and {item.name for item in dataclasses.fields(settings)} == set(config):
            fitting.append(path)
    if len(fitting) != 1:
        raise CheckpointError(f"{folder} does not tell which class its weights belong to: its settings fit none here")
    return fitting[0]


def _config_class(cls: type[nn.Module]) -> Any:
    parameters = list(inspect.signature(cls.__init__).parameters)[1:]
    if parameters != ["config"]:
        return None
    annotation = typing.get_type_hints(cls.__init__).get("config")
    return annotation if dataclasses.is_dataclass(annotation) else None


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
