"""An evaluation repeated with other draws: mean and standard deviation over runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from portraitzoo.errors import ZooError
from portraitzoo.metrics import bootstrap
from portraitzoo.metrics.bootstrap import Interval
from portraitzoo.metrics.evaluation import chosen_protocol, evaluate
from portraitzoo.metrics.inputs import Input
from portraitzoo.metrics.processes import Processes
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.report import Report, check_place
from portraitzoo.metrics.results import Result


def evaluate_runs(
    generated: Input,
    real: Input | None = None,
    *,
    num_runs: int,
    protocol: str | Protocol = "quick",
    overrides: Mapping[str, Any] | None = None,
    num_clips: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Report:
    """Evaluate several times, each time with other seeds of a model and of random windows.

    Run i draws with ``first_seed + i * n`` (n the largest number of items that the protocol draws), so that no clip
    comes twice, and with ``window_seed + i``. What does not depend on a seed comes from the cache after the first run.

    Args:
        generated: the side that is judged, see :func:`portraitzoo.metrics.evaluation.evaluate`.
        real: the side it is compared with.
        num_runs: how many times.
        protocol: a published protocol's name, or one of your own.
        overrides: protocol fields to change.
        num_clips: clips on each side, instead of the protocol's number.
        seed: of the first clip of the first run.
        out: folder for the report.
        options: further arguments of ``evaluate``.

    Returns:
        The first run's report with the mean over runs as each value, the population standard deviation as its ``std``,
        a t interval of the mean, and all values in ``extra["runs"]``.

    Raises:
        ZooError: for fewer than one run; and as ``evaluate`` does.
    """
    if num_runs < 1:
        raise ZooError(f"an evaluation takes at least 1 run, not {num_runs}")
    if out is not None:
        check_place(out)
    base = chosen_protocol(protocol, overrides, num_clips, seed)
    drawn = max(base.clips or 0, base.subjects or 0, base.images or 0, base.paths or 0, 1)
    reports = []
    for run in range(num_runs):
        seeds = {"first_seed": base.first_seed + run * drawn, "window_seed": base.window_seed + run}
        changes = {**(overrides or {}), **seeds}
        reports.append(evaluate(generated, real, protocol=protocol, overrides=changes, num_clips=num_clips, **options))
    first = reports[0]
    if num_runs > 1:
        grouped = zip(*(report.results for report in reports), strict=True)
        first = dataclasses.replace(
            first,
            results=[_mean(results) for results in grouped],
            warnings=list(dict.fromkeys(warning for report in reports for warning in report.warnings)),
            seconds={name: round(sum(r.seconds[name] for r in reports), 3) for name in first.seconds},
        )
    first = dataclasses.replace(first, protocol=base)
    if num_runs > 1 and all(result.std == 0 for result in first.results):
        first.warnings.append(f"all {num_runs} runs are equal: nothing in this evaluation is drawn at random")
    if out is not None and Processes.current().rank == 0:
        first.save(out)
    return first


def _mean(results: Sequence[Result]) -> Result:
    values = [result.value for result in results]
    mean, std, count = float(np.mean(values)), float(np.std(values)), len(values)
    error = float(np.std(values, ddof=1)) / count**0.5
    reach = float(stats.t.ppf((1 + bootstrap.LEVEL) / 2, count - 1)) * error
    method = f"t interval of the mean of {count} runs"
    interval = Interval(mean - reach, mean + reach, error, resamples=0, method=method)
    first = results[0]
    notes = [*first.notes, f"mean of {count} runs"]
    return dataclasses.replace(
        first, value=mean, std=std, interval=interval, notes=notes, extra={**first.extra, "runs": values}
    )
