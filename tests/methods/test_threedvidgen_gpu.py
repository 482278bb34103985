"""3D-Aware Video Generation on a GPU: the same frames as on the CPU, in half precision nearly so."""

import pytest
import torch
from test_threedvidgen_network import KINDS, inputs, make

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def on_gpu(given: dict) -> dict:
    return {name: value.to("cuda") for name, value in given.items()}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_frames_are_those_of_the_cpu(kind: str) -> None:
    generator, given = make(KINDS[kind]), inputs()
    expected = generator(**given).image
    found = generator.to("cuda")(**on_gpu(given)).image.cpu()
    error = (found - expected).abs() / expected.abs().max()
    # A ray's importance samples may fall otherwise by rounding; see the parity test.
    assert error.max() < 5e-2 and float((error < 1e-3).float().mean()) > 0.99


@torch.no_grad()
def test_half_precision_of_the_upsampler_changes_little() -> None:
    generator, given = make(KINDS["neighbours"]).to("cuda"), on_gpu(inputs())
    expected = generator(**given).image
    last = list(generator.upsampler.values())[-1]
    last.low_precision = torch.float16
    found = generator(**given).image
    assert not torch.equal(found, expected) and found.dtype == torch.float32
    assert (found - expected).abs().max() < 2e-2 * expected.abs().max()
