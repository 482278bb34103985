"""Comparisons of Portrait4D's functions with the reference, one for every group of arrays."""

import math
import re
from collections.abc import Callable
from types import SimpleNamespace

import torch
from reference import Arrays
from torch import Tensor, nn

from portraitzoo.faces.flame_arrays import PARENTS
from portraitzoo.faces.head_pose import rigid_inverse
from portraitzoo.faces.motion_embedding import INPUT_SIZE, crop_face, crop_matrix
from portraitzoo.faces.neck_field import MIN_AREA, NeckField, follow_faces, smoothed
from portraitzoo.faces.rotations import rotation_matrix
from portraitzoo.faces.similarity import warp
from portraitzoo.faces.skinning import linear_blend_skinning
from portraitzoo.layers.resampling import resize
from portraitzoo.methods.portrait4d.cameras import around_head, camera_of_label
from portraitzoo.methods.portrait4d.curriculum import Curriculum, LossWeights
from portraitzoo.methods.portrait4d.objective import (
    Synthesised,
    Target,
    face_matrix,
    identity_loss,
    reconstruction_losses,
    y_down,
)
from portraitzoo.methods.portrait4d.poses import eye_opening, rectified_necks, teacher_box_scale
from portraitzoo.rendering.cameras import Camera, pinhole
from portraitzoo.rendering.closest import closest_faces, plane_coordinates
from portraitzoo.rendering.rays import cast_rays
from portraitzoo.rendering.surfaces import sample_grid
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
from portraitzoo.training.optimisers import lazy_adam
from portraitzoo.training.schedules import ema_beta

TOLERANCE = 1e-5
CROP_TOLERANCE = 2e-4
"""Upstream's warp multiplies and inverts matrices of normalised coordinates in single precision, which moves samples by
some 1e-4 pixels; ours does so in double precision."""
BOX = 1.3
IMAGE_SIZE = 512


def image_sizes(meaning: str) -> tuple[int, int]:
    """Sides of finished and raw images, as the notes say them: ``image_sr [64], image [16]``."""
    found = re.search(r"image_sr \[(\d+)\], image \[(\d+)\]", meaning)
    assert found, f"the notes do not tell the sizes of the images: {meaning}"
    return int(found[1]), int(found[2])


def waves(arrays: Arrays, name: str, size: int) -> Tensor:
    """Images that the reference describes as sums of sines: amplitude, frequencies and phase of each."""
    amplitude, fx, fy, phase = arrays[name].double().unbind(-1)
    u = torch.linspace(0, 1, size, dtype=torch.float64)
    angle = 2 * torch.pi * (fx[..., None, None] * u + fy[..., None, None] * u[:, None]) + phase[..., None, None]
    return (amplitude[..., None, None] * angle.sin()).sum(-3).float()


def camera_of(arrays: Arrays) -> Camera:
    """The cameras of the group ``lookat``."""
    cam2world = arrays["lookat.out.cam2world"]
    return Camera(cam2world, pinhole(1.0).expand(len(cam2world), 3, 3)).reversed_axes()


def check_lookat(arrays: Arrays) -> None:
    yaw, pitch, roll, radius = (arrays[f"lookat.in.{name}"][:, 0] for name in ("yaw", "pitch", "roll", "radius"))
    camera = around_head(yaw, pitch, roll, arrays["lookat.in.pivot"], radius)
    arrays.check("lookat.out.cam2world", camera.reversed_axes().cam2world, TOLERANCE)


def check_camera_inverse(arrays: Arrays) -> None:
    arrays.check("camera_inverse.out", rigid_inverse(arrays["lookat.out.cam2world"]), TOLERANCE)


def check_fov(arrays: Arrays) -> None:
    """Upstream takes fields of view of the diagonal, with pi and the root of 2 cut short; ours are focal lengths."""
    angles = arrays["fov.in.degrees"].tolist()
    focal = [1 / (math.tan(angle * 3.14159 / 360) * 1.414) for angle in angles]
    arrays.check("fov.out", torch.stack([pinhole(value) for value in focal]), TOLERANCE)


def check_rays(arrays: Arrays) -> None:
    intrinsics, directions = arrays["rays.in.intrinsics"], arrays["rays.out.directions"]
    label = torch.cat([arrays["lookat.out.cam2world"][: len(intrinsics)].flatten(1), intrinsics.flatten(1)], dim=1)
    rays = cast_rays(camera_of_label(label), math.isqrt(directions.shape[1]))
    arrays.check("rays.out.origins", rays.origins[:, :1], TOLERANCE)
    arrays.check("rays.out.directions", rays.directions, TOLERANCE)


def check_march(arrays: Arrays) -> None:
    depths, densities = arrays["march.in.depths"][..., 0], arrays["march.in.densities"][..., 0]
    weights = interval_weights(densities, depths)
    arrays.check("march.out.weights", weights[..., None], TOLERANCE)
    arrays.check("march.out.rgb", composite(weights, arrays["march.in.colors"]), TOLERANCE)
    arrays.check("march.out.T_bg", 1 - weights.sum(dim=-1, keepdim=True), TOLERANCE)
    arrays.check("march.out.depth", bounded_depth(expected_depth(weights, depths), depths), TOLERANCE)


def check_importance(arrays: Arrays) -> None:
    depths, weights = arrays["march.in.depths"][..., 0], arrays["march.out.weights"][..., 0]
    count = arrays["importance.out.depths"].shape[2]
    uniforms = torch.linspace(0, 1, count).expand(*depths.shape[:2], -1)
    arrays.check("importance.out.depths", importance_depths(depths, weights, uniforms)[..., None], TOLERANCE)


def check_planes(arrays: Arrays) -> None:
    found = sample_planes(arrays["planes.in.planes"], arrays["planes.in.points"], BOX, CYCLIC_AXES)
    arrays.check("planes.out.features", found, TOLERANCE)


def check_autoplane(arrays: Arrays) -> None:
    samples = arrays["autoplane.out.depths"].shape[2]
    span = DepthRange.around_origin(camera_of(arrays), BOX, samples, samples)
    like = torch.zeros(len(arrays["autoplane.out.depths"]), 1, 3)
    depths = coarse_depths(span, like, torch.full((len(like), 1, samples), 0.5))
    arrays.check("autoplane.out.depths", depths[..., None], TOLERANCE)


def check_lbs(arrays: Arrays) -> None:
    betas, pose, template, shapes, corrections, joints, weights = (
        arrays[f"lbs.in.{name}"]
        for name in ("betas", "pose", "v_template", "shapedirs", "posedirs", "J_regressor", "weights")
    )
    shaped = template + torch.einsum("bk,vck->bvc", betas, shapes)
    rotations = rotation_matrix(pose.unflatten(1, (-1, 3)))
    features = (rotations[:, 1:] - torch.eye(3)).flatten(1)
    corrected = shaped + (features @ corrections).unflatten(1, (-1, 3))
    vertices, placed = linear_blend_skinning(corrected, joints @ shaped, rotations, list(PARENTS), weights)
    arrays.check("lbs.out.vertices", vertices, TOLERANCE)
    arrays.check("lbs.out.joints", placed, TOLERANCE)


def check_pointface(arrays: Arrays) -> None:
    points, vertices, faces = (arrays[f"pointface.in.{name}"] for name in ("points", "vertices", "faces"))
    for name, scale in (("large", 1.0), ("small", 0.25)):
        distance, _ = closest_faces(points * scale, vertices[None] * scale, faces, min_area=MIN_AREA)
        arrays.check(f"pointface.{name}.out.sqdist", distance, TOLERANCE)


def check_surface(arrays: Arrays) -> None:
    points, vertices, faces = (arrays[f"pointface.in.{name}"] for name in ("points", "vertices", "faces"))
    chosen = arrays["surface.in.face_index"]
    corners = vertices[faces[chosen]]
    arrays.check("surface.out.barycentric", plane_coordinates(points[0], corners)[0], TOLERANCE)
    moved = follow_faces(points[0], corners, arrays["surface.in.canonical_triangles"][chosen])
    arrays.check("surface.out.points", moved, TOLERANCE)


def check_warp(arrays: Arrays) -> None:
    fine = torch.cat([arrays["warp.in.grid24_offset"], arrays["warp.in.grid24_dist"]], dim=1)
    field = NeckField(fine, smoothed(smoothed(arrays["warp.in.grid8_offset"])), BOX)
    arrays.check("warp.out.points", field(arrays["warp.in.points"]), TOLERANCE)


def check_align(arrays: Arrays) -> None:
    landmarks = arrays["align.in.landmarks"]
    arrays.check("align.out.pdfgc_down", crop_matrix(landmarks), TOLERANCE)
    arrays.check("align.out.pdfgc_up", crop_matrix(y_down(landmarks, IMAGE_SIZE)), TOLERANCE)
    arrays.check("align.out.arcface", face_matrix(landmarks, IMAGE_SIZE), TOLERANCE)


def check_crop(arrays: Arrays) -> None:
    images = waves(arrays, "crop.in.image_waves", IMAGE_SIZE)
    landmarks = arrays["align.in.landmarks"][: len(images)]
    arrays.check("crop.out.warped", warp(images, crop_matrix(landmarks), INPUT_SIZE), CROP_TOLERANCE)
    arrays.check("crop.out.encoder_input", crop_face(images, landmarks), CROP_TOLERANCE)


def check_resize(arrays: Arrays) -> None:
    for name in arrays.keys("resize.out"):
        arrays.check(name, resize(arrays["resize.in"], int(name.rpartition(".")[2])), TOLERANCE)


def check_rectify(arrays: Arrays) -> None:
    found = torch.stack([rectified_necks(clip) for clip in arrays["rectify.in.neck"]])
    arrays.check("rectify.out.neck", found, TOLERANCE)


def check_schedule(arrays: Arrays) -> None:
    found = [Curriculum().render_resolution(count) for count in arrays["schedule.in.nimg"].tolist()]
    assert found == arrays["schedule.out.render_resolution_v1"].tolist()


def check_lazy(arrays: Arrays) -> None:
    rows = []
    for interval in arrays["lazy.in.interval"].tolist():
        settings = lazy_adam([nn.Parameter(torch.zeros(1))], 1e-4, interval, beta1=0.9, beta2=0.999).defaults
        rows.append([settings["lr"], *settings["betas"]])
    for column in range(3):
        # Column by column: the decays would hide an error of the learning rate.
        expected = arrays["lazy.out"][:, column]
        torch.testing.assert_close(torch.tensor(rows).double()[:, column], expected, rtol=TOLERANCE, atol=0)


def check_ema(arrays: Arrays) -> None:
    found = torch.tensor([ema_beta(int(count), 32) for count in arrays["ema.in.nimg"].tolist()])
    arrays.check("ema.out.beta", found, TOLERANCE)


def check_eyescale(arrays: Arrays) -> None:
    opening = eye_opening(arrays["eyescale.in.landmarks"])
    arrays.check("eyescale.out.ratio", opening, TOLERANCE)
    arrays.check("eyescale.out.box_warp_scale", teacher_box_scale(opening), TOLERANCE)


def check_voxels(arrays: Arrays) -> None:
    """Ours are the corners of the cells. Upstream's drift towards the next corner along each row, in x and in y, for
    it forgets to round down; with that drift put back they are the same.
    """
    expected = arrays["voxels.out.points"]
    count = round(len(expected) ** (1 / 3))
    seen: list[Tensor] = []

    def keep(points: Tensor) -> Tensor:
        seen.append(points)
        return points[:, 0]

    sample_grid(keep, BOX, count)
    points = torch.cat(seen)
    step, number = BOX / (count - 1), torch.arange(len(points))
    drift = torch.stack([number % count**2 / count**2, number % count / count, torch.zeros(len(points))], dim=1)
    arrays.check("voxels.out.points", points + drift * step, TOLERANCE)
    arrays.check("voxels.out.origin", points[0], TOLERANCE)


LOSSES = {
    "l_id": "identity",
    "lrecon_depth": "depth",
    "lrecon_feature": "features",
    "lrecon_l1": "l1",
    "lrecon_lpips": "perceptual",
    "lrecon_seg": "mask",
    "lrecon_triplane": "planes",
}
"""Upstream's names of the losses and ours."""


def check_loss(arrays: Arrays, group: str) -> None:
    """Losses, and how they pull on each generated tensor, with stand-ins for the networks that judge."""
    real, made = (
        {name.removeprefix(prefix): arrays[name] for name in arrays.keys(prefix)}
        for prefix in (f"{group}.in.real.", f"{group}.in.gen.")
    )
    for tensor in made.values():
        tensor.requires_grad_()
    output = SimpleNamespace(
        image=made["image_sr"],
        image_raw=made["image"],
        foreground=made["image_wobg"],
        background=made["rgb_bg"],
        opacity=(made["seg"] + 1) / 2,
        depth=made["image_depth"],
        foreground_features=made["image_feature_wobg"],
        background_features=made["background_feature"],
    )
    known = None
    if "depth" in real:
        points = real["triplane"]
        known = Synthesised(
            real["seg_render"],
            real["depth"],
            real["feature"],
            real["feature_bg"],
            points[..., :3],
            points[..., 3:],
        )
    target = Target(real["img_recon"], real["seg"], known)
    weight = arrays[f"{group}.in.facenet_weight"]

    def identity(crops: Tensor) -> Tensor:
        part = crops[:, :, 10:20, 10:20].mean(dim=(2, 3))
        return (crops.mean(dim=(2, 3)) + 0.1 * part) @ weight.T

    losses = reconstruction_losses(
        output, target, lambda one, other: (one - other).square().mean(dim=(1, 2, 3)), planes=made["planes"]
    )
    losses["identity"] = identity_loss(output.image, target.image, arrays[f"{group}.in.landmarks"], identity)
    images = int(arrays[f"{group}.in.nimg"])
    weights = LossWeights() if known is None else Curriculum().weights(images, LossWeights())
    names = [name.rpartition("/")[2] for name in arrays.notes["arrays"][f"{group}.out.terms"]["names"]]
    arrays.check(f"{group}.out.terms", torch.stack([losses[LOSSES[name]].detach() for name in names]), TOLERANCE)
    counted = {LOSSES[name] for name in names}
    total = torch.stack([loss * getattr(weights, name) for name, loss in losses.items() if name in counted]).sum()
    gradients = torch.autograd.grad(total, list(made.values()), allow_unused=True)
    for name, gradient in zip(made, gradients, strict=True):
        key = f"{group}.out.gradnorm.{name}"
        if key in arrays:
            arrays.check(key, gradient.norm()[None], TOLERANCE)
        else:
            assert gradient is None or not gradient.any(), f"{key}: the reference has no gradient"


FUNCTIONS: dict[str, Callable[[Arrays], None]] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_") and name != "check_loss"
} | {name: lambda arrays, name=name: check_loss(arrays, name) for name in ("loss_v1_warm", "loss_v1_late", "loss_v2")}
