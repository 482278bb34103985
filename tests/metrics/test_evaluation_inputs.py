"""Everything that may stand on a side of an evaluation, whole and broken."""

import gc
import signal
import struct
import subprocess
import sys
import textwrap
import time
import weakref
import zipfile
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from evaluation_cases import (
    NETWORKS,
    CrashingSource,
    TinyVideo,
    WaitingSource,
    install_index,
    make_clip,
    make_clips,
    save_frames,
    save_videos,
)

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import write_image
from portraitzoo.media.portrait_records import Datum
from portraitzoo.media.records import RecordFile
from portraitzoo.metrics.evaluation import evaluate
from portraitzoo.metrics.folders import FootageSource
from portraitzoo.metrics.inputs import source_of
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.report import Report
from portraitzoo.metrics.sources import ClipSource, Item, Listing


@pytest.fixture(autouse=True)
def tiny_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_index(tmp_path / "index", monkeypatch)


def measure(generated, real=None, **options) -> Report:
    overrides = {**NETWORKS, **options.pop("overrides", {})}
    options.setdefault("use_cache", False)
    return evaluate(generated, real, overrides=overrides, features="random", **options)


def zipped(folder: Path, root: str = "") -> Path:
    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, Path(root) / path.relative_to(folder))
    return target


def save_as(path: Path, clip: Clip, codec: str, pix_fmt: str = "yuv420p") -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = clip.frames.shape[2], clip.frames.shape[1], pix_fmt
        for frame in clip.frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


REAL = make_clips(5, first=50)


@pytest.mark.parametrize("layout", ["videos", "frames", "nested"])
def test_a_zip_measures_as_the_folder_in_it(tmp_path: Path, layout: str):
    save = save_videos if layout == "videos" else save_frames
    folder = save(tmp_path / "a", make_clips(4))
    root = "data/set" if layout == "nested" else ""
    assert measure(zipped(folder, root), REAL).values == measure(folder, REAL).values


def test_a_zip_of_images_serves_fid(tmp_path: Path):
    make_clip(0, 20).save(tmp_path / "images")
    (tmp_path / "images" / "clip.json").unlink()
    archive = zipped(tmp_path / "images")
    report = measure(archive, REAL, metrics="fid")
    assert report.values == measure(tmp_path / "images", REAL, metrics="fid").values
    assert (report.generated.kind, report.results[0].generated) == ("images", 20)


def test_clips_in_npz_files_measure_as_themselves(tmp_path: Path):
    (tmp_path / "clips").mkdir()
    for number, clip in enumerate(make_clips(4)):
        clip.save(tmp_path / "clips" / f"{number}.npz")
    assert measure(tmp_path / "clips", REAL).values == measure(make_clips(4), REAL).values
    long = make_clip(7, 64)
    single = long.save(tmp_path / "long.npz")
    assert measure(single, REAL).values == measure([long], REAL).values
    (tmp_path / "clips" / "2.npz").write_bytes(b"no archive")
    assert list(measure(tmp_path / "clips", REAL).generated.broken) == ["2.npz"]


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".avi", "mpeg4"), (".webm", "libvpx"), (".mkv", "libx264"), (".mov", "mpeg4")]
)
def test_every_container_is_read(tmp_path: Path, suffix: str, codec: str):
    for number, clip in enumerate(make_clips(3)):
        save_as(tmp_path / f"{number}{suffix}", clip, codec)
    (tmp_path / "torn").with_suffix(suffix).write_bytes((tmp_path / f"0{suffix}").read_bytes()[:300])
    report = measure(tmp_path, REAL)
    assert report.results[0].generated == 3
    assert list(report.generated.broken) == [f"torn{suffix}"]


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """A protobuf message, written apart from the reader."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            parts.append(varint(number << 3 | 2) + varint(len(value)) + value)
    return b"".join(parts)


def save_records(folder: Path, records: list[bytes], count: bytes | None = None) -> Path:
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(folder), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
        for number, record in enumerate(records):
            transaction.put(f"{number:08d}".encode(), record)
        transaction.put(b"num_samples", str(len(records)).encode() if count is None else count)
    return folder


def png(frame: torch.Tensor) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(frame.numpy(), cv2.COLOR_RGB2BGR))[1].tobytes()


@pytest.mark.parametrize("family", ["genhead", "portrait4d"])
def test_an_lmdb_of_images_measures_as_the_images(tmp_path: Path, family: str):
    frames = make_clip(0, 12).frames
    labels = struct.pack("<3f", 1, 2, 3)
    size = [(1, 3), (2, frames.shape[1]), (3, frames.shape[2])]
    if family == "genhead":
        records = [message(*size, (4, png(frame)), (5, png(frame)), (6, labels)) for frame in frames]
    else:
        records = [message(*size, (4, 1), (5, png(frame)), (6, png(frame)), (7, labels)) for frame in frames]
    folder = save_records(tmp_path / "FFHQ_24_12", records)
    single = {"fid_frames": "single"}
    in_memory = measure([Clip(frames)], REAL, metrics="fid", overrides=single)
    assert measure(folder, REAL, metrics="fid").values == pytest.approx(in_memory.values)
    assert measure(folder, folder, metrics="fid").values["fid"] == pytest.approx(0, abs=1e-9)


def test_an_lmdb_of_clips_measures_as_the_clips(tmp_path: Path):
    clips = make_clips(4, num_frames=20)
    records = [
        message((1, 3), (2, 24), (3, 24), (4, 20), (5, clip.frames.numpy().tobytes()), (7, b"1234")) for clip in clips
    ]
    folder = save_records(tmp_path / "VFHQ_sub50_24_4", records)
    assert measure(folder, REAL).values == measure(clips, REAL).values


def test_an_lmdb_of_something_else_is_said(tmp_path: Path):
    frame = png(make_clip(0, 1).frames[0])
    whole = [message((1, 3), (2, 24), (3, 24), (4, frame))] * 5
    torn = save_records(tmp_path / "torn", [*whole, whole[0][:40], message((9, 4))])
    report = measure(torn, REAL, metrics="fid")
    assert set(report.generated.broken) == {"record 5", "record 6"}
    with pytest.raises(MediaError, match="does not say how many"):
        measure(save_records(tmp_path / "wordy", whole, b"many"), REAL, metrics="fid")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(MediaError, match="no LMDB that can be read"):
        measure(tmp_path / "none", REAL, metrics="fid")
    missing = save_records(tmp_path / "short", whole, b"7")
    assert set(measure(missing, REAL, metrics="fid").generated.broken) == {"record 5", "record 6"}


def test_messages_that_are_cut_off_are_damaged():
    whole = message((1, 3), (2, 24), (3, 24), (4, b"content"))
    assert Datum.decode(whole, "it") == Datum("Datum_genhead", 24, 24, contents={"images": b"content"})
    for end in range(1, len(whole)):
        with pytest.raises(MediaError, match="it is damaged"):
            Datum.decode(whole[:end], "it")
    with pytest.raises(MediaError, match="it is damaged"):
        Datum.decode(bytes([255] * 20), "it")
    assert RecordFile.matches(Path("/nowhere")) is False


def test_broken_zips_are_said(tmp_path: Path):
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(MediaError, match=r"a\.zip is no zip archive"):
        measure(tmp_path / "a.zip", REAL)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    with pytest.raises(MediaError, match="neither videos nor images"):
        measure(tmp_path / "b.zip", REAL)
    archive = zipped(save_videos(tmp_path / "c", make_clips(4)))
    content = bytearray(archive.read_bytes())
    at = content.find(b"clip_01.mp4") + 60
    content[at : at + 40] = bytes(40)
    archive.write_bytes(content)
    report = measure(archive, REAL)
    assert list(report.generated.broken) == ["clip_01.mp4"]
    assert report.results[0].generated == 3


def test_one_image_is_an_image(tmp_path: Path):
    write_image(tmp_path / "one.png", make_clip(0, 1).frames[0])
    source = source_of(tmp_path / "one.png", torch.device("cpu"), 1, {})
    assert source.kind == "images"
    assert len(source.listing("images", Protocol("p"), 1).items) == 1


def test_images_of_several_sizes_are_measured_and_counted(tmp_path: Path):
    for number, size in enumerate([20, 20, 24, 24, 24, 30, 20]):
        write_image(tmp_path / f"{number}.png", make_clip(number, 1, size, size).frames[0])
    report = measure(tmp_path, REAL, metrics="fid")
    assert report.results[0].generated == 7
    assert any("mixed resolutions: 3 of 20x20, 3 of 24x24, 1 of 30x30" in warning for warning in report.warnings)


def test_few_clips_are_alive_at_a_time(monkeypatch: pytest.MonkeyPatch):
    alive, most = 0, 0

    class Counting:
        label, kind, detail, threaded, portable = "counting", "videos", "", True, False

        def fingerprint(self) -> str:
            return "counting"

        def listing(self, need, protocol, limit):
            return Listing([Item(str(place), place) for place in range(3000)])

        def load(self, item, need, protocol, maps) -> Clip:
            nonlocal alive, most
            frames = torch.full((16, 4, 4, 3), item.place % 251, dtype=torch.uint8)
            alive += 1
            most = max(most, alive)

            def gone() -> None:
                nonlocal alive
                alive -= 1

            weakref.finalize(frames, gone)
            return Clip(frames)

    monkeypatch.setattr("portraitzoo.metrics.evaluation.source_of", lambda given, *rest: given)
    report = measure(Counting(), ClipSource(REAL), overrides={"clips": 3000}, batch_size=8, workers=3)
    gc.collect()
    assert report.results[0].generated == 3000
    assert alive == 0
    assert most <= 2 * 3 + 3 + 2 * 8


@pytest.fixture
def for_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears when the worker processes are there; what the sources below wait for."""
    marker = tmp_path / "workers are there"
    monkeypatch.setenv("EVALUATION_WORKERS", str(marker))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr("portraitzoo.metrics.evaluation.source_of", lambda given, *rest: given)
    return marker


@pytest.mark.slow
def test_processes_decode_as_threads_do(tmp_path: Path, for_workers: Path):
    folder = save_videos(tmp_path / "a", make_clips(70))
    for broken in ("clip_03.mp4", "clip_66.mp4"):
        (folder / broken).write_bytes(b"")
    overrides = {"windows": "first", "clips": 70}
    in_threads = measure(FootageSource(folder), ClipSource(REAL), workers=2, overrides={**overrides, "clips": 40})
    assert not for_workers.exists()
    waiting = WaitingSource(folder)
    in_processes = measure(waiting, ClipSource(REAL), workers=2, overrides=overrides)
    assert waiting.loaded_here < 60
    assert list(in_processes.generated.broken) == ["clip_03.mp4", "clip_66.mp4"]
    by_hand = measure(FootageSource(folder), ClipSource(REAL), workers=0, overrides=overrides)
    assert in_processes.values == by_hand.values
    assert in_processes.generated.traits == by_hand.generated.traits
    assert in_threads.results[0].generated == 40


@pytest.mark.slow
def test_a_video_that_makes_its_decoder_crash_is_left_out(tmp_path: Path, for_workers: Path):
    folder = save_videos(tmp_path / "a", make_clips(70))
    crashing = CrashingSource(folder)
    report = measure(crashing, ClipSource(REAL), workers=2, overrides={"windows": "first", "clips": 70})
    assert list(report.generated.broken) == ["clip_69.mp4"]
    assert "makes its decoder crash" in report.generated.broken["clip_69.mp4"]
    assert report.results[0].generated == 69


SCRIPT = """
    print("once")
    import evaluation_cases
    from portraitzoo.metrics import evaluation

    evaluation.source_of = lambda given, *rest: given
    folder = evaluation_cases.WaitingSource({folder!r})
    report = evaluation.evaluate(folder, folder, overrides=evaluation_cases.NETWORKS, features="random", workers=2,
                                 use_cache=False)
    print(report.results[0].generated, folder.loaded_here < 2 * 64)
"""


@pytest.mark.slow
def test_a_script_without_a_main_guard_runs_once(tmp_path: Path, for_workers: Path):
    folder = save_videos(tmp_path / "a", make_clips(70))
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT.format(folder=str(folder))))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.split() == ["once", "64", "True"]


RUN = """
    import sys, time
    sys.path.insert(0, {tests!r})
    import evaluation_cases
    from portraitzoo.metrics.evaluation import evaluate

    forward = evaluation_cases.TinyVideo.forward
    def slow(self, videos):
        time.sleep({seconds})
        return forward(self, videos)
    evaluation_cases.TinyVideo.forward = slow
    report = evaluate({folder!r}, {folder!r}, overrides=evaluation_cases.NETWORKS, features="random", batch_size=1,
                      cache={cache!r})
    print(evaluation_cases.TinyVideo.seen, report.values["fvd"], report.generated.rebuilt)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on(tmp_path: Path):
    folder, cache = save_frames(tmp_path / "a", make_clips(40)), tmp_path / "cache"
    tests = str(Path(__file__).parent)

    def start(seconds: float) -> subprocess.Popen:
        text = RUN.format(tests=tests, folder=str(folder), cache=str(cache), seconds=seconds)
        return subprocess.Popen([sys.executable, "-c", textwrap.dedent(text)], stdout=subprocess.PIPE, text=True)

    run = start(0.3)
    deadline = time.monotonic() + 120
    while not list(cache.glob("*/shard-*.npz")) and time.monotonic() < deadline:
        time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    run.wait()
    kept = sum(len(np.load(shard)["items"]) for shard in cache.glob("*/shard-*.npz"))
    assert 0 < kept < 40
    seen, value, rebuilt = start(0).communicate()[0].split()
    assert int(seen) == 40 - kept
    assert float(value) == measure(folder, folder, batch_size=1).values["fvd"]
    assert rebuilt == "0"


def test_what_was_kept_of_a_group_does_not_change_its_bits(tmp_path: Path):
    folder, real = save_frames(tmp_path / "a", make_clips(9)), make_clips(9, first=50)
    whole = measure(folder, real, batch_size=4)
    measure(folder, real, batch_size=4, num_clips=6, use_cache=True, cache=tmp_path / "cache")
    before = TinyVideo.seen
    again = measure(folder, real, batch_size=4, use_cache=True, cache=tmp_path / "cache")
    assert again.values == pytest.approx(whole.values, rel=1e-9)
    assert TinyVideo.seen - before == 2 * 5


def test_strict_names_the_broken_file(tmp_path: Path):
    folder = save_videos(tmp_path / "a", make_clips(4))
    (folder / "clip_02.mp4").write_bytes(b"\0" * 500)
    with pytest.raises(ZooError, match=r"clip_02\.mp4"):
        measure(folder, REAL, strict=True)
