import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_threedvidgen_network import SMALL, make

from portraitzoo.errors import ZooError
from portraitzoo.methods.threedvidgen.model import MAPS, ThreeDVidGen
from portraitzoo.metrics.multiview import yaw_between
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.rays import cast_rays


@pytest.fixture(scope="module")
def model() -> ThreeDVidGen:
    network = ThreeDVidGen(SMALL).eval()
    network.generator.load_state_dict(make(SMALL).state_dict())
    return network


def test_the_same_seed_gives_the_same_bytes_and_touches_no_global_generator(model: ThreeDVidGen) -> None:
    state = torch.random.get_rng_state()
    clip = model.sample(3, 4, trajectory="yaw")
    assert clip.frames.shape == (4, 32, 32, 3) and clip.frames.float().std() > 1
    assert torch.equal(clip.frames, model.sample(3, 4, trajectory="yaw", memory_gb=1e-6).frames)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(clip.frames, model.sample(4, 4, trajectory="yaw").frames)


def test_a_motion_seed_changes_only_what_moves(model: ThreeDVidGen) -> None:
    own, other = model.sample(3, 3), model.sample(3, 3, motion_seed=9)
    assert torch.equal(own.frames[0], other.frames[0]), "at time 0 the motion code is silent"
    assert not torch.equal(own.frames[2], other.frames[2])


def test_a_second_path_over_a_person_is_that_of_the_seed(model: ThreeDVidGen, monkeypatch) -> None:
    person = model.person(3, 5)
    expected = model.sample(3, 3, motion_seed=5, trajectory="pitch")
    monkeypatch.setattr(model.generator.mapping, "forward", None)  # not needed again, being the same for all cameras
    monkeypatch.setattr(model.generator, "style", None)
    assert torch.equal(model.sample(person, 3, trajectory="pitch").frames, expected.frames)


def test_original_names_of_programs(model: ThreeDVidGen) -> None:
    ours, theirs = (model.sample(0, 3, trajectory=name) for name in ("yaw-pitch", "rotation_camera_yaw_pitch"))
    assert torch.equal(ours.frames, theirs.frames)


@settings(max_examples=5, deadline=None)
@given(frames=st.integers(1, 3), more=st.integers(0, 4))
def test_steps_cut_the_same_clip_short(model: ThreeDVidGen, frames: int, more: int) -> None:
    steps = frames + more
    long = model.sample(1, steps, trajectory="yaw")
    short = model.sample(1, frames, trajectory="yaw", time_steps=steps, view_steps=steps)
    assert torch.equal(short.frames, long.frames[:frames])


def test_maps(model: ThreeDVidGen) -> None:
    clip = model.sample(0, 2, trajectory="yaw", maps=MAPS)
    assert set(clip.maps) == set(MAPS)
    side = SMALL.render_resolution
    assert clip.maps["raw"].shape == (2, side, side, 3)
    assert ((clip.maps["opacity"] >= 0) & (clip.maps["opacity"] <= 1 + 1e-5)).all()
    depth = clip.maps["depth"]
    assert (depth >= SMALL.depth_near - 1e-4).all() and (depth <= SMALL.depth_far + 1e-4).all()
    eye, forward = clip.cameras.cam2world[:, :3, 3], clip.cameras.cam2world[:, :3, 2]
    along = ((clip.maps["position"] - eye[:, None, None]) * forward[:, None, None]).sum(dim=-1)
    torch.testing.assert_close(along, depth, rtol=0, atol=1e-4)


def test_a_frozen_background_and_none(model: ThreeDVidGen) -> None:
    plain = model.sample(0, 2, trajectory="yaw")
    for options in ({"freeze_background": True}, {"with_background": False}, {"ray_samples": 9}, {"fov": 15.0}):
        assert not torch.equal(plain.frames, model.sample(0, 2, trajectory="yaw", **options).frames), options


def test_a_random_camera_belongs_to_the_seed(model: ThreeDVidGen) -> None:
    one, again, other = (model.sample(seed, 2, trajectory="random").cameras.cam2world for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other) and torch.equal(one[0], one[1])


def test_multiview_and_mesh(model: ThreeDVidGen) -> None:
    clip = model.multiview(2)
    assert len(clip) == 4 and set(clip.maps) == {"position", "depth", "opacity"}
    cameras = clip.cameras.cam2world
    assert torch.equal(cameras[0], cameras[3]) and torch.equal(cameras[1], cameras[2])
    # One head's views serve the metrics: turned by 30 degrees, with depths along the rays to the positions.
    assert yaw_between(cameras[0], cameras[1]) == pytest.approx(30, abs=1e-3)
    position, depth = clip.maps["position"], clip.maps["depth"]
    rays = cast_rays(clip.cameras, depth.shape[-1])
    reached = rays.at(depth.flatten(1)[..., None])[:, :, 0]
    seen = clip.maps["opacity"].flatten(1) > 0.5
    torch.testing.assert_close(reached[seen], position.flatten(1, 2)[seen], atol=1e-4, rtol=0)
    mesh = model.mesh(2, resolution=16, level=float(4))
    assert mesh.vertices.abs().max() <= 0.2 and len(mesh.faces) > 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_frames": 0}, "at least 1 frame"),
        ({"num_frames": 5, "time_steps": 4}, "time steps"),
        ({"num_frames": 5, "view_steps": 4}, "view steps"),
        ({"trajectory": "rotation_camera_roll"}, "unknown trajectory 'rotation_camera_roll'"),
        ({"trajectory": Camera.canonical()}, "stands 2.7 from the origin"),
        ({"trajectory": Camera.canonical(1.0).expand(3)}, "need 2 cameras"),
        ({"time": [0.0, 1.5]}, "times between 0 and 1"),
        ({"time": [0.5]}, "times between 0 and 1"),
        ({"time": "loop"}, "times between 0 and 1"),
        ({"maps": ["colour"]}, "unknown map 'colour'"),
        ({"seed": -1}, "whole number"),
        ({"motion_seed": 1.5}, "whole number"),
        ({"fov": 180.0, "trajectory": "yaw"}, "between 0 and 180"),
        ({"ray_samples": 2}, "at least 4 samples"),
    ],
)
def test_bad_input_is_told_in_one_line(model: ThreeDVidGen, options: dict, complaint: str) -> None:
    with pytest.raises(ZooError, match=complaint) as error:
        model.sample(**{"num_frames": 2} | options)
    assert "\n" not in str(error.value)


def test_save_and_load(model: ThreeDVidGen, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    again = ThreeDVidGen.from_pretrained(tmp_path).eval()
    assert again.config == model.config == dataclasses.replace(SMALL)
    assert torch.equal(again.sample(0, 2).frames, model.sample(0, 2).frames)
