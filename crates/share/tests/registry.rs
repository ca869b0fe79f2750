//! A registry that wants a token, and one that sends other bytes than were pushed.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use melo_share::{Error, Readme, Reference, pull, push};
use melo_sign::sha256;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Blobs and manifests by path, and what was asked.
#[derive(Default)]
struct Registry {
    kept: BTreeMap<String, Vec<u8>>,
    asked: Vec<String>,
    /// Changes a byte of what is longer than this.
    tampers: Option<usize>,
}

fn answer(stream: &mut TcpStream, registry: &Mutex<Registry>, address: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line).unwrap() > 2 {
        head += &line;
        line.clear();
    }
    let lower = head.to_lowercase();
    let header =
        |name: &str| lower.split(&format!("{name}: ")).nth(1).and_then(|rest| rest.lines().next()).unwrap_or("");
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let (method, path) = {
        let mut words = head.split(' ');
        (words.next().unwrap().to_owned(), words.next().unwrap().to_owned())
    };
    let mut registry = registry.lock().unwrap();
    registry.asked.push(format!("{method} {path}"));
    let mut more = String::new();
    let (status, content) = match &*method {
        "GET" if path.starts_with("/token?") => {
            let fits = path.contains("service=ours") && path.contains("scope=repository%3Alab%2Fchest%3Apull%2Cpush");
            (if fits { 200 } else { 400 }, br#"{"token": "sesame"}"#.to_vec())
        }
        _ if header("authorization") != "bearer sesame" => {
            more = format!(
                "www-authenticate: Bearer realm=\"http://{address}/token\",service=\"ours\",\
                 scope=\"repository:lab/chest:pull,push\"\r\n"
            );
            (401, br#"{"errors": [{"message": "who are you"}]}"#.to_vec())
        }
        "POST" => {
            more = "location: /v2/lab/chest/blobs/uploads/1?state=x\r\n".to_owned();
            (202, Vec::new())
        }
        "PUT" => {
            let name =
                path.split("digest=").nth(1).map_or(path.clone(), |digest| format!("/v2/lab/chest/blobs/{digest}"));
            if let Some((place, _)) = name.rsplit_once('/').filter(|(place, _)| place.ends_with("manifests")) {
                registry.kept.insert(format!("{place}/sha256:{}", sha256(&body)), body.clone());
            }
            registry.kept.insert(name, body);
            (201, Vec::new())
        }
        _ => match registry.kept.get(&path).cloned() {
            Some(mut content) => {
                if registry.tampers.is_some_and(|length| content.len() > length) {
                    content[100] ^= 1;
                }
                (200, content)
            }
            None => (404, br#"{"errors": [{"message": "unknown"}]}"#.to_vec()),
        },
    };
    let length = content.len();
    write!(stream, "HTTP/1.1 {status} X\r\nconnection: close\r\n{more}content-length: {length}\r\n\r\n").unwrap();
    if method != "HEAD" {
        stream.write_all(&content).unwrap();
    }
}

/// One test: the cache goes by an environment variable, which belongs to the whole process.
#[test]
fn a_plugin_goes_to_a_registry_and_comes_back_or_is_refused_by_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let registry = Arc::new(Mutex::new(Registry::default()));
    let (served, own) = (Arc::clone(&registry), address.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(&mut stream.unwrap(), &served, &own);
        }
    });
    let room = tempfile::tempdir().unwrap();
    let home = room.path().to_str().unwrap().to_owned();
    temp_env::with_vars([("XDG_CACHE_HOME", Some(home.clone())), ("DOCKER_CONFIG", Some(home))], || {
        let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/phantoms/fundus.safetensors");
        let bytes = std::fs::read(&plugin).unwrap();
        let name: Reference = format!("oci://{address}/lab/chest:2").parse().unwrap();
        let pinned: Reference = push(&plugin, &name, &Readme::default()).unwrap().parse().unwrap();
        assert!(matches!(&pinned, Reference::Oci(name) if name.is_pinned()), "{pinned}");

        for reference in [&name, &pinned] {
            assert_eq!(std::fs::read(pull(reference, true).unwrap()).unwrap(), bytes);
        }
        registry.lock().unwrap().asked.clear();
        let kept = pull(&name, false).unwrap();
        assert_eq!(
            registry.lock().unwrap().asked,
            Vec::<String>::new(),
            "what was fetched once is not asked for again"
        );

        // Changed in the cache.
        std::fs::write(&kept, b"other").unwrap();
        let error = pull(&name, false).unwrap_err();
        assert!(matches!(&error, Error::Tampered { expected, .. } if *expected == sha256(&bytes)), "{error}");

        // Changed where it is kept.
        registry.lock().unwrap().tampers = Some(10_000);
        let error = pull(&name, true).unwrap_err();
        let Error::Tampered { blob, expected, found } = &error else { panic!("{error}") };
        assert_eq!(*expected, sha256(&bytes));
        assert_ne!(found, expected);
        assert_eq!(*blob, format!("blob sha256:{expected} (plugin.safetensors) of {name}"));
        registry.lock().unwrap().tampers = None;

        // Something else by that name.
        let other = br#"{"schemaVersion": 2, "artifactType": "application/vnd.other", "layers": []}"#.to_vec();
        registry.lock().unwrap().kept.insert("/v2/lab/chest/manifests/2".to_owned(), other);
        let error = pull(&name, true).unwrap_err().to_string();
        assert!(error.contains("it is of type application/vnd.other"), "{error}");
        let absent: Reference = format!("oci://{address}/lab/chest:3").parse().unwrap();
        assert!(matches!(pull(&absent, true), Err(Error::Refused { status: 404, .. })));
    });
}
