"""Comparisons of cameras, rays, sampling and layers with the reference, one function for every group of arrays.

Groups about training and data are in ``pv3d_training``.
"""

import math
from collections.abc import Callable

import torch
from reference import Arrays
from torch import Tensor

from portraitzoo.layers.discriminator import ConvLayer, minibatch_stddev
from portraitzoo.layers.linear import FullyConnected
from portraitzoo.layers.modulation import modulated_conv2d
from portraitzoo.layers.resampling import resize, upsample2d
from portraitzoo.rendering.cameras import LEVEL, Camera, orbit
from portraitzoo.rendering.rays import box_intersections, cast_rays
from portraitzoo.rendering.triplane import project_onto_planes, sample_planes
from portraitzoo.rendering.volume import (
    DepthRange,
    bounded_depth,
    coarse_depths,
    composite,
    expected_depth,
    filled,
    importance_depths,
    interval_weights,
)

TOLERANCE = 1e-5
NEAR, FAR = 2.25, 3.3


def check_look_at(arrays: Arrays) -> None:
    yaw, pitch = arrays["look_at.in"].float().unbind(1)
    arrays.check("look_at.out", Camera.look_at(yaw, LEVEL + pitch).cam2world, TOLERANCE)


def check_side_camera(arrays: Arrays) -> None:
    yaw, pitch = (arrays["side_camera.in"].float() * math.pi / 180).unbind(1)
    arrays.check("side_camera.out", Camera.look_at(yaw, LEVEL + pitch).label(), TOLERANCE)


def check_canonical_camera(arrays: Arrays) -> None:
    arrays.check("canonical_camera", Camera.canonical().label(), TOLERANCE)


def check_orbit(arrays: Arrays) -> None:
    arrays.check("orbit.out", orbit(120).label()[arrays["orbit.in"]], TOLERANCE)


def check_cam_hflip(arrays: Arrays) -> None:
    arrays.check("cam_hflip.out", Camera.from_label(arrays["cam_hflip.in"]).mirrored().label(), TOLERANCE)


def check_rays(arrays: Arrays) -> None:
    """Also the groups ``rays<resolution>``, which hold the outputs for the cameras of ``rays``."""
    camera = Camera(arrays["rays.in.c2w"], arrays["rays.in.K"])
    for name in arrays.keys("rays"):
        if name.endswith(".out.origins"):
            group = name.removesuffix(".out.origins")
            rays = cast_rays(camera, int(group.removeprefix("rays")))
            arrays.check(name, rays.origins, TOLERANCE)
            arrays.check(f"{group}.out.dirs", rays.directions, TOLERANCE)


def check_ray_box(arrays: Arrays) -> None:
    resolution = math.isqrt(arrays["ray_box.out.min"].shape[1])
    rays = cast_rays(Camera(arrays["rays.in.c2w"], arrays["rays.in.K"]), resolution)
    entry, exit_ = box_intersections(rays, side=1.0)
    arrays.check("ray_box.out.min", entry, TOLERANCE)
    arrays.check("ray_box.out.max", exit_, TOLERANCE)


def check_planes(arrays: Arrays) -> None:
    planes, points = arrays["planes.in.planes"], arrays["planes.in.points"]
    arrays.check("planes.out.proj", project_onto_planes(points), TOLERANCE)
    for name in arrays.keys("planes.out.features"):
        _, _, box_warp = name.partition("_bw")
        arrays.check(name, sample_planes(planes, points, float(box_warp or 1)), TOLERANCE)


def check_stratified(arrays: Arrays) -> None:
    jitter = arrays["stratified.in.jitter"].squeeze(-1)
    batch, rays, samples = jitter.shape
    like = torch.empty(batch, rays, 3)
    for name, spacing, moves in (
        ("stratified.out", "depth", jitter),
        ("stratified.out_disparity", "disparity", jitter),
        ("stratified.out_nojitter", "depth", None),
    ):
        span = DepthRange(NEAR, FAR, samples, 0, spacing)
        arrays.check(name, coarse_depths(span, like, moves)[..., None], TOLERANCE)


def check_march(arrays: Arrays) -> None:
    colors, densities, depths, points = (arrays[f"march.in.{n}"] for n in ("colors", "densities", "depths", "points"))
    depths = depths.squeeze(-1)
    weights = interval_weights(densities.squeeze(-1), depths)
    opacity = weights.sum(dim=-1, keepdim=True)
    color = composite(weights, colors)
    image = opacity.reshape(arrays["march.out.depth.weight_total"].shape)
    found = {
        "rgb": color * 2 - 1,
        "depth": bounded_depth(expected_depth(weights, depths), depths),
        "weights": weights[..., None],
    }
    modes: dict[str, dict[str, Tensor]] = {
        "plain": found,
        "white": found | {"rgb": (color + 1 - opacity) * 2 - 1},
        "depth": found
        | {
            "weights": filled(weights)[..., None],
            "xyz": composite(filled(weights), points).reshape(*image.shape[:-1], 3),
            "weight_total": image,
        },
    }
    for name in arrays.keys("march.out."):
        _, _, mode, which = name.split(".")
        arrays.check(name, modes[mode][which], TOLERANCE)


def check_importance(arrays: Arrays) -> None:
    weights = arrays["importance.in.weights"].squeeze(-1)
    depths = arrays["march.in.depths"].squeeze(-1)
    uniforms = arrays["importance.in.u"].reshape(*weights.shape[:2], -1)
    even = torch.linspace(0, 1, uniforms.shape[-1]).expand_as(uniforms)
    arrays.check("importance.out", importance_depths(depths, weights, uniforms)[..., None], TOLERANCE)
    arrays.check("importance.out_det", importance_depths(depths, weights, even)[..., None], TOLERANCE)


def check_modconv(arrays: Arrays) -> None:
    x, weight, styles, noise = (arrays[f"modconv.in.{name}"] for name in ("x", "w", "styles", "noise"))

    def check(name: str, weight: Tensor, added: Tensor | float = 0.0, **options: object) -> None:
        arrays.check(name, modulated_conv2d(x, weight, styles, **options) + added, TOLERANCE)
        with torch.no_grad():  # one sample alone takes the other way through the function
            rows = [modulated_conv2d(x[i : i + 1], weight, styles[i : i + 1], **options) for i in range(len(x))]
        arrays.check(name, torch.cat(rows) + added, TOLERANCE)

    check("modconv.out.same", weight)
    check("modconv.out.up2", weight, noise, up=2)
    check("modconv.out.up2_fused", weight, noise, up=2)
    check("modconv.out.rgb", weight[:, :, :1, :1], demodulate=False)


def check_convlayer(arrays: Arrays) -> None:
    x, weight = arrays["convlayer.in.x"], arrays["modconv.in.w"]
    out_channels, in_channels = weight.shape[:2]
    layer = ConvLayer(in_channels, out_channels, 3, down=2, gain=math.sqrt(0.5), clamp=1.5)
    skip = ConvLayer(in_channels, out_channels, 1, down=2, activation="linear", bias=False, gain=math.sqrt(0.5))
    layer.load_state_dict({"weight": weight, "bias": arrays["convlayer.in.bias"]})
    skip.load_state_dict({"weight": weight[:, :, :1, :1]})
    arrays.check("convlayer.out.down2", layer(x), TOLERANCE)
    arrays.check("convlayer.out.skip", skip(x), TOLERANCE)


def check_upsample2d(arrays: Arrays) -> None:
    arrays.check("upsample2d.out", upsample2d(arrays["modconv.in.x"]), TOLERANCE)


def check_mbstd(arrays: Arrays) -> None:
    arrays.check("mbstd.out", minibatch_stddev(arrays["mbstd.in"], group_size=4), TOLERANCE)


def check_fc(arrays: Arrays) -> None:
    weight = arrays["fc.in.w"]
    layer = FullyConnected(weight.shape[1], weight.shape[0], activation="lrelu", lr_multiplier=0.01)
    layer.load_state_dict({"weight": weight, "bias": arrays["fc.in.b"]})
    arrays.check("fc.out", layer(arrays["fc.in.x"]), TOLERANCE)


def check_resize(arrays: Arrays) -> None:
    image = arrays["resize.in"]
    for name in arrays.keys("resize.out"):
        size = int(name.removeprefix("resize.out").removeprefix("_up"))
        arrays.check(name, resize(image, size), TOLERANCE, strided=False)


FUNCTIONS: dict[str, Callable[[Arrays], None]] = {
    "look_at": check_look_at,
    "side_camera": check_side_camera,
    "canonical_camera": check_canonical_camera,
    "orbit": check_orbit,
    "cam_hflip": check_cam_hflip,
    "rays": check_rays,
    "ray_box": check_ray_box,
    "planes": check_planes,
    "stratified": check_stratified,
    "march": check_march,
    "importance": check_importance,
    "modconv": check_modconv,
    "convlayer": check_convlayer,
    "upsample2d": check_upsample2d,
    "mbstd": check_mbstd,
    "fc": check_fc,
    "resize": check_resize,
}
