"""The five verbs (snapshot, capture, apply, verify, expire) and what people do with them."""

from neon_lake.pipeline.parts import Parts, Progress
from neon_lake.pipeline.replication import Replication

__all__ = ["Parts", "Progress", "Replication"]
