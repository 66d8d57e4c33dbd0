//! The command line.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use dualgrain::engine::chat::ChatTemplate;
use dualgrain::engine::{ModelConfig, folder_hint};
use dualgrain::{AnyDevice, DeviceChoice, SessionLimits};
use dynamo_backend_common::{CommonArgs, DisaggregationMode, WorkerConfig};

/// Longest context the cache is made for by itself, as in `dualgrain serve`.
const DEFAULT_CONTEXT_TOKENS: usize = 8192;

/// Serves a model to a frontend of NVIDIA Dynamo until Ctrl-C or a termination signal.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "dualgrain-dynamo",
    version,
    // Options of Dynamo that this worker refuses.
    mut_arg("disaggregation_mode", |option| option.hide(true)),
    mut_arg("route_to_encoder", |option| option.hide(true)),
    mut_arg("enable_rl", |option| option.hide(true)),
    after_help = "Example, one machine and no server to install:\n  \
        export DYN_DISCOVERY_BACKEND=file DYN_FILE_KV=/tmp/fleet DYN_REQUEST_PLANE=tcp DYN_EVENT_PLANE=zmq\n  \
        python3 -m dynamo.frontend --http-port 8000 --migration-limit 3 &\n  \
        dualgrain-dynamo llama-tiny-w4a8\n\
        Dynamo's own variables: DYN_FILE_KV (the folder of `file`), ETCD_ENDPOINTS (addresses of `etcd`), DYN_SYSTEM_PORT (health and metrics, \
        another one for each worker of a machine), DYN_LOG (error, warn, info, debug). The guide: docs/guides/fleet.md"
)]
pub struct Arguments {
    /// Folder of the model (quantized or original), the same bytes and the same path on every worker.
    #[arg(value_name = "DIR")]
    pub model: PathBuf,
    /// Name that clients call the model by [default: the folder's name].
    #[arg(long, value_name = "NAME")]
    pub served_model_name: Option<String>,
    /// Device that runs the model: auto, cpu, or cuda:N.
    #[arg(long, default_value_t = DeviceChoice::Auto, value_name = "DEVICE")]
    pub device: DeviceChoice,
    /// Threads of the CPU that share the work; 0 takes all cores.
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub threads: usize,
    /// Share of a card's free memory that the model may take.
    #[arg(long, default_value_t = 1.0, value_name = "SHARE", value_parser = share)]
    pub memory: f64,
    /// Sequences that run at once.
    #[arg(long, default_value_t = 8, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_sequences: u32,
    /// Sequences that may wait beside those that run; the frontend sends a request beyond to another worker.
    #[arg(long, default_value_t = 256, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub queue: u32,
    /// Tokens of a prompt and its answer together [default: 8192, or what the model has positions for].
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..=1 << 24))]
    pub context: Option<u32>,
    /// Tokens of a step while an answer streams, as in `dualgrain serve`.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub step_tokens: Option<u32>,
    /// Use nothing of the model's generation_config.json but its end tokens.
    #[arg(long)]
    pub ignore_defaults: bool,
    #[command(flatten)]
    pub common: CommonArgs,
}

impl Arguments {
    /// What Dynamo's runtime is told. What can be wrong with the command line is told here, before anything is opened.
    ///
    /// # Errors
    /// No such folder, a role that this worker does not have.
    pub fn worker_config(&self) -> Result<WorkerConfig> {
        let dir = &self.model;
        ensure!(
            dir.is_dir(),
            "{}: no such model folder{}",
            dir.display(),
            folder_hint(dir)
        );
        let common = &self.common;
        ensure!(
            common.disaggregation_mode == DisaggregationMode::Aggregated && !common.route_to_encoder,
            "this worker runs prompts and answers in one place: --disaggregation-mode takes agg alone, and there is no encoder"
        );
        let name = self.served_model_name.as_deref();
        ensure!(
            name.is_none_or(|name| !name.trim().is_empty() && !name.contains(char::is_control)),
            "--served-model-name {:?}: expected a name without control characters",
            name.unwrap_or_default()
        );
        let knows = |kind: &str| ["chat", "completions"].contains(&kind.trim());
        ensure!(
            common.endpoint_types.split(',').all(knows),
            "--endpoint-types {}: expected chat, completions, or both with a comma between",
            common.endpoint_types
        );
        let has_template = common.custom_jinja_template.is_some() || ChatTemplate::load(dir).is_ok();
        ensure!(
            has_template,
            "{}: Dynamo's frontend serves no model without a chat template: name one with --custom-jinja-template FILE",
            dir.display()
        );
        ensure!(
            !common.enable_rl,
            "--enable-rl: this worker's weights can not be changed while it runs"
        );
        let whole = dir.canonicalize().with_context(|| dir.display().to_string())?;
        Ok(WorkerConfig {
            namespace: common.namespace.clone(),
            component: common.component.clone(),
            endpoint: common.endpoint.clone(),
            model_name: whole.to_string_lossy().into_owned(),
            served_model_name: Some(self.served_name(&whole)),
            endpoint_types: common.endpoint_types.clone(),
            custom_jinja_template: common.custom_jinja_template.clone(),
            tool_call_parser: common.dyn_tool_call_parser.clone(),
            reasoning_parser: common.dyn_reasoning_parser.clone(),
            exclude_tools_when_tool_choice_none: common.exclude_tools_when_tool_choice_none,
            runtime: common.runtime.clone(),
            ..WorkerConfig::default()
        })
    }

    /// The name that was asked for, or the folder's.
    pub fn served_name(&self, whole: &Path) -> String {
        let of_folder = || {
            whole
                .file_name()
                .unwrap_or(whole.as_os_str())
                .to_string_lossy()
                .into_owned()
        };
        self.served_model_name.clone().unwrap_or_else(of_folder)
    }

    /// How much the engine holds.
    ///
    /// # Errors
    /// A context that the model has no positions for.
    pub fn limits(&self, config: &ModelConfig, device: &AnyDevice) -> Result<SessionLimits> {
        let most = config.max_positions;
        let context_tokens = self
            .context
            .map_or(DEFAULT_CONTEXT_TOKENS.min(most), |asked| asked as usize);
        ensure!(
            context_tokens <= most,
            "--context {context_tokens}: the model has positions for {most} tokens"
        );
        let step_tokens = self.step_tokens.map(|tokens| tokens as usize);
        Ok(device.serving_limits(self.max_sequences as usize, context_tokens, step_tokens))
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text
        .parse::<f64>()
        .ok()
        .filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "expected a number above 0 and at most 1".to_owned())
}
