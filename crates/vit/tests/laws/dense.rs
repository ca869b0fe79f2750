//! Heads that read patch tokens: against the reference, beside classifiers in one batch, and what decoders make of them.

use crate::engines::{cuda_of, held};
use crate::gradients::{Setting, assert_gradients};
use crate::tiny;
use crate::variants::{assert_reordered, assert_within, images, logits, lora, variants};
use melo_reference::Reference;
use melo_vit::{
    Adapter, DecoderConfig, DecoderTape, Device, Dropout, Error, ExplainMethod, Head, LoraConfig, PluginRef, Precision,
    Segment, Target, VitConfig, enlarge, enlarge_backward,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A head on the patch tokens of these blocks, of `rows` random rows.
fn dense_head(blocks: &[usize], rows: usize, vit: &VitConfig, seed: u64) -> Head {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let config = DecoderConfig { blocks: blocks.to_vec(), cells: 1, channels: rows, hidden: 0, stride: 1 };
    let mut head = Head::dense(&config, rows, vit, seed);
    head.tensors_mut().into_iter().for_each(|values| *values = tiny::random(values.len(), 0.5, &mut rng));
    head
}

/// Heads on the last block's tokens, on the first one's, and on both, with the adapter beside each.
pub(crate) fn heads(config: &VitConfig) -> [(Option<Adapter>, Head); 3] {
    let adapter = |blocks: &[usize]| {
        let lora = LoraConfig { blocks: blocks.to_vec(), ..lora(2, 3.0, &[Target::Q, Target::V, Target::Fc2]) };
        tiny::adapter(&lora, config, 2)
    };
    [
        (Some(adapter(&[0, 1])), dense_head(&[1], 3, config, 3)),
        (None, dense_head(&[0], 2, config, 4)),
        (Some(adapter(&[1])), dense_head(&[0, 1], 4, config, 5)),
    ]
}

#[test]
fn what_they_give_is_what_the_reference_gives() {
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let reference = Reference.load(checkpoint.clone().freeze()).expect("f64 computes every network");
        let engines = held(&checkpoint);
        for size in [8, 12, 20] {
            let batch = images(3, size, 2);
            for (number, (adapter, head)) in heads(&config).iter().enumerate() {
                let expected = logits(&*reference, &batch, adapter.as_ref(), head);
                assert_eq!(expected.len(), 3 * (size / 4) * (size / 4) * head.rows());
                for engine in &engines {
                    let found = logits(&**engine, &batch, adapter.as_ref(), head);
                    let what = format!("{what} at {size}, head {number} on {}", engine.info().engine);
                    assert_reordered(&found, &expected, &what);
                }
            }
        }
    }
}

#[test]
fn beside_classifiers_they_give_what_they_give_alone() {
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let classifier = (Some(tiny::adapter(&lora(2, 5.0, &Target::ALL), &config, 6)), tiny::head(5, &config, 7));
        let bare = (None, tiny::head(2, &config, 8));
        let all: Vec<(Option<Adapter>, Head)> = heads(&config).into_iter().chain([classifier, bare]).collect();
        let asked: [&[usize]; 6] = [&[0, 3], &[1], &[4, 2, 1], &[3], &[0], &[0, 1, 2, 3, 4]];
        for (precision, group, several) in [
            (Precision::F32, 2, true),
            (Precision::F32, 8, false),
            (Precision::Bf16, 3, true),
            (Precision::Int8, 1, false),
        ] {
            let on_gpu = (precision != Precision::Int8).then(|| cuda_of(&checkpoint, precision, group));
            let engines = [tiny::engine_of(checkpoint.clone(), precision, 2, group)].into_iter();
            let batch = images(asked.len(), config.image_size, 2);
            let plugin = |number: &usize| PluginRef { adapter: all[*number].0.as_ref(), head: &all[*number].1 };
            let segment = |(image, numbers): (usize, &&[usize])| Segment {
                images: image..image + 1,
                plugins: numbers.iter().take(if several { numbers.len() } else { 1 }).map(plugin).collect(),
            };
            let segments: Vec<Segment<'_>> = asked.iter().enumerate().map(segment).collect();
            for engine in engines.chain(on_gpu.flatten()) {
                let found = engine.forward(&batch, batch.size, &segments).expect("a tiled size");
                for (image, (of_image, segment)) in found.iter().zip(&segments).enumerate() {
                    let one = crate::variants::pick(&batch, [image]);
                    for (found, plugin) in of_image.iter().zip(&segment.plugins) {
                        let alone = logits(&*engine, &one, plugin.adapter, plugin.head);
                        let name = engine.info().engine;
                        let what = format!("{what}: image {image} in groups of {group}, {precision} on {name}");
                        // Products of f32 on slow instruction sets sum in an order that depends on the other rows.
                        match precision {
                            Precision::F32 if name == "cpu" => assert_reordered(found, &alone, &what),
                            _ => assert_eq!(found, &alone, "{what}"),
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn their_gradients_are_their_derivatives() {
    let dropout = Some(Dropout { probability: 0.2, seed: 3, step: 9 });
    for ((what, config), dropout) in variants().into_iter().zip([None, dropout].into_iter().cycle()) {
        let config = VitConfig { image_size: 8, ..config };
        let checkpoint = tiny::checkpoint(&config, 1);
        let adapter = tiny::adapter(&lora(2, 3.0, &[Target::Q, Target::V, Target::Fc1]), &config, 2);
        let blocks: &[usize] = if dropout.is_some() { &[1] } else { &[0, 1] };
        let setting = Setting { size: 8, dropout, all_weights: false };
        assert_gradients(setting, what, &checkpoint, (&adapter, &dense_head(blocks, 2, &config, 3)));
    }
}

#[test]
fn with_all_weights_too_their_gradients_are_their_derivatives() {
    for (what, config) in variants() {
        let config = VitConfig { image_size: 8, ..config };
        let checkpoint = tiny::checkpoint(&config, 1);
        let adapter = tiny::adapter(&lora(0, 1.0, &[]), &config, 2);
        let head = dense_head(&[0, 1], 2, &config, 3);
        assert_gradients(Setting { size: 8, dropout: None, all_weights: true }, what, &checkpoint, (&adapter, &head));
    }
}

#[test]
fn a_mask_is_a_map_itself_and_has_no_heat_map() {
    let config = tiny::config();
    let checkpoint = tiny::checkpoint(&config, 1);
    let head = dense_head(&[1], 2, &config, 3);
    let plugin = PluginRef { adapter: None, head: &head };
    for engine in held(&checkpoint).into_iter().chain([Reference.load(checkpoint.freeze()).unwrap()]) {
        let error = engine.explain(&images(1, 12, 1).data, 12, plugin, 0, ExplainMethod::Gradient).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains("masks"), "{error}");
    }
}

/// Sums of scores with a weight of its own for each.
fn weighted(scores: &[f32]) -> f64 {
    scores.iter().enumerate().map(|(at, score)| (at as f64).sin() * f64::from(*score)).sum()
}

/// By central differences of a function that is linear in most of what is moved: f32 leaves about 1e-3 of a slope.
#[test]
fn a_decoders_gradient_is_its_derivative() {
    let vit = VitConfig { patch: 4, ..tiny::config() };
    for (cells, channels, hidden, stride) in [(1, 3, 0, 1), (2, 3, 0, 1), (2, 2, 5, 1), (3, 2, 4, 2), (4, 1, 3, 4)] {
        let config = DecoderConfig { blocks: vec![1], cells, channels, hidden, stride };
        config.check(&vit, 3).expect("a decoder of three classes");
        let mut head = Head::dense(&config, 3, &vit, 1);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let decoder = head.decoder.as_mut().expect("a dense head");
        decoder.tensors_mut().into_iter().for_each(|tensor| *tensor = tiny::random(tensor.len(), 0.5, &mut rng));
        let size = 12;
        let image = tiny::random(3 * size * size, 1.0, &mut rng);
        let mut tokens = tiny::random(9 * config.rows(), 1.0, &mut rng);
        let mut tape = DecoderTape::default();
        let scores = decoder.forward(&tokens, &image, size, &mut tape);
        assert_eq!(scores.len(), decoder.side(size).pow(2) * 3);
        let d_scores: Vec<f32> = (0..scores.len()).map(|at| (at as f64).sin() as f32).collect();
        let mut gradient = decoder.clone();
        gradient.tensors_mut().into_iter().for_each(|tensor| tensor.fill(0.0));
        let d_tokens = decoder.backward(&tape, size, &d_scores, &mut gradient);

        let step = 1e-2;
        let slopes = (0..tokens.len()).map(|at| {
            let value = tokens[at];
            let [up, down] = [value + step, value - step].map(|moved| {
                tokens[at] = moved;
                weighted(&decoder.scores(&tokens, &image, size))
            });
            tokens[at] = value;
            ((up - down) / (2.0 * f64::from(step))) as f32
        });
        let slopes: Vec<f32> = slopes.collect();
        assert_within(2e-3, &d_tokens, &slopes, &format!("{config:?}: tokens"));
        for tensor in 0..decoder.tensors().len() {
            let slopes: Vec<f32> = (0..decoder.tensors()[tensor].len())
                .map(|at| {
                    let value = decoder.tensors()[tensor][at];
                    let mut moved = |to: f32| {
                        decoder.tensors_mut()[tensor][at] = to;
                        weighted(&decoder.scores(&tokens, &image, size))
                    };
                    let slope = (moved(value + step) - moved(value - step)) / (2.0 * f64::from(step));
                    moved(value);
                    slope as f32
                })
                .collect();
            let name = &decoder.tensor_shapes()[tensor].0;
            assert_within(2e-3, gradient.tensors()[tensor], &slopes, &format!("{config:?}: {name}"));
        }
    }
}

#[test]
fn enlarging_keeps_what_is_flat_and_its_way_back_is_its_transpose() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (from, to) in [(1, 5), (3, 3), (3, 12), (4, 9), (7, 3)] {
        let flat = enlarge(&vec![2.5; from * from * 2], 2, from, to);
        assert!(flat.iter().all(|&x| x == 2.5), "{from} to {to}");
        let (x, d) = (tiny::random(from * from * 2, 1.0, &mut rng), tiny::random(to * to * 2, 1.0, &mut rng));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let (there, back) = (dot(&enlarge(&x, 2, from, to), &d), dot(&x, &enlarge_backward(&d, 2, from, to)));
        assert!((there - back).abs() < 1e-4, "{from} to {to}: {there} and {back}");
    }
}
