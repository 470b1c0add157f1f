"""A phone that opens the page of `bench --phone`: Chromium as a Pixel 7 shows itself, slowed down, with a touch screen.

As a program, it first makes itself a network of one machine whose address is not that of loopback (it must run below `unshare --net`), measures
BUNDLE over it, prints what `bench` printed, and on standard error what the page knew: `phone_visitor.py BUNDLE [OPTION OF bench]...`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ADDRESS = "10.77.0.1"
DEVICE = "Pixel 7"
SWIFTSHADER = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan", "--use-vulkan=swiftshader", "--ignore-gpu-blocklist")
ENDED = ("Done", "It did not work", "The computer stopped", "The computer that")


@contextlib.contextmanager
def opened(url: str, *, slower: float = 1.0, gpu: bool = False, tap: bool = True) -> Iterator:
    """Open `url` on the phone, whose processor is so many times slower, and yield the page; with `gpu` it has WebGPU, by SwiftShader, which computes on the processor what a GPU would."""
    from playwright.sync_api import sync_playwright

    from melanoma_edge.runtimes import chromium

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium.find(), args=["--no-sandbox", "--disable-dev-shm-usage", *(SWIFTSHADER if gpu else ("--disable-gpu",))])
        try:
            page = browser.new_context(**play.devices[DEVICE], ignore_https_errors=True).new_page()
            if slower > 1:
                page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
            page.goto(url)
            if tap:
                page.tap("#start")
            yield page
        finally:
            browser.close()


def wait(page, *words: str, seconds: float = 300) -> str:
    """Wait until the page says one of `words`, by default that it has ended; return its line."""
    deadline = time.monotonic() + seconds
    while not (line := page.inner_text("#state")).startswith(words or ENDED):
        assert time.monotonic() < deadline, line
        time.sleep(0.05)
    return line


def address(err: Path, process: subprocess.Popen) -> str:
    """Return the address that `bench --phone` shows on standard error, which goes to the file `err`."""
    while not (found := re.search(r"open on the phone: (\S+)", err.read_text(encoding="utf-8"))):
        assert process.poll() is None, err.read_text(encoding="utf-8")
        time.sleep(0.05)
    return found[1]


def main(bundle: str, *options: str) -> int:
    """Measure `bundle` over a network and return the exit code of `bench`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plug:
        fcntl.ioctl(plug, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
        fcntl.ioctl(plug, 0x8916, struct.pack("16sH2x4s8x", b"lo:1", socket.AF_INET, socket.inet_aton(ADDRESS)))  # SIOCSIFADDR: a second address
    with tempfile.TemporaryDirectory() as folder:
        err = Path(folder, "err.txt")
        with open(err, "wb") as stream:
            command = [sys.executable, "-m", "melanoma_edge", "bench", bundle, "--phone", "--quick", "--json", "--host", ADDRESS, *options]
            process = subprocess.Popen(command, stderr=stream)
        try:
            with opened(address(err, process)) as page:
                line = wait(page)
                told = {"line": line, "secure": page.evaluate("isSecureContext"), "isolated": page.evaluate("crossOriginIsolated"), "subtle": page.evaluate("'subtle' in crypto")}
            code = process.wait(60)
        finally:
            process.kill()
        print(json.dumps(told | {"err": err.read_text(encoding="utf-8")}), file=sys.stderr)
        return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
