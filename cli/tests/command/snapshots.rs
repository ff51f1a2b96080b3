//! What commands print, held against files that are looked at when they change: transcripts of the main paths, and the
//! shapes of JSON. `DSSFLOW_WRITE_DOCS=1` writes the files anew. And JSON against the schemas that are published of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::sandbox::World;
use crate::support::{EXAMPLE, Home, Ran};

/// Compares with `snapshots/NAME.txt`.
#[track_caller]
fn check(name: &str, now: &str) {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name).with_extension("txt");
    if std::env::var_os("DSSFLOW_WRITE_DOCS").is_some() {
        std::fs::write(&path, now).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = now.lines().zip(written.lines()).find(|(now, then)| now != then);
    assert!(
        now == written,
        "{} is not what is printed now (first difference: {differs:#?}); look at it, and write it anew: DSSFLOW_WRITE_DOCS=1 \
         cargo test --workspace --test command -- snapshots streams\n{now}",
        path.display()
    );
}

/// A text without what differs from one time or machine to the next: paths, times, sizes, ids that were drawn.
fn timeless(text: &str, home: &str) -> String {
    let text = text.replace(home, "HOME");
    let mut out = String::new();
    for line in text.lines() {
        // Columns shift with what stands in them.
        let indent = line.len() - line.trim_start().len();
        let words: Vec<&str> = line.split_whitespace().collect();
        let next = |n: usize| words.get(n + 1).map_or("", |word| bare(word));
        let all = words.iter().enumerate().map(|(n, word)| {
            let counts = bare(word).bytes().all(|b| b.is_ascii_digit() || b == b'.');
            if counts && UNITS.contains(&next(n)) { "N".to_owned() } else { masked(word) }
        });
        let mut line = " ".repeat(indent) + &all.collect::<Vec<_>>().join(" ");
        for unit in UNITS {
            // What takes a moment more may have a smaller part as well.
            for end in [" ", ",", ")", ":", ""] {
                let (counted, masked) = (format!("N {unit}{end}"), format!("TOOK{end}"));
                if !end.is_empty() {
                    line = line.replace(&counted, &masked);
                } else if let Some(head) = line.strip_suffix(&counted) {
                    line = head.to_owned() + &masked;
                }
            }
        }
        while line.contains("TOOK TOOK") {
            line = line.replace("TOOK TOOK", "TOOK");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// What stands behind numbers that differ each time.
const UNITS: [&str; 7] = ["s", "ms", "min", "h", "KiB", "MiB", "bytes"];

/// A word without what stands around it.
fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| "(),;:|".contains(c))
}

/// A word whose drawn parts are replaced.
fn masked(word: &str) -> String {
    let text = bare(word);
    let dated =
        text.len() >= 9 && text.bytes().filter(|b| b":-".contains(b)).count() >= 2 && text.ends_with('Z')
            || text.len() == 10 && text.starts_with("20") && text.bytes().filter(|b| *b == b'-').count() == 2;
    if dated {
        return word.replace(text, "TIME");
    }
    // Hexadecimal ids, and ports of this machine.
    let mut out = String::new();
    let mut rest = word;
    while !rest.is_empty() {
        let run: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
        let drawn = run.len() >= 8
            && run.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
            && run.bytes().any(|b| b.is_ascii_digit())
            && run != "123456789012";
        let port = out.ends_with("127.0.0.1:");
        out.push_str(if drawn {
            "ID"
        } else if port {
            "PORT"
        } else {
            &run
        });
        rest = &rest[run.len()..];
        if let Some(c) = rest.chars().next() {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// Runs a command to its end.
type Command<'a> = dyn Fn(&[&str]) -> Ran + 'a;

/// Commands and all they printed.
struct Transcript<'a> {
    run: Box<Command<'a>>,
    home: String,
    text: String,
}

impl<'a> Transcript<'a> {
    fn new(home: &Home, run: impl Fn(&[&str]) -> Ran + 'a) -> Self {
        Self { run: Box::new(run), home: home.dir.path().to_str().unwrap().to_owned(), text: String::new() }
    }

    /// One command, with what reached both streams and how it ended.
    fn add(&mut self, args: &[&str]) {
        let ran = (self.run)(args);
        let shown =
            args.iter().map(|arg| if arg.contains(' ') { format!("'{arg}'") } else { (*arg).to_owned() });
        writeln!(self.text, "$ dssflow {}", shown.collect::<Vec<_>>().join(" ")).unwrap();
        self.text.push_str(&timeless(&ran.out, &self.home));
        for line in timeless(&ran.err, &self.home).lines() {
            self.text.push_str(format!("stderr: {line}").trim_end());
            self.text.push('\n');
        }
        writeln!(self.text, "exit {}\n", ran.exit).unwrap();
    }
}

#[test]
fn errors_and_looks_without_a_world_are_as_they_were() {
    let home = Home::new();
    let mut errors = Transcript::new(&home, |args| home.run(args));
    home.write("site.yaml", EXAMPLE);
    home.write(
        "wrong.yaml",
        &EXAMPLE
            .replace("service_user: dssuser", "service_usr: dssuser")
            .replace("access_key_id: { env: OPS_ACCESS_KEY_ID }", "access_key_id: AKIAIOSFODNN7EXAMPLE")
            .replace("credentials: sales", "credentials: salse"),
    );
    for args in [
        &["rnu"][..],
        &["run", "bootsrap"],
        &["run", "bootstrap", "-f", "nowhere.yaml"],
        &["run", "bootstrap", "-f", "wrong.yaml", "--yes"],
        &["run", "bootstrap", "-f", "wrong.yaml", "--yes", "--error-format", "json"],
        &["run", "bootstrap"],
        &["run", "bootstrap", "--yes", "--set", "paralelism=3"],
        &["runs", "get", "nobody"],
        &["runs", "get", "nobody", "--error-format", "json"],
        &["runs", "ls"],
        &["runs", "ls", "-o", "json"],
        &["runs", "ls", "--status", "faild"],
        &["runs", "ls", "--since", "yesterdy"],
        &["serve", "--token-file", "token"],
        &["schedules", "create", "a", "--workflow", "bootstrap", "-f", "site.yaml", "--cron", "x"],
        &["explain", "df9999"],
        &["explain", "10"],
        &["workflows", "ls"],
        &["workflows", "get", "bootstrap"],
        &["workflows", "get", "bootsrap"],
    ] {
        errors.add(args);
    }
    check("errors", &errors.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn looks_at_a_store_are_as_they_were() {
    let home = Home::new();
    std::fs::create_dir_all(home.store().parent().unwrap()).unwrap();
    crate::product::seed(&home.store()).await;
    let mut looks = Transcript::new(&home, |args| home.run(args));
    for args in [
        &["runs", "ls"][..],
        &["runs", "get"],
        &["runs", "watch"],
        &["runs", "events"],
        &["why"],
        &["runs", "graph"],
        &["resources", "ls"],
        &["rollback", "@latest", "--dry-run"],
        &["resume"],
        &["skip", "@latest", "nevr", "--reason", "r"],
        &["approve", "@latest", "never"],
        &["retry", "@latest", "--step", "lst", "--reason", "r"],
        &["store", "verify"],
    ] {
        looks.add(args);
    }
    check("looks", &looks.text);
    let mut shapes = Shapes::new();
    for (name, args) in [
        ("runs ls", &["runs", "ls"][..]),
        ("runs get", &["runs", "get"]),
        ("runs events", &["runs", "events"]),
        ("runs timeline", &["runs", "timeline"]),
        ("why", &["why"]),
        ("store info", &["store", "info"]),
        ("workflows ls", &["workflows", "ls"]),
        ("workflows get", &["workflows", "get", "bootstrap"]),
        ("rollback --dry-run", &["rollback", "@latest", "--dry-run"]),
        ("version", &["version"]),
        ("store verify", &["store", "verify"]),
        ("config show", &["config", "show", "--sources"]),
        ("config show", &["config", "show"]),
        ("config path", &["config", "path"]),
        ("runs graph", &["runs", "graph"]),
        ("workflows graph", &["workflows", "graph", "bootstrap"]),
        ("runs prune", &["runs", "prune", "--older-than", "0s", "--dry-run"]),
        ("store compact", &["store", "compact"]),
    ] {
        shapes.add(name, &home.run(&[args, &["-o", "json"]].concat()));
    }
    let ran = home.run(&["runs", "get", "nobody", "--error-format", "json"]);
    shapes.add("error", &Ran { out: ran.err.clone(), ..ran });
    check("json-looks", &shapes.text);
}

/// What stands in a world before a run; the plan and the checks.
pub(crate) fn before_a_run(world: &World) {
    let mut before = Transcript::new(&world.0, |args| Ran::from(world.command(args).output().unwrap()));
    for args in [
        &["plan", "bootstrap", "--sandbox"][..],
        &["preflight", "bootstrap", "--sandbox", "--only", "P01", "--only", "P09", "--only", "P10"],
        &["run", "bootstrap", "--sandbox", "--set", "cluster.security_groups=[sg-0123456789abcdef0]"],
    ] {
        before.add(args);
    }
    check("before", &before.text);
}

/// What stands there after it: the tree, the plan that has nothing to do, and what a rollback would do.
pub(crate) fn after_a_run(world: &World) {
    const RUN: &str = "bootstrap-sandbox";
    let does = |args: &[&str]| Ran::from(world.command(args).output().unwrap());
    let mut after = Transcript::new(&world.0, does);
    for args in [
        &["runs", "get", RUN][..],
        &["why", RUN],
        &["drift", RUN],
        // Directories that several steps need belong to the first that comes, which is chance; here are none.
        &["rollback", RUN, "--dry-run", "--to", "api-key"],
        &["run", "bootstrap", "--sandbox", "--plan", "nowhere.json"],
    ] {
        after.add(args);
    }
    check("after", &after.text);
    let mut shapes = Shapes::new();
    for (name, args) in [
        ("runs ls", &["runs", "ls"][..]),
        ("runs get", &["runs", "get", RUN]),
        ("runs events", &["runs", "events", RUN]),
        ("runs logs", &["runs", "logs", RUN]),
        ("runs timeline", &["runs", "timeline", RUN]),
        ("why", &["why", RUN]),
        ("drift", &["drift", RUN]),
        ("resources ls", &["resources", "ls", RUN]),
        ("resources verify", &["resources", "verify", RUN]),
        ("rollback --dry-run", &["rollback", RUN, "--dry-run"]),
        ("plan", &["plan", "bootstrap", "--sandbox"]),
        ("preflight", &["preflight", "bootstrap", "--sandbox"]),
        ("plan teardown", &["plan", "teardown", "--sandbox"]),
        ("plan glue-resync", &["plan", "glue-resync", "--sandbox"]),
        ("resources orphans", &["resources", "orphans", RUN]),
        ("sandbox status", &["sandbox", "status"]),
        ("sandbox faults show", &["sandbox", "faults", "show"]),
        (
            "schedules create",
            &["schedules", "create", "s", "--workflow", "glue-resync", "--sandbox", "--every", "1d"],
        ),
        ("schedules update", &["schedules", "update", "s", "--every", "2d"]),
        ("schedules get", &["schedules", "get", "s"]),
        ("schedules ls", &["schedules", "ls"]),
        ("schedules next", &["schedules", "next", "s"]),
        ("schedules backfill", &["schedules", "backfill", "s", "--from", "4d", "--to", "1d", "--dry-run"]),
    ] {
        shapes.add(name, &does(&[args, &["-o", "json"]].concat()));
    }
    shapes.add("sandbox datasets", &does(&["sandbox", "datasets", "-o", "json"]));
    does(&["run", "glue-resync", "--sandbox"]);
    shapes.add("sandbox spoil", &does(&["sandbox", "spoil", "-o", "json"]));
    check("json-world", &shapes.text);
}

/// Members with what the outside world, a workflow or a file says: of any shape.
const ANY: [&str; 9] =
    ["output", "input", "before", "after", "details", "heartbeat", "fields", "labels", "spec"];

/// What members JSON has, and of which types, one a line; and whether it is as its schema says.
struct Shapes {
    text: String,
    schema: Value,
}

impl Shapes {
    fn new() -> Self {
        let schema = include_str!("../../../docs/reference/output.schema.json");
        Self { text: String::new(), schema: serde_json::from_str(schema).unwrap() }
    }

    #[track_caller]
    fn add(&mut self, name: &str, ran: &Ran) {
        let value: Value = serde_json::from_str(&ran.out)
            .unwrap_or_else(|e| panic!("{name}: {e}\n{}\n{}", ran.out, ran.err));
        let mut members = BTreeMap::new();
        shape("", &value, &mut members);
        writeln!(self.text, "{name}").unwrap();
        for (member, types) in members {
            let types: Vec<&str> = types.into_iter().collect();
            writeln!(self.text, "  {member}: {}", types.join(" or ")).unwrap();
        }
        let schema =
            self.schema["commands"].get(name).unwrap_or_else(|| panic!("no shape is said of {name}"));
        let mut wrong = Vec::new();
        fits(schema, &value, &self.schema, name, &mut wrong);
        assert!(wrong.is_empty(), "not as docs/reference/output.schema.json says:\n{}", wrong.join("\n"));
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn shape<'a>(at: &str, value: &'a Value, members: &mut BTreeMap<String, BTreeSet<&'a str>>) {
    let here = if at.is_empty() { "." } else { at };
    let kinds = members.entry(here.to_owned()).or_default();
    let last = at.rsplit('.').next().unwrap_or_default();
    if ANY.contains(&last) {
        kinds.insert("anything");
        return;
    }
    kinds.insert(kind(value));
    match value {
        Value::Array(items) => items.iter().for_each(|item| shape(&format!("{at}[]"), item, members)),
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            // Names of runs, places of files: keys that are data.
            let data = key.contains(['-', '/', '.', ':']);
            shape(&format!("{at}.{}", if data { "*" } else { key }), value, members);
        }),
        _ => {}
    }
}

/// Whether a value is as a schema says, as far as the schemas made of our types say it.
fn fits(schema: &Value, value: &Value, root: &Value, at: &str, wrong: &mut Vec<String>) {
    if let Some(place) = schema["$ref"].as_str() {
        let pointer = place.trim_start_matches('#');
        let Some(schema) = root.pointer(pointer) else {
            return wrong.push(format!("{at}: there is no {place}"));
        };
        fits(schema, value, root, at, wrong);
    }
    let fits_one = |schema: &Value| {
        let mut inner = Vec::new();
        fits(schema, value, root, at, &mut inner);
        inner.is_empty()
    };
    for any in ["anyOf", "oneOf"] {
        if let Some(all) = schema[any].as_array()
            && !all.iter().any(fits_one)
        {
            wrong.push(format!("{at}: fits none of {any}: {value}"));
        }
    }
    for schema in schema["allOf"].as_array().into_iter().flatten() {
        fits(schema, value, root, at, wrong);
    }
    let named = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = |name: &&str| *name == kind(value) || *name == "integer" && (value.is_u64() || value.is_i64());
    if !named.is_empty() && !named.iter().any(is) {
        wrong.push(format!("{at}: is {value} and not {named:?}"));
    }
    if schema.get("const").is_some_and(|only| only != value)
        || schema["enum"].as_array().is_some_and(|all| !all.contains(value))
    {
        wrong.push(format!("{at}: {value} is not one of {schema}"));
    }
    if let Some(object) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                wrong.push(format!("{at}: has no {name}"));
            }
        }
        for (name, value) in object {
            if let Some(schema) = schema["properties"].get(name) {
                fits(schema, value, root, &format!("{at}.{name}"), wrong);
            } else if schema["additionalProperties"].is_object() {
                fits(&schema["additionalProperties"], value, root, &format!("{at}.{name}"), wrong);
            } else if schema["additionalProperties"] == false {
                wrong.push(format!("{at}: {name} is not in the schema"));
            }
        }
    }
    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
        if schema["items"].is_object() {
            fits(&schema["items"], item, root, &format!("{at}[{n}]"), wrong);
        }
    }
}

#[test]
fn the_checks_of_snapshots_see_what_is_wrong() {
    assert_eq!(
        timeless(
            "  ✓ a   succeeded   0.4 s  i-0a1b2c3d4e5f60718 http://127.0.0.1:4151/x\nat 2026-11-23 14:05:09Z, 3 min 5 s",
            "/h"
        ),
        "  ✓ a succeeded TOOK i-ID http://127.0.0.1:PORT/x\nat TIME TIME, TOOK\n"
    );
    let root = serde_json::json!({ "$defs": { "N": { "type": ["integer", "null"] } },
        "properties": { "n": { "$ref": "#/$defs/N" }, "k": { "const": "x" } }, "required": ["n"] });
    let wrong = |value: Value| {
        let mut wrong = Vec::new();
        fits(&root, &value, &root, "it", &mut wrong);
        wrong.len()
    };
    assert_eq!(wrong(serde_json::json!({ "n": 1, "k": "x", "more": true })), 0);
    assert_eq!(wrong(serde_json::json!({ "n": "1" })), 1);
    assert_eq!(wrong(serde_json::json!({ "k": "y" })), 2);
}
