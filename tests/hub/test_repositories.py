"""The real huggingface_hub client against a server that speaks the Hub's protocol."""

import hashlib
import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import point_to
from huggingface_hub import constants
from loopback import COMMIT, Fault, Repository

import portraitzoo as pz
from portraitzoo.errors import CheckpointError, UnknownEntryError, WeightsUnavailableError, ZooError
from portraitzoo.hub import repositories
from portraitzoo.hub.download import fetch, fetch_file, import_file
from portraitzoo.hub.folders import read_config

REPO = "someone/toy"
FOREIGN = {"kind": "hub", "repo": REPO, "filename": "toy.ckpt"}
READY = {"kind": "hub", "repo": REPO, "filename": "model.safetensors", "format": "portraitzoo"}


@pytest.fixture
def repo(hub, checkpoint):
    """A repository with an official checkpoint, and the same weights in our format."""
    tensors = {"layer.weight": torch.ones(2, 3), "layer.bias": torch.ones(2)}
    config = b'{"width": 3, "depths": [1, 2], "render_resolution": 64}'
    files = {"toy.ckpt": checkpoint, "config.json": config, "model.safetensors": safetensors.torch.save(tensors)}
    hub.repositories[REPO] = Repository(files)
    return hub.repositories[REPO]


def blobs() -> list[Path]:
    """Files of content in huggingface_hub's cache."""
    return [path for path in Path(constants.HF_HUB_CACHE).glob("*/blobs/*") if path.is_file()]


def test_foreign_checkpoint(repo, hub, entry, checkpoint):
    told = []
    toy = entry(FOREIGN)
    folder = fetch(toy, progress=lambda *state: told.append(state))
    assert read_config(folder)["width"] == 3
    assert [path.name for path in blobs()] == [hashlib.sha256(checkpoint).hexdigest()]
    assert told[-1] == ("toy.ckpt", len(checkpoint), len(checkpoint))
    before = len(hub.requests)
    assert fetch(toy) == folder
    assert len(hub.requests) == before


def test_ready_made_weights_from_one_commit(repo, hub, entry):
    toy = entry(READY)
    folder = fetch(toy)
    assert folder.name == COMMIT
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert pz.load("toy-one", device="cpu").layer.weight.sum() == 6
    assert hub.made("HEAD", "model.safetensors")[0].path.startswith(f"/{REPO}/resolve/{COMMIT}/")


def test_data_is_used_as_it_is(repo, hub, entry):
    repo.files["rows.npy"] = b"numbers"
    rows = entry({**FOREIGN, "filename": "rows.npy", "format": "data"}, cls=None, converter=None, task="parameters")
    path = fetch_file(rows)
    assert path.name == "rows.npy" and path.read_bytes() == b"numbers"
    before = len(hub.made("GET"))
    assert fetch(rows) == path.parent and fetch_file(rows) == path
    assert len(hub.made("GET")) == before
    with pytest.raises(UnknownEntryError, match="toy-one is no network but parameters"):
        pz.load("toy-one")
    with pytest.raises(ZooError, match="other is no file of data but weights"):
        fetch_file(entry(FOREIGN, name="other"))


def test_a_file_that_the_user_has_is_not_downloaded(hub, entry, checkpoint, tmp_path):
    (tmp_path / "mine.bin").write_bytes(checkpoint)
    (tmp_path / "rows.npy").write_bytes(b"numbers")
    toy, rows = entry(FOREIGN), entry({**FOREIGN, "format": "data"}, name="rows", converter=None, cls=None)
    assert import_file(toy, tmp_path / "mine.bin") == fetch(toy)
    assert import_file(rows, tmp_path / "rows.npy") == fetch(rows)
    assert fetch_file(rows).read_bytes() == b"numbers"
    assert hub.requests == []


def test_a_token_stays_with_the_hub(repo, hub, entry, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(entry(FOREIGN))
    assert all("authorization" in request.headers for request in hub.made("HEAD"))
    delivered = hub.made("GET", "/cdn/")
    assert delivered
    assert not any("authorization" in request.headers for request in delivered)


def test_a_cut_connection_is_taken_up_where_it_ended(repo, hub, entry):
    """huggingface_hub stores pieces of 10 MiB, so the file has to be longer than one."""
    large = io.BytesIO()
    state = {"official.weight": torch.ones(2, 3), "official.bias": torch.ones(2), "critic": torch.ones(3 * 2**20)}
    torch.save(state, large)
    repo.files["toy.ckpt"] = large.getvalue()
    hub.faults["/cdn/"] = [Fault(cut_at=11 * 2**20)]
    fetch(entry(FOREIGN))
    first, second = hub.made("GET", "/cdn/")
    assert "Range" not in first.headers
    assert second.headers["Range"] == f"bytes={10 * 2**20}-"


def test_a_slow_network_is_asked_again(repo, hub, entry):
    hub.faults["/cdn/"] = [Fault(stall_at=100)]
    fetch(entry(FOREIGN))
    assert len(hub.made("GET", "/cdn/")) == 2


def test_passing_failures_are_retried(repo, hub, entry):
    hub.faults["HEAD"] = [Fault(status=503)] * 2
    fetch(entry(FOREIGN))


@pytest.mark.parametrize("stated", [{}, {"sha256": "0" * 64}, {"size": 5}], ids=["announced", "digest", "size"])
def test_a_wrong_file_is_not_kept(repo, hub, entry, checkpoint, stated, tmp_path):
    """The Hub announces a digest and the network delivers other bytes of that length; or the index says otherwise."""
    if not stated:
        hub.substitutes[hashlib.sha256(checkpoint).hexdigest()] = bytes(len(checkpoint))
    with pytest.raises(CheckpointError, match=r"someone/toy/toy.ckpt is not the file that the index describes"):
        fetch(entry({**FOREIGN, **stated}))
    assert blobs() == []
    assert not list(Path(constants.HF_HUB_CACHE).glob("*/snapshots/*/*"))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    hub.substitutes.clear()
    fetch(entry(FOREIGN, name="toy-two"))


def test_wrong_ready_made_weights_are_not_kept(repo, hub, entry):
    digest = hashlib.sha256(repo.files["model.safetensors"]).hexdigest()
    hub.substitutes[digest] = bytes(len(repo.files["model.safetensors"]))
    with pytest.raises(CheckpointError, match="is not the file that the index describes: its sha256"):
        fetch(entry(READY))
    assert digest not in [path.name for path in blobs()]


@pytest.mark.parametrize(
    ("change", "faults", "told"),
    [
        (
            {"repo": "someone/else"},
            {},
            r"there is no repository someone/else on http://127.0.0.1:\d+, or it is private",
        ),
        ({"filename": "other.ckpt"}, {}, "the repository someone/toy has no file other.ckpt"),
        ({"revision": "v9"}, {}, "the repository someone/toy has no revision v9"),
        ({}, {"HEAD": Fault(status=401)}, r"log in with `hf auth login`"),
        ({}, {"HEAD": Fault(status=403)}, r"access is refused \(status 403\): log in with `hf auth login`"),
        ({}, {"HEAD": Fault(status=500)}, r"the Hub fails \(status 500\): try again later"),
        ({}, {"HEAD": Fault(status=429)}, r"the Hub asks to slow down \(status 429\): try again later"),
        ({}, {"/cdn/": Fault(status=503)}, r"the Hub fails \(status 503\): try again later"),
        ({}, {"/cdn/": Fault(status=403)}, r"access is refused \(status 403\)"),
        ({}, {"/cdn/": Fault(cut_at=0)}, r"cannot be downloaded: http://127.0.0.1:\d+ cannot be reached"),
    ],
)
def test_each_failure_has_its_message(repo, hub, entry, change, faults, told):
    toy = entry({**FOREIGN, **change})
    for part, fault in faults.items():
        hub.faults[part] = [fault] * 50
    with pytest.raises(WeightsUnavailableError, match=told) as caught:
        fetch(toy)
    assert "\n" not in str(caught.value)
    assert blobs() == []


def test_a_gated_repository(repo, entry, monkeypatch):
    repo.gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(WeightsUnavailableError, match=r"is gated: accept its terms at http://.*/someone/toy, then log"):
        fetch(entry(FOREIGN))


def test_without_a_name_server_nothing_is_tried(repo, entry, monkeypatch):
    def unknown(*_):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(repositories, "hf_hub_download", lambda *_, **__: pytest.fail("a download was tried"))
    with pytest.raises(WeightsUnavailableError, match=r"http://127.0.0.1:\d+ cannot be reached: check the connection"):
        fetch(entry(FOREIGN))


def test_an_unreachable_hub(repo, entry, monkeypatch):
    point_to(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(WeightsUnavailableError, match=r"http://127.0.0.1:9 cannot be reached: check the connection"):
        fetch(entry(FOREIGN))


@pytest.mark.parametrize("origin", [FOREIGN, READY], ids=["foreign", "ready"])
def test_offline(repo, hub, entry, monkeypatch, origin):
    toy = entry(origin)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailableError, match="is not on this machine and HF_HUB_OFFLINE is set: unset it"):
        fetch(toy)
    assert hub.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    fetch(toy)
    before = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pz.load("toy-one", device="cpu").config.width == 3
    assert len(hub.requests) == before


def test_a_damaged_checkpoint_in_a_repository(repo, hub, entry, tmp_path):
    other = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, other)
    repo.files["toy.ckpt"] = other.getvalue()
    with pytest.raises(CheckpointError, match=r"cannot be converted to toy: the checkpoint lacks"):
        fetch(entry(FOREIGN))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_the_environment_is_respected(repo, hub, entry, tmp_path):
    """HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE, as another process sees them."""
    entry(FOREIGN)
    program = (
        "from portraitzoo.hub.download import fetch; from portraitzoo.hub.index import get_entry; "
        "print(fetch(get_entry('toy-one')))"
    )
    home = tmp_path / "home"
    environment = {key: value for key, value in os.environ.items() if key != "PORTRAITZOO_CACHE"}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", program]
    online = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=True)
    assert Path(online.stdout.strip()) == home / "assets" / "portraitzoo" / "models" / "toy-one"
    assert list((home / "hub").glob("models--someone--toy/blobs/*"))
    offline = environment | {"HF_HUB_OFFLINE": "1"}
    again = subprocess.run(command, env=offline, capture_output=True, text=True, timeout=400, check=True)
    assert again.stdout == online.stdout
