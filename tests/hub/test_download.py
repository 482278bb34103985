"""Plain urls: resumed, checked, converted once; every failure has its own message and leaves nothing behind."""

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from loopback import Fault

import portraitzoo as pz
from portraitzoo.errors import CheckpointError, WeightsUnavailableError, ZooError
from portraitzoo.hub.download import fetch, import_file
from portraitzoo.hub.folders import read_config, read_tensors

PATH = "/release/toy.ckpt"
MIDDLE = 500


@pytest.fixture
def toy(hub, entry, checkpoint):
    """The entry of one plain url that the server has."""
    hub.files[PATH] = checkpoint
    return entry({"kind": "url", "url": hub.url + PATH, "filename": "toy.ckpt"})


def kept(tmp_path) -> list[str]:
    """Every file in the cache but locks."""
    root = tmp_path / "cache"
    found = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    return sorted(path for path in found if not path.startswith("locks/"))


CONVERTED = [
    f"models/toy-one/{name}" for name in ("config.json", "conversion.json", "model.safetensors", "training.safetensors")
]


def test_fetched_converted_and_kept(toy, hub, tmp_path, checkpoint):
    told = []
    folder = fetch(toy, progress=lambda *state: told.append(state))
    assert kept(tmp_path) == CONVERTED
    assert read_config(folder) == {"width": 3, "depths": [1, 2]}
    weight = torch.load(io.BytesIO(checkpoint), weights_only=True)["official.weight"]
    assert torch.equal(read_tensors(folder)["layer.weight"], weight)
    assert told[-1] == ("toy.ckpt", len(checkpoint), len(checkpoint))
    assert fetch(toy) == folder
    assert len(hub.requests) == 1
    assert pz.load("toy-one", device="cpu").config.width == 3


def test_a_cut_connection_is_taken_up_where_it_ended(toy, hub):
    hub.faults[PATH] = [Fault(cut_at=MIDDLE)]
    fetch(toy)
    first, second = hub.made("GET", PATH)
    assert "Range" not in first.headers
    assert second.headers["Range"] == f"bytes={MIDDLE}-"
    assert second.headers["If-Range"]


def test_what_arrived_before_giving_up_is_kept_for_the_next_call(toy, hub, tmp_path):
    hub.faults[PATH] = [Fault(cut_at=MIDDLE)] + [Fault(cut_at=100)] * 4
    with pytest.raises(WeightsUnavailableError, match=r"connection .* \(5 attempts\); what has arrived is kept"):
        fetch(toy)
    assert [name for name in kept(tmp_path) if name.endswith(".part")] == ["downloads/toy-one/toy.ckpt.part"]
    fetch(toy)
    assert hub.made("GET", PATH)[-1].headers["Range"] == f"bytes={MIDDLE + 400}-"
    assert kept(tmp_path) == CONVERTED


def test_a_file_that_changed_meanwhile_is_fetched_anew(toy, hub, checkpoint):
    hub.faults[PATH] = [Fault(cut_at=MIDDLE)] + [Fault(status=503)] * 4
    with pytest.raises(WeightsUnavailableError):
        fetch(toy)
    other = io.BytesIO()
    torch.save({"official.weight": torch.zeros(2, 5), "official.bias": torch.zeros(2)}, other)
    hub.files[PATH] = other.getvalue()
    assert read_config(fetch(toy))["width"] == 5


def test_a_server_that_ignores_ranges(toy, hub, checkpoint):
    hub.faults[PATH] = [Fault(cut_at=MIDDLE)]
    hub.etags[PATH] = 'W/"weak"'
    fetch(toy)
    assert "If-Range" not in hub.made("GET", PATH)[1].headers


def test_a_finished_part_needs_no_more_bytes(toy, hub, tmp_path, checkpoint):
    part = tmp_path / "cache" / "downloads" / "toy-one" / "toy.ckpt.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(checkpoint)
    fetch(toy)
    assert hub.made("GET", PATH)[0].headers["Range"] == f"bytes={len(checkpoint)}-"
    assert kept(tmp_path) == CONVERTED


def test_a_slow_server_is_asked_again(toy, hub):
    hub.faults[PATH] = [Fault(stall_at=MIDDLE)]
    fetch(toy)
    assert hub.made("GET", PATH)[1].headers["Range"] == f"bytes={MIDDLE}-"


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_passing_failures_are_retried(toy, hub, status):
    hub.faults[PATH] = [Fault(status=status, headers={"Retry-After": "1"})] * 2
    fetch(toy)
    assert len(hub.made("GET", PATH)) == 3


@pytest.mark.parametrize(
    ("status", "told", "attempts"),
    [
        (503, r"the server fails \(status 503\) \(5 attempts\)", 5),
        (429, r"the server asks to slow down \(status 429\)", 5),
        (404, r"does not exist any more \(status 404\)", 1),
        (403, r"refuses access \(status 403\): open it in a browser", 1),
        (418, r"answers with status 418", 1),
    ],
)
def test_each_failure_has_its_message(toy, hub, tmp_path, status, told, attempts):
    hub.faults[PATH] = [Fault(status=status)] * 9
    with pytest.raises(WeightsUnavailableError, match=told) as caught:
        fetch(toy)
    assert "\n" not in str(caught.value)
    assert len(hub.made("GET", PATH)) == attempts
    assert kept(tmp_path) == []


def test_an_unreachable_server(hub, entry):
    toy = entry({"kind": "url", "url": "http://127.0.0.1:9/toy.ckpt", "filename": "toy.ckpt"})
    with pytest.raises(WeightsUnavailableError, match="the connection failed"):
        fetch(toy)


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ({"sha256": "0" * 64}, "its sha256 is [0-9a-f]{64}, not 0{64}"),
        ({"sha256": "01234567"}, "its sha256 is [0-9a-f]{64}, not 01234567;"),
        ({"size": 10**6}, "bytes long, not 1000000"),
    ],
)
def test_a_wrong_file_is_not_kept(hub, entry, checkpoint, tmp_path, stated, told):
    hub.files[PATH] = checkpoint
    toy = entry({"kind": "url", "url": hub.url + PATH, "filename": "toy.ckpt", **stated})
    with pytest.raises(CheckpointError, match=told):
        fetch(toy)
    assert kept(tmp_path) == []


def test_the_right_digest_or_its_beginning(hub, entry, checkpoint):
    hub.files[PATH] = checkpoint
    digest = hashlib.sha256(checkpoint).hexdigest()
    for name, sha256 in (("toy-one", digest), ("toy-two", digest[:8])):
        origin = {"kind": "url", "url": hub.url + PATH, "filename": "toy.ckpt", "size": len(checkpoint)}
        fetch(entry({**origin, "sha256": sha256}, name=name))


def test_a_damaged_file_is_not_kept(toy, hub, tmp_path, checkpoint):
    hub.files[PATH] = checkpoint[:-300]
    with pytest.raises(CheckpointError, match=r"cannot read .*toy.ckpt: the file is damaged"):
        fetch(toy)
    assert kept(tmp_path) == []
    hub.files[PATH] = checkpoint
    fetch(toy)


def test_a_checkpoint_of_another_family_is_not_kept(toy, hub, tmp_path):
    other = io.BytesIO()
    torch.save({"something": torch.zeros(1)}, other)
    hub.files[PATH] = other.getvalue()
    with pytest.raises(CheckpointError, match=r"toy.ckpt cannot be converted to toy: the checkpoint lacks"):
        fetch(toy)
    assert kept(tmp_path) == []


def test_a_web_page_instead_of_the_file(toy, hub, tmp_path):
    hub.types[PATH] = "text/html; charset=utf-8"
    hub.files[PATH] = b"<html><body>Sign in</body></html>"
    with pytest.raises(WeightsUnavailableError, match=r"answers with a web page \(not a file\)"):
        fetch(toy)
    hub.files[PATH] = b"<html><body>Quota exceeded, too many users</body></html>"
    with pytest.raises(WeightsUnavailableError, match="try tomorrow"):
        fetch(toy)
    assert kept(tmp_path) == []


def test_a_page_that_asks_to_confirm(toy, hub, checkpoint):
    hub.types[PATH] = "text/html"
    hub.files[PATH] = b"""<html><form id="download-form" action="/confirmed?x=1&amp;y=2" method="get">
        <input type="hidden" name="id" value="abc"><input type="hidden" name="confirm" value="t"></form></html>"""
    hub.files["/confirmed"] = checkpoint
    hub.faults["/confirmed"] = [Fault(cut_at=MIDDLE)]
    fetch(toy)
    assert hub.made("GET", "/confirmed")[1].headers["Range"] == f"bytes={MIDDLE}-"


def test_offline(toy, hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailableError, match="is not on this machine and HF_HUB_OFFLINE is set"):
        fetch(toy)
    assert hub.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = fetch(toy)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(toy) == folder
    pz.load("toy-one")


def test_a_new_digest_in_the_index_fetches_anew(hub, entry, checkpoint):
    hub.files[PATH] = checkpoint
    origin = {"kind": "url", "url": hub.url + PATH, "filename": "toy.ckpt"}
    fetch(entry(origin))
    other = io.BytesIO()
    torch.save({"official.weight": torch.zeros(2, 7), "official.bias": torch.zeros(2)}, other)
    hub.files[PATH] = other.getvalue()
    changed = entry({**origin, "sha256": hashlib.sha256(other.getvalue()).hexdigest()})
    assert read_config(fetch(changed))["width"] == 7


def test_settings_of_the_entry_override_the_file(hub, entry, checkpoint):
    hub.files[PATH] = checkpoint
    origin = {"kind": "url", "url": hub.url + PATH, "filename": "toy.ckpt"}
    toy = entry(origin, config={"render_resolution": 128})
    assert read_config(fetch(toy))["render_resolution"] == 128
    assert pz.load(toy.name).config.render_resolution == 128


def test_two_processes_fetch_one_file_once(toy, hub, tmp_path):
    program = (
        "from portraitzoo.hub.download import fetch; from portraitzoo.hub.index import get_entry; "
        "print(fetch(get_entry('toy-one')))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=400) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] != ""
    assert len(hub.made("GET", PATH)) == 1


def test_an_unwritable_cache(toy, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PORTRAITZOO_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ZooError, match=r"cannot write the cache .*; set PORTRAITZOO_CACHE"):
        fetch(toy)


def test_files_by_hand(hub, entry, checkpoint, tmp_path):
    toy = entry({"kind": "manual", "url": "https://example.org/how", "filename": "toy.ckpt"})
    with pytest.raises(WeightsUnavailableError, match=r"by hand from https://example.org/how, then: `zoo"):
        fetch(toy)
    (tmp_path / "mine.bin").write_bytes(checkpoint)
    folder = import_file(toy, tmp_path / "mine.bin")
    assert fetch(toy) == folder
    assert (tmp_path / "mine.bin").exists()
    assert kept(tmp_path) == CONVERTED


def test_a_wrong_file_by_hand(hub, entry, checkpoint, tmp_path):
    toy = entry({"kind": "manual", "url": "https://example.org", "filename": "toy.ckpt", "sha256": "0" * 64})
    (tmp_path / "mine.bin").write_bytes(checkpoint)
    with pytest.raises(CheckpointError, match=r"mine.bin is not the file that the index describes"):
        import_file(toy, tmp_path / "mine.bin")
    with pytest.raises(CheckpointError, match="there is no file"):
        import_file(toy, tmp_path / "absent.bin")
    assert kept(tmp_path) == []


def test_an_entry_of_two_files(hub, entry, tmp_path):
    origins = []
    for name, tensor in (("weight", torch.zeros(2, 3)), ("bias", torch.zeros(2))):
        content = io.BytesIO()
        torch.save({f"official.{name}": tensor}, content)
        hub.files[f"/{name}.pth"] = content.getvalue()
        origins.append({"kind": "url", "url": f"{hub.url}/{name}.pth", "filename": f"{name}.pth"})
    toy = entry(*origins)
    hub.faults["/bias.pth"] = [Fault(status=404)]
    with pytest.raises(WeightsUnavailableError):
        fetch(toy)
    assert read_config(fetch(toy))["width"] == 3
    assert len(hub.made("GET", "/weight.pth")) == 1
    (tmp_path / "other.pth").write_bytes(hub.files["/bias.pth"])
    with pytest.raises(ZooError, match=r"is made of weight.pth and bias.pth: give a file of one of these names"):
        import_file(toy, tmp_path / "other.pth")
