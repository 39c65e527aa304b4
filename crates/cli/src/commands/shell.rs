//! `completions` and `man`: files for the shell and for `man`, made from the parser itself.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::output;

const NAME: &str = "flash-moe";

/// Prints a completion script.
pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    // Into memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    Ok(io::stdout().write_all(&script)?)
}

/// Prints the page of the program, or writes a page for each command.
pub(crate) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let command = Cli::command().name(NAME);
    match &args.dir {
        None => Ok(Man::new(command).render(&mut io::stdout())?),
        Some(dir) => {
            let pages = write_pages(command, dir)
                .with_context(|| format!("{}: cannot write the pages", dir.display()))?;
            output::note(&format!("{pages} pages in {}", dir.display()));
            Ok(())
        }
    }
}

fn write_pages(command: clap::Command, dir: &Path) -> io::Result<usize> {
    fs::create_dir_all(dir)?;
    let mut pages = 1;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = format!("{NAME}-{}", sub.get_name());
        Man::new(sub.clone().name(name.clone()))
            .render(&mut fs::File::create(dir.join(format!("{name}.1")))?)?;
        pages += 1;
    }
    Man::new(command).render(&mut fs::File::create(dir.join(format!("{NAME}.1")))?)?;
    Ok(pages)
}
