"""What a failed MQTT connection, publish or subscription means, in a sentence with a hint.

Called by `agent.base.mqtt`.  Reason codes are those of MQTT 5.0, section 2.4; socket errors are
found behind what aiomqtt raises.
"""

from __future__ import annotations

import socket
import ssl

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.reasoncodes import ReasonCode

from agent.base.broker import Address
from agent.wire.errors import LichenError, LinkDown, Refused

NOT_AUTHORISED = 0x87
NOT_NOW = frozenset({0x88, 0x89, 0x97, 0x9C, 0x9D, 0x9F})
"""Server unavailable, busy, over its quota or rate, or moved: trying again is right."""


def denied(address: Address, what: str, reason: ReasonCode) -> Refused:
    """What a PUBACK or SUBACK with this failure means."""
    code = "forbidden" if reason.value == NOT_AUTHORISED else "invalid"
    return Refused(f"{address} refuses {what}: {reason}", code=code)


def of(error: BaseException | None, address: Address) -> LichenError:
    """What ended a connection, or kept it from coming up."""
    # What the socket said stands behind what aiomqtt says.
    cause = error.__context__ if isinstance(error, aiomqtt.MqttError) and error.__context__ else error
    match cause:
        case MqttConnectError(rc=ReasonCode() as reason):
            return _declined(address, reason)
        case aiomqtt.MqttCodeError(rc=ReasonCode() as reason):
            return _ended(address, reason)
        case OSError() | ValueError():
            return _socket_failed(str(address), cause)
    return LinkDown(f"the connection to {address} ended: {cause or 'it was left'}")


def _ended(address: Address, reason: ReasonCode) -> LinkDown:
    """What the end of a connection that was up means."""
    match reason.value:
        case 0x80:  # paho's word for a socket that was closed
            return LinkDown(f"{address} closed the connection")
        case 0x8D:
            return LinkDown(f"{address} has not answered for {address.keepalive_s} s")
        case 0x8E:
            return LinkDown(
                f"another client took over the id {address.client_id!r} at {address}",
                code="taken-over",
                hint="is the same identity in use twice, on a copied card for example?",
            )
    return LinkDown(f"{address} ended the connection: {reason}")


def _declined(address: Address, reason: ReasonCode) -> LichenError:
    """What a CONNACK with this failure means."""
    sentence = f"{address} does not let {address.client_id!r} in: {reason}"
    if reason.value in NOT_NOW:
        return LinkDown(sentence)
    return Refused(sentence, code="forbidden", hint="has it been revoked there?")


def _socket_failed(where: str, error: OSError | ValueError) -> LichenError:
    """What an error of the socket means and what to do about it."""
    match error:
        case ssl.SSLCertVerificationError():
            return LinkDown(
                f"{where} shows a certificate that does not verify: {error.verify_message}",
                code="tls",
                hint="another server answers there, or the clock of this machine is wrong",
            )
        case ssl.SSLError(reason=str(reason)) if "ALERT" in reason and ("CERT" in reason or "_CA" in reason):
            return Refused(
                f"{where} does not accept our certificate ({reason.partition('ALERT_')[2].lower()})",
                code="certificate",
                hint="it has expired, was revoked, or is from another hub",
            )
        case ssl.SSLError():
            return LinkDown(
                f"no TLS with {where}: {error.reason or error}",
                code="tls",
                hint="does that port speak TLS?",
            )
        case socket.gaierror():
            return LinkDown(f"{where} cannot be found: {error.strerror}", hint="is there a network?")
        case ConnectionRefusedError() | FileNotFoundError():
            return LinkDown(f"nothing listens at {where}", hint="is it running, and is that its address?")
        case TimeoutError():
            return LinkDown(f"{where} does not answer", hint="is there a network, and no firewall between?")
    return LinkDown(f"the connection to {where} failed: {getattr(error, 'strerror', None) or error}")
