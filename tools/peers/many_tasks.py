"""Many tasks on one box: `melo serve` beside three ways of doing it with PyTorch, in memory and images/s.

    pip install -r tools/peers/many-tasks-requirements.txt
    cargo build --release
    python tools/peers/many_tasks.py [--melo target/release/melo] [--tasks 1,4,16,64] [--batches 2] [--threads 2]

ViT-B/16 at 224 x 224 with random weights in f32, LoRA of rank 4 on q and v and a head of 3 classes a task. Images of all tasks
come interleaved, one a task in turn, 32 at a time:

    switch     one model; the adapter's weights are overwritten before each task's images (the authors' way of switching)
    peft       one model, all adapters loaded, a mixed batch with `adapter_names`, a head a task
    processes  a process a task, each with merged weights, fed the images of its task
    melo       `melo serve`: one request an image over HTTP, 32 at a time, PNG decoding included

Memory is the proportional set size of all processes of a way after its run. A way that needs more memory than there is, is not
run: what it needs is then reckoned from one process.
"""

import argparse
import http.client
import io
import json
import multiprocessing
import struct
import subprocess
import tempfile
import threading
import time
import zlib
from pathlib import Path

BATCH, SIZE, CLASSES, RANK, SEED = 32, 224, 3, 4, 1


def pss(pids):
    """Bytes that these processes hold, shared pages divided among their holders."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def available():
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024


def vit():
    import torch
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(SEED)
    return ViTModel(ViTConfig(image_size=SIZE, attn_implementation="sdpa"), add_pooling_layer=False).eval()


def targets(model):
    """The names that query and value projections have in this version of transformers."""
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    return ["q_proj", "v_proj"] if "q_proj" in names else ["query", "value"]


def lora(model, tasks):
    from peft import LoraConfig, get_peft_model

    def config():
        return LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets(model), init_lora_weights=False)

    adapted = get_peft_model(model, config(), adapter_name="task0")
    for task in range(1, tasks):
        adapted.add_adapter(f"task{task}", config())
    return adapted.eval()


def features(output):
    return output.last_hidden_state[:, 0]


def switch(tasks, batches, threads, pipe):
    import torch

    torch.set_num_threads(threads)
    with torch.inference_mode():
        model = lora(vit(), 1)
        slots = {name: value for name, value in model.named_parameters() if "lora_" in name}
        stored = [{name: torch.randn_like(value) * 0.02 for name, value in slots.items()} for _ in range(tasks)]
        heads = [torch.nn.Linear(768, CLASSES) for _ in range(tasks)]
        images = torch.randn(BATCH, 3, SIZE, SIZE)

        def batch(number):
            for task in range(tasks):
                own = [i for i in range(BATCH) if (number * BATCH + i) % tasks == task]
                if own:
                    for name, value in stored[task].items():
                        slots[name].copy_(value)
                    heads[task](features(model(pixel_values=images[own])))

        measure(batch, batches, pipe)


def peft(tasks, batches, threads, pipe):
    import torch

    torch.set_num_threads(threads)
    with torch.inference_mode():
        model = lora(vit(), tasks)
        heads = [torch.nn.Linear(768, CLASSES) for _ in range(tasks)]
        images = torch.randn(BATCH, 3, SIZE, SIZE)

        def batch(number):
            own = [(number * BATCH + i) % tasks for i in range(BATCH)]
            names = [f"task{task}" for task in own]
            found = features(model(pixel_values=images, adapter_names=names))
            for task in set(own):
                heads[task](found[[i for i in range(BATCH) if own[i] == task]])

        measure(batch, batches, pipe)


def measure(batch, batches, pipe):
    import os

    batch(0)
    started = time.perf_counter()
    for number in range(batches):
        batch(number + 1)
    pipe.send((batches * BATCH / (time.perf_counter() - started), pss([os.getpid()])))


def alone(way, *arguments):
    """Runs a way in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=way, args=(*arguments, theirs))
    process.start()
    theirs.close()
    result = ours.recv()
    process.join()
    return result


def worker(threads, pipe):
    import torch

    torch.set_num_threads(threads)
    with torch.inference_mode():
        model, head = vit(), torch.nn.Linear(768, CLASSES)
        images = torch.randn(BATCH, 3, SIZE, SIZE)
        head(features(model(pixel_values=images[:1])))
        pipe.send("ready")
        while count := pipe.recv():
            head(features(model(pixel_values=images[:count])))
            pipe.send("done")


def processes(tasks, batches, threads):
    workers = []
    for _ in range(tasks):
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=worker, args=(max(1, threads // tasks), theirs))
        process.start()
        ours.recv()
        workers.append((process, ours))
        if len(workers) == 1:
            one = pss([process.pid])
            if one * tasks > 0.9 * available():
                ours.send(0)
                process.join()
                return None, one * tasks
    started = time.perf_counter()
    for number in range(batches):
        counts = [sum((number * BATCH + i) % tasks == task for i in range(BATCH)) for task in range(tasks)]
        busy = [(pipe, count) for (_, pipe), count in zip(workers, counts) if count]
        for pipe, count in busy:
            pipe.send(count)
        for pipe, _ in busy:
            pipe.recv()
    rate = batches * BATCH / (time.perf_counter() - started)
    memory = pss([process.pid for process, _ in workers])
    for process, pipe in workers:
        pipe.send(0)
        process.join()
    return rate, memory


def png(seed):
    """A grey 224 x 224 picture that no two seeds share."""
    row = bytes((seed * 37 + x) % 256 for x in range(SIZE))
    lines = b"".join(b"\0" + row[y:] + row[:y] for y in range(SIZE))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def melo(binary, tasks, batches, threads):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        fixtures = [binary, "bench", "fixtures", folder / "fixtures", "--arch", "vit_base_patch16_224"]
        subprocess.run([*fixtures, "--plugins", str(tasks), "--classes", str(CLASSES)], check=True, stdout=subprocess.DEVNULL)
        command = [binary, "--threads", str(threads), "serve", "--listen", "127.0.0.1:0", "--log", "off"]
        command += ["--backbone", folder / "fixtures/backbone.safetensors", "--plugins", folder / "fixtures/plugins"]
        server = subprocess.Popen([*command, "--state", folder / "state"], stdout=subprocess.PIPE, text=True)
        try:
            address = server.stdout.readline().strip().removeprefix("listening on http://")
            connection = http.client.HTTPConnection(address)
            connection.request("GET", "/v1/tasks")
            names = [task["name"] for task in json.load(connection.getresponse())["tasks"]]
            assert len(names) == tasks, names

            def client(turn, numbers):
                connection = http.client.HTTPConnection(address)
                for number in numbers:
                    body = form(png(number), names[number % tasks])
                    connection.request("POST", "/v1/predict", body, {"content-type": "multipart/form-data; boundary=x"})
                    response = connection.getresponse()
                    answer = response.read()
                    assert response.status == 200, answer

            def run(batches):
                clients = [threading.Thread(target=client, args=(i, range(i, batches * BATCH, BATCH))) for i in range(BATCH)]
                for one in clients:
                    one.start()
                for one in clients:
                    one.join()

            run(1)
            started = time.perf_counter()
            run(batches)
            return batches * BATCH / (time.perf_counter() - started), pss([server.pid])
        finally:
            server.terminate()
            server.wait()


def form(image, task):
    body = io.BytesIO()
    body.write(b'--x\r\ncontent-disposition: form-data; name="tasks"\r\n\r\n' + task.encode())
    body.write(b'\r\n--x\r\ncontent-disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + image)
    body.write(b"\r\n--x--\r\n")
    return body.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--melo", default="target/release/melo", type=Path)
    parser.add_argument("--tasks", default="1,4,16,64")
    parser.add_argument("--batches", default=2, type=int)
    parser.add_argument("--threads", default=2, type=int)
    options = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    print(f"{'tasks':>5} {'way':<10} {'images/s':>9} {'memory GiB':>11}")
    for tasks in map(int, options.tasks.split(",")):
        ways = {
            "switch": lambda: alone(switch, tasks, options.batches, options.threads),
            "peft": lambda: alone(peft, tasks, options.batches, options.threads),
            "processes": lambda: processes(tasks, options.batches, options.threads),
            "melo": lambda: melo(options.melo.resolve(), tasks, options.batches, options.threads),
        }
        for name, way in ways.items():
            rate, memory = way()
            shown = "not run" if rate is None else f"{rate:.2f}"
            print(f"{tasks:>5} {name:<10} {shown:>9} {memory / 2**30:>11.2f}", flush=True)


if __name__ == "__main__":
    main()
