import math
from dataclasses import replace

import pytest
import torch
from toy_head import toy_arrays

from portraitzoo.errors import ZooError
from portraitzoo.faces.flame import FLAME
from portraitzoo.faces.flame_head import FlameHead
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.landmark_fit import FROM_SCRATCH, FitSettings, LandmarkFit
from portraitzoo.faces.landmark_loss import LandmarkLoss, fit_target
from portraitzoo.faces.rotations import rotation_matrix
from portraitzoo.faces.tracked_camera import FOCAL

torch.set_num_threads(1)
SHORT = FitSettings(placing_steps=60, fitting_steps=60)


def head() -> FlameHead:
    return FlameHead.from_arrays(toy_arrays())


def drawn(batch: int, seed: int = 0) -> FlameParameters:
    generator = torch.Generator().manual_seed(seed)

    def normal(size: int, scale: float) -> torch.Tensor:
        return torch.randn(batch, size, generator=generator) * scale

    eye = normal(3, 0.1)
    return FlameParameters(normal(300, 0.5), normal(100, 0.5), normal(6, 0.1), torch.cat([eye, eye], dim=1))


def seen(flame: FLAME, parameters: FlameParameters, place: torch.Tensor) -> torch.Tensor:
    """Landmarks, pixels with y up, by the whole head model."""
    straight = parameters.without_neck()
    points = flame.landmarks(flame(*straight)) @ rotation_matrix(parameters.pose[:, :3]).mT + place[:, None]
    return 512 * FOCAL * points[..., :2] / -points[..., 2:] + 256


def still(parameters: FlameParameters) -> FlameParameters:
    return FlameParameters(parameters.shape, parameters.expression, parameters.pose, 0 * parameters.eye_pose)


def test_a_head_that_fits_already_is_only_moved():
    toy, start = head(), still(drawn(2))
    place = torch.tensor([[0.05, -0.04, -4.55], [-0.03, 0.02, -4.6]])
    settings = FitSettings(placing_steps=600, fitting_steps=20)
    found = LandmarkFit.of_head(toy).fit(start, seen(toy.flame, start, place), settings=settings)
    torch.testing.assert_close(found.translation, place, atol=2e-2, rtol=0)
    assert float(found.losses[0][-1]) < 1e-2 * float(found.losses[0][0])
    assert float((found.head.shape - start.shape).abs().max()) < 0.02


def test_the_first_loss_of_stage_two_is_that_of_the_whole_model():
    toy, start = head(), still(drawn(3))
    target = seen(toy.flame, drawn(3, seed=1), torch.tensor([[0.0, 0.0, -4.5]]).expand(3, -1))
    found = LandmarkFit.of_head(toy).fit(start, target, settings=FitSettings(0, 1))
    depth = -3 / (math.tan(math.radians(6)) * 6.2189)
    points = seen(toy.flame, start, torch.tensor([[0.0, 0.0, depth]]).expand(3, -1))
    torch.testing.assert_close(found.losses[-1][0], LandmarkLoss(target).fitting(points), rtol=1e-4, atol=0)


def test_the_penalty_on_the_surface_is_that_of_the_whole_model():
    toy, start = head(), still(drawn(2))
    target = seen(toy.flame, drawn(2, seed=1), torch.tensor([[0.0, 0.0, -4.5]]).expand(2, -1))
    settings = FitSettings(0, 4, surface=1e10, shape=0, expression=0, gaze=0)
    found = LandmarkFit.of_head(toy).fit(start, target, settings=settings)
    losses, after = found.losses[-1], found.head
    held = torch.ones(len(toy.canonical), dtype=torch.bool)
    held[toy.eyelids] = False
    before = FlameParameters(start.shape, start.expression, after.pose, after.eye_pose).without_neck()
    moved = toy.flame(*after.without_neck()) - toy.flame(*before)
    assert bool(moved[:, toy.eyes].any()) and bool(moved[:, toy.head].any())
    penalty = 1e10 * float(moved[:, held].square().mean())
    whole = float(LandmarkLoss(target).fitting(seen(toy.flame, after, found.translation))) + penalty
    assert penalty > 1e-3 * whole  # or the next line would say nothing of it
    assert float(losses.min()) == pytest.approx(whole, rel=1e-5) and float(losses.min()) < float(losses[0])


@pytest.mark.parametrize("strong", [1e6, 1e9])
def test_fitting_lowers_the_loss_and_keeps_turn_and_jaw(strong):
    toy, start, other = head(), drawn(2), drawn(2, seed=1)
    target = seen(toy.flame, other, torch.tensor([[0.02, 0.0, -4.5]]).expand(2, -1))
    found = LandmarkFit.of_head(toy).fit(
        start, target, settings=FitSettings(60, 60, surface=strong, shape=0, expression=0)
    )
    assert all(float(losses[-1]) < float(losses[0]) for losses in (found.losses[0], found.losses[-1]))
    assert found.head.pose.equal(start.pose)
    assert found.head.eye_pose[:, :3].equal(found.head.eye_pose[:, 3:]) and bool(found.head.eye_pose.any())
    label = found.labels()
    assert label.shape == (2, 437)
    place = torch.linalg.inv(label[:, :16].unflatten(1, (4, 4)))[:, :3, 3]
    torch.testing.assert_close(place, found.translation, atol=1e-4, rtol=0)
    best = LandmarkLoss(target).fitting(seen(toy.flame, found.head, found.translation))
    assert float(best) <= float(found.losses[-1].min()) * (1 + 1e-4)  # penalties come on top


def test_a_start_that_knows_nothing_finds_turn_and_jaw():
    toy, place = head(), torch.tensor([[0.0, 0.0, -4.5], [0.03, -0.02, -4.6]])
    pose = torch.tensor([[0.1, -0.25, 0.05, 0.15, 0.0, 0.0], [-0.1, 0.2, 0.0, 0.0, 0.0, 0.0]])
    wanted = FlameParameters(torch.zeros(2, 300), torch.zeros(2, 100), pose, torch.zeros(2, 6))
    settings = replace(FROM_SCRATCH, placing_steps=100, posing_steps=1000, fitting_steps=0)
    found = LandmarkFit.of_head(toy).fit(FlameParameters.zeros(2), seen(toy.flame, wanted, place), settings=settings)
    # This head's jaw takes all of its skin along, so turning it sideways is much like turning the head.
    torch.testing.assert_close(found.head.pose[:, :4], pose[:, :4], atol=0.03, rtol=0)
    assert float(found.losses[1][-1]) < 0.01 * float(found.losses[1][0])


def test_faces_do_not_mix_and_a_clip_has_one_shape():
    toy, start = head(), still(drawn(3))
    target = seen(toy.flame, drawn(3, seed=1), torch.tensor([[0.0, 0.0, -4.5]]).expand(3, -1))
    fit = LandmarkFit.of_head(toy)
    whole, alone = fit.fit(start, target, settings=SHORT), fit.fit(start[1:2], target[1:2], settings=SHORT)
    torch.testing.assert_close(whole.labels()[1:2], alone.labels(), atol=1e-3, rtol=0)
    clip = fit.fit(start, target, one_person=True, settings=SHORT)
    assert clip.head.shape.std(0).max() == 0 and clip.head.expression.std(0).max() > 0
    torch.testing.assert_close(clip.head.shape[0], start.shape.mean(0), atol=0.07, rtol=0)


def test_steps_are_told_and_repeat():
    toy, start, told = head(), still(drawn(1)), []
    target = seen(toy.flame, drawn(1, seed=1), torch.tensor([[0.0, 0.0, -4.5]]))
    fit = LandmarkFit.of_head(toy)
    first = fit.fit(start, target, settings=FitSettings(3, 4), on_step=told.append)
    assert told == list(range(7))
    with torch.no_grad():
        assert first.labels().equal(fit.fit(start, target, settings=FitSettings(3, 4)).labels())


def test_the_target_takes_the_jaw_line_of_68_and_the_rest_of_98():
    points98 = torch.arange(98.0)[None, :, None].expand(1, 98, 2)
    points68 = -torch.arange(68.0)[None, :, None].expand(1, 68, 2)
    target = fit_target(points98, points68)
    assert target.shape == (1, 70, 2)
    assert target[0, :17, 0].equal(-torch.arange(17.0)) and target[0, 68:, 0].tolist() == [96, 97]
    torch.testing.assert_close(target.sum(-1), torch.full((1, 70), 512.0))


def test_closed_eyes_are_wanted_closed():
    points = torch.zeros(1, 70, 2)
    points[0, 37, 1], points[0, 43, 1] = 7.5, 8.5
    assert LandmarkLoss(points).gaps[0].nonzero()[:, 0].tolist() == [5]


def test_what_is_wrong_is_told():
    toy, start = head(), drawn(2)
    fit = LandmarkFit.of_head(toy)
    with pytest.raises(ZooError, match=r"2 heads are fitted to \[2, 70, 2\], not \[2, 68, 2\]"):
        fit.fit(start, torch.zeros(2, 68, 2))
    with pytest.raises(ZooError, match="0 heads"):
        fit.fit(start[:0], torch.zeros(0, 70, 2))
    with pytest.raises(ZooError, match="NaN"):
        fit.fit(start, torch.full((2, 70, 2), math.nan))
    with pytest.raises(ZooError, match=r"landmarks of 1 faces are \[1, 68, 2\]"):
        fit_target(torch.zeros(1, 98, 2), torch.zeros(1, 70, 2))
    with pytest.raises(ZooError, match="NaN"):
        fit_target(torch.full((1, 98, 2), math.inf), torch.zeros(1, 68, 2))
    with pytest.raises(ZooError, match="rate of a landmark fit cannot be -1"):
        FitSettings(rate=-1)
    with pytest.raises(ZooError, match="names a vertex 5000"):
        LandmarkFit(toy.flame, toy.eyelids, {37: (5000,)})
