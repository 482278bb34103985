"""Options that a verb derives from the function it calls."""

import argparse
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal

import pytest

from portraitzoo.cli.options import add_options, given, parser


def render(
    frames: int,
    seed: int | Sequence[int] = 0,
    *,
    program: Literal["once", "loop"] | Sequence[float] = "once",
    psi: float | None = None,
    smooth: bool = False,
    maps: Collection[str] = (),
    folder: Path | None = None,
    trajectory: str | argparse.Namespace = "front",
    on_frame: Callable[[int], None] | None = None,
) -> None:
    """Render.

    Args:
        frames: how many,
            all in all.
        seed: which 100 % person.
    """


@pytest.fixture
def options() -> argparse.ArgumentParser:
    made = parser("render", "Render.")
    add_options(made, render, skip=("on_frame",), rename={"psi": "truncation_psi"})
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--frames 3", {"frames": 3}),
        ("--frames 3 --seed 5", {"frames": 3, "seed": 5}),
        ("--frames 3 --seed 5,6", {"frames": 3, "seed": (5, 6)}),
        ("--frames 3 --program loop", {"frames": 3, "program": "loop"}),
        ("--frames 3 --program 0,0.5,1", {"frames": 3, "program": (0.0, 0.5, 1.0)}),
        ("--frames 3 --truncation-psi 0.7", {"frames": 3, "psi": 0.7}),
        ("--frames 3 --smooth", {"frames": 3, "smooth": True}),
        ("--frames 3 --no-smooth", {"frames": 3, "smooth": False}),
        ("--frames 3 --maps depth,normals", {"frames": 3, "maps": ("depth", "normals")}),
        ("--frames 3 --folder a/b", {"frames": 3, "folder": Path("a/b")}),
        ("--frames 3 --trajectory orbit", {"frames": 3, "trajectory": "orbit"}),
    ],
)
def test_what_is_written_is_what_the_function_gets(
    options: argparse.ArgumentParser, text: str, expected: dict[str, object]
) -> None:
    assert given(options.parse_args(text.split()), vars(options.parse_args(text.split()))) == expected


@pytest.mark.parametrize("text", ["", "--frames x", "--frames 3 --program never", "--frames 3 --on-frame 1"])
def test_what_the_function_would_not_take_is_refused(options: argparse.ArgumentParser, text: str) -> None:
    with pytest.raises(SystemExit) as refusal:
        options.parse_args(text.split())
    assert refusal.value.code == 2


def test_help_comes_from_the_docstring(options: argparse.ArgumentParser) -> None:
    shown = " ".join(options.format_help().split())
    assert "how many, all in all." in shown and "which 100 % person. (default: 0)" in shown


def test_an_option_of_two_functions_takes_what_either_does() -> None:
    def one(seed: int = 0, program: Literal["once"] = "once", smooth: bool = False) -> None:
        """One."""

    made = argparse.ArgumentParser(exit_on_error=False)
    made.add_argument("--folder")
    add_options(made, one)
    add_options(made, render, skip=("frames", "on_frame"))
    chosen = made.parse_args(["--seed", "3,4", "--program", "0.5,1", "--smooth", "--folder", "x"])
    assert (chosen.seed, chosen.program, chosen.smooth, chosen.folder) == ((3, 4), (0.5, 1.0), True, "x")
    chosen = made.parse_args(["--seed", "3", "--program", "loop"])
    assert (chosen.seed, chosen.program) == (3, "loop")
    with pytest.raises(argparse.ArgumentError):
        made.parse_args(["--seed", "x"])
