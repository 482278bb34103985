"""Portrait4D's networks against the reference: the same outputs and intermediates from the same weights."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import portrait4d_cases as cases
import portrait4d_files
import portrait4d_functions
import pytest
import reference
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import portraitzoo as pz
from portraitzoo.errors import CheckpointError
from portraitzoo.faces.head_pose import camera_for_neck
from portraitzoo.faces.motion_embedding import MotionEncoder
from portraitzoo.faces.neck_field import surface_offsets
from portraitzoo.hub.converting import convert
from portraitzoo.layers.transformer import as_image
from portraitzoo.methods.portrait4d.cameras import label_of_camera
from portraitzoo.methods.portrait4d.discriminator import Discriminator, DiscriminatorConfig
from portraitzoo.methods.portrait4d.model import Portrait4D
from portraitzoo.methods.portrait4d.motion_weights import convert as convert_motion
from portraitzoo.methods.portrait4d.network import Portrait4DOutput, Reconstructor, SourceFeatures
from portraitzoo.methods.portrait4d.weights import convert as convert_tensors
from portraitzoo.methods.portrait4d.weights import convert_discriminator
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.rays import cast_rays

KINDS = {"TriPlaneReconstructor": "reconstructor", "FanEncoder": "motion", "DualDiscriminator": "discriminator"}


RENDERED = {"depths", "weights", "feature_image"}
LARGEST, MOST = 8e-6, 2e-6
"""Relative errors of all, and of 98 %, of a render's values, per texel along a plane. At the official size float32 and
float64 renders of the same planes differ by up to 4e-4, and so do renders whose ray directions differ by 1e-7 (one unit
in the last place): that moves points by 1e-6, which is 1e-4 texels of planes that these weights make of noise."""


@contextmanager
def captured(modules: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Outputs of modules during a forward pass, rows joined when they are computed one by one."""
    outputs: dict[str, list[Tensor]] = {name: [] for name in modules}

    def keep(name: str) -> Callable:
        return lambda module, args, output: outputs[name].append(output.detach().clone())

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    merged: dict[str, Tensor] = {}
    try:
        yield merged
    finally:
        for handle in handles:
            handle.remove()
        merged |= {name: torch.cat(calls) for name, calls in outputs.items() if calls}


@pytest.mark.parametrize("case", reference.networks("portrait4d"))
@torch.no_grad()
def test_network(case: reference.Case) -> None:
    kind = kind_of(case)
    assert kind, f"{case}: no test knows the network {case.manifest['config']['network']!r}"
    {"reconstructor": check_reconstructor, "motion": check_motion, "discriminator": check_discriminator}[kind](case)


def kind_of(case: reference.Case) -> str | None:
    """Which of our networks a case is of; None for an unknown one."""
    named = case.manifest["config"].get("network", "TriPlaneReconstructor")
    return next((kind for name, kind in KINDS.items() if name in named), None)


def modules_of(network: Reconstructor) -> dict[str, nn.Module]:
    """Modules whose outputs the reference may hold."""
    transformer, planes = network.transformer, network.plane_generator
    return {
        "resnet_last": network.global_encoder.stages["layer4"],
        "features_global": network.global_encoder,
        "features_detail": network.detail_encoder,
        "tokens_in": transformer.patches,
        "tokens_neutral0": transformer.neutral_blocks[0],
        "tokens_motion0": transformer.motion_blocks[0],
        "canonical_tokens": transformer.motion_blocks[-1],
        "canonical_sr": transformer.head[-1],
        "decoder_tokens_in": planes.patches,
        "decoder_tokens_out": planes.blocks[-1],
        "background_logits": network.background,
    }


def check_reconstructor(case: reference.Case) -> None:
    golden = case.golden
    network = cases.reconstructor_of(case)
    resolution = golden.notes["render_size"]
    image = cases.source_image(golden, network.config.image_resolution)
    camera, parameters = cases.camera_of(golden), cases.parameters_of(golden)
    motions = golden["in.motion_source"], golden["in.motion_drive"]

    with captured(modules_of(network)) as mids:
        source = network.encode(image, motions[0])
        planes = network.planes(source, motions[1])
    tokens = mids.pop("canonical_tokens")
    side = round(tokens.shape[1] ** 0.5)
    mids["canonical_lr"] = F.pixel_shuffle(as_image(tokens, (side, side)), 2)
    mids["planes"] = planes
    field = network.neck_field(parameters)
    mids |= head_arrays(network, parameters)
    rays = cast_rays(camera, resolution)
    mids["ray_directions"] = rays.directions
    output = render(network, planes, source, camera, field, resolution)
    mids |= {"depths": output.rays.depths, "weights": output.rays.weights, "feature_image": output.features}
    for name, value in mids.items():
        if f"mid.{name}" in golden:
            if name in RENDERED:
                check_rendered(golden, f"mid.{name}", value, planes.shape[-1])
            else:
                golden.check(f"mid.{name}", value)
    check_images(golden, "out.", output, planes)

    points = golden["in.points"]
    density, color = network.field(points, planes, field)
    golden.check("out.points_sigma", density)
    golden.check("out.points_rgb", color)
    golden.check("out.points_canonical", points if field is None else field(points))
    if "out.points_triplane" in golden:
        golden.check("out.points_triplane", network.features(points, planes, field))
    if "out.camera_decomposed" in golden:
        straight = camera_for_neck(
            network.head.flame, camera.cam2world, parameters.shape, parameters.expression, parameters.pose
        )
        golden.check("out.camera_decomposed", label_of_camera(Camera(straight, camera.intrinsics)))
    check_variants(golden, network, image, motions, camera, field, resolution)
    golden.assert_all_read()


def check_variants(golden, network, image, motions, camera, field, resolution) -> None:
    """Outputs without motion, with a motion scale or a box of each sample's own, and of another size."""
    if golden.keys("out.static."):
        source = network.encode(image, motions[0], 0.0)
        planes = network.planes(source, motions[1], 0.0)
        if "out.static.planes" in golden:
            golden.check("out.static.planes", planes)
        if golden.keys("out.static.points"):
            density, color = network.field(golden["in.points"], planes, field)
            golden.check("out.static.points_sigma", density)
            golden.check("out.static.points_rgb", color)
        if "out.static.image_sr" in golden:
            check_images(golden, "out.static.", render(network, planes, source, camera, field, resolution), planes)
    if "in.motion_scale_mixed" in golden:
        scale = golden["in.motion_scale_mixed"]
        source = network.encode(image, motions[0], scale)
        planes = network.planes(source, motions[1], scale)
        check_images(golden, "out.mixed.", render(network, planes, source, camera, field, resolution), planes)
    if not golden.keys("out.boxscale.") and not golden.keys("out.other."):
        return
    source = network.encode(image, motions[0])
    planes = network.planes(source, motions[1])
    if "in.box_warp_scale" in golden:
        box = golden["in.box_warp_scale"]
        check_images(golden, "out.boxscale.", render(network, planes, source, camera, field, resolution, box), planes)
    if "in.render_size_other" in golden:
        other = int(golden["in.render_size_other"])
        check_images(golden, "out.other.", render(network, planes, source, camera, field, other), planes)


def render(network, planes, source: SourceFeatures, camera, field, resolution, box_scale=1.0) -> Portrait4DOutput:
    sampling = cases.shared_jitter(network, len(planes), resolution)
    return network.render(
        planes, source, camera, field, box_scale=box_scale, render_resolution=resolution, sampling=sampling
    )


def head_arrays(network: Reconstructor, parameters) -> dict[str, Tensor]:
    """The parametric head in its pose, and its offsets to the straight neck before they are smoothed."""
    head = network.head
    vertices, joints = head.flame.posed(*parameters)
    meshes = head.coarse(vertices), head.coarse(head.flame(*parameters.without_neck()))
    found = {"flame_vertices": vertices, "flame_joints": joints, "flame_landmarks3d": head.flame.landmarks(vertices)}
    for resolution in (24, 8):
        offsets = surface_offsets(head, *meshes, resolution, network.config.box_warp)
        found |= {f"grid{resolution}_offset": offsets[:, :3], f"grid{resolution}_dist": offsets[:, 3:]}
    return found


def check_rendered(golden: reference.Arrays, key: str, actual: Tensor, plane_size: int) -> None:
    """All values within the wide tolerance of renders, most within the narrow one."""
    golden.check(key, actual, LARGEST * plane_size)
    expected = golden[key]
    error = (reference.strided_like(actual, expected.shape, golden.meaning(key)) - expected).abs()
    share = float((error <= MOST * plane_size * expected.abs().max()).float().mean())
    assert share >= 0.98, f"{golden.case}/{key}: only {share:.1%} of the values are within {MOST * plane_size:.0e}"


def check_images(golden: reference.Arrays, prefix: str, output: Portrait4DOutput, planes: Tensor) -> None:
    """Whichever images of a render the reference holds."""
    images = {
        "image_sr": output.image,
        "image": output.image_raw,
        "image_wobg": output.foreground,
        "image_depth": output.depth,
        "T_bg": 1 - output.opacity,
        "seg": 2 * output.opacity - 1,
    }
    if prefix + "rgb_bg" in golden:
        golden.check(prefix + "rgb_bg", output.background)
    for name, value in images.items():
        if prefix + name in golden:
            check_rendered(golden, prefix + name, value, planes.shape[-1])


def check_motion(case: reference.Case) -> None:
    golden = case.golden
    converted = convert_motion(case.state_dict())
    encoder = MotionEncoder(**converted.config)
    encoder.load_state_dict(converted.tensors["model"])
    encoder.eval()
    image = cases.source_image(golden, converted.config["input_size"])
    features = encoder.features
    with captured(
        {
            "stem": features.block3,
            "hourglass": features.hourglass,
            "landmark_maps": features.maps,
            "feature": features,
        }
    ) as mids:
        codes = encoder.codes(image)
    for name, value in mids.items():
        golden.check(f"mid.{name}", value)
    golden.check("out.headpose", codes.head_pose)
    for name in ("eye", "emotion", "mouth"):
        golden.check(f"out.{name}", getattr(codes, name))
    golden.check("out.motion", encoder(image))
    golden.assert_all_read()


def check_discriminator(case: reference.Case) -> None:
    golden, settings = case.golden, case.manifest["config"]
    tensors, _ = convert_discriminator(case.state_dict())
    sizes = DiscriminatorConfig.of(case.state_dict())
    stated = (sizes.image_resolution, sizes.channel_max, sizes.group_size)
    assert stated == (
        settings["img_resolution"],
        min(settings["channel_max"], max(sizes.channels(4), sizes.channels(8))),
        settings["epilogue_kwargs"]["mbstd_group_size"],
    )
    discriminator = cases.load(Discriminator(sizes), tensors, "discriminator")
    full, raw = portrait4d_functions.image_sizes(golden.meaning("in.waves"))
    image, image_raw, uv, mask = (
        portrait4d_functions.waves(golden, "in.waves", size)[index] for index, size in enumerate((full, raw, full, raw))
    )
    golden.check("out.logits", discriminator(image, image_raw, golden["in.camera"], uv, mask[:, :1]))
    golden.assert_all_read()


@pytest.mark.parametrize("group", reference.parameters(reference.function_groups("portrait4d"), "portrait4d functions"))
def test_function(group: str) -> None:
    check = portrait4d_functions.FUNCTIONS.get(group)
    assert check, f"no test knows the function group {group!r}"
    arrays = reference.Arrays(reference.reference_folder("portrait4d") / "functions.npz", "functions")
    check(arrays)
    members = {name for name in arrays.keys(group) if name.split(".")[0] == group}
    unread = sorted(members - arrays.read)
    assert not unread, f"no test knows {', '.join(unread)}"


def small_case(kind: str) -> reference.Case:
    """The smallest case of a kind of network."""
    found = [case for case in reference.cases("portrait4d") if kind_of(case) == kind]
    if not found:
        pytest.skip(f"no {kind} in the reference folder (set PORTRAITZOO_REFERENCE)")
    return min(found, key=lambda case: sum(math.prod(row["shape"]) for row in case.manifest["tensors"]))


def test_official_pickle_becomes_a_model(tmp_path) -> None:
    case = small_case("reconstructor")
    told = {"depth_resolution": 7, "depth_resolution_importance": 5, "box_warp": 1.25, "density_reg": 1}
    networks = {name: portrait4d_files.network_of(case, told) for name in ("G", "G_ema")}
    networks["D"] = portrait4d_files.network_of(small_case("discriminator"))
    path = portrait4d_files.write_pickle(tmp_path / "network.pkl", networks)
    report = convert("portrait4d-static-genhead512", path, tmp_path / "ours")
    assert report.tensors["model"] < report.tensors["training"]
    assert all(report.dropped.values())
    model = pz.load(tmp_path / "ours", device="cpu")
    assert isinstance(model, Portrait4D) and model.config.static
    assert (model.config.depth_samples, model.config.importance_samples, model.config.box_warp) == (7, 5, 1.25)
    wanted = cases.reconstructor_of(case).state_dict()
    assert wanted.keys() == model.generator.state_dict().keys()
    assert all(tensor.equal(wanted[name]) for name, tensor in model.generator.state_dict().items())


def test_official_motion_encoder_becomes_a_model(tmp_path) -> None:
    case = small_case("motion")
    torch.save(case.state_dict(), tmp_path / "motion_model.pth")
    convert("pdfgc-motion", tmp_path / "motion_model.pth", tmp_path / "ours")
    encoder = pz.load(tmp_path / "ours", device="cpu")
    assert isinstance(encoder, MotionEncoder)
    image = cases.source_image(case.golden, case.manifest["config"]["input_size"])
    case.golden.check("out.motion", encoder(image).detach())


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda t: t.pop("encoder_canonical.proj_y.bias"), "lacks the tensor G_ema.encoder_canonical.proj_y.bias"),
        (lambda t: t.pop("decoder.out_sigma.weight"), "lacks the tensor G_ema.decoder.out_sigma.weight"),
        (lambda t: t.pop("encoder_canonical.maps.0.weight"), "lacks the tensor G_ema.encoder_canonical.maps.0.weight"),
        (lambda t: t.update(encoder_new=torch.zeros(1)), "unexpected tensor, G_ema.encoder_new"),
        (lambda t: t.update(w_avg=torch.zeros(3)), r"G_ema.w_avg has shape \[3\]"),
        (lambda t: t.pop("deformer.flame_deform.simplify_faces"), "lacks the tensor G_ema.deformer.flame_deform.simp"),
        (lambda t: t.update({"superresolution.block0.resample_filter": torch.ones(4, 4)}), "binomial filter"),
        (lambda t: t.clear(), "no network G_ema"),
    ],
    ids=["missing", "density", "size", "unexpected", "shape", "head", "filter", "empty"],
)
def test_other_files_are_refused(spoil, told) -> None:
    tensors = small_case("reconstructor").state_dict()
    spoil(tensors)
    with pytest.raises(CheckpointError, match=told):
        convert_tensors({"G_ema": tensors} if tensors else {})
