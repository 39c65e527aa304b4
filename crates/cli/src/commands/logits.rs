//! `flash-moe logits`: the logits after a list of token ids.

use std::io::{self, Write};

use engine::{Event, Input, KvFormat, Logits, Request};

use crate::args::LogitsArgs;

/// Entries of the table that people see.
const SHOWN: usize = 10;

pub(crate) fn run(args: &LogitsArgs) -> anyhow::Result<()> {
    let mut load = args.load.clone();
    // Without a given context: room for the tokens and one that follows, so that a small budget suffices.
    load.ctx = load.ctx.or(Some(args.tokens.len() + 1));
    // Other programs are compared with what the model computes, not with what a cache rounds it to.
    load.kv = load.kv.or(Some(KvFormat::F32));
    let engine = super::open(&args.model, &load, Input::Tokens)?;
    let (prompt, forced) = args.tokens.split_at(if args.stepwise { 1 } else { args.tokens.len() });
    // Tokens that are fed follow the first; the one that is chosen after them is of no interest.
    let request = Request {
        max_tokens: if args.stepwise { args.tokens.len() } else { 0 },
        forced: forced.to_vec(),
        stop_ids: Vec::new(),
        logits: Logits::Last,
        ..engine.request(prompt)
    };
    let mut logits = Vec::new();
    let running = engine.submit(request);
    for event in running.map_err(|error| super::trial(&args.model, &load).advise(error))? {
        if let Event::Logits { logits: row, .. } = event? {
            logits = row;
        }
    }
    let mut stdout = io::stdout().lock();
    if args.json {
        let object = serde_json::json!({ "logits": logits });
        serde_json::to_writer(&mut stdout, &object).map_err(io::Error::from)?;
        return Ok(writeln!(stdout)?);
    }
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
    writeln!(stdout, "{:>8}  {:>12}  token", "id", "logit")?;
    for id in order.into_iter().take(SHOWN) {
        let text = engine.tokenizer().ok().and_then(|tokenizer| tokenizer.decode(&[id], false).ok());
        writeln!(
            stdout,
            "{id:>8}  {:>12.6}  {}",
            logits[id as usize],
            text.map_or("-".into(), |t| format!("{t:?}"))
        )?;
    }
    Ok(())
}
