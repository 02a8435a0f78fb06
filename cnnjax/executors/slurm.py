"""Tasks as a job array of SLURM, or as local processes, by submitit."""

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
_MINUTES = {
    "slurm": 24 * 60,
    "local": 365 * 24 * 60,
}  # default time limit of a job
_REQUEUES = 20  # of a job after timeouts


class SubmititEngine:
    """Submits a job array.

    Args:
        cluster: 'slurm' or 'local'. None is SLURM if it is available.
        cpus: number of CPUs for each job. None is the cluster's default.
        slurm: parameters of sbatch as `key=value`, with submitit's names.
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
        """Does nothing: jobs outlive the launcher."""

    def submit(self, workdir: Path, tasks: Sequence[Task]) -> str:
        """See Engine."""
        folder = workdir / "jobs"
        parameters: dict[str, Any] = {"name": "cnnjax", "timeout_min": _MINUTES[self._cluster]}
        parameters |= {"cpus_per_task": self.cpus} if self.cpus else {}
        try:
            executor = submitit.AutoExecutor(folder, cluster=self._cluster, slurm_max_num_timeout=_REQUEUES)
            executor.update_parameters(**parameters, **{f"slurm_{key}": v for key, v in self._slurm.items()})
            jobs = executor.map_array(Resumable(), tasks)
        except (NameError, AssertionError, RuntimeError) as error:  # of submitit or sbatch
            problem = " ".join(str(error).split())
            raise RequestError("--slurm", ",".join(f"{k}={v}" for k, v in self._slurm.items()), problem) from error
        self._jobs = {task["program"]: job for task, job in zip(tasks, jobs, strict=True)}
        ids = ", ".join(job.job_id for job in jobs)
        return f"submitit, {self._cluster}: {counted(len(jobs), 'job')}, {ids}; their output: {folder}"

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
    """A job that resumes after a timeout or a preemption, when it has been requeued."""

    def __call__(self, task: Task) -> Outcome:
        """Trains the task's program."""
        try:
            return work(task)
        except SystemExit as end:  # submitit has requeued the job
            # A normal exit would wait minutes for a checkpoint that Orbax has started to write.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(end.code or 0))

    def checkpoint(self, task: Task) -> submitit.helpers.DelayedSubmission:
        """Returns the submission to requeue: the same task, because its state is on disk."""
        return submitit.helpers.DelayedSubmission(self, task)


def _outcome(job: submitit.Job) -> Outcome:
    try:
        return job.result()
    except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
        what = f"job {job.job_id} died (state {job.state}); its log is {job.paths.stderr}"
        return {
            "host": "a worker",
            "error": f"{what}; run the same command again to resume from its last checkpoint",
            "wrong": False,
        }


def _parameter(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise RequestError("--slurm", text, "must be parameters of sbatch as key=value,key=value")
    return key, read_value(value)
