"""The peers of `cpu.py`, which runs this file in a process of its own for every figure.

    python tools/peers/cpu_peers.py --peer openvino-int8 --batch 32 --models FOLDER --prepare
    python tools/peers/cpu_peers.py --peer openvino-int8 --batch 32 --models FOLDER [--threads 2] [--seconds 10]

The first converts what the peer reads from a file, once a folder, so that neither the time nor the memory of a conversion is in a
figure; the second prints one JSON object: images/s, peak memory of the process, and the versions of what computed.
"""

import argparse
import json
import os
import resource
import statistics
import time
from importlib.metadata import version
from pathlib import Path

ARCH = "vit_base_patch16_224"
RANK, CLASSES = 4, 3
CALIBRATION = 16

COMPUTED_BY = {
    "torch": ["torch", "timm"],
    "torchao": ["torchao", "torch", "timm"],
    "onnx": ["onnxruntime"],
    "openvino": ["openvino", "nncf"],
    "peft": ["peft", "torch", "timm"],
}


def vit(**options):
    import timm
    import torch

    torch.manual_seed(0)
    return timm.create_model(ARCH, pretrained=False, **options)


def images(batch):
    import numpy

    return numpy.random.default_rng(0).standard_normal((batch, 3, 224, 224), dtype=numpy.float32)


def torch_step(peer, batch, threads, _):
    import torch

    torch.set_num_threads(threads)
    model, data = vit().eval(), torch.from_numpy(images(batch))
    if peer in ("torch-bf16", "torch-compile", "torchao-int8"):
        model, data = model.bfloat16(), data.bfloat16()
    if peer == "torchao-int8":
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        quantize_(model, Int8DynamicActivationInt8WeightConfig())
    if peer in ("torch-compile", "torchao-int8"):
        import torch._inductor.config

        torch._inductor.config.freezing = True
        model = torch.compile(model)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=peer == "torch-autocast")

    def step():
        with torch.no_grad(), autocast:
            model(data)

    return step


def onnx_file(peer, batch, folder):
    path = folder / f"{peer}-{batch}.onnx"
    if path.exists():
        return path
    if peer == "onnx-f32":
        import torch

        data = torch.from_numpy(images(batch))
        torch.onnx.export(vit().eval(), data, str(path), input_names=["images"], dynamo=False)
    else:
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.shape_inference import quant_pre_process

        inferred = folder / f"inferred-{batch}.onnx"
        quant_pre_process(onnx_file("onnx-f32", batch, folder), inferred)
        quantize_dynamic(inferred, path, per_channel=True, weight_type=QuantType.QInt8)
    return path


def onnx_step(peer, batch, threads, folder):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / f"{peer}-{batch}.onnx", options)
    data = images(batch)
    return lambda: session.run(None, {"images": data})


def openvino_name(peer):
    """f32 and bf16 are one file, of f32 weights."""
    return "openvino-int8.xml" if peer == "openvino-int8" else "openvino.xml"


def openvino_file(peer, batch, folder):
    path = folder / openvino_name(peer)
    if path.exists():
        return
    import openvino

    if peer == "openvino-int8":
        import nncf

        openvino_file("openvino-f32", batch, folder)
        model = nncf.quantize(
            openvino.Core().read_model(folder / "openvino.xml"),
            nncf.Dataset(list(images(CALIBRATION)[:, None])),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=CALIBRATION,
        )
    else:
        import torch

        model = openvino.convert_model(vit().eval(), example_input=torch.zeros(1, 3, 224, 224))
    openvino.save_model(model, path, compress_to_fp16=False)


def openvino_step(peer, batch, threads, folder):
    """A batch is spread over the streams that OpenVINO's throughput hint asks for; one image goes to all threads."""
    import openvino

    core = openvino.Core()
    settings = {"PERFORMANCE_HINT": "THROUGHPUT" if batch > 1 else "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if peer != "openvino-int8":
        settings["INFERENCE_PRECISION_HINT"] = peer.removeprefix("openvino-")
    streams = 1
    if batch > 1:
        streams = max(n for n in range(1, threads + 1) if batch % n == 0)
        settings["NUM_STREAMS"] = streams
    model = core.read_model(folder / openvino_name(peer))
    model.reshape([batch // streams, 3, 224, 224])
    queue = openvino.AsyncInferQueue(core.compile_model(model, "CPU", settings), streams)
    data = images(batch // streams)

    def step():
        for _ in range(streams):
            queue.start_async({0: data})
        queue.wait_all()

    return step


def peft_step(peer, batch, threads, _):
    import peft
    import torch

    torch.set_num_threads(threads)
    lora = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=r".*attn\.qkv", modules_to_save=["head"])
    model = peft.get_peft_model(vit(num_classes=CLASSES), lora).train()
    data, labels = torch.from_numpy(images(batch)), torch.arange(batch) % CLASSES
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=peer == "peft-autocast"):
            loss = torch.nn.functional.cross_entropy(model(data).float(), labels)
        loss.backward()
        optimizer.step()

    return step


FILES = {"onnx": onnx_file, "openvino": openvino_file}
STEPS = {"torch": torch_step, "torchao": torch_step, "onnx": onnx_step, "openvino": openvino_step, "peft": peft_step}


def rate(step, batch, seconds):
    """Median images/s of repeated steps, at least three, after two that warm up."""
    step()
    step()
    rates, started = [], time.perf_counter()
    while len(rates) < 3 or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        step()
        rates.append(batch / (time.perf_counter() - before))
    return statistics.median(rates)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--models", type=Path, required=True, help="folder of converted models")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    family = args.peer.split("-")[0]
    if args.prepare:
        if family in FILES:
            FILES[family](args.peer, args.batch, args.models)
        return
    step = STEPS[family](args.peer, args.batch, args.threads, args.models)
    images_per_s = rate(step, args.batch, args.seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    versions = {package: version(package) for package in COMPUTED_BY[family]}
    print(json.dumps({"images_per_s": images_per_s, "peak_rss_bytes": peak, "versions": versions}))


if __name__ == "__main__":
    main()
