"""Parity of the networks and functions that turn photos into model inputs with their reference numbers.

Each ``preprocess_*.py`` beside this file says what it knows: ``NETWORKS`` by the folder of the case (without its last
part, the configuration), ``FUNCTIONS`` by the name of the file of numbers.
"""

from collections.abc import Callable
from pathlib import Path

import preprocess_detection
import preprocess_landmarks
import preprocess_models
import pytest
from reference import Arrays, Case, networks, parameters, reference_folder

SYSTEM = "preprocess"
KNOWN = (preprocess_detection, preprocess_landmarks, preprocess_models)
NETWORKS: dict[str, Callable[[Case], None]] = {name: check for part in KNOWN for name, check in part.NETWORKS.items()}


def _function_files() -> list[Path]:
    folder = reference_folder(SYSTEM)
    return sorted((folder / "functions").glob("*.npz")) if folder else []


@pytest.mark.parametrize("case", networks(SYSTEM))
def test_network(case: Case) -> None:
    name = case.name.split("/")[0]
    assert name in NETWORKS, f"no test knows the network {name}"
    NETWORKS[name](case)
    case.golden.assert_all_read()


@pytest.mark.parametrize("stem", parameters([path.stem for path in _function_files()], "function file"))
def test_function(stem: str) -> None:
    checks = [part.FUNCTIONS[stem] for part in KNOWN if stem in part.FUNCTIONS]
    assert checks, f"no test knows the functions {stem}"
    path = next(path for path in _function_files() if path.stem == stem)
    arrays = Arrays(path, f"functions/{stem}")
    for check in checks:
        check(arrays)
    arrays.assert_all_read()
