"""Code as a user writes it, with every public part: type-checked by `tests/test_typing.py`."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import as_completed
from datetime import datetime
from pathlib import Path

import rtm_sync
from rtm_sync import (
    AttributeOperationError,
    Blob,
    CannotThumbnail,
    ChannelAttribute,
    ChannelMessageError,
    ConnectionChangeReason,
    ConnectionState,
    CreateChannelError,
    CreateInstanceError,
    DownloadCancelled,
    DownloadMediaError,
    GetChannelMemberCountError,
    GetMembersError,
    HistoricalMessage,
    HistoryError,
    InvitationApiCallError,
    JoinChannelError,
    LeaveChannelError,
    LocalInvitation,
    LocalInvitationFailureReason,
    LocalInvitationState,
    LogFilter,
    LoginError,
    LogoutError,
    MediaInfo,
    MediaOperationProgress,
    MessageType,
    PeerMessageError,
    PeerMessageSendResult,
    PeerOnlineState,
    PeerSubscriptionOption,
    PeerSubscriptionStatusError,
    PluginError,
    QueryPeersBySubscriptionOptionError,
    QueryPeersOnlineStatusError,
    ReceivedMessageProperties,
    RemoteInvitation,
    RemoteInvitationFailureReason,
    RemoteInvitationState,
    RenewTokenError,
    RtmChannel,
    RtmClient,
    RtmError,
    RtmFileMessage,
    RtmImageMessage,
    RtmMessage,
    RtmRawMessage,
    RtmSender,
    RtmTextMessage,
    SenderError,
    Thumbnail,
    ThumbnailGenerator,
    Transfer,
    TransferCancelled,
    UploadCancelled,
    UploadMediaError,
    create_instance,
    hookimpl,
    tqdm_progress,
)
from rtm_sync.testing import FaultProxy, RtmTestCase, ScriptedPeer, VirtualClock, local_gateway


def words(message: RtmMessage) -> str:
    if isinstance(message, RtmTextMessage):
        return message.text
    if isinstance(message, RtmRawMessage):
        return message.raw_message.decode() + message.description
    if isinstance(message, RtmImageMessage):
        return f"{message.width * message.height} pixels, {len(message.thumbnail)} bytes"
    return f"{message.file_name}, {message.size} bytes until {message.expires_at:.0f}"


def log_in(provider: str) -> RtmClient:
    client = RtmClient(
        "my-app", url="ws://127.0.0.1:8765", token_provider=lambda: provider, plugins=[Squares()]
    )
    try:
        client.login("alice")
        client.renew_token("fresh")
    except (LoginError, RenewTokenError) as error:
        print(error.code.name, int(error.code), error.message, error.cause, error.reason)
    client.set_parameters(log_filter=LogFilter.WARNING)
    client.update_config(log_filter="info")
    client.block_peer("mallory")
    blocked: frozenset[str] = client.blocked_peers
    client.unblock_peer(min(blocked))
    state: ConnectionState = client.connection_state
    print(client.uid, state is ConnectionState.CONNECTED, rtm_sync.__version__)
    return client


def listen(client: RtmClient, channel: RtmChannel) -> None:
    @client.on("MessageFromPeer")
    def received(message: RtmMessage, peer_id: str, props: ReceivedMessageProperties) -> None:
        print(peer_id.upper(), words(message), props.server_received_ts + 1)

    @client.on("ConnectionStateChanged")
    def changed(state: ConnectionState, reason: ConnectionChangeReason) -> None:
        print(state.name, reason.value + 1)

    client.once("RemoteInvitationReceived", answer)
    client.on("TokenExpired", lambda: print("again"))
    client.on("PeersOnlineStatusChanged", lambda states: print(online(states)))
    client.on("Reconnected", lambda recovered: print(not recovered))
    channel.on("ChannelMessage", received)
    channel.on("ChannelMessage", lambda message, member_id, props: print(words(message)))
    channel.on("AttributesUpdated", lambda attributes: print(topic(attributes)))
    channel.once("MemberCountUpdated", lambda count: print(count + 1))
    client.off("ConnectionStateChanged", changed)
    print(client.listener_count("MessageFromPeer"), client.listeners("MessageFromPeer"))
    client.remove_all_listeners()
    with client.events("MessageFromPeer") as arriving:
        for event in arriving.until(1.5):
            print(event.name, event.args)
    client.wait_for("TokenExpired", timeout=1)


def online(states: dict[str, PeerOnlineState]) -> list[str]:
    return [uid for uid, state in states.items() if state is PeerOnlineState.ONLINE]


def topic(attributes: dict[str, ChannelAttribute]) -> str:
    found = attributes["topic"]
    return f"{found.value} by {found.last_update_user_id} at {found.last_update_ts}"


def answer(invitation: RemoteInvitation) -> None:
    if invitation.state is RemoteInvitationState.INVITATION_RECEIVED and invitation.content:
        invitation.on("RemoteInvitationFailure", refused)
        invitation.accept(f"hello {invitation.caller_id} in {invitation.channel_id}")
    invitation.refuse("no")


def refused(reason: RemoteInvitationFailureReason) -> None:
    print(reason.name)


def invite(client: RtmClient) -> LocalInvitationState:
    call: LocalInvitation = client.create_local_invitation("bob")
    call.content, call.channel_id = "dinner?", "kitchen"
    call.on("LocalInvitationAccepted", lambda response: print(response.upper()))
    call.on("LocalInvitationFailure", lambda reason: print(missed(reason)))
    try:
        call.send()
        print(call.callee_id.upper(), call.response)
        call.cancel()
    except InvitationApiCallError as error:
        print(error.code.value)
    return call.state


def missed(reason: LocalInvitationFailureReason) -> bool:
    return reason is LocalInvitationFailureReason.PEER_OFFLINE


def talk(client: RtmClient, channel: RtmChannel) -> PeerMessageSendResult:
    try:
        channel.join()
        channel.send_message("hello", enable_historical_messaging=True)
        print([member.upper() for member in channel.get_members()])
        channel.leave()
    except (JoinChannelError, LeaveChannelError, GetMembersError, ChannelMessageError) as error:
        print(error)
    client.send_message_to_peer(b"raw", "bob")
    client.send_message_to_peer(client.create_message(text="made"), "bob")
    sent = client.send_message_to_peer(RtmTextMessage("hi"), "bob", enable_offline_messaging=True)
    print(sent.has_peer_received or sent.cached_by_server)
    return sent


def look(client: RtmClient) -> int:
    client.set_local_user_attributes({"mood": "good"})
    client.add_or_update_local_user_attributes({"mood": "better"})
    client.delete_local_user_attributes_by_keys(["mood"])
    client.clear_local_user_attributes()
    mood: str = client.get_user_attributes("bob")["mood"]
    print(mood, client.get_user_attributes_by_keys("bob", ["mood"]).get("mood", "").upper())
    client.set_channel_attributes("cats", {"a": "b"}, enable_notification_to_channel_members=True)
    client.add_or_update_channel_attributes("cats", {"a": "c"})
    client.delete_channel_attributes_by_keys("cats", ["a"])
    client.clear_channel_attributes("cats")
    print(topic(client.get_channel_attributes("cats")))
    print(topic(client.get_channel_attributes_by_keys("cats", ["topic"])))
    client.subscribe_peers_online_status(["bob"])
    client.unsubscribe_peers_online_status(["bob"])
    subscribed = client.query_peers_by_subscription_option(PeerSubscriptionOption.ONLINE_STATUS)
    print([uid.upper() for uid in subscribed], client.query_peers_online_status(["bob"])["bob"])
    history = client.get_peer_history("bob", start=datetime.now(), limit=10)
    return client.get_channel_member_count(["cats"])["cats"] + len(list(texts(history)))


def texts(history: list[HistoricalMessage]) -> Iterator[str]:
    for past in history:
        yield f"{past.source} to {past.destination}: {words(past.message)}"


def progress(so_far: MediaOperationProgress) -> None:
    print(so_far.current_size / so_far.total_size)


class Meter:
    total: float | None = None

    def update(self, n: float = 1) -> None:
        print(n)


def media(client: RtmClient, folder: Path) -> Blob:
    cancel = threading.Event()
    image: Transfer[RtmImageMessage] = client.create_media_message_by_uploading(
        Blob.from_path(folder / "cat.jpg"),
        message_type=MessageType.IMAGE,
        thumbnail="auto",
        cancel_signal=cancel,
        on_operation_progress=progress,
    )
    files = [client.create_media_message_by_uploading(b"bytes", file_name="a") for _ in range(2)]
    sizes = [done.result().size for done in as_completed(files)]
    stored: RtmFileMessage = files[0].result(timeout=60)
    try:
        with client.download_media(stored.media_id, to=folder) as download:
            path: Path = download.result(timeout=60)
        client.download_media(
            stored.media_id, on_operation_progress=tqdm_progress(Meter())
        ).result().save(path)
        told: MediaInfo = client.get_media_info(stored.media_id)
        with client.open_media(stored.media_id, start=1, stop=told.size) as stream:
            about: MediaInfo = stream.info
            print(about.sha256, stream.read(10))
    except (UploadCancelled, DownloadCancelled, TransferCancelled):
        image.cancel()
    except (UploadMediaError, DownloadMediaError) as error:
        print(error.reason)
    print(sum(sizes), image.progress, image.result().thumbnail_width)
    return client.download_media(stored.media_id).result()


async def mixed(client: RtmClient) -> int:
    upload = client.create_media_message_by_uploading("cat.jpg", message_type="IMAGE")
    return (await asyncio.wrap_future(upload)).width


def blobs(folder: Path) -> list[str | None]:
    with (folder / "cat.jpg").open("rb") as file:
        made = [
            Blob.of(file),
            Blob.from_file(file),
            Blob.from_bytes(b"bytes", content_type="text/plain"),
            Blob.from_data_url("data:,hello"),
            Blob.from_url("https://app.example/cat.jpg", max_bytes=1_000_000, timeout=5),
        ]
    print(
        made[0].size,
        made[0].to_image(),
        made[0].dimensions(),
        made[1].to_bytes(),
        made[2].to_data_url(),
    )
    return [blob.content_type for blob in made]


def serve(secret: str) -> bool:
    with RtmSender("my-app", secret, url="https://rtm.example", uid="shop") as sender:
        try:
            photo = sender.create_media_message_by_uploading("cat.jpg", message_type="IMAGE")
            sender.send_message_to_channel(photo.result(), "cats")
            sent = sender.send_message_to_peer("hello", "bob")
            print(online(sender.query_peers_presence(["bob"])), sent.has_peer_received)
            print(list(texts(sender.get_history(source="bob"))))
            until: dict[str, float] = sender.get_bans()
            ended: int = sender.end_all_sessions(revoke_tokens=not until)
            assert ended >= 0
            return sender.kick("bob", ban_seconds=60, revoke_tokens=bool(until))
        except SenderError as error:
            print(error.code.name)
            return False


ERRORS: tuple[type[RtmError], ...] = (
    *(AttributeOperationError, CreateChannelError, CreateInstanceError, HistoryError),
    *(GetChannelMemberCountError, LogoutError, PeerMessageError, PeerSubscriptionStatusError),
    *(QueryPeersBySubscriptionOptionError, QueryPeersOnlineStatusError),
)


class Square(ThumbnailGenerator):
    name = "square"

    def can_handle(self, content_type: str) -> bool:
        return content_type == "image/x-square"

    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        data = blob.to_bytes()
        if len(data) > max_bytes:
            raise CannotThumbnail("It is too large.")
        return Thumbnail(data, 1, 1, "image/png")


class Squares:
    @hookimpl
    def thumbnail(self) -> ThumbnailGenerator:
        return Square()


class AppTest(RtmTestCase):
    def test_the_app(self) -> None:
        clock = VirtualClock()
        url = self.entered(local_gateway(now=clock))
        proxy = self.entered(FaultProxy(url))
        bob = self.entered(ScriptedPeer("my-app", "bob", url=proxy.url))
        bob.join("cats")
        clock.advance(3600)
        self.assertEqual(bob.expect("MemberJoined", timeout=5), ("alice",))
        self.assertEqual([event.name for event in bob.unexpected()], [])


def main() -> None:
    try:
        with create_instance("my-app") as client:
            channel = client.create_channel("cats")
            listen(client, channel)
            print(talk(client, channel), look(client), invite(client), media(client, Path()))
            client.logout()
        client.close()
    except PluginError as error:
        print(error)
    except ERRORS as error:
        print(error.code.name)
