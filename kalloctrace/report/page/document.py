# SPDX-License-Identifier: MIT
"""Assembles a page: one file that contains the libraries, the style and the data.

A page has up to 80 MB. It is made in parts, so that it is never in memory as a whole.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

_HERE = files(__package__)
_LIBRARIES = {"d3.min.js": "LICENSE.d3", "plot.umd.min.js": "LICENSE.plot"}
_SCRIPTS = ("dom.js", "state.js", "charts.js", "moments.js", "sections.js", "slow.js", "main.js")
_SLOT = re.compile(r"\{\{(\w+)\}\}")
_ITEMS = 10_000
"""Of a list, encoded at once: an item takes a hundred times its memory meanwhile."""


def page_html(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield the parts of a page that shows data of a trace.

    Args:
        data: what `page_data` returned.
    """
    # A page contains copies of the libraries, and each copy needs its licence.
    libraries = [f"/*\n{_vendored(licence)}*/\n{_vendored(name)}" for name, licence in _LIBRARIES.items()]
    title = f"kalloctrace: {data['trace']}"
    return _document("page.html", title, data, styles=("page.css",), program=_SCRIPTS, libraries=libraries)


def logs_html(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield the parts of a page that shows the failures of logs.

    Args:
        data: what `LogsPage.to_json` returned.
    """
    title = "kalloctrace: page allocation failures"
    styles, program = ("page.css", "tables.css", "logs.css"), ("dom.js", "tables.js", "logs.js")
    return _document("logs.html", title, data, styles=styles, program=program)


def fleet_html(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield the parts of a page that shows an answer about a fleet.

    Args:
        data: what a function of `fleet.page` returned.
    """
    title = f"kalloctrace: {data['heading']}"
    styles, program = ("page.css", "tables.css"), ("dom.js", "tables.js", "fleet.js")
    return _document("fleet.html", title, data, styles=styles, program=program)


def _document(
    body: str,
    title: str,
    data: Mapping[str, Any],
    *,
    styles: Sequence[str],
    program: Sequence[str],
    libraries: Sequence[str] = (),
) -> Iterator[str]:
    """Yield the parts of a page: a body in the frame that all pages have.

    Its content security policy forbids all requests and all scripts except its own, whatever the data contain.
    """
    script = "\n".join(_asset(name) for name in program)
    # A scope of its own avoids collisions with the browser's global names.
    scripts = [*libraries, f"(() => {{\n{script}\n}})();"]
    parts = {
        "licence": "MIT AND ISC" if libraries else "MIT",
        "body": _asset(body),
        "policy": escape(_policy(scripts)),
        "title": escape(title),
        "style": "\n".join(_asset(name) for name in styles),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    # Inserted text is not searched for slots.
    end = 0
    for slot in _SLOT.finditer(page := _asset("frame.html")):
        yield page[end : slot.start()]
        if slot[1] == "data":
            yield from embedded_json(data)
        else:
            yield parts[slot[1]]
        end = slot.end()
    yield page[end:]


def _asset(name: str) -> str:
    return _HERE.joinpath("assets", name).read_text("utf-8")


def _vendored(name: str) -> str:
    return _HERE.joinpath("vendor", name).read_text("utf-8")


def embedded_json(data: object) -> Iterator[str]:
    """Yield the parts of data as JSON that cannot end its script element or a line of script.

    All non-ASCII characters are escaped, including U+2028, and the characters with a meaning in HTML.
    """
    if isinstance(data, Mapping):
        before = "{"
        for name, value in data.items():
            yield f"{before}{_escaped_json(name)}:"
            yield from embedded_json(value)
            before = ","
        yield "{}" if before == "{" else "}"
    elif isinstance(data, list) and len(data) > _ITEMS:
        for begin in range(0, len(data), _ITEMS):
            yield f"{',' if begin else '['}{_escaped_json(data[begin : begin + _ITEMS])[1:-1]}"
        yield "]"
    else:
        yield _escaped_json(data)


def _escaped_json(data: object) -> str:
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _policy(scripts: list[str]) -> str:
    sources = [f"'sha256-{_digest(script)}'" for script in scripts]
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(sources)}",
            # The charts contain style elements.
            "style-src 'unsafe-inline'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
