"""Published protocols, and that every field of one does what it says."""

from pathlib import Path

import pytest
import torch
from evaluation_cases import NETWORKS, TinyVideo, ToyModel, install_index, make_clip, make_clips, save_frames
from torch import nn

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.media.degrade import jpeg_coded
from portraitzoo.media.images import to_uint8
from portraitzoo.methods.threedvidgen.model import ThreeDVidGen
from portraitzoo.methods.threedvidgen.network import ThreeDVidGenConfig
from portraitzoo.metrics.evaluation import evaluate
from portraitzoo.metrics.measures import measures_named
from portraitzoo.metrics.protocols import Protocol, get_protocol, published_protocols
from portraitzoo.metrics.report import Report
from portraitzoo.metrics.windows import length_at_rate, window_frames, window_starts

SMALL = ThreeDVidGenConfig(
    z_dim=8, w_dim=8, motion_dim=8, background_dim=4, image_resolution=32, render_resolution=16, channel_max=8,
    channel_base=256, feature_channels=8, field_width=8, field_layers=3, motion_width=8, background_width=8,
)  # fmt: skip


@pytest.fixture(autouse=True)
def tiny_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_index(tmp_path / "index", monkeypatch)


def measure(generated, real=None, **options) -> Report:
    overrides = {**NETWORKS, **options.pop("overrides", {})}
    return evaluate(generated, real, overrides=overrides, features="random", use_cache=False, **options)


FACTS = {
    "pv3d-voxceleb": {"clips": 5000, "size": 512, "compression": "h264", "fps": 25, "eight_bit": "pv3d", "ddof": 0},
    "pv3d-training": {"clips": 5000, "compression": "none", "cameras": "real", "video_network": "i3d-videogpt"},
    "threedvidgen-fvd2048_16f": {
        "clips": 2048,
        "clip_length": 16,
        "crop": "centre",
        "size": 256,
        "resize": "torch",
        "resized": "floats",
        "compression": "jpeg",
        "eight_bit": "threedvidgen",
        "video_network": "i3d-stylegan-v",
        "ddof": 0,
        "windows": "random",
        "generated_windows": "first",
        "fewer_real": True,
        "fps": None,
        "kid_scale": 1000,
        "sampling": {"threedvidgen": {"trajectory": "random", "background_temperature": 1}},
    },
    "threedvidgen-fvd2048_32f": {"clip_length": 32, "frame_stride": 1},
    "threedvidgen-fvd2048_128f": {"clip_length": 128, "frame_stride": 1},
    "threedvidgen-fvd2048_128f_subsample8f": {"clip_length": 16, "frame_stride": 8},
    "threedvidgen-fid50k-full": {"images": 50000, "real_images": None, "fid_frames": "single"},
    "genhead-fid50k-full": {"images": 50000, "real_images": None, "eight_bit": "stylegan", "size": None, "half": True},
    "genhead-fid50k": {"images": 50000, "real_images": 50000},
    "genhead-fid1k": {"images": 1000, "real_images": 8000},
    "copo-fid": {
        "images": 5000,
        "real_images": 5000,
        "ddof": 1,
        "inception_path": "pytorch-fid",
        "compression": "jpeg",
        "real_compression": "jpeg",
        "eight_bit": "round",
    },
    "stylegan-v-fvd2048_16f": {"clips": 2048, "clip_length": 16, "compression": "none"},
}


@pytest.mark.parametrize("name", FACTS)
def test_published_protocols_are_what_their_systems_do(name: str):
    protocol = get_protocol(name)
    assert {field: getattr(protocol, field) for field in FACTS[name]} == FACTS[name]


def test_every_published_protocol_can_run():
    for protocol in published_protocols().values():
        assert measures_named(protocol.metrics)
        assert protocol.description
        assert protocol.modified() == {}


def test_a_folder_of_the_user_may_hold_more_protocols(tmp_path: Path):
    (tmp_path / "index" / "protocols.yaml").write_text("protocols: {mine: {clips: 7, metrics: [fid]}}")
    assert get_protocol("mine").clips == 7
    assert get_protocol("mine").override({"clips": 8}).modified() == {"clips": (7, 8)}
    assert get_protocol("quick").clips == 64


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("protocols: {mine: {clip: 7}}", "mine has the unknown field 'clip'"),
        ("protocols: {mine: {clips: many}}", "mine: clips is a whole number or nothing, not 'many'"),
        ("protocols: {mine: {crop: left}}", "crop is one of none, centre"),
        ("protocols: {mine: {resized: floats}}", "resize=torch only"),
        ("protocols: {mine: {fps: null, resample_fps: true}}", "set fps too"),
        ("protocols: {mine: {sampling: random}}", "sampling names families and their arguments"),
        ("protocols: [mine]", "no mapping"),
        ("protocols: {", "not valid YAML"),
    ],
)
def test_a_wrong_file_of_protocols_is_said_in_one_line(tmp_path: Path, text: str, said: str):
    (tmp_path / "index" / "protocols.yaml").write_text(text)
    with pytest.raises(ZooError, match=said) as caught:
        published_protocols()
    assert "\n" not in str(caught.value)


class Drawing(ToyModel):
    """A model whose pictures go through the one place where pictures become bytes."""

    def __init__(self, spoiled: int | None = None) -> None:
        super().__init__()
        self.spoiled = spoiled
        self.lengths: list[int] = []

    def sample(self, seed: int = 0, num_frames: int = 16, **options: object) -> Clip:
        self.lengths.append(num_frames)
        generator = torch.Generator().manual_seed(seed)
        image = nn.functional.interpolate(torch.rand(num_frames, 3, 3, 3, generator=generator) * 2 - 1, 24)
        return Clip(to_uint8(image * torch.nan if seed == self.spoiled else image))


def test_a_protocol_says_how_models_of_its_family_are_sampled(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def sample(self, seed: int = 0, num_frames: int = 16, **options: object) -> Clip:
        asked.append(options)
        return make_clip(seed, num_frames)

    monkeypatch.setattr(ThreeDVidGen, "sample", sample)
    model, other = ThreeDVidGen(SMALL), ToyModel()
    overrides = {"sampling": get_protocol("threedvidgen-fvd2048_16f").sampling}
    options = {"real": make_clips(4), "num_clips": 3, "overrides": overrides}
    measure(model, **options)
    measure(model, sampling={"background_temperature": 0.5}, **options)
    measure(other, **options)
    assert asked[:3] == [{"trajectory": "random", "background_temperature": 1.0}] * 3
    assert asked[3:] == [{"trajectory": "random", "background_temperature": 0.5}] * 3
    assert all(set(each) == {"seed"} for each in other.asked)


def test_a_models_pictures_become_bytes_by_the_protocols_rule():
    def value(rule: str) -> float:
        return measure(Drawing(), make_clips(4), num_clips=4, overrides={"eight_bit": rule}).values["fvd"]

    assert value("model") == value("pv3d")
    assert len({value(rule) for rule in ("pv3d", "stylegan", "threedvidgen")}) == 2
    assert value("stylegan") != value("pv3d")


def test_a_model_that_draws_nan_gets_no_number():
    with pytest.raises(MediaError, match=r"Drawing, seed 2: the network's picture holds NaN"):
        measure(Drawing(spoiled=2), make_clips(4), num_clips=4)


def test_pictures_of_a_report_are_those_of_the_frames_however_they_were_resized(capfd: pytest.CaptureFixture[str]):
    clips = make_clips(4)
    by_rule = [
        measure(clips, make_clips(4, first=9), overrides={"size": 24, "resize": "torch", "resized": kind})
        for kind in ("bytes", "floats")
    ]
    assert by_rule[0].generated.previews == by_rule[1].generated.previews
    assert capfd.readouterr().err == ""


def test_jpeg_is_between_a_model_and_the_network():
    model = Drawing()
    drawn = [jpeg_coded(model.sample(seed)) for seed in range(4)]
    real = make_clips(5, first=50)
    through = measure(Drawing(), real, num_clips=4, overrides={"compression": "jpeg"})
    assert through.values == measure(drawn, real, num_clips=4).values
    assert through.values != measure(Drawing(), real, num_clips=4).values


def test_real_frames_go_through_jpeg_where_the_protocol_says_so():
    ours, real = make_clips(4), make_clips(5, first=50)
    coded = measure(ours, real, overrides={"real_compression": "jpeg"})
    assert coded.values == measure(ours, [jpeg_coded(clip) for clip in real]).values
    assert coded.values != measure(ours, real).values


def test_stride_of_a_model_is_that_of_a_file():
    model = Drawing()
    strided = measure(model, make_clips(4, num_frames=46), num_clips=3, overrides={"frame_stride": 3})
    assert model.lengths == [46] * 3
    drawn = [Drawing().sample(seed, 46) for seed in range(3)]
    assert (
        strided.values
        == measure(drawn, make_clips(4, num_frames=46), num_clips=3, overrides={"frame_stride": 3}).values
    )


def test_crop_and_size_act_and_are_part_of_the_number():
    wide, real = [make_clip(seed, height=24, width=40) for seed in range(4)], make_clips(4, first=50)
    values = {
        (crop, resize, resized): measure(
            wide, real, overrides={"crop": crop, "size": 20, "resize": resize, "resized": resized}
        ).values["fvd"]
        for crop, resize, resized in [
            *[("none", "opencv", "bytes"), ("centre", "opencv", "bytes"), ("centre", "torch", "bytes")],
            *[("centre", "torch", "floats"), ("centre", "lanczos", "bytes"), ("centre", "nearest", "bytes")],
        ]
    }
    assert len(set(values.values())) == len(values)
    cropped = [Clip(clip.frames[:, :, 8:32].contiguous()) for clip in wide]
    assert measure(wide, real, overrides={"crop": "centre"}).values == measure(cropped, real).values


def test_the_generated_side_may_have_windows_of_its_own():
    long, real = make_clips(4, num_frames=60), make_clips(4, first=50, num_frames=60)
    overrides = {"windows": "random", "generated_windows": "first"}
    first = [Clip(clip.frames[:16]) for clip in long]
    assert measure(long, real, overrides=overrides).values == measure(first, real, overrides=overrides).values


def test_single_images_are_drawn_one_by_one_and_read_frame_by_frame(tmp_path: Path):
    real = save_frames(tmp_path / "real", make_clips(3, num_frames=20))
    model = Drawing()
    overrides = {"fid_frames": "single", "images": 30}
    report = measure(model, real, metrics="fid", overrides=overrides)
    assert model.lengths == [1] * 30
    assert (report.results[0].generated, report.results[0].real) == (30, 60)
    cut = measure(model, real, metrics="fid", overrides={**overrides, "real_images": 37})
    assert cut.results[0].real == 37
    with pytest.raises(ZooError, match="has 60 usable images, protocol genhead-fid1k asks for 8000"):
        measure(model, real, protocol="genhead-fid1k", overrides={"images": 2})
    with pytest.raises(ZooError, match="draws without end"):
        measure(model, real, metrics="fid", overrides={"fid_frames": "single"})


def test_a_side_may_be_short_where_the_protocol_allows_it():
    overrides = {"clips": 6, "fewer": False, "fewer_real": True}
    assert measure(make_clips(6), make_clips(4, first=50), overrides=overrides).results[0].real == 4
    with pytest.raises(ZooError, match=r"asks for 6: add some, ask for fewer with num_clips \(--num-clips 4\)"):
        measure(make_clips(4), make_clips(6, first=50), overrides=overrides)


def test_inception_path_needs_inception():
    with pytest.raises(ZooError, match="inception_path is for Inception"):
        measure(make_clips(4), make_clips(4), metrics="fid", overrides={"inception_path": "pytorch-fid"})


def test_default_metrics_are_the_protocols():
    own = Protocol("own", metrics=("fid",), fewer=True, **NETWORKS)
    report = evaluate(make_clips(4), make_clips(5), protocol=own, features="random", use_cache=False)
    assert list(report.values) == ["fid"]


def test_files_of_another_rate_are_counted_or_resampled(tmp_path: Path):
    fast = [Clip(make_clip(seed, 40).frames, fps=50) for seed in range(3)]
    fast.append(make_clip(3, 40))
    folder, real = save_frames(tmp_path / "a", fast), make_clips(4, first=50)
    as_they_are = measure(folder, real)
    assert any("6 of 50 fps" in w and "frames taken as they are" in w for w in as_they_are.warnings)
    resampled = measure(folder, real, overrides={"resample_fps": True})
    assert any("3 of 50 fps" in w and "the nearest frames taken" in w for w in resampled.warnings)
    halved = [Clip(clip.frames[::2]) if clip.fps == 50 else clip for clip in fast]
    assert resampled.values == measure(halved, real).values
    assert resampled.values == measure(fast, real, overrides={"resample_fps": True}).values
    assert not any("fps" in warning for warning in measure(folder, real, overrides={"fps": None}).warnings)


@pytest.mark.parametrize("fps", [10, 24, 25, 29.97, 30, 50, 60, 100])
def test_resampled_frames_exist_and_are_the_nearest(fps: float):
    protocol = Protocol("p", clip_length=9, resample_fps=True, windows="all")
    for num_frames in range(1, 90):
        length = length_at_rate(num_frames, fps, protocol)
        starts = window_starts(length, 0, protocol)
        assert bool(starts) == (length >= 9)
        for start in starts:
            frames = window_frames(start, fps, protocol)
            assert len(frames) == 9
            assert 0 <= frames[0] <= frames[-1] < num_frames
            for index, frame in enumerate(frames, start=start):
                assert abs(frame / fps - index / 25) <= 0.5 / fps + 1e-9
        # One frame more would not be there.
        assert window_frames(length, fps, Protocol("p", clip_length=1, resample_fps=True))[0] >= num_frames


def test_counts_are_those_of_the_protocol_and_more_clips_are_left_alone():
    measure(make_clips(9), make_clips(9), overrides={"clips": 5})
    assert TinyVideo.seen == 10
