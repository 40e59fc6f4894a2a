"""Models by their names on the hub: what is fetched, what is believed, and what is said where that cannot be."""

import re
from pathlib import Path

import pytest
from hub_server import COMMIT, Hub, serving
from huggingface_hub import constants
from refusals import refusal

from bertjax.storage import hub_models
from bertjax.storage.hub_models import model_folder, pinned, same_model

FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": bytes(range(200)) * 50,
    "tokenizer.json": b"{}",
    "modules.json": b"[]",
    "1_Pooling/config.json": b"{}",
    "README.md": b"# A model\n",
}
OTHERS = {
    "pytorch_model.bin": b"pickle",
    "modeling_mine.py": b"import os",
    "onnx/model.onnx": b"onnx",
    "onnx/config.json": b"{}",
    "training_args.json": b"{}",
    "tf_model.h5": b"h5",
    "model.fp16.safetensors": b"half",
}


@pytest.fixture(autouse=True)
def fetched_anew() -> None:
    hub_models._fetched.cache_clear()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_json_text_and_safetensors_alone_are_fetched_once_and_then_read_offline(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["org/name"] = FILES | OTHERS
    folder = model_folder("org/name")
    assert files_of(folder) == FILES and not any(name in asked for name in OTHERS for asked in hub.asked)
    hub.asked.clear()
    hub_models._fetched.cache_clear()
    assert model_folder(f"org/name@{COMMIT}") == folder and hub.asked == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert model_folder("org/name") == model_folder("org/name@main") == folder and hub.asked == []
    assert pinned("org/name") == pinned("org/name@main") == f"org/name@{COMMIT}" and hub.asked == []


def test_a_folder_that_is_here_is_meant_before_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hub.repositories["org/name"] = FILES
    Path("org/name").mkdir(parents=True)
    for name in ("org/name", "org", "./org/none", "/org/none", "../org/name", "a/b/c", "~/none"):
        assert model_folder(name) == Path(name).expanduser() and pinned(name) == name
    assert hub.asked == []


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.repositories["org/gated"], hub.gated = FILES, {"org/gated"}
    elsewhere: list[str | None] = []

    def send(handler: object) -> None:
        elsewhere.append(handler.headers.get("authorization"))  # type: ignore[attr-defined]
        hub._send(handler, 200, FILES["model.safetensors"], {})  # type: ignore[arg-type]

    with serving(send) as address:
        hub.redirects["model.safetensors"] = address.replace("127.0.0.1", "localhost") + "/blob"
        assert files_of(model_folder("org/gated")) == FILES
    assert hub.tokens == {"Bearer hf_secret"} and elsewhere == [None]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "org/none",
            "is no folder here, and http://.* shows no such model; put the name right, or",
        ),
        ("org/gated", "is gated; accept its terms at http://.*/org/gated, and log in"),
        ("org/name@v9", "has no revision 'v9'; give a branch, tag or commit that it has"),
        (f"org/name@{'f' * 40}", f"has no revision '{'f' * 40}'"),
        ("org/na me", "is no folder here, and no name of a model"),
        ("org/naïve", "is no folder here, and no name of a model"),
        ("org/pickled", "has its weights as pytorch_model.bin, and safetensors is needed; give a model that has"),
        ("org/empty", "has no weights, and safetensors is needed"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_line(hub: Hub, name: str, message: str) -> None:
    hub.repositories |= {
        "org/name": FILES,
        "org/gated": FILES,
        "org/pickled": {"config.json": b"{}", "pytorch_model.bin": b"x"},
        "org/empty": {"README.md": b""},
    }
    hub.gated = {"org/gated"}
    said = refusal(model_folder, name)
    assert said.startswith(name.partition("@")[0]) and re.search(message, said)


def test_without_a_network_it_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda _: None) as address:
        pass  # nobody listens there any more
    monkeypatch.setattr(constants, "ENDPOINT", address)
    assert f"and {address} cannot be reached; give a folder, or a network" in refusal(model_folder, "org/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "and HF_HUB_OFFLINE is set" in refusal(model_folder, f"org/name@{COMMIT}")


def test_a_file_that_is_cut_off_is_gone_on_with_and_never_used_in_part(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.repositories |= {"org/name": FILES, "org/cut": FILES}
    hub.cuts["model.safetensors"] = [6000, 100]
    assert files_of(model_folder("org/name")) == FILES
    hub.cuts["model.safetensors"] = [100] * 9
    assert "cannot be fetched" in refusal(model_folder, "org/cut")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "nor whole in" in refusal(model_folder, "org/cut")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.cuts.clear()
    assert files_of(model_folder("org/cut")) == FILES


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_other_bytes_than_those_listed_are_refused_and_fetched_again(hub: Hub, name: str) -> None:
    hub.repositories["org/name"] = FILES
    for sent in (FILES[name][:-1] + b"!", FILES[name] + b"!"):
        hub.sent = {name: sent}
        assert f"{name} did not come as the hub lists it, and is removed" in refusal(model_folder, "org/name")
    hub.sent.clear()
    assert files_of(model_folder("org/name")) == FILES


def test_nothing_is_written_or_read_outside_the_cache(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/out"] = FILES | {"1_/../../../../../../config.json": b"{}"}
    assert "cannot be fetched" in refusal(model_folder, "org/out")
    secret = tmp_path / "secret"
    secret.write_bytes(FILES["model.safetensors"])
    hub.repositories["org/name"], hub.redirects = FILES, {"model.safetensors": secret.as_uri()}
    assert "cannot be fetched" in refusal(model_folder, "org/name")


def test_names_are_those_of_one_model() -> None:
    pin = f"org/name@{COMMIT}"
    for asked, same in {"org/name": 1, "org/name@main": 1, pin: 1, f"org/name@{'f' * 40}": 0, "org/other": 0}.items():
        assert same_model(asked, pin) == bool(same)
    assert same_model("runs/x/y", "runs/x/y") and not same_model("runs/x/y", pin)
