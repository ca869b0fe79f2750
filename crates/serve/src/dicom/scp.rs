//! The verification and storage SCP (PS3.4, annexes A and B): a thread for every association, a bounded number of them.

use super::command::{Command, ECHO, STORE, status};
use super::config::DicomConfig;
use super::peers::PeerConfig;
use super::spool::{Receipt, Rejected, Sending, Spool};
use super::storage;
use crate::error::Error;
use crate::journal::Visitors;
use crate::places::Places;
use crate::request::Caller;
use crate::tls::Certificates;
use dicom_object::FileMetaTableBuilder;
use dicom_ul::association::server::AccessControl;
use dicom_ul::association::{Association, CloseSocket, Error as Broken};
use dicom_ul::pdu::{
    AbortRQServiceProviderReason, AbortRQSource, AssociationRJServiceUserReason, PDataValue, PDataValueType,
    PresentationContextResultReason, UserIdentity,
};
use dicom_ul::{Pdu, ServerAssociation, ServerAssociationOptions};
use melo_imaging::dicom::uid;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often new connections and slow peers are looked for.
const LOOK: Duration = Duration::from_millis(20);
/// Connections that have sent nothing yet, all and of one address; older ones give way to a new one.
const SILENT: usize = 64;
const SILENT_OF_ADDRESS: usize = 16;
/// Unknown addresses that the log names.
const NAMED: usize = 256;
/// Longest command set.
const COMMAND_BYTES: usize = 1 << 16;
/// A-ASSOCIATE-RJ: transient, by the presentation service, local limit exceeded (PS3.8, table 9-21).
const REJECT_BUSY: [u8; 10] = [3, 0, 0, 0, 0, 4, 0, 2, 3, 2];

/// The listening thread.
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Listener {
    /// # Errors
    /// [`Error::Listen`], [`Error::OpenDicom`].
    pub(super) fn start(
        address: &str,
        config: &DicomConfig,
        spool: Arc<Spool>,
        visitors: Arc<Visitors>,
    ) -> Result<Self, Error> {
        let listen = |source| Error::Listen { address: address.to_owned(), source };
        let listener = TcpListener::bind(address).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        if !address.ip().to_canonical().is_loopback() && config.peer.is_empty() && !config.any_peer {
            return Err(Error::OpenDicom { address });
        }
        let tls = config.tls.as_ref().map(|files| Certificates::open(files, &[])).transpose()?.map(Arc::new);
        if tls.is_none() && !address.ip().to_canonical().is_loopback() {
            tracing::warn!(%address, "DICOM images come unencrypted over the network");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let places = Places::new(config.max_associations, config.max_associations_per_address);
        let scp = Scp { config: Arc::new(config.clone()), places, spool, visitors, tls, stop: Arc::clone(&stop) };
        let thread = std::thread::Builder::new().name("melo-dicom".into());
        let thread = thread.spawn(move || scp.listen(&listener)).map_err(listen)?;
        Ok(Listener { address, stop, thread })
    }

    /// Accepts nobody any more, lets messages in progress end for `grace`, and cuts the rest.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}

struct Scp {
    config: Arc<DicomConfig>,
    places: Arc<Places>,
    spool: Arc<Spool>,
    visitors: Arc<Visitors>,
    tls: Option<Arc<Certificates>>,
    stop: Arc<AtomicBool>,
}

/// A connection as the listening thread sees it.
struct Watched {
    stream: TcpStream,
    address: IpAddr,
    begun: Instant,
    stage: Arc<Stage>,
    thread: JoinHandle<()>,
}

/// How far a connection has come.
#[derive(Default)]
struct Stage {
    /// It has a place: it has begun to send its request.
    has_place: AtomicBool,
    /// When the last message of its association ended; none before the association.
    beat: Mutex<Option<Instant>>,
}

impl Stage {
    fn beat(&self) -> MutexGuard<'_, Option<Instant>> {
        self.beat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time for messages in progress when the server stops.
const GRACE: Duration = Duration::from_secs(5);

impl Scp {
    /// Never waits for a peer: a connection has a thread from its first moment, and silent ones give way to newer.
    fn listen(self, listener: &TcpListener) {
        let mut open: Vec<Watched> = Vec::new();
        let mut unknown = BTreeSet::new();
        while !self.stop.load(Ordering::Relaxed) {
            self.watch(&mut open, Duration::from_secs(self.config.message_timeout_s));
            match listener.accept() {
                Ok((_, peer)) if !self.is_known(peer.ip()) => {
                    if unknown.len() < NAMED && unknown.insert(peer.ip()) {
                        tracing::warn!(address = %peer.ip(), "a DICOM connection of no known peer is not taken");
                    }
                    self.visitors.turn_away(caller("unknown", peer.ip()), "no peer calls from there");
                }
                Ok((stream, peer)) => {
                    make_room(&mut open, peer.ip());
                    match self.serve(stream, peer) {
                        Ok(watched) => open.push(watched),
                        Err(error) => tracing::warn!(%error, "an association could not be begun"),
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::sleep(LOOK),
                Err(error) => {
                    tracing::warn!(%error, "a DICOM connection could not be accepted");
                    std::thread::sleep(LOOK);
                }
            }
        }
        let until = Instant::now() + GRACE;
        while !open.is_empty() && Instant::now() < until {
            self.watch(&mut open, GRACE);
            std::thread::sleep(LOOK);
        }
        self.watch(&mut open, Duration::ZERO);
        open.into_iter().for_each(|watched| drop(watched.thread.join()));
    }

    fn is_known(&self, address: IpAddr) -> bool {
        self.config.peer.is_empty() || self.config.peer.iter().any(|peer| peer.calls_from(address))
    }

    /// Forgets those that ended, and cuts those whose request or message takes too long.
    fn watch(&self, open: &mut Vec<Watched>, most: Duration) {
        open.retain(|watched| !watched.thread.is_finished());
        let request = Duration::from_secs(self.config.request_timeout_s).min(most);
        for watched in open {
            let beat = *watched.stage.beat();
            if beat.map_or(watched.begun.elapsed() >= request, |beat| beat.elapsed() >= most) {
                let _ = watched.stream.shutdown(Shutdown::Both);
            }
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr) -> std::io::Result<Watched> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        let watched = stream.try_clone()?;
        let stage = Arc::new(Stage::default());
        let (config, spool, places) = (Arc::clone(&self.config), Arc::clone(&self.spool), Arc::clone(&self.places));
        let tls = self.tls.clone();
        let (visitors, stop, shared) = (Arc::clone(&self.visitors), Arc::clone(&self.stop), Arc::clone(&stage));
        let thread = std::thread::Builder::new().name("melo-association".into()).spawn(move || {
            // Who says nothing has no place.
            if !stream.peek(&mut [0]).is_ok_and(|count| count > 0) {
                return;
            }
            let Some(_place) = places.take(peer.ip()) else {
                // Who speaks TLS would not understand it.
                return if tls.is_none() {
                    reject(stream)
                };
            };
            shared.has_place.store(true, Ordering::Relaxed);
            let (visitors, peer_ip) = (&visitors, peer.ip());
            let session =
                Session { config: &config, spool: &spool, visitors, stop: &stop, stage: &shared, peer: peer_ip };
            match session.begin(stream, tls.as_deref()) {
                Ok(stored) if stored > 0 => tracing::info!(%peer, stored, "association"),
                Ok(_) => {}
                Err(error) => tracing::info!(%peer, reason = %error, "association ended early"),
            }
        })?;
        Ok(Watched { stream: watched, address: peer.ip(), begun: Instant::now(), stage, thread })
    }
}

/// Cuts the oldest silent connection where there are too many, of this address first.
fn make_room(open: &mut [Watched], address: IpAddr) {
    let mut silent: Vec<&Watched> =
        open.iter().filter(|watched| !watched.stage.has_place.load(Ordering::Relaxed)).collect();
    silent.sort_by_key(|watched| watched.begun);
    let of_address: Vec<&&Watched> = silent.iter().filter(|watched| watched.address == address).collect();
    let oldest = match (of_address.len() >= SILENT_OF_ADDRESS, silent.len() >= SILENT) {
        (true, _) => of_address.first().copied(),
        (false, true) => silent.first(),
        _ => None,
    };
    if let Some(oldest) = oldest {
        let _ = oldest.stream.shutdown(Shutdown::Both);
    }
}

/// Tells one peer too many to come again later.
fn reject(mut stream: TcpStream) {
    let short = Some(Duration::from_millis(500));
    let _ = stream.set_write_timeout(short).and_then(|()| stream.set_read_timeout(short));
    // A connection that is closed with something unread is reset, and the rejection with it.
    let mut request = [0; 1 << 14];
    let _ = stream.read(&mut request);
    let _ = stream.write_all(&REJECT_BUSY);
    let _ = stream.shutdown(Shutdown::Write);
}

/// Who may begin an association.
struct Allowed<'a>(&'a DicomConfig, &'a Visitors, IpAddr);

/// Who calls, before anything is asked.
fn caller(who: &str, address: IpAddr) -> Caller {
    Caller { who: who.to_owned(), via: "dicom", request_id: String::new(), address: Some(address) }
}

impl AccessControl for Allowed<'_> {
    fn check_access(
        &self,
        this: &str,
        calling: &str,
        called: &str,
        _: Option<&UserIdentity>,
    ) -> Result<(), AssociationRJServiceUserReason> {
        let Allowed(DicomConfig { calling_ae_titles: titles, peer: peers, .. }, visitors, address) = self;
        let caller = caller(calling, *address);
        if called != this {
            visitors.turn_away(caller, "another application entity is called");
            return Err(AssociationRJServiceUserReason::CalledAETitleNotRecognized);
        }
        let is_titled = titles.is_empty() || titles.iter().any(|title| title == calling);
        let is_peer = |peer: &PeerConfig| peer.ae_title == calling && peer.calls_from(*address);
        match is_titled && (peers.is_empty() || peers.iter().any(is_peer)) {
            true => {
                // Where anyone may call, a title says nothing.
                if !(peers.is_empty() && titles.is_empty()) {
                    visitors.let_in(caller);
                }
                Ok(())
            }
            false => {
                visitors.turn_away(caller, "no peer of this title calls from there");
                Err(AssociationRJServiceUserReason::CallingAETitleNotRecognized)
            }
        }
    }
}

struct Session<'a> {
    config: &'a DicomConfig,
    spool: &'a Spool,
    visitors: &'a Visitors,
    stop: &'a AtomicBool,
    stage: &'a Stage,
    peer: IpAddr,
}

/// A message on its way in.
#[derive(Default)]
struct Message<'a> {
    context: u8,
    /// The command set as far as it has come.
    bytes: Vec<u8>,
    /// Read when it was whole.
    command: Option<Command>,
    /// Where the data set goes; none once it has been rejected, when the rest is passed over.
    receipt: Option<Receipt<'a>>,
    rejected: Option<(u16, String)>,
}

impl<'a> Session<'a> {
    /// Number of objects that were stored.
    fn begin(&self, stream: TcpStream, tls: Option<&Certificates>) -> Result<u64, Box<Broken>> {
        let idle = Duration::from_secs(self.config.idle_timeout_s);
        let mut options = ServerAssociationOptions::new()
            .ae_access_control(Allowed(self.config, self.visitors, self.peer))
            .ae_title(self.config.ae_title.as_str())
            .max_pdu_length(self.config.max_pdu)
            .strict(true)
            .read_timeout(idle)
            .write_timeout(idle)
            .with_abstract_syntax(dicom_dictionary_std::uids::VERIFICATION);
        for class in storage::CLASSES {
            options = options.with_abstract_syntax(*class);
        }
        for syntax in storage::SYNTAXES {
            options = options.with_transfer_syntax(syntax);
        }
        match tls {
            None => self.run(options.establish(stream)?),
            Some(tls) => self.run(options.tls_config(tls.current()).establish_tls(stream)?),
        }
    }

    fn run<S: Read + Write + CloseSocket>(&self, mut association: ServerAssociation<S>) -> Result<u64, Box<Broken>> {
        *self.stage.beat() = Some(Instant::now());
        let mut message = Message::default();
        let mut stored = 0;
        let mut sending = self.spool.sending();
        loop {
            match association.receive() {
                Ok(Pdu::PData { data }) => {
                    for value in data {
                        let Some(ended) = self.take(&association, &mut message, &mut sending, value) else {
                            abort(association, AbortRQServiceProviderReason::UnexpectedPduParameter);
                            return Ok(stored);
                        };
                        if let Some(answer) = ended {
                            stored += u64::from(answer.field & 0xff == STORE && answer.status == status::SUCCESS);
                            association.send(&command_pdu(message.context, &answer))?;
                            message = Message::default();
                            *self.stage.beat() = Some(Instant::now());
                        }
                    }
                    if self.stop.load(Ordering::Relaxed) && message.bytes.is_empty() {
                        abort(association, AbortRQServiceProviderReason::ReasonNotSpecified);
                        return Ok(stored);
                    }
                }
                Ok(Pdu::ReleaseRQ) => {
                    association.send(&Pdu::ReleaseRP)?;
                    return Ok(stored);
                }
                Ok(Pdu::AbortRQ { .. }) => return Ok(stored),
                Ok(_) => {
                    abort(association, AbortRQServiceProviderReason::UnexpectedPdu);
                    return Ok(stored);
                }
                Err(error) => {
                    abort(association, AbortRQServiceProviderReason::ReasonNotSpecified);
                    return Err(Box::new(error));
                }
            }
        }
    }

    /// Takes a fragment in: the answer where it ended a message, none where it has no place here.
    #[expect(clippy::option_option, reason = "no place, no answer yet, an answer")]
    fn take<S: Read + Write + CloseSocket>(
        &self,
        association: &ServerAssociation<S>,
        message: &mut Message<'a>,
        sending: &mut Sending<'_>,
        value: PDataValue,
    ) -> Option<Option<Command>> {
        if message.bytes.is_empty() {
            message.context = value.presentation_context_id;
        } else if message.context != value.presentation_context_id {
            return None;
        }
        match (value.value_type, &message.command) {
            (PDataValueType::Command, None) => {
                message.bytes.extend_from_slice(&value.data);
                if message.bytes.len() > COMMAND_BYTES {
                    return None;
                }
                if !value.is_last {
                    return Some(None);
                }
                let command = Command::read(&message.bytes)?;
                self.begin_message(association, message, &command);
                message.command = Some(command.clone());
                Some((!command.data_set).then(|| self.end(association, message, sending)))
            }
            (PDataValueType::Data, Some(_)) => {
                if let Some(receipt) = &mut message.receipt
                    && let Err(rejected) = receipt.write(&value.data)
                {
                    message.receipt = None;
                    message.rejected = Some(code(&rejected));
                }
                Some(value.is_last.then(|| self.end(association, message, sending)))
            }
            _ => None,
        }
    }

    /// A command has come: of C-STORE, a file begins.
    fn begin_message<S: Read + Write + CloseSocket>(
        &self,
        association: &ServerAssociation<S>,
        message: &mut Message<'a>,
        command: &Command,
    ) {
        if command.field != STORE {
            return;
        }
        let accepted = |context: &&dicom_ul::pdu::PresentationContextNegotiated| {
            context.id == message.context && context.reason == PresentationContextResultReason::Acceptance
        };
        let Some(context) = association.presentation_contexts().iter().find(accepted) else {
            message.rejected = Some((status::NOT_AUTHORIZED, "no such presentation context".to_owned()));
            return;
        };
        if context.abstract_syntax != command.class {
            message.rejected = Some((status::DOES_NOT_MATCH, "the SOP class is not the context's".to_owned()));
            return;
        }
        if !uid::is_valid(&command.instance) || !command.data_set {
            let reason = "no SOP instance UID, or no data set";
            message.rejected = Some((status::CANNOT_UNDERSTAND, reason.to_owned()));
            return;
        }
        let peer = association.peer_ae_title();
        let begun = || {
            let head = head(&command.class, &command.instance, &context.transfer_syntax, peer);
            let head = head.map_err(Rejected::Unreadable)?;
            let mut receipt = self.spool.begin(peer, "dicom")?;
            receipt.write(&head)?;
            Ok(receipt)
        };
        match begun() {
            Ok(receipt) => message.receipt = Some(receipt),
            Err(rejected) => message.rejected = Some(code(&rejected)),
        }
    }

    /// A message is whole: what is answered.
    fn end<S: Read + Write + CloseSocket>(
        &self,
        association: &ServerAssociation<S>,
        message: &mut Message<'a>,
        sending: &mut Sending<'_>,
    ) -> Command {
        let command = message.command.clone().unwrap_or_default();
        let (status, comment) = match (command.field, message.receipt.take(), message.rejected.take()) {
            (ECHO, ..) => (status::SUCCESS, String::new()),
            (STORE, Some(receipt), None) => {
                let announced =
                    receipt.accept(|seen| match seen.class == command.class && seen.instance == command.instance {
                        true => Ok(()),
                        false => Err(Rejected::Mismatch("the data set is another SOP instance".to_owned())),
                    });
                match announced {
                    Ok(seen) => {
                        sending.brought(association.peer_ae_title(), &seen);
                        (status::SUCCESS, String::new())
                    }
                    Err(rejected) => code(&rejected),
                }
            }
            (STORE, _, Some(rejected)) => rejected,
            (STORE, None, None) => (status::CANNOT_UNDERSTAND, "no data set".to_owned()),
            _ => (status::UNRECOGNIZED_OPERATION, "only C-ECHO and C-STORE".to_owned()),
        };
        if command.field == STORE {
            self.spool.received("dicom", counted(status));
        }
        if status != status::SUCCESS {
            tracing::warn!(sop_instance = command.instance, status, reason = comment, "object not stored");
        }
        command.answer(status, &comment)
    }
}

/// What stands before the data set in a file: preamble and file meta group (PS3.10, section 7.1).
pub(super) fn head(class: &str, instance: &str, syntax: &str, peer: &str) -> Result<Vec<u8>, String> {
    let mut head = vec![0; 128];
    head.extend_from_slice(b"DICM");
    let meta = FileMetaTableBuilder::new()
        .media_storage_sop_class_uid(class)
        .media_storage_sop_instance_uid(instance)
        .transfer_syntax(syntax)
        .source_application_entity_title(peer)
        .build();
    meta.map_err(|error| error.to_string())?.write(&mut head).map_err(|error| error.to_string())?;
    Ok(head)
}

/// How a status is counted.
fn counted(status: u16) -> &'static str {
    match status {
        status::SUCCESS => "accepted",
        status::OUT_OF_RESOURCES => "full",
        status::CANNOT_UNDERSTAND => "unreadable",
        _ => "mismatch",
    }
}

/// The status of C-STORE for it (PS3.4, table B.2-1).
fn code(rejected: &Rejected) -> (u16, String) {
    let status = match rejected {
        Rejected::Full(_) => status::OUT_OF_RESOURCES,
        Rejected::Mismatch(_) => status::DOES_NOT_MATCH,
        Rejected::Unreadable(_) => status::CANNOT_UNDERSTAND,
    };
    (status, rejected.to_string())
}

fn command_pdu(context: u8, command: &Command) -> Pdu {
    let value = PDataValue {
        presentation_context_id: context,
        value_type: PDataValueType::Command,
        is_last: true,
        data: command.write(),
    };
    Pdu::PData { data: vec![value] }
}

fn abort<S: Read + Write + CloseSocket>(mut association: ServerAssociation<S>, reason: AbortRQServiceProviderReason) {
    let _ = association.send(&Pdu::AbortRQ { source: AbortRQSource::ServiceProvider(reason) });
}
