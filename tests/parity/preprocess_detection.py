"""Detection and 98 landmarks: what the reference numbers of RetinaFace and H3R say."""

import re
from collections.abc import Callable

import torch
from reference import Arrays, Case, captured
from torch import Tensor, nn

from portraitzoo.faces import h3r, retinaface
from portraitzoo.faces.boxes import (
    cut,
    decode_boxes,
    decode_points,
    encode_boxes,
    encode_points,
    priors,
    square_box,
    suppress,
    tight_box,
)
from portraitzoo.hub.faces.h3r import convert as convert_h3r
from portraitzoo.hub.faces.retinaface import convert as convert_retinaface

FUNCTION = 1e-5


def compare(arrays: Arrays, name: str, full: Tensor, tolerance: float = 1e-4) -> None:
    """The part of an array that was kept, as in "layer1 [:, ::16, ::4, ::4]"; of several such, the one that fits."""
    text = arrays.notes["arrays"][name]["text"]
    slices = re.findall(r"\[([^\[\]]*::[^\[\]]*)\]", text)
    parts = [
        full[tuple(slice(None, None, int(part.strip(" :") or 1)) for part in found.split(","))] for found in slices
    ] or [full]
    fitting = [part for part in parts if part.shape == arrays[name].shape]
    assert fitting, f"{name} is {list(arrays[name].shape)}, which {text!r} does not leave of {list(full.shape)}"
    arrays.check(name, fitting[0], tolerance, strided=False)


def loaded(network: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    network.load_state_dict(tensors)
    return network.eval()


def groups(arrays: Arrays, prefix: str) -> list[str]:
    return sorted({name.split(".")[0] for name in arrays.keys(prefix) if re.fullmatch(prefix + r"\d+\..+", name)})


@torch.no_grad()
def check_retinaface(case: Case) -> None:
    golden = case.golden
    conversion = convert_retinaface({f"module.{name}": tensor for name, tensor in case.state_dict().items()})
    network = loaded(retinaface.RetinaFace(**conversion.config), conversion.tensors["model"])
    image, height = golden["in.image"].flip(-1), int(golden["in.resize_h"])
    prepared = retinaface.prepare(image, height)
    taps = {f"mid.body{k}": network.body.stages[k] for k in (1, 2, 3)}
    taps |= {f"mid.ssh{k}": network.contexts[k - 1] for k in (1, 2, 3)}
    levels: list[Tensor] = []
    network.pyramid.register_forward_hook(lambda _module, _inputs, output: levels.extend(output))
    with captured(taps) as seen:
        answers = network(prepared)
    seen |= {"mid.input": prepared} | {f"mid.fpn{k}": levels[k - 1] for k in (1, 2, 3)}
    for name in golden.keys("mid."):
        compare(golden, name, seen[name])
    anchors = priors(*prepared.shape[-2:])
    outputs = {
        "out.loc": answers.boxes,
        "out.conf": torch.stack([1 - answers.scores, answers.scores], dim=-1),
        "out.landms": answers.points.flatten(2),
        "out.priors": anchors,
        "out.boxes": decode_boxes(answers.boxes[0], anchors),
        "out.landm5": decode_points(answers.points[0], anchors).flatten(1),
    }
    found = network.detect(image, threshold=float(golden["in.thres"]), overlap=float(golden["in.nms"]), height=height)
    outputs["out.dets"] = torch.cat([found.boxes, found.scores[:, None]], dim=1)
    for name in golden.keys("out."):
        compare(golden, name, outputs[name])
    if "in.image_seed" in golden:
        assert golden["in.image_seed"].ndim == 0  # the image itself is stored


@torch.no_grad()
def check_h3r(case: Case) -> None:
    golden = case.golden
    conversion = convert_h3r(case.state_dict())
    size = case.manifest["config"]["input"]
    network = loaded(h3r.H3R(**conversion.config, input_size=size), conversion.tensors["model"])
    face = golden["in.crop"].flip(-1)
    prepared = h3r.prepare(face, size)
    backbone = network.backbone
    stages: dict[int, list[Tensor]] = {}
    for index, stage in enumerate(backbone.stages, start=2):
        stage.register_forward_hook(lambda _module, _inputs, output, index=index: stages.update({index: output}))
    with captured({"mid.layer1": backbone.first, "mid.feat": backbone}) as seen:
        heatmaps = network(prepared)
    seen |= {f"mid.stage{index}_{branch}": x for index, maps in stages.items() for branch, x in enumerate(maps)}
    seen["mid.input"] = prepared
    landmarks = network.landmarks_of(heatmaps)
    seen |= {"out.heatmap": heatmaps, "out.landmarks": landmarks}
    seen["out.points"] = h3r.place(landmarks[0], face, size)[None]
    for name in [*golden.keys("mid."), *golden.keys("out.")]:
        compare(golden, name, seen[name])


def check_detect_landmark(arrays: Arrays) -> None:
    for group in groups(arrays, "prior"):
        found = priors(*arrays[f"{group}.hw"].tolist())
        assert len(found) == arrays[f"{group}.count"]
        compare(arrays, f"{group}.priors", found, FUNCTION)
    anchors, boxes, points = (arrays[f"decode.{name}"] for name in ("priors", "boxes", "points"))
    arrays.check("decode.boxes", decode_boxes(arrays["decode.loc"], anchors), FUNCTION)
    offsets = arrays["decode.landm"].unflatten(1, (-1, 2))
    arrays.check("decode.points", decode_points(offsets, anchors).flatten(1), FUNCTION)
    arrays.check("encode.loc", encode_boxes(boxes, anchors), FUNCTION)
    arrays.check("encode.landm", encode_points(points.unflatten(1, (-1, 2)), anchors).flatten(1), FUNCTION)
    for name in arrays.keys("nms.keep_"):
        kept = suppress(arrays["nms.dets"][:, :4], int(name.removeprefix("nms.keep_")) / 100)
        assert kept.equal(arrays[name]), name
    for name in arrays.keys("h3r.coord_top"):
        cells = int(name.removeprefix("h3r.coord_top"))
        arrays.check(name, h3r.expected_cells(arrays["h3r.heatmap"], cells), FUNCTION)
    arrays.check("box.tight", tight_box(arrays["box.ldmks"]), FUNCTION)
    for name in arrays.keys("box.extend"):
        ratio = int(name.removeprefix("box.extend")) / 100
        arrays.check(name, square_box(arrays["box.tight"], ratio), FUNCTION)
    local = []
    for group in groups(arrays, "h3rcrop"):
        crop, origin = cut(arrays[f"{group}.image"], arrays[f"{group}.box"])
        assert crop.equal(arrays[f"{group}.crop"]), group
        local.append(arrays[f"{group}.points"] - torch.tensor(origin))
    for points in local:  # the same point of every crop, taken back to its image
        torch.testing.assert_close(points, local[0], atol=1e-6, rtol=0)


NETWORKS: dict[str, Callable[[Case], None]] = {"retinaface": check_retinaface, "h3r_hrnet_w18": check_h3r}
FUNCTIONS: dict[str, Callable[[Arrays], None]] = {"detect_landmark": check_detect_landmark}
