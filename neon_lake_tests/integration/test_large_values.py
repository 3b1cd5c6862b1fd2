"""Values of a hundred megabytes, and many of them in one transaction, past what 32-bit offsets reach."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

from neon_lake_tests.fixtures.pipelines import Lab

MEGABYTES = 100
TEXT = f"repeat(chr(96 + g) || 'ü' || repeat('x', 97), {MEGABYTES * 10_000})"
BYTES = f"decode(repeat('00ff5c' || lpad(to_hex(g), 14, '0'), {MEGABYTES * 100_000}), 'hex')"


def digests(lab: Lab) -> list[tuple[object, ...]]:
    """The rows of the lake, with the MD5 in place of each large value."""
    rows = lab.delta("public.t").to_pyarrow_dataset().to_batches(columns=["id", "text", "bytes"])
    found = []
    for batch in rows:
        for ident, text, raw in zip(*(column for column in batch.columns), strict=True):
            parts = [text.as_buffer(), raw.as_buffer()]
            hashes = [None if part is None else hashlib.md5(part).hexdigest() for part in parts]
            found.append((ident.as_py(), *hashes))
    return sorted(found, key=repr)


def test_values_of_100_megabytes_by_snapshot_and_by_stream(lab: Lab) -> None:
    lab.database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, text text, bytes bytea);"
        f"INSERT INTO t SELECT g, {TEXT}, NULL FROM generate_series(1, 1) AS g;"
        f"INSERT INTO t SELECT g, NULL, {BYTES} FROM generate_series(2, 2) AS g"
    )
    assert lab.replication.sync().ok
    # What is stored is copied as it is, and made into text again for the stream.
    lab.database.execute("INSERT INTO t SELECT id + 2, text, bytes FROM t")
    assert lab.replication.sync().ok
    told = lab.database.query("SELECT id, md5(text), md5(bytes), octet_length(text), length(bytes) FROM t")
    assert digests(lab) == sorted((row[:3] for row in told), key=repr)
    assert min(text or raw for *_, text, raw in told) >= MEGABYTES * 1_000_000


CAPTURE = """
import re, sys
from pathlib import Path
from neon_lake.pipeline_file import load
from neon_lake.pipeline import Replication
from neon_lake.pipeline.capture import capture
parts = Replication.open(load(Path(sys.argv[1]))).parts
assert capture(parts, parts.source.position()).changes == int(sys.argv[2])
print(re.search("VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_memory_does_not_grow_with_the_large_values_of_a_transaction(lab: Lab) -> None:
    """The larger one passes 2 GiB, which no Arrow array of bytes can hold."""
    lab.database.execute(
        "CREATE TABLE source (text text);"
        f"INSERT INTO source SELECT {TEXT} FROM generate_series(1, 1) AS g;"
        "CREATE TABLE t (id int PRIMARY KEY, text text)"
    )
    lab = replace(lab, tables=("public.t",))
    assert lab.replication.sync().ok
    peaks = []
    for first, count in ((100, 5), (200, 22)):
        lab.database.execute(
            f"INSERT INTO t SELECT g, text FROM source, generate_series({first}, {first + count - 1}) AS g"
        )
        done = subprocess.run(
            [sys.executable, "-c", CAPTURE, str(lab.file), str(count)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) << 10)
    assert peaks[1] < 1.5 * peaks[0], peaks
    assert peaks[1] < 22 * MEGABYTES << 20, peaks
