//! Requests as spans for a collector of OpenTelemetry: OTLP over HTTP in its JSON encoding, version 1.
//!
//! What is sent is what the log says of a request: method, route, status, times, its name. A collector that is slow or
//! away costs spans, never answers. Why this is not the SDK: `docs/decisions/0011-trust.md`.

use crate::error::Error;
use axum::http::{HeaderMap, Uri};
use melo_vit::hex;
use serde_json::{Value, json};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Spans that may wait; more are dropped.
const WAITING: usize = 4096;
/// Spans of one message.
const BATCH: usize = 512;
/// How long the first span of a message waits for others.
const PAUSE: Duration = Duration::from_secs(2);
/// Time for the collector to take a message.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two lines in the log about a collector that takes nothing.
const QUIET: Duration = Duration::from_secs(60);

/// Where a request stands in a trace: the header `traceparent` of W3C Trace Context, level 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Context {
    trace: String,
    parent: Option<String>,
    sampled: bool,
}

impl Context {
    /// The caller's, or a new trace.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let given = headers.get("traceparent").and_then(|value| value.to_str().ok());
        given.and_then(Self::parse).unwrap_or_else(|| Context { trace: random::<16>(), parent: None, sampled: true })
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut parts = text.split('-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let known = digits(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        let named = digits(trace, 32) && digits(parent, 16) && digits(flags, 2);
        let zero = |text: &str| text.bytes().all(|byte| byte == b'0');
        if !known || !named || zero(trace) || zero(parent) {
            return None;
        }
        let sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
        Some(Context { trace: trace.to_owned(), parent: Some(parent.to_owned()), sampled })
    }
}

fn random<const N: usize>() -> String {
    let mut bytes = [0; N];
    // Without a source of randomness there are no traces worth having.
    let _ = getrandom::fill(&mut bytes);
    hex(&bytes)
}

/// A request that was answered.
pub(crate) struct Span<'a> {
    pub(crate) context: &'a Context,
    pub(crate) method: &'a str,
    pub(crate) route: &'a str,
    pub(crate) status: u16,
    pub(crate) request_id: &'a str,
    pub(crate) took: Duration,
}

impl Span<'_> {
    /// As `opentelemetry.proto.trace.v1.Span`; numbers of 64 bits are texts there.
    fn encode(&self) -> Value {
        let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = end.saturating_sub(self.took);
        let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        let status = json!({ "intValue": self.status.to_string() });
        // SPAN_KIND_SERVER; STATUS_CODE_ERROR where the fault is the server's.
        json!({
            "traceId": self.context.trace,
            "spanId": random::<8>(),
            "parentSpanId": self.context.parent.as_deref().unwrap_or_default(),
            "name": format!("{} {}", self.method, self.route),
            "kind": 2,
            "startTimeUnixNano": start.as_nanos().to_string(),
            "endTimeUnixNano": end.as_nanos().to_string(),
            "attributes": [
                text("http.request.method", self.method),
                text("http.route", self.route),
                json!({ "key": "http.response.status_code", "value": status }),
                text("melo.request_id", self.request_id),
            ],
            "status": if self.status >= 500 { json!({ "code": 2 }) } else { json!({}) },
        })
    }
}

/// Sends spans from a thread of its own.
pub(crate) struct Traces {
    spans: Option<SyncSender<Value>>,
    thread: Option<JoinHandle<()>>,
}

impl Traces {
    /// To a collector's address, such as `http://127.0.0.1:4318`.
    ///
    /// # Errors
    /// [`Error::Settings`] if it is no address.
    pub(crate) fn start(endpoint: &str) -> Result<Self, Error> {
        let uri: Result<Uri, _> = endpoint.parse();
        let known = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        if !uri.is_ok_and(|uri| known(&uri)) {
            let reason = format!("otlp-endpoint `{}`: expected http://HOST:4318", endpoint.escape_debug());
            return Err(Error::Settings(reason));
        }
        let address = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let (spans, waiting) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("melo-traces".into()).spawn(move || send(&address, &waiting));
        let thread = thread.map_err(|error| Error::Settings(format!("the thread of traces: {error}")))?;
        Ok(Traces { spans: Some(spans), thread: Some(thread) })
    }

    pub(crate) fn add(&self, span: &Span) {
        if let Some(spans) = self.spans.as_ref().filter(|_| span.context.sampled) {
            let _ = spans.try_send(span.encode());
        }
    }
}

impl Drop for Traces {
    /// Sends what is there.
    fn drop(&mut self) {
        drop(self.spans.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn send(address: &str, waiting: &Receiver<Value>) {
    let agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).max_redirects(0).build().new_agent();
    let mut told: Option<Instant> = None;
    while let Ok(first) = waiting.recv() {
        let until = Instant::now() + PAUSE;
        let mut spans = vec![first];
        let mut open = true;
        while open && spans.len() < BATCH {
            match waiting.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(span) => spans.push(span),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        }
        let service = json!({ "key": "service.name", "value": { "stringValue": "melo" } });
        let scope = json!({ "name": "melo-serve", "version": env!("CARGO_PKG_VERSION") });
        let body = json!({ "resourceSpans": [{
            "resource": { "attributes": [service] },
            "scopeSpans": [{ "scope": scope, "spans": spans }],
        }]});
        let sent = agent.post(address).header("content-type", "application/json").send(body.to_string().as_bytes());
        if let Err(error) = sent
            && told.is_none_or(|told| told.elapsed() > QUIET)
        {
            tracing::warn!(%error, address, "the collector takes no traces");
            told = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    fn context(text: &'static str) -> Context {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", text.parse().unwrap());
        Context::of(&headers)
    }

    #[test]
    fn a_callers_trace_goes_on_and_a_broken_one_begins_anew() {
        let found = context("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!(found.trace, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(found.parent.as_deref(), Some("00f067aa0ba902b7"));
        assert!(found.sampled && !context("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00").sampled);
        for text in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f-00f067aa0ba902b7-01",
        ] {
            let found = context(text);
            assert!(found.parent.is_none() && found.trace.len() == 32 && found.sampled, "{text}");
        }
    }

    #[test]
    fn a_collector_gets_what_was_answered() {
        let collector = TcpListener::bind("127.0.0.1:0").unwrap();
        let traces = Traces::start(&format!("http://{}/", collector.local_addr().unwrap())).unwrap();
        let context = context("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let span = |status| Span {
            context: &context,
            method: "POST",
            route: "/v1/predict",
            status,
            request_id: "pacs-7",
            took: Duration::from_millis(30),
        };
        traces.add(&span(200));
        traces.add(&span(503));
        traces.add(&Span { context: &Context { sampled: false, ..context.clone() }, ..span(200) });
        let ended = std::thread::spawn(move || drop(traces));
        let (mut stream, _) = collector.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while reader.read_line(&mut head).unwrap() > 2 {}
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        let length = head.to_lowercase().split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse();
        let mut body = vec![0; length.unwrap()];
        reader.read_exact(&mut body).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        ended.join().unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
        assert_eq!(spans.len(), 2, "a trace that is not sampled is not sent");
        assert_eq!(spans[0]["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(spans[0]["name"], "POST /v1/predict");
        let time = |name: &str| spans[0][name].as_str().unwrap().parse::<u64>().unwrap();
        assert_eq!(time("endTimeUnixNano") - time("startTimeUnixNano"), 30_000_000);
        assert_eq!((&spans[0]["status"], &spans[1]["status"]["code"]), (&json!({}), &json!(2)));
    }

    #[test]
    fn what_is_no_address_is_refused_and_a_collector_that_is_away_costs_nothing() {
        for endpoint in ["", "collector:4318", "ftp://x", "/v1/traces"] {
            assert!(matches!(Traces::start(endpoint), Err(Error::Settings(_))), "{endpoint}");
        }
        let traces = Traces::start("http://127.0.0.1:1").unwrap();
        let context = Context::of(&HeaderMap::new());
        let started = Instant::now();
        for _ in 0..2 * WAITING {
            let took = Duration::ZERO;
            traces.add(&Span { context: &context, method: "GET", route: "/", status: 200, request_id: "x", took });
        }
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}
