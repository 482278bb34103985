"""PV3D's training phases against the reference: scores, losses, penalties and the gradient norm of every parameter."""

import re
from collections.abc import Iterator

import pytest
import reference
import torch
from pv3d_cases import config_of, converted, load
from torch import Tensor, nn

from portraitzoo.hub.conversion import our_name
from portraitzoo.layers.mapping import AVERAGE_DECAY
from portraitzoo.methods.pv3d.discriminator import DiscriminatorConfig, ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.pv3d.network import Generator
from portraitzoo.methods.pv3d.objective import Draws, LossWeights, Objective, Stage
from portraitzoo.methods.pv3d.weights import DISCRIMINATOR_TABLE, DROPS, GENERATOR_TABLE
from portraitzoo.rendering.volume import RaySampling
from portraitzoo.training.gradients import training_only
from portraitzoo.training.phases import PhaseLoss
from portraitzoo.training.schedules import Schedules

OUR_NAMES = {
    "generated_img_scores": "fake_image",
    "generated_vid_scores": "fake_video",
    "real_img_scores": "real_image",
    "real_vid_scores": "real_video",
    "grad_img_penalty": "image_penalty",
    "grad_vid_penalty": "video_penalty",
    "sigma_initial": "density",
    "sigma_perturbed": "density_nearby",
    "image": "image",
    "image_raw": "image_raw",
}


def moments() -> Iterator:
    """One parameter for every moment of training in every case that holds training numbers."""
    for case in reference.cases("pv3d"):
        if case.has("train"):
            keys = case.arrays("train").keys("out.")
            for moment in dict.fromkeys(key.split(".")[1] for key in keys):
                yield pytest.param(case, moment, id=f"{case.name}-{moment}")


def absent() -> list:
    reason = "no PV3D training case in the reference folder (set PORTRAITZOO_REFERENCE)"
    return [pytest.param(None, "", id="absent", marks=pytest.mark.skip(reason=reason))]


def check_training(case: reference.Case, moment: str) -> None:
    """Hold the four phases of one moment of training against the reference."""
    arrays = case.arrays("train")
    config = config_of(case)
    tensors = converted(case).tensors["training"]
    generator = load(Generator(config), tensors, "generator").train()
    sizes = DiscriminatorConfig.beside(config)
    judges = {
        "image_discriminator": load(ImageDiscriminator(sizes), tensors, "image_discriminator"),
        "video_discriminator": load(VideoDiscriminator(sizes), tensors, "video_discriminator"),
    }
    weights, intervals, schedules, batch = conditions(arrays)
    objective = Objective(generator, *judges.values(), weights, *intervals, noise="const")

    blur, swap, resolution, samples = arrays[f"out.{moment}.schedule"].tolist()
    ours = (
        schedules.blur(int(samples), batch),
        schedules.swap_probability(int(samples)),
        schedules.render_resolution(int(samples)),
    )
    arrays.check(f"out.{moment}.schedule", torch.tensor([*ours, samples]), 1e-5)
    assert ours == pytest.approx((blur, swap, resolution), rel=1e-5)
    stage = Stage(ours[0], ours[1], ours[2])

    def given(name: str) -> Tensor:
        return arrays[f"in.{moment}.{name}"]

    def draws(phase: str) -> Draws:
        sampling = RaySampling()
        if f"in.{moment}.{phase}.rand1" in arrays:
            jitter, uniforms = given(f"{phase}.rand0").squeeze(-1), given(f"{phase}.rand1")
            sampling = RaySampling(jitter, uniforms.reshape(*jitter.shape[:2], -1))
        return Draws(given("z"), given("z_motion"), given("gen_t"), given("gen_cam"), given("swap_u"), sampling)

    real = objective.real_frames(given("frames"), given("real_t"), given("real_cam"), stage)
    average = generator.mapping.w_avg.clone()
    with training_only([generator], judges.values()):
        check_phase(arrays, moment, "Gmain", objective.generator_main(draws("Gmain"), stage), {"generator": generator})
        points, offsets = given("Greg.rand0"), given("Greg.randn1")
        given("Greg.randn2")  # view directions, which the decoder ignores
        smooth = objective.generator_regulariser(
            Draws(*(getattr(draws("Gmain"), name) for name in ("z", "z_motion", "times", "cameras", "swap"))),
            stage,
            points,
            offsets,
        )
        check_phase(arrays, moment, "Greg", smooth, {"generator": generator})
        assert torch.equal(generator.mapping.w_avg, average), "only the discriminators' phase moves the average w"
    with training_only(judges.values(), [generator]):
        check_phase(arrays, moment, "Dmain", objective.discriminator_main(draws("Dmain"), real, stage), judges)
        arrays.check(f"out.{moment}.Dmain.w_avg_after", generator.mapping.w_avg)
        check_phase(arrays, moment, "Dreg", objective.discriminator_regulariser(real, stage), judges)
    assert AVERAGE_DECAY == 0.998

    unread = sorted(set(arrays.keys(f"out.{moment}.")) | set(arrays.keys(f"in.{moment}.")))
    unread = [name for name in unread if name not in arrays.read]
    assert not unread, f"no test knows {', '.join(unread)}"


def conditions(arrays: reference.Arrays) -> tuple[LossWeights, tuple[int, int], Schedules, int]:
    """Weights, intervals and schedules under which the reference ran, which its notes tell in words."""
    notes = arrays.notes["about"]

    def number(pattern: str) -> float:
        match = re.search(pattern.replace("#", r"([\d.]+)"), notes)
        assert match, f"the notes of the training case do not tell {pattern!r}"
        return float(match[1].rstrip("."))

    weights = LossWeights(number("loss weights: img #"), number("vid #"), number("density_reg #"), number("r1_gamma #"))
    batch = int(number("per-device batch size in the blur fade is #"))
    schedules = Schedules(
        blur_sigma=number("initial blur sigma #"),
        blur_fade=number("blur fade # kimg") * 1000 * 32 / batch,
        resolution_start=int(number("render resolution initial #")),
        resolution_end=int(number("final #")),
        resolution_fade=number("over # kimg") * 1000,
    )
    return weights, (int(number("gen_reg #")), int(number("disc_reg #"))), schedules, batch


def check_phase(
    arrays: reference.Arrays, moment: str, phase: str, loss: PhaseLoss, trained: dict[str, nn.Module]
) -> None:
    prefix = f"out.{moment}.{phase}."
    loss.total.backward()
    parts = {"part_img": ("image", "variation"), "part_vid": ("video",)}
    found = {"loss": loss.total}
    for theirs, ours in parts.items():
        found[theirs] = sum((loss.parts[name] for name in ours if name in loss.parts), torch.zeros(()))
    found |= {theirs: loss.observed[ours] for theirs, ours in OUR_NAMES.items() if ours in loss.observed}
    for name, value in found.items():
        if prefix + name in arrays:
            value = value.squeeze(-1) if name.startswith("sigma") else value
            arrays.check(prefix + name, value)
    official = {"image_discriminator": "img_discriminator", "video_discriminator": "vid_discriminator"}
    for ours, network in trained.items():
        theirs = official.get(ours, ours)
        names = arrays.notes["grad_names"][theirs]
        norms = torch.tensor([gradient_norm(name.removeprefix(f"{theirs}."), network) for name in names])
        arrays.check(f"{prefix}{theirs}.grad_norms", norms, strided=False)
        # Beside the largest gradient that of a mapping bias is nothing: each must also be right on its own scale.
        expected = arrays[f"{prefix}{theirs}.grad_norms"]
        torch.testing.assert_close(norms, expected, rtol=2e-3, atol=1e-6 * float(expected.max()))
        network.zero_grad()


def gradient_norm(official: str, network: nn.Module) -> float:
    """Norm of a parameter's gradient; 0 where the parameter is left out or out of use."""
    if any(re.fullmatch(drop.pattern, official) for drop in DROPS):
        return 0.0
    name = our_name(official, GENERATOR_TABLE if isinstance(network, Generator) else DISCRIMINATOR_TABLE)
    gradient = dict(network.named_parameters())[name].grad
    return 0.0 if gradient is None else float(gradient.norm())
