"""``zoo sample``, ``zoo mesh`` and ``zoo bench`` on a 3D-Aware Video Generation."""

import json
from pathlib import Path

import pytest
import torch

import portraitzoo as pz
from portraitzoo.cli import measurements
from portraitzoo.cli.main import main
from portraitzoo.media.clip import Clip
from portraitzoo.methods.threedvidgen import benchmark
from portraitzoo.methods.threedvidgen.model import ThreeDVidGen
from portraitzoo.methods.threedvidgen.network import ThreeDVidGenConfig
from portraitzoo.rendering.camera_files import save_cameras
from portraitzoo.rendering.cameras import trajectory

TOY = ThreeDVidGenConfig(
    z_dim=8,
    w_dim=8,
    motion_dim=8,
    background_dim=4,
    mapping_layers=2,
    image_resolution=16,
    render_resolution=8,
    feature_channels=8,
    channel_base=128,
    channel_max=8,
    field_width=8,
    field_layers=2,
    motion_width=8,
    background_width=8,
    background_layers=2,
    ray_samples=5,
    regularised_pixels=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ThreeDVidGen(TOY).save_pretrained(path)
    return path


def zoo(verb: str, folder: Path, *arguments: object) -> int:
    return main([verb, str(folder), "--device", "cpu", *map(str, arguments)])


def test_options_reach_the_model(folder: Path, tmp_path: Path) -> None:
    options = "--seed 3 --motion-seed 5 --frames 3 --trajectory rotation_camera_yaw --time-steps 4 --view-steps 5"
    options += " --truncation-psi 0.7 --reach 0.5 --background-temperature 1 --freeze-background --maps depth"
    assert zoo("sample", folder, *options.split(), "--out", tmp_path / "clip.npz") == 0
    written = Clip.load(tmp_path / "clip.npz")
    expected = pz.load(folder, device="cpu").sample(
        3,
        3,
        motion_seed=5,
        trajectory="yaw",
        time_steps=4,
        view_steps=5,
        truncation_psi=0.7,
        reach=0.5,
        background_temperature=1.0,
        freeze_background=True,
        maps=["depth"],
    )
    assert torch.equal(written.frames, expected.frames) and torch.equal(written.maps["depth"], expected.maps["depth"])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--trajectory", "rotation_camera_roll"], "unknown trajectory 'rotation_camera_roll'"),
        (["--frames", 5, "--time-steps", 4], "5 frames need at least as many time steps, not 4"),
        (["--frames", 5, "--view-steps", 4], "5 frames need at least as many view steps, not 4"),
        (["--time", "loop"], "16 frames need 16 times between 0 and 1"),
        (["--seed", "1,2"], "a seed is a whole number"),
        (["--render-resolution", 64], "has no option --render-resolution"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, arguments: list, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zoo("sample", folder, *arguments) == 1
    told = capsys.readouterr().err.strip()
    assert complaint in told and "\n" not in told


def test_cameras_from_elsewhere_are_refused_where_they_see_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_cameras(tmp_path / "far.json", trajectory("orbit", 2))
    assert zoo("sample", folder, "--cameras", tmp_path / "far.json") == 1
    assert "this network sees heads from 0.88 to 1.12 away" in capsys.readouterr().err


def test_bench_times_every_stage(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurements, "calibrate", lambda device: 0.25)
    monkeypatch.setattr(measurements, "machine_peak", lambda device, dtype: 100.0)
    assert zoo("bench", folder, "--frames", 2, "--repeats", 1, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["what"] for entry in found] == ["mapping", "style", "frame", "encode", "clip"]
    assert all(entry["seconds"] > 0 and entry["speedup"] is None for entry in found)
    assert zoo("bench", folder, "--render-resolution", 64) == 1
    assert "takes 8 rendered pixels a side, not 64" in capsys.readouterr().err


def test_the_original_is_compared_only_where_it_was_measured() -> None:
    with torch.device("meta"):
        official, other = ThreeDVidGen(ThreeDVidGenConfig()), ThreeDVidGen(TOY)
    # 36.216 s for a clip at calibrations of 0.3997 and 0.4278 s.
    assert benchmark.original(official, "clip", 16, None) == pytest.approx(36.216 / 0.41375)
    assert benchmark.original(official, "clip", 8, None) is None
    assert benchmark.original(other, "clip", 16, None) is None
