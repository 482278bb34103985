"""Measures of whole sets through ``evaluate``: values are those of their functions on the features of the clips."""

from pathlib import Path

import pytest
import torch
from evaluation_cases import NETWORKS, TinyImage, install_index, make_clips
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.metrics.evaluation import evaluate
from portraitzoo.metrics.features import feature_network
from portraitzoo.metrics.frechet import FeatureStatistics
from portraitzoo.metrics.inception_score import inception_score, video_inception_score
from portraitzoo.metrics.kid import kernel_inception_distance
from portraitzoo.metrics.measures import measures_named
from portraitzoo.metrics.precision_recall import manifold_shares
from portraitzoo.metrics.protocols import published_protocols
from portraitzoo.metrics.report import Report

SETS = ("fid", "kid", "is", "video-is", "precision", "recall", "density", "coverage")


@pytest.fixture(autouse=True)
def tiny_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_index(tmp_path / "index", monkeypatch)


def measure(generated, real=None, *, overrides=None, **options) -> Report:
    chosen = {**NETWORKS, **(overrides or {})}
    return evaluate(generated, real, overrides=chosen, features="random", use_cache=False, **options)


def image_rows(clips: list[Clip]) -> Tensor:
    return feature_network("tiny-image", "random")(torch.cat([clip.frames for clip in clips]))


def test_values_are_those_of_the_functions() -> None:
    ours, theirs = make_clips(12), make_clips(11, first=100)
    report = measure(ours, theirs, metrics=SETS, overrides={"kid_subset_size": 50, "kid_subsets": 7, "kid_seed": 3})
    rows, others = image_rows(ours), image_rows(theirs)
    kid, spread = kernel_inception_distance(others, rows, num_subsets=7, max_subset_size=50, seed=3)
    scores = inception_score((3 * rows).softmax(1))
    actions = feature_network("tiny-actions", "random")(torch.stack([clip.frames for clip in ours]))
    expected = {
        "kid": kid,
        "is": scores[0],
        "video-is": video_inception_score(actions)[0],
        **manifold_shares(others, rows)._asdict(),
    }
    for name, value in expected.items():
        assert report.values[name] == pytest.approx(float(value), rel=1e-5), name
    stds = {result.metric: result.std for result in report.results}
    assert stds["kid"] == pytest.approx(float(spread), rel=1e-5)
    assert stds["is"] == pytest.approx(float(scores[1]), rel=1e-4)
    counted = {result.metric: (result.generated, result.real, result.unit) for result in report.results}
    assert counted["kid"] == (192, 176, "images")
    assert counted["is"] == (192, None, "images")
    assert counted["video-is"] == (12, None, "clips")
    assert not any(result.comparable for result in report.results)


def test_metrics_of_one_network_share_its_features() -> None:
    ours, theirs = make_clips(4), make_clips(5, first=100)
    together = measure(ours, theirs, metrics=("fid", "kid", "is"))
    assert TinyImage.seen == (4 + 5) * 16
    alone = {name: measure(ours, theirs, metrics=name).values[name] for name in ("fid", "kid", "is")}
    assert together.values == pytest.approx(alone, rel=1e-9)


def test_kid_is_scaled_and_small_subsets_are_said() -> None:
    ours, theirs = make_clips(4), make_clips(4, first=100)
    plain = measure(ours, theirs, metrics="kid").results[0]
    scaled = measure(ours, theirs, metrics="kid", overrides={"kid_scale": 1000}).results[0]
    assert scaled.value == pytest.approx(1000 * plain.value)
    assert scaled.std == pytest.approx(1000 * plain.std)
    assert "times 1000" in scaled.notes
    assert "subsets of 64 images instead of 1000" in plain.notes


def test_a_set_against_itself() -> None:
    clips = make_clips(4)
    report = measure(clips, clips, metrics=("precision", "recall", "density", "coverage"))
    assert report.values == pytest.approx({"precision": 1, "recall": 1, "density": 1, "coverage": 1})
    assert report.results[0].extra == {"neighbours": 3, "half": False}
    half = measure(clips, make_clips(4, first=100), metrics=("precision", "recall"), overrides={"half": True})
    assert half.results[0].extra["half"] is True


def test_what_a_set_measure_cannot_do_is_said() -> None:
    clips = make_clips(1)
    with pytest.raises(ZooError, match="10 splits needs at least that many items, not 1"):
        measure(clips, metrics="video-is")
    with pytest.raises(ZooError, match="need more than 3 items"):
        measure(clips, clips, metrics="density", overrides={"fid_frames": "first"})
    with pytest.raises(ZooError, match="IS needs a classifier, which tiny-frames"):
        measure(clips, metrics="is", overrides={"image_network": "tiny-frames"})
    statistics = FeatureStatistics.from_moments(torch.zeros(6), torch.eye(6), 50)
    with pytest.raises(ZooError, match="holds saved statistics: KID needs"):
        measure(clips, statistics, metrics="kid")
    with pytest.raises(ZooError, match="KID compares two sets"):
        measure(clips, metrics="kid")
    with pytest.raises(ZooError, match="did you mean coverage"):
        measure(clips, metrics="covrage")


def test_published_protocols_ask_for_metrics_that_exist() -> None:
    for protocol in published_protocols().values():
        assert [measure.name for measure in measures_named(protocol.metrics)] == list(protocol.metrics)
