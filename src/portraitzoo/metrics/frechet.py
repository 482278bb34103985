"""Feature statistics and the Fréchet distance between two of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.files import replacing
from portraitzoo.metrics.features import FeatureNetwork
from portraitzoo.metrics.ready import ReadyFeatureMetric

BLOCK = 256
"""Vectors whose products are summed at once: one matrix product instead of one for every few vectors."""


class FeatureStatistics:
    """Mean and covariance of feature vectors, gathered batch by batch as running sums in float64.

    Vectors are summed in blocks of ``BLOCK``, counted from the first, so that the result does not depend on how they
    were split into batches. Sums of several processes that are merged agree with those of one up to the rounding of
    float64.

    Args:
        num_features: length of one feature vector.
        ddof: 0 divides the covariance by n (StyleGAN and PV3D, 3DVidGen, Portrait4D), 1 by n - 1 (pytorch-fid,
            torch-fidelity, torchmetrics).
        max_items: keep the first so many vectors and drop the rest; ``None`` keeps all.
        device: where the sums live.
        info: what the features are (``network``, ``checksum``, ``protocol``, ...); JSON values. It is saved with the
            statistics and compared by :func:`frechet_distance`.

    Example:
        >>> statistics = FeatureStatistics(2)
        >>> statistics.append(torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
        >>> statistics.mean
        tensor([1., 2.], dtype=torch.float64)
        >>> statistics.num_items, statistics.rank_deficient
        (2, True)
    """

    def __init__(
        self,
        num_features: int,
        *,
        ddof: int = 0,
        max_items: int | None = None,
        device: torch.device | str | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        self.ddof = ddof
        self.max_items = max_items
        self.info: dict[str, Any] = dict(info or {})
        self.num_items = 0
        self._total = torch.zeros(num_features, dtype=torch.float64, device=device)
        self._outer = torch.zeros(num_features, num_features, dtype=torch.float64, device=device)
        self._waiting: list[Tensor] = []
        self._num_waiting = 0

    @property
    def num_features(self) -> int:
        """Length of one feature vector."""
        return self._total.shape[0]

    @property
    def total(self) -> Float[Tensor, " features"]:
        """Sum of the vectors, float64."""
        return self._total + torch.cat(self._waiting).sum(0) if self._waiting else self._total

    @property
    def outer(self) -> Float[Tensor, "features features"]:
        """Sum of the vectors' outer products with themselves, float64."""
        if not self._waiting:
            return self._outer
        waiting = torch.cat(self._waiting)
        return self._outer + waiting.T @ waiting

    def append(self, features: Float[Tensor, "items features"]) -> None:
        """Add one vector a row; rows beyond ``max_items`` are dropped.

        Raises:
            ZooError: if the vectors have another length.
        """
        check_features(features, self.num_features)
        if self.max_items is not None:
            features = features[: max(self.max_items - self.num_items, 0)]
        self.num_items += features.shape[0]
        # A copy, because the caller may write into his tensor again.
        self._waiting.append(features.detach().to(self._total, copy=True))
        self._num_waiting += features.shape[0]
        if self._num_waiting < BLOCK:
            return
        *blocks, rest = torch.cat(self._waiting).tensor_split(tuple(range(BLOCK, self._num_waiting + 1, BLOCK)))
        for block in blocks:
            self._total += block.sum(0)
            self._outer += block.T @ block
        self._waiting, self._num_waiting = ([rest] if len(rest) else []), len(rest)

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Statistics of both sets of vectors together.

        Raises:
            ZooError: if the vectors have different lengths.
        """
        _check_same_length(self, other)
        merged = FeatureStatistics(self.num_features, ddof=self.ddof, device=self.total.device, info=self.info)
        merged._total = self.total + other.total.to(self.total)
        merged._outer = self.outer + other.outer.to(self.outer)
        merged.num_items = self.num_items + other.num_items
        return merged

    @property
    def mean(self) -> Float[Tensor, " features"]:
        """Mean vector.

        Raises:
            ZooError: for fewer than two vectors, or if one held NaN or infinity.
        """
        self._check_usable()
        return self.total / self.num_items

    @property
    def cov(self) -> Float[Tensor, "features features"]:
        """Covariance matrix with divisor ``num_items - ddof``.

        Raises:
            ZooError: for fewer than two vectors, or if one held NaN or infinity.
        """
        mean = self.mean
        return (self.outer - self.num_items * torch.outer(mean, mean)) / (self.num_items - self.ddof)

    @property
    def rank_deficient(self) -> bool:
        """Whether there are too few vectors for a covariance of full rank; a distance to it is then mostly bias."""
        return self.num_items <= self.num_features

    @classmethod
    def from_moments(
        cls,
        mean: Float[Tensor, " features"],
        cov: Float[Tensor, "features features"],
        num_items: int,
        *,
        ddof: int = 0,
        info: dict[str, Any] | None = None,
    ) -> FeatureStatistics:
        """Statistics known by their moments; ``ddof`` says by what ``cov`` was divided.

        Raises:
            ZooError: if the shapes do not fit.
        """
        if mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
            raise ZooError(f"a mean of shape {list(mean.shape)} and a covariance of {list(cov.shape)} do not fit")
        statistics = cls(len(mean), ddof=ddof, info=info)
        mean, cov = mean.double(), cov.double()
        statistics.num_items = int(num_items)
        statistics._total = mean * statistics.num_items
        statistics._outer = cov * (statistics.num_items - ddof) + statistics.num_items * torch.outer(mean, mean)
        return statistics

    def save(self, path: str | Path, **further: np.ndarray) -> Path:
        """Write ``mean``, ``cov``, ``num_items`` and a JSON ``header`` (``info`` and ``ddof``) to an ``.npz`` file.

        Args:
            path: file to write; it appears complete or not at all.
            further: more arrays for the file, by name.
        """
        path = Path(path)
        header = json.dumps({**self.info, "ddof": self.ddof}, sort_keys=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            arrays: dict[str, Any] = {
                "mean": self.mean.cpu().numpy(),
                "cov": self.cov.cpu().numpy(),
                "num_items": np.int64(self.num_items),
                "header": np.array(header),
                **further,
            }
            np.savez(file, **arrays)
        return path

    @classmethod
    def load(cls, path: str | Path) -> FeatureStatistics:
        """Read an ``.npz`` file with ``mean``, ``cov`` and ``num_items``.

        The JSON ``header`` is optional: a file without one is taken as StyleGAN's statistics (``ddof`` 0).

        Raises:
            ZooError: if the file cannot be read or holds something else.
        """
        path = Path(path)
        try:
            with np.load(path, allow_pickle=False) as file:
                mean, cov = torch.from_numpy(file["mean"]), torch.from_numpy(file["cov"])
                num_items = int(file["num_items"])
                header = json.loads(str(file["header"])) if "header" in file.files else {}
        except FileNotFoundError as error:
            raise ZooError(f"{path}: no such file of statistics") from error
        except KeyError as error:
            raise ZooError(f"{path} is no file of statistics: it needs mean, cov and num_items") from error
        except Exception as error:  # NumPy and zlib raise many kinds for a damaged archive
            raise ZooError(f"{path} cannot be read as statistics ({error}): make it again") from error
        ddof = int(header.pop("ddof", 0))
        return cls.from_moments(mean, cov, num_items, ddof=ddof, info=header)

    def _check_usable(self) -> None:
        if self.num_items < 2:
            raise ZooError(f"a mean and covariance need at least 2 items, not {self.num_items}")
        if not torch.isfinite(self.total).all():
            raise ZooError("the features hold NaN or infinite numbers: look at the images or videos they come from")


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> Float[Tensor, ""]:
    r"""Squared 2-Wasserstein distance between the Gaussians with the two sets' moments (Heusel et al. 2017, eq. 6).

    .. math:: d = |\mu_1 - \mu_2|^2 + \mathrm{tr}(\Sigma_1) + \mathrm{tr}(\Sigma_2)
              - 2\,\mathrm{tr}\big((\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2})^{1/2}\big)

    The root is taken from eigenvalues of symmetric matrices, with negative ones (round-off) set to zero. This equals
    the usual matrix square root of :math:`\Sigma_1 \Sigma_2` and stays stable where that fails: for fewer items than
    features.

    Returns:
        float64 scalar, never negative.

    Raises:
        ZooError: if the sets have another number of features, another divisor, or come from different networks.
    """
    _check_same_length(first, second)
    if first.ddof != second.ddof:
        raise ZooError(f"statistics with ddof {first.ddof} and ddof {second.ddof} cannot be compared: choose one")
    ours, theirs = first.info.get("checksum"), second.info.get("checksum")
    if ours and theirs and ours != theirs:
        names = [f"{s.info.get('network', 'a network')} ({s.info['checksum'][:12]})" for s in (first, second)]
        raise ZooError(f"statistics of different networks cannot be compared: {names[0]} and {names[1]}")
    # The set of fewer items goes first: its null space is cut away exactly, so that the round-off of a singular
    # covariance's zero eigenvalues (1e-16, but 1e-8 after the root, and many of them) never enters the sum.
    few, many = sorted((first, second), key=lambda statistics: statistics.num_items)
    cov, other = few.cov, many.cov.to(few.total)
    values, vectors = torch.linalg.eigh(cov)
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    # The eigenvalues of R S R with R = V sqrt(w) V' are those of (V sqrt(w))' S (V sqrt(w)): one product less.
    root = vectors[:, kept] * values[kept].sqrt()
    cross = torch.linalg.eigvalsh(root.T @ other @ root).clamp(min=0).sqrt().sum()
    shift = (few.mean - many.mean.to(few.total)).square().sum()
    return (shift + cov.trace() + other.trace() - 2 * cross).clamp(min=0)


class FrechetDistance(ReadyFeatureMetric):
    r"""Fréchet distance between the features of real and of generated items.

    .. math:: d = |\mu_r - \mu_g|^2 + \mathrm{tr}(\Sigma_r + \Sigma_g - 2 (\Sigma_r \Sigma_g)^{1/2})

    The state is six float64 running sums; across processes they are added, so the value does not depend on the number
    of processes or on batches. Shared by :class:`~portraitzoo.metrics.fvd.FrechetVideoDistance` and
    :class:`~portraitzoo.metrics.fid.FrechetInceptionDistance`; by itself it takes ready features.

    As input to ``update_features`` the metric accepts

    - ``features`` float tensor ``[items, num_features]``
    - ``real`` bool: which side they belong to

    As output of ``compute`` it returns a float64 scalar.

    Args:
        network: makes the features; ``None`` if only ready features will come.
        num_features: length of one feature vector, where there is no network.
        ddof: 0 (StyleGAN, PV3D) or 1 (pytorch-fid, torch-fidelity, torchmetrics), see :class:`FeatureStatistics`.
        reset_real_features: whether ``reset`` also forgets the real side; ``False`` keeps it between epochs.
        real_statistics: fixed statistics of the real side, instead of updates with ``real=True``.
        kwargs: further arguments of :class:`torchmetrics.Metric`.

    Raises:
        ZooError: from ``compute`` for fewer than two items on a side or non-finite features; from the constructor if
            neither ``network`` nor ``num_features`` is given or ``real_statistics`` do not fit.

    Example:
        >>> metric = FrechetDistance(num_features=4)
        >>> rows = torch.arange(40.0).reshape(10, 4).sin()
        >>> metric.update_features(rows, real=True)
        >>> metric.update_features(rows + 1, real=False)
        >>> metric.compute()
        tensor(4.0000, dtype=torch.float64)
    """

    higher_is_better = False

    real_total: Tensor
    real_outer: Tensor
    real_items: Tensor
    generated_total: Tensor
    generated_outer: Tensor
    generated_items: Tensor

    def __init__(
        self,
        network: FeatureNetwork | None = None,
        *,
        num_features: int | None = None,
        ddof: int = 0,
        reset_real_features: bool = True,
        real_statistics: FeatureStatistics | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        width = network.num_features if network is not None else num_features
        if width is None:
            raise ZooError("a Fréchet distance needs a feature network or the number of features")
        if real_statistics is not None and real_statistics.num_features != width:
            raise ZooError(
                f"the real statistics have {real_statistics.num_features} features and the network makes {width}"
            )
        self.network = network
        self.num_features = width
        self.ddof = ddof
        self.reset_real_features = reset_real_features
        self.real_statistics = real_statistics
        for side in ("real", "generated"):
            self.add_state(f"{side}_total", torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{side}_outer", torch.zeros(width, width, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{side}_items", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, features: Float[Tensor, "items features"], real: bool) -> None:
        """Add items of one side; here they are features already."""
        self.update_features(features, real)

    def update_features(self, features: Float[Tensor, "items features"], real: bool) -> None:
        """Add the features of items of one side.

        Raises:
            ZooError: if they have the wrong length, or belong to the real side while its statistics are fixed.
        """
        check_features(features, self.num_features)
        if real and self.real_statistics is not None:
            raise ZooError("the real side has fixed statistics: update only with real=False")
        self._note_update()
        features = features.detach().to(self.real_total)
        side = "real" if real else "generated"
        getattr(self, f"{side}_total").add_(features.sum(0))
        getattr(self, f"{side}_outer").addmm_(features.T, features)
        getattr(self, f"{side}_items").add_(features.shape[0])

    def statistics(self, real: bool) -> FeatureStatistics:
        """Statistics of one side as gathered by this process (of all processes while synchronised)."""
        if real and self.real_statistics is not None:
            return self.real_statistics
        side = "real" if real else "generated"
        info = {} if self.network is None else {"network": self.network.name, "checksum": self.network.checksum}
        statistics = FeatureStatistics(self.num_features, ddof=self.ddof, device=self.real_total.device, info=info)
        statistics._total = getattr(self, f"{side}_total").clone()
        statistics._outer = getattr(self, f"{side}_outer").clone()
        statistics.num_items = int(getattr(self, f"{side}_items"))
        return statistics

    def compute(self) -> Float[Tensor, ""]:
        """Distance between the two sides, float64."""
        return frechet_distance(self.statistics(real=False), self.statistics(real=True))

    def reset(self) -> None:
        """Forget the items; the real side only if ``reset_real_features``."""
        kept = {} if self.reset_real_features else {n: getattr(self, n) for n in self._defaults if n.startswith("real")}
        super().reset()
        for name, value in kept.items():
            setattr(self, name, value)


def check_features(features: Tensor, num_features: int) -> None:
    """Raise ZooError unless ``features`` is a float ``[items, num_features]`` tensor."""
    if features.ndim != 2 or features.shape[1] != num_features or not features.is_floating_point():
        raise ZooError(f"features must be float [items, {num_features}], not {features.dtype} {list(features.shape)}")


def _check_same_length(first: FeatureStatistics, second: FeatureStatistics) -> None:
    if first.num_features != second.num_features:
        raise ZooError(
            f"statistics of {first.num_features} and of {second.num_features} features belong to different networks"
        )
