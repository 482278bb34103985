"""What a user may get wrong: one clear line, status 1, and nothing half-written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import portraitzoo as pz
from portraitzoo.cli.main import main
from portraitzoo.rendering.camera_files import save_cameras


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run ``zoo`` and return its complaint, which must be one line without a traceback."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 1
        complaint = capsys.readouterr().err.strip()
        lines = [line for line in complaint.splitlines() if line.startswith("zoo: ")]
        assert len(lines) == 1 and complaint.endswith(lines[0]) and "Traceback" not in complaint
        return lines[0]

    return run


@pytest.mark.parametrize(
    ("arguments", "clue"),
    [
        (["--frames", 0], "at least 1 frame, not 0"),
        (["--trajectory", "spiral"], "front, orbit"),
        (["--maps", "depht"], "depth"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--time", "0,2", "--frames", 2], "between 0 and 1"),
        (["--out", "clip.gif"], ".mp4"),
        (["--cameras", "absent.json"], "absent.json"),
    ],
)
def test_sample(
    toy: Path,
    tmp_path: Path,
    fails: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[object],
    clue: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert clue in fails("sample", toy, "--frames", 2, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_names(fails: Callable[..., str], tmp_path: Path) -> None:
    assert "pv3d-tiny" in fails("sample", "pv3d-tinny")
    assert "nowhere" in fails("sample", tmp_path / "nowhere")
    assert "pv3d" in fails("convert", "pv4d", tmp_path / "x.ckpt", "--out", tmp_path / "out")


def test_a_checkpoint_of_another_kind(fails: Callable[..., str], tmp_path: Path) -> None:
    torch.save({"model": {"encoder.weight": torch.zeros(2)}}, tmp_path / "other.ckpt")
    assert "other.ckpt" in fails("convert", "pv3d", tmp_path / "other.ckpt", "--out", tmp_path / "out")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    assert "empty.ckpt" in fails("convert", "pv3d", tmp_path / "empty.ckpt", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_evaluation(fails: Callable[..., str], toy: Path, tmp_path: Path) -> None:
    assert "fvd" in fails("eval", toy, "--data", toy, "--metrics", "fdv").lower()
    assert "compares two sets" in fails("eval", toy, "--metrics", "fvd")
    (tmp_path / "clips").mkdir()
    assert "clips" in fails("eval", toy, "--data", tmp_path / "clips", "--metrics", "fvd", "--features", "random")


def test_recipes(fails: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "pv3d/finetune" in fails("fit", "--config", "pv3d/finetuning")


def test_going_on_from_what_is_no_run(
    fails: Callable[..., str], toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cut.ckpt").write_bytes(b"PK\x03\x04" + bytes(100))
    torch.save({"model": {"generator_ema.x": torch.zeros(1)}}, tmp_path / "official.ckpt")
    for path, clue in (("absent.ckpt", "no such file"), ("cut.ckpt", "cut.ckpt"), ("official.ckpt", "zoo convert")):
        assert clue in fails("fit", "--config", "pv3d/tiny", "--ckpt_path", path)


def _empty(clip: Path) -> None:
    clip.write_bytes(b"")


def _cut_short(clip: Path) -> None:
    clip.write_bytes(clip.read_bytes()[:200])


def _no_cameras(clip: Path) -> None:
    clip.with_suffix(".json").unlink()


def _few_cameras(clip: Path) -> None:
    labels = json.loads(clip.with_suffix(".json").read_text())
    clip.with_suffix(".json").write_text(json.dumps(labels[:3]))


def _short_labels(clip: Path) -> None:
    labels = json.loads(clip.with_suffix(".json").read_text())
    clip.with_suffix(".json").write_text(json.dumps([numbers[:24] for numbers in labels]))


@pytest.mark.parametrize(
    ("harm", "clue"),
    [
        (_empty, "b.mp4"),
        (_cut_short, "b.mp4"),
        (_no_cameras, "b.json"),
        (_few_cameras, "b.json"),
        (_short_labels, "24 numbers instead of 25"),
    ],
)
def test_training_clips(
    toy: Path,
    tmp_path: Path,
    fails: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[Path], None],
    clue: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    clips = tmp_path / "clips"
    clips.mkdir()
    clip = pz.load(toy, device="cpu").sample(0, 18)
    for name in ("a", "b"):
        clip.save(clips / f"{name}.mp4")
        save_cameras(clips / f"{name}.json", clip.cameras)
    harm(clips / "b.mp4")
    run = ["--data.root", clips, "--model.init_from", toy, "--trainer.accelerator", "cpu", "--out", tmp_path / "run"]
    assert clue in fails("fit", "--config", "pv3d/finetune", *run)
    assert not list(tmp_path.rglob("*.ckpt"))
