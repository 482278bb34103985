import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import read_image
from portraitzoo.media.video import find_videos
from portraitzoo.methods.bulk import multiview_many, sample_many
from portraitzoo.methods.bulk_layouts import PV3D_NAMES
from portraitzoo.metrics.folders import MultiviewFolderSource
from portraitzoo.metrics.protocols import get_protocol
from portraitzoo.rendering.cameras import Camera, orbit

# A shell's background job, which a test run may be, ignores Ctrl-C, and so would the programs to which tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

HERE = Path(__file__).parent


class Painter(nn.Module):
    """A generator of plain moving gradients: quick, and a function of the seed alone.

    Of 64 pixels, because x264 does not promise equal bytes for equal pictures below that.
    """

    def __init__(self, interrupt_at=None, fail_at=None):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0]))
        self.drawn = []
        self.interrupt_at, self.fail_at = interrupt_at, fail_at

    def sample(self, seed=0, num_frames=4, *, trajectory="front", truncation_psi=1.0, maps=()):
        if seed == self.interrupt_at:
            raise KeyboardInterrupt
        if seed == self.fail_at:
            raise ZooError("this seed cannot be drawn")
        assert not self.training and not torch.is_grad_enabled()
        self.drawn.append(seed)
        generator = torch.Generator().manual_seed(seed)
        color = torch.rand(3, generator=generator) * 100 * truncation_psi
        ramp = torch.arange(64.0)[:, None, None] + self.weight.detach().cpu() + color
        frames = torch.stack([(ramp + 5 * t).expand(64, 64, 3) for t in range(num_frames)]).byte()
        cameras = trajectory if isinstance(trajectory, Camera) else None
        return Clip(frames, cameras=cameras, info={"seed": seed})

    def multiview(self, seed=0, **options):
        clip = self.sample(seed, 4, **options)
        maps = {"position": torch.rand(4, 8, 8, 3), "depth": torch.rand(4, 8, 8), "opacity": torch.rand(4, 8, 8)}
        return Clip(clip.frames, maps=maps)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_file_for_each_seed(tmp_path):
    summary = sample_many(Painter(), range(3), tmp_path, num_frames=5)
    assert (summary.written, summary.kept, summary.folder) == (3, 0, tmp_path)
    assert sorted(contents(tmp_path)) == ["sampling.json", "seed_000000.mp4", "seed_000001.mp4", "seed_000002.mp4"]
    assert [len(Clip.load(path)) for path in find_videos(tmp_path)] == [5, 5, 5]
    assert Clip.load(tmp_path / "seed_000002.mp4").info == {"seed": 2}


@pytest.mark.parametrize("suffix", [".mp4", ".npz", ".png", ""])
def test_every_format_resumes(tmp_path, suffix):
    sample_many(Painter(), [7], tmp_path, suffix=suffix)
    again = Painter()
    summary = sample_many(again, [7, 8], tmp_path, suffix=suffix)
    assert again.drawn == [8] and (summary.written, summary.kept) == (1, 1)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "sampling.json") == [
        f"seed_000007{suffix}",
        f"seed_000008{suffix}",
    ]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ZooError])
def test_a_stopped_run_goes_on_to_the_same_files(tmp_path, failure):
    model = Painter(interrupt_at=5) if failure is KeyboardInterrupt else Painter(fail_at=5)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(failure):
        sample_many(model, range(8), tmp_path / "stopped")
    assert signal.getsignal(signal.SIGINT) is handler
    assert find_videos(tmp_path / "stopped") == [tmp_path / "stopped" / f"seed_{seed:06d}.mp4" for seed in range(5)]
    assert not any(path.name.startswith(".") for path in (tmp_path / "stopped").iterdir())
    rest = Painter()
    summary = sample_many(rest, range(8), tmp_path / "stopped")
    assert rest.drawn == [5, 6, 7] and (summary.written, summary.kept) == (3, 5)
    sample_many(Painter(), range(8), tmp_path / "whole")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_drawing_again_when_asked_to(tmp_path):
    sample_many(Painter(), range(2), tmp_path)
    again = Painter()
    summary = sample_many(again, range(2), tmp_path, resume=False)
    assert again.drawn == [0, 1] and (summary.written, summary.kept) == (2, 0)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"truncation_psi": 0.5}, "truncation_psi: null there, 0.5 now"),
        ({"quality": 3}, "quality"),
        ({"suffix": ".npz"}, "files"),
        ({"camera_tracks": [orbit(9)]}, "camera_tracks"),
        ({"trajectory": orbit(4)}, "trajectory"),
        ({"resume": False, "truncation_psi": 0.5}, "truncation_psi"),
    ],
)
def test_a_folder_never_mixes_options(tmp_path, changed, named):
    sample_many(Painter(), [0], tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ZooError, match="another run") as caught:
        sample_many(Painter(), [1], tmp_path, **changed)
    assert named in str(caught.value)
    assert contents(tmp_path) == before


def test_a_folder_never_mixes_weights(tmp_path):
    sample_many(Painter(), [0], tmp_path)
    other = Painter()
    other.weight.data += 1
    with pytest.raises(ZooError, match=r"another run \(weights"):
        sample_many(other, [1], tmp_path)


def test_equal_options_are_recognised_whatever_their_type(tmp_path):
    sample_many(Painter(), [0], tmp_path, trajectory=orbit(4), maps=("depth",))
    assert sample_many(Painter(), [0], tmp_path, trajectory=orbit(4), maps=["depth"]).kept == 1


def test_files_of_unknown_origin_are_left_alone(tmp_path):
    (tmp_path / "seed_000000.mp4").write_bytes(b"somebody's")
    with pytest.raises(ZooError, match=r"without a sampling\.json"):
        sample_many(Painter(), [0], tmp_path)
    (tmp_path / "sampling.json").write_text("{")
    with pytest.raises(ZooError, match="cannot be read"):
        sample_many(Painter(), [0], tmp_path)
    assert (tmp_path / "seed_000000.mp4").read_bytes() == b"somebody's"


def test_bad_arguments(tmp_path):
    with pytest.raises(ZooError, match="twice"):
        sample_many(Painter(), [1, 1], tmp_path)
    with pytest.raises(ZooError, match="written as"):
        sample_many(Painter(), [1], tmp_path, suffix=".gif")
    for names in ("clip", "{index}", "{seed}/{seed}", "/root_{seed}", "{seed.__class__}", "{seed}/clip"):
        with pytest.raises(ZooError, match="need the seed"):
            sample_many(Painter(), [1], tmp_path, names=names)
    with pytest.raises(ZooError, match="cannot record"):
        sample_many(Painter(), [1], tmp_path, trajectory=object())
    with pytest.raises(ZooError, match="none of the 1 camera tracks"):
        sample_many(Painter(), [1], tmp_path / "tracks", camera_tracks=[orbit(3)], num_frames=4)
    with pytest.raises(ZooError, match="no multiview"):
        multiview_many(nn.Linear(1, 1), [1], tmp_path)


def test_a_full_disk_is_reported_and_nothing_is_half_written(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("portraitzoo.media.video.av.open", full)
    with pytest.raises(ZooError, match="no space left"):
        sample_many(Painter(), range(3), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["sampling.json"]


def test_progress_counts_to_the_end(tmp_path):
    seen = []
    sample_many(Painter(), range(4), tmp_path, on_clip=seen.append)
    assert seen == [1, 2, 3, 4]


def test_camera_tracks_are_chosen_by_the_seed(tmp_path):
    tracks = [orbit(20), orbit(30, yaw=0.1), orbit(2)]
    sample_many(Painter(), range(6), tmp_path, suffix=".npz", camera_tracks=tracks, num_frames=4)
    sample_many(Painter(), [3], tmp_path / "alone", suffix=".npz", camera_tracks=tracks, num_frames=4)
    clips = [Clip.load(path).cameras.cam2world for path in sorted(tmp_path.glob("*.npz"))]
    windows = [track.cam2world[start : start + 4] for track in tracks[:2] for start in range(len(track) - 3)]
    assert all(any(torch.equal(clip, window) for window in windows) for clip in clips)
    assert len({clip.numpy().tobytes() for clip in clips}) > 2
    assert torch.equal(Clip.load(tmp_path / "alone" / "seed_000003.npz").cameras.cam2world, clips[3])


def test_layouts_of_the_published_evaluation(tmp_path):
    sample_many(Painter(), range(2), tmp_path, names=PV3D_NAMES)
    multiview_many(Painter(), range(2), tmp_path)
    assert sorted(contents(tmp_path)) == [
        *(f"multi/depth/{seed:04d}.npz" for seed in range(2)),
        *(f"multi/images/{seed:04d}_{view:02d}.png" for seed in range(2) for view in range(4)),
        "multi/sampling.json",
        *(f"videos/rgb_{seed:04d}.mp4" for seed in range(2)),
        "videos/sampling.json",
    ]
    with np.load(tmp_path / "multi" / "depth" / "0001.npz", allow_pickle=False) as arrays:
        assert {name: arrays[name].shape for name in arrays.files} == {
            "xyz": (4, 8, 8, 3), "depth": (4, 1, 8, 8), "weights_total": (4, 8, 8, 1)
        }  # fmt: skip
        assert arrays["xyz"].dtype == np.float32
    with torch.inference_mode():
        expected = Painter().eval().multiview(1).frames[2]
    assert torch.equal(read_image(tmp_path / "multi" / "images" / "0001_02.png"), expected)
    again = Painter()
    multiview_many(again, range(3), tmp_path)
    assert again.drawn == [2]


def test_evaluation_reads_the_multiview_folder(tmp_path):
    multiview_many(Painter(), [4], tmp_path)
    source = MultiviewFolderSource(tmp_path)
    item = source.listing("subjects", get_protocol("pv3d-voxceleb"), 1).items[0]
    subject = source.load(item, "subjects", get_protocol("pv3d-voxceleb"), ("position", "depth", "opacity"))
    with np.load(tmp_path / "multi" / "depth" / "0004.npz", allow_pickle=False) as arrays:
        assert np.array_equal(subject.maps["position"], arrays["xyz"])
        assert np.array_equal(subject.maps["depth"], arrays["depth"][:, 0])
        assert np.array_equal(subject.maps["opacity"], arrays["weights_total"][..., 0])
    (tmp_path / "multi" / "depth" / "0004.npz").write_bytes(b"damaged")
    with pytest.raises(MediaError, match=r"0004\.npz is damaged"):
        source.load(item, "subjects", get_protocol("pv3d-voxceleb"), ("depth",))


def test_the_model_is_left_as_it_was(tmp_path):
    model = Painter()
    state = torch.random.get_rng_state()
    sample_many(model, [0], tmp_path)
    assert model.training and model.weight.device.type == "cpu"
    assert torch.equal(torch.random.get_rng_state(), state)


PROGRAM = """
import sys
import time
from pathlib import Path
sys.path.insert(0, {here!r})
from test_bulk import Painter
from portraitzoo.methods.bulk import sample_many
summary = sample_many(Painter(), range(7), {out!r}, devices={devices})
print("written", summary.written, flush=True)
"""


def run(tmp_path, out, devices):
    program = tmp_path / f"program_{devices}.py"
    program.write_text(PROGRAM.format(here=str(HERE), out=str(out), devices=devices))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=200)


@pytest.mark.slow
def test_two_processes_draw_the_same_files_as_one(tmp_path):
    finished = run(tmp_path, tmp_path / "two", 2)
    assert "written 7" in finished.stdout, finished.stderr
    sample_many(Painter(), range(7), tmp_path / "one")
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert {name: two[name] for name in one if name != "sampling.json"} == {
        name: one[name] for name in one if name != "sampling.json"
    }
    assert two.keys() == one.keys()
    assert json.loads(two["sampling.json"])["weights"] == json.loads(one["sampling.json"])["weights"]


SLOW_PROGRAM = """
import sys, time
sys.path.insert(0, {here!r})
from test_bulk import Painter
from portraitzoo.methods.bulk import sample_many

class Slow(Painter):
    def sample(self, **options):
        time.sleep(0.2)
        return super().sample(**options)

sample_many(Slow(), range(1000), {out!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_leaves_whole_clips_and_the_run_goes_on(tmp_path, sent):
    out = tmp_path / "out"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    program = SLOW_PROGRAM.format(here=str(HERE), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(out.glob("seed_*.mp4"))) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -sent, errors
    done = find_videos(out)
    assert 3 <= len(done) < 1000
    assert all(len(Clip.load(path)) == 4 for path in done)
    if sent == signal.SIGINT:
        assert not list(out.glob(".*"))
    record = json.loads((out / "sampling.json").read_text())
    # The program's class is another than the one here, and nothing else is.
    (out / "sampling.json").write_text(json.dumps(record | {"model": f"{Painter.__module__}.{Painter.__qualname__}"}))
    rest = Painter()
    assert sample_many(rest, range(len(done) + 2), out).kept == len(done)
    assert rest.drawn == [len(done), len(done) + 1]
