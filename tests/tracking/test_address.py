from __future__ import annotations

import pytest

from imagetune.errors import TrackingError
from imagetune.tracking.address import locate_database, resolve_experiment, resolve_uri, sqlite_path


def test_the_recipe_wins_over_the_variable_over_the_default(monkeypatch, tmp_path):
    assert resolve_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other:1")
    assert resolve_uri(None) == "http://other:1"
    assert resolve_uri("http://mine:2") == "http://mine:2"


def test_a_relative_database_belongs_to_the_working_folder(tmp_path):
    assert resolve_uri("sqlite:///sub/runs.db?timeout=3") == f"sqlite:///{tmp_path}/sub/runs.db?timeout=3"
    assert sqlite_path("sqlite:////data/runs.db?x=1").as_posix() == "/data/runs.db"
    assert sqlite_path("http://host") is None


def test_an_address_kept_without_its_password_is_completed_from_the_environment(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@host:5000")
    assert resolve_uri("http://***@host:5000") == "http://ann:secret@host:5000"
    with pytest.raises(TrackingError, match=r"the password .* give the whole address in \$MLFLOW"):
        resolve_uri("http://***@other")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    assert resolve_uri("http://***@other") == "http://other"


def test_the_experiment_is_named_by_recipe_key_variable_or_recipe(monkeypatch):
    assert resolve_experiment(None, "clipart") == "clipart"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team")
    assert resolve_experiment(None, "clipart") == "team"
    assert resolve_experiment("mine", "clipart") == "mine"


@pytest.mark.parametrize("name", ["what?", "50%25", "a#b", "two words", "a%41b?c=d"])
def test_the_store_lands_in_the_working_folder_whatever_that_is_called(tmp_path, monkeypatch, name):
    from sqlalchemy import make_url

    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = resolve_uri(None)
    assert sqlite_path(uri) == folder / "mlflow.db"
    # MLflow opens the store by SQLAlchemy's reading of the address.
    assert make_url(uri).database == str(folder / "mlflow.db")
    assert resolve_uri(uri) == uri


def test_a_wrong_address_in_the_environment_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http:ann:secret@host")
    with pytest.raises(TrackingError, match=r"\$MLFLOW_TRACKING_URI: 'http:\*\*\*@host' has no `://`"):
        resolve_uri(None)


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("postgresql+pg8000://ann:secret@db.example/mlflow", ("db.example", 5432)),
        ("mysql+pymysql://db.example:3307/mlflow", ("db.example", 3307)),
        ("postgresql:///mlflow?host=/run/postgresql", None),
        ("postgresql://ann:p/a:b@db/mlflow", None),
        ("sqlite:///mlflow.db", None),
        ("http://host:5000", None),
    ],
)
def test_a_database_behind_a_network_has_a_place(uri, place):
    assert locate_database(uri) == place
