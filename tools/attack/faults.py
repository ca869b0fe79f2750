"""Minutes of HTTP and DICOM load on a real `melo serve`, while it is killed, its disk filled, its audit and its plug-ins damaged.

    sudo python tools/attack/faults.py target/debug/melo 600       # seconds; as root, for a disk of its own (tmpfs)

What is held to it: everything that was answered is in the audit, every object that was acknowledged was answered or set aside with a
reason, and every damage is told. Only the standard library; kills are drawn from a fixed seed. Exit status 1 where something was lost.
"""

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from attack import Server, form, melo, png

SECONDS = int(sys.argv[2]) if len(sys.argv) > 2 else 600
KILLS, FULL, DAMAGED_AUDITS, DAMAGED_PLUGINS = 50, 5, 5, 5
CLASS, SYNTAX = b"1.2.840.10008.5.1.4.1.1.7", b"1.2.840.10008.1.2"
DISK_MIB = 256


def element(group, number, value):
    value += (b"\0" if group == 0 or number in (0x16, 0x18, 0xD, 0xE) else b" ") * (len(value) % 2)
    return struct.pack("<HHI", group, number, len(value)) + value


def data_set(uid):
    us = lambda value: struct.pack("<H", value)
    pixels = bytes((i * 37) % 251 for i in range(24 * 20))
    parts = [element(8, 0x16, CLASS), element(8, 0x18, uid), element(8, 0x60, b"OT"), element(0x20, 0xD, b"1.2.3.1"),
             element(0x20, 0xE, b"1.2.3.2"), element(0x28, 2, us(1)), element(0x28, 4, b"MONOCHROME2"), element(0x28, 0x10, us(20)),
             element(0x28, 0x11, us(24)), element(0x28, 0x100, us(8)), element(0x28, 0x101, us(8)), element(0x28, 0x102, us(7)),
             element(0x28, 0x103, us(0)), element(0x7FE0, 0x10, pixels)]
    return b"".join(parts)


def read(peer, size):
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        if not more:
            raise OSError("the peer went away")
        data += more
    return data


def c_store(port, uid):
    """True where the object was acknowledged."""
    item = lambda kind, content: struct.pack(">BBH", kind, 0, len(content)) + content
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        user = item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3"))
        body = struct.pack(">HH", 1, 0) + b"MELO".ljust(16) + b"FAULTS".ljust(16) + bytes(32) + item(0x10, b"1.2.840.10008.3.1.1.1")
        body += item(0x20, b"\1\0\0\0" + item(0x30, CLASS) + item(0x40, SYNTAX)) + user
        peer.sendall(struct.pack(">BBI", 1, 0, len(body)) + body)
        kind, _, length = struct.unpack(">BBI", read(peer, 6))
        read(peer, length)
        if kind != 2:
            return False
        us = lambda value: struct.pack("<H", value)
        command = element(0, 2, CLASS) + element(0, 0x100, us(1)) + element(0, 0x110, us(1)) + element(0, 0x700, us(0))
        command += element(0, 0x800, us(0)) + element(0, 0x1000, uid)
        command = element(0, 0, struct.pack("<I", len(command))) + command
        for flags, content in ((3, command), (2, data_set(uid))):
            value = struct.pack(">IBB", len(content) + 2, 1, flags) + content
            peer.sendall(struct.pack(">BBI", 4, 0, len(value)) + value)
        _, _, length = struct.unpack(">BBI", read(peer, 6))
        answer = read(peer, length)[6:]
        peer.sendall(struct.pack(">BBII", 5, 0, 4, 0))
        at = answer.find(struct.pack("<HHI", 0, 0x900, 2))
        return at >= 0 and struct.unpack("<H", answer[at + 8 : at + 10])[0] == 0


class Run:
    def __init__(self, folder):
        self.folder, self.state = folder, folder / "disk/state"
        (folder / "disk").mkdir()
        if os.geteuid() == 0:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder / "disk"], check=True)
        melo("plugin", "keygen", folder / "audit.key")
        self.server, self.over, self.answered, self.stored, self.told = None, threading.Event(), [], [], []
        self.lock, self.refused, self.next = threading.Lock(), 0, 0

    def start(self):
        config = '[dicom]\nlisten = "127.0.0.1:0"\ntasks = ["all"]\nreserve-mib = 16\n'
        arguments = ["--audit-key", self.folder / "audit.key", "--audit-checkpoint", self.folder / "checkpoint"]
        self.server = Server(self.folder, *arguments, "--audit-checkpoint-s", "1", config=config, state=self.state)
        return self.server.port is not None

    def number(self):
        with self.lock:
            self.next += 1
            return self.next

    def ask(self):
        body, headers = form(png(), tasks="all")
        while not self.over.is_set():
            name = f"fault-{self.number()}"
            try:
                if self.server.ask("POST", "/v1/predict", body, {**headers, "x-request-id": name})[0] == 200:
                    self.answered.append(name)
                else:
                    self.refused += 1
                    time.sleep(0.1)
            except (OSError, TypeError, ValueError, AttributeError):
                time.sleep(0.05)
            except Exception:  # http.client's own, where the server went away in the middle
                time.sleep(0.05)

    def store(self):
        while not self.over.is_set():
            uid = f"1.2.826.0.1.3680043.10.9.{self.number()}".encode()
            try:
                if c_store(self.server.dicom, uid):
                    self.stored.append(uid.decode())
                else:
                    time.sleep(0.1)
            except (OSError, TypeError, struct.error):
                time.sleep(0.05)
            time.sleep(0.05)

    def log(self):
        return (self.folder / "log").read_text(errors="replace")

    def kill(self):
        self.server.child.send_signal(signal.SIGKILL)
        self.server.child.wait()

    def expect(self, what, seen):
        self.told.append((what, bool(seen)))

    def damage_audit(self, evidence):
        """One letter of one record, with the server away; a person puts the file aside and begins anew."""
        audit = self.state / "audit.sqlite"
        melo("audit", "verify", audit)  # puts the journal into the file
        with sqlite3.connect(audit) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        data = bytearray(audit.read_bytes())
        at = data.rfind(b"fault-")
        if at < 0:
            return
        data[at] ^= 1
        audit.write_bytes(data)
        status, said = melo("audit", "verify", audit)
        self.expect("a damaged audit", status == 1 and "changed" in said)
        started = self.start()
        self.expect("no start behind it", not started or self.damaged_far_from_the_end())
        if started:
            self.kill()
        place = evidence / str(len(list(evidence.iterdir())))
        place.mkdir()
        for end in ("", "-wal", "-shm"):
            if Path(f"{audit}{end}").exists():
                shutil.move(f"{audit}{end}", place)
        (self.folder / "checkpoint").unlink(missing_ok=True)

    def damaged_far_from_the_end(self):
        """At a start the last 1,000 rows are looked at."""
        with sqlite3.connect(self.state / "audit.sqlite") as connection:
            rows = connection.execute("SELECT n FROM records WHERE request_id NOT LIKE 'fault-%' AND request_id LIKE '_ault-%'").fetchall()
            last = connection.execute("SELECT max(n) FROM records").fetchone()[0]
        return bool(rows) and last - rows[0][0] > 1000

    def damage_plugin(self):
        path = random.choice(sorted((self.state / "plugins").glob("*.safetensors")))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x10
        path.write_bytes(data)
        before = self.log().count("was damaged and is whole again")
        self.start()
        healed = self.log().count("was damaged and is whole again") > before
        problems = json.loads(self.server.ask("GET", "/v1/tasks")[1])["problems"] if self.server.port else {}
        self.expect("a damaged plug-in", healed or problems)

    def fill_disk(self):
        if os.geteuid() != 0:
            return
        with open(self.folder / "disk/filler", "wb") as filler:
            try:
                while True:
                    filler.write(bytes(1 << 20))
            except OSError:
                pass
        time.sleep(3)
        try:
            self.expect("a full disk", self.server.ask("GET", "/v2/health/ready")[0] == 503)
        except OSError:
            self.expect("a full disk", False)
        (self.folder / "disk/filler").unlink()


def main():
    random.seed(1)
    folder = Path(tempfile.mkdtemp(prefix="melo-faults-"))
    run, evidence = Run(folder), folder / "evidence"
    evidence.mkdir()
    run.start()
    threads = [threading.Thread(target=work, daemon=True) for work in (run.ask, run.ask, run.store)]
    [thread.start() for thread in threads]
    faults = ["kill"] * (KILLS - DAMAGED_AUDITS - DAMAGED_PLUGINS) + ["audit"] * DAMAGED_AUDITS + ["plugin"] * DAMAGED_PLUGINS + ["full"] * FULL
    random.shuffle(faults)
    begun, each = time.monotonic(), SECONDS / len(faults)
    for index, fault in enumerate(faults):
        time.sleep(max(0.0, begun + index * each + random.uniform(0.2, 0.8) * each - time.monotonic()))
        if fault == "full":
            run.fill_disk()
            continue
        run.kill()
        if fault == "audit":
            run.damage_audit(evidence)
        if fault == "plugin":
            run.damage_plugin()
        elif not run.start():
            run.expect(f"a start after {fault}", False)
    time.sleep(2)
    run.over.set()
    [thread.join(60) for thread in threads]
    until = time.monotonic() + 300
    while time.monotonic() < until and list((run.state / "spool/incoming").glob("*.dcm")):
        time.sleep(0.5)
    run.server.stop()
    status, said = melo("audit", "verify", run.state / "audit.sqlite")
    run.expect("the last chain is whole", status == 0)
    requests, objects = set(), set()
    for audit in [run.state / "audit.sqlite", *evidence.glob("*/audit.sqlite")]:
        with sqlite3.connect(audit) as connection:
            for request, uid in connection.execute("SELECT request_id, sop_instance_uid FROM records WHERE action = 'answer'"):
                requests.add("f" + request[1:] if request[1:].startswith("ault-") else request)
                objects.add(uid)
    aside = "".join(path.read_text() for path in (run.state / "spool/refused").glob("*.json"))
    unrecorded = [name for name in run.answered if name not in requests]
    lost = [uid for uid in run.stored if uid not in objects and uid not in aside]
    untold = [what for what, seen in run.told if not seen]
    if os.geteuid() == 0:
        subprocess.run(["umount", "--lazy", folder / "disk"], check=False)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{SECONDS} s, {faults.count('kill') + DAMAGED_AUDITS + DAMAGED_PLUGINS} kills, {FULL} full disks, {DAMAGED_AUDITS} damaged audits, "
          f"{DAMAGED_PLUGINS} damaged plug-ins: {len(run.answered)} answers, {len(unrecorded)} not in the audit; {len(run.stored)} objects "
          f"acknowledged, {len(lost)} lost; {run.refused} requests refused; {len(run.told) - len(untold)} of {len(run.told)} damages told")
    [print(f"untold: {what}") for what in untold]
    [print(f"lost: {name}") for name in (unrecorded + lost)[:10]]
    sys.exit(bool(unrecorded or lost or untold))


if __name__ == "__main__":
    main()
