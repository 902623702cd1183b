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
    root = vectors * _without_rounding(values).sqrt()  # C_a = root root^T
    cross = torch.linalg.eigvalsh(root.T @ c_b @ root)
    step = (a.mean - b.mean).square().sum()
    return float(step + c_a.trace() + c_b.trace() - 2 * _without_rounding(cross).sqrt().sum())


def _without_rounding(eigenvalues: Tensor) -> Tensor:
    """Eigenvalues of a semidefinite matrix; what rounding leaves of its zeros would grow under a root."""
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
class FrechetDistance:
    """Frechet distance of two streams of features; keeps their moments only."""

    predicted: Moments | None = None
    truth: Moments | None = None

    def add(self, predicted: Tensor, truth: Tensor) -> None:
        """Take ``[F, D]`` features in."""
        self.predicted = _grown(self.predicted, predicted)
        self.truth = _grown(self.truth, truth)

    def result(self) -> float:
        """``nan`` before two of each have come."""
        return frechet_distance(self.predicted, self.truth) if self.predicted and self.truth else float("nan")


def _grown(moments: Moments | None, vectors: Tensor) -> Moments | None:
    if not len(vectors):
        return moments
    return Moments.of(vectors) if moments is None else moments + Moments.of(vectors)


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
