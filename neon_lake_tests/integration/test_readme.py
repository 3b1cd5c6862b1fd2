"""What the README tells people to type does what it says."""

import re
from pathlib import Path

from neon_lake.demo import shop
from neon_lake.pipeline import Replication
from neon_lake.pipeline_file import load
from neon_lake_tests.fixtures.postgres import Database

README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")


def test_a_role_made_as_the_readme_says_can_replicate_and_is_no_owner(database: Database, tmp_path: Path) -> None:
    shop.load(database.connect(), scale=0.01)
    (statements,) = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    if database.server.major < 18:
        statements = re.sub(r",\s+publish_generated_columns = stored", "", statements)
    # Roles are the server's, and other tests have theirs: this one gets a name of its own.
    role = f"reader_of_{database.name}"
    database.execute(statements.replace("lake_reader", role))
    try:
        file = tmp_path / "neon_lake.yaml"
        file.write_text(
            f"pipeline: shop\nsource: {{url: '{database.server.url(database.name, role)}'}}\n"
            "staging: {path: staging}\ndestination: {path: lake}\ntables: [public.*]\n"
        )
        replication = Replication.open(load(file))
        assert [finding for finding in replication.check() if finding.problem] == []
        assert replication.sync().ok
        database.execute("UPDATE orders SET total = total + 1")
        verified = replication.verify(deep=True)
        assert verified.ok
        assert {table.name for table in verified.parity} == set(shop.TABLES)
    finally:
        slots = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s"
        database.query(slots, database.name)
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
