"""Intervals: they agree with repeated experiments, and resampling costs no bias."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from portraitzoo.metrics import bootstrap
from portraitzoo.metrics.feature_space import convergence, examine, frechet_of_rows, kernel_interval, rows_like
from portraitzoo.metrics.frechet import FeatureStatistics, frechet_distance
from portraitzoo.metrics.kid import kernel_inception_distance
from portraitzoo.metrics.results import Gathered

rows_of_five = arrays(np.float32, (9, 5), elements=st.floats(-10, 10, width=32))


def statistics(rows: np.ndarray, ddof: int = 0) -> FeatureStatistics:
    gathered = FeatureStatistics(rows.shape[1], ddof=ddof)
    gathered.append(torch.from_numpy(rows))
    return gathered


def gathered(rows: np.ndarray, each: int = 1) -> Gathered:
    side = Gathered(FeatureStatistics(rows.shape[1]))
    for item, part in enumerate(np.split(rows.astype(np.float32), len(rows) // each)):
        side.add(item, part)
    return side


def experiment(draw: np.random.Generator, count: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets from two Gaussians that stay the same from experiment to experiment."""
    scales = np.arange(1, features + 1) ** -0.7
    others = scales * (1 + 0.3 * np.cos(np.arange(features)))
    return draw.normal(size=(count, features)) * scales, draw.normal(size=(count, features)) * others + 0.3 * scales


@pytest.mark.parametrize("count", [20, 60, 300])
def test_the_standard_error_is_the_spread_of_repeated_experiments(count: int) -> None:
    draw = np.random.default_rng(count)
    values, errors = [], []
    for _ in range(40):
        first, second = experiment(draw, count, 40)  # fewer and more items than features
        found = examine(gathered(first), gathered(second), frechet_of_rows(first, second), 0)
        values.append(frechet_of_rows(first, second))
        errors.append(found.interval.std_error)
    assert 0.75 < np.mean(errors) / np.std(values) < 1.5


def test_the_interval_holds_the_expected_value_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(1)
    sets = [experiment(draw, 100, 12) for _ in range(100)]
    values = [frechet_of_rows(*pair) for pair in sets]
    expected = np.mean(values)
    intervals = [examine(*map(gathered, pair), value, 0).interval for pair, value in zip(sets, values, strict=True)]
    share = np.mean([interval.low <= expected <= interval.high for interval in intervals])
    assert 0.85 <= share <= 1


def test_resampling_adds_no_bias_where_repeating_items_does() -> None:
    first, second = experiment(np.random.default_rng(0), 100, 40)
    value = frechet_of_rows(first, second)
    interval = examine(gathered(first), gathered(second), value, 0).interval
    assert abs((interval.low + interval.high) / 2 - value) < 0.5 * interval.std_error
    draw = np.random.default_rng(0)
    naive = [
        frechet_of_rows(first[draw.integers(100, size=100)], second[draw.integers(100, size=100)]) for _ in range(9)
    ]
    assert np.mean(naive) > value + interval.std_error


@given(rows_of_five, rows_of_five, st.integers(0, 8))
def test_the_influence_is_the_slope_of_the_distance_in_a_weight(first, second, row: int) -> None:
    rng = np.random.default_rng(0)
    first, second = first + rng.normal(size=first.shape), second + rng.normal(size=second.shape)
    value, ours, _ = bootstrap.frechet_influences(torch.from_numpy(first), torch.from_numpy(second))
    # A row a hundred times and the others ninety-nine times is the row with a little more weight.
    more = np.concatenate([np.repeat(first, 999, axis=0), first[row : row + 1]])
    moved = float(frechet_distance(statistics(more), statistics(second))) - value
    expected = (ours[row] - ours.mean()) / len(more)
    assert moved == pytest.approx(expected, rel=0.05, abs=2e-4 * (1 + abs(ours).max() / len(more)))


def test_frames_of_a_clip_are_drawn_together() -> None:
    draw = np.random.default_rng(0)
    clips, other = experiment(draw, 40, 6)
    frames = np.repeat(clips, 8, axis=0)  # eight equal frames tell no more than one
    value = frechet_of_rows(clips, other)
    single = examine(gathered(clips), gathered(other), value, 0).interval
    together = examine(gathered(frames, each=8), gathered(other), value, 0).interval
    assert together.std_error == pytest.approx(single.std_error, rel=0.05)


def test_windows_of_a_video_are_drawn_together_and_one_video_has_no_interval() -> None:
    draw = np.random.default_rng(0)
    clips, other = experiment(draw, 24, 6)
    value = frechet_of_rows(clips, other)
    repeated = Gathered(FeatureStatistics(6))
    for item, row in enumerate(np.concatenate([clips] * 4).astype(np.float32)):
        repeated.add(item, row[None], f"video {item % 24}")
    alone = examine(gathered(clips), gathered(other), value, 0).interval
    together = examine(repeated, gathered(other), value, 0).interval
    assert together.std_error == pytest.approx(alone.std_error, rel=0.05)
    repeated.names = dict.fromkeys(repeated.rows, "one video")
    found = examine(repeated, gathered(other), value, 0)
    assert found.interval is None
    assert {point[2] for point in found.plots["convergence"]} == {None}
    assert bootstrap.of_mean(0.0, [1.0, 2.0], ["a", "a"]) is None


def test_the_standard_error_of_a_kernel_distance_is_the_spread_of_repeated_experiments() -> None:
    draw = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(40):
        first, second = experiment(draw, 80, 10)
        real, generated = (torch.from_numpy(rows) for rows in (second, first))
        value = float(kernel_inception_distance(real, generated, num_subsets=1)[0])
        values.append(value)
        errors.append(kernel_interval(gathered(first), gathered(second), value, 1.0).std_error)
    assert 0.7 < np.mean(errors) / np.std(values) < 1.5
    scaled = kernel_interval(gathered(first), gathered(second), 1000 * value, 1000.0)
    assert scaled.std_error == pytest.approx(1000 * errors[-1])


def test_rows_stand_for_statistics() -> None:
    first, second = experiment(np.random.default_rng(0), 30, 6)
    for ddof in (0, 1):
        saved = statistics(second, ddof)
        assert frechet_of_rows(first, rows_like(saved, ddof).numpy(), ddof) == pytest.approx(
            float(frechet_distance(statistics(first, ddof), saved)), rel=1e-6
        )
    fixed = examine(gathered(first), Gathered(statistics(second)), frechet_of_rows(first, second), 0)
    both = examine(gathered(first), gathered(second), frechet_of_rows(first, second), 0)
    assert 0 < fixed.interval.std_error < both.interval.std_error
    assert fixed.plots["convergence"][-1][1] == pytest.approx(frechet_of_rows(first, second), rel=1e-6)


def test_the_curve_falls_to_the_distance_of_all_items() -> None:
    first, second = experiment(np.random.default_rng(0), 400, 20)
    curve = convergence(gathered(first), gathered(second))
    assert [count for count, *_ in curve] == sorted(count for count, *_ in curve)
    assert curve[0][1] > curve[-1][1] == pytest.approx(frechet_of_rows(first, second))
    assert all(low <= value <= high for _, value, low, high in curve)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30))
def test_the_interval_of_a_mean_lies_within_the_values(values: list[float]) -> None:
    interval = bootstrap.of_mean(float(np.mean(values)), values)
    assert min(values) - 1e-9 <= interval.low <= np.mean(values) + 1e-9
    assert np.mean(values) - 1e-9 <= interval.high <= max(values) + 1e-9


def test_the_same_items_give_the_same_interval_and_one_item_none() -> None:
    values = np.random.default_rng(0).normal(size=20).tolist()
    assert bootstrap.of_mean(0.0, values) == bootstrap.of_mean(0.0, values)
    assert bootstrap.of_mean(1.0, [1.0]) is None
