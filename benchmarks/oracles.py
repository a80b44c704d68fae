"""Comparison of search oracles at equal numbers of trials, on a recorded surface of real trainings.

    python -m benchmarks.oracles [--seeds 20] [--first-seed 0] [--trials 10 20 30] [--stock]

The surface is that of record_surface.py: a lookup in the place of a training. Every oracle proposes one trial at a time
with imagetune's own settings; hyperband isn't among them, as a surface of finished trainings has no epochs. Required: a
better median best of bayesian than of random. `--stock` adds KerasTuner's own Bayesian oracle, as it comes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras_tuner
import numpy as np
from numpy.typing import NDArray

from benchmarks.side_by_side import machine_line
from benchmarks.surface import METRICS, RECORDED, Surface
from imagetune.recipe.sections.search import SearchConfig
from imagetune.search.proposers.oracle import OracleProposer
from imagetune.search.records.trial import Trial
from imagetune.search.space import convert_to_hyperparameters, parse_proposal

# The best metric so far after each trial of a search.
Run = Callable[[Surface, int, int], list[float]]


@dataclass(frozen=True)
class Found:
    """The results of one oracle.

    Attributes:
        best: Best metric so far, (seeds, trials) float64.
        seconds: Mean processor time of a trial, the lookup included.
    """

    best: NDArray[np.float64]
    seconds: float

    @property
    def median(self) -> NDArray[np.float64]:
        """The median over the seeds of the best metric so far, (trials) float64."""
        return np.asarray(np.median(self.best, axis=0))


def build_search(algorithm: str) -> Run:
    """Return a function that searches a surface with one of imagetune's oracles."""

    def run(surface: Surface, trials: int, seed: int) -> list[float]:
        config = SearchConfig.model_validate({"algorithm": algorithm, "trials": trials, "objective": surface.metric})
        proposer = OracleProposer(config, surface.spaces, seed=seed, epochs=1)
        metrics: list[float] = []
        while isinstance(trial := proposer.ask(), Trial):
            metrics.append(surface(trial.values))
            proposer.tell(trial, metrics[-1])
        return _best_so_far(surface, metrics)

    return run


def search_with_keras_tuner(surface: Surface, trials: int, seed: int) -> list[float]:
    """Search a surface with KerasTuner's own Bayesian oracle."""
    oracle = keras_tuner.oracles.BayesianOptimizationOracle(
        objective=keras_tuner.Objective("metric", "max" if surface.sign > 0 else "min"),
        max_trials=trials,
        hyperparameters=convert_to_hyperparameters(surface.spaces),
        seed=seed + 1,
    )
    oracle.verbose = 0
    oracle.save = oracle._save_trial = lambda *_: None
    metrics: list[float] = []
    while (trial := oracle.create_trial("one")).status == "RUNNING":
        metrics.append(surface(parse_proposal(surface.spaces, trial.hyperparameters.values)))
        oracle.update_trial(trial.trial_id, {"metric": metrics[-1]})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    return _best_so_far(surface, metrics)


ORACLES: dict[str, Run] = {
    "random": build_search("random"),
    "bayesian": build_search("bayesian"),
    "KerasTuner's bayesian": search_with_keras_tuner,
}


def measure(run: Run, surface: Surface, *, trials: int, seeds: Sequence[int]) -> Found:
    """Search a surface once for each seed."""
    began = time.process_time()
    best = np.array([run(surface, trials, seed) for seed in seeds])
    return Found(best, (time.process_time() - began) / best.size)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table for each metric, and return 1 where the requirement is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 20, 30])
    parser.add_argument("--metrics", nargs="+", default=METRICS, choices=METRICS)
    parser.add_argument("--surface", type=Path, default=RECORDED)
    parser.add_argument("--stock", action="store_true", help="also KerasTuner's own Bayesian oracle, as it comes")
    options = parser.parse_args(arguments)
    print(machine_line())
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    met = True
    for metric in options.metrics:
        surface = Surface(options.surface, metric)
        names = [name for name in ORACLES if options.stock or name != "KerasTuner's bayesian"]
        print(f"\n{metric} with {', '.join(surface.optimizers)}, best on the surface {surface.best:.4f}", flush=True)
        found = {name: measure(ORACLES[name], surface, trials=max(options.trials), seeds=seeds) for name in names}
        print(f"median (quartiles) of {options.seeds} seeds\n\n{_table(found, options.trials)}", flush=True)
        better = surface.sign * (found["bayesian"].median - found["random"].median)
        met = met and all(better[count - 1] > 0 for count in options.trials)
    print(
        f"\nrequirement {'met' if met else 'MISSED'}: the median of bayesian is better than that of random everywhere"
    )
    return 0 if met else 1


def _table(found: Mapping[str, Found], counts: Sequence[int]) -> str:
    head = ["oracle", *(f"{count} trials" for count in counts), "processor time a trial"]
    rows = [
        [name, *(_format_quartiles(each, count) for count in counts), _format_time(each)]
        for name, each in found.items()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _best_so_far(surface: Surface, metrics: Sequence[float]) -> list[float]:
    return list(surface.sign * np.maximum.accumulate(surface.sign * np.array(metrics)))


def _format_quartiles(found: Found, count: int) -> str:
    low, middle, high = np.quantile(found.best[:, count - 1], [0.25, 0.5, 0.75])
    return f"{middle:.4f} ({low:.4f} to {high:.4f})"


def _format_time(found: Found) -> str:
    return f"{1000 * found.seconds:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
