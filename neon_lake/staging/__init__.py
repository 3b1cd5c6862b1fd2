"""The change log: immutable segments of changes, and the manifests that make them count."""
