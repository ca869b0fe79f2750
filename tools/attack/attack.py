"""Attacks on a real `melo serve` on loopback, each bounded: what was tried, what was expected, what was seen.

    python tools/attack/attack.py target/debug/melo          # all; or names behind it

Only the standard library. Every server has a folder of its own under the system's temporary folder. Exit status 1 where something
was not as expected. The table is that of docs/security.md.
"""

import hashlib
import http.client
import json
import re
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
import zlib
from pathlib import Path

MELO = [Path(sys.argv[1]).resolve()] if len(sys.argv) > 1 else sys.exit(__doc__)
DRAIN_S = 5
ROWS = []


def png(width=64, height=64):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + bytes((x * 7 + y * 13) % 251 for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def form(image, **fields):
    line = "attack-boundary"
    parts = [f'--{line}\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n'.encode() + image]
    parts += [f'--{line}\r\ncontent-disposition: form-data; name="{k}"\r\n\r\n{v}'.encode() for k, v in fields.items()]
    return b"\r\n".join(parts) + f"\r\n--{line}--\r\n".encode(), {"content-type": f"multipart/form-data; boundary={line}"}


class Server:
    def __init__(self, folder, *arguments, config="", state=None):
        (folder / "serve.toml").write_text(config)
        command = [*MELO, "serve", "--config", folder / "serve.toml", "--listen", "127.0.0.1:0", "--state", state or folder / "state"]
        command += ["--drain-s", str(DRAIN_S), "--log", "json", *arguments]
        self.log = folder / "log"
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log.open("ab"), text=True)
        line = self.child.stdout.readline()
        self.port = int(line.rsplit(":", 1)[1]) if "listening on" in line else None
        # The log of a folder goes on over starts.
        said = re.findall(r"DICOM: listening on [^:]+:(\d+)", self.log.read_text(errors="replace"))
        self.dicom = int(said[-1]) if said else None

    def ask(self, method, path, body=None, headers=(), timeout=60, source=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout, source_address=source)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def predict(self, image, **fields):
        body, headers = form(image, tasks="all", **fields)
        return self.ask("POST", "/v1/predict", body, headers)

    def mib(self):
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.child.pid}/status").read_text())[1]) // 1024

    def stop(self, by=signal.SIGTERM):
        started = time.monotonic()
        self.child.send_signal(by)
        try:
            self.child.wait(DRAIN_S + 30)
        except subprocess.TimeoutExpired:
            self.child.kill()
        return time.monotonic() - started


class Caller(threading.Thread):
    """A normal caller: one request a second."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.took, self.failed, self.over = server, [], 0, threading.Event()

    def run(self):
        while not self.over.wait(max(0.0, 1.0 - (self.took[-1] if self.took else 0.0))):
            started = time.monotonic()
            try:
                self.failed += self.server.predict(png())[0] != 200
            except OSError:
                self.failed += 1
            self.took.append(time.monotonic() - started)

    def end(self):
        self.over.set()
        self.join(60)
        return sorted(self.took)[max(0, int(len(self.took) * 0.99) - 1)] if self.took else float("inf")


def row(name, tried, expected, seen, good):
    ROWS.append(good)
    print(f"| {name} | {tried} | {expected} | {'' if good else '**NOT AS EXPECTED** '}{seen} |", flush=True)


def plugins(folder):
    """The plug-ins and the backbone that come with the program."""
    server = Server(folder)
    server.stop()
    return folder / "state/backbone.safetensors", sorted((folder / "state/plugins").glob("*.safetensors"))


def with_card(source, target, change):
    data = source.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    key = next(key for key, text in header["__metadata__"].items() if text.startswith("{"))
    card = json.loads(header["__metadata__"][key])
    change(card)
    header["__metadata__"][key] = json.dumps(card)
    text = json.dumps(header).encode()
    target.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def large_plugins(folder):
    backbone, known = plugins(folder)
    served = folder / "plugins"
    served.mkdir()
    shutil.copy(known[0], served / "good.safetensors")
    for size in (4096, 2048):
        def ask_for(card, size=size):
            card["task"], card["preprocess"]["size"] = f"size{size}", size

        with_card(known[1], served / f"size{size}.safetensors", ask_for)
    shutil.rmtree(folder / "state/plugins")
    (folder / "state/registry.json").unlink()
    server = Server(folder, "--backbone", backbone, "--plugins", served)
    tasks = json.loads(server.ask("GET", "/v1/tasks")[1])
    status, _ = server.predict(png())
    named = all(f"image size {size}" in str(tasks["problems"]) for size in (4096, 2048))
    good = status == 200 and named and len(tasks["tasks"]) == 1 and server.mib() < 500
    row("large plug-ins", "cards of 4096 and 2048 px in the watched folder", "refused by name, the other served",
        f"{len(tasks['tasks'])} task answers {status}, problems name both: {named}, {server.mib()} MiB", good)
    digest = next((folder / "state/plugins").glob("*.safetensors")).stem
    server.stop(signal.SIGKILL)
    (folder / f"state/plugins/{digest}.tries").write_text("..")
    server = Server(folder, "--backbone", backbone, "--plugins", served)
    problems = json.loads(server.ask("GET", "/v1/tasks")[1])["problems"]
    row("a plug-in that ended the server", "the note of two self-tests without an end", "the server starts and names it",
        f"named: {'ended 2 times' in str(problems)}", "ended 2 times" in str(problems))
    server.stop()


def associate():
    def item(kind, content):
        return struct.pack(">BBH", kind, 0, len(content)) + content

    syntax = item(0x30, b"1.2.840.10008.1.1") + item(0x40, b"1.2.840.10008.1.2")
    user = item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3"))
    body = struct.pack(">HH", 1, 0) + b"MELO".ljust(16) + b"ATTACK".ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, b"\1\0\0\0" + syntax) + user
    return struct.pack(">BBI", 1, 0, len(body)) + body


DICOM = '[dicom]\nlisten = "127.0.0.1:0"\ntasks = ["all"]\n'


def silent_sockets(folder):
    server = Server(folder, config=DICOM)
    silent = [socket.create_connection(("127.0.0.1", server.dicom)) for _ in range(80)]
    started, taken = time.monotonic(), 0
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.dicom), timeout=10) as peer:
            peer.sendall(associate())
            taken += peer.recv(1) == b"\2"
    took = time.monotonic() - started
    row("silent sockets", "80 connections to the DICOM port that say nothing", "associations go on, each within 2 s",
        f"{taken} of 5 in {took:.1f} s", taken == 5 and took < 10)
    [peer.close() for peer in silent]
    server.stop()


def open_port(folder):
    server = Server(folder, config=DICOM.replace("127.0.0.1:0", "0.0.0.0:0"))
    said = "no peer of the DICOM network is named" in server.log.read_text()
    started = server.port is not None
    server.stop()
    row("an open DICOM port", "listen on 0.0.0.0 without peers", "no start, and why", f"started: {started}, said: {said}",
        said and not started)


def full_disk(folder):
    server = Server(folder, config=DICOM + "reserve-mib = 999999999\n")
    ready, body = server.ask("GET", "/v2/health/ready")
    line = "b"
    part = f"--{line}\r\ncontent-type: application/dicom\r\n\r\n".encode() + bytes(400) + f"\r\n--{line}--\r\n".encode()
    kind = {"content-type": f'multipart/related; type="application/dicom"; boundary={line}'}
    stored, _ = server.ask("POST", "/dicomweb/studies", part, kind)
    answered, _ = server.predict(png())
    row("a disk down to its reserve", "an object by STOW-RS", "503; ready says so; answers go on",
        f"stored {stored}, ready {ready}, answered {answered}", (stored, ready, answered) == (503, 503, 200))
    server.stop()


def jpeg_2000(folder):
    side = 13_800
    size = struct.pack(">HHIIIIIIIIH", 41, 0, side, side, 0, 0, side, side, 0, 0, 1) + b"\7\1\1"
    bomb = b"\xff\x4f\xff\x51" + size + bytes(94_000)
    server = Server(folder)
    caller = Caller(server)
    caller.start()
    started = time.monotonic()
    codes = {server.predict(bomb)[0] for _ in range(8)}
    took = time.monotonic() - started
    time.sleep(3)
    p99 = caller.end()
    row("JPEG 2000 that claims 190 million pixels", "8 files of 94 KB", "422 at once; under 500 MiB; others under 2 s",
        f"{codes} in {took:.1f} s, {server.mib()} MiB, p99 {p99:.2f} s", codes == {422} and server.mib() < 500 and p99 < 2)
    server.stop()


def other_sites(folder):
    server = Server(folder)
    here = f"127.0.0.1:{server.port}"
    body, kind = form(png(), tasks="all")
    seen = [
        server.ask("GET", "/v1/tasks", headers={"host": f"evil.example:{server.port}"})[0],
        server.ask("POST", "/v1/predict", body, {**kind, "host": here, "origin": "http://evil.example"})[0],
        server.ask("POST", "/v1/predict", body, {**kind, "host": here, "origin": "null"})[0],
        server.ask("POST", "/v1/predict", body, {**kind, "host": here, "origin": f"http://{here}"})[0],
    ]
    row("pages of other sites", "another Host; another Origin; a null one; our own", "403, 403, 403, 200", str(seen),
        seen == [403, 403, 403, 200])
    server.stop()


def places(folder):
    server = Server(folder, "--max-connections", "64")
    held = []
    for _ in range(100):
        held.append(socket.create_connection(("127.0.0.1", server.port)))
        held[-1].sendall(b"GET / HTTP/1.1\r\n")
    time.sleep(0.5)
    codes = [server.ask("GET", "/v2/health/ready", source=("127.0.0.2", 0))[0] for _ in range(20)]
    row("all places from one address", "100 connections of one address, 64 places", "20 of 20 health probes of another",
        f"{codes.count(200)} of 20", codes.count(200) == 20)
    [peer.close() for peer in held]
    server.stop()


def heat_maps(folder):
    server = Server(folder)
    caller = Caller(server)
    caller.start()
    body, kind = form(png(512, 512), tasks="all", heatmap="true")
    head = f"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind['content-type']}\r\n"
    for _ in range(24):
        peer = socket.create_connection(("127.0.0.1", server.port))
        peer.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(0.1)
        peer.close()
    time.sleep(5)
    p99, mib = caller.end(), server.mib()
    queue = json.loads(server.ask("GET", "/v1/tasks")[1])["queue_rows"]
    took = server.stop()
    row("heat maps for nobody", "24 requests that hang up, then SIGTERM", f"p99 under 2 s, end within {DRAIN_S + 2} s",
        f"p99 {p99:.2f} s, {mib} MiB, {queue} rows left, ended in {took:.1f} s", p99 < 2 and queue == 0 and took <= DRAIN_S + 2)


def melo(*arguments):
    """Exit status and what was said."""
    ended = subprocess.run([*MELO, *arguments], capture_output=True, text=True, timeout=60)
    return ended.returncode, ended.stdout + ended.stderr


def keygen(folder, name):
    melo("plugin", "keygen", folder / f"{name}.key")
    return folder / f"{name}.key", folder / f"{name}.pub"


def edited_cards(folder):
    backbone, known = plugins(folder)
    backbone = shutil.copy(backbone, folder)
    served = folder / "plugins"
    served.mkdir()

    def anew(card):
        card["self_test"] = None

    def reverse(card):
        card["classes"].reverse()

    def sharpen(card):
        card["temperature"] = 0.01

    with_card(known[0], served / "good.safetensors", anew)
    melo("plugin", "certify", served / "good.safetensors", "--backbone", backbone)
    key, public = keygen(folder, "lab")
    for name, change in (("reversed", reverse), ("sharpened", sharpen)):
        with_card(served / "good.safetensors", served / f"{name}.safetensors", change)
    # An attacker who takes the self-test anew as well.
    with_card(served / "reversed.safetensors", served / "forged.safetensors", anew)
    melo("plugin", "certify", served / "forged.safetensors", "--backbone", backbone)
    melo("plugin", "sign", served / "good.safetensors", "--key", key)
    (folder / "trusted.keys").write_text(f"{public.read_text().splitlines()[1]} the lab\n")
    shutil.rmtree(folder / "state")
    server = Server(folder, "--backbone", backbone, "--plugins", served)
    problems = json.loads(server.ask("GET", "/v1/tasks")[1])["problems"]
    server.stop()
    edited = [name for name in ("reversed", "sharpened") if "card was changed" in problems.get(f"{name}.safetensors", "")]
    shutil.rmtree(folder / "state")
    signed = ["--trusted-keys", folder / "trusted.keys", "--require-signature"]
    server = Server(folder, "--backbone", backbone, "--plugins", served, *signed)
    found = json.loads(server.ask("GET", "/v1/tasks")[1])
    server.stop()
    unsigned = [name for name in ("reversed", "sharpened", "forged") if "not signed" in found["problems"].get(f"{name}.safetensors", "")]
    row(
        "edited cards",
        "classes reversed; temperature 0.01; classes reversed and the self-test taken anew",
        "the first two refused by field unsigned; all three where signatures are required, the signed one served",
        f"unsigned {len(edited)} of 2, required {len(unsigned)} of 3, {len(found['tasks'])} served",
        len(edited) == 2 and len(unsigned) == 3 and len(found["tasks"]) == 1,
    )


def ignoring(audit):
    connection = sqlite3.connect(audit)
    connection.execute("CREATE TRIGGER quiet BEFORE INSERT ON records BEGIN SELECT RAISE(IGNORE); END")
    connection.commit()
    connection.close()


def audit_while_running(folder):
    def removed(audit):
        audit.unlink()

    def replaced(audit):
        shutil.copy(audit, audit.with_suffix(".copy"))
        audit.with_suffix(".copy").rename(audit)

    def linked(audit):
        audit.with_suffix(".link").hardlink_to(audit)

    def journal_removed(audit):
        Path(f"{audit}-wal").unlink()

    seen = []
    for attack in (removed, replaced, linked, journal_removed, ignoring):
        place = folder / attack.__name__
        place.mkdir()
        server = Server(place)
        before = server.predict(png())[0]
        attack(place / "state/audit.sqlite")
        seen.append((before, server.predict(png())[0], server.ask("GET", "/v2/health/ready")[0]))
        server.stop()
    row(
        "the audit under a running server",
        "removed; replaced by a copy; linked elsewhere; its journal removed; a trigger that ignores inserts",
        "answers 200 before, 503 after, ready 503",
        f"{sorted(set(seen))}",
        all(found == (200, 503, 503) for found in seen),
    )


def audit_behind_checkpoint(folder):
    def removed(audit):
        for end in ("", "-wal", "-shm"):
            Path(f"{audit}{end}").unlink(missing_ok=True)

    def cut(audit):
        with Chain(audit) as chain:
            chain.keep(3)

    def rewritten(audit):
        with Chain(audit) as chain:
            chain.rewrite("nobody")

    seen = []
    for attack in (removed, ignoring, cut, rewritten):
        place = folder / attack.__name__
        place.mkdir()
        key, public = keygen(place, "audit")
        checkpoint = ["--audit-key", key, "--audit-checkpoint", place / "checkpoint"]
        server = Server(place, *checkpoint)
        server.predict(png())
        server.stop()
        audit = place / "state/audit.sqlite"
        attack(audit)
        again = Server(place, *checkpoint)
        if again.port is not None:
            again.stop()
        status, said = melo("audit", "verify", audit, "--checkpoint", place / "checkpoint", "--public-key", public)
        seen.append((attack.__name__, again.port is not None, status))
    row(
        "the audit of a stopped server",
        "removed; a trigger that ignores inserts; its end cut and the counter mended; all rows written anew with right hashes",
        "no start behind the signed checkpoint; `melo audit verify --checkpoint` finds each",
        "; ".join(f"{name}: {'started' if started else 'no start'}, verify {status}" for name, started, status in seen),
        all(not started and status == 1 for _, started, status in seen),
    )


class Chain:
    """What someone with the file and docs/audit.md can do to it."""

    def __init__(self, audit):
        self.connection = sqlite3.connect(audit)

    def __enter__(self):
        sql = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"
        self.guards = self.connection.execute(sql).fetchall()
        for name, _ in self.guards:
            self.connection.execute(f"DROP TRIGGER {name}")
        return self

    def __exit__(self, *_):
        for _, guard in self.guards:
            self.connection.execute(guard)
        self.connection.commit()
        self.connection.close()

    def keep(self, rows):
        self.connection.execute("DELETE FROM records WHERE n > ?", (rows,))
        self.connection.execute("UPDATE sqlite_sequence SET seq = ?", (rows,))

    def rewrite(self, who):
        before = "0" * 64
        for row in self.connection.execute("SELECT * FROM records ORDER BY n").fetchall():
            row = [*row[:4], who, *row[5:-2], before]
            digest = hashlib.sha256(b"melo-audit-1")
            for value in row:
                if value is None:
                    digest.update(b"n")
                elif isinstance(value, int):
                    digest.update(b"i" + value.to_bytes(8, "big", signed=True))
                else:
                    digest.update(b"t" + len(value.encode()).to_bytes(8, "big") + value.encode())
            update = "UPDATE records SET who = ?, prev_hash = ?, hash = ? WHERE n = ?"
            self.connection.execute(update, (who, before, digest.hexdigest(), row[0]))
            before = digest.hexdigest()


ATTACKS = [large_plugins, edited_cards, audit_while_running, audit_behind_checkpoint, silent_sockets, open_port, full_disk, jpeg_2000, other_sites, places, heat_maps]


def main():
    wanted = sys.argv[2:]
    print("| attack | tried | expected | seen |\n|---|---|---|---|")
    for attack in ATTACKS:
        if not wanted or attack.__name__ in wanted:
            with tempfile.TemporaryDirectory(prefix="melo-attack-") as folder:
                attack(Path(folder))
    sys.exit(not all(ROWS))


if __name__ == "__main__":
    main()
