"""The history of a run on disk, one JSON object per line."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from portraitzoo.files import replacing


class History(Callback):
    """Append everything that is logged to ``history.jsonl`` in the run's folder.

    Each line is ``{"update": ..., NAME: value, ...}``. A resumed run goes on in the same file; lines beyond the
    checkpoint, which a killed run left behind, are taken back first.

    Args:
        filename: of the file in the run's folder.
    """

    def __init__(self, filename: str = "history.jsonl") -> None:
        self.filename = filename

    def path(self, trainer: Trainer) -> Path:
        """The file of this run."""
        return Path(trainer.default_root_dir) / self.filename

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop what lies beyond the update that the run starts from."""
        path = self.path(trainer)
        if trainer.is_global_zero and path.exists():
            kept = [line for line in read_history(path) if line["update"] <= trainer.global_step]
            with replacing(path) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a line at every ``log_every_n_steps``-th update; phases that run rarely show their latest values."""
        if trainer.is_global_zero and trainer.global_step % self._interval(trainer) == 0:
            values = {name: float(value) for name, value in trainer.callback_metrics.items() if value.numel() == 1}
            path = self.path(trainer)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps({"update": trainer.global_step, **values}) + "\n")

    def _interval(self, trainer: Trainer) -> int:
        return trainer.log_every_n_steps  # type: ignore[attr-defined]


def read_history(path: str | Path) -> list[dict[str, float]]:
    """Lines of a history; a last line that a killed run left half-written is left out."""
    lines = []
    for line in Path(path).read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
