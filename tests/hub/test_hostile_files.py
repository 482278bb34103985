"""Nothing in a hostile or damaged file runs: each is refused in one clear line or read as inert data, within bounds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile
import pytest

SECONDS = 60


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The groups of the corpus's files, what came of each, and the probe that none may have created."""
    root = tmp_path_factory.mktemp("hostile")
    folder, probe = root / "files", root / "probe"
    folder.mkdir()
    groups = hostile.write_corpus(folder, str(probe))
    (root / f"{hostile.PROBE_MODULE}.py").write_text(f"open({str(probe)!r}, 'w').close()")
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, hostile.__file__, str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return groups, json.loads(run.stdout), probe


def test_the_corpus_is_armed(tmp_path):
    """The standard unpickler does run these files: what the tests below refute is real."""
    probe = tmp_path / "probe"
    program = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    for what in ("os_system", "eval", "getattr_chain", "stack_global", "inst"):
        path = tmp_path / what
        path.write_bytes(hostile.bare(hostile.armed(str(probe))[what]))
        subprocess.run([sys.executable, "-c", program, path], capture_output=True, timeout=400, check=False)
        assert probe.exists(), what
        probe.unlink()


def test_there_are_enough_files(corpus):
    groups, results, _ = corpus
    assert len(groups) >= 300
    assert set(groups) == set(results) - {"."}


def test_nothing_ran(corpus):
    _, results, probe = corpus
    assert not probe.exists()
    assert results["."]["modules"] == []
    assert not any("PORTRAITZOO_PROBE" in name for name in os.environ)


def test_nothing_but_inert_data_comes_back(corpus):
    _, results, _ = corpus
    assert {name: r for name, r in results.items() if r.get("outcome") == "escaped"} == {}
    assert {name: r["active"] for name, r in results.items() if r.get("active")} == {}


def test_each_refusal_is_one_clear_line(corpus):
    _, results, _ = corpus
    refused = {name: r["message"] for name, r in results.items() if r.get("outcome") == "refused"}
    assert len(refused) > 150
    for name, message in refused.items():
        assert message.startswith("cannot read ") and name in message, message
        assert "\n" not in message and message.isprintable(), name
        assert len(message.partition(f"{name}: ")[2]) in range(15, 260), message


def test_memory_and_time_are_bounded(corpus):
    _, results, _ = corpus
    assert not [name for name, r in results.items() if r.get("cause") == "MemoryError"]
    assert not [name for name, r in results.items() if "allocate" in r.get("message", "")]
    assert results["."]["kilobytes"] < 600 * 1024
    assert {name: r["seconds"] for name, r in results.items() if r.get("seconds", 0) > SECONDS} == {}


@pytest.mark.parametrize("group", ["exhausting", "archive", "kind"])
def test_impossible_files_are_refused(corpus, group):
    groups, results, _ = corpus
    read = [name for name, of in groups.items() if of == group and results[name]["outcome"] != "refused"]
    assert read == []


def test_cut_files_are_refused(corpus):
    groups, results, _ = corpus
    cut = [name for name in groups if name.startswith("cut_")]
    assert len(cut) > 50
    assert [name for name in cut if results[name]["outcome"] != "refused"] == []


def test_changed_contents_of_a_zip_are_refused(corpus):
    """Pickle and tensors are under checksums; bits of padding and dates may flip."""
    groups, results, _ = corpus
    changed = [name for name in groups if name.startswith("content_")]
    assert len(changed) >= 12
    assert [name for name in changed if results[name]["outcome"] != "refused"] == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("empty", "the file is empty"),
        ("folder", "it is a folder"),
        ("absent", "there is no such file"),
        ("png", "a PNG image"),
        ("gzip", "compressed with gzip: unpack it first"),
        ("web_page", "a web page"),
        ("git_lfs_pointer", "a git-lfs pointer"),
        ("zip_without_data", "not one that torch.save wrote"),
        ("zip_bomb_storage", "unpacks to far more than its own size"),
        ("zip_big_endian", "big-endian"),
        ("zip_encrypted", "encrypted"),
        ("tar_of_others", "unpack it and give the file inside"),
        ("bare_bytes8", "ends early or states a wrong length"),
        ("bare_too_many_instructions", "instructions"),
        ("bare_extension_1", "extension registry"),
        ("bare_array_objects", "only plain numbers"),
        ("zip_tensor_beyond", "reaches outside of its storage"),
        ("zip_tensor_repeats", "many times larger than the file"),
        ("zip_tensor_numel_wrong", "not as long as stated"),
        ("zip_tensor_unknown_class", "unknown class 'torch.QUInt8Storage'"),
        ("legacy_unfilled", "is missing from it"),
        ("safetensors_header", "safetensors file is damaged"),
    ],
)
def test_messages_tell_what_is_wrong(corpus, name, told):
    _, results, _ = corpus
    assert told in results[name]["message"]


def test_hostile_module_becomes_inert_records(tmp_path):
    """The weights of a module whose other attributes are hostile can still be taken."""
    from portraitzoo.hub.checkpoints import read_checkpoint
    from portraitzoo.hub.records import Record

    path: Path = tmp_path / "network.pkl"
    path.write_bytes(hostile.nvidia(hostile.armed(str(tmp_path / "probe"))["os_system"]))
    extra = read_checkpoint(path)["G_ema"].attributes["extra"]
    assert isinstance(extra, Record)
    assert (extra.path, extra.args) == ("os.system", (f"touch {tmp_path / 'probe'}",))
