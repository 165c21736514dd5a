"""What a person sees of a run: a live display on a terminal, plain lines elsewhere.

Both are fed the records of `nodes.telemetry`, so the coordinator's own display, the demo that
starts it, and a log read afterwards all tell the same story.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Final, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nodes.telemetry import Emit, Record

__all__ = ["RunView", "human_bytes", "line_of", "show_progress", "weights_line"]

_MOST_NAMED: Final = 12


def human_bytes(count: float) -> str:
    """Return 12_345_678 as "12.3 MB"."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def weights_line(weights: Mapping[str, int]) -> str:
    """Return who got which weight as "3 for a, b; 2 for c", the greatest first."""
    groups: dict[int, list[str]] = {}
    for node, weight in sorted(weights.items()):
        groups.setdefault(weight, []).append(node)
    shown = []
    for weight, nodes in sorted(groups.items(), reverse=True):
        names = ", ".join(nodes) if len(nodes) <= _MOST_NAMED else f"{len(nodes)} nodes"
        shown.append(f"{weight} for {names}")
    return "; ".join(shown)


def _weights_given(record: Record) -> str:
    """Return "weights 1 to 3" where the coordinator gave them, else the mean that nodes gave."""
    given = record.get("weights", ())
    if max(given, default=1) > 1 or record.get("outliers"):
        outliers = len(record.get("outliers", ()))
        left_out = f", {outliers} left out as too far off" if outliers else ""
        return f"weights {min(given)} to {max(given)}{left_out}"
    return f"weight {record['weight']:.3f}"


def _learnt(record: Record) -> str:
    """Return the loss, or what the round spent where no loss is summed."""
    spent = record.get("epsilon")
    parts = [] if record["loss"] is None else [f"loss {record['loss']:.4f}"]
    return ", ".join(parts + ([] if spent is None else [f"epsilon {spent:.3g} spent"]))


def _cut(record: Record) -> str:
    """Say how many updates lost length where none should; noise for whole nodes means to cut."""
    clipped = record.get("clipped")
    if not clipped or record.get("epsilon") is not None:
        return ""
    count = len(record["contributors"])
    return f"{clipped} of {count} updates were longer than update_bound and were cut to it"


class RunView:
    """The state of a run as far as the records told it."""

    def __init__(self) -> None:
        self.nodes: dict[str, str] = {}
        self.scheme = ""
        self.rounds_done = self.rounds_total = 0
        self.round_id = 0
        self.phase = "starting"
        self.loss: float | None = None
        self.epsilon: float | None = None
        self.weight: float | None = None
        self.bytes = (0, 0)
        self.note = ""
        self.over: bool | None = None

    def take(self, record: Record) -> None:
        """Update from one record."""
        if "bytes_sent" in record:
            self.bytes = record["bytes_sent"], record["bytes_received"]
        handler = getattr(self, "_on_" + record["event"].replace(".", "_"), None)
        if handler is not None:
            handler(record)

    def _on_coordinator_listening(self, record: Record) -> None:
        self.nodes = dict.fromkeys(record["nodes"], "absent")
        self.scheme, self.phase = record["scheme"], "waiting for nodes"
        self.rounds_done, self.rounds_total = record["rounds_done"], record["rounds_total"]

    def _on_joined(self, record: Record) -> None:
        self.nodes[record["peer"]] = "here"

    def _on_left(self, record: Record) -> None:
        self.nodes[record["node"]] = (
            "done" if record["reason"] == "said goodbye" else record["reason"]
        )

    def _on_round_started(self, record: Record) -> None:
        self.round_id, self.phase = record["round_id"], "training"
        self.nodes.update(dict.fromkeys(record["cohort"], "training"))

    def _on_phase_changed(self, record: Record) -> None:
        # Local training happens while the coordinator waits for the first message.
        first = record["phase"] == "keys"
        self.phase = "training" if first else record["phase"]
        waiting = set(record["waiting_for"])
        for node, state in self.nodes.items():
            if node in waiting:
                self.nodes[node] = self.phase
            elif record["phase"] == "opening":
                pass  # its part is done: only the committee is asked
            elif state not in ("absent", "silent", "done"):
                self.nodes[node] = "out of this round"

    def _on_round_done(self, record: Record) -> None:
        self.rounds_done, self.loss, self.weight = (
            record["rounds_done"],
            record["loss"],
            record["weight"],
        )
        self.epsilon = record.get("epsilon")
        self.nodes.update(dict.fromkeys(record["contributors"], "in the sum"))
        self.note = _cut(record)

    def _on_round_lost(self, record: Record) -> None:
        self.note = (
            f"round {record['round_id']} aborted: {record['reason']} "
            f"({record['alive']} nodes, {record['needed']} needed); nothing was released"
        )

    def _on_demo_report(self, record: Record) -> None:
        self.phase = "measuring"
        self.nodes[record["node"]] = "measured"

    def _on_run_over(self, record: Record) -> None:
        self.over, self.phase = record["complete"], "over"
        self.note = "" if record["complete"] else record["reason"]


def line_of(record: Record, view: RunView) -> str | None:
    """Return the plain line for a record, or None for those that only a log wants."""
    match record["event"]:
        case "coordinator.listening":
            again = f", resumed after {record['rounds_done']} rounds" if record["resumed"] else ""
            clear = record["scheme"] == "insecure-plain"
            warning = "; WARNING: it can read every update" if clear else ""
            if record.get("weights") == "coordinator":
                warning = "; nodes disclose their distance, and it weighs them"
            return f"coordinator on {record['endpoint']}, scheme {record['scheme']}{again}{warning}"
        case "joined":
            here = sum(state not in ("absent", "silent") for state in view.nodes.values())
            return f"{record['peer']} joined ({here} of {len(view.nodes)})"
        case "left" if record["reason"] != "said goodbye":
            return f"{record['node']} left: {record['reason']}"
        case "round.started":
            return (
                f"round {record['rounds_done'] + 1}/{record['rounds_total']}: "
                f"{len(record['cohort'])} nodes train, {record['quorum']} needed"
            )
        case "round.done":
            sent, received = view.bytes
            cut = _cut(record)
            return (
                f"round {record['rounds_done']}/{record['rounds_total']} done: "
                f"{len(record['contributors'])} nodes, {_learnt(record)}, "
                f"{_weights_given(record)}, "
                f"{human_bytes(received)} in, {human_bytes(sent)} out so far{cut and '; ' + cut}"
            )
        case "round.lost":
            return view.note
        case "node.refused":
            return f"{record['node']} refused: {record['explanation']}"
        case "peer.rejected":
            return f"rejected {record['reason']}"
        case "stranger.refused":
            return f"turned away a stranger with transport key {record['transport_key']}"
        case "waiting.for.nodes":
            return f"waiting: {len(record['joined'])} nodes here, {record['needed']} needed"
        case "demo.provisioning":
            return f"keys for a coordinator and {record['nodes']} nodes in {record['folder']}"
        case "demo.report":
            return f"{record['node']} has measured its detector"
        case "node.died":
            return f"{record['node']} ended unexpectedly: {record['log']}"
        case "run.over":
            return "run complete" if record["complete"] else f"run ended: {record['reason']}"
        case _:
            return None


class _Display:
    """The live panel: a bar of rounds, a line of facts, one line a node."""

    _STYLES = {"absent": "dim", "silent": "red", "in the sum": "green", "done": "green"}  # noqa: RUF012

    def __init__(self, view: RunView) -> None:
        self._view = view

    def __rich__(self) -> RenderableType:
        view = self._view
        facts = Table.grid(padding=(0, 2))
        loss = "-" if view.loss is None else f"{view.loss:.4f}"
        sent, received = view.bytes
        facts.add_row(
            Text(f"round {view.rounds_done}/{view.rounds_total}", style="bold"),
            ProgressBar(total=max(1, view.rounds_total), completed=view.rounds_done, width=30),
            f"phase {view.phase}",
            f"loss {loss}" if view.epsilon is None else f"epsilon {view.epsilon:.3g} spent",
            f"{human_bytes(received)} in, {human_bytes(sent)} out",
        )
        nodes = Table.grid(padding=(0, 2))
        for node, state in sorted(view.nodes.items()):
            nodes.add_row("  " + node, Text(state, style=self._STYLES.get(state, "cyan")))
        note = Text(view.note, style="yellow") if view.note else Text("")
        return Group(facts, nodes, note)


@contextlib.contextmanager
def show_progress(stream: TextIO, *, quiet: bool = False) -> Iterator[tuple[Emit, RunView]]:
    """Show records on `stream`: live where it is a terminal, plain lines otherwise.

    Yields:
        What to call with each record, and the view it keeps.
    """
    view = RunView()
    console = Console(file=stream)
    if quiet:
        yield view.take, view
        return
    if not console.is_terminal:

        def print_line(record: Record) -> None:
            view.take(record)
            line = line_of(record, view)
            if line is not None:
                stream.write(line + "\n")
                stream.flush()

        yield print_line, view
        return
    # Redrawn at each record: a refresh thread could come between a line and the frame below it.
    with Live(_Display(view), console=console, auto_refresh=False) as live:

        def update(record: Record) -> None:
            view.take(record)
            quiet_events = ("round.started", "round.done", "joined", "run.over", "demo.report")
            line = None if record["event"] in quiet_events else line_of(record, view)
            if line is not None:
                live.console.print(line, style="dim", highlight=False, markup=False)
            live.refresh()

        yield update, view
