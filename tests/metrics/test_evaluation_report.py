import base64
import errno
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_cases import NETWORKS, ToyModel, install_index, make_clips, save_frames
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.metrics.evaluation import evaluate
from portraitzoo.metrics.feature_space import frechet_of_rows, principal_plane
from portraitzoo.metrics.frechet import FeatureStatistics, frechet_distance
from portraitzoo.metrics.plots import histogram, line_chart, scatter
from portraitzoo.metrics.protocols import get_protocol, published_protocols
from portraitzoo.metrics.report import Report

VOID = {"meta", "img", "br"}


class Balanced(HTMLParser):
    """Fails at a tag that is closed in the wrong order; keeps the addresses that the page asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(html: str) -> Balanced:
    parser = Balanced()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    """All metrics, random features, a protocol changed in two fields, a folder with a hostile name."""
    install_index(tmp_path / "index", monkeypatch)
    folder = save_frames(tmp_path / "<script>alert(1)", make_clips(12, first=50))
    return evaluate(
        ToyModel(),
        folder,
        metrics=["fvd", "fid", "identity", "chamfer", "warping"],
        num_clips=12,
        features="random",
        overrides={**NETWORKS, "warping_size": 32},
        use_cache=False,
        out=tmp_path / "report",
    )


def test_the_page_stands_alone(report: Report, tmp_path: Path):
    html = (tmp_path / "report" / "report.html").read_text()
    page = parsed(html)
    assert "script" not in page.tags
    assert page.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert not re.search(r"url\(|@import|https?://", html)
    assert "&lt;script&gt;alert(1)" in html


def test_random_features_are_called_not_comparable_everywhere(report: Report, tmp_path: Path):
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content["comparable"] is False
    networked = {result["metric"]: result for result in content["results"] if result["network"]}
    assert set(networked) == {"fvd", "fid", "identity"}
    for result in networked.values():
        assert result["comparable"] is False
        assert "not comparable" in result["notes"]
        assert len(result["network"]["checksum"]) == 64
        assert "random" in result["network"]["name"]
    for result in content["results"]:
        assert (result["metric"] in networked) == ("not comparable" in result["notes"])
    html = (tmp_path / "report" / "report.html").read_text()
    cards = html.split('<div class="card">')[1:]
    cards[-1] = cards[-1].split("</section>")[0]
    assert ["not comparable" in card for card in cards] == [True] * 3 + [False] * 2
    lines = report.summary().splitlines()[1:6]
    assert ["not comparable" in line for line in lines] == [True] * 3 + [False] * 2
    assert report.markdown().splitlines()[2].count("not comparable") == 3


def test_the_json_says_how_it_was_measured(report: Report, tmp_path: Path):
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content == json.loads(json.dumps(report.to_dict()))
    assert content["protocol"]["name"] == "quick"
    assert content["modified"]["warping_size"] == {"published": 256, "used": 32}
    assert content["generated"]["used"] == {"clips": 12, "subjects": 12}
    assert content["real"]["traits"]["24x24"] == 12
    assert content["seeds"] == {"first_seed": 0, "window_seed": 0}
    assert set(content["versions"]) >= {"portraitzoo", "torch", "python"}
    assert set(content["seconds"]) == {"preparation", "generated", "real", "comparison"}
    assert {name: content[name] for name in ("device", "processes")} == {"device": report.device, "processes": 1}
    curve = content["results"][0]["plots"]["convergence"]
    assert [count for count, *_ in curve][-1] == 12
    assert curve[-1][1] == pytest.approx(content["results"][0]["value"], rel=1e-6)
    for result in content["results"]:
        interval = result["interval"]
        assert interval["low"] <= result["value"] <= interval["high"]
        assert (interval["level"], interval["resamples"], interval["seed"]) == (0.95, 1000, 0)


def test_a_report_does_not_overwrite_a_file(report: Report, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ZooError, match="needs a folder"):
        report.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_the_worst_and_the_best_are_shown_beside_their_nearest_real_items(report: Report, tmp_path: Path):
    html = (tmp_path / "report" / "report.html").read_text()
    for result in report.results:
        values = [extreme.value for extreme in result.extremes]
        ends = [extreme.end for extreme in result.extremes]
        assert ends == ["worst"] * 3 + ["best"] * 3
        assert min(values[:3]) >= max(values[3:]) or (result.higher_is_better and max(values[:3]) <= min(values[3:]))
        for extreme in result.extremes:
            assert extreme.picture[:2] == b"\xff\xd8"
            assert base64.b64encode(extreme.picture).decode() in html
            assert (extreme.real_picture is not None) == (result.real is not None)
    for result in json.loads((tmp_path / "report" / "report.json").read_text())["results"]:
        assert set(result["extremes"][0]) == {"end", "item", "name", "value", "real_item", "real_name"}


def test_a_stranger_among_the_generated_is_the_worst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install_index(tmp_path / "index", monkeypatch)
    same = make_clips(8)
    white = Clip(torch.full_like(same[0].frames, 255))
    options = {"metrics": "fvd", "features": "random", "overrides": NETWORKS, "use_cache": False}
    extremes = evaluate([*same[:5], white, *same[5:]], same, **options).results[0].extremes
    assert (extremes[0].item, extremes[0].end) == (5, "worst")
    assert extremes[-1].value == pytest.approx(0, abs=1e-3)
    assert all(extreme.item - (extreme.item > 5) == extreme.real_item for extreme in extremes[3:])


def test_a_place_that_cannot_be_written_is_found_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install_index(tmp_path / "index", monkeypatch)
    (tmp_path / "file").write_text("mine")
    model = ToyModel()
    with pytest.raises(ZooError, match="is a file: the report needs a folder"):
        evaluate(model, make_clips(3), metrics="fvd", features="random", out=tmp_path / "file" / "report")
    assert model.asked == []


def test_a_full_disk_leaves_the_old_report(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    assert set(before) == {"report.json", "report.md", "report.html"}
    write = Path.write_text

    def fails_at_the_page(self: Path, data: str, **options: str) -> int:
        if self.suffix == ".html":
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write(self, data, **options)

    monkeypatch.setattr(Path, "write_text", fails_at_the_page)
    report.warnings.append("something new")
    with pytest.raises(ZooError, match="no space left on the disk"):
        report.save(tmp_path / "report")
    assert {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()} == before


numbers = st.floats(-1e4, 1e4, allow_nan=False, width=32)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 1e6)), min_size=1, max_size=9))
def test_any_curve_can_be_drawn(points):
    assert "nan" not in line_chart(points, "clips", "FVD").lower()
    parsed(line_chart(points, "clips", "FVD"))
    parsed(line_chart(points, "clips", "FVD", [(y / 2, 2 * y) for _, y in points]))


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=9), st.lists(st.tuples(numbers, numbers), max_size=9))
def test_any_points_can_be_drawn(generated, real):
    drawing = scatter(generated, real, "x", "y")
    parsed(drawing)
    assert drawing.count("<circle") == len(generated) + len(real)


@given(st.lists(numbers, min_size=1, max_size=50))
def test_a_histogram_counts_every_value(values):
    drawing = histogram(values, "ID", "heads")
    parsed(drawing)
    assert sum(int(count) for count in re.findall(r": (\d+)</title>", drawing)) == len(values)


@given(
    arrays(np.float32, (9, 5), elements=st.floats(-10, 10, width=32)),
    arrays(np.float32, (7, 5), elements=st.floats(-10, 10, width=32)),
    st.sampled_from([0, 1]),
)
def test_the_distance_of_rows_is_that_of_their_statistics(first, second, ddof):
    def statistics(rows: np.ndarray) -> FeatureStatistics:
        gathered = FeatureStatistics(5, ddof=ddof)
        gathered.append(torch.from_numpy(rows))
        return gathered

    expected = float(frechet_distance(statistics(first), statistics(second)))
    assert frechet_of_rows(first, second, ddof) == pytest.approx(expected, abs=1e-3)


def test_the_plane_shows_both_sets_and_parts_them():
    rng = np.random.default_rng(0)
    here, there = rng.normal(size=(30, 8)).astype(np.float32), rng.normal(size=(20, 8)).astype(np.float32)
    there[:, 3] += 50
    plane = principal_plane(here, there)
    assert (len(plane["generated"]), len(plane["real"])) == (30, 20)
    assert plane["explained"][0] > 0.9
    assert max(x for x, _ in plane["generated"]) < min(x for x, _ in plane["real"]) or (
        min(x for x, _ in plane["generated"]) > max(x for x, _ in plane["real"])
    )


def test_published_protocols_are_as_published():
    pv3d = get_protocol("pv3d-voxceleb")
    assert (pv3d.clips, pv3d.subjects, pv3d.clip_length, pv3d.size, pv3d.fps, pv3d.ddof) == (5000, 1000, 16, 512, 25, 0)
    assert (pv3d.video_network, pv3d.identity_network) == ("i3d-videogpt", "arcface-ir-se50")
    assert (pv3d.yaw, pv3d.warping_size, pv3d.first_seed) == (30, 256, 80_000_000_000)
    assert all(protocol.modified() == {} for protocol in published_protocols().values())


@given(st.sampled_from(sorted(published_protocols())), st.integers(1, 100), st.integers(1, 5))
def test_an_override_is_seen_and_its_undoing_too(name: str, clips: int, stride: int):
    published = get_protocol(name)
    changed = published.override({"clips": clips, "frame_stride": stride})
    assert changed.span == (published.clip_length - 1) * stride + 1
    assert set(changed.modified()) == {
        field for field, value in (("clips", clips), ("frame_stride", stride)) if getattr(published, field) != value
    }
    assert changed.override({"clips": published.clips, "frame_stride": published.frame_stride}) == published


@pytest.mark.parametrize("change", [{"clips": 0}, {"size": 0}, {"ddof": 2}, {"windows": "last"}, {"frame_stride": -1}])
def test_impossible_protocols_are_refused(change):
    with pytest.raises(ZooError, match=next(iter(change))):
        get_protocol("quick").override(change)
