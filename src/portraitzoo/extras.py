"""Optional dependencies: imported where they are used, named when they are missing."""

import importlib
from types import ModuleType

from portraitzoo.errors import ZooError


def import_extra(module: str, extra: str) -> ModuleType:
    """Import ``module``, which belongs to the optional dependency set ``extra``.

    Raises:
        ZooError: if it is not installed; the message holds the pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.partition(".")[0]
        raise ZooError(f"{top} is not installed: run `pip install 'portraitzoo[{extra}]'` ({error})") from error
