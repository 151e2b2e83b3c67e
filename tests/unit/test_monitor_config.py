# SPDX-License-Identifier: MIT
"""The configuration of the service: values, and errors that name the line."""

from pathlib import Path

import pytest

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.monitor import config
from kalloctrace.monitor.config import SETTINGS, Config, load, parse

EXAMPLE = Path(__file__).parents[2] / "contrib" / "systemd" / "monitor.toml"
FILE = Path("monitor.toml")


def test_values() -> None:
    """Times and sizes have units; what is left out has its default."""
    text = """
    [segments]
    folder = "/srv/traces"
    age = "1.5 min"
    size = "32KiB"
    keep_age = "2 h"
    [capture]
    by = "cgroup"
    slow = false
    [metrics]
    listen = "[::1]:9913"
    [bounds]
    cpu = 2
    """
    assert parse(text, FILE) == Config(
        folder=Path("/srv/traces"),
        age=90,
        size=32 << 10,
        keep_age=7200,
        by="cgroup",
        slow=False,
        listen="[::1]:9913",
        cpu=2.0,
    )


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("[segments]\nage = 10 min", 2, "not TOML: expected newline"),
        ('[segments]\nage = "10 min"\nage = "5 min"', 3, "not TOML: cannot overwrite a value"),
        ("a = ", 1, "not TOML"),
        ("\n[segmnts]\n", 2, "there is no section [segmnts]"),
        ("segments = 1\n", 1, "there is no section [segments]"),
        ('[segments]\n\n  agee = "1 s"', 3, "has no setting agee"),
        ("[segments]\nage = 600", 2, "not a number with a unit"),
        ('[segments]\nage = "10 years"', 2, "not a number with a unit"),
        ('[segments]\nage = "0.5 s"', 2, "less than a second"),
        ('[segments]\nsize = "1 KiB"', 2, "less than 16 KiB"),
        ('[segments]\nsize = "2 GiB"\nkeep_size = "3 GiB"', 3, "no room for two segments"),
        ('[segments]\nsize = "1024 GiB"', 2, "no room for two segments"),
        ('[segments]\nfolder = "here"', 2, "not an absolute path"),
        ('segments.folder = "here"', 1, "not an absolute path"),
        ('# [capture]\n[metrics]\nlisten = "x"\n[capture]\nattach = "all"', 3, "neither HOST:PORT nor unix:PATH"),
        ('[metrics]\nlisten = ""\n[capture]\nattach = "all"', 4, "no such way to attach"),
        ('[capture]\nby = "pid"', 2, "not counted by that"),
        ('[capture]\nslow = "yes"', 2, "neither true nor false"),
        ("[bounds]\ncpu = 0", 2, "not a number above 0"),
        ("[bounds]\ncpu = true", 2, "not a number above 0"),
        ('[metrics]\nlisten = "unix:metrics"', 2, "not an absolute path"),
        ('[metrics]\nlisten = "host:99999"', 2, "neither HOST:PORT"),
    ],
)
def test_errors_name_the_line(text: str, line: int, why: str) -> None:
    """Three lines: where, why, and what is accepted."""
    with pytest.raises(KalloctraceError) as caught:
        parse(text, FILE)
    assert caught.value.code == Exit.USAGE
    assert caught.value.what == f"cannot use monitor.toml, line {line}"
    assert why in caught.value.why
    assert caught.value.fix


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """It is missing, not text, or no configuration by its size."""
    path = tmp_path / "monitor.toml"
    with pytest.raises(KalloctraceError, match="No such file"):
        load(path)
    path.write_bytes(b"[segments]\n# \xff\n")
    with pytest.raises(KalloctraceError, match="line 2"):
        load(path)
    path.write_bytes(b"#" * (1 << 17))
    with pytest.raises(KalloctraceError, match="too large"):
        load(path)


def test_default_file_may_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Then the defaults are in force."""
    monkeypatch.setattr(config, "DEFAULT_PATH", tmp_path / "monitor.toml")
    assert load(None) == (Config(), "")
    (tmp_path / "monitor.toml").write_text('[segments]\nage = "1 min"\n')
    assert load(None)[0].age == 60


def test_example_has_every_setting_with_its_default() -> None:
    """It changes nothing, and its comments are those of the settings."""
    text = EXAMPLE.read_text()
    assert parse(text, EXAMPLE) == Config()
    for name, setting in SETTINGS.items():
        assert f"# {setting.about}\n{name} = {setting.example}\n" in text


def test_what_needs_a_new_worker() -> None:
    """Limits and bounds change in place; what is attached, and where to, does not."""
    assert Config().goes_on(Config(age=1, size=1, keep_size=1, keep_age=1, keep_free=1, cpu=1, memory=1, pause=1))
    for other in (Config(folder=Path("/x")), Config(by="comm"), Config(slow=False), Config(listen="a:1")):
        assert not Config().goes_on(other)
