"""3D-Aware Video Generation against the reference: equal outputs, intermediates and gradients from equal weights."""

import json
import math
import re
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import reference
import threedvidgen_functions
import threedvidgen_training_functions
import torch
from threedvidgen_cases import config_of, discriminators_of, generator_of, is_discriminator, part
from threedvidgen_files import write_snapshot
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from portraitzoo.hub.checkpoints import read_checkpoint
from portraitzoo.hub.conversion import our_name
from portraitzoo.layers.activations import LEAKY_GAIN
from portraitzoo.methods.threedvidgen.cameras import from_sphere_axes, still_camera
from portraitzoo.methods.threedvidgen.field import StyledField, field_axes
from portraitzoo.methods.threedvidgen.network import Generator, ThreeDVidGenConfig, ThreeDVidGenOutput
from portraitzoo.methods.threedvidgen.renderer import Draws
from portraitzoo.methods.threedvidgen.upsampler import multiply, neighbours
from portraitzoo.methods.threedvidgen.weights import GENERATOR_TABLE, convert
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.inverted_sphere import inverted_sphere
from portraitzoo.rendering.normals import normals_from_position
from portraitzoo.rendering.rays import Rays
from portraitzoo.rendering.volume import invert_distribution, point_weights

PENALTY_TOLERANCE = 2e-3
"""Rounding moves gradients at the kinks of leaky ReLUs, as in PV3D's discriminators."""
SHARE_OF_RAYS = 0.995
"""Importance samples in a nearly empty bin are the quotient of two rounding errors: 1e-7 in a weight may move one by
more than the pitch of the field's highest frequency (2^-10). At the official size that is the fate of about one ray of
2048, whoever computes it."""


def check_most(golden: reference.Arrays, key: str, actual: Tensor) -> None:
    """Nearly all rays (or pixels) within the usual tolerance, all within a wide one."""
    golden.check(key, actual, 5e-2)
    expected = golden[key]
    error = (reference.strided_like(actual, expected.shape, golden.meaning(key)) - expected).abs()
    share = float((error <= 1e-4 * expected.abs().max()).float().mean())
    assert share >= SHARE_OF_RAYS, f"{golden.case}/{key}: only {share:.1%} is within 1e-4"


@dataclass(frozen=True)
class Scene:
    """The generator and the inputs of a case, and what is computed on the way to its images."""

    case: reference.Case
    generator: Generator

    @property
    def golden(self) -> reference.Arrays:
        return self.case.golden

    @cached_property
    def camera(self) -> Camera:
        return from_sphere_axes(self.golden["in.cam2world"], self.generator.config.fov)

    @cached_property
    def ws(self) -> Tensor:
        psi = float(self.golden["in.truncation_psi"])
        return self.generator.mapping(self.golden["in.z"], truncation_psi=psi)

    def render(self, camera: Camera | None = None, **options: object) -> ThreeDVidGenOutput:
        golden = self.golden
        inputs = (golden["in.z_motion"], golden["in.Ts"], camera or self.camera, golden["in.z_shape_bg"])
        return self.generator.synthesis(self.ws, *inputs, **options)

    @cached_property
    def output(self) -> ThreeDVidGenOutput:
        return self.render()

    @cached_property
    def motion(self) -> Tensor:
        return self.generator.field.motion(self.golden["in.z_motion"], self.golden["in.Ts"])

    @cached_property
    def field(self) -> StyledField:
        return self.generator.field.styled(self.ws)

    @cached_property
    def rays(self) -> Rays:
        """Rays of all frames, [videos, frames, rays, 3]."""
        frames = self.golden["in.Ts"].shape
        return Rays(self.output.origins.unflatten(0, frames), self.output.directions.unflatten(0, frames))

    @cached_property
    def coarse(self) -> dict[str, Tensor]:
        """The coarse pass of all frames."""
        span = self.generator.span
        places = torch.linspace(0, 1, span.samples).expand(*self.rays.origins.shape[:3], -1)
        depths = span.depths(places)
        points = self.rays.origins[..., None, :] + depths[..., None] * self.rays.directions[..., None, :]
        hidden = self.field.hidden(points.flatten(2, 3), self.motion)
        raw = self.field.raw_density(hidden)
        length = self.rays.directions.norm(dim=-1, keepdim=True)
        weights, _ = point_weights(raw.relu().unflatten(2, depths.shape[2:]), depths * length, opaque_end=False)
        uniforms = torch.linspace(0, 1, span.samples).expand_as(places)
        middles = (places[..., 1:] + places[..., :-1]) / 2
        fine = invert_distribution(middles, weights[..., 1:-1], uniforms)
        return {"points": points, "hidden": hidden, "raw": raw, "weights": weights, "fine": fine}

    def foreground(self, name: str) -> Tensor | None:
        """Every 37th coarse sample of frame 0."""
        samples = self.generator.span.samples
        directions = self.rays.directions[:1, :1, :, None].expand(-1, -1, -1, samples, -1)[0]
        features = self.field.feature(self.coarse["hidden"])
        view = self.field.view(self.rays.directions)
        view = None if view is None else view.repeat_interleave(samples, dim=2)
        color = self.field.color(self.field.before_color(features, view))
        found = {
            "fg_points": field_axes(self.coarse["points"][:1, 0].flatten(1, 2)),
            "fg_raydirs": field_axes(directions.flatten(1, 2)),
            "fg_feat": torch.cat([color, features], dim=-1)[:1, 0],
            "fg_sigma": self.coarse["raw"][:1, 0, :, None],
        }
        return found[name][:, ::37] if name in found else None

    def background(self, name: str) -> Tensor | None:
        """Every 37th background sample of frame 0."""
        background, span = self.generator.background, self.generator.span
        inverse = torch.linspace(1, 0, span.background_samples) * span.background_start
        origins, directions = (
            part[:1, 0, :, None].expand(-1, -1, len(inverse), -1)
            for part in (self.rays.origins, normalize(self.rays.directions, dim=-1))
        )
        points, _ = inverted_sphere(origins, directions, inverse.expand(origins.shape[:-1]))
        code = self.golden["in.z_shape_bg"][:1, None, None].expand(*points.shape[:-1], -1)
        hidden = background.hidden(points, code)
        features = background.feat_out(hidden)
        found = {
            "bg_points": torch.cat([field_axes(points[..., :3]), points[..., 3:]], dim=-1),
            "bg_feat": torch.cat([background.to_rgb(features), features], dim=-1),
            "bg_sigma": background.sigma_out(hidden),
        }
        return found[name].flatten(1, 2)[:, ::37] if name in found else None

    def adapter(self, block: str, which: str) -> Tensor:
        """What goes into the adapter of a block's first layer in frame 0, as in the paper, or comes out of it."""
        layer = self.generator.upsampler[block].conv0
        x = self.inputs[block]
        x = multiply(x, layer.effective(self.styles[block])[0] / LEAKY_GAIN)
        seen = x
        if layer.mode == "neighbours":
            nearest = neighbours(torch.zeros_like(x), x)
            seen = torch.cat([nearest, neighbours(x, torch.zeros_like(x))], dim=-1)
        return (seen if which == "adapter_in" else layer.adapter(seen))[0, :1].movedim(-1, 1)

    @cached_property
    def styles(self) -> dict[str, Tensor]:
        first = self.generator.field.num_ws
        return {name: self.ws[:, first + 2 * row] for row, name in enumerate(self.generator.upsampler)}

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """Features that enter each block."""
        frames = self.golden["in.Ts"].shape
        before = [self.output.features.movedim(1, -1).unflatten(0, frames)]
        before += [self.mids[name][0] for name in self.generator.upsampler]
        return dict(zip(self.generator.upsampler, before, strict=False))

    @cached_property
    def mids(self) -> dict[str, object]:
        """Outputs of the upsampler's blocks and layers."""
        blocks: dict[str, nn.Module] = dict(self.generator.upsampler)
        layers = {
            f"{name}.{part}": getattr(block, part) for name, block in blocks.items() for part in ("conv0", "conv1")
        }
        with torch.enable_grad(), reference.captured(blocks | layers) as found:
            self.render()
        return {name: value if isinstance(value, list) else value.detach() for name, value in found.items()}


def intermediate(scene: Scene, name: str) -> Tensor | None:
    """What the reference calls ``mid.<name>``; None if it is unknown."""
    output = scene.output
    stride = re.search(r"every (\d+)th (ray|channel)", scene.golden.meaning(f"mid.{name}"))
    step = int(stride[1]) if stride else 1
    direct = {
        "ws": lambda: scene.ws if scene.golden["mid.ws"].ndim == 3 else scene.ws[:, 0],
        "motion": lambda: scene.motion.flatten(0, 1),
        "feature": lambda: output.features[:, ::step],
        "bg_lambda": lambda: output.transmittance,
        "fg_depths": lambda: output.depths,
        "fg_weights": lambda: output.weights,
        "bg_weights": lambda: output.background_weights,
        "coarse_weights": lambda: scene.coarse["weights"].flatten(0, 1),
        "fine_di": lambda: scene.coarse["fine"].flatten(0, 1),
    }
    if name in direct:
        return direct[name]()
    if re.fullmatch(r"[fb]g_\w+", name):
        return scene.foreground(name) if name.startswith("fg") else scene.background(name)
    if match := re.fullmatch(r"(b\d+)\.conv0\.(adapter_in|adapter_out)", name):
        return scene.adapter(*match.groups())
    if match := re.fullmatch(r"img_(\d+)", name):
        return scene.mids[f"b{match[1]}"][1].flatten(0, 1).movedim(-1, 1)
    return scene.mids[name][0, :1].movedim(-1, 1) if name in scene.mids else None


def optional(scene: Scene, name: str) -> Tensor | None:
    """What the reference calls ``out.<name>`` where that is not the plain image; None if it is unknown."""
    config = scene.generator.config
    if name == "option_freeze_bg":
        return scene.render(background_camera=still_camera(config).expand(len(scene.ws))).image
    if match := re.fullmatch(r"option_steps_(\d+)", name):
        return scene.render(samples=int(match[1])).image
    if name == "not_render_background":
        return scene.render(with_background=False).image
    side = config.render_resolution
    depth = (scene.output.weights * scene.output.depths).sum(dim=-1, keepdim=True)
    position = (scene.output.origins + depth * scene.output.directions).unflatten(1, (side, side))
    if name == "option_early":
        return field_axes(position).movedim(-1, 1)
    if name == "option_early_normal":  # of the other sign, and without the border
        return -field_axes(normals_from_position(position)[:, 1:-1, 1:-1]).movedim(-1, 1)
    if name == "option_early_gradient":
        frames = scene.golden["in.Ts"].shape
        depths = scene.output.depths.unflatten(0, frames)
        points = scene.rays.origins[..., None, :] + depths[..., None] * scene.rays.directions[..., None, :]
        with torch.enable_grad():
            points.requires_grad_()
            raw = scene.field.raw_density(scene.field.hidden(points.flatten(2, 3), scene.motion))
            (gradient,) = torch.autograd.grad(raw.sum(), points)
        average = (gradient * scene.output.weights.unflatten(0, frames)[..., None]).sum(dim=-2)
        return -field_axes(normalize(average, dim=-1)).flatten(0, 1).unflatten(1, (side, side)).movedim(-1, 1)
    return None


PER_RAY = re.compile(r"out\..+|mid\.(feature|bg_lambda|fg_depths|fg_weights|fine_di|img_\d+|b\d+\..+)")


def resolution(case: reference.Case) -> int:
    return case.manifest["config"]["constructor"]["img_resolution"]


def networks(*, generators_only: bool = False) -> list:
    """Parameters of the cases; those of official size take long on a CPU."""
    found = [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if resolution(case) > 64 else [])
        for case in reference.cases("threedvidgen")
        if not (generators_only and is_discriminator(case))
    ]
    return found or reference.parameters([], "threedvidgen case")


@pytest.mark.parametrize("case", networks())
@torch.no_grad()
def test_network(case: reference.Case) -> None:
    if is_discriminator(case):
        check_discriminators(case)
        return
    scene, golden = Scene(case, generator_of(case)), case.golden
    for key in golden.keys("out.") + golden.keys("mid."):
        name = key.partition(".")[2]
        if key.startswith("mid."):
            actual = intermediate(scene, name)
        else:
            plain = {"img": scene.output.image, "img_nerf": scene.output.image_raw}
            actual = plain[name] if name in plain else optional(scene, name)
        assert actual is not None, f"{case}: no test knows {key}"
        if PER_RAY.fullmatch(key):
            check_most(golden, key, actual)
        else:
            golden.check(key, actual)
    with torch.enable_grad():  # the other way through the network
        check_most(golden, "out.img", scene.render().image)
    golden.read |= {"in.z_app_bg", "in.uvr"}  # the first touches no output; the second led to cam2world
    unknown = sorted(set(golden.keys()) - golden.read)
    assert not unknown, f"{case}: no test knows {', '.join(unknown)}"


@torch.enable_grad()
def check_discriminators(case: reference.Case) -> None:
    """Logits, intermediates and penalties of both discriminators."""
    golden = case.golden
    judges = dict(zip(("imageD", "videoD"), discriminators_of(case), strict=True))
    side = judges["videoD"].config.image_resolution
    frames = interpolate(golden["in.low"], (side, side), mode="bilinear", align_corners=False)
    frames = (frames * 0.5).clamp(-1, 1)
    elapsed = golden["in.dT"][:, None, None, None].expand(-1, 1, side, side)
    video = torch.cat([frames, elapsed], dim=1).requires_grad_()
    image = frames.unflatten(1, (2, 3)).flatten(0, 1).requires_grad_()
    found: dict[str, Tensor] = {"in.video": video}
    gradients = {}
    for name, seen in {"videoD": video, "imageD": image}.items():
        with reference.captured(dict(judges[name].blocks)) as mids:
            logits = judges[name](seen)
        (gradients[name],) = torch.autograd.grad(logits.sum(), seen)
        kind = name.removesuffix("D")
        found |= {f"out.{kind}_logits": logits, f"out.r1_{kind}": gradients[name].square().sum(dim=(1, 2, 3))}
        found |= {f"mid.{name}.{block}": features[:1] for block, (features, _) in mids.items()}
    found["out.grad_video_ch6"] = gradients["videoD"][:, 6].sum(dim=(1, 2))
    for key in set(golden.keys()) - golden.read:
        assert key in found, f"{case}: no test knows {key}"
        of_gradients = key.startswith(("out.r1_", "out.grad_"))
        golden.check(key, found[key], PENALTY_TOLERANCE if of_gradients else 1e-4)


def trainings() -> list[reference.Case]:
    return [case for case in reference.cases("threedvidgen") if case.has("training")]


@pytest.mark.parametrize("case", reference.parameters(trainings(), "threedvidgen training case"))
def test_training(case: reference.Case) -> None:
    """A forward pass in training with recorded draws: image, NeRF path regularisation, path lengths, averages."""
    arrays = case.arrays("training")
    generator = generator_of(case)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    videos = len(arrays["in.ws"])
    recorded = {re.search(r"number (\d+)", arrays.meaning(key))[1]: arrays[key] for key in arrays.keys("draw.")}
    draws = Draws(*(recorded[str(number)][:videos] for number in range(1, len(recorded))))
    ws = arrays["in.ws"].requires_grad_()
    try:
        output = generator.train().synthesis(
            ws,
            arrays["in.z_motion"],
            arrays["in.Ts"],
            from_sphere_axes(arrays["in.cam2world"], generator.config.fov),
            arrays["in.z_shape_bg"],
            draws=draws,
        )
        moved = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
        noise = torch.from_numpy(_noise(int(arrays["in.pl_noise_seed"]), output.image.shape))
        (gradient,) = torch.autograd.grad((output.image * noise).sum(), ws)
    finally:
        generator.eval().load_state_dict(before)
    check_most(arrays, "out.img", output.image)
    arrays.check("out.reg_loss", output.regularisation, 1e-3)  # a mean over few rays, one of which may be unlucky
    arrays.check("out.pl_grads", gradient, PENALTY_TOLERANCE)
    arrays.check("out.pl_lengths", gradient.square().sum(dim=2).mean(dim=1).sqrt(), PENALTY_TOLERANCE)
    for key in arrays.keys("out.synthesis."):
        name = re.sub(r"out\.synthesis\.(\w+\.\w+)\.w_avg", r"upsampler.\1.magnitude", key)
        assert name in moved, f"{case}: no test knows {key}"
        arrays.check(key, moved[name])
    arrays.read |= {"in.z_app_bg", "draw.0"}  # touch nothing: the second is a camera roll times 0
    arrays.assert_all_read()


def _noise(seed: int, shape: torch.Size) -> np.ndarray:
    return np.random.RandomState(seed).randn(*shape).astype(np.float32) / np.float32(math.sqrt(shape[-1] * shape[-2]))


@pytest.mark.parametrize(
    "group", reference.parameters(reference.function_groups("threedvidgen"), "threedvidgen functions")
)
def test_function(group: str) -> None:
    check = threedvidgen_functions.check_for(group) or threedvidgen_training_functions.FUNCTIONS.get(group)
    assert check, f"no test knows the function group {group!r}"
    arrays = reference.Arrays(reference.reference_folder("threedvidgen") / "functions.npz", "functions")
    check(arrays)
    members = {name for name in arrays.keys(group) if name.split(".")[0] == group}
    unread = sorted(members - arrays.read)
    assert not unread, f"no test knows {', '.join(unread)}"


def snapshots() -> list[Path]:
    folder = reference.reference_folder("threedvidgen")
    return sorted(folder.rglob("network_tensors.json")) if folder else []


@pytest.mark.parametrize("listing", reference.parameters(snapshots(), "threedvidgen pickle"))
def test_pickle(listing: Path) -> None:
    """The tensors of a file that the original wrote arrive whole under our names, and so do its settings."""
    told = json.loads(listing.read_text())
    conversion = convert(read_checkpoint(listing.with_name(told["file"])))
    config = ThreeDVidGenConfig(**conversion.config)
    assert config == config_of(reference.Case(listing.parent, listing.parent.name))
    networks = {name: {row["name"]: row for row in network["tensors"]} for name, network in told["networks"].items()}
    for file, name in (("model", "G_ema"), ("training", "G")):
        ours = part(conversion.tensors[file], "generator")
        kept = {our_name(theirs, GENERATOR_TABLE): row for theirs, row in networks[name].items()}
        for key, tensor in ours.items():
            assert zlib.crc32(tensor.contiguous().numpy().tobytes()) == kept[key]["crc32"], key
    counted = {name: len(rows) for name, rows in networks.items()}
    assert counted["G_ema"] + counted["G"] + counted["D"] == sum(map(len, conversion.tensors.values())) + len(
        conversion.dropped
    ), "every official tensor is mapped or dropped with a reason"
    Generator(config).load_state_dict(part(conversion.tensors["model"], "generator"))


@pytest.mark.parametrize("case", networks(generators_only=True))
def test_file_laid_out_like_the_official_one(case: reference.Case, tmp_path: Path) -> None:
    """A pickle with the tensors of the case's manifest, and its settings, converts to the case's network."""
    config, official = config_of(case), case.state_dict()
    others = [other for other in reference.cases("threedvidgen") if is_discriminator(other)]
    beside = next((other for other in others if resolution(other) == resolution(case)), None)
    generators = {"G_ema": official} if beside is None else {"G": official, "G_ema": official}
    file = write_snapshot(tmp_path / "x.pkl", config, generators, beside and beside.state_dict())
    conversion = convert(read_checkpoint(file))
    assert ThreeDVidGenConfig(**conversion.config) == config
    expected = generator_of(case).state_dict()
    found = part(conversion.tensors["model"], "generator")
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    assert ("training" in conversion.tensors) == (beside is not None)
