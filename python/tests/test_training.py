"""Training, evaluation and files: the numbers of the binary, to the last bit."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CLASSES, IMAGES, drawn

import melo_vit as melo

SPLITS = [split for split, images in IMAGES.items() for _ in range(images)]
COUNT = len(SPLITS)


def binary(*arguments: object) -> str:
    """What the `melo` command of this distribution says."""
    command = [sys.executable, "-m", "melo_vit", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def logits(evaluation: melo.Evaluation | None) -> Any:
    assert evaluation is not None
    return evaluation.logits


def test_the_binary_trains_and_measures_the_same_numbers(folder: Path, plugin: melo.Plugin, tmp_path: Path) -> None:
    out = tmp_path / "spots.safetensors"
    given = ["--backbone", folder / "vit.safetensors", "--data", folder / "spots.csv"]
    said = json.loads(binary("train", *given, "--out", out, "--task", "spots", "--epochs", 2, "--json"))
    assert plugin.digest == said["plugin_digest"]
    assert plugin.to_bytes() == out.read_bytes()
    measured = json.loads(binary("eval", *given, "--plugin", out, "--json"))
    evaluation = melo.evaluate(plugin, folder / "spots.csv")
    assert evaluation.metrics["auc_macro"] == measured["auc_macro"]
    assert evaluation.intervals["acc"] == tuple(measured["intervals"]["acc"])
    assert plugin.test is not None and plugin.metrics["test_auc_macro"] == evaluation.metrics["auc_macro"]
    image = json.loads(binary("predict", "--backbone", folder / "vit.safetensors", "--plugin", out, folder / "film.png", "--json"))
    found = melo.Predictor(plugin.backbone, plugin).predict(folder / "film.png").probabilities()[0]
    assert [float(p) for p in found] == [float(np.float32(p)) for p in image["probabilities"].values()]


def test_a_frame_and_a_dictionary_are_the_same_manifest(
    folder: Path, backbone: melo.Backbone, plugin: melo.Plugin
) -> None:
    rows = [line.split(",") for line in (folder / "spots.csv").read_text().split()]
    columns = {name: [row[place] for row in rows[1:]] for place, name in enumerate(rows[0])}
    frames: list[Any] = [columns]
    for library in ("pandas", "polars"):
        try:
            frames.append(__import__(library).DataFrame(columns))
        except ImportError:
            pass
    for frame in frames:
        again = melo.train(backbone, frame, images=folder, task="spots", epochs=2, progress=False)
        assert np.array_equal(logits(again.test), logits(plugin.test))
        assert again.card["provenance"]["data_digest"] == plugin.card["provenance"]["data_digest"]


def test_arrays_with_groups_and_splits(backbone: melo.Backbone, plugin: melo.Plugin) -> None:
    images = np.stack([drawn(number) for number in range(COUNT)])
    labels = [CLASSES[number % 2] for number in range(COUNT)]
    given: dict[str, Any] = {"splits": SPLITS, "groups": [number // 2 for number in range(COUNT)], "epochs": 2, "progress": False}
    trained = melo.train(backbone, images, labels, **given)
    assert trained.classes == list(CLASSES) and trained.task == "arrays"
    numbers = melo.train(backbone, images, [number % 2 for number in range(COUNT)], classes=CLASSES, **given)
    assert np.array_equal(logits(trained.test), logits(numbers.test))
    equal = melo.train(backbone, images, labels, weights=np.full(COUNT, 1.0), **given)
    assert np.array_equal(logits(trained.test), logits(equal.test))
    other = melo.train(backbone, images, labels, weights=1.0 + np.arange(COUNT) % 3, **given)
    assert not np.array_equal(logits(trained.test), logits(other.test))
    assert other.card["provenance"]["data_digest"] != trained.card["provenance"]["data_digest"]
    again = melo.evaluate(trained, images[28:], labels[28:])
    assert np.array_equal(again.probabilities, trained.test.probabilities if trained.test else None)
    assert again.truth.tolist() == [number % 2 for number in range(28, COUNT)]


def test_findings_and_numbers(backbone: melo.Backbone) -> None:
    images = np.stack([drawn(number) for number in range(COUNT)])
    findings = np.stack([np.arange(COUNT) % 2, np.arange(COUNT) % 3 == 0], axis=1).astype(int)
    several = melo.train(backbone, images, findings, classes=["spot", "third"], splits=SPLITS, epochs=1, progress=False)
    assert several.kind == "multi_label"
    said = melo.Predictor(backbone, several).predict(images[0])[0][0]
    assert said.predicted is None and set(said.findings or []) <= {"spot", "third"}
    ages = melo.train(backbone, images, np.arange(COUNT) * 0.5, kind="regression", splits=SPLITS, epochs=1, progress=False)
    assert ages.kind == "regression" and "test_mae/value" in ages.metrics


def test_a_backbone_is_found_again_from_another_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(folder)
    pickled = pickle.dumps(melo.Backbone.load("vit.safetensors"))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickled).source == folder / "vit.safetensors"


def test_grades_are_in_the_order_that_is_said(backbone: melo.Backbone) -> None:
    images = [drawn(number) for number in range(12)]
    grades = ["none", "mild", "severe"] * 4
    given: dict[str, Any] = {"kind": "ordinal", "splits": ["train"] * 6 + ["val"] * 6, "epochs": 1, "progress": False}
    with pytest.raises(melo.DataError, match="the lowest first"):
        melo.train(backbone, images, grades, **given)
    plugin = melo.train(backbone, images, grades, classes=["none", "mild", "severe"], **given)
    assert plugin.kind == "ordinal" and plugin.classes == ["none", "mild", "severe"]
    assert plugin.val is not None and plugin.val.truth.tolist() == [0, 1, 2] * 2
    numbers = melo.train(backbone, images, [10, 2, 3] * 4, **given)
    assert numbers.classes == ["2", "3", "10"]


def test_files_and_pickles(backbone: melo.Backbone, plugin: melo.Plugin, tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "spots.safetensors"
    plugin.save(path)
    read = melo.Plugin.load(path, backbone)
    assert read.digest == plugin.digest and read.history == [] and len(plugin.history) == 2
    plugin.save(path, dtype="f16")
    predictor = pickle.loads(pickle.dumps(melo.Predictor(backbone, [plugin, folder / "fundus.safetensors"])))
    assert predictor.tasks == ["spots", "fundus"]
    image = folder / "film.png"
    assert np.array_equal(
        predictor.predict(image).probabilities(), melo.Predictor(backbone, plugin).predict(image).probabilities()
    )
    plugin.to_peft(tmp_path / "peft")
    peft = melo.Plugin.from_peft(tmp_path / "peft", backbone)
    assert peft.classes == plugin.classes
    assert "spots" in plugin.to_html() and "spots" in plugin.to_markdown()


def test_a_plugin_of_another_backbone_is_refused_with_its_digests(
    folder: Path, plugin: melo.Plugin, tmp_path: Path
) -> None:
    tuned = melo.train(
        plugin.backbone, folder / "spots.csv", method="full", epochs=1, progress=False, backbone_out=tmp_path / "tuned.safetensors"
    )
    assert tuned.backbone.digest != plugin.backbone.digest
    with pytest.raises(melo.SettingError, match="exists already"):
        melo.train(plugin.backbone, folder / "spots.csv", method="full", progress=False, backbone_out=tmp_path / "tuned.safetensors")
    assert melo.Backbone.load(tmp_path / "tuned.safetensors").digest == tuned.backbone.digest
    path = tmp_path / "spots.safetensors"
    plugin.save(path)
    for refused in (lambda: melo.Plugin.load(path, tuned.backbone), lambda: melo.Predictor(tuned.backbone, plugin)):
        with pytest.raises(melo.PluginError) as raised:
            refused()
        assert raised.value.kind == "BackboneMismatch"
        assert raised.value.expected == plugin.backbone.digest[:12]
        assert raised.value.found == tuned.backbone.digest[:12]


def test_bad_settings_and_data_are_named(backbone: melo.Backbone, folder: Path) -> None:
    data = folder / "spots.csv"
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"epochs": 0}, melo.SettingError, "epochs"),
        ({"rank": -1}, melo.SettingError, "rank: invalid value"),
        ({"method": "linear", "rank": 8}, melo.SettingError, "rank"),
        ({"method": "full"}, melo.SettingError, "backbone_out"),
        ({"learning_rate": float("nan")}, melo.SettingError, "expected"),
        ({"image_size": 7}, melo.SettingError, "7"),
        ({"targets": ["z"]}, melo.SettingError, "z"),
        ({"augment": {"flip": True}}, melo.SettingError, "flip"),
        ({"rank": "four"}, melo.SettingError, "rank"),
        ({"epoch": 3.5}, TypeError, "epoch"),
        ({"epochs": 3.5}, melo.SettingError, "epochs"),
        ({"reading": {"colum": "a"}}, melo.SettingError, "colum"),
        ({"groups": [1]}, melo.SettingError, "groups"),
    ]
    for settings, error, said in cases:
        with pytest.raises(error, match=said):
            melo.train(backbone, data, progress=False, **settings)
    with pytest.raises(melo.DataError, match="missing.csv") as raised:
        melo.train(backbone, folder / "missing.csv", progress=False)
    assert raised.value.path.endswith("missing.csv")
    images = np.stack([drawn(number) for number in range(4)])
    for labels, said in (([1, 2], "labels"), ([1, 1, 1, 1], "same label"), ([1.5, 1, 1, 1], "regression"), ([np.nan] * 4, "NaN")):
        with pytest.raises(melo.DataError, match=said):
            melo.train(backbone, images, labels, splits=["train", "train", "val", "val"], progress=False)
    with pytest.raises(melo.DataError, match="expected a manifest"):
        melo.train(backbone, 3)
    with pytest.raises(melo.BackboneError):
        melo.Backbone.load(folder / "spots.csv")
    with pytest.raises(melo.SettingError, match="precision"):
        melo.Backbone.load(folder / "vit.safetensors", precision="f8")  # type: ignore[arg-type]


def test_settings_of_numpy_are_settings(backbone: melo.Backbone, folder: Path) -> None:
    given: dict[str, Any] = {"rank": np.int64(2), "blocks": np.arange(2), "targets": np.array(["q", "v"]), "learning_rate": np.float32(0.001)}
    plugin = melo.train(backbone, folder / "spots.csv", epochs=1, progress=False, **given)
    assert plugin.card["lora"]["rank"] == 2 and plugin.card["lora"]["blocks"] == [0, 1]
    assert melo.train(backbone, folder / "spots.csv", epochs=1, progress=False, targets="fc1").card["lora"]["targets"] == ["fc1"]


def test_no_patient_is_in_two_splits(backbone: melo.Backbone) -> None:
    images = [drawn(number) for number in range(8)]
    splits = ["train"] * 4 + ["val"] * 4
    with pytest.raises(melo.DataError, match="'a' is in the splits") as raised:
        melo.train(backbone, images, [0, 1] * 4, splits=splits, groups=["a"] * 8, progress=False)
    assert raised.value.kind == "Leak"
    alone = melo.train(backbone, images, [0, 1] * 4, splits=splits, groups=[None, float("nan")] * 4, epochs=1, progress=False)
    assert alone.val is not None and len(alone.val) == 4


def test_numbers_are_names_where_names_are_numbers(backbone: melo.Backbone) -> None:
    images = [drawn(number) for number in range(8)]
    plugin = melo.train(backbone, images, [1, 2] * 4, splits=["train"] * 4 + ["val"] * 4, epochs=1, progress=False)
    assert plugin.classes == ["1", "2"]
    assert melo.evaluate(plugin, iter(images), [1, 2] * 4).truth.tolist() == [0, 1] * 4
    with pytest.raises(melo.DataError, match="'0'"):
        melo.evaluate(plugin, images, [0, 1] * 4)


def test_a_forked_process_says_so(backbone: melo.Backbone, plugin: melo.Plugin) -> None:
    child = os.fork()
    if child == 0:
        try:
            melo.Predictor(backbone, plugin).predict(drawn(0))
        except melo.BackboneError as error:
            os._exit(7 if error.kind == "Forked" else 8)
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_broken_images_are_all_named(backbone: melo.Backbone, folder: Path) -> None:
    table = {"path": ["0.png", "1.png", "gone.png", "no.png"], "label": ["a", "b", "a", "b"], "split": ["train", "train", "val", "val"]}
    with pytest.raises(melo.DataError, match="2 of 4") as raised:
        melo.train(backbone, table, images=folder, progress=False)
    assert len(raised.value.broken) == 2


def test_what_is_odd_is_warned_of(backbone: melo.Backbone, folder: Path) -> None:
    with pytest.warns(melo.MeloWarning, match="fewer than 10 cases|never called"):
        plugin = melo.train(backbone, folder / "spots.csv", epochs=1, progress=False)
    assert plugin.warnings and plugin.test is not None and set(plugin.test.warnings) <= set(plugin.warnings)


def test_callbacks_hear_everything_and_stop_the_training(backbone: melo.Backbone, folder: Path) -> None:
    heard: list[str] = []
    melo.train(backbone, folder / "spots.csv", epochs=1, progress=False, callback=lambda event: heard.append(event["event"]))
    assert {"reading", "started", "step", "validating", "epoch"} <= set(heard)

    class Enough(Exception):
        pass

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            raise Enough

    with pytest.raises(Enough):
        melo.train(backbone, folder / "spots.csv", epochs=50, progress=False, callback=stop)


def test_ctrl_c_stops_an_epoch_and_the_run_goes_on(backbone: melo.Backbone, folder: Path, tmp_path: Path) -> None:
    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    given: dict[str, Any] = {"epochs": 3, "progress": False, "run": tmp_path / "run"}
    # Whoever started the tests in the background may have switched it off.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            melo.train(backbone, folder / "spots.csv", callback=interrupt, **given)
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(melo.TrainingError) as raised:
        melo.train(backbone, folder / "spots.csv", **given)
    assert raised.value.kind == "RunExists"
    resumed = melo.train(backbone, folder / "spots.csv", resume=True, **given)
    whole = melo.train(backbone, folder / "spots.csv", epochs=3, progress=False)
    assert np.array_equal(logits(resumed.test), logits(whole.test))


def test_other_threads_go_on_meanwhile(backbone: melo.Backbone, folder: Path) -> None:
    ticks, done = [0], threading.Event()

    def tick() -> None:
        while not done.is_set():
            ticks[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    begun = time.perf_counter()
    melo.train(backbone, folder / "spots.csv", epochs=2, progress=False)
    seconds = time.perf_counter() - begun
    done.set()
    thread.join()
    assert ticks[0] > 20 * seconds, f"{ticks[0]} ticks in {seconds:.1f} s"


def test_threads_share_one_backbone(backbone: melo.Backbone, plugin: melo.Plugin) -> None:
    predictor = melo.Predictor(backbone, plugin)
    batches = [np.stack([drawn(8 * batch + number) for number in range(8)]) for batch in range(4)]
    expected = [predictor.predict(batch).probabilities() for batch in batches]
    found: list[Any] = [None] * 4

    def ask(place: int) -> None:
        found[place] = predictor.predict(batches[place]).probabilities()

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_features(backbone: melo.Backbone) -> None:
    images = np.stack([drawn(number) for number in range(3)])
    assert backbone.embed(images).shape == (3, backbone.width)
    grid = backbone.embed(images, kind="grid", block=2)
    assert grid.ndim == 4 and grid.shape[0] == 3 and grid.shape[3] == backbone.width
    mean = backbone.embed(images, kind="mean", block=2)
    assert np.allclose(grid.mean(axis=(1, 2)), mean, atol=1e-5)
    with pytest.raises(melo.SettingError):
        backbone.embed(images, block=99)


def test_pages_of_a_notebook(backbone: melo.Backbone, plugin: melo.Plugin) -> None:
    predictions = melo.Predictor(backbone, plugin).predict(drawn(1))
    said = predictions[0][0]
    assert said.heatmap().shape == (64, 64, 3) and said.heatmap("spot").dtype == np.uint8
    assert "data:image/png" in said._repr_html_() and "spots" in predictions._repr_html_()
    assert "iframe" in plugin._repr_html_()
    assert plugin.test is not None and "polyline" in plugin.test.to_html() or "path" in plugin.test.to_html()
    with pytest.raises(melo.SettingError, match="target"):
        said.heatmap("no such class")
    without = melo.Predictor(backbone, plugin).predict(drawn(1), keep_pixels=False)
    with pytest.raises(melo.ImageError, match="keep_pixels"):
        without[0][0].heatmap()
    assert without.records()[0]["task"] == "spots"


def test_import_is_quick_and_brings_little() -> None:
    code = "import sys, melo_vit; print('numpy' in sys.modules, 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False", "False"]


def test_the_command_answers_with_its_status() -> None:
    assert "Usage" in binary("--help")
    done = subprocess.run([sys.executable, "-m", "melo_vit", "plugin", "info", "missing"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "missing" in done.stderr
