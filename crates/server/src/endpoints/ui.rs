//! The page at `/`: a few files that travel in the program and ask nobody else for anything.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Response;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::routing::get;

use crate::app::App;

/// No script or style but the page's own, no other origin, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, content type and content of a file.
type File = (&'static str, &'static str, &'static str);

const FILES: [File; 10] = [
    ("/", HTML, include_str!("../../ui/index.html")),
    ("/style.css", CSS, include_str!("../../ui/style.css")),
    ("/api.js", SCRIPT, include_str!("../../ui/api.js")),
    ("/app.js", SCRIPT, include_str!("../../ui/app.js")),
    (
        "/conversation.js",
        SCRIPT,
        include_str!("../../ui/conversation.js"),
    ),
    ("/element.js", SCRIPT, include_str!("../../ui/element.js")),
    ("/markdown.js", SCRIPT, include_str!("../../ui/markdown.js")),
    ("/message.js", SCRIPT, include_str!("../../ui/message.js")),
    ("/settings.js", SCRIPT, include_str!("../../ui/settings.js")),
    ("/store.js", SCRIPT, include_str!("../../ui/store.js")),
];

/// The paths of the page.
pub fn router() -> Router<Arc<App>> {
    FILES.into_iter().fold(Router::new(), |router, file| {
        router.route(file.0, get(move || std::future::ready(response(file))))
    })
}

fn response((_, kind, text): File) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // Another version of the program has other files under the same names.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
