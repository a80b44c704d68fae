"""The SLURM script and the Kubernetes Job of docs/clusters.md, under a small scheduler that does what they ask for."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from colours import RECIPE
from tracking_helpers import wait_until

from tests.faults.attack.keeper import PROJECT
from tests.faults.commands import count_lines
from tests.faults.killer import read_result

REQUEUE = 75
MOST_STARTS = 20
# Tells the scheduler its process, which stays the same as it becomes the program.
SRUN = '#!/bin/sh\necho $$ > "$SCHEDULER/task"\nexec "$@"\n'
SCONTROL = '#!/bin/sh\necho "$@" >> "$SCHEDULER/asked"\n'
# A program of the name with which the documents call it: the real one with a backbone that trains in a moment, or one
# that only ends as it is told.
REAL = f"""#!/bin/sh
exec {sys.executable} -c 'import sys
from tiny_backbones import tiny_backbones
from imagetune.cli.main import main
with tiny_backbones(): main()' "$@"
"""
TOLD = '#!/bin/sh\necho "$@" >> "$SCHEDULER/started"\nread code < "$SCHEDULER/codes"\n'
TOLD += 'sed -i 1d "$SCHEDULER/codes"\nexit $code\n'


def read_block(kind: str, word: str) -> str:
    """Return the block of docs/clusters.md that holds a word."""
    text = (PROJECT / "docs/clusters.md").read_text(encoding="utf-8")
    (block,) = (found for found in re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) if word in found)
    return block


@dataclass
class Scheduler:
    """A machine with a queue: it starts what it is given, announces the end of its time, and starts it again.

    Attributes:
        folder: Working folder of the jobs.
        stop_at: Returns, for the number of a start, the file whose first line is waited for before the signal; None
            lets it run to its end.
        codes: Exit codes of the starts so far.
    """

    folder: Path
    stop_at: Callable[[int], Path | None] = lambda _number: None
    codes: list[int] = field(default_factory=list)

    def install(self, imagetune: str) -> None:
        """Put the programs that the documents call on the path of the jobs."""
        for name, content in {"srun": SRUN, "scontrol": SCONTROL, "imagetune": imagetune}.items():
            program = self.folder / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(content)
            program.chmod(0o755)

    def run_slurm(self, script: str) -> int:
        """Run a batch script, and again as often as it asks for by scontrol; return its last exit code."""
        (self.folder / "job.sh").write_text(script)
        options = shlex.split(" ".join(re.findall(r"^#SBATCH (.*)", script, re.MULTILINE)))
        number = getattr(signal, "SIG" + read_option(options, "--signal").partition("@")[0])
        assert "--requeue" in options
        while True:
            (self.folder / "asked").unlink(missing_ok=True)
            code = self._start(["bash", "job.sh"], number, {"SLURM_JOB_ID": "417"})
            if not (self.folder / "asked").is_file():
                return code
            assert (self.folder / "asked").read_text() == "requeue 417\n"

    def run_kubernetes(self, job: Mapping[str, object]) -> str:
        """Run a Job as its controller would, and return what becomes of it: Complete or Failed."""
        spec = job["spec"]
        pod = spec["template"]["spec"]
        (container,) = pod["containers"]
        # What a policy for exit codes needs.
        assert pod["restartPolicy"] == "Never"
        words = [word.replace("/data", str(self.folder)) for word in container["args"]]
        failures = 0
        while failures <= spec["backoffLimit"]:
            grace = pod["terminationGracePeriodSeconds"]
            command = ["srun", container["image"], *words]
            code = self._start(command, signal.SIGTERM, {}, grace_seconds=grace)
            if code == 0:
                return "Complete"
            failures += not any(is_ignored(rule, container["name"], code) for rule in spec["podFailurePolicy"]["rules"])
        return "Failed"

    def _start(
        self, command: list[str], number: int, environment: Mapping[str, str], *, grace_seconds: float = 120.0
    ) -> int:
        assert len(self.codes) < MOST_STARTS
        own = {"SCHEDULER": str(self.folder), "PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests/helpers'}"}
        path = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "IMAGETUNE_CACHE": str(self.folder / "cache")}
        file = self.stop_at(len(self.codes))
        known = 0 if file is None else count_lines(file)
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, **own, **path, **environment}, stdout=log, stderr=log
            )
            if file is not None:
                wait_until(lambda: count_lines(file) > known or process.poll() is not None, 120)
                os.kill(int((self.folder / "task").read_text()), number)
            # Whoever is still there when the grace period is over is killed, which no test expects.
            code = process.wait(grace_seconds)
        self.codes.append(code)
        return code


def read_option(options: list[str], name: str) -> str:
    (value,) = (option.removeprefix(f"{name}=") for option in options if option.startswith(f"{name}="))
    return value


def is_ignored(rule: Mapping[str, object], container: str, code: int) -> bool:
    asked = rule["onExitCodes"]
    assert (rule["action"], asked["operator"]) == ("Ignore", "In")
    return asked["containerName"] == container and code in asked["values"]


@pytest.fixture
def scheduler(tmp_path) -> Scheduler:
    return Scheduler(tmp_path)


def tell(scheduler: Scheduler, *codes: int) -> None:
    scheduler.install(TOLD)
    (scheduler.folder / "codes").write_text("".join(f"{code}\n" for code in codes))


def list_starts(scheduler: Scheduler) -> Iterator[list[str]]:
    yield from (line.split() for line in (scheduler.folder / "started").read_text().splitlines())


def test_the_slurm_script_is_run_again_until_it_is_done(scheduler):
    tell(scheduler, REQUEUE, REQUEUE, 0)
    assert scheduler.run_slurm(read_block("sh", "#SBATCH")) == 0
    assert scheduler.codes == [REQUEUE, REQUEUE, 0]
    starts = list(list_starts(scheduler))
    assert starts == [["fit", "flowers.yaml", "--run-dir", "runs/flowers", "--resume"]] * 3


@pytest.mark.parametrize("code", [2, 5, 143])
def test_the_slurm_script_ends_with_the_code_of_what_failed(scheduler, code):
    tell(scheduler, REQUEUE, code)
    assert scheduler.run_slurm(read_block("sh", "#SBATCH")) == code


def test_a_pod_that_was_moved_is_no_failure_of_the_job(scheduler):
    job = yaml.safe_load(read_block("yaml", "kind: Job"))
    moved = job["spec"]["backoffLimit"] + 3
    tell(scheduler, *[REQUEUE] * moved, 137, REQUEUE, 0)
    assert scheduler.run_kubernetes(job) == "Complete"
    assert len(scheduler.codes) == moved + 3


def test_a_job_that_fails_again_and_again_is_given_up(scheduler):
    job = yaml.safe_load(read_block("yaml", "kind: Job"))
    tell(scheduler, *[2] * 10)
    assert scheduler.run_kubernetes(job) == "Failed"
    assert len(scheduler.codes) == job["spec"]["backoffLimit"] + 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["slurm", "kubernetes"])
def test_row_29_a_run_that_a_scheduler_stops_and_starts_again_ends_as_one_that_it_does_not(
    scheduler, images, commands, kind
):
    long = RECIPE.replace("epochs: 1", "epochs: 60").replace("bootstrap_samples: 100", "explain: 0")
    (scheduler.folder / "flowers.yaml").write_text(long.format(source=images) + "tracking: {enabled: false}\n")
    metrics = scheduler.folder / "runs/flowers/metrics.jsonl"
    scheduler.stop_at = lambda number: metrics if number < 2 else None
    scheduler.install(REAL)
    if kind == "slurm":
        assert scheduler.run_slurm(read_block("sh", "#SBATCH")) == 0
    else:
        assert scheduler.run_kubernetes(yaml.safe_load(read_block("yaml", "kind: Job"))) == "Complete"
    assert scheduler.codes == [REQUEUE, REQUEUE, 0], (scheduler.folder / "log").read_text()[-2000:]
    assert commands.run("fit", scheduler.folder / "flowers.yaml", "--run-dir", "whole").code == 0
    assert read_result(scheduler.folder / "runs/flowers") == read_result(scheduler.folder / "whole")
