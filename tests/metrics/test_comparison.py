"""Two reports: their differences where they may be compared, and a refusal that names the field where not."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_cases import NETWORKS, ToyModel, install_index, make_clips

from portraitzoo.cli.main import main
from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.metrics.comparison import compare
from portraitzoo.metrics.evaluation import evaluate
from portraitzoo.metrics.report import Report


def darkened(clips: list[Clip], share: float) -> list[Clip]:
    return [Clip((clip.frames * share).to(torch.uint8)) for clip in clips]


def measured(generated: object, real: object, **options: object) -> Report:
    settings = {"metrics": "fvd", "features": "random", "use_cache": False, "overrides": NETWORKS} | options
    return evaluate(generated, real, **settings)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_index(tmp_path / "index", monkeypatch)


@pytest.fixture
def pair(index: None, tmp_path: Path) -> tuple[Path, Path]:
    """Folders of two reports that may be compared: the second set of clips is far from the real ones."""
    real = make_clips(20, first=100)
    near, far = make_clips(20), darkened(make_clips(20), 0.4)
    measured(near, real, out=tmp_path / "near")
    measured(far, real, out=tmp_path / "far")
    return tmp_path / "near", tmp_path / "far"


def changed(folder: Path, path: list[str | int], value: object) -> Path:
    """A copy of a report with one field changed."""
    content = json.loads((folder / "report.json").read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    other = folder.with_name("changed")
    other.mkdir(exist_ok=True)
    (other / "report.json").write_text(json.dumps(content))
    return other


def test_the_worse_set_is_called_worse_and_the_other_way_round_better(pair: tuple[Path, Path]) -> None:
    found = compare(*pair).differences[0]
    back = compare(*pair[::-1]).differences[0]
    assert (found.verdict, back.verdict) == ("worse", "better")
    assert found.difference == pytest.approx(found.second - found.first) == pytest.approx(-back.difference)
    assert 0 < found.low < found.difference < found.high
    assert compare(pair[0], pair[0]).differences[0].verdict == "undecided"


def test_on_the_command_line(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "diff", *map(str, pair)]) == 0
    told = capsys.readouterr().out
    assert "FVD ↓" in told and "worse" in told and "random features" in told and "rank-deficient" not in told
    assert main(["eval", "diff", *map(str, pair), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == json.loads(json.dumps(compare(*pair).to_dict()))
    assert content["differences"][0]["verdict"] == "worse"


@pytest.mark.parametrize(
    ("path", "value", "clue"),
    [
        (["protocol", "name"], "mine", "protocol is quick and mine"),
        (["protocol", "clip_length"], 32, "protocol field clip_length is 16 and 32"),
        (["protocol", "size"], 256, "protocol field size is nothing and 256"),
        (["features"], "official", "features is random and official"),
        (["results", 0, "network", "checksum"], "0" * 64, "checksum of the network of FVD"),
        (["results", 0, "generated"], 19, "the number of generated clips of FVD is 20 and 19"),
        (["results", 0, "real"], 5000, "the number of real clips of FVD is 20 and 5000"),
        (["real", "fingerprint"], "abc", "the real side's fingerprint"),
        (["real"], None, "the real side's label"),
        (["results", 0, "metric"], "kvd", "no metric in common: fvd and kvd"),
    ],
)
def test_what_differs_is_named(
    pair: tuple[Path, Path], path: list, value: object, clue: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = changed(pair[1], path, value)
    with pytest.raises(ZooError, match=clue):
        compare(pair[0], other)
    assert main(["eval", "diff", str(pair[0]), str(other)]) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith("zoo: these reports ") and complaint.count("\n") == 1 and clue in complaint


def test_other_seeds_and_other_names_may_be_compared(pair: tuple[Path, Path]) -> None:
    compare(pair[0], changed(pair[1], ["protocol", "first_seed"], 7))
    compare(pair[0], changed(pair[1], ["real", "label"], "the same clips elsewhere"))


def test_a_report_from_before_there_were_intervals_and_items_may_be_compared(pair: tuple[Path, Path]) -> None:
    content = json.loads((pair[1] / "report.json").read_text())
    for name in ("interval", "items", "extremes", "plots"):
        del content["results"][0][name]
    old = pair[1].with_name("old")
    old.mkdir()
    (old / "report.json").write_text(json.dumps(content))
    (found,) = compare(pair[0], old).differences
    assert found.difference > 0 and (found.low, found.verdict) == (None, "undecided")


def test_other_versions_are_noted(pair: tuple[Path, Path]) -> None:
    assert any(
        "torch" in note and "9.9" in note
        for note in compare(pair[0], changed(pair[1], ["versions", "torch"], "9.9")).notes
    )


def test_the_same_items_are_compared_one_by_one(index: None) -> None:
    heads = [ToyModel().multiview(seed) for seed in range(6)]
    rows = measured(heads, None, metrics="chamfer")
    other = copy.deepcopy(rows)
    noise = np.random.default_rng(0).normal(size=6) * 1e-4
    other.results[0].items = [
        (name, value + 0.01 + shift) for (name, value), shift in zip(rows.results[0].items, noise, strict=True)
    ]
    other.results[0].value += 0.01
    found = compare(rows, other).differences[0]
    assert found.paired and found.verdict == "worse"
    assert found.high - found.low < 1e-3 < rows.results[0].interval.high - rows.results[0].interval.low


@pytest.mark.parametrize(
    ("content", "clue"),
    [
        (b"{", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"[1, 2]", "is no report"),
        (b'{"format": "something/1"}', "is no report"),
        (b'{"format": "portraitzoo-report/99"}', "newer portraitzoo"),
        (b'{"format": "portraitzoo-report/1"}', "damaged"),
        (b'{"format": "portraitzoo-report/1", "results": 3}', "damaged"),
        (b'{"format": "portraitzoo-report/1", "results": [{"metric": "fvd"}]}', "damaged"),
    ],
)
def test_damaged_reports(
    tmp_path: Path, pair: tuple[Path, Path], content: bytes, clue: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.json").write_bytes(content)
    assert main(["eval", "diff", str(pair[0]), str(tmp_path)]) == 1
    complaint = capsys.readouterr().err
    assert clue in complaint and complaint.count("\n") == 1 and "report.json" in complaint


def test_absent_reports(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="no such report"):
        compare(tmp_path, tmp_path / "nowhere")


def test_one_item_has_no_interval_and_no_verdict(index: None) -> None:
    report = measured([ToyModel().multiview(0)], None, metrics="chamfer")
    assert report.results[0].interval is None
    found = compare(report, report).differences[0]
    assert (found.low, found.high, found.verdict) == (None, None, "undecided")
