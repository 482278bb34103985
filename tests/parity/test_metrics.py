"""Feature networks and metric functions against the reference numbers in ``metrics/``."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from reference import Arrays, Case, assert_close, cases, function_groups, parameters, reference_folder
from torch import Tensor, nn

from portraitzoo.media.display import depth_normals, display_corrected
from portraitzoo.media.images import to_uint8
from portraitzoo.metrics import arcface, inception, inception3d, lpips
from portraitzoo.metrics.chamfer import ChamferDistance, chamfer_distance
from portraitzoo.metrics.features import FeatureNetwork
from portraitzoo.metrics.frechet import FeatureStatistics, frechet_distance
from portraitzoo.metrics.identity import IdentityConsistency
from portraitzoo.metrics.inception_score import inception_score, video_inception_score
from portraitzoo.metrics.kid import kernel_inception_distance
from portraitzoo.metrics.multiview import side_camera
from portraitzoo.metrics.path_length import slerp, trimmed_mean
from portraitzoo.metrics.precision_recall import manifold_shares
from portraitzoo.metrics.preparation import fitted
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.psnr import masked_mse, psnr_of_mean
from portraitzoo.metrics.warping import (
    MultiViewWarpingError,
    backward_warp,
    forward_warp,
    resized_images,
)
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.rays import cast_rays

SYSTEM = "metrics"
FUNCTION = 1e-5
DOUBLE = 1e-9  # float64 all the way


def stored(full: Tensor, golden: Arrays, name: str) -> Tensor:
    """The slice of ``full`` that the notes say was kept, as in "stored [:, ::16, ::2, ::3, ::3]"."""
    found = re.search(r"stored (?:slice )?\[([^\]]*)\]", golden.meaning(name))
    if found is None:
        return full
    parts = [part.strip() for part in found[1].split(",")]
    return full[tuple(Ellipsis if p == "..." else slice(None, None, int(p.strip(":") or 1)) for p in parts)]


def compare(golden: Arrays, name: str, actual: Tensor, tolerance: float = 1e-4) -> None:
    golden.check(name, stored(actual, golden, name), tolerance, strided=False)


def last_channel(images: Tensor) -> Tensor:
    return images.movedim(1, -1)


class Taps:
    """What named modules returned, call by call."""

    def __init__(self, network: nn.Module, names: dict[str, str]) -> None:
        self.calls: dict[str, list[Tensor]] = {name: [] for name in names}
        for official, ours in names.items():
            network.get_submodule(ours).register_forward_hook(
                lambda _module, _inputs, output, kept=self.calls[official]: kept.append(output.clone())
            )

    def compare(self, golden: Arrays, tolerance: float = 1e-4) -> None:
        """Each golden ``mid.NAME`` with the one call that has its full shape."""
        for official, outputs in self.calls.items():
            name = f"mid.{official}"
            shape = golden[name].shape
            fitting = [output for output in outputs if stored(output, golden, name).shape == shape]
            assert len(fitting) == 1, f"{name}: {len(fitting)} calls have its shape"
            compare(golden, name, fitting[0], tolerance)


def mids(golden: Arrays, apart: tuple[str, ...] = ()) -> list[str]:
    names = [key.removeprefix("mid.") for key in golden.keys("mid.")]
    return [name for name in names if name not in apart]


def loaded(case: Case, build: Callable[..., nn.Module], convert: Callable) -> FeatureNetwork:
    """The network as evaluation uses it: converted, frozen and folded."""
    conversion = convert(case.state_dict())
    network = build(**conversion.config)
    network.load_state_dict(conversion.tensors["model"])
    assert len(conversion.tensors["model"]) + len(conversion.dropped) == len(case.manifest["tensors"])
    return FeatureNetwork(case.name, network, comparable=True)


def check_i3d_videogpt(case: Case) -> None:
    golden, features = case.golden, loaded(case, inception3d.I3D, inception3d.convert)
    official = mids(golden, apart=("preprocessed", "avg_pool"))
    ours = {name: name.lower() if name.startswith("Mixed") else f"conv_{name.split('_')[1]}" for name in official}
    taps = Taps(features.module, ours | {"avg_pool": "pool"})
    compare(golden, "mid.preprocessed", features.module.preprocess(golden["in.video"]))
    for suffix in [key.removeprefix("in.video") for key in golden.keys("in.video")]:
        compare(golden, f"out.logits{suffix}", features(golden[f"in.video{suffix}"]))
    taps.compare(golden)


def check_i3d_torchscript(case: Case) -> None:
    golden, features = case.golden, loaded(case, inception3d.I3D, inception3d.convert)
    video = last_channel(golden["in.video"])
    compare(golden, "mid.preprocessed", features.module.preprocess(video))
    logits = features(video)
    compare(golden, "out.logits", logits)
    compare(golden, "out.probs", logits.softmax(1))
    # The other port's weights and input, with this one's eps: they are those of its case beside this one.
    others = [other for other in cases(SYSTEM) if other.name.startswith("i3d_videogpt/")]
    others.sort(key=lambda other: other.folder.name != case.folder.name)
    if not others:
        golden.read.add("out.logits_videogpt_values")  # nothing in this folder tells what went in
        return
    conversion = inception3d.convert(others[0].state_dict())
    network = inception3d.I3D(bn_eps=1e-3)
    network.load_state_dict(conversion.tensors["model"])
    crossed = FeatureNetwork("crossed", network, comparable=False)
    compare(golden, "out.logits_videogpt_values", crossed(others[0].golden["in.video"]))


def check_inception_fid(case: Case) -> None:
    golden, features = case.golden, loaded(case, inception.Inception, inception.convert)
    network, images = features.module, last_channel(golden["in.image"])
    taps = Taps(network, {name: name for name in mids(golden, apart=("resized",))})
    inputs = network.preprocess(images)
    compare(golden, "mid.resized", inputs)
    names = ("64", "192", "768", "2048", "logits_unbiased", "logits")
    with torch.inference_mode():
        found = network.features(inputs, names)
    for name in names:
        compare(golden, f"out.{name}", found[name])
    compare(golden, "out.2048_grid", found["2048"])
    taps.compare(golden)
    for path, name in (("pytorch-fid", "out.2048_pytorch_fid"), ("clean", "out.2048_clean")):
        network.input_path = path
        compare(golden, name, features(images))


def check_face(case: Case, build: Callable[..., nn.Module], convert: Callable, names: dict[str, str]) -> None:
    golden, features = case.golden, loaded(case, build, convert)
    taps = Taps(features.module, {name: names.get(name, name) for name in mids(golden, apart=("input",))})
    images = last_channel(golden["in.image"])
    compare(golden, "mid.input", arcface.preprocess(images))
    embedding = features(images)
    compare(golden, "out.embedding", embedding)
    unit = torch.nn.functional.normalize(embedding)
    compare(golden, "out.cosine", unit @ unit.T)
    taps.compare(golden)


def check_ir_se50(case: Case) -> None:
    check_face(case, arcface.IRSE50, arcface.convert_ir_se50, {"input_layer": "stem_activation"})


def check_iresnet(case: Case) -> None:
    check_face(case, arcface.IResNet, arcface.convert_iresnet, {"bn2": "norm"})


def check_lpips(case: Case) -> None:
    golden, features = case.golden, loaded(case, lpips.LPIPS, lpips.convert)
    network = features.module
    images, others = (golden[f"in.image{k}"] / 127.5 - 1 for k in (0, 1))
    with torch.inference_mode():
        for number, feature in enumerate(network.backbone_features(images), start=1):
            compare(golden, f"mid.relu{number}", feature)
        layers = [layer.mean((1, 2, 3)) for layer in network.layer_maps(images, others)]
    compare(golden, "out.lpips_per_layer", torch.stack(layers, dim=1))
    compare(golden, "out.lpips", features(images, others))
    compare(golden, "out.lpips", features(*(last_channel(golden[f"in.image{k}"]) for k in (0, 1))))
    unit_range = [golden[f"in.image{k}"] / 255 * 2 - 1 for k in (0, 1)]
    compare(golden, "out.lpips_normalize_flag", features(*unit_range))
    compare(golden, "out.spatial", features(images, others, spatial=True))
    network.smooth_norm = True
    compare(golden, "out.lpips_eps_inside_root", features(images, others))


NETWORKS = {
    "i3d_videogpt": check_i3d_videogpt,
    "i3d_torchscript": check_i3d_torchscript,
    "inception_fid": check_inception_fid,
    "ir_se50": check_ir_se50,
    "iresnet18": check_iresnet,
    "iresnet50": check_iresnet,
    "lpips_alex": check_lpips,
    "lpips_vgg": check_lpips,
}


@pytest.mark.parametrize("case", parameters(cases(SYSTEM), "metric networks"))
def test_network(case: Case) -> None:
    system = case.name.split("/")[0]
    assert system in NETWORKS, f"no test knows the network {system}"
    NETWORKS[system](case)
    case.golden.assert_all_read()


@dataclass
class Group:
    """One group of arrays of functions.npz."""

    arrays: Arrays
    name: str

    def __contains__(self, key: str) -> bool:
        return f"{self.name}.{key}" in self.arrays

    def __getitem__(self, key: str) -> Tensor:
        return self.arrays[f"{self.name}.{key}"]

    def compare(self, key: str, actual: Tensor | float, tolerance: float = FUNCTION) -> None:
        compare(self.arrays, f"{self.name}.{key}", torch.as_tensor(actual), tolerance)


def statistics(features: Tensor, ddof: int = 0) -> FeatureStatistics:
    found = FeatureStatistics(features.shape[1], ddof=ddof)
    for batch in features.split(7):
        found.append(batch)
    return found


def check_frechet(group: Group) -> None:
    real, fake = group["in.real"], group["in.fake"]
    group.compare("out.mean_real", statistics(real).mean, DOUBLE)
    if "out.cov_real" in group:
        group.compare("out.cov_real", statistics(real).cov, DOUBLE)
    deficient = min(len(real), len(fake)) <= real.shape[1]
    assert deficient == (statistics(real).rank_deficient or statistics(fake).rank_deficient)
    for ddof, names in ((0, ("stylegan", "eigh_ddof0")), (1, ("pytorch_fid", "torch_fidelity"))):
        first, second = statistics(fake, ddof), statistics(real, ddof)
        # Relative to the traces, because the distance may be 0. Of singular sets no method has the root to more digits.
        scale = first.cov.trace() + second.cov.trace()
        for name in names:
            found, golden = frechet_distance(first, second), group[f"out.{name}"]
            bound = 1e-7 if deficient else DOUBLE
            assert_close(
                torch.stack([found, scale]), torch.stack([golden, scale]), bound, f"functions/{group.name}.out.{name}"
            )


def check_stats_max_items(group: Group) -> None:
    features = group["in.features"]
    found = FeatureStatistics(features.shape[1], max_items=int(group["out.num_items"]))
    cut = len(features) * 3 // 7
    found.append(features[:cut])
    found.append(features[cut:])
    group.compare("out.mean", found.mean, DOUBLE)
    group.compare("out.cov", found.cov, DOUBLE)
    group.compare("out.num_items", found.num_items, 0)


def check_voxceleb(group: Group) -> None:
    folder = reference_folder(SYSTEM)
    assert folder is not None
    real = FeatureStatistics.load(folder / "voxceleb_512_stats.npz")
    assert real.num_items == 5000 and not real.rank_deficient
    mean, cov = real.mean.numpy(), real.cov.numpy()
    rng = np.random.Generator(np.random.PCG64(int(group["in.seed"])))
    values, vectors = np.linalg.eigh(cov)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    noise = rng.normal(0, 1, (640, 400))
    shift = rng.normal(0, 1, 400)
    features = torch.from_numpy(np.float32(noise @ root * 1.1 + mean + 0.05 * shift))
    group.compare("in.fake_features_head", features[:4])
    fake = statistics(features)
    group.compare("in.fake_mean", fake.mean, 1e-6)
    group.compare("in.fake_trace", fake.cov.trace(), 1e-6)
    # The features are redrawn here: float32 rounding of another BLAS moves the distance by 1e-7 or so.
    group.compare("out.fvd", frechet_distance(fake, real), 1e-6)
    group.compare("out.fvd_eigh", frechet_distance(fake, real), 1e-6)
    group.compare("out.mean_term", (fake.mean - real.mean).square().sum(), 1e-6)
    trace = float(real.cov.trace())
    assert abs(float(frechet_distance(real, real) - group["out.fvd_self"])) <= DOUBLE * 2 * trace
    shifted = FeatureStatistics.from_moments(real.mean + 1, real.cov, real.num_items)
    group.compare("out.fvd_shift", frechet_distance(shifted, real), DOUBLE)
    scaled = FeatureStatistics.from_moments(real.mean, 4 * real.cov, real.num_items)
    group.compare("out.fvd_scaled", frechet_distance(scaled, real), DOUBLE)


def check_kid(group: Group) -> None:
    mean, _ = kernel_inception_distance(
        group["in.real"],
        group["in.fake"],
        num_subsets=int(group["in.num_subsets"]),
        max_subset_size=int(group["in.max_subset_size"]),
        seed=int(group["in.numpy_seed"]),
    )
    group.compare("out.kid", mean)


def check_is(group: Group) -> None:
    score = inception_score(group["in.probs"], num_splits=int(group["in.num_splits"]))
    group.compare("out.mean_std", torch.stack(score))


def check_video_is(group: Group) -> None:
    rows = Group(group.arrays, "is")  # the same rows, shuffled
    score = video_inception_score(rows["in.probs"], num_splits=int(rows["in.num_splits"]))
    group.compare("out.mean_std", torch.stack(score))


def check_pr(group: Group) -> None:
    real, fake = group["in.real"], group["in.fake"]
    one_sample = torch.tensor([1 / len(fake), 1 / len(real)]) + 1e-6
    for key in group.arrays.keys("pr.out.k"):
        number, _, half = key.removeprefix("pr.out.k").partition("_")
        found = torch.stack(manifold_shares(real, fake, neighbours=int(number), half=half == "half")[:2])
        if half:  # rounding to float16 is emulated in the reference too: it may settle one sample otherwise
            assert ((found - group[f"out.k{number}_half"]).abs() <= one_sample).all()
        else:
            group.compare(f"out.k{number}", found)


def check_ppl(group: Group) -> None:
    group.compare("out.slerp", slerp(group["in.a"], group["in.b"], group["in.t"]))
    group.compare("out.trimmed_mean", trimmed_mean(group["in.distances"]))


def check_i3d_preprocess(group: Group) -> None:
    with torch.device("meta"):
        network = inception3d.I3D()  # preprocessing uses no weights
    group.compare("out.clip", network.preprocess(group["in.video"]))


def check_resize_crop(group: Group) -> None:
    rules = Protocol("3dvidgen", crop="centre", size=int(group["in.resolution"]), resize="torch", resized="floats")
    frames = fitted(group["in.frames"].permute(0, 2, 3, 1), rules)
    group.compare("out.frames", frames.permute(0, 3, 1, 2).float())


def check_to_uint8(group: Group) -> None:
    for key in group.arrays.keys("to_uint8.out."):
        rule = key.removeprefix("to_uint8.out.")
        group.compare(f"out.{rule}", to_uint8(group["in.image"], rule).movedim(-1, 1), 0)


def check_chamfer(group: Group) -> None:
    position, opacity = group["in.xyz"], group["in.weights_total"].squeeze(-1)
    golden, values = group["out.per_pair"], ChamferDistance.pair_values(position, opacity)
    assert values.isnan().equal(golden.isnan())  # pairs with an empty mask
    assert_close(values.nan_to_num(), golden.nan_to_num(), FUNCTION, "functions/chamfer.out.per_pair")
    metric = ChamferDistance(reduction="sum")
    metric.update(position, opacity)
    group.compare("out.sum", metric.compute())
    clouds = position.flatten(2, 3)
    plain = torch.stack([chamfer_distance(clouds[video, 0], clouds[video, 2]) for video in (0, 1)])
    group.compare("out.mean_mean", plain.mean())


def check_identity(group: Group) -> None:
    metric = IdentityConsistency()
    metric.update_features(group["in.embeddings"])
    group.compare("out.mean", metric.compute())


def check_identity_preprocess(group: Group) -> None:
    group.compare("out.input", arcface.preprocess(last_channel(group["in.image"])))


def check_camera(group: Group) -> None:
    cameras = [side_camera(float(yaw), float(pitch)).cam2world for yaw, pitch in group["in.yaw_pitch_deg"]]
    group.compare("out.cam2world", torch.stack(cameras))
    group.compare("out.canonical_label", Camera.canonical().label()[None])


def check_warp(group: Group) -> None:
    yaw, pitch, size = group["in.yaw_pitch_size"].tolist()
    images, depth = group["in.images"], group["in.depth"].squeeze(2)
    metric = MultiViewWarpingError(yaw, pitch, size)
    metric.update(images, depth)
    group.compare("out.error", metric.compute())
    views = resized_images(images[0], size).float()
    group.compare("mid.resized", views)
    front, side = Camera.canonical(), side_camera(yaw, pitch)
    warped, valid = forward_warp(views[0], views[2], depth[0, 2], front, side)
    group.compare("mid.warped", warped)
    group.compare("mid.valid", valid[..., None].expand(-1, -1, 3), 0)
    warped, valid = backward_warp(views[2], depth[0, 0], depth[0, 2], front, side, threshold=0.2, coarse=8)
    group.compare("mid.backward_warped", warped)
    group.compare("mid.backward_valid", valid[..., None].expand(-1, -1, 3), 0)
    resolution = round(group["mid.ray_dirs"].shape[1] ** 0.5)
    rays = cast_rays(Camera(side.cam2world[None], side.intrinsics[None]), resolution)
    group.compare("mid.ray_origins", rays.origins)
    group.compare("mid.ray_dirs", rays.directions)


def check_npva(group: Group) -> None:
    images, targets, valid = group["in.pred"], group["in.gt"], group["in.valid"]
    mse = masked_mse(images, targets, valid)
    group.compare("out.mse", mse)
    group.compare("out.psnr", psnr_of_mean(mse))
    group.compare("out.mse_valid_only", masked_mse(images, targets, valid, valid_only=True))
    group.compare("out.gamma", display_corrected(images[0]))
    group.compare("out.normals", depth_normals(group["in.depth"]))


FUNCTIONS = {
    "camera": check_camera,
    "chamfer": check_chamfer,
    "frechet": check_frechet,
    "i3d_preprocess": check_i3d_preprocess,
    "identity": check_identity,
    "identity_preprocess": check_identity_preprocess,
    "is": check_is,
    "kid": check_kid,
    "npva": check_npva,
    "ppl": check_ppl,
    "pr": check_pr,
    "resize_crop": check_resize_crop,
    "stats_max_items": check_stats_max_items,
    "to_uint8": check_to_uint8,
    "video_is": check_video_is,
    "voxceleb": check_voxceleb,
    "warp": check_warp,
}


@pytest.mark.parametrize("name", parameters(function_groups(SYSTEM), "metric functions"))
def test_function(name: str) -> None:
    folder = reference_folder(SYSTEM)
    assert folder is not None
    arrays = Arrays(folder / "functions.npz", "functions")
    kind = name if name in FUNCTIONS else name.rstrip("0123456789")
    assert kind in FUNCTIONS, f"no test knows the function group {name}"
    FUNCTIONS[kind](Group(arrays, name))
    unread = set(arrays.keys(f"{name}.")) - arrays.read
    assert not unread, f"no test knows {sorted(unread)}"
