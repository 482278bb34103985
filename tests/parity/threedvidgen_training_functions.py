"""Comparisons of training with the reference: losses, schedules, data, augmentation; a function for every group."""

import math
from collections.abc import Callable

import torch
from reference import Arrays
from torch import Tensor, nn

from portraitzoo.layers.discriminator import stack_pair
from portraitzoo.methods.threedvidgen.data import crop_and_resize
from portraitzoo.methods.threedvidgen.objective import fade
from portraitzoo.metrics.frechet import FeatureStatistics, frechet_distance
from portraitzoo.training.ada import AdaDraws, augment, filter_bank, geometry_filter
from portraitzoo.training.adversarial import discriminator_loss, generator_loss
from portraitzoo.training.diffaugment import change_colors, cut_out, translate
from portraitzoo.training.frame_pairs import frame_pair
from portraitzoo.training.optimisers import lazy_adam
from portraitzoo.training.regularisers import path_length_penalty, path_lengths
from portraitzoo.training.schedules import HALF_LIFE_BATCH, ema_beta

TOLERANCE = 1e-5
KIMG = 1000


def check_convert(arrays: Arrays) -> None:
    times = arrays["convert.in.Ts"]
    frames = arrays["convert.in.img"].unflatten(0, times.shape)
    arrays.check("convert.out.video", stack_pair(frames, times), TOLERANCE)


def check_alpha_schedule(arrays: Arrays) -> None:
    start, end = (arrays["alpha_schedule.in.curriculum"] * KIMG).tolist()
    ours = [fade(int(samples), start, end) for samples in arrays["alpha_schedule.in.nimg"]]
    arrays.check("alpha_schedule.out.alpha", torch.tensor(ours), TOLERANCE)


def check_lazy_reg(arrays: Arrays) -> None:
    (beta1, beta2), weight = arrays["lazy_reg.in.betas"].tolist(), nn.Parameter(torch.zeros(1))
    assert beta1 == 0
    optimisers = [
        lazy_adam([weight], float(arrays["lazy_reg.in.lr"]), interval, beta2)
        for interval in arrays["lazy_reg.in.intervals"].tolist()
    ]
    arrays.check("lazy_reg.out.lr", torch.tensor([o.defaults["lr"] for o in optimisers]), TOLERANCE)
    arrays.check("lazy_reg.out.beta2", torch.tensor([o.defaults["betas"][1] for o in optimisers]), TOLERANCE)


def check_ema(arrays: Arrays) -> None:
    batch, half_life = int(arrays["ema.in.batch"]), float(arrays["ema.in.ema_kimg"]) * KIMG
    ours = ema_beta(0, batch, half_life * HALF_LIFE_BATCH / batch, rampup=None)
    arrays.check("ema.out.beta", torch.tensor(ours), TOLERANCE)


def check_diffaugment(arrays: Arrays) -> None:
    for name in arrays.keys("diffaugment_"):
        if not name.endswith(".in.video"):
            continue
        group = name.removesuffix(".in.video")
        video = arrays[name]
        frames = video[:, :6].unflatten(1, (2, 3))
        draws = [arrays[key].flatten() for key in sorted(arrays.keys(f"{group}.in.draw"))]
        for step in group.removeprefix("diffaugment_").split("_"):
            match step:
                case "color":
                    frames, draws = change_colors(frames, *draws[:3]), draws[3:]
                case "translation":
                    frames, draws = translate(frames, torch.stack(draws[:2], dim=1)), draws[2:]
                case "cutout":
                    frames, draws = cut_out(frames, torch.stack(draws[:2], dim=1)), draws[2:]
                case _:
                    raise AssertionError(f"no test knows the augmentation {step!r}")
        assert not draws, f"{group} has draws that nothing took"
        arrays.check(f"{group}.out.frames", frames.flatten(0, 1), TOLERANCE)


def check_resize_crop(arrays: Arrays) -> None:
    resolution = int(arrays["resize_crop.in.resolution"])
    wide = arrays["resize_crop.in.frames"].permute(0, 2, 3, 1)
    arrays.check("resize_crop.out.frames", crop_and_resize(wide, resolution), TOLERANCE, strided=False)
    tall = wide.transpose(1, 2)
    arrays.check("resize_crop.out.tall", crop_and_resize(tall, resolution), TOLERANCE, strided=False)


def check_frame_pairs(arrays: Arrays) -> None:
    window = int(arrays["frame_pairs.in.nframes"])
    early, late = arrays["frame_pairs.in.beta21"].tolist(), arrays["frame_pairs.in.beta12"].tolist()
    pairs = torch.tensor([frame_pair(*draws, window) for draws in zip(early, late, strict=True)])
    arrays.check("frame_pairs.out.frames", pairs, TOLERANCE, strided=False)
    times = pairs.double() / (window - 1)
    arrays.check("frame_pairs.out.dt", times[:, 1] - times[:, 0], TOLERANCE)


def check_adversarial(arrays: Arrays) -> None:
    logits = arrays["adversarial.in.logits"]
    certain = torch.full((1, 1), -torch.inf)  # as a generated sample it costs nothing, nor its opposite as a real one

    def each(loss: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.stack([loss(row[None]) for row in logits])[:, None]

    arrays.check("adversarial.out.g", each(generator_loss), TOLERANCE)
    arrays.check("adversarial.out.d_fake", each(lambda row: discriminator_loss(row, -certain)), TOLERANCE)
    arrays.check("adversarial.out.d_real", each(lambda row: discriminator_loss(certain, row)), TOLERANCE)


def check_path_length(arrays: Arrays) -> None:
    lengths = path_lengths(arrays["path_length.in.grads"])
    penalty, mean = path_length_penalty(lengths, arrays["path_length.in.pl_mean"], decay=0.01)
    arrays.check("path_length.out.lengths", lengths, TOLERANCE)
    arrays.check("path_length.out.new_mean", mean, TOLERANCE)
    arrays.check("path_length.out.penalty", penalty, TOLERANCE)


def check_frechet(arrays: Arrays) -> None:
    found = {}
    for side in ("real", "fake"):
        features = arrays[f"frechet.in.{side}"]
        found[side] = FeatureStatistics(features.shape[1], max_items=int(arrays[f"frechet.in.max_{side}"]))
        found[side].append(features)
        arrays.check(f"frechet.out.mean_{side}", found[side].mean, TOLERANCE)
        arrays.check(f"frechet.out.cov_{side}", found[side].cov, TOLERANCE)
    arrays.check("frechet.out.distance", frechet_distance(found["fake"], found["real"]), TOLERANCE)


def check_ada_buffers(arrays: Arrays) -> None:
    like = torch.zeros(())
    arrays.check("ada_buffers.out.Hz_geom", geometry_filter(like), TOLERANCE)
    arrays.check("ada_buffers.out.Hz_fbank", filter_bank(like), TOLERANCE)


def check_ada(arrays: Arrays) -> None:
    """A group of transformations, of which every draw is the same percentile of its distribution."""
    for name in arrays.keys("ada_"):
        if not name.endswith(".in.images"):
            continue
        case = name.removesuffix(".in.images")
        images, percentile = arrays[name], float(arrays[f"{case}.in.percentile"])
        augmented = augment(images, ada_draws(case.split("_")[1], percentile, images))
        arrays.check(f"{case}.out.images", augmented, TOLERANCE)


def ada_draws(group: str, percentile: float, images: Tensor) -> AdaDraws:
    """As the reference takes percentiles: normal ones lack the square root of 2 of the error function."""
    batch, side = len(images), images.shape[-1]
    uniform = 2 * percentile - 1
    normal = float(torch.erfinv(torch.tensor(uniform)))

    def row(*values: float) -> Tensor:
        rows = torch.tensor(values).expand(batch, -1)
        return rows[:, 0] if len(values) == 1 else rows

    blit = {
        "mirrored": row(math.floor(2 * percentile)),
        "quarters": row(math.floor(4 * percentile)),
        "shift": row(*[round(uniform * 0.125 * side)] * 2),
    }
    geom = {
        "zoom": row(normal * 0.2),
        "turn": row(uniform * math.pi),
        "stretch": row(normal * 0.2),
        "turn_after": row(0.0),
        "drift": row(*[normal * 0.125 * side] * 2),
    }
    color = {
        "brightness": row(normal * 0.2),
        "contrast": row(normal * 0.5),
        "inverted": row(math.floor(2 * percentile)),
        "hue": row(uniform * math.pi),
        "saturation": row(normal),
    }
    groups = {
        "blit": blit,
        "geom": geom,
        "color": color,
        "filter": {"bands": row(*[normal] * 4)},
        "cutout": {"hole": row(percentile, percentile, 0.5)},
        "bg": blit | geom,
        "bgc": blit | geom | color,
    }
    return AdaDraws(**{name: value.float() for name, value in groups[group].items()})


FUNCTIONS: dict[str, Callable[[Arrays], None]] = {
    "convert": check_convert,
    "alpha_schedule": check_alpha_schedule,
    "lazy_reg": check_lazy_reg,
    "ema": check_ema,
    "diffaugment_color": check_diffaugment,
    "diffaugment_translation": check_diffaugment,
    "diffaugment_cutout": check_diffaugment,
    "diffaugment_color_translation": check_diffaugment,
    "resize_crop": check_resize_crop,
    "frame_pairs": check_frame_pairs,
    "adversarial": check_adversarial,
    "path_length": check_path_length,
    "frechet": check_frechet,
    "ada_buffers": check_ada_buffers,
    **{f"ada_{group}_0": check_ada for group in ("blit", "geom", "color", "filter", "cutout", "bg", "bgc")},
}
