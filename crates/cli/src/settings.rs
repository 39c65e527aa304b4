//! Options from the environment and from a config file: both become defaults of the parser, so that
//! the command line always wins and the help shows the value in force.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::{Context, bail};
use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

/// Every option's variable begins so: `--io-threads` is `FLASH_MOE_IO_THREADS`.
const PREFIX: &str = "FLASH_MOE_";
/// Where the config file is, instead of the user's config directory; empty for none.
const FILE_VARIABLE: &str = "FLASH_MOE_CONFIG";
/// Variables that are no options.
const OTHER_VARIABLES: [&str; 4] =
    [FILE_VARIABLE, "FLASH_MOE_CACHE", "FLASH_MOE_DEMO_MAKER", "FLASH_MOE_MODELS"];

/// Values for options, with their sources.
pub(crate) struct Settings {
    /// By variable name.
    variables: BTreeMap<String, String>,
    file: Option<(PathBuf, Table)>,
}

/// A value that an option got from elsewhere than the command line.
struct Setting {
    value: String,
    source: String,
}

impl Settings {
    /// The settings of this process: its environment and the config file.
    ///
    /// # Errors
    /// The config file cannot be read, or is not TOML.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let named = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
            Some((name, value.to_string_lossy().into_owned()))
        };
        let variables = env::vars_os().filter_map(named).filter(|(_, value)| !value.is_empty()).collect();
        let file = config_path().map(read_file).transpose()?.flatten();
        Ok(Self { variables, file })
    }

    /// Makes the settings defaults of the options of `command` and of the commands below it.
    ///
    /// # Errors
    /// A key of the config file, or a variable, that belongs to no option.
    pub(crate) fn apply(&self, command: Command) -> anyhow::Result<Command> {
        self.check_keys(&command)?;
        let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_string()).collect();
        let with_defaults = |command: Command, name: String| {
            command.mut_subcommand(&name, |sub| sub.mut_args(|arg| self.with_default(arg, &name)))
        };
        Ok(names.into_iter().fold(command, with_defaults))
    }

    fn with_default(&self, arg: Arg, command: &str) -> Arg {
        let Some(setting) = option(&arg).and_then(|option| self.get(command, option)) else { return arg };
        let arg = match arg.get_action() {
            ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
            _ => arg,
        };
        arg.required(false).default_value(setting.value)
    }

    /// The value for an option of a command: the variable, else the command's table, else the top level.
    fn get(&self, command: &str, option: &str) -> Option<Setting> {
        let variable = variable(option);
        if let Some(value) = self.variables.get(&variable) {
            return Some(Setting { value: value.clone(), source: variable });
        }
        let (path, table) = self.file.as_ref()?;
        let own = table.get(command).and_then(Value::as_table);
        let value = own.and_then(|own| lookup(own, option)).or_else(|| lookup(table, option))?;
        Some(Setting { value: text(value)?, source: path.display().to_string() })
    }

    /// The source of a value that the parser refused, if it is not the command line. `shown` is the
    /// parser's name of the option, such as `--memory <SIZE>`.
    pub(crate) fn source_of(&self, command: &str, shown: &str, refused: &str) -> Option<String> {
        let option = shown.split_whitespace().next()?.strip_prefix("--")?;
        let setting = self.get(command, option)?;
        (setting.value == refused).then_some(setting.source)
    }

    fn check_keys(&self, root: &Command) -> anyhow::Result<()> {
        let all: Vec<&str> = root.get_subcommands().flat_map(options).collect();
        let is_known = |name: &&String| {
            OTHER_VARIABLES.contains(&name.as_str()) || all.iter().any(|option| variable(option) == **name)
        };
        if let Some(name) = self.variables.keys().find(|name| !is_known(name)) {
            bail!("the variable {name} belongs to no option; unset it, or see `flash-moe COMMAND --help`");
        }
        let Some((path, table)) = &self.file else { return Ok(()) };
        for (key, value) in table {
            match root.find_subcommand(key).zip(value.as_table()) {
                Some((sub, own)) => {
                    let known = options(sub);
                    own.iter().try_for_each(|(name, value)| {
                        check_key(path, (&format!("{key}.{name}"), name), value, &known)
                    })?;
                }
                None => check_key(path, (key, key), value, &all)?,
            }
        }
        Ok(())
    }
}

/// Refuses a key, at a `place` that messages name, that is no option.
fn check_key(path: &Path, (place, key): (&str, &str), value: &Value, known: &[&str]) -> anyhow::Result<()> {
    if !known.contains(&key.replace('_', "-").as_str()) {
        bail!("{}: `{place}` is the name of no option or command; remove it", path.display());
    }
    if text(value).is_none() {
        bail!("{}: `{place}` must be a text, a number, true or false", path.display());
    }
    Ok(())
}

/// Long name of an option that may be set from elsewhere.
fn option(arg: &Arg) -> Option<&str> {
    arg.get_long().filter(|long| !["help", "version"].contains(long))
}

fn options(command: &Command) -> Vec<&str> {
    command.get_arguments().filter_map(option).collect()
}

fn variable(option: &str) -> String {
    format!("{PREFIX}{}", option.replace('-', "_").to_uppercase())
}

/// The value of an option, spelt with dashes or underscores.
fn lookup<'a>(table: &'a Table, option: &str) -> Option<&'a Value> {
    table.get(option).or_else(|| table.get(&option.replace('-', "_")))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// The config file, whether it exists or not; `None` where there is no place for one.
pub(crate) fn config_path() -> Option<PathBuf> {
    match env::var_os(FILE_VARIABLE) {
        Some(path) => Some(path).filter(|path| path != OsStr::new("")).map(PathBuf::from),
        None => directories::ProjectDirs::from("", "", "flash-moe")
            .map(|dirs| dirs.config_dir().join("config.toml")),
    }
}

/// An absent file is no settings, unless its path was given.
fn read_file(path: PathBuf) -> anyhow::Result<Option<(PathBuf, Table)>> {
    let named = env::var_os(FILE_VARIABLE).is_some();
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !named => return Ok(None),
        text => text.with_context(|| format!("{}: cannot read the config file", path.display()))?,
    };
    let table = text.parse::<Table>().map_err(|error| {
        let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
        anyhow::anyhow!("{}: line {line} is not TOML: {}", path.display(), error.message())
    })?;
    Ok(Some((path, table)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    use crate::args::Cli;

    fn settings(variables: &[(&str, &str)], file: &str) -> Settings {
        Settings {
            variables: variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            file: Some(("config.toml".into(), file.parse().unwrap())),
        }
    }

    fn value(settings: &Settings, args: &[&str], option: &str) -> Option<String> {
        let command = settings.apply(Cli::command()).unwrap();
        let matches = command.try_get_matches_from(args).unwrap();
        let (_, sub) = matches.subcommand().unwrap();
        let raw = sub.try_get_raw(option).unwrap();
        raw.and_then(|mut values| values.next()).map(|value| value.to_string_lossy().into_owned())
    }

    #[test]
    fn the_command_line_beats_the_environment_which_beats_the_file() {
        let settings = settings(
            &[("FLASH_MOE_CTX", "100")],
            "ctx = 200\nio_threads = 3\nverify-reads = true\n[run]\nthreads = 7\n",
        );
        let run = ["flash-moe", "run", "demo"];
        assert_eq!(value(&settings, &[&run[..], &["--ctx", "5"]].concat(), "ctx").as_deref(), Some("5"));
        assert_eq!(value(&settings, &run, "ctx").as_deref(), Some("100"));
        assert_eq!(value(&settings, &run, "io_threads").as_deref(), Some("3"));
        assert_eq!(value(&settings, &run, "threads").as_deref(), Some("7"), "the table of the command");
        assert_eq!(value(&settings, &["flash-moe", "chat", "demo"], "threads"), None);
        assert_eq!(value(&settings, &run, "verify_reads").as_deref(), Some("true"));
    }

    #[test]
    fn a_default_from_elsewhere_conflicts_with_nothing() {
        let settings = settings(&[], "[run]\nsystem = 'Be brief.'\n");
        let command = settings.apply(Cli::command()).unwrap();
        assert!(command.try_get_matches_from(["flash-moe", "run", "demo", "--raw", "x"]).is_ok());
    }

    #[test]
    fn names_of_no_option_are_refused() {
        for (variable, file, named) in [
            ("FLASH_MOE_MEMROY", "", "FLASH_MOE_MEMROY"),
            ("FLASH_MOE_CTX", "memroy = 1\n", "`memroy`"),
            ("FLASH_MOE_CTX", "[run]\nstride = 1\n", "`run.stride`"),
            ("FLASH_MOE_CTX", "[rum]\nctx = 1\n", "`rum`"),
            ("FLASH_MOE_CTX", "memory = [1]\n", "`memory` must be"),
        ] {
            let error = settings(&[(variable, "1")], file).apply(Cli::command()).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
