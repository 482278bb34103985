import dataclasses

import pytest
import torch

from portraitzoo.methods.pv3d.discriminator import DiscriminatorConfig, ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.pv3d.network import Generator, PV3DConfig
from portraitzoo.rendering.cameras import Camera, trajectory
from portraitzoo.rendering.volume import RaySampling

SMALL = PV3DConfig(
    z_dim=16,
    w_dim=16,
    motion_dim=16,
    image_resolution=64,
    plane_resolution=32,
    plane_channels=8,
    channel_base=512,
    channel_max=16,
    motion_resolutions=(4, 8),
    decoder_width=16,
    super_resolution_input=16,
    super_resolution_channels=(12, 8),
    depth_samples=8,
    importance_samples=8,
    render_resolution=16,
)
NUMBERS = ("image", "image_raw", "depth", "position", "opacity")


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    network = Generator(SMALL).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.3)
    network.decoder.output.bias.data[0] = 40.0  # dense enough to be seen
    return network


def clip_inputs(generator: Generator, frames: int) -> dict:
    draw = torch.Generator().manual_seed(1)
    size, samples = SMALL.render_resolution**2, SMALL.depth_samples
    camera = trajectory("orbit", frames)
    z = torch.randn(1, SMALL.z_dim, generator=draw)
    return {
        "ws": generator.mapping(z, camera[:1].label()).expand(frames, -1, -1),
        "z_motion": torch.randn(1, SMALL.z_dim, generator=draw).expand(frames, -1),
        "t": torch.linspace(0, 1, frames),
        "camera": camera,
        "sampling": RaySampling(uniforms=torch.rand(frames, size, samples, generator=draw)),
    }


def part(inputs: dict, rows: slice) -> dict:
    return {name: value[rows, :] if name == "sampling" else value[rows] for name, value in inputs.items()}


@torch.no_grad()
def test_a_frame_is_the_same_to_the_bit_whatever_its_batch(generator: Generator) -> None:
    inputs = clip_inputs(generator, 5)
    whole = generator.synthesis(**inputs)
    for rows in (slice(0, 1), slice(1, 3), slice(2, 5)):
        alone = generator.synthesis(**part(inputs, rows))
        for name in NUMBERS:
            assert torch.equal(getattr(alone, name), getattr(whole, name)[rows]), name


@pytest.mark.slow
@torch.no_grad()
def test_an_official_sized_frame_is_the_same_to_the_bit_whatever_its_batch() -> None:
    """At this size the strips, the Winograd convolution and several ray chunks take part."""
    torch.manual_seed(0)
    generator = Generator(PV3DConfig(render_resolution=32)).eval()
    camera = trajectory("orbit", 2)
    ws = generator.mapping(torch.randn(1, 512), camera[:1].label()).expand(2, -1, -1)
    inputs = {"ws": ws, "z_motion": torch.randn(2, 512), "t": torch.tensor([0.2, 0.8]), "camera": camera}
    both = generator.synthesis(**inputs)
    second = generator.synthesis(**part(inputs, slice(1, 2)))
    for name in NUMBERS:
        assert torch.equal(getattr(second, name)[0], getattr(both, name)[1]), name


def test_with_and_without_gradients_the_frames_agree(generator: Generator) -> None:
    inputs = clip_inputs(generator, 3)
    with_gradients = generator.synthesis(**inputs)
    with torch.no_grad():
        without = generator.synthesis(**inputs)
    for name in NUMBERS:
        actual, expected = getattr(without, name), getattr(with_gradients, name)
        torch.testing.assert_close(actual, expected.detach(), rtol=1e-3, atol=1e-4, msg=name)


def test_shapes_and_ranges(generator: Generator) -> None:
    inputs = clip_inputs(generator, 2)
    output = generator.synthesis(**{**inputs, "sampling": RaySampling()}, render_resolution=12)
    assert output.image.shape == (2, 3, 64, 64) and output.image_raw.shape == (2, 3, 12, 12)
    assert output.depth.shape == (2, 1, 12, 12) and output.features.shape == (2, 8, 12, 12)
    assert output.position.shape == (2, 12, 12, 3) and output.opacity.shape == (2, 12, 12, 1)
    assert (output.depth >= SMALL.ray_start).all() and (output.depth <= SMALL.ray_end).all()
    assert (output.opacity >= 0).all() and (output.opacity <= 1 + 1e-5).all() and output.opacity.max() > 0.5


@torch.no_grad()
def test_motion_is_silent_at_time_zero_and_only_the_motion_code_moves_afterwards(generator: Generator) -> None:
    inputs = clip_inputs(generator, 1)
    ws, one, other = inputs["ws"], torch.randn(1, SMALL.z_dim), torch.randn(1, SMALL.z_dim)
    start, later = torch.zeros(1), torch.tensor([0.7])
    assert torch.equal(generator.planes(ws, one, start), generator.planes(ws, other, start))
    assert not torch.allclose(generator.planes(ws, one, later), generator.planes(ws, other, later))
    assert not torch.allclose(generator.planes(ws, one, later), generator.planes(ws, 2 * one, later))


@torch.no_grad()
def test_position_lies_on_the_ray_and_density_agrees_with_the_field(generator: Generator) -> None:
    inputs = clip_inputs(generator, 2)
    output = generator.synthesis(**inputs)
    planes = generator.planes(inputs["ws"], inputs["z_motion"], inputs["t"])
    points = output.position.flatten(1, 2)
    density = generator.density(points, inputs["ws"], inputs["z_motion"], inputs["t"])
    assert torch.equal(density, generator.field(points, planes)[0])
    origin = inputs["camera"].cam2world[:, None, None, :3, 3]
    distance = (output.position - origin).norm(dim=-1)
    seen = output.opacity[..., 0] > 0.999
    assert seen.any()
    torch.testing.assert_close(distance[seen], output.depth[:, 0][seen], rtol=0, atol=0.01)


def test_noise_modes(generator: Generator) -> None:
    inputs = clip_inputs(generator, 1)
    codes = inputs["ws"], inputs["z_motion"], inputs["t"]
    with torch.no_grad():
        fixed, fresh, none = (generator.planes(*codes, noise=noise) for noise in ("const", "random", "none"))
        assert torch.equal(fixed, generator.planes(*codes))
        assert not torch.equal(fresh, generator.planes(*codes, noise="random"))
        assert not torch.equal(fixed, none)


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    generator = Generator(SMALL)
    inputs = clip_inputs(generator, 2)
    generator.synthesis(**inputs).image.square().sum().backward()
    unreached = [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not unreached


def test_generator_and_discriminators_fit_together() -> None:
    torch.manual_seed(0)
    generator = Generator(SMALL)
    sizes = DiscriminatorConfig.beside(SMALL)
    judge_image, judge_video = ImageDiscriminator(sizes), VideoDiscriminator(sizes)
    output = generator.synthesis(**clip_inputs(generator, 4))
    label = trajectory("orbit", 4).label()
    assert judge_image(output.image, output.image_raw, label).shape == (4, 1)
    times = torch.tensor([[0.1, 0.4], [0.2, 0.9]])
    pair = judge_video.stack_pair(output.image.unflatten(0, (2, 2)), times)
    assert pair.shape == (2, 7, 64, 64)
    torch.testing.assert_close(pair[:, 6, 0, 0], torch.tensor([0.3, 0.7]))
    assert torch.equal(pair[1, 3:6], output.image[3])
    assert judge_video(pair, label.unflatten(0, (2, 2))).shape == (2, 1)


def test_discriminators_look_at_all_they_are_given() -> None:
    torch.manual_seed(0)
    judge = ImageDiscriminator(DiscriminatorConfig.beside(SMALL))
    image, raw = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 16, 16)
    front, side = Camera.canonical().label()[None], Camera.look_at(0.5, 0.0).label()[None]
    base = judge(image, raw, front)
    assert not torch.allclose(base, judge(image + 1, raw, front))
    assert not torch.allclose(base, judge(image, raw + 1, front))
    assert not torch.allclose(base, judge(image, raw, side))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="does not give image_resolution 48"):
        dataclasses.replace(SMALL, image_resolution=48)


def test_config_survives_json() -> None:
    import json

    assert PV3DConfig(**json.loads(json.dumps(dataclasses.asdict(SMALL)))) == SMALL
    assert SMALL.widest_activation() == 64 * 64 * 8
