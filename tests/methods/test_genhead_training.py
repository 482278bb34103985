"""Training GenHead end to end around a made-up head, at a size that takes a fraction of a second per update."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from genhead_toys import SMALL, toy_head
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file
from training_runs import trainer, weights_of

import portraitzoo as pz
from portraitzoo.cli.recipes import fit
from portraitzoo.errors import CheckpointError, MediaError, ZooError
from portraitzoo.faces.flame_head import FlameHead
from portraitzoo.faces.flame_parameters import SIZES
from portraitzoo.hub.publishing import publish
from portraitzoo.media.portrait_lmdb import PortraitRecord, write_portraits
from portraitzoo.methods.genhead.cameras import label_of, placed
from portraitzoo.methods.genhead.data import GenHeadDataModule
from portraitzoo.methods.genhead.discriminator import DiscriminatorConfig
from portraitzoo.methods.genhead.model import GenHead
from portraitzoo.methods.genhead.motions import identity_shape, motion_rows
from portraitzoo.methods.genhead.training import GenHeadTraining, straight_heads
from portraitzoo.rendering.cameras import Camera
from portraitzoo.training.history import History, read_history
from portraitzoo.training.sample_grid import SampleGrid
from portraitzoo.training.schedules import Schedules

SIZE = 32
NETWORK = replace(
    SMALL,
    image_resolution=SIZE,
    plane_resolution=16,
    plane_channels=6,
    background_resolution=8,
    super_resolution_channels=(8,),
    samples=6,
    render_resolution=8,
)
DISCRIMINATOR = {"image_resolution": SIZE, "channel_base": 128, "channel_max": 8}


def records(count: int, size: int = SIZE):
    """Photos of coloured noise around a disc, with labels of made-up heads."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    disc = (x.square() + y.square() < 0.4)[..., None].expand(-1, -1, 3)
    cameras = label_of(placed(Camera.look_at(torch.linspace(-0.4, 0.4, count), 0.1)))
    for index in range(count):
        noise = torch.randint(0, 255, (size, size, 3), dtype=torch.uint8, generator=generator)
        label = torch.cat([cameras[index], identity_shape(index)[0], motion_rows("still", index, 1)[0]])
        image = torch.where(disc, noise, torch.tensor([40, 80, 160], dtype=torch.uint8))
        yield PortraitRecord(image, disc.to(torch.uint8) * 255, label, None)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_portraits(tmp_path_factory.mktemp("photos"), "toys", SIZE, records(5))


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """An untrained model around the made-up head, which runs start from."""
    folder = tmp_path_factory.mktemp("start") / "model"
    seed_everything(0, verbose=False)
    model = GenHead(NETWORK)
    model.generator.head.load_state_dict(toy_head().state_dict())
    model.save_pretrained(folder)
    return folder


def module(start: Path, **options) -> GenHeadTraining:
    seed_everything(0, verbose=False)
    options = {"discriminator": DiscriminatorConfig(**DISCRIMINATOR, group_size=2), "init_from": str(start)} | options
    return GenHeadTraining(**options)


def data(photos, **options) -> GenHeadDataModule:
    return GenHeadDataModule(str(photos), **{"batch_size": 2, "num_workers": 0, "in_memory": True} | options)


@pytest.fixture(scope="module")
def run(photos, start, tmp_path_factory):
    """Five updates in one go, with a checkpoint of each and a sample grid."""
    root = tmp_path_factory.mktemp("run")
    training = module(start)
    before = weights_of(training)
    checkpoints = ModelCheckpoint(root / "checkpoints", "{step}", every_n_train_steps=1, save_top_k=-1, save_last=True)
    callbacks = [checkpoints, History(), SampleGrid(every=5, rows=1, columns=2)]
    trainer(root, 5, enable_checkpointing=True, callbacks=callbacks).fit(training, data(photos))
    return root, before, weights_of(training)


def test_every_network_moves_and_stays_finite_and_the_head_stays_itself(run):
    _, before, after = run
    for network in ("generator", "discriminator", "generator_ema"):
        names = [name for name in before if name.startswith(network + ".") and ".head." not in name]
        moved = [name for name in names if not torch.equal(before[name], after[name])]
        assert len(moved) > 0.8 * sum("noise_const" not in name for name in names)
    head = [name for name in before if ".head." in name]
    assert head and all(torch.equal(before[name], after[name]) for name in head)
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert after["num_samples"] == 10


def test_history_tells_losses_scores_and_schedules(run):
    root, *_ = run
    lines = read_history(root / "history.jsonl")
    assert [line["update"] for line in lines] == [1, 2, 3, 4, 5]
    losses = {f"generator/{name}_{part}" for name in ("face_in", "distortion") for part in ("eyes", "mouth")}
    for name in {*losses, "generator/loss", "discriminator/loss", "discriminator/real", "schedule/ema_beta"}:
        assert all(name in line for line in lines), name
    assert {"generator_regulariser/variation", "discriminator_regulariser/correspondence"} <= lines[0].keys()
    assert lines[0]["schedule/blur_sigma"] == 10
    assert lines[1]["schedule/blur_sigma"] == pytest.approx(10 * (1 - 2 / 12500))


def test_sample_grids_are_written_and_a_checkpoint_holds_only_plain_values(run):
    root, _, after = run
    assert sorted(path.name for path in (root / "samples").iterdir()) == ["000000.png", "000005.png"]
    checkpoint = torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["portraitzoo"]["network"]["head"]["vertices"] == NETWORK.head.vertices
    assert all(torch.equal(checkpoint["state_dict"][name], after[name]) for name in after)


@pytest.mark.parametrize("stopped_at", [1, 4])
def test_stop_and_resume_equals_running_through(run, photos, start, tmp_path, stopped_at):
    root, _, through = run
    resumed = module(start)
    trainer(tmp_path, 5).fit(resumed, data(photos), ckpt_path=root / "checkpoints" / f"step={stopped_at}.ckpt")
    for name, tensor in weights_of(resumed).items():
        assert torch.equal(tensor, through[name]), name


def test_workers_draw_what_the_main_process_draws(run, photos, start, tmp_path):
    _, _, through = run
    training = module(start)
    trainer(tmp_path, 5).fit(training, data(photos, num_workers=1, in_memory=False))
    for name, tensor in weights_of(training).items():
        assert torch.equal(tensor, through[name]), name


def test_a_batch_in_parts_is_that_batch(photos, start, tmp_path):
    # What depends on how a batch is split: minibatch deviations and swapped conditions.
    options = {
        "discriminator": DiscriminatorConfig(**DISCRIMINATOR, group_size=1),
        "schedules": Schedules(swap_start=0.0, swap_end=0.0, blur_batch="global"),
        "noise": "const",
    }
    losses = []
    for device_batch in (None, 2):
        root = tmp_path / str(device_batch)
        training = module(start, device_batch=device_batch, **options)
        trainer(root, 1).fit(training, data(photos, batch_size=4))
        losses.append(weights_of(training))
    whole, parts = losses
    name = "discriminator.blocks.b32.conv1.weight"
    assert torch.allclose(whole[name], parts[name], atol=1e-3)
    assert parts["num_samples"] == 4


def test_the_discriminator_learns_to_tell_noise_from_photos(photos, start, tmp_path):
    training = module(start, discriminator_lr=0.01, generator_lr=0.0, schedules=Schedules(blur_sigma=0.0))
    trainer(tmp_path, 25).fit(training, data(photos))
    losses = [line["discriminator/loss"] for line in read_history(tmp_path / "history.jsonl")]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_validation_learns_nothing_and_draws_the_same_every_time(run, photos, tmp_path):
    root, *_ = run
    training = GenHeadTraining(init_from=str(root / "checkpoints" / "last.ckpt"))
    before = weights_of(training)
    results = [trainer(tmp_path, 1).validate(training, data(photos, val_root=str(photos)), verbose=False)]
    results.append(trainer(tmp_path, 1).test(training, data(photos), verbose=False))
    first, second = ({name.split("/")[1]: value for name, value in result[0].items()} for result in results)
    assert first == second
    assert {"loss", "real", "fake"} <= set(first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.state_dict().items())


def test_published_it_samples_without_its_head_and_is_fine_tuned(run, tmp_path, monkeypatch):
    root, *_ = run
    published = publish(root, tmp_path / "published", licence="Apache-2.0", trainable=True).folder
    assert not any(".head." in name for name in load_file(published / "training.safetensors")), "the model has it"
    for blocked in ("anny", "anny.paths"):
        monkeypatch.setitem(sys.modules, blocked, None)
    clip = pz.load(published, device="cpu").sample(seed=1, num_frames=1, motion="random")
    assert clip.frames.shape == (1, SIZE, SIZE, 3)
    expected, ours = (GenHeadTraining(init_from=str(start)) for start in (root, published))
    assert ours.discriminator_config == expected.discriminator_config
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in expected.state_dict().items())


def test_generated_heads_are_those_of_other_photos_and_have_straight_necks(photos):
    module = data(photos, image_resolution=16)
    drawn = module.open(str(photos), training=True)
    labels = torch.stack([drawn.label(index) for index in range(5)])
    for position in range(3):
        sample = drawn[position, position]
        assert sample.image.shape == (3, 16, 16) and sample.segmentation.shape == (1, 16, 16)
        assert all((label == labels).all(1).any() for label in sample.generated_labels)
        assert torch.equal(sample.generated_labels, drawn[position, 0].generated_labels), "the place decides"
    chosen = torch.cat([drawn[position, 0].generated_labels for position in range(20)])
    assert len(chosen.unique(dim=0)) == 5
    heads = straight_heads(labels)
    assert not heads.pose[:, :3].any() and heads.pose[:, 3:].any()


def test_what_it_starts_from_has_to_fit(run):
    root, *_ = run
    with pytest.raises(CheckpointError, match="does not fit"):
        GenHeadTraining(network=replace(NETWORK, channel_max=4), init_from=str(root))


def test_another_head_than_that_of_the_weights_is_refused(start, monkeypatch):
    monkeypatch.setattr("portraitzoo.methods.genhead.training.load_flame", toy_head)
    assert module(start, head="flame").config.head == NETWORK.head
    monkeypatch.setattr("portraitzoo.methods.genhead.training.load_flame", lambda: FlameHead(NETWORK.head))
    with pytest.raises(ZooError, match="another head"):
        module(start, head="flame")


def test_without_flames_files_one_line_tells_where_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("PORTRAITZOO_FLAME", str(tmp_path))
    with pytest.raises(ZooError, match="FLAME's files are not complete") as caught:
        GenHeadTraining(network=NETWORK)
    assert "\n" not in str(caught.value)


def test_damaged_data_are_refused_in_one_line(tmp_path):
    nan = write_portraits(tmp_path, "nan", SIZE, records(2))
    expression = motion_rows("still", 1, 1)[0, : SIZES["expression"]].numpy().tobytes()
    content = (nan / "data.mdb").read_bytes()
    (nan / "data.mdb").write_bytes(content.replace(expression, np.full(SIZES["expression"], np.nan, "f4").tobytes()))
    cut = write_portraits(tmp_path, "cut", SIZE, records(3))
    content = (cut / "data.mdb").read_bytes()
    (cut / "data.mdb").write_bytes(content[: len(content) // 3])
    for broken in (nan, cut, tmp_path / "missing_32_3"):
        with pytest.raises(MediaError) as caught:
            data(broken, image_resolution=SIZE).open(str(broken), training=True)
        assert "\n" not in str(caught.value)


def test_half_precision_is_set_in_the_published_places(start):
    training = module(start, low_precision="bf16")
    lowered = {name for name, part in training.named_modules() if getattr(part, "low_precision", None)}
    assert "generator.super_resolution.blocks.0" in lowered
    assert "generator.background.synthesis.blocks.b8" in lowered
    assert "discriminator.blocks.b32" in lowered
    assert not any(name.startswith(("generator_ema", "generator.backbone")) for name in lowered)
    assert "generator.background.synthesis.blocks.b4" not in lowered


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_updates_on_a_gpu_in_half_precision_stay_finite(photos, start, tmp_path):
    training = module(start, low_precision="bf16")
    trainer(tmp_path, 3, accelerator="gpu").fit(training, data(photos))
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(training).values())
    losses = [line["generator/loss"] for line in read_history(tmp_path / "history.jsonl")]
    assert len(losses) == 3 and np.isfinite(losses).all()


@pytest.mark.parametrize("name", ["ffhq512", "toy", "finetune", "tiny"])
def test_recipes_are_complete(name, capsys):
    with pytest.raises(SystemExit) as ended:
        fit(["--config", f"genhead/{name}", "--print_config"])
    assert not ended.value.code
    settings = yaml.safe_load(capsys.readouterr().out)
    model = settings["model"]["init_args"]
    assert model["schedules"]["blur_batch"] == "global"
    if name in ("ffhq512", "toy"):
        assert (model["network"]["channel_base"], model["network"]["render_resolution"]) == (32768, 64)
        assert (model["losses"]["r1_correspondence"], model["losses"]["transparency"]) == (10.0, 100.0)
        assert (model["generator_lr"], model["discriminator_lr"]) == (0.0025, 0.002)
        assert (model["schedules"]["swap_fade"], model["schedules"]["blur_fade"]) == (1e6, 2e5)
    if name == "ffhq512":
        assert settings["data"]["init_args"]["batch_size"] * settings["trainer"]["max_steps"] == 25_000_000


def recipe(root: Path, photos: Path, start: Path, steps: int) -> Path:
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
            "callbacks": [{"class_path": "portraitzoo.training.history.History"}],
        },
        "model": {
            "class_path": "portraitzoo.methods.genhead.training.GenHeadTraining",
            "init_args": {
                "init_from": str(start),
                "discriminator": DISCRIMINATOR | {"group_size": 1},
                "schedules": {"swap_start": 0.0, "swap_end": 0.0, "blur_batch": "global"},
                "noise": "const",
            },
        },
        "data": {
            "class_path": "portraitzoo.methods.genhead.data.GenHeadDataModule",
            "init_args": {"root": str(photos), "batch_size": 4, "num_workers": 0},
        },
    }
    root.mkdir(parents=True, exist_ok=True)
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_batch(photos, start, tmp_path):
    alone, two = tmp_path / "alone", tmp_path / "two"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "portraitzoo.cli.main", "fit", "--config"]
    more = ["--trainer.devices", "2", "--trainer.strategy", "ddp_find_unused_parameters_true"]
    for root, options in ((alone, []), (two, more)):
        path = recipe(root, photos, start, 4)
        subprocess.run([*command, str(path), *options], check=True, env=environment, capture_output=True)
    expected, ours = (read_history(root / "history.jsonl") for root in (alone, two))
    assert [line["update"] for line in ours] == [1, 2, 3, 4]
    for update, (one, both) in enumerate(zip(expected, ours, strict=True)):
        assert one.keys() == both.keys()
        values, others = (np.array([line[name] for name in sorted(one)]) for line in (one, both))
        # Adam without momentum turns rounding of the smallest gradients into steps of full size.
        np.testing.assert_allclose(others, values, rtol=1e-4 if update == 0 else 2e-2, atol=1e-4)
