//! The options of the commands that look at a DSS.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum DssCommand {
    /// Print the overlay that makes a site fit how this DSS spells its settings; reads only
    #[command(
        after_help = "Set the option once by hand in DSS, then capture the object. What is printed goes into the site \
                      file; secrets are never printed.\n\n\
                      Examples:\n  dssflow dss capture connection s3-main -f site.yaml\n  \
                      dssflow dss capture general-settings --run @latest\n  \
                      dssflow dss capture plugin eks-clusters --sandbox"
    )]
    Capture(CaptureArgs),
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CaptureKind {
    /// A connection, by name: an S3 connection with the link to its pair, or an Athena connection.
    Connection,
    /// Container and Spark configurations and the metastore.
    GeneralSettings,
    /// The settings of a plugin, by id.
    Plugin,
    /// A cluster, by id.
    Cluster,
}

#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    /// What to look at
    #[arg(value_enum)]
    pub(crate) kind: CaptureKind,
    /// Its name or id; general-settings have none
    #[arg(required_if_eq_any = [("kind", "connection"), ("kind", "plugin"), ("kind", "cluster")])]
    pub(crate) name: Option<String>,
    /// The site file [default: site.yaml; with --sandbox the one that comes with it]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The site a run was created with, instead of a file
    #[arg(long, value_name = "RUN", conflicts_with = "file")]
    pub(crate) run: Option<String>,
    /// Look at the DSS of the sandbox
    #[arg(long, conflicts_with = "run")]
    pub(crate) sandbox: bool,
}
