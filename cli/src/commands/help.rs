//! `dssflow help`: the help of a command, or a page on what holds for all of them.

use crate::args::{self, HelpArgs};
use crate::error::{Code, CommandError, CommandResult, Exit};
use crate::suggest;
use crate::ui::Ui;

/// A page on what holds for all commands.
pub(crate) struct Topic {
    /// How it is asked for.
    pub(crate) name: &'static str,
    /// The page.
    pub(crate) page: &'static str,
}

impl Topic {
    /// What it is about.
    pub(crate) fn title(&self) -> &'static str {
        self.page.lines().next().unwrap_or_default().trim_start_matches("# ")
    }
}

macro_rules! topics {
    ($($name:literal)*) => {
        /// All pages.
        pub(crate) const TOPICS: &[Topic] =
            &[$(Topic { name: $name, page: include_str!(concat!("../../../docs/help/", $name, ".md")) },)*];
    };
}

topics! { "environment" "exit-codes" "files" "formatting" "signals" }

/// Prints it.
///
/// # Errors
/// When there is no such command or topic; the nearest is named.
pub(crate) fn run(ui: &Ui, args: &HelpArgs) -> CommandResult {
    if let [word] = args.words.as_slice()
        && let Some(topic) = TOPICS.iter().find(|topic| topic.name == word)
    {
        ui.out(topic.page.trim_end());
        return Ok(Exit::Ok);
    }
    let mut command = args::command();
    command.build();
    let mut at = &mut command;
    for (n, word) in args.words.iter().enumerate() {
        if at.find_subcommand(word).is_none() {
            return Err(unknown(at, &args.words[..n], word));
        }
        at = at.find_subcommand_mut(word).expect("it was just found");
    }
    ui.out(at.render_long_help().to_string().trim_end());
    Ok(Exit::Ok)
}

fn unknown(at: &clap::Command, before: &[String], word: &str) -> CommandError {
    let path: Vec<&str> = before.iter().map(String::as_str).collect();
    let names = at.get_subcommands().filter(|c| !c.is_hide_set()).map(clap::Command::get_name);
    let topics = TOPICS.iter().map(|topic| topic.name).filter(|_| before.is_empty());
    let names: Vec<&str> = names.chain(topics).collect();
    let what = if before.is_empty() {
        "command or topic".to_owned()
    } else {
        format!("command of {}", path.join(" "))
    };
    let error = CommandError::new(Code::Usage, format!("there is no {what} {word:?}"));
    match suggest::nearest(word, names.iter().copied()) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None if names.is_empty() => error.hint(format!("`dssflow {} --help` says all of it", path.join(" "))),
        None => error.hint(format!("there are {}", names.join(", "))),
    }
}
