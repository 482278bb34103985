import pytest
import torch
from torch import Tensor

from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.faces.boxes import priors
from portraitzoo.faces.retinaface import Answers, ContextModule, Detections, FeaturePyramid, RetinaFace, prepare
from portraitzoo.hub.conversion import official_name
from portraitzoo.hub.faces.retinaface import NAMES, convert
from portraitzoo.layers.conv_norm import fold_batch_norms

PICTURE = torch.randint(0, 256, (48, 60, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SIZES = {"depths": (1, 2, 1, 1), "widths": (4, 6, 8, 10), "stem": 8, "channels": 16}


def small() -> RetinaFace:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RetinaFace(**SIZES).eval()


def official() -> dict[str, Tensor]:
    return {official_name(name, NAMES) or "": tensor for name, tensor in small().state_dict().items()}


class Told(RetinaFace):
    """Says of some priors that they are faces, whatever it sees."""

    def __init__(self, scores: dict[int, float]) -> None:
        super().__init__(**SIZES)
        self.said = scores

    def forward(self, images: Tensor) -> Answers:
        count = len(priors(*images.shape[-2:]))
        scores = torch.zeros(1, count)
        for index, score in self.said.items():
            scores[0, index] = score
        points = torch.zeros(1, count, 5, 2)
        points[..., 1, 0] = 5.0  # half a prior to the right
        return Answers(torch.zeros(1, count, 4), scores, points)


def test_faces_are_where_their_priors_are_in_pixels_of_the_picture():
    # 96 rows of a picture of 48: a cell of 8 is 4 pixels. The third prior is the smaller one of the second cell.
    found = Told({2: 0.9}).detect(PICTURE, height=96)
    expected = torch.tensor([12.0 - 8, 4.0 - 8, 12.0 + 8, 4.0 + 8]) / 2
    torch.testing.assert_close(found.boxes, expected[None].double())
    assert found.scores.tolist() == pytest.approx([0.9])
    assert found.points[0].tolist() == [pytest.approx([x, 2.0]) for x in (6.0, 10.0, 6.0, 6.0, 6.0)]


def test_the_most_certain_come_first_and_the_doubtful_not_at_all():
    found = Told({0: 0.85, 20: 0.95, 60: 0.9, 100: 0.8, 140: 0.3}).detect(PICTURE, height=96)
    assert found.scores.tolist() == pytest.approx([0.95, 0.9, 0.85])
    assert len(Told({140: 0.3}).detect(PICTURE, height=96, threshold=0.2)) == 1


def test_of_overlapping_boxes_the_best_stays():
    neighbours = {1: 0.85, 3: 0.95, 5: 0.9}  # of 32 pixels, 8 apart
    assert Told(neighbours).detect(PICTURE, height=96).scores.tolist() == pytest.approx([0.95])
    assert len(Told(neighbours).detect(PICTURE, height=96, overlap=0.7)) == 3


def test_the_largest_face_is_told_by_the_mean_of_its_sides():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 30, 2], [0, 0, 12, 12]], dtype=torch.float64)
    assert Detections(boxes, torch.ones(3).double(), torch.zeros(3, 5, 2).double()).largest() == 1


def test_a_picture_without_faces():
    found = Told({}).detect(PICTURE)
    assert (found.boxes.shape, found.scores.shape, found.points.shape) == ((0, 4), (0,), (0, 5, 2))
    with pytest.raises(ZooError, match="no face was found"):
        found.largest()


def test_the_networks_sees_blue_first_less_the_means():
    red = torch.zeros(32, 40, 3, dtype=torch.uint8)
    red[..., 0] = 200
    seen = prepare(red, 64)
    assert seen.shape == (1, 3, 64, 80)
    assert seen[0, :, 5, 5].tolist() == [-104, -117, 77]


def test_pictures_do_not_depend_on_their_neighbours():
    network, images = small(), torch.cat([prepare(PICTURE, 64), prepare(PICTURE.flip(0), 64)])
    with torch.no_grad():
        together, alone = network(images), network(images[1:])
    assert together.boxes.shape == (2, len(priors(64, 80)), 4)
    for name in ("boxes", "scores", "points"):
        torch.testing.assert_close(getattr(together, name)[1:], getattr(alone, name), atol=1e-5, rtol=1e-5)


def test_folding_changes_nothing():
    network, image = small(), prepare(PICTURE, 64)
    with torch.no_grad():
        before = network(image).points
        after = fold_batch_norms(network)(image).points
    assert (before - after).abs().max() <= 1e-5 * before.abs().max()


@pytest.mark.parametrize(("channels", "leaks"), [(64, True), (68, False)])
def test_narrow_pyramids_leak(channels, leaks):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 8, 16, 16, generator=generator)
    pyramid, context = FeaturePyramid([8, 8], channels), ContextModule(channels)
    with torch.no_grad():
        levels = pyramid([x, x[..., ::2, ::2]])
        assert (min(float(level.min()) for level in levels) < 0) == leaks
        assert float(context(levels[0]).min()) == 0  # its last activation never does


@pytest.mark.parametrize(
    ("image", "height", "told"),
    [
        (PICTURE.float(), 64, "an image is uint8"),
        (PICTURE[None], 64, "an image is uint8"),
        (PICTURE[:0], 64, "an image is uint8"),
        (PICTURE[:1], 64, "too long for face detection"),
        (PICTURE[:, :2], 64, "too long for face detection"),
        (PICTURE, 16, "at least 32 rows"),
    ],
    ids=["floats", "batch", "empty", "a row", "two columns", "no rows"],
)
def test_what_cannot_be_looked_at(image, height, told):
    with pytest.raises(ZooError, match=told):
        small().detect(image, height=height)


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"state_dict": {f"module.{n}": x for n, x in t.items()}}])
def test_official_tensors_make_the_network_again(wrap):
    conversion = convert(wrap(official()))
    assert {name: tuple(size) if isinstance(size, list) else size for name, size in conversion.config.items()} == SIZES
    again = RetinaFace(**conversion.config).eval()
    again.load_state_dict(conversion.tensors["model"])
    image = prepare(PICTURE, 64)
    with torch.no_grad():
        assert again(image).boxes.equal(small()(image).boxes)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop("ssh2.conv7x7_3.1.bias"), "lacks the tensor ssh2.conv7x7_3.1.bias"),
        (lambda t: t.pop("fpn.output1.0.weight"), "lacks the tensor fpn.output1.0.weight"),
        (lambda t: t.update(extra=torch.zeros(1)), "unexpected tensor, extra"),
        (lambda t: t.update({"BboxHead.0.conv1x1.bias": torch.zeros(4)}), r"has shape \[4\], not \[8\]"),
        (lambda t: t.update({"body.conv1.weight": 3}), "body.conv1.weight"),
        (lambda t: t.update(state_dict=[1]), "state_dict"),
        (lambda t: t.clear(), "lacks the tensors"),
    ],
)
def test_other_checkpoints_are_refused(change, told):
    tensors = official()
    change(tensors)
    with pytest.raises(CheckpointError, match=told):
        convert(tensors)
