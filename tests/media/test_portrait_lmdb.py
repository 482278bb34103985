"""LMDB folders of photos and clips: what is written is read, and every kind of damage is one line."""

import os
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.media import portrait_records
from portraitzoo.media.images import encode_image
from portraitzoo.media.portrait_lmdb import (
    ClipLMDB,
    ClipRecord,
    PortraitLMDB,
    PortraitRecord,
    write_clips,
    write_portraits,
)
from portraitzoo.media.portrait_records import LAYOUTS, Datum
from portraitzoo.media.records import write_records

pytest.importorskip("lmdb")
pytest.importorskip("google.protobuf")

SIDE = 8


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def photo(seed: int = 0, side: int = SIDE, motions: int = 548) -> PortraitRecord:
    motion = numbers(motions, seed=seed) if motions else None
    return PortraitRecord(
        pictures(side, side, 3, seed=seed), pictures(side, side, 3, seed=seed + 1), numbers(437, seed=seed), motion
    )


def clip(seed: int = 0, frames: int = 3, motions: int = 548) -> ClipRecord:
    shape = (frames, SIDE, SIDE, 3)
    masks = pictures(*shape, seed=seed + 1)
    return ClipRecord(
        pictures(*shape, seed=seed), masks, numbers(frames, 437, seed=seed), numbers(frames, motions, seed=seed)
    )


def assert_same(found: PortraitRecord | ClipRecord, expected: PortraitRecord | ClipRecord) -> None:
    for name, value in vars(expected).items():
        assert (getattr(found, name) is None) if value is None else torch.equal(getattr(found, name), value)


def save(folder: Path, records: list[bytes]) -> Path:
    write_records(folder, records)
    return folder


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 4), motions=st.integers(0, 5), frames=st.integers(1, 4), side=st.integers(1, 20))
def test_what_is_written_is_read(tmp_path: Path, count: int, motions: int, frames: int, side: int) -> None:
    photos = [photo(seed, side, motions) for seed in range(count)]
    clips = [clip(seed, frames, motions) for seed in range(count)]
    path = write_portraits(tmp_path, "FFHQ", side, photos)
    assert path == tmp_path / f"FFHQ_{side}_{count}"
    stored = PortraitLMDB(path)
    assert (len(stored), stored.resolution) == (count, side)
    for index, expected in enumerate(photos):
        assert_same(stored[index], expected)
        assert torch.equal(stored.label(index), expected.label)
    moving = ClipLMDB(write_clips(tmp_path, "VFHQ_sub50", SIDE, clips))
    for expected, found in zip(clips, moving, strict=True):
        assert_same(found, expected)
    assert torch.equal(moving.labels(count - 1), clips[-1].labels)


def test_more_records_than_one_commit_holds(tmp_path: Path) -> None:
    stored = PortraitLMDB(write_portraits(tmp_path, "FFHQ", SIDE, (photo(seed) for seed in range(401))))
    assert [torch.equal(stored.label(index), numbers(437, seed=index)) for index in (0, 199, 200, 400)] == [True] * 4
    with pytest.raises(IndexError):
        stored[401]


def test_equal_records_make_equal_files(tmp_path: Path) -> None:
    one, two = (write_clips(tmp_path / name, "VFHQ", SIDE, [clip(1), clip(2)]) for name in ("one", "two"))
    assert (one / "data.mdb").read_bytes() == (two / "data.mdb").read_bytes()


def test_a_set_is_sent_to_other_processes_and_survives_a_fork(tmp_path: Path) -> None:
    stored = ClipLMDB(write_clips(tmp_path, "VFHQ", SIDE, [clip(5)]))
    assert_same(pickle.loads(pickle.dumps(stored))[0], clip(5))
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(stored[0].images, clip(5).images) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert_same(stored[0], clip(5))


def test_a_set_that_is_written_again_is_read_anew(tmp_path: Path) -> None:
    stored = ClipLMDB(write_clips(tmp_path, "VFHQ", SIDE, [clip(1)]))
    assert_same(stored[0], clip(1))
    write_clips(tmp_path, "VFHQ", SIDE, [clip(2)])
    assert_same(stored[0], clip(2))


def test_an_interrupted_set_leaves_nothing(tmp_path: Path) -> None:
    def records() -> Iterator[PortraitRecord]:
        yield photo()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_portraits(tmp_path, "FFHQ", SIDE, records())
    with pytest.raises(MediaError, match="no pictures to write"):
        write_clips(tmp_path, "VFHQ", SIDE, [])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, limits[1]))
        with pytest.raises(ZooError, match="cannot write the LMDB"):
            write_portraits(tmp_path, "FFHQ", 64, (photo(seed, 64) for seed in range(60)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_photos_in_portrait4ds_layout(tmp_path: Path) -> None:
    expected = photo(3)
    contents = {"images": encode_image(expected.image), "segs": encode_image(expected.segmentation.flip(-1))}
    contents |= {"labels": expected.label.numpy().tobytes(), "mots": expected.motion.numpy().tobytes()}
    message = Datum("Datum_ffhq", SIDE, SIDE, 1, contents).encode("it")
    stored = PortraitLMDB(save(tmp_path / f"FFHQ_{SIDE}_1", [message]))
    assert_same(stored[0], expected)


@pytest.mark.parametrize("layout", ["Datum", "Datum_new"])
def test_older_messages_are_known_apart_and_read_as_clips(tmp_path: Path, layout: str) -> None:
    expected = clip(4, frames=5)
    contents = dict.fromkeys(LAYOUTS[layout][4:], b"\x00" * 16)
    contents |= {"images": expected.images.numpy().tobytes(), "segs": expected.segmentations[..., 0].numpy().tobytes()}
    contents |= {"labels": expected.labels.numpy().tobytes(), "mots": expected.motions.numpy().tobytes()}
    message = Datum(layout, SIDE, SIDE, 5, contents).encode("it")
    assert Datum.decode(message, "it") == Datum(layout, SIDE, SIDE, 5, contents)
    stored = ClipLMDB(save(tmp_path / f"HEADS_{SIDE}_1", [message]))
    grey = expected.segmentations[..., :1].expand(-1, -1, -1, 3)
    assert_same(stored[0], replace(expected, segmentations=grey))


def test_some_frames_are_those_of_the_whole_clip(tmp_path: Path) -> None:
    whole, chosen = clip(3, frames=5), [4, 0, 4]
    stored = ClipLMDB(write_clips(tmp_path, "VFHQ", SIDE, [whole]))
    assert_same(stored.frames(0, chosen), ClipRecord(*(value[chosen] for value in vars(whole).values())))
    still = ClipLMDB(write_portraits(tmp_path, "FFHQ", SIDE, [photo(1)]))
    assert_same(still.frames(0, [0, 0]), ClipRecord(*(value[[0, 0]] for value in vars(still[0]).values())))


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 60), value=st.integers(0, 255), end=st.integers(0, 1000))
def test_a_message_reads_as_by_protobuf_or_is_damaged(place: int, value: int, end: int) -> None:
    """Whatever happens to its bytes, of which only the first and the lengths among them matter here."""
    contents = {"images": bytes(6), "segs": bytes(200), "labels": bytes(20), "mots": bytes(4)}
    message = bytearray(Datum("Datum_ffhq", 2, 1, 1, contents).encode("it"))[:end]
    if place < len(message):
        message[place] = value
    assert read_by_protobuf(bytes(message)) == read_by_hand(bytes(message))


def read_by_protobuf(message: bytes) -> object:
    from google.protobuf.message import DecodeError
    from google.protobuf.unknown_fields import UnknownFieldSet

    for layout in LAYOUTS:
        try:
            found = portrait_records._message_classes()[layout].FromString(message)
        except DecodeError:
            return None
        present = {field.name: value for field, value in found.ListFields()}
        if not len(UnknownFieldSet(found)) and found.HasField(LAYOUTS[layout][3]):
            return layout, {"channels": 3, "height": 0, "width": 0, "num": 1} | present
    return None


def read_by_hand(message: bytes) -> object:
    try:
        found = Datum.decode(message, "it")
    except MediaError:
        return None
    sizes = {key: getattr(found, key) for key in ("channels", "height", "width", "num")}
    return found.layout, sizes | dict(found.contents)


def datum(**changes: object) -> Datum:
    contents = {"images": bytes(2 * SIDE * SIDE * 3), "segs": bytes(2 * SIDE * SIDE * 3), "labels": bytes(8 * 437)}
    contents |= {key: value for key, value in changes.items() if key in ("images", "segs", "labels", "mots")}
    sizes = {key: value for key, value in changes.items() if key not in contents}
    return Datum("Datum_ffhq", **{"height": SIDE, "width": SIDE, "num": 2} | sizes, contents=contents)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (datum(labels=bytes(8 * 436)), "labels of 436 numbers, not 437"),
        (datum(labels=bytes(8 * 437 + 1)), "labels of 3497 bytes"),
        (datum(labels=np.full(2 * 437, np.nan, "<f4").tobytes()), "labels of record 0 .* NaN"),
        (datum(mots=bytes(4)), "motion embeddings of 4 bytes"),
        (datum(mots=np.full(4, np.inf, "<f4").tobytes()), "motion embeddings of record 0 .* infinite"),
        (datum(segs=b""), "holds no segmentation"),
        (datum(segs=bytes(5)), "segmentations in record 0 .* another size"),
        (datum(num=1, images=bytes(7)), "image in record 0 .* no image"),
        (datum(num=3), "says that it holds 3 pictures"),
        (datum(num=-1), "says that it holds -1 pictures"),
        (datum(height=2 * SIDE, width=SIDE // 2), "pictures of 4x16, not 8x8 as its folder says"),
        (datum(height=1 << 30, width=1 << 30), "not 8x8"),
        (datum(num=1, images=encode_image(pictures(30, 20, 3))), "image in record 0 .* is 20x30, not 8x8"),
        (datum(images=encode_image(pictures(SIDE, SIDE, 3))), "says that it holds 2 pictures"),
    ],
)
def test_records_of_wrong_shapes_are_one_line(tmp_path: Path, wrong: Datum, said: str) -> None:
    stored = ClipLMDB(save(tmp_path / f"VFHQ_{SIDE}_1", [wrong.encode("it")]))
    with pytest.raises(MediaError, match=said) as caught:
        stored[0]
    assert "\n" not in str(caught.value)
    with pytest.raises(MediaError, match=said):
        stored.frames(0, [0])


def test_clips_are_no_photos(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="is a clip of 3 frames, not a photo"):
        PortraitLMDB(write_clips(tmp_path, "VFHQ", SIDE, [clip()]))[0]


def test_cut_off_messages_are_damaged(tmp_path: Path) -> None:
    whole = datum().encode("it")
    stored = ClipLMDB(save(tmp_path / f"VFHQ_{SIDE}_2", [whole[:100], b""]))
    for index in range(2):
        with pytest.raises(MediaError, match=f"record {index} of .* is damaged or of another layout"):
            stored.labels(index)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("kind", [PortraitLMDB, ClipLMDB])
def test_a_truncated_lmdb_is_said(tmp_path: Path, share: float, kind: Callable[[Path], object]) -> None:
    path = write_portraits(tmp_path, "FFHQ", SIDE, [photo(seed) for seed in range(30)])
    file = path / "data.mdb"
    os.truncate(file, int(file.stat().st_size * share))
    with pytest.raises(MediaError, match=r"cut off|no LMDB that can be read") as caught:
        kind(path)
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_sets_are_said(tmp_path: Path) -> None:
    path = write_portraits(tmp_path, "FFHQ", SIDE, [photo()])
    with pytest.raises(MediaError, match="there is no LMDB folder"):
        PortraitLMDB(tmp_path / "gone_8_1")
    for name, said in (("FFHQ", "is not called NAME_<resolution>_<count>"), (f"FFHQ_{SIDE}_7", "holds 1 records")):
        shutil.copytree(path, tmp_path / name)
        with pytest.raises(MediaError, match=said):
            PortraitLMDB(tmp_path / name)
    shutil.copytree(path, tmp_path / "FFHQ_64_1")
    with pytest.raises(MediaError, match="pictures of 8x8, not 64x64 as its folder says"):
        PortraitLMDB(tmp_path / "FFHQ_64_1")[0]
    (tmp_path / "EMPTY_8_1").mkdir()
    with pytest.raises(MediaError, match="there is no LMDB"):
        PortraitLMDB(tmp_path / "EMPTY_8_1")
    import lmdb

    with lmdb.open(str(tmp_path / "BARE_8_1")) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"00000000", datum().encode("it"))
    with pytest.raises(MediaError, match="has no num_samples"):
        ClipLMDB(tmp_path / "BARE_8_1")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (replace(photo(), image=pictures(SIDE, SIDE + 1, 3)), "images of photo 0"),
        (replace(photo(), segmentation=pictures(SIDE, 4, 3)), "segmentations of photo 0"),
        (replace(photo(), label=numbers(436)), r"labels of photo 0 are \[1, 436\], not \[1, 437\]"),
        (replace(photo(), label=torch.full((437,), float("nan"))), "labels of photo 0 hold NaN"),
        (replace(photo(), motion=torch.full((5,), float("inf"))), "motions of photo 0 hold NaN"),
    ],
)
def test_wrong_records_are_not_written(tmp_path: Path, wrong: PortraitRecord, said: str) -> None:
    with pytest.raises(MediaError, match=said):
        write_portraits(tmp_path, "FFHQ", SIDE, [wrong])
    assert list(tmp_path.iterdir()) == []
