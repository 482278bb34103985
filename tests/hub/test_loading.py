"""From names and paths to networks, and from runs and entries to folders for the Hub."""

import json
import os

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, constants
from loopback import Fault
from toys import Toy, ToyConfig

import portraitzoo as pz
from portraitzoo.errors import CheckpointError, UnknownEntryError, WeightsUnavailableError, ZooError
from portraitzoo.hub.converting import convert
from portraitzoo.hub.folders import read_config, read_tensors
from portraitzoo.hub.publishing import publish

MANUAL = {"kind": "manual", "url": "https://example.org", "filename": "toy.ckpt"}


@pytest.fixture
def toys(entry):
    """The toy family is in the index."""
    return entry(MANUAL)


@pytest.fixture
def folder(toys, tmp_path, checkpoint):
    """A toy in our format."""
    (tmp_path / "official.pt").write_bytes(checkpoint)
    convert("toy", tmp_path / "official.pt", tmp_path / "toy")
    return tmp_path / "toy"


@pytest.fixture
def run(toys, tmp_path):
    """A training run's folder."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "samples").mkdir()
    for update in (0, 100, 200, 300, 400, 500):
        (folder / "samples" / f"{update:06d}.png").write_bytes(b"picture of %d" % update)
    (folder / "history.jsonl").write_text('{"update": 500, "loss": 1.5}\n')
    (folder / "config.yaml").write_text("data: {init_args: {root: data/heads, batch_size: 4}}\n")
    state = {
        "layer.weight": torch.zeros(2, 4),
        "layer.bias": torch.zeros(2),
        "layer_ema.weight": torch.ones(2, 4),
        "layer_ema.bias": torch.ones(2),
        "critic.weight": torch.ones(7),
        "num_samples": torch.tensor(2000),
    }
    checkpoint = {
        "portraitzoo": {"family": "toy", "network": {"width": 4, "depths": (1, 2)}, "init_from": None},
        "global_step": 500,
        "state_dict": state,
        "callbacks": {"x": 1},
    }
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    return folder


def test_a_converted_folder(folder):
    state = torch.random.get_rng_state()
    module = pz.load(folder, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert isinstance(module, Toy)
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert module.config == ToyConfig()
    assert torch.equal(module.layer.weight, read_tensors(folder)["layer.weight"])
    assert pz.load(str(folder), device="cpu", dtype=torch.float16).layer.weight.dtype == torch.float16


def test_what_conversion_wrote(folder, tmp_path):
    record = json.loads((folder / "conversion.json").read_text())
    assert record["dropped"] == {"official.counter": "counts batches"}
    assert record["sources"][0]["name"] == "official.pt"
    assert len(record["sources"][0]["sha256"]) == 64
    assert read_config(folder) == {"width": 3, "depths": [1, 2]}
    assert set(read_tensors(folder, "training")) == {"critic"}
    report = convert("toy", tmp_path / "official.pt", tmp_path / "again")
    assert report.tensors == {"model": 2, "training": 1}
    assert "left out 1 tensors: counts batches" in str(report)


@pytest.mark.parametrize(
    ("family", "told"),
    [
        ("toi", "unknown family 'toi'; did you mean toy?"),
        ("metrics", "'metrics' has several kinds of weights, name one of its entries: i3d-videogpt"),
        ("pv3d", "official.pt cannot be converted to pv3d: "),
    ],
)
def test_conversion_to_the_wrong_family(folder, tmp_path, family, told):
    with pytest.raises(ZooError) as caught:
        convert(family, tmp_path / "official.pt", tmp_path / "wrong")
    assert told in str(caught.value)
    assert not (tmp_path / "wrong").exists()


def test_save_pretrained_and_back(folder, tmp_path):
    """The folder then does not name its class; its settings do."""
    pz.load(folder, device="cpu").save_pretrained(tmp_path / "saved")
    assert isinstance(pz.load(tmp_path / "saved", device="cpu"), Toy)
    assert isinstance(Toy.from_pretrained(folder), Toy)
    (tmp_path / "saved" / "config.json").write_text('{"wdth": 3}')
    with pytest.raises(CheckpointError, match="does not tell which class its weights belong to"):
        pz.load(tmp_path / "saved")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (
            lambda folder: os.truncate(folder / "model.safetensors", 150),
            "model.safetensors: the file is damaged or cut",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: "),
        (lambda folder: (folder / "config.json").write_text("[]"), "it is not a JSON object"),
        (lambda folder: (folder / "config.json").write_text('{"wide": 3}'), "do not fit Toy: .*'wide'"),
        (
            lambda folder: (folder / "config.json").write_text('{"width": 9}'),
            r"wrong shapes: layer.weight is \[2, 3\], not",
        ),
        (lambda folder: (folder / "config.json").write_text('{"width": "a"}'), "do not fit Toy"),
    ],
)
def test_damaged_folders(folder, damage, told):
    damage(folder)
    with pytest.raises(CheckpointError, match=told) as caught:
        pz.load(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_missing_and_unexpected_tensors(folder):
    from safetensors.torch import save_file

    tensors = read_tensors(folder)
    save_file({"layer.weight": tensors["layer.weight"]}, folder / "model.safetensors", {"class": "toys.Toy"})
    with pytest.raises(CheckpointError, match=r"does not fit Toy: missing tensors: layer.bias"):
        pz.load(folder)
    save_file(tensors | {"more": torch.ones(1)}, folder / "model.safetensors", {"class": "toys.Toy"})
    with pytest.raises(CheckpointError, match="unexpected tensors: more"):
        pz.load(folder)
    save_file(tensors, folder / "model.safetensors", {"class": "os.system"})
    with pytest.raises(CheckpointError, match=r"the class 'os.system' is not one of the index"):
        pz.load(folder)


def test_names_and_paths_that_are_none(toys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORTRAITZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    for name, error, told in (
        ("toy-won", UnknownEntryError, "did you mean toy-one"),
        ("runs/absent", UnknownEntryError, "there is no file or folder runs/absent"),
        ("absent.ckpt", UnknownEntryError, "there is no file or folder absent.ckpt"),
        (str(tmp_path / "empty"), CheckpointError, "holds neither model.safetensors and config.json nor"),
        ("toy-one", WeightsUnavailableError, "must be fetched by hand"),
        ("pv3d-voxceleb512-fvd-stats", UnknownEntryError, "is no network but statistics"),
    ):
        with pytest.raises(error, match=told):
            pz.load(name)


def test_an_unknown_device(folder):
    with pytest.raises(ZooError, match="cannot use the device"):
        pz.load(folder, device="gpu")


def test_a_run(run):
    for path in (run, run / "checkpoints" / "last.ckpt"):
        module = pz.load(path, device="cpu")
        assert module.config == ToyConfig(width=4)
        assert module.layer.weight.sum() == 8  # the average, not the weights in training


def test_what_is_no_run(run, tmp_path, checkpoint):
    (tmp_path / "official.ckpt").write_bytes(checkpoint)
    with pytest.raises(CheckpointError, match=r"is no checkpoint of a portraitzoo run: .* `zoo convert FAMILY"):
        pz.load(tmp_path / "official.ckpt")
    os.truncate(run / "checkpoints" / "last.ckpt", 400)
    with pytest.raises(CheckpointError, match=r"cannot read .*last.ckpt: the file is damaged"):
        pz.load(run)


def test_publishing_a_run(run, tmp_path):
    (run / "report").mkdir()
    (run / "report" / "report.md").write_text("| fvd |\n|---|\n| 12.5 |")
    (run / "report" / "report.json").write_text("{}")
    published = publish(run, tmp_path / "my-heads", licence="Apache-2.0", notes="Smiles a lot.")
    assert published.url is None
    names = {path.relative_to(published.folder).as_posix() for path in published.folder.rglob("*") if path.is_file()}
    assert {"model.safetensors", "config.json", "README.md", "recipe.yaml", "report.md", "report.json"} <= names
    assert {"samples/000500.png", "history.jsonl"} <= names
    assert len([name for name in names if name.startswith("samples/")]) == 3
    module = pz.load(published.folder, device="cpu")
    assert module.layer.weight.sum() == 8
    assert torch.equal(Toy.from_pretrained(published.folder).layer.weight, module.layer.weight)
    card = ModelCard.load(published.folder / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "portraitzoo")
    assert "toy" in card.data.tags
    for told in (
        "# my-heads",
        "Smiles a lot.",
        "| updates | 500 |",
        "| clips seen | 2000 |",
        "| 12.5 |",
        "random weights",
    ):
        assert told in card.content, told
    assert "| data | heads (batch_size 4) |" in card.content
    assert card.content.index("000500.png") < card.content.index("000000.png")


def test_the_licence_follows_the_weights(run, tmp_path):
    with pytest.raises(ZooError, match="under which licence"):
        publish(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    path = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["portraitzoo"]["init_from"] = "pv3d-voxceleb-res64"
    torch.save(checkpoint, path)
    publish(run, tmp_path / "out")
    data = ModelCard.load(tmp_path / "out" / "README.md").data.to_dict()
    assert data["license"] == "other"
    assert data["license_name"].startswith("source-code-license-for-pv3d")
    assert data["license_link"] == "https://github.com/bytedance/pv3d"


def test_publishing_a_converted_folder(folder, tmp_path):
    publish(folder, tmp_path / "out")
    assert "converted from official.pt" in (tmp_path / "out" / "README.md").read_text()
    assert yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])["license"] == "mit"
    assert torch.equal(pz.load(tmp_path / "out").layer.bias.cpu(), pz.load(folder).layer.bias.cpu())


def test_nothing_to_publish(toys, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds neither a run"):
        publish(tmp_path / "empty", tmp_path / "out", licence="MIT")
    with pytest.raises(UnknownEntryError, match="unknown model 'toi-one'"):
        publish("toi-one", tmp_path / "out", licence="MIT")


def test_pushing(hub, run, tmp_path, entry, monkeypatch):
    with pytest.raises(ZooError, match=r"is ready but not pushed.*log in with `hf auth login`"):
        publish(run, tmp_path / "out", licence="MIT", push_to="someone/heads")
    assert (tmp_path / "out" / "model.safetensors").exists()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    published = publish(run, tmp_path / "out", licence="MIT", push_to="someone/heads")
    assert published.url == f"{hub.url}/someone/heads"
    pushed = hub.repositories["someone/heads"].files
    assert pushed["model.safetensors"] == (tmp_path / "out" / "model.safetensors").read_bytes()
    assert {"README.md", "config.json", "recipe.yaml", "samples/000500.png"} <= set(pushed)
    entry(
        {"kind": "hub", "repo": "someone/heads", "filename": "model.safetensors", "format": "portraitzoo"}, name="mine"
    )
    assert pz.load("mine", device="cpu").layer.weight.sum() == 8


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault(status=403), r"status 403: your token may not write to someone/heads"),
        (Fault(status=500), r"status 500: try again later"),
    ],
)
def test_pushing_that_fails(hub, run, tmp_path, monkeypatch, fault, told):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.faults["/api/repos/create"] = [fault] * 20
    with pytest.raises(ZooError, match=told):
        publish(run, tmp_path / "out", licence="MIT", push_to="someone/heads")


def test_pushing_to_nowhere(hub, run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(ZooError, match="is no repository name, write owner/name"):
        publish(run, tmp_path / "out", licence="MIT", push_to="a/b/c")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ZooError, match="is ready but not pushed: HF_HUB_OFFLINE is set"):
        publish(run, tmp_path / "out", licence="MIT", push_to="someone/heads")
