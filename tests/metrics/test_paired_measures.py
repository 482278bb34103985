"""Measures of pairs through ``evaluate``: their values, how pairs are found, and what is said where they are not."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from evaluation_cases import NETWORKS, TinyFaces, ToyModel, install_index, make_clip, make_clips, save_frames
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.metrics.evaluation import evaluate
from portraitzoo.metrics.features import feature_network
from portraitzoo.metrics.folders import FootageSource
from portraitzoo.metrics.pairs import PairedSource
from portraitzoo.metrics.protocols import get_protocol
from portraitzoo.metrics.psnr import masked_mse, psnr_of_mean
from portraitzoo.metrics.report import Report
from portraitzoo.metrics.results import Result
from portraitzoo.metrics.structure import ssim

PIXELS = ("psnr", "ssim", "l1", "lpips-alex", "id-similarity")


@pytest.fixture(autouse=True)
def tiny_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_index(tmp_path / "index", monkeypatch)


def measure(generated, real=None, *, overrides=None, **options) -> Report:
    options.setdefault("use_cache", False)
    return evaluate(generated, real, overrides={**NETWORKS, **(overrides or {})}, features="random", **options)


def result(report: Report, name: str) -> Result:
    return next(result for result in report.results if result.metric == name)


def noisy(clip: Clip, amount: int = 30) -> Clip:
    generator = torch.Generator().manual_seed(len(clip) + amount)
    noise = torch.randint(-amount, amount + 1, clip.frames.shape, generator=generator)
    return Clip((clip.frames + noise).clamp(0, 255).to(torch.uint8), clip.fps, maps=clip.maps)


def big_clips(count: int, frames: int = 5) -> list[Clip]:
    return [make_clip(seed, frames, 40, 36) for seed in range(count)]


def test_values_are_those_of_the_functions() -> None:
    targets = big_clips(3)
    clips = [noisy(clip, 10 + 20 * number) for number, clip in enumerate(targets)]
    report = measure(clips, targets, metrics=PIXELS)
    first, second = (torch.cat([clip.frames for clip in side]) for side in (clips, targets))
    everywhere = torch.ones(first.shape[:3], dtype=torch.bool)
    mse = masked_mse(first / 255, second / 255, everywhere)
    faces = feature_network("tiny-image", "random")
    expected = {
        "psnr": (10 * (255**2 / mse).log10()).mean(),
        "ssim": ssim(first, second).mean(),
        "l1": (first.float() - second.float()).abs().mean(),
        "lpips-alex": feature_network("lpips-alex", "random")(first, second).mean(),
        "id-similarity": torch.nn.functional.cosine_similarity(faces(first), faces(second)).mean(),
    }
    for name, value in expected.items():
        assert report.values[name] == pytest.approx(float(value), rel=1e-4), name
    psnr = result(report, "psnr")
    assert psnr.extra["psnr_of_mean"] == pytest.approx(float(psnr_of_mean(mse)), rel=1e-4)
    assert (psnr.generated, psnr.unit, psnr.real) == (3, "pairs", None)
    names, values = zip(*psnr.items, strict=True)
    assert names == ("clip 0", "clip 1", "clip 2")
    assert values[0] > values[1] > values[2]
    assert result(report, "ssim").comparable and not result(report, "lpips-alex").comparable


def test_files_of_one_name_are_pairs_whatever_else_lies_there(tmp_path: Path) -> None:
    targets = big_clips(4, frames=20)
    clips = [noisy(clip) for clip in targets]
    save_frames(tmp_path / "a", [*clips, make_clip(9, 4, 40, 36)])
    save_frames(tmp_path / "b", targets)
    in_memory = measure(clips, targets, metrics=("psnr", "l1"))
    on_disk = measure(tmp_path / "a", tmp_path / "b", metrics=("psnr", "l1"))
    assert on_disk.values == pytest.approx(in_memory.values, rel=1e-9)
    assert result(on_disk, "psnr").generated == 4
    assert any("1 of a without a partner and left out: clip_04" in warning for warning in on_disk.warnings)
    with pytest.raises(ZooError, match="1 of a without a partner"):
        measure(tmp_path / "a", tmp_path / "b", metrics="l1", strict=True)
    (tmp_path / "b" / "clip_02").rename(tmp_path / "b" / "clip_07")
    fewer = measure(tmp_path / "a", tmp_path / "b", metrics="l1")
    assert [name for name, _ in result(fewer, "l1").items] == ["clip_00", "clip_01", "clip_03"]
    text = "\n".join(fewer.warnings)
    assert "2 of a without a partner and left out: clip_02, clip_04" in text
    assert "1 of b without a partner and left out: clip_07" in text


def test_pairs_of_videos_have_the_frame_rate_of_their_files(tmp_path: Path) -> None:
    for side in ("ours", "theirs"):
        (tmp_path / side).mkdir()
        Clip(big_clips(1, 20)[0].frames, fps=12.5).save(tmp_path / side / "talk.mp4")
    report = measure(tmp_path / "ours", tmp_path / "theirs", metrics="l1")
    assert report.generated.traits["12.5 fps"] == 2  # pieces of 16 and of 4 frames
    assert "25 fps" not in report.generated.traits


def test_single_images_are_paired_by_name_without_suffix(tmp_path: Path) -> None:
    target = make_clip(0, 4, 40, 36)
    noisy(target).save(tmp_path / "a")
    target.save(tmp_path / "b")
    for folder in ("a", "b"):
        (tmp_path / folder / "clip.json").unlink()
    report = measure(tmp_path / "a", tmp_path / "b", metrics="psnr")
    assert result(report, "psnr").generated == 4
    assert [name for name, _ in result(report, "psnr").items][:2] == ["000000.png", "000001.png"]
    assert report.values["psnr"] == pytest.approx(measure([noisy(target)], [target], metrics="psnr").values["psnr"])


def test_pairs_of_unequal_length_or_size_are_compared_as_far_as_they_go(tmp_path: Path) -> None:
    target = make_clip(0, 40, 40, 36)
    save_frames(tmp_path / "a", [noisy(target[:18])])
    save_frames(tmp_path / "b", [target])
    report = measure(tmp_path / "a", tmp_path / "b", metrics="l1")
    assert any("1 pairs of unequal length" in w and "clip_00 (18 and 40 frames)" in w for w in report.warnings)
    assert report.values["l1"] == pytest.approx(measure([noisy(target[:18])], [target[:18]], metrics="l1").values["l1"])
    small = measure([make_clip(0, 3, 20, 18)], [make_clip(0, 3, 40, 36)], metrics="psnr")
    assert any("1 with a target of another size: it was resized" in warning for warning in small.warnings)
    both = measure([make_clip(0, 3, 20, 18)], [make_clip(0, 3, 40, 36)], metrics="psnr", overrides={"size": 32})
    assert not any("another size" in warning for warning in both.warnings)


def test_grey_and_transparent_pictures_are_counted(tmp_path: Path) -> None:
    save_frames(tmp_path / "a", [make_clip(0, 3, grey=True), make_clip(1, 3)])
    save_frames(tmp_path / "b", make_clips(2, num_frames=3))
    for path in (tmp_path / "b" / "clip_01").glob("*.png"):
        cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (24, 24, 4), dtype=np.uint8))
    text = "\n".join(measure(tmp_path / "a", tmp_path / "b", metrics="l1").warnings)
    assert "1 grey: repeated to three channels" in text
    assert "1 with an alpha channel" in text


def test_all_pairs_are_measured_unless_fewer_are_asked_for(tmp_path: Path) -> None:
    targets = [make_clip(seed, 2, 12, 12) for seed in range(70)]
    clips = [noisy(clip) for clip in targets]
    assert result(measure(clips, targets, metrics="l1"), "l1").generated == 70
    some = measure(clips, targets, metrics="l1", num_clips=5)
    assert [name for name, _ in result(some, "l1").items] == [f"clip {number}" for number in range(5)]


def test_pairs_can_be_decoded_in_other_processes(tmp_path: Path) -> None:
    targets = big_clips(2, frames=20)
    for folder, clips in (("a", [noisy(clip) for clip in targets]), ("b", targets)):
        save_frames(tmp_path / folder, clips)
    source = PairedSource(FootageSource(tmp_path / "a"), FootageSource(tmp_path / "b"))
    protocol = get_protocol("self-reenactment")
    items = source.listing("pairs", protocol, 1).items
    assert [(item.name, item.start, item.count) for item in items][:2] == [("clip_00", 0, 16), ("clip_00", 16, 4)]
    assert source.portable
    sent = pickle.loads(pickle.dumps(source))
    here, there = (side.load(items[3], "pairs", protocol, ()) for side in (source, sent))
    assert torch.equal(here.maps["target"], targets[1].frames[16:])
    assert torch.equal(here.frames, there.frames) and torch.equal(here.maps["target"], there.maps["target"])


def test_what_cannot_be_paired_is_said(tmp_path: Path) -> None:
    clips = make_clips(2)
    with pytest.raises(ZooError, match="PSNR compares each item with the one it should be: give the real items too"):
        measure(clips, metrics="psnr")
    with pytest.raises(ZooError, match="lists of one length"):
        measure(clips, make_clips(3), metrics="psnr")
    with pytest.raises(ZooError, match="ToyModel cannot be paired"):
        measure(ToyModel(), clips, metrics="psnr")
    save_frames(tmp_path / "a", clips)
    save_frames(tmp_path / "b", clips[:1])
    (tmp_path / "b" / "clip_00").rename(tmp_path / "b" / "other")
    with pytest.raises(ZooError, match="a and b have no name in common"):
        measure(tmp_path / "a", tmp_path / "b", metrics="psnr")
    with pytest.raises(ZooError, match="PSNR: the two frames of every pair are equal"):
        measure(clips, clips, metrics="psnr")
    with pytest.raises(ZooError, match="LPIPS on alex needs images of 31 pixels or more a side, not 24x24"):
        measure(clips, make_clips(2, first=5), metrics="lpips-alex")
    with pytest.raises(ZooError, match="MS-SSIM needs images of 176 pixels or more a side, not 24x24"):
        measure(clips, make_clips(2, first=5), metrics="ms-ssim")


def test_equal_frames_are_counted_not_averaged() -> None:
    target = make_clip(0, 4)
    clip = noisy(target)
    clip.frames[1] = target.frames[1]
    report = measure([clip], [target], metrics=("psnr", "l1"))
    assert "1 of 4 frames skipped: empty" in result(report, "psnr").notes
    assert np.isfinite(report.values["psnr"])


def masked_clip(seed: int, masked: float = 0.5) -> Clip:
    clip = make_clip(seed, 3, 20, 16)
    mask = torch.rand(3, 20, 16, generator=torch.Generator().manual_seed(seed)) > masked
    return Clip(clip.frames, maps={"mask": mask})


def test_the_three_ratios_of_npva() -> None:
    targets = [masked_clip(0), masked_clip(1)]
    clips = [noisy(Clip(clip.frames)) for clip in targets]
    report = measure(clips, targets, metrics=("psnr", "psnr-full", "psnr-valid"))
    first, second = (torch.cat([clip.frames for clip in side]) / 255 for side in (clips, targets))
    valid = torch.cat([clip.maps["mask"] for clip in targets])
    full, inside = (masked_mse(first, second, valid, valid_only=only) for only in (False, True))
    assert report.values["psnr-full"] == pytest.approx(float(psnr_of_mean(full)), rel=1e-5)
    assert report.values["psnr-valid"] == pytest.approx(float((10 * (255**2 / inside).log10()).mean()), rel=1e-5)
    assert report.values["psnr-full"] > report.values["psnr"]
    with pytest.raises(ZooError, match=r"PSNR \(full\): no pair has a mask"):
        measure(clips, [Clip(clip.frames) for clip in targets], metrics="psnr-full")


def test_masks_lie_beside_files(tmp_path: Path) -> None:
    targets = [masked_clip(0), masked_clip(1)]
    clips = [noisy(Clip(clip.frames)) for clip in targets]
    save_frames(tmp_path / "a", clips)
    save_frames(tmp_path / "b", [Clip(clip.frames) for clip in targets])
    for number, clip in enumerate(targets):
        np.savez(tmp_path / "b" / f"clip_{number:02d}.face.npz", mask=clip.maps["mask"].numpy())
    names = ("psnr-full", "psnr-valid")
    in_memory = measure(clips, targets, metrics=names)
    assert measure(tmp_path / "a", tmp_path / "b", metrics=names).values == pytest.approx(in_memory.values, rel=1e-9)


def test_a_masked_protocol_looks_inside_the_mask_only() -> None:
    target = masked_clip(0)
    inside = target.maps["mask"][..., None]
    elsewhere = Clip(torch.where(inside, target.frames, 255 - target.frames))
    assert measure([elsewhere], [target], metrics=("l1", "ssim")).values["l1"] > 5
    found = measure([elsewhere], [target], metrics=("l1", "ssim"), overrides={"masked": True})
    assert found.values == pytest.approx({"l1": 0, "ssim": 1}, abs=1e-6)
    with pytest.raises(ZooError, match="compares inside a mask, and a pair has none"):
        measure([elsewhere], [Clip(target.frames)], metrics="ssim", overrides={"masked": True})


def test_cross_reenactment_compares_with_the_source_portraits(tmp_path: Path) -> None:
    people, driving = make_clips(3, num_frames=2), make_clips(3, first=20, num_frames=6)
    generated = [noisy(Clip(person.frames[:1].expand(6, -1, -1, -1))) for person in people]
    faces = feature_network("tiny-image", "random")
    expected = [
        torch.nn.functional.cosine_similarity(faces(clip.frames), faces(person.frames[:1])).mean()
        for clip, person in zip(generated, people, strict=True)
    ]
    found = measure(generated, driving, references=people, metrics=("id-similarity", "l1"))
    assert found.values["id-similarity"] == pytest.approx(float(torch.stack(expected).mean()), rel=1e-4)
    assert "against the portraits of clips in memory" in result(found, "id-similarity").notes
    assert result(found, "l1").notes == []
    assert found.values["l1"] == pytest.approx(measure(generated, driving, metrics="l1").values["l1"])
    alone = measure(generated, references=people, metrics="id-similarity")
    assert alone.values["id-similarity"] == pytest.approx(found.values["id-similarity"])
    assert measure(generated, driving, metrics="id-similarity").values != alone.values
    save_frames(tmp_path / "videos", generated)
    (tmp_path / "photos").mkdir()
    for number, person in enumerate(people):
        person[:1].save(tmp_path / "one")
        (tmp_path / "one" / "000000.png").rename(tmp_path / "photos" / f"clip_{number:02d}.png")
    on_disk = measure(tmp_path / "videos", references=tmp_path / "photos", metrics="id-similarity")
    assert on_disk.values["id-similarity"] == pytest.approx(found.values["id-similarity"], rel=1e-6)


DISTANCES = ("akd", "apd", "aed")


def test_a_reconstruction_gives_keypoints_pose_and_expression() -> None:
    targets = make_clips(2, num_frames=3)
    clips = [noisy(clip) for clip in targets]
    report = measure(clips, targets, metrics=DISTANCES, reconstruction=TinyFaces())
    first, second = (torch.cat([clip.frames for clip in side]) for side in (clips, targets))
    for name, quantity in zip(DISTANCES, ("keypoints", "pose", "expression"), strict=True):
        ours, theirs = (getattr(TinyFaces(), quantity)(frames) for frames in (first, second))
        assert report.values[name] == pytest.approx(float((ours - theirs).abs().mean()), rel=1e-5)
    by_path = measure(clips, targets, metrics=DISTANCES, reconstruction="evaluation_cases.TinyFaces")
    assert by_path.values == report.values


def test_numbers_computed_before_lie_beside_the_videos(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    numbers: dict[str, list[dict[str, Tensor]]] = {"a": [], "b": []}
    for folder in numbers:
        save_frames(tmp_path / folder, make_clips(2, num_frames=20))
        for number in range(2):
            found = {
                "keypoints": 20 * torch.rand(20, 68, 2, generator=generator),
                "pose": torch.randn(20, 3, generator=generator),
                "expression": torch.randn(20, 50, generator=generator),
            }
            np.savez(tmp_path / folder / f"clip_{number:02d}.face.npz", **{k: v.numpy() for k, v in found.items()})
            numbers[folder].append(found)
    report = measure(tmp_path / "a", tmp_path / "b", metrics=DISTANCES, use_cache=True, cache=tmp_path / "cache")
    for name, quantity in zip(DISTANCES, ("keypoints", "pose", "expression"), strict=True):
        ours, theirs = (torch.cat([found[quantity] for found in numbers[side]]) for side in ("a", "b"))
        assert report.values[name] == pytest.approx(float((ours - theirs).abs().mean()), rel=1e-5)

    lost = {name: values.numpy().copy() for name, values in numbers["a"][0].items()}
    lost["keypoints"][3:5] = np.nan  # no face found
    np.savez(tmp_path / "a" / "clip_00.face.npz", **lost)
    again = measure(tmp_path / "a", tmp_path / "b", metrics="akd", use_cache=True, cache=tmp_path / "cache")
    assert "2 of 40 frames skipped: empty" in result(again, "akd").notes

    np.savez(tmp_path / "a" / "clip_00.face.npz", pose=lost["pose"][:7])
    partly = measure(tmp_path / "a", tmp_path / "b", metrics="apd")
    assert any("has pose of shape" in reason for reason in partly.generated.broken.values())
    (tmp_path / "a" / "clip_00.face.npz").write_bytes(b"torn")
    assert any(
        "is damaged" in r for r in measure(tmp_path / "a", tmp_path / "b", metrics="apd").generated.broken.values()
    )


def test_keypoints_follow_the_size_of_the_frames() -> None:
    ours, theirs = (make_clip(0, 2, size, size) for size in (24, 48))
    points = 48 * torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(0))
    ours, theirs = (Clip(clip.frames, maps={"keypoints": p}) for clip, p in ((ours, points / 2), (theirs, points)))
    assert measure([ours], [theirs], metrics="akd").values["akd"] == pytest.approx(0, abs=1e-5)


def test_unfit_numbers_of_faces_are_refused() -> None:
    clips = make_clips(1)
    with pytest.raises(ZooError, match=r"no face reconstruction can be made of 'nowhere\.Class'"):
        measure(clips, clips, metrics="akd", reconstruction="nowhere.Class")
    with pytest.raises(ZooError, match="a ToyModel is no face reconstruction: it has no keypoints"):
        measure(clips, clips, metrics="akd", reconstruction=ToyModel())
    ours, theirs = (Clip(clips[0].frames, maps={"pose": torch.zeros(16, n)}) for n in (3, 6))
    with pytest.raises(ZooError, match=r"APD compares pose of one shape, not \[16, 3\] and \[16, 6\]"):
        measure([ours], [theirs], metrics="apd")


def test_identity_over_time() -> None:
    clips = make_clips(3)
    still = [Clip(clip.frames[:1].expand(16, -1, -1, -1)) for clip in clips]
    report = measure(clips, metrics="identity-time")
    embeddings = torch.nn.functional.normalize(feature_network("tiny-image", "random")(clips[0].frames))
    cosines = embeddings @ embeddings.T
    off = cosines[~torch.eye(16, dtype=torch.bool)].mean()
    assert dict(report.results[0].items)["clip 0"] == pytest.approx(float(off), rel=1e-4)
    assert measure(still, metrics="identity-time").values["identity-time"] == pytest.approx(1)
    with pytest.raises(ZooError, match="needs clips of 2 frames or more"):
        measure(clips, metrics="identity-time", overrides={"clip_length": 1})


def test_the_worst_and_the_best_pairs_are_shown_with_their_targets() -> None:
    targets = big_clips(4)
    clips = [noisy(clip, 10 + 20 * number) for number, clip in enumerate(targets)]
    extremes = result(measure(clips, targets, metrics="psnr"), "psnr").extremes
    assert {end: next(e.name for e in extremes if e.end == end) for end in ("worst", "best")} == {
        "worst": "clip 3",
        "best": "clip 0",
    }
    picture = cv2.imdecode(np.frombuffer(extremes[0].picture, np.uint8), cv2.IMREAD_COLOR)
    alone = measure(clips, metrics="identity-time", overrides={"clip_length": 5}).results[0].extremes[0]
    single = cv2.imdecode(np.frombuffer(alone.picture, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (2 * single.shape[0], single.shape[1], 3)
