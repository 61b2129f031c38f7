"""One MQTT connection of paho, used by one thread."""

from __future__ import annotations

import contextlib
import logging
import math
import selectors
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import cast

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from rtm_sync.protocol import FRAME_LIMIT

from .contract import Arrived, ConnectionLost, Refused, fail, resolve

NO_MATCHING_SUBSCRIBERS = 0x10

FAILED = 0x80
"""The first reason code that is an error; all higher codes are errors, too."""

_PACKET_LIMIT = FRAME_LIMIT + 4096  # a message of the largest size, with its topics
# A selector is made for each wait, so use one without a descriptor. Windows has no poll.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)

Send = Callable[[mqtt.Client], "int | None"]
"""Asks paho to send a packet. Returns the packet's id, or None without a connection."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Welcome:
    """The broker's answer to a login (CONNACK).

    Attributes:
        code: the reason code.
        reason: the code's name.
        resumed: whether the broker still has the session of this client id.
    """

    code: int
    reason: str
    resumed: bool


class BrokerClient:
    """One MQTT connection. Not thread-safe: only the reader thread creates and uses it.

    Args:
        name: the client id.
        username, password: the credentials for the broker.
        ca_file: a PEM file of trusted certificates; used only with `is_secure`.
        will: the topic of the will; the broker clears it when the session expires.
        grace: seconds for which the broker keeps a session without a connection.
        take: called with each message that arrives.

    Attributes:
        welcome: the broker's answer to the login; None until it arrives.
    """

    def __init__(
        self,
        name: str,
        username: str | None,
        password: str | None,
        will: str,
        grace: int,
        take: Callable[[Arrived], object],
        *,
        is_secure: bool,
        ca_file: str | None,
    ) -> None:
        self.welcome: Welcome | None = None
        self._take = take
        self._grace = grace
        self._waiting: dict[int, Future[int]] = {}  # by packet id; unanswered packets
        client = self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            name,
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
        )
        if username is not None:
            client.username_pw_set(username, password)
        if is_secure:
            client.tls_set_context(_tls_context(ca_file))
        properties = new_properties(PacketTypes.WILLMESSAGE)
        properties.WillDelayInterval = grace
        client.will_set(will, b"", 1, retain=True, properties=properties)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_codes
        client.on_unsubscribe = self._on_codes

    @property
    def is_connected(self) -> bool:
        return self._socket is not None

    def connect(
        self, host: str, port: int, keepalive: int, timeout: float, *, clean_start: bool
    ) -> None:
        """Connect and send CONNECT. The caller then calls `pump` until `welcome` is set.

        Args:
            keepalive: seconds; paho closes a connection that was silent for twice this time.
            clean_start: whether the broker drops an older session of this client id.

        Raises:
            OSError: there is no connection.
        """
        properties = new_properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = self._grace
        properties.MaximumPacketSize = _PACKET_LIMIT
        client = self._client
        client.connect_timeout = timeout
        client.connect(host, port, keepalive, clean_start=clean_start, properties=properties)
        sock = self._socket
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _acknowledge_at_once(sock)

    def pump(self, woken: socket.socket, timeout: float) -> None:
        """Read and write for at most `timeout` seconds, or until `woken` becomes readable.

        Raises:
            ConnectionLost: there is no connection.
        """
        client, sock = self._client, self._socket
        if sock is None:
            raise ConnectionLost
        pending = getattr(sock, "pending", None)
        if pending is not None and pending():  # TLS has buffered bytes
            timeout = 0.0
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.want_write() else 0)
        with _Selector() as selector:
            selector.register(woken, selectors.EVENT_READ)
            selector.register(sock, wanted)
            ready = {key.fileobj: events for key, events in selector.select(timeout)}
        if woken in ready:
            with contextlib.suppress(OSError):
                woken.recv(4096)
        events = ready.get(sock, 0)
        if events & selectors.EVENT_READ or not timeout:
            client.loop_read()
            _acknowledge_at_once(sock)
        if events & selectors.EVENT_WRITE:
            client.loop_write()
        client.loop_misc()
        if self._socket is None and self.welcome is None:
            raise ConnectionLost

    def submit(self, future: Future[int], send: Send, loss: Exception) -> None:
        """Send a packet. The future's result is the broker's reason code.

        Args:
            loss: the future's exception when there is no connection.
        """
        try:
            packet = send(self._client) if self.is_connected else None
        except (ValueError, OSError) as error:  # paho rejects the packet, or the socket fails
            fail(future, Refused(str(error)))
            return
        except BaseException:
            fail(future, loss)
            raise
        if packet is None or not self.is_connected:
            fail(future, loss)
        else:
            self._waiting[packet] = future

    def disconnect(self) -> None:
        """Disconnect; the broker then ends the session and publishes its will. Raises OSError."""
        properties = new_properties(PacketTypes.DISCONNECT)
        properties.SessionExpiryInterval = 0
        self._client.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=0x04), properties)

    def close(self) -> list[Future[int]]:
        """Close the socket. Return the futures that the broker has not answered."""
        sock = self._socket
        if sock is not None:
            sock.close()
        for name in ("connect", "message", "publish", "subscribe", "unsubscribe"):
            setattr(self._client, f"on_{name}", None)
        waiting, self._waiting = list(self._waiting.values()), {}
        return waiting

    @property
    def _socket(self) -> socket.socket | None:
        return cast("socket.socket | None", self._client.socket())

    # -- paho's callbacks --

    def _on_connect(
        self,
        client: mqtt.Client,
        data: object,
        flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self.welcome = Welcome(reason.value, str(reason), flags.session_present)

    def _on_message(self, client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        properties = message.properties
        arrived = Arrived(
            message.topic,
            bytes(message.payload),
            message.retain,
            getattr(properties, "ResponseTopic", ""),
            getattr(properties, "CorrelationData", b""),
        )
        try:
            self._take(arrived)
        except Exception:  # any client may publish anything; only this message is lost
            logger.exception("a message on topic %r could not be handled", message.topic)

    def _on_publish(
        self,
        client: mqtt.Client,
        data: object,
        packet: int,
        reason: ReasonCode,
        properties: Properties,
    ) -> None:
        self._answered(packet, [reason])

    def _on_codes(
        self,
        client: mqtt.Client,
        data: object,
        packet: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        self._answered(packet, reasons)

    def _answered(self, packet: int, reasons: list[ReasonCode]) -> None:
        future = self._waiting.pop(packet, None)
        if future is None:
            return
        bad = next((reason for reason in reasons if reason.value >= FAILED), None)
        if bad is not None:
            fail(future, Refused(str(bad)))
        else:
            resolve(future, reasons[0].value if reasons else 0)


def publishing(
    topic: str,
    payload: bytes,
    *,
    retain: bool,
    expiry: float | None,
    answer_to: str | None,
    mark: bytes | None,
) -> Send:
    """A packet that publishes at QoS 1. `Connection.publish` describes the arguments."""
    properties = new_properties(PacketTypes.PUBLISH)
    if expiry is not None:
        properties.MessageExpiryInterval = max(1, math.ceil(expiry))
    if answer_to is not None:
        properties.ResponseTopic = answer_to
    if mark is not None:
        properties.CorrelationData = mark
    return lambda client: client.publish(topic, payload, 1, retain, properties).mid


def subscribing(filters: Sequence[str], *, own_too: bool) -> Send:
    """A packet that subscribes at QoS 1."""
    options = SubscribeOptions(qos=1, noLocal=not own_too)
    return lambda client: client.subscribe([(name, options) for name in filters])[1]


def unsubscribing(filters: Sequence[str]) -> Send:
    return lambda client: client.unsubscribe(list(filters))[1]


def _acknowledge_at_once(sock: socket.socket) -> None:
    """Acknowledge TCP segments at once, for a broker with Nagle's algorithm.

    Mosquitto uses the algorithm unless its configuration has `set_tcp_nodelay true`. The kernel's
    delayed acknowledgement then delays each receipt to 44 ms (measured; 1.1 ms with this option).
    Linux resets the option, so it is set after each read. Other systems do not have it.
    """
    quick = getattr(socket, "TCP_QUICKACK", None)
    if quick is not None:
        with contextlib.suppress(OSError):  # the socket has just been closed
            sock.setsockopt(socket.IPPROTO_TCP, quick, 1)


def new_properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho leaves that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _tls_context(ca_file: str | None) -> ssl.SSLContext:
    """A TLS context that verifies the broker's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = _TlsSocket
    if ca_file is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(ca_file)
    return context
