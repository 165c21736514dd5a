"""A peer's own virtual environment, made from the package index on first use and then kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from bench.common import BenchError

__all__ = ["Environment", "Way", "default_folder", "ensure_installed", "run_harness"]

INSTALL_TIMEOUT_S = 900.0
_MARKER = "secagg-bench-peer.json"
_QUIETLY = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

Way: TypeAlias = tuple[str, tuple[tuple[str, ...], ...]]
"""How to install a peer: in words to print beside the figures, and pip's arguments, in order."""


@dataclass(frozen=True)
class Environment:
    """A peer's environment, ready for use.

    Attributes:
        folder: The virtual environment.
        how: The way that it was installed, in words.
        unmet: Requirements of the peer that are not met as declared (`pip check`).
    """

    folder: Path
    how: str
    unmet: tuple[str, ...]

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return _python(self.folder)


def default_folder(name: str) -> Path:
    """Return where a peer's environment is kept: under the user's cache, by interpreter."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    interpreter = f"py{sys.version_info.major}.{sys.version_info.minor}"
    return Path(cache) / "secagg-bench" / f"{name}-{interpreter}"


def ensure_installed(name: str, ways: Sequence[Way], folder: Path | None = None) -> Environment:
    """Return the environment of a peer; install it if this was not done yet.

    Args:
        name: Of the peer with its version; another name in the same folder installs anew.
        ways: Tried in order until one succeeds.
        folder: New or empty, or made by this function; None for `default_folder`.

    Raises:
        BenchError: the folder holds something else, or no way succeeded.
    """
    folder = folder or default_folder(name)
    marker = folder / _MARKER
    if marker.is_file():
        state = json.loads(marker.read_text(encoding="utf-8"))
        if state["name"] == name and state["how"]:
            return Environment(folder, state["how"], tuple(state["unmet"]))
        shutil.rmtree(folder)  # ours, but unfinished or of another peer
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BenchError(
            f"{folder} holds something else than a peer's environment",
            hint="name a folder that does not exist yet",
        )
    folder.mkdir(parents=True, exist_ok=True)
    _mark(marker, name)
    run([sys.executable, "-m", "venv", str(folder)], timeout_s=INSTALL_TIMEOUT_S)
    how = _install(folder, name, ways)
    unmet = _unmet(folder)
    _mark(marker, name, how, unmet)
    return Environment(folder, how, unmet)


def _mark(marker: Path, name: str, how: str = "", unmet: tuple[str, ...] = ()) -> None:
    """Write what the folder is; without `how` it is not finished."""
    state = {"name": name, "how": how, "unmet": unmet}
    marker.write_text(json.dumps(state), encoding="utf-8")


def _install(folder: Path, name: str, ways: Sequence[Way]) -> str:
    causes = []
    for how, steps in ways:
        try:
            for step in steps:
                _pip(folder, "install", "--quiet", *step)
        except BenchError as error:
            causes.append(f"{how}: {error}")
        else:
            return how
    raise BenchError(
        f"{name} could not be installed.\n" + "\n".join(causes),
        hint="the first use needs the package index; see bench/peers/README.md",
    )


def _unmet(folder: Path) -> tuple[str, ...]:
    try:
        _pip(folder, "check")
    except BenchError as error:
        return tuple(line for line in str(error).splitlines() if " has requirement " in line)
    return ()


def _pip(folder: Path, *arguments: str) -> None:
    command = [str(_python(folder)), "-m", "pip", "--disable-pip-version-check", *arguments]
    run(command, timeout_s=INSTALL_TIMEOUT_S)


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def run(command: list[str], *, timeout_s: float, variables: dict[str, str] | None = None) -> str:
    """Run a command to its end and return its standard output.

    Args:
        command: Program and arguments.
        timeout_s: Seconds of wall time before it is killed.
        variables: Added to the environment.

    Raises:
        BenchError: it failed (with the end of what it said), or took too long.
    """
    program = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=True,
            encoding="utf-8",
            env={**os.environ, **(variables or {})},
            timeout=timeout_s,
        )
    except subprocess.CalledProcessError as error:
        lines = (error.stdout + error.stderr).strip().splitlines()[-8:]
        said = "\n".join(line[:300] for line in lines)
        raise BenchError(f"{program} ended with {error.returncode}:\n{said}") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(
            f"{program} took longer than {timeout_s:.0f} s", hint="give it more time, or less to do"
        ) from error
    return done.stdout


def run_harness(
    environment: Environment, harness: Path, case: Mapping[str, object], *, timeout_s: float
) -> str:
    """Run a peer's harness on a case in a process of its own, on one thread; return its JSON.

    Args:
        environment: The peer's.
        harness: The script, which takes the case as a JSON object.
        case: Its fields.
        timeout_s: Seconds that it may take.

    Raises:
        BenchError: the harness failed, or took longer.
    """
    command = [str(environment.python), "-I", str(harness), json.dumps(case)]
    return run(command, timeout_s=timeout_s, variables=_QUIETLY)
