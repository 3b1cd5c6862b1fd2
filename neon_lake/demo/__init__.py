"""The demonstration: an embedded Postgres, a small shop, and a workload that never stops."""
