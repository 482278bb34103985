"""Feature statistics and the Fréchet distance: laws, files, and agreement with other tools on the same features."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics import MetricCollection
from torchmetrics.image.fid import FrechetInceptionDistance as TorchmetricsFID

from portraitzoo.errors import ZooError
from portraitzoo.metrics.features import FeatureNetwork
from portraitzoo.metrics.fid import FrechetInceptionDistance
from portraitzoo.metrics.frechet import FeatureStatistics, FrechetDistance, frechet_distance


def draw(items: int, width: int, seed: int = 0, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """Correlated normal features."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64) / width**0.5
    noise = torch.randn(items, width, generator=generator, dtype=torch.float64)
    return (noise @ mixing * scale + shift).float()


def gathered(features: Tensor, ddof: int = 0, batch: int = 1000, **options: object) -> FeatureStatistics:
    statistics = FeatureStatistics(features.shape[1], ddof=ddof, **options)
    for part in features.split(batch):
        statistics.append(part)
    return statistics


class Colours(nn.Module):
    """A small stand-in for a feature network: mean colours of the four quarters of an image."""

    num_features = 12

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1 / 255))

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).float() * self.scale
        return nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(1)


def colours() -> FeatureNetwork:
    return FeatureNetwork("colours", Colours(), comparable=False)


sets = st.tuples(st.integers(2, 60), st.integers(1, 12), st.integers(0, 1000), st.floats(0.1, 10), st.floats(-5, 5))


@settings(max_examples=40, deadline=None)
@given(sets, st.integers(0, 1))
def test_distance_to_itself_is_zero(described, ddof) -> None:
    items, width, seed, scale, shift = described
    statistics = gathered(draw(items, width, seed, scale, shift), ddof)
    assert frechet_distance(statistics, statistics) <= 1e-6 * statistics.cov.trace()


@settings(max_examples=40, deadline=None)
@given(sets, sets)
def test_distance_is_symmetric_and_not_negative(first, second) -> None:
    a = gathered(draw(first[0], first[1], *first[2:]))
    b = gathered(draw(second[0], first[1], *second[2:]))
    forward, backward = frechet_distance(a, b), frechet_distance(b, a)
    assert forward >= 0
    assert abs(forward - backward) <= 1e-6 * (a.cov.trace() + b.cov.trace())


@settings(max_examples=30, deadline=None)
@given(sets, st.floats(-3, 3))
def test_a_shift_costs_its_square_and_nothing_else(described, shift) -> None:
    items, width, *rest = described
    features = draw(items, width, *rest).double()
    moved = frechet_distance(gathered(features), gathered(features + shift))
    torch.testing.assert_close(moved, torch.tensor(width * shift**2, dtype=torch.float64), rtol=1e-6, atol=1e-5)


def test_batches_do_not_move_a_bit() -> None:
    features = torch.randn(700, 33, generator=torch.Generator().manual_seed(0))
    whole = gathered(features, batch=700)
    for batch in (1, 7, 256, 300, 699):
        statistics = gathered(features, batch=batch)
        assert torch.equal(statistics.mean, whole.mean)
        assert torch.equal(statistics.cov, whole.cov)
    reused = torch.empty(7, 33)
    statistics = FeatureStatistics(33)
    for rows in features.split(7):
        statistics.append(reused.copy_(rows))
    assert torch.equal(statistics.cov, whole.cov)


@settings(max_examples=30, deadline=None)
@given(sets, st.integers(1, 60))
def test_batches_and_merging_do_not_matter(described, cut) -> None:
    items, width, *rest = described
    features = draw(items, width, *rest)
    whole = gathered(features)
    merged = gathered(features[:cut], batch=3).merge(gathered(features[cut:], batch=7))
    assert merged.num_items == whole.num_items
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(merged.cov, whole.cov, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("ddof", [0, 1])
def test_moments_are_those_of_numpy(ddof) -> None:
    features = draw(50, 7)
    statistics = gathered(features, ddof)
    np.testing.assert_allclose(statistics.mean, features.double().numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.cov, np.cov(features.double().numpy(), rowvar=False, ddof=ddof), rtol=1e-10)


@pytest.mark.parametrize(("items", "width"), [(200, 16), (3000, 96), (12, 24)])
def test_agrees_with_torch_fidelity(items, width) -> None:
    real, fake = draw(items, width, 1), draw(items + 3, width, 2, scale=1.3, shift=0.2)
    theirs = fid_statistics_to_metric(*map(fid_features_to_statistics, (fake.double(), real.double())), verbose=False)
    ours = frechet_distance(gathered(fake, ddof=1), gathered(real, ddof=1))
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5 if items < width else 1e-10)


def test_agrees_with_torchmetrics() -> None:
    class Flat(nn.Module):
        num_features = 12

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)

    theirs = TorchmetricsFID(feature=Flat()).set_dtype(torch.float64)
    ours = FrechetDistance(num_features=12, ddof=1)
    for real in (True, False):
        features = draw(300, 12, seed=int(real), scale=1 + real)
        theirs.update(features.double().view(300, 3, 2, 2), real=real)
        ours.update_features(features, real=real)
    torch.testing.assert_close(ours.compute(), theirs.compute().double(), rtol=1e-9, atol=0)


def test_rank_deficiency_is_told() -> None:
    assert gathered(draw(12, 12)).rank_deficient
    assert not gathered(draw(13, 12)).rank_deficient


def test_max_items_keeps_the_first(tmp_path) -> None:
    features = draw(30, 4)
    kept = gathered(features, batch=8, max_items=20)
    assert kept.num_items == 20
    torch.testing.assert_close(kept.cov, gathered(features[:20]).cov)


@pytest.mark.parametrize("ddof", [0, 1])
def test_saved_statistics_come_back(tmp_path, ddof) -> None:
    statistics = gathered(draw(40, 6), ddof, info={"network": "colours", "checksum": "ab" * 32, "protocol": {"n": 40}})
    loaded = FeatureStatistics.load(statistics.save(tmp_path / "made" / "statistics.npz"))
    assert (loaded.num_items, loaded.ddof, loaded.info) == (40, ddof, statistics.info)
    torch.testing.assert_close(loaded.mean, statistics.mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(loaded.cov, statistics.cov, rtol=1e-12, atol=1e-14)
    # Sums can go on where the file left off.
    more = draw(10, 6, seed=9)
    torch.testing.assert_close(loaded.merge(gathered(more)).mean, statistics.merge(gathered(more)).mean)


def test_plain_statistics_are_read_as_stylegans(tmp_path) -> None:
    features = draw(25, 3).double().numpy()
    np.savez(tmp_path / "plain.npz", mean=features.mean(0), cov=np.cov(features, rowvar=False, ddof=0), num_items=25)
    loaded = FeatureStatistics.load(tmp_path / "plain.npz")
    assert loaded.ddof == 0 and loaded.num_items == 25
    assert frechet_distance(loaded, gathered(torch.from_numpy(features))) < 1e-12


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file"),
        (b"", "cannot be read"),
        (b"PK\x03\x04 broken", "cannot be read"),
        ({"mean": np.zeros(3)}, "needs mean, cov and num_items"),
        ({"mean": np.zeros(3), "cov": np.zeros((2, 2)), "num_items": 9}, "do not fit"),
        ({"mean": np.array([None]), "cov": np.zeros((1, 1)), "num_items": 9}, "cannot be read"),
    ],
)
def test_unusable_files_are_refused_in_one_line(tmp_path, content, complaint) -> None:
    path = tmp_path / "statistics.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    with pytest.raises(ZooError, match=complaint) as caught:
        FeatureStatistics.load(path)
    assert "\n" not in str(caught.value)


def test_statistics_that_do_not_compare_are_refused() -> None:
    one, other = ({"network": "a", "checksum": c * 32} for c in ("aa", "bb"))
    with pytest.raises(ZooError, match="different networks"):
        frechet_distance(gathered(draw(9, 3), info=one), gathered(draw(9, 3), info=other))
    with pytest.raises(ZooError, match="ddof"):
        frechet_distance(gathered(draw(9, 3), 0), gathered(draw(9, 3), 1))
    with pytest.raises(ZooError, match="3 and of 4 features"):
        frechet_distance(gathered(draw(9, 3)), gathered(draw(9, 4)))
    with pytest.raises(ZooError, match="at least 2"):
        frechet_distance(gathered(draw(1, 3)), gathered(draw(9, 3)))
    with pytest.raises(ZooError, match="NaN"):
        frechet_distance(gathered(torch.full((5, 3), torch.nan)), gathered(draw(9, 3)))


def test_metric_equals_the_statistics_whatever_the_batches() -> None:
    network = colours()
    images = torch.randint(0, 256, (60, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    metric = FrechetInceptionDistance(network)
    for start in range(0, 30, 7):
        metric.update(images[start : min(start + 7, 30)], real=True)
    metric.update(images[30:], real=False)
    expected = frechet_distance(gathered(network(images[30:])), gathered(network(images[:30])))
    torch.testing.assert_close(metric.compute(), expected, rtol=1e-9, atol=1e-12)
    features = FrechetInceptionDistance(num_features=12)
    features.update_features(network(images[:30]), real=True)
    features.update_features(network(images[30:]), real=False)
    torch.testing.assert_close(features.compute(), expected, rtol=1e-9, atol=1e-12)


def test_items_added_after_a_result_count() -> None:
    metric = FrechetDistance(num_features=4)
    metric.update_features(draw(20, 4, 1), real=True)
    metric.update_features(draw(20, 4, 2), real=False)
    before = metric.compute()
    metric.update_features(draw(20, 4, 3) + 5, real=False)
    assert metric.compute() > before + 1


def test_reset_can_keep_the_real_side() -> None:
    metric = FrechetDistance(num_features=4, reset_real_features=False)
    metric.update_features(draw(20, 4, 1), real=True)
    metric.update_features(draw(20, 4, 2), real=False)
    first = metric.compute()
    metric.reset()
    assert metric.statistics(real=True).num_items == 20
    assert metric.statistics(real=False).num_items == 0
    metric.update_features(draw(20, 4, 2), real=False)
    assert metric.compute() == first


def test_fixed_real_statistics_take_the_place_of_updates() -> None:
    real, fake = draw(40, 5, 1), draw(30, 5, 2)
    metric = FrechetDistance(num_features=5, real_statistics=gathered(real))
    metric.update_features(fake, real=False)
    assert metric.compute() == frechet_distance(gathered(fake), gathered(real))
    with pytest.raises(ZooError, match="fixed statistics"):
        metric.update_features(real, real=True)
    with pytest.raises(ZooError, match="5 features"):
        FrechetDistance(num_features=6, real_statistics=gathered(real))


def test_a_metric_adds_nothing_to_a_model() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.metric = FrechetInceptionDistance(colours())

    model = Model()
    assert not model.state_dict() and not list(model.parameters())
    collection = MetricCollection({"fid": model.metric})
    assert copy.deepcopy(collection)["fid"].network is model.metric.network


def test_metric_says_what_is_wrong() -> None:
    with pytest.raises(ZooError, match="network or the number"):
        FrechetDistance()
    with pytest.raises(ZooError, match="without a feature network"):
        FrechetInceptionDistance(num_features=4).update(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), real=True)
    with pytest.raises(ZooError, match=r"float \[items, 4\]"):
        FrechetDistance(num_features=4).update_features(torch.zeros(3, 5), real=True)


def _process(rank: int, port: int, features: Tensor, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    metric = FrechetDistance(num_features=features.shape[1])
    share = features[:7] if rank == 0 else features[7:]  # the count does not divide
    metric.update_features(share, real=True)
    metric.update_features(share.flip(1), real=False)
    torch.save(metric.compute(), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_value_of_one(tmp_path: Path) -> None:
    features = draw(31, 6)
    single = FrechetDistance(num_features=6)
    single.update_features(features, real=True)
    single.update_features(features.flip(1), real=False)
    mp.spawn(_process, args=(20000 + os.getpid() % 20000, features, tmp_path), nprocs=2)
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), single.compute(), rtol=1e-10, atol=0)
