import os
import signal
import threading

import pytest

from autoseg.engines import map_cases, run_command


def test_results_come_in_the_order_of_the_items():
    outcomes = map_cases(lambda n: n * n, range(20), workers=3)
    assert [o.value for o in outcomes] == [n * n for n in range(20)]


def test_one_failure_stops_nobody_else():
    def work(n):
        if n == 2:
            raise ValueError("two is broken")
        return n

    for workers in (1, 3):
        outcomes = map_cases(work, range(5), workers=workers)
        assert [o.error is None for o in outcomes] == [True, True, False, True, True]
        assert str(outcomes[2].error) == "two is broken"


def test_no_more_items_are_in_the_making_than_there_are_workers():
    lock, now, most = threading.Lock(), [0], [0]

    def items():
        for n in range(30):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            yield n

    map_cases(lambda n: n, items(), workers=2, on_done=lambda o: now.__setitem__(0, now[0] - 1))
    assert most[0] <= 3


def test_a_command_runs_apart_and_tells_its_status_and_its_errors():
    lines = []
    assert run_command(["verify", "Nowhere"], on_line=lines.append) == 2
    assert lines[0].startswith("DatasetError: 'Nowhere' is neither a folder nor a data set")


def test_who_stops_the_caller_stops_the_command(tmp_path):
    lines = []

    def stop(line):
        lines.append(line)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run_command(["demo", "--folder", tmp_path / "demo", "--device", "cpu"], on_line=stop)
    assert lines[0] == "drawing 30 phantoms of an abdomen"
    assert len(lines) < 5  # it did not go on
    assert signal.getsignal(signal.SIGTERM) is before
