"""The functions of the Python API: what `import imagetune` offers, with nothing imported before it is needed.

They are the functions of `imagetune.commands`, which the command line calls as well, for programs and notebooks: values
come back, errors are exceptions of `imagetune.errors`, nothing is printed unless ``progress=True``, no signal handler
is installed and the process is never ended. Messages go to the logger ``imagetune``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from imagetune.core.messages import log_message
from imagetune.core.quiet import hide_library_warnings, import_keras_quietly

if TYPE_CHECKING:
    from imagetune.api.finished import EvaluationResult, FinishedRun, FinishedSearch
    from imagetune.api.images import Images
    from imagetune.api.progress import EpochCallback, SearchCallback
    from imagetune.commands.compare import RunComparison
    from imagetune.commands.verify import Verification
    from imagetune.core.messages import Say
    from imagetune.evaluation.image_predictions import ImagePrediction
    from imagetune.export.formats import Format, Quantization
    from imagetune.recipe.loading import RecipeSource
    from imagetune.runs.lineage import SeenPolicy
    from imagetune.search.listeners import Watcher
    from imagetune.training.setup.events import Listener

_logger = logging.getLogger("imagetune")
# Where a program has set up no logging, Python would print warnings.
_logger.addHandler(logging.NullHandler())


def fit(
    recipe: RecipeSource,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool | EpochCallback | Listener | None = None,
    stop: Callable[[], bool] | None = None,
    **overrides: Any,
) -> FinishedRun:
    """Return the finished run of a recipe: fine-tuned, tested once, with its report and its copy in MLflow.

    Ctrl-C is a KeyboardInterrupt as in any other code; the run's status is then ``killed``.

    Args:
        recipe: A recipe file; its content as a mapping, whose relative paths start at the working directory; or a
            folder of images or a table, which get the defaults.
        run_dir: The run folder; one is named and made under runs/ by default. A finished run there is returned.
        resume: Go on with the run in ``run_dir`` where it was stopped; begin it where there is none.
        progress: True shows a bar and a line an epoch, in notebooks as well. A function is called with the
            `EpochRecord` of each epoch. A listener (`imagetune.training.setup.events.Listener`) hears of everything.
        stop: Called after every step; the run ends with StoppedError when it returns true.
        **overrides: Values for keys of the recipe, with two underscores for a dot: ``train__batch_size=64``.

    Raises:
        RecipeError: The recipe is wrong; ``lines()`` tells everything that is.
        DataError: Images, labels or splits are wrong.
        ImagetuneError: See `imagetune.errors`.

    Example:
        >>> import imagetune
        >>> run = imagetune.fit("quickstart.yaml", train__stages="linear_probe", train__epochs=2)
        >>> run.metrics["accuracy"].value > 0.5
        True
    """
    from imagetune.commands.before_keras import check_inputs

    check_inputs(recipe, _dotted(overrides))
    with import_keras_quietly():
        from imagetune.api.finished import FinishedRun
        from imagetune.api.progress import EpochListener
        from imagetune.commands.fit import fit as run_fit
        from imagetune.training.setup.stopping import StopWhen

    place = None if run_dir is None else Path(run_dir)
    request = None if stop is None else StopWhen(stop)

    def fitted(listener: Listener | None, say: Say) -> FinishedRun:
        keys = _dotted(overrides)
        result = run_fit(recipe, keys, run_dir=place, resume=resume, listener=listener, say=say, stop=request)
        return FinishedRun(result.folder)

    with _keras_left_alone():
        if progress is True:
            from imagetune.cli.render.progress import Screen

            with Screen().shown() as screen:
                return fitted(screen, screen.say)
        if not progress:
            return fitted(None, log_message)
        return fitted(EpochListener(progress) if callable(progress) else progress, log_message)


def search(
    recipe: RecipeSource,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool | SearchCallback | Watcher | None = None,
    stop: Callable[[], bool] | None = None,
    **overrides: Any,
) -> FinishedSearch:
    """Return a finished search over the spaces of a recipe: its trials, and the run of the best setting.

    Args:
        recipe: A recipe file or mapping with search spaces.
        run_dir: The search's folder; one is named and made under runs/ by default.
        resume: Go on with the search in ``run_dir``.
        progress: True shows the trials, in notebooks as well. A function is called with the `TrialResult` of each trial
            that has ended, and with the `EpochRecord` of each epoch of the last training. A watcher
            (`imagetune.search.listeners.Watcher`) hears of all trials.
        stop: Called between trials and after every step of the last training; true ends the search with StoppedError,
            and ``resume`` goes on with it.
        **overrides: As for `fit`.

    Raises:
        RecipeError: The recipe is wrong, or has nothing to search.
        CheckpointError: ``run_dir`` has no such search to go on with, or another one.
        SearchError: Every trial failed.
        ImagetuneError: See `imagetune.errors`.

    Example:
        >>> import imagetune
        >>> rate = {"search": "log_uniform", "low": 1e-4, "high": 1e-2}
        >>> found = imagetune.search(
        ...     "quickstart.yaml", train__stages="linear_probe", train__epochs=1, train__learning_rate=rate,
        ...     search__trials=2, search__algorithm="random", search__finalists=1,
        ... )
        >>> found.best.metrics["accuracy"].value > 0.3, len({trial.trial.trial_id for trial in found.trials}) >= 2
        (True, True)
    """
    from imagetune.commands.before_keras import check_inputs

    check_inputs(recipe, _dotted(overrides))
    with import_keras_quietly():
        from imagetune.api.finished import FinishedSearch
        from imagetune.api.progress import EpochListener, TrialWatcher
        from imagetune.commands.search import search as run_search
        from imagetune.training.setup.stopping import StopWhen

    place = None if run_dir is None else Path(run_dir)
    request = None if stop is None else StopWhen(stop)

    def searched(listener: Listener | None, watcher: Watcher | None, say: Say) -> FinishedSearch:
        found = run_search(
            recipe,
            _dotted(overrides),
            run_dir=place,
            resume=resume,
            listener=listener,
            watcher=watcher,
            say=say,
            stop=request,
        )
        return FinishedSearch.of(found)

    with _keras_left_alone():
        if progress is True:
            from imagetune.cli.render.progress import Screen
            from imagetune.cli.render.search_progress import SearchScreen

            with SearchScreen(Screen()).shown() as screen:
                return searched(screen.refit, screen, screen.say)
        if not progress:
            return searched(None, None, log_message)
        if callable(progress):
            return searched(EpochListener(progress), TrialWatcher(progress), log_message)
        return searched(None, progress, log_message)


def auto(
    source: str | Path,
    *,
    seconds: float = 1800.0,
    prefer: Literal["accuracy", "speed", "size"] = "accuracy",
    max_latency_ms: float | None = None,
    **options: Any,
) -> FinishedSearch:
    """Return the best model for a folder of images that the time allows, tested once, with all that was tried.

    Args:
        source: A folder with a folder for each class, or a table, as ``data.source`` of a recipe.
        seconds: Time from the start to the tested model.
        prefer: What decides between backbones that are equally good.
        max_latency_ms: Largest latency of one image on this machine.
        **options: ``run_dir``, ``resume``, ``progress``, ``stop`` and keys of the recipe, as for `search`.

    Raises:
        WeightsError: No backbone has pretrained weights on this machine.
        ImagetuneError: As for `search`.

    Example:
        >>> import imagetune
        >>> found = imagetune.auto("holiday/", seconds=600)  # doctest: +SKIP
        >>> found.best.metrics["accuracy"]  # doctest: +SKIP
    """
    with import_keras_quietly():
        from imagetune.commands.auto import AutoOptions, find_auto_recipe

    place = None if options.get("run_dir") is None else Path(options["run_dir"])
    wanted = AutoOptions(seconds, prefer, max_latency_ms)
    recipe = find_auto_recipe(source, wanted, run_dir=place, resume=bool(options.get("resume")))
    return search(recipe, **options)


def load(run: str | Path | FinishedRun) -> FinishedRun:
    """Return a finished run to predict and evaluate with.

    Args:
        run: A run folder, or a ``runs:/`` or ``models:/`` address of MLflow.

    Raises:
        ModelFileError: It is no run folder, or has no model yet.
        TrackingError: The address leads nowhere.

    Example:
        >>> import imagetune
        >>> run = imagetune.load("runs/clipart")
        >>> run.class_names
        ('birds', 'fruit')
        >>> prediction = next(run.predict("clipart/fruit"))
        >>> sorted(prediction.probabilities)
        ['birds', 'fruit']
    """
    with import_keras_quietly():
        from imagetune.api.finished import load as open_finished

    return open_finished(run)


def predict(run: str | Path | FinishedRun, images: Images, **options: bool) -> Iterator[ImagePrediction]:
    """Yield a run's prediction for each image as they come; short for ``load(run).predict(images)``.

    Args:
        run: As for `load`.
        images: A file, a folder, a pattern, a table of paths, or a list of them; or uint8 RGB arrays: (h, w, 3),
            (n, h, w, 3), or a list of the former.
        **options: ``calibrated``, ``sets``, ``operating_point``, ``min_cost``, as of `FinishedRun.predict`.

    Raises:
        DataError: There is no such path, or an array has another shape or dtype.
        ModelFileError: It is no finished run, or has nothing of what an option asks for.

    Example:
        >>> import imagetune, numpy
        >>> grey = numpy.full((80, 120, 3), 128, numpy.uint8)
        >>> [prediction] = imagetune.predict("runs/clipart", grey)
        >>> prediction.label in ("birds", "fruit")
        True
    """
    return load(run).predict(images, **options)


def evaluate(
    run: str | Path | FinishedRun,
    data: str | Path | None = None,
    *,
    require: Sequence[str] = (),
    seen: SeenPolicy = "refuse",
) -> EvaluationResult:
    """Return the result of a test of a run; short for ``load(run).evaluate(data)``.

    Args:
        run: As for `load`.
        data: Other labelled images, a folder of class folders or a table; by default the run's test split.
        require: Requirements besides those of the recipe, such as ``balanced_accuracy:lower_bound=0.85``.
        seen: What is done with images that the run was trained or selected with: ``allow`` tests on them, too, and no
            requirement is met then; ``skip`` tests on the others alone.

    Raises:
        ModelFileError: It is no finished run.
        DataError: There are no such images, they can't be read, or the run was trained or selected with some.

    Example:
        >>> import imagetune
        >>> tested = imagetune.evaluate("runs/clipart", require=["accuracy:value=0.999"])
        >>> tested.metrics["accuracy"].low < tested.metrics["accuracy"].value
        True
        >>> tested.missed
        ('test accuracy: its value ... is ... below the required 0.999',)
    """
    return load(run).evaluate(data, require=require, seen=seen)


def compare(
    *runs: str | Path | FinishedRun | Sequence[str | Path | FinishedRun],
    common: bool = False,
    metric: str | None = None,
) -> RunComparison:
    """Return which of several runs is better on the same test images, and whether that is more than chance.

    Args:
        *runs: Two or more, each as for `load`; or one list of them.
        common: Compare on the common part where the test images differ.
        metric: The metric that decides; by default the task's first.

    Raises:
        RecipeError: There are too few or too many runs, or no such metric.
        ModelFileError: One is no run, or has no test predictions, or another task or other classes than the first.
        DataError: Their test images differ, or one has learned from another's.

    Example:
        >>> import imagetune
        >>> compared = imagetune.compare("runs/clipart", "runs/longer")
        >>> [run["run"] for run in compared.document["runs"]]
        ['runs/clipart', 'runs/longer']
    """
    with import_keras_quietly():
        from imagetune.api.finished import FinishedRun
        from imagetune.commands.compare import compare as compare_runs

    listed = [each for run in runs for each in (run if isinstance(run, (list, tuple)) else [run])]
    names = [str(run.folder) if isinstance(run, FinishedRun) else str(run) for run in listed]
    return compare_runs(names, common=common, metric=metric)


def verify(run: str | Path | FinishedRun, *, data: str | Path | None = None, every_image: bool = False) -> Verification:
    """Return how a finished run, or a search with its winner, differs from what it has recorded.

    Every file, image and pretrained weight is compared by its hash; metrics and predictions are computed again.

    Args:
        run: As for `load`, or the folder of a search.
        data: The folder or table where the images are now, if they have moved.
        every_image: Predict all training and validation images again; by default 32 of each, and all test images.

    Raises:
        ModelFileError: It is no run folder, or the run didn't finish.
        CheckpointError: A process is writing the run.

    Example:
        >>> import imagetune
        >>> found = imagetune.verify("runs/clipart")
        >>> found.holds, found.differences
        (True, ())
    """
    with import_keras_quietly():
        from imagetune.api.finished import FinishedRun
        from imagetune.commands.verify import verify as verify_run

    name = str(run.folder) if isinstance(run, FinishedRun) else str(run)
    place = None if data is None else Path(data)
    return verify_run(name, data=place, every_image=every_image, say=log_message)


def export(
    run: str | Path | FinishedRun,
    out: str | Path,
    *,
    format: Format,
    quantize: Quantization = "none",
    max_drop: float = 1.0,
) -> dict[str, Any]:
    """Return how an export of a run's model predicts, once it is written to a folder; the content of parity.json.

    Args:
        run: As for `load`.
        out: The folder to make.
        format: "saved_model", "litert" or "onnx".
        quantize: The number type: "none" keeps float32; "fp16", "dynamic" or "int8".
        max_drop: The drop of accuracy, in percentage points, that the validation images must rule out.

    Raises:
        RecipeError: The format has no such number type, or ``out`` holds something.
        ResourceError: A package of the format is not installed, or the model can't be converted.
        ModelFileError: It is no finished run; or the export predicts worse, and lies in ``out/refused``.

    Example:
        >>> import imagetune
        >>> parity = imagetune.export("runs/clipart", "clipart-litert", format="litert")
        >>> parity["verdict"], parity["label_agreement"]
        ('equal', 1.0)
    """
    with import_keras_quietly():
        from imagetune.api.finished import FinishedRun
        from imagetune.commands.export import export as export_run

    name = str(run.folder) if isinstance(run, FinishedRun) else str(run)
    return export_run(name, format=format, out=Path(out), quantize=quantize, max_drop=max_drop, say=log_message)


def _dotted(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in overrides.items()}


@contextmanager
def _keras_left_alone() -> Iterator[None]:
    """Give Keras its settings back in the end, and keep TensorFlow's notes on many models to itself."""
    from imagetune.model.keras_settings import keras_left_alone

    with keras_left_alone(), hide_library_warnings():
        yield
