"""The mesh and distributed sections: the devices and processes that a run is spread over."""

import dataclasses
import math

from bertjax.config.checks import require, require_at_least, require_types
from bertjax.config.model import BertConfig


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Mesh of devices; the product of its sizes is their number, and one may be -1 for what the others leave"""

    data: int = -1
    """groups of devices that share each batch's rows; each group holds the whole model"""
    fsdp: int = 1
    """devices over which rows, parameters and optimiser state are split; must divide model.hidden_size"""
    tensor: int = 1
    """devices over which heads, feed-forward layers and vocabulary are split; must divide model.num_heads and
    model.intermediate_size"""

    def __post_init__(self) -> None:
        require_types(self, "mesh")
        for name, value in dataclasses.asdict(self).items():
            require(
                value == -1 or 1 <= value < 2**31,
                f"mesh.{name}={value} is impossible; give 1 or more devices, or -1 for what is left",
            )
        left = [f"mesh.{name}" for name, value in dataclasses.asdict(self).items() if value == -1]
        require(len(left) < 2, f"{' and '.join(left)} are all -1; give a number to all but one of them")

    def sizes(self, devices: int, model: BertConfig) -> tuple[int, int, int]:
        """Returns the sizes of the mesh's axes data, fsdp and tensor.

        Args:
          devices: number of devices that the mesh is made of.
          model: what is spread over it.

        Raises:
          BertjaxError: the sizes do not suit the devices or the model.
        """
        sizes = dataclasses.asdict(self)
        known = math.prod(size for size in sizes.values() if size != -1)
        sizes = {name: max(1, devices // known) if size == -1 else size for name, size in sizes.items()}
        given = " x ".join(f"mesh.{name}={size}" for name, size in sizes.items())
        require(
            math.prod(sizes.values()) == devices,
            f"{given} is a mesh of {math.prod(sizes.values())} devices, and there are {devices}; "
            f"give sizes whose product is {devices}, or -1 to one of them",
        )
        for axis, name in (("fsdp", "hidden_size"), ("tensor", "num_heads"), ("tensor", "intermediate_size")):
            require(
                getattr(model, name) % sizes[axis] == 0,
                f"model.{name}={getattr(model, name)} is not divisible by mesh.{axis}={sizes[axis]}; "
                "change one of them",
            )
        return sizes["data"], sizes["fsdp"], sizes["tensor"]


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """Several processes; on SLURM, Kubernetes, Open MPI and Cloud TPU these are found without this section"""

    coordinator: str | None = None
    """HOST:PORT of process 0, as the other processes reach it"""
    num_processes: int | None = None
    """number of processes of the run"""
    process_id: int | None = None
    """number of this process, from 0"""
    bind_address: str | None = None
    """address that process 0 listens on; by default the coordinator's HOST"""
    timeout: float = 300.0
    """seconds within which all processes must connect, and process 0 prepare the corpus"""

    def __post_init__(self) -> None:
        require_types(self, "distributed")
        given = [getattr(self, name) is not None for name in ("coordinator", "num_processes", "process_id")]
        require(
            all(given) or not any(given),
            "distributed.coordinator, distributed.num_processes and distributed.process_id belong together; "
            "give all of them or none",
        )
        require(
            1 <= self.timeout < 2**31, f"distributed.timeout={self.timeout} is impossible; give 1 or more, below 2**31"
        )
        if self.coordinator is None or self.num_processes is None or self.process_id is None:
            return
        host, _, port = self.coordinator.rpartition(":")
        require(
            bool(host.strip("[]")) and port.isdecimal() and 0 < int(port) < 2**16,
            f"distributed.coordinator={self.coordinator} is not an address; give HOST:PORT, such as 127.0.0.1:8476",
        )
        require_at_least(self, "distributed", 1, "num_processes")
        require(
            0 <= self.process_id < self.num_processes,
            f"distributed.process_id={self.process_id} is not one of distributed.num_processes={self.num_processes}; "
            f"give 0 to {self.num_processes - 1}",
        )
