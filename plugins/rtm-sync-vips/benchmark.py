"""Compare libvips and Pillow: seconds and memory for a thumbnail of 25 KB.

    python benchmark.py

Each measurement is the best of five in a new process. The libraries take turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rtm_sync.testing.pictures import encoded, photograph

PICTURES = {
    "50 MP JPEG": ((8660, 5773), "JPEG", {"quality": 85}),
    "50 MP progressive JPEG": ((8660, 5773), "JPEG", {"quality": 85, "progressive": True}),
    "12 MP JPEG": ((4000, 3000), "JPEG", {"quality": 85}),
    "12 MP PNG": ((4000, 3000), "PNG", {}),
    "12 MP WebP": ((4000, 3000), "WEBP", {}),
    "12 MP TIFF": ((4000, 3000), "TIFF", {"compression": "tiff_adobe_deflate"}),
    "1 MP JPEG": ((1200, 900), "JPEG", {"quality": 85}),
}

CHILD = """
import json, sys, time
from rtm_sync import Blob, CannotThumbnail
if sys.argv[1] == "vips":
    from rtm_sync_vips import VipsGenerator as Generator
else:
    from rtm_sync_pillow import PillowGenerator as Generator
blob = Blob.from_path(sys.argv[2])
def peak():
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1024
before = peak()
seconds = []
for _ in range(5):
    began = time.perf_counter()
    try:
        Generator().generate(blob, 25_000)
    except CannotThumbnail as error:
        print(json.dumps({"refused": str(error)}))
        sys.exit()
    seconds.append(time.perf_counter() - began)
grown = peak() - before
print(json.dumps({"seconds": min(seconds), "megabytes": grown}))
"""


def measured(kind: str, path: Path) -> dict[str, float]:
    done = subprocess.run(  # noqa: S603  this program's own code
        [sys.executable, "-c", CHILD, kind, str(path)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def shown(result: dict[str, float]) -> str:
    if "refused" in result:
        return "refused | "
    return f"{result['seconds']:.3f} s | {result['megabytes']:.0f} MB"


def main() -> None:
    print("| picture | Pillow | | libvips | | ratio |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture")
        for name, (size, kind, options) in PICTURES.items():
            path.write_bytes(encoded(photograph(*size), kind, **options))
            pillow, vips = measured("pillow", path), measured("vips", path)
            ratio = ""
            if "seconds" in pillow and "seconds" in vips:
                ratio = f"{pillow['seconds'] / vips['seconds']:.2f}"
            print(f"| {name} | {shown(pillow)} | {shown(vips)} | {ratio} |")


if __name__ == "__main__":
    main()
