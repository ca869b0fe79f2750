//! The web page: files that are part of the binary.

use super::app::App;
use axum::Router;
use axum::http::header;
use axum::routing::get;
use std::sync::Arc;

/// Nothing from elsewhere is loaded, and nobody may frame the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Media type of the page's modules.
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, media type, bytes.
const FILES: [(&str, &str, &str); 15] = [
    ("/", "text/html; charset=utf-8", include_str!("../../web/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("../../web/style.css")),
    ("/answers.js", SCRIPT, include_str!("../../web/answers.js")),
    ("/app.js", SCRIPT, include_str!("../../web/app.js")),
    ("/cards.js", SCRIPT, include_str!("../../web/cards.js")),
    ("/choice.js", SCRIPT, include_str!("../../web/choice.js")),
    ("/dom.js", SCRIPT, include_str!("../../web/dom.js")),
    ("/files.js", SCRIPT, include_str!("../../web/files.js")),
    ("/heat.js", SCRIPT, include_str!("../../web/heat.js")),
    ("/images.js", SCRIPT, include_str!("../../web/images.js")),
    ("/patience.js", SCRIPT, include_str!("../../web/patience.js")),
    ("/requests.js", SCRIPT, include_str!("../../web/requests.js")),
    ("/results.js", SCRIPT, include_str!("../../web/results.js")),
    ("/state.js", SCRIPT, include_str!("../../web/state.js")),
    ("/tasks.js", SCRIPT, include_str!("../../web/tasks.js")),
];

pub(super) fn routes() -> Router<Arc<App>> {
    FILES.iter().fold(Router::new(), |router, &(path, kind, text)| {
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        router.route(path, get(move || async move { (headers, text) }))
    })
}
