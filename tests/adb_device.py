"""A device for adb: Debian's adbd with Android's shell (mksh) and tools (toybox), in a file system, process and network namespace of its own.

adbd gives everyone who reaches its port a shell as root without asking: so the port is only ever opened in a network without
a way out, where adb's server is too, and adbd has none of root's capabilities but the one to change into its folder. The clients
reach that server through a socket in the file system. Unplugging is killing it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import own_environments
import pytest

from melanoma_edge.errors import Missing
from melanoma_edge.files import new_folder
from melanoma_edge.runtimes import debian

SERIAL = "127.0.0.1:5555"
SECOND = "127.0.0.2:5555"
"""Another address of the same adbd, which adb lists as another device."""
BACKPORTS = ("adb", "adbd", "android-libbase", "android-libboringssl", "android-libcutils", "android-liblog", "android-libziparchive")
RELEASE = (
    *("libbrotli1", "libc6", "libcap2", "libcrypt1", "libgcc-s1", "libgcrypt20", "libgpg-error0", "liblz4-1", "liblzma5", "libprotobuf32"),
    *("libstdc++6", "libsystemd0", "libudev1", "libusb-1.0-0", "libzstd1", "mksh", "toybox", "zlib1g"),
)
MARK = "whole"

TRIPLET = "x86_64-linux-gnu"
TOOLS = "usr/lib/android-sdk/platform-tools"

GETPROP = """#!/bin/sh
case "$1" in
    ro.product.manufacturer) echo Google;;
    ro.product.model) echo "Pixel 8";;
    ro.soc.manufacturer) echo Google;;
    ro.soc.model) echo "Tensor G3";;
    ro.board.platform) echo zuma;;
    ro.build.version.release) echo 15;;
    ro.build.version.sdk) echo 35;;
    ro.product.cpu.abi) echo x86_64;;
    ro.product.cpu.abilist) echo x86_64,x86;;
    ro.serialno) echo SECRET123;;
    *) echo;;
esac
"""
DUMPSYS = """#!/bin/sh
case "$1" in
    thermalservice) cat <<'TEXT'
IsStatusOverride: false
ThermalEventListeners:
	callbacks: 2
Thermal Status: 1
Cached temperatures:
	Temperature{mValue=99.0, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
HAL Ready: true
HAL connection:
	ThermalHAL AIDL 1  connected: yes
Current temperatures from HAL:
	Temperature{mValue=36.527, mType=3, mName=VIRTUAL-SKIN, mStatus=1}
	Temperature{mValue=48.0, mType=0, mName=BIG, mStatus=0}
	Temperature{mValue=0.0, mType=2, mName=absent, mStatus=0}
	Temperature{mValue=100.0, mType=8, mName=soc, mStatus=0}
Current cooling devices from HAL:
	CoolingDevice{mValue=0, mType=5, mName=tpu_cooling}
TEXT
    ;;
    battery) cat <<'TEXT'
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  health: 2
  present: true
  level: 83
  scale: 100
  voltage: 4210
  temperature: 291
  technology: Li-ion
TEXT
    ;;
    *) echo "Can't find service: $1";;
esac
"""
BENCHMARK = """#!/bin/sh
# Prints what benchmark_model prints, as /data/test/mode says.
mode=$(cat /data/test/mode 2>/dev/null)
for word in "$@"; do case "$word" in
    --graph=*) graph=${word#*=};; --num_runs=*) runs=${word#*=};; --num_threads=*) threads=${word#*=};;
    --use_gpu=true) delegate=GPU;; --use_nnapi=true) delegate=NNAPI;; --use_xnnpack=true) delegate=XNNPACK;; --report_peak*) peak=1;;
esac; done
echo "$*" >> /data/test/calls
cat "$graph" > /dev/null || { echo "ERROR: Failed to load model $graph" >&2; exit 1; }
case "$mode" in
    hang) touch /data/test/started; sleep 60;;
    hang-later) [ -n "$peak" ] || { touch /data/test/started; sleep 60; };;
    hostile) cat /data/test/output; exit 0;;
    endless) exec yes "INFO: count=1 curr=1";;
    crash) echo "ERROR: Node number 3 (CONV_2D) failed to prepare." >&2; echo "ERROR: Failed to allocate tensors!" >&2; exit 1;;
    killed) kill -9 $$;;
esac
n=$(wc -l < /data/test/calls); us=$((1000 / threads + n % 3))
[ "$mode" = noisy ] && us=$((us * (1 + n % 4)))
[ "$mode" = flaky ] && [ "$delegate" = GPU ] && [ -z "$peak" ] && delegate=gone
took() { echo "INFO: Explicitly applied $1 delegate, and the model graph will be $2"; }
report() {
    echo "INFO: STARTING!"
    [ "$mode" = unknown-option ] && [ "$delegate" = GPU ] && echo "WARN: Unconsumed cmdline flags: --use_gpu=true"
    echo "INFO: Tensorflow Version : 2.18.0"
    echo "INFO: Graph: [$graph]"
    [ "$delegate" = NNAPI ] && echo "INFO: NNAPI accelerators available: [$([ "$mode" = npu ] && echo google-edgetpu,)nnapi-reference]"
    echo "INFO: Initialized TensorFlow Lite runtime."
    case "$mode/$delegate/$graph" in
        */gone/*|unknown-option/GPU/*) ;;
        no-gpu/GPU/*) echo "WARN: GPU acceleration is unsupported on this platform.";;
        */GPU/*int8*) echo "INFO: Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.";;
        part/GPU/*) took GPU "partially executed by the delegate w/ 2 delegate kernels.";;
        *) took $delegate "completely executed by the delegate.";;
    esac
    echo "INFO: The input model file size (MB): 0.037"
    echo "INFO: Initialized session in 5.685ms."
    echo "INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds."
    echo "INFO: count=27 first=1853 curr=1440 min=1435 max=1853 avg=1446.23 std=90 p5=1435 median=1440 p95=1500"
    echo
    echo "INFO: Running benchmark for at least $runs iterations and at least 0.75 seconds but terminate if exceeding 150 seconds."
    echo "INFO: count=$runs first=$us curr=$us min=$((us - 10)) max=$((us + 50)) avg=$us.5 std=12 p5=$((us - 9)) median=$us p95=$((us + 40))"
    echo
    echo "INFO: Inference timings in us: Init: 5685, First inference: 1853, Warmup (avg): 1446.23, Inference (avg): $us.5"
    echo "INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion."
    echo "INFO: Memory footprint delta from the start of the tool (MB): init=3.40234 overall=7.83203"
    [ -n "$peak" ] && echo "INFO: Overall peak memory footprint (MB) via periodic monitoring: 12.5"
}
if [ "$mode" = old ]; then report | sed -e 's/^[A-Z]*: //' -e 's/ p5=.*//' -e 's/^Explicitly applied/Applied/' -e 's|executed by the|executed w/ the|' -e '/Version/d'; else report >&2; fi
exit 0
"""

LOOPBACK = """
# Switch the loopback device on, which a new network has off, and become a command.
import fcntl, os, socket, struct, sys
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execv(sys.argv[1], sys.argv[1:])
"""
START = r"""
set -e
system=$1 root=$2
mkdir -p $root/lib $root/lib64 $root/usr $root/dev $root/proc
for part in lib lib64 usr; do mount --bind $system/$part $root/$part; done
for device in null zero random urandom; do touch $root/dev/$device; mount --bind /dev/$device $root/dev/$device; done
mount -t proc proc $root/proc
exec setpriv --bounding-set=-all,+sys_chroot --inh-caps=-all --no-new-privs chroot $root /bin/env -i PATH=/system/bin:/bin LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu/android /usr/lib/android-sdk/platform-tools/adbd
"""

REFUSING = r"""
# A device that answers as one does on which nobody accepted this computer, or not at all.
import socket, struct, sys, threading
def serve(connection):
    while True:
        header = connection.recv(24, socket.MSG_WAITALL)
        if len(header) < 24:
            return
        command, first, _, length, _, _ = struct.unpack("<6I", header)
        connection.recv(length, socket.MSG_WAITALL)
        if sys.argv[1] == "unauthorized" and (command, first) != (0x48545541, 3):  # asked with a signature, not with a new key
            token = bytes(20)
            connection.sendall(struct.pack("<6I", 0x48545541, 1, 0, len(token), sum(token), 0x48545541 ^ 0xFFFFFFFF) + token)
listener = socket.create_server(("127.0.0.3", 5556))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
REFUSING_SERIAL = "127.0.0.3:5556"


def elf(machine: int = 62, *, extra: bytes = b"") -> bytes:
    """Return a program for x86-64 that is replaced by /system/bin/benchmark with the same arguments, under the name of any `machine`."""
    path = b"/system/bin/benchmark\0"
    # mov rax, [rsp]; lea rsi, [rsp+8]; lea rdx, [rsi+rax*8+8]; lea rdi, [rip+path]; execve; exit(127)
    code = bytes.fromhex("488b0424 488d742408 488d54c608 488d3d13000000 b83b000000 0f05 bf7f000000 b83c000000 0f05")
    size = 64 + 56 + len(code) + len(path)
    ident = b"\x7fELF" + bytes([2 if machine in (62, 183) else 1, 1, 1]) + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x400000 + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, size, size, 0x1000) + code + path + extra


@dataclass
class Phone:
    """The device, and adb as its user has it."""

    system: Path
    root: Path
    network: int
    """The process whose network it is in."""
    adb: Path
    process: subprocess.Popen | None = None

    def call(self, *arguments: str) -> str:
        """Return what adb printed."""
        return subprocess.run([self.adb, *arguments], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL).stdout

    def plug(self) -> None:
        """Start the device and let adb know it."""
        start = ["nsenter", f"--net=/proc/{self.network}/ns/net", "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", START, "sh", str(self.system), str(self.root)]
        self.process = subprocess.Popen(start, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.connect(SERIAL)

    def connect(self, serial: str, state: str = "device") -> None:
        """Let adb know a device, and wait until it lists it in `state`."""
        deadline = time.monotonic() + 30
        asking = None
        try:
            while f"{serial}\t{state}" not in self.call("devices"):
                if asking is None or asking.poll() is not None:  # it waits for seconds where a device does not answer
                    asking = subprocess.Popen([self.adb, "connect", serial], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                assert time.monotonic() < deadline, self.call("devices")
                time.sleep(0.05)
        finally:
            if asking is not None:
                asking.kill()
                asking.wait()

    def unplug(self) -> None:
        """Kill it with all that runs on it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def set(self, mode: str) -> None:
        """Say how the benchmark is to behave."""
        (self.root / "data/test/mode").write_text(mode)

    def calls(self) -> list[str]:
        """Return the options of each run of the benchmark."""
        return (self.root / "data/test/calls").read_text().splitlines()

    @property
    def folder(self) -> Path:
        """Ours on the device."""
        return self.root / "data/local/tmp/melanoma-edge"

    def write_program(self, name: str, text: str) -> None:
        (self.root / "system/bin" / name).write_text(text)
        (self.root / "system/bin" / name).chmod(0o755)


def fetch() -> Path:
    """Return the folder with Debian's adb, adbd, mksh and toybox and their libraries, fetched by the first worker that needs it; skips where that fails."""
    if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux on x86-64, for which the device's programs are")
    if os.geteuid() != 0 or any(shutil.which(tool) is None for tool in ("unshare", "nsenter", "setpriv")):
        pytest.skip("needs root, unshare, nsenter and setpriv (Debian: util-linux), to keep adbd in a network of its own")
    if subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody make a network namespace, and adbd is started in no other")
    base = own_environments.folder()
    base.mkdir(parents=True, exist_ok=True)
    target = base / "adbd-tests"
    with open(base / ".adbd-tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / MARK).exists():
            try:
                debian.require()
                with tempfile.TemporaryDirectory() as scratch, new_folder(target, force=True) as folder:
                    groups = [debian.Wanted(suite, "amd64", names, folder) for suite, names in (("bookworm-backports", BACKPORTS), ("bookworm", RELEASE))]
                    debian.unpack(groups, debian.mirror(), Path(scratch), lambda _: None)
                    (folder / MARK).touch()
            except Missing as error:
                pytest.skip(f"adb and adbd cannot be had: {error}")
    return target


@contextlib.contextmanager
def network(system: Path, folder: Path) -> Iterator[tuple[int, Path]]:
    """Start adb's server in a network without a way out; yield the process and a program that is adb for that server."""
    libraries = ":".join(str(system / part) for part in (f"usr/lib/{TRIPLET}/android", f"usr/lib/{TRIPLET}", f"lib/{TRIPLET}"))
    adb, socket = folder / "adb", folder / "server"
    start = f"env HOME={folder} ADB_SERVER_SOCKET=localfilesystem:{socket} {system}/lib/{TRIPLET}/ld-linux-x86-64.so.2 --library-path {libraries} {system}/{TOOLS}/adb"
    adb.write_text(f'#!/bin/sh\nexec {start} "$@"\n')
    adb.chmod(0o755)
    server = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", LOOPBACK, str(adb), "nodaemon", "server"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while not socket.exists():
            assert server.poll() is None and time.monotonic() < deadline, "adb's server does not start"
            time.sleep(0.02)
        yield server.pid, adb
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()


def furnish(system: Path, root: Path) -> None:
    """Write what is the device's own: shell, tools, and what the benchmark is told."""
    for folder in ("bin", "system/bin", "data/local/tmp", "data/test", "sys/devices/system/cpu", "sys/class/thermal/thermal_zone0", "tmp"):
        (root / folder).mkdir(parents=True)
    for source, name in (("mksh", "sh"), ("toybox", "toybox")):
        shutil.copy(system / "bin" / source, root / "bin" / name)
    loader = [str(system / "lib" / TRIPLET / "ld-linux-x86-64.so.2"), "--library-path", str(system / "lib" / TRIPLET), str(system / "bin/toybox")]
    for name in subprocess.run(loader, capture_output=True, text=True, check=True).stdout.split():
        if not (root / "bin" / name).exists():
            (root / "bin" / name).symlink_to("toybox")
    (root / "sys/devices/system/cpu/present").write_text("0-3\n")
    (root / "sys/class/thermal/thermal_zone0/type").write_text("cpu-thermal\n")
    (root / "sys/class/thermal/thermal_zone0/temp").write_text("41250\n")
    (root / "data/test/calls").touch()
