import pytest

from imagetune.core.secrets import redact_text, redact_uri

SECRET = "s3cr/et@x"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://ann:pass@host:5000", "http://***@host:5000"),
        ("https://token@host/path", "https://***@host/path"),
        (f"postgresql://ann:{SECRET}@db/mlflow", "postgresql://***@db/mlflow"),
        ("mysql+pymysql://u:p@db:3306/m?ssl=1&password=abc", "mysql+pymysql://***@db:3306/m?ssl=1&password=***"),
        ("https://host/?access_token=abc#x", "https://host/?access_token=***#x"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("databricks", "databricks"),
        # The slashes forgotten, one of them, the colon, the scheme.
        (f"http:ann:{SECRET}@host", "http:***@host"),
        (f"http:/ann:{SECRET}@host", "http:/***@host"),
        (f"http:///ann:{SECRET}@host", "http:///***@host"),
        (f"http//ann:{SECRET}@host", "***@host"),
        (f"//ann:{SECRET}@host", "//***@host"),
        (f"ann:{SECRET}@host", "***@host"),
        (f"http://ann:two\nlines {SECRET}@host", "http://***@host"),
    ],
)
def test_a_shown_address_has_no_secrets(uri, shown):
    assert redact_uri(uri) == shown
    assert redact_uri(shown) == shown


def test_secrets_leave_every_text(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok-123")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:hunter2@elsewhere")
    uri = "http://ann:p%40ssword@host"
    text = f"request to {uri}/api failed for p%40ssword, p@ssword and tok-123, then hunter2"
    shown = redact_text(text, uri)
    assert shown == "request to http://***@host/api failed for ***, *** and ***, then ***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("can't reach 'http://ann:pw@host:5000/api'", "can't reach 'http://***@host:5000/api'"),
        ("HTTPConnectionPool: /x?token=abc&y=1 refused", "HTTPConnectionPool: /x?token=***&y=1 refused"),
        ("-o tracking.uri=http:ann:pw@host", "-o tracking.uri=http:***@host"),
        ("/home/s3:/bob:pw@bucket/x: no such file", "/home/s3:/***@bucket/x: no such file"),
        ("{'Authorization': 'Basic YTpi'}", "{'Authorization': 'Basic ***'}"),
        ("authorization: Bearer abc.def", "authorization: Bearer ***"),
        # What is no secret stays: owners' addresses, places in files, decorators in tracebacks.
        ("card.owners: ann@example.com", "card.owners: ann@example.com"),
        ("recipe.yaml:3:1 data.source: a//b/c@2x.png", "recipe.yaml:3:1 data.source: a//b/c@2x.png"),
        ("sqlite:////home/a@b/mlflow.db is locked", "sqlite:////home/a@b/mlflow.db is locked"),
        ("  @contextmanager", "  @contextmanager"),
        ("the key=value form", "the key=value form"),
    ],
)
def test_addresses_in_a_text_lose_their_secrets(text, shown, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert redact_text(text) == shown
