//! Against a provider on loopback that signs with keys of its own.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs tokens and serves discovery and keys.
struct Issuer {
    address: String,
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
    /// Keys as published now.
    published: Arc<Mutex<Value>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    fn start() -> Self {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ed = Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let ec = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(kind, ec.as_ref(), &random).unwrap();
        let rsa = RsaKeyPair::from_pkcs8(include_bytes!("test_only_rsa2048.pkcs8")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (published, asked) = (Arc::new(Mutex::new(json!({ "keys": [] }))), Arc::new(AtomicUsize::new(0)));
        let issuer = Issuer { address, ed, ec, rsa, published, asked };
        issuer.publish(&["ed", "ec", "rsa"]);
        let (published, asked, own) =
            (Arc::clone(&issuer.published), Arc::clone(&issuer.asked), issuer.address.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                reader.read_line(&mut line).unwrap();
                let mut header = String::new();
                while reader.read_line(&mut header).unwrap() > 2 {
                    header.clear();
                }
                let body = match line.contains("/.well-known/openid-configuration ") {
                    true => json!({ "issuer": own, "jwks_uri": format!("{own}/keys") }),
                    false => {
                        asked.fetch_add(1, Ordering::Relaxed);
                        published.lock().unwrap().clone()
                    }
                };
                let body = body.to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        issuer
    }

    fn jwk(&self, kid: &str) -> Value {
        match kid {
            "ed" => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "alg": "EdDSA", "x": base64(self.ed.public_key()) })
            }
            "ec" => {
                let point = self.ec.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig",
                        "x": base64(&point[1..33]), "y": base64(&point[33..]) })
            }
            _ => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
                json!({ "kty": "RSA", "kid": "rsa", "alg": "RS256", "n": base64(public.n), "e": base64(public.e) })
            }
        }
    }

    fn publish(&self, kids: &[&str]) {
        *self.published.lock().unwrap() = json!({ "keys": kids.iter().map(|kid| self.jwk(kid)).collect::<Vec<_>>() });
    }

    fn config(&self) -> OidcConfig {
        serde_json::from_value(json!({ "issuer": self.address, "audience": "melo" })).unwrap()
    }

    fn claims(&self) -> Value {
        let now = crate::clock::now_ms() / 1000;
        json!({ "iss": self.address, "aud": "melo", "sub": "ris-7", "exp": now + 300, "nbf": now - 5, "scope": "openid melo.predict" })
    }

    fn token(&self, kid: &str, claims: &Value) -> String {
        let algorithm = match kid {
            "ed" => "EdDSA",
            "ec" => "ES256",
            _ => "RS256",
        };
        self.signed(kid, &json!({ "alg": algorithm, "typ": "JWT", "kid": kid }), claims)
    }

    fn signed(&self, kid: &str, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match kid {
            "ed" => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
            "ec" => self.ec.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
            _ => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        format!("{message}.{}", base64(signature))
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn tokens_of_every_kind_of_key_are_taken() {
    let issuer = Issuer::start();
    let oidc = Oidc::start(&issuer.config()).unwrap();
    for kid in ["ed", "ec", "rsa"] {
        let identity = run(oidc.identify(&issuer.token(kid, &issuer.claims()))).unwrap();
        assert_eq!(
            identity,
            Identity { name: "oidc:ris-7".to_owned(), scopes: vec![Scope::Predict], address: None },
            "{kid}"
        );
    }
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 1, "the keys are fetched once");
}

#[test]
fn claims_that_are_wrong_are_refused() {
    let issuer = Issuer::start();
    let oidc = Oidc::start(&issuer.config()).unwrap();
    let now = crate::clock::now_ms() / 1000;
    for (name, value) in [
        ("iss", json!("https://evil.example")),
        ("iss", json!([issuer.address, "https://evil.example"])),
        ("iss", Value::Null),
        ("aud", json!("other")),
        ("aud", json!([])),
        ("aud", Value::Null),
        ("exp", json!(now - 3600)),
        ("exp", Value::Null),
        ("exp", json!("never")),
        ("nbf", json!(now + 3600)),
        ("nbf", json!("soon")),
        ("sub", Value::Null),
    ] {
        let mut claims = issuer.claims();
        match value.is_null() {
            true => drop(claims.as_object_mut().unwrap().remove(name)),
            false => claims[name] = value.clone(),
        }
        let refused = run(oidc.identify(&issuer.token("ed", &claims)));
        assert!(matches!(refused, Err(Refusal::Unauthorized(_))), "{name}: {value}");
    }
}

#[test]
fn signatures_that_are_wrong_are_refused() {
    let issuer = Issuer::start();
    let oidc = Oidc::start(&issuer.config()).unwrap();
    let claims = issuer.claims();
    let good = issuer.token("ed", &claims);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let mut forged = claims.clone();
    forged["scope"] = json!("melo.admin");
    let forged = format!("{}.{}.{signature}", message.split('.').next().unwrap(), base64(forged.to_string()));
    let none = format!("{}.{}.", base64(r#"{"alg":"none"}"#), base64(claims.to_string()));
    // The public key as the secret of an HMAC, the classic.
    let hmac_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, issuer.ed.public_key().as_ref());
    let hmac_message = format!("{}.{}", base64(r#"{"alg":"HS256","kid":"ed"}"#), base64(claims.to_string()));
    let hmac = format!("{hmac_message}.{}", base64(ring::hmac::sign(&hmac_key, hmac_message.as_bytes())));
    let stranger = Issuer::start();
    let mut strangers = claims.clone();
    strangers["iss"] = json!(issuer.address);
    for token in [
        forged,
        none,
        hmac,
        format!("{message}."),
        message.to_owned(),
        stranger.token("ed", &strangers),
        issuer.signed("ed", &json!({ "alg": "ES256", "kid": "ed" }), &claims),
        issuer.signed("ec", &json!({ "alg": "ES256", "kid": "rsa" }), &claims),
        // A token that says where its key is to be had is not followed.
        stranger.signed("ed", &json!({ "alg": "EdDSA", "kid": "x", "jku": format!("{}/keys", stranger.address), "jwk": stranger.jwk("ed") }), &strangers),
        "a.b.c".to_owned(),
        "..".to_owned(),
    ] {
        assert!(matches!(run(oidc.identify(&token)), Err(Refusal::Unauthorized(_))), "{token}");
    }
    assert_eq!(stranger.asked.load(Ordering::Relaxed), 0, "nobody but the issuer is asked");
    assert!(run(oidc.identify(&good)).is_ok());
}

#[test]
fn a_new_key_is_fetched_at_most_every_half_minute() {
    let issuer = Issuer::start();
    issuer.publish(&["ec"]);
    let oidc = Oidc::start(&issuer.config()).unwrap();
    issuer.publish(&["ec", "ed"]);
    let token = issuer.token("ed", &issuer.claims());
    for _ in 0..20 {
        assert!(run(oidc.identify(&token)).is_err());
    }
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 1);
    oidc.hold().tried = Instant::now().checked_sub(PAUSE);
    assert!(run(oidc.identify(&token)).is_ok());
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 2);
}

#[test]
fn what_a_token_allows_is_said_by_the_configured_claim() {
    let issuer = Issuer::start();
    let config = OidcConfig {
        claim: "realm_access.roles".to_owned(),
        predict: vec!["radiology".to_owned()],
        admin: vec!["ml-ops".to_owned()],
        name: "preferred_username".to_owned(),
        ..issuer.config()
    };
    let oidc = Oidc::start(&config).unwrap();
    let with = |roles: Value| {
        let mut claims = issuer.claims();
        claims["realm_access"] = json!({ "roles": roles });
        claims["preferred_username"] = json!("ada\n");
        run(oidc.identify(&issuer.token("ec", &claims)))
    };
    let scopes = |roles: Value| with(roles).unwrap().scopes;
    assert_eq!(scopes(json!(["radiology"])), [Scope::Predict]);
    assert_eq!(scopes(json!(["ml-ops"])), [Scope::Predict, Scope::Admin]);
    assert_eq!(scopes(json!(["melo.admin"])), []);
    assert_eq!(scopes(json!({ "ml-ops": true })), []);
    assert_eq!(with(json!([])).unwrap().name, "oidc:ada#ris-7", "another may be called ada, too");
}

#[test]
fn a_subject_may_ask_so_often_whatever_token_it_shows() {
    let issuer = Issuer::start();
    let config = OidcConfig { per_minute: Some(2), name: "preferred_username".to_owned(), ..issuer.config() };
    let oidc = Oidc::start(&config).unwrap();
    let asks = |subject: &str, name: &str, kid: &str| {
        let mut claims = issuer.claims();
        claims["sub"] = json!(subject);
        claims["preferred_username"] = json!(name);
        run(oidc.identify(&issuer.token(kid, &claims)))
    };
    assert!(asks("1", "ada", "ed").is_ok() && asks("1", "ada", "ec").is_ok());
    let refused = asks("1", "grace", "ed").unwrap_err();
    assert!(matches!(&refused, Refusal::TooOften { per_minute: 2, .. }), "{refused}");
    assert!(refused.to_string().contains("`oidc:grace#1` may ask 2 times"), "{refused}");
    assert!(asks("2", "ada", "ed").is_ok(), "another subject of the same name has its own");
    let none = Oidc::start(&OidcConfig { per_minute: Some(0), ..issuer.config() }).err().unwrap();
    assert!(none.to_string().contains("per-minute"), "{none}");
}

#[test]
fn addresses_that_cannot_be_trusted_are_refused() {
    for address in [
        "http://idp.hospital.example/realms/x",
        "http://127.0.0.1.evil.example/",
        "http://localhost.evil.example/",
        "ftp://localhost/",
        "https://user@idp.example/",
        "/realms",
        "",
    ] {
        assert!(origin(address).is_err(), "{address}");
    }
    for address in ["https://idp.example/realms/x", "http://localhost:8080", "http://[::1]:1/x", "http://127.0.0.1:80"]
    {
        assert!(origin(address).is_ok(), "{address}");
    }
}

#[test]
fn a_provider_that_is_away_stops_no_start_but_one_that_lies_does() {
    let away: OidcConfig =
        serde_json::from_value(json!({ "issuer": "http://127.0.0.1:1", "audience": "melo" })).unwrap();
    let oidc = Oidc::start(&away).unwrap();
    let issuer = Issuer::start();
    assert!(run(oidc.identify(&issuer.token("ed", &issuer.claims()))).is_err());
    let other = OidcConfig { issuer: format!("{}/realm", issuer.address), ..issuer.config() };
    assert!(matches!(Oidc::start(&other), Err(Error::Settings(_))));
}
