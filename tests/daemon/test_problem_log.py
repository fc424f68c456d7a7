import logging

import pytest

from kata_node_agent.daemon.harm import ORDER
from kata_node_agent.daemon.node import Problem
from kata_node_agent.daemon.problem_log import _BEGIN_SAID, _SAID, OVER_AFTER_SECONDS, ProblemLog

OVERCOMMITTED = Problem("MemoryOvercommitted", "1Gi more is promised", "move VMs")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_a_problem_is_said_once_with_its_remedy_and_once_that_it_is_over(
    said: pytest.LogCaptureFixture,
) -> None:
    problems = ProblemLog()
    problems.see([OVERCOMMITTED], 0.0)
    problems.see([Problem("MemoryOvercommitted", "2Gi more is promised", "move VMs")], 10.0)
    assert [(record.message, record.levelname) for record in said.records] == [("problem", "WARNING")]
    assert (said.records[0].__dict__["reason"], said.records[0].__dict__["remedy"]) == (
        "MemoryOvercommitted",
        "move VMs",
    )
    problems.see([], 10.0 + OVER_AFTER_SECONDS)
    problems.see([], 20.0 + OVER_AFTER_SECONDS)
    assert [record.message for record in said.records] == ["problem", "problem is over"]


def test_one_that_comes_and_goes_is_one(said: pytest.LogCaptureFixture) -> None:
    problems = ProblemLog()
    for second in range(0, 600, 20):
        problems.see([OVERCOMMITTED] if second % 40 else [], float(second))
    assert [record.message for record in said.records] == ["problem"]


def test_what_is_said_where_it_arises_is_not_said_twice(said: pytest.LogCaptureFixture) -> None:
    problems = ProblemLog()
    for reason in ("NotRegistered", "KvmDeviceMissing", "HistoryNotKept"):
        problems.see([Problem(reason, "", "")], 0.0)
    assert not said.records
    problems.see([], 1000.0)
    assert [record.__dict__["reason"] for record in said.records] == ["HistoryNotKept"]


def test_the_tables_name_reasons_that_there_are() -> None:
    assert set(ORDER) >= _SAID | _BEGIN_SAID
    assert not _SAID & _BEGIN_SAID
