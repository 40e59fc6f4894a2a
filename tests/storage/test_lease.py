"""A lease keeps a second holder out while the first one lives, and lets it in when that is dead."""

import threading
from collections.abc import Iterator

import pytest
from faulty_store import FaultyStore, times
from refusals import refusal

from bertjax.storage import lease
from bertjax.storage.lease import Lease, leased
from bertjax.storage.remote import Remote

Store = type[FaultyStore]


@pytest.fixture
def place(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    """A URL, at which heartbeats are quick."""
    for name, seconds in (("BEAT", 0.05), ("PATIENCE", 0.5), ("SETTLE", 0.01)):
        monkeypatch.setattr(lease, name, seconds)
    yield Remote("memory://bucket/run", write=True)


def enter(place: Remote) -> None:
    with leased(place):
        pass


def test_a_second_holder_is_refused_while_the_first_lives(place: Remote) -> None:
    with leased(place) as held:
        said = refusal(enter, place)
        assert said.startswith("memory://bucket/run is in use by process ") and "--run_dir" in said
        held.check()
    enter(place)
    assert not place.listing()


def test_a_beat_that_is_under_way_does_not_bring_it_back(place: Remote, store: Store) -> None:
    writing, ended = threading.Event(), threading.Event()

    def linger(operation: str, path: str) -> None:
        if operation == "write" and threading.current_thread().name == "lease":
            writing.set()
            ended.wait(0.3)

    with leased(place):
        store.faults.append(linger)
        assert writing.wait(30)
    ended.set()
    assert not place.listing() and "lease" not in {thread.name for thread in threading.enumerate()}


def test_a_dead_holder_loses_it_and_finds_out(place: Remote, capsys: pytest.CaptureFixture[str]) -> None:
    dead = Lease(place, "give another")
    dead.acquire()  # and writes no more
    with leased(place) as held:
        assert "the lease of process" in capsys.readouterr().err
        assert "was taken over by process" in refusal(dead.check)
        dead.release()  # which is not its to give back
        held.check()


def test_of_two_that_come_at_once_one_gets_it(place: Remote, store: Store) -> None:
    """The store tells the second that there is one, though neither had seen it."""
    first = Lease(place, "give another")

    def come(operation: str, path: str) -> None:
        if operation == "write":
            store.faults.clear()
            first.acquire()

    store.faults.append(come)
    assert "is in use by process" in refusal(enter, place)
    first.check()


def test_a_connection_that_fails_for_a_while_loses_nothing(place: Remote, store: Store) -> None:
    with leased(place) as held:
        store.faults.append(times(4, ConnectionError("gone"), "write"))
        assert "is in use" in refusal(enter, place)
        held.check()
