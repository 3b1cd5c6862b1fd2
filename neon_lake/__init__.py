"""Postgres tables as Delta Lake tables, by change data capture."""
