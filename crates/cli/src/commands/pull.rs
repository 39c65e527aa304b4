//! `flash-moe pull`: a model by its name on a hub.

use std::io::{self, Write};
use std::time::Instant;

use hub::{HubError, Wanted, decimal_bytes};

use crate::args::PullArgs;
use crate::{download, output};

pub(crate) fn run(args: &PullArgs) -> anyhow::Result<()> {
    let name = match Wanted::parse(&args.name)? {
        Wanted::Repo(name) => name,
        Wanted::Url(url) => {
            let reason = "the address is no hub's; download the file, and give its path as MODEL".into();
            return Err(HubError::Name { name: url, reason }.into());
        }
    };
    let (hub, offer) = download::look(&name)?;
    let full_name = download::full_name(&offer);
    let (files, bytes) = (offer.files(), decimal_bytes(offer.selection.bytes));
    let commit: String = offer.repo.commit.chars().take(8).collect();
    output::parts(&[
        full_name.clone(),
        format!("{bytes} in {files} file{}", if files == 1 { "" } else { "s" }),
        download::license(&offer),
        format!("commit {commit}"),
    ]);
    let begun = Instant::now();
    let pulled = download::pull(hub, offer)?;
    let did = match pulled.fetched_bytes {
        0 => format!("{bytes} are here already"),
        fetched => {
            let time = begun.elapsed();
            let rate = fetched as f64 / time.as_secs_f64().max(1e-3);
            let (fetched, rate) = (decimal_bytes(fetched), decimal_bytes(rate as u64));
            format!("pulled {fetched} in {} ({rate}/s), checksums are right", output::duration(time))
        }
    };
    output::note(&format!("{did}; try: flash-moe run {full_name} \"Hello\""));
    Ok(writeln!(io::stdout().lock(), "{}", pulled.path.display())?)
}
