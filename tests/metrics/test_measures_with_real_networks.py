"""Protocols of the systems through ``evaluate`` with the networks that they name, their weights random."""

import math

import pytest
import torch
from evaluation_cases import make_clips
from torch import Tensor

from portraitzoo.media.clip import Clip
from portraitzoo.metrics.evaluation import evaluate
from portraitzoo.metrics.report import Report

pytestmark = pytest.mark.slow


def noise_clips(count: int, frames: int, seed: int = 0) -> list[Clip]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Clip(torch.randint(0, 256, (frames, 40, 40, 3), dtype=torch.uint8, generator=generator)) for _ in range(count)
    ]


def measure(generated: list[Clip], real: list[Clip] | None, protocol: str, **options) -> Report:
    report = evaluate(generated, real, protocol=protocol, features="random", use_cache=False, **options)
    assert all(math.isfinite(value) for value in report.values.values())
    assert not report.comparable
    return report


def networks(report: Report) -> list[str]:
    return [result.network["name"].removesuffix(" (random weights)") for result in report.results]


def test_both_lineages_of_fvd() -> None:
    ours, theirs = noise_clips(2, 16), noise_clips(2, 17, seed=1)
    stylegan_v = measure(ours, theirs, "threedvidgen-fvd2048_16f", num_clips=2, overrides={"size": 64})
    assert networks(stylegan_v) == ["i3d-stylegan-v"]
    assert stylegan_v.results[0].doubt
    videogpt = measure(ours, theirs, "quick", metrics="fvd")
    assert networks(videogpt) == ["i3d-videogpt"]


def test_a_long_clip_by_every_eighth_frame() -> None:
    ours, theirs = noise_clips(2, 128), noise_clips(2, 130, seed=1)
    report = measure(ours, theirs, "threedvidgen-fvd2048_128f_subsample8f", num_clips=2, overrides={"size": 32})
    taken = [Clip(clip.frames[:128:8]) for clip in ours]
    short = measure(taken, theirs, "threedvidgen-fvd2048_128f_subsample8f", num_clips=2, metrics="video-is",
                    overrides={"size": 32, "frame_stride": 1, "splits": 1})  # fmt: skip
    again = measure(ours, theirs, "threedvidgen-fvd2048_128f_subsample8f", num_clips=2, metrics="video-is",
                    overrides={"size": 32, "splits": 1})  # fmt: skip
    assert report.values["fvd"] > 0
    assert short.values == pytest.approx(again.values, rel=1e-5)


def test_sets_of_images() -> None:
    ours, theirs = noise_clips(1, 12), noise_clips(1, 14, seed=1)
    report = measure(
        ours, theirs, "genhead-pr50k3-full", num_clips=12, metrics="precision,recall,density,coverage,kid,is",
        overrides={"kid_subsets": 2, "splits": 2},
    )  # fmt: skip
    assert networks(report) == ["vgg16-fc2"] * 4 + ["inception-2015-12-05"] * 2
    assert [result.generated for result in report.results] == [12] * 6
    assert report.results[0].extra["half"]


@pytest.mark.parametrize("network", ["arcface-ir-se50", "iresnet18-ms1mv3", "iresnet50-ms1mv3"])
def test_identity_by_every_network(network: str) -> None:
    person = make_clips(1, num_frames=2)
    report = measure(
        person, person, "self-reenactment", metrics="id-similarity", overrides={"identity_network": network}
    )
    assert networks(report) == [network]
    assert report.values["id-similarity"] == pytest.approx(1, abs=1e-5)


def test_pairs_of_a_published_protocol() -> None:
    targets = noise_clips(2, 3)

    def spoilt(frames: Tensor) -> Tensor:
        return (frames * 0.9).to(torch.uint8)

    report = measure([Clip(spoilt(clip.frames)) for clip in targets], targets, "self-reenactment")
    assert list(report.values) == ["psnr", "ssim", "lpips-alex", "l1", "id-similarity"]
    masks = [Clip(clip.frames, maps={"mask": torch.ones(3, 40, 40)}) for clip in targets]
    npva = measure([Clip(spoilt(clip.frames)) for clip in targets], masks, "npva")
    assert list(npva.values) == ["psnr-full", "lpips-vgg"]
    assert npva.values["psnr-full"] == pytest.approx(report.results[0].extra["psnr_of_mean"], rel=1e-5)
