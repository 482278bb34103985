"""Comparisons of the parametric head, its cameras and its geometry with the reference, a function for every group."""

from collections.abc import Callable

import torch
from genhead_standin import standin_head
from reference import Arrays

from portraitzoo.faces.flame import contour_row
from portraitzoo.faces.flame_parameters import without_neck
from portraitzoo.faces.head_maps import (
    MAP_SCALE,
    coarse_fragments,
    correspondence_map,
    flow_maps,
    landmarks_in_image,
    part_mask,
    with_eyelids,
)
from portraitzoo.faces.head_pose import camera_for_neck, rigid_inverse
from portraitzoo.faces.rotations import bounded_rotation, rotation_matrix, unbounded_rotation
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.closest import closest_faces, face_normals, plane_coordinates
from portraitzoo.rendering.rasterisation import interpolate

TOLERANCE = 1e-5


def flame_inputs(arrays: Arrays) -> tuple[torch.Tensor, ...]:
    """Shape, expression, pose and eye pose of the group ``flame``."""
    return tuple(arrays[f"flame.in.{name}"] for name in ("shape", "exp", "pose", "eye_pose"))


@torch.no_grad()
def check_flame(arrays: Arrays) -> None:
    head = standin_head()
    flame, inputs = head.flame, flame_inputs(arrays)
    arrays.check("flame.template_processed", flame.v_template[::50], TOLERANCE)
    arrays.check("flame.canonical_shape", head.canonical[::50], TOLERANCE)
    shape, expression, pose, eyes = inputs
    limited = torch.cat([bounded_rotation(pose[:, :3], "neck"), bounded_rotation(pose[:, 3:], "jaw")], dim=1)
    gaze = bounded_rotation(eyes.unflatten(1, (2, 3)), "eye").flatten(1)
    for kind, posed in (("", (pose, eyes)), ("limits.", (limited, gaze))):
        vertices, joints = flame.posed(shape, expression, *posed)
        arrays.check(f"flame.out.{kind}vertices", vertices[:, ::50], TOLERANCE)
        arrays.check(f"flame.out.{kind}joints", joints, TOLERANCE)
        arrays.check(f"flame.out.{kind}landmarks2d", flame.contour_landmarks(vertices, posed[0]), TOLERANCE)
        arrays.check(f"flame.out.{kind}landmarks3d", flame.landmarks(vertices), TOLERANCE)


def check_rodrigues(arrays: Arrays) -> None:
    arrays.check("rodrigues.out", rotation_matrix(arrays["rodrigues.in"]), TOLERANCE)


def check_dynamic_row(arrays: Arrays) -> None:
    assert contour_row(arrays["dynamic_row.in"]).equal(arrays["dynamic_row.out"])


def check_limits(arrays: Arrays) -> None:
    raw = arrays["limits.in"]
    for joint in ("neck", "jaw", "eye", "global"):
        arrays.check(f"limits.{joint}", bounded_rotation(raw, joint), TOLERANCE)
    for joint in ("neck", "jaw"):
        arrays.check(f"limits.revert_{joint}", unbounded_rotation(0.3 * raw, joint), TOLERANCE)
    for joint, name in (("neck", "neck"), ("jaw", "jaw"), ("global", "global"), ("eye", "eyes")):
        arrays.check(f"limits.neutral_{name}", unbounded_rotation(torch.zeros(3), joint), TOLERANCE)


@torch.no_grad()
def check_decompose(arrays: Arrays) -> None:
    camera = Camera.from_label(arrays["decompose.in.c_compose"])
    shape, expression, pose, _ = flame_inputs(arrays)
    moved = camera_for_neck(standin_head().flame, camera.cam2world, shape, expression, pose)
    arrays.check("decompose.out", Camera(moved, camera.intrinsics).label(), TOLERANCE)


def check_invert(arrays: Arrays) -> None:
    camera = Camera.from_label(arrays["decompose.in.c_compose"])
    arrays.check("invert.out", rigid_inverse(camera.cam2world), TOLERANCE)


def check_point_face(arrays: Arrays) -> None:
    for kind in sorted({name.split(".")[1] for name in arrays.keys("point_face.")}):
        points, vertices, faces = (arrays[f"point_face.{kind}.in.{name}"] for name in ("points", "vertices", "faces"))
        found = [
            closest_faces(p[None], v[None], f, min_area=5e-3) for p, v, f in zip(points, vertices, faces, strict=True)
        ]
        distance, face = (torch.cat(parts) for parts in zip(*found, strict=True))
        batch = torch.arange(len(faces))[:, None]
        corners = vertices[batch[..., None], faces[batch, face]]
        normals = face_normals(vertices[batch[..., None], faces])
        arrays.check(f"point_face.{kind}.out.sqdist", distance, TOLERANCE)
        assert face.equal(arrays[f"point_face.{kind}.out.face"])
        arrays.check(f"point_face.{kind}.out.bary", plane_coordinates(points, corners)[0], TOLERANCE)
        arrays.check(f"point_face.{kind}.out.normals", normals, TOLERANCE)


BOX = 0.65
# The reference's weights of a face add up to its area over the area plus 1e-8, which small faces feel; ours to 1.
FLOW_TOLERANCE = 2e-3


def render_camera(arrays: Arrays, batch: int) -> Camera:
    """Cameras of the group ``decompose``, whose axes are x right, y up, z backward."""
    camera = Camera.from_label(arrays["decompose.out"][:batch])
    return Camera(camera.cam2world * torch.tensor([1.0, -1.0, -1.0, 1.0]), camera.intrinsics)


@torch.no_grad()
def check_render(arrays: Arrays) -> None:
    head = standin_head()
    batch, _, resolution, _ = arrays["render.face.mask"].shape
    camera = render_camera(arrays, batch)
    shape, expression, pose, eyes = (value[:batch] for value in flame_inputs(arrays))
    vertices = head.flame(shape, expression, pose, eyes)
    blinking = head.flame(shape, arrays["deform.in.eye_blink"].expand(batch, -1), pose, eyes)

    def check(name: str, covered: torch.Tensor, feature: torch.Tensor | None = None, depth: torch.Tensor | None = None):
        assert covered[:, None].equal(arrays[f"render.{name}.mask"].bool()), name
        if feature is not None:
            arrays.check(f"render.{name}.feature", feature, TOLERANCE)
            arrays.check(f"render.{name}.depth", depth[:, None], TOLERANCE)

    for name, mesh in (("face", vertices), ("face_blink", with_eyelids(head, vertices, blinking))):
        feature, fragments = correspondence_map(head, mesh, camera, resolution)
        check(name, fragments.covered, feature, fragments.depth)
    parts = {"eye": "eyes", "face_woeye": "face", "noinmouth": "no_inner_mouth", "smallface": "small_face"}
    for name, part in parts.items():
        check(name, part_mask(head, vertices, camera, resolution, part))
    for name, cull in (("coarse_nocull", False), ("coarse_cull", True)):
        fragments = coarse_fragments(head, vertices, camera, resolution, cull_backfaces=cull)
        place = head.coarse(head.canonical).expand(batch, -1, -1) / MAP_SCALE
        feature = interpolate(fragments, head.coarse_faces, place).permute(0, 3, 1, 2)
        check(name, fragments.covered, *((feature, fragments.depth) if cull else ()))
    landmarks = landmarks_in_image(head, vertices, camera) * resolution
    landmarks[..., 1] = resolution - landmarks[..., 1]
    arrays.check("render.landmarks2d", landmarks, TOLERANCE)


def identity_head(arrays: Arrays) -> torch.Tensor:
    """The first head of the group ``flame`` without expression in the canonical pose."""
    _, expression, pose, eyes = standin_head().flame.canonical_parameters()
    return standin_head().flame(flame_inputs(arrays)[0][:1], expression, pose, eyes)


@torch.no_grad()
def check_ortho_flow(arrays: Arrays) -> None:
    head = standin_head()
    shape, expression, pose, eyes = (value[:1] for value in flame_inputs(arrays))
    posed = head.flame(shape, expression, without_neck(pose), eyes)
    check_flow(arrays, "ortho_flow", posed, identity_head(arrays))


@torch.no_grad()
def check_ortho_shape_flow(arrays: Arrays) -> None:
    check_flow(arrays, "ortho_shape_flow", identity_head(arrays), standin_head().canonical[None])


def check_flow(arrays: Arrays, group: str, source: torch.Tensor, target: torch.Tensor) -> None:
    resolution = arrays[f"{group}.mask"].shape[-1]
    flow, mask = flow_maps(standin_head(), source, target, resolution, half_side=BOX)
    assert mask[:, :, None].equal(arrays[f"{group}.mask"].bool())
    arrays.check(f"{group}.flow", flow, FLOW_TOLERANCE)


FUNCTIONS: dict[str, Callable[[Arrays], None]] = {
    "flame": check_flame,
    "rodrigues": check_rodrigues,
    "dynamic_row": check_dynamic_row,
    "limits": check_limits,
    "decompose": check_decompose,
    "invert": check_invert,
    "point_face": check_point_face,
    "render": check_render,
    "ortho_flow": check_ortho_flow,
    "ortho_shape_flow": check_ortho_shape_flow,
}
