"""The ``zoo`` command: finds the verb, runs it, and turns every foreseen failure into one line and an exit status.

Only the standard library is imported here, and a verb's module only when the verb is asked for, so that
``zoo --help`` and ``zoo list`` answer at once.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from difflib import get_close_matches

from portraitzoo import __version__
from portraitzoo.errors import ZooError

FAILED, USAGE, INTERRUPTED = 1, 2, 130

# verb -> (module of this package and its function, what the verb does)
VERBS: dict[str, tuple[str, str]] = {
    "list": ("entries:list_entries", "the models of the index"),
    "info": ("entries:info", "everything the index knows about one entry"),
    "download": ("entries:download", "fetch weights now, to use them offline later"),
    "sample": ("sample:sample", "generate clips: mp4, PNG frames, contact sheet or npz"),
    "animate": ("animate:animate", "move a photo as a driving video does"),
    "mesh": ("mesh:mesh", "export one head as a mesh: glb, ply or obj"),
    "preprocess": ("preprocess:preprocess", "make a training set (synthetic heads, frames of videos, archives)"),
    "fit": ("recipes:fit", "train or fine-tune from a recipe (LightningCLI)"),
    "validate": ("recipes:validate", "run a recipe's validation (LightningCLI)"),
    "test": ("recipes:test", "run a recipe's test (LightningCLI)"),
    "predict": ("recipes:predict", "run a recipe's prediction (LightningCLI)"),
    "eval": ("evaluate:evaluate", "measure FVD, FID, identity, Chamfer and warping error"),
    "convert": ("convert:convert", "turn an official checkpoint into ours, without running anything in it"),
    "publish": ("publish:publish", "turn a run into a folder for the Hub, and push it"),
    "bench": ("bench:bench", "time a model stage by stage"),
    "doctor": ("doctor:doctor", "what works on this machine and what to install"),
}


def usage() -> str:
    """Text of ``zoo --help``."""
    verbs = "\n".join(f"  {verb:<11} {summary}" for verb, (_, summary) in VERBS.items())
    return (
        f"usage: zoo VERB ...\n\nportraitzoo {__version__}: 3D-aware portrait and head generation.\n\n{verbs}\n\n"
        "`zoo VERB --help` tells a verb's options.\n"
        "Exit status: 0 it worked, 1 it failed (one line says why), 2 wrong usage, 130 interrupted.\n"
        "PORTRAITZOO_TRACEBACK=1 shows the traceback behind a failure."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``zoo`` with ``arguments`` (default: those of the process).

    Returns:
        The exit status: 0 it worked, 1 it failed, 2 the arguments were wrong, 130 interrupted by Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not sys.warnoptions:
        # What a library will change in its next version is its developers' concern, not that of who runs a command.
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
        return status
    except SystemExit as end:  # argparse ends this way, both for --help and for wrong usage
        if isinstance(end.code, str):
            return _fail(end, end.code)
        return end.code or 0
    except KeyboardInterrupt as error:
        return _fail(error, "interrupted", status=INTERRUPTED)
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted. Without this the interpreter complains again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ZooError as error:
        return _fail(error, str(error))
    except Exception as error:
        foreseen = _foreseen(error)
        if foreseen is None:
            raise
        return _fail(error, foreseen)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else USAGE
    verb, *rest = arguments
    if verb == "--version":
        print(f"portraitzoo {__version__}")
        return 0
    if verb not in VERBS:
        near = get_close_matches(verb, VERBS, n=1)
        hint = f" (did you mean `zoo {near[0]}`?)" if near else ""
        print(f"zoo: there is no verb {verb!r}{hint}; `zoo --help` lists them", file=sys.stderr)
        return USAGE
    module, _, function = VERBS[verb][0].partition(":")
    getattr(importlib.import_module(f"portraitzoo.cli.{module}"), function)(rest)
    return 0


def _foreseen(error: Exception) -> str | None:
    """One line for a failure of the machine rather than of the program, or None."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return "the GPU has too little free memory: lower the resolution or the batch size, or use --device cpu"
    if isinstance(error, MemoryError):
        return "there is too little memory: lower the resolution or the batch size"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk{f' of {error.filename}' if error.filename else ''}: free some and run again"
    if isinstance(error, OSError) and error.filename is not None and error.errno is not None:
        return f"{error.filename}: {os.strerror(error.errno)}"
    if isinstance(error, FileNotFoundError | PermissionError):
        return str(error)
    return None


def _fail(error: BaseException, message: str, status: int = FAILED) -> int:
    if os.environ.get("PORTRAITZOO_TRACEBACK"):
        traceback.print_exception(error)
    if message.startswith("Caught ") and "Original Traceback" in message:
        # A data loader's worker wraps its error's message in a traceback; the line that we wrote is the last one.
        message = message.strip().splitlines()[-1].partition(": ")[2]
    print("zoo: " + " ".join(message.split()), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
