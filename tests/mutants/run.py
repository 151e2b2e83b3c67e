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
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from tests.mutants.constants import defined, users
from tests.mutants.forks import Call, in_forks
from tests.mutants.mutations import changed_code, mutations
from tests.mutants.score import MOST, Score, UsageError, equivalents, keys, listed, short_hash
from tests.mutants.session import Work, profile, run_anew, run_in_forks

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "mutants"
QUICK = 6.0
FOLDERS = ("unit", "replay", "logs")
SLOW = {"tests/replay/test_broken_rules.py", "tests/replay/test_slow_fixtures.py"}  # minutes each


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
    return names, short_hash("\0".join(sorted(path.read_text(encoding="utf-8") for path in seen)))


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
        sample: how many of its mutants are judged, chosen at random but always the same; None for all.
    """

    def __init__(self, module: str, files: dict[str, str], jobs: int, sample: int | None = None) -> None:
        self.module = module
        self.path = ROOT / module
        self.name = ".".join(Path(module).with_suffix("").parts)
        self.source = self.path.read_text(encoding="utf-8")
        self.named = keys(mutations(self.source))
        self.all = self.named
        self._sampled = None if sample is None or sample >= len(self.named) else len(self.named)
        if self._sampled is not None:
            chosen = set(sorted(self.named)[:sample])
            self.named = {key: mutation for key, mutation in self.named.items() if key in chosen}
        self._files = files
        self._jobs = jobs
        self._file = KEPT / f"{self.name}.json"
        machinery = "".join(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py")))
        kept: dict[str, Any] = {}
        if self._file.is_file():
            kept = json.loads(self._file.read_text(encoding="utf-8"))
        if kept.get("module") != short_hash(self.source + machinery):
            kept = {"module": short_hash(self.source + machinery), "results": {}, "survived_forks": {}}
        self._kept = kept
        # What an interrupted run has judged holds for this module and these tests.
        self._journal = KEPT / f"{self.name}.{short_hash(kept['module'] + self._all_tests())}.journal"
        self._tests: dict[str, tuple[float, frozenset[int]]] = {}
        self._quick: dict[str, float] = {}
        self._defined: dict[str, frozenset[str]] = {}
        self._room_lines: dict[str, dict[str, list[int]]] = {}
        self._room: list[Path] = []
        self._shared: dict[str, frozenset[int]] = {}

    def judge(self, equivalent: set[str], *, anew: bool = True) -> Score:
        """Judge the mutants of which nothing is known, and return the score.

        Args:
            equivalent: the keys of the mutants that are listed as equivalent.
            anew: judge those that survive in forks once more, with all imported anew. Without it the score may be
                lower than it is.
        """
        self._read_journal()
        pending = [key for key in self.named if not self._is_known(key)]
        if pending:
            self._say(f"{len(pending)} of {len(self.named)} mutants to judge")
            self._profile()
            self._defined = {
                key: defined(self.source, self.named[key].lines)
                for key in pending
                if changed_code(self.source, self.named[key].source, str(self.path)) is None
            }
            self._judge_in_forks([key for key in pending if key not in equivalent])
            self._judge_in_forks([key for key in pending if key in equivalent])
            left = [key for key in pending if key not in equivalent and not self._killer(key)]
            if anew:
                self._judge_anew(left)
        score = Score(self.module, len(self.named), len(equivalent & self.named.keys()), sampled=self._sampled)
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
        return short_hash(json.dumps(self._files, sort_keys=True))

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
        mine = short_hash(self.source)
        new = [
            name
            for name, hashed in self._files.items()
            if kept.get(name, {}).get("hash") != hashed or kept[name]["modules"].get(str(self.path)) != mine
        ]
        hashes = {str(path): short_hash(path.read_text(encoding="utf-8")) for path in modules}
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
        quick = {test: seconds for test, (seconds, _) in self._tests.items() if seconds < QUICK}
        self._quick = dict(sorted(quick.items(), key=lambda item: item[1]))
        self._room = modules
        self._room_lines = {
            test: lines for name in self._files for test, (_, lines) in kept[name]["tests"].items() if test
        }
        self._shared = {
            name: frozenset(kept[name]["tests"].get("", (0.0, {}))[1].get(str(self.path), ())) for name in self._files
        }
        self._say(f"{sum(bool(lines) for _, lines in self._tests.values())} tests run it")

    def _covering(self, key: str) -> list[str]:
        """Return the quick tests that run the lines of a mutation, or a function that uses what it defines."""
        if key not in self._defined:
            lines = frozenset(self.named[key].lines)
            return [test for test in self._quick if self._tests[test][1] & lines]
        using = [(path, used) for path, used in users(self._room, self._defined[key]).items() if used]
        return [
            test
            for test in self._quick
            if any(not used.isdisjoint(self._room_lines[test].get(path, ())) for path, used in using)
        ]

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
        mutants = {}
        for key in pending:
            covering = self._covering(key)
            if covering and self._kept["survived_forks"].get(key) != self._all_tests():
                mutants[key] = (self.named[key], covering)
        if not mutants:
            return
        work = Work(self.path, self.source, mutants, self._defined, self._quick, self._jobs, self._journal)
        for _ in in_forks([Call("", functools.partial(run_in_forks, work), 3600)], 1):
            self._read_journal()
        killed = sum(bool(self._killer(key)) for key in mutants)
        self._say(f"{killed} of {len(mutants)} killed in forks")

    def _judge_anew(self, pending: Sequence[str]) -> None:
        """Judge the survivors among mutants of what runs at import, or for several tests, with all imported anew."""
        slow = frozenset(test for test, (seconds, _) in self._tests.items() if seconds >= QUICK)
        costs: dict[str, float] = {}
        for test, seconds in self._quick.items():
            name = test.partition("::")[0]
            costs[name] = costs.get(name, 0.0) + seconds
        running = {test.partition("::")[0] for test in self._quick if self._tests[test][1]}
        limit = 60 + 6 * sum(costs.values())
        calls = []
        for key in pending:
            mutation = self.named[key]
            imported = key in self._defined
            using = {test.partition("::")[0] for test in self._covering(key)} if imported else set()
            chosen = sorted(
                (
                    name
                    for name in costs
                    if (imported and name in running) or name in using or self._shared[name] & set(mutation.lines)
                ),
                key=lambda name: costs[name],
            )
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
    parser.add_argument("--sample", type=int, help="how many mutants of each module are judged, always the same")
    parser.add_argument("--forks-only", action="store_true", help="no second judgement: the score may be too low")
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
            judged = Module(module, test_files(module, options.tests), options.jobs, options.sample)
            score = judged.judge(equivalents(module, judged.all, entries), anew=not options.forks_only)
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
