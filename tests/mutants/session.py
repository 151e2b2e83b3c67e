# SPDX-License-Identifier: MIT
"""Runs tests with a mutated module: its functions' code is replaced in a fork, or the whole module is imported so.

A fork of a session that has collected its tests starts no interpreter and imports nothing, so most mutants take less
than a tenth of a second. What runs at import is mutated by the slow way: a fork without our modules imports all anew.
"""

import functools
import gc
import importlib.util
import resource
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NoReturn

import coverage
import pytest

from tests.mutants.constants import replace
from tests.mutants.forks import Call, in_forks
from tests.mutants.mutations import Mutation, changed_code

TEST_SECONDS = 30
"""A test that takes more CPU time with a mutant hangs, and so has noticed it."""

PROFILED_SECONDS = 15
"""A file with two tests that take more CPU time than this is no fast one."""

_CACHED = type(functools.cache(lambda: None))
# The recorder sets the limits.
_OPTIONS = ("-q", "--capture=no", "-p", "no:cacheprovider", "-o", "timeout=0")
_JUDGING = (*_OPTIONS, "-x")
_PROFILING = (*_OPTIONS, "--maxfail=2")


class _Recorder:
    """A pytest plugin: which test failed first, the CPU time of each, and which lines of a module it ran.

    A test that takes too much CPU time fails; how much a busy machine lets it wait decides nothing.
    """

    def __init__(
        self,
        limit: float = TEST_SECONDS,
        skipped: frozenset[str] = frozenset(),
        measured: "coverage.Coverage | None" = None,
    ) -> None:
        self.failed: list[str] = []
        self._limit = limit
        self.seconds: dict[str, float] = {}
        self._skipped = skipped
        self._measured = measured
        self._running = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out the tests that are too slow."""
        items[:] = [item for item in items if item.nodeid not in self._skipped]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Attribute the lines that run from here on."""
        self._running = nodeid
        if self._measured is not None:
            self._measured.switch_context(nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        """Attribute to no test what a fixture does for several."""
        if self._measured is not None and fixturedef.scope != "function":
            self._measured.switch_context("")
        try:
            return (yield)
        finally:
            if self._measured is not None and fixturedef.scope != "function":
                self._measured.switch_context(self._running)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Limit and note the CPU time."""
        began = _cpu_seconds()
        signal.signal(signal.SIGVTALRM, _too_long)
        signal.setitimer(signal.ITIMER_VIRTUAL, self._limit)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            self.seconds[item.nodeid] = _cpu_seconds() - began

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that cannot be imported."""
        if report.failed:
            self.failed.append(report.nodeid)


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of those that it started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _too_long(*_: object) -> NoReturn:
    pytest.fail("the test takes too long", pytrace=False)


class _Mutated(SourceFileLoader):
    """Loads a module from other text than its file's."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        super().__init__(name, str(path))
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        """Compile the text; the cached code of the file is not used."""
        del fullname
        return compile(self._source, self.path, "exec")


class _Finder:
    """Finds one module as it is mutated."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self._name = name
        self._path = path
        self._source = source

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Find the mutated module, and no other."""
        if name != self._name:
            return None
        loader = _Mutated(self._name, self._path, self._source)
        return importlib.util.spec_from_file_location(name, self._path, loader=loader)


def profile(modules: Sequence[Path], file: str) -> dict[str, Any]:
    """Run a file of tests once; return for each test its seconds and the lines that it runs, by module.

    The test called "" has the lines that run while the tests are imported, and in fixtures that several tests share.
    """
    measured = coverage.Coverage(data_file=None, include=list(map(str, modules)), config_file=False)
    recorder = _Recorder(PROFILED_SECONDS, measured=measured)
    measured.start()
    pytest.main([*_PROFILING, file], plugins=[recorder])
    measured.stop()
    found: dict[str, tuple[float, dict[str, list[int]]]] = {
        name: (round(seconds, 3), {}) for name, seconds in recorder.seconds.items() if name not in recorder.failed
    }
    found[""] = (0.0, {})
    for module in modules:
        for line, names in measured.get_data().contexts_by_lineno(str(module)).items():
            for name in names:
                if name in found:
                    found[name][1].setdefault(str(module), []).append(line)
    return found


def run_anew(name: str, path: Path, mutated: str, files: Sequence[str], skipped: frozenset[str]) -> str:
    """Import everything with the mutated module, run the tests, and return the first that fails, or ""."""
    sys.meta_path.insert(0, _Finder(name, path, mutated))
    recorder = _Recorder(skipped=skipped)
    code = pytest.main([*_JUDGING, *files], plugins=[recorder])
    if recorder.failed:
        return recorder.failed[0]
    return "" if code == pytest.ExitCode.OK else "the tests could not be run"


@dataclass(frozen=True)
class Work:
    """Mutants of a module's functions.

    Attributes:
        path: the module's file.
        source: its text.
        mutants: each with its key, and the tests that run its lines, quickest first.
        defined: of those that change what runs at import what they define, by key.
        seconds: how long each test takes.
        jobs: how many mutants are judged at a time.
        journal: where each result is appended at once, so that an interrupted run loses none.
    """

    path: Path
    source: str
    mutants: Mapping[str, tuple[Mutation, Sequence[str]]]
    defined: Mapping[str, frozenset[str]]
    seconds: Mapping[str, float]
    jobs: int
    journal: Path


class _Server:
    """A pytest plugin that runs no tests itself: each mutant's are run in a fork of the collected session."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Judge every mutant."""
        work = self._work
        items = {item.nodeid: item for item in session.items}
        functions = [
            value
            for value in gc.get_objects()
            if isinstance(value, FunctionType) and value.__code__.co_filename == str(work.path)
        ]
        caches = [value for value in gc.get_objects() if isinstance(value, _CACHED)]
        gc.freeze()
        with work.journal.open("a", encoding="utf-8") as journal:
            for key, result in in_forks(self._calls(items, functions, caches), work.jobs):
                print(key, result, sep="\t", file=journal, flush=True)
        return True

    def _calls(
        self, items: Mapping[str, pytest.Item], functions: Sequence[FunctionType], caches: Sequence[Any]
    ) -> Iterator[Call]:
        work = self._work
        for key, (mutation, tests) in work.mutants.items():
            chosen = [items[test] for test in tests if test in items]
            if key in work.defined:
                change = functools.partial(replace, work.path, mutation.source, work.defined[key])
            else:
                pairs = changed_code(work.source, mutation.source, str(work.path)) or ()
                change = functools.partial(_replace_code, functions, pairs)
            limit = 10 + 4 * sum(work.seconds[item.nodeid] for item in chosen) + TEST_SECONDS
            yield Call(key, functools.partial(_judge, change, caches, chosen), limit)


def _replace_code(functions: Sequence[FunctionType], pairs: Sequence[tuple[CodeType, CodeType]]) -> bool:
    """Replace the code of functions; one that a table's construction called and dropped is not among them."""
    for function in functions:
        for old, new in pairs:
            if function.__code__ == old and len(old.co_freevars) == len(new.co_freevars):
                function.__code__ = new
    return True


def _judge(change: Callable[[], bool], caches: Sequence[Any], items: Sequence[pytest.Item]) -> str:
    """Make a change, run tests, and return the first that fails, or "".

    A mutation that nothing holds survives here, and is then judged anew.
    """
    if not change():
        return ""
    for cache in caches:
        cache.cache_clear()
    recorder = _Recorder()
    if items:
        items[0].config.pluginmanager.register(recorder)
    for place, item in enumerate(items):
        following = items[place + 1] if place + 1 < len(items) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if recorder.failed:
            return recorder.failed[0]
    return ""


def run_in_forks(work: Work) -> None:
    """Judge mutants of functions; the journal has for each the first test that fails, or nothing."""
    files = sorted({test.partition("::")[0] for _, tests in work.mutants.values() for test in tests})
    pytest.main([*_JUDGING, *files], plugins=[_Server(work)])
