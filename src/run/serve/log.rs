//! The log of `serve`: lines on stderr, for people or for programs.
//!
//! The server tells of events alone, never of spans, so a subscriber of a page is enough. tracing-subscriber would
//! make the program 0.3 MB larger.

use std::fmt::{Debug, Write as _};
use std::io::{Write as _, stderr};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::cli::arguments::{LogFormat, LogLevel, Serve};

/// Writes what the server tells from now on.
pub fn begin(arguments: &Serve) {
    let level = match arguments.log_level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let format = arguments.log_format;
    // A program has one log; only a test in the same process could have set another.
    let _ = tracing::subscriber::set_global_default(Lines { level, format });
}

/// Writes a line for an event.
struct Lines {
    level: LevelFilter,
    format: LogFormat,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let level = event.metadata().level().as_str();
        let line = match self.format {
            LogFormat::Json => fields.json(&now(), level),
            LogFormat::Text => fields.text(&now(), level),
        };
        // A log that can not be written to has nobody to tell.
        let _ = stderr().lock().write_all(line.as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What an event tells, in its order.
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn json(self, time: &str, level: &str) -> String {
        let mut line = Map::new();
        line.insert("time".to_owned(), time.into());
        line.insert("level".to_owned(), level.into());
        line.extend(self.0);
        Value::Object(line).to_string() + "\n"
    }

    fn text(mut self, time: &str, level: &str) -> String {
        let message = self.0.shift_remove("message");
        let message = message.as_ref().and_then(Value::as_str).unwrap_or_default();
        let mut line = format!("{time} {level:5} {message}");
        for (name, value) in &self.0 {
            // A string to a string does not fail. Texts are quoted: none begins a line of its own.
            let _ = write!(line, " {name}={value}");
        }
        line + "\n"
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, (value * 1e6).round() / 1e6);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}"));
    }
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    utc(since.as_secs(), since.subsec_millis())
}

/// A moment as RFC 3339 has it; days become dates by the calendar's cycle of 400 years, counted from March so that leap days come last.
fn utc(since_s: u64, millis: u32) -> String {
    let (days, second) = (since_s / 86_400 + 719_468, since_s % 86_400);
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = cycle * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn moments_are_dates() {
        for (since_s, expected) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_799, "2000-02-29T23:59:59.007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(utc(since_s, 7), expected);
        }
    }

    #[test]
    fn no_text_of_a_client_begins_a_line() {
        let fields = || {
            let Value::Object(fields) = json!({"message": "request", "path": "/a\n\"b\"", "seconds": 0.5})
            else {
                unreachable!()
            };
            Fields(fields)
        };
        assert_eq!(
            fields().text("T", "INFO"),
            "T INFO  request path=\"/a\\n\\\"b\\\"\" seconds=0.5\n"
        );
        let line = fields().json("T", "INFO");
        assert_eq!(line.lines().count(), 1);
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["path"], "/a\n\"b\"");
    }
}
