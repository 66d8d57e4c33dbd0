//! `chat`: a conversation on the terminal, with the model's own chat template.

use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use dualgrain_cpu::CpuDevice;
use dualgrain_engine::chat::{ChatTemplate, Message};
use dualgrain_engine::generate::{Request, generate};
use dualgrain_engine::sampler::Sampler;
use dualgrain_engine::{Session, SessionLimits};

use crate::cli::arguments::{Chat, Common};
use crate::cli::interruption::interrupt_flag;
use crate::cli::terminal::{Terminal, write_stdout};
use crate::run::generate::{STEP_TOKENS, speed};
use crate::run::model_folder::{self, Opened};

/// Longest conversation the cache is made for, when the model allows more.
const MAX_CONTEXT_TOKENS: usize = 8192;

/// Reads lines from stdin and answers each; Ctrl-C stops an answer, end of input or /exit the conversation.
pub fn run(arguments: &Chat, common: &Common, terminal: &Terminal) -> Result<()> {
    Sampler::new(arguments.sampling.options().sampling)?;
    let device = Arc::new(CpuDevice::new(common.threads)?);
    let opened = model_folder::open(&arguments.model, &device, None)?;
    let template = ChatTemplate::load(&arguments.model)?;
    let mut conversation = Conversation::new(arguments, opened, template)?;
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
    opened: Opened,
    template: ChatTemplate,
    session: Session<CpuDevice>,
    messages: Vec<Message>,
    /// Tokens the session's cache holds.
    cached: Vec<u32>,
}

impl<'a> Conversation<'a> {
    fn new(arguments: &'a Chat, opened: Opened, template: ChatTemplate) -> Result<Self> {
        let limits = SessionLimits {
            num_sequences: 1,
            context_tokens: opened.model.config().max_positions.min(MAX_CONTEXT_TOKENS),
            step_tokens: STEP_TOKENS,
        };
        let session = Session::new(Arc::clone(&opened.model), limits)?;
        let mut conversation = Self {
            arguments,
            opened,
            template,
            session,
            messages: Vec::new(),
            cached: Vec::new(),
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
        let tokens = self.opened.tokenizer.encode(&prompt, false)?;
        let request = Request {
            prompt: self.uncached(tokens),
            options: self.arguments.sampling.options(),
        };
        let mut stream = |text: &str| match write_stdout(text) {
            Ok(()) if !interrupted.load(Ordering::Relaxed) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        };
        let (generation, timings) =
            generate(&mut self.session, &self.opened.tokenizer, &request, &mut stream)
                .context("no answer (/clear starts anew)")?;
        write_stdout("\n")?;
        std::io::stdout().flush().context("writing to stdout")?;
        let run = request.prompt.iter().chain(&generation.tokens);
        self.cached.extend(run);
        self.cached.truncate(self.session.len(0));
        self.messages.push(said("assistant", generation.text.trim()));
        terminal.detail(&speed(&timings));
        Ok(())
    }

    /// The part of `tokens` that must still be run: what the cache holds already is kept when it is a prefix.
    fn uncached(&mut self, tokens: Vec<u32>) -> Vec<u32> {
        if !self.cached.is_empty() && self.cached.len() < tokens.len() && tokens.starts_with(&self.cached) {
            return tokens[self.cached.len()..].to_vec();
        }
        self.session.reset(0);
        self.cached.clear();
        tokens
    }
}

fn said(role: &str, text: &str) -> Message {
    Message {
        role: role.to_owned(),
        content: text.to_owned(),
    }
}
