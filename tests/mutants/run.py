# SPDX-License-Identifier: MIT
"""`make mutants`: breaks a module in each small way, and lists the ways that no test notices.

The mutations are mutmut's, and one more; see `tests.mutants.mutations` for them and for what is left alone. Only fast
tests run: those of `tests/unit`, `tests/replay` and `tests/logs` whose file imports the module's room, and that take
less than `QUICK` seconds. Results are kept in `build/mutants` by the module's hash; a killed mutant is judged anew when
the file of the test that killed it changes, a survivor when any of the tests changes.
"""

import argparse
import ast
import functools
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from tests.mutants.forks import Call, in_forks
from tests.mutants.mutations import Mutation, changed_code, mutations
from tests.mutants.session import Work, profile, run_anew, run_in_forks

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "mutants"
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
QUICK = 6.0
FOLDERS = ("unit", "replay", "logs")
SLOW = {"tests/replay/test_broken_rules.py", "tests/replay/test_slow_fixtures.py"}  # minutes each
ALL = (
    "kalloctrace/model/watermark.py",
    "kalloctrace/model/page_alloc.py",
    "kalloctrace/model/gfp.py",
    "kalloctrace/model/cpuset.py",
    "kalloctrace/model/slowpath/flags.py",
)
"""Here every mutant must be killed, or be listed as equivalent."""

MOST = ("kalloctrace/model/", "kalloctrace/verify/", "kalloctrace/flags/", "kalloctrace/probe/decode/")
"""Here 90 % of the mutants."""


class UsageError(Exception):
    """The equivalents or the module named are wrong."""


@dataclass
class Score:
    """What came of a module's mutants.

    Attributes:
        module: its path in the checkout.
        total: how many mutants it has.
        equivalent: those listed as equivalent.
        survived: those that no test noticed.
        wrong: those that are listed as equivalent, but that a test notices, with the test.
    """

    module: str
    total: int = 0
    equivalent: int = 0
    survived: list[Mutation] = field(default_factory=list)
    wrong: list[tuple[Mutation, str]] = field(default_factory=list)

    @property
    def percent(self) -> float:
        """How many of a hundred mutants are killed or listed."""
        return 100 * (self.total - len(self.survived)) / self.total if self.total else 100.0

    @property
    def enough(self) -> bool:
        """Whether the module reaches the score that it must have."""
        return self.percent >= required(self.module) and not self.wrong

    def __str__(self) -> str:
        """Return one line."""
        killed = self.total - self.equivalent - len(self.survived)
        return (
            f"{self.module}: {self.total} mutants, {killed} killed, {len(self.survived)} survived, "
            f"{self.equivalent} equivalent: {self.percent:.1f} % (required: {required(self.module)} %)"
        )


def required(module: str) -> int:
    """Return the score that a module must have, in percent."""
    if module in ALL:
        return 100
    return 90 if module.startswith(MOST) else 0


def keys(found: Sequence[Mutation]) -> dict[str, Mutation]:
    """Return the mutations, each with a key that another run gives it too."""
    named: dict[str, Mutation] = {}
    for mutation in found:
        text = f"{mutation.function}\0{mutation.was}\0{mutation.becomes}"
        number = 0
        while (key := _hash(f"{text}\0{number}")) in named:
            number += 1
        named[key] = mutation
    return named


def equivalents(module: str, named: dict[str, Mutation], entries: Sequence[dict[str, str]]) -> set[str]:
    """Return the keys of the mutants that are listed as equivalent.

    Args:
        module: the module's path in the checkout.
        named: its mutants.
        entries: the list of equivalents.

    Raises:
        UsageError: an entry is incomplete, or no mutant is as it says.
    """
    found = set()
    for entry in entries:
        missing = {"module", "function", "was", "becomes", "reason"} - {name for name, text in entry.items() if text}
        missing -= {"function"} if "function" in entry else set()
        if missing:
            raise UsageError(f"equivalent.toml: an entry has no {', '.join(sorted(missing))}: {entry}")
        if entry["module"] == module:
            same = {
                key
                for key, mutation in named.items()
                if (mutation.function, mutation.was, mutation.becomes)
                == (entry["function"], entry["was"].strip(), entry["becomes"].strip())
            }
            if not same:
                raise UsageError(
                    f"equivalent.toml: no mutant of {module} is as this entry says; remove or correct it:\n"
                    f"in {entry['function']}\n- {entry['was']}\n+ {entry['becomes']}"
                )
            found |= same
    return found


def listed() -> list[dict[str, str]]:
    """Read the list of equivalents."""
    entries: list[dict[str, str]] = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("equivalent", [])
    return entries


def room_of(module: str) -> str:
    """Return the name of a module's room, or of the module itself where it is in none."""
    parts = Path(module).with_suffix("").parts
    return ".".join(parts[:2] if len(parts) > 2 else parts)


def test_files(module: str, pattern: str) -> dict[str, str]:
    """Return the fast tests' files that import a module's room, each with a hash of it and its helpers."""
    room = room_of(module)
    found = {}
    for path in sorted(path for folder in FOLDERS for path in (ROOT / "tests" / folder).glob(pattern)):
        names, hashed = _imports(path)
        if str(path.relative_to(ROOT)) not in SLOW and any(
            name == room or name.startswith(f"{room}.") for name in names
        ):
            found[str(path.relative_to(ROOT))] = hashed
    return found


def _imports(path: Path) -> tuple[set[str], str]:
    """Return what a test imports, through the tests' helpers as well, and a hash of all these files."""
    names: set[str] = set()
    seen, pending = {path}, [path]
    while pending:
        tree = ast.parse(pending.pop().read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        helpers = {ROOT / (name.replace(".", "/") + ".py") for name in names if name.startswith("tests.")}
        new = {helper for helper in helpers - seen if helper.is_file()}
        seen |= new
        pending += new
    return names, _hash("\0".join(sorted(path.read_text(encoding="utf-8") for path in seen)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _save(file: Path, kept: dict[str, Any]) -> None:
    """Write a file of results as a whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(kept), encoding="utf-8")
    new.replace(file)


class Module:
    """One module, and what is kept of it.

    Args:
        module: its path in the checkout.
        files: the tests' files, each with its hash.
        jobs: how many mutants are judged at a time.
    """

    def __init__(self, module: str, files: dict[str, str], jobs: int) -> None:
        self.module = module
        self.path = ROOT / module
        self.name = ".".join(Path(module).with_suffix("").parts)
        self.source = self.path.read_text(encoding="utf-8")
        self.named = keys(mutations(self.source))
        self._files = files
        self._jobs = jobs
        self._file = KEPT / f"{self.name}.json"
        machinery = "".join(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py")))
        kept: dict[str, Any] = {}
        if self._file.is_file():
            kept = json.loads(self._file.read_text(encoding="utf-8"))
        if kept.get("module") != _hash(self.source + machinery):
            kept = {"module": _hash(self.source + machinery), "results": {}, "survived_forks": {}}
        self._kept = kept
        # What an interrupted run has judged holds for this module and these tests.
        self._journal = KEPT / f"{self.name}.{_hash(kept['module'] + self._all_tests())}.journal"
        self._tests: dict[str, tuple[float, frozenset[int]]] = {}
        self._shared: dict[str, frozenset[int]] = {}

    def judge(self, equivalent: set[str]) -> Score:
        """Judge the mutants of which nothing is known, and return the score."""
        self._read_journal()
        pending = [key for key in self.named if not self._is_known(key)]
        if pending:
            self._say(f"{len(pending)} of {len(self.named)} mutants to judge")
            self._profile()
            self._judge_in_forks([key for key in pending if key not in equivalent])
            self._judge_in_forks([key for key in pending if key in equivalent])
            self._judge_anew([key for key in pending if key not in equivalent and not self._killer(key)])
        score = Score(self.module, len(self.named), len(equivalent))
        for key, mutation in self.named.items():
            killer = self._killer(key)
            if key in equivalent and killer:
                score.wrong.append((mutation, killer))
            elif key not in equivalent and not killer:
                score.survived.append(mutation)
        return score

    def _is_known(self, key: str) -> bool:
        """Return whether a result is kept, and still holds."""
        if key not in self._kept["results"]:
            return False
        killer, hashed = self._kept["results"][key]
        return bool(hashed == (self._files.get(killer.partition("::")[0], "") if killer else self._all_tests()))

    def _all_tests(self) -> str:
        return _hash(json.dumps(self._files, sort_keys=True))

    def _killer(self, key: str) -> str:
        return str(self._kept["results"].get(key, ("", ""))[0])

    def _note(self, key: str, killer: str) -> None:
        """Keep a result."""
        hashed = self._files.get(killer.partition("::")[0], "") if killer else self._all_tests()
        self._kept["results"][key] = (killer, hashed)

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {self.module}: {text}", file=sys.stderr, flush=True)

    def _profile(self) -> None:
        """Learn which tests run which lines of the room, of the files of tests that have changed, or of all."""
        room = room_of(self.module)
        folder = ROOT / room.replace(".", "/")
        modules = sorted(folder.rglob("*.py")) if folder.is_dir() else [self.path]
        file = KEPT / f"{room}.profile.json"
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        mine = _hash(self.source)
        new = [
            name
            for name, hashed in self._files.items()
            if kept.get(name, {}).get("hash") != hashed or kept[name]["modules"].get(str(self.path)) != mine
        ]
        hashes = {str(path): _hash(path.read_text(encoding="utf-8")) for path in modules}
        calls = [Call(name, functools.partial(profile, modules, name), 200) for name in new]
        for name, tests in in_forks(calls, self._jobs):
            if isinstance(tests, str):
                self._say(f"{name} is left out: {tests}")
            found = {} if isinstance(tests, str) else tests
            kept[name] = {"hash": self._files[name], "modules": hashes, "tests": found}
            _save(file, kept)
        self._tests = {
            test: (seconds, frozenset(lines.get(str(self.path), ())))
            for name in self._files
            for test, (seconds, lines) in sorted(kept[name]["tests"].items(), key=lambda item: item[1][0])
            if test
        }
        self._shared = {
            name: frozenset(kept[name]["tests"].get("", (0.0, {}))[1].get(str(self.path), ())) for name in self._files
        }
        self._say(f"{sum(bool(lines) for _, lines in self._tests.values())} tests run it")

    def _quick(self) -> dict[str, tuple[float, frozenset[int]]]:
        """Return the quick tests that run a line of the module, quickest first."""
        found = {test: known for test, known in self._tests.items() if known[1] and known[0] < QUICK}
        return dict(sorted(found.items(), key=lambda item: item[1][0]))

    def _read_journal(self) -> None:
        """Note the results of forks, those of an interrupted run as well."""
        if self._journal.is_file():
            for line in self._journal.read_text(encoding="utf-8").splitlines():
                key, _, killer = line.partition("\t")
                self._kept["survived_forks"][key] = "" if killer else self._all_tests()
                if killer:
                    self._note(key, killer)
            _save(self._file, self._kept)
            self._journal.unlink()

    def _judge_in_forks(self, pending: Sequence[str]) -> None:
        tests = self._quick()
        mutants = {}
        for key in pending:
            mutation = self.named[key]
            covering = [test for test, (_, lines) in tests.items() if lines & set(mutation.lines)]
            if covering and self._kept["survived_forks"].get(key) != self._all_tests():
                mutants[key] = (mutation, covering)
        if not mutants:
            return
        seconds = {test: time for test, (time, _) in tests.items()}
        work = Work(self.path, self.source, mutants, seconds, self._jobs, self._journal)
        for _ in in_forks([Call("", functools.partial(run_in_forks, work), 3600)], 1):
            self._read_journal()
        killed = sum(bool(self._killer(key)) for key in mutants)
        self._say(f"{killed} of {len(mutants)} killed in forks")

    def _judge_anew(self, pending: Sequence[str]) -> None:
        """Judge the survivors among mutants of what runs at import, or for several tests, with all imported anew."""
        tests = self._quick()
        slow = frozenset(test for test, (seconds, _) in self._tests.items() if seconds >= QUICK)
        costs: dict[str, float] = {}
        for test, (seconds, _) in tests.items():
            name = test.partition("::")[0]
            costs[name] = costs.get(name, 0.0) + seconds
        files = sorted(costs, key=lambda name: costs[name])
        limit = 60 + 6 * sum(costs.values())
        calls = []
        for key in pending:
            mutation = self.named[key]
            imported = changed_code(self.source, mutation.source, str(self.path)) is None
            chosen = [name for name in files if imported or self._shared[name] & set(mutation.lines)]
            if chosen:
                work = functools.partial(run_anew, self.name, self.path, mutation.source, chosen, slow)
                calls.append(Call(key, work, limit))
            else:
                self._note(key, "")
        _save(self._file, self._kept)
        for done, (key, killer) in enumerate(in_forks(calls, self._jobs), 1):
            self._note(key, killer)
            _save(self._file, self._kept)
            if done % 10 == 0 or done == len(calls):
                self._say(f"{done} of {len(calls)} judged with all imported anew")


def chosen_modules(words: Sequence[str]) -> list[str]:
    """Return the modules that are named, or all that must have a score.

    Raises:
        UsageError: there is no such module.
    """
    found = []
    for word in words or MOST:
        path = ROOT / word
        if not path.exists():
            raise UsageError(f"there is no module {word}; name one as kalloctrace/model/gfp.py")
        inside = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        found += [str(item.relative_to(ROOT)) for item in inside if path.is_file() or item.name != "__init__.py"]
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Judge modules, print their scores, and return 1 when one is below what it must reach."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="files or folders; by default all that must have a score")
    parser.add_argument("--jobs", type=int, default=2, help="how many mutants are judged at a time")
    parser.add_argument("--tests", default="test_*.py", help="which files of tests take part, as test_model_*.py")
    options = parser.parse_args(words)

    def stop(*_: object) -> NoReturn:
        sys.exit(1)

    handler = signal.signal(signal.SIGTERM, stop)
    folder = tempfile.mkdtemp(prefix="kalloctrace-mutants-")
    before, os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ.get("PYTEST_DEBUG_TEMPROOT"), folder
    scores = []
    try:
        entries = listed()
        for module in chosen_modules(options.modules):
            judged = Module(module, test_files(module, options.tests), options.jobs)
            score = judged.judge(equivalents(module, judged.named, entries))
            show(score)
            scores.append(score)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, handler)
        del os.environ["PYTEST_DEBUG_TEMPROOT"]
        if before is not None:
            os.environ["PYTEST_DEBUG_TEMPROOT"] = before
    if len(scores) > 1:
        print("\n".join(map(str, scores)))
    return 0 if all(score.enough for score in scores) else 1


def show(score: Score) -> None:
    """Print a module's survivors as diffs, and its score."""
    for mutation in score.survived:
        print(f"{score.module}:{mutation.lines.start} in {mutation.function or 'the module'}: survived")
        print(mutation.diff())
    for mutation, killer in score.wrong:
        print(f"{score.module}:{mutation.lines.start}: listed as equivalent, but {killer} fails")
        print(mutation.diff())
    print(score, flush=True)


if __name__ == "__main__":
    sys.exit(main())
