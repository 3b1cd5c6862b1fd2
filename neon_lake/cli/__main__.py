"""`python -m neon_lake.cli` is `neon-lake`."""

from neon_lake.cli import main

main()
