//! Runs a GGUF model on the CPU: a question, a completion or a conversation.
//!
//! ```sh
//! cargo run --release --example generate                        # fetches a small model and asks it a question
//! cargo run --release --example generate -- -m model.gguf -p "Write a haiku about rivers."
//! cargo run --release --example generate -- -m model.gguf -cnv  # a conversation, until the end of the input
//! ```
//!
//! The flags are llama.cpp's where it has them. Text goes to standard output, everything else to standard error.

mod conversation;
mod demo;
mod options;
mod report;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use quantblock::bytes::SharedBytes;
use quantblock::executor::ThreadPool;
use quantblock::gguf::{Gguf, Mmap, read_file};
use quantblock::transformer::chat::ChatTemplate;
use quantblock::transformer::{LoadOptions, Model, Sampler, Session, Tokenizer};
use quantblock::{Executor, Level};

use conversation::Conversation;
use options::Options;
use report::Timings;

fn main() -> ExitCode {
    let options = Options::read();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.to_string().replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    // What can be wrong with the flags is said before anything is fetched or read.
    let level = options.level()?;
    let cache_type = options.cache_type()?;
    let prompt = options.prompt()?;
    let path = match &options.model {
        Some(path) => path.clone(),
        None => demo::model()?,
    };

    let start = Instant::now();
    let pool = ThreadPool::new(options.threads());
    let file: SharedBytes = if options.no_mmap { Arc::new(read_file(&path)?) } else { Arc::new(Mmap::open(&path)?) };
    let of_file = |error: quantblock::Error| format!("{}: {error}", path.display());
    let gguf = Gguf::parse((*file).as_ref()).map_err(of_file)?;
    let mut load =
        LoadOptions::default().storage(options.storage()).f32_activations(options.f32_activations).level(level);
    load.cache_type = cache_type;
    match options.ctx_size {
        None => {}
        Some(0) => load = load.context(report::trained_context(&gguf).map_err(of_file)?),
        Some(positions) => load = load.context(positions),
    }
    let model = Model::load_from_gguf_with(file.clone(), load, &pool).map_err(of_file)?;
    let tokenizer = Tokenizer::from_gguf(&gguf).map_err(of_file)?;
    let template = ChatTemplate::from_gguf(&gguf).map_err(of_file)?;
    let session = Session::new(&model)?;
    let timings = Timings { load: start.elapsed(), ..Timings::default() };
    report::model(&path, &gguf, &model, pool.threads(), level == Level::best());

    let mut conversation = Conversation {
        session,
        sampler: Sampler::new(options.sampling()),
        tokenizer: &tokenizer,
        pool: &pool,
        tokens: Vec::new(),
        limit: usize::try_from(options.n_predict).unwrap_or(usize::MAX),
        show_prompt: options.verbose_prompt,
        timings,
    };
    let system = options.system_prompt.as_deref();
    match (options.conversation, template) {
        (true, template) => {
            conversation.chat(&template.map_or_else(ChatTemplate::chatml, Ok)?, system, options.first_turn(prompt))?
        }
        (false, Some(template)) if !options.no_conversation => conversation.answer(&template, system, &prompt)?,
        _ if system.is_some() => {
            return Err(
                "a system prompt needs a model with a chat template; -cnv makes a conversation without one".into()
            );
        }
        _ => conversation.complete(&prompt)?,
    }
    conversation.timings.report();
    Ok(())
}
