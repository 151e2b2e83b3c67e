# SPDX-License-Identifier: MIT
"""A wrapping never changes an answer."""

import pytest

from tests.logs.answers import answers_to, differing
from tests.logs.kernels import kernel_messages
from tests.logs.states import EXHAUSTED, FRAGMENTED
from tests.logs.wrappings import FILES, PLAIN, WRAPPINGS, stamped, wrapped

PRINTED = [(FRAGMENTED, "6.12"), (EXHAUSTED, "5.10"), (EXHAUSTED, "4.14")]
"""What is wrapped; tests/logs/test_properties.py wraps the others."""

GIVEN = [kernel_messages(state, release) for state, release in PRINTED]
EXPECTED = [answers_to(PLAIN(stamped(messages)).encode()) for messages in GIVEN]
WRAPPED = [dict(wrapped(messages)) for messages in GIVEN]

PENDING = {
    "dmesg -T in German",
    "dmesg -T in French",
    "dmesg -T in Russian",
    "dmesg -T in Chinese",
    "dmesg -T in Japanese",
    "/dev/kmsg",
    "/dev/kmsg with keys",
    "extended netconsole",
    "extended netconsole with a release",
    "docker json-file",
    "CRI",
    "CRI in parts",
    "JSON with @timestamp",
    "JSON string",
    "journalctl -o json",
    "journalctl -o json-pretty",
    "journalctl -o json with bytes",
    "journalctl -o export",
    "journalctl -o verbose",
    "journalctl -o short-unix",
    "journalctl -o with-unit",
    "rsyslog one word a line",
    "date and host",
    "date, host and level",
    "ISO date and host",
    "host",
    "address",
    "logcat",
    "Samsung",
    "Samsung with a core",
    "last_kmsg",
    "last_kmsg with a name",
    "VMware",
    "ANSI colours",
    "ANSI console",
    "HTML",
    "HTML entities",
    "HTML line breaks",
    "bullets",
    "dashes",
    "comment signs",
    "numbered",
    "grep -n",
    "mailed with a prefix, 60",
    "mailed, 72",
    "terminal, 80",
    "terminal, 133",
    "terminal, 97, plain",
    "UTF-16",
    "UTF-16, big-endian with a mark",
    "UTF-16 without a mark",
    "gzip",
    "xz",
    "quoted-printable",
    "quoted-printable body",
}
"""Wrappings that are not read yet."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xfail(strict=False) if name in PENDING else ())
        for name in (*WRAPPINGS, *FILES)
    ],
)
def test_a_wrapping_does_not_change_the_answer(name: str) -> None:
    """The answers are those to the messages alone, but for line numbers and times."""
    for expected, texts in zip(EXPECTED, WRAPPED, strict=True):
        assert differing(expected, answers_to(texts[name])) == ""
