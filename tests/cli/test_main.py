"""The command line as a shell meets it: verbs, exit statuses, one line for a failure, quick answers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from portraitzoo.cli import main as cli
from portraitzoo.cli.main import VERBS, main
from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip

ZOO = [sys.executable, "-m", "portraitzoo.cli.main"]


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {verb} " in shown for verb in VERBS)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert "usage: zoo" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["lits"], ["info"], ["list", "--nonsense"], ["mesh", "a", "--seed", "x"]])
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_mistyped_verb_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    main(["sampel"])
    assert "zoo sample" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "told"),
    [("portrait4d-v2-vfhq512", "use zoo animate or zoo mesh"), ("i3d-videogpt", "`zoo list` tells which models can")],
)
def test_a_model_that_cannot_do_it_is_not_downloaded_first(
    name: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portraitzoo.hub.loading.load", lambda *_, **__: pytest.fail("it was loaded"))
    assert main(["sample", name]) == 1
    assert capsys.readouterr().err == f"zoo: {name} cannot sample: {told}\n"


def test_an_unknown_entry_is_one_line_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "pv3d-tinny"]) == 1
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1 and "pv3d-tiny" in complaint


def test_list_and_info_speak_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"pv3d-tiny", "pv3d-voxceleb-res64"} <= {entry["name"] for entry in listed}
    assert main(["info", "pv3d-tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) in listed


def test_list_of_one_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "pv3d"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("NAME") and all(line.startswith("pv3d-") for line in lines[1:])
    assert main(["list", "pv4d"]) == 1


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["info", "pv3d-tiny"]])
def test_the_index_answers_without_loading_torch(arguments: list[str]) -> None:
    program = (
        "import sys; from portraitzoo.cli.main import main; status = main(sys.argv[1:]); "
        "sys.exit(status or bool({'torch', 'lightning', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True).returncode == 0


def _verb_that_raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def dispatch(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_dispatch", dispatch)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ZooError("the file is\nempty"), 1, "zoo: the file is empty\n"),
        (KeyboardInterrupt(), 130, "zoo: interrupted\n"),
        (OSError(28, "No space left on device", "/data/x"), 1, "zoo: no space left on the disk of /data/x: free"),
        (PermissionError(13, "Permission denied", "/data/x"), 1, "zoo: /data/x: Permission denied\n"),
        (MemoryError(), 1, "zoo: there is too little memory"),
        (
            ZooError(
                "Caught MediaError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
                '  File "x.py", line 1\nportraitzoo.errors.MediaError: a.mp4 is empty'
            ),
            1,
            "zoo: a.mp4 is empty\n",
        ),
    ],
)
def test_a_foreseen_failure_is_one_line(
    error: BaseException, status: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _verb_that_raises(monkeypatch, error)
    assert main([]) == status
    complaint = capsys.readouterr().err
    assert complaint.startswith(line) and complaint.count("\n") == 1


def test_the_traceback_is_there_for_who_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _verb_that_raises(monkeypatch, ZooError("no"))
    monkeypatch.setenv("PORTRAITZOO_TRACEBACK", "1")
    assert main([]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_fault_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    _verb_that_raises(monkeypatch, AssertionError("a bug"))
    with pytest.raises(AssertionError):
        main([])


def test_a_reader_that_leaves_is_no_failure() -> None:
    process = subprocess.Popen([*ZOO, "list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr.read() == b""


def test_ctrl_c_leaves_whole_clips_and_status_130(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "clips"
    process = subprocess.Popen(
        [*ZOO, "sample", str(toy), "--seeds", "0-99999", "--frames", "2", "--device", "cpu", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    until = time.monotonic() + 120
    while len(list(out.glob("*.mp4"))) < 2 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert complaint.decode().splitlines()[-1] == "zoo: interrupted" and "Traceback" not in complaint.decode()
    clips = [path for path in out.iterdir() if path.name != "sampling.json"]
    assert len(clips) >= 2 and all(len(Clip.load(clip)) == 2 for clip in clips)
