"""A free head in FLAME's structure, for everything that FLAME drives and for everyone who has no FLAME.

Fitted to Anny (Apache-2.0, data CC0): 300 identity and 100 expression coefficients (of which about 50 do something),
neck, jaw and eyes, landmarks, and all the tables of a :class:`~portraitzoo.faces.flame_head.FlameHead`. Its
coefficients mean something else than FLAME's: a network trained with one head does not understand the other's.

Measured (:func:`fit_errors`, 50 people it has not seen): identities are 0.013 mm (root mean square) and at most 0.16 mm
off; facial actions 0.09 mm, four at once 0.16 mm. On the skin no action is more than 0.01 mm off; the rest is the rim
of the eyeballs, which Anny does not turn quite rigidly (up to 3.4 mm at the back of the eye).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.extras import import_extra
from portraitzoo.faces.anny import HeadModel, load_head
from portraitzoo.faces.flame import SCALE
from portraitzoo.faces.flame_arrays import NUM_SHAPE, FlameArrays
from portraitzoo.faces.flame_head import FlameHead
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.free_head_fit import FreeHeadFit, fit_free_head, random_people
from portraitzoo.faces.free_head_small import coarsened
from portraitzoo.files import replacing

CACHE_VERSION = 2


@dataclass(frozen=True)
class FreeHead:
    """The head and its relation to Anny.

    Attributes:
        head: as generators take it: in FLAME's scale, the origin at the neck joint.
        source: Anny's vertex for each of its vertices.
        action_expression, action_jaw, action_eyes: what each of Anny's facial actions does at strength 1: expression
            coefficients, jaw and eye rotations (axis-angles in radians).
    """

    head: FlameHead
    source: Int[Tensor, " vertices"]
    action_expression: Float[Tensor, "actions 100"]
    action_jaw: Float[Tensor, "actions 3"]
    action_eyes: Float[Tensor, "actions 6"]

    def of_actions(
        self, actions: Float[Tensor, "time actions"], shape: Float[Tensor, " 300"] | None = None
    ) -> FlameParameters:
        """Parameters of a face that acts.

        Args:
            actions: strengths in [0, 1] of Anny's facial actions, in the order of its ``action_labels``.
            shape: identity; the mean one if None.

        Raises:
            ZooError: if there are not as many actions as Anny has.
        """
        if actions.ndim != 2 or actions.shape[1] != len(self.action_jaw):
            raise ZooError(f"facial actions are [time, {len(self.action_jaw)}] numbers, not {list(actions.shape)}")
        shape = torch.zeros(NUM_SHAPE) if shape is None else shape
        pose = torch.cat([torch.zeros(len(actions), 3), actions @ self.action_jaw], dim=1)
        return FlameParameters(
            shape.expand(len(actions), -1), actions @ self.action_expression, pose, actions @ self.action_eyes
        )

    def of_identity(self, neutral: Float[Tensor, "vertices 3"]) -> tuple[Float[Tensor, " 300"], Float[Tensor, " 3"]]:
        """The identity closest to a person of Anny's, in the least squares of the vertices.

        Args:
            neutral: Anny's vertices of that person with a neutral face, in metres.

        Returns:
            Coefficients, and the shift with which ``3 * neutral + shift`` lies where this head lies.
        """
        flame, eyes = self.head.flame, self.head.eyes
        wanted = SCALE * neutral[self.source]
        shift = flame.v_template[eyes].mean(0) - wanted[eyes].mean(0)
        basis = flame.identity_basis.flatten(0, 1).double()
        offset = (wanted + shift - flame.v_template).flatten().double()
        # The directions are orthogonal, and people enough were drawn that none is zero.
        return ((basis.T @ offset) / basis.square().sum(0)).float(), shift


@functools.lru_cache(maxsize=2)
def load_free_head(size: Literal["full", "small"] = "full", cache: Path | None = None) -> FreeHead:
    """The free head, from the cache or (once, about a minute) from Anny.

    Args:
        size: ``"full"`` (4590 vertices) or ``"small"`` (1280, the same coefficients; see
            :mod:`~portraitzoo.faces.free_head_small`).
        cache: folder to keep it in; Anny's own cache folder by default.

    Raises:
        ZooError: if ``anny`` is not installed or the cache cannot be written.
    """
    paths = import_extra("anny.paths", "synthetic")
    folder = cache or Path(paths.get_anny_cache_path())
    targets = {name: folder / f"portraitzoo-free-head-{name}-{CACHE_VERSION}.safetensors" for name in ("full", "small")}
    if size not in targets:
        raise ZooError(f"the free head comes full or small, not {size!r}")
    if not targets[size].exists():
        fit = fit_free_head(load_head(cache))
        for name, target in targets.items():
            with replacing(target) as temporary:
                save_file(_tensors(fit if name == "full" else coarsened(fit)), temporary)
    return _free_head(load_file(targets[size]))


def _tensors(fit: FreeHeadFit) -> dict[str, Tensor]:
    arrays = {item.name: torch.as_tensor(getattr(fit.arrays, item.name)) for item in fields(fit.arrays)}
    # Half precision keeps offsets of millimetres to a micrometre.
    kept = {f"arrays.{name}": _compact(name, value).contiguous() for name, value in arrays.items()}
    return kept | {item.name: getattr(fit, item.name).contiguous() for item in fields(fit) if item.name != "arrays"}


def _compact(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value.int()
    return value.half() if name in ("shapedirs", "posedirs") else value.float()


def _free_head(tensors: Mapping[str, Tensor]) -> FreeHead:
    arrays = {}
    for name, value in tensors.items():
        if name.startswith("arrays."):
            exact = value.float() if value.is_floating_point() else value.long()
            arrays[name.removeprefix("arrays.")] = exact.numpy()
    head = FlameHead.from_arrays(FlameArrays(**arrays))
    return FreeHead(head, **{name: value for name, value in tensors.items() if not name.startswith("arrays.")})


def fit_errors(free: FreeHead, anny: HeadModel, people: int = 20, seed: int = 1) -> dict[str, float]:
    """How far the free head is from Anny, in millimetres: root mean square and largest distance of vertices.

    ``identity`` is of people that the fit has not seen, ``action`` of each facial action at strength 1, ``performance``
    of random combinations of four actions.

    Args:
        free: the fitted head.
        anny: what it was fitted to.
        people: how many.
        seed: of people and combinations.
    """
    flame, labels = free.head.flame, anny.action_labels
    still = FlameParameters.zeros(1)
    found: dict[str, list[Tensor]] = {"identity": [], "action": [], "performance": []}
    for neutral in random_people(anny, people, seed + 1000):
        shape, shift = free.of_identity(neutral)
        wanted = SCALE * neutral[free.source] + shift
        found["identity"].append((flame(shape[None], still.expression, still.pose)[0] - wanted).norm(dim=-1))
    generator = torch.Generator().manual_seed(seed)
    strengths = torch.rand(40, len(labels), generator=generator)
    chosen = torch.rand(40, len(labels), generator=generator).argsort(1) < 4
    for name, actions in (("action", torch.eye(len(labels))), ("performance", strengths * chosen)):
        moved = torch.einsum("ta,avc->tvc", actions, anny.action_shapes[:, free.source].float()) * SCALE
        offset = flame(*free.of_actions(actions)) - flame(*still)
        found[name].append((offset - moved).norm(dim=-1))
    errors = {}
    for name, distances in found.items():
        all_of = torch.cat([part.flatten() for part in distances]) / SCALE * 1000
        errors[f"{name}_rms"] = float(all_of.square().mean().sqrt())
        errors[f"{name}_max"] = float(all_of.max())
    return errors
