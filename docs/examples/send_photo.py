"""Send a photo with a thumbnail: send_photo.py MY_UID PEER_UID PHOTO

Needs a gateway (`rtm-sync serve`); RTM_SYNC_URL, RTM_SYNC_APP_ID and RTM_SYNC_TOKEN say which.
"""

import os
import sys

from rtm_sync import RtmClient

URL = os.environ.get("RTM_SYNC_URL", "ws://127.0.0.1:8765")
APP_ID = os.environ.get("RTM_SYNC_APP_ID", "my-app")


def main(uid: str, peer: str, photo: str) -> None:
    # auto_thumbnails makes a thumbnail if a plugin can; otherwise the photo is sent without one.
    with RtmClient(APP_ID, url=URL, auto_thumbnails=True) as client:
        client.login(uid, os.environ.get("RTM_SYNC_TOKEN"))
        upload = client.create_media_message_by_uploading(photo, message_type="IMAGE")
        message = upload.result(timeout=300)
        sent = client.send_message_to_peer(message, peer, enable_offline_messaging=True)
        size = f"{message.width} × {message.height}, {message.size:,} bytes"
        print(f"{peer} {'has' if sent.has_peer_received else 'will get'} {size}")


if __name__ == "__main__":
    main(*sys.argv[1:])
