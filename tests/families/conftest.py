"""The tiny model of every family of the index, and what its family's test module knows about it."""

import importlib

import pytest
import torch
import yaml
from tiny_models import Tiny

from portraitzoo.files import shipped
from portraitzoo.hub.folders import is_model_folder
from portraitzoo.hub.index import list_models

TINY = [entry for entry in list_models() if entry.name.endswith("-tiny")]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=TINY, ids=lambda entry: entry.name)
def tiny(request, tmp_path_factory):
    entry = request.param
    folder = tmp_path_factory.mktemp(entry.name)
    family = importlib.import_module(f"official.{entry.family}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PORTRAITZOO_CACHE", str(folder / "cache"))
        if not is_model_folder(shipped("zoo") / entry.origins[0].filename):
            # Before a family's tiny model has been trained, an untrained one of the same size stands in for it.
            family.fresh().save_pretrained(folder / "weights")
            fields = {"task": entry.task, "cls": entry.cls, "converter": entry.converter, "licence": entry.licence}
            fields |= {"description": "untrained", "licence_url": entry.licence_url}
            fields["origins"] = [{"kind": "embedded", "filename": str(folder / "weights"), "format": "portraitzoo"}]
            (folder / "index").mkdir()
            index = {"family": entry.family, "entries": {entry.name: fields}}
            (folder / "index" / f"{entry.family}.yaml").write_text(yaml.safe_dump(index))
            patch.setenv("PORTRAITZOO_INDEX", str(folder / "index"))
        (folder / "clips").mkdir()
        clips = family.write_training_set(family.fresh(), folder / "clips")
        yield Tiny(entry.name, entry, family, clips, folder)
