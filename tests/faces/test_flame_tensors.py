"""FLAME out of a checkpoint's buffers under their official names, and what is wrong with some."""

import pytest
import torch
from toy_head import toy_arrays

from portraitzoo.errors import CheckpointError
from portraitzoo.faces.flame_head import FlameHead, HeadSizes
from portraitzoo.hub.flame_tensors import head_tensors

torch.set_num_threads(1)
PREFIX = "deformer.flame_deform."


def within(faces: torch.Tensor, vertices: torch.Tensor) -> torch.Tensor:
    """Faces as indices into a sorted list of vertices, as checkpoints keep those of parts."""
    place = torch.zeros(int(vertices.max()) + 1, dtype=torch.int64)
    place[vertices] = torch.arange(len(vertices))
    return place[faces]


def official(head: FlameHead) -> dict[str, torch.Tensor]:
    """The buffers that a released checkpoint would have for a head."""
    flame = head.flame
    both = torch.cat([head.face, head.eyes]).sort().values
    parts = {
        "masked_faces": ("face_and_eyes", both),
        "masked_eye_faces": ("eyes", head.eyes),
        "masked_lips_faces": ("lips", head.lips),
        "masked_face_wo_eye_faces": ("face", head.face),
        "masked_noinmouth_faces": ("no_inner_mouth", head.no_inner_mouth),
        "masked_smallface_faces": ("small_face", head.small_face),
        "masked_eyelids_faces": ("eyelids", head.eyelids),
    }
    limits = {f"flame_model.{name}_limits": torch.zeros(3, 2) for name in ("global", "neck", "jaw", "eye")}
    return limits | {
        **{name: within(head.part_faces(part), vertices) for name, (part, vertices) in parts.items()},
        "canonical_shape": head.canonical[None],
        "canonical_shape_face_only": head.canonical[None, both],
        "canonical_shape_coarse": head.coarse(head.canonical)[None],
        "if_eye_face_simplify": torch.zeros(len(head.coarse_faces), dtype=torch.bool),
        "simplify_idxs": head.coarse_vertices,
        "simplify_baris": head.coarse_weights,
        "simplify_faces": head.coarse_faces,
        "simplify_faces_region_idxs": head.coarse_regions,
        "eye_idxs": head.eyes,
        "face_idxs": head.head,
        "lips_idxs": head.lips,
        "noinmouth_idxs": head.no_inner_mouth,
        "smallface_idxs": head.small_face,
        "eyelids_idxs": head.eyelids,
        "dynamic_idxs": head.dynamic,
        "vertices_region_idxs": head.rings,
        "flame_model.eye_pose": torch.zeros(1, 6),
        "flame_model.neck_pose": torch.zeros(1, 3),
        "flame_model.neck_kin_chain": torch.tensor([1, 0]),
        "flame_model.parents": torch.tensor([-1, 0, 1, 1, 1]),
        "flame_model.faces_tensor": flame.faces,
        "flame_model.v_template": flame.v_template,
        "flame_model.shapedirs": flame.shapedirs,
        "flame_model.posedirs": flame.posedirs,
        "flame_model.J_regressor": flame.J_regressor,
        "flame_model.lbs_weights": flame.lbs_weights,
        "flame_model.lmk_faces_idx": flame.static_faces,
        "flame_model.lmk_bary_coords": flame.static_barycentric,
        "flame_model.dynamic_lmk_faces_idx": flame.contour_faces,
        "flame_model.dynamic_lmk_bary_coords": flame.contour_barycentric,
        "flame_model.full_lmk_faces_idx": flame.full_faces[None],
        "flame_model.full_lmk_bary_coords": flame.full_barycentric[None],
    }


@pytest.fixture
def head() -> FlameHead:
    return FlameHead.from_arrays(toy_arrays())


def test_a_checkpoint_brings_its_head_along(head: FlameHead) -> None:
    tensors = official(head)
    ours, dropped = head_tensors(tensors, PREFIX)
    again = FlameHead(HeadSizes.of_tensors(ours))
    again.load_state_dict(ours)
    for name, value in head.state_dict().items():
        assert again.state_dict()[name].equal(value), name
    assert all(name.startswith(PREFIX) and reason for name, reason in dropped.items())
    assert dropped.keys() <= {PREFIX + name for name in tensors}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"flame_model.posedirs": None}, r"lacks the tensor deformer\.flame_deform\.flame_model\.posedirs"),
        ({"surprise": torch.zeros(1)}, r"an unexpected tensor, deformer\.flame_deform\.surprise"),
        ({"masked_lips_faces": torch.zeros(999, 3)}, "masked_lips_faces has 999 faces, but"),
        ({"lips_idxs": torch.full((4,), 10**6)}, "are no head model"),
        ({"flame_model.shapedirs": torch.zeros(3, 3, 100)}, "are no head model"),
        ({"canonical_shape_face_only": torch.full((1, 4, 3), 9.0)}, "canonical_shape_face_only has vertices that"),
    ],
)
def test_tensors_that_do_not_fit_are_named(head: FlameHead, change: dict, complaint: str) -> None:
    tensors = {name: value for name, value in (official(head) | change).items() if value is not None}
    with pytest.raises(CheckpointError, match=complaint) as caught:
        head_tensors(tensors, PREFIX)
    assert "\n" not in str(caught.value)
