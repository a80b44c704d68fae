import pytest

from imagetune.errors import TrackingError
from imagetune.recipe.sections.tracking import TrackingConfig
from imagetune.tracking.required import require_store

SECRET = "s3cr%2Fet%40x"


def test_a_required_server_that_refuses_is_found_at_once(free_port):
    config = TrackingConfig(uri=f"http://ann:{SECRET}@127.0.0.1:{free_port}", required=True)
    with pytest.raises(TrackingError, match="tracking is required, but: the MLflow server refused") as caught:
        require_store(config)
    assert SECRET not in str(caught.value)


def test_a_required_server_that_does_not_answer_is_waited_for_no_longer_than_said(silent_server):
    with pytest.raises(TrackingError, match="tracking is required, but"):
        require_store(TrackingConfig(uri=silent_server, required=True), timeout_seconds=0.5)


def test_nothing_is_asked_where_nothing_is_required(free_port):
    require_store(TrackingConfig(uri=f"http://127.0.0.1:{free_port}"))
    require_store(TrackingConfig(uri=f"http://127.0.0.1:{free_port}", required=True, enabled=False))
