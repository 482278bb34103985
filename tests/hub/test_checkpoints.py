"""The safe reader gives what torch gives, for every container and age of file."""

import io
import pickle
import struct
import subprocess
import sys
import tarfile
from collections import OrderedDict, defaultdict

import hostile
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.checkpoints import read_checkpoint
from portraitzoo.hub.modules import tensors_of_module
from portraitzoo.hub.records import Global, Record

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.complex128,
]
CONTAINERS = [{}, {"_use_new_zipfile_serialization": False}]


def saved(tmp_path, value, **options):
    path = tmp_path / "file.pt"
    torch.save(value, path, **options)
    return read_checkpoint(path)


def assert_same(ours, theirs):
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("options", CONTAINERS, ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_training_checkpoint(tmp_path, options, protocol):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    value = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "best": 0.5, "git": None}
    read = saved(tmp_path, value, pickle_protocol=protocol, **options)
    assert list(read) == list(value)
    assert list(read["model"]) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert_same(read["model"][name], tensor)
        assert not read["model"][name].requires_grad
    assert read["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    assert_same(read["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


@pytest.mark.parametrize("options", CONTAINERS, ids=["zip", "legacy"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes_and_views(tmp_path, dtype, options):
    base = torch.arange(24).to(dtype)
    value = {
        "all": base,
        "part": base[3:9],
        "steps": base[1:20:3],
        "columns": base.view(4, 6)[:, 2:4],
        "transposed": base.view(4, 6).t(),
        "expanded": base[:1].expand(5, 1),
        "scalar": base[7],
        "empty": base[:0],
        "empty_rows": base.new_empty(0, 3),
        "none_left": base[24:],
        "bytes": bytearray(b"\x00\xff"),
        "dtype": dtype,
    }
    read = saved(tmp_path, value, **options)
    for name, tensor in value.items():
        if isinstance(tensor, torch.Tensor):
            assert_same(read[name], tensor)
    assert read["bytes"] == value["bytes"]
    assert read["dtype"] is dtype


def test_views_share_their_storage(tmp_path):
    base = torch.zeros(1000)
    read = saved(tmp_path, [base, base[10:20], nn.Parameter(base)])
    read[0][12] = 5
    assert read[1][2] == 5
    assert read[2][12] == 5


@pytest.mark.parametrize("options", CONTAINERS, ids=["zip", "legacy"])
def test_whole_module(tmp_path, options):
    module = nn.ModuleDict({"a": nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), "b": nn.LSTM(2, 3)})
    module.register_buffer("kept", torch.ones(2))
    module.register_buffer("transient", torch.ones(2), persistent=False)
    module["alias"] = module["a"][0]
    record = saved(tmp_path, module, **options)
    assert isinstance(record, Record)
    assert record.path == "torch.nn.modules.container.ModuleDict"
    read, wanted = tensors_of_module(record), module.state_dict()
    assert list(read) == list(wanted)
    for name, tensor in wanted.items():
        assert_same(read[name], tensor)


def test_torchscript_archive(tmp_path):
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    torch.jit.save(torch.jit.script(module), tmp_path / "script.pt")
    read = tensors_of_module(read_checkpoint(tmp_path / "script.pt"))
    assert {name: tensor.tolist() for name, tensor in read.items()} == {
        name: tensor.tolist() for name, tensor in module.state_dict().items()
    }


def test_tensor_with_attributes(tmp_path):
    tensor, parameter = torch.ones(2), nn.Parameter(torch.ones(3))
    tensor.note = "kept by torch, dropped here"
    parameter.note = "alike"
    read = saved(tmp_path, {"a": tensor, "b": parameter})
    assert read["a"].tolist() == [1, 1]
    assert read["b"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<f8", ">f4", "<i4", "|u1", "|b1", "<c8", "<U3", "|S2"])
def test_arrays(tmp_path, protocol, order, kind):
    array = np.asarray(np.arange(6).reshape(2, 3).astype(kind), order=order)
    twice = {"one": array, "two": array, "scalar": array[1, 2], "strided": np.arange(10.0)[::2]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(twice, protocol))
    read = read_checkpoint(tmp_path / "a.pkl")
    assert read["one"] is read["two"]
    assert read["one"].dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(read["one"], array)
    np.testing.assert_array_equal(read["strided"], twice["strided"])
    assert read["scalar"] == array[1, 2].item()


def test_unknown_classes_become_records(tmp_path):
    value = {
        "options": Options(lr=0.1),
        "kind": Options,
        "counts": Counts(a=1),
        "names": Names(["x"]),
        "slots": Slots(),
    }
    for protocol in range(2, 6):
        (tmp_path / "r.pkl").write_bytes(pickle.dumps(value, protocol))
        read = read_checkpoint(tmp_path / "r.pkl")
        assert read["options"].attributes == {"lr": 0.1}
        assert read["options"].path == f"{__name__}.Options"
        assert read["kind"] == Global(__name__, "Options")
        assert read["counts"].items == {"a": 1}
        assert read["names"].elements == ["x"]
        assert read["slots"].attributes == {"place": 1}


class Options:
    def __init__(self, **values):
        self.__dict__.update(values)


class Counts(dict):
    pass


class Names(list):
    pass


class Slots:
    __slots__ = ("place",)

    def __init__(self):
        self.place = 1


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(-(2**59), 2**59) | st.tuples(st.text(), st.booleans()), inner)
        | st.sets(st.text())
        | st.frozensets(st.integers(-5, 5))
        | st.dictionaries(st.text(), inner).map(OrderedDict)
    ),
    max_leaves=30,
)


@settings(max_examples=150, deadline=None)
@given(value=PLAIN, protocol=st.integers(0, 5))
def test_plain_values_are_those_of_pickle(tmp_path_factory, value, protocol):
    path = tmp_path_factory.mktemp("plain") / "v.pkl"
    path.write_bytes(pickle.dumps([value, value], protocol))
    read = read_checkpoint(path)
    assert read == [value, value]
    assert types_of(read[0]) == types_of(value)


def types_of(value):
    if isinstance(value, dict):
        return type(value), [(types_of(key), types_of(item)) for key, item in value.items()]
    return (type(value), [types_of(item) for item in value]) if isinstance(value, list | tuple) else type(value)


def test_default_dict_becomes_a_dict(tmp_path):
    counted = defaultdict(list, {"a": [1]})
    (tmp_path / "d.pkl").write_bytes(pickle.dumps(counted))
    read = read_checkpoint(tmp_path / "d.pkl")
    assert read == {"a": [1]}
    assert type(read) is dict


def test_bytes_of_python_2(tmp_path):
    """Python 2 wrote text and bytes with the same instruction."""
    (tmp_path / "old.pkl").write_bytes(b"\x80\x02}(U\x03keyU\x02\xe9\xffK\x01K\x02uN0.")
    assert read_checkpoint(tmp_path / "old.pkl") == {"key": "\xe9\xff", 1: 2}


def test_what_nobody_looks_at_takes_no_memory(tmp_path):
    path = tmp_path / "run.ckpt"
    torch.save({"model": torch.ones(10), "optimizer": torch.zeros(32 * 2**20)}, path)  # 128 MB
    program = f"""
import resource
from portraitzoo.hub.checkpoints import read_checkpoint
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = read_checkpoint({str(path)!r})["model"]
model += 1  # private: the file stays as it is
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, model.sum().item())
"""
    kilobytes, total = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.split()
    assert int(kilobytes) < 48 * 1024
    assert float(total) == 20
    assert read_checkpoint(path)["model"].sum() == 10


def test_safetensors(tmp_path):
    tensors = {"a": torch.randn(2, 3), "b": torch.arange(3)}
    safetensors.torch.save_file(tensors, tmp_path / "w.bin")
    read = read_checkpoint(tmp_path / "w.bin")
    for name, tensor in tensors.items():
        assert_same(read[name], tensor)


def test_name_of_the_file_does_not_matter(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "model.pth.tar")
    assert read_checkpoint(tmp_path / "model.pth.tar")["a"].item() == 1


def test_tar_of_the_first_torch(tmp_path):
    """torch before 0.1.10 wrote a tar; it is written here by hand, as nothing writes it any more."""
    storages = [pickle.dumps(1, 2), b"\x80\x02K\x07X\x03\x00\x00\x00cpuctorch\nFloatStorage\n\x87."]
    storages += [struct.pack("<q6f", 6, *range(6)), pickle.dumps([(8, 7, 2, 3)], 2)]
    tensors = [pickle.dumps(2, 2)]
    for key, storage, size, stride, offset in ((1, 7, (2, 2), (3, 1), 1), (2, 8, (3,), (1,), 0)):
        tensors.append(b"\x80\x02K" + bytes([key]) + b"K" + bytes([storage]) + b"ctorch\nFloatTensor\n\x87.")
        tensors.append(struct.pack(f"<ii{2 * len(size) + 1}q", len(size), 0, *size, *stride, offset))
    members = {
        "storages": b"".join(storages),
        "tensors": b"".join(tensors),
        "pickle": b"\x80\x02}(X\x01\x00\x00\x00aK\x01QX\x01\x00\x00\x00bK\x02Qu.",
    }
    path = tmp_path / "old.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    read = read_checkpoint(path)
    assert read["a"].tolist() == [[1, 2], [4, 5]]
    assert read["b"].tolist() == [2, 3, 4]


def test_views_of_storages_in_legacy_files(tmp_path):
    """torch before 0.4 could store a storage as a part of another one."""
    header = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    storage = hostile.put(("storage", hostile.name("torch", "FloatStorage"), "7", "cpu", 6, ("8", 2, 3))) + b"Q"
    body = hostile.call("torch._utils", "_rebuild_tensor", storage, 1, (2,), (1,))
    content = b"".join(pickle.dumps(part, 2) for part in header) + hostile.whole(b"(" + body + b"l")
    path = tmp_path / "view.pth"
    path.write_bytes(content + pickle.dumps(["7"], 2) + struct.pack("<q6f", 6, *range(6)))
    assert read_checkpoint(path)[0].tolist() == [3, 4]


def test_records_are_short_when_shown():
    record = Record("m" * 500, "n\n", tuple(range(1000)), state={"a": "b" * 10**6})
    assert len(repr(record)) < 200
    assert "\n" not in repr(record)


def test_no_weights_at_all(tmp_path):
    (tmp_path / "n.pkl").write_bytes(pickle.dumps(5))
    with pytest.raises(CheckpointError, match="it holds only int data, no weights"):
        read_checkpoint(tmp_path / "n.pkl")
