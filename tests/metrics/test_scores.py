"""KID, Inception Score, precision and recall, path length, masked PSNR: laws and agreement with other tools."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
)
from torchmetrics.image.inception import InceptionScore as TorchmetricsIS
from torchmetrics.image.kid import KernelInceptionDistance as TorchmetricsKID

from portraitzoo.errors import ZooError
from portraitzoo.media.display import depth_normals, display_corrected
from portraitzoo.metrics import kid
from portraitzoo.metrics.inception_score import inception_score, video_inception_score
from portraitzoo.metrics.kid import kernel_inception_distance
from portraitzoo.metrics.path_length import shrunk, slerp, trimmed_mean
from portraitzoo.metrics.precision_recall import manifold_shares
from portraitzoo.metrics.psnr import masked_mse, psnr_of_mean
from portraitzoo.metrics.structure import MULTISCALE_LEAST, ms_ssim, ssim


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_kid_agrees_with_torch_fidelity() -> None:
    real, fake = normal(90, 32), normal(70, 32, seed=1) * 1.2
    # It draws from its first input first, as ours does from the generated one.
    theirs = kid_features_to_metric(fake, real, kid_subsets=20, kid_subset_size=50, rng_seed=2020, verbose=False)
    mean, std = kernel_inception_distance(real, fake, num_subsets=20, max_subset_size=50, seed=2020)
    assert float(mean) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert float(std) == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-3)


class Given(torch.nn.Module):
    """In the place of torchmetrics' network: hands on the features that it is given."""

    num_features = 32

    def forward(self, features: Tensor) -> Tensor:
        return features


def test_kid_of_all_items_agrees_with_torchmetrics() -> None:
    # torchmetrics draws its subsets from the global generator; one subset of everything has no draw.
    real, fake = normal(60, 32), normal(60, 32, seed=1) * 1.2
    theirs = TorchmetricsKID(feature=Given(), subsets=1, subset_size=60)
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    ours = kernel_inception_distance(real, fake, num_subsets=1, max_subset_size=60)[0]
    assert float(ours) == pytest.approx(float(theirs.compute()[0]), rel=1e-4)


def test_inception_score_agrees_with_torchmetrics() -> None:
    # torchmetrics shuffles by the global generator and takes the sample deviation; one split has neither.
    logits = normal(64, 32) * 2
    theirs = TorchmetricsIS(feature=Given(), splits=1)
    theirs.update(logits)
    assert float(inception_score(logits.softmax(1), num_splits=1)[0]) == pytest.approx(
        float(theirs.compute()[0]), rel=1e-5
    )


@pytest.mark.parametrize(("items", "others"), [(50, 60), (300, 40)])
def test_kid_by_whole_kernels_is_kid_by_subsets(items, others, monkeypatch) -> None:
    real, fake = normal(items, 16), normal(others, 16, seed=1) * 1.2
    by_whole = kernel_inception_distance(real, fake, num_subsets=200, max_subset_size=30)
    monkeypatch.setattr(kid, "WHOLE_LIMIT", 0)
    by_subsets = kernel_inception_distance(real, fake, num_subsets=200, max_subset_size=30)
    torch.testing.assert_close(torch.stack(by_whole), torch.stack(by_subsets), rtol=1e-9, atol=1e-12)


def test_kid_is_seeded_unbiased_and_needs_items() -> None:
    real = normal(400, 8)
    same = kernel_inception_distance(real[:200], real[200:], max_subset_size=100)[0]
    other = kernel_inception_distance(real[:200], real[200:] + 1, max_subset_size=100)[0]
    assert abs(same) < 0.1 * other
    assert kernel_inception_distance(real[:200], real[200:], max_subset_size=100)[0] == same
    with pytest.raises(ZooError, match="at least 2"):
        kernel_inception_distance(real[:1], real)


def test_inception_score_agrees_with_torch_fidelity() -> None:
    logits = normal(83, 10) * 2
    theirs = isc_features_to_metric(logits, splits=10, shuffle=False)
    mean, std = inception_score(logits.double().softmax(1))
    assert float(mean) == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert float(std) == pytest.approx(theirs["inception_score_std"], rel=1e-9)


def test_inception_score_of_sure_and_even_classes_is_their_number() -> None:
    sure = torch.eye(5).repeat(4, 1)  # holds exact zeros
    assert float(inception_score(sure, num_splits=1)[0]) == pytest.approx(5)
    assert float(inception_score(torch.full((20, 5), 0.2))[0]) == pytest.approx(1)
    assert float(video_inception_score(sure, num_splits=1)[0]) == pytest.approx(5)
    with pytest.raises(ZooError, match="at least that many"):
        inception_score(sure[:3])


@settings(max_examples=20, deadline=None)
@given(st.integers(8, 60), st.integers(8, 60), st.integers(0, 99), st.integers(1, 6), st.integers(1, 80))
def test_precision_recall_agrees_with_torch_fidelity(n, m, seed, k, chunk) -> None:
    real, fake = normal(n, 6, seed=seed), normal(m, 6, seed=seed + 1) * 0.8 + 0.3
    theirs = prc_features_to_metric(fake, real, prc_neighborhood=k, prc_batch_size=1000, verbose=False)
    precision, recall, *_ = manifold_shares(real, fake, neighbours=k, block=chunk * 20)
    assert float(precision) == pytest.approx(theirs["precision"], abs=1 / m + 1e-6)
    assert float(recall) == pytest.approx(theirs["recall"], abs=1 / n + 1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(7, 25), st.integers(7, 25), st.integers(0, 99), st.integers(1, 5), st.integers(1, 30))
def test_density_and_coverage_are_their_definitions(n, m, seed, k, chunk) -> None:
    real, fake = normal(n, 5, seed=seed), normal(m, 5, seed=seed + 1) * 0.8 + 0.2
    within = np.zeros((m, n), dtype=bool)
    for i, centre in enumerate(real.numpy()):
        radius = sorted(np.linalg.norm(real.numpy() - centre, axis=1))[k]
        within[:, i] = np.linalg.norm(fake.numpy() - centre, axis=1) < radius
    *_, density, coverage = manifold_shares(real, fake, neighbours=k, block=chunk * 10)
    # A generated item may lie as far as the radius within rounding.
    assert float(density) == pytest.approx(within.sum() / (k * m), abs=1.1 / (k * m))
    assert float(coverage) == pytest.approx(within.any(0).mean(), abs=1.1 / n)


def test_outliers_raise_recall_but_not_density_and_coverage() -> None:
    real, fake = normal(60, 4), normal(60, 4, seed=1) * 0.1 + 5  # far from the real ones
    far = fake.clone()
    far[:5] = normal(5, 4, seed=2) * 40
    raised = manifold_shares(real, far)
    assert raised.recall > 0.9 > manifold_shares(real, fake).recall
    assert (raised.density, raised.coverage) == (0, 0)


def test_half_precision_rounds_features_and_distances() -> None:
    real = torch.zeros(5, 2)
    real[:, 0] = 1000 + torch.arange(5) * 0.03  # one and the same number in half precision
    fake = real + torch.tensor([5e-3, 0])
    assert manifold_shares(real, fake, neighbours=1).coverage == 1
    rounded = manifold_shares(real, fake, neighbours=1, half=True)
    assert (rounded.precision, rounded.coverage) == (1, 0)  # no distance is below a radius of 0


def test_precision_and_recall_at_the_extremes() -> None:
    features = normal(30, 4)
    assert [float(v) for v in manifold_shares(features, features)[:2]] == [1, 1]
    assert [float(v) for v in manifold_shares(features, features + 100)] == [0, 0, 0, 0]
    inside = features[:5].repeat(6, 1)  # few modes, all real: precise, with little recall
    precision, recall, *_ = manifold_shares(features, inside)
    assert precision == 1 and recall < 0.5
    with pytest.raises(ZooError, match="more than 3 items"):
        manifold_shares(features[:3], features)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1), st.integers(0, 99))
def test_slerp_walks_the_great_circle_evenly(t, seed) -> None:
    first, second = normal(3, 8, seed=seed).double(), normal(3, 8, seed=seed + 1).double()
    point = slerp(first, second, torch.full((3, 1), t, dtype=torch.float64))

    def angle(a: Tensor, b: Tensor) -> Tensor:
        return torch.acos(torch.nn.functional.cosine_similarity(a, b).clamp(-1, 1))

    torch.testing.assert_close(point.norm(dim=1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(angle(first, point), t * angle(first, second), rtol=1e-5, atol=1e-6)


def test_trimmed_mean_leaves_out_the_extremes() -> None:
    values = torch.cat([torch.full((296,), 3.0), torch.tensor([-1e6, -1e6, 1e6, 1e6])])
    assert float(trimmed_mean(values)) == 3
    assert float(trimmed_mean(torch.tensor([1.0, 2.0, 3.0]))) == 2  # too few to trim
    with pytest.raises(ZooError, match="at least one"):
        trimmed_mean(torch.zeros(0))


def test_path_pictures_are_averaged_over_blocks() -> None:
    images = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    found = shrunk(images)
    torch.testing.assert_close(found[..., 3, 5], images[..., 6:8, 10:12].mean((2, 3)))
    assert shrunk(images[..., :256, :200]).shape == (1, 3, 256, 200)
    with pytest.raises(ZooError, match="no multiple"):
        shrunk(torch.zeros(1, 3, 300, 300))


def picture_pair(size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, size, size + 3, 3), dtype=torch.uint8, generator=generator)
    noise = torch.randint(0, 70, images.shape, generator=generator)
    return images, (images * 0.7 + noise).to(torch.uint8)


def test_ssim_is_that_of_the_authors_and_of_scikit_image() -> None:
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    images, others = picture_pair(40)
    for value, image, other in zip(ssim(images, others), images, others, strict=True):
        expected = structural_similarity(
            image.numpy(), other.numpy(), channel_axis=2, data_range=255,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )  # fmt: skip
        assert float(value) == pytest.approx(expected, rel=1e-5)
    assert (ssim(images, images) == 1).all()
    with pytest.raises(ZooError, match="SSIM needs images of 11 pixels or more a side, not 20x10"):
        ssim(images[:, :10, :20], others[:, :10, :20])


def test_ms_ssim_is_that_of_torchmetrics() -> None:
    images, others = picture_pair(MULTISCALE_LEAST)
    first, second = (x.permute(0, 3, 1, 2) / 255 for x in (images, others))
    expected = multiscale_structural_similarity_index_measure(first, second, data_range=1.0)
    assert float(ms_ssim(images, others).mean()) == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(ZooError, match="MS-SSIM needs images of 176 pixels"):
        ms_ssim(images[:, :-1], others[:, :-1])


def test_masked_psnr_without_mask_is_psnr() -> None:
    image, target = (torch.rand(1, 9, 7, 3, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    everywhere = torch.ones(1, 9, 7, dtype=torch.bool)
    ours = psnr_of_mean(masked_mse(image, target, everywhere))
    assert float(ours) == pytest.approx(float(peak_signal_noise_ratio(image, target, data_range=1.0)), rel=1e-5)


def test_masked_psnr_looks_at_the_mask_only() -> None:
    image, target = torch.rand(2, 8, 8, 3), torch.rand(2, 8, 8, 3)
    valid = torch.rand(2, 8, 8) > 0.5
    elsewhere = torch.where(valid[..., None], image, 7.0)
    assert torch.equal(masked_mse(elsewhere, target, valid), masked_mse(image, target, valid))
    share = valid.double().mean((1, 2))
    torch.testing.assert_close(
        masked_mse(image, target, valid, valid_only=True) * share, masked_mse(image, target, valid)
    )
    assert torch.isnan(masked_mse(image, target, valid & False, valid_only=True)).all()


def test_display_pictures() -> None:
    black, white = display_corrected(torch.zeros(3)), display_corrected(torch.ones(3))
    assert (black == 0).all() and (white > 0.9).all() and white.argmax() == 2
    ramp = torch.arange(5.0).expand(4, 5) * math.tan(math.radians(30))
    normals = depth_normals(ramp) * 2 - 1
    np.testing.assert_allclose(normals[2, 2], [-0.5, 0, math.cos(math.radians(30))], atol=1e-6)
