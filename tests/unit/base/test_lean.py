"""What a connection imports: an agent pays for every module for as long as it runs."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from agent.base.broker import Address, connect
connect(Address(client_id="a", host="broker.example", port=8422))
print("paho.mqtt.client" in sys.modules, *({"urllib.request", "http.client", "email"} & sys.modules.keys()))
import urllib.request
print(urllib.request.urlopen.__name__)
"""


def test_paho_comes_without_what_it_needs_for_proxies() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], text=True, capture_output=True, check=True)
    assert done.stdout.split() == ["True", "urlopen"], done.stdout
