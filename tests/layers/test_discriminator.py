import pytest
import torch

from portraitzoo.layers.discriminator import (
    ConvLayer,
    DiscriminatorBlock,
    DiscriminatorEpilogue,
    SkipDiscriminatorBlock,
    minibatch_stddev,
    stack_pair,
)


def test_deviation_is_shared_by_samples_of_a_group() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 2, 2)
    extra = minibatch_stddev(x, group_size=4)[:, 3]
    assert (extra == extra[:, :1, :1]).all()
    values = extra[:, 0, 0]
    assert torch.equal(values[0::2], values[0].expand(4)) and torch.equal(values[1::2], values[1].expand(4))
    assert values[0] != values[1]
    x[1::2] = x[1]  # no variation in the second group
    assert float(minibatch_stddev(x, group_size=4)[1, 3, 0, 0]) == pytest.approx(1e-4)


@pytest.mark.parametrize(("batch", "group"), [(1, 4), (3, 4), (4, 4)])
def test_a_small_batch_is_one_group(batch: int, group: int) -> None:
    assert minibatch_stddev(torch.randn(batch, 3, 2, 2), group).shape == (batch, 4, 2, 2)


def test_uneven_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4 samples, not 6"):
        minibatch_stddev(torch.randn(6, 3, 2, 2))


@torch.no_grad()
def test_fresh_layers_keep_unit_variance() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 32, 16, 16)
    assert float(ConvLayer(32, 64, 3)(x)[..., 1:-1, 1:-1].square().mean()) == pytest.approx(1.04, rel=0.1)
    assert float(ConvLayer(32, 64, 1, activation="linear", bias=False)(x).var()) == pytest.approx(1, rel=0.1)


def test_penalty_on_input_gradients_reaches_every_weight() -> None:
    """R1 differentiates twice: each parameter that the gradient depends on gets a finite gradient."""
    torch.manual_seed(0)
    block = DiscriminatorBlock(8, 8, image_channels=3, clamp=256.0)
    head = DiscriminatorEpilogue(8, resolution=4, condition_dim=8, clamp=256.0)
    image = torch.randn(4, 3, 8, 8, requires_grad=True)
    logits = head(block(image), torch.randn(4, 8))
    (gradient,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
    gradient.square().sum().backward()
    for module in (block, head):
        for name, parameter in module.named_parameters():
            if name != "out.bias":  # adds a constant to the logits
                assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert all(float(p.grad.abs().max()) > 0 for n, p in block.named_parameters() if n.endswith("weight"))


def test_skip_blocks_look_at_the_image_at_every_size() -> None:
    first, second = SkipDiscriminatorBlock(4, 6, 3), SkipDiscriminatorBlock(6, 5, 3)
    last = DiscriminatorEpilogue(5, resolution=4, condition_dim=0, image_channels=3)
    image = torch.randn(2, 3, 16, 16)
    x, half = first(None, image)
    assert x.shape == (2, 6, 8, 8) and half.shape == (2, 3, 8, 8)
    torch.testing.assert_close(first(None, torch.ones(1, 3, 16, 16))[1][..., 2:-2, 2:-2], torch.ones(1, 3, 4, 4))
    y, quarter = second(x, half)
    assert not torch.allclose(y, second(x, half + 1)[0])
    logits = last(y, image=quarter)
    assert logits.shape == (2, 1) and not torch.allclose(logits, last(y, image=quarter + 1))


def test_a_pair_is_both_frames_and_the_time_between_them() -> None:
    frames = torch.randn(2, 2, 3, 4, 4)
    pair = stack_pair(frames, torch.tensor([[0.1, 0.4], [0.2, 0.9]]))
    assert torch.equal(pair[1, 3:6], frames[1, 1])
    torch.testing.assert_close(pair[:, 6, 0, 0], torch.tensor([0.3, 0.7]))
