"""GenHead's training phases against the reference: reported quantities and the gradient norm of every parameter."""

import re
from collections.abc import Iterator

import pytest
import reference
import torch
import torch.nn.functional as F
from genhead_cases import generator_of, load, parameters_of
from torch import Tensor, nn

from portraitzoo.hub.conversion import our_name
from portraitzoo.hub.eg3d_tensors import ALWAYS_DROPPED, COLOR, DENSITY, DISCRIMINATOR_TABLE, OUTPUT
from portraitzoo.methods.genhead.discriminator import Discriminator, DiscriminatorConfig
from portraitzoo.methods.genhead.network import Generator
from portraitzoo.methods.genhead.objective import Draws, Judged, Objective, Stage
from portraitzoo.methods.genhead.weights import GENERATOR_TABLE, discriminator_tensors
from portraitzoo.training.gradients import training_only
from portraitzoo.training.phases import PhaseLoss
from portraitzoo.training.schedules import Schedules

GENERATOR_CASE = "small"
VALUE_TOLERANCE, NORM_TOLERANCE = 1e-4, 1e-4

PARTS = {
    "Loss/G/loss": ("image",),
    "Loss/G/loss_face_eye": ("face_in_eyes",),
    "Loss/G/loss_eye_density": ("distortion_eyes",),
    "Loss/G/loss_eye_T": ("transparency_eyes",),
    "Loss/G/loss_face_mouth": ("face_in_mouth",),
    "Loss/G/loss_mouth_density": ("distortion_mouth",),
    "Loss/G/loss_mouth_T": ("transparency_mouth",),
    "Loss/G/TVloss": ("variation",),
    "Loss/D/loss": ("image",),
    "Loss/D/reg": ("image", "correspondence", "segmentation"),
}
OBSERVED = {"Loss/scores/fake": "fake", "Loss/scores/real": "real"}


def phases() -> Iterator:
    """One parameter for every training phase of every case that holds losses."""
    for case in reference.cases("genhead"):
        for name in case.golden.notes.get("cases", {}):
            yield pytest.param(case, name, id=f"{case.name}-{name}")


def absent() -> list:
    reason = "no GenHead training case in the reference folder (set PORTRAITZOO_REFERENCE)"
    return [pytest.param(None, "", id="absent", marks=pytest.mark.skip(reason=reason))]


def check_phase(case: reference.Case, name: str) -> None:
    """Hold one phase against the reference."""
    arrays = case.golden
    told = arrays.notes["cases"][name]
    folder = case.folder.with_name(GENERATOR_CASE)
    # The reference's losses were taken with constant noise in every layer, the super-resolution's included.
    told_noise = re.search(r"per-layer noise (\w+)", arrays.notes["notes"])
    assert told_noise, f"{case} does not tell its noise"
    noise = told_noise[1]
    source = reference.Case(folder, GENERATOR_CASE)
    generator = generator_of(source, super_resolution_noise=noise).requires_grad_(True)
    discriminator = discriminator_of(case)
    objective = Objective(generator, discriminator, noise=noise)
    stage = stage_of(told, len(arrays["in.z"]), generator.config.render_resolution)
    draws = Draws(
        arrays["in.z"], parameters_of(arrays), arrays["in.c"], arrays["in.c_compose"], torch.zeros(len(arrays["in.z"]))
    )
    kind = told["phase"]
    try:
        if kind in ("Gmain", "Greg"):
            with training_only([generator], [discriminator]):
                if kind == "Gmain":
                    loss = objective.generator_main(draws, stage)
                else:
                    loss = objective.generator_regulariser(draws, stage, arrays["in.reg_u"], arrays["in.reg_n"])
                loss.total.backward()
        else:
            real = real_images(objective, arrays, stage)
            with training_only([discriminator], [generator]):
                if kind == "Dmain":
                    loss = objective.discriminator_main(draws, real, stage)
                else:
                    loss = objective.discriminator_regulariser(real, stage)
                loss.total.backward()
        check_reported(arrays, case, name, told, objective, loss)
        network = generator if kind in ("Gmain", "Greg") else discriminator
        norms = torch.tensor([gradient_norm(parameter, network) for parameter in told["params"]])
        arrays.check(f"{name}.grad_norms", norms, NORM_TOLERANCE, strided=False)
        expected = arrays[f"{name}.grad_norms"].float()
        # Beside the largest gradient that of a mapping bias is nothing: each must also be right on its own scale.
        torch.testing.assert_close(norms, expected, rtol=3e-2, atol=1e-5 * float(expected.max()))
    finally:
        generator_of.cache_clear()  # the average w has moved, gradients have been left behind


def stage_of(told: dict, batch: int, resolution: int) -> Stage:
    """The schedules of the release at a moment, as the case's arguments have them."""
    options = told["kwargs"]
    schedules = Schedules(swap_end=options["gpc_reg_prob"], swap_fade=options["gpc_reg_fade_kimg"] * 1000)
    moment = told["cur_nimg"]
    # The reference says that its blur fades over 200 thousand images whatever its batch.
    return Stage(schedules.blur(moment, 32), schedules.swap_probability(moment), resolution)


def real_images(objective: Objective, arrays: reference.Arrays, stage: Stage) -> Judged:
    """Real images as the notes of the case describe them."""
    side = objective.generator.config.image_resolution

    def smooth(name: str, channels: int) -> Tensor:
        drawn = torch.from_numpy(reference.draw(name, (len(arrays["in.z"]), channels, side, side), arrays.salt))
        return 4 * F.avg_pool2d(drawn, 9, stride=1, padding=4)

    for name in ("real_img", "real_seg"):
        assert "avg_pool2d" in arrays.notes[name] and f"loss/{name}" in arrays.notes[name]
    image = smooth("loss/real_img", 3).clamp(-1, 1)
    segmentation = torch.where(smooth("loss/real_seg", 1) > 0, 1.0, -1.0)
    real = objective.real_images(image, segmentation, parameters_of(arrays, "in.real_"), arrays["in.real_c"], stage)
    arrays.check("in.real_uv", real.correspondence, 1e-5)
    return real


def check_reported(
    arrays: reference.Arrays, case: reference.Case, name: str, told: dict, objective: Objective, loss: PhaseLoss
) -> None:
    interval = {"Greg": objective.generator_interval, "Dreg": objective.discriminator_interval}.get(told["phase"], 1)
    for reported, (expected,) in told["reported"].items():
        if reported in PARTS:
            value = sum(loss.parts[part] for part in PARTS[reported]) / interval
        elif reported in OBSERVED:
            value = loss.observed[OBSERVED[reported]].mean()
        elif reported.startswith("Loss/signs/"):
            value = loss.observed[reported.rsplit("/", 1)[1]].sign().mean()
        elif reported == "Loss/r1_penalty":
            value = loss.observed["image_penalty"].mean()
        else:
            raise AssertionError(f"{case}: no test knows the reported {reported!r}")
        reference.assert_close(value, torch.tensor(expected), VALUE_TOLERANCE, f"{case}/{name}.{reported}")


def discriminator_of(case: reference.Case) -> Discriminator:
    """The case's discriminator through the conversion."""
    official = case.state_dict()
    tensors, _ = discriminator_tensors(official)
    config = DiscriminatorConfig.of(official)
    assert config.group_size == case.manifest["config"]["mbstd_group_size"]
    return load(Discriminator(config), tensors)


def gradient_norm(official: str, network: nn.Module) -> float:
    """Norm of a parameter's gradient; 0 where the parameter is left out or out of use."""
    if any(re.fullmatch(drop.pattern, official) for drop in ALWAYS_DROPPED):
        return 0.0
    rows = slice(None)
    for head, its_rows in ((DENSITY, slice(0, 1)), (COLOR, slice(1, None))):
        if official.startswith(head):
            official, rows = official.replace(head, OUTPUT), its_rows
    name = our_name(official, GENERATOR_TABLE if isinstance(network, Generator) else DISCRIMINATOR_TABLE)
    gradient = dict(network.named_parameters())[name].grad
    return 0.0 if gradient is None else float(gradient[rows].norm() if gradient.ndim else gradient.norm())
