//! A server's life: start, serve, drain.

use crate::audit::{Action, Audit, Head, REPLICA};
use crate::auth::Access;
use crate::batch::{BatchConfig, BatchQueue};
use crate::defaults::{BODY_BYTES, DECODE_BYTES, MAX_BAG_IMAGES, MAX_IMAGES, TIMEOUT};
use crate::dicom::{Dicom, DicomConfig};
use crate::error::Error;
use crate::http::{App, Bodies, Listener, router, starting};
use crate::journal::{Happened, Journal};
use crate::metrics::Metrics;
use crate::registry::{Folder, Registry, RegistryConfig};
use crate::replica::{self, host_name};
use crate::request::Limits;
use crate::service::Service;
use crate::syslog::Syslog;
use crate::traces::Traces;
use crate::trust::Trust;
use melo_predict::Predictor;
use melo_vit::Engine;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// How often the watched folder is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Time after [`Trust::drain`] for what is not a request.
const LAST: Duration = Duration::from_secs(1);

/// How often the audit's last hash is put into the log.
const ANCHOR: Duration = Duration::from_secs(600);

/// Everything that a server is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which of several servers of one service this is: its name in the audit.
    pub replica: String,
    /// Address and port to listen on.
    pub listen: String,
    /// Watched folder of plug-ins; none where only the admin API gives them.
    pub plugins: Option<PathBuf>,
    /// Plug-ins that come with the program: names for messages, and files.
    pub builtin: Vec<(&'static str, &'static [u8])>,
    /// Images that the page offers to try, by name.
    pub samples: Vec<(String, Vec<u8>)>,
    /// Batches and queue.
    pub batches: BatchConfig,
    /// Accepted plug-ins.
    pub registry: RegistryConfig,
    /// Bounds of a request.
    pub limits: Limits,
    /// Keys, encryption, records.
    pub trust: Trust,
    /// The DICOM network; none where there is none.
    pub dicom: Option<DicomConfig>,
}

impl Config {
    /// Loopback on any free port, no plug-ins, small bounds: something to change.
    pub fn new(registry: RegistryConfig) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Config {
            replica: host_name(),
            listen: "127.0.0.1:0".to_owned(),
            plugins: None,
            builtin: Vec::new(),
            samples: Vec::new(),
            batches: BatchConfig::default(),
            registry,
            limits: Limits {
                body_bytes: BODY_BYTES,
                images: MAX_IMAGES,
                bag_images: MAX_BAG_IMAGES,
                timeout: TIMEOUT,
                decoders: threads,
                decode_bytes: DECODE_BYTES,
            },
            trust: Trust::default(),
            dicom: None,
        }
    }
}

/// Everything that answers, without a port of its own: its routes can be part of another application.
pub struct Application {
    app: Arc<App>,
    folder: Option<Folder>,
    dicom: Option<Dicom>,
}

impl Application {
    /// Starts the queue before an engine and reads the plug-ins. Plug-ins that are refused are told in
    /// [`Registry::problems`], and the others are served. `config.listen`, and what [`Trust`] says of connections, is the
    /// business of whoever listens.
    ///
    /// # Errors
    /// Every [`Error`] but [`Error::Listen`].
    pub async fn open(config: Config, engine: Arc<dyn Engine>) -> Result<Self, Error> {
        Application::open_for(None, config, engine).await
    }

    /// For a server at `address`, which must not be open to anyone there by oversight.
    async fn open_for(address: Option<SocketAddr>, mut config: Config, engine: Arc<dyn Engine>) -> Result<Self, Error> {
        replica::check(&config.replica)?;
        let traces = config.trust.otlp_endpoint.as_deref().map(Traces::start).transpose()?;
        let metrics = Arc::new(Metrics::default());
        let (dicom, state) = (config.dicom.clone(), config.registry.state.clone());
        let samples = std::mem::take(&mut config.samples);
        let local = address.is_some_and(|address| address.ip().to_canonical().is_loopback());
        let hosts = local.then(|| config.trust.allowed_hosts.clone());
        // A plug-in that takes longer for an image than a request may would let all others time out.
        config.registry.self_test = (config.limits.timeout / 2).max(Duration::from_secs(1));
        let bodies = Bodies::new(config.limits.body_bytes, config.limits.timeout);
        let started = tokio::task::spawn_blocking(move || {
            let syslog = config.trust.syslog.as_ref();
            let syslog =
                syslog.map(|syslog| Syslog::start(syslog, &config.replica, Arc::clone(&metrics))).transpose()?;
            let checkpoints = config.trust.checkpoints.as_ref();
            let open = |path| Audit::open_as(&config.replica, path, checkpoints, syslog);
            let audit = config.trust.audit.as_deref().map(open).transpose()?.map(Arc::new);
            let journal = Journal::new(audit.clone(), &*engine);
            let access = Access::open(config.trust.keys.as_deref(), config.trust.oidc.as_ref(), &journal)?;
            if let Some(address) = address {
                config.trust.allows(address, &access)?;
            }
            journal.before(vec![(Action::Start, started(&config.replica))])?;
            let (engine_of, counts) = (Arc::clone(&engine), Arc::clone(&metrics));
            let registry = Arc::new(Registry::open(config.registry, engine_of, counts, audit.clone())?);
            let batches = BatchQueue::start(Predictor::new(engine), config.batches, Arc::clone(&metrics))?;
            for (name, bytes) in config.builtin {
                if let Err(refusal) = registry.accept(bytes, None, &format!("builtin:{name}"), |_| None) {
                    registry.problem(name, Some(refusal.to_string()));
                }
            }
            let mut folder = config.plugins.as_deref().map(Folder::new);
            if let Some(folder) = &mut folder {
                folder.look(&registry)?;
            }
            Ok::<_, Error>((Service::new(batches, registry, metrics, audit, config.limits), access, folder))
        });
        let samples = samples.into_iter().map(|(name, bytes)| (name, bytes.into())).collect();
        let (service, access, folder) = started.await.map_err(|error| Error::Settings(error.to_string()))??;
        let service = Arc::new(service);
        let dicom = dicom.map(|config| Dicom::start(&config, &state, Arc::clone(&service))).transpose()?;
        let inbox = dicom.as_ref().map(|dicom| Arc::clone(&dicom.spool));
        let hosts = hosts.filter(|_| access.is_open());
        let app = App { service, access, hosts, samples, bodies, traces, stopping: false.into(), inbox };
        Ok(Application { app: Arc::new(app), folder, dicom })
    }

    /// All routes: to be served, or nested under a path of another application's.
    pub fn router(&self) -> axum::Router {
        router(Arc::clone(&self.app))
    }

    /// Everything that answers.
    pub fn service(&self) -> &Arc<Service> {
        &self.app.service
    }

    /// Watches the folder of plug-ins until `stop` resolves, then finishes what was admitted: what an application that has
    /// these routes runs beside its own server.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let background = self.background();
        stop.await;
        background.stop(&self.app);
        background.end().await;
        self.drain().await;
    }

    /// Starts what goes on beside the requests.
    fn background(&mut self) -> Background {
        let (stopping, stopped) = watch::channel(false);
        let (app, folder) = (Arc::clone(&self.app), self.folder.take());
        let watching = folder.map(|folder| tokio::spawn(watch_folder(folder, app, stopped.clone())));
        Background { stopping, watching, anchoring: tokio::spawn(anchor(Arc::clone(&self.app), stopped)) }
    }

    /// Finishes what was admitted, and nothing more.
    async fn drain(self) {
        let Application { app, dicom, .. } = self;
        let drained = Arc::clone(&app);
        let drain = move || {
            dicom.into_iter().for_each(Dicom::stop);
            drained.service.batches.drain();
            drained.service.drift.save();
            if let Err(error) = drained.service.journal.before(vec![(Action::Stop, Happened::default())]) {
                tracing::error!(%error, "the end could not be recorded");
            }
        };
        let _ = tokio::task::spawn_blocking(drain).await;
        note_head(&app, None);
    }
}

/// Work beside the requests: the folder of plug-ins, and the audit's anchors in the log.
struct Background {
    stopping: watch::Sender<bool>,
    watching: Option<JoinHandle<()>>,
    anchoring: JoinHandle<()>,
}

impl Background {
    /// Asks it to end.
    fn stop(&self, app: &App) {
        tracing::info!("stopping: what was admitted is finished");
        app.stopping.store(true, Ordering::Relaxed);
        let _ = self.stopping.send(true);
    }

    async fn end(self) {
        for task in self.watching.into_iter().chain([self.anchoring]) {
            let _ = task.await;
        }
    }
}

/// An application that listens.
pub struct Server {
    application: Application,
    listener: Listener,
    address: SocketAddr,
    lame_duck: Duration,
}

impl Server {
    /// Opens the port, and the application behind it as [`Application::open`].
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn start(config: Config, engine: Arc<dyn Engine>) -> Result<Self, Error> {
        let address = config.listen.clone();
        let listen = |source| Error::Listen { address: address.clone(), source };
        let listener = TcpListener::bind(&config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let listener = Listener::new(listener, &config.trust)?;
        let (lame_duck, (opened, open)) = (config.trust.lame_duck, oneshot::channel::<()>());
        let application = async {
            let application = Application::open_for(Some(address), config, engine).await;
            drop(opened);
            application
        };
        let meanwhile = listener.serve_meanwhile(starting(), async { drop(open.await) });
        let (application, ()) = tokio::join!(application, meanwhile);
        Ok(Server { application: application?, listener, address, lame_duck })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it speaks TLS.
    pub fn is_encrypted(&self) -> bool {
        self.listener.is_encrypted()
    }

    /// Where the storage SCP listens, if it does.
    pub fn dicom_address(&self) -> Option<SocketAddr> {
        self.application.dicom.as_ref().and_then(Dicom::address)
    }

    /// Everything that answers.
    pub fn service(&self) -> &Arc<Service> {
        self.application.service()
    }

    /// Serves until `stop` resolves, says that it is not ready and goes on serving for [`Trust::lame_duck`], then finishes what was
    /// admitted as far as [`Trust::drain`] and a second more go. Work that may still run in threads then is nobody's: who started
    /// the runtime need not wait for it.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        let Server { mut application, listener, lame_duck, .. } = self;
        let background = application.background();
        let (dicom, drain) = (application.dicom.take(), listener.drain());
        let (stopping, stopped) = oneshot::channel();
        let stop = async {
            stop.await;
            if !lame_duck.is_zero() {
                tracing::info!(seconds = lame_duck.as_secs(), "not ready any more, and still answering");
                application.app.stopping.store(true, Ordering::Relaxed);
                tokio::time::sleep(lame_duck).await;
            }
            background.stop(&application.app);
            let dicom = dicom.map(|dicom| tokio::task::spawn_blocking(move || dicom.stop()));
            let _ = stopping.send((Instant::now(), dicom));
        };
        listener.serve(application.router(), stop).await;
        let (since, dicom) = stopped.await.unwrap_or_else(|_| (Instant::now(), None));
        let rest = async {
            background.end().await;
            if let Some(dicom) = dicom {
                let _ = dicom.await;
            }
            application.drain().await;
        };
        if tokio::time::timeout((drain + LAST).saturating_sub(since.elapsed()), rest).await.is_err() {
            tracing::warn!("work that was begun is not finished in time and is given up");
        }
        Ok(())
    }
}

/// Puts the audit's last hash into the log now and then. Logs are kept elsewhere, where nobody who changes the audit
/// can change it.
async fn anchor(app: Arc<App>, mut stopped: watch::Receiver<bool>) {
    let mut noted = note_head(&app, None);
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            () = tokio::time::sleep(ANCHOR) => noted = note_head(&app, noted),
        }
    }
}

fn note_head(app: &App, noted: Option<Head>) -> Option<Head> {
    let head = app.service.audit.as_ref()?.head();
    if noted.as_ref() != Some(&head) {
        tracing::info!(rows = head.rows, head = %head, "audit");
    }
    Some(head)
}

/// What is recorded of a beginning.
fn started(replica: &str) -> Happened {
    Happened {
        output: serde_json::json!({ "software": concat!("melo ", env!("CARGO_PKG_VERSION")), REPLICA: replica }),
        ..Happened::default()
    }
}

async fn watch_folder(mut folder: Folder, app: Arc<App>, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let registry = Arc::clone(&app.service.registry);
        let looked = tokio::task::spawn_blocking(move || {
            let result = folder.look(&registry);
            (folder, result)
        });
        match looked.await {
            Ok((back, result)) => {
                folder = back;
                if let Err(error) = result {
                    tracing::warn!(%error, "the folder of plug-ins cannot be read");
                }
            }
            Err(_) => return,
        }
    }
}
