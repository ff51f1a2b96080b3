//! Logs for people who look for a cause: to stderr, `warn` and above unless asked for more. Never to stdout.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::error::{Code, CommandError, CommandResult};

/// Starts logging.
///
/// # Errors
/// When `level` is neither a level nor a list of `target=level`.
pub(crate) fn start(level: &str) -> CommandResult<()> {
    // Every place that was looked in for credentials and had none is a warning there, and each write that the disk
    // refuses is an error of sled's; the command's own error says it once.
    let quiet = if level == "warn" { "warn,aws_config=error,sled=off" } else { level };
    let filter = EnvFilter::try_new(quiet).map_err(|e| {
        CommandError::new(Code::Usage, format!("{level:?} is no log level: {e}"))
            .hint("--log takes error, warn, info, debug, trace, or a list as dssflow_engine=debug,warn")
    })?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A second start, as in tests, leaves the first as it is.
    drop(
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(colours)
            .try_init(),
    );
    Ok(())
}
