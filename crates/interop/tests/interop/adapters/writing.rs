//! Folders are written whole or not at all, and nothing that stands there is lost.

use super::bench::{adapter, engine, take, temporary};
use melo_interop::{Error, Layout, write_peft};

#[test]
fn what_stands_there_is_not_replaced() {
    let engine = engine("timm");
    let plugin = take(&adapter("timm_qkv"), &*engine, None).unwrap().plugin;
    let folder = temporary();
    let write = |name: &str| write_peft(&folder.path().join(name), &plugin, engine.backbone().config(), Layout::Timm);
    std::fs::create_dir(folder.path().join("full")).unwrap();
    std::fs::write(folder.path().join("full/mine.txt"), "mine").unwrap();
    std::fs::write(folder.path().join("file"), "mine").unwrap();
    for name in ["full", "file"] {
        assert!(matches!(write(name), Err(Error::Occupied { .. })), "{name}");
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("full/mine.txt")).unwrap(), "mine");
    assert_eq!(std::fs::read_to_string(folder.path().join("file")).unwrap(), "mine");
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    write("empty").unwrap();
    assert!(write("no/such/folder").unwrap_err().to_string().contains("no/such/folder"));
    let left: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
}

#[test]
fn a_plug_in_that_is_not_finite_is_never_written() {
    let engine = engine("timm");
    let mut plugin = take(&adapter("timm_qkv"), &*engine, None).unwrap().plugin;
    plugin.head.weight[3] = f32::NAN;
    let folder = temporary();
    let out = folder.path().join("out");
    let error = write_peft(&out, &plugin, engine.backbone().config(), Layout::Timm).unwrap_err();
    assert!(error.to_string().contains("NaN"), "{error}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "nothing is left");
}
