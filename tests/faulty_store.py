"""A store of objects in memory, at memory:// URLs, whose connections fail as a test has it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

Fault = Callable[[str, str], Exception | None]
"""Returns what an operation (read, info, list, write, remove) on a path fails with, None where it does not."""


class FaultyStore(MemoryFileSystem):
    """fsspec's memory:// as an object store is seen through a network."""

    cachable = False
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    faults: ClassVar[list[Fault]] = []
    done: ClassVar[list[tuple[str, str]]] = []
    hidden: ClassVar[set[str]] = set()  # from listings, which lag

    def _do(self, what: str, path: str) -> None:
        path = self._strip_protocol(path)
        self.done.append((what, path))
        for fault in self.faults:
            if (error := fault(what, path)) is not None:
                raise error

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        self._do("info", path)
        return super().info(path, **kwargs)

    def find(self, path: str, **kwargs: Any) -> Any:
        self._do("list", path)
        return {name: info for name, info in super().find(path, **kwargs).items() if name not in self.hidden}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        self._do("read", path)
        content: bytes = super().cat_file(path, start=start, end=end, **kwargs)
        return content

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self._do("write", path)
        super().pipe_file(path, value, mode=mode, **kwargs)

    def put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        self._do("write", rpath)
        super().put_file(lpath, rpath, **kwargs)

    def rm_file(self, path: str) -> None:
        self._do("remove", path)
        super()._rm(path)


def times(number: int, error: Exception, what: str, name: str = "") -> Fault:
    """Returns a fault of the first so many operations of a kind, on paths that have this name in them."""
    left = [number]

    def fault(operation: str, path: str) -> Exception | None:
        if operation != what or name not in path or not left[0]:
            return None
        left[0] -= 1
        return error

    return fault


@contextmanager
def faulty_store() -> Iterator[type[FaultyStore]]:
    """An empty store, in the place of fsspec's own."""
    for kept in (FaultyStore.store, FaultyStore.faults, FaultyStore.done, FaultyStore.hidden):
        kept.clear()
    FaultyStore.pseudo_dirs[:] = [""]
    fsspec.register_implementation("memory", FaultyStore, clobber=True)
    try:
        yield FaultyStore
    finally:
        fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)
