//! TLS with certificates on both sides: HTTP, the storage SCP, and results to a receiver.

use crate::common::peer::{data_set, image, options, store};
use crate::common::{Running, client, config, engine, file, plugin, put, until};
use dicom_ul::association::{Error as Broken, client::TlsStream};
use dicom_ul::{ClientAssociation, ClientAssociationOptions};
use melo_serve::{Config, DestinationConfig, DicomConfig, ResultKind, SyslogConfig, TlsClientFiles, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// Who vouches, with files in a folder.
struct Authority {
    folder: PathBuf,
    name: &'static str,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(folder: &Path, name: &'static str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("settings");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let authority = Authority { folder: folder.to_owned(), name, issuer };
        std::fs::write(authority.ca(), authority.issuer.pem()).expect("written");
        authority
    }

    fn ca(&self) -> PathBuf {
        self.folder.join(format!("{}.ca.pem", self.name))
    }

    /// A certificate for `localhost` and its key; one that expired where that is asked for.
    fn issue(&self, name: &str, expired: bool) -> [PathBuf; 2] {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("settings");
        if expired {
            params.not_after = date_time_ymd(2020, 1, 31);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let files = ["cert", "key"].map(|kind| self.folder.join(format!("{}.{name}.{kind}.pem", self.name)));
        std::fs::write(&files[0], certificate.pem()).expect("written");
        std::fs::write(&files[1], key.serialize_pem()).expect("written");
        files
    }

    fn server(&self) -> TlsFiles {
        let [cert, key] = self.issue("server", false);
        TlsFiles { cert, key, client_ca: Some(self.ca()) }
    }

    fn caller(&self, shown: Option<[PathBuf; 2]>) -> TlsClientFiles {
        let [cert, key] = shown.map_or([None, None], |files| files.map(Some));
        TlsClientFiles { ca: self.ca(), server_name: Some("localhost".to_owned()), cert, key }
    }
}

fn settings(folder: &Path, dicom: DicomConfig) -> Config {
    let engine = engine();
    put(&folder.join("plugins"), "chest", &file(engine.backbone(), &plugin(&*engine, "chest", 1)));
    Config { dicom: Some(DicomConfig { tasks: vec!["all".to_owned()], ..dicom }), ..config(folder) }
}

fn call(running: &Running, files: &TlsClientFiles) -> Result<ClientAssociation<TlsStream>, Broken> {
    let options: ClientAssociationOptions<'_> = options("MELO");
    let config = files.config().expect("files that fit");
    options.tls_config(config).server_name("localhost").establish_tls(running.dicom())
}

#[test]
fn only_who_shows_a_certificate_of_the_authority_begins_an_association() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, others) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "others"));
    let listen = Some("127.0.0.1:0".to_owned());
    let dicom = DicomConfig { listen, tls: Some(ours.server()), any_peer: true, ..DicomConfig::default() };
    let running = Running::start(settings(folder.path(), dicom));
    let right = ours.caller(Some(ours.issue("ct1", false)));
    let mut association = call(&running, &right).expect("an association");
    assert_eq!(store(&mut association, "1.2.3.4", &data_set(&image("1.2.3.4", "DX"))), 0);
    drop(association);
    for (what, files) in [
        ("no certificate", ours.caller(None)),
        ("an expired one", ours.caller(Some(ours.issue("old", true)))),
        ("one of another authority", ours.caller(Some(others.issue("ct1", false)))),
        ("a server that another authority vouches for", others.caller(Some(ours.issue("ct2", false)))),
    ] {
        assert!(call(&running, &files).is_err(), "{what}");
    }
    let plain = options("MELO").establish(running.dicom());
    assert!(plain.is_err(), "nobody speaks without encryption");
    call(&running, &right).expect("others are not held up");
}

#[test]
fn results_go_encrypted_to_who_is_vouched_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = Authority::new(folder.path(), "ours");
    let listen = || Some("127.0.0.1:0".to_owned());
    let (near, far) = (folder.path().join("near"), folder.path().join("far"));
    let archive = DicomConfig {
        listen: listen(),
        tls: Some(ours.server()),
        ae_title: "PACS".to_owned(),
        ..DicomConfig::default()
    };
    let archive = Running::start(settings(&far, archive));
    let destination = DestinationConfig {
        name: "pacs".to_owned(),
        address: Some(archive.dicom().to_string()),
        ae_title: Some("PACS".to_owned()),
        tls: Some(ours.caller(Some(ours.issue("melo", false)))),
        url: None,
        authorization_file: None,
        results: vec![ResultKind::Capture],
    };
    let dicom = DicomConfig { listen: listen(), destination: vec![destination], ..DicomConfig::default() };
    let running = Running::start(settings(&near, dicom));
    let mut association = crate::common::peer::connect(running.dicom(), "MELO").expect("an association");
    assert_eq!(store(&mut association, "1.2.3.4", &data_set(&image("1.2.3.4", "DX"))), 0);
    let outgoing = near.join("state/spool/outgoing/pacs");
    // It is an image, too.
    until("the capture is answered", || {
        archive.service.metrics.text(0).contains("melo_answers_total{task=\"chest\"} 1")
    });
    until("nothing waits", || std::fs::read_dir(&outgoing).is_ok_and(|mut found| found.next().is_none()));
}

#[test]
fn http_asks_for_a_certificate_where_it_is_told_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, others) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "others"));
    let mut config = config(folder.path());
    config.trust.tls = Some(ours.server());
    let running = Running::start(config);
    let ask = |shown: Option<[PathBuf; 2]>| {
        let pem = |path: &Path| std::fs::read(path).expect("read");
        let ca = ureq::tls::Certificate::from_pem(&pem(&ours.ca())).expect("a certificate");
        let mut tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::Specific(Arc::new(vec![ca])));
        if let Some([cert, key]) = shown {
            let cert = ureq::tls::Certificate::from_pem(&pem(&cert)).expect("a certificate");
            let key = ureq::tls::PrivateKey::from_pem(&pem(&key)).expect("a key");
            tls = tls.client_cert(Some(ureq::tls::ClientCert::new_with_certs(&[cert], key)));
        }
        let agent = ureq::Agent::config_builder().tls_config(tls.build()).timeout_global(Some(Duration::from_secs(20)));
        let url = format!("https://localhost:{}/v2/health/live", running.address.port());
        agent.build().new_agent().get(url).call().map(|answer| answer.status().as_u16())
    };
    assert_eq!(ask(Some(ours.issue("ris", false))).expect("an answer"), 200);
    for shown in [None, Some(ours.issue("old", true)), Some(others.issue("ris", false))] {
        assert!(ask(shown.clone()).is_err(), "{shown:?}");
    }
    assert!(client().get(running.url("/v2/health/live")).call().is_err(), "plain HTTP is not spoken");
}

/// The beginning of a handshake in `version`, with suites that old libraries offer, and one of today's where `modern`.
fn client_hello(version: [u8; 2], modern: bool) -> Vec<u8> {
    // RSA with AES-CBC and SHA-1, RC4, 3DES; ECDHE with AES-GCM.
    let mut suites = vec![0x00, 0x2f, 0x00, 0x05, 0x00, 0x0a];
    if modern {
        suites.extend([0xc0, 0x2b, 0xc0, 0x2f]);
    }
    let mut body = version.to_vec();
    body.extend([7; 32]);
    body.push(0);
    body.extend((suites.len() as u16).to_be_bytes());
    body.extend(&suites);
    body.extend([1, 0]);
    let mut hello = vec![1, 0];
    hello.extend((body.len() as u16).to_be_bytes());
    hello.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend((hello.len() as u16).to_be_bytes());
    record.extend(hello);
    record
}

#[test]
fn older_versions_and_weak_suites_are_not_spoken() {
    use std::io::Write;
    let folder = tempfile::tempdir().expect("a folder");
    let ours = Authority::new(folder.path(), "ours");
    let dicom =
        DicomConfig { listen: Some("127.0.0.1:0".to_owned()), tls: Some(ours.server()), ..DicomConfig::default() };
    let mut config = settings(folder.path(), dicom);
    config.trust.tls = Some(ours.server());
    let running = Running::start(config);
    for address in [running.address, running.dicom()] {
        for (version, modern) in [([3, 0], true), ([3, 1], true), ([3, 2], true), ([3, 3], false)] {
            let mut stream = std::net::TcpStream::connect(address).expect("a connection");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
            stream.write_all(&client_hello(version, modern)).expect("sent");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            // A fatal alert, or nothing: no handshake.
            assert!(answer.is_empty() || answer[0] == 21, "{version:?} at {address}: {answer:?}");
        }
    }
}

/// A receiver of syslog that asks for certificates of the authority: what it was sent, message by message.
fn syslog(ours: &Authority) -> (SocketAddr, Receiver<String>) {
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ours.ca()).expect("an authority")).expect("it is one");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let [cert, key] = ours.issue("syslog", false);
    let chain = vec![CertificateDer::from_pem_file(cert).expect("a certificate")];
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = config.with_client_cert_verifier(verifier.expect("a verifier"));
    let config = config.with_single_cert(chain, PrivateKeyDer::from_pem_file(key).expect("a key")).expect("they fit");
    let (listener, (sender, messages)) = (TcpListener::bind("127.0.0.1:0").expect("a port"), channel());
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = ServerConnection::new(Arc::new(config.clone())).expect("settings");
            let mut reader = BufReader::new(StreamOwned::new(connection, stream));
            let mut length = Vec::new();
            while reader.read_until(b' ', &mut length).is_ok_and(|read| read > 0) {
                let count = std::str::from_utf8(&length).expect("digits").trim().parse().expect("a length");
                let mut message = vec![0; count];
                if reader.read_exact(&mut message).is_err()
                    || sender.send(String::from_utf8_lossy(&message).into()).is_err()
                {
                    break;
                }
                length.clear();
            }
        }
    });
    (address, messages)
}

#[test]
fn the_audit_goes_to_a_receiver_of_syslog_that_both_sides_know() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, others) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "others"));
    let (receiver, messages) = syslog(&ours);
    let start = |state: &str, tls: TlsClientFiles| {
        let mut config = settings(&folder.path().join(state), DicomConfig::default());
        config.dicom = None;
        config.trust.audit = Some(folder.path().join(state).join("audit.sqlite"));
        config.trust.syslog = Some(SyslogConfig { address: format!("tls://{receiver}"), tls: Some(tls) });
        Running::start(config)
    };
    let picture = crate::common::image(1);
    let ask =
        |running: &Running| running.predict(&[("image", Some("Doe^John.png"), &picture), ("tasks", None, b"chest")]).0;
    let running = start("known", ours.caller(Some(ours.issue("melo", false))));
    assert_eq!(ask(&running), 200);
    let wait = Duration::from_secs(20);
    let found: Vec<String> = (0..3).map(|_| messages.recv_timeout(wait).expect("a message")).collect();
    for (message, action) in found.iter().zip(["start", "serve", "answer"]) {
        assert!(message.contains(&format!("csd-code=\"{action}\" codeSystemName=\"99MELO\"")), "{message}");
        assert!(!message.contains("John"), "{message}");
    }
    until("three are counted", || {
        running.service.metrics.text(0).contains("melo_audit_syslog_total{result=\"sent\"} 3")
    });
    // Whoever is not known gets nothing, and shows nothing to others; answers go on.
    for (state, tls) in [("stranger", ours.caller(None)), ("other", others.caller(Some(others.issue("melo", false))))] {
        let running = start(state, tls);
        assert_eq!(ask(&running), 200);
        std::thread::sleep(Duration::from_millis(500));
        let text = running.service.metrics.text(0);
        assert!(text.contains("melo_audit_syslog_total{result=\"sent\"} 0"), "{text}");
    }
    drop(running);
    let rest: Vec<String> = messages.try_iter().collect();
    assert!(rest.len() == 1 && rest[0].contains("Application Stop"), "{rest:?}");
}
