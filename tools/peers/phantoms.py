"""A small convolutional network, trained from nothing on the images of `melo quickstart`: what the plug-ins are held against.

    pip install -r tools/peers/phantoms-requirements.txt
    melo quickstart DIR
    python tools/peers/phantoms.py DIR [--epochs 20]

Eight convolutions, 0.4 million values, AdamW with one cycle, mirrored left and right; the last epoch counts. Prints for each task the macro
AUC and accuracy on the test split, and seconds.
"""

import argparse
import csv
import pathlib
import time

import numpy
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn

BATCH = 32


def split(folder, name):
    """Images `[n, 3, side, side]` in -1..1, and their classes."""
    with open(folder / "labels.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})
    rows = [row for row in rows if row["split"] == name]
    pixels = numpy.stack([numpy.asarray(Image.open(folder / row["path"]).convert("RGB")) for row in rows])
    images = torch.tensor(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images.contiguous(memory_format=torch.channels_last), torch.tensor([classes.index(row["label"]) for row in rows])


def block(inputs, outputs, stride):
    layers = []
    for channels, step in ((inputs, stride), (outputs, 1)):
        layers += [nn.Conv2d(channels, outputs, 3, step, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def trained(images, labels, epochs):
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, int(labels.max()) + 1)]
    network = nn.Sequential(block(3, 24, 2), block(24, 48, 2), block(48, 96, 2), block(96, 128, 1), *head)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(images))[: steps * BATCH].view(steps, BATCH):
            mirrored = images[batch].flip(3) if torch.rand(()) < 0.5 else images[batch]
            loss = nn.functional.cross_entropy(network(mirrored), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for task in ("chest_film", "mammogram", "blood_smear", "fundus"):
        torch.manual_seed(0)
        started = time.monotonic()
        network = trained(*split(arguments.folder / task, "train"), arguments.epochs)
        images, labels = split(arguments.folder / task, "test")
        with torch.no_grad():
            probabilities = network(images).softmax(1).numpy()
        auc = numpy.mean([roc_auc_score(labels == k, probabilities[:, k]) for k in range(probabilities.shape[1])])
        accuracy = (probabilities.argmax(1) == labels.numpy()).mean()
        print(f"{task:<12} test AUC {auc:.3f}  accuracy {accuracy:.3f}  {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
