"""What is written into MQTT packets and read out of them: identity, will, properties, reasons.

Called by `agent.base.mqtt`, which moves the bytes.  With it the only module that knows paho.
"""

from __future__ import annotations

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.base import dial
from agent.base.broker import Address, Message
from agent.wire.errors import LichenError, LinkDown, Refused

# MQTT 5.0, section 2.4.
NOT_AUTHORISED = 0x87
TAKEN_OVER = 0x8E
KEEP_ALIVE_TIMEOUT = 0x8D
NOT_NOW = frozenset({0x88, 0x89, 0x97, 0x9C, 0x9D, 0x9F})
"""Server unavailable, busy, over its quota or rate, or moved: trying again is right."""


class Client(mqtt.Client):
    """paho on a socket that is connected already."""

    def __init__(self, opened: dial.Socket, address: Address) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=address.client_id,
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
        )
        self._opened = opened
        self._to = address
        self.max_inflight_messages_set(0)  # no window of its own: ours follows the broker's wish
        if address.username:
            self.username_pw_set(address.username)
        if address.will is not None:
            will = address.will
            properties = _describe(will, PacketTypes.WILLMESSAGE)
            properties.WillDelayInterval = address.will_delay_s
            self.will_set(will.topic, will.payload, will.qos, will.retain, properties)

    def begin(self) -> None:
        """Queue the CONNECT packet."""
        properties = _new_properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = self._to.session_expiry_s
        # paho wants an address even where the socket is given.
        self.connect(
            self._to.host or "unix",
            self._to.port or 1,
            self._to.keepalive_s,
            clean_start=self._to.clean_start,
            properties=properties,
        )

    def _create_socket(self) -> dial.Socket:
        # The one private method of paho that is replaced: what it does, blocks.
        return self._opened


def properties_of(message: Message) -> Properties | None:
    """The properties of a PUBLISH packet; None when it needs none, which is cheaper."""
    if not message.content_type and message.expiry_s is None:
        return None
    return _describe(message, PacketTypes.PUBLISH)


def _describe(message: Message, packet: int) -> Properties:
    properties = _new_properties(packet)
    if message.content_type:
        properties.ContentType = message.content_type
    if message.expiry_s is not None:
        properties.MessageExpiryInterval = message.expiry_s
    return properties


def received(message: mqtt.MQTTMessage) -> Message:
    """A message as paho hands it over.  Raises UnicodeDecodeError."""
    return Message(
        message.topic,
        bytes(message.payload),
        message.qos,
        message.retain,
        getattr(message.properties, "ContentType", ""),
        getattr(message.properties, "MessageExpiryInterval", None),
    )


def denied(address: Address, what: str, reason: ReasonCode) -> Refused:
    """What a PUBACK or SUBACK with this failure means."""
    code = "forbidden" if reason.value == NOT_AUTHORISED else "invalid"
    return Refused(f"{address} refuses {what}: {reason}", code=code)


def declined(address: Address, reason: ReasonCode) -> LichenError:
    """What a CONNACK with this failure means."""
    sentence = f"{address} does not let {address.client_id!r} in: {reason}"
    if reason.value in NOT_NOW:
        return LinkDown(sentence)
    return Refused(sentence, code="forbidden", hint="has it been revoked there?")


def sent_away(address: Address, reason: ReasonCode) -> LichenError:
    """What a DISCONNECT by the broker with this reason means."""
    if reason.value == TAKEN_OVER:
        return LinkDown(
            f"another client took over the id {address.client_id!r} at {address}",
            code="taken-over",
            hint="is the same identity in use twice, on a copied card for example?",
        )
    return LinkDown(f"{address} ended the connection: {reason}")


def _new_properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]
