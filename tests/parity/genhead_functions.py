"""Comparisons of the deformation, rays, volume rendering and filters with the reference, a function for every group."""

import math
from collections.abc import Callable

import torch
from genhead_heads_functions import flame_inputs
from genhead_standin import standin_head
from reference import Arrays, assert_close
from threedvidgen_training_functions import ada_draws
from torch import Tensor

from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.neck_field import MIN_AREA, NeckField, follow_faces, surface_offsets
from portraitzoo.layers.resampling import binomial_filter, resize, upsample2d
from portraitzoo.media.portrait_records import Datum
from portraitzoo.methods.genhead.cameras import camera_of, depth_bounds
from portraitzoo.methods.genhead.deformer import FIELD_SIDE, PosedHead, pose_heads
from portraitzoo.methods.genhead.masks import MOUTH_BLUR, opening
from portraitzoo.methods.genhead.network import resize_plainly
from portraitzoo.rendering.cameras import Camera, pinhole
from portraitzoo.rendering.closest import closest_faces, nearest_vertices
from portraitzoo.rendering.rays import box_intersections, cast_rays
from portraitzoo.rendering.triplane import CYCLIC_AXES, sample_planes
from portraitzoo.rendering.volume import (
    DepthRange,
    bounded_depth,
    coarse_depths,
    composite,
    expected_depth,
    importance_depths,
    interval_weights,
)
from portraitzoo.rendering.voxels import cell_centres, interpolate_cells
from portraitzoo.training.ada import augment
from portraitzoo.training.blur import blur
from portraitzoo.training.regularisers import ray_distortion

TOLERANCE = 1e-5

# Which of two faces that share the closest edge is closest is a matter of rounding, and points far above them then move
# differently. Parameters that are 1e-7 off move the reference's own field by up to 2e-3 (98 %: 2e-4, 90 %: 6.5e-5), so
# what hangs on it is held by quantiles of the absolute error, world units.
QUANTILES = {0.5: 5e-6, 0.9: 3e-4, 1.0: 6e-2}


def check_quantiles(arrays: Arrays, name: str, actual: Tensor) -> None:
    """Compare most numbers closely and all roughly."""
    expected = arrays[name].double()
    assert actual.shape == expected.shape, name
    error = (actual.double() - expected).abs().flatten()
    for share, limit in QUANTILES.items():
        found = float(error.quantile(share))
        assert found <= limit, (
            f"{arrays.case}/{name}: {share:.0%} of the errors are within {found:.1e}, not {limit:.0e}"
        )


def first_head(arrays: Arrays) -> FlameParameters:
    """The first head of the group ``flame``."""
    return FlameParameters(*flame_inputs(arrays))[:1]


def points_of(arrays: Arrays) -> Tensor:
    """The points whose deformation the reference holds."""
    return arrays["deform.in.points"]


@torch.no_grad()
def check_surface_field(arrays: Arrays) -> None:
    """Points that follow the closest face, of the decimated and of the whole mesh, to a straight neck and to rest."""
    head, parameters, points = standin_head(), first_head(arrays), points_of(arrays)
    posed = head.flame(*parameters)
    targets = {"headpose1": head.flame(*parameters.without_neck()), "headpose0": head.canonical[None]}
    meshes = {"simplify1": (head.coarse, head.coarse_faces), "simplify0": (lambda mesh: mesh, head.flame.faces)}
    for kind, (mesh, faces) in meshes.items():
        distance, face = closest_faces(points, mesh(posed), faces, min_area=MIN_AREA)
        for goal, target in targets.items():
            corners = faces[face[0]]
            moved = follow_faces(points[0], mesh(posed)[0][corners], mesh(target)[0][corners])[None]
            check_quantiles(arrays, f"surface_field.{kind}.{goal}.offset", moved - points)
            arrays.check(f"surface_field.{kind}.{goal}.sqdist", distance, TOLERANCE)
        if kind == "simplify1":
            agree = float((face == arrays["surface_field.closest_coarse_face"]).float().mean())
            assert agree > 0.8, f"only {agree:.0%} of the closest faces are the reference's"


@torch.no_grad()
def grid_of_offsets(arrays: Arrays, resolution: int) -> Tensor:
    """Offsets to a straight neck, and squared distances, on a grid."""
    head, parameters = standin_head(), first_head(arrays)
    posed, straight = (head.coarse(head.flame(*pose)) for pose in (parameters, parameters.without_neck()))
    return surface_offsets(head, posed, straight, resolution, FIELD_SIDE)


def check_grid(arrays: Arrays, resolution: int) -> None:
    name, nodes = f"grid{resolution}", cell_centres(resolution, FIELD_SIDE)
    arrays.check(f"{name}.coords_corner", torch.stack([nodes[0], nodes[-1]], dim=1), TOLERANCE)
    values = grid_of_offsets(arrays, resolution)
    stride = -(-resolution // arrays[f"{name}.offset"].shape[-1])
    values = values[..., ::stride, ::stride, ::stride]
    check_quantiles(arrays, f"{name}.offset", values[:, :3])
    arrays.check(f"{name}.sqdist", values[:, 3:], TOLERANCE)
    # A grid that holds the coordinates of its own nodes tells where among them a point is.
    ramp = nodes.T.unflatten(1, (resolution,) * 3)[None]
    within = points_of(arrays).abs().amax(-1) <= nodes.max()
    here = interpolate_cells(ramp, points_of(arrays), FIELD_SIDE) / nodes.max()
    assert_close(here[within], arrays[f"{name}.local"][within], TOLERANCE, f"{arrays.case}/{name}.local")


@torch.no_grad()
def check_closest_point(arrays: Arrays) -> None:
    """The variant of the three nearest vertices, weighted by the inverse of their distances."""
    head, points = standin_head(), points_of(arrays)[0]
    target = head.flame(*first_head(arrays))[0]
    squared, nearest = nearest_vertices(points, target, 3)
    weights = 1 / squared.sqrt()
    weights = weights / weights.sum(-1, keepdim=True)
    moved = points + (weights[..., None] * (head.canonical - target)[nearest]).sum(1)
    arrays.check("closest_point.x_c", moved[None], TOLERANCE)
    arrays.check("closest_point.dist", squared[:, 0].sqrt()[None], TOLERANCE)


def with_region(arrays: Arrays, points: Tensor) -> tuple[Tensor, Tensor]:
    """The variant of the closest coarse face, whose neighbourhood of up to 50 vertices a point follows."""
    head = standin_head()
    target = head.flame(*first_head(arrays).without_neck())
    squared, face = closest_faces(points[None], head.coarse(target), head.coarse_faces, min_area=MIN_AREA)
    known = torch.cat([target[0], head.canonical - target[0]], dim=1)
    known = torch.cat([known, known.new_tensor([[1000.0] * 3 + [0.0] * 3])])
    position, offset = known[head.coarse_regions[face[0]]].split(3, dim=-1)
    weights = 1 / ((points[:, None] - position).square().sum(-1) + 1e-12)
    weights = weights / weights.sum(-1, keepdim=True)
    return (points + (weights[..., None] * offset).sum(1))[None], squared.sqrt()


@torch.no_grad()
def check_closest_surface(arrays: Arrays) -> None:
    moved, distance = with_region(arrays, points_of(arrays)[0])
    check_quantiles(arrays, "closest_surface.x_c", moved)
    arrays.check("closest_surface.dist", distance, TOLERANCE)


def posed_head(arrays: Arrays) -> PosedHead:
    """The first head in its pose."""
    return pose_heads(standin_head(), first_head(arrays))[0]


def parts(arrays: Arrays, group: str) -> dict[str, str]:
    """Names of the parts in a group and ours."""
    assert f"{group}.x_c_face" in arrays
    return {"eye": "eyes", "face": "face", "mouth": "mouth"}


@torch.no_grad()
def check_separate(arrays: Arrays, group: str = "separate") -> None:
    points, straight = points_of(arrays)[0], first_head(arrays).without_neck()
    eyelids = arrays["deform.in.eye_blink"] if group == "separate_blink" else None
    (head,) = pose_heads(standin_head(), straight, eyelids=eyelids)
    for theirs, ours in parts(arrays, group).items():
        moved, distance = getattr(head, ours).move(points)
        arrays.check(f"{group}.x_c_{theirs}", moved[None], TOLERANCE)
        arrays.check(f"{group}.dist_{theirs}", distance[None], TOLERANCE)
    inside = head.in_eye_boxes(points).float()[None]
    assert inside.equal(arrays[f"{group}.inside_bbox_eye"])
    if group == "separate":
        # The reference's own neighbours and weights blend the whole mesh's moves into the face's.
        region, weights = arrays["separate.closest_vts_region"][0], arrays["separate.weights"][0]
        stride = -(-len(points) // len(region))
        target = standin_head().flame(*straight)[0]
        moves = torch.cat([standin_head().canonical - target, target.new_zeros(1, 3)])
        blended = points[::stride] + (weights * moves[region]).sum(1)
        assert_close(head.face.move(points[::stride])[0], blended, TOLERANCE, f"{arrays.case}/separate.weights")


def check_separate_blink(arrays: Arrays) -> None:
    check_separate(arrays, "separate_blink")


def check_parts(arrays: Arrays, group: str, straight: Tensor, head: PosedHead, *, mouth: bool = True) -> None:
    for theirs, ours in parts(arrays, group).items():
        moved, distance = getattr(head, ours).move(straight)
        if ours == "mouth" and not mouth:  # left out there
            moved, distance = torch.zeros_like(moved), torch.full_like(distance, 1e-6)
        check_quantiles(arrays, f"{group}.x_c_{theirs}", moved[None])
        check_quantiles(arrays, f"{group}.dist_{theirs}", distance[None])
    differing = (head.in_eye_boxes(straight).float()[None] != arrays[f"{group}.inside_bbox_eye"]).float().mean()
    assert differing < 0.01


def check_deform_part(arrays: Arrays) -> None:
    head = posed_head(arrays)
    check_parts(arrays, "deform_part", head.straighten(points_of(arrays)[0]), head)


def check_deform_part_nosmooth(arrays: Arrays) -> None:
    """The variant with one grid of 16 and without the mouth."""
    points = points_of(arrays)
    straight = points + interpolate_cells(grid_of_offsets(arrays, 16)[:, :3], points, FIELD_SIDE)
    check_parts(arrays, "deform_part_nosmooth", straight[0], posed_head(arrays), mouth=False)


@torch.no_grad()
def check_deform_nopart(arrays: Arrays) -> None:
    moved, distance = with_region(arrays, posed_head(arrays).straighten(points_of(arrays)[0]))
    check_quantiles(arrays, "deform_nopart.x_c", moved)
    check_quantiles(arrays, "deform_nopart.dist", distance)


def check_deform_onlyhead(arrays: Arrays) -> None:
    check_quantiles(arrays, "deform_onlyhead.x_c", posed_head(arrays).straighten(points_of(arrays)[0])[None])


def check_deform_onlyhead_th(arrays: Arrays) -> None:
    """The variant in which points follow the fine grid up to another squared distance, which the notes tell."""
    near = float(arrays.notes["deform_onlyhead_th.x_c"]["what"].split()[-1])
    field = NeckField.of(standin_head(), first_head(arrays), FIELD_SIDE)
    fine, coarse = (interpolate_cells(part, points_of(arrays), FIELD_SIDE) for part in (field.fine, field.coarse))
    share = torch.exp(-1000 * (fine[..., 3:] - near).clamp(min=0))
    check_quantiles(arrays, "deform_onlyhead_th.x_c", points_of(arrays) + torch.lerp(coarse, fine[..., :3], share))


def check_rays(arrays: Arrays) -> None:
    camera = camera_of(arrays["rays.in.c"])
    rays = cast_rays(camera, math.isqrt(arrays["rays.directions"].shape[1]))
    arrays.check("rays.origins", rays.origins[:, 0], TOLERANCE)
    arrays.check("rays.directions", rays.directions, TOLERANCE)
    near, far = box_intersections(rays, FIELD_SIDE)
    arrays.check("rays.box_near", near, TOLERANCE)
    arrays.check("rays.box_far", far, TOLERANCE)
    samples = arrays["rays.coarse_depths"].shape[1]
    span = DepthRange(*depth_bounds(camera, FIELD_SIDE), samples, samples)
    jitter = torch.full((1, 1, 1), 0.5)
    arrays.check("rays.coarse_depths", coarse_depths(span, rays.origins[:, :1], jitter)[:, 0], TOLERANCE)


def check_importance(arrays: Arrays) -> None:
    depths, weights = arrays["importance.in.depths"][..., 0], arrays["importance.in.weights"][..., 0]
    expected = arrays["importance.out"]
    uniforms = torch.linspace(0, 1, expected.shape[2]).expand(*depths.shape[:2], -1)
    arrays.check("importance.out", importance_depths(depths, weights, uniforms)[..., None], TOLERANCE)


def check_march(arrays: Arrays) -> None:
    depths, densities = arrays["importance.in.depths"][..., 0], arrays["march.in.densities"][..., 0]
    weights = interval_weights(densities, depths)
    arrays.check("march.out.weights", weights[..., None], TOLERANCE)
    arrays.check("march.out.rgb", composite(weights, arrays["march.in.colors"]), TOLERANCE)
    arrays.check("march.out.T_bg", 1 - weights.sum(dim=-1, keepdim=True), TOLERANCE)
    arrays.check("march.out.depth", bounded_depth(expected_depth(weights, depths), depths), TOLERANCE)


def check_planes(arrays: Arrays) -> None:
    sampled = sample_planes(arrays["planes.in.planes"], arrays["planes.in.points"], FIELD_SIDE, CYCLIC_AXES)
    arrays.check("planes.out", sampled, TOLERANCE)


def check_distortion(arrays: Arrays) -> None:
    spread = ray_distortion(arrays["distortion.in.t"], arrays["distortion.in.w"])
    arrays.check("distortion.per_ray", spread, TOLERANCE)
    assert_close(spread.mean(), arrays["distortion.mean"].reshape(()), TOLERANCE, f"{arrays.case}/distortion.mean")


def check_resize(arrays: Arrays) -> None:
    """With and without antialiasing, a mixture of both, and between StyleGAN2's filters ("classic")."""
    image = arrays["resize.in"]
    for name in arrays.keys("resize."):
        size = arrays[name].shape[-1]
        kind = name.removeprefix("resize.")
        if kind == "in":
            continue
        smooth, plain = resize(image, size), resize_plainly(image, size)
        between = resize_plainly(upsample2d(image), 2 * size + 2)
        filtered = binomial_filter(between, padding=0, stride=2)
        found = {"antialiased": smooth, "up": smooth, "classic": filtered, "none": plain}.get(kind)
        arrays.check(name, smooth + float(kind) * (plain - smooth) if found is None else found, TOLERANCE)


def check_blur(arrays: Arrays) -> None:
    for name in arrays.keys("blur."):
        arrays.check(name, blur(arrays["resize.in"], float(name.removeprefix("blur."))), TOLERANCE)


def check_opening(arrays: Arrays) -> None:
    arrays.check("opening.out", blur(opening(arrays["opening.in"].float()), MOUTH_BLUR), TOLERANCE)


def check_lookat(arrays: Arrays) -> None:
    """Upstream's yaw has the other sign; its cameras may roll."""
    yaw, pitch, roll = arrays["lookat.in"].unbind(1)
    turn = torch.zeros(len(roll), 4, 4)
    turn[:, 0, 0] = turn[:, 1, 1] = roll.cos()
    turn[:, 0, 1], turn[:, 1, 0], turn[:, 2, 2], turn[:, 3, 3] = -roll.sin(), roll.sin(), 1, 1
    camera = Camera.look_at(-yaw, pitch)
    arrays.check("lookat.out", Camera(camera.cam2world @ turn, camera.intrinsics).reversed_axes().cam2world, TOLERANCE)


def check_gaussian_pose(arrays: Arrays) -> None:
    yaw, pitch, _ = arrays["lookat.in"].unbind(1)
    camera = Camera.look_at(yaw, pitch, radius=1.3, target=(0.0, 0.0, 0.0))
    arrays.check("gaussian_pose.out", camera.reversed_axes().cam2world, TOLERANCE)


def check_fov_intrinsics(arrays: Arrays) -> None:
    """Upstream takes fields of view of the diagonal, with pi and the root of 2 cut short; ours are focal lengths."""
    angles = [float(text) for text in arrays.notes["fov_intrinsics.out"]["what"].removeprefix("fov ").split(",")]
    focal = [1 / (math.tan(angle * 3.14159 / 360) * 1.414) for angle in angles]
    arrays.check("fov_intrinsics.out", torch.stack([pinhole(value) for value in focal]), TOLERANCE)


def check_augment(arrays: Arrays) -> None:
    images = arrays["augment.in"]
    for name in arrays.keys("augment.p"):
        draws = ada_draws("bgc", float(name.removeprefix("augment.p")), images)
        arrays.check(name, augment(images, draws), TOLERANCE)


def check_datum(arrays: Arrays) -> None:
    message = bytes(arrays["datum.bytes"].tolist())
    datum = Datum.decode(message, "the datum")
    assert datum.layout == "Datum_genhead" and datum.encode("the datum") == message
    notes = arrays.notes["datum.bytes"]["what"]
    assert datum.contents["images"] == b"IMAGEBYTES" and datum.contents["segs"] == b"SEGBYTES" and "IMAGEBYTES" in notes
    for key in ("labels", "mots"):
        assert torch.from_numpy(datum.numbers(key)[0]).equal(arrays[f"datum.{key}"])


FUNCTIONS: dict[str, Callable[[Arrays], None]] = {
    "surface_field": check_surface_field,
    "closest_point": check_closest_point,
    "closest_surface": check_closest_surface,
    "separate": check_separate,
    "separate_blink": check_separate_blink,
    "deform_part": check_deform_part,
    "deform_part_nosmooth": check_deform_part_nosmooth,
    "deform_nopart": check_deform_nopart,
    "deform_onlyhead": check_deform_onlyhead,
    "deform_onlyhead_th": check_deform_onlyhead_th,
    "rays": check_rays,
    "importance": check_importance,
    "march": check_march,
    "planes": check_planes,
    "distortion": check_distortion,
    "resize": check_resize,
    "blur": check_blur,
    "opening": check_opening,
    "lookat": check_lookat,
    "gaussian_pose": check_gaussian_pose,
    "fov_intrinsics": check_fov_intrinsics,
    "augment": check_augment,
    "datum": check_datum,
}
INPUTS = {"deform": ("deform.in.points", "deform.in.eye_blink")}
"""Groups that hold inputs of other groups and nothing to compare."""
