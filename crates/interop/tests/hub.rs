//! Downloads from a local server that speaks the hub's protocol: listing, ranges, digests, tokens, resume, offline.
//!
//! One test: everything here goes by environment variables, which belong to the whole process.

use melo_interop::{locate, read_checkpoint};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Hub {
    files: BTreeMap<String, Vec<u8>>,
    /// Requests as `METHOD path range`, in order.
    seen: Vec<String>,
    /// Cuts the next long answer off in the middle, once.
    cut: bool,
    /// Flips a byte of the weights that are sent.
    corrupt: bool,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn answer(stream: &mut TcpStream, hub: &Mutex<Hub>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut range, mut token) = (String::new(), String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "range" => range = value.trim().to_owned(),
            "authorization" => token = value.trim().to_owned(),
            _ => {}
        }
    }
    let mut hub = hub.lock().expect("no panic while it was held");
    hub.seen.push(format!("{path} {range}"));
    let mut reply = |status: &str, headers: &str, body: &[u8], sent: usize| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(&body[..sent]).ok()
    };
    if path.contains("/secret") && token != "Bearer sesame" {
        return reply("401 Unauthorized", "", b"", 0);
    }
    if path.starts_with("/api/models/") {
        let names: Vec<String> = hub.files.keys().map(|name| format!(r#"{{"rfilename": "{name}"}}"#)).collect();
        let body = format!(r#"{{"sha": "c0ffee", "siblings": [{}]}}"#, names.join(","));
        return match path.contains("absent") {
            true => reply("404 Not Found", "", b"", 0),
            false => reply("200 OK", "Content-Type: application/json\r\n", body.as_bytes(), body.len()),
        };
    }
    let name = path.rsplit('/').next()?.to_owned();
    let Some(mut bytes) = hub.files.get(&name).cloned() else {
        return reply("404 Not Found", "", b"", 0);
    };
    // As the hub: git's digest for small files, whose length alone matters here, and SHA-256 for large ones.
    let digest = hex(&Sha256::digest(&bytes));
    let etag = if name.ends_with("json") { &digest[..40] } else { &digest };
    if hub.corrupt && bytes.len() > 10_000 {
        bytes[9_000] ^= 1;
    }
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first: usize = first.parse().ok()?;
    let last = last.parse().map_or(bytes.len() - 1, |last: usize| last.min(bytes.len() - 1));
    let body = bytes[first..=last].to_vec();
    let headers =
        format!("ETag: \"{etag}\"\r\nx-repo-commit: c0ffee\r\nContent-Range: bytes {first}-{last}/{}\r\n", bytes.len());
    let long = body.len() > 10_000;
    let sent = if long && std::mem::take(&mut hub.cut) { body.len() / 2 } else { body.len() };
    reply("206 Partial Content", &headers, &body, sent)
}

#[test]
fn models_come_from_the_hub_once_whole_and_resumed() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families/hf-dinov2");
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(&golden).unwrap() {
        let path = entry.unwrap().path();
        files.insert(path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap());
    }
    let hub = Arc::new(Mutex::new(Hub { files, ..Hub::default() }));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = hub.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(&mut stream.unwrap(), &served);
        }
    });
    let home = tempfile::tempdir().unwrap();
    let environment = [("HF_HOME", home.path().to_str().unwrap()), ("HF_ENDPOINT", &format!("http://{address}"))];
    temp_env::with_vars(environment.map(|(name, value)| (name, Some(value.to_owned()))), || {
        let seen = || std::mem::take(&mut hub.lock().unwrap().seen);
        let own = read_checkpoint(&golden).unwrap().digest();

        // Offline and empty: refused without a request.
        temp_env::with_var("HF_HUB_OFFLINE", Some("1"), || {
            let error = read_checkpoint(Path::new("hf:facebook/dinov2-tiny")).unwrap_err().to_string();
            assert!(error.contains("HF_HUB_OFFLINE") && error.contains("hf:facebook/dinov2-tiny"), "{error}");
        });
        assert_eq!(seen(), Vec::<String>::new());

        assert_eq!(read_checkpoint(Path::new("hf:facebook/dinov2-tiny")).unwrap().digest(), own);
        assert!(seen().iter().any(|request| request.contains("/facebook/dinov2-tiny/resolve/main/model.safetensors")));

        // A second time nothing is asked for, online or not.
        assert_eq!(read_checkpoint(Path::new("hf:facebook/dinov2-tiny")).unwrap().digest(), own);
        temp_env::with_var("HF_HUB_OFFLINE", Some("1"), || {
            assert_eq!(read_checkpoint(Path::new("hf:facebook/dinov2-tiny")).unwrap().digest(), own);
        });
        assert_eq!(seen(), Vec::<String>::new());

        // timm's names are models too, and another revision is another snapshot.
        let folder = locate(Path::new("timm/vit_tiny.augreg@v2")).unwrap();
        assert!(folder.starts_with(home.path().join("hub/models--timm--vit_tiny.augreg")), "{}", folder.display());
        assert!(seen().iter().any(|request| request.contains("/timm/vit_tiny.augreg/resolve/v2/model.safetensors")));

        // Bytes that are not what the hub's digest says are never used.
        hub.lock().unwrap().corrupt = true;
        let error = read_checkpoint(Path::new("hf:owner/corrupt")).unwrap_err().to_string();
        assert!(error.contains("SHA-256") && error.contains("model.safetensors"), "{error}");
        hub.lock().unwrap().corrupt = false;
        assert_eq!(read_checkpoint(Path::new("hf:owner/corrupt")).unwrap().digest(), own);
        seen();

        // A transfer that breaks off goes on where it stood.
        let blobs = home.path().join("hub/models--owner--resumed/blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        let weights = hub.lock().unwrap().files["model.safetensors"].clone();
        let part = blobs.join(hex(&Sha256::digest(&weights))).with_extension("part");
        std::fs::write(&part, &weights[..20_000]).unwrap();
        assert_eq!(read_checkpoint(Path::new("hf:owner/resumed")).unwrap().digest(), own);
        assert!(seen().iter().any(|request| request.ends_with("model.safetensors bytes=20000-")));
        hub.lock().unwrap().cut = true;
        assert_eq!(read_checkpoint(Path::new("hf:owner/cut")).unwrap().digest(), own);

        // Private models want a token; unknown ones are said to be unknown.
        let error = read_checkpoint(Path::new("hf:owner/secret")).unwrap_err().to_string();
        assert!(error.contains("HF_TOKEN"), "{error}");
        temp_env::with_var("HF_TOKEN", Some("sesame"), || {
            assert_eq!(read_checkpoint(Path::new("hf:owner/secret")).unwrap().digest(), own);
        });
        let error = read_checkpoint(Path::new("hf:owner/absent")).unwrap_err().to_string();
        assert!(error.contains("no such model"), "{error}");
    });
}
