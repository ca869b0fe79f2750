//! A server's life: start, serve, drain.

use crate::audit::{Audit, Head};
use crate::auth::Access;
use crate::defaults::{BODY_BYTES, MAX_BATCH, MAX_IMAGES, MAX_WAIT, QUEUE, TIMEOUT};
use crate::dicom::{Dicom, DicomConfig};
use crate::engine::{Engine, EngineConfig};
use crate::error::Error;
use crate::http::{App, Bodies, Listener, router};
use crate::metrics::Metrics;
use crate::registry::{Folder, Registry, RegistryConfig};
use crate::service::{Limits, Service};
use crate::traces::Traces;
use crate::trust::Trust;
use melo_vit::Backbone;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How often the watched folder is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How often the audit's last hash is put into the log.
const ANCHOR: Duration = Duration::from_secs(600);

/// Everything that a server is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Address and port to listen on.
    pub listen: String,
    /// Watched folder of plug-ins; none where only the admin API gives them.
    pub plugins: Option<PathBuf>,
    /// Plug-ins that come with the program: names for messages, and files.
    pub builtin: Vec<(&'static str, &'static [u8])>,
    /// Images that the page offers to try, by name.
    pub samples: Vec<(String, Vec<u8>)>,
    /// Batches and queue.
    pub engine: EngineConfig,
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
            listen: "127.0.0.1:0".to_owned(),
            plugins: None,
            builtin: Vec::new(),
            samples: Vec::new(),
            engine: EngineConfig { max_batch: MAX_BATCH, max_wait: MAX_WAIT, queue: QUEUE, threads },
            registry,
            limits: Limits { body_bytes: BODY_BYTES, images: MAX_IMAGES, timeout: TIMEOUT, decoders: threads },
            trust: Trust::default(),
            dicom: None,
        }
    }
}

/// A server that listens.
pub struct Server {
    app: Arc<App>,
    listener: Listener,
    address: SocketAddr,
    folder: Option<Folder>,
    dicom: Option<Dicom>,
}

impl Server {
    /// Starts the engine, reads the plug-ins, opens the port. Plug-ins that are refused are told in
    /// [`Registry::problems`], and the others are served.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn start(mut config: Config, backbone: Backbone) -> Result<Self, Error> {
        let address = config.listen.clone();
        let listen = |source| Error::Listen { address: address.clone(), source };
        let listener = TcpListener::bind(&config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let listener = Listener::new(listener, &config.trust)?;
        let traces = config.trust.otlp_endpoint.as_deref().map(Traces::start).transpose()?;
        let metrics = Arc::new(Metrics::default());
        let (dicom, state) = (config.dicom.clone(), config.registry.state.clone());
        let samples = std::mem::take(&mut config.samples);
        let bodies = Bodies::new(config.limits.body_bytes, config.limits.timeout);
        let started = tokio::task::spawn_blocking(move || {
            let access = Access::open(config.trust.keys.as_deref(), config.trust.oidc.as_ref())?;
            config.trust.allows(address, &access)?;
            let audit = config.trust.audit.as_deref().map(Audit::open).transpose()?;
            let engine = Engine::start(Arc::new(backbone), config.engine, Arc::clone(&metrics))?;
            let registry = Arc::new(Registry::open(config.registry, &engine, Arc::clone(&metrics))?);
            for (name, bytes) in config.builtin {
                if let Err(refusal) = registry.accept(bytes, &format!("builtin:{name}"), |_| None) {
                    registry.problem(name, Some(refusal.to_string()));
                }
            }
            let mut folder = config.plugins.as_deref().map(Folder::new);
            if let Some(folder) = &mut folder {
                folder.look(&registry)?;
            }
            Ok::<_, Error>((Service::new(engine, registry, metrics, audit, config.limits), access, folder))
        });
        let samples = samples.into_iter().map(|(name, bytes)| (name, bytes.into())).collect();
        let (service, access, folder) = started.await.map_err(|error| Error::Settings(error.to_string()))??;
        let service = Arc::new(service);
        let dicom = dicom.map(|config| Dicom::start(&config, &state, Arc::clone(&service))).transpose()?;
        let inbox = dicom.as_ref().map(|dicom| Arc::clone(&dicom.spool));
        let app = App { service, access, samples, bodies, traces, ready: true.into(), inbox };
        Ok(Server { app: Arc::new(app), listener, address, folder, dicom })
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
        self.dicom.as_ref().and_then(Dicom::address)
    }

    /// Everything that answers.
    pub fn service(&self) -> &Arc<Service> {
        &self.app.service
    }

    /// Serves until `stop` resolves, then finishes what was admitted.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        let Server { app, listener, folder, dicom, .. } = self;
        let (stopping, stopped) = watch::channel(false);
        let watching = folder.map(|folder| tokio::spawn(watch_folder(folder, Arc::clone(&app), stopped.clone())));
        let anchoring = tokio::spawn(anchor(Arc::clone(&app), stopped));
        let at_stop = Arc::clone(&app);
        let stop = async move {
            stop.await;
            tracing::info!("stopping: what was admitted is finished");
            at_stop.ready.store(false, Ordering::Relaxed);
            let _ = stopping.send(true);
        };
        listener.serve(router(Arc::clone(&app)), stop).await;
        if let Some(watching) = watching {
            let _ = watching.await;
        }
        let drained = Arc::clone(&app);
        let drain = move || {
            dicom.into_iter().for_each(Dicom::stop);
            drained.service.engine.drain();
        };
        let _ = tokio::task::spawn_blocking(drain).await;
        let _ = anchoring.await;
        note_head(&app, None);
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
