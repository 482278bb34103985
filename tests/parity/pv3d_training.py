"""Comparisons of PV3D's training with the reference: a function for every group of arrays that concerns it."""

from collections.abc import Callable

import torch
from reference import Arrays

from portraitzoo.methods.pv3d.data import to_network, window_bound
from portraitzoo.training.adversarial import discriminator_loss, generator_loss
from portraitzoo.training.blur import blur
from portraitzoo.training.frame_pairs import frame_pair
from portraitzoo.training.regularisers import density_variation
from portraitzoo.training.schedules import Schedules, ema_beta

WEIGHTS = {"image": 1.0, "video": 0.65, "density": 0.6, "r1_gamma": 2.0}
GENERATOR_INTERVAL, DISCRIMINATOR_INTERVAL = 4, 16
TOLERANCE = 1e-5


def check_blur(arrays: Arrays) -> None:
    for name in arrays.keys("blur.out"):
        arrays.check(name, blur(arrays["resize.in"], float(name.removeprefix("blur.out"))), TOLERANCE)


def check_schedule(arrays: Arrays) -> None:
    rows = []
    for batch, final, samples, *_ in arrays["schedule"].tolist():
        schedules = Schedules(resolution_start=64, resolution_end=int(final))
        values = (
            schedules.blur(int(samples), int(batch)),
            schedules.swap_probability(int(samples)),
            schedules.render_resolution(int(samples)),
        )
        rows.append([batch, final, samples, *values])
    for column in range(3, 6):
        # Column by column: the number of samples would hide an error of the others.
        expected = arrays["schedule"][:, column]
        torch.testing.assert_close(
            torch.tensor(rows, dtype=torch.float64)[:, column], expected.double(), rtol=TOLERANCE, atol=TOLERANCE
        )
    arrays.check("schedule", torch.tensor(rows), TOLERANCE)


def check_ema_beta(arrays: Arrays) -> None:
    rows = arrays["ema_beta"].tolist()
    ours = torch.tensor([ema_beta(int(samples), int(batch)) for batch, samples, _ in rows])
    torch.testing.assert_close(ours, arrays["ema_beta"][:, 2].float(), rtol=TOLERANCE, atol=1e-12)


def check_loss(arrays: Arrays) -> None:
    given = {name.removeprefix("loss.in."): arrays[name] for name in arrays.keys("loss.in.")}
    fake_image, fake_video = given["generated_img_scores"], given["generated_vid_scores"]
    real_image, real_video = given["real_img_scores"], given["real_vid_scores"]
    r1 = WEIGHTS["r1_gamma"] / 2 * DISCRIMINATOR_INTERVAL
    ours = {
        "Gmain": WEIGHTS["image"] * generator_loss(fake_image) + WEIGHTS["video"] * generator_loss(fake_video),
        "Greg": WEIGHTS["density"]
        * GENERATOR_INTERVAL
        * density_variation(given["sigma_initial"], given["sigma_perturbed"]),
        "Dmain": WEIGHTS["image"] * discriminator_loss(fake_image, real_image)
        + WEIGHTS["video"] * discriminator_loss(fake_video, real_video),
        "Dreg": r1
        * (WEIGHTS["image"] * given["grad_img_penalty"].mean() + WEIGHTS["video"] * given["grad_vid_penalty"].mean()),
    }
    for name in arrays.keys("loss.out."):
        arrays.check(name, ours[name.removeprefix("loss.out.")], TOLERANCE)


def check_dataset_pair(arrays: Arrays) -> None:
    clip_length = 20
    rows = []
    for offset, early, late, *_ in arrays["dataset_pair"].tolist():
        first, second = frame_pair(early, late)
        places = (min(int(offset) + frame, clip_length - 1) for frame in (first, second))
        rows.append([offset, early, late, window_bound(clip_length), *places])
    arrays.check("dataset_pair", torch.tensor(rows), TOLERANCE)


def check_get_t(arrays: Arrays) -> None:
    arrays.check("get_t.out", arrays["get_t.in"].sort(dim=1).values, TOLERANCE)


def check_frames(arrays: Arrays) -> None:
    frames = arrays["frames.in"]
    arrays.check("frames.out_norm", to_network(frames, frames.shape[1]), TOLERANCE)
    arrays.check("frames.out_flip", to_network(frames, frames.shape[1], mirrored=True), TOLERANCE)
    for name in arrays.keys("frames.out_resize"):
        arrays.check(name, to_network(frames, int(name.removeprefix("frames.out_resize"))), TOLERANCE, strided=False)


FUNCTIONS: dict[str, Callable[[Arrays], None]] = {
    "blur": check_blur,
    "schedule": check_schedule,
    "ema_beta": check_ema_beta,
    "loss": check_loss,
    "dataset_pair": check_dataset_pair,
    "get_t": check_get_t,
    "frames": check_frames,
}
