import pytest
import torch
from test_threedvidgen_model import model  # noqa: F401
from torch import nn

from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import read_image
from portraitzoo.methods.bulk_grid import sample_grid


def test_each_person_moves_as_its_own_seed_says_without_motion_seeds(model: nn.Module, tmp_path) -> None:  # noqa: F811
    done = []
    grid = sample_grid(
        model, [3, 4], tmp_path, trajectories=["pitch"], suffix=".npz", on_clip=done.append, num_frames=3
    )
    assert grid.clips == grid.written == 2 and done[-1] == 2
    clip = Clip.load(tmp_path / "pitch" / "seed_000004.npz")
    assert torch.equal(clip.frames, model.sample(4, 3, trajectory="pitch").frames)
    sheet = read_image(grid.sheets[0])
    assert sheet.shape[0] > 2 * 32 and sheet.shape[1] >= 3 * 32


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"seeds": []}, "at least one seed"),
        ({"seeds": [1, 1]}, "seeds of a grid are each named once"),
        ({"seeds": [1], "trajectories": ["yaw", "yaw"]}, "trajectories of a grid"),
        ({"seeds": [1], "trajectories": ["spiral"]}, "unknown trajectory 'spiral'"),
    ],
)
def test_bad_input(model: nn.Module, tmp_path, options: dict, complaint: str) -> None:  # noqa: F811
    with pytest.raises(ZooError, match=complaint):
        sample_grid(model, out=tmp_path, num_frames=1, **options)
