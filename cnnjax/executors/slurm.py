"""Tasks as a job array of SLURM, or as processes of this machine, by submitit."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import submitit

from cnnjax.executors.base import Outcome, Task
from cnnjax.executors.worker import work
from cnnjax.study.overrides import read_value
from cnnjax.utils.errors import RequestError, one_of
from cnnjax.utils.text import counted

_CLUSTERS = ("slurm", "local")
_MINUTES = {"slurm": 24 * 60, "local": 365 * 24 * 60}  # of a job, where --slurm does not say `time`
_REQUEUES = 20  # of a job whose time is over


class SubmititEngine:
    """Submits one array of jobs.

    Args:
        cluster: slurm or local; None takes slurm where it is there.
        cpus: of each job; None leaves it to the cluster.
        slurm: `key=value` of sbatch, as submitit calls them.
    """

    def __init__(self, cluster: str | None, cpus: int | None, slurm: Sequence[str]):
        if cluster is not None and cluster not in _CLUSTERS:
            raise RequestError("--cluster", cluster, one_of(cluster, _CLUSTERS))
        self.cpus = cpus
        self.compilation_cache: str | None = None
        self._cluster = cluster or submitit.AutoExecutor.which()
        self._slurm = dict(map(_parameter, slurm))
        self._jobs: dict[str, submitit.Job] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is to end."""

    def submit(self, workdir: Path, tasks: Sequence[Task]) -> str:
        """See Engine."""
        folder = workdir / "jobs"
        parameters: dict[str, Any] = {"name": "cnnjax", "timeout_min": _MINUTES[self._cluster]}
        parameters |= {"cpus_per_task": self.cpus} if self.cpus else {}
        try:
            executor = submitit.AutoExecutor(folder, cluster=self._cluster, slurm_max_num_timeout=_REQUEUES)
            executor.update_parameters(**parameters, **{f"slurm_{key}": v for key, v in self._slurm.items()})
            jobs = executor.map_array(Resumable(), tasks)
        except (NameError, AssertionError, RuntimeError) as error:  # of submitit, or what sbatch said
            said = " ".join(str(error).split())
            raise RequestError("--slurm", ",".join(f"{k}={v}" for k, v in self._slurm.items()), said) from error
        self._jobs = {task["program"]: job for task, job in zip(tasks, jobs, strict=True)}
        ids = ", ".join(job.job_id for job in jobs)
        return f"submitit, {self._cluster}: {counted(len(jobs), 'job')}, {ids}; what they print: {folder}"

    def ended(self) -> dict[str, Outcome]:
        """See Engine."""
        done = [program for program, job in self._jobs.items() if job.done()]
        return {program: _outcome(self._jobs.pop(program)) for program in done}

    def cancel(self) -> None:
        """See Engine."""
        for job in self._jobs.values():
            job.cancel(check=False)
        self._jobs.clear()


class Resumable:
    """A job that is put back into the queue when its time is over or its machine is wanted, and then goes on."""

    def __call__(self, task: Task) -> Outcome:
        """Trains the task's program."""
        try:
            return work(task)
        except SystemExit as end:  # of submitit, when the job has been put back
            # At once: the interpreter's own end waits minutes for a state that orbax has just begun to write.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(end.code or 0))

    def checkpoint(self, task: Task) -> submitit.helpers.DelayedSubmission:
        """Returns what is put back: the same, for all that counts is on disk."""
        return submitit.helpers.DelayedSubmission(self, task)


def _outcome(job: submitit.Job) -> Outcome:
    try:
        return job.result()
    except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
        what = f"job {job.job_id} died (state {job.state}); its log is {job.paths.stderr}"
        return {"host": "a worker", "error": f"{what}; the same command goes on from its last state", "wrong": False}


def _parameter(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise RequestError("--slurm", text, "must be parameters of sbatch as key=value,key=value")
    return key, read_value(value)
