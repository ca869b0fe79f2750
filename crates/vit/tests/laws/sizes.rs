//! Images of another size than the positions were trained for.

use crate::reference::Reference;
use crate::tiny;
use crate::variants::{assert_reordered, distance, images, largest, logits, lora, pick, variants};
use melo_vit::{Adapter, Backbone, Checkpoint, Error, Target, VitConfig, Workspace};

/// Smaller, slightly larger, and twice as large as [`tiny::config`].
const SIZES: [usize; 3] = [8, 16, 24];

#[test]
fn positions_that_are_equal_everywhere_stay_so_at_any_size() {
    for (what, config) in variants() {
        let mut checkpoint = tiny::checkpoint(&config, 1);
        let d = config.width;
        let prefix = if config.pos_embed_prefix { config.class_tokens() } else { 0 };
        let position = checkpoint.weights.pos_embed[prefix * d..(prefix + 1) * d].to_vec();
        let spread = |checkpoint: &mut Checkpoint, patches: usize| {
            checkpoint.weights.pos_embed.truncate(prefix * d);
            checkpoint.weights.pos_embed.extend(position.repeat(patches));
        };
        spread(&mut checkpoint, 9);
        let (adapter, head) = (tiny::adapter(&lora(2, 1.0, &Target::ALL), &config, 2), tiny::head(3, &config, 3));
        let backbone = Backbone::new(checkpoint.clone());
        for size in SIZES {
            let batch = images(3, size, 4);
            let found = logits(&backbone, &batch, Some(&adapter), &head);
            let resized = VitConfig { image_size: size, ..config.clone() };
            spread(&mut checkpoint, (size / config.patch).pow(2));
            let reference = Reference::new(&resized, &checkpoint.weights, &adapter, &head);
            let expected: Vec<f32> = batch
                .data
                .chunks_exact(3 * size * size)
                .enumerate()
                .flat_map(|(index, image)| reference.logits(index, image))
                .map(|logit| logit as f32)
                .collect();
            assert_reordered(&found, &expected, &format!("{what} at {size}"));
        }
    }
}

#[test]
fn resizing_positions_beforehand_is_the_same() {
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let backbone = Backbone::new(checkpoint.clone());
        let head = tiny::head(3, &config, 3);
        for size in SIZES {
            let mut resized = checkpoint.clone();
            resized.weights.resize_positions(&mut resized.config, size);
            assert_eq!(resized.config.tokens(size) * config.width, {
                let class = if config.pos_embed_prefix { 0 } else { config.class_tokens() };
                let missing = (class + config.registers) * config.width;
                resized.weights.pos_embed.len() + missing
            });
            let batch = images(3, size, 4);
            let expected = logits(&Backbone::new(resized), &batch, None, &head);
            assert_eq!(logits(&backbone, &batch, None, &head), expected, "{what} at {size}");
        }
    }
}

#[test]
fn positions_tell_patches_apart_at_every_size() {
    let config = tiny::config();
    let backbone = Backbone::new(tiny::checkpoint(&config, 1));
    let head = tiny::head(3, &config, 3);
    for size in [12, 16, 24] {
        let batch = images(1, size, 4);
        let mut swapped = batch.clone();
        // Exchanges the upper left patch with the one below it.
        for (channel, row, column) in (0..3 * 16).map(|i| (i / 16, i / 4 % 4, i % 4)) {
            let at = (channel * size + row) * size + column;
            swapped.data.swap(at, at + 4 * size);
        }
        let (a, b) = (logits(&backbone, &batch, None, &head), logits(&backbone, &swapped, None, &head));
        assert!(distance(&a, &b) > 1e-3 * largest(&a), "size {size}");
    }
}

#[test]
fn batch_order_means_nothing_at_a_larger_size() {
    let config = tiny::config();
    let backbone = Backbone::new(tiny::checkpoint(&config, 1));
    let (adapter, head) = (tiny::adapter(&lora(4, 2.0, &Target::ALL), &config, 3), tiny::head(2, &config, 4));
    let batch = images(5, 20, 2);
    let order = [4, 2, 0, 1, 3];
    let straight = logits(&backbone, &batch, Some(&adapter), &head);
    let expected: Vec<f32> = order.iter().flat_map(|&i| &straight[2 * i..2 * (i + 1)]).copied().collect();
    assert_reordered(&logits(&backbone, &pick(&batch, order), Some(&adapter), &head), &expected, "size 20");
}

#[test]
fn one_workspace_serves_every_size() {
    let config = tiny::config();
    let backbone = Backbone::new(tiny::checkpoint(&config, 1));
    let (adapter, head) = (tiny::adapter(&lora(4, 2.0, &Target::ALL), &config, 3), tiny::head(2, &config, 4));
    let shared = Workspace::default();
    for size in [24, 8, 12, 16, 12] {
        let batch = images(3, size, 4);
        let parts: (Option<&Adapter>, _) = (Some(&adapter), &head);
        let found = backbone.forward_with(&batch, (3, size), parts, &shared).expect("a tiled size");
        assert_eq!(found, logits(&backbone, &batch, Some(&adapter), &head), "size {size}");
    }
}

#[test]
fn a_size_that_patches_do_not_tile_is_refused() {
    let config = tiny::config();
    let backbone = Backbone::new(tiny::checkpoint(&config, 1));
    let head = tiny::head(2, &config, 4);
    for size in [0, 1, 3, 13] {
        let batch = images(1, size.max(1), 4);
        let error =
            backbone.forward_with(&batch, (1, size), (None, &head), &Workspace::default()).expect_err("not tiled");
        assert!(matches!(error, Error::ImageSize { size: s, patch: 4 } if s == size), "{error}");
    }
}
