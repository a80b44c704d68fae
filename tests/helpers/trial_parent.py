"""Main process of a minimal search, for tests that send it signals: `trial_parent.py FOLDER WORK STOP_SECONDS`."""

import sys
from pathlib import Path

import trial_works

from imagetune.recipe.schema import Recipe
from imagetune.search.executors.processes import Processes
from imagetune.search.executors.protocol import Task
from imagetune.search.executors.slots import Slot
from imagetune.training.setup.stopping import listen_for_stop

if __name__ == "__main__":
    folder, work, stop_seconds = sys.argv[1:]
    recipe = Recipe.model_validate({"data": {"source": "images"}})
    with listen_for_stop() as stop, stop.deferred():
        slots = [Slot("cpu 1 of 2"), Slot("cpu 2 of 2")]
        executor = Processes(getattr(trial_works, work), slots, stop_seconds=float(stop_seconds))
        try:
            for number in ("001", "002"):
                executor.start(Task(number, Path(folder) / f"trial-{number}", recipe))
            while True:
                executor.wait(0.1)
                stop.check()
        finally:
            executor.close()
