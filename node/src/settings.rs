//! Where the configuration comes from: a flag counts before the environment, that before `config.toml`, and that before the default.
//!
//! What settings there are is read from the commented file that `init` writes: flags, variables, help and `--print-config` follow it.

use crate::config::Config;
use anyhow::{Context, Result, anyhow, bail};
use clap::builder::StyledStr;
use clap::{Arg, ArgMatches, Command};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;
use toml::{Table, Value};

/// What the names of environment variables begin with.
const PREFIX: &str = "IMIRA_NODE_";
/// Variables of the command line that are no settings.
const NO_SETTINGS: [&str; 2] = ["IMIRA_NODE_DATA", "IMIRA_NODE_CONFIG"];
/// A name is taken for a mistyped one if it is at least so much like it (Jaro-Winkler; as clap's own hints).
const LIKENESS: f64 = 0.8;

static ALL: LazyLock<Vec<Setting>> = LazyLock::new(|| read_settings(&Config::default().to_commented_toml()));

/// Something that an operator can set.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) key: String,
    /// The key as a flag has it.
    flag: String,
    /// What stands above it in the file.
    help: String,
    /// A value of its kind.
    example: Value,
}

/// All of them, in the order of the file.
pub(crate) fn all() -> &'static [Setting] {
    &ALL
}

/// A comment is for all settings until the next empty line. One that is not set by default stands there commented out.
fn read_settings(file: &str) -> Vec<Setting> {
    let (mut settings, mut help) = (Vec::new(), String::new());
    for line in file.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if let Some((key, example)) = assignment(bare) {
            let flag = key.replace('_', "-");
            settings.push(Setting { key, flag, help: help.clone(), example });
        } else if line.is_empty() {
            help.clear();
        } else {
            help += if help.is_empty() { "" } else { " " };
            help += bare;
        }
    }
    settings
}

fn assignment(line: &str) -> Option<(String, Value)> {
    let is_key = |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    line.split_once(" = ").filter(|(key, _)| is_key(key))?;
    line.parse::<Table>().ok()?.into_iter().next()
}

impl Setting {
    pub(crate) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.key.to_ascii_uppercase())
    }

    /// A text of a flag or a variable as a value of this setting's kind; lists with commas between, or as TOML has them.
    fn value(&self, text: &str) -> Result<Value> {
        let wrong = |what| anyhow!("it must be {what}");
        match &self.example {
            Value::String(_) => Ok(Value::String(text.to_owned())),
            Value::Array(_) if text.trim_start().starts_with('[') => {
                let line = format!("list = {text}");
                line.parse::<Table>().ok().and_then(|mut table| table.remove("list")).ok_or_else(|| wrong("a list"))
            }
            Value::Array(_) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
            }
            Value::Integer(_) => text.parse().map(Value::Integer).map_err(|_| wrong("a whole number")),
            Value::Float(_) => text.parse().map(Value::Float).map_err(|_| wrong("a number")),
            Value::Boolean(_) => text.parse().map(Value::Boolean).map_err(|_| wrong("true or false")),
            Value::Datetime(_) | Value::Table(_) => bail!("it can be given in config.toml only"),
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Default,
    File,
    Environment,
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "config.toml",
            Self::Environment => "environment",
            Self::Flag => "flag",
        })
    }
}

/// The configuration that counts.
#[derive(Clone, Debug)]
pub(crate) struct Effective {
    pub(crate) config: Config,
    sources: BTreeMap<&'static str, Source>,
}

impl Effective {
    /// Lays flags over the environment over the file's text.
    pub(crate) fn of(file: &str, environment: &[(String, String)], flags: &Flags) -> Result<Self> {
        // By itself first: its errors name line and column.
        toml::from_str::<Config>(file).context("config.toml is not understood")?;
        let mut table: Table = file.parse().context("config.toml is not understood")?;
        let mut sources: BTreeMap<_, _> = all().iter().map(|setting| (setting.key.as_str(), Source::Default)).collect();
        for setting in all().iter().filter(|setting| table.contains_key(&setting.key)) {
            sources.insert(&setting.key, Source::File);
        }
        for (variable, text) in environment.iter().filter(|(name, _)| !NO_SETTINGS.contains(&name.as_str())) {
            let setting =
                all().iter().find(|setting| setting.variable() == *variable).ok_or_else(|| unknown(variable))?;
            let value = setting.value(text).with_context(|| format!("the variable {variable} is {text:?}"))?;
            table.insert(setting.key.clone(), value);
            sources.insert(&setting.key, Source::Environment);
        }
        for (setting, text) in &flags.0 {
            let value = setting.value(text).with_context(|| format!("--{} is {text:?}", setting.flag))?;
            table.insert(setting.key.clone(), value);
            sources.insert(&setting.key, Source::Flag);
        }
        let config: Config = table.try_into().context("the configuration is not understood")?;
        config.check()?;
        Ok(Self { config, sources })
    }

    /// All settings as TOML, each with where it comes from.
    pub(crate) fn to_toml(&self) -> Result<String> {
        let values = Table::try_from(&self.config).context("a number is larger than TOML can have")?;
        let mut text = String::new();
        for setting in all() {
            let (source, name) = (self.sources.get(setting.key.as_str()), &setting.key);
            let from = match source {
                Some(Source::Environment) => format!("environment, {}", setting.variable()),
                Some(Source::Flag) => format!("flag, --{}", setting.flag),
                Some(source @ (Source::Default | Source::File)) => source.to_string(),
                None => Source::Default.to_string(),
            };
            text += &match values.get(name) {
                Some(value) => format!("{name} = {value}  # {from}\n"),
                None if name == "delivery_url" => {
                    format!("# {name} = {}  # from delivery\n", Value::String(self.config.delivery_url()))
                }
                None => format!("# {name} is not set\n"),
            };
        }
        Ok(text)
    }

    /// The settings whose values differ from another configuration's.
    pub(crate) fn changed(&self, other: &Config) -> Result<Vec<&'static str>> {
        let (own, other) = (Table::try_from(&self.config)?, Table::try_from(other)?);
        let keys = all().iter().map(|setting| setting.key.as_str());
        Ok(keys.filter(|key| own.get(*key) != other.get(*key)).collect())
    }
}

/// Those of this process that begin with `IMIRA_NODE_`.
pub(crate) fn environment() -> Vec<(String, String)> {
    let texts = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let ours = texts.filter(|(name, _)| name.starts_with(PREFIX));
    ours.map(|(name, value)| (name, value.to_string_lossy().into_owned())).collect()
}

fn unknown(variable: &str) -> anyhow::Error {
    let names = all().iter().map(Setting::variable).chain(NO_SETTINGS.map(str::to_owned));
    let own = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_uppercase();
    let likeness = |name: &String| strsim::jaro_winkler(&own(name), &own(variable));
    let best = names.max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    let hint = match best.filter(|name| likeness(name) >= LIKENESS) {
        Some(name) => format!("is {name} meant?"),
        None => "`imira-node run --help` lists the settings".to_owned(),
    };
    anyhow!("the environment has {variable}, which is no setting; {hint}")
}

/// What was given on the command line: one flag for each setting.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags(pub(crate) Vec<(&'static Setting, String)>);

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |setting: &'static Setting| Some((setting, matches.get_one::<String>(&setting.key)?.clone()));
        Ok(Self(all().iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(all().iter().map(|setting| {
            let help = format!("{} [variable: {}]", setting.help, setting.variable());
            let name = match setting.example {
                Value::Integer(_) | Value::Float(_) => "NUMBER",
                Value::Boolean(_) => "true|false",
                Value::Array(_) => "A,B,...",
                Value::String(_) | Value::Datetime(_) | Value::Table(_) => "VALUE",
            };
            Arg::new(setting.key.as_str())
                .long(setting.flag.as_str())
                .value_name(name)
                .help(first_sentence(&setting.help))
                .long_help(StyledStr::from(help))
                .help_heading("Settings, before config.toml and the environment")
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn first_sentence(text: &str) -> String {
    text.split_inclusive(". ").next().unwrap_or_default().trim_end_matches(['.', ' ']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effective(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Effective> {
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let find = |key: &str| all().iter().find(|setting| setting.key == key).unwrap();
        let flags = flags.iter().map(|(key, value)| (find(key), (*value).to_owned())).collect();
        Effective::of(file, &environment, &Flags(flags))
    }

    #[test]
    fn the_later_one_wins() {
        let (file, variable) = ("sync_seconds = 11", ("IMIRA_NODE_SYNC_SECONDS", "12"));
        let seconds = |effective: Result<Effective>| effective.unwrap().config.sync_seconds;
        assert_eq!(seconds(effective("", &[], &[])), 60);
        assert_eq!(seconds(effective(file, &[], &[])), 11);
        assert_eq!(seconds(effective(file, &[variable], &[])), 12);
        assert_eq!(seconds(effective(file, &[variable], &[("sync_seconds", "13")])), 13);
    }

    #[test]
    fn every_kind_of_value_can_be_given_as_text() {
        let environment = [
            ("IMIRA_NODE_CORS_ORIGINS", "http://a, http://b"),
            ("IMIRA_NODE_KEEP_UNTIL_PROVED", "false"),
            ("IMIRA_NODE_ALLOW_PRIVATE_ADDRESSES", "true"),
            ("IMIRA_NODE_CONTROL", "127.0.0.1:9"),
            ("IMIRA_NODE_DATA", "/nowhere"),
        ];
        let config = effective("", &environment, &[("bootstrap", "[]")]).unwrap().config;
        assert_eq!(config.cors_origins, ["http://a", "http://b"]);
        assert_eq!((config.keep_until_proved, config.allow_private_addresses), (false, Some(true)));
        assert_eq!(config.control.port(), 9);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_name() {
        for (environment, flags, words) in [
            (
                ("IMIRA_NODE_QUOTA_BYTE", "1"),
                ("sync_seconds", "1"),
                ["IMIRA_NODE_QUOTA_BYTE,", "is IMIRA_NODE_QUOTA_BYTES meant"],
            ),
            (("IMIRA_NODE_ZZZ", "1"), ("sync_seconds", "1"), ["IMIRA_NODE_ZZZ", "run --help"]),
            (("IMIRA_NODE_QUOTA_BYTES", "1 GB"), ("sync_seconds", "1"), ["IMIRA_NODE_QUOTA_BYTES", "whole number"]),
            (("IMIRA_NODE_QUOTA_BYTES", "-1"), ("sync_seconds", "1"), ["quota_bytes", "understood"]),
            (("IMIRA_NODE_QUOTA_BYTES", "1"), ("keep_until_proved", "yes"), ["--keep-until-proved", "true or false"]),
            (("IMIRA_NODE_QUOTA_BYTES", "1"), ("transcodes", "0"), ["transcodes", "no upload"]),
        ] {
            let error = format!("{:#}", effective("", &[environment], &[flags]).unwrap_err());
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn the_printed_configuration_reads_back_and_names_the_sources() {
        let environment = [("IMIRA_NODE_LOG_FORMAT", "json")];
        let flags = [("cors_origins", "http://a"), ("delivery", "127.0.0.1:9")];
        let given = effective("quota_bytes = 7", &environment, &flags).unwrap();
        let text = given.to_toml().unwrap();
        for line in [
            "quota_bytes = 7  # config.toml",
            "log_format = \"json\"  # environment, IMIRA_NODE_LOG_FORMAT",
            "cors_origins = [\"http://a\"]  # flag, --cors-origins",
            "transcodes = 1  # default",
            "# allow_private_addresses is not set",
            "# delivery_url = \"http://127.0.0.1:9\"  # from delivery",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        let again = effective(&text, &[], &[]).unwrap();
        assert_eq!(again.changed(&given.config).unwrap(), [""; 0]);
    }

    /// One place lists the settings, and the rest follows: the file that `init` writes, the fields of `Config`, and README's table.
    #[test]
    fn every_setting_is_in_the_file_in_the_table_and_printed() {
        let refusal = toml::from_str::<Config>("no_such_setting = 1").unwrap_err().to_string();
        let known = refusal.split_once("expected one of ").unwrap().1;
        let mut fields: Vec<_> = known.split('`').skip(1).step_by(2).collect();
        let mut keys: Vec<_> = all().iter().map(|setting| setting.key.as_str()).collect();
        let printed = effective("", &[], &[]).unwrap().to_toml().unwrap();
        let readme = include_str!("../../README.md");
        for setting in all() {
            let key = &setting.key;
            assert!(setting.help.len() > 20, "{key} is not explained in the file");
            assert!(printed.contains(&format!("{key} = ")) || printed.contains(&format!("# {key} is")), "{key}");
            let first_cell =
                |line: &str| line.strip_prefix("| `").and_then(|line| line.split(" | ").next()).map(str::to_owned);
            let is_named = |cell: String| format!("`{cell}").contains(&format!("`{key}`"));
            assert!(readme.lines().filter_map(first_cell).any(is_named), "{key} is not in README's table");
        }
        fields.sort_unstable();
        keys.sort_unstable();
        assert_eq!(keys, fields);
    }
}
