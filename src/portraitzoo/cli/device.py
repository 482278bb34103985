"""The options that say where and how precisely a network computes."""

import argparse
from typing import Any

DTYPES = ("float32", "bfloat16", "float16")


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` and ``--dtype``."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best one here)")
    parser.add_argument("--dtype", choices=DTYPES, help="number format of the weights (default: float32)")


def load_model(chosen: argparse.Namespace) -> Any:
    """The model that ``chosen.name`` names, on the device and in the number format that the options say."""
    import torch

    from portraitzoo.hub.loading import load

    return load(chosen.name, device=chosen.device, dtype=getattr(torch, chosen.dtype) if chosen.dtype else None)
