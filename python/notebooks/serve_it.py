# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Serve it
#
# A plug-in is trained, `melo serve` is started with it, asked over HTTP, and stopped. Everything stays on this machine.

# %%
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import numpy as np
from PIL import Image

import melo_vit as melo

places = [Path.cwd(), *Path.cwd().parents]
here = [place / "assets" for place in places if (place / "assets/vit_small_formula.safetensors").is_file()]
assets = Path(os.environ.get("MELO_ASSETS", here[0] if here else "assets"))
work = Path(tempfile.mkdtemp(prefix="melo-served-"))

# %% [markdown]
# ## A plug-in
#
# **Yours:** weights, and `melo.train(backbone, "labels.csv")`, or plug-ins that you have, copied to `tasks`.

# %%
weights = assets / "vit_small_formula.safetensors"
backbone = melo.Backbone.load(weights)
rng = np.random.default_rng(0)
images = rng.integers(40, 90, (48, 64, 64, 3), dtype=np.uint8)
for image in images[1::2]:
    y, x = rng.integers(8, 40, 2)
    image[y : y + 16, x : x + 16] = 220
plugin = melo.train(backbone, images, ["clear", "spot"] * 24, task="spots", epochs=4)
tasks = work / "tasks"
tasks.mkdir()
plugin.save(tasks / "spots.safetensors")

# %% [markdown]
# ## The server
#
# A free port of this machine alone. The folder `tasks` is watched: what is copied there later is served too, after its self-test.

# %%
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
url = f"http://127.0.0.1:{port}"
log = open(work / "log", "w")
command = [sys.executable, "-m", "melo_vit", "serve", "--listen", f"127.0.0.1:{port}"]
command += ["--backbone", str(weights), "--plugins", str(tasks), "--state", str(work / "state")]
server = subprocess.Popen(command, stdout=log, stderr=log)


def ready() -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v1/tasks", timeout=5) as answer:
            return any(task["name"] == "spots" for task in json.load(answer)["tasks"])
    except (urllib.error.URLError, ConnectionError):
        return False


until = time.monotonic() + 60
while not ready():
    if server.poll() is not None or time.monotonic() > until:
        server.kill()
        raise RuntimeError((work / "log").read_text())
    time.sleep(0.2)
print("the page for people is", url)

# %% [markdown]
# ## A question
#
# What `curl -F image=@film.png -F tasks=spots` sends. **Yours:** any image or DICOM file; several fields `image` are one request.

# %%
try:
    Image.fromarray(images[1]).save(work / "film.png")
    mark = uuid.uuid4().hex
    part = f'--{mark}\r\nContent-Disposition: form-data; name="{{}}"\r\n\r\n'
    body = b"".join([
        part.format('image"; filename="film.png').encode() + (work / "film.png").read_bytes() + b"\r\n",
        part.format("tasks").encode() + b"spots\r\n",
        f"--{mark}--\r\n".encode(),
    ])
    request = urllib.request.Request(f"{url}/v1/predict", body, {"Content-Type": f"multipart/form-data; boundary={mark}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        said = json.load(answer)["images"][0]["answers"][0]
except BaseException:
    server.kill()
    raise
print(json.dumps({name: said[name] for name in ("task", "predicted", "probabilities")}, indent=2))

# %% [markdown]
# The server says what Python says: one engine, one file.

# %%
ours = melo.Predictor(backbone, plugin).predict(work / "film.png")[0][0]
assert said["predicted"] == ours.predicted
assert np.allclose(list(said["probabilities"].values()), ours.probabilities, atol=1e-6)

# %% [markdown]
# ## The end
#
# It finishes what it has taken, and stops. What it accepted stays in `state` for the next start.

# %%
server.terminate()
print("ended with status", server.wait(timeout=30))
log.close()
