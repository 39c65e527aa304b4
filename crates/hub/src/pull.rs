//! Pulling: from a name to files that are complete, checked, and where other programs find them too.

use std::fs;
use std::path::{Path, PathBuf};

use crate::api::{self, Repo};
use crate::cache::RepoCache;
use crate::error::decimal_bytes;
use crate::fetch::{Source, Tally, fetch};
use crate::http::{self, Client};
use crate::part::{self, Part, Shape};
use crate::select::{self, Selection};
use crate::watch::Watch;
use crate::{Digest, HubError, Registry, RemoteFile, RepoName, Settings};

/// Largest file, and the largest sum of files.
const FILE_BYTES_MAX: u64 = 1 << 46;

/// A hub that can be asked.
pub struct Hub {
    pub(crate) client: Client,
}

/// What a name means, by the hub's listing; nothing has been downloaded.
pub struct Offer {
    /// As it was asked for.
    pub name: RepoName,
    /// The revision with all its files.
    pub repo: Repo,
    /// The files of the model.
    pub selection: Selection,
    /// The same with sizes and checksums.
    pub(crate) files: Vec<RemoteFile>,
    cache: RepoCache,
    chunk_bytes: u64,
}

/// A model that is here now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The file or directory to open.
    pub path: PathBuf,
    /// Files of the model.
    pub files: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes that came over the network.
    pub fetched_bytes: u64,
}

impl Hub {
    /// The hub of a name, which may bring one of its own: that one never gets the token, and its files
    /// lie apart.
    pub fn new(settings: &Settings, name: &RepoName) -> Self {
        let mut settings = settings.clone();
        if let Some(endpoint) = &name.endpoint
            && http::origin(endpoint) != http::origin(&settings.endpoint)
        {
            let plain = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' };
            let host: String = endpoint.split("://").last().unwrap_or_default().chars().map(plain).collect();
            settings.cache = settings.own_cache.join("hubs").join(host);
            (settings.endpoint, settings.token) = (endpoint.clone(), None);
        }
        Self { client: Client::new(&settings) }
    }

    /// Asks what there is under a name.
    ///
    /// # Errors
    /// The hub cannot be reached or refuses, or nothing there fits the name.
    pub fn look(&self, name: &RepoName, watch: Watch<'_>) -> Result<Offer, HubError> {
        let settings = &self.client.settings;
        let repo = api::repo(&self.client, name, watch)?;
        let entries: Vec<select::Entry> =
            repo.files.iter().map(|file| (file.path.clone(), file.bytes)).collect();
        let selection = select::select(&repo.name, &entries, &name.select)?;
        let chosen = |file: &&RemoteFile| selection.paths.contains(&file.path);
        let files: Vec<RemoteFile> = repo.files.iter().filter(chosen).cloned().collect();
        let sum = files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.bytes));
        if sum > FILE_BYTES_MAX {
            let reason = format!("files of {sum} bytes");
            return Err(HubError::Answer { url: format!("{}/{}", repo.endpoint, repo.name), reason });
        }
        let cache = RepoCache::new(&settings.cache, &repo.name);
        Ok(Offer { name: name.clone(), repo, selection, files, cache, chunk_bytes: settings.chunk_bytes })
    }

    /// Downloads what is not here yet.
    ///
    /// # Errors
    /// The disk is too small; the hub or the network fails for longer than patience lasts; bytes
    /// are not those that were announced. What has arrived is kept, but for the last case.
    pub fn pull(&self, offer: &Offer, watch: Watch<'_>) -> Result<Pulled, HubError> {
        let missing = offer.missing_bytes();
        self.check_room(offer, missing)?;
        watch.progress.begin(offer.selection.bytes, offer.selection.bytes.saturating_sub(missing));
        let tally = Tally::new(offer.selection.bytes.saturating_sub(missing), watch);
        let mut fetched_bytes = 0;
        for file in &offer.files {
            watch.progress.file(&file.path);
            fetched_bytes += self.file(offer, file, &tally, watch)?;
        }
        offer.cache.note_revision(&offer.repo.revision, &offer.repo.commit)?;
        Ok(Pulled {
            path: offer.path(),
            files: offer.files.len(),
            bytes: offer.selection.bytes,
            fetched_bytes,
        })
    }

    fn check_room(&self, offer: &Offer, needed: u64) -> Result<(), HubError> {
        match self.free_bytes(offer) {
            Some(free) if free < needed => Err(HubError::DiskFull {
                dir: offer.cache.dir.clone(),
                needed: decimal_bytes(needed),
                free: decimal_bytes(free),
            }),
            _ => Ok(()),
        }
    }

    /// Room on the disk where the files would lie, if the system says so.
    pub fn free_bytes(&self, offer: &Offer) -> Option<u64> {
        let there = offer.cache.dir.ancestors().find(|dir| dir.is_dir())?;
        (self.client.settings.free_disk_bytes)(there)
    }

    /// Makes one file complete and gives the bytes that were fetched for it.
    fn file(
        &self,
        offer: &Offer,
        file: &RemoteFile,
        tally: &Tally<'_>,
        watch: Watch<'_>,
    ) -> Result<u64, HubError> {
        let (cache, commit) = (&offer.cache, &offer.repo.commit);
        if watch.stopped() {
            return Err(HubError::Cancelled { file: file.path.clone() });
        }
        if cache.has(commit, file) {
            return cache.link(commit, file).map(|()| 0);
        }
        cache.create_blobs()?;
        let before = part::left_bytes(&cache.blob(file), file.digest.hex(), offer.shape(file));
        let _lock = cache.lock(file, watch)?;
        if cache.has(commit, file) {
            // Another process has fetched it meanwhile.
            tally.add(file.bytes.saturating_sub(before));
            return cache.link(commit, file).map(|()| 0);
        }
        let url = offer.repo.url(&file.path);
        let source = Source {
            url: &url,
            path: &file.path,
            bytes: file.bytes,
            digest: Some(&file.digest),
            commit: Some(commit),
        };
        let mut counted = before;
        loop {
            let part = Part::open(&cache.blob(file), file.digest.hex(), offer.shape(file))?;
            // Another process may have gone on with it since the listing.
            let left = part.done_bytes();
            if left >= counted {
                tally.add(left - counted)
            } else {
                tally.take_back(counted - left)
            }
            let resumed = part.resumed > 0;
            let got = fetch(&self.client, source, &part, tally, watch)?;
            if got == file.digest.hex() {
                // Before the file has its name: a kill in between leaves no file that nobody may remove.
                Registry::add(&cache.dir, commit, [file.path.as_str()])?;
                part.publish(&cache.blob(file))?;
                cache.link(commit, file)?;
                return Ok(file.bytes - left);
            }
            part.remove();
            counted = file.bytes;
            if !resumed {
                return Err(wrong_checksum(file, got));
            }
            // A system that lost power may have kept the journal and lost bytes.
            let path = &file.path;
            watch
                .progress
                .remark(&format!("{path}: what an earlier attempt left is damaged; fetching it anew"));
        }
    }
}

fn wrong_checksum(file: &RemoteFile, got: String) -> HubError {
    let kind = match &file.digest {
        Digest::Sha256(_) => "SHA-256",
        Digest::Git(_) => "git",
    };
    HubError::Checksum { file: file.path.clone(), kind, expected: file.digest.hex().into(), got }
}

impl Offer {
    fn shape(&self, file: &RemoteFile) -> Shape {
        Shape { bytes: file.bytes, chunk_bytes: self.chunk_bytes }
    }

    /// Bytes that have to be downloaded, and room that they take.
    pub fn missing_bytes(&self) -> u64 {
        let missing = |file: &RemoteFile| match self.cache.has(&self.repo.commit, file) {
            true => 0,
            false => {
                let left = part::left_bytes(&self.cache.blob(file), file.digest.hex(), self.shape(file));
                file.bytes.saturating_sub(left)
            }
        };
        self.files.iter().map(missing).sum()
    }

    /// The file or directory to open once it is here.
    pub fn path(&self) -> PathBuf {
        let snapshot = self.cache.snapshot(&self.repo.commit);
        if self.selection.is_directory() { snapshot } else { snapshot.join(&self.selection.main) }
    }

    /// The folder of the repository in the cache.
    pub fn dir(&self) -> &Path {
        &self.cache.dir
    }

    /// Number of files.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Where people read about the model.
    pub fn page(&self) -> String {
        format!("{}/{}", self.repo.endpoint, self.repo.name)
    }

    /// Whether nothing has to be downloaded.
    pub fn is_here(&self) -> bool {
        self.files.iter().all(|file| self.cache.has(&self.repo.commit, file))
            && fs::symlink_metadata(self.path()).is_ok()
    }
}
