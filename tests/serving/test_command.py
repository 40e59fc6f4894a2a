"""What is wrong with a command is said before anything is loaded."""

from pathlib import Path

import pytest

from bertjax.cli.main import main
from bertjax.errors import BertjaxError
from bertjax.serving.extra import needed
from bertjax.serving.guard import read_keys


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["model", "--port", "70000"], "--port 70000 is no port; give 0 to 65535"),
        (
            ["model", "--host", "0.0.0.0"],
            "--host 0.0.0.0 lets other machines ask; give --api-key-file FILE, or --no-keys",
        ),
        (["model", "--host", "example.org"], "--host example.org lets other machines ask"),
        (["a/model", "b/model"], "two models are called model; give one another name, by NAME=FOLDER"),
        (["one two"], "'one two' gives no name to a model; give NAME=FOLDER"),
        (["x="], "'x=' gives no name to a model"),
        (["model", "--max-inputs", "0"], "--max-inputs 0 is impossible; give 1 or more"),
        (["model", "--drain", "0"], "--drain 0 is no number of seconds"),
        (["model", "--api-key-file", "none.txt"], "--api-key-file none.txt cannot be read"),
        (["none", "--port", "0"], "none is not a run's folder nor a Hugging Face one"),
    ],
)
def test_mistakes(argv: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_keys_are_read_from_a_file_and_must_be_secrets(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("# ours\n\n a-key-of-some-length \nanother-key-as-long\n")
    assert read_keys(file) == ["a-key-of-some-length", "another-key-as-long"]
    for text, said in (("# none\n", "has no key"), ("a-key-of-some-length\nshort\n", "key 2 is not 16 ASCII")):
        file.write_text(text)
        with pytest.raises(BertjaxError, match=said):
            read_keys(file)


def test_a_missing_library_is_told_with_the_extra_that_has_it() -> None:
    with pytest.raises(BertjaxError, match=r"needs starlette, which is not installed; pip install 'bertjax\[serve\]'"):
        with needed():
            raise ModuleNotFoundError("No module named 'starlette'", name="starlette")
