"""Uploads a file with tuspy: upload_with_tuspy.py FILE. The upload's URL and token are in UPLOAD_URL and UPLOAD_TOKEN.

Prints a line of JSON for each chunk, {"sent": bytes}, and at the end {"url": ...}.
"""

from __future__ import annotations

import json
import os
import sys

from tusclient.client import TusClient

# Small, so that a test can end the node in the middle.
CHUNK_BYTES = 32 * 1024
# Longer together than a node takes to start.
RETRIES, RETRY_DELAY_S = 30, 1


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    client = TusClient(os.environ["UPLOAD_URL"], headers={"Authorization": f"Bearer {os.environ['UPLOAD_TOKEN']}"})
    uploader = client.uploader(
        sys.argv[1],
        chunk_size=CHUNK_BYTES,
        metadata={"filename": "film.mp4"},
        retries=RETRIES,
        retry_delay=RETRY_DELAY_S,
        upload_checksum=True,
    )
    while uploader.offset < uploader.get_file_size():
        uploader.upload_chunk()
        say(sent=uploader.offset)
    say(url=uploader.url)


if __name__ == "__main__":
    main()
