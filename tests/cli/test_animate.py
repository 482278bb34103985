"""``zoo animate``: what is asked for is what is written; what is wrong is one line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_reenactor import write_toy

import portraitzoo as pz
from portraitzoo.cli.main import main
from portraitzoo.media.clip import Clip
from portraitzoo.rendering.camera_files import save_cameras


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Folders of a toy model, of photos, and of driving frames."""
    return write_toy(tmp_path_factory.mktemp("reenactor"))


@pytest.fixture
def spoiled(folders: tuple[Path, Path, Path], tmp_path: Path) -> tuple[Path, Path, Path]:
    """The same, to be spoiled."""
    model, *pictures = folders
    source, driving = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in pictures)
    return model, source, driving


def animate(folders: tuple[Path, Path, Path], *arguments: object) -> int:
    model, source, driving = map(str, folders)
    pair = ["--source", source, "--driving", driving, "--device", "cpu"]
    return main(["animate", model, *pair, *map(str, arguments)])


def test_options_reach_the_model(folders, tmp_path):
    options = "--trajectory orbit --background white --parameters fitted --motion-scale 0.5 --render-resolution 6"
    options += " --maps depth,opacity --fps 12 --grid --on-bad-frame skip"
    assert animate(folders, *options.split(), "--out", tmp_path / "clip.npz") == 0
    written = Clip.load(tmp_path / "clip.npz")
    expected = pz.load(folders[0], device="cpu").animate(
        folders[1],
        folders[2],
        trajectory="orbit",
        background="white",
        motion_scale=0.5,
        render_resolution=6,
        maps=("depth", "opacity"),
        fps=12,
        grid=True,
    )
    assert written.frames.shape == (3, 32, 96, 3) and written.fps == 12
    assert torch.equal(written.frames, expected.frames)
    assert torch.equal(written.maps["depth"], expected.maps["depth"]) and "opacity" in written.maps


@pytest.mark.parametrize("out", ["clip.mp4", "sheet.png", "clip.npz", "frames"])
def test_every_format_is_written_and_told(folders, tmp_path, out, capsys):
    assert animate(folders, "--no-neck", "--out", tmp_path / out, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == [str(tmp_path / out)] and told["frames"] == 3
    assert (tmp_path / out).exists()


def test_one_photo_of_several_and_cameras_of_a_file(folders, tmp_path):
    model, source, driving = folders
    photo = source / "align_images" / "bert.png"
    loaded = pz.load(model, device="cpu")
    cameras = loaded.animate(photo, driving, trajectory="orbit").cameras
    save_cameras(tmp_path / "cameras.json", cameras)
    options = ["--cameras", tmp_path / "cameras.json", "--out", tmp_path / "clip.npz"]
    assert animate((model, photo, driving), *options) == 0
    expected = loaded.animate(photo, driving, trajectory=cameras)
    assert torch.equal(Clip.load(tmp_path / "clip.npz").frames, expected.frames)
    assert animate(folders, *options, "--trajectory", "front") == 2


def test_every_photo_with_every_driving_picture(folders, tmp_path, capsys):
    assert animate(folders, "--all", "--out", tmp_path / "pairs", "--json") == 0
    assert json.loads(capsys.readouterr().out)["written"] == 6
    found = sorted(path.relative_to(tmp_path / "pairs").as_posix() for path in (tmp_path / "pairs").rglob("*.jpg"))
    assert found == [f"{photo}/0000{number}.jpg" for photo in ("anna", "bert") for number in range(3)]


def test_surfaces(folders, tmp_path, capsys):
    pytest.importorskip("trimesh")
    only = folders[2].parent / "one"
    for part in ("flame_optim_params", "motion_feats"):
        (only / part).mkdir(parents=True, exist_ok=True)
        (only / part / "0.npy").write_bytes((folders[2] / part / "00000.npy").read_bytes())
    assert animate((*folders[:2], only), "--shape", "--out", tmp_path / "clip.mp4", "--json") == 0
    assert str(tmp_path / "clip-shapes") in json.loads(capsys.readouterr().out)["files"]
    assert [path.name for path in (tmp_path / "clip-shapes").iterdir()] == ["00000.ply"]


def test_a_mesh_of_a_photo(folders, tmp_path, capsys):
    pytest.importorskip("trimesh")
    model, source, driving = map(str, folders)
    options = ["--device", "cpu", "--resolution", "12", "--out", str(tmp_path / "me.glb"), "--json"]
    assert main(["mesh", model, *options, "--source", source, "--driving", driving, "--no-neck"]) == 0
    assert json.loads(capsys.readouterr().out)["faces"] > 0 and (tmp_path / "me.glb").stat().st_size > 500
    assert main(["mesh", model, *options]) == 1
    assert "Portrait4D needs the option --source to mesh" in capsys.readouterr().err


def no_parameters(folders: tuple[Path, Path, Path]) -> None:
    for path in (folders[1] / "flame_optim_params").iterdir():
        path.unlink()


def missing_frame(folders: tuple[Path, Path, Path]) -> None:
    for path in folders[2].glob("*/00001.*"):
        path.unlink()


def not_a_number(folders: tuple[Path, Path, Path]) -> None:
    np.save(folders[2] / "motion_feats" / "00001.npy", np.full(8, np.nan))


def short_label(folders: tuple[Path, Path, Path]) -> None:
    np.save(folders[2] / "flame_optim_params" / "00001.npy", np.zeros(436))


@pytest.mark.parametrize(
    ("spoil", "arguments", "told"),
    [
        (no_parameters, [], "no head parameters (flame_optim_params/*.npy or bfm2flame_params_simplified/*.npy)"),
        (missing_frame, [], "no head parameters of 00001"),
        (not_a_number, [], "motion_feats/00001.npy holds NaN"),
        (short_label, [], "00001.npy holds float64 [436], not [437] numbers"),
        (None, ["--parameters", "simplified"], "bfm2flame_params_simplified"),
        (None, ["--trajectory", "spiral"], "unknown trajectory 'spiral'"),
        (None, ["--out", "clip.gif"], ".mp4"),
        (None, ["--all", "--fps", "12"], "Portrait4D has no option --fps"),
    ],
    ids=lambda value: value.__name__ if callable(value) else " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_line(spoiled, capsys, monkeypatch, tmp_path, spoil, arguments, told):
    monkeypatch.chdir(tmp_path)
    if spoil is not None:
        spoil(spoiled)
    capsys.readouterr()
    assert animate(spoiled, *arguments) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith("zoo: ") and complaint.count("\n") == 1 and told in complaint
    assert not list(tmp_path.glob("*.mp4"))


@pytest.mark.parametrize("spoil", [missing_frame, not_a_number, short_label], ids=lambda spoil: spoil.__name__)
def test_bad_frames_are_skipped_or_repeated_if_told_so(spoiled, tmp_path, spoil):
    spoil(spoiled)
    for choice, frames in (("skip", 2), ("repeat", 3)):
        assert animate(spoiled, "--on-bad-frame", choice, "--out", tmp_path / f"{choice}.npz") == 0
        assert len(Clip.load(tmp_path / f"{choice}.npz")) == frames


def test_families_that_cannot_animate_say_so(toy, folders, capsys):
    assert animate((toy, *folders[1:])) == 1
    assert "PV3D cannot animate" in capsys.readouterr().err
    assert main(["animate", "pv3d-tiny", "--source", "me", "--driving", "clip"]) == 1
    assert "pv3d-tiny cannot animate" in capsys.readouterr().err


def test_asking_for_what_it_needs(folders, capsys):
    assert main(["animate", str(folders[0]), "--device", "cpu"]) == 1
    assert "Portrait4D needs the option --source to animate" in capsys.readouterr().err


def test_other_verbs_do_not_wait_for_it():
    code = "import sys, portraitzoo.cli.main as m; m.main(['list']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
