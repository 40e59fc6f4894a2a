"""What clusters tell: our reading of their variables against JAX's own, and nonsense refused by name."""

import pytest

from bertjax.errors import BertjaxError
from bertjax.parallel.clusters import detect_cluster

# Private, and so perhaps elsewhere one day.
CLUSTERS = pytest.importorskip("jax._src.clusters", reason="this JAX keeps its clusters in another place")
SLURM = {"JOB_ID": "4099", "STEP_NODELIST": "node03", "NTASKS": "8", "PROCID": "5", "LOCALID": "1"}
OPEN_MPI = {"SIZE": "4", "RANK": "2", "LOCAL_RANK": "0"}


@pytest.fixture(autouse=True)
def outside_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        *(f"SLURM_{name}" for name in (*SLURM, "STEP_NUM_TASKS")),
        "OMPI_MCA_orte_hnp_uri",
        *("SLURM_STEP_ID", "JAX_COORDINATOR_PORT", "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"),
        "JOB_COMPLETION_INDEX",
    ]:
        monkeypatch.delenv(name, raising=False)


def slurm(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    for name, value in (SLURM | changes).items():
        monkeypatch.setenv(f"SLURM_{name}", value)


def open_mpi(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", uri)
    for name, value in OPEN_MPI.items():
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)


def test_no_cluster() -> None:
    assert detect_cluster(None, 1) is None


@pytest.mark.parametrize("nodes", ["node03", "node03,other", "node[03-04],other", "node[03,07-15],other", "a-b[001-2]"])
@pytest.mark.parametrize("port", [None, "1234"])
def test_slurm_as_jax_has_it(monkeypatch: pytest.MonkeyPatch, nodes: str, port: str | None) -> None:
    slurm(monkeypatch, STEP_NODELIST=nodes)
    if port:
        monkeypatch.setenv("JAX_COORDINATOR_PORT", port)
    found = detect_cluster(None, 1)
    assert found is not None and found.local_devices == [1]
    given = found.rendezvous
    assert (given.index, given.size, given.bind) == (5, 8, None)
    assert f"{given.host}:{given.port}" == CLUSTERS.SlurmCluster.get_coordinator_address(1, port)


def test_a_bracket_of_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(monkeypatch, STEP_NODELIST="node[03],other")
    found = detect_cluster(None, 1)
    assert found is not None and found.rendezvous.host == "node03"


@pytest.mark.parametrize(
    "uri",
    [
        "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
        "1531576320.0;tcp://10.96.0.1:34911",
        "1314521088.0;tcp6://[fe80::b9b:ac5d,2620:10d::2]:43370",
        "1314521088.0;tcp6://[fe80::b9b:ac5d]:43370",
    ],
)
def test_open_mpi_as_jax_has_it(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    slurm(monkeypatch)  # mpirun inside a job of SLURM
    open_mpi(monkeypatch, uri)
    found = detect_cluster("10.0.0.9", 1)
    assert found is not None and found.local_devices == [0]
    given = found.rendezvous
    assert (given.index, given.size, given.bind) == (2, 4, "10.0.0.9")
    assert f"{given.host}:{given.port}" == CLUSTERS.OmpiCluster.get_coordinator_address(1, None)


def test_a_job_of_one_process_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(monkeypatch, NTASKS="1", PROCID="0")
    assert detect_cluster(None, 1) is None


def test_nonsense_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(monkeypatch, NTASKS="8(x2)")
    with pytest.raises(BertjaxError, match=r"SLURM_NTASKS='8\(x2\)' in the environment is not a number; give --dist"):
        detect_cluster(None, 1)
    slurm(monkeypatch, STEP_NODELIST="")
    with pytest.raises(BertjaxError, match="SLURM_STEP_NODELIST='' names no machine; give --distributed.coordinator"):
        detect_cluster(None, 1)
    open_mpi(monkeypatch, "nonsense")
    with pytest.raises(BertjaxError, match="OMPI_MCA_orte_hnp_uri=nonsense has no address; give --distributed"):
        detect_cluster(None, 1)


def test_a_step_may_have_fewer_tasks_than_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(monkeypatch, STEP_NUM_TASKS="6")
    assigned = detect_cluster(None, 1.0)
    assert assigned is not None and (assigned.rendezvous.index, assigned.rendezvous.size) == (5, 6)


def test_steps_of_one_job_meet_at_places_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = []
    for step in range(1000):
        slurm(monkeypatch, STEP_ID=str(step))
        found = detect_cluster(None, 1)
        assert found is not None and 61440 <= found.rendezvous.port < 2**16
        ports.append(found.rendezvous.port)
    assert len({*ports}) == 1000


def test_an_indexed_job_of_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sets JOB_COMPLETION_INDEX by itself, and its manifest the other two, which JAX reads too."""
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "train-0.train:8476")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    found = detect_cluster("0.0.0.0", 1)
    assert found is not None and found.local_devices is None
    given = found.rendezvous
    assert (given.index, given.size, given.host, given.port, given.bind) == (3, 4, "train-0.train", 8476, "0.0.0.0")
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    assert (found := detect_cluster(None, 1)) is not None and found.rendezvous.index == 1
    for name, value, why in (
        ("JAX_PROCESS_ID", "4", "this is process 4, and JAX_NUM_PROCESSES=4; number them from 0 to 3"),
        ("JAX_NUM_PROCESSES", "many", "JAX_NUM_PROCESSES='many' in the environment is not a number"),
        ("JAX_COORDINATOR_ADDRESS", "train-0", "JAX_COORDINATOR_ADDRESS=train-0 in the environment is not HOST:PORT"),
    ):
        monkeypatch.setenv(name, value)
        with pytest.raises(BertjaxError, match=why):
            detect_cluster(None, 1)


def test_one_of_many_that_works_alone_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    with pytest.warns(UserWarning, match="number 3 of an indexed Job .* works alone, .* set JAX_COORDINATOR_ADDRESS"):
        assert detect_cluster(None, 1) is None
    monkeypatch.delenv("JOB_COMPLETION_INDEX")
    monkeypatch.setenv("SLURM_NTASKS", "2")  # in the script of a job, or in the shell of salloc
    with pytest.warns(UserWarning, match="SLURM_NTASKS=2, and this process works alone, as it is not started by srun"):
        assert detect_cluster(None, 1) is None
