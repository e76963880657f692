"""The few MQTT 5 packets that a simulated board needs, as bytes.  Pure.

Written from the standard (OASIS MQTT 5.0, sections 2 and 3) and not with the library that the
hub and the agent use: a load tool that shares their mistakes would not see them.

>>> split(connect("k3yd5q7c2n4xw6ba"))[0][0].body[:12]
b'\\x00\\x04MQTT\\x05\\x82\\x00\\x00\\x00\\x00'
"""

from __future__ import annotations

from typing import NamedTuple

CONNACK, PUBLISH, PUBACK, SUBACK, DISCONNECT = 2, 3, 4, 9, 14
CONTENT_TYPE = 0x03  # the property's identifier


class Packet(NamedTuple):
    """A packet that came: its kind, its flags, and what follows the fixed header."""

    kind: int
    flags: int
    body: bytes


class Delivery(NamedTuple):
    """An inbound PUBLISH."""

    topic: str
    payload: bytes


def connect(client_id: str) -> bytes:
    """A clean start without keep-alive; the user name is the client id."""
    clean_start, user_name = 0x02, 0x80
    head = _text("MQTT") + bytes((5, clean_start | user_name, 0, 0, 0))
    return _packet(0x10, head + _text(client_id) + _text(client_id))


def subscribe(number: int, topic_filter: str) -> bytes:
    """Ask for a filter at QoS 0."""
    return _packet(0x82, number.to_bytes(2, "big") + b"\x00" + _text(topic_filter) + b"\x00")


def publish(number: int, topic: str, payload: bytes, content_type: str, *, retain: bool = False) -> bytes:
    """A PUBLISH at QoS 1."""
    properties = bytes((CONTENT_TYPE,)) + _text(content_type)
    head = _text(topic) + number.to_bytes(2, "big") + _length(len(properties)) + properties
    return _packet(0x32 | retain, head + payload)


def disconnect() -> bytes:
    """Leave without a will."""
    return b"\xe0\x00"


def split(data: bytes) -> tuple[list[Packet], bytes]:
    """The whole packets at the start of ``data``, and the rest.  Raises ValueError for no MQTT."""
    packets = []
    at = 0
    while len(data) - at >= 2:
        length, start = _read_length(data, at + 1)
        if length is None or len(data) - start < length:
            break
        packets.append(Packet(data[at] >> 4, data[at] & 0x0F, data[start : start + length]))
        at = start + length
    return packets, data[at:]


def reason(packet: Packet) -> int:
    """The reason code of a CONNACK, PUBACK, SUBACK or DISCONNECT; 0 is success."""
    body = packet.body
    match packet.kind:
        case 2:
            return body[1]
        case 4:
            return body[2] if len(body) > 2 else 0
        case 9:
            return body[-1] if body[-1] >= 0x80 else 0
        case _:
            return body[0] if body else 0


def delivery(packet: Packet) -> Delivery:
    """What an inbound PUBLISH at QoS 0 carries."""
    body = packet.body
    after_topic = 2 + int.from_bytes(body[:2], "big")
    length, start = _read_length(body, after_topic)
    if length is None or packet.flags & 0x06:
        raise ValueError("an inbound PUBLISH that is cut short or not at QoS 0")
    return Delivery(body[2:after_topic].decode(), body[start + length :])


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + _length(len(body)) + body


def _text(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw


def _length(value: int) -> bytes:
    """A variable byte integer (section 1.5.5)."""
    encoded = bytearray()
    while True:
        value, digit = divmod(value, 128)
        encoded.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def _read_length(data: bytes, at: int) -> tuple[int | None, int]:
    """A variable byte integer and where it ends; None when more bytes are to come."""
    value = 0
    for index in range(4):
        if at + index >= len(data):
            return None, at
        digit = data[at + index]
        value |= (digit & 0x7F) << (7 * index)
        if not digit & 0x80:
            return value, at + index + 1
    raise ValueError("a length of more than four bytes")
