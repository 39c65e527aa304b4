//! Which model here a name means.

use super::ollama::LATEST;
use super::{Local, LocalModel};
use crate::name::{Select, Wanted};
use crate::select;

/// How a name came to mean a model.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It names this model and no other.
    Exact,
    /// It names several quantisations, of which this is the usual one.
    Usual,
    /// It is the beginning of this name only.
    Prefix,
}

/// What a name means here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match<'a> {
    /// One model.
    One(&'a LocalModel, Way),
    /// Each of several.
    Several(Vec<&'a LocalModel>),
    /// None; names that are like it, the likest first.
    None(Vec<&'a str>),
}

/// Shorter beginnings of names mean nothing.
const PREFIX_CHARS_MIN: usize = 3;
/// Least digits of a commit in a name.
const COMMIT_DIGITS_MIN: usize = 7;
/// From here two names are alike, of 1.
const LIKENESS_MIN: f64 = 0.88;
/// Like names that are given.
const NEAR_MAX: usize = 3;

/// A name in its parts.
struct Parts {
    repo: String,
    label: Option<String>,
    revision: Option<String>,
}

impl Parts {
    /// In lower case: no program here tells names apart by their case.
    fn of(name: &str) -> Self {
        let lower = name.to_lowercase();
        let bare = ["registry.ollama.ai/", "library/"]
            .iter()
            .fold(lower.as_str(), |name, start| name.strip_prefix(start).unwrap_or(name));
        if bare.len() == lower.len()
            && let Ok(Wanted::Repo(found)) = Wanted::parse(name)
            && found.endpoint.is_none()
        {
            let label = match found.select {
                Select::Default => None,
                Select::Quant(label) | Select::File(label) => Some(label.to_lowercase()),
            };
            return Self { repo: found.repo.to_lowercase(), label, revision: found.revision };
        }
        let (repo, label) = bare.split_once(':').map_or((bare, None), |(repo, label)| (repo, Some(label)));
        Self { repo: repo.to_owned(), label: label.map(str::to_owned), revision: None }
    }
}

impl Local {
    /// The model here that `name` means: `REPO`, `REPO:QUANT`, `hf.co/REPO:QUANT`, `NAME:TAG`, or the
    /// beginning of one name.
    pub fn look_up(&self, name: &str) -> Match<'_> {
        let lower = name.to_lowercase();
        if let Some(model) = self.models.iter().find(|model| model.name.to_lowercase() == lower) {
            return Match::One(model, Way::Exact);
        }
        let parts = Parts::of(name);
        let named: Vec<&LocalModel> = self.models.iter().filter(|model| !is_named_by_path(model)).collect();
        let of_repo = |is_meant: &dyn Fn(&LocalModel) -> bool| -> Vec<&LocalModel> {
            named.iter().copied().filter(|model| is_meant(model)).collect()
        };
        let repo = of_repo(&|model| repo_of(model) == parts.repo);
        if let Some(found) = choose(&repo, &parts, Way::Exact) {
            return found;
        }
        if parts.repo.chars().count() >= PREFIX_CHARS_MIN && repo.is_empty() {
            let begun = of_repo(&|model| {
                let repo = repo_of(model);
                let last = repo.rsplit('/').next().unwrap_or_default();
                repo.starts_with(&parts.repo) || last.starts_with(&parts.repo)
            });
            if let Some(found) = choose(&begun, &parts, Way::Prefix) {
                return found;
            }
        }
        Match::None(near(&lower, &parts, &named))
    }
}

fn is_named_by_path(model: &LocalModel) -> bool {
    model.path.to_str() == Some(model.name.as_str())
}

fn repo_of(model: &LocalModel) -> String {
    let lower = model.repo.to_lowercase();
    lower.strip_prefix("hf.co/").map(str::to_owned).unwrap_or(lower)
}

/// The one of `models` that the parts behind the repository's name mean; `None` if it is none.
fn choose<'a>(models: &[&'a LocalModel], parts: &Parts, way: Way) -> Option<Match<'a>> {
    let mut fit = of_revision(models, parts.revision.as_deref());
    if let Some(label) = &parts.label {
        fit = labelled(&fit, label);
    }
    match fit[..] {
        [] => None,
        [one] => Some(Match::One(one, way)),
        _ => {
            let one_repo = fit.iter().all(|model| repo_of(model) == repo_of(fit[0]));
            let usual = if one_repo && parts.label.is_none() { usual(&fit) } else { None };
            Some(usual.unwrap_or_else(|| Match::Several(fit.clone())))
        }
    }
}

/// Those of the revision; without one, those that need none in their names.
fn of_revision<'a>(models: &[&'a LocalModel], revision: Option<&str>) -> Vec<&'a LocalModel> {
    let fits = |model: &&LocalModel| match revision {
        None => !model.name.contains('@'),
        Some("main") => model.revision.is_none(),
        Some(revision) => {
            let commit = model.commit.as_deref().unwrap_or_default();
            model.revision.as_deref() == Some(revision)
                || revision.len() >= COMMIT_DIGITS_MIN && commit.starts_with(&revision.to_lowercase())
        }
    };
    models.iter().copied().filter(|model| fits(model)).collect()
}

/// By what the name says, then by less and less of it: as on a hub.
fn labelled<'a>(models: &[&'a LocalModel], label: &str) -> Vec<&'a LocalModel> {
    let is = |text: &str| text.to_lowercase() == label;
    let quant = |model: &LocalModel| model.quant.clone().unwrap_or_default().to_lowercase();
    let file = |model: &LocalModel| {
        let lower = model.file.to_lowercase();
        lower.strip_suffix(".gguf").map(str::to_owned).unwrap_or(lower)
    };
    let rules: [&dyn Fn(&LocalModel) -> bool; 4] = [
        &|model| is(&model.label) || is(&model.file),
        &|model| quant(model) == label,
        &|model| quant(model).strip_prefix("ud-") == Some(label),
        &|model| file(model).ends_with(&format!("-{label}")) || file(model).ends_with(&format!(".{label}")),
    ];
    let by = |rule: &&dyn Fn(&LocalModel) -> bool| -> Vec<&'a LocalModel> {
        models.iter().copied().filter(|model| rule(model)).collect()
    };
    rules.iter().map(by).find(|fit| !fit.is_empty()).unwrap_or_default()
}

/// The tag that Ollama takes without one, or the quantisation that is taken from a hub without one.
fn usual<'a>(models: &[&'a LocalModel]) -> Option<Match<'a>> {
    if let Some(latest) = models.iter().find(|model| model.label == LATEST) {
        return Some(Match::One(latest, Way::Exact));
    }
    let of = |quant: &str| -> Vec<&'a LocalModel> {
        models.iter().copied().filter(|model| model.quant.as_deref() == Some(quant)).collect()
    };
    let usual = select::USUAL.iter().map(|quant| of(quant)).find(|fit| !fit.is_empty())?;
    (usual.len() == 1).then(|| Match::One(usual[0], Way::Usual))
}

/// Names that may have been meant: other quantisations of the model, then names that are spelt alike.
fn near<'a>(name: &str, parts: &Parts, models: &[&'a LocalModel]) -> Vec<&'a str> {
    let likeness = |model: &LocalModel| {
        let (full, repo) = (model.name.to_lowercase(), repo_of(model));
        let last = repo.rsplit('/').next().unwrap_or_default();
        let typed = parts.repo.rsplit('/').next().unwrap_or_default();
        let pairs = [(name, full.as_str()), (&parts.repo, &repo), (&parts.repo, last), (typed, last)];
        let most = pairs.iter().map(|(a, b)| strsim::jaro_winkler(a, b)).fold(0.0, f64::max);
        if repo == parts.repo { 2.0 } else { most }
    };
    let mut alike: Vec<(f64, &str)> = models
        .iter()
        .map(|model| (likeness(model), model.name.as_str()))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0));
    if alike.first().is_some_and(|first| first.0 > 1.0) {
        alike.retain(|other| other.0 > 1.0);
    }
    alike.into_iter().take(NEAR_MAX).map(|(_, name)| name).collect()
}
