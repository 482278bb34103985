"""The index: what is shipped is sound, names are suggested, mistakes are named."""

import pytest

from portraitzoo.errors import UnknownEntryError, ZooError
from portraitzoo.hub.converting import dotted
from portraitzoo.hub.index import get_entry, list_models

RELEASE = "https://github.com/bytedance/pv3d/releases/download/v1.0.0/"


def test_released_networks_of_pv3d():
    entries = {entry.name: entry for entry in list_models("pv3d")}
    assert set(entries) == {"pv3d-tiny", "pv3d-voxceleb-res64", "pv3d-voxceleb-res128", "pv3d-mixed-res128"}
    assert entries["pv3d-tiny"].embedded
    for name, entry in entries.items():
        if name != "pv3d-tiny":
            assert "non-commercial" in entry.licence
            assert entry.origins[0].url.startswith(RELEASE)
            assert entry.config == {"render_resolution": int(name.rpartition("res")[2])}


@pytest.mark.parametrize("entry", list_models(), ids=lambda entry: entry.name)
def test_every_entry_is_complete(entry):
    assert entry.licence_url.startswith("https://")
    assert entry.task in ("generate", "animate", "render", "features", "statistics", "parameters")
    assert (entry.cls is None) == (entry.task in ("statistics", "parameters"))
    if entry.cls:
        assert isinstance(dotted(entry.cls), type)
    if not entry.embedded:
        assert entry.converter is None if entry.origins[0].format == "data" else callable(dotted(entry.converter))
        assert all(origin.kind == "hub" or origin.address.startswith("https://") for origin in entry.origins)
    assert get_entry(entry.name) is entry


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("pv3d-voxcelb-res64", "unknown model 'pv3d-voxcelb-res64'; did you mean pv3d-voxceleb-res64 or"),
        ("PV3D-TINY", "did you mean pv3d-tiny"),
        ("tiny", "did you mean pv3d-tiny or genhead-tiny?"),
        ("qqqqqq", "`zoo list` shows all names"),
        ("", "`zoo list` shows all names"),
    ],
)
def test_unknown_names_are_told_the_nearest(name, told):
    with pytest.raises(UnknownEntryError) as caught:
        get_entry(name)
    assert told in str(caught.value)


def test_unknown_family():
    with pytest.raises(UnknownEntryError, match=r"unknown family 'pv3'; did you mean pv3d.*families: .*metrics.*pv3d"):
        list_models("pv3")


GOOD = """
family: toy
defaults: {task: generate, cls: toys.Toy, converter: toys.convert, licence: MIT, licence_url: "https://x.org"}
entries:
  toy-one:
    description: a toy
    origins: [{kind: url, url: "https://x.org/a.pt", filename: a.pt, size: 5, sha256: 0123abcd}]
    published: [{metric: fvd, value: 12.5, dataset: heads, source: table 1}]
"""


def test_an_index_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "toy.yaml").write_text(GOOD)
    (entry,) = list_models(index=tmp_path)
    assert (entry.name, entry.family, entry.expected_files) == ("toy-one", "toy", ("a.pt",))
    assert entry.published[0].value == 12.5
    with pytest.raises(UnknownEntryError):
        get_entry("toy-one")
    monkeypatch.setenv("PORTRAITZOO_INDEX", str(tmp_path))
    assert get_entry("toy-one") == entry
    assert get_entry("pv3d-tiny").family == "pv3d"
    monkeypatch.setenv("PORTRAITZOO_INDEX", str(tmp_path / "absent"))
    with pytest.raises(ZooError, match="does not exist: set PORTRAITZOO_INDEX"):
        list_models()


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("family: toy", "famly: toy", "toy.yaml: unknown field 'famly'; did you mean family?"),
        ("family: toy", "", "the field 'family' is missing"),
        ("description: a toy", "", "toy-one: the field 'description' is missing"),
        ("description: a toy", "descripton: a toy", "toy-one: unknown field 'descripton'; did you mean description?"),
        ("kind: url", "kind: ftp", "origin kind 'ftp' is none of embedded, hub, url"),
        ("kind: url", "kind: hub", "an origin of kind hub needs the field 'repo'"),
        ("filename: a.pt", "file: a.pt", "unknown field 'file'; did you mean filename or size?"),
        ("size: 5", "size: big", "size 'big' is not a positive integer"),
        ("sha256: 0123abcd", "sha256: xyz", "sha256 'xyz' is not 8 to 64 hex digits"),
        ("cls: toys.Toy", "cls: Toy", "'cls' is not a dotted path"),
        ("converter: toys.convert,", "", "a foreign checkpoint needs the field 'converter'"),
        ("licence: MIT", "licence: ''", "'licence' is empty"),
        ("origins: [", "origins: [[], ", "origin [] is not a mapping"),
        ("  toy-one:", "  - toy-one:", "is not"),
        ("family: toy", "family: [", "is not valid YAML"),
    ],
)
def test_mistakes_in_an_index_are_named(tmp_path, before, after, told):
    assert before in GOOD
    (tmp_path / "toy.yaml").write_text(GOOD.replace(before, after))
    with pytest.raises(ZooError) as caught:
        list_models(index=tmp_path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
