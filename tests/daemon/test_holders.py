"""The log names the pod that has got a device, and the one that has given it back."""

import logging
from typing import Any, cast

import pytest

from kata_node_agent.config.schema import Config
from kata_node_agent.daemon.slots import Slots
from kata_node_agent.kubelet.devices import RELEASE_GRACE_SECONDS


def test_who_holds_a_device_is_said_once_and_who_has_given_it_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    # Without an account nothing is planned: neither node nor history are asked.
    slots = Slots(Config, cast("Any", None), cast("Any", None))
    slots.holdings.allocated({3}, 0.0)
    slots.holdings_changed()
    assert not caplog.records  # whose it is is not known yet

    slots.holdings.reconcile({3: "default/web"}, 1.0, 0.0)
    slots.holdings_changed()
    slots.holdings_changed()
    for _ in range(2):
        slots.holdings.reconcile({}, 2.0 + RELEASE_GRACE_SECONDS, 0.0)
    slots.holdings_changed()

    assert [
        (record.message, record.__dict__["device"], record.__dict__["pod"]) for record in caplog.records
    ] == [
        ("device held", "kata-000003", "default/web"),
        ("device given back", "kata-000003", "default/web"),
    ]
