//! The queue of an archive on a NATS server with JetStream: the only file that knows either, or that waits for anything asynchronously.
//!
//! ```text
//! stream   MELO_ARCHIVE_name         work queue; subject melo.archive.name.chunk.12, one message a chunk, at most one of each
//! consumer workers                   pull, explicit acknowledgement
//! stream   MELO_ARCHIVE_name_STATE   the last message of melo.archive.name.worker.HOST-PID and melo.archive.name.failure.12
//! ```

use crate::broker::Broker;
use crate::error::Error;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::context::{GetStreamErrorKind, PublishError, PublishErrorKind, RequestErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, InfoError, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{self, AckKind, Context, ErrorCode, Message};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use futures_util::{StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::error::Error as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// The durable consumer that all workers pull from.
const CONSUMER: &str = "workers";
/// How long a worker asks for a message before it looks whether any are left: the first time, twice as long each time, and at most.
const FIRST_PULL: Duration = Duration::from_millis(50);
const PULL: Duration = Duration::from_secs(2);
/// How often workers say how they are.
const REPORT: Duration = Duration::from_secs(2);
/// Messages that are sent before the first is known to be stored.
const WINDOW: usize = 256;
/// How long a server has for an acknowledgement at the end.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Chunks that all workers together may hold.
const HELD: i64 = 1_000_000;
/// How often a consumer has nothing to hand out while there are messages, before it is made anew.
const STRANDED: usize = 2;
/// How often a queue is looked for in vain before it is said to be gone: a server that was just started may not know it yet.
const LOOKS: usize = 5;

/// Whose queue it is: the description of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// Of `queue.json`.
    pub(crate) archive: String,
    /// SHA-256 of the plan.
    pub(crate) plan: String,
    /// The archive's folder, where it was planned, for people.
    pub(crate) folder: String,
}

/// A message of the work queue.
#[derive(Serialize, Deserialize)]
struct Task {
    plan: String,
    chunk: u64,
}

/// What a connection has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The server is gone; it is looked for until it is back.
    Lost,
    /// It is back.
    Back,
    /// Something else.
    Said(String),
}

/// Told by any thread.
pub type Listener = Arc<dyn Fn(News) + Send + Sync>;

/// A connection to the queue of an archive.
pub(crate) struct Queue {
    runtime: Runtime,
    client: Client,
    jetstream: Context,
    /// Of the archive.
    name: String,
    server: String,
    /// Acknowledgements on their way.
    last_words: Arc<Mutex<JoinSet<()>>>,
    is_closed: Arc<AtomicBool>,
}

/// A chunk that this process has taken; given back where it is dropped.
pub(crate) struct Held {
    pub(crate) chunk: u64,
    /// How often it was handed out, this time included.
    pub(crate) deliveries: i64,
    message: Option<Arc<Message>>,
    /// Tells the server that the chunk is still held.
    progress: AbortHandle,
    handle: Handle,
    last_words: Arc<Mutex<JoinSet<()>>>,
}

/// How many messages are where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Depth {
    /// Waiting for a worker, or to be handed out again.
    pub(crate) waiting: u64,
    /// Held by workers.
    pub(crate) held: u64,
}

impl Queue {
    /// Connects to the server.
    pub(crate) fn connect(broker: &Broker, name: &str, listener: Listener) -> Result<Self, Error> {
        let server = broker.address();
        let failed = |reason: String| Error::Broker { server: server.clone(), reason };
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().map_err(|error| failed(error.to_string()))?;
        let is_closed = Arc::new(AtomicBool::new(false));
        let options = options(broker, listener, Arc::clone(&is_closed))?;
        let addresses: Vec<&str> = server.split(',').collect();
        let client = runtime.block_on(options.connect(addresses)).map_err(|error| match error.kind() {
            ConnectErrorKind::AuthorizationViolation => Error::Refused { server: server.clone() },
            ConnectErrorKind::Authentication if broker.nkey.is_some() => {
                Error::damaged(broker.nkey.as_deref().unwrap_or(Path::new("")), "no seed of a user's nkey")
            }
            _ => failed(format!("cannot be reached: {error}")),
        })?;
        // It spawns a task.
        let jetstream = runtime.block_on(async { jetstream::new(client.clone()) });
        let name = name.to_owned();
        Ok(Queue { runtime, client, jetstream, name, server, last_words: Arc::default(), is_closed })
    }

    fn stream(&self) -> String {
        format!("MELO_ARCHIVE_{}", self.name)
    }

    fn state_stream(&self) -> String {
        format!("{}_STATE", self.stream())
    }

    /// A subject of this archive.
    fn subject(&self, what: &str, which: impl std::fmt::Display) -> String {
        format!("melo.archive.{}.{what}.{which}", self.name)
    }

    fn failed(&self, error: &(dyn std::error::Error + 'static)) -> Error {
        let server = self.server.clone();
        match is_without_jetstream(error) {
            true => Error::NoJetStream { server },
            false => Error::Broker { server, reason: error.to_string() },
        }
    }

    fn gone(&self) -> Error {
        Error::Gone { server: self.server.clone(), name: self.name.clone() }
    }

    async fn find(&self, stream: &str) -> Result<Option<Stream>, Error> {
        match self.jetstream.get_stream(stream).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(told) if told.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
                _ => Err(self.failed(&error)),
            },
        }
    }

    async fn found(&self, stream: &str) -> Result<Stream, Error> {
        self.find(stream).await?.ok_or_else(|| self.gone())
    }

    /// Refuses a queue that is another archive's; false where there is none.
    pub(crate) fn refuse_other(&self, owner: &Owner) -> Result<bool, Error> {
        let Some(stream) = self.runtime.block_on(self.find(&self.stream()))? else { return Ok(false) };
        let description = stream.cached_info().config.description.as_deref().unwrap_or_default();
        let found = serde_json::from_str(description);
        let found = found.unwrap_or(Owner { archive: String::new(), plan: String::new(), folder: String::new() });
        match (&found.archive, &found.plan) == (&owner.archive, &owner.plan) {
            true => Ok(true),
            false => {
                let (server, name) = (self.server.clone(), self.name.clone());
                Err(Error::Taken { server, name, folder: found.folder, plan: found.plan })
            }
        }
    }

    /// Makes the streams and the consumer, where they are not there.
    pub(crate) fn create(&self, owner: &Owner, ack_wait: Duration) -> Result<(), Error> {
        let subjects = |whats: &[&str]| whats.iter().map(|what| self.subject(what, "*")).collect();
        let work = Config {
            name: self.stream(),
            description: Some(serde_json::to_string(owner).expect("plain data")),
            subjects: subjects(&["chunk"]),
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            // A chunk that is queued is not queued again, however long ago that was.
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            ..Config::default()
        };
        let state = Config {
            name: self.state_stream(),
            subjects: subjects(&["worker", "failure"]),
            storage: StorageType::File,
            max_messages_per_subject: 1,
            ..Config::default()
        };
        if !self.refuse_other(owner)? {
            let made = self.runtime.block_on(self.jetstream.create_stream(work));
            if let Err(error) = made {
                // Somebody else was quicker, or the server says why not.
                let refused = self.refuse_other(owner);
                return Err(refused.err().unwrap_or_else(|| self.failed(&error)));
            }
        }
        self.runtime.block_on(async {
            self.jetstream.get_or_create_stream(state).await.map_err(|error| self.failed(&error))?;
            let stream = self.found(&self.stream()).await?;
            stream.create_consumer(consumer_of(ack_wait)).await.map_err(|error| self.failed(&error))?;
            Ok(())
        })
    }

    /// Queues chunks of a plan; gives how many of them were not queued already. `nonce` tells this call from others.
    pub(crate) fn put(&self, chunks: &[u64], plan: &str, nonce: &str) -> Result<u64, Error> {
        let task = |chunk| serde_json::to_vec(&Task { plan: plan.to_owned(), chunk }).expect("plain data");
        let message = |chunk| {
            let id = format!("{plan}-{chunk}-{nonce}");
            PublishMessage::build().payload(task(chunk).into()).message_id(id)
        };
        self.runtime.block_on(async {
            let mut fresh = 0;
            for window in chunks.chunks(WINDOW) {
                let mut sent = Vec::with_capacity(window.len());
                for &chunk in window {
                    sent.push(self.jetstream.send_publish(self.subject("chunk", chunk), message(chunk)).await);
                }
                for sent in sent {
                    let stored = match sent {
                        Ok(sent) => sent.await,
                        Err(error) => Err(error),
                    };
                    match stored {
                        Ok(_) => fresh += 1,
                        Err(error) if is_queued_already(&error) => {}
                        Err(error) if error.kind() == PublishErrorKind::StreamNotFound => return Err(self.gone()),
                        Err(error) => return Err(self.failed(&error)),
                    }
                }
            }
            Ok(fresh)
        })
    }

    /// The consumer, for [`Self::take`].
    pub(crate) fn consumer(&self, ack_wait: Duration) -> Result<(PullConsumer, Duration), Error> {
        self.runtime.block_on(async {
            let stream = self.found(&self.stream()).await?;
            let consumer = stream.get_or_create_consumer(CONSUMER, consumer_of(ack_wait)).await;
            Ok((consumer.map_err(|error| self.failed(&error))?, ack_wait))
        })
    }

    /// Takes a chunk as soon as there is one; none where none is left with anybody, or `is_over`. A server that is lost is waited for.
    pub(crate) fn take(
        &self,
        (consumer, ack_wait): &(PullConsumer, Duration),
        plan: &str,
        is_over: impl Fn() -> bool,
    ) -> Result<Option<Held>, Error> {
        let (mut missed, mut stranded, mut patience) = (0, 0, FIRST_PULL);
        while !is_over() {
            if self.is_closed.load(Ordering::Relaxed) {
                return Err(Error::Refused { server: self.server.clone() });
            }
            if let Some(message) = self.runtime.block_on(pulled(consumer, patience)) {
                return self.held(message, plan, *ack_wait).map(Some);
            }
            match self.runtime.block_on(self.messages()) {
                Ok(0) => return Ok(None),
                Ok(_) => missed = 0,
                Err(error) if is_no_stream(&error) => {
                    missed += 1;
                    if missed == LOOKS {
                        return Err(self.gone());
                    }
                    std::thread::sleep(Duration::from_secs(1));
                    continue;
                }
                Err(_) => {
                    std::thread::sleep(Duration::from_millis(500));
                    continue;
                }
            }
            let is_stranded = patience == PULL && self.runtime.block_on(is_idle(consumer));
            stranded = if is_stranded { stranded + 1 } else { 0 };
            patience = PULL.min(2 * patience);
            if stranded == STRANDED {
                self.runtime.block_on(self.renew(*ack_wait));
                stranded = 0;
            }
        }
        Ok(None)
    }

    /// A consumer that knows nothing: a server that was killed may have kept messages and forgotten that nobody holds them. What was done is
    /// handed out again, and found done.
    async fn renew(&self, ack_wait: Duration) {
        let Ok(stream) = self.jetstream.get_stream(self.stream()).await else { return };
        // Where the server is lost meanwhile, the next one does it.
        let _ = stream.delete_consumer(CONSUMER).await;
        let _ = stream.create_consumer(consumer_of(ack_wait)).await;
    }

    async fn messages(&self) -> Result<u64, InfoError> {
        let stream = self.jetstream.get_stream_no_info(self.stream()).await;
        Ok(stream.expect("a name that was made").get_info().await?.state.messages)
    }

    fn held(&self, message: Message, plan: &str, ack_wait: Duration) -> Result<Held, Error> {
        let task: Option<Task> = serde_json::from_slice(&message.payload).ok();
        let Some(chunk) = task.filter(|task| task.plan == plan).map(|task| task.chunk) else { return Err(self.gone()) };
        let deliveries = message.info().map_or(1, |info| info.delivered);
        let message = Arc::new(message);
        let alive = Arc::clone(&message);
        let progress = self.runtime.spawn(async move {
            loop {
                sleep(ack_wait / 3).await;
                // A server that is lost hands the chunk to another worker later, which finds its part.
                let _ = alive.ack_with(AckKind::Progress).await;
            }
        });
        let (handle, last_words) = (self.runtime.handle().clone(), Arc::clone(&self.last_words));
        Ok(Held { chunk, deliveries, message: Some(message), progress: progress.abort_handle(), handle, last_words })
    }

    /// How many messages are where.
    pub(crate) fn depth(&self) -> Result<Depth, Error> {
        self.runtime.block_on(async {
            let stream = self.found(&self.stream()).await?;
            let info = stream.consumer_info(CONSUMER).await.map_err(|error| self.failed(&error))?;
            let messages = stream.cached_info().state.messages;
            let held = (info.num_ack_pending as u64).min(messages);
            Ok(Depth { waiting: messages - held, held })
        })
    }

    /// Keeps `what` of `which` as its last state; lost where the server is.
    pub(crate) fn note(&self, what: &str, which: impl std::fmt::Display, state: &impl Serialize) {
        let payload = serde_json::to_vec(state).expect("plain data");
        let _ = self.runtime.block_on(self.client.publish(self.subject(what, which), payload.into()));
    }

    /// Notes the state of a worker again and again as long as the connection is there.
    pub(crate) fn note_often<T: Serialize>(&self, which: &str, state: impl Fn() -> T + Send + 'static) {
        let (client, subject) = (self.client.clone(), self.subject("worker", which));
        self.runtime.spawn(async move {
            loop {
                let payload = serde_json::to_vec(&state()).expect("plain data");
                let _ = client.publish(subject.clone(), payload.into()).await;
                sleep(REPORT).await;
            }
        });
    }

    /// The last states of all `what`.
    pub(crate) fn noted<T: DeserializeOwned>(&self, what: &str) -> Result<Vec<T>, Error> {
        self.runtime.block_on(async {
            let stream = self.found(&self.state_stream()).await?;
            let subjects = stream.info_with_subjects(self.subject(what, "*")).await;
            let mut subjects = subjects.map_err(|error| self.failed(&error))?;
            let mut noted = Vec::new();
            while let Some((subject, _)) = subjects.try_next().await.map_err(|error| self.failed(&error))? {
                // One that was forgotten meanwhile, or is of another version, is none.
                let last = stream.get_last_raw_message_by_subject(&subject).await.ok();
                noted.extend(last.and_then(|last| serde_json::from_slice(&last.payload).ok()));
            }
            Ok(noted)
        })
    }

    /// The last state of one.
    pub(crate) fn noted_of<T: DeserializeOwned>(&self, what: &str, which: u64) -> Option<T> {
        let last = self.runtime.block_on(async {
            let stream = self.jetstream.get_stream_no_info(self.state_stream()).await.ok()?;
            stream.get_last_raw_message_by_subject(&self.subject(what, which)).await.ok()
        });
        last.and_then(|last| serde_json::from_slice(&last.payload).ok())
    }

    /// Forgets the states of `which`.
    pub(crate) fn forget(&self, what: &str, which: &[u64]) -> Result<(), Error> {
        self.runtime.block_on(async {
            let stream = self.found(&self.state_stream()).await?;
            for which in which {
                let purged = stream.purge().filter(self.subject(what, which)).await;
                purged.map_err(|error| self.failed(&error))?;
            }
            Ok(())
        })
    }

    /// Removes the queue from the server.
    pub(crate) fn delete(&self) -> Result<(), Error> {
        self.runtime.block_on(async {
            for stream in [self.stream(), self.state_stream()] {
                if self.find(&stream).await?.is_some() {
                    self.jetstream.delete_stream(&stream).await.map_err(|error| self.failed(&error))?;
                }
            }
            Ok(())
        })
    }

    /// Waits until the server has what was said.
    pub(crate) fn close(&self) {
        let mut last_words = std::mem::take(&mut *self.last_words.lock().expect("no panic holds it"));
        self.runtime.block_on(async {
            let _ = timeout(LAST_WORDS, async { while last_words.join_next().await.is_some() {} }).await;
            let _ = timeout(PULL, self.client.flush()).await;
        });
    }
}

impl Held {
    /// The chunk is done, and the message is no more.
    pub(crate) fn done(mut self) {
        self.settle(AckKind::Ack);
    }

    /// The chunk is not tried again.
    pub(crate) fn bury(mut self) {
        self.settle(AckKind::Term);
    }

    /// Another worker may try, after a while.
    pub(crate) fn give_back(mut self, after: Duration) {
        self.settle(AckKind::Nak(Some(after)));
    }

    fn settle(&mut self, kind: AckKind) {
        let Some(message) = self.message.take() else { return };
        self.progress.abort();
        let settled = async move {
            while message.double_ack_with(kind).await.is_err() {
                sleep(Duration::from_secs(1)).await;
            }
        };
        let mut last_words = self.last_words.lock().expect("no panic holds it");
        while last_words.try_join_next().is_some() {}
        last_words.spawn_on(settled, &self.handle);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.settle(AckKind::Nak(None));
    }
}

fn consumer_of(ack_wait: Duration) -> pull::Config {
    pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait,
        max_ack_pending: HELD,
        ..pull::Config::default()
    }
}

/// True where a consumer has nothing to hand out, and nobody holds anything; or where there is none.
async fn is_idle(consumer: &PullConsumer) -> bool {
    match consumer.get_info().await {
        Ok(info) => info.num_pending == 0 && info.num_ack_pending == 0,
        Err(error) => error.to_string().contains("consumer not found"),
    }
}

/// A message, if one comes in time.
async fn pulled(consumer: &PullConsumer, patience: Duration) -> Option<Message> {
    let mut batch = consumer.batch().max_messages(1).expires(patience).messages().await.ok()?;
    // The server ends the request; where it is lost nobody does.
    timeout(2 * PULL, batch.next()).await.ok()??.ok()
}

fn options(broker: &Broker, listener: Listener, is_closed: Arc<AtomicBool>) -> Result<ConnectOptions, Error> {
    let was_connected = AtomicBool::new(false);
    let mut options = ConnectOptions::new().name("melo archive").ping_interval(Duration::from_secs(10));
    options = options.event_callback(move |event| {
        let news = match event {
            Event::Connected => was_connected.swap(true, Ordering::Relaxed).then_some(News::Back),
            Event::Disconnected => Some(News::Lost),
            Event::Closed => {
                is_closed.store(true, Ordering::Relaxed);
                None
            }
            Event::ServerError(error) => Some(News::Said(error.to_string())),
            // Each attempt to find the server again is an error of the client.
            Event::ClientError(_) | Event::LameDuckMode | Event::Draining | Event::SlowConsumer(_) => None,
        };
        if let Some(news) = news {
            listener(news);
        }
        async {}
    });
    options = match (&broker.user, &broker.token, broker.user_in_url()) {
        (Some((user, password)), ..) => options.user_and_password(user.clone(), password.clone()),
        (None, Some(token), _) => options.token(token.clone()),
        (None, None, Some((user, Some(password)))) => options.user_and_password(user, password),
        (None, None, Some((token, None))) => options.token(token),
        (None, None, None) => options,
    };
    if let Some(path) = &broker.credentials {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        options = options.credentials(&text).map_err(|error| Error::damaged(path, error))?;
    }
    if let Some(path) = &broker.nkey {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
        options = options.nkey(seed.ok_or_else(|| Error::damaged(path, "no seed of a user's nkey"))?.to_owned());
    }
    if let Some(path) = &broker.ca {
        std::fs::metadata(path).map_err(Error::io(path))?;
        options = options.add_root_certificates(path.clone());
    }
    if let Some((certificate, key)) = &broker.certificate {
        for path in [certificate, key] {
            std::fs::metadata(path).map_err(Error::io(path))?;
        }
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}

/// The causes of an error, itself the first.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn told(error: &(dyn std::error::Error + 'static)) -> Option<ErrorCode> {
    causes(error).find_map(|cause| cause.downcast_ref::<jetstream::Error>()).map(jetstream::Error::error_code)
}

fn is_without_jetstream(error: &(dyn std::error::Error + 'static)) -> bool {
    let codes = [ErrorCode::JETSTREAM_NOT_ENABLED, ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT];
    let nobody = |cause: &(dyn std::error::Error + 'static)| {
        let request = cause.downcast_ref::<jetstream::context::RequestError>();
        request.is_some_and(|error| error.kind() == RequestErrorKind::NoResponders)
    };
    told(error).is_some_and(|code| codes.contains(&code)) || causes(error).any(nobody)
}

fn is_no_stream(error: &InfoError) -> bool {
    told(error) == Some(ErrorCode::STREAM_NOT_FOUND) || error.to_string().contains("stream not found")
}

fn is_queued_already(error: &PublishError) -> bool {
    error.source().is_some_and(|told| told.to_string().contains("maximum messages per subject exceeded"))
}
