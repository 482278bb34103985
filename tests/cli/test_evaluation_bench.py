"""``zoo bench eval``: both sides do the same work, and agree."""

import json
from pathlib import Path

import pytest
import torch

from portraitzoo.cli.evaluation_bench import PlainI3D
from portraitzoo.cli.main import main
from portraitzoo.metrics.features import randomise
from portraitzoo.metrics.inception3d import I3D


def test_i3d_as_drawn_and_i3d_as_run_are_one_network() -> None:
    network = I3D().eval()
    randomise(network, seed="test")
    clip = torch.randint(0, 256, (1, 9, 32, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        run, drawn = network(clip), PlainI3D(network)(clip)
    assert torch.allclose(run, drawn, rtol=1e-4, atol=1e-4 * run.abs().max())


@pytest.mark.slow
def test_both_sides_agree(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch_fidelity")
    arguments = ["--images", "2", "--clips", "2", "--size", "64", "--repeats", "1", "--batch-size", "2"]
    assert main(["bench", "eval", *arguments, "--json"]) == 0
    found = {contest["what"]: contest for contest in json.loads(capsys.readouterr().out)}
    assert list(found) == ["FID features, 64 x 64", "FVD from files", "of which I3D", "of which decoding"]
    for contest in found.values():
        assert contest["ours"] > 0 and contest["theirs"] > 0 and contest["items"] == 2
        assert contest["difference"] is None or contest["difference"] < 1e-4


def test_a_folder_without_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch_fidelity")
    assert main(["bench", "eval", "--data", str(tmp_path), "--images", "1", "--size", "32", "--repeats", "1"]) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith("zoo: ") and complaint.count("\n") == 1 and str(tmp_path) in complaint
