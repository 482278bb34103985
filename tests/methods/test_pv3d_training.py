"""Training PV3D end to end at a size that takes a fraction of a second per update."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from training_runs import trainer, weights_of

from portraitzoo.cli.recipes import fit
from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.hub.publishing import publish
from portraitzoo.media.video import write_video
from portraitzoo.methods.pv3d.data import PV3DDataModule
from portraitzoo.methods.pv3d.discriminator import DiscriminatorConfig
from portraitzoo.methods.pv3d.network import PV3DConfig
from portraitzoo.methods.pv3d.training import PV3DTraining
from portraitzoo.rendering.camera_files import save_cameras
from portraitzoo.rendering.cameras import Camera
from portraitzoo.training.evaluation import Evaluation
from portraitzoo.training.history import History, read_history
from portraitzoo.training.sample_grid import SampleGrid
from portraitzoo.training.schedules import Schedules

NETWORK = {
    "z_dim": 8,
    "w_dim": 8,
    "motion_dim": 8,
    "image_resolution": 16,
    "plane_resolution": 8,
    "plane_channels": 4,
    "channel_base": 64,
    "channel_max": 8,
    "motion_resolutions": (4,),
    "decoder_width": 8,
    "super_resolution_input": 8,
    "super_resolution_channels": (8,),
    "depth_samples": 6,
    "importance_samples": 6,
    "render_resolution": 8,
}
DISCRIMINATOR = {"image_resolution": 16, "channel_base": 64, "channel_max": 8}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    generator = torch.Generator().manual_seed(0)
    for index in range(4):
        frames = torch.randint(0, 255, (20, 16, 16, 3), dtype=torch.uint8, generator=generator)
        write_video(root / f"{index}.mp4", frames)
        save_cameras(root / f"{index}.json", Camera.look_at(torch.linspace(-0.3, 0.3, 20), -0.05))
    return root


def module(**options) -> PV3DTraining:
    seed_everything(0, verbose=False)
    options = {"network": PV3DConfig(**NETWORK), "discriminator": DiscriminatorConfig(**DISCRIMINATOR)} | options
    return PV3DTraining(**options)


def data(clips, **options) -> PV3DDataModule:
    return PV3DDataModule(str(clips), **({"batch_size": 2, "num_workers": 0, "in_memory": True} | options))


@pytest.fixture(scope="module")
def run(clips, tmp_path_factory):
    """Six updates in one go, with a checkpoint of each and a sample grid."""
    root = tmp_path_factory.mktemp("run")
    training = module()
    before = weights_of(training)
    checkpoints = ModelCheckpoint(root / "checkpoints", "{step}", every_n_train_steps=1, save_top_k=-1, save_last=True)
    trainer(
        root,
        6,
        enable_checkpointing=True,
        callbacks=[checkpoints, History(), SampleGrid(every=5, rows=2, columns=3)],
    ).fit(training, data(clips))
    return root, before, weights_of(training)


def test_every_network_moves_and_stays_finite(run):
    _, before, after = run
    for network in ("generator", "image_discriminator", "video_discriminator", "generator_ema"):
        moved = [name for name in before if name.startswith(network) and not torch.equal(before[name], after[name])]
        assert len(moved) > 0.8 * sum(name.startswith(network + ".") for name in before if "noise_const" not in name)
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert after["num_samples"] == 12


def test_history_tells_losses_scores_and_schedules(run):
    root, *_ = run
    lines = read_history(root / "history.jsonl")
    assert [line["update"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for name in ("generator/loss", "discriminator/loss", "discriminator/real_image", "schedule/ema_beta"):
        assert all(name in line for line in lines), name
    assert "discriminator_regulariser/loss" in lines[0]
    assert lines[0]["schedule/blur_sigma"] == 10


def test_validation_learns_nothing_and_draws_the_same_every_time(run, clips, tmp_path):
    root, *_ = run
    training = PV3DTraining(init_from=str(root / "checkpoints" / "last.ckpt"))
    before = weights_of(training)
    results = [trainer(tmp_path, 1).validate(training, data(clips, val_root=str(clips)), verbose=False)]
    results.append(trainer(tmp_path, 1).test(training, data(clips), verbose=False))
    first, second = ({name.split("/")[1]: value for name, value in result[0].items()} for result in results)
    assert first == second
    assert {"loss", "real_image", "fake_video"} <= set(first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.state_dict().items())


def test_held_out_clips_are_validated_while_training_and_change_nothing(run, clips, tmp_path):
    _, _, after = run
    training = module()
    fit = trainer(tmp_path, 6, num_sanity_val_steps=0)
    fit.fit(training, data(clips, val_root=str(clips), clips_per_epoch=4))
    assert "validation/loss" in fit.callback_metrics
    assert all(torch.equal(tensor, after[name]) for name, tensor in training.state_dict().items())


def test_predictions_are_one_clip_for_each_seed_and_are_kept(run, clips, tmp_path):
    root, *_ = run
    training = PV3DTraining(init_from=str(root / "checkpoints" / "last.ckpt"))
    trainer(tmp_path, 1).predict(training, data(clips, predictions=2), return_predictions=False)
    files = sorted((tmp_path / "predictions").iterdir())
    assert [path.name for path in files] == ["000000.mp4", "000001.mp4"]
    files[0].unlink()
    kept = files[1].stat().st_mtime_ns
    trainer(tmp_path, 1).predict(training, data(clips, predictions=2), return_predictions=False)
    assert files[0].is_file() and files[1].stat().st_mtime_ns == kept


def test_sample_grids_are_written(run):
    root, *_ = run
    assert sorted(path.name for path in (root / "samples").iterdir()) == ["000000.png", "000005.png"]


def test_a_checkpoint_holds_only_plain_values(run):
    root, _, after = run
    checkpoint = torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["portraitzoo"]["network"]["z_dim"] == 8
    assert all(torch.equal(checkpoint["state_dict"][name], after[name]) for name in after)


@pytest.mark.parametrize("stopped_at", [1, 3, 5])
def test_stop_and_resume_equals_running_through(run, clips, tmp_path, stopped_at):
    root, _, through = run
    resumed = module()
    trainer(tmp_path, 6).fit(resumed, data(clips), ckpt_path=root / "checkpoints" / f"step={stopped_at}.ckpt")
    for name, tensor in weights_of(resumed).items():
        assert torch.equal(tensor, through[name]), name


def test_workers_draw_what_the_main_process_draws(run, clips, tmp_path):
    _, _, through = run
    training = module()
    trainer(tmp_path, 6).fit(training, data(clips, num_workers=1, in_memory=False))
    # Frames in memory are decoded as those on disk; nothing is resized here.
    for name, tensor in weights_of(training).items():
        assert torch.equal(tensor, through[name]), name


def test_discriminators_learn_to_tell_noise_from_clips(clips, tmp_path):
    training = module(discriminator_lr=0.01, generator_lr=0.0, schedules=Schedules(blur_sigma=0.0))
    trainer(tmp_path, 40).fit(training, data(clips))
    lines = read_history(tmp_path / "history.jsonl")
    losses = [line["discriminator/loss"] for line in lines]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_initialised_from_a_run_it_starts_where_that_stopped(run):
    root, _, through = run
    training = PV3DTraining(init_from=str(root / "checkpoints" / "last.ckpt"))
    assert training.config.z_dim == 8
    for name, tensor in weights_of(training).items():
        if name != "num_samples":
            assert torch.equal(tensor, through[name]), name
    assert training.num_samples == 0


def test_a_start_that_does_not_fit_is_refused(run, tmp_path):
    root, *_ = run
    other = PV3DConfig(**(NETWORK | {"channel_max": 4}))
    with pytest.raises(CheckpointError, match="does not fit"):
        PV3DTraining(network=other, init_from=str(root / "checkpoints" / "last.ckpt"))
    (tmp_path / "bad.ckpt").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"bad\.ckpt"):
        PV3DTraining(init_from=str(tmp_path / "bad.ckpt"))


def test_initialised_from_a_folder_it_trains_the_same_generator(run, tmp_path):
    root, *_ = run
    source = PV3DTraining(init_from=str(root / "checkpoints" / "last.ckpt"))
    source.model().save_pretrained(tmp_path / "folder")
    training = PV3DTraining(init_from=str(tmp_path / "folder"))
    ours, expected = weights_of(training), weights_of(source)
    for name in expected:
        if name.startswith("generator_ema."):
            assert torch.equal(ours[name], expected[name]), name
            assert torch.equal(ours[name.replace("_ema", "", 1)], expected[name]), "the raw generator starts from it"


def test_a_published_run_is_fine_tuned_with_its_discriminators(run, tmp_path):
    root, *_ = run
    published = publish(root, tmp_path / "published", licence="Apache-2.0", trainable=True).folder
    expected, ours = (PV3DTraining(init_from=str(start)) for start in (root, published))
    assert ours.discriminator_config == expected.discriminator_config
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in expected.state_dict().items())
    with pytest.raises(ZooError, match="no networks in training"):
        plain = publish(root, tmp_path / "plain", licence="Apache-2.0").folder
        publish(plain, tmp_path / "again", licence="Apache-2.0", trainable=True)


def test_half_precision_is_set_in_the_published_places(run):
    training = module(low_precision="bf16")
    lowered = {name for name, part in training.named_modules() if getattr(part, "low_precision", None)}
    assert "generator.super_resolution.blocks.0" in lowered
    assert "image_discriminator.blocks.b16" in lowered
    assert "video_discriminator.blocks.b16" in lowered
    assert not any(name.startswith(("generator_ema", "generator.backbone")) for name in lowered)


@pytest.mark.parametrize("name", ["voxceleb-res64", "voxceleb-res128", "mixed-res128", "finetune", "tiny"])
def test_recipes_are_complete(name, capsys):
    with pytest.raises(SystemExit) as ended:
        fit(["--config", f"pv3d/{name}", "--print_config"])
    assert not ended.value.code
    settings = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    published = {"voxceleb-res64": (0.6, 2.0), "voxceleb-res128": (0.6, 2.0), "mixed-res128": (0.05, 4.0)}
    if name in published:
        assert (settings["losses"]["density"], settings["losses"]["r1_gamma"]) == published[name]
        assert settings["losses"]["video"] == 0.65
        assert settings["network"]["channel_base"] == 32768
        assert settings["network"]["render_resolution"] == (64 if name == "voxceleb-res64" else 128)


def recipe(root: Path, clips: Path, steps: int, **trainer_options) -> Path:
    config = {
        "seed_everything": 0,
        "trainer": {
            "max_steps": steps,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "default_root_dir": str(root),
            "callbacks": [
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {
                        "dirpath": str(root / "checkpoints"),
                        "filename": "{step}",
                        "every_n_train_steps": 1,
                        "save_top_k": -1,
                        "save_last": True,
                    },
                },
                {"class_path": "portraitzoo.training.history.History"},
            ],
            **trainer_options,
        },
        "model": {
            "class_path": "portraitzoo.methods.pv3d.training.PV3DTraining",
            "init_args": {
                "network": NETWORK | {"motion_resolutions": [4], "super_resolution_channels": [8]},
                "discriminator": DISCRIMINATOR,
            },
        },
        "data": {
            "class_path": "portraitzoo.methods.pv3d.data.PV3DDataModule",
            "init_args": {"root": str(clips), "batch_size": 2, "num_workers": 1},
        },
    }
    root.mkdir(parents=True, exist_ok=True)
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def fit_command(path: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "portraitzoo.cli.main", "fit", "--config", str(path), *more]


def state(path: Path) -> dict:
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(clips, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    through, killed = tmp_path / "through", tmp_path / "killed"
    subprocess.run(fit_command(recipe(through, clips, 30)), check=True, env=environment, capture_output=True)

    path = recipe(killed, clips, 30)
    process = subprocess.Popen(fit_command(path), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (killed / "checkpoints" / "step=7.ckpt").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "checkpoints" / "step=30.ckpt").exists()

    last = killed / "checkpoints" / "last.ckpt"
    subprocess.run(fit_command(path, "--ckpt_path", str(last)), check=True, env=environment, capture_output=True)
    ours, expected = state(killed / "checkpoints" / "step=30.ckpt"), state(through / "checkpoints" / "step=30.ckpt")
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    lines = read_history(killed / "history.jsonl")
    assert [line["update"] for line in lines] == list(range(1, 31)), "no line is lost or doubled"
    for ours, expected in zip(lines, read_history(through / "history.jsonl"), strict=True):
        # A phase that has not yet run since the restart has no value to show.
        assert ours == {name: expected[name] for name in ours}


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_batch(clips, tmp_path):
    # These depend on how a batch is split, as published: minibatch deviation and swapped cameras. Noise comes from the
    # process's own generator.
    alike = ["--model.noise", "const", "--model.discriminator.group_size", "1"]
    alike += ["--model.schedules.swap_start", "0", "--model.schedules.swap_end", "0"]
    alike += ["--model.schedules.blur_batch", "global", "--data.batch_size", "4"]
    alone, two = tmp_path / "alone", tmp_path / "two"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(fit_command(recipe(alone, clips, 5), *alike), check=True, env=environment)
    more = ["--trainer.devices", "2", "--trainer.strategy", "ddp_find_unused_parameters_true"]
    subprocess.run(fit_command(recipe(two, clips, 5), *alike, *more), check=True, env=environment)
    expected, ours = (read_history(root / "history.jsonl") for root in (alone, two))
    assert [line["update"] for line in ours] == [1, 2, 3, 4, 5]
    for update, (one, both) in enumerate(zip(expected, ours, strict=True)):
        assert one.keys() == both.keys()
        for name, value in one.items():
            # Adam without momentum turns rounding of the smallest gradients into steps of full size.
            assert both[name] == pytest.approx(value, rel=1e-5 if update == 0 else 1e-2, abs=1e-4), (update, name)
    one, both = state(alone / "checkpoints" / "last.ckpt"), state(two / "checkpoints" / "last.ckpt")
    assert both["num_samples"] == one["num_samples"] == 20
    assert torch.allclose(both["generator.mapping.w_avg"], one["generator.mapping.w_avg"], atol=1e-4)


@pytest.mark.slow
def test_metrics_are_measured_while_training_and_in_tests(clips, tmp_path):
    evaluation = Evaluation(every=2, metrics=["fvd"], num_clips=3, features="random")
    training = module()
    trainer(tmp_path, 2, callbacks=[evaluation, History()]).fit(training, data(clips))
    (tested,) = trainer(tmp_path, 2, callbacks=[evaluation]).test(training, data(clips), verbose=False)
    assert tested["eval/fvd"] == read_history(tmp_path / "history.jsonl")[-1]["eval/fvd"]
    assert (tmp_path / "evaluation" / "test" / "report.html").is_file()
    assert read_history(tmp_path / "history.jsonl")[-1]["eval/fvd"] > 0
    report = json.loads((tmp_path / "evaluation" / "000002" / "report.json").read_text())
    assert clips.name in json.dumps(report)  # without `real`, the clips of training


def test_training_goes_on_without_the_feature_networks(clips, tmp_path, monkeypatch):
    monkeypatch.setenv("PORTRAITZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    evaluation = Evaluation(every=1, metrics=["fvd"], num_clips=3)
    with pytest.warns(UserWarning, match=r"fvd will not be measured while training: .*i3d-videogpt"):
        trainer(tmp_path / "run", 1, callbacks=[evaluation, History()]).fit(module(), data(clips))
    assert "eval/fvd" not in read_history(tmp_path / "run" / "history.jsonl")[-1]
