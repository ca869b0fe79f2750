"""Asks `melo serve` through tritonclient, NVIDIA's client of the Open Inference Protocol, and compares with `melo predict`.

    pip install -r tools/peers/kserve-requirements.txt
    cargo build --release
    melo quickstart DIR
    python tools/peers/kserve_client.py DIR [--melo target/release/melo]

Every task of the quickstart, on its first test images, in four ways: files and tensors, JSON and binary. Prints the largest
difference of a probability for each task and way; exits with 1 above 1e-5.
"""

import argparse
import base64
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tritonclient.http as triton
from PIL import Image

IMAGES, TOLERANCE = 4, 1e-5


def offline(melo, folder, task, images):
    command = [melo, "predict", "--json", "--backbone", folder / "backbone.safetensors"]
    command += ["--plugin", folder / f"{task}.safetensors", *images]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return np.array([list(json.loads(line)["probabilities"].values()) for line in lines], np.float32)


def files(images, binary):
    tensor = triton.InferInput("image", [len(images)], "BYTES")
    data = [image.read_bytes() for image in images]
    if not binary:
        data = [base64.b64encode(one) for one in data]
    return tensor.set_data_from_numpy(np.array(data, np.object_), binary_data=binary)


def tensors(images, binary, card):
    """The card's preprocessing for images that have the network's size already."""
    size = card["size"]
    mean, std = (np.array(card[name], np.float32).reshape(3, 1, 1) for name in ("mean", "std"))
    data = []
    for image in images:
        pixels = np.asarray(Image.open(image).convert("RGB"))
        assert pixels.shape == (size, size, 3), pixels.shape
        data.append((pixels.transpose(2, 0, 1).astype(np.float32) / 255 - mean) / std)
    tensor = triton.InferInput("pixels", [len(data), 3, size, size], "FP32")
    return tensor.set_data_from_numpy(np.stack(data).astype(np.float32), binary_data=binary)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what `melo quickstart` left")
    parser.add_argument("--melo", default="target/release/melo", type=Path)
    options = parser.parse_args()
    melo, folder = options.melo.resolve(), options.folder
    plugins = folder / "plugins"
    tasks = sorted(path.stem for path in plugins.glob("*.safetensors"))
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        command = [melo, "serve", "--listen", "127.0.0.1:0", "--log", "off", "--backbone", folder / "backbone.safetensors"]
        command += ["--plugins", plugins, "--state", Path(scratch) / "state"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            address = server.stdout.readline().strip().removeprefix("listening on http://")
            client = triton.InferenceServerClient(address)
            assert client.is_server_live() and client.is_server_ready()
            print("server:", client.get_server_metadata())
            for task in tasks:
                assert client.is_model_ready(task)
                metadata = client.get_model_metadata(task)
                lines = (folder / task / "labels.csv").read_text().splitlines()
                images = [folder / task / line.split(",")[0] for line in lines if ",test," in line][:IMAGES]
                expected = offline(melo, folder, task, images)
                info = subprocess.run([melo, "plugin", "info", plugins / f"{task}.safetensors", "--json"], check=True, capture_output=True)
                card = json.loads(info.stdout)["card"]["preprocess"]
                for binary in (False, True):
                    for name, tensor in (("files", files(images, binary)), ("tensors", tensors(images, binary, card))):
                        wanted = triton.InferRequestedOutput("probabilities", binary_data=binary)
                        answer = client.infer(task, [tensor], outputs=[wanted], model_version=metadata["versions"][-1])
                        found = answer.as_numpy("probabilities")
                        difference = float(np.abs(found - expected).max())
                        worst = max(worst, difference)
                        print(f"{task:<12} {name:<8} {'binary' if binary else 'json':<7} {difference:.1e}")
        finally:
            server.terminate()
            server.wait()
    print(f"largest difference {worst:.1e}, allowed {TOLERANCE}")
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
