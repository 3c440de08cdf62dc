"""Whatever the page of interfaces allows, and much that it does not: no request breaks the server."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from .conftest import Open


def fuzz(opened: Open, examples: int) -> None:
    page = schemathesis.openapi.from_asgi("/openapi.json", opened().app)
    asked = []
    for found in page.get_all_operations():
        operation = found.ok()
        asked.append(operation.path)

        @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def run(case: schemathesis.Case) -> None:
            answer = case.call()
            assert answer.status_code < 500, (case.path, case.body, answer.text)

        run()
    assert len(asked) > 20


def test_nothing_breaks_the_server(opened: Open) -> None:
    fuzz(opened, 4)


@pytest.mark.slow
def test_nothing_breaks_the_server_for_long(opened: Open) -> None:
    fuzz(opened, 200)
