"""``zoo fit``, ``validate``, ``test`` and ``predict``: LightningCLI over the recipes in ``configs/``."""

from __future__ import annotations

import warnings
from pathlib import Path

from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI

from portraitzoo.errors import ZooError
from portraitzoo.files import shipped


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


def _run(verb: str, arguments: list[str]) -> None:
    # Lightning warns that arguments given here win over sys.argv; here they are the same but for the recipe's path.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    LightningCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"prog": "zoo"},
        args=[verb, *with_recipes(arguments)],
    )


def with_recipes(arguments: list[str]) -> list[str]:
    """The arguments with every ``--config`` that names a shipped recipe (``pv3d/finetune``) turned into its path.

    Raises:
        ZooError: if a config is neither a file nor a shipped recipe; the message lists those.
    """
    resolved, is_config = [], False
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if is_config:
            resolved.append(str(recipe(argument)))
        elif flag in ("-c", "--config") and equals:
            resolved.append(f"{flag}={recipe(value)}")
        else:
            resolved.append(argument)
        is_config = argument in ("-c", "--config")
    return resolved


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
