"""Linear classifiers solved to convergence: logistic regression with an L2 penalty, in the space of the clips.

With more numbers than clips, the solution lies in the span of the clips' vectors: N coordinates a clip instead of D
hold everything, and they come from the products of the vectors alone. So the products of several vectors can be added
instead of putting the vectors side by side, and a cross-validation costs seconds. NumPy, float64, deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

ITERATIONS, MEMORY = 150, 12
TOLERANCE = 1e-5  # of the preconditioned gradient
LOGITS = 4e6  # clips times classes that are computed at once: each takes 50 bytes
_RANK = 1e-9  # of the largest eigenvalue: what is below is rounding


@dataclass(frozen=True)
class Coordinates:
    """Training clips in their own span: ``z`` (N, R), and what brings others there: ``basis`` (N, R).

    The products of other vectors with the training vectors, times ``basis``, are those vectors' coordinates.
    """

    z: np.ndarray
    basis: np.ndarray
    sizes: np.ndarray  # (R,) sum of squares of each coordinate over the training clips


def coordinates(products: np.ndarray) -> Coordinates:
    """Coordinates of clips from the products (N, N) of their vectors."""
    values, vectors = np.linalg.eigh(products)
    kept = values > max(values[-1], 0) * _RANK
    roots = np.sqrt(values[kept])
    return Coordinates(vectors[:, kept] * roots, vectors[:, kept] / roots, values[kept])


def solve(
    z: np.ndarray,
    sizes: np.ndarray,
    targets: np.ndarray,
    strength: float,
    multi_label: bool = False,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Weights (R + 1, K), the last row a bias, of the least mean cross-entropy + strength / 2 |w|^2 (without the bias).

    Args:
        z: coordinates (N, R), orthogonal, ``sizes`` (R,) their sums of squares; float32 takes half of the memory.
        targets: (N, K) probabilities.
        start: weights to begin at, those of a stronger penalty.
    """
    x = np.concatenate([z, np.ones((len(z), 1), z.dtype)], 1)
    return solve_with_ones(x, sizes, targets, strength, multi_label, start)


def solve_with_ones(
    x: np.ndarray,
    sizes: np.ndarray,
    targets: np.ndarray,
    strength: float,
    multi_label: bool = False,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """As ``solve``, of coordinates with a column of ones behind them, (N, R + 1), of which no copy is made.

    Clips are taken in blocks of ``LOGITS`` logits: above that the sums over them have another order.
    """
    count, classes = targets.shape
    scale = 1 / np.sqrt(np.concatenate([0.25 * sizes / count + strength, [0.25]]))[:, None]
    penalty = np.full((x.shape[1], 1), strength)
    penalty[-1] = 1e-9
    most = max(1, int(LOGITS / classes))

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(-1, classes) * scale
        own = weights.astype(x.dtype)
        parts = (slice(begin, begin + most) for begin in range(0, count, most))
        loss, gradient = _loss_of(x[first := next(parts)], own, targets[first], multi_label)
        for rows in parts:
            more, slope = _loss_of(x[rows], own, targets[rows], multi_label)
            loss, gradient = loss + more, gradient + slope
        gradient = gradient / count + penalty * weights
        return loss / count + float((penalty * weights**2).sum()) / 2, (gradient * scale).ravel()

    begin = np.zeros((x.shape[1], classes)) if start is None else start / scale
    found: np.ndarray = minimize(value, begin.ravel()).reshape(-1, classes) * scale
    return found


def solve_squares(
    z: np.ndarray, sizes: np.ndarray, targets: np.ndarray, strength: float, alike: bool = True
) -> np.ndarray:
    """Weights (R + 1, K), the last row a bias, of least squares + strength |w|^2: coordinates are solved one by one.

    It costs a single product, where the cross-entropy of many clips and classes takes minutes.

    Args:
        alike: classes count alike, however many clips they have: of very few, one with two clips outbids all that have
            one. Where clips may have many labels it makes no sense.
        z, sizes, targets, strength: see ``solve``.
    """
    if alike:
        targets = targets * evened(targets.sum(0))
    share = targets.mean(0)
    weights = z.T @ (targets - share).astype(z.dtype) / (sizes + len(z) * strength)[:, None]
    return np.concatenate([weights, (share - z.mean(0) @ weights)[None]])


def evened(counts: np.ndarray) -> np.ndarray:
    """What makes classes (K,) of so many clips count alike, and together as much as before; 0 of one without clips."""
    known = counts > 0
    found: np.ndarray = np.where(known, counts.sum() / np.maximum(counts, 1e-9) / max(known.sum(), 1), 0)
    return found


def minimize(value: Callable[[np.ndarray], tuple[float, np.ndarray]], x: np.ndarray) -> np.ndarray:
    """The minimum of a smooth convex function by L-BFGS (Liu and Nocedal 1989) with backtracking."""
    f, g = value(x)
    steps: list[tuple[np.ndarray, np.ndarray, float]] = []
    for _ in range(ITERATIONS):
        if np.abs(g).max() < TOLERANCE:
            break
        way = -_two_loops(g, steps)
        slope = float(way @ g)
        length = 1.0
        while True:
            candidate = x + length * way
            after, gradient = value(candidate)
            if after <= f + 1e-4 * length * slope or length < 1e-6:
                break
            length /= 2
        s, y = candidate - x, gradient - g
        if (product := float(s @ y)) > 1e-12:
            steps = [*steps[-(MEMORY - 1) :], (s, y, 1 / product)]
        if f - after < 1e-10 * max(1.0, abs(f)):
            return candidate if after < f else x
        x, f, g = candidate, after, gradient
    return x


def _two_loops(g: np.ndarray, steps: Sequence[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    """The inverse Hessian's estimate times a gradient."""
    q, shares = g.copy(), []
    for s, y, rho in reversed(steps):
        shares.append(rho * float(s @ q))
        q -= shares[-1] * y
    if steps:
        s, y, rho = steps[-1]
        q /= rho * float(y @ y)
    for (s, y, rho), share in zip(steps, reversed(shares), strict=True):
        q += (share - rho * float(y @ q)) * s
    return q


def _loss_of(x: np.ndarray, weights: np.ndarray, targets: np.ndarray, multi_label: bool) -> tuple[float, np.ndarray]:
    """The sum of the cross-entropies of some clips, and its slope by the weights (R + 1, K)."""
    loss, slope = _cross_entropy((x @ weights).astype(np.float64), targets, multi_label)
    return loss, x.T @ slope.astype(x.dtype)


def _cross_entropy(logits: np.ndarray, targets: np.ndarray, multi_label: bool) -> tuple[float, np.ndarray]:
    """The sum of the cross-entropies, and their slope by the logits (N, K)."""
    if multi_label:
        loss = np.logaddexp(0, logits) - targets * logits
        return float(loss.sum()), 1 / (1 + np.exp(-np.clip(logits, -60, 60))) - targets
    top = logits.max(1, keepdims=True)
    shifted = np.exp(logits - top)
    total = shifted.sum(1, keepdims=True)
    return float((np.log(total) + top).sum() - (targets * logits).sum()), shifted / total - targets


def log_probabilities(logits: np.ndarray, multi_label: bool = False) -> np.ndarray:
    """Logarithms of the softmax (of the sigmoid) of logits (N, K)."""
    if multi_label:
        return -np.logaddexp(0, -logits)
    top = logits.max(1, keepdims=True)
    found: np.ndarray = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    return found


Fold = tuple[np.ndarray, np.ndarray, Coordinates, np.ndarray]  # held, seen, coordinates of the seen, of the held


def fold_coordinates(products: np.ndarray, folds: Sequence[np.ndarray]) -> list[Fold]:
    """Coordinates of each fold's clips, in the span of the clips of the others."""
    parts = []
    for held in folds:
        seen = np.flatnonzero(~held)
        own = coordinates(products[np.ix_(seen, seen)])
        parts.append((held, seen, own, products[np.ix_(held, seen)] @ own.basis))
    return parts


def held_out_logits(
    products: np.ndarray,
    targets: np.ndarray,
    folds: Sequence[np.ndarray],
    strengths: Sequence[float],
    multi_label: bool = False,
    squares: bool = False,
    alike: bool = True,
    parts: Sequence[Fold] | None = None,
) -> Iterator[np.ndarray]:
    """For each strength, in descending order, the logits (N, K) of each clip by a classifier that did not see its fold.

    Each strength is solved when it is asked for, from the solution before.

    Args:
        products: (N, N) of the clips' vectors, those centered.
        folds: bool (N,) each, True where a clip is held out; clips of no fold have NaN.
        squares: what is given are scores by least squares, near 1 for a clip's class and 0 for others.
        alike: see ``solve_squares``.
        parts: ``fold_coordinates`` of these folds, where they are known.
    """
    parts = fold_coordinates(products, folds) if parts is None else parts
    weights: list[np.ndarray | None] = [None] * len(parts)
    for strength in strengths:
        found = np.full(targets.shape, np.nan)
        for i, (held, seen, own, others) in enumerate(parts):
            if squares:
                solved = solve_squares(own.z, own.sizes, targets[seen], strength, alike and not multi_label)
            else:
                solved = solve(own.z, own.sizes, targets[seen], strength, multi_label, weights[i])
            weights[i] = solved
            found[held] = others @ solved[:-1] + solved[-1]
        yield found
