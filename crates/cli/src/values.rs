//! Values of options: their parsers, and the lists in the help, made from the tables of the libraries.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use engine::synth::PRESETS;
use engine::{Format, Isa, QuantTiers};

use crate::model::ModelName;

/// A model that is here.
#[derive(Args, Clone)]
pub(crate) struct ModelArg {
    /// A GGUF file, a packed or Hugging Face directory, `demo`, or a name that `list` shows.
    model: ModelName,
}

impl Deref for ModelArg {
    type Target = ModelName;

    fn deref(&self) -> &ModelName {
        &self.model
    }
}

impl fmt::Display for ModelArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.model.fmt(f)
    }
}

/// Formats to write weights in.
#[derive(Args)]
pub(crate) struct QuantArgs {
    /// Format of the routed experts [default: q4_K].
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    quant: Option<Format>,
    /// Format of attention, DeltaNet and the shared expert [default: one step finer; q4_K where
    /// that would be too large].
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    quant_dense: Option<Format>,
    /// Format of the embedding table and the head [default: likewise].
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    quant_embedding: Option<Format>,
}

impl QuantArgs {
    /// The format of the experts.
    pub(crate) fn experts(&self) -> Format {
        self.quant.unwrap_or(Format::Q4K)
    }

    /// The options that were given.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        let options = [
            ("--quant", self.quant),
            ("--quant-dense", self.quant_dense),
            ("--quant-embedding", self.quant_embedding),
        ];
        options.into_iter().filter_map(|(name, format)| format.map(|_| name)).collect()
    }

    /// What was asked for, and for the rest the `usual` tiers.
    pub(crate) fn over(&self, usual: QuantTiers) -> QuantTiers {
        QuantTiers {
            experts: self.experts(),
            dense: self.quant_dense.unwrap_or(usual.dense),
            embedding: self.quant_embedding.unwrap_or(usual.embedding),
        }
    }
}

/// A parser for one of the `names`, which the help lists.
pub(crate) fn one_of<T>(names: Vec<&'static str>) -> impl TypedValueParser<Value = T>
where
    T: FromStr + Clone + Send + Sync + 'static,
    T::Err: Into<Box<dyn Error + Send + Sync>>,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>())
}

/// A parser for an instruction set that this machine has: asking for another must not end in a
/// silent substitute.
pub(crate) fn isa() -> impl TypedValueParser<Value = Isa> {
    let names: Vec<&str> = Isa::ALL.iter().map(|isa| isa.name()).collect();
    PossibleValuesParser::new(names).try_map(|name| {
        Isa::parse(&name).filter(|isa| isa.is_available()).ok_or_else(|| {
            let here = Isa::ALL.iter().filter(|isa| isa.is_available()).map(|isa| isa.name());
            format!("not on this machine; here it can be {}", here.collect::<Vec<_>>().join(", "))
        })
    })
}

/// Formats that can be written, for the help.
pub(crate) fn formats() -> String {
    let names = Format::ALL.iter().filter(|format| format.can_encode()).map(|format| format.name());
    names.collect::<Vec<_>>().join(" ")
}

/// Names of the presets, for the help.
pub(crate) fn presets() -> String {
    PRESETS.map(|preset| preset.name).join(" ")
}

pub(crate) fn size(text: &str) -> Result<u64, String> {
    engine::system::parse_size(text)
        .ok_or_else(|| "not a size; write 6GiB, 800MiB or a number of bytes".into())
}

pub(crate) fn positive(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=1usize << 32).contains(number));
    number.ok_or_else(|| "not a whole number above 0".into())
}

pub(crate) fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("write on or off".into()),
    }
}

fn format(text: &str) -> Result<Format, String> {
    let format = Format::parse(text).map_err(|error| error.to_string())?;
    match format.can_encode() {
        true => Ok(format),
        false => Err(format!("{format} can be read but not written; formats to write are {}", formats())),
    }
}
