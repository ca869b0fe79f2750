//! Images of another size than the positions were trained for.

use crate::tiny;
use crate::variants::{assert_reordered, distance, images, largest, logits, lora, pick, variants};
use melo_reference::Reference;
use melo_vit::{Checkpoint, Device, Error, PluginRef, Target, VitConfig};

/// Smaller, slightly larger, and twice as large as [`tiny::config`].
const SIZES: [usize; 3] = [8, 16, 24];
/// Variants of which one of 36 patches in another place changes logits by 6e-4 to 1e-3 of the largest.
const FAINT: [&str; 4] =
    ["dinov2", "registers beside positions of the class token", "beit", "qk_norm and relative positions"];

#[test]
fn positions_that_are_equal_everywhere_stay_so_at_any_size() {
    for (what, config) in variants().into_iter().filter(|(_, config)| config.pos_embed) {
        let mut checkpoint = tiny::checkpoint(&config, 1);
        let d = config.width;
        let prefix = config.position_prefix();
        let position = checkpoint.weights.pos_embed[prefix * d..(prefix + 1) * d].to_vec();
        let spread = |checkpoint: &mut Checkpoint, patches: usize| {
            checkpoint.weights.pos_embed.truncate(prefix * d);
            checkpoint.weights.pos_embed.extend(position.repeat(patches));
        };
        spread(&mut checkpoint, 9);
        let (adapter, head) = (tiny::adapter(&lora(2, 1.0, &Target::ALL), &config, 2), tiny::head(3, &config, 3));
        let engine = tiny::engine(checkpoint.clone());
        for size in SIZES {
            let batch = images(3, size, 4);
            let found = logits(&*engine, &batch, Some(&adapter), &head);
            let resized = VitConfig { image_size: size, ..config.clone() };
            spread(&mut checkpoint, (size / config.patch).pow(2));
            let resized = Checkpoint { config: resized, ..checkpoint.clone() };
            let reference = Reference.load(resized.freeze()).expect("f64 computes every network");
            let expected = logits(&*reference, &batch, Some(&adapter), &head);
            assert_reordered(&found, &expected, &format!("{what} at {size}"));
        }
    }
}

#[test]
fn resizing_positions_beforehand_is_the_same() {
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let engine = tiny::engine(checkpoint.clone());
        let head = tiny::head(3, &config, 3);
        for size in SIZES {
            let mut resized = checkpoint.clone();
            resized.weights.resize_positions(&mut resized.config, size);
            let missing = (config.prefix_tokens() - config.position_prefix()) * config.width;
            let rows = if config.pos_embed { resized.config.tokens(size) * config.width - missing } else { 0 };
            assert_eq!(resized.weights.pos_embed.len(), rows);
            let batch = images(3, size, 4);
            let expected = logits(&*tiny::engine(resized), &batch, None, &head);
            assert_eq!(logits(&*engine, &batch, None, &head), expected, "{what} at {size}");
        }
    }
}

#[test]
fn positions_tell_patches_apart_at_every_size() {
    for (what, config) in variants() {
        let engine = tiny::engine(tiny::checkpoint(&config, 1));
        let head = tiny::head(3, &config, 3);
        for size in [12, 16, 24] {
            let batch = images(1, size, 4);
            let mut swapped = batch.clone();
            // Exchanges the upper left patch with the one below it.
            for (channel, row, column) in (0..3 * 16).map(|i| (i / 16, i / 4 % 4, i % 4)) {
                let at = (channel * size + row) * size + column;
                swapped.data.swap(at, at + 4 * size);
            }
            let (a, b) = (logits(&*engine, &batch, None, &head), logits(&*engine, &swapped, None, &head));
            let share = if FAINT.contains(&what) { 1e-4 } else { 1e-3 };
            assert!(distance(&a, &b) > share * largest(&a), "{what} at {size}");
        }
    }
}

#[test]
fn batch_order_means_nothing_at_a_larger_size() {
    let config = tiny::config();
    let engine = tiny::engine(tiny::checkpoint(&config, 1));
    let (adapter, head) = (tiny::adapter(&lora(4, 2.0, &Target::ALL), &config, 3), tiny::head(2, &config, 4));
    let batch = images(5, 20, 2);
    let order = [4, 2, 0, 1, 3];
    let straight = logits(&*engine, &batch, Some(&adapter), &head);
    let expected: Vec<f32> = order.iter().flat_map(|&i| &straight[2 * i..2 * (i + 1)]).copied().collect();
    assert_reordered(&logits(&*engine, &pick(&batch, order), Some(&adapter), &head), &expected, "size 20");
}

#[test]
fn one_engine_serves_every_size() {
    let config = tiny::config();
    let checkpoint = tiny::checkpoint(&config, 1);
    let shared = tiny::engine(checkpoint.clone());
    let (adapter, head) = (tiny::adapter(&lora(4, 2.0, &Target::ALL), &config, 3), tiny::head(2, &config, 4));
    for size in [24, 8, 12, 16, 12] {
        let batch = images(3, size, 4);
        let fresh = tiny::engine(checkpoint.clone());
        let expected = logits(&*fresh, &batch, Some(&adapter), &head);
        assert_eq!(logits(&*shared, &batch, Some(&adapter), &head), expected, "size {size}");
    }
}

#[test]
fn a_size_that_patches_do_not_tile_is_refused() {
    let config = tiny::config();
    let engine = tiny::engine(tiny::checkpoint(&config, 1));
    let head = tiny::head(2, &config, 4);
    for size in [0, 1, 3, 13] {
        let batch = images(1, size.max(1), 4);
        let plugin = PluginRef { adapter: None, head: &head };
        let refused = [
            engine.logits(&batch, 1, size, plugin).expect_err("not tiled"),
            engine.embed(&batch, 1, size, None).expect_err("not tiled"),
        ];
        for error in refused {
            assert!(matches!(error, Error::ImageSize { size: s, patch: 4 } if s == size), "{error}");
        }
    }
}

#[test]
fn a_size_beyond_what_a_pass_may_take_is_refused_before_anything_is_allocated() {
    let config = tiny::config();
    let engine = tiny::engine(tiny::checkpoint(&config, 1));
    let head = tiny::head(2, &config, 4);
    // No pixel is asked for.
    let none = images(1, 4, 4);
    for size in [364, 4096, 1 << 20, usize::MAX - 3] {
        let plugin = PluginRef { adapter: None, head: &head };
        let refused = [
            engine.logits(&none, 1, size, plugin).expect_err("too much"),
            engine.embed(&none, 1, size, None).expect_err("too much"),
        ];
        for error in refused {
            assert!(
                matches!(error, Error::ImageWork { size: s, what: "tokens", most: 8192, .. } if s == size),
                "{error}"
            );
        }
    }
    let huge = VitConfig { width: 1 << 16, heads: 1 << 10, mlp_hidden: 1 << 16, ..config };
    let error = huge.check_size(240).expect_err("too much");
    assert!(matches!(error, Error::ImageWork { most: 16_000, .. }), "{error}");
}
