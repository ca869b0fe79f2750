//! A small backbone, plug-ins on it, a server on loopback, and what it should answer.

mod form;
pub(crate) mod peer;
#[allow(dead_code, reason = "a part of it is used here")]
#[path = "../../../../vit/tests/tiny/mod.rs"]
pub(crate) mod tiny;

pub(crate) use form::{Field, form};

use melo_imaging::{Pixels, encode_png};
use melo_predict::{Bag, BagImage, Predictor, Prepared};
use melo_serve::{BatchConfig, Config, Limits, RegistryConfig, Server, Service};
use melo_vit::{
    BackboneInfo, BagConfig, BagHead, BagPooling, Engine, LoraConfig, Plugin, Storage, Target, TaskCard, TaskKind,
};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Answers of one request may be computed in another batch than offline, where sums run in another order.
pub(crate) const CLOSE: f32 = 1e-5;

pub(crate) fn engine() -> Arc<dyn Engine> {
    tiny::engine(tiny::checkpoint(&tiny::config(), 7))
}

/// A plug-in of `task` with its self-test; another `seed` is another version.
pub(crate) fn plugin(engine: &dyn Engine, task: &str, seed: u64) -> Plugin {
    let lora = LoraConfig {
        rank: 2,
        alpha: 3.0,
        targets: vec![Target::Q, Target::V],
        blocks: (0..engine.backbone().config().depth).collect(),
        ..LoraConfig::none()
    };
    let mut plugin = tiny::plugin(engine.backbone(), &lora, 3, seed);
    let kind = if seed.is_multiple_of(2) { TaskKind::SingleLabel } else { TaskKind::MultiLabel };
    plugin.card = TaskCard { task: task.to_owned(), kind, ..plugin.card };
    plugin.finish(engine, Storage::F32).expect("the self-test runs");
    plugin
}

/// The plug-in's file.
pub(crate) fn file(backbone: &BackboneInfo, plugin: &Plugin) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plugin.safetensors");
    plugin.save(&path, backbone.config(), Storage::F32).expect("the plug-in is written");
    std::fs::read(&path).expect("the plug-in is read")
}

/// Writes a plug-in file as `NAME.safetensors`, at once.
pub(crate) fn put(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    std::fs::create_dir_all(folder).expect("a folder");
    let path = folder.join(format!("{name}.safetensors"));
    melo_vit::write_atomically(&path, bytes).expect("the file is written");
    path
}

/// A PNG that depends on `seed`.
pub(crate) fn image(seed: u64) -> Vec<u8> {
    let (width, height) = (20, 16);
    let value =
        |i: usize| (i as u64).wrapping_mul(2_654_435_761).wrapping_add(seed * 7_919_000_003).rotate_right(21) as u8;
    let pixels = Pixels { width, height, rgb: (0..width * height * 3).map(value).collect() };
    encode_png(&pixels).expect("a PNG")
}

/// What a plug-in says of an image, without any server.
pub(crate) fn expected(engine: &Arc<dyn Engine>, plugin: &Plugin, image: &[u8]) -> Vec<f32> {
    let prepared = Prepared::of_bytes(image, Path::new("image"), &[&plugin.card.preprocess], false);
    let prepared = prepared.expect("the image is read");
    let predictor = Predictor::new(Arc::clone(engine));
    let plugins = [predictor.bind(plugin.clone()).expect("it is calibrated for this")];
    let predictions = predictor.predict_prepared(&[&prepared], &plugins).expect("logits");
    predictions[0][0].decision.probabilities.clone()
}

pub(crate) fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    let close = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= CLOSE);
    assert!(close, "{what}: {found:?}, expected {expected:?}");
}

pub(crate) fn batches() -> BatchConfig {
    BatchConfig { max_batch: 8, max_wait: Duration::from_millis(2), queue: 256, ..BatchConfig::default() }
}

/// Settings of a server whose state is under `folder`, and its plug-ins in `folder/plugins`.
pub(crate) fn config(folder: &Path) -> Config {
    let plugins = folder.join("plugins");
    std::fs::create_dir_all(&plugins).expect("a folder");
    Config {
        plugins: Some(plugins),
        batches: batches(),
        limits: Limits {
            body_bytes: 1 << 20,
            images: 8,
            bag_images: 32,
            timeout: Duration::from_secs(30),
            decoders: 2,
            decode_bytes: 1 << 28,
        },
        ..Config::new(RegistryConfig {
            resident_bytes: 1 << 20,
            keep_versions: 2,
            ..RegistryConfig::new(folder.join("state"))
        })
    }
}

/// A server in a thread of its own.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    dicom: Option<SocketAddr>,
    pub(crate) service: Arc<Service>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(config: Config) -> Self {
        let (told, tell) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let server = Server::start(config, engine()).await.expect("the server starts");
                told.send((server.address(), server.dicom_address(), Arc::clone(server.service())))
                    .expect("the test waits");
                let stop = async { drop(stopped.await) };
                server.run(stop).await.expect("the server ends well");
            });
        });
        let (address, dicom, service) = tell.recv().expect("the server says where it is");
        Running { address, dicom, service, stop: Some(stop), thread: Some(thread) }
    }

    /// Asks it to stop and waits for its end.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server did not panic");
        }
    }

    /// Where the storage SCP listens.
    pub(crate) fn dicom(&self) -> SocketAddr {
        self.dicom.expect("the SCP listens")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        read(client().get(self.url(path)).call())
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let request = ureq::http::Request::builder().method(method).uri(self.url(path)).body(body);
        read(client().run(request.expect("a request")))
    }

    pub(crate) fn predict(&self, fields: &[Field<'_>]) -> (u16, Value) {
        let (kind, body) = form(fields);
        read(client().post(self.url("/v1/predict")).header("content-type", kind).send(&body[..]))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

pub(crate) fn client() -> ureq::Agent {
    let config =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60)));
    config.build().into()
}

pub(crate) fn read(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    let mut response = response.expect("the server answers");
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().expect("the answer is text");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// The probabilities of an answer, in the order of the head.
pub(crate) fn probabilities(answer: &Value) -> Vec<f32> {
    let values = answer["probabilities"].as_object().expect("probabilities");
    values.values().map(|value| value.as_f64().expect("a number") as f32).collect()
}

/// Waits until something holds; fails after ten seconds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never came: {what}");
}

/// [`plugin`], of bags: gated attention that knows the places of images.
pub(crate) fn bag_plugin(engine: &dyn Engine, task: &str, seed: u64) -> Plugin {
    let mut plugin = plugin(engine, task, seed);
    let config = BagConfig { pooling: BagPooling::GatedAttention, hidden: 7, positions: 4 };
    let mut bag = BagHead::init(config, engine.backbone().config().feature_width(), seed);
    // Far from even, so that order and weights show.
    bag.positions.iter_mut().zip(0..).for_each(|(p, at)| *p = ((at % 7) as f32 - 3.0) / 2.0);
    bag.score.iter_mut().for_each(|w| *w *= 8.0);
    (plugin.card.bag, plugin.bag) = (Some(config), Some(bag));
    plugin.finish(engine, Storage::F32).expect("the self-test runs");
    plugin
}

/// What a plug-in says of a bag of files, without any server: probabilities and attention.
pub(crate) fn expected_of_bag(engine: &Arc<dyn Engine>, plugin: &Plugin, images: &[PathBuf]) -> (Vec<f32>, Vec<f32>) {
    let predictor = Predictor::new(Arc::clone(engine));
    let bag = Bag { images: images.iter().map(BagImage::of_file).collect(), memory: None };
    let found = predictor.predict_bag(&bag, &predictor.bind(plugin.clone()).expect("at home")).expect("an answer");
    (found.decision.probabilities, found.attention)
}
