"""Takes the picture of a report that README shows, with a headless Chromium.

    python -m experiments.picture runs/quickstart --output=experiments/quickstart/report.png
    python -m experiments.picture runs/quickstart --output=phone.png --width=500 --height=2400 --dark

Chromium must be installed (`apt-get install chromium`). What the page writes to its console, and every address that it
would load, is an error: a report needs no network.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cnnjax.utils import cli
from cnnjax.utils.errors import RequestError

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Of what Chromium's own services would load, the site is another.
_LOADED = re.compile(r'"SiteForCookies: \{site=file://[^"]*","url":"([^"]+)"')


def take(page: Path, picture: Path, width: int, height: int, dark: bool) -> list[str]:
    """Takes a picture of a page.

    Args:
        page: an HTML file.
        picture: the PNG file to write.
        width: of the window, in pixels.
        height: of the window: what is below is not shown.
        dark: as a reader sees it who prefers dark pages.

    Returns:
        What the page wrote to its console, and what it would load from elsewhere: nothing, of a good one.

    Raises:
        RequestError: there is no Chromium, or it took no picture.
    """
    chromium = next(filter(None, map(shutil.which, _NAMES)), None)
    if chromium is None:
        raise RequestError("chromium", "not found", f"must be one of {', '.join(_NAMES)} on the PATH")
    with tempfile.TemporaryDirectory() as profile:
        log = Path(profile) / "net.json"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        options += ["--enable-logging=stderr", f"--log-net-log={log}", "--virtual-time-budget=5000"]
        options += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--blink-settings=preferredColorScheme={int(not dark)}"]
        options += [f"--window-size={width},{height}", f"--screenshot={picture.resolve()}"]
        done = subprocess.run(
            [chromium, *options, page.resolve().as_uri()], capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode or not picture.exists():
            raise RequestError("chromium", str(page), f"it took no picture: {done.stderr.strip().splitlines()[-1:]}")
        loaded = sorted(set(_LOADED.findall(log.read_text())))
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line] + loaded


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the command line, its first word being the program."""
    parser = cli.ArgumentParser(
        prog="python -m experiments.picture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdir", type=Path, help="the run's folder, with its report")
    parser.add_argument("--output", type=Path, required=True, help="the PNG file")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=1500)
    parser.add_argument("--dark", action="store_true")
    return parser.parse_args(argv[1:])


def main(arguments: argparse.Namespace) -> None:
    """Takes the picture that the command line names; a page with faults ends with exit code 1."""
    page = arguments.workdir / "report" / "index.html"
    if not page.is_file():
        raise RequestError("workdir", str(arguments.workdir), "it has no report/index.html")
    faults = take(page, arguments.output, arguments.width, arguments.height, arguments.dark)
    print(arguments.output)
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    cli.run(main, parse)
