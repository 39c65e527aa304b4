//! Models from a hub: what a name means there, the bar while it is pulled, and the offer to pull one
//! that is not here.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use anyhow::Context;
use engine::door::Opened;
use hub::{Hub, HubError, Offer, Progress, Pulled, RepoName, Select, Settings, Silent, Watch, decimal_bytes};
use indicatif::ProgressBar;
use lab::forecast::Remote;

use crate::interrupt::{Interrupt, Interrupted};
use crate::{demo, output};

/// How often somebody looks whether Ctrl-C was pressed.
const TICK: Duration = Duration::from_millis(50);
/// A connection that says nothing is not waited for longer than this after Ctrl-C.
const GRACE: Duration = Duration::from_secs(2);

/// Where the hub is and who asks, from the environment.
pub(crate) fn settings() -> anyhow::Result<Settings> {
    let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_path_buf());
    Ok(Settings::from_env(home.as_deref(), demo::cache_dir())?)
}

/// Asks the hub what a name means.
pub(crate) fn look(name: &RepoName) -> anyhow::Result<(Hub, Offer)> {
    let hub = Hub::new(&settings()?, name);
    let watch = Watch { progress: &Remarks, stop: &AtomicBool::new(false) };
    let offer = hub.look(name, watch)?;
    Ok((hub, offer))
}

/// A model that is not here: asks at a terminal whether to pull it, and pulls it. Otherwise the error
/// says how to get it.
///
/// # Errors
/// Nobody can be asked, the answer was no, or the hub cannot give it.
pub(crate) fn offer(name: &RepoName) -> anyhow::Result<PathBuf> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        anyhow::bail!("{name} is not on this machine; get it with `flash-moe pull {name}`");
    }
    let (hub, offer) = look(name)?;
    if offer.is_here() {
        return Ok(offer.path());
    }
    let free =
        hub.free_bytes(&offer).map_or_else(String::new, |free| format!("; {} are free", decimal_bytes(free)));
    output::note(&format!(
        "{name} is not on this machine. {} has it: {} to download{free}; {}.",
        offer.page(),
        decimal_bytes(offer.missing_bytes()),
        license(&offer)
    ));
    if !confirmed("Pull it now?")? {
        anyhow::bail!("{name} is not on this machine; get it with `flash-moe pull {name}`");
    }
    Ok(pull(hub, offer)?.path)
}

/// Whether somebody says yes.
pub(crate) fn confirmed(question: &str) -> anyhow::Result<bool> {
    let mut stderr = io::stderr();
    write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()).context("cannot ask")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// The licence in words.
pub(crate) fn license(offer: &Offer) -> String {
    match &offer.repo.license {
        Some(license) => format!("licence {license}"),
        None => format!("no licence is stated, see {}", offer.page()),
    }
}

/// The name that means this model again: with the quantisation that was chosen, if none was named.
pub(crate) fn full_name(offer: &Offer) -> String {
    let chosen = &offer.selection;
    let mut name = offer.name.clone();
    if name.select == Select::Default && !chosen.is_directory() && chosen.quant != "?" {
        name.select = Select::Quant(chosen.quant.clone());
    }
    name.to_string()
}

/// Pulls with a bar. Ctrl-C ends it, and what has arrived is kept.
pub(crate) fn pull(hub: Hub, offer: Offer) -> anyhow::Result<Pulled> {
    let interrupt = Interrupt::install()?;
    let (bar, stop) = (Arc::new(Bar::default()), Arc::new(AtomicBool::new(false)));
    let (sender, results) = mpsc::channel();
    interrupt.listen();
    let (shown, flag) = (bar.clone(), stop.clone());
    let work = move || {
        let watch = Watch { progress: shown.as_ref(), stop: &flag };
        // Nobody waits any more after an interrupt.
        let _ = sender.send(hub.pull(&offer, watch));
    };
    Builder::new().name("pull".into()).spawn(work).context("cannot start a thread for the download")?;
    let mut stopping: Option<Instant> = None;
    let result = loop {
        match results.recv_timeout(TICK) {
            Ok(result) => break result.map_err(anyhow::Error::from),
            Err(RecvTimeoutError::Disconnected) => break Err(anyhow::anyhow!("the download broke off")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if interrupt.take() {
            stop.store(true, Ordering::Relaxed);
            stopping.get_or_insert_with(Instant::now);
        }
        if stopping.is_some_and(|since| since.elapsed() > GRACE) {
            break Err(Interrupted::Download.into());
        }
    };
    interrupt.idle();
    bar.clear();
    result.map_err(|error| match error.downcast_ref() {
        Some(HubError::Cancelled { .. }) if stopping.is_some() => Interrupted::Download.into(),
        _ => error,
    })
}

/// A model that is not here, by its headers, for a forecast. Also where it would lie.
///
/// # Errors
/// The hub cannot give them, or they are no model's that this program runs.
pub(crate) fn remote(name: &RepoName) -> anyhow::Result<(Remote, PathBuf)> {
    let (hub, offer) = look(name)?;
    output::note(&format!("reading the headers of {} ({})", full_name(&offer), license(&offer)));
    let watch = Watch { progress: &Remarks, stop: &AtomicBool::new(false) };
    let headers = hub.headers(&offer, watch)?;
    // Messages are about the model, not about the place where its headers are for a moment.
    let named = |text: String| {
        let shown = format!("{}/", headers.dir().display());
        text.replace(&shown, &format!("{}/", offer.repo.name))
            .replace(shown.trim_end_matches('/'), &offer.repo.name)
    };
    let opened =
        Opened::new(&headers.path).map_err(|error| anyhow::anyhow!("{}", named(error.to_string())))?;
    let remote = Remote::new(full_name(&offer), &opened, offer.selection.bytes, offer.missing_bytes())
        .map_err(|error| anyhow::anyhow!("{}", named(error.to_string())))?;
    let dir = offer.dir().ancestors().find(|dir| dir.is_dir()).unwrap_or(offer.dir());
    Ok((remote, dir.to_path_buf()))
}

/// Passes remarks on, and nothing else.
pub(crate) struct Remarks;

impl Progress for Remarks {
    fn begin(&self, total: u64, done: u64) {
        Silent.begin(total, done);
    }

    fn file(&self, path: &str) {
        Silent.file(path);
    }

    fn position(&self, done: u64) {
        Silent.position(done);
    }

    fn remark(&self, text: &str) {
        output::note(&format!("note: {text}"));
    }
}

/// The bar of a download.
#[derive(Default)]
struct Bar(Mutex<Option<ProgressBar>>);

impl Bar {
    fn with(&self, act: impl FnOnce(&ProgressBar)) {
        if let Some(bar) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            act(bar);
        }
    }

    fn clear(&self) {
        self.with(ProgressBar::finish_and_clear);
    }
}

impl Progress for Bar {
    fn begin(&self, total: u64, done: u64) {
        let bar = output::download_bar(total);
        // What an earlier pull fetched counts for the position, not for the rate.
        bar.set_position(done);
        bar.reset_eta();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
    }

    fn file(&self, path: &str) {
        tracing::info!(path, "file");
    }

    fn position(&self, done: u64) {
        self.with(|bar| bar.set_position(done));
    }

    fn remark(&self, text: &str) {
        let note = || output::note(&format!("note: {text}"));
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(bar) => bar.suspend(note),
            None => note(),
        }
    }
}
