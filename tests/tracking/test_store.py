import importlib
import time

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
