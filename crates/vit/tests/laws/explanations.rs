//! What an explanation is, whatever the weights are.

use crate::tiny;
use crate::variants::{assert_reordered, distance, images, largest, logits, lora, variants};
use melo_vit::{Adapter, Engine, Error, ExplainMethod, Explanation, LoraConfig, Plugin, PluginRef, Target};

const METHODS: [ExplainMethod; 2] = [ExplainMethod::Rollout, ExplainMethod::Gradient];
const CLASSES: usize = 3;

fn explain(engine: &dyn Engine, image: &[f32], size: usize, plugin: &Plugin, class: usize) -> [Explanation; 2] {
    METHODS.map(|method| engine.explain(image, size, plugin.into(), class, method).expect("a tiled size"))
}

#[test]
fn rollout_shares_one_out_among_all_tokens() {
    for (what, config) in variants() {
        let engine = tiny::engine(tiny::checkpoint(&config, 1));
        let plugin = tiny::plugin(engine.backbone(), &lora(2, 5.0, &Target::ALL), CLASSES, 2);
        for size in [4, 12, 20] {
            let [rollout, gradient] = explain(&*engine, &images(1, size, 3).data, size, &plugin, 1);
            let total: f32 = rollout.values.iter().chain(&rollout.prefix).sum();
            // Rows of softmax sum to 1 within a few roundings of 6e-8, in each of two blocks.
            assert!((total - 1.0).abs() < 2e-6, "{what}, {size} px: {total}");
            for found in [rollout, gradient] {
                assert_eq!((found.grid, found.values.len()), (size / 4, size * size / 16), "{what}");
                assert_eq!(found.prefix.len(), config.prefix_tokens(), "{what}");
                assert!(found.values.iter().chain(&found.prefix).all(|value| value.is_finite() && *value >= 0.0));
            }
        }
    }
}

#[test]
fn logits_are_those_of_the_forward_pass() {
    for (what, config) in variants() {
        let engine = tiny::engine(tiny::checkpoint(&config, 1));
        let plugin = tiny::plugin(engine.backbone(), &lora(4, 3.0, &Target::ALL), CLASSES, 2);
        let batch = images(1, 12, 3);
        let expected = logits(&*engine, &batch, Some(&plugin.adapter), &plugin.head);
        for found in explain(&*engine, &batch.data, 12, &plugin, 0) {
            assert_reordered(&found.logits, &expected, what);
        }
    }
}

#[test]
fn with_b_zero_a_plugin_explains_like_the_bare_backbone() {
    for (what, config) in variants() {
        let engine = tiny::engine(tiny::checkpoint(&config, 1));
        let settings = lora(4, 9.0, &Target::ALL);
        let active = tiny::plugin(engine.backbone(), &settings, CLASSES, 2);
        let silent = Plugin { adapter: Adapter::init(&settings, &config, 4), ..active.clone() };
        let bare = Plugin { adapter: Adapter::zeros(&LoraConfig::none(), &config), ..active.clone() };
        let image = images(1, 12, 3).data;
        for class in 0..CLASSES {
            let expected = explain(&*engine, &image, 12, &bare, class);
            assert_eq!(explain(&*engine, &image, 12, &silent, class), expected, "{what}");
            for (found, expected) in explain(&*engine, &image, 12, &active, class).iter().zip(&expected) {
                let change = distance(&found.values, &expected.values);
                assert!(change > 0.01 * largest(&expected.values), "{what}: the adapter changes nothing");
            }
        }
    }
}

#[test]
fn the_gradient_is_of_the_chosen_class() {
    for (what, config) in variants() {
        let engine = tiny::engine(tiny::checkpoint(&config, 1));
        let plugin = tiny::plugin(engine.backbone(), &lora(2, 5.0, &[Target::Q, Target::V]), CLASSES, 2);
        let image = images(1, 12, 3).data;
        let [rollout, gradient] = explain(&*engine, &image, 12, &plugin, 0);
        let [other_rollout, other_gradient] = explain(&*engine, &image, 12, &plugin, 2);
        assert_eq!(rollout, other_rollout, "{what}");
        assert!(distance(&gradient.values, &other_gradient.values) > 0.01 * largest(&gradient.values), "{what}");
        // Relevance is linear in the logit where it comes from one block, and at least grows with it.
        let mut louder = plugin.clone();
        louder.head.weight.iter_mut().for_each(|w| *w *= 2.0);
        let [_, loud] = explain(&*engine, &image, 12, &louder, 0);
        assert!(loud.values.iter().zip(&gradient.values).all(|(loud, quiet)| *loud >= 1.99 * quiet), "{what}");
        // A class without weights depends on no patch.
        let mut deaf = plugin;
        deaf.head.weight[..config.feature_width()].fill(0.0);
        assert_eq!(largest(&explain(&*engine, &image, 12, &deaf, 0)[1].values), 0.0, "{what}");
    }
}

#[test]
fn a_size_that_patches_do_not_tile_is_refused() {
    let engine = tiny::engine(tiny::checkpoint(&tiny::config(), 1));
    let plugin = tiny::plugin(engine.backbone(), &lora(2, 5.0, &Target::ALL), CLASSES, 2);
    for (size, method) in [0, 13].into_iter().flat_map(|size| METHODS.map(|method| (size, method))) {
        let error = engine.explain(&[], size, PluginRef::from(&plugin), 0, method).expect_err("not tiled");
        assert!(matches!(error, Error::ImageSize { size: s, patch: 4 } if s == size), "{error}");
    }
}
