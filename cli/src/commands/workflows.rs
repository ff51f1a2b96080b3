//! `dssflow workflows`: what there is, what it takes, what it does.

use crate::args::{ListFormat, ViewFormat, WorkflowsCommand};
use crate::catalog::{self, MadeOf};
use crate::commands::graph::draw;
use crate::error::{CommandResult, Exit};
use crate::ui::Ui;

/// Runs one of them.
pub(crate) fn run(ui: &Ui, command: WorkflowsCommand) -> CommandResult {
    match command {
        WorkflowsCommand::Ls { output } => match output {
            ListFormat::Table | ListFormat::Wide => {
                let row =
                    |e: &catalog::Entry| vec![e.name.to_owned(), e.version.to_string(), e.title.to_owned()];
                let rows: Vec<_> = catalog::ALL.iter().map(row).collect();
                ui.table(&["WORKFLOW", "VERSION", "WHAT IT DOES"], &rows, output == ListFormat::Wide);
            }
            ListFormat::Json => ui.json(&catalog::ALL, true),
            ListFormat::Jsonl => catalog::ALL.iter().for_each(|e| ui.json(e, false)),
            ListFormat::Yaml => ui.yaml(&catalog::ALL),
            ListFormat::Name => catalog::ALL.iter().for_each(|e| ui.out(e.name)),
        },
        WorkflowsCommand::Get { workflow, output } => {
            let entry = catalog::find(&workflow)?;
            match output {
                ViewFormat::Table => ui.out(&picture(entry)),
                ViewFormat::Json => ui.json(entry, true),
                ViewFormat::Yaml => ui.yaml(entry),
            }
        }
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

fn picture(entry: &catalog::Entry) -> String {
    let name = entry.name;
    let (takes, begin) = match entry.made_of {
        MadeOf::Site => ("a site file", format!("dssflow init {name} -o site.yaml")),
        MadeOf::SiteAndRuns => {
            ("a site file, and what runs of that site made", "dssflow resources ls".to_owned())
        }
        MadeOf::Images => ("a file of images", format!("dssflow init {name} -o {name}.yaml")),
        MadeOf::Resync => {
            ("a site file, or a file of its own", format!("dssflow init {name} -o resync.yaml"))
        }
    };
    format!(
        "workflow  {name}\nversion   {}\ndoes      {}\ntakes     {takes}; start with: {begin}\nkeys      dssflow workflows \
         schema {name}\nsteps     dssflow workflows graph {name}",
        entry.version, entry.title
    )
}
