"""NVIDIA's persistence pickles: tensors, order and settings, without running the source texts in them."""

import io
import json
import os
import pickle
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.checkpoints import read_checkpoint
from portraitzoo.hub.modules import resolve_config, tensors_of_module
from portraitzoo.hub.records import Record

REFERENCE = Path(
    os.environ.get("PORTRAITZOO_REFERENCE") or Path(__file__).resolve().parents[3] / "shared" / "reference"
)
SAMPLES = sorted((REFERENCE / "threedvidgen").rglob("network_tensors.json"))


@pytest.mark.parametrize(
    "listing",
    [pytest.param(path, id=path.parent.name) for path in SAMPLES]
    or [
        pytest.param(
            None,
            marks=pytest.mark.skip(reason=f"no network_tensors.json under {REFERENCE} (set PORTRAITZOO_REFERENCE)"),
        )
    ],
)
def test_reference_sample(listing):
    wanted = json.loads(listing.read_text())
    read = read_checkpoint(listing.with_name(wanted["file"]))
    assert list(read) == wanted["top_level_keys"]
    for name, network in wanted["networks"].items():
        assert read[name].name == network["cls"]
        tensors = tensors_of_module(read[name])
        assert list(tensors) == [row["name"] for row in network["tensors"]]
        for row in network["tensors"]:
            tensor = tensors[row["name"]]
            assert list(tensor.shape) == row["shape"]
            assert str(tensor.dtype) == f"torch.{row['dtype']}"
            assert zlib.crc32(tensor.contiguous().numpy().tobytes()) == row["crc32"]
        settings = resolve_config(read[name].attributes["_init_kwargs"])
        json.dumps(settings)


class Persistent:
    """Pickles as NVIDIA's decorated classes do: by a meta dict that holds source text and state."""

    def __reduce__(self):
        meta = {
            "type": "class",
            "version": 6,
            "module_src": "raise SystemExit('this source must never run')",
            "class_name": type(self).__name__,
            "state": self.__dict__.copy(),
        }
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


class Camera(Persistent):
    def __init__(self):
        self.fov, self.matrix = np.float64(18.0), torch.eye(4)[None]


class Block(Persistent, nn.Module):
    def __init__(self, width):
        nn.Module.__init__(self)
        self.conv = nn.Conv1d(width, width, 1)
        self.register_buffer("noise", torch.randn(width))
        self.register_buffer("grid", torch.randn(2), persistent=False)
        self.register_parameter("absent", None)
        self.weight_gain = np.float32(0.5)
        self._init_kwargs = {"width": width}


class Generator(Persistent, nn.Module):
    def __init__(self, camera):
        nn.Module.__init__(self)
        self.blocks = nn.ModuleList([Block(2), Block(3)])
        self.head = nn.Sequential(Block(2), nn.PReLU())
        self.tail = nn.Parameter(torch.arange(24.0).view(4, 6).t()[1:3, ::2])
        self.nothing = None
        self.C = camera
        self.register_buffer("steps", torch.tensor(7))


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """A snapshot written by classes of this file through the module names of NVIDIA's repositories."""
    persistence = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", persistence)
    torch.manual_seed(0)
    camera = Camera()
    networks = {"G": Generator(camera), "G_ema": Generator(camera)}

    def write(protocol):
        path = tmp_path / f"network-snapshot-{protocol}.pkl"
        buffer = io.BytesIO()
        pickle.Pickler(buffer, protocol).dump({"training_set_kwargs": {"path": "x"}, **networks, "augment_pipe": None})
        path.write_bytes(buffer.getvalue())
        return path, networks

    return write


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_own_sample(sample, protocol):
    path, networks = sample(protocol)
    read = read_checkpoint(path)
    assert list(read) == ["training_set_kwargs", "G", "G_ema", "augment_pipe"]
    for name, network in networks.items():
        assert (read[name].module, read[name].name) == ("persistent", "Generator")
        tensors, wanted = tensors_of_module(read[name]), network.state_dict()
        assert list(tensors) == list(wanted)
        assert all(torch.equal(tensors[key], wanted[key]) for key in wanted)
    assert not any("must never run" in str(value) for value in vars_of(read["G"]))


def test_objects_are_shared_and_settings_readable(sample):
    read = read_checkpoint(sample(4)[0])
    camera = read["G"].attributes["C"]
    assert camera is read["G_ema"].attributes["C"]
    assert camera.attributes["fov"] == 18.0
    block = read["G"].attributes["_modules"]["blocks"].attributes["_modules"]["1"]
    assert block.attributes["_init_kwargs"] == {"width": 3}
    assert block.attributes["weight_gain"] == 0.5


def vars_of(record):
    pending, found, seen = [record], [], set()
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Record):
            pending += [part.args, part.state]
        elif isinstance(part, dict):
            pending += part.values()
        elif isinstance(part, list | tuple):
            pending += part
        else:
            found.append(part)
    return found


def config(content, parent=None, kind="DictConfig"):
    key = "_val" if kind == "AnyNode" else "_content"
    return Record("omegaconf", kind, state={"_metadata": None, "_parent": parent, key: content})


def test_configuration_objects_become_plain_values():
    root = config({})
    model = config({}, root)
    model.state["_content"] = {
        "dim": config(64, model, "AnyNode"),
        "width": config("${model.dim}", model, "AnyNode"),
        "lost": config("${other.dim}", model, "AnyNode"),
        "whole": config("${model.list}", model),
        "list": config([config(1, None, "AnyNode"), config("x", None, "AnyNode")], model, "ListConfig"),
        "absent": config(None, model),
    }
    root.state["_content"] = {"model": model}
    plain = {"dim": 64, "width": 64, "lost": "${other.dim}", "whole": [1, "x"], "list": [1, "x"], "absent": None}
    assert resolve_config({"kwargs": model, "n": (1, model)}) == {"kwargs": plain, "n": (1, plain)}


def test_configuration_in_circles_is_refused():
    node = config({})
    node.state["_content"] = {"a": config("${a}", node, "AnyNode")}
    with pytest.raises(CheckpointError, match="contains itself"):
        resolve_config(node)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"a": 1}, "the file holds a dict instead of a module"),
        (Record("a", "B", state={"x": 1}), "'a.B' is no module"),
        (Record("a", "B", state={"_parameters": {"w": 3}}), "'w' is 3 instead of a tensor"),
        (Record("a", "B", state={"_modules": {"c": "text"}}), "'c' holds 'text' instead of a module"),
        (Record("a", "B", state={"_parameters": [1]}), "_parameters is not a dict of names"),
    ],
)
def test_what_is_no_module_is_refused(record, told):
    with pytest.raises(CheckpointError, match=told):
        tensors_of_module(record)
