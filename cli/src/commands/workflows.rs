//! `dssflow workflows`: what there is, what it takes, what it does.

use crate::args::{ListFormat, WorkflowsCommand};
use crate::catalog;
use crate::commands::graph::draw;
use crate::error::{CommandResult, Exit};
use crate::ui::{Ui, table};

/// Runs one of them.
pub(crate) fn run(ui: &Ui, command: WorkflowsCommand) -> CommandResult {
    match command {
        WorkflowsCommand::Ls { output } => match output {
            ListFormat::Table | ListFormat::Wide => {
                let row =
                    |e: &catalog::Entry| vec![e.name.to_owned(), e.version.to_string(), e.title.to_owned()];
                ui.out(&table(
                    &["WORKFLOW", "VERSION", "WHAT IT DOES"],
                    &catalog::ALL.iter().map(row).collect::<Vec<_>>(),
                ));
            }
            ListFormat::Json => ui.json(&catalog::ALL, true),
            ListFormat::Jsonl => catalog::ALL.iter().for_each(|e| ui.json(e, false)),
            ListFormat::Yaml => ui.yaml(&catalog::ALL),
            ListFormat::Name => catalog::ALL.iter().for_each(|e| ui.out(e.name)),
        },
        WorkflowsCommand::Schema { workflow } => {
            ui.json(&catalog::schema(&workflow)?, true);
        }
        WorkflowsCommand::Graph { workflow, file, set, output } => {
            if catalog::find(&workflow)?.name == dssflow_workflows::image::NAME {
                let spec = match file {
                    Some(file) => catalog::read_images(&file, &set)?,
                    None => catalog::example_images()?,
                };
                return draw(ui, output, &dssflow_workflows::image(&spec).graph, None, &workflow);
            }
            if catalog::find(&workflow)?.name == dssflow_workflows::glue_resync::NAME {
                let spec = match file {
                    Some(file) => catalog::read_resync(&file, &set)?,
                    None => catalog::example_resync()?,
                };
                return draw(ui, output, &dssflow_workflows::glue_resync(&spec).graph, None, &workflow);
            }
            let site = match file {
                Some(file) => catalog::read_site(&file, &set)?,
                None => catalog::example_site(&set)?,
            };
            return draw(ui, output, &catalog::build(&workflow, &site)?.graph, None, &workflow);
        }
    }
    Ok(Exit::Ok)
}
