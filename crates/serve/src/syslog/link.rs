//! A way to a receiver of syslog: datagrams (RFC 5426), or frames that begin with their length on TCP (RFC 6587, 3.4.1) and TLS (RFC 5425).

use super::SyslogConfig;
use crate::error::Error;
use axum::http::Uri;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

/// For a connection and its handshake, and for a message.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a receiver may take to refuse our certificate: in TLS 1.3 it says so behind the handshake (RFC 8446, section 4.4.2.4).
const REFUSAL: Duration = Duration::from_millis(300);

/// How a receiver is reached.
pub(super) struct Way {
    /// Host and port.
    address: String,
    door: Door,
}

enum Door {
    Udp,
    Tcp,
    Tls(Arc<ClientConfig>, ServerName<'static>),
}

/// One that is open.
pub(super) enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Way {
    /// # Errors
    /// [`Error::Settings`]; [`Error::Io`] and [`Error::Damaged`] of the files for TLS.
    pub(super) fn new(config: &SyslogConfig) -> Result<Self, Error> {
        let shown = config.address.escape_debug();
        let wrong = |reason: &str| Error::Settings(format!("audit-syslog `{shown}`: {reason}"));
        let expected = "expected udp://HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT";
        let uri: Uri = config.address.parse().map_err(|_| wrong(expected))?;
        let plain = uri.path().trim_start_matches('/').is_empty() && uri.query().is_none();
        let (Some(host), Some(port), true) = (uri.host(), uri.port_u16(), plain) else { return Err(wrong(expected)) };
        let door = match (uri.scheme_str(), &config.tls) {
            (Some("udp"), None) => Door::Udp,
            (Some("tcp"), None) => Door::Tcp,
            (Some("udp" | "tcp"), Some(_)) => return Err(wrong("certificates are for tls://")),
            (Some("tls"), Some(files)) => {
                let name = files.server_name.as_deref().unwrap_or(host.trim_matches(['[', ']'])).to_owned();
                let name = ServerName::try_from(name).map_err(|_| wrong("the host is no name of a certificate"))?;
                Door::Tls(files.config()?, name)
            }
            (Some("tls"), None) => return Err(wrong("say who vouches for the receiver, by audit-syslog-ca")),
            _ => return Err(wrong(expected)),
        };
        Ok(Way { address: format!("{host}:{port}"), door })
    }

    /// Whether what is sent in vain is known to be so.
    pub(super) fn is_connected(&self) -> bool {
        !matches!(self.door, Door::Udp)
    }

    pub(super) fn open(&self) -> io::Result<Link> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.address.to_socket_addrs()? {
            match self.open_at(address) {
                Ok(link) => return Ok(link),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn open_at(&self, address: SocketAddr) -> io::Result<Link> {
        if matches!(self.door, Door::Udp) {
            let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
            socket.connect(address)?;
            return Ok(Link::Udp(socket));
        }
        let mut tcp = TcpStream::connect_timeout(&address, PATIENCE)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        let Door::Tls(config, name) = &self.door else { return Ok(Link::Tcp(tcp)) };
        let mut connection = ClientConnection::new(Arc::clone(config), name.clone()).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        tcp.set_read_timeout(Some(REFUSAL))?;
        let mut link = StreamOwned::new(connection, tcp);
        match is_closed(&mut link)? {
            true => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the receiver has closed the connection")),
            false => Ok(Link::Tls(Box::new(link))),
        }
    }
}

impl Link {
    /// Sends one message. What the system takes is sent, as far as can be known: receivers do not answer.
    pub(super) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        if self.is_closed()? {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the receiver has closed the connection"));
        }
        let frame = || [message.len().to_string().as_bytes(), b" ", message].concat();
        match self {
            Link::Udp(socket) => socket.send(message).map(|_| ()),
            Link::Tcp(stream) => stream.write_all(&frame()),
            Link::Tls(stream) => stream.write_all(&frame()).and_then(|()| stream.flush()),
        }
    }

    /// Whether the receiver has gone: the first message after that would be taken by the system and lost.
    fn is_closed(&mut self) -> io::Result<bool> {
        match self {
            Link::Udp(_) => Ok(false),
            Link::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                let seen = stream.peek(&mut [0]);
                stream.set_nonblocking(false)?;
                is_end(seen)
            }
            Link::Tls(stream) => {
                stream.sock.set_nonblocking(true)?;
                let seen = is_closed(stream);
                stream.sock.set_nonblocking(false)?;
                seen
            }
        }
    }
}

/// What comes within the socket's time, or says that nothing more does.
fn is_closed(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> io::Result<bool> {
    let seen = stream.conn.read_tls(&mut stream.sock);
    let state = stream.conn.process_new_packets().map_err(io::Error::other)?;
    Ok(is_end(seen)? || state.peer_has_closed())
}

fn is_end(read: io::Result<usize>) -> io::Result<bool> {
    match read {
        Ok(bytes) => Ok(bytes == 0),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(false),
        Err(error) => Err(error),
    }
}
