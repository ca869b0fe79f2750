//! What the seam promises of every engine, tried on the processor's.

use crate::batches::{plugins, step};
use crate::tiny;
use crate::variants::{assert_reordered, images, logits, lora, variants};
use melo_vit::{
    Adapter, Cpu, Device, DeviceSpec, Engine, Error, ExplainMethod, Explanation, Gradients, Plugin, PluginRef,
    Precision, Segment, Storage, Target,
};

const METHODS: [ExplainMethod; 2] = [ExplainMethod::Rollout, ExplainMethod::Gradient];

#[test]
fn features_are_what_heads_read() {
    for (what, config) in variants() {
        let engine = tiny::engine(tiny::checkpoint(&config, 1));
        let head = tiny::head(3, &config, 4);
        let adapter = tiny::adapter(&lora(4, 2.0, &Target::ALL), &config, 3);
        let adapter = tiny::with_bottlenecks(adapter, 5, &[1], &config, 5);
        for (size, adapter) in [8, 12, 24].into_iter().flat_map(|size| [None, Some(&adapter)].map(|a| (size, a))) {
            let batch = images(5, size, 2);
            let features = engine.embed(&batch, 5, size, adapter).expect("a tiled size");
            assert_eq!(features.len(), 5 * config.feature_width(), "{what}");
            let by_hand = |features: &[f32]| -> Vec<f32> {
                let rows = head.weight.chunks_exact(features.len()).zip(&head.bias);
                let dot = |w: &[f32]| w.iter().zip(features).map(|(w, f)| f64::from(w * f)).sum::<f64>() as f32;
                rows.map(|(w, bias)| dot(w) + bias).collect()
            };
            let expected: Vec<f32> = features.chunks_exact(config.feature_width()).flat_map(by_hand).collect();
            let what = format!("{what} at {size}, adapted: {}", adapter.is_some());
            assert_reordered(&logits(&*engine, &batch, adapter, &head), &expected, &what);
        }
    }
}

#[test]
fn features_of_no_image_are_none_and_a_broken_one_is_named() {
    let engine = tiny::engine(tiny::checkpoint(&tiny::config(), 1));
    let batch = images(2, 12, 2);
    assert_eq!(engine.embed(&batch, 0, 12, None).expect("nothing to do"), [0f32; 0]);
    struct Broken;
    impl melo_vit::ImageSource for Broken {
        fn load(&self, index: usize, out: &mut [f32]) -> Result<(), melo_vit::ImageError> {
            out.fill(0.5);
            if index == 1 { Err("truncated JPEG".into()) } else { Ok(()) }
        }
    }
    let error = engine.embed(&Broken, 3, 12, None).expect_err("image 1 is broken");
    assert!(matches!(&error, Error::Image { index: 1, source } if source.to_string() == "truncated JPEG"), "{error}");
}

/// All that an engine says of some images under a plug-in.
#[derive(Debug, PartialEq)]
struct Answers {
    logits: Vec<f32>,
    shared: Vec<Vec<Vec<f32>>>,
    features: Vec<f32>,
    explanations: [Explanation; 2],
    loss: f64,
    gradients: Vec<Vec<f32>>,
}

fn answers(engine: &dyn Engine, plugin: &Plugin) -> Answers {
    let batch = images(5, 12, 2);
    let adapted = PluginRef::from(plugin);
    let bare = PluginRef { adapter: None, head: &plugin.head };
    let segments =
        [Segment { images: 0..2, plugins: vec![adapted, bare] }, Segment { images: 2..5, plugins: vec![adapted] }];
    let explain = |method| engine.explain(&batch.data[..3 * 12 * 12], 12, adapted, 1, method).expect("a tiled size");
    let (gradients, loss, _): (Gradients, _, _) = step(engine, &batch, (&plugin.adapter, &plugin.head), false);
    Answers {
        logits: logits(engine, &batch, Some(&plugin.adapter), &plugin.head),
        shared: engine.forward(&batch, 12, &segments).expect("a tiled size"),
        features: engine.embed(&batch, 5, 12, Some(&plugin.adapter)).expect("a tiled size"),
        explanations: METHODS.map(explain),
        loss,
        gradients: gradients.tensors().into_iter().cloned().collect(),
    }
}

#[test]
fn an_engine_with_other_weights_is_one_loaded_from_them() {
    for (what, config) in variants() {
        for precision in Precision::ALL {
            let [own, other] = [1, 2].map(|seed| tiny::checkpoint(&config, seed));
            let first = tiny::engine_of(own.clone(), precision, 2, 2);
            let plugin = tiny::plugin(first.backbone(), &lora(4, 2.0, &Target::ALL), 3, 2);
            let before = answers(&*first, &plugin);
            let second = first.with_weights(&other.weights).expect("other weights of the same network");
            let loaded = tiny::engine_of(other.clone(), precision, 2, 2);
            let expected = answers(&*loaded, &plugin);
            assert_ne!(expected, before, "{what}: the weights make no difference");
            for _ in 0..2 {
                // They share scratch memory: neither may see what the other left there.
                assert_eq!(answers(&*second, &plugin), expected, "{what} in {precision}");
                assert_eq!(answers(&*first, &plugin), before, "{what} in {precision}");
            }
            assert_eq!(second.info(), first.info());
            assert_eq!((first.backbone().digest(), loaded.backbone().digest()), (&*own.digest(), &*other.digest()));
            let (info, of_first) = (second.backbone(), first.backbone());
            assert_eq!((info.digest(), info.name(), info.config()), ("", of_first.name(), of_first.config()));
            drop(first);
            assert_eq!(answers(&*second, &plugin), expected, "{what}: the first one is gone");
        }
    }
}

#[test]
fn no_plugin_belongs_to_weights_in_training() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("task.safetensors");
    let mut checkpoint = tiny::checkpoint(&tiny::config(), 1);
    checkpoint.classifier = Some(tiny::head(3, &checkpoint.config, 4));
    let engine = tiny::engine(checkpoint.clone());
    let training = engine.with_weights(&checkpoint.weights).expect("its own weights");
    let plugin = tiny::plugin(engine.backbone(), &lora(2, 1.0, &[Target::Q]), 3, 2);
    plugin.save(&path, engine.backbone().config(), Storage::F32).expect("a folder to write to");
    Plugin::load(&path, engine.backbone()).expect("the backbone it was made for");
    let error = Plugin::load(&path, training.backbone()).expect_err("weights that change with every step");
    assert!(matches!(error, Error::BackboneMismatch { .. }), "{error}");
    assert!(engine.backbone().classifier().is_some() && training.backbone().classifier().is_none());
    assert!(
        Plugin::own_classifier(engine.backbone()).is_some() && Plugin::own_classifier(training.backbone()).is_none()
    );
}

#[test]
fn no_adapter_is_one_that_adapts_nothing() {
    for (what, config) in variants() {
        let engine = tiny::engine(tiny::checkpoint(&config, 1));
        let (head, none) = (tiny::head(3, &config, 4), Adapter::none(&config));
        let batch = images(3, 12, 2);
        let [bare, idle] = [None, Some(&none)].map(|adapter| PluginRef { adapter, head: &head });
        let forward = |plugins: &[PluginRef<'_>]| {
            engine.forward(&batch, 12, &[Segment { images: 0..3, plugins: plugins.to_vec() }]).expect("a tiled size")
        };
        assert_eq!(forward(&[bare]), forward(&[idle]), "{what}");
        assert_eq!(forward(&[bare, idle]), forward(&[idle, bare]), "{what}");
        assert_eq!(forward(&[bare, idle])[0][0], forward(&[bare, idle])[0][1], "{what}");
        let embed = |adapter| engine.embed(&batch, 3, 12, adapter).expect("a tiled size");
        assert_eq!(embed(None), embed(Some(&none)), "{what}");
        for method in METHODS {
            let explain = |plugin| engine.explain(&batch.data[..3 * 12 * 12], 12, plugin, 1, method);
            assert_eq!(explain(bare).expect("a tiled size"), explain(idle).expect("a tiled size"), "{what}");
        }
    }
}

#[test]
fn many_threads_may_ask_at_once() {
    for precision in Precision::ALL {
        let engine = tiny::engine_of(tiny::checkpoint(&tiny::config(), 1), precision, 2, 2);
        let plugins = plugins(engine.backbone());
        let several: Vec<&Plugin> = plugins.iter().filter(|plugin| plugin.head.rows() > 1).collect();
        let expected: Vec<Answers> = several.iter().map(|plugin| answers(&*engine, plugin)).collect();
        std::thread::scope(|scope| {
            for (at, (plugin, expected)) in several.iter().zip(&expected).enumerate() {
                let engine = &engine;
                scope.spawn(move || {
                    for _ in 0..3 {
                        assert_eq!(&answers(&**engine, plugin), expected, "plug-in {at} in {precision}");
                    }
                });
            }
        });
    }
}

#[test]
fn a_device_says_what_its_engines_say() {
    let checkpoint = tiny::checkpoint(&tiny::config(), 1);
    for (precision, threads) in Precision::ALL.into_iter().zip([1, 3, 0]) {
        let device = DeviceSpec { precision: Some(precision), threads }.open();
        let engine = device.load(checkpoint.clone().freeze()).expect("a processor computes every network");
        assert_eq!(engine.info(), device.info());
        assert_eq!((device.info().engine, device.info().precision), ("cpu", precision));
        assert!(if threads == 0 { device.info().threads > 0 } else { device.info().threads == threads });
        assert_eq!(engine.backbone().digest(), checkpoint.digest());
    }
    assert_eq!(DeviceSpec::default().open().info(), Cpu::new(Precision::F32).info());
    let fastest = DeviceSpec { precision: None, threads: 1 }.open().info();
    assert_eq!(fastest, Cpu::new(Precision::fastest()).with_threads(1).info());
}
