//! `chat`: a conversation on the terminal, with the model's own chat template.

use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use dualgrain::AnyDevice;
use dualgrain::engine::chat::{ChatTemplate, Message};
use dualgrain::engine::{Engine, ModelConfig, Request, SessionLimits};

use crate::cli::arguments::{Chat, Common};
use crate::cli::interruption::interrupt_flag;
use crate::cli::terminal::{Terminal, write_stdout};
use crate::run::generate::speed;
use crate::run::model_folder::{self, Opened};

/// Longest conversation the cache is made for, when the model allows more.
const MAX_CONTEXT_TOKENS: usize = 8192;

/// Reads lines from stdin and answers each; Ctrl-C stops an answer, end of input or /exit the conversation.
pub fn run(arguments: &Chat, common: &Common, terminal: &Terminal) -> Result<()> {
    arguments.sampling.options().sampling.check()?;
    let device = model_folder::device(
        arguments.device.choice,
        common.threads,
        (&arguments.model, arguments.device.memory),
        terminal,
    )?;
    let limits = limits(&ModelConfig::load(&arguments.model)?, &device);
    let memory = (arguments.device.memory, terminal);
    model_folder::check_memory(&[(&arguments.model, None)], &device, limits, memory)?;
    let opened = model_folder::open(&arguments.model, &device, None)?;
    let template = ChatTemplate::load(&arguments.model)?;
    let mut conversation = Conversation::new(arguments, opened, template, limits)?;
    let interrupted = interrupt_flag()?;
    terminal.say("Type a message; /clear forgets, /exit (or Ctrl-D) ends.");
    while let Some(line) = read_line(terminal)? {
        match line.trim() {
            "" => {}
            "/exit" => return Ok(()),
            "/clear" => conversation.clear(),
            message => {
                // A Ctrl-C at the prompt was not meant for this answer.
                interrupted.store(false, Ordering::Relaxed);
                if let Err(error) = conversation.answer(message, terminal, &interrupted) {
                    conversation.messages.pop();
                    terminal.say(&format!("error: {error:#}"));
                }
            }
        }
    }
    Ok(())
}

/// One conversation, as long as the model and the cache's bound allow.
fn limits(config: &ModelConfig, device: &AnyDevice) -> SessionLimits {
    let context_tokens = config.max_positions.min(MAX_CONTEXT_TOKENS);
    SessionLimits::new(1, context_tokens, device.step_tokens())
}

/// The next line of stdin; `None` at its end.
fn read_line(terminal: &Terminal) -> Result<Option<String>> {
    if terminal.interactive() {
        write_stdout("> ")?;
    }
    let mut line = Vec::new();
    let mut stdin = std::io::stdin().lock();
    let len = stdin.read_until(b'\n', &mut line).context("reading from stdin")?;
    // What a terminal in another encoding sends becomes a replacement character, not the end of the conversation.
    Ok((len > 0).then(|| String::from_utf8_lossy(&line).into_owned()))
}

struct Conversation<'a> {
    arguments: &'a Chat,
    template: ChatTemplate,
    engine: Engine<AnyDevice>,
    messages: Vec<Message>,
}

impl<'a> Conversation<'a> {
    fn new(
        arguments: &'a Chat,
        opened: Opened,
        template: ChatTemplate,
        limits: SessionLimits,
    ) -> Result<Self> {
        let mut conversation = Self {
            arguments,
            template,
            engine: Engine::new(opened.model, opened.tokenizer, limits)?,
            messages: Vec::new(),
        };
        conversation.clear();
        Ok(conversation)
    }

    fn clear(&mut self) {
        let system = self.arguments.system.iter();
        self.messages = system.map(|text| said("system", text)).collect();
    }

    fn answer(&mut self, message: &str, terminal: &Terminal, interrupted: &AtomicBool) -> Result<()> {
        self.messages.push(said("user", message));
        let prompt = self.template.render(&self.messages, true)?;
        let request = Request {
            prompt: self.engine.tokenizer().encode(&prompt, false)?,
            options: self.arguments.sampling.options(),
            // The next turn begins with what this one leaves in the cache.
            keep: true,
        };
        let mut stream = |text: &str| match write_stdout(text) {
            Ok(()) if !interrupted.load(Ordering::Relaxed) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        };
        let answer = self.engine.generate(request, &mut stream);
        let (generation, timings) = answer.context("no answer (/clear starts anew)")?;
        write_stdout("\n")?;
        std::io::stdout().flush().context("writing to stdout")?;
        self.messages.push(said("assistant", generation.text.trim()));
        terminal.detail(&speed(&timings));
        Ok(())
    }
}

fn said(role: &str, text: &str) -> Message {
    Message {
        role: role.to_owned(),
        content: text.to_owned(),
    }
}
