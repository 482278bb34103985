"""Perceptual path length through ``evaluate``, and of PV3D."""

from pathlib import Path

import pytest
import torch
from evaluation_cases import NETWORKS, ToyModel, install_index, make_clips
from torch import Tensor

import portraitzoo as pz
from portraitzoo.errors import ZooError
from portraitzoo.media.images import to_uint8
from portraitzoo.metrics.evaluation import evaluate
from portraitzoo.metrics.features import feature_network
from portraitzoo.metrics.path_length import trimmed_mean
from portraitzoo.metrics.report import Report

EPSILON = 1e-2


class Walker(ToyModel):
    """Moves a picture by the step; in Z twice as far as in W."""

    def path_images(self, seed: int, epsilon: float, space: str) -> Tensor:
        assert not self.training
        generator = torch.Generator().manual_seed(seed)
        start, other = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
        return torch.stack([start, start + (2 if space == "z" else 1) * epsilon * (other - start)])


@pytest.fixture(autouse=True)
def tiny_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_index(tmp_path / "index", monkeypatch)


def measure(model, metrics, paths: int = 12) -> Report:
    overrides = {**NETWORKS, "paths": paths, "path_epsilon": EPSILON, "first_seed": 5}
    return evaluate(model, metrics=metrics, overrides=overrides, features="random", use_cache=False)


def test_value_is_that_of_the_steps() -> None:
    report = measure(Walker(), ["ppl", "ppl-z"])
    network = feature_network("lpips-vgg", "random")
    for name, space in (("ppl", "w"), ("ppl-z", "z")):
        steps = [Walker().eval().path_images(seed, EPSILON, space) for seed in range(5, 17)]
        distances = torch.cat([network(step[:1], step[1:]) for step in steps]).double() / EPSILON**2
        assert report.values[name] == pytest.approx(float(trimmed_mean(distances)), rel=1e-4)
    first, second = report.results
    assert second.value > first.value
    assert (first.generated, first.unit, first.extra) == (12, "paths", {"epsilon": EPSILON})
    assert [name for name, _ in first.items][:2] == ["Walker, seed 5", "Walker, seed 6"]
    assert report.real is None


def test_what_has_no_paths_is_said() -> None:
    with pytest.raises(ZooError, match="ToyModel has no perceptual path length"):
        measure(ToyModel(), "ppl")
    with pytest.raises(ZooError, match="clips in memory has no perceptual path length"):
        measure(make_clips(2), "ppl")

    class Broken(Walker):
        def path_images(self, seed: int, epsilon: float, space: str) -> Tensor:
            return super().path_images(seed, epsilon, space) * (torch.nan if seed == 7 else 1)

    with pytest.raises(ZooError, match="Broken, seed 7 gives pictures with NaN"):
        measure(Broken(), "ppl")

    class Single(Walker):
        def path_images(self, seed: int, epsilon: float, space: str) -> Tensor:
            return super().path_images(seed, epsilon, space)[0]

    with pytest.raises(ZooError, match=r"gives \[3, 32, 32\] where a path needs"):
        measure(Single(), "ppl")


def test_a_step_of_pv3d_begins_at_a_frame_of_its_own() -> None:
    model = pz.load("pv3d-tiny", device="cpu")
    images = {space: model.path_images(3, 1e-3, space) for space in ("w", "z")}
    frame = model.sample(3, 1, conditioning="canonical").frames
    for steps in images.values():
        assert steps.shape[:2] == (2, 3)
        assert (to_uint8(steps[:1]).int() - frame.int()).abs().max() <= 1  # rounding of a batch of two
        assert 0 < (steps[1] - steps[0]).abs().max() < 0.1
    assert not torch.equal(images["w"][1], images["z"][1])
