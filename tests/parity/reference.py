"""Reference numbers: where the cases are, how their weights and inputs are rebuilt, how outputs are compared.

The folder is named by the environment variable PORTRAITZOO_REFERENCE, else it is ``../shared/reference`` beside the
checkout. Without either, parity tests are skipped. With PORTRAITZOO_PARITY_TABLE=FILE every comparison appends a JSON
line ``{"case", "array", "error", "tolerance"}``; the error is relative to the array's largest magnitude.
"""

import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

CHECKOUT = Path(__file__).resolve().parents[2]


def reference_folder(system: str) -> Path | None:
    """Folder of one system's cases; None if it is not there."""
    named = os.environ.get("PORTRAITZOO_REFERENCE")
    root = Path(named) if named else CHECKOUT.parent / "shared" / "reference"
    if named and not root.is_dir():
        raise FileNotFoundError(f"PORTRAITZOO_REFERENCE names {named}, which is not a folder")
    return root / system if (root / system).is_dir() else None


class Case:
    """One folder with manifest.json and golden.npz: a network's weights, inputs and outputs."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    def __repr__(self) -> str:
        return self.name

    @cached_property
    def manifest(self) -> dict:
        return json.loads((self.folder / "manifest.json").read_text())

    @cached_property
    def golden(self) -> "Arrays":
        return self.arrays("golden")

    def arrays(self, stem: str) -> "Arrays":
        """Arrays of ``<stem>.npz`` with what ``<stem>.json`` says about them."""
        return Arrays(self.folder / f"{stem}.npz", self.name, self.manifest.get("salt", "a"))

    def has(self, stem: str) -> bool:
        return (self.folder / f"{stem}.npz").is_file()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The network's tensors under their official names."""
        return state_dict(self.folder / "manifest.json")


def cases(system: str) -> list[Case]:
    """Every case of a system, found by its files, sorted by its path below the system's folder."""
    folder = reference_folder(system)
    if folder is None:
        return []
    found = sorted(path.parent for path in folder.rglob("manifest.json") if path.with_name("golden.npz").is_file())
    return [Case(path, path.relative_to(folder).as_posix()) for path in found]


def networks(system: str) -> list:
    """Pytest parameters of a system's cases; those with over 20 million weights are slow."""
    found = []
    for case in cases(system):
        size = sum(int(np.prod(row["shape"])) for row in case.manifest["tensors"])
        found.append(pytest.param(case, id=case.name, marks=[pytest.mark.slow] if size > 20e6 else []))
    return found or parameters([], f"{system} case")


def function_groups(system: str, stem: str = "functions") -> list[str]:
    """Names before the first dot of the arrays in a system's ``<stem>.npz``."""
    folder = reference_folder(system)
    path = folder / f"{stem}.npz" if folder else None
    return sorted({name.split(".")[0] for name in np.load(path).files}) if path and path.is_file() else []


def parameters(found: Iterable, what: str) -> list:
    """Pytest parameters of what was found; one that skips, with the reason, if nothing was."""
    found = list(found)
    if found:
        return [pytest.param(item, id=str(item)) for item in found]
    reason = f"no {what} in the reference folder (set PORTRAITZOO_REFERENCE)"
    return [pytest.param(None, id="absent", marks=pytest.mark.skip(reason=reason))]


def draw(name: str, shape: Iterable[int], salt: str) -> np.ndarray:
    """Standard normal float32 numbers that depend on (salt, name, shape) alone."""
    return generator_of(name, salt).standard_normal(tuple(shape), dtype=np.float32)


def generator_of(name: str, salt: str) -> np.random.Generator:
    """NumPy's PCG64 seeded with the CRC-32 of ``salt/name``."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(f"{salt}/{name}".encode())))


def state_dict(manifest_path: Path) -> dict[str, torch.Tensor]:
    """The tensors a manifest describes: drawn from their names, or stored beside it."""
    manifest = json.loads(manifest_path.read_text())
    stored_path = manifest_path.with_name("stored.npz")
    stored: Mapping[str, np.ndarray] = np.load(stored_path) if stored_path.exists() else {}
    tensors = {}
    for row in manifest["tensors"]:
        name, shape = row["name"], row["shape"]
        if row["fill"] == "stored":
            value = stored[name]
        elif row["fill"] in ("normal", "positive"):
            noise = np.float32(row["std"]) * draw(name, shape, manifest["salt"])
            value = np.float32(row["mean"]) + (np.abs(noise) if row["fill"] == "positive" else noise)
        else:
            raise ValueError(f"{manifest_path}: {name} is filled by {row['fill']!r}, which no recipe describes")
        tensors[name] = torch.from_numpy(np.array(value, dtype=row["dtype"]).reshape(shape))
    return tensors


def recipe_array(recipe: Mapping, salt: str) -> np.ndarray:
    """An input that is drawn from its recipe ``{"fn", "name", "shape"}`` instead of stored."""
    kind, name, shape = recipe["fn"], recipe["name"], recipe["shape"]
    scaled = re.fullmatch(r"(?:([\d.]+) \* )?hashweights\.draw\(name, shape, salt\)", kind)
    if scaled or kind == "normal":
        factor = float(scaled[1]) if scaled and scaled[1] else 1.0
        return np.float32(factor) * draw(name, shape, salt)
    if kind == "uniform":
        return generator_of(name, salt).random(tuple(shape), dtype=np.float32)
    raise ValueError(f"the recipe of {name} says {kind!r}, which this support does not know")


class Arrays:
    """Arrays of an npz file as tensors, those with a recipe included; remembers which were read."""

    def __init__(self, path: Path, case: str, salt: str = "a") -> None:
        self.file, self.case = np.load(path), case
        notes_path = path.with_suffix(".json")
        self.notes: dict = json.loads(notes_path.read_text()) if notes_path.is_file() else {}
        self.salt = self.notes.get("salt", salt)
        recipes = self.notes.get("recipes")
        self.recipes: dict = recipes if isinstance(recipes, dict) else {}
        self.read: set[str] = set()

    def keys(self, prefix: str = "") -> list[str]:
        return [name for name in [*self.file.files, *self.recipes] if name.startswith(prefix)]

    def __contains__(self, name: str) -> bool:
        return name in self.file.files or name in self.recipes

    def __getitem__(self, name: str) -> torch.Tensor:
        self.read.add(name)
        array = self.file[name] if name in self.file.files else recipe_array(self.recipes[name], self.salt)
        return torch.from_numpy(np.array(array))

    def meaning(self, name: str) -> str:
        """What the notes say about an array."""
        return self.notes.get("arrays", {}).get(name, {}).get("meaning", "")

    def check(self, name: str, actual: torch.Tensor, tolerance: float = 1e-4, *, strided: bool = True) -> None:
        """Compare with the stored array, which may hold every n-th element of an axis."""
        expected = self[name]
        if strided and actual.ndim == expected.ndim:
            actual = strided_like(actual, expected.shape, self.meaning(name))
        assert_close(actual, expected, tolerance, f"{self.case}/{name}")

    def assert_all_read(self) -> None:
        """Fail if an array of the file was never looked at: it would be a number that no test knows."""
        unread = sorted(set(self.keys()) - self.read)
        assert not unread, f"{self.case}: no test knows {', '.join(unread)}"


def strided_like(full: torch.Tensor, shape: Iterable[int], meaning: str = "") -> torch.Tensor:
    """Every n-th element along each axis of ``full`` such that ``shape`` remains.

    Where several strides fit a short axis, one that ``meaning`` mentions ("0::8") is taken.
    """
    mentioned = [int(stride) for stride in re.findall(r"0::(\d+)", meaning)]
    for axis, length in enumerate(shape):
        size = full.shape[axis]
        fitting = [stride for stride in range(1, size + 1) if -(-size // stride) == length]
        if not fitting:
            raise AssertionError(f"axis {axis} has {size} elements, of which no stride leaves {length}")
        stride = next((stride for stride in mentioned if stride in fitting), fitting[0])
        full = full[(slice(None),) * axis + (slice(None, None, stride),)]
    return full


def assert_close(actual: torch.Tensor, golden: torch.Tensor, tolerance: float = 1e-4, name: str = "") -> None:
    """Require max |actual - golden| <= tolerance * max |golden|, and record the error."""
    actual, golden = torch.as_tensor(actual).detach().double().cpu(), torch.as_tensor(golden).double()
    assert actual.shape == golden.shape, f"{name}: shape {list(actual.shape)}, reference {list(golden.shape)}"
    assert torch.isfinite(actual).equal(torch.isfinite(golden)), (
        f"{name}: not finite where the reference is, or converse"
    )
    scale = float(golden.abs().max()) if golden.numel() else 0.0
    difference = float((actual - golden).abs().max()) if golden.numel() else 0.0
    error = difference / scale if scale else difference
    table = os.environ.get("PORTRAITZOO_PARITY_TABLE")
    if table:
        case, _, array = name.rpartition("/")
        line = {"case": case, "array": array, "error": error, "tolerance": tolerance}
        with Path(table).open("a") as file:
            file.write(json.dumps(line) + "\n")
    assert error <= tolerance, f"{name}: relative error {error:.2e} > {tolerance:.0e}"


@contextmanager
def captured(modules: dict[str, nn.Module]) -> Iterator[dict[str, object]]:
    """Outputs of modules during a forward pass, rows joined when they are computed one by one."""
    outputs: dict[str, list] = {name: [] for name in modules}

    def keep(name: str) -> Callable:
        def hook(module: nn.Module, args: object, output: Tensor | tuple) -> None:
            parts = output if isinstance(output, tuple) else (output,)
            outputs[name].append(tuple(torch.empty(1) if part is None else part.detach().clone() for part in parts))

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    merged: dict[str, object] = {}
    try:
        yield merged
    finally:
        for handle in handles:
            handle.remove()
        for name, calls in outputs.items():
            parts = [torch.cat(column) for column in zip(*calls, strict=True)]
            merged[name] = parts if len(parts) > 1 else parts[0]
