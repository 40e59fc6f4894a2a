"""Starts JAX over several processes, and ends it."""

import atexit
import contextlib
import dataclasses
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bertjax.config import Config, DistributedConfig
from bertjax.errors import BertjaxError, ExitCode
from bertjax.parallel.aborts import delay_aborts
from bertjax.parallel.clusters import Rendezvous, detect_cluster
from bertjax.parallel.process_group import Processes, ProcessGroup, Run, SingleProcess

_ECHO = 3.0  # seconds in which the process group knows of the death that a collective has failed of
_joined: list[Processes] = []


@contextlib.contextmanager
def joined(config: DistributedConfig, run: Run) -> Iterator[Processes]:
    """Starts JAX over the processes of a run and yields them; with neither a configuration nor a cluster there is one.

    To be entered before JAX is first used. Entered again inside, it yields the same ones.

    Args:
      run: what they have come for, so that those of another run are not taken for theirs.

    Raises:
      BertjaxError: the processes did not come together in `config.timeout` seconds.
    """
    if _joined:
        yield _joined[0]
        return
    rendezvous, local_devices = find_rendezvous(config)
    if rendezvous is None:
        yield SingleProcess()
        return
    processes = ProcessGroup(rendezvous, config.timeout, run)
    try:
        with _own_stdout(shown=processes.first):
            _start(rendezvous, local_devices, config.timeout)
            _joined.append(processes)
            yield processes
            jax.distributed.shutdown()  # waits for the others
    except BaseException as error:
        why, code = _end_of(error)
        if code == ExitCode.BUG:
            time.sleep(_ECHO)  # in which this process ends, if what failed is a collective because another has died
        processes.fail(why, code)
        atexit.register(_exit, code)  # before JAX's own end, which would wait for the others, or abort
        raise
    finally:
        _joined.clear()
    processes.leave()


class Agreement:
    """Tells whether any process says yes: all ask together, and get the answer to the question before, unwaited for.

    Args:
      mesh: over the devices of all processes.
    """

    def __init__(self, mesh: Mesh):
        self._everywhere = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._before: jax.Array | None = None

    def __call__(self, yes: bool) -> bool:
        before = self._before
        said = jax.make_array_from_callback((self._everywhere.mesh.size,), self._everywhere, lambda _: np.array([yes]))
        self._before = self._any(said)
        return before is not None and bool(before)


def run_of(config: Config) -> Run:
    """Returns what the processes of a run must have alike: all but their own places, and folders of their machines."""
    alike = dataclasses.asdict(config)
    del alike["distributed"], alike["data"]["cache"]
    return Run(config.run_dir, digest_of(alike))


def digest_of(values: Any) -> str:
    """Returns the digest of values that JSON can carry."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def find_rendezvous(config: DistributedConfig) -> tuple[Rendezvous | None, list[int] | None]:
    """Returns this process's place in the run as configured, or as a cluster has it; None where it is alone.

    With it come the devices that the cluster leaves to this process, None for all of its machine's.
    """
    if config.coordinator is not None:
        assert config.num_processes is not None and config.process_id is not None
        host, _, port = config.coordinator.rpartition(":")
        given = Rendezvous(config.process_id, config.num_processes, host.strip("[]"), int(port), config.bind_address)
        return (given if given.size > 1 else None), None
    return detect_cluster(config.bind_address, config.timeout) or (None, None)


def _start(rendezvous: Rendezvous, local_devices: list[int] | None, timeout: float) -> None:
    delay_aborts()
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM for itself
    jax.config.update("jax_check_proxy_envs", False)
    os.environ.setdefault("no_grpc_proxy", rendezvous.host)  # what it would warn of
    bind = rendezvous.bind or rendezvous.host
    jax.distributed.initialize(
        _address(rendezvous.host, rendezvous.port),
        rendezvous.size,
        rendezvous.index,
        local_device_ids=local_devices,
        cluster_detection_method="deactivate",
        initialization_timeout=int(timeout),
        shutdown_timeout_seconds=int(timeout),
        coordinator_bind_address=_address(bind, rendezvous.port),
    )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def _own_stdout(*, shown: bool) -> Iterator[None]:
    """Leaves standard output to Python in process 0, whose output is the run's, and to nobody in the others.

    Gloo, in C++, prints a line in each process.
    """
    sys.stdout.flush()
    before, kept, nowhere = sys.stdout, os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    if shown and before is sys.__stdout__:
        assert before is not None  # the command line opens what a shell has closed
        sys.stdout = open(os.dup(kept), "w", buffering=1, encoding=before.encoding, errors=before.errors)
    try:
        yield
    finally:
        sys.stdout.flush()
        if sys.stdout is not before:
            sys.stdout.close()
            sys.stdout = before
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _end_of(error: BaseException) -> tuple[str, int]:
    """Returns what the others are to be told, and the exit code for all."""
    if isinstance(error, BertjaxError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted", ExitCode.INTERRUPTED
    if isinstance(error, SystemExit) and error.code == ExitCode.STOPPED:
        return "a signal asked it to", ExitCode.STOPPED
    return type(error).__name__, ExitCode.BUG


def _exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
