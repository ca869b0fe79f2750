"""What TensorBoard and MLflow read of trainings that melo logged: see check.sh."""

import csv
import hashlib
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import warnings
import zlib

warnings.filterwarnings("ignore")
os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
for name in [name for name in os.environ if name.startswith("MLFLOW_TRACKING")]:
    del os.environ[name]

import mlflow
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

melo, place, repository = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
backbone = repository / "assets/vit_small_formula.safetensors"
# Of the backbone's input, pixels.
SIDE = 96
failed = False


def claim(name, holds, detail=""):
    global failed
    failed |= not holds
    print(f"log: {'PASS' if holds else 'FAIL'}  {name}{': ' if detail else ''}{detail}", flush=True)


def run(*arguments, status=0, wait=True):
    process = subprocess.Popen(
        [melo, "--threads", "1", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if not wait:
        return process
    out, err = process.communicate()
    if status is not None and process.returncode != status:
        sys.exit(f"melo {' '.join(map(str, arguments))} ended with {process.returncode}\n{err}")
    return out + err


def images():
    """Dark and light squares on noise, 48 of them."""
    rng = np.random.default_rng(0)
    folder = place / "squares"
    folder.mkdir()
    lines = ["path,split,label,patient_id"]
    for number in range(48):
        label = number % 2
        levels = rng.integers(60, 120, (64, 64), dtype=np.uint8)
        y, x = rng.integers(0, 44, 2)
        levels[y : y + 20, x : x + 20] = np.clip(levels[y : y + 20, x : x + 20].astype(int) + (70 if label else -40), 0, 255)
        write_png(folder / f"{number}.png", levels)
        split = "train" if number < 28 else "val" if number < 38 else "test"
        lines.append(f"{number}.png,{split},{['dark', 'light'][label]},p{number}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


def write_png(path, levels):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = levels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = open(place / "mlflow.log", "w")
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{place}/mlflow.db", "--artifacts-destination", f"{place}/artifacts"],
        stdout=log, stderr=log, cwd=place, start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{address}/health", timeout=2).read()
            return process, address
        except OSError:
            time.sleep(0.2)
    sys.exit("MLflow does not start:\n" + (place / "mlflow.log").read_text()[-2000:])


def stop(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def events(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def epochs(run_folder):
    return list(csv.DictReader(open(run_folder / "epochs.csv")))


def check_events(folder, run_folder, steps):
    read = events(folder)
    tags = read.Tags()
    rows = epochs(run_folder)
    scalars = {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in tags["scalars"]}
    for tag in ["train_loss", "val_loss", "val_auc_macro", "val_acc", "learning_rate"]:
        expected = [(int(row["epoch"]) * steps, np.float32(row[tag])) for row in rows]
        claim(f"TensorBoard reads {tag} of every epoch as epochs.csv has it", scalars.get(tag) == expected, f"{len(rows)} epochs")
    claim("TensorBoard reads the test figures", "test_auc_macro" in scalars)
    picture = read.Images("train/batch")
    found = [(one.step, one.width, one.height) for one in picture]
    claim("TensorBoard reads augmented batches", found == [(1, 4 * SIDE, SIDE), (steps + 1, 4 * SIDE, SIDE)], str(found))
    curves = read.Tensors("val/light")
    claim("TensorBoard reads a curve an epoch", len(curves) == len(rows))
    curve = tensor_util.make_ndarray(curves[-1].tensor_proto)
    counts = [curve[row][0] for row in (0, 1)]
    claim("its curve counts the validation split", counts == [5, 5] and curve.shape == (6, 201), f"{counts} at threshold 0")
    card = tensor_util.make_ndarray(read.Tensors("card")[0].tensor_proto)[0].decode()
    claim("TensorBoard reads the card", "squares" in card and "AUC" in card)
    plugins = {tag: read.SummaryMetadata(tag).plugin_data.plugin_name for tag in ("val/light", "card")}
    claim("each part of TensorBoard finds its own", plugins == {"val/light": "pr_curves", "card": "text"}, str(plugins))


def main():
    data = images()
    process, address = server()
    client = mlflow.MlflowClient(address)

    out = place / "squares.safetensors"
    said = run("train", "--backbone", backbone, "--data", data, "--out", out, "--epochs", 2, "--batch-size", 4,
               "--log", f"tensorboard:{place}/logs", "--log", f"mlflow:{address}")
    claim("a training with both logs has no warning", "warning" not in said, said if "warning" in said else "")
    check_events(place / "logs/squares", place / "squares.run", 7)

    plain = place / "plain.safetensors"
    run("train", "--backbone", backbone, "--data", data, "--out", plain, "--epochs", 2, "--batch-size", 4)
    claim("the plug-in is that of a training without logs", plain.read_bytes() == out.read_bytes())

    experiment = client.get_experiment_by_name("squares")
    runs = client.search_runs([experiment.experiment_id])
    claim("MLflow has one run", len(runs) == 1 and runs[0].info.status == "FINISHED", runs[0].info.run_name)
    (found,) = runs
    tags = {tag: found.data.tags.get(tag) for tag in ("task", "method", "seed")}
    claim("MLflow has task, method and seed as tags", tags == {"task": "squares", "method": "lora", "seed": "0"}, str(tags))
    claim("MLflow has the settings", found.data.params.get("lora.rank") == "4" and found.data.params.get("batch_size") == "4",
          f"{len(found.data.params)} parameters")
    history = [(metric.step, metric.value) for metric in client.get_metric_history(found.info.run_id, "val_loss")]
    expected = [(int(row["epoch"]) * 7, float(row["val_loss"])) for row in epochs(place / "squares.run")]
    claim("MLflow has val_loss of every epoch as epochs.csv has it", history == expected, f"{history}")
    claim("MLflow has the test figures", "test_auc_macro" in found.data.metrics)
    mlflow.set_tracking_uri(address)
    fetched = pathlib.Path(mlflow.artifacts.download_artifacts(run_id=found.info.run_id, dst_path=str(place / "fetched")))
    names = sorted(path.name for path in fetched.iterdir())
    claim("MLflow has plug-in and card as artifacts", names == ["card.html", "squares.safetensors"], str(names))
    same = (fetched / "squares.safetensors").read_bytes() == out.read_bytes()
    claim("the artifact is the plug-in, byte for byte", same, hashlib.sha256(out.read_bytes()).hexdigest()[:16])

    check_resume(client, data, address)
    check_lost(data, process, out)
    process, address = server()
    check_study(data, address)
    stop(process)
    sys.exit(1 if failed else 0)


def check_resume(client, data, address):
    out = place / "again.safetensors"
    flags = ["train", "--backbone", backbone, "--data", data, "--out", out, "--batch-size", 4, "--resume", "--patience", 0,
             "--log", "tensorboard", "--log", f"mlflow:{address}"]
    process = run(*flags, "--epochs", 12, wait=False)
    table = place / "again.run/epochs.csv"
    while process.poll() is None and not (table.exists() and len(epochs(place / "again.run")) >= 1):
        time.sleep(0.05)
    # What was said a moment ago may be on its way.
    time.sleep(1.5)
    process.kill()
    process.wait()
    run(*flags, "--epochs", 12)
    experiment = client.get_experiment_by_name("squares").experiment_id
    runs = [found for found in client.search_runs([experiment]) if found.info.run_name == "again"]
    claim("a training that was killed goes on in its run", len(runs) == 1 and runs[0].info.status == "FINISHED", f"{len(runs)} run")
    read = events(place / "again.run/tensorboard")
    steps = [event.step for event in read.Scalars("val_loss")]
    files = len(list((place / "again.run/tensorboard").iterdir()))
    claim("and in its folder of event files", steps == [7 * epoch for epoch in range(1, 13)] and files == 2, f"steps {steps} of {files} files")


def check_lost(data, server_process, out):
    lost = place / "lost.safetensors"
    address = "http://127.0.0.1:9"
    said = run("train", "--backbone", backbone, "--data", data, "--out", lost, "--epochs", 2, "--batch-size", 4, "--log", f"mlflow:{address}")
    claim("a server that is away is said and costs nothing", said.count("the training goes on") == 1 and lost.read_bytes() == out.read_bytes())
    stop(server_process)


def check_study(data, address):
    file = place / "study.toml"
    file.write_text(
        f'[study]\nname = "squares"\nseeds = [0, 1]\nmethods = ["lora", "linear"]\nreference = "linear"\nbootstrap = 100\n'
        f'[train]\nepochs = 2\nbatch_size = 4\n[[backbone]]\nname = "small"\nweights = "{backbone}"\n'
        f'[[task]]\nname = "squares"\nlabels = "{data}"\n'
    )
    run("study", file, "--out", place / "study", "--log", "tensorboard", "--log", f"mlflow:{address}")
    client = mlflow.MlflowClient(address)
    runs = client.search_runs([client.get_experiment_by_name("squares").experiment_id])
    runs = [found for found in runs if "study" in found.data.tags]
    names = sorted(found.info.run_name for found in runs)
    expected = [f"squares/small/{method}/seed-{seed}" for method in ("linear", "lora") for seed in (0, 1)]
    claim("MLflow has a run a cell of a study", names == expected and {r.info.status for r in runs} == {"FINISHED"}, f"{len(runs)} runs")
    tags = sorted((r.data.tags["task"], r.data.tags["method"], r.data.tags["seed"]) for r in runs)
    claim("each tagged with task, method and seed", tags == sorted(("squares", m, s) for m in ("linear", "lora") for s in "01"))
    read = {name: events(place / "study/tensorboard" / name).Tags()["scalars"] for name in expected}
    claim("TensorBoard has a run a cell", all("val_auc_macro" in scalars for scalars in read.values()), f"{len(read)} folders")


main()
