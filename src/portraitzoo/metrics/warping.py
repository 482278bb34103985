"""Multi-view warping error: whether side and front view of a head agree once its depth carries one into the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import cv2
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from portraitzoo.metrics.chamfer import nearest_squared
from portraitzoo.metrics.multiview import NUM_VIEWS, PAIRS, check_views, side_camera
from portraitzoo.metrics.pair_metric import PairMetric
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.rays import cast_rays


def lifted(camera: Camera, depth: Float[Tensor, "res res"]) -> Float[Tensor, "res*res 3"]:
    """World points of a depth map that holds distances along unit rays, row-major."""
    single = Camera(camera.cam2world[None], camera.intrinsics[None])
    return cast_rays(single, depth.shape[-1]).at(depth.reshape(1, -1, 1))[0, :, 0]


def projected(
    camera: Camera, points: Float[Tensor, "points 3"]
) -> tuple[Float[Tensor, "points 2"], Float[Tensor, " points"]]:
    """Image positions of world points, x and y in [-1, 1] inside the image, and their distance along the view axis."""
    homogeneous = F.pad(points, (0, 1), value=1.0)
    local = homogeneous @ torch.inverse(camera.cam2world).T
    z = local[:, 2]
    focal, center = camera.intrinsics.diagonal()[:2], camera.intrinsics[:2, 2]
    return (local[:, :2] / z[:, None] * focal + center) * 2 - 1, z


def resized_depth(depth: Float[Tensor, "res res"], size: int, mode: str = "bilinear") -> Float[Tensor, "size size"]:
    """Depth map at another resolution, half-pixel centres."""
    return F.interpolate(depth[None, None], (size, size), mode=mode)[0, 0]


def resized_images(images: UInt8[Tensor, "batch height width 3"], size: int) -> UInt8[Tensor, "batch size size 3"]:
    """Images at ``size``, by OpenCV's bilinear rule for bytes (fixed-point weights, rounded)."""
    frames = [torch.from_numpy(cv2.resize(image, (size, size))) for image in images.cpu().numpy()]
    return torch.stack(frames).to(images.device)


def _last_writers(targets: Int[Tensor, " points"], order: Int[Tensor, " points"], count: int) -> Int[Tensor, " count"]:
    """For each target the largest ``order`` of the points that fall on it, -1 for none."""
    winners = torch.full((count,), -1, dtype=order.dtype, device=order.device)
    return winners.scatter_reduce(0, targets, order, "amax")


def forward_warp(
    front: Float[Tensor, "size size 3"],
    side: Float[Tensor, "size size 3"],
    side_depth: Float[Tensor, "res res"],
    front_camera: Camera,
    side_camera: Camera,
    *,
    z_buffer: bool = False,
) -> tuple[Float[Tensor, "size size 3"], Bool[Tensor, "size size"]]:
    """Scatter the side view's pixels to where its depth puts them in the front view.

    Where several fall on one pixel, the later in raster order wins: PV3D's program has no z-buffer. It also looks up
    whether a pixel left the image at its position in the SIDE view. Both are kept unless ``z_buffer``: then the nearest
    point wins, and pixels that leave the image are not written at all.

    Returns:
        the warped view (0 where not valid) and which of its pixels are valid.
    """
    size = front.shape[0]
    depth = resized_depth(side_depth, size)
    position, distance = projected(front_camera, lifted(side_camera, depth))
    inside = position.abs().amax(-1) <= 1
    x, y = ((position + 1) / 2 * size).trunc().clamp(0, size - 1).long().unbind(-1)
    targets = y * size + x
    order = torch.arange(size * size, device=front.device)
    sources = order
    if z_buffer:
        # Far points first, so that near ones overwrite them; the stable sort keeps raster order among equals.
        sources = torch.argsort(distance, descending=True, stable=True)
        sources = sources[inside[sources]]
        targets, order = targets[sources], order[: len(sources)]
    winners = _last_writers(targets, order, size * size)
    hit = winners >= 0
    valid = hit if z_buffer else hit & inside
    colours = (
        side.flatten(0, 1)[sources[winners.clamp(min=0)]] if len(sources) else torch.zeros_like(front).flatten(0, 1)
    )
    warped = torch.where(valid[:, None], colours, 0)
    return warped.view_as(front), valid.view(size, size)


def backward_warp(
    side: Float[Tensor, "size size 3"],
    front_depth: Float[Tensor, "res res"],
    side_depth: Float[Tensor, "res res"],
    front_camera: Camera,
    side_camera: Camera,
    *,
    threshold: float = 0.015,
    coarse: int = 64,
) -> tuple[Float[Tensor, "size size 3"], Bool[Tensor, "size size"]]:
    """Look up each front pixel in the side view, with an occlusion test.

    A pixel counts as seen in both views if the surfaces lie within ``threshold`` (world units) of each other there, by
    nearest points at resolution ``coarse``. PV3D's program holds this variant without using it; the front view's depth
    is taken at ``coarse`` by nearest pixel, the side view's bilinearly, as there.

    Returns:
        the warped view (whole grey levels, 0 where not valid) and which of its pixels are valid.
    """
    size = side.shape[0]
    ours = lifted(front_camera, resized_depth(front_depth, coarse, "nearest"))
    theirs = lifted(side_camera, resized_depth(side_depth, coarse))
    apart = torch.stack(nearest_squared(ours, theirs)).mean(0).view(coarse, coarse)
    seen = resized_depth(apart, size).sqrt() <= threshold
    position, _ = projected(side_camera, lifted(front_camera, resized_depth(front_depth, size)))
    valid = seen & (position.abs().amax(-1) <= 1).view(size, size)
    signal = side.permute(2, 0, 1)[None] / 127.5 - 1
    sampled = F.grid_sample(signal, position.view(1, size, size, 2), align_corners=True)[0].permute(1, 2, 0)
    return torch.where(valid[..., None], ((sampled + 1) / 2 * 255).trunc(), 0), valid


class MultiViewWarpingError(PairMetric):
    r"""Multi-view warping error (PV3D, section 4.1, "WE").

    .. math:: \mathrm{WE} = \frac{1}{N |P|} \sum_n \sum_{(f, s) \in P}
              \mathrm{mean}_{p \in V} |\mathrm{warp}(I_{ns})_p - I_{nf, p}|

    in grey levels (0 to 255), over the four (front, side) pairs of each head (see
    :mod:`~portraitzoo.metrics.multiview`); :math:`V` are the valid pixels of all channels. A pair without valid pixels
    is skipped and counted in ``skipped``.

    As input to ``update`` the metric accepts

    - ``images`` uint8 tensor ``[batch, 4, height, width, 3]``, RGB
    - ``depth`` float tensor ``[batch, 4, res, res]``: distance along the unit ray, world units

    As output of ``compute`` it returns a float64 scalar; lower is better.

    Args:
        yaw: of the side camera, degrees; PV3D's paper takes 30.
        pitch: of the side camera, degrees.
        size: resolution at which views are compared.
        method: ``"pv3d"`` scatters without z-buffer as the published numbers; ``"z-buffer"`` lets the nearest point
            win; ``"backward"`` samples the side view and leaves out occluded pixels. Only equal methods compare.
        kwargs: further arguments of :class:`torchmetrics.Metric`.

    Raises:
        ZooError: for other shapes, or from ``compute`` if every pair was skipped.

    Example:
        >>> metric = MultiViewWarpingError(size=16)
        >>> grey = torch.full((1, 4, 16, 16, 3), 128, dtype=torch.uint8)
        >>> metric.update(grey, torch.full((1, 4, 8, 8), 2.7))
        >>> metric.compute()
        tensor(0., dtype=torch.float64)
    """

    def __init__(
        self,
        yaw: float = 30.0,
        pitch: float = 0.0,
        size: int = 256,
        method: Literal["pv3d", "z-buffer", "backward"] = "pv3d",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.method = method
        self.front = Camera.canonical()
        self.side = side_camera(yaw, pitch)

    def update(self, images: UInt8[Tensor, "batch 4 height width 3"], depth: Float[Tensor, "batch 4 res res"]) -> None:
        """Add heads of four frames."""
        check_views("images", tuple(images.shape), (None, NUM_VIEWS, None, None, 3))
        check_views("depth", tuple(depth.shape), (len(images), NUM_VIEWS, None, depth.shape[-2]))
        self.update_features(self.pair_values(images, depth))

    def pair_values(
        self,
        images: UInt8[Tensor, "batch 4 height width 3"],
        depth: Float[Tensor, "batch 4 res res"],
        cameras: Sequence[Camera | None] | None = None,
    ) -> Float[Tensor, "batch 4"]:
        """Error of each head and (front, side) pair in grey levels; NaN where no pixel is valid.

        Args:
            images: as in :meth:`update`.
            depth: as in :meth:`update`.
            cameras: of batch shape [4] for each head whose cameras are not PV3D's.
        """
        rows = []
        for frames, distances, own in zip(images, depth.float(), cameras or [None] * len(images), strict=True):
            pair = (self.front, self.side) if own is None else (own[0], own[1])
            views = resized_images(frames, self.size).to(distances)
            errors = []
            for front, side in PAIRS:
                warped, valid = self._warped(views[front], views[side], distances[front], distances[side], pair)
                errors.append((warped - views[front]).abs()[valid].mean())
            rows.append(torch.stack(errors))
        return torch.stack(rows)

    def _warped(
        self, front: Tensor, side: Tensor, front_depth: Tensor, side_depth: Tensor, pair: tuple[Camera, Camera]
    ) -> tuple[Tensor, Tensor]:
        cameras = pair[0].to(front.device), pair[1].to(front.device)
        if self.method == "backward":
            return backward_warp(side, front_depth, side_depth, *cameras)
        return forward_warp(front, side, side_depth, *cameras, z_buffer=self.method == "z-buffer")
