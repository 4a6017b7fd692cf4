"""Real processes of a run, forked from one that has imported everything, and their deaths."""

import atexit
import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch.distributed as dist

from tests.faults.watch import Board, watch_files, watch_session
from train.config import config_from_plain
from train.interrupts import stop_requests
from train.loop import train
from train.parallel.world import conduct, join
from train.session import make_session

POLL_S = 0.002
DEADLINE_S = 60.0  # for the others to end after one rank died


@dataclass
class Kill:
    """When a life is to end: after so many seconds, or before its n-th change of a file (of the first rank).

    rank: the one that is killed (the first, if at a file); None: all.
    """

    after_s: float | None = None
    operation: int | None = None
    rank: int | None = None


@dataclass
class Life:
    """The processes of one start of a run."""

    size: int
    log: Path
    boards: list[Board] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)  # rank -> as of os.waitstatus_to_exitcode
    store: int | None = None  # the process that the ranks meet at
    began: float = 0.0
    died: float | None = None  # when the first of the ranks was killed

    def poll(self) -> bool:
        """Whether all have ended."""
        for rank, pid in enumerate(self.pids):
            if rank not in self.statuses:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    self.statuses[rank] = os.waitstatus_to_exitcode(status)
                    if self.statuses[rank] < 0 and self.died is None:
                        self.died = time.monotonic()
        return len(self.statuses) == self.size

    def kill(self, ranks: range, number: int = signal.SIGKILL) -> None:
        """A signal to ranks that live, and to their data workers."""
        for rank in ranks:
            if rank not in self.statuses:
                os.killpg(self.pids[rank], number)

    def close(self) -> None:
        """After all have ended."""
        if self.store is not None:
            os.kill(self.store, signal.SIGKILL)
            os.waitpid(self.store, 0)

    def wait(self, seconds: float, for_death: bool = False) -> bool:
        """Wait until all have ended; or the time is over, be it that for the others after one was killed; or,
        if asked, one was killed. Returns whether all have ended."""
        end = time.monotonic() + seconds
        while not self.poll():
            now = time.monotonic()
            if now > end or (self.died is not None and (for_death or now - self.died > DEADLINE_S)):
                return False
            time.sleep(POLL_S)
        return True


def start(settings: dict[str, Any], size: int, log: Path, kill: Kill) -> Life:
    """Fork the ranks of a run; each is the leader of its own process group."""
    assert len(os.listdir("/proc/self/task")) == 1, "threads do not live through a fork"
    life = Life(size, log, [Board() for _ in range(size)], began=time.monotonic())
    port = None
    if size > 1:
        life.store, port = open_store()
    for rank in range(size):
        pid = fork(lambda rank=rank: live(settings, rank, life, port, kill))  # type: ignore[misc]
        life.pids.append(pid)
    return life


def fork(run: Callable[[], None]) -> int:
    """A child that leads a process group of its own, runs the function, and ends. Returns its id."""
    pid = os.fork()
    if pid:
        os.setpgid(pid, pid)  # both do it, for either may be the first
        return pid
    status = 1
    try:
        os.setpgid(0, 0)
        atexit._clear()  # what this program does at its end, such as removing its folder, is not the child's
        run()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def live(settings: dict[str, Any], rank: int, life: Life, port: int | None, kill: Kill) -> NoReturn:
    """What a rank does, as `python -m train` would."""
    os.dup2(os.open(life.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    if port is not None:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(life.size)}
        os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    faulthandler.register(signal.SIGUSR2)  # says where each thread is
    board = life.boards[rank]
    watch_files(board, Path(settings["run"]["dir"]), kill.operation if rank == 0 else None)

    def main() -> int:
        config = config_from_plain(settings)
        world = join(config.run.device, config.parallel)
        board.note("building")
        session = make_session(config, None, world)
        watch_session(board, session)
        with stop_requests() as stop:
            train(session, stop)
        board.note("ending")
        return 0

    conduct(main)


def open_store() -> tuple[int, int]:
    """A new store in a process of its own, as torchrun keeps one: the process's id, and the port."""
    reader, writer = os.pipe()

    def serve() -> None:
        store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        os.write(writer, str(store.port).encode())
        os.close(writer)
        signal.alarm(600)  # should this program be killed itself
        signal.pause()

    pid = fork(serve)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        return pid, int(pipe.read())
