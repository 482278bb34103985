"""``zoo fit``, ``validate``, ``test`` and ``predict``: LightningCLI over the recipes in ``configs/``."""

from __future__ import annotations

import logging
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.files import shipped
from portraitzoo.hub.loading import read_run

SPECIAL_CHECKPOINTS = ("last", "best", "hpc", "registry")
"""What Lightning takes for ``--ckpt_path`` besides a path."""

LONGEST_DIFFERENCE = 200
"""Characters of a list of tensors that do not fit; it can be pages long."""


def fit(arguments: list[str]) -> None:
    """Run ``zoo fit``: train, fine-tune or resume."""
    _run("fit", arguments)


def validate(arguments: list[str]) -> None:
    """Run ``zoo validate``."""
    _run("validate", arguments)


def test(arguments: list[str]) -> None:
    """Run ``zoo test``."""
    _run("test", arguments)


def predict(arguments: list[str]) -> None:
    """Run ``zoo predict``."""
    _run("predict", arguments)


class Recipe(LightningCLI):
    """LightningCLI of one recipe, whose run can be moved to another folder as a whole (``--out``)."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add ``--out``."""
        parser.add_argument("--out", type=str | None, default=None, help="Folder of the run, instead of the recipe's.")

    def before_instantiate_classes(self) -> None:
        """Move everything below the recipe's ``trainer.default_root_dir`` to ``--out``.

        Raises:
            ZooError: if the recipe names no such folder.
        """
        config = self.config[self.subcommand]
        if not sys.stdout.isatty() and config.trainer.enable_progress_bar is None:
            config.trainer.enable_progress_bar = False
            config.trainer.enable_model_summary = False
        if config.out is None:
            return
        folder = config.trainer.default_root_dir
        if folder is None:
            raise ZooError("--out moves a run, but the recipe has no trainer.default_root_dir to move from")
        config.trainer = _moved(config.trainer, folder.rstrip("/"), config.out.rstrip("/"))


class ProgressLines(Callback):
    """A plain line now and then, where there is no terminal to draw a bar on.

    Args:
        seconds: between two lines.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        self._seconds, self._last = seconds, time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print the step and what the module shows on its bar."""
        now = time.monotonic()
        if trainer.progress_bar_callback is None and trainer.is_global_zero and now - self._last >= self._seconds:
            self._last = now
            shown = (f"{name} {float(value):.4g}" for name, value in trainer.progress_bar_metrics.items())
            print(f"step {trainer.global_step}/{trainer.max_steps}: {', '.join(shown)}", file=sys.stderr, flush=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where the run lies."""
        if trainer.is_global_zero:
            print(f"{trainer.default_root_dir}: {trainer.global_step} steps")


def _moved(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return new + value.removeprefix(old) if value == old or value.startswith(old + "/") else value
    if isinstance(value, list):
        return [_moved(item, old, new) for item in value]
    if isinstance(value, dict):
        return {name: _moved(item, old, new) for name, item in value.items()}
    if isinstance(value, Namespace):
        return Namespace(**{name: _moved(item, old, new) for name, item in vars(value).items()})
    return value


def _run(verb: str, arguments: list[str]) -> None:
    # Lightning warns that arguments given here win over sys.argv; here they are the same but for the recipe's path.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    # Lightning's own notes (devices found, products to try) say nothing about the work; its warnings stay.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    for known in (
        "Found .* in eval mode at the start of training",
        "Using ModelCheckpoint with manual optimization",
        "Total length of `list` across ranks is zero",  # no clips are held out
        "The dirpath has changed from",  # a run that was moved, or is looked at from another folder
    ):
        warnings.filterwarnings("ignore", message=known)
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        Recipe(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": ProgressLines()},
            parser_kwargs={"prog": "zoo"},
            args=[verb, *resolved(arguments)],
        )
    except MisconfigurationException as error:
        raise ZooError(str(error)) from error
    except RuntimeError as error:
        if not str(error).startswith("Error(s) in loading state_dict"):
            raise
        difference = str(error).splitlines()[1].strip()[:LONGEST_DIFFERENCE]
        raise CheckpointError(f"the checkpoint does not fit the recipe's network: {difference}") from error
    except SystemExit as end:
        # Lightning answers Ctrl-C by leaving with status 1, after what it had in hand; wrong usage leaves with 2.
        if isinstance(end.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from end
        raise


def resolved(arguments: list[str]) -> list[str]:
    """The arguments with every ``--config`` that names a shipped recipe (``pv3d/finetune``) turned into its path.

    Raises:
        ZooError: if a config is neither a file nor a shipped recipe; the message lists those.
        CheckpointError: if ``--ckpt_path`` is no checkpoint of a run, before anything is built for it.
    """
    result, flag = [], ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            name, value = flag, argument
        if name in ("-c", "--config"):
            value = str(recipe(value))
        elif name == "--ckpt_path" and value not in SPECIAL_CHECKPOINTS:
            read_run(value)
        result.append(f"{name}={value}" if equals else value)
        flag = argument
    return result


def recipe(name: str) -> Path:
    """Path of a recipe: a file as it is, or a shipped one by its path under ``configs/``, with or without ``.yaml``.

    Raises:
        ZooError: if there is none; the message lists the shipped ones.
    """
    folder = shipped("configs")
    inside = name.removeprefix("configs/").removesuffix(".yaml")
    for path in (Path(name), folder / f"{inside}.yaml"):
        if path.is_file():
            return path
    known = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    raise ZooError(f"there is no recipe {name}: give a file or one of {', '.join(known) or 'none (none is shipped)'}")
