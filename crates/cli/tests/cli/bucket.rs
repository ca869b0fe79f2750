//! A bucket named `films` of a store that speaks S3, as much of it as reading needs, with the faults that stores have.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Who may ask.
pub(crate) const KEY_ID: &str = "AKIDEXAMPLE";
pub(crate) const SECRET: &str = "wJalrXUtnFEMI+K7MDENG+bPxRfiCYEXAMPLEKEY";

/// What happens to an object.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// Listed, and no longer there.
    Gone,
    Forbidden,
    /// Says that it has 2 GiB.
    Huge,
    /// So many answers of 503 first.
    Unavailable(usize),
    /// So many answers that end in the middle first.
    Cut(usize),
}

#[derive(Default)]
struct Objects {
    bytes: BTreeMap<String, Vec<u8>>,
    faults: BTreeMap<String, Fault>,
    page: usize,
    /// Requests until keys are no longer taken.
    until_expiry: Option<usize>,
}

/// The bucket; it is served until the process ends.
pub(crate) struct Bucket {
    objects: Arc<Mutex<Objects>>,
    address: SocketAddr,
}

impl Bucket {
    /// All files of a folder under `prefix`, listed so many a page.
    pub(crate) fn of_folder(folder: &Path, prefix: &str, page: usize) -> Self {
        let mut objects = Objects { page, ..Objects::default() };
        add(folder, prefix, &mut objects.bytes);
        let objects = Arc::new(Mutex::new(objects));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let served = Arc::clone(&objects);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                std::thread::spawn(move || serve(&stream, &served));
            }
        });
        Bucket { objects, address }
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn fault(&self, key: &str, fault: Fault) {
        self.objects.lock().expect("the objects").faults.insert(key.to_owned(), fault);
    }

    /// Takes keys for so many requests more, or for ever.
    pub(crate) fn expire_after(&self, requests: Option<usize>) {
        self.objects.lock().expect("the objects").until_expiry = requests;
    }
}

fn add(folder: &Path, prefix: &str, objects: &mut BTreeMap<String, Vec<u8>>) {
    for entry in folder.read_dir().expect("a folder") {
        let path = entry.expect("an entry").path();
        let key = format!("{prefix}{}", path.file_name().and_then(|name| name.to_str()).expect("a name"));
        match path.is_dir() {
            true => add(&path, &format!("{key}/"), objects),
            false => drop(objects.insert(key, std::fs::read(&path).expect("a file"))),
        }
    }
}

/// What is answered: a status, headers, and a body, of which so much is sent.
struct Answer {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
    /// What the header says of it.
    length: usize,
}

impl Answer {
    fn new(status: &'static str, headers: String, body: Vec<u8>) -> Self {
        Answer { status, headers, length: body.len(), body }
    }

    fn refusal(status: &'static str, code: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>As it was asked.</Message>\
             <AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId></Error>"
        );
        Answer::new(status, String::new(), body.into_bytes())
    }
}

fn serve(stream: &TcpStream, objects: &Mutex<Objects>) {
    let mut lines = BufReader::new(stream).lines();
    loop {
        let head: Vec<String> = lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let Some(target) = head.first().and_then(|line| line.split(' ').nth(1)) else { return };
        let answer = objects.lock().expect("the objects").answer(target, &head);
        let Answer { status, headers, body, length } = answer;
        let whole = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n").into_bytes();
        let sent = { stream }.write_all(&[whole, body.clone()].concat());
        if sent.is_err() || body.len() < length {
            return;
        }
    }
}

impl Objects {
    fn answer(&mut self, target: &str, head: &[String]) -> Answer {
        let header = |name: &str| {
            let fields = head.iter().filter_map(|line| line.split_once(": "));
            fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
        };
        let signed = header("authorization").unwrap_or_default();
        if !signed.contains(&format!("Credential={KEY_ID}/")) || !signed.contains("/eu-central-1/s3/aws4_request") {
            return Answer::refusal("403 Forbidden", "InvalidAccessKeyId");
        }
        if let Some(left) = &mut self.until_expiry {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => return Answer::refusal("400 Bad Request", "ExpiredToken"),
            }
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Some(key) = path.strip_prefix("/films") else {
            return Answer::refusal("404 Not Found", "NoSuchBucket");
        };
        match query.contains("list-type=2") {
            true => self.page(query),
            false => self.object(&decoded(key.trim_start_matches('/')), header("range")),
        }
    }

    fn page(&self, query: &str) -> Answer {
        let of = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(field, _)| *field == name).map(|(_, value)| decoded(value)).next()
        };
        let (prefix, after) = (of("prefix").unwrap_or_default(), of("continuation-token"));
        let most = of("max-keys").and_then(|most| most.parse().ok()).unwrap_or(self.page);
        let below = self.bytes.iter().filter(|(key, _)| key.starts_with(&prefix) && Some(*key) > after.as_ref());
        let below: Vec<_> = below.collect();
        let listed = |(key, bytes): &(&String, &Vec<u8>)| {
            format!(
                "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>",
                bytes.len()
            )
        };
        let contents: String = below.iter().take(most).map(listed).collect();
        let next = (below.len() > most).then(|| below[most - 1].0);
        let next = next.map_or(String::new(), |key| format!("<NextContinuationToken>{key}</NextContinuationToken>"));
        let body = format!("<?xml version=\"1.0\"?><ListBucketResult>{contents}{next}</ListBucketResult>");
        Answer::new("200 OK", String::new(), body.into_bytes())
    }

    fn object(&mut self, key: &str, range: Option<&str>) -> Answer {
        let mut cut = false;
        match self.faults.get_mut(key) {
            Some(Fault::Gone) => return Answer::refusal("404 Not Found", "NoSuchKey"),
            Some(Fault::Forbidden) => return Answer::refusal("403 Forbidden", "AccessDenied"),
            Some(Fault::Unavailable(left @ 1..)) => {
                *left -= 1;
                return Answer::refusal("503 Service Unavailable", "SlowDown");
            }
            Some(Fault::Cut(left @ 1..)) => {
                *left -= 1;
                cut = true;
            }
            _ => {}
        }
        let Some(bytes) = self.bytes.get(key) else { return Answer::refusal("404 Not Found", "NoSuchKey") };
        let about = "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nETag: \"1\"\r\n";
        let ends = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let number = |text: &str| text.parse::<usize>().ok();
        let Some((start, end)) = ends.and_then(|(start, end)| Some((number(start)?, number(end)?))) else {
            let whole = Answer::new("200 OK", about.to_owned(), bytes.clone());
            return match self.faults.get(key) {
                Some(Fault::Huge) => Answer { body: Vec::new(), length: 1 << 31, ..whole },
                _ if cut => Answer { body: bytes[..bytes.len() / 2].to_vec(), ..whole },
                _ => whole,
            };
        };
        let end = bytes.len().min(end + 1);
        if start >= end {
            return Answer::refusal("416 Range Not Satisfiable", "InvalidRange");
        }
        let headers = format!("{about}Content-Range: bytes {start}-{}/{}\r\n", end - 1, bytes.len());
        Answer::new("206 Partial Content", headers, bytes[start..end].to_vec())
    }
}

/// Without percent signs.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).expect("two digits"));
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).expect("text")
}
