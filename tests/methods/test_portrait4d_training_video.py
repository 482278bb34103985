"""Training Portrait4D on clips end to end, with and without a teacher."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from portrait4d_clips import clip, write_set
from portrait4d_trainings import DISCRIMINATOR, SIZE, UNAIDED, untrained
from torch.utils.data import default_collate
from training_runs import trainer, weights_of

import portraitzoo as pz
from portraitzoo.cli.recipes import fit
from portraitzoo.errors import CheckpointError, MediaError, WeightsUnavailableError, ZooError
from portraitzoo.hub.publishing import publish
from portraitzoo.media.portrait_lmdb import write_clips
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.curriculum import Curriculum, LossWeights
from portraitzoo.methods.portrait4d.data import FramePairBatch, FramePairs, Portrait4DDataModule
from portraitzoo.methods.portrait4d.discriminator import DiscriminatorConfig
from portraitzoo.methods.portrait4d.encoders import GlobalEncoder, with_coordinates
from portraitzoo.methods.portrait4d.training import GMAIN, GREG, cross_parameters, let_through
from portraitzoo.methods.portrait4d.training_video import SETTLED, VideoTraining
from portraitzoo.training.history import History, read_history
from portraitzoo.training.sample_grid import SampleGrid


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("clips"), clips=3, size=SIZE)


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    return untrained(tmp_path_factory.mktemp("start") / "model")


def module(start: Path, **options) -> VideoTraining:
    seed_everything(0, verbose=False)
    given = {"discriminator": DISCRIMINATOR, "init_from": str(start), "losses": UNAIDED, "necks": "straight"}
    return VideoTraining(**(given | options))


def data(clips: Path, **options) -> Portrait4DDataModule:
    given = {"batch_size": 2, "num_workers": 0, "in_memory": True, "motion": "head"}
    return Portrait4DDataModule(str(clips), **(given | options))


@pytest.fixture(scope="module")
def run(clips, start, tmp_path_factory):
    """Five updates in one go, with a checkpoint of each and a sample grid."""
    root = tmp_path_factory.mktemp("run")
    training = module(start)
    before = weights_of(training)
    checkpoints = ModelCheckpoint(root / "checkpoints", "{step}", every_n_train_steps=1, save_top_k=-1, save_last=True)
    callbacks = [checkpoints, History(), SampleGrid(every=5, rows=2, columns=5)]
    trainer(root, 5, enable_checkpointing=True, callbacks=callbacks).fit(training, data(clips))
    return root, before, weights_of(training)


def test_every_network_moves_and_stays_finite_and_the_head_stays_itself(run):
    _, before, after = run
    for network in ("generator", "discriminator", "generator_ema"):
        names = [name for name in before if name.startswith(network + ".") and ".head." not in name]
        moved = [name for name in names if not torch.equal(before[name], after[name])]
        assert len(moved) > 0.8 * sum("noise_const" not in name for name in names)
    head = [name for name in before if "generator.head." in name]
    assert head and all(torch.equal(before[name], after[name]) for name in head)
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert after["num_samples"] == 10


def test_history_and_sample_grids_tell_what_happened(run):
    lines = read_history(run[0] / "history.jsonl")
    assert [line["update"] for line in lines] == [1, 2, 3, 4, 5]
    for name in ("generator/l1", "generator/mask", "generator/adversarial", "discriminator/real"):
        assert all(name in line for line in lines), name
    assert "discriminator_regulariser/correspondence" in lines[0] and "generator_regulariser/density" in lines[0]
    assert "generator/perceptual" not in lines[0]
    assert sorted(path.name for path in (run[0] / "samples").iterdir()) == ["000000.png", "000005.png"]


def test_stop_and_resume_equals_running_through(run, clips, start, tmp_path):
    resumed = module(start)
    trainer(tmp_path, 5).fit(resumed, data(clips), ckpt_path=run[0] / "checkpoints" / "step=3.ckpt")
    assert all(torch.equal(tensor, run[2][name]) for name, tensor in weights_of(resumed).items())


def test_parts_of_a_batch_add_up_to_the_whole(clips, start, tmp_path):
    losses = replace(UNAIDED, adversarial=0.0)
    moved = []
    for size in (None, 1):
        training = module(start, device_batch=size, losses=losses)
        trainer(tmp_path / str(size), 1).fit(training, data(clips))
        moved.append(weights_of(training))
    for name, tensor in moved[0].items():
        assert torch.allclose(tensor, moved[1][name], atol=1e-5), name


def test_it_learns_the_frames(clips, start, tmp_path):
    training = module(start, losses=replace(UNAIDED, adversarial=0.0), generator_lr=5e-3, generator_interval=100)
    trainer(tmp_path, 30).fit(training, data(clips))
    losses = [line["generator/loss"] for line in read_history(tmp_path / "history.jsonl")]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_a_run_is_a_model_and_something_to_start_from(run, clips, tmp_path):
    model = pz.load(run[0], device="cpu")
    expected = {name.removeprefix("generator_ema."): t for name, t in run[2].items() if "generator_ema." in name}
    ours = model.generator.state_dict()
    assert ours.keys() == expected.keys() and all(torch.equal(ours[name], expected[name]) for name in ours)
    publish(run[0], tmp_path / "published", licence="Apache-2.0")
    for source, parts in (tmp_path / "published", ("generator_ema.",)), (run[0], ("generator", "discriminator.")):
        again = VideoTraining(init_from=str(source), losses=UNAIDED)
        assert all(torch.equal(t, run[2][name]) for name, t in again.state_dict().items() if name.startswith(parts))
        assert again.num_samples == 0
    trainer(tmp_path, 1).predict(again, data(clips, predictions=1), return_predictions=False)
    assert len(pz.Clip.load(tmp_path / "predictions" / "000000.mp4")) == 48


def test_validation_learns_nothing_and_draws_the_same_every_time(run, clips, tmp_path):
    training = VideoTraining(init_from=str(run[0]), losses=UNAIDED)
    results = [trainer(tmp_path, 1).validate(training, data(clips, val_root=str(clips)), verbose=False)]
    results.append(trainer(tmp_path, 1).test(training, data(clips), verbose=False))
    first, second = ({name.split("/")[1]: value for name, value in result[0].items()} for result in results)
    assert first == second and {"loss", "l1", "mask"} <= set(first)


def test_discriminators_rest_until_their_time(clips, start, tmp_path):
    training = module(start, curriculum=replace(SETTLED, adversarial_from=4))
    before = weights_of(training)
    trainer(tmp_path / "one", 2).fit(training, data(clips))
    judge = [name for name in before if name.startswith("discriminator.")]
    assert all(torch.equal(before[name], training.state_dict()[name]) for name in judge)
    trainer(tmp_path / "two", 3).fit(later := module(start, curriculum=training.curriculum), data(clips))
    assert any(not torch.equal(before[name], later.state_dict()[name]) for name in judge)
    assert "generator/adversarial" in read_history(tmp_path / "two" / "history.jsonl")[-1]


def test_motion_layers_have_their_own_rate(start):
    training = module(start, cross_lr_scale=2.5, generator_lr=1e-4)
    rest, cross = training.configure_optimizers()[0].param_groups
    assert cross["lr"] == pytest.approx(2.5e-4 * 4 / 5) and rest["lr"] == pytest.approx(1e-4 * 4 / 5)
    assert rest["betas"] == pytest.approx((0.9**0.8, 0.999**0.8)) and rest["eps"] == 1e-5
    assert len(cross["params"]) == len(cross_parameters(training.generator)) == 2 * (4 + 2) + 2 * (2 + 6)
    assert len(rest["params"]) + len(cross["params"]) == len(list(training.generator.parameters()))


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A static teacher and a student that embeddings drive."""
    folder = tmp_path_factory.mktemp("taught")
    teacher = untrained(folder / "teacher", motion_dim=548, static=True)
    return teacher, untrained(folder / "student", motion_dim=548)


def pairs(clips: Path, count: int, first: int = 0, motion: str = "embedding") -> FramePairBatch:
    items = FramePairs(str(clips), SIZE, motion)
    return default_collate([items[first + place, (first + place) % len(items)] for place in range(count)])


def test_v2_learns_from_views_of_a_teacher(clips, taught, tmp_path):
    teacher, student = taught
    options = {"teacher": str(teacher), "perception": "random", "necks": "turned", "losses": UNAIDED}
    training = module(student, **options)
    before = training.teacher.on(training.device).state_dict()
    kept = {name: tensor.clone() for name, tensor in before.items()}
    trainer(tmp_path, 1).fit(training, data(clips, motion="embedding"))
    (line,) = read_history(tmp_path / "history.jsonl")
    assert line["generator_regulariser/multiview"] > 0 and line["generator/l1"] > 0
    assert all(torch.equal(kept[name], tensor) for name, tensor in before.items())
    assert not any(name.startswith("teacher") for name in training.state_dict())


def test_driving_motions_are_read_off_other_views_as_often_as_told(clips, taught):
    teacher, student = taught
    training = module(student, teacher=str(teacher), perception="random", novel_views=0.5)
    batch = pairs(clips, 8)
    task = training.task(batch, GMAIN)
    changed = (task.motion_drive != batch.driving_motion).any(dim=1)
    assert 0 < int(changed.sum()) < 8
    alone = training.task(pairs(clips, 1, first=3), GMAIN)
    torch.testing.assert_close(alone.motion_drive, task.motion_drive[3:4], atol=1e-4, rtol=1e-4)
    other = training.task(batch, GREG)
    assert not torch.equal(other.motion_drive, task.motion_drive)


def test_a_driving_frame_is_seen_as_its_camera_says(clips, start):
    batch = pairs(clips, 2, motion="head")
    turned, straight = (module(start, necks=necks).task(batch, GMAIN) for necks in ("turned", "straight"))
    torch.testing.assert_close(straight.camera.cam2world, straight.composed.cam2world, atol=1e-6, rtol=0)
    assert not straight.head.pose[:, :3].any() and turned.head.pose[:, :3].any()
    assert not torch.allclose(turned.camera.cam2world, turned.composed.cam2world, atol=1e-2)
    assert torch.equal(turned.head.shape, batch.source_label[:, 25:325])


def test_both_frames_are_of_one_clip_and_depend_on_the_position_alone(clips):
    items = FramePairs(str(clips), SIZE, motion="head")
    one, again, other = items[5, 1], items[5, 1], items[6, 1]
    assert torch.equal(one.driving, again.driving) and torch.equal(one.source_motion, again.source_motion)
    drawn = {(float(items[p, 1].source_label[428]), float(items[p, 1].driving_label[428])) for p in range(30)}
    assert len(drawn) > 5 and other.position == 6
    assert one.driving_motion.shape == (109,) and one.driving_motion[100] == one.driving_label[428]
    assert set(one.mask.unique().tolist()) == {-1.0, 1.0}


def test_bad_data_are_one_line_each(clips, start, tmp_path):
    with pytest.raises(MediaError, match="frames of 32 pixels, the network wants 64"):
        FramePairs(str(clips), 64)
    without = write_clips(tmp_path, "still", SIZE, [clip(0, SIZE, motions=0)])
    with pytest.raises(MediaError, match="no motion embeddings"):
        FramePairs(str(without), SIZE)[0, 0]
    with pytest.raises(MediaError, match="no LMDB folder"):
        FramePairs(str(tmp_path / "none_32_1"), SIZE)
    with pytest.raises(ZooError, match="the network wants 109"):
        trainer(tmp_path, 1).fit(module(start), data(clips, motion="embedding"))


def test_bad_settings_are_one_line_each(start, taught, tmp_path):
    with pytest.raises(ZooError, match="needs a parametric head"):
        VideoTraining()
    with pytest.raises(CheckpointError, match="motion_dim 548, the network 109"):
        module(start, teacher=str(taught[0]))
    with pytest.raises(CheckpointError, match="does not fit"):
        module(start, discriminator=None, network=replace(module(start).config, plane_width=64))


def test_missing_networks_are_told_before_training(clips, start, tmp_path, monkeypatch):
    monkeypatch.setenv("PORTRAITZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    training = module(start, losses=LossWeights(perceptual=0.0))
    with pytest.raises(WeightsUnavailableError, match="iresnet18-ms1mv3"):
        trainer(tmp_path, 1).fit(training, data(clips))


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_batch(clips, start, tmp_path):
    paths = {}
    for name, more in (("alone", {}), ("two", {"devices": 2, "strategy": "ddp_find_unused_parameters_true"})):
        root = tmp_path / name
        root.mkdir()
        keep = {"dirpath": str(root / "checkpoints"), "save_last": True, "every_n_train_steps": 1}
        callbacks = [
            {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": keep},
            {"class_path": "portraitzoo.training.history.History"},
        ]
        options = {"max_steps": 3, "accelerator": "cpu", "logger": False, "log_every_n_steps": 1}
        options |= {"default_root_dir": str(root), "callbacks": callbacks, "devices": 1} | more
        judge = {"image_resolution": SIZE, "channel_base": 128, "channel_max": 8, "mapping_layers": 2, "group_size": 1}
        settings = {"init_from": str(start), "discriminator": judge, "necks": "straight"}
        settings |= {"losses": {"perceptual": 0.0, "identity": 0.0}}
        recipe = {
            "trainer": options,
            "model": {
                "class_path": "portraitzoo.methods.portrait4d.training_video.VideoTraining",
                "init_args": settings,
            },
            "data": {
                "class_path": "portraitzoo.methods.portrait4d.data.Portrait4DDataModule",
                "init_args": {"root": str(clips), "batch_size": 2, "num_workers": 0, "motion": "head"},
            },
        }
        (root / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        command = [sys.executable, "-m", "portraitzoo.cli.main", "fit", "--config", str(root / "recipe.yaml")]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        paths[name] = root
    one, two = (read_history(root / "history.jsonl") for root in paths.values())
    for alone, both in zip(one, two, strict=True):
        for name, value in alone.items():
            assert both[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


RECIPES = {"v2-vfhq512": (512, 548), "toy": (512, 548), "tiny": (64, 109)}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_complete(name, capsys):
    with pytest.raises(SystemExit) as ended:
        fit(["--config", f"portrait4d/{name}", "--print_config"])
    assert not ended.value.code
    printed = yaml.safe_load(capsys.readouterr().out)
    settings = printed["model"]["init_args"]
    network = settings["network"]
    assert (network["image_resolution"], network["motion_dim"]) == RECIPES[name]
    if name != "tiny":
        assert settings["init_from"] == settings["teacher"] == "portrait4d-static-genhead512"
        assert settings["cross_lr_scale"] == 2.5 and settings["generator_interval"] == 4
        assert Curriculum(**settings["curriculum"]) == SETTLED
        assert LossWeights(**settings["losses"]) == LossWeights()


def test_the_recipe_of_fine_tuning_starts_from_the_tiny_model_too(capsys):
    own = ["--model.init_from", "portrait4d-tiny", "--data.motion", "head", "--model.necks", "straight"]
    with pytest.raises(SystemExit) as ended:
        fit(["--config", "portrait4d/finetune", *own, "--model.losses.perceptual", "0", "--print_config"])
    assert not ended.value.code
    settings = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert settings["network"] is None and settings["teacher"] is None and settings["losses"]["perceptual"] == 0


def test_half_precision_is_set_in_the_published_places(start):
    training = module(start, low_precision="bf16")
    lowered = {name for name, part in training.named_modules() if getattr(part, "low_precision", None)}
    assert {"generator.super_resolution.blocks.0", "discriminator.blocks.b32"} <= lowered
    assert not any(name.startswith("generator_ema") for name in lowered)


def test_a_discriminator_is_as_wide_as_its_reconstructor():
    assert DiscriminatorConfig.beside(Portrait4DConfig()) == DiscriminatorConfig()
    narrow = DiscriminatorConfig.beside(replace(Portrait4DConfig(), plane_width=256))
    assert (narrow.channel_base, narrow.channel_max) == (8192, 128)


def test_fresh_encoders_let_photos_through():
    encoder = GlobalEncoder(16, (16, 24, 32, 48), (2, 2, 2, 2), 16, (1, 2, 3))
    image = with_coordinates(torch.rand(2, 3, 64, 64) * 2 - 1)
    with torch.no_grad():
        before = float(encoder(image).std())
        let_through(encoder)
        after = float(encoder(image).std())
    assert before < 0.05 and 0.2 < after < 5
