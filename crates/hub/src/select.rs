//! Which files of a repository a name means.

use crate::error::decimal_bytes;
use crate::name::Select;
use crate::{HubError, paths};

/// Quantisations in the order in which one is taken when none was asked for.
pub(crate) const USUAL: [&str; 14] = [
    "Q4_K_M",
    "UD-Q4_K_XL",
    "Q4_K_XL",
    "Q4_K_S",
    "Q4_0",
    "Q4_1",
    "MXFP4_MOE",
    "MXFP4",
    "Q5_K_M",
    "Q5_K_S",
    "Q6_K",
    "Q8_0",
    "Q3_K_M",
    "BF16",
];
/// Parts that a model may be split into.
const SPLITS_MAX: usize = 10_000;
/// Largest small file that is taken along with safetensors.
const SMALL_BYTES_MAX: u64 = 64 << 20;
/// Models that an error lists.
const LISTED_MAX: usize = 40;

/// A path and its size.
pub(crate) type Entry = (String, u64);

/// The files of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Its quantisation, as the file's name has it; `safetensors` for a directory.
    pub quant: String,
    /// The file to open, or of a directory its config.json.
    pub main: String,
    /// All files.
    pub paths: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
}

impl Selection {
    /// Whether it is a directory of safetensors.
    pub fn is_directory(&self) -> bool {
        self.quant == SAFETENSORS
    }
}

/// What stands for a quantisation where the files are safetensors.
pub(crate) const SAFETENSORS: &str = "safetensors";
/// What stands for a quantisation where a file's name has none.
pub(crate) const UNKNOWN_QUANT: &str = "?";

/// The quantisation in a file's name, upper case: `Q4_K_M`, `UD-Q4_K_XL`, `IQ2_XXS`, `BF16`.
pub fn quant_of(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let name = name.get(..name.len().checked_sub(".gguf".len())?)?;
    let name = split_of(path).map_or(name, |split| split.stem.rsplit('/').next().unwrap_or_default());
    let words: Vec<&str> = name.split(['-', '.']).collect();
    let at = words.iter().rposition(|word| is_quant(&word.to_ascii_uppercase()))?;
    let ud = at > 0 && words[at - 1].eq_ignore_ascii_case("UD");
    let quant = words[at].to_ascii_uppercase();
    Some(if ud { format!("UD-{quant}") } else { quant })
}

fn is_quant(word: &str) -> bool {
    let digit = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    matches!(word, "F32" | "F16" | "BF16" | "NVFP4")
        || word.starts_with("MXFP4")
        || ["IQ", "TQ", "Q"]
            .iter()
            .any(|start| word.strip_prefix(start).is_some_and(|rest| digit(rest) && rest.len() > 1))
}

struct Split<'a> {
    stem: &'a str,
    count: usize,
}

/// `STEM-00001-of-00003.gguf` in its parts.
fn split_of(path: &str) -> Option<Split<'_>> {
    let (rest, extension) = path.rsplit_once('.')?;
    let (rest, count) = rest.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let five = |text: &str| text.len() == 5 && text.bytes().all(|c| c.is_ascii_digit());
    let known = extension.eq_ignore_ascii_case("gguf") && five(count) && five(number);
    let (number, count): (usize, usize) = (number.parse().ok()?, count.parse().ok()?);
    (known && (1..=SPLITS_MAX).contains(&count) && (1..=count).contains(&number))
        .then_some(Split { stem, count })
}

fn is_gguf(path: &str) -> bool {
    path.to_ascii_lowercase().ends_with(".gguf")
}

/// Every GGUF model: split files together, projectors and importance matrices left out.
pub(crate) fn gguf_models(files: &[Entry]) -> Vec<(Selection, Option<(usize, usize)>)> {
    let mut models: Vec<(Selection, Option<(usize, usize)>)> = Vec::new();
    let mut sorted: Vec<&Entry> = files.iter().filter(|(path, _)| is_gguf(path)).collect();
    sorted.sort();
    for (path, bytes) in sorted {
        let name = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        if name.contains("mmproj") || name.contains("imatrix") {
            continue;
        }
        let split = split_of(path);
        if let Some(Split { stem, count, .. }) = split
            && let Some((model, Some(parts))) = models.last_mut()
            && split_of(&model.main).is_some_and(|first| first.stem == stem && first.count == count)
        {
            model.paths.push(path.clone());
            model.bytes = model.bytes.saturating_add(*bytes);
            parts.0 += 1;
            continue;
        }
        let quant = quant_of(path).unwrap_or_else(|| UNKNOWN_QUANT.into());
        let model = Selection { quant, main: path.clone(), paths: vec![path.clone()], bytes: *bytes };
        models.push((model, split.map(|split| (1, split.count))));
    }
    models
}

/// Chooses the files that `select` means.
pub(crate) fn select(repo: &str, files: &[Entry], select: &Select) -> Result<Selection, HubError> {
    let models = gguf_models(files);
    let found = match select {
        Select::Default if models.is_empty() => return directory(repo, files),
        Select::Default => usual(repo, &models)?,
        Select::Quant(quant) if quant.eq_ignore_ascii_case(SAFETENSORS) => return directory(repo, files),
        Select::Quant(quant) => by_quant(repo, &models, quant)?,
        Select::File(file) => {
            let has = |model: &&(Selection, _)| model.0.paths.iter().any(|path| path == file);
            models.iter().find(has).ok_or_else(|| no_such(repo, file, &models))?
        }
    };
    match found {
        (model, Some((found, count))) if found != count => Err(HubError::SplitIncomplete {
            repo: repo.into(),
            file: model.main.clone(),
            count: *count,
            found: *found,
        }),
        (model, _) => Ok(model.clone()),
    }
}

type Model = (Selection, Option<(usize, usize)>);

fn by_quant<'a>(repo: &str, models: &'a [Model], quant: &str) -> Result<&'a Model, HubError> {
    let lower = quant.to_ascii_lowercase();
    let label = |model: &Model| model.0.quant.eq_ignore_ascii_case(quant);
    let folder = |model: &Model| {
        model.0.main.rsplit_once('/').is_some_and(|(folder, _)| folder.eq_ignore_ascii_case(quant))
    };
    let ud = |model: &Model| model.0.quant.to_ascii_lowercase().strip_prefix("ud-") == Some(&lower);
    let part = |model: &Model| {
        let name = model.0.main.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let stem = split_of(&name).map_or(name.trim_end_matches(".gguf"), |split| split.stem);
        stem == lower || stem.ends_with(&format!("-{lower}")) || stem.ends_with(&format!(".{lower}"))
    };
    let rules: [&dyn Fn(&Model) -> bool; 4] = [&label, &folder, &ud, &part];
    for rule in rules {
        let fit: Vec<&Model> = models.iter().filter(|model| rule(model)).collect();
        match fit[..] {
            [] => {}
            [one] => return Ok(one),
            _ => {
                let available =
                    fit.iter().map(|model| listed(&model.0.main, model)).collect::<Vec<_>>().join(", ");
                return Err(HubError::Ambiguous {
                    repo: repo.into(),
                    asked: checkpoint::shown(quant),
                    available,
                });
            }
        }
    }
    Err(no_such(repo, quant, models))
}

fn usual<'a>(repo: &str, models: &'a [Model]) -> Result<&'a Model, HubError> {
    for quant in USUAL {
        if models.iter().any(|model| model.0.quant == quant) {
            return by_quant(repo, models, quant);
        }
    }
    match models {
        [one] => Ok(one),
        _ => Err(HubError::Ambiguous {
            repo: repo.into(),
            asked: "the name alone".into(),
            available: list(models),
        }),
    }
}

fn no_such(repo: &str, asked: &str, models: &[Model]) -> HubError {
    let available = if models.is_empty() { "no GGUF file at all".into() } else { list(models) };
    HubError::NoSuchFile { repo: repo.into(), asked: checkpoint::shown(asked), available }
}

fn listed(label: &str, model: &Model) -> String {
    format!("{label} ({})", decimal_bytes(model.0.bytes))
}

fn list(models: &[Model]) -> String {
    let label = |model: &Model| {
        if model.0.quant == UNKNOWN_QUANT { model.0.main.clone() } else { model.0.quant.clone() }
    };
    let mut sorted: Vec<&Model> = models.iter().collect();
    sorted.sort_by_key(|model| model.0.bytes);
    let mut names: Vec<String> =
        sorted.iter().take(LISTED_MAX).map(|model| listed(&label(model), model)).collect();
    if models.len() > LISTED_MAX {
        names.push(format!("and {} more", models.len() - LISTED_MAX));
    }
    names.join(", ")
}

/// A safetensors model at the top of the repository: weights, configuration, tokenizer.
pub(crate) fn directory(repo: &str, files: &[Entry]) -> Result<Selection, HubError> {
    let top = |path: &str| !path.contains('/');
    let has = |name: &str| files.iter().any(|(path, _)| path == name);
    let weights = |path: &str| {
        let name = path.strip_suffix(".safetensors").unwrap_or_default();
        top(path) && (name == "model" || name.starts_with("model-") || name.starts_with("model."))
    };
    if !has("config.json") || !files.iter().any(|(path, _)| weights(path)) {
        let binaries = files.iter().any(|(path, _)| path.ends_with(".bin") || path.ends_with(".pth"));
        let hint = match binaries {
            true => "its weights are PyTorch files; look for a GGUF or safetensors version of the model",
            false => "is it the name of a model?",
        };
        return Err(HubError::NoModel { repo: repo.into(), hint: hint.into() });
    }
    let single = has("model.safetensors") && !has("model.safetensors.index.json");
    let small = |path: &str, bytes: u64| {
        let name = path.to_ascii_lowercase();
        let kind = [".json", ".jinja", ".model", ".tiktoken"].iter().any(|end| name.ends_with(end));
        let plain = kind || name == "merges.txt" || name == "vocab.txt" || name.starts_with("license");
        top(path) && bytes <= SMALL_BYTES_MAX && plain
    };
    let wanted = |path: &str, bytes: u64| {
        paths::is_safe(path)
            && (small(path, bytes) || (weights(path) && (!single || path == "model.safetensors")))
    };
    let chosen: Vec<&Entry> = files.iter().filter(|(path, bytes)| wanted(path, *bytes)).collect();
    Ok(Selection {
        quant: SAFETENSORS.into(),
        main: "config.json".into(),
        paths: chosen.iter().map(|(path, _)| path.clone()).collect(),
        bytes: chosen.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<Entry> {
        let bytes =
            |name: &str| if is_gguf(name) || name.ends_with(".safetensors") { 1_500_000_000 } else { 1000 };
        names.iter().map(|name| ((*name).to_owned(), bytes(name))).collect()
    }

    fn chosen(names: &[&str], quant: Option<&str>) -> Result<Vec<String>, HubError> {
        let wanted = quant.map_or(Select::Default, |quant| Select::Quant(quant.into()));
        select("org/m", &files(names), &wanted).map(|selection| selection.paths)
    }

    #[test]
    fn quantisations_are_read_from_names() {
        for (path, quant) in [
            ("m-Q4_K_M.gguf", Some("Q4_K_M")),
            ("m.q8_0.gguf", Some("Q8_0")),
            ("Qwen3-30B-A3B-UD-Q4_K_XL.gguf", Some("UD-Q4_K_XL")),
            ("BF16/m-BF16-00001-of-00002.gguf", Some("BF16")),
            ("m-IQ2_XXS-v2.gguf", Some("IQ2_XXS")),
            ("gpt-oss-20b-MXFP4_MOE.gguf", Some("MXFP4_MOE")),
            ("model.gguf", None),
            ("Qwen3-4B.gguf", None),
        ] {
            assert_eq!(quant_of(path).as_deref(), quant, "{path}");
        }
    }

    #[test]
    fn a_quantisation_chooses_all_files_of_one_model() {
        let names = [
            "m-Q4_K_M.gguf",
            "m-UD-Q4_K_XL.gguf",
            "m-Q8_0-00001-of-00002.gguf",
            "m-Q8_0-00002-of-00002.gguf",
            "BF16/m-BF16-00001-of-00002.gguf",
            "BF16/m-BF16-00002-of-00002.gguf",
            "mmproj-F16.gguf",
            "README.md",
        ];
        assert_eq!(chosen(&names, None).expect("one"), ["m-Q4_K_M.gguf"]);
        assert_eq!(chosen(&names, Some("q4_k_m")).expect("one"), ["m-Q4_K_M.gguf"]);
        assert_eq!(chosen(&names, Some("ud-q4_k_xl")).expect("one"), ["m-UD-Q4_K_XL.gguf"]);
        assert_eq!(chosen(&names, Some("Q4_K_XL")).expect("one"), ["m-UD-Q4_K_XL.gguf"]);
        assert_eq!(chosen(&names, Some("Q8_0")).expect("one").len(), 2);
        assert_eq!(chosen(&names, Some("bf16")).expect("one").len(), 2);
        let error = chosen(&names, Some("Q2_K")).expect_err("none").to_string();
        assert!(error.contains("Q4_K_M (1.5 GB)") && error.contains("BF16 (3.0 GB)"), "{error}");
        assert!(!error.contains("F16 (1.5 GB)"), "a projector is no model: {error}");
    }

    #[test]
    fn what_is_not_clear_is_said() {
        assert!(matches!(
            chosen(&["a-Q8_0.gguf", "b-Q8_0.gguf"], Some("Q8_0")),
            Err(HubError::Ambiguous { .. })
        ));
        assert!(matches!(
            chosen(&["m-Q8_0-00001-of-00003.gguf", "m-Q8_0-00003-of-00003.gguf"], None),
            Err(HubError::SplitIncomplete { count: 3, found: 2, .. })
        ));
        assert!(matches!(chosen(&["pytorch_model.bin", "config.json"], None), Err(HubError::NoModel { .. })));
    }

    #[test]
    fn a_directory_has_weights_configuration_and_tokenizer() {
        let names = [
            "config.json",
            "tokenizer.json",
            "chat_template.jinja",
            "model.safetensors.index.json",
            "README.md",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "original/consolidated.safetensors",
            "pytorch_model.bin",
            "adapter_model.safetensors",
            "LICENSE",
        ];
        let chosen = chosen(&names, None).expect("a directory");
        assert_eq!(chosen, [&names[..4], &names[5..7], &names[10..]].concat());
    }
}
