"""How fast the original implementations were: ``original_speed.yaml`` beside a family's ``benchmark.py``."""

from __future__ import annotations

from importlib import resources

import yaml


def recorded_ratio(package: str, **setting: object) -> float | None:
    """Seconds over calibration seconds of the original implementation, where it was measured at this setting.

    Args:
        package: dotted name of the family's package, which holds the record.
        setting: fields of the entry that is looked for, e.g. ``what``, ``frames``.
    """
    record = resources.files(package).joinpath("original_speed.yaml").read_text(encoding="utf-8")
    for entry in yaml.safe_load(record):
        if all(entry[name] == value for name, value in setting.items()):
            return entry["seconds"] / entry["calibration_seconds"]
    return None
