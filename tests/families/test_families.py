"""What every family of the zoo can do, shown on its tiny model; a new family is tested by having an entry."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_models import Tiny

import portraitzoo as pz
from portraitzoo.cli.main import main


def zoo(*arguments: object) -> None:
    """Run the command in this process; it must succeed."""
    assert main([str(argument) for argument in arguments]) == 0


def draw(model: torch.nn.Module, tiny: Tiny) -> pz.Clip:
    return getattr(model, tiny.family.VERB)(**tiny.family.OPTIONS)


def same_frames(one: pz.Clip, other: pz.Clip) -> bool:
    return torch.equal(one.frames, other.frames)


def test_loads_ready_to_use(tiny: Tiny) -> None:
    model = pz.load(tiny.name)
    assert f"{type(model).__module__}.{type(model).__qualname__}" == tiny.entry.cls
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_its_verb_gives_the_same_clip_every_time(tiny: Tiny) -> None:
    state = torch.random.get_rng_state()
    clip = draw(pz.load(tiny.name, device="cpu"), tiny)
    assert len(clip) == tiny.family.FRAMES
    assert clip.frames.float().std() > 1, "the frames show nothing"
    assert same_frames(clip, draw(pz.load(tiny.name, device="cpu"), tiny))
    assert torch.equal(state, torch.random.get_rng_state()), "drawing moved the global random state"


def test_its_verb_on_the_command_line_writes_that_clip(tiny: Tiny, tmp_path: Path) -> None:
    zoo(tiny.family.VERB, tiny.name, *tiny.family.ARGUMENTS, "--device", "cpu", "--out", tmp_path / "clip.npz")
    assert same_frames(pz.Clip.load(tmp_path / "clip.npz"), draw(pz.load(tiny.name, device="cpu"), tiny))


def test_save_pretrained_and_from_pretrained(tiny: Tiny, tmp_path: Path) -> None:
    model = pz.load(tiny.name, device="cpu")
    model.save_pretrained(tmp_path / "saved")
    again = type(model).from_pretrained(tmp_path / "saved").eval()
    assert same_frames(draw(model, tiny), draw(again, tiny))
    assert same_frames(draw(model, tiny), draw(pz.load(tmp_path / "saved", device="cpu"), tiny))


def test_an_official_file_converts_to_the_same_model(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny.family.as_converted()
    official = tiny.family.write_official(model, tmp_path / "official.ckpt")
    zoo("convert", tiny.entry.family, official, "--out", tmp_path / "converted")
    converted = pz.load(tmp_path / "converted", device="cpu")
    assert converted.config == model.config
    state = converted.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_evaluates(tiny: Tiny, tmp_path: Path) -> None:
    options = ["--features", "random", "--num-clips", "2", "--batch-size", "2", "--device", "cpu"]
    few = ["--overrides", json.dumps({"fid_frames": "first"})]
    metrics = tiny.family.METRICS
    if not metrics:
        pytest.skip("its data are no samples to compare: protocols of reenactment measure it")
    zoo("eval", tiny.name, "--data", tiny.clips, "--metrics", ",".join(metrics), *options, *few, "--out", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert {result["metric"]: result["value"] > 0 for result in report["results"]} == dict.fromkeys(metrics, True)
    assert not report["comparable"] and "not comparable" in (tmp_path / "report.html").read_text().lower()


@pytest.fixture(scope="module")
def run(tiny: Tiny) -> Path:
    """Folder of a run of two steps that started from the tiny entry."""
    folder = tiny.folder / "run"
    start = ["--model.init_from", tiny.name, *_sizes(tiny)]
    zoo("fit", *tiny.family.FIT, *_small(tiny), *start, "--trainer.max_steps", "2", "--out", folder)
    return folder


def _small(tiny: Tiny) -> list[str]:
    return ["--data.root", str(tiny.clips), "--trainer.accelerator", "cpu", "--trainer.logger", "false"]


def _sizes(tiny: Tiny) -> list[str]:
    return ["--model.network", "null", "--model.discriminator", "null"] if tiny.family.INIT_TELLS_SIZES else []


def test_trains_two_steps(tiny: Tiny, run: Path) -> None:
    trained = pz.load(run, device="cpu")
    before = pz.load(tiny.name, device="cpu").state_dict()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())
    assert all(torch.isfinite(tensor).all() for tensor in trained.state_dict().values())
    assert (run / "config.yaml").is_file()


def test_a_run_is_validated_tested_and_draws_its_predictions(tiny: Tiny, run: Path, tmp_path: Path) -> None:
    checkpoint = run / "checkpoints" / "last.ckpt"
    arguments = ["--config", run / "config.yaml", "--ckpt_path", checkpoint, "--out", tmp_path]
    for verb in ("validate", "test"):
        zoo(verb, *arguments, "--trainer.callbacks", "[]")
    zoo("predict", *arguments, "--data.predictions", 1)
    (drawn,) = (tmp_path / "predictions").iterdir()
    assert pz.Clip.load(drawn).frames.shape[1:] == draw(pz.load(run, device="cpu"), tiny).frames.shape[1:]


def test_publishes_and_loads_again(tiny: Tiny, run: Path, tmp_path: Path) -> None:
    zoo("publish", run, "--out", tmp_path / "published", "--licence", "Apache-2.0")
    assert same_frames(
        draw(pz.load(run, device="cpu"), tiny), draw(pz.load(tmp_path / "published", device="cpu"), tiny)
    )
    assert (tmp_path / "published" / "README.md").read_text().startswith("---\n")


@pytest.mark.slow
def test_killed_and_resumed_equals_run_through(tiny: Tiny, tmp_path: Path) -> None:
    def arguments(folder: Path) -> list[str]:
        # The recipes' checkpoints are hundreds of steps apart; this run must leave one before it is killed.
        sizes = {"every_n_train_steps": 2, "save_last": True, "save_top_k": 1, "dirpath": str(folder / "checkpoints")}
        keep = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": sizes}
        callbacks = ["--trainer.callbacks", json.dumps([keep])]
        return [*tiny.family.FIT, *_small(tiny), *callbacks, "--trainer.max_steps", "6", "--out", str(folder)]

    through, killed = tmp_path / "through", tmp_path / "killed"
    zoo("fit", *arguments(through))

    last = killed / "checkpoints" / "last.ckpt"
    command = [sys.executable, "-m", "portraitzoo.cli.main", "fit", *arguments(killed)]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        until = time.monotonic() + 300
        while not last.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert last.exists(), "the run left no checkpoint before it was killed"

    zoo("fit", *arguments(killed), "--ckpt_path", last)
    one, other = (pz.load(folder, device="cpu").state_dict() for folder in (through, killed))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_shows_the_same_person(tiny: Tiny) -> None:
    cpu, gpu = (draw(pz.load(tiny.name, device=device), tiny).frames.float() for device in ("cpu", "cuda"))
    assert (cpu - gpu).abs().mean() < 1
