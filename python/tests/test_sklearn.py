"""The classifier in scikit-learn's own hands."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CLASSES, drawn

import melo_vit as melo

pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict  # noqa: E402
from sklearn.pipeline import Pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

IMAGES = np.stack([drawn(number) for number in range(24)])
LABELS = np.array([CLASSES[number % 2] for number in range(24)])
ASSET = Path(__file__).parents[2] / "assets" / "vit_small_formula.safetensors"


def classifier(**settings: Any) -> melo.MeloClassifier:
    return melo.MeloClassifier(ASSET, **{"epochs": 2, "batch_size": 8, **settings})


def test_fit_predict_clone_and_pickle() -> None:
    fitted = classifier().fit(IMAGES, LABELS)
    probabilities = fitted.predict_proba(IMAGES)
    assert probabilities.shape == (24, 2) and list(fitted.classes_) == list(CLASSES)
    assert set(fitted.predict(IMAGES)) <= set(CLASSES)
    assert 0.0 <= fitted.score(IMAGES, LABELS) <= 1.0
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(IMAGES), probabilities)
    assert np.array_equal(clone(fitted).fit(IMAGES, LABELS).predict_proba(IMAGES), probabilities)


def test_paths_and_flat_rows_are_the_same_images(folder: Path) -> None:
    paths = [folder / f"{number}.png" for number in range(24)]
    labels = [number % 2 for number in range(24)]
    files = classifier().fit(paths, labels)
    images = np.stack([drawn(number) for number in range(24)])
    assert np.array_equal(files.predict_proba(paths), files.predict_proba(images))
    flat = classifier(image_shape=(64, 64, 3)).fit(images.reshape(24, -1), labels)
    assert flat.n_features_in_ == 64 * 64 * 3
    assert np.array_equal(flat.predict_proba(images.reshape(24, -1)), classifier().fit(images, labels).predict_proba(images))
    with pytest.raises(melo.DataError, match="image_shape"):
        classifier().fit(images.reshape(24, -1), labels)


def test_folds_searches_and_pipelines() -> None:
    groups = np.arange(24) // 2
    said = cross_val_predict(classifier(), IMAGES, LABELS, groups=groups, cv=GroupKFold(2), method="predict_proba")
    assert said.shape == (24, 2)
    search = GridSearchCV(classifier(epochs=1), {"rank": [1, 2], "learning_rate": [1e-3]}, cv=2).fit(IMAGES, LABELS)
    assert search.best_params_["rank"] in (1, 2)
    darker = FunctionTransformer(lambda images: images // 2)
    assert Pipeline([("darker", darker), ("melo", classifier())]).fit(IMAGES, LABELS).predict(IMAGES).shape == (24,)


def test_groups_are_on_one_side_of_the_validation() -> None:
    from melo_vit.sklearn import validation_split

    labels, groups = np.arange(40) % 2, np.arange(40) // 4
    splits = np.array(validation_split(labels, groups, 0.25, 0))
    for group in range(10):
        assert len(set(splits[groups == group])) == 1
    assert 4 <= (splits == "val").sum() <= 16


def test_weights_count_and_zeros_are_left_out() -> None:
    plain = classifier().fit(IMAGES, LABELS)
    equal = classifier().fit(IMAGES, LABELS, sample_weight=np.full(24, 2.0))
    assert np.array_equal(plain.predict_proba(IMAGES), equal.predict_proba(IMAGES))
    weights = np.where(np.arange(24) < 20, 1.0, 0.0)
    without = classifier().fit(IMAGES[:20], LABELS[:20])
    assert np.array_equal(classifier().fit(IMAGES, LABELS, sample_weight=weights).predict_proba(IMAGES), without.predict_proba(IMAGES))
    varied = classifier().fit(IMAGES, LABELS, sample_weight=1.0 + np.arange(24) % 3)
    assert not np.array_equal(varied.predict_proba(IMAGES), plain.predict_proba(IMAGES))


#: Checks that ask for what a training on images does not promise, with the reason.
NOT_IMAGES = {
    "check_sample_weight_equivalence_on_dense_data": "batches are drawn by position, so that repeating an image is another training",
}


@parametrize_with_checks(
    [melo.MeloClassifier(ASSET, epochs=8, learning_rate=5e-3, augment=False, image_size=24, image_shape=(1, -1), value_range=(-6.0, 6.0))],
    expected_failed_checks=lambda _: NOT_IMAGES,
)
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)
