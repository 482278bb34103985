from hypothesis import given
from hypothesis import strategies as st

from portraitzoo.training.schedules import Schedules, ema_beta

samples = st.integers(0, 5_000_000)
batches = st.integers(1, 64)


@given(samples, samples, batches)
def test_blur_only_fades(first, second, batch):
    schedules = Schedules()
    early, late = sorted((first, second))
    assert 10 >= schedules.blur(early, batch) >= schedules.blur(late, batch) >= 0


@given(batches, st.integers(1, 16), samples)
def test_global_blur_does_not_depend_on_the_number_of_devices(batch, devices, count):
    schedules = Schedules(blur_batch="global")
    assert schedules.blur(count, batch, devices) == schedules.blur(count, batch * devices, 1)


def test_device_blur_fades_sooner_on_more_devices():
    assert Schedules().blur(50_000, 4, 4) < Schedules().blur(50_000, 16, 1)


@given(samples)
def test_swap_probability_and_resolution_stay_within_their_ends(count):
    schedules = Schedules(resolution_start=16, resolution_end=32)
    assert 0.5 <= schedules.swap_probability(count) <= 1
    assert 16 <= schedules.render_resolution(count) <= 32
    assert isinstance(schedules.render_resolution(count), int)


def test_a_fade_of_zero_is_over_at_once():
    schedules = Schedules(blur_fade=0, swap_fade=0, resolution_end=128, resolution_fade=0)
    assert (schedules.blur(0, 16), schedules.swap_probability(0), schedules.render_resolution(0)) == (0.0, 0.5, 128)


@given(samples, batches)
def test_average_forgets_the_first_update_and_then_keeps_its_half_life(count, batch):
    beta = ema_beta(count, batch)
    assert 0 <= beta <= 0.5 ** (32 / 10_000) + 1e-12
    assert ema_beta(0, batch) == 0
    assert abs(ema_beta(10**9, batch) - 0.5 ** (32 / 10_000)) < 1e-12


@given(batches)
def test_half_life_is_what_it_says(batch):
    # After half_life samples (quoted for a batch of 32) an old value weighs one half.
    updates = 10_000 / 32
    assert abs(ema_beta(0, batch, rampup=None) ** updates - 0.5) < 1e-9
