"""Postgres, read by its exported snapshots and its logical replication stream."""

from neon_lake.sources.postgres.connection import ConnectionSettings
from neon_lake.sources.postgres.source import PostgresSource

__all__ = ["ConnectionSettings", "PostgresSource"]
