//! `flash-moe list`: the models that are here, of this program and of others.

use std::io::{self, Write};
use std::path::PathBuf;

use hub::decimal_bytes;
use hub::local::{Local, LocalModel, Removal};
use lab::Glance;
use serde::Serialize;

use crate::args::ListArgs;
use crate::{demo, model, output};

/// Remarks that are shown; with JSON all are.
const REMARKS_MAX: usize = 5;
/// Columns beside the name.
const HEAD: [&str; 5] = ["SIZE", "FAMILY", "QUANT", "SOURCE", "RUNS"];
/// Their widths.
const WIDTHS: [usize; 5] = [9, 11, 10, 8, 4];

/// One model of the list.
#[derive(Serialize)]
struct Row {
    /// The name to type.
    name: String,
    bytes: u64,
    /// The architecture as the files call it.
    architecture: Option<String>,
    /// The family that runs it.
    family: Option<&'static str>,
    quant: Option<String>,
    /// `hf`, `lmstudio`, `ollama`, `packed`, `own` or `demo`.
    source: &'static str,
    /// Whether its family is known and its files are complete.
    runs: bool,
    /// Why not.
    reason: Option<String>,
    /// Whether this program pulled it.
    pulled: bool,
    path: PathBuf,
    files: usize,
    revision: Option<String>,
}

#[derive(Serialize)]
struct Remark {
    path: PathBuf,
    reason: String,
}

#[derive(Serialize)]
struct List {
    models: Vec<Row>,
    remarks: Vec<Remark>,
}

pub(crate) fn run(args: &ListArgs) -> anyhow::Result<()> {
    let local = Local::find(&model::places());
    let rows: Vec<Row> = local.models.iter().map(row).chain(demo_row()).collect();
    let mut stdout = io::stdout().lock();
    if args.json {
        let remarks = local.remarks.into_iter();
        let remarks = remarks.map(|remark| Remark { path: remark.path, reason: remark.reason }).collect();
        serde_json::to_writer(&mut stdout, &List { models: rows, remarks }).map_err(io::Error::from)?;
        return Ok(writeln!(stdout)?);
    }
    print(&mut stdout, &rows, output::width())?;
    stdout.flush()?;
    for remark in local.remarks.iter().take(REMARKS_MAX) {
        output::note(&format!("note: {}: {}", remark.path.display(), remark.reason));
    }
    if local.remarks.len() > REMARKS_MAX {
        output::note(&format!("note: {} more remarks: list --json", local.remarks.len() - REMARKS_MAX));
    }
    if local.models.is_empty() {
        output::note(
            "no models are here yet; get one by its name on huggingface.co: flash-moe pull ORG/NAME:QUANT, and see \
             first whether it will run: flash-moe plan ORG/NAME:QUANT",
        );
    }
    Ok(())
}

fn row(model: &LocalModel) -> Row {
    let seen = match &model.problem {
        Some(problem) => Err(problem.clone()),
        None => lab::glance(&model.path).map_err(|error| error.to_string()),
    };
    let (seen, broken) = match seen {
        Ok(seen) => (Some(seen), None),
        Err(reason) => (None, Some(reason)),
    };
    let of = |get: &dyn Fn(&Glance) -> Option<String>| seen.as_ref().and_then(get);
    let by_name = model.quant.clone().filter(|quant| quant != "safetensors");
    let reason = broken.or_else(|| of(&|seen| seen.refusal.clone()));
    let is_packed = seen.as_ref().is_some_and(|seen| seen.is_packed);
    Row {
        name: checkpoint::shown(&model.name),
        bytes: model.bytes,
        architecture: of(&|seen| seen.architecture.clone()),
        family: seen.as_ref().and_then(|seen| seen.family),
        quant: by_name.or_else(|| of(&|seen| seen.quant.clone())).or_else(|| model.quant.clone()),
        source: if is_packed { "packed" } else { model.source.name() },
        runs: reason.is_none(),
        reason,
        pulled: Removal::is_ours(model),
        path: model.path.clone(),
        files: model.files.len(),
        revision: model.revision.clone(),
    }
}

/// The model in the binary.
fn demo_row() -> Option<Row> {
    let demo = demo::about()?;
    let seen = lab::glance_at_config(&demo.config);
    Some(Row {
        name: model::DEMO.into(),
        bytes: demo.bytes,
        architecture: seen.architecture,
        family: seen.family,
        quant: Some(demo.quant),
        source: "demo",
        runs: seen.refusal.is_none(),
        reason: seen.refusal,
        pulled: false,
        path: demo.path,
        files: 1,
        revision: None,
    })
}

/// A table; a name that is too long for its column has a line of its own, since it is there to be typed.
fn print(out: &mut impl Write, rows: &[Row], width: usize) -> io::Result<()> {
    let beside: usize = WIDTHS.iter().map(|width| width + 1).sum();
    let longest = rows.iter().map(|row| console::measure_text_width(&row.name)).max().unwrap_or(0);
    let room = longest.clamp(4, width.saturating_sub(beside).max(4));
    writeln!(out, "{:room$} {}", "NAME", columns(HEAD.map(String::from)))?;
    for row in rows {
        let gap = room.saturating_sub(console::measure_text_width(&row.name));
        let family = row.family.map(str::to_owned).or_else(|| row.architecture.clone());
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let rest = columns([
            decimal_bytes(row.bytes),
            or_dash(family),
            or_dash(row.quant.clone()),
            row.source.into(),
            if row.runs { "yes".into() } else { "no".into() },
        ]);
        match console::measure_text_width(&row.name) > room {
            true => writeln!(out, "{}\n{:room$} {rest}", row.name, "")?,
            false => writeln!(out, "{}{:gap$} {rest}", row.name, "")?,
        }
        if let Some(reason) = &row.reason {
            for line in output::wrapped(&format!("  does not run: {reason}")) {
                writeln!(out, "{line}")?;
            }
        }
    }
    Ok(())
}

/// The columns beside the name. A text that is too long pushes the others on.
fn columns(texts: [String; 5]) -> String {
    let [size, family, quant, source, runs] = texts;
    let [size_width, family_width, quant_width, source_width, _] = WIDTHS;
    format!("{size:>size_width$} {family:family_width$} {quant:quant_width$} {source:source_width$} {runs}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fit_a_terminal_and_names_are_whole() {
        let long = "organisation/A-Model-With-A-Long-Name-30B-A3B-Instruct-2507-GGUF:UD-Q4_K_XL";
        let row = |name: &str, reason: Option<&str>| Row {
            name: name.into(),
            bytes: 17_300_000_000,
            architecture: Some("gemma3".into()),
            family: None,
            quant: Some("UD-Q4_K_XL".into()),
            source: "lmstudio",
            runs: reason.is_none(),
            reason: reason.map(String::from),
            pulled: false,
            path: PathBuf::new(),
            files: 1,
            revision: None,
        };
        let mut out = Vec::new();
        print(&mut out, &[row("demo", None), row(long, Some("architecture gemma3"))], 79).expect("written");
        let text = String::from_utf8(out).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.len() <= 79), "{text}");
        assert_eq!((lines.len(), lines[2], lines[4]), (5, long, "  does not run: architecture gemma3"));
        assert!(
            lines[1].starts_with("demo ")
                && lines[1].ends_with("17.3 GB gemma3      UD-Q4_K_XL lmstudio yes")
        );
        assert_eq!(lines[0].find("SOURCE"), lines[1].find("lmstudio"));
        assert_eq!(lines[3].find("lmstudio"), lines[1].find("lmstudio"));
    }
}
