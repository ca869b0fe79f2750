//! Many plug-ins on one image are those plug-ins one by one, and what they share is computed once.

use crate::batches::{in_pool, plugins};
use crate::tiny;
use crate::variants::{assert_reordered, images, logits, pick, variants};
use melo_vit::{Backbone, Error, ImageBatch, ImageError, ImageSource, Plugin, Workspace};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Which plug-ins an image goes through, by their number.
const TASKS: [&[usize]; 7] = [&[0, 1, 2, 3, 4, 5, 6, 7], &[6], &[], &[3, 7], &[7, 6, 3, 3], &[0], &[2, 5, 0, 6]];

fn tasks(plugins: &[Arc<Plugin>], numbers: &[&[usize]]) -> Vec<Vec<Arc<Plugin>>> {
    numbers.iter().map(|numbers| numbers.iter().map(|&number| plugins[number].clone()).collect()).collect()
}

#[test]
fn many_tasks_on_an_image_equal_one_by_one() {
    for (what, config) in variants() {
        let backbone = Backbone::new(tiny::checkpoint(&config, 1));
        let plugins = plugins(&backbone);
        let departs: Vec<_> = plugins.iter().map(|plugin| plugin.adapter.first_block()).collect();
        assert!([None, Some(0), Some(1)].iter().all(|depart| departs.contains(depart)), "{departs:?}");
        let batch = images(TASKS.len(), config.image_size, 2);
        let alone =
            |image, plugin: &Plugin| logits(&backbone, &pick(&batch, [image]), Some(&plugin.adapter), &plugin.head);
        for group in [1, 2, 3, 8] {
            let workspace = Workspace::with_group(group);
            let tasks = tasks(&plugins, &TASKS);
            let found = backbone.forward_tasks(&batch, batch.size, &tasks, &workspace).expect("a batch of this size");
            assert_eq!(found.len(), TASKS.len());
            for (image, (found, tasks)) in found.iter().zip(&tasks).enumerate() {
                assert_eq!(found.len(), tasks.len());
                for (found, plugin) in found.iter().zip(tasks) {
                    // Held to the size of all of the plug-in's logits: a single one may be near zero.
                    let expected: Vec<f32> = (0..batch.len()).flat_map(|image| alone(image, plugin)).collect();
                    let classes = plugin.head.classes();
                    let mut whole = expected.clone();
                    whole[image * classes..(image + 1) * classes].copy_from_slice(found);
                    assert_reordered(&whole, &expected, &format!("{what}: group {group}, image {image}"));
                }
            }
        }
    }
}

#[test]
fn neither_threads_nor_memory_order_change_anything() {
    let backbone = Backbone::new(tiny::checkpoint(&tiny::config(), 1));
    let batch = images(TASKS.len(), 12, 2);
    let run = |threads, plugins: &[Arc<Plugin>]| {
        let tasks = tasks(plugins, &TASKS);
        let forward = || backbone.forward_tasks(&batch, 12, &tasks, &Workspace::default()).expect("one batch");
        in_pool(threads, forward)
    };
    let all = plugins(&backbone);
    let expected = run(1, &all);
    // The same plug-ins, made in the opposite order.
    let mut elsewhere: Vec<Arc<Plugin>> = all.iter().rev().map(|plugin| Arc::new((**plugin).clone())).collect();
    elsewhere.reverse();
    for threads in [1, 2, 3] {
        assert!(run(threads, &all) == expected && run(threads, &elsewhere) == expected, "{threads} threads");
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
    let backbone = Backbone::new(tiny::checkpoint(&tiny::config(), 1));
    let source = Counted::new(TASKS.len(), Some(2));
    let tasks = tasks(&plugins(&backbone), &TASKS);
    backbone.forward_tasks(&source, 12, &tasks, &Workspace::default()).expect("the broken image has no task");
    let loads: Vec<usize> = source.loads.iter().map(|loads| loads.load(Ordering::Relaxed)).collect();
    assert_eq!(loads, [1, 1, 0, 1, 1, 1, 1]);
}

#[test]
fn an_unreadable_image_is_named_and_no_task_is_no_answer() {
    let backbone = Backbone::new(tiny::checkpoint(&tiny::config(), 1));
    let source = Counted::new(TASKS.len(), Some(4));
    let tasks = tasks(&plugins(&backbone), &TASKS);
    let error = backbone.forward_tasks(&source, 12, &tasks, &Workspace::default()).expect_err("image 4 is broken");
    assert!(matches!(&error, Error::Image { index: 4, source } if source.to_string() == "truncated JPEG"), "{error}");
    let error = backbone.forward_tasks(&source, 13, &tasks, &Workspace::default()).expect_err("13 is not tiled by 4");
    assert!(matches!(error, Error::ImageSize { size: 13, patch: 4 }), "{error}");
    for tasks in [vec![], vec![vec![]; TASKS.len()]] {
        let none = backbone.forward_tasks(&source, 12, &tasks, &Workspace::default()).expect("nothing to do");
        assert_eq!(none, vec![Vec::<Vec<f32>>::new(); tasks.len()]);
    }
}
