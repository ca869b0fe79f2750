//! A bucket of S3, or of a store that speaks its language: the crate `object_store` signs, pages and asks again, `ureq` carries. All of
//! tokio is here: its clock, for the pauses between two attempts. A request blocks the thread that makes it.

use crate::error::Error;
use crate::store::{Page, Refused};
use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body, Frame};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path as Key;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt, RetryConfig};
use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// How long a connection may take, of the machine's own role one.
const CONNECT: Duration = Duration::from_secs(10);
const ROLE_CONNECT: Duration = Duration::from_secs(1);
/// Where a machine of the cloud asks for the keys of its role.
const ROLE_HOST: &str = "169.254.169.254";
/// How long a store may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// Connections that are kept for the next request.
const KEPT: usize = 32;
/// Bytes of a body that are passed on at once.
const FRAME: usize = 1 << 18;
/// Bytes of an error's description that are read.
const DESCRIPTION: u64 = 1 << 16;
/// Bytes of the largest object that is read.
const LARGEST: u64 = 1 << 30;
/// What goes into a header as it is.
const INTO_HEADERS: [&str; 5] =
    ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"];
/// Codes of refusals that concern one object; all others concern the store, or who asks.
const OF_OBJECTS: [&str; 4] = ["NoSuchKey", "AccessDenied", "AllAccessDisabled", "InvalidObjectState"];

/// A bucket that can be asked.
pub(crate) struct Bucket(AmazonS3);

impl Bucket {
    /// Reads the `AWS_*` environment, and asks once whether there is such a bucket. Who may not list may read.
    pub(crate) fn open(bucket: &str) -> Result<Self, Error> {
        let refused = |reason: String| Error::Store { bucket: bucket.to_owned(), reason };
        check_environment().map_err(refused)?;
        let built = |retry: RetryConfig| {
            let agent = |connect| agent(connect).map_err(&refused);
            let connector = Connector { store: agent(CONNECT)?, role: agent(ROLE_CONNECT)? };
            let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
            builder.with_http_connector(connector).build().map(Bucket).map_err(|error| refused(deepest(&error)))
        };
        // A wrong name is told at once; an outage in the middle of the work is waited for.
        let quick = RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(10), ..RetryConfig::default() };
        match built(quick)?.page("", None, Some(1)) {
            Ok(_) => {}
            Err(Refused::Object(reason)) if reason.contains("AccessDenied") => {}
            Err(Refused::Object(reason) | Refused::Store(reason)) => return Err(refused(reason)),
        }
        built(RetryConfig::default())
    }

    /// The next objects whose keys begin with `prefix`, in the order of the store.
    pub(crate) fn page(
        &self,
        prefix: &str,
        page_token: Option<String>,
        max_keys: Option<usize>,
    ) -> Result<Page, Refused> {
        let prefix = (!prefix.is_empty()).then_some(prefix);
        let options = PaginatedListOptions { page_token, max_keys, ..PaginatedListOptions::default() };
        let page = block(self.0.list_paginated(prefix, options)).map_err(|error| refused(&error))?;
        let objects = page.result.objects.into_iter().map(|object| (object.location.into(), object.size)).collect();
        Ok(Page { objects, next: page.page_token })
    }

    /// The first `count` bytes of an object, or all.
    pub(crate) fn start(&self, key: &str, count: u64) -> Result<Vec<u8>, Refused> {
        let options = GetOptions { range: Some(GetRange::Bounded(0..count)), ..GetOptions::default() };
        let got = block(async { self.0.get_opts(&of(key)?, options).await?.bytes().await });
        got.map(Into::into).map_err(|error| refused(&error))
    }

    /// An object whole, once there is `room` for its bytes.
    pub(crate) fn get(&self, key: &str, room: &dyn Fn(u64) -> bool) -> Result<Vec<u8>, Refused> {
        let got = block(async { self.0.get(&of(key)?).await }).map_err(|error| refused(&error))?;
        let size = got.meta.size;
        if size > LARGEST {
            return Err(Refused::Object(format!("an object of {size} bytes, where {LARGEST} are read at most")));
        }
        if !room(size) {
            return Err(Refused::Store("not read, as nobody waits for it".to_owned()));
        }
        block(got.bytes()).map(Into::into).map_err(|error| refused(&error))
    }
}

fn of(key: &str) -> Result<Key, object_store::Error> {
    Ok(Key::parse(key)?)
}

/// Runs to the end on this thread.
fn block<T>(work: impl Future<Output = T>) -> T {
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().build();
    clock.expect("a runtime without input and output needs nothing of the system").block_on(work)
}

/// The cause of an error, without what was asked, how often and for how long.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let last = std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error).to_string();
    let said = last.trim_start_matches("Server returned non-2xx status code: ").trim_end_matches([' ', ':']);
    said.replace(|letter: char| letter.is_control(), " ")
}

fn refused(error: &object_store::Error) -> Refused {
    let reason = deepest(error);
    match OF_OBJECTS.iter().any(|code| reason.contains(code))
        || matches!(error, object_store::Error::InvalidPath { .. })
    {
        true => Refused::Object(reason),
        false => Refused::Store(reason),
    }
}

/// Refuses what the crate would take for granted.
fn check_environment() -> Result<(), String> {
    let odd = |value: String| value.contains(|letter: char| !matches!(letter, ' '..='~'));
    if let Some(name) = INTO_HEADERS.into_iter().find(|name| std::env::var(name).is_ok_and(odd)) {
        return Err(format!("{name} has a character that no header can hold"));
    }
    for (name, endpoint) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if !name.starts_with("AWS_ENDPOINT") {
            continue;
        }
        let address = endpoint.to_str().and_then(|endpoint| endpoint.parse::<ureq::http::Uri>().ok());
        let scheme = address.as_ref().and_then(|address| address.scheme_str());
        if !matches!(scheme, Some("http" | "https")) {
            return Err(format!("{name}: expected https://HOST or http://HOST"));
        }
    }
    Ok(())
}

/// With the certificates of `AWS_CA_BUNDLE` where there is one, and proxies as the environment says.
fn agent(connect: Duration) -> Result<Agent, String> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .accept_encoding("")
        .max_idle_connections(KEPT)
        .max_idle_connections_per_host(KEPT)
        .timeout_connect(Some(connect))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE));
    if let Some(path) = std::env::var_os("AWS_CA_BUNDLE") {
        let certificates = certificates(Path::new(&path))
            .map_err(|reason| format!("AWS_CA_BUNDLE: {}: {reason}", Path::new(&path).display()))?;
        config = config.tls_config(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates)).build());
    }
    Ok(config.build().new_agent())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| error.to_string())? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(certificates) }
}

#[derive(Debug)]
struct Connector {
    store: Agent,
    role: Agent,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service { store: self.store.clone(), role: self.role.clone() }))
    }
}

#[derive(Debug)]
struct Service {
    store: Agent,
    role: Agent,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Away {
    #[error("{host}: {reason}")]
    Host { host: String, reason: String },
    #[error("no keys: AWS_ACCESS_KEY_ID is not set, and no role of this machine answers ({reason})")]
    Role { reason: String },
    #[error("the answer ends too early: {reason}")]
    Cut { reason: String },
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let host = parts.uri.host().unwrap_or_default().to_owned();
        let is_role = host == ROLE_HOST;
        let agent = if is_role { &self.role } else { &self.store };
        let answer = match body.as_bytes().filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => agent.run(ureq::http::Request::from_parts(parts, &bytes[..])),
            None => agent.run(ureq::http::Request::from_parts(parts, ())),
        };
        let answer = answer.map_err(|error| {
            let reason = error.to_string();
            HttpError::new(kind(&error), if is_role { Away::Role { reason } } else { Away::Host { host, reason } })
        })?;
        let (parts, body) = answer.into_parts();
        let body = match parts.status.is_client_error() || parts.status.is_server_error() {
            true if is_role => Away::Role { reason: parts.status.to_string() }.to_string().into(),
            true => described(body).into(),
            false => HttpResponseBody::new(Incoming(Mutex::new(body.into_reader()))),
        };
        Ok(HttpResponse::from_parts(parts, body))
    }
}

/// What may be asked again.
fn kind(error: &ureq::Error) -> HttpErrorKind {
    match error {
        ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed => HttpErrorKind::Connect,
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => HttpErrorKind::Connect,
        ureq::Error::Io(_) | ureq::Error::BodyStalled => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    }
}

/// `Code: Message` of an error's description in XML; its other fields repeat what was asked, and by whom.
fn described(body: ureq::Body) -> String {
    let mut text = String::new();
    let _ = body.into_reader().take(DESCRIPTION).read_to_string(&mut text);
    let field = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once("</")?.0)
    };
    [field("Code"), field("Message")].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

/// A body that is read while it is asked for.
struct Incoming(Mutex<ureq::BodyReader<'static>>);

impl Body for Incoming {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let mut bytes = vec![0; FRAME];
        let mut reader = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Poll::Ready(match reader.read(&mut bytes) {
            Ok(0) => None,
            Ok(count) => {
                bytes.truncate(count);
                Some(Ok(Frame::data(bytes.into())))
            }
            Err(error) => {
                Some(Err(HttpError::new(HttpErrorKind::Interrupted, Away::Cut { reason: error.to_string() })))
            }
        })
    }
}
