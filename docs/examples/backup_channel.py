"""Back up the messages of a channel: backup_channel.py MY_UID CHANNEL FOLDER

Media go into the folder under their senders' names (made safe, never over another file), every
message into messages.jsonl. Ctrl-C ends it, after the downloads that run.
"""

import json
import os
import sys
import threading
from concurrent.futures import Future, wait
from dataclasses import asdict
from pathlib import Path

from rtm_sync import ReceivedMessageProperties, RtmClient, RtmFileMessage, RtmMessage, Transfer

URL = os.environ.get("RTM_SYNC_URL", "ws://127.0.0.1:8765")
APP_ID = os.environ.get("RTM_SYNC_APP_ID", "my-app")


def main(uid: str, channel_id: str, target: str) -> None:
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / "messages.jsonl"
    journal.touch()  # now, so that no downloaded file takes this name
    running: list[Transfer[Path]] = []

    with RtmClient(APP_ID, url=URL) as client:
        client.login(uid, os.environ.get("RTM_SYNC_TOKEN"))
        channel = client.create_channel(channel_id)

        @channel.on("ChannelMessage")
        def received(message: RtmMessage, member: str, props: ReceivedMessageProperties) -> None:
            record = {"from": member, "at": props.server_received_ts, **asdict(message)}
            with journal.open("a") as file:
                file.write(json.dumps(record, default=bytes.hex) + "\n")
            if isinstance(message, RtmFileMessage):
                running.append(client.download_media(message.media_id, to=folder))
                running[-1].add_done_callback(saved)

        def saved(download: Future[Path]) -> None:
            error = download.exception()
            print(f"failed: {error}" if error else f"saved {download.result().name}", flush=True)

        channel.join()
        print(f"backing up {channel_id}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            wait(running, timeout=60)


if __name__ == "__main__":
    main(*sys.argv[1:])
