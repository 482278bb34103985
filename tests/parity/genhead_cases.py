"""GenHead cases of the reference folder as our networks and their inputs."""

from dataclasses import fields
from functools import lru_cache

import reference
import torch
from genhead_standin import standin_head
from torch import Tensor, nn

from portraitzoo.faces.flame_head import FlameHead
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.rotations import ROTATION_LIMITS
from portraitzoo.methods.genhead.network import Generator
from portraitzoo.methods.genhead.weights import HEAD, generator_tensors, settings_of

NAMES = {"shape": "shape", "expression": "exp", "pose": "pose", "eye_pose": "eye_pose"}


@lru_cache(maxsize=1)
def generator_of(case: reference.Case, **further: object) -> Generator:
    """The case's generator through the conversion, with the synthetic head in the place of FLAME.

    ``further`` overrides settings of the manifest.
    """
    settings = settings_of(case.manifest["config"]) | further
    tensors, dropped, config = generator_tensors(case.state_dict() | official_head(case), settings)
    assert len(dropped) + len(tensors) + 2 > len(case.manifest["tensors"])  # the decoder's two outputs become one
    network = Generator(config)
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)


def official_head(case: reference.Case) -> dict[str, Tensor]:
    """The synthetic head under the names of the checkpoint's buffers, exactly those that the manifest lists."""
    tensors = {HEAD + name: tensor for name, tensor in official_buffers(standin_head()).items()}
    listed = {row["name"]: row["shape"] for row in case.manifest["external"]}
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == listed
    return tensors


def official_buffers(head: FlameHead) -> dict[str, Tensor]:
    """A head's tables as a released checkpoint carries them, the redundant ones included."""
    flame = head.flame
    parts = {"": "face_and_eyes", "eye_": "eyes", "lips_": "lips", "face_wo_eye_": "face"}
    parts |= {"noinmouth_": "no_inner_mouth", "smallface_": "small_face", "eyelids_": "eyelids"}
    is_eye = torch.zeros(len(head.canonical))
    is_eye[head.eyes] = 1
    limits = {name: torch.tensor(ROTATION_LIMITS[name], dtype=torch.float32) for name in ROTATION_LIMITS}
    return {
        **{f"masked_{name}faces": head.part_faces(part) for name, part in parts.items()},
        "canonical_shape": head.canonical[None],
        "canonical_shape_face_only": head.canonical[torch.cat([head.face, head.eyes]).sort().values][None],
        "canonical_shape_coarse": head.coarse(head.canonical)[None],
        "simplify_idxs": head.coarse_vertices,
        "simplify_baris": head.coarse_weights,
        "simplify_faces": head.coarse_faces,
        "simplify_faces_region_idxs": head.coarse_regions,
        "eye_idxs": head.eyes,
        "face_idxs": head.head,
        "lips_idxs": head.lips,
        "noinmouth_idxs": head.no_inner_mouth,
        "vertices_region_idxs": head.rings,
        "dynamic_idxs": head.dynamic,
        "smallface_idxs": head.small_face,
        "eyelids_idxs": head.eyelids,
        "if_eye_face_simplify": is_eye[head.coarse_vertices][head.coarse_faces].flatten(1).any(1),
        "flame_model.eye_pose": torch.zeros(1, 6),
        "flame_model.neck_pose": torch.zeros(1, 3),
        "flame_model.faces_tensor": flame.faces,
        **{
            f"flame_model.{name}": getattr(flame, name)
            for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "lbs_weights")
        },
        "flame_model.parents": torch.tensor([-1, 0, 1, 1, 1]),
        "flame_model.lmk_faces_idx": flame.static_faces,
        "flame_model.lmk_bary_coords": flame.static_barycentric,
        "flame_model.dynamic_lmk_faces_idx": flame.contour_faces,
        "flame_model.dynamic_lmk_bary_coords": flame.contour_barycentric,
        "flame_model.full_lmk_faces_idx": flame.full_faces[None],
        "flame_model.full_lmk_bary_coords": flame.full_barycentric[None],
        "flame_model.neck_kin_chain": torch.tensor([1, 0]),
        **{f"flame_model.{name}_limits": limits[name] for name in ("global", "neck", "jaw", "eye")},
    }


def parameters_of(arrays: reference.Arrays, prefix: str = "in.") -> FlameParameters:
    """The heads of a case."""
    return FlameParameters(*(arrays[prefix + NAMES[item.name]] for item in fields(FlameParameters)))


def load(network: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """The network with these weights."""
    network.load_state_dict(tensors)
    return network.eval()
