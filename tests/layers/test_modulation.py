import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from portraitzoo.layers.modulation import ModulatedLinear, SynthesisLayer, ToRGB, modulated_conv2d


def per_sample(x: Tensor, weight: Tensor, styles: Tensor, demodulate: bool) -> Tensor:
    """StyleGAN2's equations, one sample after the other."""
    rows = []
    for sample, style in zip(x, styles, strict=True):
        scaled = weight * style[None, :, None, None]
        if demodulate:
            scaled = scaled / (scaled.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        rows.append(F.conv2d(sample[None], scaled, padding=weight.shape[-1] // 2))
    return torch.cat(rows)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_equals_a_convolution_of_its_own_for_every_sample(demodulate: bool, kernel: int) -> None:
    torch.manual_seed(0)
    x, weight, styles = torch.randn(3, 5, 8, 8), torch.randn(4, 5, kernel, kernel), torch.randn(3, 5)
    bias = torch.randn(4)
    expected = per_sample(x, weight, styles, demodulate) * 1.5 + bias[:, None, None]
    options = {"demodulate": demodulate, "gain": 1.5, "bias": bias}
    torch.testing.assert_close(modulated_conv2d(x, weight, styles, **options), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        alone = [modulated_conv2d(x[i : i + 1], weight, styles[i : i + 1], **options) for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), expected, rtol=1e-4, atol=1e-4)


def test_up_convolution_flips_its_kernel() -> None:
    """A single lit pixel spreads the kernel itself, not its mirror image, over the doubled image."""
    x = torch.zeros(1, 1, 9, 9)
    x[..., 4, 4] = 1
    weight = torch.zeros(1, 1, 3, 3)
    weight[..., 0, 0] = 1
    y = modulated_conv2d(x, weight, torch.ones(1, 1), demodulate=False, up=2)
    centre = (y[0, 0] * torch.arange(18.0)).sum() / y.sum()
    assert float(centre) < 8.5  # up and to the left of the pixel's own centre at 8.5


def test_demodulated_output_does_not_depend_on_the_size_of_styles_or_weights() -> None:
    torch.manual_seed(0)
    x, weight, styles = torch.randn(2, 5, 8, 8), torch.randn(4, 5, 3, 3), torch.randn(2, 5)
    torch.testing.assert_close(
        modulated_conv2d(x, 7 * weight, 3 * styles), modulated_conv2d(x, weight, styles), rtol=1e-4, atol=1e-4
    )


def test_half_precision_survives_huge_weights() -> None:
    """Styles and weights whose product overflows bfloat16's and float16's ranges are normalised first."""
    torch.manual_seed(0)
    x, weight, styles = torch.randn(2, 16, 8, 8), torch.randn(16, 16, 3, 3) * 1e4, torch.randn(2, 16) * 1e4
    expected = modulated_conv2d(x, weight, styles)
    actual = modulated_conv2d(x.to(torch.bfloat16), weight, styles)
    assert actual.dtype == torch.bfloat16 and actual.isfinite().all()
    torch.testing.assert_close(actual.float(), expected, rtol=0.1, atol=0.1)


def test_noise_is_the_layers_own_or_fresh_or_none() -> None:
    torch.manual_seed(0)
    layer = SynthesisLayer(4, 6, 8, noise_resolution=8)
    layer.noise_strength.data.fill_(1.0)
    x, w = torch.randn(2, 4, 8, 8), torch.randn(2, 8)
    assert torch.equal(layer(x, w, "const"), layer(x, w, "const"))
    assert not torch.equal(layer(x, w, "random"), layer(x, w, "random"))
    assert not torch.allclose(layer(x, w, "none"), layer(x, w, "const"))
    silent = SynthesisLayer(4, 6, 8)
    assert torch.equal(silent(x, w, "none"), silent(x, w, "random"))


@pytest.mark.parametrize("grad", [True, False])
def test_outputs_are_clamped(grad: bool) -> None:
    torch.manual_seed(0)
    layer, image = SynthesisLayer(4, 6, 8, clamp=0.5), ToRGB(4, 3, 8, clamp=0.25)
    x, w = torch.randn(1, 4, 8, 8) * 100, torch.randn(1, 8)
    with torch.set_grad_enabled(grad):
        assert float(layer(x, w).abs().max()) == 0.5
        assert float(image(x, w).abs().max()) == 0.25


def test_inputs_are_left_alone_without_gradients() -> None:
    layer = SynthesisLayer(4, 6, 8, noise_resolution=8)
    x, w = torch.randn(1, 4, 8, 8), torch.randn(1, 8)
    kept = x.clone(), w.clone(), layer.noise_const.clone()
    with torch.no_grad():
        layer(x, w)
    assert all(torch.equal(a, b) for a, b in zip((x, w, layer.noise_const), kept, strict=True))


def test_a_modulated_layer_over_points_is_a_1x1_convolution() -> None:
    x, w = torch.randn(2, 6, 4, 5), torch.randn(2, 7)
    points = x.flatten(2).mT
    image, layer = ToRGB(6, 3, 7, clamp=1.5), ModulatedLinear(6, 3, 7, demodulate=False, clamp=1.5)
    layer.load_state_dict({name: tensor.reshape(tensor.shape[:2]) for name, tensor in image.state_dict().items()})
    torch.testing.assert_close(layer(points, w), image(x, w).flatten(2).mT)

    layer = ModulatedLinear(6, 3, 7, activation="lrelu")
    torch.nn.init.normal_(layer.bias)
    expected = modulated_conv2d(x, layer.weight[..., None, None], layer.affine(w), bias=layer.bias)
    expected = F.leaky_relu(expected, 0.2) * 2**0.5
    torch.testing.assert_close(layer(points, w), expected.flatten(2).mT)
