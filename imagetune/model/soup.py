"""Model soups (Wortsman et al. 2022): the mean of several models' weights, and the greedy choice of models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = Sequence[NDArray[Any]]
Rank = tuple[float, ...]
"""Rank of a model, larger is better: the first number decides, the others break ties."""


@dataclass(frozen=True)
class SoupStep:
    """A step of the greedy soup: one model tried in the mean.

    Attributes:
        added: Position of the model that was tried.
        members: Positions of the models whose mean was tried, that model included.
        rank: Rank of that mean.
        kept: Whether the model stayed in the soup.
    """

    added: int
    members: tuple[int, ...]
    rank: Rank
    kept: bool


def average_weights(members: Sequence[Weights]) -> list[NDArray[Any]]:
    """Return the mean of the weights of models of one architecture.

    Sums are in float64, so that the mean of equal models is that model to the last bit.

    Args:
        members: For each model its arrays, in the same order and of the same shapes. Arrays that are not floating
            point, such as counters, are taken from the first model.

    Returns:
        The arrays, each with the shape and dtype of the first model's.

    Raises:
        ValueError: There is no model, or the shapes differ.
    """
    first = members[0] if members else None
    if first is None or any([array.shape for array in other] != [array.shape for array in first] for other in members):
        raise ValueError("a mean needs models whose arrays have the same shapes")
    return [_mean(arrays) for arrays in zip(*members, strict=True)]


def choose_greedy_soup(ranks: Sequence[Rank], rank_of: Callable[[tuple[int, ...]], Rank]) -> tuple[SoupStep, ...]:
    """Return the steps of the greedy soup: which models' weights are averaged (Wortsman et al. 2022, arXiv 2203.05482).

    Models are tried from best to worst; one stays in when the mean with it is at least as good as without. So the soup
    is never worse than the best model, on the images that it is chosen on.

    Args:
        ranks: Rank of each model by itself; of equal ones the earlier counts as better.
        rank_of: Returns the rank of the mean of the models at some positions; called for two models and more.

    Returns:
        A step for each model, in the order in which they were tried; the first is the best model, which stays.
    """
    best, *others = sorted(range(len(ranks)), key=lambda index: ranks[index], reverse=True)
    steps = [SoupStep(best, (best,), ranks[best], kept=True)]
    kept: tuple[int, ...] = (best,)
    best_rank = ranks[best]
    for index in others:
        tried = (*kept, index)
        rank = rank_of(tried)
        stays = rank >= best_rank
        steps.append(SoupStep(index, tried, rank, stays))
        if stays:
            kept, best_rank = tried, rank
    return tuple(steps)


def _mean(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    first = arrays[0]
    if not _is_floating(first):
        return first
    total = np.zeros(first.shape, np.float64)
    for array in arrays:
        total += array.astype(np.float64)
    mean: NDArray[Any] = (total / len(arrays)).astype(first.dtype)
    return mean


def _is_floating(array: NDArray[Any]) -> bool:
    # bfloat16 is an extension type, whose kind is V, so integers and booleans are excluded instead.
    return array.dtype.kind not in "iub"
