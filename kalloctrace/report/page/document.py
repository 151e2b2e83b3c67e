# SPDX-License-Identifier: MIT
"""Assembles a page: one file that contains the libraries, the style and the data."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

_HERE = files(__package__)
_LIBRARIES = {"d3.min.js": "LICENSE.d3", "plot.umd.min.js": "LICENSE.plot"}
_SCRIPTS = ("dom.js", "state.js", "charts.js", "sections.js", "slow.js", "main.js")
_SLOT = re.compile(r"\{\{(\w+)\}\}")


def page_html(data: Mapping[str, Any]) -> str:
    """Return a page that shows data.

    Its content security policy forbids all requests and all scripts except its own, whatever the data contain.

    Args:
        data: what `page_data` returned.
    """
    # A page contains copies of the libraries, and each copy needs its licence.
    libraries = [f"/*\n{_vendored(licence)}*/\n{_vendored(name)}" for name, licence in _LIBRARIES.items()]
    program = "\n".join(_HERE.joinpath("assets", name).read_text("utf-8") for name in _SCRIPTS)
    # A scope of its own avoids collisions with the browser's global names.
    program = f"(() => {{\n{program}\n}})();"
    scripts = [*libraries, program]
    parts = {
        "policy": escape(_policy(scripts)),
        "title": escape(f"kalloctrace: {data['trace']}"),
        "style": _HERE.joinpath("assets", "page.css").read_text("utf-8"),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
        "data": embedded_json(data),
    }
    # One pass: inserted text is not searched for slots.
    return _SLOT.sub(lambda slot: parts[slot[1]], _HERE.joinpath("assets", "page.html").read_text("utf-8"))


def _vendored(name: str) -> str:
    return _HERE.joinpath("vendor", name).read_text("utf-8")


def embedded_json(data: object) -> str:
    """Return data as JSON that cannot end its script element or a line of script.

    All non-ASCII characters are escaped, including U+2028, and the characters with a meaning in HTML.
    """
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
