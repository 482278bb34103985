"""``zoo sample`` and ``zoo mesh``: what is asked for is what is written."""

import json
from pathlib import Path

import pytest
import torch

import portraitzoo as pz
from portraitzoo.cli.main import main
from portraitzoo.media.clip import Clip
from portraitzoo.rendering.camera_files import save_cameras
from portraitzoo.rendering.cameras import trajectory


def sample(toy: Path, *arguments: object) -> int:
    return main(["sample", str(toy), "--device", "cpu", *map(str, arguments)])


def test_options_reach_the_model(toy: Path, tmp_path: Path) -> None:
    options = "--seed 3,4 --motion-seed 5 --frames 4 --trajectory yaw --time 0,0.5,0.5,1 --truncation-psi 0.7"
    options += " --truncation-cutoff 3 --render-resolution 12 --importance deterministic --maps depth,normals --fps 12"
    assert sample(toy, *options.split(), "--out", tmp_path / "clip.npz") == 0
    written = Clip.load(tmp_path / "clip.npz")
    expected = pz.load(toy, device="cpu").sample(
        (3, 4),
        4,
        motion_seed=5,
        trajectory="yaw",
        time=[0, 0.5, 0.5, 1],
        truncation_psi=0.7,
        truncation_cutoff=3,
        render_resolution=12,
        importance="deterministic",
        maps=("depth", "normals"),
        fps=12,
    )
    assert torch.equal(written.frames, expected.frames) and written.fps == 12
    assert torch.equal(written.maps["depth"], expected.maps["depth"]) and "normals" in written.maps


@pytest.mark.parametrize("out", ["clip.mp4", "sheet.png", "clip.npz", "frames"])
def test_every_format_is_written_and_told(
    toy: Path, tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample(toy, "--frames", 2, "--out", tmp_path / out, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == [str(tmp_path / out)] and told["frames"] == 2
    assert (tmp_path / out).exists()


def test_maps_that_a_video_cannot_hold_become_videos_beside_it(toy: Path, tmp_path: Path) -> None:
    assert sample(toy, "--frames", 2, "--maps", "depth,raw", "--out", tmp_path / "clip.mp4") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "clip-depth.mp4", "clip-raw.mp4"}


def test_cameras_from_a_file(toy: Path, tmp_path: Path) -> None:
    cameras = trajectory("orbit", 5)
    save_cameras(tmp_path / "cameras.json", cameras)
    assert sample(toy, "--cameras", tmp_path / "cameras.json", "--out", tmp_path / "clip.npz") == 0
    written = Clip.load(tmp_path / "clip.npz")
    assert torch.allclose(written.cameras.cam2world, cameras.cam2world, atol=1e-6)
    assert sample(toy, "--cameras", tmp_path / "cameras.json", "--trajectory", "yaw") == 2


def test_many_clips_go_on_where_they_stopped(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "clips"
    assert sample(toy, "--seeds", "0-1", "--frames", 2, "--suffix", ".npz", "--out", out) == 0
    capsys.readouterr()
    assert sample(toy, "--seeds", "0-2,5", "--frames", 2, "--suffix", ".npz", "--out", out, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["written"], told["kept"]) == (2, 2)
    alone = pz.load(toy, device="cpu").sample(5, 2)
    assert torch.equal(Clip.load(out / "seed_000005.npz").frames, alone.frames)


def test_multiview_heads_for_the_metrics(toy: Path, tmp_path: Path) -> None:
    assert sample(toy, "--seeds", "0-1", "--multiview", "--out", tmp_path) == 0
    assert len(list((tmp_path / "multi" / "images").glob("*.png"))) == 8


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_mesh(toy: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    trimesh = pytest.importorskip("trimesh")
    path = tmp_path / f"head{suffix}"
    options = ["--resolution", "24", "--level", "-0.5", "--device", "cpu"]
    assert main(["mesh", str(toy), *options, "--out", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    read = trimesh.load_mesh(path, process=False)
    assert told == {"file": str(path), "vertices": len(read.vertices), "faces": len(read.faces)}


def test_a_grid_of_people_motions_and_camera_paths(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grid"
    grid = ["--grid", "--seeds", "0-1", "--motion-seeds", "7,8", "--trajectories", "front,yaw", "--frames", 2]
    assert sample(toy, *grid, "--suffix", ".npz", "--out", out, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["clips"], told["written"]) == (8, 8)
    assert told["sheets"] == [str(out / "front.png"), str(out / "yaw.png")] and all(
        map(Path.exists, map(Path, told["sheets"]))
    )
    expected = pz.load(toy, device="cpu").sample(1, 2, motion_seed=8, trajectory="yaw")
    assert torch.equal(Clip.load(out / "yaw" / "motion_000008" / "seed_000001.npz").frames, expected.frames)
    assert sample(toy, *grid, "--suffix", ".npz", "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["written"] == 0


@pytest.mark.parametrize(
    "arguments",
    [("--grid",), ("--grid", "--seeds", "0", "--trajectory", "yaw"), ("--seeds", "0", "--motion-seeds", "1")],
)
def test_options_that_do_not_fit_a_grid_are_refused(toy: Path, arguments: tuple[str, ...]) -> None:
    assert sample(toy, *arguments) == 2
