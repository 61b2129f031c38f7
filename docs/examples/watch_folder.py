"""Send every file that appears in a folder to a channel: watch_folder.py MY_UID CHANNEL FOLDER

A file that is still being written is waited for: it is sent once its size and time have not changed
for two looks. Ctrl-C ends it. RTM_SYNC_URL, RTM_SYNC_APP_ID and RTM_SYNC_TOKEN say where.
"""

import os
import sys
import threading
from pathlib import Path

from rtm_sync import Blob, RtmChannel, RtmClient, RtmError

URL = os.environ.get("RTM_SYNC_URL", "ws://127.0.0.1:8765")
APP_ID = os.environ.get("RTM_SYNC_APP_ID", "my-app")
SECONDS = float(os.environ.get("WATCH_SECONDS", "1"))  # between two scans

Look = tuple[int, int]  # size and time of the last change, in nanoseconds


def look_at(folder: Path) -> dict[Path, Look]:
    """The files of the folder without hidden ones, which many programs use while they write."""
    found = {}
    for path in folder.iterdir():
        try:
            if path.is_file() and not path.name.startswith("."):
                status = path.stat()
                found[path] = (status.st_size, status.st_mtime_ns)
        except FileNotFoundError:
            pass  # the file was removed
    return found


def send(client: RtmClient, channel: RtmChannel, path: Path) -> None:
    try:
        kind = "FILE" if Blob.from_path(path).dimensions() is None else "IMAGE"
        upload = client.create_media_message_by_uploading(path, message_type=kind)
        channel.send_message(upload.result(timeout=300))
        print(f"sent {path.name}", flush=True)
    except (RtmError, OSError) as error:
        print(f"not sent: {path.name}: {error}", file=sys.stderr, flush=True)


def main(uid: str, channel_id: str, folder: str) -> None:
    with RtmClient(APP_ID, url=URL) as client:
        client.login(uid, os.environ.get("RTM_SYNC_TOKEN"))
        channel = client.create_channel(channel_id)
        channel.join()
        done = look_at(Path(folder))  # existing files are not sent
        before: dict[Path, Look] = {}
        print(f"watching {folder}", flush=True)
        pause = threading.Event()
        while not pause.wait(SECONDS):
            now = look_at(Path(folder))
            for path, look in sorted(now.items()):
                is_quiet = before.get(path) == look and look[0] > 0
                if is_quiet and done.get(path) != look:
                    done[path] = look
                    send(client, channel, path)
            before = now


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        print("stopped")
