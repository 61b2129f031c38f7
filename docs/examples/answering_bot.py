"""A bot that answers: answering_bot.py BOT_UID

It answers texts in capitals, and photos with their size and the photo itself. Ctrl-C ends it.
"""

import os
import sys
import threading

from rtm_sync import (
    ReceivedMessageProperties,
    RtmClient,
    RtmImageMessage,
    RtmMessage,
    RtmTextMessage,
)

URL = os.environ.get("RTM_SYNC_URL", "ws://127.0.0.1:8765")
APP_ID = os.environ.get("RTM_SYNC_APP_ID", "my-app")


def main(uid: str) -> None:
    with RtmClient(APP_ID, url=URL) as bot:

        @bot.on("MessageFromPeer")
        def answer(message: RtmMessage, peer_id: str, props: ReceivedMessageProperties) -> None:
            # A handler may call any blocking method. Its exceptions are only logged.
            if isinstance(message, RtmTextMessage):
                bot.send_message_to_peer(message.text.upper(), peer_id)
            elif isinstance(message, RtmImageMessage):
                bot.send_message_to_peer(f"{message.width} × {message.height}", peer_id)
                bot.send_message_to_peer(message, peer_id)  # without another upload

        bot.login(uid, os.environ.get("RTM_SYNC_TOKEN"))
        print(f"{uid} answers", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("bye")


if __name__ == "__main__":
    main(*sys.argv[1:])
