//! The plug-ins in `assets/phantoms` are those of the embedded backbone, and work.

use crate::workplace::embedded_backbone;
use melo::synthetic::Phantom;
use melo::vit::{Backbone, DeviceSpec, Plugin, Precision};

#[test]
fn every_phantom_s_plugin_passes_its_self_test() {
    for precision in Precision::ALL {
        let backbone = Backbone::read(&embedded_backbone()).expect("the embedded backbone");
        let device = DeviceSpec { precision: Some(precision), threads: 0 }.open();
        let engine = device.load(backbone).expect("an engine");
        for kind in Phantom::ALL {
            let path = embedded_backbone().with_file_name("phantoms").join(format!("{}.safetensors", kind.name()));
            let plugin = Plugin::load(&path, engine.backbone()).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((plugin.card.task.as_str(), plugin.card.classes.len()), (kind.name(), kind.classes().len()));
            plugin.self_test(&*engine).unwrap_or_else(|error| panic!("{precision}: {error}"));
        }
    }
}
