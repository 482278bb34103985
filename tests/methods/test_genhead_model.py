"""GenHead as users meet it: identities, motions, cameras, maps, meshes, bad input."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from genhead_toys import SMALL, small_model
from hypothesis import given
from hypothesis import strategies as st

import portraitzoo as pz
from portraitzoo.cli.main import main
from portraitzoo.errors import ZooError
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.hub.download import import_file
from portraitzoo.hub.index import get_entry
from portraitzoo.methods.genhead import benchmark
from portraitzoo.methods.genhead.cameras import camera_of, frontal, label_of, placed
from portraitzoo.methods.genhead.composition import PartField
from portraitzoo.methods.genhead.discriminator import Discriminator, DiscriminatorConfig
from portraitzoo.methods.genhead.model import MAPS, GenHead
from portraitzoo.methods.genhead.motions import latent_code, load_rows, motion_rows, with_motion
from portraitzoo.methods.genhead.network import GenHeadConfig
from portraitzoo.metrics.multiview import yaw_between
from portraitzoo.rendering.cameras import Camera, trajectory


@pytest.fixture(scope="module")
def model() -> GenHead:
    return small_model()


@pytest.fixture(scope="module")
def someone(model):
    return model.identity(3)


def test_a_clip_with_all_its_maps(model):
    clip = model.sample(0, 2, motion="random", trajectory="yaw", maps=MAPS)
    assert clip.frames.shape == (2, 64, 64, 3) and clip.frames.float().std() > 1
    assert {name: tuple(value.shape) for name, value in clip.maps.items()} == {
        "raw": (2, 12, 12, 3),
        "depth": (2, 12, 12),
        "position": (2, 12, 12, 3),
        "opacity": (2, 12, 12),
        "normals": (2, 12, 12, 3),
        "parts": (2, 64, 64),
    }
    assert float(clip.maps["depth"].min()) > 3.3 and float(clip.maps["depth"].max()) < 4.7
    assert 0.02 < float(clip.maps["opacity"].mean()) < 0.98, "an empty or opaque volume would hide errors"
    assert set(clip.maps["parts"].unique().tolist()) >= {0, 85}
    assert not clip.frames[0].equal(clip.frames[1])


def test_an_identity_serves_all_poses_and_views(model, someone, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("computed again")

    expected = model.sample(3, 2, motion="random", motion_seed=8, trajectory="yaw")
    monkeypatch.setattr(model.generator.backbone.synthesis, "forward", refuse)
    monkeypatch.setattr(model.generator.background.synthesis, "forward", refuse)
    clip = model.sample(someone, 2, motion="random", motion_seed=8, trajectory="yaw")
    assert clip.frames.equal(expected.frames)
    assert not model.sample(someone, 2, motion="random", motion_seed=9, trajectory="yaw").frames.equal(clip.frames)


def test_a_frame_does_not_depend_on_the_clip_it_is_in(model, someone):
    heads = with_motion(someone.shape, motion_rows("random", 5, 3))
    camera = placed(trajectory("orbit", 3))
    together = model.sample(someone, 3, flame=heads, trajectory=camera, maps=("depth",))
    alone = model.sample(someone, 1, flame=heads[2:3], trajectory=camera[2:3], maps=("depth",))
    assert together.frames[2].equal(alone.frames[0]) and together.maps["depth"][2].equal(alone.maps["depth"][0])


def test_the_global_generator_stays_where_it_is(model):
    state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    model.sample(1, 1, motion="random")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_a_seed_means_the_authors_latent_code():
    assert torch.equal(latent_code(7, 5), torch.from_numpy(np.random.RandomState(7).randn(1, 5)).float())


def test_the_authors_motion_turns_the_neck_and_nothing_else():
    motion = motion_rows("turn", 0, 5)
    assert torch.allclose(motion[:, 100], torch.tensor([0.3, 0.1, -0.1, 0.1, 0.3]), atol=1e-6)
    assert torch.allclose(motion[:, 101], torch.tensor([0.0, 0.4, 0.0, -0.4, 0.0]), atol=1e-6)
    still = [index for index in range(112) if index not in (100, 101)]
    assert motion[:, still].equal(motion_rows("still", 0, 5)[:, still])


def test_motions_and_shapes_of_a_file(model, tmp_path: Path):
    rows = np.random.RandomState(0).randn(4, 112).astype(np.float32) * 0.1
    np.save(tmp_path / "motions.npy", rows[:, None])  # the authors' files have an axis for people
    np.save(tmp_path / "shapes.npy", np.concatenate([np.zeros((4, 25)), np.full((4, 300), 0.2)], axis=1))
    found = motion_rows("still", 5, 2, load_rows(tmp_path / "motions.npy", 112))
    assert found.equal(torch.from_numpy(rows[[1, 1]]))
    named = {"motions": tmp_path / "motions.npy", "shapes": tmp_path / "shapes.npy"}
    heads = FlameParameters(torch.full((1, 300), 0.2), *torch.from_numpy(rows[[1]]).split([100, 6, 6], dim=1))
    clip = model.sample(5, 1, motion="still", **named)
    assert clip.frames.equal(model.sample(model.identity(5, shape=heads.shape), 1, flame=heads).frames)


def test_the_authors_sets_by_name(model, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PORTRAITZOO_CACHE", str(tmp_path / "cache"))
    for number, (name, width) in enumerate((("ffhq-motions", 112), ("vfhq-motions", 112), ("vfhq-shapes", 325))):
        np.save(tmp_path / f"{name}.npy", np.full((2, 3, width), 0.01 * (number + 1), np.float32))
        import_file(get_entry(f"genhead-{name}"), tmp_path / f"{name}.npy")
    by_name = model.sample(5, 1, motion="still", motions="vfhq", shapes="vfhq")
    files = {"motions": tmp_path / "vfhq-motions.npy", "shapes": str(tmp_path / "vfhq-shapes.npy")}
    assert by_name.frames.equal(model.sample(5, 1, motion="still", **files).frames)
    assert (load_rows("ffhq", 112) == 0.01).all() and len(load_rows(Path("genhead-ffhq-motions"), 112)) == 6
    with pytest.raises(ZooError, match=r"there are no shapes 'celeba': give a file \(.npy\) or ffhq or vfhq"):
        model.sample(0, 1, shapes="celeba")


@given(st.lists(st.floats(-3, 3, width=32), min_size=16, max_size=16))
def test_labels_and_cameras_are_each_others_inverse(numbers):
    camera = Camera(torch.tensor(numbers).view(4, 4), torch.eye(3))
    assert torch.equal(camera_of(label_of(camera)).cam2world, camera.cam2world)


def test_named_trajectories_come_to_its_distance_and_lens():
    front = placed(trajectory("front", 1))[0]
    assert torch.allclose(front.cam2world, frontal().cam2world) and torch.allclose(
        front.intrinsics, frontal().intrinsics
    )
    label = label_of(frontal())
    assert torch.allclose(label[:16].view(4, 4)[:3, :3], torch.eye(3)) and label[11] == 4
    zoom = placed(trajectory("zoom", 9))
    assert (zoom.intrinsics == zoom.intrinsics[:1]).all()
    distances = zoom.cam2world[:, :3, 3].norm(dim=-1)
    assert distances.max() / distances.min() == pytest.approx(1.1 / 0.9, rel=1e-3)


def test_inner_parts_count_by_their_share(model, someone):
    (head,) = model.generator.pose(FlameParameters.zeros(1))
    canonical = model.generator.field(someone.planes)
    points = torch.cat([head.vertices[-6:], head.vertices[:6]])[None].repeat(2, 1, 1)
    outer = canonical.outer(head.face.move(points[0])[0])
    for blended in (False, True):
        shares = torch.tensor([0.0, 0.0]), torch.tensor([0.0, 1.0])
        field = PartField(canonical, head, *shares, blended=blended)
        density, color = field(points.flatten(0, 1)[None])
        assert torch.allclose(density[0, :12, 0], outer[0], atol=1e-5)
        inner = canonical.inner(head.mouth.move(points[1])[0])
        boxed = head.in_eye_boxes(points[1]).float()
        assert boxed[:6].all() and not boxed[6:].any()
        expected = inner[0] * (boxed + 1)
        assert torch.allclose(density[0, 12:, 0], expected + outer[0] if blended else expected, atol=1e-4)
        share = torch.stack([expected, outer[0]]).softmax(0)[0] if blended else torch.ones(12)
        mixed = share[:, None] * inner[1] + (1 - share[:, None]) * outer[1]
        assert torch.allclose(color[0, 12:], mixed, atol=1e-4)


def test_eyes_count_within_their_boxes(model, someone):
    (head,) = model.generator.pose(FlameParameters.zeros(1))
    canonical = model.generator.field(someone.planes)
    points = torch.cat([head.vertices[-6:], head.vertices[:6]])
    boxed = head.in_eye_boxes(points)
    assert boxed[:6].all() and not boxed[6:].any()
    density, color = PartField(canonical, head, torch.tensor([0.6]), torch.zeros(1))(points[None])
    outer, inner = canonical.outer(head.face.move(points)[0]), canonical.inner(head.eyes.move(points)[0])
    for found, out, within in zip((density[0, :, 0], color[0]), outer, inner, strict=True):
        assert torch.allclose(found[6:], out[6:], atol=1e-5)
        assert torch.allclose(found[:6], 0.6 * within[:6] + 0.4 * out[:6], atol=1e-4)


def test_with_gradients_the_images_are_the_same(model, someone):
    camera, heads = frontal().expand(2), FlameParameters.zeros(2)
    planes = tuple(part.clone().expand(2, -1, -1, -1, -1) for part in someone.planes)
    backdrop = someone.backdrop.clone().expand(2, -1, -1, -1)
    with torch.no_grad():
        without = model.generator.render(planes, backdrop, model.generator.pose(heads), camera)
    output = model.generator.render(planes, backdrop, model.generator.pose(heads), camera)
    torch.testing.assert_close(output.image, without.image, rtol=1e-3, atol=1e-3)
    assert output.face_in_eyes.shape == (2, 144, 16)
    assert output.segmentation.min() >= -1.001 and output.segmentation.max() <= 1.001


def test_meshes(model, someone):
    pytest.importorskip("skimage")
    surface = model.mesh(someone, resolution=24, level=1.0)
    assert len(surface.vertices) > 100 and surface.colors is not None and surface.vertices.abs().max() <= 0.66
    flame = model.mesh(someone, surface="flame", motion="random")
    assert len(flame.vertices) == SMALL.head.vertices and len(flame.faces) == SMALL.head.faces
    assert not flame.vertices.equal(model.mesh(someone, surface="flame").vertices)


def test_four_views(model):
    clip = model.multiview(2)
    assert len(clip) == 4 and {"position", "depth", "opacity"} <= clip.maps.keys()
    assert torch.equal(clip.cameras.cam2world[0], clip.cameras.cam2world[3])
    assert yaw_between(*clip.cameras.cam2world[:2]) == pytest.approx(30, abs=1e-3)


def test_saved_and_loaded(model, someone, tmp_path: Path):
    model.save_pretrained(tmp_path)
    again = GenHead.from_pretrained(tmp_path).eval()
    assert again.config == SMALL and asdict(again.config)["head"] == asdict(SMALL.head)
    assert again.sample(3, 1).frames.equal(model.sample(someone, 1).frames)
    assert pz.load(tmp_path, device="cpu").sample(3, 1).frames.equal(model.sample(someone, 1).frames)


def test_a_discriminator_beside_it():
    judge = Discriminator(DiscriminatorConfig.beside(SMALL))
    image, raw = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 12, 12)
    logits = judge(image, raw, torch.randn(2, 25), torch.randn(2, 3, 64, 64), torch.randn(2, 1, 12, 12))
    assert logits.shape == (2, 1) and DiscriminatorConfig.of(judge.state_dict()) == judge.config


TURNED = Camera(frontal().cam2world * torch.tensor([1.0, 1.0, -1.0, 1.0]), frontal().intrinsics)
NAN = torch.full((1, 112), float("nan"))
BAD = {
    "no frames": ({"num_frames": 0}, "at least 1 frame"),
    "negative seed": ({"seed": -1}, "whole number"),
    "seed of text": ({"seed": "a"}, "whole number"),
    "unknown map": ({"maps": ("colour",)}, "unknown map 'colour': choose from raw"),
    "unknown motion": ({"motion": "dance"}, "unknown motion 'dance': choose turn"),
    "unknown trajectory": ({"trajectory": "spiral"}, "unknown trajectory"),
    "short motion": ({"motion": torch.zeros(1, 111)}, r"\[frames, 112\] numbers, not \[1, 111\]"),
    "motion of NaN": ({"motion": NAN}, "NaN"),
    "too few heads": ({"num_frames": 3, "flame": FlameParameters.zeros(2)}, "parameters of 3 heads"),
    "short shape": ({"shape": torch.zeros(1, 299)}, r"\[batch, 300\]"),
    "shape of NaN": ({"shape": torch.full((1, 300), float("nan"))}, "shape holds NaN"),
    "too many cameras": ({"trajectory": frontal().expand(2)}, "1 frames need 1 cameras"),
    "inside the head": ({"trajectory": Camera.look_at(0.0, 0.0, radius=0.3)}, "camera of frame 0 is inside the head"),
    "looking past it": ({"trajectory": TURNED}, "looks past the head"),
    "huge rendering": ({"render_resolution": 65}, "1 to 64 pixels"),
    "no file": ({"motions": "nowhere.npy"}, "nowhere.npy is no parameter file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_one_line(model, case: str):
    options, message = BAD[case]
    with pytest.raises(ZooError, match=message) as caught:
        model.sample(**{"seed": 0, "num_frames": 1, **options})
    assert "\n" not in str(caught.value)


def test_a_file_of_something_else_is_named(tmp_path: Path):
    for content, message in (
        (np.zeros((3, 111)), r"rows of 112 numbers, not \[3, 111\]"),
        (np.full((3, 112), np.nan), "NaN"),
        (np.zeros((3, 112), dtype=int), "no number"),
    ):
        np.save(tmp_path / "rows.npy", content)
        with pytest.raises(ZooError, match=message):
            load_rows(tmp_path / "rows.npy", 112)


def test_another_lens_is_warned_about(model, someone):
    camera = Camera(frontal().cam2world, frontal().intrinsics * torch.tensor([2.0, 2.0, 1.0])[:, None])
    with pytest.warns(UserWarning, match="focal length"):
        model.sample(someone, 1, trajectory=camera)


def test_the_stages_of_the_benchmark_run(model):
    found = {
        what: frames
        for what, work, frames in benchmark.stages(model, frames=2, render_resolution=None, batch=1, compiled=False)
        if work() is not None
    }
    assert found == {
        "identity": 2, "deformation": 1, "masks": 1, "pose": 1, "frame": 1, "encode": 2, "clip": 2
    }  # fmt: skip
    assert benchmark.frame(model, None).shape == (1, 3, 64, 64)
    assert benchmark.original(model, "frame", 1, None) is None


def test_the_original_was_timed_at_the_released_size():
    with torch.device("meta"):
        released = GenHead(GenHeadConfig())
    assert benchmark.original(released, "frame", 1, None) == pytest.approx(26.5, rel=0.01)
    assert benchmark.original(released, "pose", 1, 64) > benchmark.original(released, "frame", 1, 64)
    assert benchmark.original(released, "clip", 100, None) == 100 * benchmark.original(released, "pose", 1, None)
    assert benchmark.original(released, "identity", 16, None) is None


def test_the_commands_know_it(model, tmp_path: Path):
    model.save_pretrained(tmp_path / "toy")
    clip = tmp_path / "clip.npz"
    options = ["--frames", "2", "--motion", "random", "--trajectory", "yaw", "--maps", "parts,depth", "--device", "cpu"]
    assert main(["sample", str(tmp_path / "toy"), *options, "--out", str(clip)]) == 0
    expected = model.sample(0, 2, motion="random", trajectory="yaw")
    assert pz.Clip.load(clip).frames.equal(expected.frames)
    pytest.importorskip("trimesh")
    mesh = tmp_path / "head.ply"
    assert main(["mesh", str(tmp_path / "toy"), "--surface", "flame", "--device", "cpu", "--out", str(mesh)]) == 0
    assert mesh.stat().st_size > 1000
    assert main(["sample", str(tmp_path / "toy"), "--motions", str(clip), "--device", "cpu"]) == 1
