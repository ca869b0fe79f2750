//! Many plug-ins on one image are those plug-ins one by one, and what they share is computed once.

use crate::batches::plugins;
use crate::engines::held;
use crate::tiny;
use crate::variants::{assert_reordered, images, logits, pick, variants};
use melo_vit::{Error, ImageBatch, ImageError, ImageSource, Plugin, Precision, Segment};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Which plug-ins an image goes through, by their number.
const TASKS: [&[usize]; 7] = [&[0, 1, 2, 3, 4, 5, 6, 7], &[6], &[], &[3, 7], &[7, 6, 3, 3], &[0], &[2, 5, 0, 6]];

/// A segment an image, with the plug-ins of these numbers.
fn tasks<'a>(plugins: &[&'a Plugin], numbers: &[&[usize]]) -> Vec<Segment<'a>> {
    let segment = |(image, numbers): (usize, &&[usize])| Segment {
        images: image..image + 1,
        plugins: numbers.iter().map(|&number| plugins[number].into()).collect(),
    };
    numbers.iter().enumerate().map(segment).collect()
}

#[test]
fn many_tasks_on_an_image_equal_one_by_one() {
    // An image a segment; several images a segment; segments of no image, and of no task, among them.
    let lengths: [&[usize]; 4] = [&[1; 7], &[2, 3, 1, 4, 2, 0, 2], &[0, 1, 5, 0, 0, 3, 5], &[3, 0, 0, 0, 3, 8, 0]];
    for (what, config) in variants() {
        let checkpoint = tiny::checkpoint(&config, 1);
        let engine = tiny::engine(checkpoint.clone());
        let plugins = plugins(engine.backbone());
        let departs: Vec<_> = plugins.iter().map(|plugin| plugin.adapter.first_block()).collect();
        assert!([None, Some(0), Some(1)].iter().all(|depart| departs.contains(depart)), "{departs:?}");
        let batch = images(14, config.image_size, 2);
        let alone =
            |image, plugin: &Plugin| logits(&*engine, &pick(&batch, [image]), Some(&plugin.adapter), &plugin.head);
        let one_by_one = |plugin: &Plugin| (0..batch.len()).flat_map(|image| alone(image, plugin)).collect();
        let expected: Vec<Vec<f32>> = plugins.iter().map(one_by_one).collect();
        for (group, lengths) in [1, 2, 3, 8].into_iter().flat_map(|group| lengths.map(|lengths| (group, lengths))) {
            let engine = tiny::engine_of(checkpoint.clone(), Precision::F32, 2, group);
            let mut tasks = tasks(&plugins.iter().collect::<Vec<_>>(), &TASKS);
            let mut next = 0;
            for (segment, len) in tasks.iter_mut().zip(lengths) {
                segment.images = next..next + len;
                next += len;
            }
            let found = engine.forward(&batch, batch.size, &tasks).expect("a batch of this size");
            assert_eq!(found.len(), TASKS.len());
            for ((found, Segment { images, .. }), numbers) in found.iter().zip(&tasks).zip(TASKS) {
                assert_eq!(found.len(), numbers.len());
                for (found, &number) in found.iter().zip(numbers) {
                    // Held to the size of all of the plug-in's logits: a single one may be near zero.
                    let classes = plugins[number].head.rows();
                    let mut whole = expected[number].clone();
                    whole[images.start * classes..images.end * classes].copy_from_slice(found);
                    assert_reordered(&whole, &expected[number], &format!("{what}: group {group}, images {images:?}"));
                }
            }
        }
    }
}

#[test]
fn neither_threads_nor_memory_order_change_anything() {
    let checkpoint = tiny::checkpoint(&tiny::config(), 1);
    let batch = images(TASKS.len(), 12, 2);
    let run = |threads, plugins: &[&Plugin]| {
        let engine = tiny::engine_of(checkpoint.clone(), Precision::F32, threads, 2);
        engine.forward(&batch, 12, &tasks(plugins, &TASKS)).expect("one batch")
    };
    let all = plugins(tiny::engine(checkpoint.clone()).backbone());
    // The same plug-ins, which lie in memory in the opposite order.
    let reversed: Vec<Plugin> = all.iter().rev().cloned().collect();
    let (here, elsewhere): (Vec<_>, Vec<_>) = (all.iter().collect(), reversed.iter().rev().collect());
    let expected = run(1, &here);
    for threads in [1, 2, 3] {
        assert!(run(threads, &here) == expected && run(threads, &elsewhere) == expected, "{threads} threads");
    }
}

/// Counts how often images are asked for; `broken` cannot be read.
struct Counted {
    images: ImageBatch,
    loads: Vec<AtomicUsize>,
    broken: Option<usize>,
}

impl Counted {
    fn new(n: usize, broken: Option<usize>) -> Self {
        Counted { images: images(n, 12, 2), loads: (0..n).map(|_| AtomicUsize::new(0)).collect(), broken }
    }
}

impl ImageSource for Counted {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        self.loads[index].fetch_add(1, Ordering::Relaxed);
        if self.broken == Some(index) { Err("truncated JPEG".into()) } else { self.images.load(index, out) }
    }
}

#[test]
fn an_image_is_loaded_once_and_only_for_a_task() {
    for engine in held(&tiny::checkpoint(&tiny::config(), 1)) {
        let plugins = plugins(engine.backbone());
        let tasks = tasks(&plugins.iter().collect::<Vec<_>>(), &TASKS);
        for blocks in [&[][..], &[0, 1]] {
            let source = Counted::new(TASKS.len(), Some(2));
            engine.forward_intermediates(&source, 12, &tasks, blocks).expect("the broken image has no task");
            let loads: Vec<usize> = source.loads.iter().map(|loads| loads.load(Ordering::Relaxed)).collect();
            assert_eq!(loads, [1, 1, 0, 1, 1, 1, 1], "{blocks:?} on {}", engine.info().engine);
        }
    }
}

#[test]
fn an_unreadable_image_is_named_and_no_task_is_no_answer() {
    let engine = tiny::engine(tiny::checkpoint(&tiny::config(), 1));
    let source = Counted::new(TASKS.len(), Some(4));
    let plugins = plugins(engine.backbone());
    let asked = tasks(&plugins.iter().collect::<Vec<_>>(), &TASKS);
    let error = engine.forward(&source, 12, &asked).expect_err("image 4 is broken");
    assert!(matches!(&error, Error::Image { index: 4, source } if source.to_string() == "truncated JPEG"), "{error}");
    let error = engine.forward(&source, 13, &asked).expect_err("13 is not tiled by 4");
    assert!(matches!(error, Error::ImageSize { size: 13, patch: 4 }), "{error}");
    for asked in [vec![], tasks(&[], &[&[][..]; TASKS.len()])] {
        let none = engine.forward(&source, 12, &asked).expect("nothing to do");
        assert_eq!(none, vec![Vec::<Vec<f32>>::new(); asked.len()]);
    }
}
