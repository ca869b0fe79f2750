"""What leaves for torch, timm and PEFT answers there as it does here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CLASSES
from numpy.typing import NDArray

import melo_vit as melo

torch: Any = pytest.importorskip("torch")
timm: Any = pytest.importorskip("timm")
pillow: Any = pytest.importorskip("PIL.Image")

#: Of f32, whose sums are taken in another order, through a dozen blocks; logits are about 1.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (*rng.integers(40, 200, 2), 3), dtype=np.uint8) for _ in range(5)]


def of_timm(module: Any, images: list[NDArray[np.uint8]], described: Any = None) -> NDArray[np.float32]:
    """Logits by timm's own preprocessing, as the module says it, or the one that is ``described``."""
    from timm.data import create_transform, resolve_model_data_config

    transform = create_transform(**resolve_model_data_config(described or module))
    with torch.no_grad():
        return module(torch.stack([transform(pillow.fromarray(image)) for image in images])).numpy()


def of_melo(plugin: melo.Plugin, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    return np.stack([said.logits for said in melo.Predictor(plugin.backbone, plugin).predict(images).of()])


def adapted(plugin: melo.Plugin, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """The plug-in's logits, which differ from those without its updates by more than the tolerance."""
    logits = of_melo(plugin, images)
    assert np.abs(logits - logits[0]).max() > 10 * TOLERANCE
    return logits


@pytest.mark.parametrize("name", ["chest_film", "mammogram", "fundus"])
def test_a_module_with_a_plugin_has_its_logits(name: str, backbone: melo.Backbone, folder: Path, images: list[NDArray[np.uint8]]) -> None:
    plugin = melo.Plugin.load(folder / f"{name}.safetensors", backbone)
    module = backbone.to_torch(plugin)
    assert not module.training and module.num_classes == len(plugin.classes)
    assert np.abs(of_timm(module, images) - adapted(plugin, images)).max() < TOLERANCE


def test_a_module_of_another_training_has_its_logits(backbone: melo.Backbone, folder: Path, images: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    data = folder / "spots.csv"
    given: dict[str, Any] = {"targets": ["q", "k", "o", "fc1", "fc2"], "rank": 3, "alpha": 6, "last_k": 3, "learning_rate": 1e-2}
    several = melo.train(backbone, data, epochs=2, progress=False, **given)
    assert np.abs(of_timm(backbone.to_torch(several), images) - of_melo(several, images)).max() < TOLERANCE
    full = melo.train(backbone, data, method="full", epochs=1, progress=False, backbone_out=tmp_path / "full.safetensors")
    assert np.abs(of_timm(full.backbone.to_torch(full), images) - of_melo(full, images)).max() < TOLERANCE
    with pytest.raises(melo.PluginError) as refused:
        backbone.to_torch(full)
    assert refused.value.kind == "BackboneMismatch"


def test_without_a_classifier_there_is_no_module(backbone: melo.Backbone) -> None:
    with pytest.raises(melo.BackboneError, match="classifier") as refused:
        backbone.to_torch()
    assert refused.value.kind == "NoClassifier"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, melo.Backbone]:
    """A model of timm with random weights and classifier, and what is read of the files that timm saves."""
    from timm.models import save_for_hf

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=7).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)
    folder = tmp_path_factory.mktemp("timm") / "vit_tiny"
    save_for_hf(model, folder, safe_serialization=True)
    return model, melo.Backbone.load(folder)


def test_a_model_of_timm_comes_back_as_it_went(tiny: tuple[Any, melo.Backbone], images: list[NDArray[np.uint8]]) -> None:
    model, backbone = tiny
    expected = of_timm(model, images)
    assert np.abs(expected - expected[0]).max() > 10 * TOLERANCE
    module = backbone.to_torch()
    assert module.num_classes == 7
    assert np.abs(of_timm(module, images) - expected).max() < TOLERANCE
    own = melo.Plugin.own_classifier(backbone)
    assert np.abs(of_melo(own, images) - expected).max() < TOLERANCE


def test_an_adapter_is_loaded_by_peft(tiny: tuple[Any, melo.Backbone], folder: Path, images: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    peft: Any = pytest.importorskip("peft")
    model, backbone = tiny
    plugin = melo.train(backbone, folder / "spots.csv", learning_rate=1e-2, epochs=2, batch_size=8, progress=False)
    plugin.to_peft(tmp_path / "adapter")
    again = melo.Plugin.from_peft(tmp_path / "adapter", backbone)
    assert again.to_bytes() == plugin.to_bytes()

    base = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    base.load_state_dict(model.state_dict())
    base.reset_classifier(len(CLASSES))
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    described = backbone.to_torch(plugin)  # preprocessing is the plug-in's, not the base model's
    expected = of_melo(plugin, images)
    assert np.abs(of_timm(loaded, images, described) - expected).max() < TOLERANCE
    with loaded.disable_adapter():
        assert np.abs(of_timm(loaded, images, described) - expected).max() > TOLERANCE
