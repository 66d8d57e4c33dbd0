//! A request as a span for collectors.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::MatchedPath;
use axum::http::Request;
use serde_json::Value;

use crate::running::Notes;
use crate::telemetry::{Parent, Span, Telemetry};

/// A request that a collector will know of.
pub struct Traced {
    telemetry: Telemetry,
    parent: Option<Parent>,
    /// The path as it is routed, with placeholders where a request has names: spans of a route share their name.
    route: Option<String>,
    begun_ns: u128,
}

impl Traced {
    /// It begins now, in the trace that its headers name.
    pub fn begin(telemetry: Telemetry, request: &Request<Body>) -> Self {
        let parent = request.headers().get("traceparent");
        let parent = parent.and_then(|value| value.to_str().ok());
        let route = request.extensions().get::<MatchedPath>();
        Self {
            telemetry,
            parent: parent.and_then(Parent::of),
            route: route.map(|route| route.as_str().to_owned()),
            begun_ns: now_ns(),
        }
    }

    /// It ended after so many seconds. Who only looked is not told of.
    pub fn end(
        self,
        (id, method, path): (&str, &str, &str),
        (status, seconds): (Option<u16>, f64),
        (notes, ended): (&Notes, &'static str),
    ) {
        if notes.submitted.is_none() && method == "GET" {
            return;
        }
        let mut attributes: Vec<(&'static str, Value)> = vec![
            ("http.request.method", method.into()),
            ("url.path", path.into()),
            ("dualgrain.request_id", id.into()),
            ("dualgrain.ended", ended.into()),
        ];
        let status_value = status.map(Value::from);
        let known = [
            ("http.route", self.route.clone().map(Value::from)),
            ("http.response.status_code", status_value),
            ("dualgrain.queue_s", notes.queue_s.map(Value::from)),
            ("dualgrain.first_token_s", notes.first_token_s.map(Value::from)),
            ("dualgrain.energy_j", notes.energy_j.map(Value::from)),
        ];
        attributes.extend(known.into_iter().filter_map(|(name, value)| Some((name, value?))));
        if notes.submitted.is_some() {
            attributes.extend([
                ("gen_ai.usage.input_tokens", notes.prompt_tokens.into()),
                ("gen_ai.usage.output_tokens", notes.generated_tokens.into()),
                ("dualgrain.cached_tokens", notes.cached_tokens.into()),
            ]);
        }
        // The date may jump meanwhile; what has passed does not.
        let passed_ns = (seconds * 1e9) as u128;
        self.telemetry.send(Span {
            parent: self.parent,
            name: self
                .route
                .map_or_else(|| method.to_owned(), |route| format!("{method} {route}")),
            begun_ns: self.begun_ns,
            ended_ns: self.begun_ns + passed_ns,
            failed: ended == "failed" || status.is_some_and(|status| status >= 500),
            attributes,
        });
    }
}

fn now_ns() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos())
}
