"""Dask distributed and Ray as engines for cases: what they need, and what they do when a process dies.

    python benchmarks/engines.py dask=/venvs/dask/bin/python ray=/venvs/ray/bin/python [-o benchmarks/results/engines.json]

Each engine has its own Python, with ``distributed`` or ``ray`` installed beside the requirements of autoseg. Each measurement
is a process of that Python, so that a crash is also a result. What is already in the JSON is not measured again. Two workers,
no dashboard, no usage statistics. The tasks sleep, so that only the engine is measured.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = {"dask": ("distributed", "cryptography"), "ray": ("ray",)}
PARTS = ("installed", "start", "killed", "scheduler")
LIMIT = 150  # seconds for one measurement
TASKS, TASK_SECONDS = 20, 0.3

# from the documentation: what cannot be measured here
DOCUMENTED = {
    "dask": {
        "GPU placement": "one worker for each device, by CUDA_VISIBLE_DEVICES; set by SLURM (--gpus-per-task), dask-cuda, "
        "or whoever starts the workers; resources as labels (docs.dask.org: GPUs; distributed.dask.org: Worker Resources)",
        "SLURM": "srun dask worker --scheduler-file FILE, in any number of jobs; dask-jobqueue submits them",
        "Kubernetes": "dask-kubernetes: an operator with DaskCluster resources; or plain pods, dask scheduler and dask worker",
    },
    "ray": {
        "GPU placement": "tasks ask for num_gpus, the scheduler sets CUDA_VISIBLE_DEVICES (docs.ray.io: Accelerator Support)",
        "SLURM": "ray symmetric-run, or ray start --head and ray start --address on the nodes of one job; ports must be chosen "
        "where nodes are shared (docs.ray.io: Deploying on Slurm)",
        "Kubernetes": "KubeRay: an operator with RayCluster and RayJob resources",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+", metavar="NAME=PYTHON", help="dask=PYTHON ray=PYTHON")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "benchmarks" / "results" / "engines.json")
    args = parser.parse_args()
    from machine import about

    found = json.loads(args.output.read_text()) if args.output.is_file() else {"engines": {}}
    found |= about()
    for name, python in (engine.split("=", 1) for engine in args.engines):
        one = found["engines"].setdefault(name, {"documented": DOCUMENTED[name]})
        for part in PARTS:
            if part not in one:
                one[part] = measured(python, name, part)
                args.output.write_text(json.dumps(found, indent=1) + "\n")
                print(name, part, json.dumps(one[part]), flush=True)


def measured(python: str, engine: str, part: str) -> dict:
    """The last line that a process of that Python prints, as JSON, or how the process ended."""
    begun = time.monotonic()
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    words = [python, __file__, "--part", engine, part]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(words, stdout=out, stderr=err, env=env, start_new_session=True)
        try:
            status = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            status = None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)  # processes that it left
        out.seek(0)
        err.seek(0)
        printed, said = out.read(), [line for line in err.read().splitlines() if line.strip()][-1:]
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    if status == 0 and lines:
        return json.loads(lines[-1])
    partial = json.loads(lines[-1]) if lines else {}
    ended = f"not within {LIMIT} s" if status is None else f"status {status} after {time.monotonic() - begun:.1f} s"
    return {**partial, "ended": ended, "said": said}


# --- in a separate process


def installed(engine: str) -> dict:
    """Number and size of the packages that the engine needs in addition to those of autoseg."""
    from importlib.metadata import PackageNotFoundError, distribution

    def needs(names: list[str]) -> dict:
        """{name: distribution} of packages and all their requirements, without extras."""
        seen: dict = {}
        waiting = list(names)
        while waiting:
            name = re.split(r"[^\w.-]", waiting.pop().strip(), maxsplit=1)[0].lower().replace("_", "-")
            if name in seen:
                continue
            try:
                seen[name] = distribution(name)
            except PackageNotFoundError:
                continue
            waiting += [need for need in seen[name].requires or () if "extra ==" not in need]
        return seen

    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    own = needs([line for line in config["options"]["install_requires"].splitlines() if line.strip() and line[0] != "#"])
    more = {name: dist for name, dist in needs(list(PACKAGES[engine])).items() if name not in own}
    files = {path for dist in more.values() for file in dist.files or () if (path := Path(dist.locate_file(file))).is_file()}
    return {
        "versions": {name: more[name].version for name in PACKAGES[engine]},
        "packages": len(more),
        "MiB": round(sum(path.stat().st_size for path in files) / 2**20, 1),
    }


def work(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


class Dask:
    """Two workers of distributed, started as autoseg does."""

    def __enter__(self):
        from distributed import Client, LocalCluster, Security

        self.cluster = LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="tls://127.0.0.1",
            security=Security.temporary(),
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            dashboard_address=None,
            memory_limit=0,
            silence_logs=50,
        )
        self.client = Client(self.cluster)
        return self

    def submit(self, *arguments):
        return self.client.submit(work, *arguments, pure=False)

    def result(self, future):
        return future.result()

    def __exit__(self, *fault):
        self.client.close()
        self.cluster.close()

    def begin_apart(self, folder):
        """Start a scheduler and workers in separate processes."""
        from distributed import Client

        place = Path(folder) / "scheduler.json"
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}  # the workers import the tasks from there
        common = ["--scheduler-file", str(place), "--no-dashboard"]
        self.head = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_scheduler", *common, "--host", "127.0.0.1", "--port", "0"],
            stderr=subprocess.DEVNULL,
            env=env,
        )
        self.others = [
            subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_worker", *common, "--nthreads", "1", "--host", "127.0.0.1"],
                stderr=subprocess.DEVNULL,
                env=env,
            )
            for _ in range(2)
        ]
        self.client = Client(scheduler_file=str(place))

    def end_apart(self):
        self.client.close(timeout=1)
        for process in self.others:
            process.terminate()


class Ray:
    """Two workers of Ray."""

    def __enter__(self):
        import ray

        self.ray = ray
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        self.work = ray.remote(work)
        return self

    def submit(self, *arguments):
        return self.work.remote(*arguments)

    def result(self, future):
        return self.ray.get(future)

    def __exit__(self, *fault):
        self.ray.shutdown()

    def begin_apart(self, folder):
        import psutil

        self.__enter__()
        children = psutil.Process().children(recursive=True)
        self.head = next(process for process in children if "gcs_server" in process.name())

    def end_apart(self):
        self.ray.shutdown()


ENGINES = {"dask": Dask, "ray": Ray}


def start(engine: str) -> dict:
    """Seconds from import to the first results and for closing, and what the processes use meanwhile."""
    import psutil

    begun = time.monotonic()
    with ENGINES[engine]() as one:
        futures = [one.submit(0.5) for _ in range(2)]
        workers = {one.result(future) for future in futures}
        first = time.monotonic() - begun
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        pss = {process.pid: process.memory_full_info().pss / 2**20 for process in processes}
        open_to_all = sorted(
            f"{process.name()}:{'*' if link.laddr.ip in ('0.0.0.0', '::') else 'this host'}"
            for process in processes
            for link in process.net_connections()
            if link.status == "LISTEN" and not link.laddr.ip.startswith("127.")
        )
        threads = sum(process.num_threads() for process in processes)
        begun = time.monotonic()
    return {
        "seconds to the first results": round(first, 2),
        "seconds to close": round(time.monotonic() - begun, 2),
        "processes": len(processes),
        "threads": threads,
        "MiB of an idle worker": round(max(pss[pid] for pid in workers)),
        "MiB of all": round(sum(pss.values())),
        "ports that other machines can reach": len(open_to_all),
    }


def killed(engine: str) -> dict:
    """Seconds for the tasks undisturbed and with a worker killed halfway, and how many were done."""
    with ENGINES[engine]() as one:
        [one.result(future) for future in [one.submit(0.01) for _ in range(4)]]
        took = []
        for is_killed in (False, True):
            begun = time.monotonic()
            futures = [one.submit(TASK_SECONDS) for _ in range(TASKS)]
            pid = one.result(futures[0])
            if is_killed:
                os.kill(pid, 9)
            done = [one.result(future) for future in futures]
            took.append(time.monotonic() - begun)
    return {
        "seconds undisturbed": round(took[0], 2),
        "seconds with a worker killed": round(took[1], 2),
        "done": len(done),
        "of": TASKS,
    }


def scheduler(engine: str) -> dict:
    """The error that the driver gets when the scheduler dies, and after how long."""
    with tempfile.TemporaryDirectory() as folder:
        one = ENGINES[engine]()
        one.begin_apart(folder)
        one.result(one.submit(0.1))
        futures = [one.submit(TASK_SECONDS) for _ in range(TASKS)]
        one.result(futures[0])
        one.head.kill()
        begun = time.monotonic()
        done = 0
        try:
            for future in futures:
                one.result(future)
                done += 1
            told = "nothing: the tasks that were out were done"
            one.result(one.submit(0.1))
        except BaseException as fault:  # any exception is a result
            told = type(fault).__name__
        seconds = time.monotonic() - begun
        found = {"told": told, "seconds": round(seconds, 1), "done before": done, "of": TASKS}
        print(json.dumps(found), flush=True)
        one.end_apart()
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        sys.path.insert(0, str(Path(__file__).parent))
        import engines  # the tasks are found by name in the workers

        print(json.dumps(getattr(engines, sys.argv[3])(sys.argv[2])), flush=True)
    else:
        main()
