//! The log of `serve`: lines on stderr, for people or for programs.

use std::io::stderr;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

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
    let lines = fmt().with_writer(stderr).with_max_level(level).with_target(false);
    // A program has one log; only a test in the same process could have set another.
    let _ = match arguments.log_format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            let lines = lines.with_current_span(false).with_span_list(false);
            lines.try_init()
        }
    };
}
