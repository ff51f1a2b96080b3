//! `dssflow man`: a manual page for each command and each help topic.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::args::{self, ManArgs};
use crate::commands::help::{TOPICS, Topic};
use crate::error::{CommandResult, Exit};
use crate::outfile;
use crate::ui::Ui;

/// Pages are for everybody on the machine, unlike what else is written.
const MODE: u32 = 0o644;
const DIR_MODE: u32 = 0o755;

/// Writes them.
///
/// # Errors
/// When the directory or a page cannot be written.
pub(crate) fn run(ui: &Ui, args: &ManArgs) -> CommandResult {
    let failed = |path: &Path, error: &std::io::Error| outfile::failed(path, error);
    if !args.dir.exists() {
        fs::create_dir_all(&args.dir).map_err(|e| failed(&args.dir, &e))?;
        fs::set_permissions(&args.dir, fs::Permissions::from_mode(DIR_MODE))
            .map_err(|e| failed(&args.dir, &e))?;
    }
    let pages = pages();
    for (name, text) in &pages {
        let path = args.dir.join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(MODE)))
            .map_err(|e| failed(&path, &e))?;
    }
    ui.note(&format!(
        "{} pages in {}; `man -l {}` shows one",
        pages.len(),
        args.dir.display(),
        args.dir.join("dssflow.1").display()
    ));
    Ok(Exit::Ok)
}

/// Every page by its file's name.
pub(crate) fn pages() -> Vec<(String, Vec<u8>)> {
    let mut command = args::command();
    command.build();
    let mut pages = Vec::new();
    of_command(&command, &mut pages);
    pages.extend(
        TOPICS.iter().map(|topic| (format!("dssflow-{}.7", topic.name), of_topic(topic).into_bytes())),
    );
    pages
}

fn of_command(command: &clap::Command, pages: &mut Vec<(String, Vec<u8>)>) {
    if command.is_hide_set() {
        return;
    }
    let man = clap_mangen::Man::new(command.clone())
        .source(format!("dssflow {}", env!("CARGO_PKG_VERSION")))
        .manual("dssflow");
    let mut text = Vec::new();
    man.render(&mut text).expect("writing to memory does not fail");
    pages.push((man.get_filename(), text));
    for below in command.get_subcommands() {
        of_command(below, pages);
    }
}

/// A page from its Markdown: headings, paragraphs, lists and blocks of code are all that stands there.
fn of_topic(topic: &Topic) -> String {
    let mut out = format!(
        ".TH \"DSSFLOW-{}\" 7 \"\" \"dssflow {}\" \"dssflow\"\n.SH NAME\ndssflow-{} \\- {}\n",
        topic.name.to_ascii_uppercase(),
        env!("CARGO_PKG_VERSION"),
        topic.name,
        inline(topic.title())
    );
    let mut code = false;
    // The first line is the title.
    for line in topic.page.lines().skip(1) {
        if line.starts_with("```") {
            code = !code;
            out.push_str(if code { ".PP\n.RS 4\n.nf\n" } else { ".fi\n.RE\n" });
        } else if code {
            out.push_str(&guarded(&escaped(line)));
        } else if let Some(heading) = line.strip_prefix("## ") {
            put!(out, ".SH \"{}\"\n", inline(heading).to_uppercase());
            continue;
        } else if let Some(item) = line.strip_prefix("- ") {
            // A word and what it means, or only a sentence.
            match item.split_once(": ").filter(|(word, _)| word.starts_with('`')) {
                Some((word, rest)) => put!(out, ".TP\n{}\n{}", inline(word), guarded(&inline(rest))),
                None => put!(out, ".IP \\(bu 2\n{}", guarded(&inline(item))),
            }
        } else if line.is_empty() {
            out.push_str(".PP");
        } else {
            out.push_str(&guarded(&inline(line.trim_start())));
        }
        out.push('\n');
    }
    out
}

/// A line that begins as a request does would be one.
fn guarded(line: &str) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// Text with `code` in bold.
fn inline(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts
        .map(|(n, part)| if n % 2 == 1 { format!("\\fB{}\\fR", escaped(part)) } else { escaped(part) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_topic_has_a_page() {
        let pages = pages();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in [
            "dssflow.1",
            "dssflow-runs.1",
            "dssflow-runs-timeline.1",
            "dssflow-help.1",
            "dssflow-exit-codes.7",
        ] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        assert!(names.len() > 60, "{names:?}");
        for (name, text) in &pages {
            let text = std::str::from_utf8(text).unwrap();
            assert!(text.contains(".TH ") && text.contains("NAME"), "{name}: {text}");
            assert!(!text.contains('\u{1b}'), "{name}");
        }
    }

    #[test]
    fn markdown_becomes_a_page() {
        let topic = Topic {
            name: "files",
            page: "# Where things lie\n\nSome `code` and\n.a dot.\n\n## Part\n\n- `--flag`: what it is\n- only this\n\n```sh\na \\ b\n```\n",
        };
        assert_eq!(
            of_topic(&topic),
            format!(
                ".TH \"DSSFLOW-FILES\" 7 \"\" \"dssflow {}\" \"dssflow\"\n.SH NAME\ndssflow-files \\- Where things lie\n.PP\n\
                 Some \\fBcode\\fR and\n\\&.a dot.\n.PP\n.SH \"PART\"\n.PP\n.TP\n\\fB\\-\\-flag\\fR\nwhat it is\n\
                 .IP \\(bu 2\nonly this\n.PP\n.PP\n.RS 4\n.nf\n\na \\e b\n.fi\n.RE\n\n",
                env!("CARGO_PKG_VERSION")
            )
        );
    }
}
