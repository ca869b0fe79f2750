//! Names and passwords for registries, as `docker login`, `podman login` and `oras login` keep them where no helper of theirs does.

use serde_json::Value;
use std::path::PathBuf;

/// `name:password` in base64 for a host.
pub(crate) fn of(host: &str) -> Option<String> {
    files().into_iter().find_map(|path| in_file(&std::fs::read(path).ok()?, host))
}

/// The first is asked first.
fn files() -> Vec<PathBuf> {
    let path = |variable| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let docker = path("DOCKER_CONFIG").or_else(|| Some(path("HOME")?.join(".docker")));
    let docker = docker.map(|folder| folder.join("config.json"));
    let podman = path("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json"));
    [path("REGISTRY_AUTH_FILE"), docker, podman].into_iter().flatten().collect()
}

fn in_file(json: &[u8], host: &str) -> Option<String> {
    let file: Value = serde_json::from_slice(json).ok()?;
    let auths = file["auths"].as_object()?;
    let named = auths.get(host).or_else(|| auths.get(&format!("https://{host}")));
    let auth = named?["auth"].as_str()?;
    (!auth.is_empty()).then(|| auth.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_own_credentials_alone() {
        let file =
            br#"{"auths": {"host:5000": {"auth": "YTpi"}, "https://other": {"auth": "YzpkZQ=="}, "helped": {}}}"#;
        assert_eq!(in_file(file, "host:5000").as_deref(), Some("YTpi"));
        assert_eq!(in_file(file, "other").as_deref(), Some("YzpkZQ=="));
        assert_eq!(in_file(file, "host"), None);
        assert_eq!(in_file(file, "helped"), None);
        assert_eq!(in_file(b"{", "host"), None);
    }
}
