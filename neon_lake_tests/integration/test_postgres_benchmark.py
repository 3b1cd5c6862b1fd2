"""The benchmark runs, small, and says what it promises to say."""

from __future__ import annotations

import json

from click.testing import CliRunner

from neon_lake_tests.benchmarks.__main__ import benchmarks


def test_the_capture_benchmark_reports_both_rates() -> None:
    result = CliRunner().invoke(
        benchmarks, ["capture", "--json", "--rows", "500", "--updates", "50", "--rounds", "2"], catch_exceptions=False
    )
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["unit"] == "changes/s"
    assert report["limit"] > 0
    assert report["ratio"] == round(report["neon_lake"] / report["limit"], 3)
    assert len(report["rounds"]) == 2
    assert (report["inserts"], report["updates"]) == (500, 50)
