"""Training 3D-Aware Video Generation end to end at a size that takes a fraction of a second per update."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file, save_file
from training_runs import trainer, weights_of

from portraitzoo.cli.recipes import fit
from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.media.images import write_image
from portraitzoo.methods.threedvidgen.data import PairBatch, ThreeDVidGenDataModule
from portraitzoo.methods.threedvidgen.discriminator import DiscriminatorConfig
from portraitzoo.methods.threedvidgen.network import ThreeDVidGenConfig
from portraitzoo.methods.threedvidgen.objective import LossWeights, fade
from portraitzoo.methods.threedvidgen.training import GMAIN, GREG, ThreeDVidGenTraining
from portraitzoo.preprocess.frames import archive_frames
from portraitzoo.training.evaluation import Evaluation
from portraitzoo.training.history import History, read_history
from portraitzoo.training.sample_grid import SampleGrid

NETWORK = {
    "z_dim": 8,
    "w_dim": 8,
    "motion_dim": 8,
    "background_dim": 4,
    "mapping_layers": 2,
    "image_resolution": 16,
    "render_resolution": 8,
    "feature_channels": 8,
    "channel_base": 128,
    "channel_max": 8,
    "field_width": 8,
    "field_layers": 3,
    "motion_width": 8,
    "background_width": 8,
    "background_layers": 2,
    "ray_samples": 4,
    "background_samples": 2,
    "regularised_pixels": 4,
}
DISCRIMINATOR = {"image_resolution": 16, "channel_base": 64, "channel_max": 8, "group_size": 2}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("frames")
    generator = torch.Generator().manual_seed(0)
    for video in range(4):
        pictures = torch.randint(0, 255, (16, 16, 16, 3), dtype=torch.uint8, generator=generator)
        for index, picture in enumerate(pictures):
            write_image(root / "class" / f"video_{video}" / f"{index:07d}.png", picture)
    return root


def module(**options) -> ThreeDVidGenTraining:
    seed_everything(0, verbose=False)
    sizes = {"network": ThreeDVidGenConfig(**NETWORK), "discriminator": DiscriminatorConfig(**DISCRIMINATOR)}
    return ThreeDVidGenTraining(**(sizes | options))


def data(frames, **options) -> ThreeDVidGenDataModule:
    return ThreeDVidGenDataModule(str(frames), **({"batch_size": 2, "num_workers": 0, "in_memory": True} | options))


@pytest.fixture(scope="module")
def run(frames, tmp_path_factory):
    """Six updates in one go, with a checkpoint of each and a sample grid."""
    root = tmp_path_factory.mktemp("run")
    training = module()
    before = weights_of(training)
    checkpoints = ModelCheckpoint(root / "checkpoints", "{step}", every_n_train_steps=1, save_top_k=-1, save_last=True)
    grid = SampleGrid(every=5, rows=2, columns=3)
    options = {"enable_checkpointing": True, "callbacks": [checkpoints, History(), grid]}
    trainer(root, 6, **options).fit(training, data(frames))
    return root, before, weights_of(training)


def last(run) -> str:
    return str(run[0] / "checkpoints" / "last.ckpt")


def test_every_network_moves_and_stays_finite(run):
    _, before, after = run
    for network in ("generator", "image_discriminator", "video_discriminator", "generator_ema"):
        names = [name for name in before if name.startswith(network + ".")]
        moved = [name for name in names if not torch.equal(before[name], after[name])]
        assert len(moved) > 0.9 * len(names), sorted(set(names) - set(moved))
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert after["num_samples"] == 12
    assert after["path_length_mean"] > 0


def test_buffers_of_the_average_are_copied(run):
    _, _, after = run
    buffers = [
        name for name in after if name.startswith("generator.") and name.endswith(("w_avg", "magnitude", "alpha"))
    ]
    assert len(buffers) == 2 + 2
    for name in buffers:
        assert torch.equal(after[name], after[name.replace("generator.", "generator_ema.")])
    assert after["generator.alpha"] == 0, "no longer that of a fresh network"


def test_history_tells_losses_scores_and_schedules(run):
    lines = read_history(run[0] / "history.jsonl")
    assert [line["update"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for name in ("generator/nerf_path", "discriminator/loss", "discriminator/real_image", "schedule/alpha"):
        assert all(name in line for line in lines), name
    assert "discriminator_regulariser/loss" in lines[0] and "generator_regulariser/path_length" in lines[0]
    assert lines[0]["schedule/ema_beta"] == pytest.approx(0.5 ** (32 / 20_000))


def test_sample_grids_are_written(run):
    assert sorted(path.name for path in (run[0] / "samples").iterdir()) == ["000000.png", "000005.png"]


def test_a_checkpoint_holds_only_plain_values(run):
    checkpoint = torch.load(last(run), weights_only=True)
    assert checkpoint["portraitzoo"]["family"] == "threedvidgen"
    assert checkpoint["portraitzoo"]["network"]["z_dim"] == 8
    assert all(torch.equal(checkpoint["state_dict"][name], run[2][name]) for name in run[2])


@pytest.mark.parametrize("stopped_at", [1, 3, 5])
def test_stop_and_resume_equals_running_through(run, frames, tmp_path, stopped_at):
    root, _, through = run
    resumed = module()
    trainer(tmp_path, 6).fit(resumed, data(frames), ckpt_path=root / "checkpoints" / f"step={stopped_at}.ckpt")
    for name, tensor in weights_of(resumed).items():
        assert torch.equal(tensor, through[name]), name


def test_validation_learns_nothing_and_draws_the_same_every_time(run, frames, tmp_path):
    training = ThreeDVidGenTraining(init_from=last(run))
    before = weights_of(training)
    results = [trainer(tmp_path, 1).validate(training, data(frames, val_root=str(frames)), verbose=False)]
    results.append(trainer(tmp_path, 1).test(training, data(frames), verbose=False))
    first, second = ({name.split("/")[1]: value for name, value in result[0].items()} for result in results)
    assert first == second
    assert {"loss", "real_image", "fake_video"} <= set(first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.state_dict().items())


def test_predictions_are_one_clip_for_each_seed(run, frames, tmp_path):
    training = ThreeDVidGenTraining(init_from=last(run))
    trainer(tmp_path, 1).predict(training, data(frames, predictions=2), return_predictions=False)
    assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == ["000000.mp4", "000001.mp4"]


def test_discriminators_learn_to_tell_frames_from_renders(frames, tmp_path):
    training = module(discriminator_lr=0.01, generator_lr=0.0)
    trainer(tmp_path, 20).fit(training, data(frames))
    losses = [line["discriminator/loss"] for line in read_history(tmp_path / "history.jsonl")]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_generator_learns_to_fool_discriminators_that_rest(frames, tmp_path):
    losses = LossWeights(nerf_path=0.0, path_length=0.0)
    training = module(discriminator_lr=0.0, generator_lr=0.02, losses=losses)
    trainer(tmp_path, 20).fit(training, data(frames))
    history = [line["generator/loss"] for line in read_history(tmp_path / "history.jsonl")]
    assert sum(history[-5:]) < 0.98 * sum(history[:5])


def batch_of(clips: int, first: int = 0) -> PairBatch:
    generator = torch.Generator().manual_seed(clips)
    frames = torch.rand(clips, 2, 3, 16, 16, generator=generator) * 2 - 1
    return PairBatch(frames, torch.tensor([[0.2, 0.8]]).repeat(clips, 1), torch.arange(first, first + clips))


def test_a_sample_draws_the_same_in_any_company():
    training = module()
    together, alone = training.draw(GMAIN, batch_of(3)), training.draw(GMAIN, batch_of(1, first=2))
    for name in ("z", "z_second", "z_motion", "z_background", "mixing", "cut", "times"):
        assert torch.equal(getattr(together, name)[2:], getattr(alone, name)), name
    assert torch.equal(together.camera.cam2world[2:], alone.camera.cam2world)
    assert torch.equal(together.rays.jitter[2:], alone.rays.jitter)
    other = training.draw(GREG, batch_of(3))
    assert not torch.equal(together.z, other.z)
    assert torch.equal(together.first(1).z, together.z[:1]) and len(together.first(1).rays.noise) == 1


def test_draws_follow_their_distributions():
    training = module()
    drawn = training.draw(GMAIN, batch_of(400))
    assert (drawn.times[:, 0] <= drawn.times[:, 1]).all()
    assert set(drawn.cut.tolist()) == set(range(1, training.generator.num_ws))
    position = drawn.camera.cam2world[:, :3, 3]
    yaw = torch.atan2(position[:, 0], position[:, 2])
    assert abs(yaw.std() - 0.8) < 0.1 and abs(yaw.mean()) < 0.15


def test_styles_are_mixed_behind_the_cut():
    training = module(losses=LossWeights(style_mixing=1.0))
    drawn = training.draw(GMAIN, batch_of(4))
    ws, mapping = training.objective._styles(drawn), training.generator.mapping
    for row, cut in enumerate(drawn.cut.tolist()):
        assert torch.equal(ws[row, :cut], mapping(drawn.z)[row, :cut])
        assert torch.equal(ws[row, cut:], mapping(drawn.z_second)[row, cut:])
    pure = module(losses=LossWeights(style_mixing=0.0))
    assert torch.equal(pure.objective._styles(drawn), pure.generator.mapping(drawn.z))


def test_a_batch_in_parts_moves_the_discriminators_as_the_whole(frames, tmp_path):
    # Deviations are grouped by parts, and magnitudes move a little between them.
    alone = {"discriminator": DiscriminatorConfig(**(DISCRIMINATOR | {"group_size": 1})), "generator_lr": 0.0}
    whole, parts = (module(device_batch=size, **alone) for size in (None, 2))
    before = weights_of(whole)
    for training in (whole, parts):
        trainer(tmp_path, 1, callbacks=[]).fit(training, data(frames, batch_size=4))
    ours, expected = (
        torch.cat([value.flatten() for name, value in weights_of(training).items() if "discriminator." in name])
        for training in (parts, whole)
    )
    start = torch.cat([value.flatten() for name, value in before.items() if "discriminator." in name])
    assert ((expected - start).abs() > 1e-3).float().mean() > 0.8
    # Adam without momentum turns the smallest gradients, of which rounding decides, into steps of full size.
    assert ((ours - expected).abs() < 1e-4).float().mean() > 0.97


def test_a_batch_that_groups_do_not_divide_is_refused(frames, tmp_path):
    training = module(discriminator=DiscriminatorConfig(**(DISCRIMINATOR | {"group_size": 4})))
    with pytest.raises(ZooError, match="groups of 4, which do not divide the 3 clips"):
        trainer(tmp_path, 1).fit(training, data(frames, batch_size=3))


def test_alpha_rises_at_the_end():
    assert [fade(samples) for samples in (0, 24_000_000, 24_250_000, 30_000_000)] == [0, 0, 0.25, 1]
    training = module(fade_start=0, fade_end=100)
    training.num_samples += 25
    with training.update_context(0):
        assert training.generator.alpha == 0.25


def test_initialised_from_a_run_it_starts_where_that_stopped(run):
    training = ThreeDVidGenTraining(init_from=last(run))
    assert training.config.z_dim == 8 and training.discriminator_config.group_size == 2
    for name, tensor in weights_of(training).items():
        if "." in name:
            assert torch.equal(tensor, run[2][name]), name
    assert training.num_samples == 0


def test_initialised_from_a_folder_it_trains_the_same_generator(run, tmp_path):
    source = ThreeDVidGenTraining(init_from=last(run))
    source.model().save_pretrained(tmp_path / "folder")
    training = ThreeDVidGenTraining(init_from=str(tmp_path / "folder"))
    ours, expected = weights_of(training), weights_of(source)
    for name in (name for name in expected if name.startswith("generator_ema.")):
        assert torch.equal(ours[name], expected[name]), name
        assert torch.equal(ours[name.replace("_ema", "", 1)], expected[name]), "the raw generator starts from it"


def test_a_model_of_single_images_seeds_the_video_discriminator(run, tmp_path):
    source = ThreeDVidGenTraining(init_from=last(run))
    folder = tmp_path / "images"
    source.model().save_pretrained(folder)
    still = {name: value for name, value in load_file(folder / "model.safetensors").items() if ".motion." not in name}
    save_file(still, folder / "model.safetensors")
    judge = {f"image_discriminator.{n}": t.clone() for n, t in source.image_discriminator.state_dict().items()}
    save_file(judge, folder / "training.safetensors")
    seed_everything(1, verbose=False)
    started = ThreeDVidGenTraining(init_from=str(folder))
    assert torch.equal(started.generator.field.fc_in.weight, source.generator_ema.field.fc_in.weight)
    image, video = (judge.state_dict() for judge in (started.image_discriminator, started.video_discriminator))
    shared = [name for name in video if video[name].shape == image[name].shape]
    assert all(torch.equal(video[name], image[name]) for name in shared)
    assert {name for name in video if name not in shared} == {n for n in video if n.endswith("fromrgb.weight")}
    assert started.generator.field.motion.affine.weight.std() > 0


def test_a_start_that_does_not_fit_is_refused(run, tmp_path):
    other = ThreeDVidGenConfig(**(NETWORK | {"field_width": 4}))
    with pytest.raises(CheckpointError, match="does not fit"):
        ThreeDVidGenTraining(network=other, init_from=last(run))
    (tmp_path / "bad.ckpt").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"bad\.ckpt"):
        ThreeDVidGenTraining(init_from=str(tmp_path / "bad.ckpt"))


def test_half_precision_is_set_in_the_published_places():
    deeper = ThreeDVidGenConfig(**(NETWORK | {"render_resolution": 4}))
    training = module(network=deeper, low_precision="bf16")
    lowered = {name for name, part in training.named_modules() if getattr(part, "low_precision", None)}
    assert {"generator.upsampler.b16", "image_discriminator.blocks.b16", "video_discriminator.blocks.b8"} <= lowered
    assert not any(name.startswith(("generator_ema", "generator.upsampler.b8")) for name in lowered)


@pytest.mark.parametrize("name", ["faceforensics", "faceforensics-ffhq", "mead", "taichi", "finetune", "tiny"])
def test_recipes_are_complete(name, capsys):
    with pytest.raises(SystemExit) as ended:
        fit(["--config", f"threedvidgen/{name}", "--print_config"])
    assert not ended.value.code
    printed = yaml.safe_load(capsys.readouterr().out)
    settings = printed["model"]["init_args"]
    sizes = {"faceforensics": (256, 256, 18), "mead": (256, 64, 12), "taichi": (128, 128, 18)}
    sizes["faceforensics-ffhq"] = sizes["faceforensics"]
    if name in sizes:
        network = ThreeDVidGenConfig(**settings["network"])
        assert (network.image_resolution, network.feature_channels, network.fov) == sizes[name]
        assert printed["data"]["init_args"]["batch_size"] == 32
        assert settings["losses"] == {
            "image": 1.0,
            "video": 1.0,
            "nerf_path": 1.0,
            "path_length": 2.0,
            "path_length_decay": 0.01,
            "r1_gamma": 0.5,
            "style_mixing": 0.9,
        }


def recipe(root: Path, frames: Path, steps: int) -> Path:
    checkpoints = {"dirpath": str(root / "checkpoints"), "save_last": True, "every_n_train_steps": 1}
    config = {
        "seed_everything": 0,
        "trainer": {
            "max_steps": steps,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "log_every_n_steps": 1,
            "default_root_dir": str(root),
            "callbacks": [
                {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": checkpoints},
                {"class_path": "portraitzoo.training.history.History"},
            ],
        },
        "model": {
            "class_path": "portraitzoo.methods.threedvidgen.training.ThreeDVidGenTraining",
            "init_args": {"network": NETWORK, "discriminator": DISCRIMINATOR | {"group_size": 1}},
        },
        "data": {
            "class_path": "portraitzoo.methods.threedvidgen.data.ThreeDVidGenDataModule",
            "init_args": {"root": str(frames), "batch_size": 4, "num_workers": 1},
        },
    }
    root.mkdir(parents=True, exist_ok=True)
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_batch(frames, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "portraitzoo.cli.main", "fit", "--config"]
    alone, two = tmp_path / "alone", tmp_path / "two"
    more = ["--trainer.devices", "2", "--trainer.strategy", "ddp_find_unused_parameters_true"]
    # Path lengths are those of the first half of each process's samples: another half than one process takes.
    alike = ["--model.losses.path_length", "0"]
    subprocess.run([*command, str(recipe(alone, frames, 4)), *alike], check=True, env=environment)
    subprocess.run([*command, str(recipe(two, frames, 4)), *alike, *more], check=True, env=environment)
    expected, ours = (read_history(root / "history.jsonl") for root in (alone, two))
    assert [line["update"] for line in ours] == [1, 2, 3, 4]
    for update, (one, both) in enumerate(zip(expected, ours, strict=True)):
        for name, value in one.items():
            if "path_length" not in name:
                # Magnitudes of an update are each process's own until it ends, and Adam without momentum turns small
                # differences into steps of full size.
                assert both[name] == pytest.approx(value, rel=1e-3 if update == 0 else 2e-2, abs=2e-3), (update, name)
    one, both = (
        torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for root in (alone, two)
    )
    assert both["num_samples"] == one["num_samples"] == 16
    assert torch.allclose(both["generator.mapping.w_avg"], one["generator.mapping.w_avg"], atol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("archived", [False, True])
def test_metrics_are_measured_while_training(frames, tmp_path, archived):
    root = archive_frames(frames, tmp_path / "frames.zip") if archived else frames
    evaluation = Evaluation(every=2, metrics=["fvd"], num_clips=3, features="random")
    trainer(tmp_path, 2, callbacks=[evaluation, History()]).fit(module(), data(root))
    assert read_history(tmp_path / "history.jsonl")[-1]["eval/fvd"] > 0
