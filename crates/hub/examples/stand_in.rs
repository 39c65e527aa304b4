//! A hub on this machine for trying things by hand: serves `DIR/ORG/NAME/…` as repositories.
//!
//! `cargo run -p hub --example stand_in DIR [BYTES_PER_SECOND [PORT]]`, then set the variable that it
//! prints.
#![allow(clippy::print_stdout)] // It is a program.

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("which directory?")?;
    let rate = args.next().map(|rate| rate.parse()).transpose()?;
    let hub = common::Hub::start_at(args.next().map_or(Ok(0), |port| port.parse())?);
    hub.faults(|faults| faults.rate = rate.filter(|rate| *rate > 0));
    for org in Path::new(&dir).read_dir()? {
        let org = org?;
        for repo in org.path().read_dir()? {
            let repo = repo?;
            let name = format!("{}/{}", org.file_name().display(), repo.file_name().display());
            hub.add(&name, common::Repo::of_directory(&repo.path()).license("apache-2.0"));
            println!("{name}");
        }
    }
    println!("HF_ENDPOINT={}", hub.endpoint());
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
