"""The parametric head; slow, because Anny builds its model once."""

import pytest
import torch

pytest.importorskip("anny")

from portraitzoo.faces.anny import HeadModel, Region, load_head
from portraitzoo.preprocess.studio.identity import EYES, place, sample_identity
from portraitzoo.preprocess.studio.noise import stream

torch.set_num_threads(1)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head()


def test_mesh_is_sound(head: HeadModel) -> None:
    assert head.faces.min() == 0
    assert head.faces.max() == len(head.template) - 1
    assert len(head.regions) == len(head.faces)
    assert set(head.regions.unique().tolist()) == {int(region) for region in Region}
    assert 4000 < len(head.template) < 7000
    # The face looks to +z with y up, and left is the head's own left (+x).
    assert head.template[head.landmarks["nose_tip"], 2] > head.template[:, 2].quantile(0.99)
    assert head.template[head.landmarks["left_pupil"], 0] > 0.02
    assert head.template[head.landmarks["chin"], 1] < head.template[head.landmarks["lower_lip"], 1]


def test_phenotypes_and_local_changes_shape_the_head(head: HeadModel) -> None:
    plain = head.neutral({}, {})
    assert (head.neutral({"gender": 0.0}, {}) - head.neutral({"gender": 1.0}, {})).norm(dim=-1).max() > 1e-3
    wide = head.neutral({}, {"nose-scale-horiz-incr": 1.0})
    narrow = head.neutral({}, {"nose-scale-horiz-incr": -1.0})
    moved = (wide - plain).norm(dim=-1)
    tip = head.template[head.landmarks["nose_tip"]]
    assert ((head.template[moved > 1e-3] - tip).norm(dim=-1) < 0.06).all()
    assert (wide - narrow)[:, 0].abs().max() > 2e-3
    with pytest.raises(KeyError):
        head.neutral({"mood": 1.0}, {})
    with pytest.raises(KeyError):
        head.neutral({}, {"third-eye-incr": 1.0})


def test_actions_move_what_they_name(head: HeadModel) -> None:
    neutral = head.neutral({}, {})
    actions = torch.zeros(2, len(head.action_labels))
    actions[1, head.action_labels.index("jawOpen")] = 1
    still, open_ = head.act(neutral, actions)
    torch.testing.assert_close(still, neutral)
    assert (open_ - still)[head.landmarks["chin"], 1] < -0.01
    lower, upper = (head.vertices_of(region) for region in (Region.LOWER_TEETH, Region.UPPER_TEETH))
    assert (open_ - still)[lower, 1].mean() < -0.01
    assert (open_ - still)[upper].abs().max() < 1e-3


def test_everybody_is_placed_before_the_camera(head: HeadModel) -> None:
    for index in range(6):
        identity = sample_identity(stream(0, index, "identity"), head)
        neutral = head.neutral(identity.phenotype, identity.local_changes)
        scale, shift = place(neutral, head)
        world = scale * neutral + shift
        eyes = torch.stack([world[head.vertices_of(r)].mean(0) for r in (Region.LEFT_EYE, Region.RIGHT_EYE)]).mean(0)
        torch.testing.assert_close(eyes, EYES, atol=1e-5, rtol=0)
        face = world[list(head.landmarks.values())]
        assert face.abs().max() < 0.4
        assert -0.32 < world[head.landmarks["chin"], 1] < -0.15
