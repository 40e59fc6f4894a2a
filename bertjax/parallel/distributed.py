"""Starting JAX over several processes, and ending it."""

import atexit
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bertjax.config import DistributedConfig
from bertjax.errors import BertjaxError
from bertjax.parallel.process_group import Place, Processes, Roll

_ECHO = 3.0  # seconds in which the roll knows of the death that a collective has failed of
_joined: list[Processes] = []


@contextlib.contextmanager
def joined(config: DistributedConfig) -> Iterator[Processes]:
    """The processes of this run, over which JAX is started; with neither a configuration nor a cluster there is one.

    To be entered before JAX is first used. Inside another it is the same one.

    Raises:
      BertjaxError: the processes did not come together in `config.timeout` seconds.
    """
    if _joined:
        yield _joined[0]
        return
    place, local_devices = find_place(config)
    if place is None:
        yield Processes()
        return
    processes = Roll(place, config.timeout)
    try:
        with _silenced_stdout(not processes.first):
            _start(place, local_devices, config.timeout)
            _joined.append(processes)
            yield processes
            jax.distributed.shutdown()  # waits for the others
    except BaseException as error:
        why, code = _end_of(error)
        if code == 1:
            time.sleep(_ECHO)  # in which this process ends, if what failed is a collective because another has died
        processes.fail(why, code)
        atexit.register(_exit, code)  # before JAX's own end, which would wait for the others, or abort
        raise
    finally:
        _joined.clear()
    processes.leave()


class Agreement:
    """Whether any process says yes. All ask together and get the answer to the question before: nobody waits for it."""

    def __init__(self, mesh: Mesh):
        self._everywhere = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._before: jax.Array | None = None

    def __call__(self, yes: bool) -> bool:
        before = self._before
        said = jax.make_array_from_callback((self._everywhere.mesh.size,), self._everywhere, lambda _: np.array([yes]))
        self._before = self._any(said)
        return before is not None and bool(before)


def find_place(config: DistributedConfig) -> tuple[Place | None, list[int] | None]:
    """This process's place as configured, or as SLURM, Open MPI or a Cloud TPU has it; None where it is alone.

    With it come the devices that the cluster leaves to this process, None for all of its machine's.
    """
    if config.coordinator is not None:
        assert config.num_processes is not None and config.process_id is not None
        host, _, port = config.coordinator.rpartition(":")
        place = Place(config.process_id, config.num_processes, host.strip("[]"), int(port), config.bind_address)
        return (place if place.size > 1 else None), None
    # JAX finds clusters by itself, but only where it starts by itself, and has no other door to that.
    from jax._src import clusters

    for cluster in (clusters.OmpiCluster, clusters.SlurmCluster, clusters.GkeTpuCluster, clusters.GceTpuCluster):
        if cluster.is_env_present() and (count := cluster.get_process_count()) > 1:
            address = cluster.get_coordinator_address(int(config.timeout), os.environ.get("JAX_COORDINATOR_PORT"))
            host, _, port = address.rpartition(":")
            local = cluster.get_local_process_id()
            place = Place(cluster.get_process_id(), count, host.strip("[]"), int(port), config.bind_address)
            return place, None if local is None else [local]
    return None, None


def delay_aborts() -> None:
    """JAX aborts a process that loses its coordinator; the roll, which hears of it too, gets time to end it first.

    C's `sleep` is made the handler of SIGABRT: called with the signal's number, it sleeps for as many seconds, six.
    """
    c = ctypes.CDLL(None)
    c.signal(signal.SIGABRT, c.sleep)


def _start(place: Place, local_devices: list[int] | None, timeout: float) -> None:
    delay_aborts()
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM for itself
    jax.config.update("jax_check_proxy_envs", False)
    os.environ.setdefault("no_grpc_proxy", place.host)  # what it would warn of
    bind = place.bind or place.host
    jax.distributed.initialize(
        _address(place.host, place.port),
        place.size,
        place.index,
        local_device_ids=local_devices,
        cluster_detection_method="deactivate",
        initialization_timeout=int(timeout),
        shutdown_timeout_seconds=int(timeout),
        coordinator_bind_address=_address(bind, place.port),
    )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def _silenced_stdout(silenced: bool) -> Iterator[None]:
    """Of process 0 alone there is something to read; Gloo, in C++, prints a line in each."""
    if not silenced:
        yield
        return
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _end_of(error: BaseException) -> tuple[str, int]:
    """What the others are to be told, and the exit code for all."""
    if isinstance(error, BertjaxError):
        return str(error), 2
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted", 130
    if isinstance(error, SystemExit) and not error.code:
        return "a signal asked it to", 0
    return type(error).__name__, 1


def _exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
