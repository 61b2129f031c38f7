"""From the reference's Web SDK 1.3 to rtm_sync, side by side: migrate.py MY_UID PEER_UID PHOTO

The comment above each step has the code of the Web SDK. Promises become blocking calls,
camelCase becomes snake_case, an AbortSignal a threading.Event; numbers and names of errors stay.
"""

import os
import sys
import threading

from rtm_sync import (
    MediaOperationProgress,
    PeerMessageError,
    ReceivedMessageProperties,
    RtmMessage,
    create_instance,
)

URL = os.environ.get("RTM_SYNC_URL", "ws://127.0.0.1:8765")


def main(uid: str, peer: str, photo: str) -> None:
    # const client = AgoraRTM.createInstance(appId)
    with create_instance(os.environ.get("RTM_SYNC_APP_ID", "my-app"), url=URL) as client:
        # client.on('MessageFromPeer', (message, peerId, messageProps) => { ... })
        @client.on("MessageFromPeer")
        def received(message: RtmMessage, peer_id: str, props: ReceivedMessageProperties) -> None:
            print(f"{peer_id} sent a {message.message_type}", flush=True)

        # await client.login({ uid, token })
        client.login(uid, os.environ.get("RTM_SYNC_TOKEN"))

        # const controller = new AbortController(); setTimeout(() => controller.abort(), 60000)
        cancel = threading.Event()
        timer = threading.Timer(60, cancel.set)
        timer.start()

        # onOperationProgress: ({ currentSize, totalSize }) => { ... }
        def progress(so_far: MediaOperationProgress) -> None:
            print(f"{so_far.current_size} of {so_far.total_size}", flush=True)

        # const message = await client.createMediaMessageByUploading(blob, {
        #   messageType: 'IMAGE', fileName: 'cat.jpg', description: 'my cat', thumbnail,
        # }, { cancelSignal: controller.signal, onOperationProgress })
        message = client.create_media_message_by_uploading(
            photo,
            message_type="IMAGE",
            description="my cat",
            cancel_signal=cancel,
            on_operation_progress=progress,
        ).result()
        timer.cancel()

        # const { hasPeerReceived } = await client.sendMessageToPeer(message, peerId)
        try:
            sent = client.send_message_to_peer(message, peer)
            print(f"received: {sent.has_peer_received}")
        except PeerMessageError as error:  # catch (err) { err.code }
            print(f"error {int(error.code)}: {error.message}")

        # const blob = await client.downloadMedia(message.mediaId)
        blob = client.download_media(message.media_id).result()
        print(f"{blob.size} bytes of {blob.content_type}")

        # const channel = client.createChannel('cats'); await channel.join()
        # await channel.sendMessage(message); await channel.leave()
        channel = client.create_channel("cats")
        channel.join()
        channel.send_message(message)
        channel.leave()
    # await client.logout(): the end of `with` does it


if __name__ == "__main__":
    main(*sys.argv[1:])
