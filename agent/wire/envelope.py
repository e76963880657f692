"""The bytes around a payload: compression, its name, and the limits on both sides of it.

The content type of the MQTT message says which it is; sizes are checked before anything is
inflated, and again while it is.  ``z1`` is zlib with the preset dictionary below (RFC 1950,
section 2.2): a batch is short, and without one half of it would be the same words each time.

>>> data, content_type = pack(b'{"value":[' + b"21.5," * 100 + b"21.5]}")
>>> content_type, len(data) < 40
('z1', True)
>>> len(unpack(data, content_type))
516
"""

from __future__ import annotations

import zlib

from agent.wire.errors import Refused

MAX_PAYLOAD = 256 * 1024
"""Largest message accepted from the wire, in bytes as it travels."""
MAX_INFLATED = 1024 * 1024
"""Largest message after inflating, in bytes."""
COMPRESS_ABOVE = 256
JSON = "application/json"
ZLIB_JSON = "application/json+zlib"
"""zlib without a dictionary, as older boards send it."""
Z1_JSON = "z1"
"""Short, for it travels with each report."""
Z1 = (
    b'{"board":"","version":"","log_key":"","seal_key":"","started_ms":17,"hostname":"","model":"Raspberry '
    b'Pi ","system":"Debian GNU/Linux ","kernel":"","arch":"aarch64","cpus":4,"memory_bytes":,"disk_bytes":,'
    b'"report_every_ms":60000,"outbox":{"readings":0,"bytes":0,"max_bytes":67108864,"oldest_ms":17,"dropped":0},'
    b'"traffic":{"day":2,"sent":,"received":,"before":},"certificate_until_ms":1,"problems":[{"code":"","sentence"'
    b':"","hint":"","severity":"warn","since_ms":17,"count":1}],"sensors":[{"name":"","kind":"","unit":"Cel",'
    b'"quantity":"","interval_ms":10000,"error":"","quality":"good","tags":{}},'
    b'pressure","humidity","temperature","voltage","capacity.cpu","capacity.net_rx","capacity.net_tx",'
    b'"capacity.load","capacity.memory","capacity.memory_used","capacity.disk","capacity.disk_used",'
    b'null,60000,5000,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,10000,"clock":"unsynced","clock":"hub",'
    b'"clock":"synced","sensors":["],"sensor":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,'
    b'24,25,26,27,28,29],"mono_ms":[],"wall_ms":[17],"value":[],"stale":[]}]}'
    b'{"held":{"":{"low":,"next":}},"gaps":[],"blocks":[{"boot":"","stream":"","seq0":'
)
"""The dictionary of "z1".  Never to be changed: what was packed with it is stored.  What occurs
most stands last, where a reference to it is shortest."""


def pack(payload: bytes) -> tuple[bytes, str]:
    """The bytes to send and their content type; compressed when that pays."""
    if len(payload) <= COMPRESS_ABOVE:
        return payload, JSON
    squeezer = zlib.compressobj(9, zdict=Z1)
    return squeezer.compress(payload) + squeezer.flush(), Z1_JSON


def unpack(payload: bytes, content_type: str) -> bytes:
    """Undo `pack`, never holding more than MAX_INFLATED bytes.  Raises Refused."""
    if len(payload) > MAX_PAYLOAD:
        raise Refused(
            f"a message of {len(payload)} bytes is over the limit of {MAX_PAYLOAD}", code="too-large"
        )
    if content_type in ("", JSON):
        return payload
    if content_type not in (Z1_JSON, ZLIB_JSON):
        raise Refused(f"content type {content_type[:64]!r} is none of {JSON}, {ZLIB_JSON} and {Z1_JSON}")
    inflater = zlib.decompressobj(zdict=Z1) if content_type == Z1_JSON else zlib.decompressobj()
    try:
        inflated = inflater.decompress(payload, MAX_INFLATED)
    except zlib.error as error:
        raise Refused(f"the payload is not zlib data: {error}") from error
    if not inflater.eof or inflater.unused_data:
        raise Refused(f"the payload is cut short or inflates to over {MAX_INFLATED} bytes", code="too-large")
    return inflated
