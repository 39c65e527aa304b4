//! Renders chat templates for a comparison: each line of standard input is an object with `template` and
//! `vars`, each line of standard output one with `ok` or `error`. See fixtures/compare_templates.py.

use std::error::Error;
use std::io::{BufRead, Write};

use serde_json::{Value, json};
use tokenizer::{Message, TemplateOptions, Tokenizer};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let word_level = json!({
        "version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"},
    });
    std::fs::write(directory.path().join("tokenizer.json"), word_level.to_string())?;
    let mut stdout = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let case: Value = serde_json::from_str(&line?)?;
        let config = json!({"chat_template": case["template"]});
        std::fs::write(directory.path().join("tokenizer_config.json"), config.to_string())?;
        let result = match render(directory.path(), &case["vars"]) {
            Ok(text) => json!({"ok": text}),
            Err(error) => json!({"error": error.to_string()}),
        };
        writeln!(stdout, "{result}")?;
    }
    Ok(())
}

fn render(directory: &std::path::Path, vars: &Value) -> Result<String, Box<dyn Error>> {
    // A moment that both sides know.
    let mut options = TemplateOptions { now_s: Some(1_754_028_305), ..Default::default() };
    options.extra.extend(vars.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
    let messages: Vec<Message> = serde_json::from_value(vars["messages"].clone())?;
    Ok(Tokenizer::from_directory(directory)?.apply_chat_template(&messages, &options)?)
}
