"""Upload many files, nine at once, under one tqdm bar: many_uploads.py MY_UID FILE...

Prints each file's media id as soon as it is there. Needs tqdm.
"""

import os
import sys
from concurrent.futures import Future, as_completed
from pathlib import Path

from tqdm import tqdm

from rtm_sync import RtmClient, RtmError, RtmFileMessage, tqdm_progress

URL = os.environ.get("RTM_SYNC_URL", "ws://127.0.0.1:8765")
APP_ID = os.environ.get("RTM_SYNC_APP_ID", "my-app")


def main(uid: str, *files: str) -> int:
    failed = 0
    size = sum(Path(file).stat().st_size for file in files)
    with (
        RtmClient(APP_ID, url=URL) as client,
        tqdm(total=size, unit="B", unit_scale=True) as bar,
    ):
        client.login(uid, os.environ.get("RTM_SYNC_TOKEN"))
        uploads: dict[Future[RtmFileMessage], str] = {
            client.create_media_message_by_uploading(
                file, on_operation_progress=tqdm_progress(bar)
            ): file
            for file in files
        }
        for upload in as_completed(uploads):
            try:
                print(upload.result().media_id, uploads[upload])
            except RtmError as error:
                failed += 1
                print(f"{uploads[upload]}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
