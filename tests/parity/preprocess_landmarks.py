"""Landmarks and crops: what the reference numbers of 3DFAN, Deep3DFaceRecon and the similarity crops say."""

from collections.abc import Callable

import torch
from reference import Arrays, Case, captured
from torch import Tensor

from portraitzoo.faces.alignment import (
    Placement,
    coefficient_crop,
    eg3d_crop,
    fit_template,
    five_of_68,
    five_of_98,
    portrait_crop,
)
from portraitzoo.faces.coefficient_camera import camera_of_pose
from portraitzoo.faces.deep3d import Deep3D
from portraitzoo.faces.fan import FAN, FaceWindow, decode
from portraitzoo.faces.fan_depth import FanDepth, gaussians
from portraitzoo.hub.faces.deep3d import convert as convert_deep3d
from portraitzoo.hub.faces.fan import convert as convert_fan
from portraitzoo.hub.faces.fan_depth import convert as convert_depth
from portraitzoo.rendering.cameras import Camera

FUNCTION = 1e-5


def network_input(images: Tensor) -> Tensor:
    return images.movedim(-1, -3).float() / 255


@torch.no_grad()
def check_deep3d(case: Case) -> None:
    golden, official = case.golden, case.state_dict()
    conversion = convert_deep3d({"net_recon": official, "epoch": 20})
    network = Deep3D(**conversion.config).eval()
    network.load_state_dict(conversion.tensors["model"])
    stages = network.backbone.stages
    with captured({"mid.layer1": stages[0], "mid.layer4": stages[3]}) as seen:
        coefficients = network(network_input(golden["in.image"]))
    for name, output in seen.items():
        golden.check(name, output)
    golden.check("mid.pool", seen["mid.layer4"].mean((2, 3)))
    golden.check("out.coeff", coefficients.vector())


def check_pixels(arrays: Arrays, name: str, window: FaceWindow, points: Tensor, size: int) -> None:
    """Whole pixels must be the same, but where rounding may decide: within a thousandth of the next whole number."""
    exact = points.double() * (window.side / size) + torch.tensor(window.center).double() - window.side / 2
    undecided = (exact - exact.round()).abs() < 1e-3
    found = window.pixels(points, size)
    near = undecided & ((found - arrays[name]).abs() <= 1)
    arrays.check(name, torch.where(near, arrays[name].double(), found), 0)


@torch.no_grad()
def check_fan(case: Case) -> None:
    (check_depth if case.manifest["config"]["class"] == "ResNetDepth" else check_heatmaps)(case)


def check_heatmaps(case: Case) -> None:
    golden = case.golden
    conversion = convert_fan(case.state_dict())
    network = FAN(**conversion.config).eval()
    network.load_state_dict(conversion.tensors["model"])
    with captured({"first": network.stacks[0].maps}) as seen:
        maps = network(network_input(golden["in.image"])[None])
    golden.check("mid.heatmap0", seen["first"])
    golden.check("out.heatmap", maps)
    points, scores = decode(maps)
    golden.check("out.preds", points)
    golden.check("out.scores", scores)
    window = FaceWindow(tuple(golden["in.center"].tolist()), float(golden["in.scale"]))
    check_pixels(golden, "out.points", window, points, maps.shape[-1])


def check_depth(case: Case) -> None:
    golden = case.golden
    conversion = convert_depth({"state_dict": {f"module.{name}": value for name, value in case.state_dict().items()}})
    network = FanDepth(**conversion.config).eval()
    network.load_state_dict(conversion.tensors["model"])
    image, points = golden["in.image"], golden["in.preds"]
    stages = network.backbone.stages
    with captured({"mid.layer1": stages[0], "mid.layer3": stages[2], "mid.layer4": stages[3]}) as seen:
        depth = network(network_input(image)[None], points)
    for name, output in seen.items():
        golden.check(name, output)
    golden.check("mid.gauss", gaussians(4 * points[0], len(image)))
    golden.check("out.depth", depth)


def check_detect_landmark(arrays: Arrays) -> None:
    maps = arrays["fan.heatmap_first8"][None]
    size = maps.shape[-1]
    points, scores = decode(maps)
    arrays.check("fan.preds_first8", points[0], FUNCTION)
    arrays.check("fan.scores_first8", scores[0], FUNCTION)
    cells = (arrays["fan.preds_first8"] - 0.5).round().long()
    assert arrays["fan.heatmap_argmax"][: len(cells)].equal(cells[:, 0] + size * cells[:, 1])
    window = FaceWindow(tuple(arrays["fan.center"].tolist()), float(arrays["fan.scale"]))
    check_pixels(arrays, "fan.points_first8", window, points[0], size)
    check_window(arrays, window)
    kernel = gaussians(torch.full((2,), 16.0), 32)[9:22, 9:22]
    arrays.check("gauss.kernel13", kernel, FUNCTION)
    drawn = arrays["gauss.ok"]
    expected = arrays["gauss.images"]
    found = gaussians(arrays["gauss.points"], expected.shape[-1]) * drawn[:, None, None]
    arrays.check("gauss.images", found, FUNCTION)
    for case in groups(arrays, "fancrop"):
        window = FaceWindow.of_box(arrays[f"{case}.box"])
        arrays.check(f"{case}.center", torch.tensor(window.center, dtype=torch.float64), FUNCTION)
        arrays.check(f"{case}.scale", torch.tensor(window.scale, dtype=torch.float64), FUNCTION)
        arrays.check(f"{case}.crop", window.crop(arrays[f"{case}.image"]), 0)


def check_window(arrays: Arrays, window: FaceWindow) -> None:
    """The map of the window's grid to pixels, and the corners of the picture of it."""
    points = arrays["transform.point"]
    check_pixels(arrays, "transform.inverse64", window, points, 64)
    corner = torch.tensor(window.center, dtype=torch.float64) - window.side / 2
    arrays.check("transform.forward64", ((5 * points - corner) / window.side * 64).trunc(), 0)
    arrays.check("transform.corner_ul", window.pixels(torch.tensor([1, 1]), 256), 0)
    arrays.check("transform.corner_br", window.pixels(torch.tensor([256, 256]), 256), 0)


def flipped(landmarks: Tensor, height: int) -> Tensor:
    """Between y down in pictures and y up in the numbers; depths are left out."""
    return torch.stack([landmarks[:, 0], height - 1 - landmarks[:, 1]], dim=1)


def groups(arrays: Arrays, prefix: str) -> list[str]:
    return sorted({name.split(".")[0] for name in arrays.keys(prefix)})


def check_placement(arrays: Arrays, name: str, found: Placement, height: int) -> None:
    x, y = found.origin
    arrays.check(f"{name}.t", torch.tensor([[x], [height - 1 - y]], dtype=torch.float64), FUNCTION)
    arrays.check(f"{name}.s", torch.tensor(found.scale, dtype=torch.float64), FUNCTION)


def check_align(arrays: Arrays) -> None:
    for case in groups(arrays, "case"):
        image = arrays[f"{case}.image"]
        height, width = image.shape[:2]
        five = flipped(arrays[f"{case}.lm5"], height)
        shifted, plain = fit_template(five, (0.1, 0.4)), fit_template(five)
        check_placement(arrays, f"{case}.pos_offset", shifted, height)
        check_placement(arrays, f"{case}.pos", plain, height)
        sixty_eight = arrays[f"{case}.points68"]  # these, unlike the others, have y down
        five68 = five_of_68(sixty_eight)
        arrays.check(f"{case}.five_of_68", five68, FUNCTION)
        crops = {
            "crop512": (portrait_crop(image, five), shifted),
            "crop96": (portrait_crop(image, five, side=96), shifted),
            "recon224": (coefficient_crop(image, five), plain),
            "recon224_68": (coefficient_crop(image, five68), fit_template(five68)),
        }
        for kind, (crop, placement) in crops.items():
            name = f"{case}.{kind}"
            x, y = placement.origin
            trans = torch.tensor([width, height, crop.scale, x, height - 1 - y], dtype=torch.float64)
            arrays.check(f"{name}.trans", trans, FUNCTION)
            if f"{name}.image" in arrays:
                arrays.check(f"{name}.image", crop.image, 0)
            landmarks = {points: flipped(arrays[f"{case}.{points}"], height) for points in ("lm5", "lm98", "lm68")}
            if kind.endswith("_68"):
                landmarks["lm68"] = sixty_eight
            for points, places in landmarks.items():
                if f"{name}.{points}" in arrays:
                    moved = crop.move(places)
                    up = torch.stack([moved[:, 0], len(crop.image) - moved[:, 1]], dim=1)
                    arrays.check(f"{name}.{points}", up, FUNCTION)
        ninety_eight = arrays[f"{case}.lm98"]
        assert five_of_98(ninety_eight).equal(ninety_eight[[96, 97, 54, 76, 82]])


def check_eg3d_camera(arrays: Arrays) -> None:
    angles, translation = arrays["angle"], arrays["trans"]
    cameras = {
        "pose_raw": camera_of_pose(angles, translation, radius=None),
        "pose_orig": camera_of_pose(angles, translation),
        "pose_cor": camera_of_pose(angles, translation, center=(0.0, 0.0, 0.175)),
    }
    for name, camera in cameras.items():
        arrays.check(name, camera.cam2world, FUNCTION)
    label = cameras["pose_orig"].label()
    arrays.check("label", label, FUNCTION)
    arrays.check("label_mirror", Camera.from_label(label).mirrored().label(), FUNCTION)
    for case in groups(arrays, "crop"):
        image = arrays[f"{case}.image"]
        five = flipped(arrays[f"{case}.lm5"].double(), len(image))
        arrays.check(f"{case}.out", eg3d_crop(image, five).image, 0)


NETWORKS: dict[str, Callable[[Case], None]] = {"deep3d_resnet50": check_deep3d, "fan3d": check_fan}
FUNCTIONS: dict[str, Callable[[Arrays], None]] = {
    "align": check_align,
    "detect_landmark": check_detect_landmark,
    "eg3d_camera": check_eg3d_camera,
}
