//! `chat`: a conversation on the terminal, with the model's own chat template.

use std::io::{BufRead, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use dualgrain::AnyDevice;
use dualgrain::engine::chat::{ChatTemplate, Message};
use dualgrain::engine::{Engine, GenerateOptions, Request, SessionLimits};

use crate::cli::arguments::{Chat, Common};
use crate::cli::interruption::interrupt_flag;
use crate::cli::terminal::{Terminal, write_stdout};
use crate::run::generate::speed;
use crate::run::model_folder::{self, Opened};
use crate::run::sampling;

/// Longest conversation the cache is made for, when the model allows more.
const MAX_CONTEXT_TOKENS: usize = 8192;

/// Reads lines from stdin and answers each; Ctrl-C stops an answer, end of input or /exit the conversation.
pub fn run(arguments: &Chat, common: &Common, terminal: &Terminal) -> Result<()> {
    let config = model_folder::config(&arguments.model)?;
    let options = sampling::options(&arguments.sampling, &arguments.model, terminal)?;
    let device = model_folder::device(
        arguments.device.choice,
        common.threads,
        (&arguments.model, arguments.device.memory),
        terminal,
    )?;
    let context_tokens = model_folder::context(arguments.sampling.context, &config, MAX_CONTEXT_TOKENS)?;
    let limits = SessionLimits::new(1, context_tokens, device.step_tokens());
    let memory = (arguments.device.memory, terminal);
    model_folder::check_memory(&[(&arguments.model, None)], &device, limits, memory)?;
    let opened = model_folder::open(&arguments.model, &device, None)?;
    let template = ChatTemplate::load(&arguments.model)?;
    let mut conversation = Conversation::new((arguments, options), opened, template, limits)?;
    conversation.talk(terminal, &*interrupt_flag()?)
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
    options: GenerateOptions,
    template: ChatTemplate,
    engine: Engine<AnyDevice>,
    messages: Vec<Message>,
}

impl<'a> Conversation<'a> {
    fn new(
        (arguments, options): (&'a Chat, GenerateOptions),
        opened: Opened,
        template: ChatTemplate,
        limits: SessionLimits,
    ) -> Result<Self> {
        let mut conversation = Self {
            arguments,
            options,
            template,
            engine: Engine::new(opened.model, opened.tokenizer, limits)?,
            messages: Vec::new(),
        };
        conversation.clear();
        Ok(conversation)
    }

    /// Answers line by line. A person sees that there was no answer; a script that pipes its messages sees it by the exit code.
    fn talk(&mut self, terminal: &Terminal, interrupted: &AtomicBool) -> Result<()> {
        let is_watched = std::io::stdin().is_terminal();
        let (mut asked, mut failed) = (0, 0);
        terminal.say("Type a message; /clear forgets, /exit (or Ctrl-D) ends.");
        while let Some(line) = read_line(terminal)? {
            match line.trim() {
                "" => {}
                "/exit" => break,
                "/clear" => self.clear(),
                message => {
                    // A Ctrl-C at the prompt was not meant for this answer.
                    interrupted.store(false, Ordering::Relaxed);
                    asked += 1;
                    if let Err(error) = self.answer(message, terminal, interrupted) {
                        failed += 1;
                        self.messages.pop();
                        terminal.say(&format!("error: {error:#}"));
                    }
                    ensure!(is_watched || !interrupted.load(Ordering::Relaxed), "interrupted");
                }
            }
        }
        ensure!(
            is_watched || failed == 0,
            "{failed} of {asked} messages got no answer"
        );
        Ok(())
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
            options: self.options.clone(),
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
