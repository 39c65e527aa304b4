//! What the user typed. Defaults that depend on the model or the machine are decided by the engine.

use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand};
use engine::{EngineOptions, IoEngine, IoMode, Isa, KvFormat, PolicyKind};

use crate::model::ModelName;
use crate::values::{ModelArg, QuantArgs, formats, isa, on_off, one_of, positive, presets, size};
use crate::version;

/// A mistake in the arguments that the parser cannot see by itself: exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Run Mixture-of-Experts models that are larger than memory.
///
/// What every token needs stays in memory; the routed experts are read from disk when the router
/// asks for them. Streaming never changes the answer: the model's own number of experts, every read
/// checked.
#[derive(Parser)]
#[command(name = "flash-moe", version, long_version = version::long())]
#[command(arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Try it:  flash-moe run demo \"Once upon a time\"\n\n\
    Every option can be set by a variable (FLASH_MOE_MEMORY=6GiB for --memory 6GiB) or in a config file, \
    $FLASH_MOE_CONFIG or flash-moe/config.toml in the user's config directory: `memory = \"6GiB\"`, or under \
    `[run]` for one command. The command line wins, then the variable.")]
pub(crate) struct Cli {
    /// Log on stderr: -v loading and memory plan, -vv each pass, -vvv each layer; or set RUST_LOG.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Generate text from a prompt.
    Run(RunArgs),
    /// Talk with a model.
    Chat(ChatArgs),
    /// Convert a checkpoint into the container that streams fastest (one aligned record per expert).
    Pack(PackArgs),
    /// Write a model of a published one's shapes with random weights, for measurements.
    Synth(SynthArgs),
    /// Say what a model is, how large its parts are and what a token costs, without loading it.
    Inspect(InspectArgs),
    /// Print the logits after a list of token ids, for comparisons with other programs.
    Logits(LogitsArgs),
    /// Measure the perplexity of a text, or how far a model is from a reference on it.
    Eval(EvalArgs),
    /// Replay a trace (--trace) against cache policies and sizes, and against the optimum.
    Simulate(SimulateArgs),
    /// Measure how fast a model runs here, and how fast the drive and the memory would let it.
    Bench(BenchArgs),
    /// Say whether a model will run here and how fast, before it is loaded or downloaded.
    Plan(PlanArgs),
    /// Get a model by its name on a hub such as huggingface.co.
    Pull(PullArgs),
    /// List the models that are here, of this program and of others.
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Remove models that were pulled.
    Rm(RmArgs),
    /// Print a script that completes commands and options in a shell.
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command into a directory.
    Man(ManArgs),
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    flash-moe pull ORG/NAME                   the usual quantisation, Q4_K_M\n  \
    flash-moe pull ORG/NAME:Q8_0              another one\n  \
    flash-moe pull ORG/NAME:DIR/FILE.gguf     one file, or all that it is split into\n  \
    flash-moe pull ORG/NAME:safetensors@v1.0  the safetensors of a tag\n  \
    flash-moe pull https://huggingface.co/ORG/NAME/resolve/main/FILE.gguf\n\n\
    Files go where Hugging Face's own tools keep theirs, so that each is on the disk once. Ctrl-C or a lost \
    connection breaks nothing: the same command goes on. To see first whether a model will run here: \
    flash-moe plan ORG/NAME.\n\n\
    Variables:\n  \
    HF_TOKEN        for private models and those with terms to accept; else\n                  \
    the file that `hf auth login` leaves\n  \
    HF_HOME         where models are kept [~/.cache/huggingface]\n  \
    HF_HUB_CACHE    the same for the downloaded files alone [$HF_HOME/hub]\n  \
    HF_ENDPOINT     another hub of the same kind [https://huggingface.co]\n  \
    HF_HUB_OFFLINE  1: never ask a hub")]
pub(crate) struct PullArgs {
    // The brackets are for people, not for rustdoc.
    #[allow(rustdoc::broken_intra_doc_links)]
    /// ORG/NAME[:QUANT or FILE][@REVISION]; hf.co/ORG/NAME and https addresses of a hub mean the same.
    pub(crate) name: String,
}

#[derive(Args)]
#[command(
    after_help = "bash: flash-moe completions bash > ~/.local/share/bash-completion/completions/flash-moe\n\
    zsh:  flash-moe completions zsh > DIR/_flash-moe, DIR one of $fpath\n\
    fish: flash-moe completions fish > ~/.config/fish/completions/flash-moe.fish"
)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Args)]
pub(crate) struct ManArgs {
    /// Directory for the pages, such as ~/.local/share/man/man1; the program's page on stdout without.
    pub(crate) dir: Option<PathBuf>,
}

/// How a model is opened: the same for every command that loads one.
#[derive(Args, Clone)]
#[command(next_help_heading = "Memory, threads and reads")]
pub(crate) struct LoadArgs {
    /// Bound on the memory of the whole process, e.g. 6GiB [default: what is free, less a reserve].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,
    /// Longest sequence in tokens [default: 4096, or the model's own limit if that is less].
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) ctx: Option<usize>,
    /// Format of keys and values; q8_0 takes about half of f16 and is lossy, f32 is exact [default:
    /// f16].
    #[arg(long, value_name = "FORMAT", value_parser = kv_format())]
    pub(crate) kv: Option<KvFormat>,
    /// Compute threads [default: all cores].
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) threads: Option<usize>,
    /// Instruction set, of which avx512 is one with VBMI, VNNI and GFNI [default: the best of this
    /// machine]. It may change the last bits of a result.
    #[arg(long, value_name = "NAME", value_parser = isa())]
    pub(crate) isa: Option<Isa>,
    /// How experts are read: past the page cache, or through it.
    #[arg(long, value_name = "HOW", default_value_t = IoMode::Direct, value_parser = io_mode())]
    pub(crate) io: IoMode,
    /// Reads in flight: threads of the pool; a ring takes four times as many.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive)]
    pub(crate) io_threads: usize,
    /// What does the reading: a pool of threads, a ring of io_uring (Linux), or auto: the pool,
    /// which was faster.
    #[arg(long, value_name = "NAME", default_value_t = IoEngine::Auto, value_parser = io_engine())]
    pub(crate) io_engine: IoEngine,
    /// Verify the checksum of an expert on every read, not only on the first.
    #[arg(long)]
    pub(crate) verify_reads: bool,
    /// Read guesses of the next layer's experts behind all that is asked for; watched, and off by
    /// itself where it does not pay.
    #[arg(long, value_name = "on|off", value_parser = on_off, default_value = "on", action = clap::ArgAction::Set)]
    pub(crate) lookahead: bool,
    /// Which expert makes room for another: the least recently used one, or the one whose next use
    /// is expected last.
    #[arg(long, value_name = "POLICY", default_value_t, value_parser = policy())]
    pub(crate) policy: PolicyKind,
    /// Record the router's decisions in this file, for `simulate`.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Keep what was computed in this directory, so that a later run goes on from it.
    #[arg(long, value_name = "DIR")]
    pub(crate) session_cache: Option<PathBuf>,
    /// Most disk that --session-cache may take [default: 8GiB].
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "session_cache")]
    pub(crate) session_cache_size: Option<u64>,
    /// Recurrent states to keep and go back to, instead of the number that the memory budget gives.
    #[arg(long, value_name = "N", hide = true)]
    pub(crate) snapshots: Option<usize>,
    /// Expert slots instead of the number that the memory budget gives.
    #[arg(long, value_name = "N", value_parser = positive, hide = true)]
    pub(crate) slots: Option<usize>,
    /// Longest prompt chunk in tokens instead of the one that the memory budget gives.
    #[arg(long, value_name = "N", value_parser = positive, hide = true)]
    pub(crate) chunk: Option<usize>,
}

// The parsers are functions, since the derive takes no turbofish.
fn kv_format() -> impl TypedValueParser<Value = KvFormat> {
    one_of(KvFormat::ALL.iter().map(|format| format.name()).collect())
}

fn io_mode() -> impl TypedValueParser<Value = IoMode> {
    one_of(IoMode::ALL.iter().map(|mode| mode.name()).collect())
}

fn io_engine() -> impl TypedValueParser<Value = IoEngine> {
    one_of(IoEngine::ALL.iter().map(|engine| engine.name()).collect())
}

fn policy() -> impl TypedValueParser<Value = PolicyKind> {
    one_of(PolicyKind::ALL.iter().map(|policy| policy.name()).collect())
}

impl LoadArgs {
    pub(crate) fn options(&self) -> EngineOptions {
        EngineOptions {
            memory_bytes: self.memory,
            slots: self.slots,
            ctx: self.ctx,
            kv: self.kv,
            chunk_tokens: self.chunk,
            threads: self.threads,
            isa: self.isa,
            io_threads: Some(self.io_threads),
            io: Some(self.io),
            lookahead: Some(self.lookahead),
            io_engine: Some(self.io_engine),
            policy: Some(self.policy),
            trace: self.trace.clone(),
            session_cache: self.session_cache.clone(),
            session_cache_bytes: self.session_cache_size,
            snapshots: self.snapshots,
            verify: self.verify_reads.then_some(engine::Verify::EveryLoad),
            ..EngineOptions::default()
        }
    }
}

#[derive(Args)]
#[command(
    after_help = "Ctrl-C stops after the token under way. SIGHUP gives half of the expert slots back to the system."
)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// The prompt; read from standard input when absent or `-`.
    pub(crate) prompt: Option<String>,
    /// Most tokens to generate [default: until the model ends or the context is full].
    #[arg(short = 'n', long = "max-tokens", value_name = "N", value_parser = positive)]
    pub(crate) max_tokens: Option<usize>,
    /// Complete the prompt as it is, without the model's chat template.
    #[arg(long)]
    pub(crate) raw: bool,
    /// A system message before the prompt.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub(crate) system: Option<String>,
    /// Ask the chat template for an answer with or without thinking, where it knows the difference.
    #[arg(long, value_name = "on|off", value_parser = on_off, conflicts_with = "raw")]
    pub(crate) thinking: Option<bool>,
    /// Print one JSON object with the text and the statistics instead of streaming the text.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Args)]
#[command(
    after_help = "Within the conversation: /help lists the commands, Ctrl-C stops an answer, Ctrl-D ends. When standard \
    input is no terminal, each line of it is a turn of the user."
)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// Most tokens of an answer [default: until the model ends or the context is full].
    #[arg(short = 'n', long = "max-tokens", value_name = "N", value_parser = positive)]
    pub(crate) max_tokens: Option<usize>,
    /// A system message before the conversation.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Ask the chat template for answers with or without thinking, where it knows the difference.
    #[arg(long, value_name = "on|off", value_parser = on_off)]
    pub(crate) thinking: Option<bool>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// Sampling; what is absent comes from the model's generation_config.json.
#[derive(Args)]
#[command(next_help_heading = "Sampling (defaults from the model's generation_config.json)")]
pub(crate) struct SamplingArgs {
    /// Temperature; 0 always takes the likeliest token.
    #[arg(long, value_name = "T")]
    pub(crate) temp: Option<f32>,
    /// Keep the K likeliest tokens; 0 keeps all.
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<u32>,
    /// Keep the likeliest tokens that together have probability P; 1 keeps all.
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f32>,
    /// Keep tokens at least P times as likely as the likeliest; 0 keeps all.
    #[arg(long, value_name = "P")]
    pub(crate) min_p: Option<f32>,
    /// Divide the logits of tokens already in the text by this; 1 is off.
    #[arg(long, value_name = "R")]
    pub(crate) repetition_penalty: Option<f32>,
    /// Subtract this from the logits of tokens already generated; 0 is off.
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    pub(crate) presence_penalty: Option<f32>,
    /// Seed of the random choices; the one used is printed.
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
}

#[derive(Args)]
#[command(
    after_help = format!("Formats: {}. A row that is no multiple of a format's block is kept in a 32-wide format of at \
    least as many bits; inspect says where. The router stays as it is.\n\n\
    An interrupted pack goes on where it stopped when the same command is given again.", formats())
)]
pub(crate) struct PackArgs {
    /// The checkpoint: a GGUF file or a Hugging Face directory (or a packed one, with --verify alone).
    pub(crate) source: ModelName,
    /// The directory to write.
    pub(crate) target: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) quant: QuantArgs,
    /// Read everything back and check every checksum; without a target, only check SOURCE.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Threads [default: all cores].
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) threads: Option<usize>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
#[command(
    after_help = format!("Presets: {}. Formats: {}.\n\n\
    The model has no tokenizer; bench and logits feed it token ids. Where --disk is less than the model takes, several \
    layers share record files, which inspect and bench say.", presets(), formats())
)]
pub(crate) struct SynthArgs {
    /// The shape, e.g. qwen3.5-35b-a3b.
    pub(crate) preset: String,
    /// The directory to write.
    pub(crate) target: PathBuf,
    #[command(flatten)]
    pub(crate) quant: QuantArgs,
    /// Most disk to use, e.g. 40GiB; layers share record files where the model is larger [default:
    /// the model's size].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) disk: Option<u64>,
    /// Popularity and reuse of experts: 0 uniform (the worst case for a cache), 1 about as
    /// published models, up to 4.
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    pub(crate) skew: f32,
    /// Seed of the weights.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Layers instead of the model's own number.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) layers: Option<usize>,
    /// Threads [default: two more than there are cores].
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) threads: Option<usize>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
#[command(
    after_help = "Looks into the Hugging Face cache (HF_HUB_CACHE, HF_HOME), LM Studio's and Ollama's folders \
    (OLLAMA_MODELS), and FLASH_MOE_MODELS or flash-moe/models in the user's data directory. Models are used where they \
    lie. A model that `list` says will run may still ask for something that is not built: `inspect` opens it."
)]
pub(crate) struct ListArgs {
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
#[command(
    after_help = "Only files that `pull` fetched are removed; models of other programs stay where they are."
)]
pub(crate) struct RmArgs {
    /// Names as `list` shows them.
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
#[command(
    after_help = "Needs no tokenizer files. Keys and values are kept in f32 here, unless --kv says otherwise."
)]
pub(crate) struct LogitsArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// Token ids, separated by commas.
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    pub(crate) tokens: Vec<u32>,
    /// Feed the tokens one by one instead of as one prompt.
    #[arg(long)]
    pub(crate) stepwise: bool,
    /// Print {"logits": [...]}, one number per vocabulary entry, instead of the ten largest.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Args, Clone)]
#[command(
    after_help = "What a quantisation costs:  flash-moe eval model-q4 --text book.txt --against model-bf16\n\n\
    The divergence (Kullback-Leibler, of MODEL from MODEL2) is 0 where both predict the same; unlike perplexity it sees \
    every difference, and its error is small on short texts. --memory holds both models where both fit; otherwise \
    MODEL2 runs first and its logits wait in a temporary file: 4 bytes a token and vocabulary entry."
)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// The text: a file, UTF-8.
    #[arg(long, value_name = "FILE")]
    pub(crate) text: PathBuf,
    /// Tokens by which the window of --ctx tokens moves on [default: half the window].
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) stride: Option<usize>,
    /// The reference: how far MODEL's predictions are from those of MODEL2, which has the same vocabulary.
    #[arg(long, value_name = "MODEL2")]
    pub(crate) against: Option<ModelName>,
    /// Format of MODEL2's keys and values [default: as --kv].
    #[arg(long, value_name = "FORMAT", value_parser = kv_format(), requires = "against")]
    pub(crate) against_kv: Option<KvFormat>,
    /// Where MODEL2's logits wait if both models do not fit into memory [default: the cache directory].
    #[arg(long, value_name = "DIR", requires = "against")]
    pub(crate) spill_dir: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Args)]
#[command(after_help = "What each figure means: docs/benchmarking.md.")]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// Tokens of each prompt.
    #[arg(short = 'p', long = "prompt-tokens", value_name = "TOKENS", default_value_t = 64, value_parser = positive)]
    pub(crate) prompt_tokens: usize,
    /// Tokens decoded after each prompt.
    #[arg(short = 'n', long = "decode-tokens", value_name = "TOKENS", default_value_t = 64, value_parser = positive)]
    pub(crate) decode_tokens: usize,
    /// Prompts, each another; medians over them are printed.
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = positive)]
    pub(crate) repeat: usize,
    /// Tokens of prompt and of decode before anything is measured [default: 8].
    #[arg(long, value_name = "N")]
    pub(crate) warmup: Option<usize>,
    /// Take the tokens from this text (UTF-8) instead of random ids.
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
    /// Seed of the random ids and of the order in which the drive is measured.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Also measure N streams that decode together, each from a prompt of its own.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) parallel: Option<usize>,
    /// Let a prompt of so many tokens arrive while the streams decode, and measure how long they wait.
    #[arg(long, value_name = "TOKENS", value_parser = positive)]
    pub(crate) arrive: Option<usize>,
    /// Also measure a conversation of two turns, the second with so many new tokens; with
    /// --session-cache after a restart too.
    #[arg(long, value_name = "TOKENS", value_parser = positive)]
    pub(crate) turns: Option<usize>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Args)]
pub(crate) struct SimulateArgs {
    /// A trace that --trace wrote.
    pub(crate) trace: PathBuf,
    /// Numbers of slots to try [default: shares of the model, and what the recording run had].
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = positive)]
    pub(crate) slots: Vec<usize>,
    /// Memory of the slots to try, e.g. 2GiB,4GiB.
    #[arg(long, value_name = "SIZE,…", value_delimiter = ',', value_parser = size)]
    pub(crate) budgets: Vec<u64>,
    /// Leave prompt chunks out and replay single tokens only.
    #[arg(long)]
    pub(crate) decode: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw the hit rates into this SVG file.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

#[derive(Args)]
#[command(
    after_help = format!("Presets, which need not be here: {}. Formats: {}.\n\n\
    Exit code 1 if it does not fit. How the forecast is made: docs/benchmarking.md.", presets(), formats())
)]
pub(crate) struct PlanArgs {
    /// A GGUF file, a packed or Hugging Face directory, `demo`, a name that `list` shows, a preset, or
    /// ORG/NAME:QUANT on a hub, of which only the headers are read.
    pub(crate) model: ModelName,
    #[command(flatten)]
    pub(crate) quant: QuantArgs,
    /// Where a model that is not here would lie: its drive is measured with a temporary file there
    /// [default: the cache directory].
    #[arg(long, value_name = "DIR")]
    pub(crate) disk_path: Option<PathBuf>,
    /// Size of that file.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size, hide = true)]
    pub(crate) probe_size: u64,
    /// Prompt that the prefill is forecast for, tokens.
    #[arg(short = 'p', long = "prompt-tokens", value_name = "TOKENS", default_value_t = 512, value_parser = positive)]
    pub(crate) prompt_tokens: usize,
    /// Streams that decode together.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub(crate) parallel: usize,
    /// Print what the answer is made from: sizes, measurements, a table of budgets.
    #[arg(long, conflicts_with = "json")]
    pub(crate) details: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}
