import math

import torch

from portraitzoo.layers.encoding import frequency_encoding


def test_bands_follow_each_other_sines_before_cosines() -> None:
    x = torch.tensor([[0.5, -0.25]])
    expected = []
    for band in range(3):
        for function in (math.sin, math.cos):
            expected += [function(2**band * math.pi * value) for value in (0.5, -0.25)]
    torch.testing.assert_close(frequency_encoding(x, 3), torch.tensor([expected]))


def test_it_repeats_after_two_units_and_keeps_the_batch() -> None:
    x = torch.rand(2, 5, 3)
    encoded = frequency_encoding(x, 4)
    assert encoded.shape == (2, 5, 24)
    torch.testing.assert_close(frequency_encoding(x + 2, 4), encoded, rtol=0, atol=1e-4)
