"""The GPU programme: it runs whole with small sizes, goes on where it stopped, and packs what a machine lacks."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.benchmarks.pack_for_gpu import closure, write_parts
from experiments.benchmarks.trace import own_times
from tests.support.studies import ROUGH_FLAGS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PARTS = ["throughput", "layers", "profile", "grid", "deterministic", "large", "throughput_tf32", "compile"]


def on_gpu(*arguments):
    """Runs the programme with this Python."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "XLA_FLAGS": ROUGH_FLAGS}
    command = ["bash", str(ROOT / "experiments/benchmarks/on_gpu.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


def test_parts_leave_their_tables_and_a_second_call_measures_nothing(tmp_path):
    pytest.importorskip("torch")
    parts = ["throughput", "profile", "grid"]  # the others are called alike
    done = on_gpu("--tiny", f"--output={tmp_path}", *parts)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("machine: ") and "jax " in done.stdout and "torch " in done.stdout
    tables = {part: (tmp_path / part / "table.csv").read_bytes() for part in parts}
    assert all((tmp_path / part / "summary.txt").read_text().strip() for part in parts)
    throughput = pd.read_csv(tmp_path / "throughput/table.csv")
    expected = {("cnnjax", 1), ("cnnjax", 2), ("pytorch", 1), ("torch.func", 2), ("source loop", 1)}
    assert set(throughput[["contender", "members"]].itertuples(index=False, name=None)) == expected
    assert (throughput[["images_per_second", "cnnjax_1_ratio", "cnnjax_2_ratio", "share_of_peak"]] > 0).all(axis=None)
    grid = pd.read_csv(tmp_path / "grid/table.csv").iloc[0]
    assert grid["finished_trials"] == grid["trials"] == 8 and grid["exit_status"] == 0
    log = (tmp_path / "profile/log.txt").read_text().splitlines()
    assert sum(" us an image " in line and "jit(" in line for line in log) >= 10  # the longest kernels

    again = on_gpu("--tiny", f"--output={tmp_path}", *parts)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {part: (tmp_path / part / "table.csv").read_bytes() for part in parts} == tables


def test_a_part_that_is_cut_off_keeps_its_rows_and_goes_on(tmp_path):
    cut = on_gpu("--tiny", f"--output={tmp_path}", "--limit=1", "layers")
    assert cut.returncode == 1 and "not whole: layers" in cut.stderr
    table = tmp_path / "layers/table.csv"
    assert on_gpu("--tiny", f"--output={tmp_path}", "layers").returncode == 0
    whole = pd.read_csv(table)
    assert set(whole["population"]) == {1, 2}
    whole[whole["population"] == 1].to_csv(table, index=False)  # as after a kill behind the first layer
    assert on_gpu("--tiny", f"--output={tmp_path}", "layers").returncode == 0
    rows = pd.read_csv(table)
    assert set(rows["population"]) == {1, 2}
    kept = ["milliseconds", "method"]
    assert rows[rows["population"] == 1][kept].equals(whole[whole["population"] == 1][kept])


def test_an_unknown_part_is_refused_in_one_line(tmp_path):
    done = on_gpu(f"--output={tmp_path}", "layer")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"error: part layer does not exist; use {' '.join(PARTS)}"]


def test_parts_joined_are_one_file_of_arrays(tmp_path):
    arrays = {"x_train": np.arange(3000, dtype=np.uint8).reshape(10, 10, 10, 3), "y_train": np.arange(10)}
    paths = list(write_parts(arrays, tmp_path, 1000))
    assert len(paths) == 4 and all(path.stat().st_size <= 1000 for path in paths)
    joined = tmp_path / "joined.npz"
    joined.write_bytes(b"".join(path.read_bytes() for path in paths))
    with np.load(joined) as read:
        assert {name: read[name].tolist() for name in read} == {name: array.tolist() for name, array in arrays.items()}


def test_what_a_package_needs_is_found_without_a_network():
    needed = closure(["cnnjax"])
    assert {"jax", "jaxlib", "numpy", "ml-collections", "tensorflow-datasets", "array-record"} <= set(needed)
    assert {"jax", "jaxlib", "numpy"} <= set(closure(["jax"])) and "ml-collections" not in closure(["jax"])
    assert "pytest" not in needed  # an extra


def test_kernels_of_a_gpu_count_once_and_those_of_a_cpu_without_what_they_hold():
    def event(tid, name, start, duration, **arguments):
        return {"ph": "X", "pid": 1, "tid": tid, "name": name, "ts": start, "dur": duration, "args": arguments}

    places = {"fusion.1": "jit(f)/a", "while.2": "jit(f)/b"}
    cpu = [event(1, "while.2", 0, 10), event(1, "fusion.1", 2, 3), event(1, "python", 0, 99), {}]
    spent: dict[str, float] = {}
    for name, _, duration in own_times(cpu, places):
        spent[name] = spent.get(name, 0) + duration
    assert spent == {"while.2": 7, "fusion.1": 3}

    threads = {7: "Stream #18(Compute)", 8: "XLA Ops"}
    named = [
        {"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": {"name": name}}
        for tid, name in threads.items()
    ]
    gpu = [event(7, "loop_fusion", 0, 4, hlo_op="fusion.1"), event(7, "memset", 5, 1), event(8, "fusion.1", 0, 4)]
    assert list(own_times([*named, *gpu], places)) == [("fusion.1", "jit(f)/a", 4), ("memset", "", 1)]
