"""``zoo bench``: the numbers are there, consistent, and what they say they are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from portraitzoo.cli import measurements
from portraitzoo.cli.calibration import calibrate, fastest, machine_peak
from portraitzoo.cli.main import main
from portraitzoo.methods.pv3d import benchmark
from portraitzoo.methods.pv3d.model import PV3D
from portraitzoo.methods.pv3d.network import PV3DConfig

FIELDS = {"what", "seconds", "frames", "peak_memory_gb", "gflop", "device", "dtype", "calibration_seconds"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own speed is not what is tested here."""
    monkeypatch.setattr(measurements, "calibrate", lambda device: 0.25)
    monkeypatch.setattr(measurements, "machine_peak", lambda device, dtype: 100.0)


def bench(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict]:
    assert main(["bench", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_stage_is_measured(quick: None, toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = bench(capsys, toy, "--frames", 3, "--batches", 2, "--repeats", 1)
    assert all(set(entry) >= FIELDS for entry in found)
    stages = {entry["what"]: entry for entry in found}
    assert list(stages) == ["mapping", "planes", "rays", "super-resolution", "frame", "encode", "clip"]
    assert stages["clip"]["frames"] == 3 and stages["planes"]["frames"] == 2
    for entry in found:
        assert entry["seconds"] > 0 and entry["peak_memory_gb"] > 0.01
        assert entry["ms_per_frame"] == pytest.approx(1000 * entry["seconds"] / entry["frames"])
        assert entry["speedup"] is None, "a toy has no original to compare with"
    parts = sum(stages[name]["gflop"] for name in ("mapping", "planes", "rays", "super-resolution"))
    assert stages["frame"]["gflop"] == pytest.approx(parts, rel=0.05)


def test_other_formats_tell_their_error(quick: None, toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = bench(capsys, toy, "--frames", 1, "--repeats", 1, "--dtypes", "bfloat16")
    errors = {entry["what"]: entry["error"] for entry in found}
    assert 0 < errors["frame"] < 0.5 and {entry["dtype"] for entry in found} == {"bfloat16"}


def test_a_table_for_people(quick: None, toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(toy), "--frames", "1", "--repeats", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("STAGE") and lines[-1].startswith("cpu, ") and "calibration" in lines[-1]


def test_the_original_is_compared_only_where_it_was_measured() -> None:
    with torch.device("meta"):
        official, other = PV3D(PV3DConfig()), PV3D(PV3DConfig(plane_resolution=128))
    # 68.111 s for a clip at calibrations of 0.3537 and 0.356 s.
    assert benchmark.original(official, "clip", 16, None) == pytest.approx(191.94, abs=0.01)
    assert benchmark.original(official, "clip", 8, None) is None
    assert benchmark.original(official, "clip", 16, 128) is None
    assert benchmark.original(other, "clip", 16, 64) is None


@pytest.mark.slow
def test_the_official_network_with_random_weights() -> None:
    # In a process of its own: the memory of this one is also that of the tests before.
    command = [sys.executable, "-m", "portraitzoo.cli.main", "bench", "pv3d", "--official", "--random-weights"]
    command += ["--device", "cpu", "--frames", "1", "--repeats", "1", "--json"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    frame = next(entry for entry in found if entry["what"] == "frame")
    # 301.2 GFLOP in the original; ours may save some, and must not count only a part.
    assert 100 < frame["gflop"] < 310 and frame["speedup"] > 0.1 and frame["peak_memory_gb"] < 3


def test_calibration_and_peak_measure_something() -> None:
    assert 0.01 < calibrate(repeats=1) < 60
    assert machine_peak() > 1
    ran = []
    fastest(lambda: ran.append(1), "cpu", repeats=3)
    assert len(ran) == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(quick: None, toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = bench(capsys, toy, "--frames", 2, "--repeats", 1, "--batches", 1, "--no-compiled", "--device", "cuda")
    assert {entry["dtype"] for entry in found} == {"float32", "bfloat16", "float16"}
    exact = [entry["error"] for entry in found if entry["what"] == "frame" and entry["dtype"] == "float32"]
    assert exact[0] < 1e-2
