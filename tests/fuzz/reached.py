# SPDX-License-Identifier: MIT
"""Measures what the inputs of a surface reach: `python -m tests.fuzz.reached NAME` prints coverage.py's totals as JSON.

It runs the seeds and the new inputs of `build/fuzz`, without libFuzzer.
"""

import json
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import coverage

from tests.fuzz.surface import FOUND, ROOT


def main() -> None:
    """Print the totals of the surface that the command line names."""
    name = sys.argv[1]
    # The modules are imported while it measures, so that their definitions count as reached.
    measured = coverage.Coverage(branch=True, data_file=None, config_file=False, source=[str(ROOT / "kalloctrace")])
    measured.start()
    from tests.fuzz.surface import all_surfaces  # noqa: PLC0415

    target = all_surfaces()[name]
    new = FOUND / name / "new"
    for file in (*target.seeds(), *(sorted(new.iterdir()) if new.is_dir() else ())):
        with suppress(Exception):  # a finding has been kept already
            target.run(file.read_bytes())
    measured.stop()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "reached.json"
        measured.json_report(include=[str(ROOT / "kalloctrace" / one) for one in target.covers], outfile=str(file))
        print(json.dumps(json.loads(file.read_text())["totals"]))


if __name__ == "__main__":
    main()
