import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.errors import ZooError
from portraitzoo.faces.one_euro import CROP_TRANSLATION, OneEuro

SIGNAL = st.lists(st.floats(-100, 100), min_size=2, max_size=20)
SETTINGS = st.builds(OneEuro, st.floats(0.01, 10), st.floats(0, 1), st.floats(0.1, 10))


@given(signal=SIGNAL, filtered=SETTINGS)
@settings(max_examples=50, deadline=None)
def test_a_filtered_signal_stays_within_what_has_been_seen(signal, filtered):
    values = torch.tensor(signal, dtype=torch.float64)
    smooth = filtered.smooth(values)
    seen_low, seen_high = values.cummin(0).values, values.cummax(0).values
    assert bool(((smooth >= seen_low - 1e-9) & (smooth <= seen_high + 1e-9)).all())
    assert float(smooth[0]) == signal[0]


@given(signal=SIGNAL, factor=st.floats(0.1, 10), filtered=SETTINGS)
@settings(max_examples=30, deadline=None)
def test_slower_clocks_with_slower_cutoffs_give_the_same(signal, factor, filtered):
    values = torch.tensor(signal, dtype=torch.float64)
    slower = OneEuro(filtered.min_cutoff / factor, filtered.beta, filtered.speed_cutoff / factor)
    stretched = slower.smooth(values, [factor * k for k in range(len(values))])
    torch.testing.assert_close(stretched, filtered.smooth(values), atol=1e-6, rtol=1e-6)


def test_less_noise_remains_at_rest_and_less_lag_in_motion():
    noise = torch.randn(400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(CROP_TRANSLATION.smooth(noise)[200:].std()) < 0.6 * float(noise.std())
    ramp = torch.arange(400.0, dtype=torch.float64)
    lag = [float((ramp - OneEuro(0.01, beta).smooth(ramp))[-1]) for beta in (0.0, 0.05)]
    assert lag[1] < 0.3 * lag[0]


def test_numbers_of_a_value_are_filtered_apart_and_signals_do_not_mix():
    values = torch.randn(20, 2, 1, generator=torch.Generator().manual_seed(1))
    both = CROP_TRANSLATION.smooth(values)
    assert both[:, 1].equal(CROP_TRANSLATION.smooth(values[:, 1]))
    assert both.equal(CROP_TRANSLATION.smooth(values))


def test_what_is_wrong_is_told():
    with pytest.raises(ZooError, match="growing times, not 1 after 1"):
        OneEuro(1, 0).smooth(torch.zeros(2), [1, 1])
    with pytest.raises(ZooError, match="2 values need as many times, not 3"):
        OneEuro(1, 0).smooth(torch.zeros(2), [1, 2, 3])
    with pytest.raises(ZooError, match="positive cutoffs"):
        OneEuro(0, 1)
    running = OneEuro(1, 0).start()
    running(0, torch.zeros(2))
    with pytest.raises(ZooError, match="shape"):
        running(1, torch.zeros(3))
