"""Cancel an upload on Ctrl-C: cancel_on_ctrl_c.py MY_UID FILE

The transfer is a context manager. Ctrl-C or another early end of its block cancels it, and the
gateway keeps none of its bytes. The exit status is then 130, as shells expect.
"""

import os
import sys

from rtm_sync import MediaOperationProgress, RtmClient

URL = os.environ.get("RTM_SYNC_URL", "ws://127.0.0.1:8765")
APP_ID = os.environ.get("RTM_SYNC_APP_ID", "my-app")


def show(progress: MediaOperationProgress) -> None:
    print(f"{progress.current_size:,} of {progress.total_size:,} bytes", flush=True)


def main(uid: str, file: str) -> int:
    with RtmClient(APP_ID, url=URL) as client:
        client.login(uid, os.environ.get("RTM_SYNC_TOKEN"))
        try:
            with client.create_media_message_by_uploading(
                file, on_operation_progress=show
            ) as upload:
                print(upload.result().media_id)
        except KeyboardInterrupt:
            print("cancelled")
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
