"""Parts of the studio that need no head model: motion, seeds, noise, colours, haircuts."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.faces.anny import Region
from portraitzoo.preprocess.studio.appearance import sample_appearance
from portraitzoo.preprocess.studio.hair import sample_style
from portraitzoo.preprocess.studio.identity import Identity
from portraitzoo.preprocess.studio.materials import Label, paint
from portraitzoo.preprocess.studio.motion import perform
from portraitzoo.preprocess.studio.noise import noise, smoothstep, stream

torch.set_num_threads(1)

LABELS = tuple(
    label
    for stem, sided in {
        "jawOpen": False, "jawLeft": False, "jawRight": False, "mouthFunnel": False, "mouthPucker": False,
        "mouthRollLower": False, "mouthRollUpper": False, "mouthShrugUpper": False, "browInnerUp": False,
        "mouthLowerDown": True, "mouthUpperUp": True, "mouthStretch": True, "mouthSmile": True, "mouthPress": True,
        "mouthFrown": True, "cheekSquint": True, "browOuterUp": True, "browDown": True, "eyeBlink": True,
        "eyeWide": True, "eyeSquint": True, "eyeLookOut": True, "eyeLookIn": True, "eyeLookUp": True,
        "eyeLookDown": True,
    }.items()
    for label in ((stem + "Left", stem + "Right") if sided else (stem,))
)  # fmt: skip
SOMEBODY = Identity({"gender": 0.9, "age": 0.7, "african": 0.2, "asian": 0.3, "caucasian": 0.5}, {})


def test_streams_are_independent_and_repeat() -> None:
    first = stream(3, 5, "motion").random(4)
    np.testing.assert_array_equal(first, stream(3, 5, "motion").random(4))
    for other in (stream(4, 5, "motion"), stream(3, 6, "motion"), stream(3, 5, "hair")):
        assert not np.allclose(first, other.random(4))


@given(seed=st.integers(0, 1000), frames=st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_a_performance_is_possible(seed: int, frames: int) -> None:
    performance = perform(np.random.default_rng(seed), LABELS, frames)
    assert performance.actions.shape == (frames, len(LABELS))
    assert performance.actions.min() >= 0 and performance.actions.max() <= 1
    label = performance.camera.label()
    assert label.shape == (frames, 25)
    position = label[:, [3, 7, 11]]
    torch.testing.assert_close(position.norm(dim=-1), torch.full((frames,), 2.7), atol=1e-4, rtol=0)
    yaw = torch.atan2(position[:, 0], position[:, 2])
    assert yaw.abs().max() <= 0.81
    # From frame to frame a head turns smoothly: below half a turn a second.
    assert frames == 1 or yaw.diff().abs().max() < math.pi / 25


def test_eyes_blink_briefly() -> None:
    blink = LABELS.index("eyeBlinkLeft")
    closed = np.concatenate(
        [perform(np.random.default_rng(seed), LABELS, 250).actions[:, blink].numpy() > 0.5 for seed in range(6)]
    )
    assert 0.01 < closed.mean() < 0.15
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], closed.astype(int), [0]]))))[::2]
    assert runs.max() <= 5  # frames of 40 ms


def test_lively_people_open_their_mouths_further_and_blink_more_often() -> None:
    jaw, blink = LABELS.index("jawOpen"), LABELS.index("eyeBlinkLeft")
    calm, lively = (
        torch.stack([perform(np.random.default_rng(seed), LABELS, 250, amount).actions for seed in range(6)])
        for amount in (1.0, 2.0)
    )
    assert lively[..., jaw].mean() > 1.5 * calm[..., jaw].mean()
    assert lively[..., blink].mean() > 1.2 * calm[..., blink].mean()


def test_noise_is_smooth_bounded_and_periodic() -> None:
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * 40 - 20
    values = noise(points, 3)
    assert values.shape == (500, 3)
    assert values.abs().max() <= 1
    torch.testing.assert_close(noise(points + 32, 3), values, atol=1e-3, rtol=0)
    assert (noise(points + 1e-3) - noise(points)).abs().max() < 0.02
    assert noise(points[:, :2], 2).shape == (500, 2)


def test_smoothstep_both_ways() -> None:
    value = torch.linspace(-1, 2, 31)
    rising, falling = smoothstep(0.0, 1.0, value), smoothstep(1.0, 0.0, value)
    torch.testing.assert_close(rising + falling, torch.ones(31))
    assert (rising.diff() >= 0).all()


def test_looks_are_colours() -> None:
    for seed in range(40):
        look = sample_appearance(np.random.default_rng(seed), SOMEBODY)
        for colour in (look.skin, look.lips, look.iris, look.hair, look.brow, look.clothes):
            assert all(0 < value < 1 for value in colour)
        style = sample_style(np.random.default_rng(seed), SOMEBODY)
        assert 0 < style.thickness < 0.12 and 0 <= style.coverage <= 1


def test_an_iris_lies_in_the_middle_of_the_eye() -> None:
    look = sample_appearance(np.random.default_rng(0), SOMEBODY)
    centre = torch.tensor([0.03078, 0.72842, 0.12454])
    angles = torch.tensor([0.0, 0.35, 1.0])
    points = centre + 0.0138 * torch.stack([angles.sin(), 0 * angles, angles.cos()], -1)
    masks = {name: torch.zeros(3) for name in ("lips", "eyelids", "ears")}
    surface = paint(points, torch.full((3,), int(Region.LEFT_EYE)), masks, look)
    pupil, iris, sclera = surface.albedo.mean(-1).tolist()
    assert pupil < 0.05 < sclera
    assert iris < sclera
    assert (surface.label == Label.EYES).all()
