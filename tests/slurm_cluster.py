"""A SLURM of one node on loopback, in a temporary folder; Debian's slurm-wlm has all that it needs."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_port

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")

SETTINGS = """
ClusterName=one
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmctldPort={port}
SlurmdPort={other_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=30
SwitchType=switch/none
NodeName=localhost NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextlib.contextmanager
def started(folder: Path) -> Iterator[None]:
    """Starts SLURM, of which SLURM_CONF tells inside, and ends it. Skips the test aloud where that cannot be."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"there is no {', '.join(missing)}: apt-get install slurm-wlm")
    if os.getuid() != 0:
        pytest.skip("SLURM's own processes are started as root here, which this user is not")
    for name in ("state", "spool", "log", "munge"):
        (folder / name).mkdir(mode=0o700)
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o600)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    settings = SETTINGS.format(folder=folder, port=free_port(), other_port=free_port())
    (folder / "slurm.conf").write_text(settings)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", path)
        patched.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        try:
            munge = folder / "munge"
            of_munge = {
                "key-file": "key",
                "socket": "socket",
                "pid-file": "pid",
                "log-file": "log",
                "seed-file": "seed",
            }
            subprocess.run(
                ["munged", "--force", *(f"--{key}={munge / name}" for key, name in of_munge.items())], check=True
            )
            subprocess.run(["slurmctld"], check=True)
            subprocess.run(["slurmd", "-N", "localhost"], check=True)
            deadline = time.monotonic() + 60
            while "idle" not in (told := said("sinfo", "--noheader", "--format=%T")):
                assert time.monotonic() < deadline, told
                time.sleep(0.2)
            yield
        finally:
            subprocess.run(["scancel", "--user", "root", "--signal=KILL"], capture_output=True)
            for file in (folder / "slurmd.pid", folder / "slurmctld.pid", folder / "munge" / "pid"):
                if file.is_file():
                    os.kill(int(file.read_text()), signal.SIGTERM)


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
