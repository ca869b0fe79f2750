//! Tokens of an identity provider, by OpenID Connect: JWTs that it signed, checked with the keys that it publishes.
//!
//! The provider alone is asked, and nothing that a request says leads to another address. Its keys are fetched at the
//! start, when they are an hour old, and when a token names one that is not known, at most every 30 seconds.

use super::identity::{Identity, Scope};
use super::key_file::allowed;
use super::rate::Rates;
use super::ring_provider;
use crate::error::{Error, Refusal};
use crate::trust::is_loopback;
use axum::http::Uri;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Keys are fetched anew after this time, so that a withdrawn one stops to count.
const FRESH: Duration = Duration::from_secs(3600);
/// Keys that could not be fetched anew count no longer than this.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// Time between two attempts, whatever the tokens say.
const PAUSE: Duration = Duration::from_secs(30);
/// Time for one answer of the provider.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer of the provider.
const BYTES: u64 = 1 << 20;
/// How far clocks may differ, s.
const LEEWAY_S: u64 = 30;
/// Longest name that is taken from a token.
const NAME_CHARS: usize = 128;

/// An identity provider, as the settings describe it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OidcConfig {
    /// Its address, as tokens name it under `iss`.
    pub issuer: String,
    /// What tokens must name under `aud`.
    pub audience: String,
    /// Address of its keys; by default what `ISSUER/.well-known/openid-configuration` says, on the issuer's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// Certificates, PEM, that vouch for the provider; by default the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Claim that says what is allowed: text with spaces or a list; dots lead into objects, `realm_access.roles`.
    #[serde(default = "scope_claim")]
    pub claim: String,
    /// Values of it that allow to ask.
    #[serde(default = "predict_values")]
    pub predict: Vec<String>,
    /// Values of it that allow to change what is served.
    #[serde(default = "admin_values")]
    pub admin: Vec<String>,
    /// Claim that names the caller in the audit.
    #[serde(default = "name_claim")]
    pub name: String,
    /// Requests of a subject in a minute; as many as the server can where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
}

fn scope_claim() -> String {
    "scope".to_owned()
}

fn predict_values() -> Vec<String> {
    vec!["melo.predict".to_owned()]
}

fn admin_values() -> Vec<String> {
    vec!["melo.admin".to_owned()]
}

fn name_claim() -> String {
    "sub".to_owned()
}

/// A provider and its keys.
pub(super) struct Oidc {
    provider: Arc<Provider>,
    config: OidcConfig,
    known: Mutex<Known>,
    rates: Rates,
    /// Whoever fetches holds it.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
struct Known {
    keys: Arc<Vec<Jwk>>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

struct Provider {
    issuer: String,
    jwks: Option<String>,
    agent: ureq::Agent,
}

/// Why keys could not be had.
#[derive(Debug)]
enum Failure {
    /// It may be there later.
    Away(String),
    /// It answers what it must not.
    Wrong(String),
}

impl Oidc {
    /// Fetches the keys. That the provider is away is no reason not to start: keys of the key file work without it.
    pub(super) fn start(config: &OidcConfig) -> Result<Self, Error> {
        ring_provider::install();
        let settings = |reason: String| Error::Settings(format!("oidc: {reason}"));
        for address in [Some(&config.issuer), config.jwks.as_ref()].into_iter().flatten() {
            origin(address).map_err(settings)?;
        }
        for (name, text) in [("audience", &config.audience), ("claim", &config.claim), ("name", &config.name)] {
            if text.is_empty() {
                return Err(settings(format!("{name} is empty")));
            }
        }
        if config.per_minute == Some(0) {
            return Err(settings("per-minute is at least 1".to_owned()));
        }
        let provider =
            Provider { issuer: config.issuer.clone(), jwks: config.jwks.clone(), agent: agent(config.ca.as_deref())? };
        let mut known = Known { tried: Some(Instant::now()), ..Known::default() };
        match provider.keys() {
            Ok(keys) => {
                known.keys = Arc::new(keys);
                known.fetched = known.tried;
            }
            Err(Failure::Wrong(reason)) => return Err(settings(reason)),
            Err(Failure::Away(reason)) => tracing::warn!(reason, "the identity provider is away; tokens are refused"),
        }
        Ok(Oidc {
            provider: Arc::new(provider),
            config: config.clone(),
            known: Mutex::new(known),
            rates: Rates::default(),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    pub(super) async fn identify(&self, token: &str) -> Result<Identity, Refusal> {
        let refused = |reason: String| Refusal::Unauthorized(format!("the token is refused: {reason}"));
        let header = decode_header(token).map_err(|_| refused("it is no JWT".to_owned()))?;
        let kid = header.kid.as_deref();
        let mut keys = self.keys(|keys| !candidates(keys, kid, header.alg).is_empty()).await;
        keys = candidates(&keys, kid, header.alg).into();
        if keys.is_empty() {
            return Err(refused("no key of the provider fits it".to_owned()));
        }
        let mut reason = String::new();
        for jwk in keys.iter() {
            match self.check(token, header.alg, jwk) {
                Ok((subject, identity)) => {
                    if let Some(per_minute) = self.config.per_minute {
                        let too_often = |wait| Refusal::TooOften { name: identity.name.clone(), per_minute, wait };
                        self.rates.take(&subject, per_minute).map_err(too_often)?;
                    }
                    return Ok(identity);
                }
                Err(error) => reason = error,
            }
        }
        Err(refused(reason))
    }

    /// The subject of a token, and who it says that asks.
    fn check(&self, token: &str, algorithm: Algorithm, jwk: &Jwk) -> Result<(String, Identity), String> {
        let key = DecodingKey::from_jwk(jwk).map_err(|_| "its key is damaged".to_owned())?;
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.config.audience]);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let token = decode::<Value>(token, &key, &validation).map_err(|error| error.to_string())?;
        let claims = token.claims;
        if claims["iss"].as_str() != Some(&self.config.issuer) {
            return Err("its issuer is not one text".to_owned());
        }
        let subject = claims["sub"].as_str().ok_or("its subject is no text")?;
        let name = at(&claims, &self.config.name).and_then(Value::as_str);
        let name = name.ok_or_else(|| format!("it has no claim `{}`", self.config.name))?;
        let plain = |text: &str| text.chars().filter(|c| !c.is_control()).take(NAME_CHARS).collect::<String>();
        // Of names that people choose two may have one, of subjects never (OpenID Connect Core, section 2).
        let name = match subject == name {
            true => plain(name),
            false => format!("{}#{}", plain(name), plain(subject)),
        };
        let values: Vec<&str> = match at(&claims, &self.config.claim) {
            Some(Value::String(text)) => text.split_whitespace().collect(),
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let has = |wanted: &[String]| wanted.iter().any(|wanted| values.contains(&wanted.as_str()));
        let mut scopes = Vec::new();
        if has(&self.config.predict) {
            scopes.push(Scope::Predict);
        }
        if has(&self.config.admin) {
            scopes.push(Scope::Admin);
        }
        let identity = Identity { name: format!("oidc:{name}"), scopes: allowed(&scopes), address: None };
        Ok((subject.to_owned(), identity))
    }

    /// The provider's keys, fetched anew if they are old or not enough, and if the last attempt was long enough ago.
    async fn keys(&self, enough: impl Fn(&[Jwk]) -> bool) -> Arc<Vec<Jwk>> {
        let known = self.known();
        let good = known.fetched.is_some_and(|fetched| fetched.elapsed() < FRESH) && enough(&known.keys);
        if good || known.tried.is_some_and(|tried| tried.elapsed() < PAUSE) {
            return known.usable();
        }
        let _turn = self.fetching.lock().await;
        if self.known().tried != known.tried {
            return self.known().usable();
        }
        self.hold().tried = Some(Instant::now());
        let provider = Arc::clone(&self.provider);
        let fetched = tokio::task::spawn_blocking(move || provider.keys()).await;
        match fetched {
            Ok(Ok(keys)) => {
                let mut known = self.hold();
                known.keys = Arc::new(keys);
                known.fetched = Some(Instant::now());
            }
            Ok(Err(Failure::Away(reason) | Failure::Wrong(reason))) => {
                tracing::warn!(reason, "the keys of the identity provider could not be fetched");
            }
            Err(_) => {}
        }
        self.known().usable()
    }

    fn hold(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> Known {
        self.hold().clone()
    }
}

impl Known {
    fn usable(self) -> Arc<Vec<Jwk>> {
        match self.fetched.is_some_and(|fetched| fetched.elapsed() < STALE) {
            true => self.keys,
            false => Arc::default(),
        }
    }
}

/// The keys that may have signed a token. What a key is for says the key, never the token.
fn candidates(keys: &[Jwk], kid: Option<&str>, algorithm: Algorithm) -> Vec<Jwk> {
    let fits = |jwk: &&Jwk| {
        let common = &jwk.common;
        let named = kid.is_none_or(|kid| common.key_id.as_deref() == Some(kid));
        let signs = !matches!(common.public_key_use, Some(PublicKeyUse::Encryption));
        let own = common.key_algorithm.is_none_or(|own| own.to_string() == format!("{algorithm:?}"));
        let kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => matches!(algorithm, Algorithm::RS256 | Algorithm::PS256),
            AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
                EllipticCurve::P256 => algorithm == Algorithm::ES256,
                EllipticCurve::P384 => algorithm == Algorithm::ES384,
                _ => false,
            },
            AlgorithmParameters::OctetKeyPair(pair) => {
                pair.curve == EllipticCurve::Ed25519 && algorithm == Algorithm::EdDSA
            }
            _ => false,
        };
        named && signs && own && kind
    };
    // Without a name every key would be tried; a provider has a few.
    keys.iter().filter(fits).take(8).cloned().collect()
}

/// The value that dots lead to.
fn at<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    // Some providers have claims with dots, or addresses, as names.
    claims.get(path).or_else(|| path.split('.').try_fold(claims, |value, name| value.get(name)))
}

impl Provider {
    fn keys(&self) -> Result<Vec<Jwk>, Failure> {
        let address = match &self.jwks {
            Some(address) => address.clone(),
            None => self.discover()?,
        };
        let set: JwkSet = self.get(&address)?;
        Ok(set.keys)
    }

    /// OpenID Connect Discovery 1.0, section 4.
    fn discover(&self) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Document {
            issuer: String,
            jwks_uri: String,
        }
        let address = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let found: Document = self.get(&address)?;
        if found.issuer != self.issuer {
            return Err(Failure::Wrong(format!("{address} says issuer {}, expected {}", found.issuer, self.issuer)));
        }
        if origin(&found.jwks_uri).map_err(Failure::Wrong)? != origin(&self.issuer).map_err(Failure::Wrong)? {
            let reason = format!("the keys are on another host, {}: if that is right, set it as jwks", found.jwks_uri);
            return Err(Failure::Wrong(reason));
        }
        Ok(found.jwks_uri)
    }

    fn get<T: serde::de::DeserializeOwned>(&self, address: &str) -> Result<T, Failure> {
        let away = |error: ureq::Error| Failure::Away(format!("{address}: {error}"));
        let mut response = self.agent.get(address).call().map_err(away)?;
        let bytes = response.body_mut().with_config().limit(BYTES).read_to_vec().map_err(away)?;
        serde_json::from_slice(&bytes).map_err(|error| Failure::Wrong(format!("{address}: {error}")))
    }
}

fn agent(ca: Option<&std::path::Path>) -> Result<ureq::Agent, Error> {
    let mut config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).max_redirects(0);
    if let Some(path) = ca {
        let pem = std::fs::read(path).map_err(Error::io(path))?;
        let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
        let mut certificates: Vec<Certificate<'static>> = Vec::new();
        for item in parse_pem(&pem) {
            if let PemItem::Certificate(certificate) = item.map_err(|error| damaged(error.to_string()))? {
                certificates.push(certificate);
            }
        }
        if certificates.is_empty() {
            return Err(damaged("it holds no certificate".to_owned()));
        }
        config = config.tls_config(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates)).build());
    }
    Ok(config.build().new_agent())
}

/// Scheme, host and port of an address; plain HTTP only to this machine.
fn origin(address: &str) -> Result<(String, String, u16), String> {
    let refused = |reason: &str| format!("`{}`: {reason}", address.escape_debug());
    let uri: Uri = address.parse().map_err(|_| refused("it is no address"))?;
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if host.is_empty() || user || uri.query().is_some() {
        return Err(refused("expected https://HOST/PATH"));
    }
    let loopback = is_loopback(&host);
    match uri.scheme_str() {
        Some("https") => Ok(("https".to_owned(), host, uri.port_u16().unwrap_or(443))),
        Some("http") if loopback => Ok(("http".to_owned(), host, uri.port_u16().unwrap_or(80))),
        Some("http") => Err(refused("whoever is on the way could hand out keys: use https")),
        _ => Err(refused("expected https://HOST/PATH")),
    }
}

#[cfg(test)]
mod tests;
