//! `flash-moe rm`: remove models that were pulled, and nothing else.

use std::io::{self, IsTerminal, Write};

use hub::decimal_bytes;
use hub::local::{Local, LocalModel, Match, Removal, Way};

use crate::args::{RmArgs, Usage};
use crate::{download, model, output};

pub(crate) fn run(args: &RmArgs) -> anyhow::Result<()> {
    let local = Local::find(&model::places());
    // Nothing is removed before all names are known to be right.
    let plans: Vec<Removal> = args.names.iter().map(|name| plan(&local, name)).collect::<Result<_, _>>()?;
    if !args.yes && !io::stdin().is_terminal() {
        return Err(
            Usage("standard input is no terminal to ask at; add --yes to remove the model".into()).into()
        );
    }
    let mut removed = Vec::new();
    for plan in &plans {
        if !args.yes && !is_agreed(plan)? {
            output::note(&format!("{} stays", plan.name()));
            continue;
        }
        let bytes = plan.run()?;
        if !plan.others().is_empty() {
            output::note(&format!(
                "note: what another program put there stays: {}",
                plan.others().iter().map(|file| checkpoint::shown(file)).collect::<Vec<_>>().join(", ")
            ));
        }
        output::note(&format!("removed {}; {} are free again", plan.name(), decimal_bytes(bytes)));
        removed.push(serde_json::json!({ "name": plan.name(), "files": plan.files(), "bytes_freed": bytes }));
    }
    match args.json {
        true => Ok(writeln!(io::stdout().lock(), "{}", serde_json::json!({ "removed": removed }))?),
        false => Ok(()),
    }
}

/// What a name means must be beyond doubt here: neither a beginning nor one of several quantisations.
fn plan(local: &Local, name: &str) -> anyhow::Result<Removal> {
    if name == model::DEMO {
        anyhow::bail!("{name}: this model is part of the program; it cannot be removed");
    }
    let by_path = local.models.iter().find(|model| model.path.as_os_str() == name);
    let found = match by_path {
        Some(model) => model,
        None => named(local, name)?,
    };
    Ok(Removal::plan(found)?)
}

fn named<'a>(local: &'a Local, name: &str) -> anyhow::Result<&'a LocalModel> {
    match local.look_up(name) {
        Match::One(model, Way::Exact) => Ok(model),
        Match::One(model, Way::Prefix) => {
            let name = checkpoint::shown(name);
            anyhow::bail!("{name}: write the whole name to remove it: flash-moe rm {}", model.name)
        }
        Match::One(model, Way::Usual) => {
            let all: Vec<&LocalModel> =
                local.models.iter().filter(|other| other.repo == model.repo).collect();
            Err(model::several(name, &all))
        }
        Match::Several(models) => Err(model::several(name, &models)),
        Match::None(near) => {
            let near = match &near[..] {
                [] => String::new(),
                near => format!("; did you mean {}?", near.join(" or ")),
            };
            let name = checkpoint::shown(name);
            anyhow::bail!("{name}: no such model is here{near}; `flash-moe list` shows those that are")
        }
    }
}

/// Asks at the terminal; only a clear yes is one.
fn is_agreed(plan: &Removal) -> anyhow::Result<bool> {
    let files = plan.files();
    output::note(&format!(
        "{}: {files} file{} in {}, {} would be free",
        plan.name(),
        if files == 1 { "" } else { "s" },
        plan.folder().display(),
        decimal_bytes(plan.bytes())
    ));
    download::confirmed("Remove it?")
}
