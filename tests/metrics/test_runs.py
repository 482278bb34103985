"""Repeated evaluations: other seeds each time, mean and standard deviation over them."""

import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_cases import NETWORKS, ToyModel, install_index, make_clips, save_frames

from portraitzoo.cli.main import main
from portraitzoo.errors import ZooError
from portraitzoo.metrics.evaluation import evaluate
from portraitzoo.metrics.runs import evaluate_runs

OPTIONS = {"metrics": "fvd", "features": "random", "use_cache": False, "overrides": NETWORKS | {"paths": 1}}


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install_index(tmp_path / "index", monkeypatch)
    return save_frames(tmp_path / "real", make_clips(9, first=100))


def test_runs_draw_other_clips_and_the_value_is_their_mean(real: Path, tmp_path: Path) -> None:
    model = ToyModel()
    report = evaluate_runs(model, real, num_runs=3, num_clips=9, seed=1000, out=tmp_path / "report", **OPTIONS)
    seeds = [asked["seed"] for asked in model.asked]
    assert len(set(seeds)) == 27 and seeds[0] == 1000
    single = [
        evaluate(ToyModel(), real, num_clips=9, seed=first, **OPTIONS).values["fvd"]
        for first in (seeds[0], seeds[9], seeds[18])
    ]
    (result,) = report.results
    assert result.extra["runs"] == pytest.approx(single)
    assert (result.value, result.std) == pytest.approx((np.mean(single), np.std(single)))
    assert result.interval.low < result.value < result.interval.high
    assert "mean of 3 runs" in result.notes
    assert "window_seed" not in report.protocol.modified()
    assert json.loads((tmp_path / "report" / "report.json").read_text())["results"][0]["std"] == result.std
    assert "t interval of the mean of 3 runs" in (tmp_path / "report" / "report.html").read_text()


def test_one_run_is_an_evaluation_and_none_is_refused(real: Path) -> None:
    clips = make_clips(9)
    one = evaluate_runs(clips, real, num_runs=1, **OPTIONS)
    assert one.results == evaluate(clips, real, **OPTIONS).results
    with pytest.raises(ZooError, match="at least 1 run"):
        evaluate_runs(clips, real, num_runs=0, **OPTIONS)


def test_runs_of_files_are_equal_and_the_report_says_so(real: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--metrics", "fvd", "--features", "random", "--overrides", json.dumps(NETWORKS), "--no-use-cache"]
    assert main(["eval", str(real), "--data", str(real), *flags, "--num-runs", "2"]) == 0
    assert "nothing in this evaluation is drawn at random" in capsys.readouterr().out
