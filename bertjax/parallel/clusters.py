"""Places of processes in a run, as clusters tell them: SLURM, Open MPI, Cloud TPU, and JAX's own variables.

The rules are those of `jax.distributed.initialize`, which applies them only while it starts; the process group has to
meet before. What SLURM and Open MPI set in the environment is read here, and what JAX reads of itself, which an indexed
Job of Kubernetes can set: JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, and JAX_PROCESS_ID or JOB_COMPLETION_INDEX. A
Cloud TPU's neighbours are told by its metadata server, which JAX asks; it has no public call for that, so on machines
with TPUs, and there alone, `jax._src` is imported (its functions were looked up with jax 0.10.2; no TPU has been at
hand to run them).
"""

import dataclasses
import importlib.util
import os
import re
from typing import NamedTuple

from bertjax.errors import BertjaxError, warn

_STEPS = 61  # between the ports of one job's steps, the first of which has JAX's own
_INSTEAD = "give --distributed.coordinator, --distributed.num_processes and --distributed.process_id"


@dataclasses.dataclass(frozen=True)
class Rendezvous:
    """The place where the processes of a run meet, and which of them this one is."""

    index: int  # this process, from 0
    size: int  # processes of the run
    host: str  # where process 0 listens, as the others reach it
    port: int
    bind: str | None = None  # the address that process 0 listens on, where it is not `host`
    told_by: str = "--distributed.num_processes"  # what tells the size


class Assigned(NamedTuple):
    """A process's place and devices, as a cluster assigns them."""

    rendezvous: Rendezvous
    local_devices: list[int] | None  # indices of the machine's devices that are this process's; None for all


def detect_cluster(bind: str | None, timeout: float) -> Assigned | None:
    """Returns what the cluster assigns to this process; None outside a cluster, or where the process is alone.

    Args:
      bind: the address that process 0 is to listen on, where it is not the one that the others reach it by.
      timeout: seconds in which the name of a TPU's process 0 must become known.

    Raises:
      BertjaxError: the cluster's environment makes no sense.
    """
    assigned = _by_jax(bind) or _open_mpi(bind) or _slurm(bind) or _cloud_tpu(bind, timeout)
    if assigned is None:
        _warn_of_many()
    return assigned if assigned is not None and assigned.rendezvous.size > 1 else None


def step_of_many() -> str | None:
    """Returns the name of the step of SLURM's that started this process as one of several; None where none did."""
    if os.environ.get("SLURM_STEP_NUM_TASKS", "1") == "1":
        return None
    return ".".join(os.environ.get(f"SLURM_{name}", "0") for name in ("JOB_ID", "STEP_ID", "RESTART_COUNT"))


def _warn_of_many() -> None:
    """Warns where the environment says that this process is one of many, and does not tell how they meet."""
    if (index := os.environ.get("JOB_COMPLETION_INDEX")) is not None:
        warn(
            f"this is number {index} of an indexed Job of Kubernetes, and it works alone, as nothing tells where "
            "process 0 is; to have them work together set JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES",
            stacklevel=4,
        )
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if tasks != "1" and os.environ.get("SLURM_STEP_NUM_TASKS", "1") == "1":
        warn(
            f"this job of SLURM has SLURM_NTASKS={tasks}, and this process works alone, as it is not started by srun",
            stacklevel=4,
        )


def _by_jax(bind: str | None) -> Assigned | None:
    """Reads the variables that `jax.distributed.initialize` reads."""
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address is None or not os.environ.keys() & {"JAX_NUM_PROCESSES", "JOB_COMPLETION_INDEX"}:
        return None
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise BertjaxError(f"JAX_COORDINATOR_ADDRESS={address} in the environment is not HOST:PORT; give it so")
    size = _number("JAX_NUM_PROCESSES")
    index = _number("JAX_PROCESS_ID" if "JAX_PROCESS_ID" in os.environ else "JOB_COMPLETION_INDEX")
    if not index < size:
        raise BertjaxError(f"this is process {index}, and JAX_NUM_PROCESSES={size}; number them from 0 to {size - 1}")
    return Assigned(Rendezvous(index, size, host.strip("[]"), int(port), bind, f"JAX_NUM_PROCESSES={size}"), None)


def _open_mpi(bind: str | None) -> Assigned | None:
    """Reads what `mpirun` of Open MPI 4 sets; process 0 is on the machine that it was started on."""
    uri = os.environ.get("OMPI_MCA_orte_hnp_uri")  # 1531576320.0;tcp://10.96.0.1,10.148.0.1:34911
    if uri is None:
        return None
    job = re.match(r"\d+", uri)
    address = re.search(r"tcp://([^,:]+)|tcp6://\[([^],]+)", uri)
    if not job or not address:
        raise BertjaxError(f"OMPI_MCA_orte_hnp_uri={uri} has no address; {_INSTEAD}")
    host = next(filter(None, address.groups()))
    size, index, local = (_number(f"OMPI_COMM_WORLD_{name}") for name in ("SIZE", "RANK", "LOCAL_RANK"))
    return Assigned(Rendezvous(index, size, host, _port(int(job[0]) // 2**12), bind, "Open MPI"), [local])


def _slurm(bind: str | None) -> Assigned | None:
    """Reads what `srun` sets; process 0 is on the first machine of the list."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
    if not all(name in os.environ for name in names):
        return None
    job, index, local = (_number(name) for name in ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID"))
    # A step may have fewer tasks than its job: `srun -n 2` within `salloc -n 4`.
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in os.environ else "SLURM_NTASKS"
    size = _number(tasks)
    step = _number("SLURM_STEP_ID") if "SLURM_STEP_ID" in os.environ else 0
    # node01 or node01,other or node[01-03],other or node[01,03-05],other
    first = re.match(r"([^,[]+)(?:\[([^],-]+))?", os.environ["SLURM_STEP_NODELIST"])
    if not first:
        raise BertjaxError(f"SLURM_STEP_NODELIST={os.environ['SLURM_STEP_NODELIST']!r} names no machine; {_INSTEAD}")
    host, port = first[1] + (first[2] or ""), _port(job + _STEPS * step)
    return Assigned(Rendezvous(index, size, host, port, bind, f"SLURM's {tasks}={size}"), [local])


def _cloud_tpu(bind: str | None, timeout: float) -> Assigned | None:
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        return None
    from jax._src.clusters import GceTpuCluster, GkeTpuCluster

    for cluster in (GkeTpuCluster, GceTpuCluster):
        if cluster.is_env_present() and (size := cluster.get_process_count()) > 1:
            address = cluster.get_coordinator_address(int(timeout), os.environ.get("JAX_COORDINATOR_PORT"))
            host, _, port = address.rpartition(":")
            return Assigned(Rendezvous(cluster.get_process_id(), size, host.strip("[]"), int(port), bind), None)
    return None


def _port(job: int) -> int:
    """Returns $JAX_COORDINATOR_PORT, or one of the 4096 highest ports, another for each of 4096 jobs."""
    given = os.environ.get("JAX_COORDINATOR_PORT")
    return _number("JAX_COORDINATOR_PORT") if given else 2**16 - 2**12 + job % 2**12


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise BertjaxError(f"{name}={value!r} in the environment is not a number; {_INSTEAD}")
    return int(value)
