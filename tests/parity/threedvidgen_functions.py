"""Comparisons of cameras, rendering, filters, programs and seeds with the reference, one for every group of arrays.

Groups about training and data are in ``threedvidgen_training_functions``.
"""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from reference import Arrays
from threedvidgen_cases import sphere_axes
from torch import Tensor
from torch.nn.functional import normalize

from portraitzoo.layers.discriminator import stack_pair
from portraitzoo.layers.encoding import frequency_encoding
from portraitzoo.layers.resampling import binomial_filter, binomial_kernel, upsample2d
from portraitzoo.methods.threedvidgen.cameras import (
    camera_on_sphere,
    from_sphere_axes,
    gaussian_camera,
    program,
    relative_camera,
)
from portraitzoo.methods.threedvidgen.field import field_axes
from portraitzoo.methods.threedvidgen.latents import frame_times, latent_codes
from portraitzoo.methods.threedvidgen.network import ThreeDVidGenConfig, depth_rays
from portraitzoo.methods.threedvidgen.renderer import Span
from portraitzoo.methods.threedvidgen.upsampler import low_pass
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.inverted_sphere import inverted_sphere
from portraitzoo.rendering.rays import Rays, pixel_centres
from portraitzoo.rendering.volume import invert_distribution, point_weights

TOLERANCE = 1e-5
FACE = ThreeDVidGenConfig()
MEAD = replace(FACE, yaw_range=(-0.3, 0.3), fov=12.0)
SPAN = Span(FACE.depth_near, FACE.depth_far, 6, FACE.background_start, 4)


def inverse_pinhole(camera: Camera) -> Tensor:
    """The reference's inverse 4 x 4 matrix: its image plane reaches from -1 to 1."""
    across, down = 0.5 / camera.intrinsics[..., 0, 0], 0.5 / camera.intrinsics[..., 1, 1]
    ones = torch.ones_like(across)
    return torch.diag_embed(torch.stack([across, down, ones, ones], dim=-1))


def with_ranges(arrays: Arrays, group: str) -> ThreeDVidGenConfig:
    """A configuration with the group's camera ranges."""
    names = {"range_u": "yaw_range", "range_v": "polar_range", "range_radius": "radius_range"}
    ranges = {ours: tuple(arrays[f"{group}.in.{theirs}"].tolist()) for theirs, ours in names.items()}
    return replace(FACE, **ranges)


def check_camera_matrix(arrays: Arrays, group: str) -> None:
    fov = arrays[f"{group}.in.fov"]
    arrays.check(f"{group}.out.matrix", inverse_pinhole(camera_on_sphere(0.0, fov=fov)), TOLERANCE)


def check_pose(arrays: Arrays, group: str) -> None:
    u, v, r = arrays[f"{group}.in.uvr"].float().unbind(1)
    config = with_ranges(arrays, group)
    if group == "pose_not_angular":  # places that no released configuration uses: evenly on the whole sphere
        (low_u, high_u), (low_v, high_v) = config.yaw_range, config.polar_range
        yaw, height = low_u + (high_u - low_u) * u, low_v + (high_v - low_v) * v
        low, high = config.radius_range
        camera = camera_on_sphere(2 * math.pi * yaw, torch.arccos(1 - 2 * height), low + (high - low) * r)
    else:
        camera = relative_camera(config, u, v, r)
    arrays.check(f"{group}.out.cam2world", sphere_axes(camera.cam2world), TOLERANCE)


def check_pose_tensor(arrays: Arrays, group: str) -> None:
    first, second, _ = arrays[f"{group}.in.mode"].unbind(1)
    middle = torch.full_like(first, 0.5)
    place = gaussian_camera if group.endswith("gaussian") else relative_camera
    camera = place(with_ranges(arrays, group), first, second, middle)
    arrays.check(f"{group}.out.cam2world", sphere_axes(camera.cam2world), TOLERANCE)


def check_random_pose(arrays: Arrays, group: str) -> None:
    yaw, polar, radius = (arrays[f"{group}.in.{name}"].float() for name in ("normal_u", "normal_v", "uniform_r"))
    config = with_ranges(arrays, group)
    camera = gaussian_camera(config, yaw, polar, radius)
    low, high = config.radius_range
    radius = radius if low < high else torch.zeros_like(radius)  # so the reference calls a place in an empty range
    arrays.check(f"{group}.out.cam2world", sphere_axes(camera.cam2world), TOLERANCE)
    for name, relative in {"rel_u": 0.5 + yaw / 2, "rel_v": 0.5 + polar / 2, "rel_r": radius}.items():
        arrays.check(f"{group}.out.{name}", relative, TOLERANCE)


def recorded_rays(arrays: Arrays) -> Rays:
    """The rays of the group ``rays``."""
    fov = math.degrees(2 * math.atan(float(arrays["rays.in.camera_matrix"][0, 0, 0])))
    camera = from_sphere_axes(arrays["rays.in.cam2world"], fov)
    return depth_rays(camera, pixel_centres(int(arrays["rays.in.resolution"])))


def check_rays(arrays: Arrays, group: str) -> None:
    rays = recorded_rays(arrays)
    pixels = (2 * pixel_centres(int(arrays["rays.in.resolution"])) - 1) * torch.tensor([1.0, -1.0])
    arrays.check("rays.out.pixels", pixels[None], TOLERANCE)
    arrays.check("rays.out.camera_world", field_axes(rays.origins), TOLERANCE)
    arrays.check("rays.out.ray_vector", field_axes(rays.directions), TOLERANCE)
    arrays.check("rays.out.pixels_world", field_axes(rays.origins + rays.directions), TOLERANCE)


def check_pixel_grids(arrays: Arrays, group: str) -> None:
    """Grids that no released configuration uses, as centres of pixels of other sizes."""
    resolution = int(arrays["pixel_grids.in.resolution"])
    flip = torch.tensor([1.0, -1.0])
    wide = (2 * pixel_centres(resolution + 4) - 1) * (resolution + 4) / resolution
    arrays.check("pixel_grids.out.margin2", (wide * flip)[None], TOLERANCE)
    corners = (2 * pixel_centres(resolution) - 1) * resolution / (resolution - 1)
    arrays.check("pixel_grids.out.corner_aligned", (corners * flip)[None], TOLERANCE)


def check_sample_points(arrays: Arrays, group: str) -> None:
    depths = SPAN.depths(arrays["sample_points.in.di"])
    rays = recorded_rays(arrays)
    along = rays.directions[:, :, None].expand(*depths.shape, 3)
    arrays.check("sample_points.out.depth", depths, TOLERANCE)
    for name, values in {"points": rays.at(depths), "rays": along}.items():
        arrays.check(f"sample_points.out.{name}", field_axes(values).flatten(1, 2)[:, ::7], TOLERANCE)


def check_bg_points(arrays: Arrays, group: str) -> None:
    rays, inverse = recorded_rays(arrays), arrays["bg_points.in.inv_distance"]
    directions = normalize(rays.directions, dim=-1)
    along = directions[:, :, None].expand(*inverse.shape, 3)
    points, _ = inverted_sphere(rays.origins[:, :, None].expand_as(along), along, inverse)
    points = torch.cat([field_axes(points[..., :3]), points[..., 3:]], dim=-1)
    arrays.check("bg_points.out.points", points.flatten(1, 2), TOLERANCE)
    arrays.check("bg_points.out.rays", field_axes(directions), TOLERANCE)


def check_depth2pts_outside(arrays: Arrays, group: str) -> None:
    points, distances = inverted_sphere(*(arrays[f"{group}.in.{name}"] for name in ("ray_o", "ray_d", "inverse_depth")))
    arrays.check(f"{group}.out.points", points, TOLERANCE)
    arrays.check(f"{group}.out.depth", distances, TOLERANCE)


def check_volume_weights(arrays: Arrays, group: str) -> None:
    density, depths = arrays[f"{group}.in.sigma"].relu(), arrays[f"{group}.in.depth"]
    depths = depths.expand_as(density)
    if f"{group}.in.ray" in arrays:
        depths = depths * arrays[f"{group}.in.ray"].norm(dim=-1, keepdim=True)
    weights, transmittance = point_weights(density, depths, opaque_end=not group.endswith("last0"))
    arrays.check(f"{group}.out.weights", weights, TOLERANCE)
    if f"{group}.out.transmittance" in arrays:
        arrays.check(f"{group}.out.transmittance", transmittance, TOLERANCE)
        # Beside the last interval of 1e10 the others would be nothing.
        intervals = arrays[f"{group}.out.dists"]
        torch.testing.assert_close(depths.diff(dim=-1), intervals[..., :-1], rtol=TOLERANCE, atol=TOLERANCE)
        assert intervals[..., -1].unique().tolist() == [0.0 if group.endswith("last0") else 1e10]


def check_sample_pdf(arrays: Arrays, group: str) -> None:
    edges, weights = arrays[f"{group}.in.bins"], arrays[f"{group}.in.weights"]
    if group.endswith("random"):
        uniforms, frames = arrays[f"{group}.in.u"], int(arrays[f"{group}.in.timesteps"])
        uniforms = uniforms[:, None].expand(-1, frames, -1, -1).flatten(0, 2)
    else:
        uniforms = torch.linspace(0, 1, int(arrays[f"{group}.in.n"])).expand(len(edges), -1)
    arrays.check(f"{group}.out.samples", invert_distribution(edges, weights, uniforms), TOLERANCE)


def check_positional_encoding(arrays: Arrays, group: str) -> None:
    x = arrays[f"{group}.in.x"]
    arrays.check(f"{group}.out.y", frequency_encoding(x, int(arrays[f"{group}.in.n_freq"])), TOLERANCE)
    arrays.check(f"{group}.out.y4", frequency_encoding(x, 4), TOLERANCE)


def check_extend_timesteps(arrays: Arrays, group: str) -> None:
    """Frames of a video follow each other: what is per video is repeated for each of its frames."""
    x, frames = arrays[f"{group}.in.x"], int(arrays[f"{group}.in.t"])
    arrays.check(f"{group}.out.y", x[:, None].expand(-1, frames, -1).flatten(0, 1), TOLERANCE)


def check_filters(arrays: Arrays, group: str) -> None:
    x = arrays["filters.in.x"]
    arrays.check("filters.out.filter", binomial_kernel(x), TOLERANCE)
    arrays.check("filters.out.filter2d", low_pass(x.movedim(1, -1)).movedim(-1, 1), TOLERANCE)
    arrays.check("filters.out.upsample2d", upsample2d(x), TOLERANCE)
    arrays.check("filters.out.downsample2d", binomial_filter(x, padding=1, stride=2), TOLERANCE)


def check_program(arrays: Arrays, group: str) -> None:
    data, name = re.fullmatch(r"program_(face|mead)_(\w+)", group).groups()
    camera = program(name, FACE if data == "face" else MEAD, int(arrays[f"{group}.in.n_steps"]))
    # The reference has the order of rendering, which the written video, and so our trajectory, reverses.
    arrays.check(f"{group}.out.cam2world", sphere_axes(camera.cam2world).flip(0), TOLERANCE)
    arrays.check(f"{group}.out.camera_matrix", inverse_pinhole(camera).flip(0), TOLERANCE)


def check_seed(arrays: Arrays, group: str) -> None:
    sizes = {
        "z_dim": arrays[f"{group}.out.z"].shape[1],
        "motion_dim": arrays[f"{group}.out.z_motion"].shape[1],
        "background_dim": arrays[f"{group}.out.z_shape_bg"].shape[1],
    }
    codes = latent_codes(int(arrays[f"{group}.in.seed"]), None, replace(FACE, **sizes))
    arrays.check(f"{group}.out.z", codes.appearance, TOLERANCE)
    arrays.check(f"{group}.out.z_motion", codes.motion, TOLERANCE)
    arrays.check(f"{group}.out.z_shape_bg", codes.background, TOLERANCE)
    arrays.read.add(f"{group}.out.z_app_bg")  # no network has a background that depends on the view
    times = arrays[f"{group}.out.Ts"]
    arrays.check(f"{group}.out.Ts", frame_times(len(times)), TOLERANCE)


def check_convert(arrays: Arrays, group: str) -> None:
    frames = arrays["convert.in.img"].unflatten(0, (-1, 2))
    arrays.check("convert.out.video", stack_pair(frames, arrays["convert.in.Ts"]), TOLERANCE)


PATTERNS: dict[str, Callable[[Arrays, str], None]] = {
    "camera_matrix": check_camera_matrix,
    "pose_tensor_.+": check_pose_tensor,
    "pose_.+": check_pose,
    "random_pose_.+": check_random_pose,
    "rays": check_rays,
    "pixel_grids": check_pixel_grids,
    "sample_points": check_sample_points,
    "bg_points": check_bg_points,
    "depth2pts_outside": check_depth2pts_outside,
    "volume_weights_.+": check_volume_weights,
    "sample_pdf(_random)?": check_sample_pdf,
    "positional_encoding": check_positional_encoding,
    "extend_timesteps": check_extend_timesteps,
    "filters": check_filters,
    "program_.+": check_program,
    r"seed_\d+": check_seed,
    "convert": check_convert,
}


def check_for(group: str) -> Callable[[Arrays], None] | None:
    """The comparison of a group; None if it is not one of these."""
    for pattern, check in PATTERNS.items():
        if re.fullmatch(pattern, group):
            return partial(check, group=group)
    return None
