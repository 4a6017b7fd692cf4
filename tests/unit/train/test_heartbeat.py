"""What is known of processes, networks and errors where several ranks run; their deaths are lived through in
tests/integration/test_faults.py."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
import torch.distributed as dist

from train.parallel.heartbeat import speaks_of_others
from train.parallel.interface import choose_interface, interface_of, own_address
from train.parallel.meeting import fresh
from train.parallel.process import Process


def test_a_process_is_there_until_it_is_not() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process = replace(Process.own(1), number=child.pid, started=started(child.pid))
    assert not process.is_gone()
    child.send_signal(signal.SIGSTOP)
    assert not process.is_gone(), "it may go on"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.is_gone(), "nobody has asked yet how it ended"
    child.wait()
    assert process.is_gone()


def started(number: int) -> str:
    with open(f"/proc/{number}/stat") as file:
        return file.read().rpartition(")")[2].split()[19]


def test_another_process_with_the_same_number_is_another() -> None:
    own = Process.own(0)
    assert not own.is_gone() and replace(own, started="1").is_gone()
    assert not replace(own, started="").is_gone(), "without /proc nothing is known"


@pytest.mark.parametrize(
    ("error", "is_theirs"),
    [
        (ValueError("a picture"), False),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:1"), True),
        (dist.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp, remote process exited"), True),
        (dist.DistNetworkError("failed to recv"), True),
    ],
)
def test_errors_that_may_follow_from_the_end_of_another_rank(error: Exception, is_theirs: bool) -> None:
    assert speaks_of_others(error) == is_theirs
    wrapped = OSError("the checkpoint failed")
    wrapped.__cause__ = error
    assert speaks_of_others(wrapped) == is_theirs


def test_the_interface_is_the_one_that_leads_to_the_meeting_point(monkeypatch: pytest.MonkeyPatch) -> None:
    assert interface_of(own_address("127.0.0.1")) == "lo"
    assert own_address("no.such.name.invalid") == "" and interface_of("192.0.2.1") == ""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    choose_interface("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0"
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    choose_interface("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"


def test_every_start_has_a_part_of_the_store_for_itself() -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store.set("knock/2", "of a rank that is dead")
    with ThreadPoolExecutor(3) as ranks:
        for start in range(3):
            parts = list(ranks.map(lambda rank: fresh(store.clone(), rank, 3, 30.0), range(3)))
            assert not parts[0].check(["left"]), "what an earlier start left"
            parts[1].set("left", f"by start {start}")
            assert {part.get("left") for part in parts} == {f"by start {start}".encode()}


def test_ranks_that_do_not_come_are_named() -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with pytest.raises(
        TimeoutError, match=r"parallel\.timeout_s: ranks \[1, 2\] were not there within 0\.1 s"
    ):
        fresh(store, 0, 3, 0.1)
    store.set_timeout(timedelta(seconds=0.1))
    with pytest.raises(TimeoutError, match=r"rank 0 was not there within 0\.1 s"):
        fresh(store, 1, 3, 0.1)
