//! `dssflow config`: which settings hold, where they come from, and files of them to start from.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use crate::args::{ConfigCommand, Global, ViewFormat};
use crate::config::{self, KEYS, Key};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::outfile::OutFile;
use crate::ui::{Ui, table};

/// Runs one of them.
///
/// # Errors
/// When a file of settings is wrong, or one cannot be written.
pub(crate) fn run(ui: &Ui, global: &Global, command: &ConfigCommand) -> CommandResult {
    match command {
        ConfigCommand::Show { sources, output } => show(ui, global, *sources, *output)?,
        ConfigCommand::Path { output } => paths(ui, *output),
        ConfigCommand::Init { output, .. } if output == Path::new("-") => ui.out(config::EXAMPLE.trim_end()),
        ConfigCommand::Init { output, force } => {
            let mut file = OutFile::create(output, *force)?;
            file.write_all(config::EXAMPLE.as_bytes()).map_err(|e| {
                CommandError::new(Code::File, format!("{} cannot be written", output.display())).why(e)
            })?;
            file.finish()?;
            ui.note(&format!(
                "{} says nothing yet: take away the # before what is to hold",
                output.display()
            ));
        }
        ConfigCommand::Schema => ui.json(&schemars::schema_for!(config::File), true),
    }
    Ok(Exit::Ok)
}

/// What `config show` prints of a setting: its value, or with `--sources` also where that comes from.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Shown {
    Plain(String),
    From { value: String, source: String },
}

/// What `config path` prints of a file.
#[derive(Serialize, JsonSchema)]
pub(crate) struct FilePlace {
    file: PathBuf,
    /// Whether it exists.
    there: bool,
}

/// A setting as it holds.
struct Held {
    key: &'static str,
    value: String,
    source: String,
}

fn show(ui: &Ui, global: &Global, sources: bool, output: ViewFormat) -> CommandResult<()> {
    config::read()?;
    let held = KEYS.iter().map(|key| held(*key, global)).collect::<CommandResult<Vec<Held>>>()?;
    let plain = || -> BTreeMap<&str, Shown> {
        let shown = |one: &Held| match (one.value.clone(), one.source.clone()) {
            (value, source) if sources => Shown::From { value, source },
            (value, _) => Shown::Plain(value),
        };
        held.iter().map(|one| (one.key, shown(one))).collect()
    };
    match output {
        ViewFormat::Table => {
            let heading: &[&str] =
                if sources { &["SETTING", "VALUE", "FROM"] } else { &["SETTING", "VALUE"] };
            let row = |one: &Held| {
                let mut row = vec![one.key.to_owned(), one.value.clone()];
                row.extend(sources.then(|| one.source.clone()));
                row
            };
            ui.out(&table(heading, &held.iter().map(row).collect::<Vec<_>>()));
        }
        ViewFormat::Json => ui.json(&plain(), true),
        ViewFormat::Yaml => ui.yaml(&plain()),
    }
    Ok(())
}

fn held(key: Key, global: &Global) -> CommandResult<Held> {
    let typed = match key.name {
        "store" => global.store.as_ref().map(|dir| dir.display().to_string()),
        "log" => global.log.clone(),
        "log_format" => global.log_format.as_ref().map(config::word),
        "error_format" => global.error_format.as_ref().map(config::word),
        _ => None,
    };
    // Where flag and variable are both given, the flag counts.
    let flag = key.flag.filter(|_| global.typed.contains(&key.name));
    let variable = std::env::var(key.variable).ok().filter(|value| !value.is_empty());
    let (value, source) = if let (Some(flag), Some(value)) = (flag, typed) {
        (value, format!("flag {flag}"))
    } else if let Some(value) = variable {
        (value, key.variable.to_owned())
    } else if let Some((value, file)) = config::files().find(|file| file.get(key.name)) {
        (value, file.display().to_string())
    } else {
        (key.default.to_owned(), "default".to_owned())
    };
    // As it is used: absolute, and with what the default stands for.
    let value = if key.name == "store" {
        config::store_dir(global.store.clone())?.display().to_string()
    } else {
        value
    };
    Ok(Held { key: key.name, value, source })
}

fn paths(ui: &Ui, output: ViewFormat) {
    // A file that is wrong is told by every other command; here it is only there.
    let state = |place: &Path| if place.exists() { "there" } else { "not there" };
    let places = config::places();
    let plain = || -> Vec<FilePlace> {
        places.iter().map(|place| FilePlace { file: place.clone(), there: place.exists() }).collect()
    };
    match output {
        ViewFormat::Table => {
            let row = |place: &PathBuf| vec![place.display().to_string(), state(place).to_owned()];
            ui.out(&table(&["FILE", "STATE"], &places.iter().map(row).collect::<Vec<_>>()));
        }
        ViewFormat::Json => ui.json(&plain(), true),
        ViewFormat::Yaml => ui.yaml(&plain()),
    }
}
