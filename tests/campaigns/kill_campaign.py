"""Ends whole studies at random moments, again and again, and compares what they leave with an uninterrupted run.

    python -m tests.campaigns.kill_campaign --kills=60
    python -m tests.campaigns.kill_campaign --kills=20 --signals=INT,TERM,INT+INT
    python -m tests.campaigns.kill_campaign --kills=20 --grow

With --grow, each run starts as a smaller study, uninterrupted, and is interrupted while it grows.
A moment is a phase of a run, drawn at random, and a short random time after its beginning. Every run is started again
until it is finished. Its trials.csv (but for the times), metrics.jsonl and predictions must then be
those of the uninterrupted run, bit for bit.
"""

import argparse
import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "models": "baseline",
    "seeds": "0,1",
    "data.train_examples": "150",
    "data.validation": "50",
    "train.epochs": "3,8",
    "train.batch_size": "50,75",
    "train.optimizer": "sgd",
    "train.learning_rate": "0.05",
    "train.momentum": "0.9",
}
SMALLER = {"seeds": "0", "train.epochs": "3", "train.batch_size": "75"}  # what grows
# What appears when a phase begins: a file of the run's folder, or nothing: the process itself.
PHASES = {
    "starting": None,
    "compiling": "data.json",
    "training": "programs/*/metrics.jsonl",
    "checkpointing": "checkpoints/*/*/*orbax-checkpoint-tmp*",
    "second program": "checkpoints/p*",
    "recording": "predictions/.t*.tmp",
    "row": "programs/*/trials.jsonl",
    "views": ".trials.csv.*.tmp",
    "reporting": "report",
}


def launch(workdir: Path, *more: str, smaller: bool = False) -> subprocess.Popen:
    """Starts the study, or goes on with it."""
    config = f"--config={ROOT}/configs/quickstart.py"
    settings = [f"--config.{key}={value}" for key, value in (SETTINGS | (SMALLER if smaller else {})).items()]
    return subprocess.Popen(
        [sys.executable, "-m", "cnnjax.launch", config, f"--workdir={workdir}", *settings, *more],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_all(workdir: Path) -> dict[str, object]:
    """Every number of a run, as it is on disk: none of the times."""
    rows = [line.rsplit(",", 2)[0] for line in (workdir / "trials.csv").read_text().splitlines()]
    arrays = {
        file.name: {name: array.tobytes() for name, array in np.load(file).items()}
        for file in sorted((workdir / "predictions").iterdir())
    }
    return {"trials.csv": rows, "metrics.jsonl": (workdir / "metrics.jsonl").read_bytes(), "predictions": arrays}


def wait_for(process: subprocess.Popen, workdir: Path, phase: str, delay: float) -> None:
    """Returns a while after a phase has begun, or when the process has ended."""
    pattern = PHASES[phase]
    began = time.time()
    while process.poll() is None and pattern is not None:
        # What was there before does not count.
        if any(path.stat().st_ctime >= began for path in _found(workdir, pattern)):
            break
        time.sleep(0.002)
    deadline = time.monotonic() + delay
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


def _found(workdir: Path, pattern: str) -> list[Path]:
    found = []
    for path in workdir.glob(pattern):
        if path.exists():  # it may be gone again
            found.append(path)
    return found


def end(process: subprocess.Popen, workdir: Path, signals: str) -> tuple[str, float]:
    """Ends a process by signals, joined by '+'; returns its last words and how long it took.

    Raises:
        AssertionError: it went on to the end of its work as if there had been no signal.
    """
    start, moment = time.monotonic(), time.time()
    for name in signals.split("+"):
        process.send_signal(signal.Signals[f"SIG{name}"])
        time.sleep(0.1)
    output, _ = process.communicate(timeout=600)
    swallowed = process.returncode == 0 and (workdir / "report/index.html").stat().st_mtime > moment
    assert not swallowed, f"{signals} was swallowed\n{output}"
    return output, time.monotonic() - start


def check_end(process: subprocess.Popen, signals: str, output: str) -> None:
    """Raises AssertionError where a process did not end as it should; 0 is one that was just finished."""
    first = signals.partition("+")[0]
    allowed = {"KILL": {-9}, "INT": {130}, "TERM": {130}}[first] | {0}
    if "+" in signals:
        allowed |= {-2, -15}
    if "INT" in signals or "TERM" in signals:
        allowed |= {-2, -15} if "starting" in output or not output else set()  # Python itself was still starting
    assert process.returncode in allowed, f"{signals}: exit code {process.returncode}\n{output}"
    assert "Exception ignored" not in output, output
    assert "Traceback" not in output or not output.count("Error"), output


def campaign(kills: int, signals: list[str], seed: int, folder: Path, grow: bool) -> None:
    """Interrupts runs until there were so many interruptions, and compares each one."""
    os.environ["CNNJAX_CACHE"] = str(folder / "cache")
    rng = random.Random(seed)
    if grow:
        output, _ = launch(folder / "start", smaller=True).communicate()
        shutil.copytree(folder / "start", folder / "whole")
    process = launch(folder / "whole")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    expected = read_all(folder / "whole")
    done: collections.Counter = collections.Counter()
    times: dict[str, list[float]] = collections.defaultdict(list)
    finished = 0
    while sum(done.values()) < kills:
        workdir = folder / f"run{finished}"
        if grow:
            shutil.copytree(folder / "start", workdir)
        while True:
            phase, kind = rng.choice(list(PHASES)), rng.choice(signals)
            interrupts = sum(done.values()) < kills
            cache = ["--compilation_cache=off"] if rng.random() < 0.25 else []
            process = launch(workdir, *cache)
            if interrupts:
                wait_for(process, workdir, phase, rng.uniform(0, 2.0 if phase in ("starting", "compiling") else 0.5))
            if interrupts and process.poll() is None:
                output, seconds = end(process, workdir, kind)
                check_end(process, kind, output)
                if process.returncode != 0:
                    done[phase] += 1
                    times[kind].append(seconds)
                    print(f"{sum(done.values()):3} {kind:8} {phase:15} ended in {seconds:.2f} s", flush=True)
                    continue
            else:
                output, _ = process.communicate()
                assert process.returncode == 0, output
            break
        found = read_all(workdir)
        for name, value in expected.items():
            assert found[name] == value, f"{workdir}: {name} differs"
        assert (workdir / "report/index.html").exists()
        assert not list(workdir.glob("**/.*.tmp")), "something half written stays"
        finished += 1
        shutil.rmtree(workdir)
        print(f"run {finished} is finished and equal", flush=True)
    print(f"{sum(done.values())} interruptions: {dict(done)}; {finished} runs finished, all equal bit for bit")
    for kind, seconds_ in times.items():
        print(f"{kind}: ended after {np.median(seconds_):.2f} s (median), {max(seconds_):.2f} s (most)")


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--signals", default="KILL", help="of KILL, INT, TERM; INT+INT is two, a tenth second apart")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grow", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        campaign(options.kills, options.signals.split(","), options.seed, Path(folder), options.grow)


if __name__ == "__main__":
    main()
