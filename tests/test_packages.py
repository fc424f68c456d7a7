"""What large libraries load by themselves, and need not. Each in a process of its own, as modules stay loaded."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.host

_MODULE = "google.protobuf.internal.python_message"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def test_a_late_module_is_loaded_when_it_is_used_and_not_when_it_is_imported() -> None:
    code = """
import sys
from kata_node_agent.packages import load_late
load_late("xml.dom.minidom")
from xml.dom import minidom
import xml.dom.minidom
print("xml.dom.expatbuilder" in sys.modules, "xml.dom.domreg" in sys.modules, hasattr(minidom, "__path__"))
print(minidom.parseString("<a/>").documentElement.tagName)
import xml.dom.minidom as again
print(again is minidom, again.parseString is minidom.parseString)
"""
    assert run(code).splitlines() == ["False True False", "a", "False True"]


def test_a_module_that_is_loaded_already_stays() -> None:
    code = """
import json, sys
from kata_node_agent.packages import load_late
load_late("json")
print(sys.modules["json"] is json)
"""
    assert run(code) == "True"


def test_messages_need_nothing_of_the_librarys_slow_way() -> None:
    code = f"""
import sys
from google.protobuf.internal import api_implementation
from kata_node_agent.packages import load_late
load_late("{_MODULE}")
from kata_node_agent.pb import agent_pb2, deviceplugin_pb2, nri_pb2, podresources_pb2, ttrpc_pb2
import grpc_health.v1.health_pb2
device = deviceplugin_pb2.Device(ID="kata-000001", health="Healthy")
assert deviceplugin_pb2.Device.FromString(device.SerializeToString()) == device
assert agent_pb2.Status(slots=agent_pb2.Slots(total=1)).HasField("slots") and str(device)
print(api_implementation.Type(), "google.protobuf.text_format" in sys.modules)
from google.protobuf import json_format, text_format
assert json_format.MessageToDict(device)["ID"] == text_format.MessageToString(device)[5:16]
"""
    assert run(code) == "upb False"
