"""Uploads to a stand-in for the hub: what is shown, what is sent, and what is refused."""

from pathlib import Path

import pytest
from hub_server import Hub, serving
from huggingface_hub import constants
from odd_bert import write_odd_bert

from bertjax.cli.main import main


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_odd_bert(tmp_path_factory.mktemp("hub") / "theirs")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_is_shown_first_and_uploaded_whole_when_told(
    theirs: Path, hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_writes")
    hub.writer = "Bearer hf_writes"
    assert main(["push", str(theirs), "org/mine", "--private"]) == 0
    shown = capsys.readouterr().out
    assert f"{constants.ENDPOINT}/org/mine: a new repository, private\n" in shown and "--yes does it" in shown
    sent = files_of(theirs)
    for name, content in sent.items():
        assert any(line.split()[:2] == [name, f"{len(content) / 1e6:,.3f}"] for line in shown.splitlines())
    assert hub.repositories == {} and not [asked for asked in hub.asked if not asked.startswith(("GET", "HEAD"))]
    for told in ("a new repository, private", "it is there"):
        assert main(["push", str(theirs), "org/mine", "--private", "--yes"]) == 0
        shown = capsys.readouterr().out
        assert told in shown and f"uploaded: {constants.ENDPOINT}/org/mine/commit/" in shown
        assert hub.repositories["org/mine"] == sent and hub.made == {"org/mine": "private"}


def test_what_cannot_be_uploaded_is_said_in_a_line(
    theirs: Path, hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*argv: str) -> str:
        capsys.readouterr()
        assert main(["push", str(theirs), *argv]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    for name in ("mine", "org/mi ne", "org/mine@v1", "a/b/c", "../mine"):
        assert f"{name!r} is no name of a model on the hub" in refused(name, "--yes")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/none")
    assert "there is no token for the hub; log in by" in refused("org/mine", "--yes")
    monkeypatch.setenv("HF_TOKEN", "hf_reads")
    hub.writer = "Bearer hf_writes"
    said = refused("org/mine", "--yes")
    assert f"cannot upload to {constants.ENDPOINT}/org/mine: " in said and "with a token that may write" in said
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set, so nothing is sent" in refused("org/mine", "--yes")
    assert main(["push", str(theirs), "org/mine"]) == 0 and "cannot be asked" in capsys.readouterr().out
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving(lambda _: None) as address:
        pass
    monkeypatch.setattr(constants, "ENDPOINT", address)
    assert f"cannot upload to {address}/org/mine" in refused("org/mine", "--yes")
    assert hub.repositories == {}
