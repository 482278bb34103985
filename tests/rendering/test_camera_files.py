import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.rendering.camera_files import draw_cameras, load_cameras, save_cameras
from portraitzoo.rendering.cameras import Camera, orbit, yaw

GOOD = orbit(5).label().tolist()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.booleans())
def test_what_is_saved_is_read(tmp_path_factory, count, named):
    path = tmp_path_factory.mktemp("cameras") / "clip.json"
    save_cameras(path, orbit(count), [f"{index:06d}.png" for index in range(count)] if named else None)
    assert torch.equal(load_cameras(path).label(), orbit(count).label())
    assert len(load_cameras(path, 1)) == 1


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        [[f"frame{index}", label] for index, label in enumerate(GOOD)],
        {"cameras": GOOD, "fps": 25},
        {"cam2world": orbit(5).cam2world.tolist(), "intrinsics": orbit(5).intrinsics.tolist()},
        {"cam2world": orbit(5).cam2world.tolist(), "intrinsics": orbit(5).intrinsics[0].tolist()},
    ],
)
def test_forms_of_the_file(tmp_path, content):
    (tmp_path / "clip.json").write_text(json.dumps(content))
    assert torch.equal(load_cameras(tmp_path / "clip.json", 5).label(), orbit(5).label())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([*GOOD[:3], GOOD[3][:24], *GOOD[4:]], "entry 3 has 24 numbers instead of 25"),
        ([["frame0", GOOD[0]], ["frame1", GOOD[1][:24]]], "entry 1 has 24 numbers"),
        (GOOD[:4], "has 4 cameras for 5 frames"),
        ([[*GOOD[0][:24], float("nan")]], "entry 0 holds NaN"),
        ([[*GOOD[0][:24], 1e60]], "entry 0 holds NaN or infinite"),
        ([[*GOOD[0][:24], 10**400]], "entry 0 holds NaN or infinite"),
        ([[*GOOD[0][:24], "1"]], "entry 0 is no list of 25 numbers"),
        ([[*GOOD[0][:24], None]], "entry 0 is no list"),
        ([["frame0", "label"]], "entry 0 is no list"),
        ([7], "entry 0 is no list"),
        ([], "must hold a list"),
        ("cameras", "must hold a list"),
        (25, "must hold a list"),
        ({"cameras": None}, "must hold a list"),
        ({"cam2world": orbit(5).cam2world.tolist()}, "needs cam2world"),
        ({"cam2world": [[1, 2], [3]], "intrinsics": []}, "needs cam2world"),
        ({"cam2world": orbit(5).cam2world.tolist(), "intrinsics": orbit(4).intrinsics.tolist()}, "needs cam2world"),
        ({"cam2world": [[[float("inf")] * 4] * 4], "intrinsics": torch.eye(3).tolist()}, "NaN or infinite"),
        ({"cam2world": 3, "intrinsics": 4}, "needs cam2world"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path, content, message):
    (tmp_path / "clip.json").write_text(json.dumps(content))
    with pytest.raises(MediaError, match=message) as caught:
        load_cameras(tmp_path / "clip.json", 5)
    assert "clip.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no json", b"[1, 2", b"\xff\xfe\x00", b"[" * 100_000])
def test_no_json(tmp_path, content):
    (tmp_path / "clip.json").write_bytes(content)
    with pytest.raises(MediaError, match="is no JSON") as caught:
        load_cameras(tmp_path / "clip.json")
    assert "\n" not in str(caught.value)


def test_absent_file(tmp_path):
    with pytest.raises(MediaError, match="cannot read the camera file"):
        load_cameras(tmp_path / "absent.json")


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(ZooError, match="as many names"):
        save_cameras(tmp_path / "clip.json", orbit(3), ["a", "b"])
    with pytest.raises(ZooError, match="needs cameras"):
        save_cameras(tmp_path / "clip.json", Camera.canonical())
    assert list(tmp_path.iterdir()) == []


@given(st.integers(0, 2**40), st.integers(1, 12))
def test_drawn_cameras_are_consecutive_ones_of_a_track(seed, count):
    tracks = [orbit(12), yaw(20), orbit(3)]
    drawn = draw_cameras(tracks, count, seed)
    assert torch.equal(drawn.label(), draw_cameras(tracks, count, seed).label())
    assert any(
        torch.equal(drawn.label(), track[start : start + count].label())
        for track in tracks
        for start in range(len(track) - count + 1)
    )


def test_every_place_of_every_track_is_drawn():
    tracks = [orbit(5), yaw(6)]
    drawn = {draw_cameras(tracks, 4, seed).label().numpy().tobytes() for seed in range(200)}
    assert len(drawn) == 2 + 3


def test_no_track_is_long_enough():
    with pytest.raises(ZooError, match="none of the 1 camera tracks"):
        draw_cameras([orbit(3)], 4, 0)
