//! `serve`: a model behind HTTP, until Ctrl-C.

mod energy;
mod log;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dualgrain::engine::{ModelConfig, SamplingDefaults};
use dualgrain::{AnyDevice, SessionLimits};
use dualgrain_hub::ModelName;
use dualgrain_server::{Keys, Options, Served, Tls, listen};
use serde::Serialize;

use crate::cli::arguments::{Common, Serve};
use crate::cli::terminal::Terminal;
use crate::run::model_folder;

/// Longest context the cache is made for by itself.
const DEFAULT_CONTEXT_TOKENS: usize = 8192;

#[derive(Serialize)]
struct Started {
    url: String,
    model: String,
    max_sequences: usize,
    context_tokens: usize,
}

/// Serves the model. What can be wrong with the arguments is told before it is loaded.
pub fn run(arguments: &Serve, common: &Common, terminal: &Terminal) -> Result<()> {
    dualgrain::share_one_arena();
    let config = ModelConfig::load(&arguments.model);
    let (options, alias) = (options(arguments)?, alias(arguments)?);
    let defaults = match arguments.ignore_defaults {
        true => SamplingDefaults::default(),
        false => SamplingDefaults::load(&arguments.model)?,
    };
    let listener = listen(&arguments.host, arguments.port)?;
    let address = listener.local_addr().context("asking for the address")?;
    check_exposure(arguments, address.ip().is_loopback(), terminal)?;
    let device = model_folder::device(
        arguments.device,
        common.threads,
        (&arguments.model, arguments.memory),
        terminal,
    )?;
    let limits = limits(arguments, &config?, &device)?;
    let memory = (arguments.memory, terminal);
    model_folder::check_memory(&[(&arguments.model, None)], &device, limits, memory)?;
    let options = Options {
        energy: energy::counter(&device),
        ..options
    };
    let loaded = model_folder::open(&arguments.model, &device, None)?;
    log::begin(arguments);
    let served = Served::new(&arguments.model, alias.clone(), loaded, limits)?.with_sampling(defaults)?;
    let started = Started {
        url: match &options.tls {
            Some(_) => format!("https://{address}"),
            None => format!("http://{address}"),
        },
        model: alias,
        max_sequences: limits.num_sequences,
        context_tokens: limits.context_tokens,
    };
    let mut told = Ok(());
    dualgrain_server::run(listener, served, options, || {
        told = terminal.result(&started, &started.text());
    })?;
    terminal.detail("all answers have ended");
    told
}

impl Started {
    fn text(&self) -> String {
        let Self {
            url,
            model,
            max_sequences,
            context_tokens,
        } = self;
        format!("{model} at {url}, {max_sequences} sequences of {context_tokens} tokens; Ctrl-C ends")
    }
}

fn options(arguments: &Serve) -> Result<Options> {
    let keys = arguments.api_key_file.as_deref().map(Keys::read);
    Ok(Options {
        queue: arguments.queue,
        queue_tokens: arguments.queue_tokens,
        timeout: arguments
            .timeout
            .map(|seconds| Duration::from_secs(seconds as u64)),
        keys: keys.transpose().context("reading the API keys")?,
        tls: tls(arguments)?,
        cors_origins: origins(arguments)?,
        allowed_hosts: arguments.allow_host.clone(),
        ignore_unknown: arguments.ignore_unknown,
        drain: Duration::from_secs(arguments.drain as u64),
        stall: Duration::from_secs(arguments.stall as u64),
        log_prompts: arguments.log_prompts,
        #[cfg(feature = "otel")]
        collector: collector(arguments)?,
        ..Options::default()
    })
}

/// The collector of spans, where one is named.
#[cfg(feature = "otel")]
fn collector(arguments: &Serve) -> Result<Option<dualgrain_server::Collector>> {
    let service = alias(arguments)?;
    const VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    // An empty variable is as good as none.
    let of_variable = || std::env::var(VARIABLE).ok().filter(|url| !url.is_empty());
    let (name, url) = match &arguments.otlp {
        Some(url) => ("--otlp", Some(url.clone())),
        None => (VARIABLE, of_variable()),
    };
    let collector = url.map(|url| dualgrain_server::Collector::at(&url, service));
    collector.transpose().context(name)
}

/// The certificate and its key, where they are named.
fn tls(arguments: &Serve) -> Result<Option<Tls>> {
    let files = arguments.tls_cert.as_deref().zip(arguments.tls_key.as_deref());
    let read = files.map(|(cert, key)| Tls::read(cert, key));
    read.transpose().context("reading the certificate")
}

/// Origins as browsers write them.
fn origins(arguments: &Serve) -> Result<Vec<String>> {
    for origin in &arguments.cors_origin {
        let place = origin.split_once("://").map(|(_, place)| place);
        let is_origin =
            place.is_some_and(|place| !place.is_empty() && !place.contains(['/', ' ', '?', '#', '@']));
        ensure!(
            is_origin || origin == "*",
            "--cors-origin {origin}: expected an origin like https://chat.example or http://localhost:3000, without a path, or *"
        );
        ensure!(
            origin != "*" || arguments.api_key_file.is_none(),
            "--cors-origin * lets every page in the world use the server, which is not taken with keys: name the origins"
        );
    }
    Ok(arguments.cors_origin.clone())
}

/// The name that was asked for, or the model's on the hub, or the folder's.
fn alias(arguments: &Serve) -> Result<String> {
    let dir: &Path = &arguments.model;
    model_folder::check_folder(dir)?;
    let alias = match (&arguments.alias, ModelName::of_snapshot(dir)) {
        (Some(alias), _) => alias.clone(),
        // The folder is called by a commit.
        (None, Some(name)) => name.to_string(),
        (None, None) => {
            // `.` and the like have no name of their own.
            let whole = dir.canonicalize().with_context(|| dir.display().to_string())?;
            let name = whole.file_name().unwrap_or(dir.as_os_str());
            name.to_string_lossy().into_owned()
        }
    };
    ensure!(
        !alias.contains(char::is_control),
        "{alias:?}: a model's name can not have control characters: --alias gives it another"
    );
    Ok(alias)
}

/// Keys over plain HTTP can be read by everybody between; a server that everybody reaches should say so.
fn check_exposure(arguments: &Serve, is_loopback: bool, terminal: &Terminal) -> Result<()> {
    if is_loopback {
        return Ok(());
    }
    ensure!(
        arguments.api_key_file.is_none() || arguments.tls_cert.is_some() || arguments.insecure,
        "API keys over plain HTTP at {} can be read on the way: name a certificate with --tls-cert and --tls-key, put a proxy \
         with TLS in front and listen at 127.0.0.1, or say --insecure",
        arguments.host
    );
    if arguments.api_key_file.is_none() {
        terminal.say("everybody who reaches this machine can use the model: --api-key-file asks for a key");
    }
    Ok(())
}

fn limits(arguments: &Serve, config: &ModelConfig, device: &AnyDevice) -> Result<SessionLimits> {
    let context_tokens = model_folder::context(arguments.context, config, DEFAULT_CONTEXT_TOKENS)?;
    Ok(device.serving_limits(arguments.max_sequences, context_tokens, arguments.step_tokens))
}
