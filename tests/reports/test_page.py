import pytest

from imagetune.reports.page import html_environment


@pytest.mark.parametrize("text", ["{{ run.gain.log_loss }}", "{{ nothing }}", "{% for x in run.none %}{% endfor %}"])
def test_a_missing_value_is_a_lookup_error_as_in_code(text):
    with pytest.raises(LookupError):
        html_environment().from_string(text).render(run={"gain": [[1]]})
