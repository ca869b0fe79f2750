use super::*;
use crate::checkpoint::{Checkpoint, Description};
use crate::device_spec::DeviceSpec;
use crate::head::Head;
use crate::image::ImageBatch;
use crate::{Adapter, Batch, Error, Gradients, LoraConfig, PluginRef, Pool, Precision, Target, VitConfig};
use melo_kernels::cross_entropy;
use std::cell::Cell;
use tempfile::TempDir;

const ROOM: u64 = 1 << 30;

/// A folder for the cache, and a checkpoint's file beside it that was not changed just now.
struct Place {
    folder: TempDir,
    weights: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("weights").join("vit.safetensors");
        fs::create_dir(weights.parent().unwrap()).unwrap();
        let place = Place { folder, weights };
        place.change("first");
        place
    }

    fn change(&self, content: &str) {
        fs::write(&self.weights, content).unwrap();
        std::thread::sleep(RACY + Duration::from_millis(100));
    }

    fn cache(&self, bytes: u64) -> PackedCache {
        PackedCache::open(&self.folder.path().join("cache"), bytes).unwrap()
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path().join("cache")).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|found| found == extension));
        files
    }
}

fn checkpoint(seed: u64) -> Checkpoint {
    let mut checkpoint = Checkpoint::random(Description::named("vit_tiny_patch16_32").unwrap(), seed);
    checkpoint.classifier = Some(Head::random(3, 192, seed));
    // Against one number a thousand times as large as the others these are rounded to nothing.
    let block = &mut checkpoint.weights.blocks[0];
    block.norm1.gamma[0] = 1000.0;
    block.qkv.weight.iter_mut().step_by(192).for_each(|x| *x = 0.0);
    checkpoint
}

fn device(precision: Precision) -> Arc<dyn Device> {
    DeviceSpec { precision: Some(precision), threads: 1 }.open()
}

/// Loads it, keeps what is not kept yet; tells whether the checkpoint was read, and whether its weights were packed.
fn load(cache: &PackedCache, place: &Place, precision: Precision, seed: u64) -> (Arc<dyn Engine>, bool, bool) {
    let read = Cell::new(false);
    let from = || {
        read.set(true);
        Ok::<_, Error>((checkpoint(seed).freeze(), true))
    };
    let (engine, unkept) = cache.load(&*device(precision), (&place.weights, ""), from).unwrap();
    let packed = unkept.is_some();
    unkept.into_iter().for_each(|unkept| unkept.keep().unwrap());
    (engine, read.get(), packed)
}

fn logits(engine: &dyn Engine) -> Vec<u32> {
    let head = engine.backbone().classifier().unwrap();
    let plugin = PluginRef { adapter: None, head };
    let logits = engine.logits(&ImageBatch::random(2, 32, 5), 2, 32, plugin).unwrap();
    logits.into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_mapped_network_answers_as_the_packed_one_to_the_last_bit() {
    let place = Place::new();
    let cache = place.cache(ROOM);
    for precision in Precision::ALL {
        let (packed, read, missed) = load(&cache, &place, precision, 1);
        assert!(read && missed, "{precision}");
        let (mapped, read, missed) = load(&cache, &place, precision, 1);
        assert!(!read && !missed, "{precision}");
        assert_eq!(logits(&*packed), logits(&*mapped), "{precision}");
        assert_eq!(packed.layer_errors(), mapped.layer_errors(), "{precision}");
        assert_eq!(packed.backbone().digest(), mapped.backbone().digest());
        assert_eq!(packed.backbone().description(), mapped.backbone().description());
        assert_eq!(packed.backbone().classifier(), mapped.backbone().classifier());
        let head = mapped.backbone().classifier().unwrap();
        let image = &ImageBatch::random(1, 32, 5).data;
        let [a, b] = [&packed, &mapped].map(|engine| {
            let plugin = PluginRef { adapter: None, head };
            engine.explain(image, 32, plugin, 1, crate::ExplainMethod::Gradient)
        });
        assert_eq!(format!("{a:?}"), format!("{b:?}"), "{precision}: gradients");
    }
    let (int8, ..) = load(&cache, &place, Precision::Int8, 1);
    let inside = int8.layer_errors().iter().filter(|layer| layer.integers).count();
    assert!(!int8.layer_errors()[0].integers && inside > 0, "one layer is kept out of integers");
}

#[test]
fn every_part_of_a_network_is_kept() {
    let Description { name, config, preprocess } = Description::named("vit_tiny_patch16_32").unwrap();
    let small = VitConfig { depth: 2, width: 48, mlp_hidden: 64, ..config };
    let of_pooling = VitConfig {
        class_token: false,
        registers: 2,
        register_positions: true,
        qk_norm: true,
        pool: Pool::Map,
        ..small.clone()
    };
    let of_positions = VitConfig {
        pos_embed: false,
        relative_positions: true,
        layer_scale: true,
        swiglu: true,
        attn_norm: true,
        mlp_norm: true,
        pool: Pool::Avg,
        norm: false,
        fc_norm: true,
        ..small.clone()
    };
    for config in [of_pooling, of_positions, VitConfig { distilled: true, pre_norm: true, ..small }] {
        let what = format!("{config:?}");
        let description = Description { name: name.clone(), config, preprocess: preprocess.clone() };
        let mut checkpoint = Checkpoint::random(description, 1);
        for (i, values) in checkpoint.weights.tensors_mut().into_iter().enumerate() {
            values.iter_mut().for_each(|x| *x += 0.1 * (i as f32).sin());
        }
        checkpoint.classifier = Some(Head::random(3, checkpoint.config.feature_width(), 1));
        let (place, device) = (Place::new(), device(Precision::F32));
        let cache = place.cache(ROOM);
        let load = || {
            let from = || Ok::<_, Error>((checkpoint.clone().freeze(), true));
            cache.load(&*device, (&place.weights, ""), from).unwrap()
        };
        let (packed, unkept) = load();
        unkept.expect("packed").keep().unwrap();
        let (mapped, unkept) = load();
        assert!(unkept.is_none(), "{what}");
        assert_eq!(logits(&*packed), logits(&*mapped), "{what}");
    }
}

/// Gradients of a step, in bits.
fn gradients(engine: &dyn Engine) -> Vec<u32> {
    let config = engine.backbone().config();
    let lora = LoraConfig {
        rank: 2,
        alpha: 2.0,
        targets: vec![Target::Q, Target::Fc2],
        blocks: vec![1, 3],
        ..LoraConfig::none()
    };
    let (adapter, head) = (Adapter::random(&lora, config, 1), engine.backbone().classifier().unwrap());
    let loss = |_: usize, logits: &[f32], d: &mut [f32]| cross_entropy(logits, 1, 0.0, &[], 1.0, d);
    let batch = Batch { source: &ImageBatch::random(2, 32, 5), images: 2, size: 32, loss: &loss, dropout: None };
    let mut gradients = Gradients::zeros(&adapter, head, config, false);
    engine.step(&batch, &adapter, head, &mut gradients).unwrap();
    gradients.tensors().into_iter().flatten().map(|x| x.to_bits()).collect()
}

#[test]
fn what_training_packs_is_neither_kept_nor_missing_in_a_mapped_network() {
    let place = Place::new();
    let cache = place.cache(ROOM);
    for precision in Precision::ALL {
        let (engine, unkept) = cache
            .load(&*device(precision), (&place.weights, ""), || Ok::<_, Error>((checkpoint(1).freeze(), true)))
            .unwrap();
        let before = logits(&*engine);
        let expected = gradients(&*engine);
        assert!(expected.iter().any(|&bits| f32::from_bits(bits) != 0.0), "{precision}");
        unkept.unwrap().keep().unwrap();
        let (mapped, read, missed) = load(&cache, &place, precision, 1);
        assert!(!read && !missed, "{precision}");
        assert_eq!((logits(&*mapped), logits(&*engine)), (before.clone(), before), "{precision}");
        assert_eq!(gradients(&*mapped), expected, "{precision}");
    }
}

#[test]
fn a_file_that_is_torn_flipped_or_foreign_is_written_anew() {
    let place = Place::new();
    let cache = place.cache(ROOM);
    let expected = logits(&*load(&cache, &place, Precision::Bf16, 1).0);
    let [path] = place.files(PACKED).try_into().unwrap();
    let good = fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let replaced = |from: &str, to: &str| {
        let at = good.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        let length = u32::from_le_bytes(*bytes[8..].first_chunk().unwrap()) as usize;
        let checksum = crc32fast::hash(&bytes[16..16 + length]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    };
    let cases = [
        ("empty", Vec::new()),
        ("prefix", good[..10].to_vec()),
        ("header", good[..200].to_vec()),
        ("half", good[..good.len() / 2].to_vec()),
        ("last byte", good[..good.len() - 1].to_vec()),
        ("longer", [good.as_slice(), &[0; 64]].concat()),
        ("magic", flipped(0)),
        ("length", flipped(11)),
        ("in the header", flipped(40)),
        ("in the middle", flipped(good.len() / 2)),
        ("at the end", flipped(good.len() - 1)),
        ("foreign", b"not ours, and long enough to have a header".to_vec()),
        ("other version", replaced("-v3\"", "-v0\"")),
        ("other network", replaced("\"width\":192", "\"width\":999")),
        ("deeper", replaced("\"depth\":12", "\"depth\":99")),
    ];
    for (what, bytes) in cases {
        fs::write(&path, bytes).unwrap();
        let (engine, read, missed) = load(&cache, &place, Precision::Bf16, 1);
        assert!(read && missed, "{what}");
        assert_eq!(logits(&*engine), expected, "{what}");
        assert!(fs::read(&path).unwrap() == good, "{what}: written anew, the same bytes");
    }
}

#[test]
fn a_changed_checkpoint_of_the_same_path_has_its_own_answers() {
    let place = Place::new();
    let cache = place.cache(ROOM);
    let (first, ..) = load(&cache, &place, Precision::F32, 1);
    place.change("other");
    let (second, read, missed) = load(&cache, &place, Precision::F32, 2);
    assert!(read && missed);
    assert_ne!(logits(&*first), logits(&*second));
    assert_eq!(place.files(PACKED).len(), 2);
    // A file that describes it, too.
    fs::write(place.weights.with_extension("json"), "{}").unwrap();
    assert!(load(&cache, &place, Precision::F32, 2).1);
}

#[test]
fn a_checkpoint_that_changed_just_now_is_read_every_time() {
    let place = Place::new();
    let cache = place.cache(ROOM);
    fs::write(&place.weights, "again").unwrap();
    let (_, read, missed) = load(&cache, &place, Precision::F32, 1);
    assert!(read && missed);
    assert_eq!(place.files(KEY).len(), 0);
    let (_, read, missed) = load(&cache, &place, Precision::F32, 1);
    assert!(read && !missed, "read again, and found by what it is");
}

#[test]
fn two_processes_write_the_same_file() {
    let place = Place::new();
    let cache = place.cache(ROOM);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| logits(&*load(&cache, &place, Precision::Bf16, 1).0))).collect();
        let answers: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(answers.windows(2).all(|two| two[0] == two[1]));
    });
    assert_eq!(place.files(PACKED).len(), 1);
    assert!(!load(&cache, &place, Precision::Bf16, 1).1);
}

#[test]
fn what_was_used_longest_ago_makes_room() {
    let place = Place::new();
    let cache = place.cache(ROOM);
    load(&cache, &place, Precision::F32, 1);
    let bytes = fs::metadata(&place.files(PACKED)[0]).unwrap().len();
    let (old, _, _) = load(&cache, &place, Precision::Bf16, 1);
    load(&cache, &place, Precision::F32, 1);
    let small = place.cache(bytes + bytes / 4);
    load(&small, &place, Precision::Int8, 1);
    let names: Vec<_> = place.files(PACKED).iter().map(|path| path.to_string_lossy().into_owned()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].contains("int8"), "{names:?}");
    assert_eq!(logits(&*old).len(), 6, "what is mapped stays");
}

#[cfg(unix)]
#[test]
fn a_folder_is_its_owner_s_alone() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let place = Place::new();
    let cache = place.cache(ROOM);
    load(&cache, &place, Precision::F32, 1);
    assert_eq!(fs::metadata(&cache.folder).unwrap().mode() & 0o777, 0o700);
    let [path] = place.files(PACKED).try_into().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
    assert!(load(&cache, &place, Precision::F32, 1).1, "others may have written it");
    fs::set_permissions(&cache.folder, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(PackedCache::open(&cache.folder, ROOM).is_err());
}

#[test]
fn a_folder_that_cannot_be_written_to_fails_nothing() {
    let place = Place::new();
    let cache = place.cache(ROOM);
    fs::remove_dir_all(&cache.folder).unwrap();
    let from = || Ok::<_, Error>((checkpoint(1).freeze(), true));
    let (engine, unkept) = cache.load(&*device(Precision::F32), (&place.weights, ""), from).unwrap();
    assert_eq!(logits(&*engine).len(), 6);
    assert!(unkept.unwrap().keep().is_err());
    assert!(PackedCache::open(&place.weights, ROOM).is_err(), "a file is no folder");
}
