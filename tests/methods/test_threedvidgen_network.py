import dataclasses
import json

import pytest
import torch

from portraitzoo.methods.threedvidgen.cameras import camera_on_sphere, program
from portraitzoo.methods.threedvidgen.discriminator import DiscriminatorConfig, ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.threedvidgen.network import Generator, ThreeDVidGenConfig
from portraitzoo.methods.threedvidgen.renderer import Draws
from portraitzoo.rendering.cameras import Camera

SMALL = ThreeDVidGenConfig(
    z_dim=16,
    w_dim=16,
    motion_dim=12,
    background_dim=4,
    mapping_layers=2,
    image_resolution=32,
    render_resolution=8,
    feature_channels=12,
    channel_base=256,
    channel_max=16,
    field_width=16,
    field_layers=3,
    motion_width=16,
    background_width=8,
    background_layers=2,
    ray_samples=6,
    regularised_pixels=4,
)
KINDS = {
    "neighbours": SMALL,
    "pixelshuffle": dataclasses.replace(SMALL, enlargement="pixelshuffle", view_dependent=False),
}
NUMBERS = ("image", "image_raw", "features", "depths", "weights", "transmittance")


def make(config: ThreeDVidGenConfig) -> Generator:
    torch.manual_seed(0)
    network = Generator(config).eval()
    network.alpha.zero_()
    network.field.sigma_out.bias.data.fill_(4.0)  # dense enough to be seen
    network.background.sigma_out.bias.data.fill_(2.0)
    return network


@pytest.fixture(scope="module", params=KINDS)
def generator(request) -> Generator:
    return make(KINDS[request.param])


def inputs(videos: int = 2, frames: int = 3) -> dict:
    draw = torch.Generator().manual_seed(1)
    yaw = torch.linspace(-0.4, 0.4, videos * frames).view(videos, frames)
    return {
        "z": torch.randn(videos, SMALL.z_dim, generator=draw),
        "z_motion": torch.randn(videos, SMALL.motion_dim, generator=draw),
        "times": torch.linspace(0, 1, frames).expand(videos, -1),
        "camera": camera_on_sphere(yaw, 1.5),
        "z_background": torch.randn(videos, SMALL.background_dim, generator=draw),
    }


def draws(generator: Generator, videos: int) -> Draws:
    each = [torch.Generator().manual_seed(seed) for seed in range(videos)]
    return Draws.fresh(generator.training_rays, generator.span, each)


@torch.no_grad()
def test_a_frame_is_the_same_to_the_bit_whatever_its_batch(generator: Generator) -> None:
    given = inputs()
    ws = torch.cat([generator.mapping(z) for z in given.pop("z").split(1)])
    whole = generator.synthesis(ws, **given)
    for video in range(2):
        for frame in range(3):
            one = slice(video, video + 1)
            alone = generator.synthesis(
                ws[one],
                given["z_motion"][one],
                given["times"][one, frame, None],
                Camera(given["camera"].cam2world[one, frame, None], given["camera"].intrinsics[one, frame, None]),
                given["z_background"][one],
            )
            for name in NUMBERS:
                assert torch.equal(getattr(alone, name)[0], getattr(whole, name)[3 * video + frame]), name


def test_with_and_without_gradients_the_frames_agree(generator: Generator) -> None:
    given = inputs()
    with_gradients = generator(**given)
    with torch.no_grad():
        without = generator(**given)
    for name in NUMBERS:
        expected = getattr(with_gradients, name).detach()
        torch.testing.assert_close(getattr(without, name), expected, rtol=1e-3, atol=1e-3, msg=name)


def test_one_camera_for_a_video_serves_all_its_frames(generator: Generator) -> None:
    given = inputs()
    shared = given | {"camera": given["camera"][:, 0]}
    every = given | {"camera": Camera(*(part[:, :1].expand(-1, 3, -1, -1) for part in vars(given["camera"]).values()))}
    assert torch.equal(generator(**shared).image, generator(**every).image)


@torch.no_grad()
def test_motion_is_silent_at_time_zero_and_never_moves_the_background(generator: Generator) -> None:
    given = inputs(1, 1)
    other = given | {"z_motion": torch.randn(1, SMALL.motion_dim)}
    assert torch.equal(generator(**given).image, generator(**other).image)
    later = {"times": torch.ones(1, 1)}
    one, two = generator(**given | later), generator(**other | later)
    assert not torch.equal(one.image, two.image)
    assert torch.equal(one.background_weights, two.background_weights)


def test_training_gives_the_regularisation_and_moves_the_magnitudes(generator: Generator) -> None:
    before = {name: buffer.clone() for name, buffer in generator.named_buffers()}
    generator.train()
    output = generator(**inputs(), draws=draws(generator, 2))
    generator.eval()
    assert output.regularisation.shape == (6, 1) and (output.regularisation > 0).all()
    after = dict(generator.named_buffers())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.endswith("magnitude")}
    for name in moved:
        after[name].copy_(before[name])


def test_gradients_reach_every_parameter(generator: Generator) -> None:
    output = generator(**inputs(), draws=draws(generator, 2))
    (output.image.square().sum() + output.regularisation.sum()).backward()
    unreached = [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    generator.zero_grad()
    assert not unreached


def test_draws_of_a_video_do_not_depend_on_the_batch() -> None:
    generator = make(SMALL)
    both, first = draws(generator, 2), draws(generator, 1)
    assert torch.equal(both.fine_noise[:1], first.fine_noise)
    assert torch.equal(both.offsets[:1], first.offsets)


def test_a_fresh_generator_takes_twenty_samples_and_a_trained_one_its_own() -> None:
    generator = Generator(SMALL)
    assert generator.span.samples == 20
    generator.alpha.fill_(0.5)
    assert generator.span.samples == SMALL.ray_samples


@torch.no_grad()
def test_without_background_the_last_sample_stops_all_light(generator: Generator) -> None:
    given = inputs(1, 1)
    ws = generator.mapping(given["z"])
    rest = (given["z_motion"], given["times"], given["camera"], given["z_background"])
    alone = generator.synthesis(ws, *rest, with_background=False)
    torch.testing.assert_close(alone.weights.sum(dim=-1), torch.ones_like(alone.transmittance))
    assert not torch.equal(alone.image, generator.synthesis(ws, *rest).image)


def test_generator_and_discriminators_fit_together() -> None:
    generator = make(SMALL)
    sizes = DiscriminatorConfig.beside(SMALL)
    judge_image, judge_video = ImageDiscriminator(sizes), VideoDiscriminator(sizes)
    given = inputs(2, 2)
    output = generator(**given)
    pair = judge_video.stack_pair(output.image.unflatten(0, (2, 2)), given["times"])
    assert judge_video(pair).shape == (2, 1) and judge_image(output.image).shape == (4, 1)
    assert not torch.allclose(judge_video(pair), judge_video(pair.index_fill(1, torch.tensor(6), 0.5)))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"image_resolution": 48}, "never gives 48"),
        ({"enlargement": "bilinear"}, "not 'bilinear'"),
        ({"regularised_pixels": 5}, "do not divide"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(SMALL, **change)


def test_config_survives_json() -> None:
    assert ThreeDVidGenConfig(**json.loads(json.dumps(dataclasses.asdict(SMALL)))) == SMALL


@pytest.mark.parametrize("name", ["front", "yaw", "yaw-inverse", "pitch", "yaw-pitch", "front-zoom"])
def test_programs_look_at_the_head_from_the_right_distance(name: str) -> None:
    camera = program(name, SMALL, 5)
    assert tuple(camera.shape) == (5,)
    eye, forward = camera.cam2world[:, :3, 3], camera.cam2world[:, :3, 2]
    torch.testing.assert_close(eye.norm(dim=-1), torch.ones(5))
    torch.testing.assert_close(forward, -eye)
    assert (eye[:, 2] > 0).all(), "the face looks toward +z"
