from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from evaluation_cases import (
    NETWORKS,
    TinyVideo,
    ToyModel,
    install_index,
    make_clip,
    make_clips,
    save_frames,
    save_videos,
)

from portraitzoo.errors import MediaError, UnknownEntryError, ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.metrics.evaluation import evaluate
from portraitzoo.metrics.features import feature_network
from portraitzoo.metrics.frechet import FeatureStatistics, FrechetDistance
from portraitzoo.metrics.multiview import side_camera
from portraitzoo.metrics.report import Report, number
from portraitzoo.rendering.camera_files import save_cameras
from portraitzoo.rendering.cameras import Camera, trajectory


@pytest.fixture(autouse=True)
def tiny_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_index(tmp_path / "index", monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user cache"))


def measure(generated, real=None, *, overrides=None, use_cache=False, **options) -> Report:
    """``evaluate`` with the tiny networks, and nothing kept on disk."""
    options.setdefault("features", "random")
    chosen = {**NETWORKS, **(overrides or {})}
    return evaluate(generated, real, overrides=chosen, use_cache=use_cache, **options)


def test_a_set_against_itself_is_zero_and_against_another_is_the_metric_of_its_clips():
    ours, theirs = make_clips(9), make_clips(7, first=100)
    assert measure(ours, ours).values["fvd"] == pytest.approx(0, abs=1e-9)

    network = feature_network("tiny-video", "random")
    metric = FrechetDistance(num_features=network.num_features)
    for clips, real in ((ours, False), (theirs, True)):
        metric.update_features(network(torch.stack([clip.frames for clip in clips])), real=real)
    report = measure(ours, theirs)
    assert report.values["fvd"] == pytest.approx(float(metric.compute()), rel=1e-6)
    assert (report.results[0].generated, report.results[0].real) == (9, 7)


def test_frames_on_disk_measure_as_frames_in_memory(tmp_path: Path):
    ours, theirs = make_clips(5), make_clips(5, first=50)
    on_disk = measure(save_frames(tmp_path / "a", ours), save_frames(tmp_path / "b", theirs), metrics=["fvd", "fid"])
    in_memory = measure(ours, theirs, metrics=["fvd", "fid"])
    assert on_disk.values == pytest.approx(in_memory.values, rel=1e-9)
    assert on_disk.results[1].generated == 5 * 16


def test_values_do_not_depend_on_batches_workers_or_the_cache(tmp_path: Path):
    ours, theirs = save_videos(tmp_path / "a", make_clips(6)), make_clips(6, first=50)
    values = [
        measure(ours, theirs, batch_size=size, workers=workers, use_cache=size == 4, cache=tmp_path / "c").values["fvd"]
        for size, workers in ((1, 1), (4, 3), (4, 1), (16, 2))
    ]
    assert values == pytest.approx([values[0]] * 4, rel=1e-5)


@pytest.mark.parametrize(("windows", "count"), [("first", 2), ("all", 5), ("random", 2)])
def test_windows_of_long_videos(windows: str, count: int):
    clips = [make_clip(0, 50), make_clip(1, 40)]
    assert measure(clips, clips, overrides={"windows": windows}).results[0].generated == count


def test_random_windows_are_of_the_seed_alone(tmp_path: Path):
    folder, real = save_frames(tmp_path / "a", make_clips(6, num_frames=40)), make_clips(6, first=50)

    def value(window_seed: int, **options) -> float:
        overrides = {"windows": "random", "window_seed": window_seed}
        return measure(folder, real, overrides=overrides, **options).values["fvd"]

    assert value(0, workers=1) == value(0, workers=3)
    assert value(0) != value(1)


def test_stride_takes_every_other_frame():
    long, real = [make_clip(seed, 31) for seed in range(4)], make_clips(4, first=50, num_frames=31)
    strided = measure(long, real, overrides={"frame_stride": 2})
    direct = measure([Clip(clip.frames[::2]) for clip in long], [Clip(clip.frames[::2]) for clip in real])
    assert strided.values == direct.values
    assert strided.protocol.modified()["frame_stride"] == (1, 2)
    assert "modified protocol" in strided.notes(strided.results[0])


def test_features_are_computed_once(tmp_path: Path):
    folder, real = save_videos(tmp_path / "a", make_clips(5)), make_clips(4, first=50)
    first = measure(folder, real, use_cache=True, cache=tmp_path / "cache")
    seen = TinyVideo.seen
    assert seen == 9
    again = measure(folder, real, use_cache=True, cache=tmp_path / "cache")
    assert TinyVideo.seen == seen
    assert again.values == first.values
    assert again.generated.previews == first.generated.previews
    assert again.generated.traits == first.generated.traits


def test_another_content_another_network_or_another_protocol_is_computed_anew(tmp_path: Path):
    folder, real = save_frames(tmp_path / "a", make_clips(4)), make_clips(4, first=50)
    measure(folder, real, use_cache=True, cache=tmp_path / "cache")
    before = TinyVideo.seen
    measure(folder, real, use_cache=True, cache=tmp_path / "cache", overrides={"video_network": "other-video"})
    assert TinyVideo.seen == before + 8
    measure(folder, real, use_cache=True, cache=tmp_path / "cache", overrides={"size": 20})
    assert TinyVideo.seen == before + 16
    frame = next((folder / "clip_00").glob("*.png"))
    frame.write_bytes(next((folder / "clip_01").glob("*.png")).read_bytes())
    measure(folder, real, use_cache=True, cache=tmp_path / "cache")
    assert TinyVideo.seen == before + 20


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, real = save_videos(tmp_path / "a", make_clips(8)), make_clips(2, first=50)
    monkeypatch.setattr(TinyVideo, "interrupt_after", 5)
    with pytest.raises(KeyboardInterrupt):
        measure(folder, real, use_cache=True, cache=tmp_path / "cache", batch_size=1)
    monkeypatch.setattr(TinyVideo, "interrupt_after", None)
    monkeypatch.setattr(TinyVideo, "seen", 0)
    resumed = measure(folder, real, use_cache=True, cache=tmp_path / "cache", batch_size=1)
    assert TinyVideo.seen == 3 + 2
    assert resumed.values == measure(folder, real, batch_size=1).values


@pytest.mark.parametrize("damage", [lambda old: old[: len(old) // 2], lambda old: b"", lambda old: b"no archive" * 50])
def test_a_damaged_cache_is_computed_again(tmp_path: Path, damage):
    folder, real = save_videos(tmp_path / "a", make_clips(5)), make_clips(4, first=50)
    first = measure(folder, real, use_cache=True, cache=tmp_path / "cache")
    shards = list((tmp_path / "cache").glob("*/shard-*.npz"))
    assert shards
    for shard in shards:
        shard.write_bytes(damage(shard.read_bytes()))
    again = measure(folder, real, use_cache=True, cache=tmp_path / "cache")
    assert again.values == first.values
    assert any("damaged cache" in warning for warning in again.warnings)
    assert not any("damaged" in w for w in measure(folder, real, use_cache=True, cache=tmp_path / "cache").warnings)


@pytest.mark.parametrize("windows", ["first", "all"])
def test_broken_and_short_videos_are_counted_and_named(tmp_path: Path, windows: str):
    folder = save_videos(tmp_path / "a", make_clips(5))
    (folder / "empty.mp4").write_bytes(b"")
    whole = (folder / "clip_00.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 3])
    make_clip(0, 7).save(folder / "short.mp4")
    report = measure(folder, make_clips(5, first=50), overrides={"windows": windows})
    assert report.results[0].generated == 5
    assert set(report.generated.broken) == {"empty.mp4", "truncated.mp4"}
    assert report.generated.short == ["short.mp4"]
    assert any("2 unreadable" in warning and "empty.mp4" in warning for warning in report.warnings)
    with pytest.raises(MediaError, match="empty"):
        measure(folder, make_clips(5), overrides={"windows": windows}, strict=True)


def test_a_broken_video_is_made_up_for_by_the_next(tmp_path: Path):
    folder = save_videos(tmp_path / "a", make_clips(6))
    (folder / "clip_01.mp4").write_bytes(b"")
    report = measure(folder, make_clips(4, first=50), num_clips=4)
    assert report.results[0].generated == 4


def test_too_few_clips_are_refused_unless_asked_for(tmp_path: Path):
    clips = make_clips(3)
    with pytest.raises(ZooError, match=r"has 3 usable clips, protocol pv3d-voxceleb asks for 5000"):
        measure(clips, clips, protocol="pv3d-voxceleb", metrics="fvd")
    report = measure(clips, clips, protocol="pv3d-voxceleb", metrics="fvd", num_clips=4)
    assert any("3 clips, asked were 4" in warning for warning in report.warnings)
    assert "modified protocol" in report.notes(report.results[0])
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="holds no videos"):
        measure(tmp_path / "empty", clips)
    with pytest.raises(ZooError, match=r"no usable clips \(2 too short"):
        measure(make_clips(2, num_frames=5), clips)


def test_few_samples_are_called_rank_deficient_wherever_the_value_stands():
    said = "rank-deficient (5 generated clips for 6 features)"
    report = measure(make_clips(5), make_clips(9))
    result = report.results[0]
    assert result.doubt == said
    assert said in result.notes
    assert report.to_dict()["results"][0]["doubt"] == said
    assert number(result).endswith("?")
    assert f"{number(result)} (not comparable; {said}" in report.markdown()
    assert number(result) in report.summary()
    assert any(said in warning for warning in report.warnings)
    enough = measure(make_clips(8), make_clips(9)).results[0]
    assert enough.doubt is None and "?" not in number(enough)


def test_features_that_are_not_numbers_name_their_item(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TinyVideo, "spoil", True)
    with pytest.raises(ZooError, match="clip 0 gives FVD features that are not finite"):
        measure(make_clips(4), make_clips(4))


def test_mixed_grey_and_transparent_pictures_are_counted(tmp_path: Path):
    folder = save_frames(tmp_path / "a", [*make_clips(3), make_clip(7, height=40, width=30), make_clip(8, grey=True)])
    rgba = np.random.default_rng(0).integers(0, 255, (24, 24, 4), dtype=np.uint8)
    for path in (folder / "clip_00").glob("*.png"):
        cv2.imwrite(str(path), rgba)
    report = measure(folder, make_clips(5, first=50))
    text = "\n".join(report.warnings)
    assert "mixed resolutions: 4 of 24x24, 1 of 30x40" in text
    assert "1 grey" in text
    assert "1 with an alpha channel" in text


def test_a_folder_of_images_serves_fid_and_is_one_video_to_fvd(tmp_path: Path):
    make_clip(0, 20).save(tmp_path / "images")
    (tmp_path / "images" / "clip.json").unlink()
    report = measure(tmp_path / "images", make_clips(3), metrics=["fid"])
    assert report.results[0].generated == 20
    (tmp_path / "images" / "000000.png").write_bytes(b"")
    report = measure(tmp_path / "images", make_clips(3), metrics=["fid"])
    assert report.results[0].generated == 19
    assert list(report.generated.broken) == ["000000.png"]


def test_saved_statistics_stand_for_a_side(tmp_path: Path):
    ours, theirs = make_clips(9), make_clips(8, first=50)
    report = measure(ours, theirs)
    saved = report.real.gathered["fvd"].statistics.save(tmp_path / "real.npz")
    again = measure(ours, saved)
    assert again.values["fvd"] == pytest.approx(report.values["fvd"], rel=1e-9)
    assert again.results[0].real == 8
    with pytest.raises(ZooError, match="cannot be compared"):
        measure(ours, saved, overrides={"video_network": "other-video"})
    with pytest.raises(ZooError, match="made with clip_length 16, this evaluation has 12"):
        measure(ours, saved, overrides={"clip_length": 12})
    unlabelled = FeatureStatistics.from_moments(torch.zeros(6), torch.eye(6), 50)
    with pytest.raises(ZooError, match="made with released weights"):
        measure(ours, unlabelled)
    with pytest.raises(ZooError, match="has 4 features and FVD takes 6"):
        measure(ours, FeatureStatistics.from_moments(torch.zeros(4), torch.eye(4), 50))
    (tmp_path / "torn.npz").write_bytes(saved.read_bytes()[:200])
    with pytest.raises(ZooError, match=r"torn\.npz"):
        measure(ours, tmp_path / "torn.npz")


def write_multiview(folder: Path, model: ToyModel, heads: int) -> Path:
    (folder / "multi" / "depth").mkdir(parents=True)
    for head in range(heads):
        clip = model.multiview(head)
        clip.save(folder / "frames")
        (folder / "multi" / "images").mkdir(exist_ok=True)
        for view in range(4):
            (folder / "frames" / f"{view:06d}.png").rename(folder / "multi" / "images" / f"{head:04d}_{view:02d}.png")
        maps = {
            "xyz": clip.maps["position"],
            "depth": clip.maps["depth"][:, None],
            "weights_total": clip.maps["opacity"][..., None],
        }
        torch.save(maps, folder / "multi" / "depth" / f"{head:04d}.pt")
    return folder


def test_heads_on_disk_measure_as_the_model_that_drew_them(tmp_path: Path):
    names = ["identity", "chamfer", "warping"]
    drawn = measure(ToyModel(), metrics=names, num_clips=3)
    stored = measure(write_multiview(tmp_path, ToyModel(), 3), metrics=names)
    assert stored.values == pytest.approx(drawn.values, rel=1e-6)
    assert stored.results[1].extra["sum"] == pytest.approx(stored.values["chamfer"] * 12)
    assert stored.real is None
    (tmp_path / "multi" / "depth" / "0001.pt").unlink()
    partly = measure(tmp_path, metrics=names)
    assert list(partly.generated.broken) == ["0001"]
    assert measure(tmp_path, metrics=["identity"]).results[0].generated == 3


def test_what_a_side_cannot_serve_is_said(tmp_path: Path):
    clips = make_clips(4)
    with pytest.raises(ZooError, match="no heads seen from two sides"):
        measure(save_videos(tmp_path / "a", clips), metrics=["chamfer"])
    with pytest.raises(ZooError, match="FVD and FID need a folder of videos"):
        measure(write_multiview(tmp_path / "b", ToyModel(), 1), clips)
    with pytest.raises(ZooError, match="FVD compares two sets"):
        measure(clips)
    with pytest.raises(ZooError, match="has no sample"):
        measure(torch.nn.Linear(2, 2), clips)
    with pytest.raises(UnknownEntryError, match="neither a file or folder nor a known entry"):
        measure("pv3d-tinny", clips)


def test_clips_of_a_model_follow_the_cameras_of_the_real_side(tmp_path: Path):
    folder = save_videos(tmp_path / "a", make_clips(3))
    for video in folder.glob("*.mp4"):
        save_cameras(video.with_suffix(".json"), trajectory("orbit", 16))
    model = ToyModel()
    report = measure(model, folder, num_clips=3)
    assert [asked["seed"] for asked in model.asked] == [0, 1, 2]
    assert all(tuple(asked["trajectory"].shape) == (16,) for asked in model.asked)
    assert report.generated.detail == "along 3 camera tracks"
    model = ToyModel()
    measure(model, folder, num_clips=3, sampling={"trajectory": "front"}, seed=5)
    assert model.asked == [{"seed": seed, "trajectory": "front"} for seed in (5, 6, 7)]
    model = ToyModel()
    measure(model, folder, num_clips=3, overrides={"cameras": "own"})
    assert "trajectory" not in model.asked[0]
    with pytest.raises(ZooError, match="the real side has none"):
        measure(ToyModel(), make_clips(3), protocol="pv3d-voxceleb", num_clips=3)


def test_clips_of_a_model_are_compressed_where_the_protocol_says_so():
    plain, coded = (
        measure(ToyModel(), make_clips(4), num_clips=4, overrides={"compression": compression})
        for compression in ("none", "h264")
    )
    assert plain.values["fvd"] != coded.values["fvd"]
    assert measure(ToyModel(), [make_clip(seed) for seed in range(4)], num_clips=4).values["fvd"] < 1e-9


def test_a_model_is_measured_in_eval_mode_and_left_as_it_was():
    class Moody(ToyModel):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = torch.nn.Dropout().eval()

        def sample(self, seed: int = 0, num_frames: int = 16, **options: object) -> Clip:
            assert not any(module.training for module in self.modules())
            return super().sample(seed, num_frames)

    model = Moody()
    measure(model, make_clips(3), num_clips=3)
    assert model.training
    assert not model.frozen.training


def test_heads_seen_from_another_angle_are_refused():
    class Turned(ToyModel):
        def multiview(self, seed: int = 0) -> Clip:
            clip = super().multiview(seed)
            front, side = Camera.canonical(), side_camera(20)
            return Clip(clip.frames, cameras=Camera.stack([front, side, side, front]), maps=clip.maps)

    with pytest.raises(ZooError, match="not seen from 30 degrees"):
        measure(Turned(), metrics="warping", num_clips=2)
    assert measure(Turned(), metrics="warping", num_clips=2, overrides={"yaw": 20}).values["warping"] > 0


def test_unknown_names_suggest_the_nearest():
    clips = make_clips(3)
    with pytest.raises(ZooError, match="did you mean chamfer"):
        measure(clips, clips, metrics=["chamfr"])
    with pytest.raises(ZooError, match="did you mean pv3d-voxceleb"):
        measure(clips, clips, protocol="pv3d-voxcelb")
    with pytest.raises(ZooError, match="did you mean clip_length"):
        measure(clips, clips, overrides={"clip_lenght": 12})
    with pytest.raises(ZooError, match="windows is one of first, random, all, not"):
        measure(clips, clips, overrides={"windows": "some"})


def test_progress_counts_up_to_the_end(tmp_path: Path):
    told: dict[str, list[int]] = {}
    measure(
        save_videos(tmp_path / "a", make_clips(5)),
        make_clips(4, first=50),
        progress=lambda what, done, total: told.setdefault(f"{what}/{total}", []).append(done),
    )
    assert told == {"clips of a/5": [1, 2, 3, 4, 5], "clips of clips in memory/4": [1, 2, 3, 4]}


def test_no_more_than_a_batch_of_clips_is_held():
    waiting = []

    class Counting(ToyModel):
        def sample(self, seed: int = 0, num_frames: int = 16, **options: object) -> Clip:
            waiting.append(len(self.asked) - TinyVideo.seen)
            return super().sample(seed, num_frames)

    measure(Counting(), make_clips(4), num_clips=40, batch_size=4)
    assert len(waiting) == 40
    assert max(waiting) < 4
