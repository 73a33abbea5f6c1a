"""Watches a folder: one model stays loaded and segments scans as they arrive."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from itertools import islice

from autoseg.data.arrivals import Arrival, Inbox
from autoseg.data.dataset import Case
from autoseg.engines import LocalEngine, Outcome
from autoseg.imaging.files import paths_of
from autoseg.imaging.pictures import label_ending
from autoseg.inference.cohort import CohortResult, Predict, PredictRunner, outcome_of, write_run
from autoseg.options import PredictOptions, Runtime
from autoseg.outputs.asked import asked_outputs
from autoseg.outputs.surfaces import tell_notes
from autoseg.outputs.tables import write_tables
from autoseg.records import CaseOutcome
from autoseg.workspace import write_json

__all__ = ["MADE_BY", "STATION_FILE", "Station", "StationRecord"]

logger = logging.getLogger(__name__)

STATION_FILE, MADE_BY = "station.json", "autoseg predict --watch"
AT_ONCE = 16  # largest number of scans between two listings of the folder
LOOK_SECONDS = 1.0  # between two listings if nothing arrived; shorter than the waiting time of a scan


@dataclass(frozen=True)
class StationRecord:
    """``station.json``: the scans that failed, as {key: stamp}, and why. They are not tried again until they change."""

    made_by: str
    stamps: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Kept:
    """The step of an existing runner."""

    runner: PredictRunner

    def setup(self) -> PredictRunner:
        return self.runner


def _in_short(case: Case) -> Case:
    """The case with one path per folder instead of all images of its series, of which there may be thousands."""
    return replace(case, images=tuple(sorted({path.with_name("scan") for image in case.images for path in paths_of(image)})))


@dataclass
class Station:
    """The state of the station; ``outcomes`` belong to the ``cases`` since it was started."""

    inbox: Inbox
    step: Predict
    options: PredictOptions
    runtime: Runtime
    runner: PredictRunner
    failed: StationRecord
    outcomes: dict[str, CaseOutcome] = field(default_factory=dict)
    cases: dict[str, Case] = field(default_factory=dict)

    def work(self) -> None:
        """Work until KeyboardInterrupt."""
        begun, is_told = time.perf_counter(), True
        write_json(self.step.folder / STATION_FILE, self.failed)  # reserves the name, so that no case can use it
        try:
            while True:
                looked = time.monotonic()
                arrivals = list(islice(self.inbox.arrived(time.monotonic()), AT_ONCE))
                if arrivals:
                    is_told = False
                    self._take(arrivals)
                    continue
                if not is_told:
                    is_told = True
                    self._tell(time.perf_counter() - begun)
                time.sleep(max(LOOK_SECONDS, 4 * (time.monotonic() - looked)))
        finally:
            self._tell(time.perf_counter() - begun)

    def _take(self, arrivals: list[Arrival]) -> None:
        """Segment scans that arrived completely; failures are recorded."""
        faults = {arrival.key: arrival.fault for arrival in arrivals if arrival.fault}
        for ending in sorted({label_ending(arrival.ending) for arrival in arrivals}):
            of = {
                case.id: (arrival.key, case)
                for arrival in arrivals
                if label_ending(arrival.ending) == ending
                for case in arrival.cases
            }
            runner = replace(self.runner, step=replace(self.step, outputs=asked_outputs(self.options, ending)))

            def done(outcome: Outcome, of: dict[str, tuple[str, Case]] = of) -> None:
                key, case = of[outcome.name]
                self.cases[outcome.name] = _in_short(case)
                self.outcomes[outcome.name] = found = outcome_of(outcome)
                if found.status == "failed":
                    faults[key] = found.message
                    logger.error("%s: failed: %s", found.case, found.message)
                else:
                    logger.info("%s: %s", found.case, found.status)

            step, engine = _Kept(runner), LocalEngine(self.runtime.workers)
            engine.map(step, [case for _, case in of.values()], name=lambda case: case.id, on_done=done)
            tell_notes(self.step.folder, [case for case in of if self.outcomes[case].status == "done"])
        for arrival in arrivals:
            self.inbox.handled[arrival.key] = arrival.stamp
            if arrival.fault:
                logger.error("%s: failed: %s", arrival.key, arrival.fault)
        keys = {arrival.key: arrival.stamp for arrival in arrivals}
        stamps = {key: stamp for key, stamp in (self.failed.stamps | keys).items() if key not in keys or key in faults}
        reasons = {key: why for key, why in (self.failed.reasons | faults).items() if key in stamps}
        self.failed = StationRecord(MADE_BY, stamps, reasons)
        write_json(self.step.folder / STATION_FILE, self.failed)

    def _tell(self, seconds: float) -> None:
        """Write the record of the run, and the tables of its cases."""
        found = CohortResult(tuple(self.outcomes.values()), seconds)
        write_run(self.step, self.runner.predictor.bundle, found, self.cases.values())
        write_tables(self.step.folder, found.cases("done", "skipped"))
