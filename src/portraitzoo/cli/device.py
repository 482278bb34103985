"""The options that say where and how precisely a network computes."""

import argparse

DTYPES = ("float32", "bfloat16", "float16")


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` and ``--dtype``."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best one here)")
    parser.add_argument("--dtype", choices=DTYPES, help="number format of the weights (default: float32)")
