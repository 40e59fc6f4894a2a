"""Processes that meet and part: who is missing, who comes twice, who dies, and that each of them is told."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ports import free_port, listening

from bertjax.errors import BertjaxError, ExitCode
from bertjax.parallel.clusters import Rendezvous
from bertjax.parallel.process_group import ProcessGroup, Run

MEMBER = """
import sys, time
from bertjax.errors import BertjaxError
from bertjax.parallel.clusters import Rendezvous
from bertjax.parallel.process_group import ProcessGroup

port, index, size, timeout, then = sys.argv[1:]
try:
    group = ProcessGroup(Rendezvous(int(index), int(size), "127.0.0.1", int(port)), float(timeout))
    group.where = lambda: "the last checkpoint is 40"
    print("met", flush=True)
    if then == "turns":
        print([group.broadcast(lambda: [group.index, turn]) for turn in range(3)], group.first, flush=True)
    if then == "late":  # process 0 takes longer than the others wait
        group.broadcast(lambda: time.sleep(60))
    if then == "fail":
        time.sleep(0.5)  # the others have said where their last checkpoint is
        group.fail("its disk is full", 2)
        sys.exit(2)
    if then == "wait":
        time.sleep(60)
    group.leave()
except BertjaxError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


class Members:
    """Processes of a run, and how each ended."""

    def __init__(self) -> None:
        self.port, self.all = free_port(), []

    def start(self, index: int, size: int, then: str = "leave", timeout: float = 30) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", MEMBER, *map(str, (self.port, index, size, timeout, then))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.all.append(process)
        return process

    def ends(self) -> list[tuple[int, str, str]]:
        """Exit code, stdout and stderr of each."""
        texts = [process.communicate(timeout=30) for process in self.all]
        return [(process.returncode, out, err) for process, (out, err) in zip(self.all, texts, strict=True)]


@pytest.fixture
def members() -> Iterator[Members]:
    members = Members()
    yield members
    for process in members.all:
        process.kill()
        process.communicate()


def met(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None and process.stdout.readline() == "met\n"


def test_all_come_hear_what_the_first_one_makes_and_leave(members: Members) -> None:
    for index in (2, 0, 1):
        members.start(index, 3, "turns")
    turns = "met\n[[0, 0], [0, 1], [0, 2]] "
    assert sorted(members.ends()) == [(0, f"{turns}False\n", "")] * 2 + [(0, f"{turns}True\n", "")]


def test_who_is_missing_is_named_by_all(members: Members) -> None:
    for index in (0, 2):
        members.start(index, 4, timeout=1.5)
    start = time.monotonic()
    for code, out, err in members.ends():
        assert (code, out) == (2, "")
        assert re.fullmatch(
            r"of 4 processes \(--distributed.num_processes\), these did not come to 127.0.0.1:\d+ "
            r"in 1.5 s: 1, 3; start all .*\n",
            err,
        )
    assert time.monotonic() - start < 6


def test_nobody_is_there(members: Members) -> None:
    members.start(1, 2, timeout=1)
    ((code, _, err),) = members.ends()
    assert code == 2
    assert re.fullmatch(r"process 1 could not meet process 0 at .* in 1 s \(Connection refused\); start it, .*\n", err)


@pytest.mark.parametrize(
    "others, message",
    [
        ([(1, 3), (1, 3)], "two processes were started as process 1, on {host} and on {host};"),
        ([(1, 2)], "process 0 was started as one of 3, and process 1 on {host} as one of 2;"),
        ([(4, 5)], "process 0 was started as one of 3, and process 4 on {host} as one of 5;"),
    ],
)
def test_a_wrong_number_stops_all_at_once(members: Members, others: list[tuple[int, int]], message: str) -> None:
    start = time.monotonic()
    members.start(0, 3)
    for index, size in others:
        members.start(index, size)
    for code, out, err in members.ends():
        assert (code, out) == (2, "")
        assert err.startswith(message.format(host=socket.gethostname())) and err.count("\n") == 1
        assert "--distributed.process_id" in err and "--distributed.num_processes" in err
    assert time.monotonic() - start < 15  # and not when the time is over


def test_two_first_ones(members: Members) -> None:
    with socket.create_server(("127.0.0.1", members.port)):
        members.start(0, 2)
        ((code, _, err),) = members.ends()
    assert code == 2
    assert re.match(r"process 0 cannot listen at 127.0.0.1:\d+ \(Address already in use\); give --distributed", err)


def test_strangers_change_nothing(members: Members) -> None:
    first = members.start(0, 2)
    deadline = time.monotonic() + 20
    connections = []
    for nonsense in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 10**6,
        b"[1]\n",
        b'{"process": 1, "of": "2", "host": 3}\n',
        b'{"process": 1, "of": 2, "host": "a", "run": 7}\n',
    ):
        while True:
            try:
                connections.append(socket.create_connection(("127.0.0.1", members.port), timeout=5))
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline and first.poll() is None
                time.sleep(0.05)
        try:
            connections[-1].sendall(nonsense)
        except OSError:
            pass
    members.start(1, 2)
    assert members.ends() == [(0, "met\n", "")] * 2
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_death_is_told_to_all_the_others(members: Members, victim: int, how: signal.Signals) -> None:
    for index in range(3):
        members.start(index, 3, "wait")
    for process in members.all:
        met(process)
    start = time.monotonic()
    members.all[victim].send_signal(how)
    ends = members.ends()
    assert time.monotonic() - start < 5
    message = f"bertjax: process {victim} of 3, on {socket.gethostname()}, died; the last checkpoint is 40\n"
    assert [end for end in ends if end != (ExitCode.PEER_LOST, "", message)] == [(-how, "", "")]


def test_a_death_while_others_are_waited_for_can_be_made_up_for(members: Members) -> None:
    members.start(0, 3)
    lost = members.start(1, 3)
    time.sleep(1)
    lost.kill()
    lost.wait()
    members.start(2, 3)
    members.start(1, 3)
    assert [code for code, _, _ in members.ends()] == [0, -signal.SIGKILL, 0, 0]


@pytest.mark.parametrize("failing", [0, 2])
def test_why_one_failed_is_told_to_all_the_others(members: Members, failing: int) -> None:
    for index in range(3):
        members.start(index, 3, "fail" if index == failing else "wait")
    told = f"process {failing} of 3, on {socket.gethostname()}, stopped: its disk is full; the last checkpoint is 40"
    for index, (code, _, err) in enumerate(members.ends()):
        assert (code, err) == (2, "" if index == failing else f"bertjax: {told}\n")


def test_the_first_one_is_not_waited_for_without_end(members: Members) -> None:
    for index in range(2):
        members.start(index, 2, "late", timeout=1)
    (_, err), code = members.all[1].communicate(timeout=30), members.all[1].returncode
    assert code == 2
    assert err.startswith("process 0 has not prepared the run in 1 s; run 'bertjax prepare'")


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no /proc to look into")
def test_the_first_one_listens_on_loopback_alone(members: Members) -> None:
    first = members.start(0, 2)
    deadline = time.monotonic() + 20
    while not (found := listening(members.port)):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.05)
    assert found == {"0100007F"}


# Two runs at one place. These are threads of one process, each with a group of its own.


def come(port: int, index: int, run: Run) -> ProcessGroup:
    return ProcessGroup(Rendezvous(index, 2, "127.0.0.1", port), 10, run)


def test_one_of_another_run_is_refused_by_name_and_changes_nothing() -> None:
    port, ours, theirs = free_port(), Run("runs/a", "1"), Run("runs/b\x1b", "1")
    with ThreadPoolExecutor() as threads:
        first = threads.submit(come, port, 0, ours)
        with pytest.raises(BertjaxError) as refused:
            come(port, 1, theirs)
        host = socket.gethostname()
        assert str(refused.value).startswith(
            f"process 1 on {host} is of 'runs/b\\\\x1b', and at 127.0.0.1:{port} is process 0 of 'runs/a', on {host}; "
            "give each run a port of its own"
        )
        assert not first.done()
        groups = [come(port, 1, ours), first.result()]
        for group in groups:
            group.leave()


def test_another_configuration_of_the_same_run_stops_both() -> None:
    port = free_port()
    with ThreadPoolExecutor() as threads:
        first = threads.submit(come, port, 0, Run("runs/a", "1"))
        for refused in (lambda: come(port, 1, Run("runs/a", "2")), first.result):
            with pytest.raises(BertjaxError, match="process 1 on .* was started with another configuration than pro"):
                refused()
