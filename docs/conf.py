# SPDX-License-Identifier: MIT
"""The documentation site: one build a language, from docs/en and docs/zh-cn; see the Makefile."""

import os
import sys
from pathlib import Path

from kalloctrace.version import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
LANGUAGE = os.environ["KALLOCTRACE_DOCS"]
OTHER = {"en": ("zh-cn", "简体中文"), "zh-cn": ("en", "English")}[LANGUAGE]

project = "kalloctrace"
author = "The kalloctrace authors"
release = __version__
language = {"en": "en", "zh-cn": "zh_CN"}[LANGUAGE]
extensions = ["myst_parser", "site_extension"]
myst_heading_anchors = 3
# The commands' output is no language that can be coloured.
highlight_language = "none"
html_theme = "furo"
html_title = "kalloctrace"
html_show_sphinx = False
html_show_copyright = False
html_context = {"other": OTHER[0], "other_name": OTHER[1]}
templates_path = [str(HERE / "templates")]
html_sidebars = {
    "**": [
        *("sidebar/brand.html", "language.html", "sidebar/search.html", "sidebar/scroll-start.html"),
        *("sidebar/navigation.html", "sidebar/scroll-end.html"),
    ]
}
