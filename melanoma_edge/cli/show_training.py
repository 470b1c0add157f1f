"""What `train` shows while it runs: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from melanoma_edge.cli.show import Screen

PLAIN_INTERVAL = 15.0
"""Seconds between progress lines where there is no terminal."""


@contextlib.contextmanager
def training(screen: Screen):
    """Yield a callback (event, facts) that shows a training run on `screen`."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[detail]}"))
    with screen.progress(*columns) as progress:
        yield Training(screen, progress).event


class Training:
    """Follows the events of a training run on a progress bar, or in lines where there is no terminal."""

    def __init__(self, screen: Screen, progress: Progress):
        self.screen, self.progress = screen, progress
        self.task = progress.add_task("reading", total=None, detail="")
        self.epochs, self.last = 1, 0.0
        self.fold = ""
        self.judged = ""
        self.since: tuple[float, int] | None = None
        self.data_said = False
        self.devices_said: dict | None = None

    def event(self, event: str, facts: dict) -> None:
        getattr(self, f"on_{event}", lambda _: None)(facts)

    def on_index(self, facts: dict) -> None:
        self.progress.update(self.task, description="reading pictures", completed=facts["done"], total=facts["total"])

    def on_fold(self, facts: dict) -> None:
        self.fold = f"fold {facts['fold'] + 1}/{facts['folds']}: "
        self.last = 0.0

    def on_init(self, facts: dict) -> None:
        fresh = f"; at random, since the classes are others: {', '.join(facts['fresh'])}" if facts["fresh"] else ""
        self.screen.line(f"{self.fold}starting from {facts['file']}{fresh}")

    def on_data(self, facts: dict) -> None:
        parts = ", ".join(f"{count} {part}" if count else f"no {part} part" for part, count in facts["parts"].items())
        for name in facts["absent_from_test"]:
            lesions = facts["lesions_per_class"][name]
            self.screen.line(f"{self.fold}no test picture of {name}: its {lesions} lesions stand in the other parts")
        if self.data_said:  # the same for all folds but for their parts
            return self.screen.line(f"{self.fold}{parts}")
        self.data_said = True
        self.screen.line(f"data: {facts['used']} pictures of {facts['used_groups']} lesions ({parts}); classes: {', '.join(facts['per_class'])}")
        none = f", none of {' or '.join(facts['classes_without_lesion_id'])}" if facts["classes_without_lesion_id"] else ""
        known = f"known for {facts['with_lesion_id']} of {facts['used']} pictures{none} ({', '.join(facts['tables'])})"
        self.screen.line(f"lesion ids: {known if facts['with_lesion_id'] else 'unknown: only copies are kept together'}")
        for key in (
            "unreadable",
            "in_no_class_folder",
            "conflicting_groups",
            "conflicts_dropped",
            "relabelled_by_reference",
            "duplicates_dropped",
            "near_copies_dropped",
            "without_picture",
            "groups_under_two_classes",
        ):
            if facts[key]:
                self.screen.line(f"{key.replace('_', ' ')}: {facts[key]}")
        for name, count in facts["unmapped"].items():
            self.screen.line(f"diagnosis of no class, left out: {name} ({count} pictures)")
        for name, count in facts["other_licence"].items():
            self.screen.line(f"other licence, left out: {name} ({count} pictures)")
        for name, lesions in facts["left_out_classes"].items():
            self.screen.line(f"class left out: {name} ({lesions} usable lesions)")

    def on_devices(self, facts: dict) -> None:
        if facts == self.devices_said:  # the same for all folds
            return
        self.devices_said = facts
        counted = Counter("CPU" if name == "CPU" else f"GPU ({name})" for name in facts["names"])
        here = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in counted.items())
        together = f" as worker {facts['worker']} of {facts['workers']}, {facts['replicas']} devices in all" if facts["workers"] > 1 else ""
        arithmetic = (f", mixed {facts['mixed_precision']}" if facts["mixed_precision"] else "") + (", XLA" if facts["xla"] else "")
        self.screen.line(f"computing on: {here}{together}{arithmetic}")

    def on_phase(self, facts: dict) -> None:
        self.epochs, self.judged, self.since = facts["epochs"], "", None
        self.progress.update(self.task, description=f"{self.fold}{facts['phase']}", completed=0, total=None, detail="starting")
        self.screen.line(f"{self.fold}training: {facts['phase']}, {facts['epochs']} epochs")

    def on_step(self, facts: dict) -> None:
        done, total = facts["epoch"] * facts["steps"] + facts["step"], self.epochs * facts["steps"]
        if self.since is None:  # the first step was compiled too
            self.since = time.monotonic(), done
        detail = f"epoch {facts['epoch'] + 1}/{self.epochs}  loss {facts['loss']:.3f}{self.judged}  {facts['images_per_second']:.0f} images/s"
        self.progress.update(self.task, description=f"{self.fold}{facts['phase']}", completed=done, total=total, detail=detail)

    def on_epoch(self, facts: dict) -> None:
        now = time.monotonic()
        last = facts["epoch"] + 1 == facts["epochs"]
        self.judged = f"  balanced accuracy {facts['validation_balanced_accuracy']:.3f}"
        if self.screen.verbose or last or (not self.screen.err.is_terminal and now - self.last > PLAIN_INTERVAL):
            self.last = now
            left = "" if last else f", {_duration(self._left(now, facts))} left"
            self.screen.line(
                f"{self.fold}{facts['phase']} epoch {facts['epoch'] + 1}/{facts['epochs']}: loss {facts['loss']:.3f}, validation balanced accuracy "
                f"{facts['validation_balanced_accuracy']:.3f}, {facts['images_per_second']:.0f} images/s{left}"
            )

    def _left(self, now: float, facts: dict) -> float:
        """Return how many seconds the phase will still take, validation included, at the pace since its first step here."""
        began, first = self.since
        steps = self.progress.tasks[self.task].completed
        each = (now - began) / max(1, steps - first)
        return each * steps / (facts["epoch"] + 1) * (facts["epochs"] - facts["epoch"] - 1)


def _duration(seconds: float) -> str:
    """Return `seconds` as hours, minutes and seconds, as far as they matter."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
