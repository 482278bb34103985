"""Turning a training run or an entry into a folder for the Hub, and pushing it there."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, constants, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalTokenNotFoundError
from torch import Tensor

from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.files import replacing
from portraitzoo.hub.cards import Card
from portraitzoo.hub.converting import RECORD
from portraitzoo.hub.download import fetch
from portraitzoo.hub.folders import CONFIG, class_of, is_model_folder, read_config, read_tensors, write_folder
from portraitzoo.hub.index import Entry, get_entry, list_models
from portraitzoo.hub.loading import LAST_CHECKPOINT, assemble, read_run

RECIPE = "recipe.yaml"
SAMPLES = "samples"
REPORT = "report"
_PICTURES = 3


@dataclass(frozen=True)
class Published:
    """What was written: the folder, and the address on the Hub if it was pushed."""

    folder: Path
    url: str | None = None


@dataclass(frozen=True)
class _Model:
    """What a card and a folder are made of; see :class:`portraitzoo.hub.cards.Card` for the fields of the same name."""

    cls: str
    family: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    training: Mapping[str, Tensor]
    description: str
    facts: Mapping[str, str]
    licence: tuple[str, str | None] | None
    files: Mapping[str, Path] = field(default_factory=dict)
    report: Path | None = None


def publish(
    source: str | Path,
    out: str | Path,
    *,
    licence: str | None = None,
    licence_url: str | None = None,
    title: str | None = None,
    notes: str | None = None,
    report: str | Path | None = None,
    trainable: bool = False,
    push_to: str | None = None,
    private: bool = False,
) -> Published:
    """Make a folder for the Hub: weights, config, recipe, samples, measurements and a model card.

    The folder loads as it is, with :func:`portraitzoo.load` or the class's ``from_pretrained``.

    Args:
        source: a training run's folder or checkpoint (its averaged generator is taken), a folder in our format, or the
            name of an entry.
        out: folder to write; it appears complete or not at all.
        licence: name of the licence, e.g. ``Apache-2.0``; None for that of the entry, or of the entry that the run
            was started from.
        licence_url: where the licence is written.
        title: the card's heading; None for the name of ``out``.
        notes: a paragraph for the card: what the model is good for, and what not.
        report: folder of a ``zoo eval`` report; None looks for ``report/`` in the run's folder.
        trainable: add ``training.safetensors``, the networks as they are in training (discriminators too), so that
            others can fine-tune from where this run stopped.
        push_to: ``owner/name`` of a Hub repository, made if it is not there; None pushes nothing.
        private: make that repository private.

    Raises:
        UnknownEntryError: if ``source`` is neither a path nor an entry.
        CheckpointError: if the source is damaged, incomplete or no model.
        ZooError: if no licence is known, a ``trainable`` source has no training networks, a report is not readable, the
            disk is full, or the Hub refuses.
    """
    out = Path(out)
    model = _model(source)
    terms = (licence, licence_url) if licence else model.licence
    if terms is None:
        raise ZooError("under which licence? a run started from nothing has none: give one, e.g. --licence Apache-2.0")
    # Assembling it proves that whoever downloads the folder can load it.
    assemble(model.cls, model.config, model.tensors, str(source))
    if trainable and not model.training:
        raise ZooError(f"{source} holds no networks in training: publish a run, or leave out --trainable")
    own = {**model.files, **_report_files(Path(report) if report else model.report)}
    card = Card(
        title=title or out.resolve().name,
        family=model.family,
        description=model.description,
        licence=terms[0],
        licence_url=terms[1],
        facts=model.facts,
        config=model.config,
        metrics=own["report.md"].read_text(encoding="utf-8") if "report.md" in own else None,
        samples=[name for name in own if name.startswith(f"{SAMPLES}/")],
        notes=[notes] if notes else [],
    )
    tensors = {"model": model.tensors} | ({"training": model.training} if trainable else {})
    with replacing(out) as temporary:
        write_folder(temporary, model.config, tensors, cls=model.cls, further={"README.md": card.markdown()})
        for name, path in own.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, temporary / name)
    return Published(out, push(out, push_to, private) if push_to else None)


def _model(source: str | Path) -> _Model:
    path = Path(source)
    if is_model_folder(path):
        return _from_folder(path, None)
    if path.is_file() or (path / LAST_CHECKPOINT).is_file():
        return _from_run(path)
    if path.is_dir():
        raise CheckpointError(f"{path} holds neither a run ({LAST_CHECKPOINT}) nor model.safetensors and {CONFIG}")
    entry = get_entry(str(source))
    return _from_folder(fetch(entry), entry)


def _from_folder(folder: Path, entry: Entry | None) -> _Model:
    config = read_config(folder)
    cls = entry.cls if entry else class_of(folder)
    if cls is None:
        raise CheckpointError(f"{folder} holds no network, or does not tell its class: nothing to publish")
    facts, licence = {}, None
    if entry is not None:
        facts = {"entry": entry.name, "paper": entry.paper or "none"}
        licence = (entry.licence, entry.licence_url)
    if (folder / RECORD).is_file():
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        facts |= {f"converted from {s['name']}": f"sha256 {s['sha256']}" for s in record["sources"]}
        licence = licence or (record["licence"], record["licence_url"])
    family = _family(cls)
    description = entry.description if entry else f"A {family} model in portraitzoo's format."
    files = {RECORD: folder / RECORD} if (folder / RECORD).is_file() else {}
    training = read_tensors(folder, "training") if (folder / "training.safetensors").is_file() else {}
    return _Model(cls, family, config, read_tensors(folder), training, description, facts, licence, files)


def _from_run(path: Path) -> _Model:
    run = read_run(path)
    folder = path if path.is_dir() else path.parent.parent
    start = run.checkpoint["portraitzoo"].get("init_from")
    started = [entry for entry in list_models() if entry.name == start]
    facts = {
        "trained by": f"portraitzoo, recipe in {RECIPE}",
        "updates": str(run.checkpoint.get("global_step", "unknown")),
    }
    seen = run.checkpoint["state_dict"].get("num_samples")
    if isinstance(seen, Tensor):
        facts["clips seen"] = str(int(seen))
    facts["started from"] = str(start) if start else "random weights"
    files = {}
    if (folder / "config.yaml").is_file():
        files[RECIPE] = folder / "config.yaml"
        facts["data"] = _data(folder / "config.yaml")
    pictures = sorted((folder / SAMPLES).glob("*.png"))
    # The last grid first: it shows what is published; the others show how it came about.
    chosen = [*pictures[:-1][:: max(1, len(pictures) // _PICTURES)][: _PICTURES - 1], *pictures[-1:]][::-1]
    files |= {f"{SAMPLES}/{picture.name}": picture for picture in chosen}
    if (folder / "history.jsonl").is_file():
        files["history.jsonl"] = folder / "history.jsonl"
    report = folder / REPORT if (folder / REPORT / "report.json").is_file() else None
    licence = (started[0].licence, started[0].licence_url) if started else None
    description = f"A {run.family} model trained with portraitzoo."
    weights = (run.model_tensors(), run.training_tensors())
    return _Model(run.cls, run.family, run.config, *weights, description, facts, licence, files, report)


def _data(recipe: Path) -> str:
    try:
        settings = yaml.safe_load(recipe.read_text(encoding="utf-8"))["data"]["init_args"]
        return f"{Path(settings['root']).name} ({', '.join(f'{k} {v}' for k, v in settings.items() if k != 'root')})"
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return "see the recipe"


def _family(cls: str) -> str:
    return next((entry.family for entry in list_models() if entry.cls == cls), "unknown")


def _report_files(report: Path | None) -> dict[str, Path]:
    if report is None:
        return {}
    files = {name: report / name for name in ("report.md", "report.json") if (report / name).is_file()}
    if len(files) < 2:
        raise ZooError(f"{report} holds no report of `zoo eval` (report.json and report.md)")
    return files


def push(folder: Path, repo: str, private: bool) -> str:
    """Push a folder to a Hub repository, which is made if it is not there; returns its address.

    Raises:
        ZooError: if the Hub refuses or cannot be reached, or ``HF_HUB_OFFLINE`` is set.
    """
    if is_offline_mode():
        raise ZooError(f"{folder} is ready but not pushed: HF_HUB_OFFLINE is set")
    api = HfApi(library_name="portraitzoo")
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Made by portraitzoo")
    except HFValidationError as error:
        raise ZooError(f"{folder} is ready but not pushed: {repo!r} is no repository name, write owner/name") from error
    except LocalTokenNotFoundError as error:
        raise ZooError(f"{folder} is ready but not pushed: log in with `hf auth login`") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        why = {401: "log in with `hf auth login`", 403: f"your token may not write to {repo}"}
        told = why.get(status, "try again later")
        raise ZooError(f"{folder} is ready but not pushed, the Hub answers with status {status}: {told}") from error
    except (HTTPError, OSError, ValueError) as error:
        told = " ".join(str(error).split())[:120]
        raise ZooError(f"{folder} is ready but not pushed: {constants.ENDPOINT} cannot be used ({told})") from error
    return f"{constants.ENDPOINT}/{repo}"
