import torch
from hypothesis import given
from hypothesis import strategies as st

from portraitzoo.training.frame_pairs import beta_times, frame_pair


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 40))
def test_pair_rule_stays_within_the_window(early, late, window):
    first, second = frame_pair(early, late, window)
    assert 0 <= first <= second < window


def test_times_of_generated_pairs_follow_their_distributions():
    uniforms = torch.rand(2, 20_000, generator=torch.Generator().manual_seed(0))
    times = beta_times(*uniforms)
    assert ((times >= 0) & (times <= 1)).all()
    assert (times[:, 0] <= times[:, 1]).all()
    # One draw of Beta(2, 1), mean 2/3, and one of Beta(1, 2), mean 1/3: their means add up to 1.
    assert abs(times.sum(dim=1).mean() - 1) < 0.01
    drawn = torch.distributions.Beta(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 2.0])).sample((20_000,))
    assert torch.allclose(times.mean(dim=0), drawn.sort(dim=1).values.mean(dim=0), atol=0.01)
