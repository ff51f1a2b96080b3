//! The workflows there are, and how a site file becomes one of them. Reads files; looks at nothing else.

use std::path::Path;

use dssflow_engine::id::WorkflowName;
use dssflow_engine::workflow::Definition;
use dssflow_workflows::{ImageSpec, ResyncSpec, Site, Workflow, bootstrap};
use serde_json::Value;

use crate::error::{Code, CommandError, CommandResult};
use crate::suggest;

/// One workflow, for lists.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its version.
    pub(crate) version: u32,
    /// What it does.
    pub(crate) title: &'static str,
    /// What its graph is made of.
    #[serde(skip)]
    pub(crate) made_of: MadeOf,
}

/// What a workflow's graph is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MadeOf {
    /// A site.
    Site,
    /// A site, and what its runs made.
    SiteAndRuns,
    /// A file of images.
    Images,
    /// What a resync takes of a site, or a file with just that.
    Resync,
}

/// All workflows.
pub(crate) const ALL: &[Entry] = &[
    Entry {
        name: dssflow_workflows::bootstrap::NAME,
        version: dssflow_workflows::bootstrap::VERSION,
        title: "Dataiku DSS on AWS from nothing to managed compute on EKS with Glue and Athena",
        made_of: MadeOf::Site,
    },
    Entry {
        name: dssflow_workflows::teardown::NAME,
        version: dssflow_workflows::teardown::VERSION,
        title: "Takes back what any run of this store made for a site",
        made_of: MadeOf::SiteAndRuns,
    },
    Entry {
        name: dssflow_workflows::glue_resync::NAME,
        version: dssflow_workflows::glue_resync::VERSION,
        title: "Brings the Glue Data Catalog to what DSS says of its datasets on S3, or reports what differs",
        made_of: MadeOf::Resync,
    },
    Entry {
        name: dssflow_workflows::image::NAME,
        version: dssflow_workflows::image::VERSION,
        title: "Images from Dockerfiles, built by this machine's Docker and pushed to ECR or another registry",
        made_of: MadeOf::Images,
    },
];

/// A site file to start from when none is given for a picture.
const EXAMPLE: &str = include_str!("../../workflows/examples/site.yaml");
/// A file of images to start from.
pub(crate) const EXAMPLE_IMAGES: &str = include_str!("../../workflows/examples/image.yaml");

/// A file with what a resync takes to start from.
pub(crate) const EXAMPLE_RESYNC: &str = include_str!("../../workflows/examples/resync.yaml");

/// The workflow of that name.
///
/// # Errors
/// When there is none; the nearest is suggested.
pub(crate) fn find(name: &str) -> CommandResult<&'static Entry> {
    ALL.iter().find(|e| e.name == name).ok_or_else(|| {
        let error = CommandError::new(Code::NoSuchWorkflow, format!("there is no workflow {name:?}"));
        match suggest::nearest(name, ALL.iter().map(|e| e.name)) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error.hint("`dssflow workflows ls` lists them"),
        }
    })
}

/// Reads and checks a site file with the values of `--set` put in.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn read_site(file: &Path, set: &[String]) -> CommandResult<Site> {
    let text = std::fs::read_to_string(file).map_err(|e| {
        let error = CommandError::new(Code::File, format!("the site file {} cannot be read", file.display()));
        match e.kind() {
            std::io::ErrorKind::InvalidData => error.why("it is no text").hint("is this the right file?"),
            std::io::ErrorKind::IsADirectory => {
                error.why("it is a directory").hint("is this the right file?")
            }
            _ => error.why(e).hint("`dssflow init bootstrap -o site.yaml` writes one to start from"),
        }
    })?;
    parse_site(&text, &file.display().to_string(), set)
}

/// Reads and checks what a resync takes: of a site file, or of a file with just that.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn read_resync(file: &Path, set: &[String]) -> CommandResult<ResyncSpec> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|e| {
        CommandError::new(Code::File, format!("the file {name} cannot be read"))
            .why(e)
            .hint("`dssflow init glue-resync -o resync.yaml` writes one; a site file does as well")
    })?;
    let spec = dssflow_workflows::glue_resync::parse(&text, &name)?;
    if set.is_empty() {
        return Ok(spec);
    }
    let mut value: Value = serde_saphyr::from_str(&text)
        .map_err(|e| CommandError::new(Code::WrongSite, format!("{name} is no YAML")).why(e))?;
    for setting in set {
        apply_setting(&mut value, setting)?;
    }
    Ok(dssflow_workflows::glue_resync::parse(&value.to_string(), &format!("{name} with --set"))?)
}

/// The shipped example of a resync.
///
/// # Errors
/// Never: it is tested.
pub(crate) fn example_resync() -> CommandResult<ResyncSpec> {
    Ok(dssflow_workflows::glue_resync::parse(EXAMPLE_RESYNC, "the shipped example")?)
}

/// Reads and checks a file of images with the values of `--set` put in; contexts are as it sees them.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn read_images(file: &Path, set: &[String]) -> CommandResult<ImageSpec> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|e| {
        CommandError::new(Code::File, format!("the file {name} cannot be read"))
            .why(e)
            .hint("`dssflow run image -f FILE` names another one; docs/images.md has an example")
    })?;
    let mut spec = dssflow_workflows::image::parse(&text, &name)?;
    if !set.is_empty() {
        let mut value: Value = serde_saphyr::from_str(&text)
            .map_err(|e| CommandError::new(Code::WrongSite, format!("{name} is no YAML")).why(e))?;
        for setting in set {
            apply_setting(&mut value, setting)?;
        }
        spec = dssflow_workflows::image::parse(&value.to_string(), &format!("{name} with --set"))?;
    }
    let here = std::path::absolute(file)
        .map_err(|e| CommandError::new(Code::File, format!("{name} has no absolute path")).why(e))?;
    spec.resolve(here.parent().unwrap_or(Path::new("/")));
    Ok(spec)
}

/// The shipped example of images.
///
/// # Errors
/// Never: it is tested.
pub(crate) fn example_images() -> CommandResult<ImageSpec> {
    Ok(dssflow_workflows::image::parse(EXAMPLE_IMAGES, "the shipped example")?)
}

/// The shipped example with the values of `--set` put in.
///
/// # Errors
/// What `set` makes wrong.
pub(crate) fn example_site(set: &[String]) -> CommandResult<Site> {
    parse_site(EXAMPLE, "the shipped example", set)
}

fn parse_site(text: &str, name: &str, set: &[String]) -> CommandResult<Site> {
    if set.is_empty() {
        return Ok(dssflow_workflows::parse(text, name)?);
    }
    // What is wrong with the file itself is told with its own lines.
    dssflow_workflows::parse(text, name)?;
    let mut value: Value = serde_saphyr::from_str(text)
        .map_err(|e| CommandError::new(Code::WrongSite, format!("{name} is no YAML")).why(e))?;
    for setting in set {
        apply_setting(&mut value, setting)?;
    }
    // JSON is YAML, but its lines are not those of the file.
    Ok(dssflow_workflows::parse(&value.to_string(), &format!("{name} with --set")).map_err(
        |mut errors| {
            errors.problems.iter_mut().for_each(|p| p.line = None);
            errors
        },
    )?)
}

/// Puts `a.b[0].c=value` into a document; what is missing on the way is made.
fn apply_setting(document: &mut Value, setting: &str) -> CommandResult<()> {
    let wrong = |why: &str| {
        CommandError::new(Code::Usage, format!("--set {setting}: {why}"))
            .hint("it takes KEY=VALUE, as cluster.mode=sdk or connections[0].bucket=my-bucket")
    };
    let (path, text) = setting.split_once('=').ok_or_else(|| wrong("there is no ="))?;
    let new: Value =
        serde_saphyr::from_str(text).map_err(|e| wrong(&format!("the value is no YAML: {e}")))?;
    let mut place = document;
    for part in path.split('.') {
        let (key, indices) = part.split_once('[').map_or((part, ""), |(key, rest)| (key, rest));
        if key.is_empty() {
            return Err(wrong("a key is empty"));
        }
        if place.is_null() {
            *place = Value::Object(serde_json::Map::new());
        }
        let map = place
            .as_object_mut()
            .ok_or_else(|| wrong(&format!("what {key} is to be set in is no mapping")))?;
        place = map.entry(key).or_insert(Value::Null);
        for index in indices.split('[').filter(|i| !i.is_empty()) {
            let index: usize = index
                .strip_suffix(']')
                .and_then(|i| i.parse().ok())
                .ok_or_else(|| wrong("an index is written [0]"))?;
            let list = place.as_array_mut().ok_or_else(|| wrong(&format!("{key} is no list")))?;
            let length = list.len();
            place = list
                .get_mut(index)
                .ok_or_else(|| wrong(&format!("{key} has {length} items, counted from 0")))?;
        }
    }
    *place = new;
    Ok(())
}

/// The JSON Schema of the file that a workflow takes.
///
/// # Errors
/// When there is no such workflow.
pub(crate) fn schema(name: &str) -> CommandResult<Value> {
    let schema = match find(name)?.made_of {
        MadeOf::Images => dssflow_workflows::image::schema(),
        MadeOf::Resync => dssflow_workflows::glue_resync::schema(),
        MadeOf::Site | MadeOf::SiteAndRuns => dssflow_workflows::schema(),
    };
    Ok(schema)
}

/// Builds the workflow of that name.
///
/// # Errors
/// When there is none, or the site does not fit it.
pub(crate) fn build(name: &str, site: &Site) -> CommandResult<Workflow> {
    match find(name)?.made_of {
        MadeOf::Site => Ok(dssflow_workflows::bootstrap(site)?),
        MadeOf::SiteAndRuns => Err(CommandError::new(
            Code::Usage,
            format!("the steps of workflow {name} are those of the runs that it takes back"),
        )
        .hint("what they made: `dssflow resources ls`")
        .hint(format!("`dssflow run {name}` shows what goes before it asks"))),
        MadeOf::Resync => Ok(dssflow_workflows::glue_resync(&ResyncSpec::from(site))),
        MadeOf::Images => {
            Err(CommandError::new(Code::Usage, format!("workflow {name} is not made of a site"))
                .hint("name its own file with -f"))
        }
    }
}

/// The workflow `image` as this version has it, as [`definition`] for bootstrap.
pub(crate) fn image_definition() -> Definition {
    let name = WorkflowName::new(dssflow_workflows::image::NAME).expect("a name of ours");
    Definition::computed(name, dssflow_workflows::image::VERSION, |input| {
        let spec: ImageSpec = serde_json::from_value(input.clone()).map_err(|e| e.to_string())?;
        Ok(dssflow_workflows::image(&spec).graph)
    })
}

/// The workflow `glue-resync` as this version has it, as [`definition`] for bootstrap.
pub(crate) fn resync_definition() -> Definition {
    let name = WorkflowName::new(dssflow_workflows::glue_resync::NAME).expect("a name of ours");
    Definition::computed(name, dssflow_workflows::glue_resync::VERSION, |input| {
        let spec: ResyncSpec = serde_json::from_value(input.clone()).map_err(|e| e.to_string())?;
        Ok(dssflow_workflows::glue_resync(&spec).graph)
    })
}

/// The workflow as this version has it, for runs that are to be brought to it: made from what a run was given.
pub(crate) fn definition() -> Definition {
    let name = WorkflowName::new(bootstrap::NAME).expect("a name of ours");
    Definition::computed(name, bootstrap::VERSION, |input| {
        let site: Site = serde_json::from_value(input.clone()).map_err(|e| e.to_string())?;
        Ok(dssflow_workflows::bootstrap(&site).map_err(|e| e.to_string())?.graph)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_reach_into_lists_and_make_what_is_missing() {
        let mut document = serde_json::json!({ "a": { "b": [{ "c": 1 }] } });
        apply_setting(&mut document, "a.b[0].c=two").unwrap();
        apply_setting(&mut document, "x.y=3").unwrap();
        assert_eq!(document, serde_json::json!({ "a": { "b": [{ "c": "two" }] }, "x": { "y": 3 } }));
        for bad in ["a", "a.b[4].c=1", "a.b[x]=1", ".a=1", "a.b.c=1"] {
            assert_eq!(apply_setting(&mut document, bad).unwrap_err().code, Code::Usage, "{bad}");
        }
    }

    #[test]
    fn the_definition_makes_the_graph_that_a_run_was_made_with() {
        let site = example_site(&[]).unwrap();
        let workflow = build("bootstrap", &site).unwrap();
        assert_eq!(definition().graph(&workflow.input).unwrap().hash(), workflow.graph.hash());
        assert!(definition().graph(&Value::Null).is_err());
    }

    #[test]
    fn the_example_can_be_built_and_set() {
        let site = example_site(&["parallelism=3".to_owned()]).unwrap();
        assert_eq!(build("bootstrap", &site).unwrap().options.parallelism, 3);
        let error = example_site(&["paralelism=3".to_owned()]).unwrap_err();
        assert_eq!(error.code, Code::WrongSite);
        assert_eq!(find("boostrap").unwrap_err().hints, ["did you mean bootstrap?"]);
    }
}
