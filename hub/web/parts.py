"""What the web needs of the hub, and where a request finds it.

`hub.app` fills `Parts` once; every handler reaches it through `parts_of`.  It owns nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from hub.access.login import Access
from hub.apps.desk import Desk
from hub.fleet.alerts import Alerts
from hub.fleet.commands import Commands
from hub.fleet.joining import Joining
from hub.fleet.latest import Latest
from hub.fleet.renewal import Renewal
from hub.fleet.retention import Storage
from hub.fleet.revocation import Revocation
from hub.fleet.tally import Counters
from hub.ledger.witness import Witness
from hub.store.database import Store


@dataclass(frozen=True, slots=True)
class Parts:
    """The hub as its pages and its API see it.

    ``name`` and ``id`` are the hub's own; ``version`` is that of the program; ``ca_pem`` the
    certificate authority that boards are told to trust; ``desk`` is where apps are cared for,
    ``witness`` where usage logs are; ``counters`` what ingest has counted; ``storage`` how much room
    readings take; ``now_ms`` the hub's clock in milliseconds since the Unix epoch.
    """

    name: str
    id: str
    version: str
    ca_pem: str
    store: Store
    latest: Latest
    access: Access
    joining: Joining
    commands: Commands
    alerts: Alerts
    renewal: Renewal
    revocation: Revocation
    desk: Desk
    witness: Witness
    counters: Callable[[], Counters]
    storage: Callable[[], Storage]
    now_ms: Callable[[], int]


PARTS = web.AppKey("parts", Parts)


def parts_of(request: web.Request) -> Parts:
    """The parts of the hub that answers this request."""
    return request.config_dict[PARTS]
