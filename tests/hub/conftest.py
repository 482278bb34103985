"""A cache, an index and a Hub of the test's own."""

import io
import time

import pytest
import torch
import yaml
from huggingface_hub import constants
from loopback import Loopback

from portraitzoo.hub import transfer
from portraitzoo.hub.index import Entry, get_entry

REAL_SLEEP = time.sleep


def point_to(monkeypatch, url: str) -> None:
    """Make huggingface_hub talk to another endpoint; outside of tests HF_ENDPOINT does this before it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The loopback Hub, with huggingface_hub and our cache pointed at it and an empty folder."""
    server = Loopback()
    cache = tmp_path / "huggingface"
    point_to(monkeypatch, server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("PORTRAITZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(transfer, "PAUSE", 0.01)
    monkeypatch.setattr(time, "sleep", lambda seconds: REAL_SLEEP(min(seconds, 0.01)))
    yield server
    server.close()


@pytest.fixture
def checkpoint():
    """Bytes of an official checkpoint of the toy family."""
    torch.manual_seed(0)
    buffer = io.BytesIO()
    torch.save({"official.weight": torch.randn(2, 3), "official.bias": torch.randn(2)}, buffer)
    return buffer.getvalue()


@pytest.fixture
def entry(monkeypatch, tmp_path):
    """A function that puts an entry into an index of the test's own, and returns it."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PORTRAITZOO_INDEX", str(folder))
    entries = {}

    def make(*origins: dict, name: str = "toy-one", **fields) -> Entry:
        entries[name] = {"origins": list(origins), **fields}
        defaults = {
            "task": "generate",
            "cls": "toys.Toy",
            "converter": "toys.convert",
            "description": "a toy",
            "licence": "MIT",
            "licence_url": "https://example.org/licence",
        }
        content = {"family": "toy", "defaults": defaults, "entries": entries}
        (folder / f"toy-{len(list(folder.iterdir()))}.yaml").write_text(yaml.safe_dump(content))
        return get_entry(name)

    return make
