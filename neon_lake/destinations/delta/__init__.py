"""Delta tables written by delta-rs."""

from neon_lake.destinations.delta.destination import DeltaDestination

__all__ = ["DeltaDestination"]
