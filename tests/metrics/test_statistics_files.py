"""Reference statistics as files: the same numbers as from the data, and a refusal where they do not belong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_cases import NETWORKS, install_index, make_clips, save_frames

from portraitzoo.cli.main import main
from portraitzoo.errors import ZooError
from portraitzoo.hub import publishing
from portraitzoo.metrics.evaluation import evaluate
from portraitzoo.metrics.frechet import FeatureStatistics
from portraitzoo.metrics.statistics_files import StatisticsFile, compare
from portraitzoo.metrics.statistics_making import make

RANDOM = {"features": "random", "use_cache": False, "overrides": NETWORKS, "device": "cpu"}


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install_index(tmp_path / "index", monkeypatch)
    return save_frames(tmp_path / "real", make_clips(12, first=100))


@pytest.mark.parametrize("metric", ["fvd", "fid"])
def test_a_file_stands_for_its_data(real: Path, tmp_path: Path, metric: str) -> None:
    make(real, tmp_path / "real.npz", metric=metric, **RANDOM)
    generated = make_clips(12)
    direct = evaluate(generated, real, metrics=metric, **RANDOM)
    by_file = evaluate(generated, tmp_path / "real.npz", metrics=metric, **RANDOM)
    assert by_file.values[metric] == pytest.approx(direct.values[metric], rel=1e-6)
    assert by_file.warnings == []
    assert 0 < by_file.results[0].interval.std_error < direct.results[0].interval.std_error
    assert by_file.results[0].plots["convergence"][-1][1] == pytest.approx(direct.values[metric], rel=1e-5)


def test_with_the_features_kept_other_metrics_and_pictures_of_the_plane_work_too(real: Path, tmp_path: Path) -> None:
    make(real, tmp_path / "real.npz", metric="fid", keep_features=True, **RANDOM)
    generated = make_clips(12)
    options = RANDOM | {"metrics": "fid,kid"}
    direct = evaluate(generated, real, **options)
    by_file = evaluate(generated, tmp_path / "real.npz", **options)
    assert by_file.values == pytest.approx(direct.values, rel=1e-6)
    assert by_file.results[0].plots["plane"] == direct.results[0].plots["plane"]
    assert by_file.results[0].interval == direct.results[0].interval
    assert [e.real_name for e in by_file.results[0].extremes] == [e.real_name for e in direct.results[0].extremes]


def test_without_them_they_are_refused(real: Path, tmp_path: Path) -> None:
    make(real, tmp_path / "real.npz", metric="fid", **RANDOM)
    with pytest.raises(ZooError, match="KID needs the features too"):
        evaluate(make_clips(12), tmp_path / "real.npz", **RANDOM | {"metrics": "kid"})
    with pytest.raises(ZooError, match="add keep_features"):
        make(real, tmp_path / "kid.npz", metric="kid", **RANDOM)
    with pytest.raises(ZooError, match="compares no sets"):
        make(real, tmp_path / "identity.npz", metric="identity", **RANDOM)
    assert not (tmp_path / "kid.npz").exists()


def test_another_network_and_another_protocol_are_refused(real: Path, tmp_path: Path) -> None:
    make(real, tmp_path / "real.npz", **RANDOM | {"overrides": NETWORKS | {"video_network": "other-video"}})
    with pytest.raises(ZooError, match=r"other-video \(random weights\), not with tiny-video"):
        evaluate(make_clips(12), tmp_path / "real.npz", metrics="fvd", **RANDOM)
    make(real, tmp_path / "sized.npz", **RANDOM | {"overrides": NETWORKS | {"size": 16}})
    with pytest.raises(ZooError, match="made with size 16, this evaluation has None"):
        evaluate(make_clips(12), tmp_path / "sized.npz", metrics="fvd", **RANDOM)
    make(real, tmp_path / "plain.npz", **RANDOM)
    for other, clue in (("real.npz", "network is"), ("sized.npz", "protocol field size is None and 16")):
        with pytest.raises(ZooError, match=clue):
            compare(tmp_path / "plain.npz", tmp_path / other)


def test_the_command_line(real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = ["--features", "random", "--no-use-cache", "--overrides", json.dumps(NETWORKS), "--device", "cpu"]
    for name, folder in (("a", real), ("b", save_frames(tmp_path / "other", make_clips(12)))):
        assert main(["eval", "stats", "make", str(folder), "--out", str(tmp_path / f"{name}.npz"), *shared]) == 0
    capsys.readouterr()
    assert main(["eval", "stats", "show", str(tmp_path / "a.npz"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["metric"], told["items"], told["protocol"], told["ddof"]) == ("fvd", 12, "quick (modified)", 0)
    assert told["network"] == "tiny-video (random weights)" and len(told["checksum"]) == 64
    assert told["comparable"] is False and told["data label"] == "real" and told["rank-deficient"] is False
    assert main(["eval", "stats", "compare", str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["distance"] > found["shift"] > 0 and found["same_data"] is False
    assert main(["eval", "stats", "compare", str(tmp_path / "a.npz"), str(tmp_path / "a.npz")]) == 0
    assert "same_data  True" in capsys.readouterr().out
    assert main(["eval", "stats", "shwo"]) == 2
    sized = ["--out", str(tmp_path / "sized.npz"), *shared, "--size", "16", "--json"]
    assert main(["eval", "stats", "make", str(real), *sized]) == 0
    assert json.loads(capsys.readouterr().out)["protocol size"] == 16
    assert main(["eval", str(real), "--data", str(tmp_path / "a.npz"), "--metrics", "fvd", *shared]) == 0


def written(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("header", "further", "clue"),
    [
        ({"format": "portraitzoo-statistics/9"}, {}, "newer portraitzoo"),
        ({"format": "portraitzoo-report/1"}, {}, "no file of statistics"),
        ({}, {"features": np.zeros((3, 2), np.float32), "counts": np.array([4]), "names": np.array(["a"])}, "damaged"),
        ({}, {"features": np.zeros((4, 2), np.float32), "counts": np.array([3]), "names": np.array(["a"])}, "damaged"),
        ({}, {"features": np.zeros((4, 2), np.float32)}, "cannot be read"),
    ],
)
def test_damaged_and_strange_files(tmp_path: Path, header: dict, further: dict, clue: str) -> None:
    arrays = {"mean": np.zeros(2), "cov": np.eye(2), "num_items": np.int64(4), "header": np.array(json.dumps(header))}
    with pytest.raises(ZooError, match=clue):
        StatisticsFile.load(written(tmp_path / "x.npz", **arrays, **further))


def test_a_file_cut_short(real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(real, tmp_path / "real.npz", keep_features=True, **RANDOM)
    whole = (tmp_path / "real.npz").read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        assert main(["eval", "stats", "show", str(tmp_path / "cut.npz")]) == 1
        complaint = capsys.readouterr().err
        assert complaint.startswith("zoo: ") and complaint.count("\n") == 1 and "cut.npz" in complaint


def test_places_that_cannot_be_written(real: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").write_text("")
    for out, clue in (("folder.npz", "is a folder"), ("file/real.npz", "cannot write"), ("real.npy", "NAME.npz")):
        with pytest.raises(ZooError, match=clue):
            make(real, tmp_path / out, **RANDOM)
    assert list((tmp_path / "folder.npz").iterdir()) == [] and not list(tmp_path.glob(".*"))


def test_statistics_of_others_say_little_and_are_taken(tmp_path: Path) -> None:
    draw = np.random.default_rng(0).normal(size=(20, 3))
    statistics = FeatureStatistics(3)
    statistics.append(torch.from_numpy(draw))
    path = written(tmp_path / "x.npz", mean=draw.mean(0), cov=np.cov(draw.T, ddof=0), num_items=np.int64(20))
    told = StatisticsFile.load(path).describe()
    assert told["network"] == "unknown" and told["items"] == 20
    found = compare(path, path)
    assert found["distance"] == pytest.approx(0, abs=1e-9) and "does not say by which network" in found["notes"][0]


def test_pushing_needs_a_licence_and_sends_file_and_page(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ZooError, match="licence"):
        make(real, tmp_path / "real.npz", push_to="me/statistics", **RANDOM)
    sent: dict[str, object] = {}

    class Hub:
        def __init__(self, **_: object) -> None: ...

        def create_repo(self, repo: str, **_: object) -> None:
            sent["repo"] = repo

        def upload_folder(self, *, folder_path: Path, **_: object) -> None:
            sent["files"] = {path.name: path.read_bytes() for path in folder_path.iterdir()}

    monkeypatch.setattr(publishing, "HfApi", Hub)
    monkeypatch.setattr(publishing, "is_offline_mode", lambda: False)
    make(real, tmp_path / "real.npz", push_to="me/statistics", licence="CC-BY-4.0", **RANDOM)
    assert sent["repo"] == "me/statistics" and set(sent["files"]) == {"real.npz", "README.md"}
    assert sent["files"]["real.npz"] == (tmp_path / "real.npz").read_bytes()
    text = sent["files"]["README.md"].decode()
    assert "CC-BY-4.0" in text and "tiny-video" in text and "zoo eval MODEL --data real.npz" in text
