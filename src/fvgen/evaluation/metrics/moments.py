"""Distances between two sets of feature vectors that arrive in batches: Frechet and kernel distance."""

from dataclasses import dataclass, field

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
        """Those of ``[N, D]``."""
        vectors = vectors.double()
        mean = vectors.mean(0)
        deviations = vectors - mean
        return cls(len(vectors), mean, deviations.T @ deviations)

    def __add__(self, other: "Moments") -> "Moments":
        """Chan, Golub and LeVeque 1979."""
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
    within = [(_kernel_sum(v, v, block) - float(_cubic(v.double().square().sum(1), v.shape[1]).sum())) for v in (a, b)]
    pairs = [len(v) * (len(v) - 1) for v in (a, b)]
    return within[0] / pairs[0] + within[1] / pairs[1] - 2 * _kernel_sum(a, b, block) / (len(a) * len(b))


def _kernel_sum(a: Tensor, b: Tensor, block: int) -> float:
    columns = b.double().T
    return sum(float(_cubic(rows.double() @ columns, a.shape[1]).sum()) for rows in a.split(block))


def _cubic(products: Tensor, dimensions: int) -> Tensor:
    return (products / dimensions + 1) ** 3


@dataclass
class _Stream:
    """Vectors of one side: rows while they are no more than their dimensions, moments of all that came before."""

    rows: list[Tensor] = field(default_factory=list)
    moments: Moments | None = None

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


@dataclass
class FrechetDistance:
    """Frechet distance of two streams of features; what it keeps does not grow with their length."""

    predicted: _Stream = field(default_factory=_Stream)
    truth: _Stream = field(default_factory=_Stream)

    def add(self, predicted: Tensor, truth: Tensor) -> None:
        """Take ``[F, D]`` features in."""
        self.predicted.add(predicted)
        self.truth.add(truth)

    def result(self) -> float:
        """``nan`` before two of each have come."""
        sides = (self.predicted, self.truth)
        if all(side.rows and side.moments is None for side in sides):
            return frechet_distance_of_few(*(torch.cat(side.rows) for side in sides))
        a, b = (side.folded() for side in sides)
        return frechet_distance(a, b) if a and b else float("nan")


@dataclass
class KernelDistance:
    """Kernel distance of two streams of features; keeps the features, 8 kB for one picture of Inception."""

    predicted: list[Tensor] = field(default_factory=list)
    truth: list[Tensor] = field(default_factory=list)

    def add(self, predicted: Tensor, truth: Tensor) -> None:
        """Take ``[F, D]`` features in."""
        self.predicted.append(predicted)
        self.truth.append(truth)

    def result(self) -> float:
        """``nan`` before two of each have come."""
        if not self.predicted:
            return float("nan")
        return kernel_distance(torch.cat(self.predicted), torch.cat(self.truth))
