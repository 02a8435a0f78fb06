"""What a table of the GPU programme says, a line for each program.

python -m experiments.benchmarks.gpu_summary PART TABLE.csv
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from cnnjax.utils.text import counted


def throughput(table: pd.DataFrame) -> Iterator[str]:
    """Yields images per second of each population, beside each peer and the matrix product."""
    for (model, batch_size, precision), rows in table.groupby(["model", "batch_size", "precision"], sort=False):
        peers = rows[rows["contender"] != "cnnjax"].drop_duplicates("contender", keep="last")
        for _, ours in rows[rows["contender"] == "cnnjax"].iterrows():
            share = f"{ours.share_of_peak:.1%} of the peak"
            ratios = [f"{peer[f'cnnjax_{ours.members}_ratio']} x {peer.contender}" for _, peer in peers.iterrows()]
            yield (
                f"{model}, batch size {batch_size}, {precision}, {counted(ours.members, 'member')}: "
                f"{ours.images_per_second:,.0f} images/s, {', '.join([*ratios, share])}"
            )


def layers(table: pd.DataFrame) -> Iterator[str]:
    """Yields, for each layer and population, the fastest method and what the chosen one costs beside it."""
    for place, rows in table.groupby(["networks", "input", "features", "kernel", "population"], sort=False):
        networks, shape, features, kernel, population = place
        best = rows.loc[rows["milliseconds"].idxmin()]
        chosen = rows[rows["is_chosen"]]
        price = f"{chosen['milliseconds'].iloc[0] / best.milliseconds:.2f}" if len(chosen) else "?"
        name = chosen["method"].iloc[0] if len(chosen) else "not measured"
        yield (
            f"{networks}: {shape} to {features}, {kernel}x{kernel}, {counted(population, 'member')}: "
            f"{best.method} is fastest ({best.milliseconds:.3f} ms a member); chosen: {name}, {price} of its time"
        )


def profile(table: pd.DataFrame) -> Iterator[str]:
    """Yields the largest parts of each program's step."""
    for (model, batch_size, members, precision), rows in table.groupby(
        ["model", "batch_size", "members", "precision"], sort=False
    ):
        parts = ", ".join(
            f"{part} {share:.0%}" for part, share in rows[["part", "share"]].head(6).itertuples(index=False)
        )
        total = rows["microseconds_an_image"].sum()
        program = f"{model}, batch size {batch_size}, {precision}, {counted(members, 'member')}"
        yield f"{program}: {total:.2f} us an image: {parts}"


def grid(table: pd.DataFrame) -> Iterator[str]:
    """Yields how long the study took."""
    for _, row in table[table["contender"] == "cnnjax"].iterrows():
        yield (
            f"{row.models}, {row.images} images: {row.finished_trials:.0f} of {row.trials} trials in {row.seconds} s "
            f"from command to report (exit status {row.exit_status:.0f}), {row.training_seconds} s of them training"
        )


def compile_times(table: pd.DataFrame) -> Iterator[str]:
    """Yields the seconds of each way to compile."""
    for way, rows in table.groupby("way", sort=False):
        programs = rows[rows["program"] != "all"]
        whole = rows[rows["program"] == "all"]["seconds"]
        total = f"{whole.iloc[0]} s" if len(whole) else "cut off"
        slowest = programs.loc[programs["seconds"].idxmax()]
        yield f"{way}: {len(programs)} programs, {total}; the slowest, {slowest.program}, {slowest.seconds} s"


PARTS: dict[str, Callable[[pd.DataFrame], Iterator[str]]] = {
    "throughput": throughput,
    "throughput_tf32": throughput,
    "deterministic": throughput,
    "large": throughput,
    "layers": layers,
    "profile": profile,
    "grid": grid,
    "compile": compile_times,
}

if __name__ == "__main__":
    part, path = sys.argv[1:]
    for line in PARTS[part](pd.read_csv(Path(path), keep_default_na=False, na_values=[""])):
        print(line)
