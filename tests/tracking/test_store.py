import importlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from imagetune.errors import TrackingError
from imagetune.tracking.store import open_client, store_errors


def test_a_database_that_is_down_is_named_at_once_and_without_its_password(free_port):
    began = time.monotonic()
    with pytest.raises(TrackingError, match="the database can't be reached: Connection refused") as caught:
        open_client(f"postgresql://ann:hunter2-secret@127.0.0.1:{free_port}/mlflow")
    assert time.monotonic() - began < 5
    assert "hunter2" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_named_with_what_to_install():
    missing = r"not installed: psycopg_of_nobody.*imagetune-keras\[postgresql\]"
    with pytest.raises(TrackingError, match=missing), store_errors("postgresql://host/mlflow"):
        importlib.import_module("psycopg_of_nobody")


KILLED_WITHIN_THE_MIGRATION = """
import os, signal, sys
from alembic.runtime.migration import MigrationContext
from imagetune.tracking.store import open_client

run = MigrationContext._ensure_version_table
def count(context, *arguments, **options):
    run(context, *arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
MigrationContext._ensure_version_table = count
open_client(sys.argv[1])
"""


def test_a_store_is_there_as_a_whole_or_not_at_all(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    killed = subprocess.run([sys.executable, "-c", KILLED_WITHIN_THE_MIGRATION, uri], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "mlflow.db").exists()
    assert list(tmp_path.glob(".tmp-*mlflow.db"))
    assert open_client(uri).search_experiments()
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_store_that_another_program_half_made_is_named_with_the_way_out(tmp_path, empty_store):
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_store, path)
    with closing(sqlite3.connect(path)) as database, database:
        # The version is noted after the tables of a step.
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        database.execute("DROP TABLE jobs")
    with pytest.raises(TrackingError) as caught:
        open_client(f"sqlite:///{path}")
    assert "move the file away" in caught.value.hint


def test_an_experiment_that_already_exists_is_no_reason_to_move_the_store_away(tmp_path, empty_store):
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_store, path)
    client = open_client(f"sqlite:///{path}")
    client.create_experiment("flowers")
    with pytest.raises(TrackingError, match="already exists") as caught, store_errors(f"sqlite:///{path}"):
        client.create_experiment("flowers")
    assert not caught.value.hint
