"""Distances between two sets of feature vectors that arrive in batches: Frechet and kernel distance."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Moments:
    """Count, mean and scatter matrix of vectors, in float64; two of them add up to those of all vectors.

    Attributes:
        count: number of vectors.
        mean: ``[D]``.
        scatter: ``[D, D]``, the sum of outer products of the deviations from the mean.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> "Moments":
        """The moments of vectors ``[N, D]``."""
        vectors = vectors.double()
        mean = vectors.mean(0)
        deviations = vectors - mean
        return cls(len(vectors), mean, deviations.T @ deviations)

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of all vectors of both (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        step = other.mean - self.mean
        between = torch.outer(step, step) * (self.count * other.count / count)
        return Moments(count, self.mean + step * (other.count / count), self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Tensor:
        """``[D, D]`` sample covariance; ``nan`` of a single vector."""
        return self.scatter / (self.count - 1) if self.count > 1 else torch.full_like(self.scatter, torch.nan)


def frechet_distance(a: Moments, b: Moments) -> float:
    """``|m_a - m_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2))`` (Heusel et al. 2017); ``nan`` unless both have two vectors.

    The trace of the root is the sum of the roots of the eigenvalues of ``C_a^(1/2) C_b C_a^(1/2)``, which is symmetric:
    no root of an unsymmetric matrix, and nothing to add to a singular one.
    """
    if a.count < 2 or b.count < 2:
        return float("nan")
    c_a, c_b = a.covariance, b.covariance
    values, vectors = torch.linalg.eigh(c_a)
    kept = _without_rounding(values) > 0
    root = vectors[:, kept] * values[kept].sqrt()  # C_a = root root^T
    cross = torch.linalg.eigvalsh(root.T @ c_b @ root)
    step = (a.mean - b.mean).square().sum()
    return float(step + c_a.trace() + c_b.trace() - 2 * _without_rounding(cross).sqrt().sum())


def frechet_distance_of_few(a: Tensor, b: Tensor) -> float:
    """:func:`frechet_distance` of ``[N, D]`` and ``[M, D]`` features without a ``D x D`` matrix: fast for few of them.

    With ``X`` and ``Y`` the deviations over ``sqrt(N - 1)`` and ``sqrt(M - 1)``, ``C_a = X^T X``, and the trace of the
    root is the sum of the singular values of ``X Y^T``.
    """
    if min(len(a), len(b)) < 2:
        return float("nan")
    means = [v.double().mean(0) for v in (a, b)]
    x, y = ((v.double() - m) / (len(v) - 1) ** 0.5 for v, m in zip((a, b), means))
    root = torch.linalg.svdvals(x @ y.T).sum()
    return float((means[0] - means[1]).square().sum() + x.square().sum() + y.square().sum() - 2 * root)


def _without_rounding(eigenvalues: Tensor) -> Tensor:
    """Eigenvalues of a semidefinite matrix; what rounding leaves of its zeros would grow under a root."""
    if not len(eigenvalues):
        return eigenvalues
    least = eigenvalues.max().clamp_min(0) * len(eigenvalues) * torch.finfo(torch.float64).eps
    return torch.where(eigenvalues > least, eigenvalues, 0)


def kernel_distance(a: Tensor, b: Tensor, block: int = 2048) -> float:
    """Unbiased squared maximum mean discrepancy under ``(x . y / D + 1)^3`` (Binkowski et al. 2018).

    Over all pairs, which is what the mean over random subsets of other programs estimates; can be negative.

    Args:
        a: ``[N, D]`` features.
        b: ``[M, D]`` features.
        block: rows at a time.

    Returns:
        The distance; ``nan`` unless both sets have two vectors.
    """
    if min(len(a), len(b)) < 2:
        return float("nan")

    def cubic(products: Tensor) -> float:
        return float(((products / a.shape[1] + 1) ** 3).sum())

    def total(x: Tensor, y: Tensor) -> float:
        columns = y.double().T
        return sum(cubic(rows.double() @ columns) for rows in x.split(block))

    within = [(total(v, v) - cubic(v.double().square().sum(1))) / (len(v) * (len(v) - 1)) for v in (a, b)]
    return within[0] + within[1] - 2 * total(a, b) / (len(a) * len(b))


class _Stream:
    """Vectors of one side: rows while they are no more than their dimensions, moments of all that came before."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []
        self.moments: Moments | None = None

    def add(self, vectors: Tensor) -> None:
        self.rows.append(vectors)
        if sum(len(r) for r in self.rows) > vectors.shape[1]:
            self.moments, self.rows = self.folded(), []

    def folded(self) -> Moments | None:
        """Moments of everything so far."""
        rows = torch.cat(self.rows) if self.rows else torch.zeros(0)
        if not len(rows):
            return self.moments
        return Moments.of(rows) if self.moments is None else self.moments + Moments.of(rows)


class FrechetDistance:
    """Frechet distance of two streams of features; what it keeps does not grow with their length."""

    def __init__(self) -> None:
        self._sides = (_Stream(), _Stream())

    def add(self, predicted: Tensor, truth: Tensor) -> None:
        """Take ``[F, D]`` features in."""
        for side, vectors in zip(self._sides, (predicted, truth)):
            side.add(vectors)

    def result(self) -> float:
        """The distance, ``nan`` before two of each have come."""
        if all(side.rows and side.moments is None for side in self._sides):
            return frechet_distance_of_few(*(torch.cat(side.rows) for side in self._sides))
        a, b = (side.folded() for side in self._sides)
        return frechet_distance(a, b) if a and b else float("nan")


class KernelDistance:
    """Kernel distance of two streams of features; keeps the features, 8 kB for one picture of Inception."""

    def __init__(self) -> None:
        self._sides: tuple[list[Tensor], list[Tensor]] = ([], [])

    def add(self, predicted: Tensor, truth: Tensor) -> None:
        """Take ``[F, D]`` features in."""
        for side, vectors in zip(self._sides, (predicted, truth)):
            side.append(vectors)

    def result(self) -> float:
        """The distance, ``nan`` before two of each have come."""
        predicted, truth = self._sides
        return kernel_distance(torch.cat(predicted), torch.cat(truth)) if predicted else float("nan")
