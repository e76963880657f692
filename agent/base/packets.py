"""What is written into MQTT packets and read out of them: will and properties.

Called by `agent.base.mqtt`, which moves them.
"""

from __future__ import annotations

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.base.broker import Address, Message


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


def publish_properties(message: Message) -> Properties | None:
    """The properties of a PUBLISH packet; None when it needs none, which is cheaper."""
    if not message.content_type and message.expiry_s is None:
        return None
    return _describe(message, PacketTypes.PUBLISH)


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


def _describe(message: Message, packet: int) -> Properties:
    properties = _new_properties(packet)
    if message.content_type:
        properties.ContentType = message.content_type
    if message.expiry_s is not None:
        properties.MessageExpiryInterval = message.expiry_s
    return properties


def _new_properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]
