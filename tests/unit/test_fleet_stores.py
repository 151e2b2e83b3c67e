# SPDX-License-Identifier: MIT
"""A dataset in a store of fsspec: the same answers, and each commit counts as a whole or not at all."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from kalloctrace.cli import main
from kalloctrace.errors import KalloctraceError
from kalloctrace.fleet import stores
from kalloctrace.fleet.dataset import Dataset
from kalloctrace.fleet.stores import store_of
from tests.fleets import add
from tests.traces import stream

URL = "memory://fleets/one fleet"


@pytest.fixture(autouse=True)
def memory() -> Iterator[Any]:
    """Return the file system in memory, which is empty."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


def traces(folder: Path) -> list[Path]:
    """Return two traces, of which one has a mismatch."""
    return [
        stream(
            folder / "one.arrows", {"comm": "a"}, {"comm": "b", "page": False}, recording={"id": "1", "host": "web-1"}
        ),
        stream(folder / "two.arrows", {"migratetype": 99}, recording={"id": "2", "host": "web-2"}),
    ]


def printed(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> str:
    """Run the program; return what it prints."""
    assert main(["fleet", *words]) == code
    return capsys.readouterr().out


def calls(place: str | Path) -> int:
    """Return the calls of the recordings that count."""
    with Dataset.opened(place) as dataset:
        rows = dataset.table("recordings", ["recording_key", "calls"]).to_pylist()
        return sum(row["calls"] for row in rows if row["recording_key"] not in dataset.stale)


@pytest.mark.parametrize("at_once", [stores._AT_ONCE, 100])  # noqa: SLF001 (small and large files)
def test_answers_are_those_of_a_folder(
    at_once: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each command, whether files are uploaded at once or in parts; what was added before is not read again."""
    monkeypatch.setattr(stores, "_AT_ONCE", at_once)
    places, names = (URL, f"file://{tmp_path}/a%20fleet"), [str(path) for path in traces(tmp_path)]
    questions = ((3, "verify"), (0, "report"), (0, "compact"), (0, "report", "--json"))
    answers = []
    for place in places:
        assert json.loads(printed(capsys, 0, "add", "--json", place, names[0]))["added"] == 1
        assert json.loads(printed(capsys, 0, "add", "--json", place, *names))["unchanged"] == 1
        found = [printed(capsys, code, *words, place) for code, *words in questions]
        answers.append([text for (_, name, *_), text in zip(questions, found, strict=True) if name != "compact"])
        assert printed(capsys, 0, "sql", place, "SELECT sum(calls) AS n FROM allocations") == "  n\n  3\n"
    assert answers[0] == answers[1]
    assert (tmp_path / "a fleet" / "_commits").is_dir()


def test_a_commit_is_there_as_a_whole_or_not_at_all(
    tmp_path: Path,
    memory: Any,  # noqa: ANN401 (of fsspec)
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is one upload; where that fails, nothing counts and nothing is left."""
    one, two = traces(tmp_path)
    add(URL, one)
    before, upload, seen = sorted(memory.store), memory.pipe_file, list[str]()

    def refusing(path: str, data: bytes, **more: Any) -> None:  # noqa: ANN401 (options)
        seen.append(path)
        if "_commits" in path:
            raise OSError(28, "No space left on device")
        upload(path, data, **more)

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "pipe_file", lambda _, path, data, **more: refusing(path, data, **more))
        with pytest.raises(KalloctraceError, match=r"cannot write memory://.*_commits"):
            add(URL, two)
    assert "_commits" in seen[-1]
    assert sorted(memory.store) == before
    assert calls(URL) == 2


def test_what_was_interrupted_is_not_uploaded(memory: Any) -> None:  # noqa: ANN401 (of fsspec)
    """An upload begins when all is written."""

    def interrupted() -> None:
        with store_of(URL).written("_commits/x.json") as file:
            file.write(b"{")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not memory.store


def test_two_who_add_at_once_count_once(tmp_path: Path) -> None:
    """Neither has seen the other's commit, and both are kept: no name is used twice."""
    one, two = traces(tmp_path)
    add(URL, two)
    with Dataset.opened(URL) as first:
        add(URL, one)
        # It has read the dataset before.
        assert len(first.commits) == 1
        adding_late(first, one)
    assert calls(URL) == 3


def adding_late(dataset: Dataset, trace: Path) -> None:
    """Add a trace to a dataset as it was when it was opened."""
    from kalloctrace.fleet.add import Adding  # noqa: PLC0415 (the one use)
    from kalloctrace.trace.reader import TraceReader  # noqa: PLC0415 (likewise)

    adding = Adding(dataset)
    with TraceReader(trace) as reader:
        adding.add(adding.read(reader))
    adding.commit()


def test_a_damaged_file_is_named(tmp_path: Path, memory: Any) -> None:  # noqa: ANN401 (of fsspec)
    """One that is cut or lost, by its URL."""
    add(URL, *traces(tmp_path))
    name = next(path for path in memory.store if "/allocations/" in path)
    memory.pipe_file(name, memory.cat_file(name)[:-1])
    with pytest.raises(
        KalloctraceError, match=r"cannot read memory://fleets/one fleet/allocations/.*\n.*bytes in place of"
    ):
        calls(URL)
    memory.rm_file(name)
    with pytest.raises(KalloctraceError, match="it is missing"):
        calls(URL)


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A protocol that nobody knows, a place that is not there, and a secret that others could read."""
    one, _ = traces(tmp_path)
    for words, code, why in (
        (["report", "nosuch://x/y"], 2, "Protocol not known"),
        (["report", "memory://nowhere"], 1, "there is no such folder"),
        (["add", "--pseudonymous", URL, str(one)], 2, "others may read all that is there"),
    ):
        assert main(["fleet", *words]) == code
        assert why in capsys.readouterr().err
