//! Receivers on loopback: there, away, back again, and gone for good.

use super::*;
use crate::audit::{Action, Audit, entries};
use crate::journal::{Happened, Journal};
use crate::request::Caller;
use std::io::{BufRead, BufReader, Read};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;

/// An audit that sends.
struct Sending {
    _folder: tempfile::TempDir,
    path: PathBuf,
    audit: Audit,
    metrics: Arc<Metrics>,
}

fn sending(address: &str) -> Sending {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.sqlite");
    let metrics = Arc::new(Metrics::default());
    let config = SyslogConfig { address: address.to_owned(), tls: None };
    let syslog = Syslog::start(&config, "melo-1", Arc::clone(&metrics)).unwrap();
    let audit = Audit::open_as("melo-1", &path, None, Some(syslog)).unwrap();
    Sending { _folder: folder, path, audit, metrics }
}

impl Sending {
    fn append(&self, rows: usize) {
        let record = Journal::none().record(Action::Start, Caller::server(), Happened::default());
        self.audit.append(&vec![record; rows]).unwrap();
    }

    /// How rows are named, from one on.
    fn rows(&self, from: i64) -> Vec<String> {
        let all = entries(&self.path, u32::MAX, None).unwrap().into_iter();
        all.filter(|entry| entry.n >= from).map(|entry| format!("\"{}@{}\"", entry.hash, entry.n)).collect()
    }

    fn counted(&self, result: &str) -> u64 {
        let text = self.metrics.text(0);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("melo_audit_syslog_total{{result=\"{result}\"}} ")));
        line.map_or(0, |count| count.parse().unwrap())
    }
}

fn until(mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "it never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn frame(reader: &mut BufReader<TcpStream>) -> String {
    let mut length = Vec::new();
    reader.read_until(b' ', &mut length).unwrap();
    let length: usize = std::str::from_utf8(&length).unwrap().trim().parse().unwrap();
    let mut message = vec![0; length];
    reader.read_exact(&mut message).unwrap();
    String::from_utf8(message).unwrap()
}

fn hold(found: &[String], rows: &[String]) {
    assert_eq!(found.len(), rows.len());
    for (message, row) in found.iter().zip(rows) {
        assert!(
            message.starts_with("<85>1 ") && message.contains(row) && message.ends_with("</AuditMessage>"),
            "{message}"
        );
    }
}

#[test]
fn every_record_comes_in_frames_and_goes_on_behind_a_connection_that_ended() {
    let receiver = TcpListener::bind("127.0.0.1:0").unwrap();
    let sending = sending(&format!("tcp://{}", receiver.local_addr().unwrap()));
    sending.append(3);
    let mut first = BufReader::new(receiver.accept().unwrap().0);
    hold(&(0..3).map(|_| frame(&mut first)).collect::<Vec<_>>(), &sending.rows(1));
    first.get_ref().shutdown(Shutdown::Both).unwrap();
    drop(first);
    sending.append(2);
    let mut second = BufReader::new(receiver.accept().unwrap().0);
    hold(&(0..2).map(|_| frame(&mut second)).collect::<Vec<_>>(), &sending.rows(4));
    until(|| sending.counted("sent") == 5);
    assert_eq!(sending.counted("dropped"), 0);
}

#[test]
fn a_receiver_that_is_away_stops_no_record_and_gets_all_when_it_is_back() {
    let place = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let sending = sending(&format!("tcp://{address}"));
    let started = Instant::now();
    (0..10).for_each(|_| sending.append(1));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let receiver = TcpListener::bind(address).unwrap();
    let mut reader = BufReader::new(receiver.accept().unwrap().0);
    hold(&(0..10).map(|_| frame(&mut reader)).collect::<Vec<_>>(), &sending.rows(1));
}

#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    let place = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let sending = sending(&format!("tcp://{address}"));
    let more = 500;
    (0..4).for_each(|_| sending.append((WAITING + more) / 4));
    // One is being tried.
    let dropped = sending.counted("dropped");
    assert!((more as u64 - 1..=more as u64).contains(&dropped), "{dropped}");
    let (metrics, started) = (Arc::clone(&sending.metrics), Instant::now());
    drop(sending);
    assert!(started.elapsed() < LAST + Duration::from_secs(1), "the end waits for nobody");
    let text = metrics.text(0);
    assert!(text.contains(&format!("result=\"dropped\"}} {}", WAITING + more)), "{text}");
}

#[test]
fn datagrams_are_whole_messages() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let sending = sending(&format!("udp://{}", receiver.local_addr().unwrap()));
    sending.append(2);
    let mut bytes = vec![0; 1 << 16];
    let mut take = || {
        let length = receiver.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let found = [take(), take()];
    hold(&found, &sending.rows(1));
}

#[test]
fn addresses_that_cannot_be_are_refused() {
    for address in [
        "",
        "siem",
        "siem:514",
        "http://siem:514",
        "tcp://siem",
        "tcp://siem:514/x",
        "tcp://siem:99999",
        "tls://siem:6514",
    ] {
        let config = SyslogConfig { address: address.to_owned(), tls: None };
        let error = Syslog::start(&config, "melo-1", Arc::default()).err().unwrap_or_else(|| panic!("{address}"));
        assert!(matches!(&error, Error::Settings(reason) if reason.contains("audit-syslog")), "{address}: {error}");
    }
}
