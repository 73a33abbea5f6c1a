"""Where work runs: cases in threads of this process or in cluster workers, whole commands in separate processes."""

from autoseg.engines.choice import ENGINES, engine_of
from autoseg.engines.cores import CoreUse, core_use, followed_cores, free_cores, kept_busy, usable_cores
from autoseg.engines.local import LocalEngine, default_workers, map_cases
from autoseg.engines.processes import STOP_SIGNALS, on_stop_signals, run_command, run_commands
from autoseg.engines.saying import said_of, saying
from autoseg.engines.steps import Engine, Outcome, Pipelined, Runner, Step, reason_of, values_of

__all__ = [
    "ENGINES",
    "STOP_SIGNALS",
    "CoreUse",
    "Engine",
    "LocalEngine",
    "Outcome",
    "Pipelined",
    "Runner",
    "Step",
    "core_use",
    "default_workers",
    "engine_of",
    "followed_cores",
    "free_cores",
    "kept_busy",
    "map_cases",
    "on_stop_signals",
    "reason_of",
    "run_command",
    "run_commands",
    "said_of",
    "saying",
    "usable_cores",
    "values_of",
]
