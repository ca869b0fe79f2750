"""Archives over a real nats-server: workers are killed, the server is restarted, and the result is that of one process that was left alone.

    tools/scale/nats.sh [IMAGES [KILLS]]         # which installs what this needs

Kills and images are drawn from a fixed seed. One line a claim; exit status 1 where one does not hold.
"""

import array
import json
import os
import random
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
from grey_png import grey_png

MELO, PLACE, IMAGES, KILLS = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
RATES = "rates" in sys.argv[5:]
WORKERS, RESTARTS, SIDE = 3, 2, 40
# Images and rounds of the rates.
RATED, PAIRS = 8000, 5
# Chunks of one image, for what a queue and its folder carry.
SMALL = 10_000
# So that there are several chunks a kill, and their workers are missed soon.
CHUNK, ACK_WAIT_S, MAX_DELIVER = max(8, min(64, IMAGES // (6 * max(KILLS, 1)))), 3, 100
REPOSITORY = Path(__file__).resolve().parents[2]
random.seed(19)
failed = []


def claim(holds, text):
    print(f"{'ok    ' if holds else 'FAILED'} {text}", flush=True)
    if not holds:
        failed.append(text)


# What is computed: a ViT of two blocks, two plug-ins, images that are none twice.


def tiny_backbone(path):
    d = 64
    shapes = [("cls_token", [1, 1, d]), ("pos_embed", [1, 5, d]), ("patch_embed.proj.weight", [d, 3, 16, 16]), ("patch_embed.proj.bias", [d]),
              ("norm.weight", [d]), ("norm.bias", [d])]
    for block in range(2):
        for layer, out, into in [("attn.qkv", 3 * d, d), ("attn.proj", d, d), ("mlp.fc1", 4 * d, d), ("mlp.fc2", d, 4 * d)]:
            shapes += [(f"blocks.{block}.{layer}.weight", [out, into]), (f"blocks.{block}.{layer}.bias", [out])]
        for norm in ["norm1", "norm2"]:
            shapes += [(f"blocks.{block}.{norm}.weight", [d]), (f"blocks.{block}.{norm}.bias", [d])]
    header, data = {}, b""
    for name, shape in shapes:
        count = fan_in = 1
        for side in shape:
            count *= side
        for side in shape[1:]:
            fan_in *= side
        is_norm = "norm" in name and name.endswith("weight")
        values = array.array("f", [1.0 if is_norm else 3 * (random.random() - 0.5) / fan_in**0.5 for _ in range(count)])
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * count]}
        data += values.tobytes()
    header = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    config = {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}
    path.with_suffix(".json").write_text(json.dumps({
        "architecture": "vit_tiny_patch16_32", "global_pool": "token", "model_args": {"num_heads": 4}, "pretrained_cfg": config}))


def png(grey):
    return grey_png([grey[y * SIDE:(y + 1) * SIDE] for y in range(SIDE)])


def dicom(grey, number):
    """PS3.10 in Explicit VR Little Endian."""

    def element(group, place, vr, value):
        value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
        length = struct.pack("<HI", 0, len(value)) if vr == b"OB" else struct.pack("<H", len(value))
        return struct.pack("<HH", group, place) + vr + length + value

    us, uid = lambda value: struct.pack("<H", value), f"1.2.826.0.1.{number}".encode()
    kind = b"1.2.840.10008.5.1.4.1.1.7"
    meta = element(2, 1, b"OB", b"\0\1") + element(2, 2, b"UI", kind) + element(2, 3, b"UI", uid)
    meta += element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1")
    meta = element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta
    data = [element(8, 0x16, b"UI", kind), element(8, 0x18, b"UI", uid), element(8, 0x60, b"CS", b"OT"), element(0x20, 0xD, b"UI", b"1.2.3"),
            element(0x28, 2, b"US", us(1)), element(0x28, 4, b"CS", b"MONOCHROME2"), element(0x28, 0x10, b"US", us(SIDE)),
            element(0x28, 0x11, b"US", us(SIDE)), element(0x28, 0x100, b"US", us(8)), element(0x28, 0x101, b"US", us(8)),
            element(0x28, 0x102, b"US", us(7)), element(0x28, 0x103, b"US", us(0)), element(0x7FE0, 0x10, b"OB", grey)]
    return bytes(128) + b"DICM" + meta + b"".join(data)


def draw(folder, count):
    folder.mkdir()
    for number in range(count):
        grey = random.randbytes(SIDE * SIDE)
        inside = folder / f"{number // 1000:03}"
        inside.mkdir(exist_ok=True)
        if number % 10 == 9:
            (inside / f"{number:06}.dcm").write_bytes(dicom(grey, number))
        else:
            (inside / f"{number:06}.png").write_bytes(png(grey))


def trained(backbone, task, classes):
    folder = PLACE / task
    folder.mkdir()
    rows = ["path,split,label"]
    for number in range(24):
        (folder / f"{number}.png").write_bytes(png(random.randbytes(SIDE * SIDE)))
        rows.append(f"{number}.png,{['train', 'train', 'val', 'test'][number // classes % 4]},class{number % classes}")
    (folder / "labels.csv").write_text("\n".join(rows))
    plugin = PLACE / f"{task}.safetensors"
    good("train", "--backbone", backbone, "--data", folder / "labels.csv", "--out", plugin, "--epochs", 1, "--task", task)
    return plugin


# Processes.


def melo(*arguments, prefix=(), **options):
    command = [*map(str, prefix), MELO, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def good(*arguments):
    process = melo(*arguments)
    out, err = process.communicate()
    if process.returncode != 0:
        sys.exit(f"melo {' '.join(map(str, arguments))}: status {process.returncode}: {err}")
    return out


class Server:
    """nats-server with JetStream on a free port of loopback; restarted, on the same one with the same store."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        command = ["nats-server", "-js", "-a", "127.0.0.1", "-p", str(self.port), "-sd", str(PLACE / "store")]
        with open(PLACE / "server.log", "a") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        sys.exit((PLACE / "server.log").read_text())

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait()


def parts(out):
    return sorted((out / "parts").glob("part-*.parquet"))


def files(out):
    names = [out / "inputs", out / "plan.json", out / "manifest.json", *parts(out)]
    return {str(path.relative_to(out)): path.read_bytes() for path in names}


def rss_kib(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def planned(out, queue, *more):
    asked = ["--backbone", BACKBONE, *(each for plugin in PLUGINS for each in ("--plugin", plugin))]
    return good("archive", "plan", FILMS, *asked, "--out", out, "--queue", queue, *more)


def worker(out, server, **options):
    return melo("--threads", 1, "archive", "work", "--out", out, "--queue", server.url, "--json", **options)


def work(out, server, prefixes):
    """A worker behind each prefix, to its end."""
    for process in [worker(out, server, prefix=prefix) for prefix in prefixes]:
        process.communicate()


def stormed(server, out):
    """Three workers, killed and started anew, while the server is restarted; gives what the kills met and the memory of a worker."""
    workers = [worker(out, server) for _ in range(WORKERS)]
    of = json.loads((out / "plan.json").read_text())
    of = -(-of["inputs"] // of["chunk"])
    kills = sorted(random.random() * 0.95 * of for _ in range(KILLS))
    restarts = [of * (place + 1) / (RESTARTS + 1) for place in range(RESTARTS)]
    met, memory, deadline, again = 0, {}, time.time() + 3600, 0
    while any(process.poll() is None for process in workers):
        done = len(parts(out))
        while kills and done >= kills[0]:
            kills.pop(0)
            place = random.randrange(WORKERS)
            time.sleep(random.random() * 0.05)
            met += workers[place].poll() is None
            workers[place].kill()
            workers[place].communicate()
            workers[place] = worker(out, server)
        if restarts and done >= restarts[0]:
            restarts.pop(0)
            server.stop(random.choice([signal.SIGTERM, signal.SIGKILL]))
            time.sleep(1)
            server.start()
        for place, process in enumerate(workers):
            # As a service manager does: one that was just started while the server was not there.
            if process.poll() == 1 and again < RESTARTS * WORKERS:
                again += 1
                assert "cannot be reached" in process.communicate()[1]
                workers[place] = worker(out, server)
            elif process.poll() is None:
                memory.setdefault(process.pid, []).append(rss_kib(process.pid))
        if time.time() > deadline:
            sys.exit("the workers do not come to an end")
        time.sleep(0.02)
    said = [process.communicate() for process in workers]
    claim(all(process.returncode == 0 for process in workers), f"{WORKERS} workers end by themselves when nothing is left")
    for process, (_, err) in zip(workers, said):
        if process.returncode != 0:
            print(err)
    return met, memory


def predicted():
    """What `melo predict` says: by image and task, probabilities as written."""
    plugins = [each for plugin in PLUGINS for each in ("--plugin", plugin)]
    lines = good("predict", "--json", "--backbone", BACKBONE, *plugins, FILMS).splitlines()
    lines = map(json.loads, lines)
    return {(line["image"], line["task"]): (list(line["probabilities"]), [f32(value) for value in line["probabilities"].values()]) for line in lines}


def f32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def rows(out):
    return [row for part in parts(out) for row in pyarrow.parquet.read_table(part).to_pylist()]


def killed_run(out):
    """`melo archive run`, killed again and again."""
    command = ["archive", "run", FILMS, "--backbone", BACKBONE, *(each for plugin in PLUGINS for each in ("--plugin", plugin)),
               "--out", out, "--chunk", CHUNK]
    of, met = -(-IMAGES // CHUNK), 0
    for kill in sorted(random.random() * 0.95 * of for _ in range(KILLS)):
        process = melo(*command)
        while process.poll() is None and len(parts(out)) < kill:
            time.sleep(0.005)
        met += process.poll() is None
        process.kill()
        process.communicate()
    good(*command)
    return met


def archives():
    reference, queued, killed = PLACE / "reference", PLACE / "queued", PLACE / "killed"
    plugins = [each for plugin in PLUGINS for each in ("--plugin", plugin)]
    good("archive", "run", FILMS, "--backbone", BACKBONE, *plugins, "--out", reference, "--chunk", CHUNK)
    server = Server()
    try:
        planned(queued, server.url, "--chunk", CHUNK, "--ack-wait", ACK_WAIT_S, "--max-deliver", MAX_DELIVER)
        started = time.time()
        met, memory = stormed(server, queued)
        seconds = time.time() - started
        claim(met == KILLS, f"{met} of {KILLS} kills met a worker that was alive; the server was restarted {RESTARTS} times; {seconds:.0f} s")
        good("archive", "collect", "--out", queued, "--queue", server.url)
        left = [path.name for path in queued.iterdir() if path.name not in {"inputs", "plan.json", "manifest.json", "parts", "lock"}]
        claim(not left, f"nothing else is left in the folder {left or ''}")
    finally:
        server.stop()
    found = rows(queued)
    keys = {(row["image"], row["task"]) for row in found}
    claim(len(found) == len(keys) == IMAGES * len(PLUGINS), f"{len(found)} rows = {IMAGES} images x {len(PLUGINS)} tasks, each once")
    claim(files(queued) == files(reference), f"all {len(parts(queued))} parts and the manifest are the bytes of `melo archive run`")
    told = predicted()
    answers = {(row["image"], row["task"]): (row["classes"], row["probabilities"]) for row in found}
    claim(answers == told, f"{len(told)} answers are those of `melo predict`, to the last bit")
    flat = [(max(part[len(part) // 4:len(part) // 2]), max(part[3 * len(part) // 4:])) for part in memory.values() if len(part) > 100]
    if flat:
        growth = max(late / early for early, late in flat)
        claim(growth < 1.1, f"memory of a worker: {max(late for _, late in flat) / 1024:.0f} MiB, {growth:.2f} of what it was before its half")
    met = killed_run(killed)
    claim(files(killed) == files(reference), f"the same of `melo archive run`, killed {KILLS} times ({met} while at work)")


def rates():
    """With the ViT-S of this repository, whose images take long enough to be measured."""
    global BACKBONE, PLUGINS, FILMS
    BACKBONE, FILMS = REPOSITORY / "assets/vit_small_formula.safetensors", PLACE / "rates"
    PLUGINS = sorted((REPOSITORY / "assets/phantoms").glob("*.safetensors"))[:1]
    draw(FILMS, RATED)
    server = Server()

    def timed(prefixes):
        """Seconds of a worker behind each prefix."""
        out = PLACE / "rated"
        planned(out, server.url, "--name", f"rates-{time.time_ns()}")
        started = time.time()
        work(out, server, prefixes)
        seconds = time.time() - started
        shutil.rmtree(out)
        return seconds

    def pinned(count):
        return timed([["taskset", "-c", core] for core in range(count)])

    def sliced(count):
        return timed([[REPOSITORY / "tools/scale/slice.sh", 50]] * count)

    def predict():
        started = time.time()
        arguments = ["predict", "--json", "--backbone", BACKBONE, "--plugin", PLUGINS[0], FILMS]
        melo("--threads", 1, *arguments, prefix=["taskset", "-c", 0]).communicate()
        return time.time() - started

    try:
        rounds = [(pinned(1), pinned(2), predict()) for _ in range(PAIRS)]
        slices = [(sliced(1), sliced(2), sliced(4)) for _ in range(3)]
    finally:
        server.stop()
    gain, cost = [one / two for one, two, _ in rounds], [one / alone - 1 for one, _, alone in rounds]
    rate = RATED / statistics.median(one for one, _, _ in rounds)
    listed = lambda values, form: ", ".join(format(value, form) for value in values)
    claim(statistics.median(gain) >= 2 * 0.95, f"two workers, a core each, against one ({rate:.1f} images/s): {listed(gain, '.3f')}")
    claim(statistics.median(cost) <= 0.03, f"what the queue costs against `melo predict`: {listed(cost, '+.1%')}")
    for place, count in [(1, 2), (2, 4)]:
        print(f"       {count} workers of half a core each, against one: {listed([times[0] / times[place] for times in slices], '.2f')}", flush=True)


def small_chunks():
    """Chunks a second of the queue and its folder, with a ViT that costs next to nothing and an image a chunk."""
    global FILMS
    FILMS = PLACE / "small"
    draw(FILMS, SMALL)
    server, out = Server(), PLACE / "small-chunks"
    try:
        seconds = []
        for step in [lambda: planned(out, server.url, "--chunk", 1), lambda: work(out, server, [[], []]),
                     lambda: good("archive", "collect", "--out", out, "--queue", server.url)]:
            started = time.time()
            step()
            seconds.append(time.time() - started)
    finally:
        server.stop()
    plan, done, collect = (SMALL / each for each in seconds)
    print(f"       {SMALL} chunks of one image: {plan:.0f} a second planned, {done:.0f} computed by two workers, {collect:.0f} collected", flush=True)


FILMS, BACKBONE = PLACE / "films", PLACE / "vit.safetensors"
tiny_backbone(BACKBONE)
PLUGINS = [trained(BACKBONE, "colour", 2), trained(BACKBONE, "shape", 3)]
draw(FILMS, IMAGES)
archives()
if RATES:
    small_chunks()
    rates()
sys.exit(bool(failed))
