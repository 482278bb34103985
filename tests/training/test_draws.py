import torch
from hypothesis import given
from hypothesis import strategies as st

from portraitzoo.training import draws

numbers = st.integers(0, 2**40)


@given(numbers, numbers, numbers)
def test_a_seed_depends_on_every_number_and_their_order(a, b, c):
    seed = draws.derived_seed(a, b)
    assert draws.derived_seed(a, b) == seed
    assert draws.derived_seed(a, b + 1) != seed
    if a != b:
        assert draws.derived_seed(b, a) != seed
    if b != c:
        assert draws.derived_seed(a, c) != seed


def test_a_sample_draws_the_same_in_any_batch():
    together = [torch.randn(4, generator=g) for g in draws.generators((3, 1), [10, 11, 12], "cpu")]
    alone = torch.randn(4, generator=draws.generators((3, 1), [12], "cpu")[0])
    assert torch.equal(together[2], alone)
    assert not torch.equal(together[0], together[1])


def test_drawing_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    torch.randn(3, generator=draws.generator(1, 2))
    assert torch.equal(torch.get_rng_state(), state)
