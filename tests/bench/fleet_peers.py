# SPDX-License-Identifier: MIT
"""What a user would do in place of `fleet verify`: `python -m tests.bench.fleet_peers pandas|sql FOLDER`.

It adds up the calls of each verdict over the Parquet files of a fleet that was judged before.
"""

import sys
from pathlib import Path

TRIPLE = ["facts_key", "circumstances_key", "request_key"]


def by_pandas(folder: Path) -> dict[str, int]:
    """Return the calls of each verdict, as a notebook has it."""
    import pandas as pd  # noqa: PLC0415 (the other peer must not pay for it)

    def read(table: str, columns: list[str]) -> pd.DataFrame:
        files = sorted((folder / table).rglob("*.parquet"))
        return pd.concat([pd.read_parquet(file, columns=columns, partitioning=None) for file in files])

    calls = read("allocations", ["recording_key", "request_key", "calls"])
    recordings = read("recordings", ["recording_key", "facts_key", "circumstances_key"])
    verdicts = read("verdicts", [*TRIPLE, "verdict"]).drop_duplicates()
    whole = calls.merge(recordings, on="recording_key").merge(verdicts, on=TRIPLE, how="left")
    return {str(verdict): int(number) for verdict, number in whole.groupby("verdict")["calls"].sum().items()}


def by_sql(folder: Path) -> dict[str, int]:
    """Return the same, by SQL that is written for it."""
    import duckdb  # noqa: PLC0415 (likewise)

    tables = {
        name: f"read_parquet('{folder / name}/**/*.parquet', hive_partitioning = false)"
        for name in ("allocations", "recordings", "verdicts")
    }
    query = f"""
        SELECT verdict, sum(a.calls) FROM {tables["allocations"]} a JOIN {tables["recordings"]} USING (recording_key)
        JOIN (SELECT DISTINCT * FROM {tables["verdicts"]}) USING (facts_key, circumstances_key, request_key) GROUP BY 1
    """
    return {verdict: int(number) for verdict, number in duckdb.connect().execute(query).fetchall()}


PEERS = {"pandas": by_pandas, "sql": by_sql}

if __name__ == "__main__":
    print(dict(sorted(PEERS[sys.argv[1]](Path(sys.argv[2])).items())))
