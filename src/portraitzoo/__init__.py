"""A model zoo for 3D-aware portrait and head generation.

    import portraitzoo as pz

    generator = pz.load("pv3d-tiny")
    clip = generator.sample(seed=0, num_frames=16)
    clip.save("portrait.mp4")

The names below are the public face; they are imported when first used, so that `import portraitzoo` stays quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from portraitzoo.hub.index import list_models
    from portraitzoo.hub.loading import load
    from portraitzoo.media.clip import Clip
    from portraitzoo.metrics.evaluation import evaluate
    from portraitzoo.rendering.cameras import Camera

__version__ = "0.1.0"
__all__ = ["Camera", "Clip", "__version__", "evaluate", "list_models", "load"]

_HOMES = {
    "Camera": "portraitzoo.rendering.cameras",
    "Clip": "portraitzoo.media.clip",
    "evaluate": "portraitzoo.metrics.evaluation",
    "list_models": "portraitzoo.hub.index",
    "load": "portraitzoo.hub.loading",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'portraitzoo' has no attribute {name!r}")
