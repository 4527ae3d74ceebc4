"""The database is at this code's schema, run as it should be, and refuses what it does not know."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from trimem import SchemaVersionError
from trimem.store import engine as engine_module
from trimem.store.engine import open_engine, writing
from trimem.store.schema import SCHEMA_VERSION


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank.sqlite"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    engine = open_engine(path)
    yield engine
    engine.dispose()


def config(engine: Engine) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(engine_module.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def test_migrations_lead_to_the_models(engine: Engine) -> None:
    alembic = config(engine)
    assert ScriptDirectory.from_config(alembic).get_current_head() == SCHEMA_VERSION
    with engine.begin() as connection:
        alembic.attributes["connection"] = connection
        command.check(alembic)  # raises where the models differ from the database


def test_migrations_lead_back_to_nothing(engine: Engine) -> None:
    alembic = config(engine)
    with writing(engine).begin() as connection:
        alembic.attributes["connection"] = connection
        command.downgrade(alembic, "base")
        left = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
    # sqlite_sequence is SQLite's own, made with the first AUTOINCREMENT and there for good.
    assert set(left) - {"sqlite_sequence"} == {"alembic_version"}


def test_pragmas(engine: Engine) -> None:
    with engine.connect() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "secure_delete", "busy_timeout")
        }
    assert values == {"journal_mode": "wal", "foreign_keys": 1, "secure_delete": 1, "busy_timeout": 30000}


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    open_engine(path).dispose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(SchemaVersionError, match=f"schema 9999, this trimem knows up to {SCHEMA_VERSION}"):
        open_engine(path)
    assert path.read_bytes() == before


def test_writers_queue_instead_of_failing(engine: Engine) -> None:
    with writing(engine).begin() as connection:
        connection.execute(text("CREATE TABLE counter (n INTEGER)"))
        connection.execute(text("INSERT INTO counter VALUES (0)"))

    def increment() -> None:
        with writing(engine).begin() as connection:
            n = connection.execute(text("SELECT n FROM counter")).scalar_one()
            connection.execute(text("UPDATE counter SET n = :n"), {"n": n + 1})

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(increment) for _ in range(40)]:
            done.result()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT n FROM counter")).scalar_one() == 40


def test_many_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(12) as pool:
        for engine in pool.map(open_engine, [tmp_path / "new.sqlite"] * 12):
            engine.dispose()


def test_turning_a_new_files_log_on_waits_for_its_turn(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE t (x)")
    other.execute("BEGIN IMMEDIATE")  # SQLite's busy_timeout does not hold for what comes to change the log
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(open_engine, path)
        time.sleep(0.2)
        assert not opened.done()
        other.close()
        opened.result().dispose()
