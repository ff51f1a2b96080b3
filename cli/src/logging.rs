//! Logs for people who look for a cause: to stderr, `warn` and above unless asked for more, as text or JSON; never to
//! stdout. And one file a run, kept beside the store by whoever drives it, so that what happened can still be told later.
//!
//! Whatever was said while a run, a step or an attempt was under way carries its ids: they stand in the spans that the
//! engine opens, and those are always open, whatever the level. `record` is one line in either form, `runs` are the files.

mod record;
pub(crate) mod runs;

use std::fmt;
use std::io::IsTerminal as _;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record as Values};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::LogFormat;
use crate::config;
use crate::error::{Code, CommandError, CommandResult};
use crate::ui;
pub(crate) use record::Record;
use record::{Form, Ids};

/// The variable that says what the files of runs get.
pub(crate) const RUN_LOG: &str = "DSSFLOW_RUN_LOG";
/// What they get unless it says otherwise.
const RUN_LEVEL: &str = "info";
/// Every place that was looked in for credentials and had none is a warning there, and each write that the disk refuses is an
/// error of sled's; the command's own error says it once.
const QUIET: &str = "aws_config=error,sled=off";

/// Starts logging.
///
/// # Errors
/// When `level`, or what the environment says of the files of runs, is neither a level nor a list of `target=level`.
pub(crate) fn start(level: &str, format: LogFormat) -> CommandResult<()> {
    let terminal = targets("--log", level)?;
    let said = || config::files().find(|file| file.run_log.clone()).map(|(level, _)| level);
    let wanted = std::env::var(RUN_LOG).ok().or_else(said).unwrap_or_else(|| RUN_LEVEL.to_owned());
    let files = targets(RUN_LOG, &wanted)?;
    let colours = std::io::stderr().is_terminal() && !ui::is_plain();
    let form = match format {
        LogFormat::Text => Form::Text { colours },
        LogFormat::Json => Form::Json,
    };
    // A second start, as in tests, leaves the first as it is.
    drop(tracing_subscriber::registry().with(Logs { terminal, files, form }).try_init());
    Ok(())
}

/// Whether `text`, said with `key`, is a level or a list of `target=level`.
///
/// # Errors
/// When it is neither.
pub(crate) fn check_level(key: &str, text: &str) -> CommandResult<()> {
    targets(key, text).map(drop)
}

fn targets(flag: &str, text: &str) -> CommandResult<Targets> {
    let one_level = text.parse::<LevelFilter>().is_ok();
    let quiet = if one_level && ["warn", "info"].iter().any(|level| text.eq_ignore_ascii_case(level)) {
        format!("{text},{QUIET}")
    } else {
        text.to_owned()
    };
    let parsed = quiet.parse::<Targets>();
    // A single word that is no level would be taken for a target.
    let word = !one_level && !text.contains(['=', ',']);
    match parsed {
        Ok(targets) if !word => Ok(targets),
        _ => Err(CommandError::new(Code::Usage, format!("{text:?} is no log level")).hint(format!(
            "{flag} takes error, warn, info, debug, trace, off, or a list as dssflow_engine=debug,warn"
        ))),
    }
}

/// Sends what is said where it is wanted.
struct Logs {
    terminal: Targets,
    files: Targets,
    form: Form,
}

/// Whether a span may carry ids.
fn has_ids(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target().starts_with("dssflow")
}

impl Logs {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        has_ids(metadata) || self.for_terminal(metadata) || self.for_files(metadata)
    }

    fn for_terminal(&self, metadata: &Metadata<'_>) -> bool {
        self.terminal.would_enable(metadata.target(), metadata.level())
    }

    fn for_files(&self, metadata: &Metadata<'_>) -> bool {
        self.files.would_enable(metadata.target(), metadata.level())
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Logs {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let most = |targets: &Targets| {
            targets
                .iter()
                .map(|(_, level)| level)
                .chain(targets.default_level())
                .max()
                .unwrap_or(LevelFilter::OFF)
        };
        Some(most(&self.terminal).max(most(&self.files)).max(LevelFilter::INFO))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id).filter(|_| has_ids(attributes.metadata())) else { return };
        let mut ids = Ids::default();
        attributes.record(&mut ids);
        span.extensions_mut().replace(ids);
    }

    fn on_record(&self, id: &Id, values: &Values<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(ids) = span.extensions_mut().get_mut::<Ids>() {
            values.record(ids);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let (terminal, files) = (self.for_terminal(metadata), self.for_files(metadata));
        if !(terminal || files) {
            return;
        }
        let mut ids = Ids::default();
        // From the outermost span inwards: what is nearer is more exact.
        for span in
            context.event_scope(event).into_iter().flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            if let Some(of_span) = span.extensions().get::<Ids>() {
                ids.take(of_span);
            }
        }
        let mut said = Said::default();
        event.record(&mut said);
        let record = Record::new(
            crate::progress::now(),
            *metadata.level(),
            metadata.target(),
            ids,
            said.message,
            said.fields,
        );
        if terminal {
            ui::write_above(&record.line(self.form));
        }
        if files {
            runs::write(&record);
        }
    }
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    fields: serde_json::Map<String, serde_json::Value>,
}

impl Said {
    fn add(&mut self, field: &Field, value: serde_json::Value) {
        if field.name() == "message" {
            self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        } else {
            self.fields.insert(field.name().to_owned(), value);
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, value.to_string().into());
    }
}

/// The level written so.
pub(crate) fn level(text: &str) -> Option<Level> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn levels_and_lists_are_taken_and_words_are_not() {
        for good in ["warn", "TRACE", "off", "dssflow_engine=debug,warn", "a=info"] {
            assert!(targets("--log", good).is_ok(), "{good}");
        }
        for bad in ["loud", "warm", "warn,a=loud"] {
            assert_eq!(targets("--log", bad).unwrap_err().code, Code::Usage, "{bad}");
        }
        let warn = targets("--log", "warn").unwrap();
        assert!(!warn.would_enable("aws_config::meta", &Level::WARN));
        assert!(warn.would_enable("dssflow", &Level::WARN));
    }

    /// Collects records as the files of runs would get them.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<Record>>>);

    struct Listener(Heard);

    impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Listener {
        fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
            let mut ids = Ids::default();
            let scope = context.event_scope(event).into_iter();
            for span in scope.flat_map(tracing_subscriber::registry::Scope::from_root) {
                if let Some(of_span) = span.extensions().get::<Ids>() {
                    ids.take(of_span);
                }
            }
            let mut said = Said::default();
            event.record(&mut said);
            let (level, target) = (*event.metadata().level(), event.metadata().target());
            let at = dssflow_engine::time::Timestamp::from_millis(0);
            self.0.0.lock().unwrap().push(Record::new(at, level, target, ids, said.message, said.fields));
        }
    }

    #[test]
    fn what_is_said_in_an_attempt_carries_its_ids_at_any_level() {
        let heard = Heard::default();
        let logs = Logs {
            terminal: targets("--log", "off").unwrap(),
            files: targets("--log", "error").unwrap(),
            form: Form::Json,
        };
        let subscriber = tracing_subscriber::registry().with(logs).with(Listener(heard.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let run = tracing::info_span!(target: "dssflow_engine", "run", run = "lab", workflow = "w");
            let attempt = run.in_scope(|| {
                tracing::info_span!(target: "dssflow_engine", "attempt", run = "lab", step = "copy", attempt = 3_u32)
            });
            attempt.in_scope(|| tracing::error!(code = "Busy", n = 2, "no\u{1b}[2J room"));
            tracing::error!("elsewhere");
        });
        let heard = heard.0.lock().unwrap();
        assert_eq!(
            heard[0].line(Form::Text { colours: false }),
            "1970-01-01T00:00:00.000Z ERROR dssflow::logging::tests run=lab step=copy attempt=3: no\\u001b[2J room \
             code=Busy n=2"
        );
        let json: serde_json::Value = serde_json::from_str(&heard[0].line(Form::Json)).unwrap();
        assert_eq!(
            (&json["run"], &json["attempt"], &json["fields"]["n"]),
            (&"lab".into(), &3.into(), &2.into())
        );
        assert_eq!(json["message"], "no\u{1b}[2J room");
        assert!(heard[1].ids.run.is_none(), "{:?}", heard[1]);
    }
}
