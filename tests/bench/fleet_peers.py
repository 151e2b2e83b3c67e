# SPDX-License-Identifier: MIT
"""What a user would do in place of `fleet verify`: `python -m tests.bench.fleet_peers pandas|sql FOLDER`.

FOLDER has a folder for each recording, with the tables of `export --format tables`. Each program finds the distinct
requests with their calls, by kernel: what a model has to judge. Neither judges them.
"""

import sys
from pathlib import Path

WHO = ("time_ns", "cpu", "pid", "tid", "comm", "stack_id", "cgroup", "bytes_each")
"""Columns that are no part of a request."""


def by_pandas(folder: Path) -> dict[str, int]:
    """Return the number of requests and of calls, as a notebook has it."""
    import pandas as pd  # noqa: PLC0415 (the other peer must not pay for it)

    frames = []
    for own in folder.iterdir():
        frame = pd.read_parquet(own / "allocations.parquet").drop(columns=list(WHO))
        frame["kernel_release"] = pd.read_parquet(own / "recording.parquet")["kernel_release"].iloc[0]
        frames.append(frame)
    whole = pd.concat(frames)
    names = [name for name in whole.columns if name != "calls"]
    calls = whole.groupby(names, dropna=False, observed=True)["calls"].sum()
    return {"requests": len(calls), "calls": int(calls.sum())}


def by_sql(folder: Path) -> dict[str, int]:
    """Return the same, by SQL that is written for it."""
    import duckdb  # noqa: PLC0415 (likewise)

    tables = {
        name: f"""(
            SELECT *, parse_dirpath(filename) AS folder FROM read_parquet('{folder}/*/{name}.parquet', filename = true)
        )"""
        for name in ("allocations", "recording")
    }
    query = f"""
        SELECT count(*), sum(n) FROM (
            SELECT a.* EXCLUDE (filename, folder, calls, {", ".join(WHO)}), kernel_release, sum(calls) AS n
            FROM {tables["allocations"]} a JOIN {tables["recording"]} USING (folder) GROUP BY ALL
        )
    """
    (found,) = duckdb.connect().execute(query).fetchall()
    return {"requests": int(found[0]), "calls": int(found[1])}


PEERS = {"pandas": by_pandas, "sql": by_sql}

if __name__ == "__main__":
    print(PEERS[sys.argv[1]](Path(sys.argv[2])))
