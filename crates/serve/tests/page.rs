//! The web page as browsers get it. What it does there is checked by `tools/page`.

mod common;

use common::{Running, client, config};

const FILES: [(&str, &str); 3] = [("/", "text/html"), ("/app.js", "text/javascript"), ("/style.css", "text/css")];

/// How a browser would be sent elsewhere.
const FOREIGN: [&str; 5] = ["http://", "https://", "ws://", "wss://", "\"//"];

/// What the policy refuses, silently, or what would make code of names.
const REFUSED: [&str; 7] = [" style=", " onclick=", " onerror=", "<style", "innerHTML", "insertAdjacentHTML", "eval("];

#[test]
fn the_page_loads_nothing_from_elsewhere_and_runs_nothing_inline() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Running::start(config(folder.path()));
    let mut texts = Vec::new();
    for (path, kind) in FILES {
        let mut response = client().get(server.url(path)).call().expect("the server answers");
        let header =
            |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(header("content-type").starts_with(kind), "{path}: {}", header("content-type"));
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{path}: {policy}");
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        let text = response.body_mut().read_to_string().expect("text");
        let found: Vec<&str> = FOREIGN.into_iter().chain(REFUSED).filter(|word| text.contains(word)).collect();
        assert!(found.is_empty(), "{path} holds {found:?}");
        texts.push(text);
    }
    assert_eq!(texts[0].matches("<script").count(), 1, "code comes from one file");
    for file in ["app.js", "style.css"] {
        assert!(texts[0].contains(&format!("=\"{file}\"")), "{file} is not loaded");
    }
}
