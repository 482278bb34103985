import math

import pytest
import torch
import torch.nn.functional as F

from portraitzoo.layers import transformer
from portraitzoo.layers.transformer import (
    Attention,
    MixFeedForward,
    PatchEmbedding,
    TransformerBlock,
    as_image,
    as_tokens,
    attend,
)

GRID = (4, 6)


def tokens(count: int = 24, width: int = 8, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, count, width, generator=torch.Generator().manual_seed(count))


def test_pixels_become_tokens_row_by_row():
    image = torch.arange(48.0).view(2, 1, 4, 6)
    assert as_tokens(image)[0, :, 0].tolist() == list(range(24))
    assert as_image(as_tokens(image), GRID).equal(image)


@torch.no_grad()
def test_attention_is_the_softmax_of_products():
    layer, x, context = Attention(8, 2), tokens(), tokens(5)
    query, key_value = layer.query(x), layer.key_value(context)
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        key, value = key_value[..., :8][..., part], key_value[..., 8:][..., part]
        weights = (query[..., part] @ key.mT / math.sqrt(4)).softmax(-1)
        heads.append(weights @ value)
    torch.testing.assert_close(layer(x, GRID, context), layer.project(torch.cat(heads, -1)))


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 512, 700])
def test_attention_in_strips_is_the_same(monkeypatch, count):
    generator = torch.Generator().manual_seed(count)
    query = torch.randn(2, count, 3, 8, generator=generator).transpose(1, 2)
    key, value = torch.randn(2, 2, 3, 30, 8, generator=generator)
    expected = F.scaled_dot_product_attention(query, key, value)
    monkeypatch.setattr(transformer, "MANY_PAIRS", 1)
    torch.testing.assert_close(attend(query, key, value), expected)


@torch.no_grad()
def test_merged_keys_are_those_of_squares():
    """With the mean as merging convolution and constant squares, merging changes nothing but the number of keys."""
    layer, plain = Attention(8, 2, reduction=2), Attention(8, 2)
    plain.load_state_dict({name: value for name, value in layer.state_dict().items() if "merge" not in name})
    layer.merge.weight.copy_(torch.eye(8)[..., None, None].expand(-1, -1, 2, 2) / 4)
    layer.merge.bias.zero_()
    image = torch.randn(1, 8, 2, 3).repeat_interleave(2, -1).repeat_interleave(2, -2)
    x = as_tokens(image)
    expected = plain(x, GRID, layer.merge_norm(x))
    torch.testing.assert_close(layer(x, GRID), expected)


@torch.no_grad()
def test_feed_forward_sees_its_neighbours_alone():
    layer, x = MixFeedForward(8, 2), tokens()
    before = layer(x, GRID)
    x[:, 0] += 1
    changed = (layer(x, GRID) != before).any(-1)[0]
    assert changed.nonzero()[:, 0].tolist() == [0, 1, 6, 7]


@torch.no_grad()
def test_context_counts_by_its_scale():
    block, x, context = TransformerBlock(8, 2, 2, cross=True), tokens(), tokens(5)
    alone = block(x, GRID)
    assert block(x, GRID, context, 0.0).equal(alone)
    whole = block(x, GRID, context)
    assert not whole.allclose(alone)
    scale = torch.tensor([0.0, 1.0])[:, None, None]
    mixed = block(x, GRID, context, scale)
    torch.testing.assert_close(mixed, torch.stack([alone[0], whole[1]]))


@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 5)])
def test_patches_halve_the_size(height, width):
    found = PatchEmbedding(3, 8)(torch.randn(2, 3, height, width))
    assert found.shape == (2, math.ceil(height / 2) * math.ceil(width / 2), 8)
    torch.testing.assert_close(found.mean(-1), torch.zeros(found.shape[:2]), atol=1e-5, rtol=0)
