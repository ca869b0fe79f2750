//! The DICOM network: images in by C-STORE and STOW-RS, structured reports and heat maps out.
//!
//! ```text
//! scp, http/stow   objects from peers          -> spool/incoming, on the disk before they are acknowledged
//! worker           oldest object -> routes     -> Service::predict -> results
//! shelf, series    images of tasks of bags     -> a series that is complete -> Service::predict -> results
//! results          an answer                   -> a structured report, a secondary capture
//! outbox           results                     -> scu or stow, until the receiver has them
//! ```

mod census;
mod command;
mod config;
mod delivery;
mod files;
pub(crate) mod fuzzing;
mod implicit;
mod known;
mod outbox;
mod peers;
mod queue;
mod results;
mod retention;
mod route;
mod scp;
mod scu;
mod series;
mod shelf;
pub(crate) mod spool;
mod storage;
mod stow;
mod worker;

pub use config::{DestinationConfig, DicomConfig, ResultKind, RouteConfig, Values};
pub use peers::PeerConfig;
pub(crate) use storage::takes;

use crate::error::Error;
use crate::service::Service;
use census::Census;
use known::Known;
use outbox::Outbox;
use retention::Retention;
use route::Routes;
use spool::{Bounds, Spool};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use worker::Worker;

const MIB: u64 = 1 << 20;

/// A running DICOM network.
pub(crate) struct Dicom {
    pub(crate) spool: Arc<Spool>,
    outbox: Arc<Outbox>,
    listener: Option<scp::Listener>,
    threads: Vec<JoinHandle<()>>,
}

impl Dicom {
    /// Opens the spool under `state`, takes up what waits in it, and listens. Called within the runtime that answers.
    ///
    /// # Errors
    /// [`Error::Settings`], [`Error::Io`], [`Error::Listen`], [`Error::OpenDicom`].
    pub(crate) fn start(config: &DicomConfig, state: &Path, service: Arc<Service>) -> Result<Self, Error> {
        config.check()?;
        let routes = Routes::new(config)?;
        let folder = state.join("spool");
        files::create_folder(&folder).map_err(Error::io(&folder))?;
        let bounds = Bounds {
            object_bytes: config.max_object_mib.saturating_mul(MIB),
            waiting: config.max_waiting,
            waiting_bytes: config.max_waiting_mib.saturating_mul(MIB),
            refused: config.keep_refused,
            refused_bytes: config.keep_refused_mib.saturating_mul(MIB),
            reserve: config.reserve_mib.saturating_mul(MIB),
            of_sender: config.workers,
            patience: shelf::Patience {
                quiet: Duration::from_secs(config.series_quiet_s),
                longest: Duration::from_secs(config.series_wait_s),
            },
        };
        let keep =
            config.keep_days.map(|days| Retention::new(&folder, days, Arc::clone(&service.metrics))).transpose()?;
        let spool = Arc::new(Spool::open(&folder, bounds, Arc::clone(&service.metrics))?);
        let outbox = Arc::new(Outbox::open(&folder, config, Arc::clone(&service.metrics))?);
        let destinations = config.destination.iter().map(|destination| destination.name.clone()).collect();
        let census = Census::new(&folder, destinations, Arc::clone(&service.metrics));
        if outbox.len() == 0 {
            tracing::warn!("no DICOM destination: answers go into the audit only");
        }
        let runtime = tokio::runtime::Handle::current();
        let visitors = Arc::clone(&service.visitors);
        let worker = Arc::new(Worker {
            spool: Arc::clone(&spool),
            routes,
            known: Known::default(),
            outbox: Arc::clone(&outbox),
            service,
            runtime,
        });
        let listen = config.listen.as_deref();
        let listener =
            listen.map(|address| scp::Listener::start(address, config, Arc::clone(&spool), visitors)).transpose()?;
        let mut dicom = Dicom { spool, outbox, listener, threads: Vec::new() };
        // One more than a sender may use: another's objects never wait behind all of its.
        for index in 0..=config.workers {
            let worker = Arc::clone(&worker);
            dicom.spawn(format!("melo-dicom-work-{index}"), move || worker.run())?;
        }
        if let Some(keep) = keep {
            let spool = Arc::clone(&dicom.spool);
            dicom.spawn("melo-dicom-keep".to_owned(), move || keep.run(&spool))?;
        }
        let spool = Arc::clone(&dicom.spool);
        dicom.spawn("melo-dicom-count".to_owned(), move || census.run(&spool))?;
        for index in 0..dicom.outbox.len() {
            let outbox = Arc::clone(&dicom.outbox);
            dicom.spawn(format!("melo-dicom-send-{index}"), move || outbox.run(index))?;
        }
        Ok(dicom)
    }

    fn spawn(&mut self, name: String, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let thread = std::thread::Builder::new().name(name).spawn(work);
        self.threads.push(thread.map_err(|error| Error::Settings(format!("a thread of the DICOM network: {error}")))?);
        Ok(())
    }

    /// Where the storage SCP listens.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.listener.as_ref().map(|listener| listener.address)
    }

    /// Takes nothing in any more, ends what is in work, and leaves the rest on the disk.
    pub(crate) fn stop(self) {
        if let Some(listener) = self.listener {
            listener.stop();
        }
        self.spool.stop();
        self.outbox.stop();
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}
