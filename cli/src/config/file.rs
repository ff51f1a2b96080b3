//! Files of settings: where they lie, what may stand in them, and which of them says what.
//!
//! Every key can also be said by a variable, most by a flag; those count more. Of the files the nearest counts most. A key
//! that nobody knows is an error and not passed over: it would be a setting that somebody relies on.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::args::{ErrorFormat, LogFormat};
use crate::error::{Code, CommandError, CommandResult};
use crate::suggest;

/// A file that is larger than this is none of settings.
const MAX_FILE: u64 = 1 << 20;

/// What may stand in a file of settings. All of it is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// Directory of the store. A path that is not absolute is from the directory of the file; ~/ is the home directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<PathBuf>,
    /// What is logged to stderr: error, warn, info, debug, trace, off, or a list of target=level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<String>,
    /// How it is logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_format: Option<LogFormat>,
    /// What is kept of each run's log, written as for `log`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run_log: Option<String>,
    /// How errors are printed on stderr.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_format: Option<ErrorFormat>,
    /// The address and port of this machine on which `dssflow serve` also serves the HTTP API, as 127.0.0.1:7477.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// How many minutes a command waits for renewed credentials when those it has end; 0 does not wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) credentials_wait: Option<u64>,
}

/// A setting, by its key in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// In files.
    pub(crate) name: &'static str,
    /// The variable that says it.
    pub(crate) variable: &'static str,
    /// The flag that says it, where there is one.
    pub(crate) flag: Option<&'static str>,
    /// What holds when nobody says anything.
    pub(crate) default: &'static str,
}

/// All settings, in the order in which they are shown.
pub(crate) const KEYS: [Key; 7] = [
    Key {
        name: "store",
        variable: "DSSFLOW_STORE",
        flag: Some("--store"),
        default: "$XDG_DATA_HOME/dssflow",
    },
    Key { name: "log", variable: "DSSFLOW_LOG", flag: Some("--log"), default: "warn" },
    Key { name: "log_format", variable: "DSSFLOW_LOG_FORMAT", flag: Some("--log-format"), default: "text" },
    Key { name: "run_log", variable: "DSSFLOW_RUN_LOG", flag: None, default: "info" },
    Key {
        name: "error_format",
        variable: "DSSFLOW_ERROR_FORMAT",
        flag: Some("--error-format"),
        default: "human",
    },
    Key { name: "listen", variable: "DSSFLOW_LISTEN", flag: Some("serve --listen"), default: "none" },
    Key { name: "credentials_wait", variable: "DSSFLOW_CREDENTIALS_WAIT", flag: None, default: "720" },
];

impl File {
    /// What it says of a key, as text.
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        match key {
            "store" => self.store.as_ref().map(|path| path.display().to_string()),
            "log" => self.log.clone(),
            "log_format" => self.log_format.as_ref().map(word),
            "run_log" => self.run_log.clone(),
            "error_format" => self.error_format.as_ref().map(word),
            "listen" => self.listen.map(|address| address.to_string()),
            "credentials_wait" => self.credentials_wait.map(|minutes| minutes.to_string()),
            _ => None,
        }
    }
}

/// As it is written on the command line.
pub(crate) fn word(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The files that were read, the one that counts most first.
#[derive(Debug, Default)]
pub(crate) struct Files(Vec<(PathBuf, File)>);

static READ: OnceLock<Files> = OnceLock::new();

/// Where files of settings lie, the one that counts most first.
pub(crate) fn places() -> Vec<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let here = std::env::current_dir().ok().map(|dir| dir.join("dssflow.toml"));
    let user = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    let user = user.map(|dir| dir.join("dssflow/config.toml"));
    here.into_iter().chain(user).chain(["/etc/dssflow/config.toml".into()]).collect()
}

/// Reads the files that there are, once for the whole command.
///
/// # Errors
/// When one of them cannot be read or says what nobody knows.
pub(crate) fn read() -> CommandResult<&'static Files> {
    if READ.get().is_none() {
        // A second reader, as in tests, finds what the first read.
        READ.set(Files::read(&places())?).ok();
    }
    Ok(files())
}

/// The files as they were read; none before that.
pub(crate) fn files() -> &'static Files {
    static NONE: Files = Files(Vec::new());
    READ.get().unwrap_or(&NONE)
}

impl Files {
    fn read(places: &[PathBuf]) -> CommandResult<Self> {
        let mut found = Vec::new();
        for place in places {
            let cannot = |why: &dyn std::fmt::Display| {
                CommandError::new(Code::File, format!("the settings in {} cannot be read", place.display()))
                    .why(why)
                    .hint("`dssflow config path` lists the files of settings")
            };
            match std::fs::metadata(place) {
                Ok(data) if data.len() > MAX_FILE => return Err(cannot(&"the file is too large")),
                Ok(_) => {
                    let text = std::fs::read_to_string(place).map_err(|e| cannot(&e))?;
                    found.push((place.clone(), parse(&text, place)?));
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::NotFound
                            | std::io::ErrorKind::NotADirectory
                            | std::io::ErrorKind::PermissionDenied
                    ) => {}
                Err(error) => return Err(cannot(&error)),
            }
        }
        Ok(Self(found))
    }

    /// What the files say of something, and which of them.
    pub(crate) fn find<T>(&self, get: impl Fn(&File) -> Option<T>) -> Option<(T, &Path)> {
        self.0.iter().find_map(|(path, file)| Some((get(file)?, path.as_path())))
    }
}

/// Reads one file.
fn parse(text: &str, place: &Path) -> CommandResult<File> {
    let wrong = |message: String| {
        CommandError::new(Code::WrongConfig, format!("{}: {message}", place.display()))
            .hint("`dssflow config init` prints a file that is right, `dssflow config schema` its schema")
    };
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        wrong(format!("line {line} is no TOML")).why(error.message())
    })?;
    for key in table.keys() {
        if KEYS.iter().any(|known| known.name == key) {
            continue;
        }
        let error = wrong(format!("line {} says {key:?}, which is no setting", line_with(text, key)));
        // Some write keys as flags are written.
        let typed = key.replace('-', "_").to_ascii_lowercase();
        return Err(match suggest::nearest(&typed, KEYS.iter().map(|known| known.name)) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error.hint(format!("there are {}", KEYS.map(|known| known.name).join(", "))),
        });
    }
    let mut file = File::deserialize(toml::Value::Table(table.clone())).map_err(|error| {
        // Each key is tried alone, so that the one at fault can be named.
        let at_fault = table.iter().find(|(key, value)| {
            let alone: toml::Table = [((*key).clone(), (*value).clone())].into_iter().collect();
            File::deserialize(toml::Value::Table(alone)).is_err()
        });
        let line = at_fault.map_or(1, |(key, _)| line_with(text, key));
        let key = at_fault.map_or("a value", |(key, _)| key);
        wrong(format!("line {line}: {key} cannot be that")).why(error.message().trim_end())
    })?;
    for (key, level) in [("log", &file.log), ("run_log", &file.run_log)] {
        if let Some(level) = level
            && let Err(error) = crate::logging::check_level(key, level)
        {
            let mut told = wrong(format!("line {}: {}", line_with(text, key), error.message));
            told.hints.splice(0..0, error.hints);
            return Err(told);
        }
    }
    if let Some(store) = file.store.take() {
        file.store = Some(from(&store, place));
    }
    Ok(file)
}

/// A path as a file means it.
fn from(path: &Path, place: &Path) -> PathBuf {
    if let (Ok(rest), Some(home)) = (path.strip_prefix("~"), std::env::var_os("HOME")) {
        return PathBuf::from(home).join(rest);
    }
    place.parent().unwrap_or(Path::new("/")).join(path)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

/// The first line that begins with a key, or with a table of that name.
fn line_with(text: &str, key: &str) -> usize {
    let begins = |line: &str| {
        let line = line.trim_start().trim_start_matches('[').trim_start_matches(['"', '\'']);
        line.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '\t', '=', '.', ']', '"', '\'']))
    };
    text.lines().position(begins).map_or(1, |n| n + 1)
}

/// A commented file to start from.
pub(crate) const EXAMPLE: &str = "\
# Settings of dssflow. Of several that say something the first counts: flag, variable (DSSFLOW_...), ./dssflow.toml,
# ~/.config/dssflow/config.toml, /etc/dssflow/config.toml, default. `dssflow config show --sources` says what holds.

# Directory of the store. From the directory of this file when it is not absolute; ~/ is the home directory.
# store = \"~/.local/share/dssflow\"

# What is logged to stderr: error, warn, info, debug, trace, off, or a list as \"dssflow_engine=debug,warn\".
# log = \"warn\"

# How it is logged: text, or json, one object a line.
# log_format = \"text\"

# What is kept of each run's log beside the store.
# run_log = \"info\"

# How errors are printed on stderr: human, or json.
# error_format = \"human\"

# The address on which `dssflow serve` also serves the HTTP API.
# listen = \"127.0.0.1:7477\"

# How many minutes a command waits for renewed credentials when those it has end; 0 does not wait.
# credentials_wait = 720
";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> CommandResult<File> {
        parse(text, Path::new("/srv/dssflow.toml"))
    }

    #[test]
    fn every_key_can_stand_in_a_file_and_in_the_example() {
        // What is commented out there is right.
        let lines: Vec<&str> = EXAMPLE
            .lines()
            .filter_map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")))
            .collect();
        let file = read(&lines.join("\n")).unwrap();
        for key in KEYS {
            assert!(file.get(key.name).is_some(), "{} is not in the example", key.name);
        }
        let schema = serde_json::to_value(schemars::schema_for!(File)).unwrap();
        let names: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(names, KEYS.map(|key| key.name).iter().collect::<Vec<_>>());
        assert_eq!(read(EXAMPLE).unwrap(), File::default(), "as it is it says nothing");
    }

    #[test]
    fn what_nobody_knows_is_an_error_with_its_line_and_the_nearest_key() {
        for (text, line, near) in [
            ("log = \"info\"\nlogformat = \"json\"\n", "line 2", "did you mean log_format?"),
            ("\nlog-format = \"json\"", "line 2", "did you mean log_format?"),
            ("stroe = \"/x\"", "line 1", "did you mean store?"),
            ("zzzzzzz = 1", "line 1", "there are store, log"),
            ("[serve]\nlisten = \"x\"", "line 1", "there are store, log"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!((error.code, error.exit.status()), (Code::WrongConfig, 64));
            let told = error.to_string();
            assert!(
                told.contains("/srv/dssflow.toml") && told.contains(line) && told.contains(near),
                "{told}"
            );
        }
    }

    #[test]
    fn wrong_values_name_their_line() {
        for (text, part) in [
            ("log = 3", "line 1: log"),
            ("\nlog_format = \"xml\"", "line 2: log_format"),
            ("listen = \"nowhere\"", "line 1: listen"),
            ("log = \"loud\"", "line 1: \"loud\" is no log level"),
            ("log = ", "line 1 is no TOML"),
        ] {
            let told = read(text).unwrap_err().to_string();
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn the_nearest_file_counts_and_paths_are_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        std::fs::create_dir(place("sub")).unwrap();
        std::fs::write(place("sub/near.toml"), "store = \"state\"\n").unwrap();
        std::fs::write(place("far.toml"), "store = \"/far\"\nlog = \"debug\"\n").unwrap();
        let files = Files::read(&[place("sub/near.toml"), place("missing.toml"), place("far.toml")]).unwrap();
        let (store, by) = files.find(|file| file.store.clone()).unwrap();
        assert_eq!((store, by), (place("sub/state"), place("sub/near.toml").as_path()));
        assert_eq!(files.find(|file| file.log.clone()).unwrap().1, place("far.toml"));
        assert!(files.find(|file| file.listen).is_none());
    }
}
