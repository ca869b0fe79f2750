//! Files of features: what is in them, whatever happened on the way.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use melo_data::{Manifest, Split};
use melo_embed::{About, Embedder, Error, Event, Inputs, Output, Written, sidecars, write};
use melo_imaging::{Pixels, write_png};
use melo_npy::Header;
use melo_vit::{
    Checkpoint, Description, DeviceSpec, Engine, FeatureKind, Features, Precision, Preprocess, Storage, TensorFile,
    VitConfig, hex,
};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// More than two chunks.
const IMAGES: usize = 70;

fn config() -> VitConfig {
    VitConfig { depth: 2, width: 16, heads: 2, mlp_hidden: 24, patch: 4, image_size: 12, ..VitConfig::base() }
}

fn engine(precision: Precision) -> Arc<dyn Engine> {
    let description = Description { name: "tiny".to_owned(), config: config(), preprocess: Preprocess::base(12) };
    let spec = DeviceSpec { precision: Some(precision), threads: 2 };
    spec.open().load(Checkpoint::random(description, 7).freeze()).unwrap()
}

fn embedder(kind: FeatureKind) -> Embedder {
    Embedder::new(engine(Precision::F32), Features::new(kind, &config())).unwrap()
}

/// A folder of images, no two alike.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        for number in 0..IMAGES {
            let rgb = (0..16 * 14 * 3).map(|at| (at * 31 % 251 + number * 3) as u8).collect();
            write_png(&place.at(&format!("{number}.png")), &Pixels { width: 16, height: 14, rgb }).unwrap();
        }
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn inputs(&self) -> Inputs {
        Inputs::files((0..IMAGES).map(|number| self.at(&format!("{number}.png"))))
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.ends_with(".png")).collect();
        names.sort();
        names
    }
}

fn to(path: &Path) -> Output {
    Output::new(path, Storage::F32).unwrap()
}

/// Writes without being stopped, and hears nothing.
fn whole(embedder: &Embedder, inputs: &Inputs, output: &Path) -> Result<Written, Error> {
    write(embedder, inputs, &to(output), &AtomicBool::new(false), &mut |_| {})
}

/// Stops once so many images are done.
fn stopped(embedder: &Embedder, inputs: &Inputs, output: &Path, after: usize) -> Error {
    let stop = AtomicBool::new(false);
    let observer = &mut |event: Event<'_>| {
        if let Event::Done(done) = event {
            stop.store(done >= after, Ordering::Relaxed);
        }
    };
    write(embedder, inputs, &to(output), &stop, observer).unwrap_err()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn npy(path: &Path) -> (Header, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap();
    let mut rest = &bytes[..];
    let header = Header::read(&mut rest).unwrap();
    (header, rest.to_vec())
}

fn values(embedder: &Embedder, inputs: &Inputs) -> Vec<f32> {
    let embedded = embedder.embed(&inputs.images).unwrap();
    embedded.into_iter().flat_map(|image| image.unwrap().values).collect()
}

fn about_of(tensors: &Path) -> About {
    serde_json::from_str(&TensorFile::open(tensors).unwrap().metadata().unwrap()["melo.embed"]).unwrap()
}

/// The bytes of a tensor of bytes.
fn text_of(path: &Path, tensor: &str) -> String {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let offset = |at: usize| header[tensor]["data_offsets"][at].as_u64().unwrap() as usize + 8 + length;
    String::from_utf8(bytes[offset(0)..offset(1)].to_vec()).unwrap()
}

#[test]
fn an_array_holds_what_the_engine_gives_and_a_table_and_what_it_is_lie_beside() {
    let place = Place::new();
    for (kind, shape) in [
        (FeatureKind::Class, vec![70, 16]),
        (FeatureKind::Mean, vec![70, 16]),
        (FeatureKind::Grid, vec![70, 3, 3, 16]),
        (FeatureKind::Pooled, vec![70, 16]),
    ] {
        let (embedder, output) = (embedder(kind), place.at("features.npy"));
        whole(&embedder, &place.inputs(), &output).unwrap();
        let (header, bytes) = npy(&output);
        assert_eq!((header.descr.as_str(), header.shape), ("<f4", shape));
        assert_eq!(floats(&bytes), values(&embedder, &place.inputs()), "{kind}");
    }
    let about: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&sidecars(&place.at("features.npy"))[1]).unwrap()).unwrap();
    assert_eq!((&about["what"], &about["block"], &about["rows"]), (&"pooled".into(), &1.into(), &70.into()));
    assert_eq!(about["backbone"]["digest"], embedder(FeatureKind::Mean).engine().backbone().digest());
    let table = std::fs::read_to_string(&sidecars(&place.at("features.npy"))[0]).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    let digest = hex(&Sha256::digest(std::fs::read(place.at("69.png")).unwrap()));
    assert_eq!((lines.len(), lines[0]), (71, "row,path,digest"));
    assert_eq!(lines[70], format!("69,{},{digest}", place.at("69.png").display()));
    assert_eq!(place.names(), ["features.about.json", "features.npy", "features.rows.csv"]);
}

#[test]
fn safetensors_hold_the_same_with_the_table_as_a_tensor() {
    let (place, embedder) = (Place::new(), embedder(FeatureKind::Grid));
    let output = place.at("features.safetensors");
    whole(&embedder, &place.inputs(), &output).unwrap();
    let found = TensorFile::open(&output).unwrap().read("features", &[70, 3, 3, 16]).unwrap();
    assert_eq!(found, values(&embedder, &place.inputs()));
    let array = place.at("features.npy");
    whole(&embedder, &place.inputs(), &array).unwrap();
    assert_eq!(text_of(&output, "rows"), std::fs::read_to_string(&sidecars(&array)[0]).unwrap());
    let about = about_of(&output);
    assert_eq!((about.rows, about.images, about.failed, about.dtype.as_str()), (70, 70, 0, "f32"));
    assert_eq!((about.what, about.shape), (FeatureKind::Grid, vec![3, 3, 16]));
}

#[test]
fn half_precision_is_the_same_rounded() {
    let (place, embedder) = (Place::new(), embedder(FeatureKind::Mean));
    let expected: Vec<u8> =
        values(&embedder, &place.inputs()).into_iter().flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect();
    for name in ["half.npy", "half.safetensors"] {
        let output = Output::new(&place.at(name), Storage::F16).unwrap();
        write(&embedder, &place.inputs(), &output, &AtomicBool::new(false), &mut |_| {}).unwrap();
    }
    let (header, bytes) = npy(&place.at("half.npy"));
    assert_eq!((header.descr.as_str(), bytes), ("<f2", expected));
    let found = TensorFile::open(&place.at("half.safetensors")).unwrap().read("features", &[70, 16]).unwrap();
    for (found, exact) in found.iter().zip(values(&embedder, &place.inputs())) {
        assert_eq!(*found, half::f16::from_f32(exact).to_f32());
    }
}

#[test]
fn what_was_interrupted_goes_on_and_ends_with_the_same_bytes() {
    let (place, embedder) = (Place::new(), embedder(FeatureKind::Grid));
    std::fs::write(place.at("40.png"), b"none").unwrap();
    let endings: &[&str] =
        if cfg!(feature = "parquet") { &["npy", "safetensors", "parquet"] } else { &["npy", "safetensors"] };
    for ending in endings {
        let (straight, cut) = (place.at(&format!("straight.{ending}")), place.at(&format!("cut.{ending}")));
        whole(&embedder, &place.inputs(), &straight).unwrap();
        for (after, torn) in [(1, false), (64, true)] {
            let error = stopped(&embedder, &place.inputs(), &cut, after);
            assert!(matches!(error, Error::Interrupted { done: 32 | 64, of: 70, .. }), "{error}");
            assert!(!cut.exists());
            if torn {
                // A kill between values, table and journal.
                let partial = place.at(&format!("cut.{ending}.partial"));
                for name in ["values", "rows.csv"] {
                    let mut bytes = std::fs::read(partial.join(name)).unwrap();
                    bytes.extend(b"half a row");
                    std::fs::write(partial.join(name), bytes).unwrap();
                }
            }
            let mut resumed = 0;
            let observer = &mut |event: Event<'_>| {
                if let Event::Resumed { done } = event {
                    resumed = done;
                }
            };
            let written = write(&embedder, &place.inputs(), &to(&cut), &AtomicBool::new(false), observer).unwrap();
            assert_eq!((written.resumed, resumed), (if torn { 64 } else { 32 }, written.resumed));
            assert_eq!((written.about.rows, written.failed.len()), (69, 1));
            assert!(std::fs::read(&cut).unwrap() == std::fs::read(&straight).unwrap(), "{ending}");
            for (cut, straight) in sidecars(&cut).iter().zip(sidecars(&straight)) {
                assert_eq!(std::fs::read_to_string(cut).unwrap(), std::fs::read_to_string(straight).unwrap());
            }
            std::fs::remove_file(&cut).unwrap();
        }
    }
    assert!(!place.names().iter().any(|name| name.ends_with("partial")), "{:?}", place.names());
}

#[test]
fn what_other_settings_or_images_left_is_begun_anew() {
    let place = Place::new();
    let output = place.at("features.npy");
    stopped(&embedder(FeatureKind::Grid), &place.inputs(), &output, 1);
    let written = whole(&embedder(FeatureKind::Mean), &place.inputs(), &output).unwrap();
    assert_eq!((written.resumed, written.about.rows), (0, 70));
    stopped(&embedder(FeatureKind::Mean), &place.inputs(), &output, 1);
    let mut fewer = place.inputs();
    fewer.images.remove(3);
    assert_eq!(whole(&embedder(FeatureKind::Mean), &fewer, &output).unwrap().resumed, 0);
    stopped(&embedder(FeatureKind::Mean), &fewer, &output, 1);
    std::fs::write(place.at("features.npy.partial/journal.json"), b"{}").unwrap();
    assert_eq!(whole(&embedder(FeatureKind::Mean), &fewer, &output).unwrap().resumed, 0);
    assert_eq!(npy(&output).1.len(), 69 * 16 * 4);
}

#[test]
fn an_image_that_cannot_be_read_is_told_and_the_others_stay_what_they_are() {
    let (place, embedder) = (Place::new(), embedder(FeatureKind::Mean));
    let all = values(&embedder, &place.inputs());
    std::fs::write(place.at("5.png"), b"\x89PNG\r\n\x1a\nbroken").unwrap();
    std::fs::remove_file(place.at("33.png")).unwrap();
    let mut told = Vec::new();
    let output = place.at("features.safetensors");
    let observer = &mut |event: Event<'_>| {
        if let Event::Failed(failed) = event {
            told.push(failed.clone());
        }
    };
    let written = write(&embedder, &place.inputs(), &to(&output), &AtomicBool::new(false), observer).unwrap();
    assert_eq!(told.iter().map(|failed| failed.row).collect::<Vec<_>>(), [5, 33]);
    assert!(told.iter().all(|failed| failed.reason.contains(&failed.path)), "{told:?}");
    assert_eq!(written.failed, told);
    let found = TensorFile::open(&output).unwrap().read("features", &[68, 16]).unwrap();
    let kept = all.chunks(16).enumerate().filter(|(row, _)| ![5, 33].contains(row)).flat_map(|(_, values)| values);
    assert_eq!(found, kept.copied().collect::<Vec<_>>());
    assert!(text_of(&output, "rows").lines().nth(6).unwrap().starts_with("6,"));
    assert_eq!(serde_json::from_str::<Vec<melo_embed::Failed>>(&text_of(&output, "failed")).unwrap(), told);

    let array = place.at("features.npy");
    whole(&embedder, &place.inputs(), &array).unwrap();
    let about: serde_json::Value = serde_json::from_slice(&std::fs::read(&sidecars(&array)[1]).unwrap()).unwrap();
    assert_eq!(about["failed_images"][1]["row"], 33);
    let none = Inputs::files([place.at("5.png"), place.at("33.png")]);
    let error = whole(&embedder, &none, &place.at("none.npy")).unwrap_err();
    assert_eq!(error.to_string(), "none of 2 images could be read");
    assert!(!place.names().iter().any(|name| name.starts_with("none")), "{:?}", place.names());
}

#[test]
fn a_manifest_gives_lines_patients_splits_and_labels() {
    let (place, embedder) = (Place::new(), embedder(FeatureKind::Mean));
    std::fs::write(
        place.at("labels.csv"),
        "path,split,label,patient_id\n3.png,test,a,p1\n1.png,train,b,p2\n2.png,test,\"b, or c\",p1\n",
    )
    .unwrap();
    std::fs::write(place.at("findings.csv"), "path,Edema,Effusion\n3.png,1,0\n1.png,0,1\n").unwrap();
    let rows = |manifest: &str, split| {
        let inputs = Inputs::manifest(&Manifest::read(&place.at(manifest)).unwrap(), split).unwrap();
        whole(&embedder, &inputs, &place.at("features.npy")).unwrap();
        let table = std::fs::read_to_string(place.at("features.rows.csv")).unwrap();
        let without_digest = |line: &str| {
            let mut fields: Vec<&str> = line.splitn(4, ',').collect();
            fields.remove(2);
            fields.join(",")
        };
        table.lines().map(without_digest).collect::<Vec<_>>()
    };
    assert_eq!(
        rows("labels.csv", None),
        [
            "row,path,line,patient_id,split,label",
            "0,3.png,2,p1,test,a",
            "1,1.png,3,p2,train,b",
            "2,2.png,4,p1,test,\"b, or c\""
        ]
    );
    assert_eq!(rows("labels.csv", Some(Split::Test)).len(), 3);
    assert_eq!(
        rows("findings.csv", None),
        ["row,path,line,patient_id,split,label_Edema,label_Effusion", "0,3.png,2,,,1,0", "1,1.png,3,,,0,1"]
    );
    let manifest = Manifest::read(&place.at("labels.csv")).unwrap();
    let error = Inputs::manifest(&manifest, Some(Split::Val)).unwrap_err().to_string();
    assert!(error.contains("labels.csv") && error.contains("val"), "{error}");
}

#[test]
fn a_list_names_images_from_its_folder() {
    let place = Place::new();
    std::fs::write(place.at("tiles.txt"), "3.png\r\n\n  1.png\n").unwrap();
    let inputs = Inputs::list(&place.at("tiles.txt")).unwrap();
    let named: Vec<(&str, &Path)> = inputs.images.iter().map(|i| (i.name.as_str(), i.path.as_path())).collect();
    assert_eq!(named, [("3.png", &*place.at("3.png")), ("1.png", &*place.at("1.png"))]);
    std::fs::write(place.at("empty.txt"), "\n \n").unwrap();
    std::fs::write(place.at("bytes.txt"), b"\xff\xfe3.png").unwrap();
    for (name, words) in [("empty.txt", "names no image"), ("bytes.txt", "UTF-8"), ("gone.txt", "No such file")] {
        let error = Inputs::list(&place.at(name)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(words), "{error}");
    }
}

#[test]
fn precision_is_said_and_near() {
    let place = Place::new();
    let features = Features::new(FeatureKind::Mean, &config());
    let exact = values(&embedder(FeatureKind::Mean), &place.inputs());
    let largest = exact.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    // As for logits in the golden tests: a factor is off by up to 2⁻⁸.
    for (precision, tolerance) in [(Precision::Bf16, 0.03), (Precision::Bf16x3, 1e-4)] {
        let rounded = Embedder::new(engine(precision), features).unwrap();
        let output = place.at("features.safetensors");
        let about = whole(&rounded, &place.inputs(), &output).unwrap().about;
        assert_eq!(about.precision, precision);
        let found = TensorFile::open(&output).unwrap().read("features", &[70, 16]).unwrap();
        for (found, exact) in found.iter().zip(&exact) {
            assert!((found - exact).abs() <= tolerance * largest, "{precision}: {found} for {exact}");
        }
    }
}

#[test]
fn outputs_that_cannot_be_are_refused_by_name() {
    let place = Place::new();
    for name in ["features.csv", "features"] {
        let error = Output::new(&place.at(name), Storage::F32).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(".npy, .safetensors or .parquet"), "{error}");
    }
    let parquet = Output::new(&place.at("features.parquet"), Storage::F32);
    match cfg!(feature = "parquet") {
        true => {
            parquet.unwrap();
            let error = Output::new(&place.at("features.parquet"), Storage::F16).unwrap_err();
            assert!(matches!(error, Error::ParquetF16 { .. }), "{error}");
        }
        false => assert!(matches!(parquet.unwrap_err(), Error::NoParquet { .. })),
    }
}

#[test]
fn two_processes_do_not_write_one_output() {
    let (place, embedder) = (Place::new(), embedder(FeatureKind::Mean));
    let output = place.at("features.npy");
    stopped(&embedder, &place.inputs(), &output, 1);
    let held = std::fs::File::open(place.at("features.npy.partial/values")).unwrap();
    held.lock().unwrap();
    let error = whole(&embedder, &place.inputs(), &output).unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    drop(held);
    assert_eq!(whole(&embedder, &place.inputs(), &output).unwrap().resumed, 32);
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_holds_the_same_by_column() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;

    let (place, embedder) = (Place::new(), embedder(FeatureKind::Grid));
    std::fs::write(place.at("labels.csv"), "path,Edema,Effusion\n3.png,1,0\n1.png,0,1\nnone.png,1,1\n").unwrap();
    let manifest = Manifest::read(&place.at("labels.csv")).unwrap();
    let inputs = Inputs::manifest(&manifest, None).unwrap();
    let output = place.at("features.parquet");
    whole(&embedder, &inputs, &output).unwrap();
    let reader = SerializedFileReader::new(std::fs::File::open(&output).unwrap()).unwrap();
    let facts = reader.metadata().file_metadata().key_value_metadata().unwrap().clone();
    let fact = |key: &str| facts.iter().find(|fact| fact.key == key).and_then(|fact| fact.value.clone()).unwrap();
    assert_eq!(serde_json::from_str::<About>(&fact("melo.embed")).unwrap().rows, 2);
    assert!(fact("melo.failed").contains("none.png"));
    let mut expected = inputs.clone();
    expected.images.truncate(2);
    let expected = values(&embedder, &expected);
    for (number, row) in reader.get_row_iter(None).unwrap().enumerate() {
        let row = row.unwrap();
        assert_eq!(row.get_long(0).unwrap(), number as i64);
        assert_eq!(row.get_string(1).unwrap(), ["3.png", "1.png"][number]);
        assert_eq!((row.get_long(3).unwrap(), row.get_long(7).unwrap()), (number as i64 + 2, number as i64));
        let features = row.get_list(8).unwrap();
        let found: Vec<f32> = (0..features.len())
            .map(|at| {
                use parquet::record::ListAccessor;
                features.get_float(at).unwrap()
            })
            .collect();
        assert_eq!(found, expected[number * 144..(number + 1) * 144]);
    }
    assert_eq!(place.names(), ["features.parquet", "labels.csv"]);
}
