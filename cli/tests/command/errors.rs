//! Every code that an error can have, provoked for real: how the command ends, the code, a hint, and a command to type next,
//! for people and for programs. The list below has all codes of the catalogue, and says of those that no command can be
//! brought to give here why not.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dssflow_engine::graph::Binding;
use dssflow_engine::id::{ActivityName, RunId, StepName, WorkflowName};
use dssflow_engine::{ActivityContext, ActivityError, ActivityRegistry, Engine, Graph, StartRun, Step};
use serde_json::{Value, json};

use crate::sandbox::World;
use crate::support::{EXAMPLE, Home, Ran, open};
use crate::tty::Tty;

/// How it is known that an error comes as it should.
enum Shown {
    /// The test that provokes it.
    By(&'static str),
    /// Why nothing here can.
    Never(&'static str),
}
use Shown::{By, Never};

const CODES: &[(&str, Shown)] = &[
    ("DF0001", Never("a defect of dssflow: were one known it would be mended")),
    ("DF0002", By("what_is_typed_wrong_is_told")),
    ("DF0003", By("what_is_typed_wrong_is_told")),
    ("DF0004", By("a_store_says_what_it_does_not_have_or_allow")),
    ("DF0005", By("a_store_says_what_it_does_not_have_or_allow")),
    ("DF0006", By("what_is_typed_wrong_is_told")),
    ("DF0007", By("a_store_says_what_it_does_not_have_or_allow")),
    ("DF0008", By("what_is_typed_wrong_is_told")),
    ("DF0009", By("somebody_says_no")),
    ("DF0010", By("a_store_says_who_has_it_and_that_it_is_damaged")),
    ("DF0011", By("a_store_says_who_has_it_and_that_it_is_damaged")),
    ("DF0012", By("a_store_says_who_has_it_and_that_it_is_damaged")),
    ("DF0013", By("what_is_typed_wrong_is_told")),
    (
        "DF0014",
        Never(
            "the disk has to fail in the middle of a write: tests of durability do that below the store; error.rs shows what is said",
        ),
    ),
    ("DF0015", By("a_store_says_what_it_does_not_have_or_allow")),
    ("DF0016", By("a_store_says_what_it_does_not_have_or_allow")),
    ("DF0017", By("a_world_that_does_not_fit_is_told")),
    ("DF0018", By("a_world_that_does_not_fit_is_told")),
    (
        "DF0019",
        Never(
            "it takes two versions of dssflow with activities whose outputs differ; see error.rs and the engine's tests of upgrades",
        ),
    ),
    ("DF0020", By("what_is_typed_wrong_is_told")),
    ("DF0021", By("a_world_that_does_not_fit_is_told")),
    ("DF0022", By("a_world_that_does_not_fit_is_told")),
    ("DF0023", By("what_is_typed_wrong_is_told")),
    ("DF0030", By("a_sandbox_that_does_not_start_says_so")),
    ("DF0031", By("a_store_says_what_it_does_not_have_or_allow")),
    ("DF0032", By("what_is_typed_wrong_is_told")),
    ("DF0033", By("what_is_typed_wrong_is_told")),
    ("DF0034", By("a_world_that_does_not_fit_is_told")),
    ("DF0040", By("a_full_disk_is_told")),
    ("DF0041", By("what_is_typed_wrong_is_told")),
    ("DF0050", By("what_is_typed_wrong_is_told")),
    ("DF0051", By("a_store_says_what_it_does_not_have_or_allow")),
    (
        "DF0060",
        Never(
            "a daemon refuses orders only in the moment in which it saves its runs; serve.rs does that in one place",
        ),
    ),
    ("DF0061", By("what_is_typed_wrong_is_told")),
    ("DF0062", By("what_is_typed_wrong_is_told")),
    ("DF0063", By("no_route_answers_without_the_token")),
    ("DF0070", By("a_store_says_what_it_does_not_have_or_allow")),
    ("DF0071", By("what_is_typed_wrong_is_told")),
    ("DF0072", By("a_store_says_what_it_does_not_have_or_allow")),
    ("DF0100", By("a_site_that_is_wrong_is_told_by_its_codes")),
    ("DF0101", By("a_site_that_is_wrong_is_told_by_its_codes")),
    ("DF0102", By("a_site_that_is_wrong_is_told_by_its_codes")),
    ("DF0103", By("a_site_that_is_wrong_is_told_by_its_codes")),
    ("DF0104", By("a_site_that_is_wrong_is_told_by_its_codes")),
    ("DF0105", By("a_site_that_is_wrong_is_told_by_its_codes")),
    ("DF0106", By("a_site_that_is_wrong_is_told_by_its_codes")),
    ("DF0107", By("a_site_that_is_wrong_is_told_by_its_codes")),
    ("DF0108", By("a_site_that_is_wrong_is_told_by_its_codes")),
    ("DF0109", By("a_site_that_is_wrong_is_told_by_its_codes")),
    ("DF0110", By("a_site_that_is_wrong_is_told_by_its_codes")),
    ("DF0150", By("of_a_dss")),
    ("DF0151", By("of_a_dss")),
    ("DF0152", By("what_is_typed_wrong_is_told")),
    ("DF0160", By("a_site_that_is_wrong_is_told_by_its_codes")),
    ("DF0180", By("what_is_typed_wrong_is_told")),
    ("DF0181", By("a_world_that_does_not_fit_is_told")),
    ("DF0190", By("what_is_typed_wrong_is_told")),
];

/// Sources of tests below a folder.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_code_is_provoked_by_a_test_that_is_there() {
    let known = Home::new().run(&["explain"]).out;
    let known: BTreeSet<&str> = known.lines().map(|line| line.split(':').next().unwrap()).collect();
    let listed: BTreeSet<&str> = CODES.iter().map(|(code, _)| *code).collect();
    assert_eq!(listed.len(), CODES.len(), "a code stands there twice");
    let (new, gone): (Vec<_>, Vec<_>) =
        (known.difference(&listed).collect(), listed.difference(&known).collect());
    assert!(new.is_empty() && gone.is_empty(), "not in CODES: {new:?}; no code any more: {gone:?}");

    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut texts = Vec::new();
    sources(&root.join("cli/tests"), &mut texts);
    sources(&root.join("tests"), &mut texts);
    for (code, shown) in CODES {
        match shown {
            By(test) => {
                // The test's own file names the code as well, besides this list.
                let shows = |text: &&String| {
                    let here = text.contains("const CODES: &[");
                    let named = text.matches(code).count();
                    text.contains(&format!("fn {test}(")) && named > usize::from(here)
                };
                assert!(texts.iter().any(|text| shows(&text)), "{code}: no test {test} that names it");
            }
            Never(why) => assert!(why.len() > 20, "{code}: why not?"),
        }
    }
}

/// Whether a text has a command to type.
fn has_command(text: &str) -> bool {
    const FIRST: [&str; 16] = [
        "run",
        "runs",
        "resume",
        "rollback",
        "retry",
        "rerun",
        "why",
        "plan",
        "preflight",
        "explain",
        "store",
        "sandbox",
        "schedules",
        "workflows",
        "init",
        "config",
    ];
    let word =
        |rest: &str| rest.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default().to_owned();
    text.split("dssflow ").skip(1).any(|rest| FIRST.contains(&word(rest).as_str()))
}

/// Runs a command twice, for people and for programs: it must fail with this code, say a hint and a command, and print no
/// data. What it said for people.
#[track_caller]
fn fails(command: impl Fn(&[&str]) -> Command, args: &[&str], exit: i32, code: &str) -> Ran {
    let human = Ran::from(command(args).output().unwrap());
    assert_eq!((human.exit, human.out.as_str()), (exit, ""), "{args:?} {human:?}");
    assert!(human.err.contains(&format!("error[{code}]: ")), "{code}: {args:?} {}", human.err);
    let hints: Vec<&str> = human.err.lines().filter(|line| line.starts_with("hint: ")).collect();
    assert!(hints.iter().any(|hint| has_command(hint)), "no command to type next: {args:?} {}", human.err);

    let mut all = args.to_vec();
    all.extend(["--error-format", "json"]);
    let machine = Ran::from(command(&all).output().unwrap());
    assert_eq!((machine.exit, machine.out.as_str()), (exit, ""), "{args:?} {machine:?}");
    let last = machine.err.lines().last().unwrap_or_default();
    let error: Value =
        serde_json::from_str(last).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", machine.err));
    let error = &error["error"];
    assert_eq!((&error["code"], &error["exit"]), (&json!(code), &json!(exit)), "{args:?} {error}");
    assert!(["user", "config", "store", "run", "internal"].contains(&error["kind"].as_str().unwrap()));
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()) && error["why"].is_array(), "{error}");
    let hints = error["hints"].as_array().unwrap();
    assert!(hints.iter().any(|hint| has_command(hint.as_str().unwrap())), "{args:?} {error}");
    assert!(!human.err.contains('\u{1b}') && !machine.err.contains('\u{1b}'), "{args:?}");
    human
}

#[test]
fn what_is_typed_wrong_is_told() {
    let home = Home::new();
    home.write("site.yaml", EXAMPLE);
    home.write("other.yaml", "site: other\n");
    home.write("odd.json", "{");
    let token = home.write("token", "secret\n");
    std::fs::set_permissions(token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let run = ["run", "bootstrap", "--yes"];
    let over_ssh: Vec<&str> = ["host.transport=ssh", "host.address=a%b", "host.user=root"]
        .iter()
        .flat_map(|value| ["--set", value])
        .collect();
    for (args, exit, code) in [
        (&["rnu"][..], 64, "DF0002"),
        (&["serve", "--token-file", "token"], 64, "DF0002"),
        (&["runs", "ls", "--status", "faild"], 64, "DF0002"),
        (&[&run[..], &["-f", "nowhere.yaml"]].concat(), 64, "DF0003"),
        (&["run", "bootsrap"], 64, "DF0006"),
        (&["run", "bootstrap"], 64, "DF0008"),
        (&["runs", "get", "nobody"], 1, "DF0013"),
        (&["sandbox", "snapshot"], 1, "DF0032"),
        (&["sandbox", "up", "--faults", "odd.json"], 64, "DF0033"),
        (&["sandbox", "up", "--dss", "odd.json"], 64, "DF0152"),
        (&["explain", "DF999"], 64, "DF0041"),
        (&["store", "restore", "other.yaml", "--yes"], 64, "DF0050"),
        (&["serve", "--listen", "0.0.0.0:7477"], 64, "DF0061"),
        (&["serve", "--listen", "127.0.0.1:0", "--token-file", "token"], 64, "DF0062"),
        (
            &["schedules", "create", "a", "--workflow", "bootstrap", "-f", "site.yaml", "--cron", "x"],
            64,
            "DF0071",
        ),
        (&[&run[..], &["--plan", "odd.json"]].concat(), 64, "DF0180"),
        (&run, 4, "DF0020"),
        (&[&run[..], &over_ssh].concat(), 5, "DF0023"),
    ] {
        fails(|args| home.command(args), args, exit, code);
    }
    // The address may stand in a file of settings; then the same token file is looked at.
    home.write("dssflow.toml", "listen = \"127.0.0.1:0\"\n");
    fails(|args| home.command(args), &["serve", "--token-file", "token"], 64, "DF0062");
    home.write("dssflow.toml", "stroe = \"/x\"\n");
    let ran = fails(|args| home.command(args), &["runs", "ls"], 64, "DF0190");
    assert!(ran.err.contains("did you mean store?"), "{}", ran.err);
}

#[test]
fn a_site_that_is_wrong_is_told_by_its_codes() {
    let home = Home::new();
    let (subnets, rest) = EXAMPLE.split_once("  subnets:\n").unwrap();
    let (one, rest) = rest.split_once("\n    - ").unwrap();
    let after = rest.split_once('\n').unwrap().1;
    let cases: BTreeMap<&str, String> = [
        ("DF0101", "a: [\n".to_owned()),
        ("DF0102", EXAMPLE.replace("service_user: dssuser", "service_usr: dssuser")),
        ("DF0103", EXAMPLE.replacen("region: eu-west-1\n", "", 1)),
        ("DF0104", EXAMPLE.replacen("region: eu-west-1", "region: Ireland", 1)),
        (
            "DF0105",
            EXAMPLE
                .replace("access_key_id: { env: OPS_ACCESS_KEY_ID }", "access_key_id: AKIAIOSFODNN7EXAMPLE"),
        ),
        ("DF0106", EXAMPLE.replace("credentials: sales", "credentials: salse")),
        ("DF0107", EXAMPLE.replacen("region: eu-west-1", "region: eu-west-1\nregion: eu-west-2", 1)),
        ("DF0108", format!("{subnets}  subnets:\n{one}\n{after}")),
        ("DF0109", home.run(&["init", "bootstrap", "--offline"]).out),
        ("DF0110", EXAMPLE.replace("data_dir: /data/dss", "data_dir: /opt/dataiku")),
        ("DF0160", EXAMPLE.replacen("    credentials: sales\n", "    credentials: ops\n", 1)),
    ]
    .into();
    for (code, text) in &cases {
        assert_ne!(text, EXAMPLE, "{code}");
        home.write("site.yaml", text);
        let ran = fails(|args| home.command(args), &["run", "bootstrap", "--yes"], 64, "DF0100");
        assert!(ran.err.contains(&format!("[{code}] ")) && ran.err.contains("help: "), "{code}: {}", ran.err);
        assert!(ran.err.contains("nothing was created; `dssflow explain DF01"), "{}", ran.err);
        assert!(!ran.err.contains("AKIAIOSFODNN7EXAMPLE"), "a secret is not repeated");
    }
    assert!(!home.store().exists());
}

/// Runs that failed, of a workflow that the command does not know; one of them of a sandbox that is not there.
async fn seed(home: &Home) {
    std::fs::create_dir_all(home.store().parent().unwrap()).unwrap();
    let store = std::sync::Arc::new(open(&home.store(), "test"));
    let mut activities = ActivityRegistry::new();
    activities
        .add_fn("test.fail", |_: ActivityContext, (): ()| async {
            Err::<(), _>(ActivityError::terminal("Nope", "it cannot be"))
        })
        .unwrap();
    let engine = Engine::builder(store.clone()).activities(activities).build();
    for id in ["lab-1", "lab-2", "gone"] {
        let name = StepName::new("first").unwrap();
        let step = Step::activity(name, ActivityName::new("test.fail").unwrap(), Binding::literal(()));
        let graph = Graph::builder().step(step).build().unwrap();
        let mut start = StartRun::new(WorkflowName::new("test").unwrap(), graph);
        start.id = Some(RunId::new(id).unwrap());
        if id == "gone" {
            start.labels.insert("sandbox".to_owned(), "0123456789abcdef".to_owned());
        }
        engine.start(start).await.unwrap().wait().await.unwrap();
    }
    drop(engine);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_says_what_it_does_not_have_or_allow() {
    let home = Home::new();
    seed(&home).await;
    home.write("site.yaml", EXAMPLE);
    let does = |args: &[&str]| {
        let ran = home.run(args);
        assert_eq!(ran.exit, 0, "{args:?} {ran:?}");
    };
    does(&["store", "backup", "all.ndjson"]);
    let create =
        ["schedules", "create", "nightly", "--workflow", "bootstrap", "-f", "site.yaml", "--every", "1h"];
    does(&create);
    for (args, exit, code, says) in [
        (&["runs", "get", "lab-x"][..], 1, "DF0004", "did you mean lab-"),
        (&["why", "lab"], 1, "DF0005", "lab-1"),
        (&["skip", "lab-1", "frist", "--reason", "r"], 64, "DF0007", "did you mean first?"),
        (&["runs", "logs", "lab-1", "--step", "frist"], 64, "DF0007", "did you mean first?"),
        (&["rollback", "lab-1", "--to", "frist", "--dry-run"], 64, "DF0007", "did you mean first?"),
        (&["approve", "lab-1", "first"], 1, "DF0015", "dssflow why lab-1"),
        (&["resume", "lab-1"], 1, "DF0016", "version"),
        (&["resume", "gone"], 1, "DF0031", "run bootstrap --sandbox"),
        (&["store", "import", "all.ndjson"], 64, "DF0051", "dssflow store restore"),
        (&["schedules", "get", "nigthly"], 1, "DF0070", "did you mean nightly?"),
        (&create, 1, "DF0072", "dssflow schedules update nightly"),
    ] {
        let ran = fails(|args| home.command(args), args, exit, code);
        assert!(ran.err.contains(says), "{says:?} is not in {}", ran.err);
    }
    // A state that is no error: what would fit is offered.
    let ran = home.run(&["runs", "ls", "--workflow", "bootsrap"]);
    assert!(ran.exit == 0 && ran.err.contains("did you mean --workflow bootstrap?"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_says_who_has_it_and_that_it_is_damaged() {
    let home = Home::new();
    seed(&home).await;
    let store = open(&home.store(), "dssflow run of a test");
    let ran = fails(|args| home.command(args), &["runs", "ls"], 8, "DF0010");
    assert!(ran.err.contains("dssflow run of a test"), "{}", ran.err);
    store.close().await.unwrap();
    // Others can read it.
    std::fs::set_permissions(home.store(), std::fs::Permissions::from_mode(0o755)).unwrap();
    fails(|args| home.command(args), &["runs", "ls"], 8, "DF0012");
    std::fs::set_permissions(home.store(), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::remove_file(home.store().join("gen-1/db")).unwrap();
    let ran = fails(|args| home.command(args), &["why"], 8, "DF0011");
    assert!(ran.err.contains("dssflow store restore"), "{}", ran.err);
}

#[test]
fn somebody_says_no() {
    let home = Home::new();
    tokio::runtime::Runtime::new().unwrap().block_on(seed(&home));
    assert_eq!(home.run(&["store", "backup", "all.ndjson"]).exit, 0);
    for (format, expected) in [("human", "error[DF0009]"), ("json", "\"code\":\"DF0009\"")] {
        let tty = Tty::new(200, 40);
        let args = ["store", "restore", "all.ndjson", "--error-format", format];
        let mut child = tty.start(&home.command(&args));
        tty.until("Type yes to go on: ", 0);
        tty.types(b"no\n");
        tty.ends(&mut child, 1);
        let text = tty.text();
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("dssflow explain DF0009"), "a next command: {text}");
    }
}

#[test]
fn a_full_disk_is_told() {
    let home = Home::new();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let on_full = |args: &[&str]| {
        let mut command = home.command(args);
        command.stdout(full());
        Ran::from(command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap())
    };
    let ran = on_full(&["explain"]);
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(ran.err.contains("error[DF0040]") && ran.err.contains("dssflow explain DF0040"), "{}", ran.err);
    let ran = on_full(&["explain", "--error-format", "json"]);
    let error: Value = serde_json::from_str(ran.err.trim()).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
    assert_eq!((&error["error"]["code"], ran.exit), (&json!("DF0040"), 1));
}

#[test]
fn a_sandbox_that_does_not_start_says_so() {
    let home = Home::new();
    let empty = home.dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let without_python = |args: &[&str]| {
        let mut command = home.command(args);
        command.env("PATH", &empty);
        command
    };
    fails(without_python, &["sandbox", "up"], 1, "DF0030");
}

/// What a DSS does not have, in a world whose DSS is installed.
pub(crate) fn of_a_dss(world: &World) {
    for (object, code) in [("nowhere", "DF0150"), ("filesystem_managed", "DF0151")] {
        fails(|args| world.command(args), &["dss", "capture", "connection", object, "--sandbox"], 1, code);
    }
}

#[test]
fn a_world_that_does_not_fit_is_told() {
    let world = World::new();
    let run = |more: &[&'static str]| [&["run", "bootstrap", "--sandbox"][..], more].concat();
    let fails = |args: &[&str], exit, code| fails(|args| world.command(args), args, exit, code);
    fails(&["sandbox", "datasets"], 1, "DF0034");
    fails(&["sandbox", "spoil"], 1, "DF0034");
    fails(&run(&["--set", "expected_account=\"210987654321\""]), 5, "DF0021");
    let ran = fails(&run(&["--set", "cluster.security_groups=[sg-0123456789abcdef0]"]), 5, "DF0022");
    assert!(ran.err.contains("nothing was created"), "{}", ran.err);
    world.does(&["plan", "bootstrap", "--sandbox", "--out", "plan.json"], 0);
    world.faults(&json!([{ "target": "aws", "op": "glue:CreateDatabase",
        "action": { "error": { "status": 400, "code": "AccessDeniedException", "message": "made to fail" } } }]));
    // What fails for good ends the run, and what it left and comes next is printed; that is no error of the command.
    let ran = world.does(&run(&[]), 1);
    for part in
        ["failed: glue-database", "AccessDenied", "still there:", "dssflow resume", "dssflow rollback"]
    {
        assert!(ran.out.contains(part), "{part:?} is not in {}", ran.out);
    }
    // The world moved since the plan was made, and a run of the site is not finished.
    fails(&run(&["--plan", "plan.json"]), 5, "DF0181");
    fails(&run(&["--set", "cluster.mode=sdk"]), 3, "DF0017");
    let wrong =
        ["complete", "@latest", "glue-database-dss_main", "--reason", "r", "--output", "\"nonsense\""];
    fails(&wrong, 64, "DF0018");

    // What would be taken back is what is taken back.
    let dry: Value =
        serde_json::from_str(&world.does(&["rollback", "@latest", "--dry-run", "-o", "json"], 0).out)
            .unwrap();
    let would: BTreeSet<&str> =
        dry["takes_back"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert!(would.len() > 5, "{dry}");
    let table = world.does(&["rollback", "@latest", "--dry-run"], 0).out;
    assert!(table.contains("steps to take back") && table.contains("nothing was changed"), "{table}");
    assert_eq!(world.view()["status"], "failed", "nothing was changed");
    world.faults(&json!([]));
    world.does(&["rollback", "@latest"], 0);
    let view = world.view();
    // Some find when they look that what they made has to stay, as packages that others use by now.
    let looked_at = ["compensated", "kept"];
    let steps = view["steps"].as_array().unwrap().iter();
    let went = steps
        .filter(|step| looked_at.contains(&step["status"].as_str().unwrap()))
        .map(|step| step["step"].as_str().unwrap());
    assert_eq!(went.collect::<BTreeSet<_>>(), would);
}
