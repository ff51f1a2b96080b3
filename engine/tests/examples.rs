//! Every example runs to its end, checks itself, and says what it is there to say. The web service is used as somebody
//! does who has copied it.
//!
//! The programs are those that `cargo test` builds along with the tests; nothing is built here.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// Where cargo puts examples: beside the folder of this test.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let profile = test.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let program = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        program.exists(),
        "{} is not there; build it with: cargo build -p dssflow-engine --examples",
        program.display()
    );
    program
}

fn check(name: &str, line: &str) {
    let program = program(name);
    let output = Command::new(&program).output().expect("a program can be started");
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} ended with {}\n{said}{complained}", output.status);
    assert!(said.lines().any(|said| said == line), "{name} did not say {line:?}:\n{said}{complained}");
}

macro_rules! examples {
    ($($name:ident: $line:literal,)*) => {
        const EXAMPLES: &[&str] = &[$(stringify!($name),)*];

        $(
            #[test]
            fn $name() {
                check(stringify!($name), $line);
            }
        )*
    };
}

examples! {
    approval: "build of 1.4 published, approved by ada",
    custom_store: "the next owner of the file reads: succeeded",
    hello: r#"the run returned "HELLO, WORLD""#,
    map: "15 words, 1 file could not be read",
    resume_after_crash: "second process: shipped, receipt for 995 cents",
    saga: "nothing is booked",
    sub_workflow: "the run above is rolled_back",
    virtual_clock: "32 days and 1 crash later",
}

#[test]
fn every_example_is_run() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let there: BTreeSet<String> = std::fs::read_dir(sources)
        .expect("the examples are part of the crate")
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let run: BTreeSet<String> = EXAMPLES.iter().chain(&["embed_in_axum"]).map(ToString::to_string).collect();
    assert_eq!(there, run, "an example is not run, or not there");
}

/// The web service, which ends with the test.
struct Service {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
    address: String,
}

impl Service {
    fn start(store: &Path) -> Self {
        let mut command = Command::new(program("embed_in_axum"));
        let mut child = command.arg(store).arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        let address = address.unwrap_or_else(|| panic!("it says where it listens, not {line:?}")).to_owned();
        Self { child, said, address }
    }

    /// A request as small as it can be; the status and the body.
    fn call(&self, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split_whitespace().nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Asks until something is so.
    #[track_caller]
    fn until(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut answer = Value::Null;
        // A minute, and more on a machine that is slow.
        for _ in 0..1_200 {
            answer = self.get(path);
            if is_so(&answer) {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{path} never was as it should be: {answer:#}");
    }

    /// Ends it as Ctrl-C does. What it said since it listened.
    fn ctrl_c(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let mut said = String::new();
        self.said.read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop((self.child.kill(), self.child.wait()));
    }
}

/// The runs of the schedule that have succeeded, by name.
fn fired(schedules: &Value) -> BTreeSet<String> {
    let schedule = &schedules[0];
    assert_eq!(schedule["schedule"], "standing-order");
    let recent = schedule["recent"].as_array().unwrap().iter();
    recent.filter(|r| r["status"] == "succeeded").map(|r| r["run"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn embed_in_axum() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let service = Service::start(&store);
    assert_eq!(service.call("POST", "/invoices/july/995"), (200, r#"{"run":"july"}"#.to_owned()));
    assert_eq!(
        service.call("POST", "/invoices/july/995").0,
        409,
        "a request that is sent twice starts one run"
    );
    let july = service.until("/runs/july", |run| run["status"] == "succeeded");
    assert_eq!(july["output"], "invoice over 995 cents");
    assert_eq!(service.call("GET", "/runs/august").0, 404);
    assert_eq!(service.call("GET", "/runs/no%20name").0, 400);
    let schedules = service.until("/schedules", |all| !fired(all).is_empty());
    let before = fired(&schedules);
    let run = before.first().unwrap();
    let run = service.get(&format!("/runs/{run}"));
    let output = run["output"].as_str().unwrap();
    assert!(output.starts_with("invoice of 20") && output.ends_with("Z over 2500 cents"), "{output}");
    assert_eq!(service.ctrl_c(), "stopped\n");

    // All of it is there for the next one, and the schedule goes on.
    let service = Service::start(&store);
    assert_eq!(service.get("/runs/july"), july);
    let schedules = service.until("/schedules", |all| fired(all).difference(&before).next().is_some());
    let after = fired(&schedules);
    assert!(after.is_superset(&before), "{before:?} {after:?}");
    assert_eq!(schedules.as_array().map(Vec::len), Some(1), "there is one schedule, however often it starts");
    assert_eq!(schedules[0]["request"], json!({ "by": "the service" }));
    assert_eq!(service.ctrl_c(), "stopped\n");
}
