"""What a trace of jax's profiler says: which operations ran, for how long, and where in the source they come from."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

_INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = (?:.*?metadata=\{[^}]*op_name="([^"]*)")?', re.MULTILINE)
_LAYER = re.compile(r"Network\)*/(?:Network\._apply/)?((?:conv|bn|dense)\d+)/")


def places_of(program: str) -> dict[str, str]:
    """Returns where each operation of a compiled program, as XLA writes it, comes from, by the operation's name."""
    return dict(_INSTRUCTION.findall(program))


def own_times(events: list[dict[str, Any]], places: Mapping[str, str]) -> Iterator[tuple[str, str, float]]:
    """Yields name, place and microseconds of each operation that ran, without the time of those inside it.

    Args:
        events: of a trace, as Chrome's format has them: complete ones ("X") nest by time in each thread. Where there
            are streams of a GPU, only what ran there counts, also kernels of no known operation.
        places: where an operation comes from, by its name; one that says nothing comes from where the one around it
            does.
    """
    streams = {
        (event["pid"], event["tid"])
        for event in events
        if event.get("ph") == "M" and event["name"] == "thread_name" and "Stream" in event["args"]["name"]
    }
    threads: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        name = event.get("args", {}).get("hlo_op", event.get("name"))
        thread = event.get("pid"), event.get("tid")
        if event.get("ph") == "X" and (thread in streams or (not streams and name in places)):
            threads[thread].append(event | {"name": name})
    for ran in threads.values():
        around: list[tuple[float, str, str]] = []  # the operations that an event lies in: ends, names and places
        for event in sorted(ran, key=lambda event: (event["ts"], -event["dur"])):
            while around and around[-1][0] <= event["ts"]:
                around.pop()
            place = places.get(event["name"], "")
            if around:
                _, name, outer = around[-1]
                place = place or outer
                yield name, outer, -event["dur"]
            yield event["name"], place, event["dur"]
            around.append((event["ts"] + event["dur"], event["name"], place))


def part_of(place: str) -> str:
    """Returns the part of a step that a place in the source belongs to: a layer and its direction, or what is around.

    Args:
        place: as XLA writes it, "jit(f)/while/body/transpose(jvp(Network))/conv0/dot_general".
    """
    if layer := _LAYER.search(place):
        return f"{layer[1]} {'backwards' if 'transpose(' in place else 'forwards'}"
    if "Network)" in place:
        return "activations, pooling, dropout"
    return next((scope for scope in ("augment", "loss", "update") if f"/{scope}/" in place), "the rest")
