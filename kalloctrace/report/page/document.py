# SPDX-License-Identifier: MIT
"""Puts a page together: one file, with the libraries, the style and the data inside."""

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

    Its policy lets no request leave it and no script run but its own, whatever the data say.

    Args:
        data: what `page_data` returned.
    """
    # A page is a copy of the libraries too, and each copy carries its licence.
    libraries = [f"/*\n{_vendored(licence)}*/\n{_vendored(name)}" for name, licence in _LIBRARIES.items()]
    program = "\n".join(_HERE.joinpath("assets", name).read_text("utf-8") for name in _SCRIPTS)
    # Its names are its own: a browser has some thousands of global ones.
    program = f"(() => {{\n{program}\n}})();"
    scripts = [*libraries, program]
    parts = {
        "policy": escape(_policy(scripts)),
        "title": escape(f"kalloctrace: {data['trace']}"),
        "style": _HERE.joinpath("assets", "page.css").read_text("utf-8"),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
        "data": embedded_json(data),
    }
    # In one pass: what is put in is not looked at again.
    return _SLOT.sub(lambda slot: parts[slot[1]], _HERE.joinpath("assets", "page.html").read_text("utf-8"))


def _vendored(name: str) -> str:
    return _HERE.joinpath("vendor", name).read_text("utf-8")


def embedded_json(data: object) -> str:
    """Return data as JSON that ends no script element and no line of a script, whatever it holds.

    All that is not ASCII is escaped, U+2028 too, and so is what HTML has a meaning for.
    """
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _policy(scripts: list[str]) -> str:
    sources = [f"'sha256-{_digest(script)}'" for script in scripts]
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(sources)}",
            # The charts carry their own style elements.
            "style-src 'unsafe-inline'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
