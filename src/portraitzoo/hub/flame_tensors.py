"""FLAME as released GenHead and Portrait4D checkpoints carry it: buffers under ``deformer.flame_deform.``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from portraitzoo.errors import CheckpointError
from portraitzoo.faces.flame_head import FlameHead, HeadSizes, Part

_SAME = {
    "flame_model.v_template": "flame.v_template",
    "flame_model.shapedirs": "flame.shapedirs",
    "flame_model.posedirs": "flame.posedirs",
    "flame_model.J_regressor": "flame.J_regressor",
    "flame_model.lbs_weights": "flame.lbs_weights",
    "flame_model.faces_tensor": "flame.faces",
    "flame_model.lmk_faces_idx": "flame.static_faces",
    "flame_model.lmk_bary_coords": "flame.static_barycentric",
    "flame_model.dynamic_lmk_faces_idx": "flame.contour_faces",
    "flame_model.dynamic_lmk_bary_coords": "flame.contour_barycentric",
    "face_idxs": "head",
    "lips_idxs": "lips",
    "noinmouth_idxs": "no_inner_mouth",
    "smallface_idxs": "small_face",
    "eyelids_idxs": "eyelids",
    "dynamic_idxs": "dynamic",
    "vertices_region_idxs": "rings",
    "simplify_idxs": "coarse_vertices",
    "simplify_baris": "coarse_weights",
    "simplify_faces": "coarse_faces",
    "simplify_faces_region_idxs": "coarse_regions",
}
_UNBATCHED = {
    "canonical_shape": "canonical",
    "flame_model.full_lmk_faces_idx": "flame.full_faces",
    "flame_model.full_lmk_bary_coords": "flame.full_barycentric",
}
_PARTS: dict[str, Part] = {
    "masked_lips_faces": "lips",
    "masked_noinmouth_faces": "no_inner_mouth",
    "masked_smallface_faces": "small_face",
    "masked_eyelids_faces": "eyelids",
}
_NEAR = 1e-3
_FOLLOWING = "follows from the other tables"
_UNUSED = "not used: heads state their pose, and the ranges of joints are constants"
_DROPPED = dict.fromkeys(
    (
        *("canonical_shape_coarse", "if_eye_face_simplify", "canonical_shape_face_only"),
        *("masked_faces", "masked_eye_faces", "masked_face_wo_eye_faces", *_PARTS),
    ),
    _FOLLOWING,
) | {
    f"flame_model.{name}": _UNUSED
    for name in ("eye_pose", "neck_pose", "neck_kin_chain", *(f"{j}_limits" for j in ("global", "neck", "jaw", "eye")))
}


def head_tensors(official: Mapping[str, Tensor], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """State dict of a :class:`~portraitzoo.faces.flame_head.FlameHead` from a checkpoint's buffers.

    The checkpoint lists the faces of each part and, for most parts, its vertices; those of face and eyeballs together
    it gives only by their canonical positions, by which they are found again.

    Args:
        official: exactly the tensors of ``flame_deform``, by their names there; lists may be of any length.
        prefix: put before names in messages and reasons.

    Returns:
        Tensors by our names (:meth:`HeadSizes.of_tensors` tells the sizes of the head that takes them), and the reason
        for each official name left out.

    Raises:
        CheckpointError: if a tensor is missing, unexpected, or contradicts the others.
    """
    known = {*_SAME, *_UNBATCHED, *_DROPPED, "eye_idxs", "flame_model.parents"}
    for name in (*(known - official.keys()), *(official.keys() - known)):
        problem = "lacks the tensor" if name in known else "has an unexpected tensor,"
        raise CheckpointError(f"the checkpoint {problem} {prefix}{name}")
    ours = {name: official[there] for there, name in _SAME.items()}
    ours |= {name: official[there][0] for there, name in _UNBATCHED.items()}
    eyes = official["eye_idxs"]
    half = len(eyes) // 2
    ours |= {"left_eyeball": eyes[:half], "right_eyeball": eyes[half:]}
    ours["face"] = _face(official["canonical_shape"][0], official["canonical_shape_face_only"][0], eyes, prefix)
    ours = {name: value.to(torch.int64) if not value.is_floating_point() else value for name, value in ours.items()}
    try:
        head = FlameHead(HeadSizes.of_tensors(ours))
        head.load_state_dict(ours)
        faces = {name: len(head.part_faces(part)) for name, part in _PARTS.items()}
    except (IndexError, RuntimeError) as error:
        told = " ".join(str(error).split())[:160]
        raise CheckpointError(f"the tensors {prefix}* are no head model: {told}") from error
    for name, count in faces.items():
        if count != len(official[name]):
            stated = len(official[name])
            raise CheckpointError(f"{prefix}{name} has {stated} faces, but {count} lie in the part that it is of")
    return ours, {
        **{prefix + name: reason for name, reason in _DROPPED.items()},
        prefix + "flame_model.parents": "the joints' tree is a constant",
    }


def _face(canonical: Tensor, face_and_eyes: Tensor, eyes: Tensor, prefix: str) -> Tensor:
    """Vertices of the face by the canonical positions of its vertices and the eyeballs'."""
    distance, found = torch.cdist(face_and_eyes.double(), canonical.double()).min(dim=1)
    if distance.numel() == 0 or float(distance.max()) > _NEAR:
        raise CheckpointError(f"{prefix}canonical_shape_face_only has vertices that {prefix}canonical_shape lacks")
    found = found.unique()
    return found[~torch.isin(found, eyes)]
