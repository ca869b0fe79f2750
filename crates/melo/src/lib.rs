//! One frozen Vision Transformer, and for every clinical task a small plug-in: all of melo for a program.
//!
//! Train on a manifest, a CSV of images with labels:
//!
//! ```
//! # mod setup { include!("../tests/phantoms/mod.rs"); }
//! # let folder = setup::folder()?;
//! # std::env::set_current_dir(folder.path())?;
//! use melo::{DeviceSpec, Event, Job, Manifest, read_backbone};
//!
//! let backbone = read_backbone("vit.safetensors".as_ref())?;
//! let mut job = Job::new(DeviceSpec::default().open(), backbone, Manifest::read("fundus.csv".as_ref())?);
//! job.config.epochs = 2;
//! let finished = job.run(&mut |event| {
//!     if let Event::Epoch(row) = event {
//!         println!("epoch {}: validation AUC {:.3}", row.epoch, row.score());
//!     }
//! })?;
//! finished.save("fundus.safetensors".as_ref())?;
//! println!("test AUC {:.3}", finished.plugin.card.metrics["test_auc_macro"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Ask two tasks about one image; what they have in common is computed once:
//!
//! ```
//! # mod setup { include!("../tests/phantoms/mod.rs"); }
//! # let folder = setup::folder()?;
//! # std::env::set_current_dir(folder.path())?;
//! use melo::{DeviceSpec, Predictor, read_backbone};
//!
//! let engine = DeviceSpec::default().open().load(read_backbone("vit.safetensors".as_ref())?)?;
//! let predictor = Predictor::new(engine);
//! let tasks = [predictor.plugin("chest_film.safetensors")?, predictor.plugin("mammogram.safetensors")?];
//! for said in predictor.predict("film.png", &tasks)? {
//!     let (card, decision) = (&said.plugin.card, &said.decision);
//!     let best = decision.best();
//!     println!("{}: {} {:.2}", card.task, card.classes[best], decision.probabilities[best]);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Features of images, for a probe or a search (`melo embed` writes them to files, see [`embed::write`]):
//!
//! ```
//! # mod setup { include!("../tests/phantoms/mod.rs"); }
//! # let folder = setup::folder()?;
//! # std::env::set_current_dir(folder.path())?;
//! use melo::embed::{Embedder, Inputs};
//! use melo::{DeviceSpec, FeatureKind, Features, read_backbone};
//!
//! let engine = DeviceSpec::default().open().load(read_backbone("vit.safetensors".as_ref())?)?;
//! let features = Features { block: 5, ..Features::new(FeatureKind::Mean, engine.backbone().config()) };
//! let embedder = Embedder::new(engine, features)?;
//! for (image, embedded) in ["film.png", "0.png"].iter().zip(embedder.embed(&Inputs::files(["film.png", "0.png"]).images)?) {
//!     let embedded = embedded.map_err(|error| error.to_string())?;
//!     println!("{image}: {:?} of {}", embedder.shape(), embedded.digest);
//!     assert_eq!(embedded.values.len(), embedder.engine().backbone().config().width);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Serve every plug-in of a folder as a part of another application (feature `serve`):
//!
//! ```
//! # mod setup { include!("../tests/phantoms/mod.rs"); }
//! # let folder = setup::folder()?;
//! # std::env::set_current_dir(folder.path())?;
//! use melo::serve::{Application, Config, RegistryConfig};
//! use melo::{DeviceSpec, read_backbone};
//!
//! # #[cfg(feature = "serve")]
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let engine = DeviceSpec::default().open().load(read_backbone("vit.safetensors".as_ref())?)?;
//! let config = Config { plugins: Some("tasks".into()), ..Config::new(RegistryConfig::new("state")) };
//! let melo = Application::open(config, engine).await?;
//! let site = axum::Router::new().route("/", axum::routing::get("a ward's page")).nest("/melo", melo.router());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! # let address = listener.local_addr()?;
//! # let asking = tokio::task::spawn_blocking(move || setup::ask(address, stop));
//! let stopped = async { drop(stopped.await) };
//! axum::serve(listener, site).with_graceful_shutdown(stopped).await?;
//! melo.run(async {}).await;
//! # asking.await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod device;
mod opened;

#[cfg(feature = "archive")]
pub use melo_archive as archive;
#[cfg(feature = "cuda")]
pub use melo_cuda as cuda;
pub use melo_data as data;
pub use melo_embed as embed;
pub use melo_eval as eval;
pub use melo_imaging as imaging;
pub use melo_interop as interop;
pub use melo_log as log;
pub use melo_mpi as mpi;
pub use melo_predict as predict;
pub use melo_report as report;
#[cfg(feature = "serve")]
pub use melo_serve as serve;
pub use melo_share as share;
pub use melo_sign as sign;
pub use melo_study as study;
pub use melo_synthetic as synthetic;
pub use melo_train as train;
pub use melo_vit as vit;

pub use device::{DeviceName, UnknownDevice};
pub use melo_data::{Manifest, Split};
pub use melo_interop::{read_backbone, read_checkpoint};
pub use melo_predict::{Prediction, Predictor, Prepared};
pub use melo_train::{
    Answers, Event, Finished, Job, Method, MethodSettings, TrainConfig, figures, manifest_for, recalibrate,
};
pub use melo_vit::{
    Backbone, BackboneInfo, BoundPlugin, Calibration, Checkpoint, Decision, Device, DeviceSpec, Engine, ExplainMethod,
    FeatureKind, Features, Plugin, Precision, Preprocess, TaskCard, TaskKind,
};
pub use opened::{Opened, open_engine};
