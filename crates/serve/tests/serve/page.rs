//! The web page as browsers get it. What it does there is checked by `tools/page`.

use crate::common::{Running, client, config};
use std::collections::{BTreeMap, BTreeSet};

/// The page's folder.
const WEB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/web");

/// How a browser would be sent elsewhere.
const FOREIGN: [&str; 5] = ["http://", "https://", "ws://", "wss://", "\"//"];

/// What the policy refuses, silently, or what would make code of names.
const REFUSED: [&str; 7] = [" style=", " onclick=", " onerror=", "<style", "innerHTML", "insertAdjacentHTML", "eval("];

/// Every file of the folder as a path and its media type.
fn files() -> Vec<(String, &'static str)> {
    let names = std::fs::read_dir(WEB).expect("the folder").map(|entry| entry.expect("an entry").file_name());
    let path = |name: String| match name.as_str() {
        "index.html" => ("/".to_owned(), "text/html"),
        name if name.ends_with(".js") => (format!("/{name}"), "text/javascript"),
        name => (format!("/{name}"), "text/css"),
    };
    names.map(|name| path(name.into_string().expect("text"))).collect()
}

/// What the imports of a module name.
fn imported(module: &str) -> impl Iterator<Item = &str> {
    let imports = module.lines().filter(|line| line.starts_with("import "));
    imports.map(|line| line.split('\'').nth(1).expect("an import names a module"))
}

#[test]
fn the_page_loads_nothing_from_elsewhere_and_runs_nothing_inline() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Running::start(config(folder.path()));
    let mut texts = BTreeMap::new();
    for (path, kind) in files() {
        let path = path.as_str();
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
        texts.insert(path.to_owned(), text);
    }
    assert_eq!(texts["/"].matches("<script").count(), 1, "code comes from one module, and what it imports");
    for file in ["app.js", "style.css"] {
        assert!(texts["/"].contains(&format!("=\"{file}\"")), "{file} is not loaded");
    }
    let mut loaded = BTreeSet::from(["/", "/app.js", "/style.css"].map(str::to_owned));
    for (path, text) in &texts {
        for module in imported(text) {
            let module = module.strip_prefix('.').unwrap_or_else(|| panic!("{path} imports {module}"));
            assert!(texts.contains_key(module), "{path} imports {module}");
            loaded.insert(module.to_owned());
        }
    }
    assert!(loaded.iter().eq(texts.keys()), "the folder holds what is loaded, and nothing else");
}
