"""Sentences about films are split whole and in one way, and packages are what they are said to be."""

import csv
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.films import Films, Sentence, ratings, read_rated, write_films
from benchmarks.packages import Package, unpacked
from bertjax.errors import BertjaxError


def sentence(number: int) -> Sentence:
    return Sentence(f"{number} is like no other", "positive", 1.0)


def read(folder: Path) -> dict[str, list[str]]:
    parts = {}
    for part in Films._fields:
        with open(folder / f"{part}.csv", newline="", encoding="utf-8") as file:
            parts[part] = [row["text"] for row in csv.DictReader(file)]
    return parts


def test_each_sentence_is_in_one_part_and_near_duplicates_are_in_the_same(tmp_path: Path) -> None:
    alike = [
        "It is one of the best films!",
        "it's one of the best films, I say",
        "it is one of the best",
        "Good?",
        "good",
    ]
    some = [sentence(number) for number in range(95)] + [Sentence(text, "negative", -2.0) for text in alike]
    for seed, folder in enumerate([tmp_path / "a", tmp_path / "b"]):
        folder.mkdir()
        write_films(some, folder, seed=seed)
        parts = read(folder)
        assert {part: len(texts) for part, texts in parts.items()} == {"train": 80, "valid": 10, "test": 10}
        assert sorted(sum(parts.values(), [])) == sorted(text for text, _, _ in some)
        for group in ((alike[0], alike[2]), alike[3:]):
            assert sum(set(group) <= set(texts) for texts in parts.values()) == 1
    assert read(tmp_path / "a") != read(tmp_path / "b")
    write_films(some, tmp_path, seed=0)
    assert read(tmp_path) == read(tmp_path / "a")


def test_a_chain_of_near_duplicates_stays_together(tmp_path: Path) -> None:
    """The last sentence is like both of two that are unlike each other."""
    one, other = "a b c d e f g", "t u v w x y z"
    some = [Sentence(text, "positive", 1.0) for text in (one, other, f"{one} {other}")]
    write_films([*some, *map(sentence, range(27))], tmp_path)
    assert sum({one, other, f"{one} {other}"} <= set(texts) for texts in read(tmp_path).values()) == 1


def packed(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def test_ratings_become_labels_and_those_near_0_fall_away(tmp_path: Path) -> None:
    lines = "1\t2.25\tA ''good'' film, é\r\n2\t-0.19\tSo so\r\n3\t-0.2\tBad\r\n".encode()
    inner = packed({"hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": lines})
    archive = tmp_path / "sdist.tar.gz"
    archive.write_bytes(packed({"x/additional_resources/hutto_ICWSM_2014.tar.gz": inner}))
    assert read_rated(archive) == [("A ''good'' film, é", "positive", 2.25), ("Bad", "negative", -0.2)]


def test_of_all_domains_the_ratings_themselves_are_the_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domains = ("movieReviewSnippets", "tweets", "nytEditorialSnippets", "amazonReviewSnippets")
    files = {
        f"hutto_ICWSM_2014/{domain}_GroundTruth.txt": "".join(
            f"{n}\t{n / 8 - 1}\tOf {domain} number {n}\r\n" for n in range(10)
        ).encode()
        for domain in domains
    }
    archive = tmp_path / "sdist.tar.gz"
    archive.write_bytes(packed({"x/additional_resources/hutto_ICWSM_2014.tar.gz": packed(files)}))

    def unpack(_: Package, write: Callable[[Path, Path], None], made: str) -> Path:
        folder = tmp_path / made
        if not folder.exists():
            folder.mkdir()
            write(archive, folder)
        return folder

    monkeypatch.setattr("benchmarks.films.unpacked", unpack)
    rows: list[dict[str, str]] = []
    for file, size in zip(ratings(), (32, 4, 4), strict=True):
        with open(file, newline="", encoding="utf-8") as opened:
            of_part = list(csv.DictReader(opened))
        assert len(of_part) == size
        rows += of_part
    assert {(row["text"], float(row["label"])) for row in rows} == {
        (f"Of {domain} number {n}", n / 8 - 1) for domain in domains for n in range(10)
    }


def test_a_package_is_fetched_once_and_only_the_one_that_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By pip itself, from a folder instead of an index."""
    wheel = tmp_path / "made_up-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(zipfile.ZipInfo("made_up/data.txt"), "what is meant")
        archive.writestr(zipfile.ZipInfo("made_up-1.0.dist-info/METADATA"), "Name: made-up\nVersion: 1.0\n")
        archive.writestr(zipfile.ZipInfo("made_up-1.0.dist-info/WHEEL"), "Wheel-Version: 1.0\nTag: py3-none-any\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    def unpack(archive: Path, folder: Path) -> None:
        (folder / "data.txt").write_bytes(zipfile.ZipFile(archive).read("made_up/data.txt"))

    with pytest.raises(BertjaxError, match=r"pip cannot download made-up==1.0: .*give it an index that has this") as it:
        unpacked(Package("made-up", "1.0", True, "0" * 64), unpack, "data")
    assert "\n" not in str(it.value)
    package = Package("made-up", "1.0", True, hashlib.sha256(wheel.read_bytes()).hexdigest())
    folder = unpacked(package, unpack, "data")
    assert (folder / "data.txt").read_text() == "what is meant" and not list(folder.glob("*.whl"))
    wheel.unlink()
    assert unpacked(package, unpack, "data") == folder
