//! Taking connections, and letting go of those that only hold on.
//!
//! A connection has a place, or is turned away at once. Headers must be there in [`HEADERS`], also those of the next
//! request of an idle connection; bodies are bounded by [`super::body`]; an answer that nobody takes is given up after
//! [`UNREAD`].

mod patient;

use crate::error::Error;
use crate::places::Places;
use crate::tls::Certificates;
use crate::trust::Trust;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use patient::Patient;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Time for the headers of a request, from the first byte of a connection or the end of the request before.
const HEADERS: Duration = Duration::from_secs(20);
/// Time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time without a byte of an answer being taken.
const UNREAD: Duration = Duration::from_secs(30);
/// Time for a caller to end a connection that we have ended.
const LINGER: Duration = Duration::from_secs(2);
/// Time for requests that came while the server started, all of which are answered at once.
const MEANWHILE: Duration = Duration::from_secs(1);
/// Bytes of headers of a request that are certainly taken, and of what is read at once: with the last piece read they may be a third more.
const BUFFER: usize = 48 << 10;
/// Headers of a request.
const HEADER_COUNT: usize = 100;
/// Time after which accepting is tried again where the system had no room, such as for open files.
const NO_ROOM: Duration = Duration::from_millis(200);
/// Connections that are told at a time that there is no place.
const TURNED_AWAY: usize = 32;
/// What they are told.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 79\r\n\r\n\
    {\"error\":{\"code\":\"unavailable\",\"message\":\"no more connections are taken now\"}}\n";

/// Reads certificates again at SIGHUP, by which programs are asked to read their settings again.
async fn reread(tls: Arc<Certificates>) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
        while hangup.recv().await.is_some() {
            tls.reread();
        }
    }
    #[cfg(not(unix))]
    drop(tls);
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// A port that is open, and how it is served.
pub(crate) struct Listener {
    tcp: TcpListener,
    tls: Option<Arc<Certificates>>,
    places: Arc<Places>,
    drain: Duration,
}

impl Listener {
    /// On a port that was opened.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Damaged`] of certificate and key.
    pub(crate) fn new(tcp: TcpListener, trust: &Trust) -> Result<Self, Error> {
        let open = |files| Certificates::open(files, &["http/1.1"]).map(Arc::new);
        let tls = trust.tls.as_ref().map(open).transpose()?;
        let most = trust.max_connections.max(1);
        // An eighth is left for other addresses, such as those who look whether the server is well.
        Ok(Listener { tcp, tls, places: Places::new(most, most - most / 8), drain: trust.drain })
    }

    /// Whether it speaks TLS.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// How long requests that were begun are waited for.
    pub(crate) fn drain(&self) -> Duration {
        self.drain
    }

    /// Serves until `stop` resolves, then closes the port and waits for the requests that were begun, but not for ever.
    pub(crate) async fn serve(self, router: Router, stop: impl Future<Output = ()>) {
        let reread = self.tls.clone().map(|tls| tokio::spawn(reread(tls)));
        let (taken, drain) = (self.take(router, stop).await, self.drain);
        drop(self);
        taken.end(drain).await;
        if let Some(reread) = reread {
            reread.abort();
        }
    }

    /// Serves until `stop` resolves; the port stays open.
    pub(crate) async fn serve_meanwhile(&self, router: Router, stop: impl Future<Output = ()>) {
        self.take(router, stop).await.end(MEANWHILE).await;
    }

    /// Takes connections until `stop` resolves.
    async fn take(&self, router: Router, stop: impl Future<Output = ()>) -> Taken {
        let Listener { tcp, tls, places, .. } = self;
        let turned_away = Arc::new(Semaphore::new(TURNED_AWAY));
        let (stopping, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => continue,
                accepted = tcp.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "no connection can be taken");
                    tokio::time::sleep(NO_ROOM).await;
                    continue;
                }
            };
            let Some(place) = places.take(peer.ip()) else {
                if let Ok(turn) = Arc::clone(&turned_away).try_acquire_owned() {
                    let plain = tls.is_none();
                    connections.spawn(async move {
                        turn_away(stream, plain).await;
                        drop(turn);
                    });
                }
                continue;
            };
            let (router, tls, stopped) = (router.clone(), tls.clone(), stopped.clone());
            connections.spawn(async move {
                connection(stream, peer, router, tls, stopped).await;
                drop(place);
            });
        }
        Taken { connections, stopping }
    }
}

/// Connections that were taken.
struct Taken {
    connections: JoinSet<()>,
    stopping: watch::Sender<bool>,
}

impl Taken {
    /// Ends those that are idle, and the others with their request, or after a time.
    async fn end(mut self, patience: Duration) {
        let _ = self.stopping.send(true);
        let connections = &mut self.connections;
        if timeout(patience, async { while connections.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!(connections = connections.len(), "requests were not finished in time and are given up");
            connections.shutdown().await;
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    tls: Option<Arc<Certificates>>,
    stopped: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let stream = Patient::new(stream, UNREAD);
    let Some(tls) = tls else { return converse(stream, peer, router, stopped).await };
    match timeout(HANDSHAKE, TlsAcceptor::from(tls.current()).accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, peer, router, stopped).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a handshake failed"),
        Err(_) => tracing::debug!(%peer, "a handshake took too long"),
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        Box::pin(service.call(request))
    });
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(BUFFER).max_headers(HEADER_COUNT);
    let mut connection = protocol.serve_connection(TokioIo::new(stream), service);
    let mut stopping = false;
    // One future for all polls: it wakes a connection that is idle.
    let mut stop = pin!(stopped.changed());
    let ended = poll_fn(|cx| {
        if !stopping && stop.as_mut().poll(cx).is_ready() {
            stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        connection.poll_without_shutdown(cx)
    });
    if let Err(error) = ended.await {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
    if !stopping {
        let _ = timeout(LINGER, part(connection.into_parts().io.into_inner())).await;
    }
}

/// Ends a connection from our side and reads what still comes, until the caller ends it, too: closing over unread bytes
/// would take back the answer that was just sent, such as that a body is too long.
async fn part(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Says that there is no place.
async fn turn_away(mut stream: TcpStream, plain: bool) {
    if !plain {
        return;
    }
    let answer = async {
        stream.write_all(FULL).await?;
        part(stream).await
    };
    let _ = timeout(LINGER, answer).await;
}

/// Whether accepting failed for the sake of a connection that is gone, and not of the port.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_without_a_place_is_as_long_as_it_says() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{} bytes", body.len());
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
