"""What is written into MQTT packets and read out of them, and what they weigh on the wire.

Called by `agent.base.mqtt`, which moves them.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.base.broker import Address, Message

# struct tcp_info (linux/tcp.h): its first bytes, options, then 64-bit bytes received, 32-bit segments
# both ways, and, since Linux 4.19, 64-bit bytes sent.
TCP_INFO_BYTES = 208
TIMESTAMPS = 1
"""The bit of tcpi_options: each segment carries 12 bytes of them (RFC 7323, section 3.2)."""


def connect_properties(address: Address) -> Properties:
    """The properties of the CONNECT packet."""
    properties = _new_properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = address.session_expiry_s
    return properties


def will(address: Address) -> aiomqtt.Will | None:
    """What the broker is to say in our place, and after which delay."""
    message = address.will
    if message is None:
        return None
    properties = _describe(message, PacketTypes.WILLMESSAGE)
    properties.WillDelayInterval = address.will_delay_s
    return aiomqtt.Will(message.topic, message.payload, message.qos, message.retain, properties)


def publish_properties(message: Message, alias: int | None) -> Properties | None:
    """The properties of a PUBLISH packet; None when it needs none, which is cheaper.

    ``alias`` is the number by which the broker knows the topic from now on.
    """
    if not message.content_type and message.expiry_s is None and alias is None:
        return None
    properties = _describe(message, PacketTypes.PUBLISH)
    if alias is not None:
        properties.TopicAlias = alias
    return properties


def received(message: aiomqtt.Message) -> Message:
    """A message as aiomqtt hands it over."""
    payload = message.payload
    assert isinstance(payload, bytes), "paho hands over bytes"
    return Message(
        message.topic.value,
        payload,
        message.qos,
        message.retain,
        getattr(message.properties, "ContentType", ""),
        getattr(message.properties, "MessageExpiryInterval", None),
    )


def expect_two_answers(connection: Any) -> None:
    """Let one TCP acknowledgement do for the broker's answer and the hub's, which come within moments.

    Two would be 2 MB a month.  The kernel takes it for this once (tcp(7), TCP_QUICKACK: not permanent).
    """
    if connection is not None:  # paho's socket, which has no type of its own
        with contextlib.suppress(OSError):  # it has just been closed
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)


def traffic(connection: socket.socket) -> tuple[int, int] | None:
    """Bytes of IP packets that a TCP connection has sent and received; None where nobody counts."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    except OSError:
        return None
    if len(info) < TCP_INFO_BYTES:
        return None
    (received,) = struct.unpack_from("=Q", info, 128)
    segments_sent, segments_received = struct.unpack_from("=II", info, 136)
    (sent,) = struct.unpack_from("=Q", info, 200)
    header = 40 if connection.family == socket.AF_INET6 else 20  # RFC 8200, section 3; RFC 791, 3.1
    header += 20 + (12 if info[5] & TIMESTAMPS else 0)
    return sent + segments_sent * header, received + segments_received * header


def _describe(message: Message, packet: int) -> Properties:
    properties = _new_properties(packet)
    if message.content_type:
        properties.ContentType = message.content_type
    if message.expiry_s is not None:
        properties.MessageExpiryInterval = message.expiry_s
    return properties


def _new_properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]
