"""``zoo doctor``: true findings, remedies, and no waiting for a network that does not answer."""

import json
import socket
import time

import pytest
from huggingface_hub import constants

from portraitzoo.cli.doctor import examine
from portraitzoo.cli.main import main


def test_findings_of_a_working_installation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PORTRAITZOO_CACHE", str(tmp_path / "cache"))
    assert main(["doctor", "--json"]) == 0
    findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    for needed in ("python", "torch", "cpu", "video", "extra dev", "cache"):
        assert findings[needed]["state"] == "works", findings[needed]
    assert str(tmp_path) in findings["cache"]["detail"]
    assert findings["hub"]["state"] == "missing" and "HF_HUB_OFFLINE" in findings["hub"]["remedy"]
    assert "i3d-videogpt" in findings["feature networks"]["detail"]
    assert not (tmp_path / "cache").exists(), "looking at the cache made it"


def test_a_missing_extra_comes_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portraitzoo.cli.doctor._installed", lambda requirement: requirement.name != "trimesh")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (finding,) = (finding for finding in examine() if finding.subject == "extra mesh")
    assert finding.state == "missing" and finding.remedy == "pip install 'portraitzoo[mesh]'"


def test_broken_video_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def no_encoder(*arguments: object) -> None:
        raise ValueError("Unknown encoder 'libx264'")

    monkeypatch.setattr("portraitzoo.media.video.write_video", no_encoder)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["doctor"]) == 1
    shown = capsys.readouterr()
    assert "!!  video" in shown.out and "libx264" in shown.out
    assert shown.err == "zoo: not in order: video; what to do stands above\n"


def test_a_hub_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        (finding,) = (finding for finding in examine() if finding.subject == "hub")
    assert finding.state == "missing"
    assert time.monotonic() - started < 60


def test_absent_flame_files_come_with_where_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PORTRAITZOO_FLAME", str(tmp_path))
    (finding,) = (finding for finding in examine() if finding.subject == "flame")
    assert finding.state == "missing" and str(tmp_path) in finding.remedy
    assert "generic_model.pkl" in finding.remedy and "https://flame.is.tue.mpg.de" in finding.remedy
