"""Training Portrait4D and its static form on heads that a small GenHead makes up."""

from dataclasses import replace
from pathlib import Path

import genhead_toys
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from portrait4d_trainings import DISCRIMINATOR, NETWORK, SIZE, UNAIDED
from torch.utils.data import default_collate
from training_runs import trainer, weights_of

import portraitzoo as pz
from portraitzoo.cli.recipes import fit
from portraitzoo.errors import CheckpointError, MediaError, ZooError
from portraitzoo.methods.genhead.cameras import label_of, placed
from portraitzoo.methods.genhead.model import GenHead
from portraitzoo.methods.genhead.motions import identity_shape, motion_rows
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.curriculum import Curriculum, LossWeights
from portraitzoo.methods.portrait4d.discriminator import DiscriminatorConfig
from portraitzoo.methods.portrait4d.encoders import GlobalEncoder
from portraitzoo.methods.portrait4d.imagenet import start_from_imagenet
from portraitzoo.methods.portrait4d.pools import HeadBatch, ParameterPools, PoolsDataModule
from portraitzoo.methods.portrait4d.training import DMAIN, GMAIN
from portraitzoo.methods.portrait4d.training_synthetic import SyntheticTraining
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.volume import EVEN
from portraitzoo.training.history import History, read_history

RESOLUTION = 12
CURRICULUM = Curriculum(
    geometry_until=4, identity_from=100, adversarial_from=4, render_start=6, render_end=8, growth_start=2, growth_end=6
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pools(tmp_path_factory) -> Path:
    """Pools of four photos and of two clips of three frames."""
    folder = tmp_path_factory.mktemp("pools")
    for name, count in (("ffhq", 4), ("vfhq", 2)):
        cameras = label_of(placed(Camera.look_at(torch.linspace(-0.3, 0.3, count), 0.1)))
        shapes = torch.cat([identity_shape(seed) for seed in range(count)])
        np.save(folder / f"{name}_all_shape_n_c_params.npy", torch.cat([cameras, shapes], dim=1).numpy())
    photos = torch.cat([motion_rows("still", seed, 1) for seed in range(4)])
    np.save(folder / "ffhq_all_motion_params.npy", photos.unflatten(0, (2, 2)).numpy())
    clips = torch.stack([motion_rows("random", seed, 30)[::10] for seed in range(2)])
    np.save(folder / "vfhq_all_motion_params.npy", clips.numpy())
    return folder


@pytest.fixture(scope="module")
def genhead(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("genhead") / "model"
    seed_everything(0, verbose=False)
    model = GenHead(replace(genhead_toys.SMALL, image_resolution=SIZE, super_resolution_channels=(8,), samples=6))
    model.generator.head.load_state_dict(genhead_toys.toy_head().state_dict())
    with torch.no_grad():
        model.generator.decoder.output.weight[0].normal_(std=6)
        model.generator.decoder.output.bias[0] = 3
    model.save_pretrained(folder)
    return folder


def module(genhead: Path, static: bool = False, **options) -> SyntheticTraining:
    seed_everything(0, verbose=False)
    given = {"network": replace(NETWORK, static=static), "discriminator": DISCRIMINATOR, "losses": UNAIDED}
    given |= {"motion": "head", "curriculum": CURRICULUM, "synthesis_resolution": RESOLUTION}
    return SyntheticTraining(str(genhead), **(given | options))


def data(pools: Path, **options) -> PoolsDataModule:
    return PoolsDataModule(str(pools), **({"batch_size": 2, "num_workers": 0} | options))


def batch_of(pools: Path, count: int, first: int = 0) -> HeadBatch:
    heads = ParameterPools(str(pools))
    return default_collate([heads[first + place, place % len(heads)] for place in range(count)])


@pytest.fixture(scope="module")
def run(pools, genhead, tmp_path_factory):
    """Four updates in one go, with a checkpoint of each."""
    root = tmp_path_factory.mktemp("run")
    training = module(genhead)
    before = weights_of(training)
    checkpoints = ModelCheckpoint(root / "checkpoints", "{step}", every_n_train_steps=1, save_top_k=-1, save_last=True)
    trainer(root, 4, enable_checkpointing=True, callbacks=[checkpoints, History()]).fit(training, data(pools))
    return root, before, weights_of(training)


def test_losses_come_and_go_as_the_curriculum_says(run):
    lines = read_history(run[0] / "history.jsonl")
    assert {"generator/depth", "generator/features", "generator/planes"} <= set(lines[0])
    assert [line["schedule/depth"] for line in lines] == [1, 1, 0, 0]
    judged = {"generator/adversarial", "discriminator/loss"}
    assert not any(judged & set(line) for line in lines[:2]) and all(judged <= set(line) for line in lines[2:])
    assert [line["schedule/render_resolution"] for line in lines] == [6, 6, 7, 8]
    assert all(torch.isfinite(tensor).all() for tensor in run[2].values())


def test_stop_and_resume_equals_running_through(run, pools, genhead, tmp_path):
    resumed = module(genhead)
    trainer(tmp_path, 4).fit(resumed, data(pools), ckpt_path=run[0] / "checkpoints" / "step=2.ckpt")
    assert all(torch.equal(tensor, run[2][name]) for name, tensor in weights_of(resumed).items())


def test_a_run_animates_and_predicts(run, pools, genhead, tmp_path):
    assert pz.load(run[0], device="cpu").config.head == module(genhead).config.head
    training = module(genhead, network=None, init_from=str(run[0]))
    trainer(tmp_path, 1).predict(training, data(pools, predictions=1), return_predictions=False)
    assert (tmp_path / "predictions" / "000000.mp4").exists()
    first, second = (trainer(tmp_path, 1).test(training, data(pools), verbose=False) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("static", [False, True])
def test_it_learns_the_heads(pools, genhead, tmp_path, static):
    late = Curriculum(10**6, 10**6, 10**6, None, None, 0, 0)
    training = module(genhead, static, curriculum=late, generator_lr=3e-3, generator_interval=100)
    batch = batch_of(pools, 4)

    def distance() -> float:
        with torch.no_grad():
            loss = training.objective.generator_main(training.task(batch, GMAIN), training.stage, EVEN)
        return float(loss.total)

    before = distance()
    trainer(tmp_path, 15).fit(training, data(pools, static=static))
    assert distance() < 0.9 * before


def test_a_static_network_ignores_motions(pools, genhead, tmp_path):
    training = module(genhead, static=True)
    before = weights_of(training)
    trainer(tmp_path, 2).fit(training, data(pools, static=True))
    assert not training.task(batch_of(pools, 2), GMAIN).scale.any()
    motion = [name for name in before if ".source_motion." in name or ".drive_motion." in name]
    assert motion and all(torch.equal(before[name], training.state_dict()[name]) for name in motion)


def test_a_task_shows_one_head_and_is_the_same_in_any_company(pools, genhead):
    training = module(genhead)
    batch = batch_of(pools, 3)
    together, alone = training.task(batch, GMAIN), training.task(batch_of(pools, 1), DMAIN)
    for name in ("image", "motion_source", "motion_drive", "scale"):
        torch.testing.assert_close(getattr(together, name)[:1], getattr(alone, name), atol=1e-5, rtol=1e-5)
    known, wanted = together.target.synthesised, alone.target.synthesised
    torch.testing.assert_close(known.points[:1], wanted.points, atol=1e-5, rtol=1e-5)
    assert together.scale.flatten().tolist() == [1, 0, 1]
    assert torch.equal(together.motion_source[1], together.motion_drive[1])
    assert not torch.equal(together.motion_source[0], together.motion_drive[0])
    assert not together.head.pose[:, :3].any() and not torch.equal(together.image, together.target.image)
    assert known.depth.shape == (3, 1, RESOLUTION, RESOLUTION) and known.points.shape == (3, 4000, 3)
    assert known.point_features.shape == (3, 4000, NETWORK.plane_channels)
    assert float(known.points.norm(dim=-1).max()) < 1.3 * 2


def test_draws_of_the_pools_follow_their_rules(pools):
    heads = ParameterPools(str(pools))
    drawn = [heads[position, position % len(heads)] for position in range(200)]
    assert all(item.moves == (item.position % 2 == 0) for item in drawn)
    motions = torch.stack([item.motions for item in drawn])
    assert len(heads.clips) == 2 and len(heads.still) == 4
    assert not motions[:, :, 100:103].any()
    assert torch.equal(motions[1::2, 0], motions[1::2, 1])
    own = torch.isin(motions[:, :, 103], torch.cat([heads.still[:, 103], torch.cat(heads.clips)[:, 103]]))
    assert 0.4 < own.float().mean() < 0.65 and (motions[:, :, 103][~own] <= 0.2).all()
    cameras = torch.stack([item.cameras for item in drawn]).flatten(0, 1)
    pooled = (cameras[:, None] == heads.rows[None, :, :25]).all(-1).any(-1)
    assert 0.4 < pooled.float().mean() < 0.6
    distance = cameras[~pooled].unflatten(1, (-1,))[:, [3, 7, 11]].norm(dim=1)
    assert float(distance.min()) > 3.6 and float(distance.max()) < 4.5
    assert not ParameterPools(str(pools), static=True)[0, 0].moves


def test_bad_pools_and_settings_are_one_line_each(pools, genhead, tmp_path):
    with pytest.raises(MediaError, match="holds no"):
        ParameterPools(str(tmp_path))
    for path in pools.glob("ffhq*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(MediaError, match="those of videos"):
        ParameterPools(str(tmp_path))
    assert len(ParameterPools(str(tmp_path), static=True)) == 4
    np.save(tmp_path / "ffhq_all_shape_n_c_params.npy", np.full((3, 325), np.nan, np.float32))
    with pytest.raises(ZooError, match="NaN"):
        ParameterPools(str(tmp_path), static=True)
    with pytest.raises(CheckpointError, match="plane_channels"):
        module(genhead, network=replace(NETWORK, plane_channels=4))
    with pytest.raises(ZooError, match="motions have 109"):
        module(genhead, network=replace(NETWORK, motion_dim=20)).task(batch_of(pools, 1), GMAIN)


@pytest.mark.parametrize("name", ["genhead512", "static-genhead512"])
def test_recipes_are_complete(name, capsys):
    with pytest.raises(SystemExit) as ended:
        fit(["--config", f"portrait4d/{name}", "--print_config"])
    assert not ended.value.code
    printed = yaml.safe_load(capsys.readouterr().out)
    settings = printed["model"]["init_args"]
    static = name.startswith("static")
    assert settings["network"]["static"] == printed["data"]["init_args"]["static"] == static
    assert Curriculum(**settings["curriculum"]) == Curriculum() and LossWeights(**settings["losses"]) == LossWeights()
    assert settings["truncation_psi"] == 0.95 and settings["generator_interval"] == 16
    assert printed["data"]["init_args"]["batch_size"] == 32
    assert settings["discriminator"] is None and DiscriminatorConfig().group_size == 2


def resnet34(stem: int = 64) -> dict[str, torch.Tensor]:
    """Tensors with the names and shapes of torchvision's file."""
    tensors = {"conv1.weight": torch.randn(stem, 3, 7, 7), "bn1.weight": torch.ones(64), "fc.bias": torch.zeros(1000)}
    before = 64
    for stage, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for block in range(depth):
            name = f"layer{stage}.{block}"
            tensors[f"{name}.conv1.weight"] = torch.randn(width, before, 3, 3)
            tensors[f"{name}.conv2.weight"] = torch.randn(width, width, 3, 3)
            if before != width:
                tensors[f"{name}.downsample.0.weight"] = torch.randn(width, before, 1, 1)
            before = width
    return tensors


def test_the_global_encoder_starts_from_imagenet(tmp_path):
    official, path = resnet34(), tmp_path / "resnet34.pth"
    torch.save(official, path)
    sizes = Portrait4DConfig()
    stages = (sizes.global_stem, sizes.global_widths, sizes.global_depths)
    encoder = GlobalEncoder(*stages, 8, (1, 2, 3))
    start_from_imagenet(encoder, path)
    assert torch.equal(encoder.stages["layer3"][0].shortcut.weight, official["layer3.0.downsample.0.weight"])
    assert torch.equal(encoder.stages["layer4"][2].conv2.weight, official["layer4.2.conv2.weight"])
    torch.testing.assert_close(encoder.stem.weight, official["conv1.weight"][:, [0, 1, 2, 0, 1]] * 0.6)
    torch.save(resnet34(stem=32), path)
    with pytest.raises(CheckpointError, match="only the official size"):
        start_from_imagenet(encoder, path)
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="no ResNet-34"):
        start_from_imagenet(encoder, path)
