"""``zoo eval`` as it is typed."""

import dataclasses
import json
import time
from pathlib import Path

import pytest
from evaluation_cases import NETWORKS, install_index, make_clips, save_frames

from portraitzoo.cli import progress
from portraitzoo.cli.main import main
from portraitzoo.metrics.protocols import Protocol, published_protocols


@pytest.fixture(autouse=True)
def tiny_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_index(tmp_path / "index", monkeypatch)


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    ours, theirs = save_frames(tmp_path / "a", make_clips(6)), save_frames(tmp_path / "b", make_clips(5, first=50))
    networks = [f"--{name.replace('_', '-')}={value}" for name, value in NETWORKS.items()]
    return ["eval", str(ours), "--data", str(theirs), "--features", "random", "--no-use-cache", "--json", *networks]


def test_protocols_are_listed_as_a_table_and_as_json(capsys: pytest.CaptureFixture[str]):
    assert main(["eval", "--list-protocols"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["protocol", "metrics", "counts"]
    assert [line.split()[0] for line in table[1 : 1 + len(published_protocols())]] == list(published_protocols())
    row = next(line for line in table if line.startswith("threedvidgen-fvd2048_16f "))
    for said in ("2048 / 2048", "256 torch, centre", "i3d-stylegan-v", "threedvidgen, jpeg"):
        assert said in row
    assert main(["eval", "--json", "--list-protocols"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {
        name: Protocol(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
        for name, fields in listed.items()
    } == published_protocols()


def test_flags_change_the_protocol_and_the_report_says_so(command: list[str], capsys: pytest.CaptureFixture[str]):
    changes = ["--clips", "4", "--size", "20", "--crop", "centre", "--ddof", "1", "--resample-fps"]
    assert main([*command, *changes, "--overrides", '{"clips": 3, "windows": "first"}']) == 0
    report = json.loads(capsys.readouterr().out)
    used = {"clips": 4, "size": 20, "crop": "centre", "ddof": 1, "resample_fps": True, "windows": "first"}
    assert {name: report["protocol"][name] for name in used} == used
    assert set(report["modified"]) == {*used, *NETWORKS}
    assert report["modified"]["clips"] == {"published": 64, "used": 4}
    assert report["results"][0]["generated"] == 4
    assert "modified protocol" in report["results"][0]["notes"]
    command.remove("--json")
    assert main([*command, "--clips", "4"]) == 0
    assert "modified: clips is 4, protocol quick has 64" in capsys.readouterr().out.splitlines()


def test_every_field_has_a_flag(capsys: pytest.CaptureFixture[str]):
    assert main(["eval", "--help"]) == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(Protocol):
        if field.name not in ("name", "description", "metrics", "remarks"):
            flag = {"cameras": "camera-rule"}.get(field.name, field.name.replace("_", "-"))
            assert f"  --{flag} " in shown or f"  --{flag}," in shown


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--clips", "0"], "clips must be at least 1"),
        (["--resized", "floats"], "resize=torch only"),
        (["--fps", "0"], "fps must be above 0"),
        (["--protocol", "pv3d-voxcelb"], "did you mean pv3d-voxceleb"),
        (["--protocol", "pv3d-training", "--cameras-of", "x"], "unrecognized"),
        (["--protocol", "stylegan-v-fvd2048_16f"], "6 usable clips, protocol stylegan-v-fvd2048_16f asks for 2048"),
        (["--devices", "0"], "1 or more devices"),
    ],
)
def test_wrong_flags_are_answered_in_one_line(command: list[str], flags: list[str], said: str, capsys):
    assert main([*command, *flags]) != 0
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told


def test_lines_tell_how_long_it_will_take(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with progress.progress("clips of a", 500) as advance:
        advance(100)  # kept from before
        for done in (101, 110, 120):
            now += 11
            advance(done)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "clips of a: 101/500, 1 h 13 min to go"
    assert lines[-1] == "clips of a: 120/500, 10 min 27 s to go"
